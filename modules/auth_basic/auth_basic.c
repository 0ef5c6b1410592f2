/* auth_basic: who asks, by a name and a password (RFC 7617):
 *     auth_basic "closed site";
 *     auth_basic_user_file conf/htpasswd;
 * The file has lines NAME:PASSWORD[:COMMENT], as htpasswd and openssl passwd make them.
 * Each worker reads it itself, anew when it has changed. Passwords that were checked are
 * remembered as keyed hashes, right ones and wrong ones, so that a slow hash is computed
 * once for each and not for each request. */
#include "password.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CREDENTIALS_MAX 1024
#define FILE_BYTES_MAX (16u << 20)
#define FILES_MAX 64    /* beyond it those named by variables are read each time anew */
#define REMEMBERED 1024 /* a power of two */
#define DIGEST_BYTES 32

typedef struct {
    const hd_expr_t *realm; /* NULL or "off": anybody may */
    const hd_expr_t *file;
} auth_conf_t;

/* --- the files --- */

typedef struct {
    char *path;
    struct timespec changed;
    off_t size;
    ino_t inode;
    hd_str_t text; /* ends with NUL; on the heap */
} user_file_t;

static user_file_t files[FILES_MAX];
static unsigned files_n;

static void free_file(user_file_t *f)
{
    free(f->path);
    free((char *)(uintptr_t)f->text.data);
    *f = (user_file_t){0};
}

static bool is_current(const user_file_t *f, const struct stat *st)
{
    return f->text.data != NULL && f->size == st->st_size && f->inode == st->st_ino &&
           f->changed.tv_sec == st->st_mtim.tv_sec &&
           f->changed.tv_nsec == st->st_mtim.tv_nsec;
}

static user_file_t *find_file(const char *path)
{
    for (unsigned i = 0; i < files_n; i++) {
        if (strcmp(files[i].path, path) == 0)
            return &files[i];
    }
    if (files_n == FILES_MAX)
        free_file(&files[--files_n]);
    files[files_n].path = strdup(path);
    hd_bug_on(files[files_n].path == NULL);
    return &files[files_n++];
}

static bool read_all(int fd, char *to, size_t n)
{
    while (n > 0) {
        ssize_t got = read(fd, to, n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        n -= (size_t)got;
    }
    return true;
}

/* 0, or errno: <f> is what the file says now. */
static int refresh(user_file_t *f, const char *path)
{
    struct stat st;
    char *text;
    int fd, error = 0;

    if (stat(path, &st) != 0)
        return errno;
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX)
        return S_ISREG(st.st_mode) ? EFBIG : EISDIR;
    if (is_current(f, &st))
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno;
    text = calloc(1, (size_t)st.st_size + 1);
    hd_bug_on(text == NULL);
    if (fstat(fd, &st) != 0 || !read_all(fd, text, (size_t)st.st_size))
        error = errno != 0 ? errno : EIO;
    hd_ignore(close(fd)); /* read only */
    if (error != 0) {
        free(text);
        return error;
    }
    free((char *)(uintptr_t)f->text.data);
    f->text = hd_str_n(text, (size_t)st.st_size);
    f->size = st.st_size;
    f->inode = st.st_ino;
    f->changed = st.st_mtim;
    return 0;
}

/* What stands behind <user>, in <pool>; false: nobody of that name. */
static bool find_user(hd_pool_t *pool, hd_str_t text, hd_str_t user, hd_str_t *stored)
{
    hd_str_t line;

    while (hd_str_split(&text, '\n', &line)) {
        hd_str_t name, rest = line;

        if (line.len > 0 && line.data[line.len - 1] == '\r')
            rest.len--;
        if (rest.len == 0 || rest.data[0] == '#' || hd_str_find_char(rest, ':') < 0 ||
            !hd_str_split(&rest, ':', &name) || !hd_str_eq(name, user))
            continue;
        if (!hd_str_split(&rest, ':', stored))
            *stored = HD_STR_NONE;
        *stored = hd_str_dup(pool, *stored); /* it ends with NUL */
        return true;
    }
    return false;
}

/* --- what was checked --- */

typedef struct {
    uint8_t digest[DIGEST_BYTES];
    bool is_known, is_right;
} remembered_t;

static remembered_t remembered[REMEMBERED];
static uint8_t secret[DIGEST_BYTES];

/* Of password and hash, which is salted: a key that nobody can guess is part of it. */
static void digest_of(hd_str_t password, hd_str_t stored, uint8_t out[DIGEST_BYTES])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint64_t len = password.len;

    hd_bug_on(md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1 ||
              EVP_DigestUpdate(md, secret, sizeof(secret)) != 1 ||
              EVP_DigestUpdate(md, &len, sizeof(len)) != 1 ||
              EVP_DigestUpdate(md, password.data, password.len) != 1 ||
              EVP_DigestUpdate(md, stored.data, stored.len) != 1 ||
              EVP_DigestFinal_ex(md, out, NULL) != 1);
    EVP_MD_CTX_free(md);
}

static password_t check(hd_str_t password, hd_str_t stored)
{
    uint8_t digest[DIGEST_BYTES];
    remembered_t *r;
    password_t verdict;

    if (password.len > 0 && memchr(password.data, 0, password.len) != NULL)
        return PASSWORD_WRONG; /* crypt(3) would end there */
    digest_of(password, stored, digest);
    r = &remembered[(digest[0] | (unsigned)digest[1] << 8) & (REMEMBERED - 1)];
    if (r->is_known && memcmp(r->digest, digest, sizeof(digest)) == 0)
        return r->is_right ? PASSWORD_RIGHT : PASSWORD_WRONG;
    verdict = password_check(password, stored);
    if (verdict != PASSWORD_RIGHT && verdict != PASSWORD_WRONG)
        return verdict;
    memcpy(r->digest, digest, sizeof(digest));
    r->is_known = true;
    r->is_right = verdict == PASSWORD_RIGHT;
    return verdict;
}

/* --- requests --- */

/* A CONNECT asks a proxy, which has fields and a status of its own (RFC 9110 §11.7). */
static bool is_proxy(hd_req_t *req)
{
    return hd_str_eq(hd_req_method(req), HD_STR("CONNECT"));
}

/* Name and password out of the field; both end with NUL. */
static bool read_credentials(hd_req_t *req, hd_str_t *user, hd_str_t *password)
{
    hd_str_t name =
        is_proxy(req) ? HD_STR("Proxy-Authorization") : HD_STR("Authorization");
    hd_str_t field = hd_req_header(req, name, NULL);
    ssize_t colon;
    char *text;
    size_t n;

    if (!hd_str_has_prefix_nocase(field, HD_STR("Basic ")) || field.len > CREDENTIALS_MAX)
        return false;
    field = hd_str_trim(hd_str_sub(field, 6, field.len));
    text = hd_pool_alloc(hd_req_pool(req), HD_BASE64_BYTES_MAX(field.len));
    if (!hd_base64_decode(field, HD_BASE64, HD_BASE64_LOOSE, text, &n))
        return false;
    colon = hd_str_find_char(hd_str_n(text, n), ':');
    if (colon <= 0)
        return false;
    *user = hd_str_dup(hd_req_pool(req), hd_str_n(text, (size_t)colon));
    *password =
        hd_str_dup(hd_req_pool(req), hd_str_n(text + colon + 1, n - (size_t)colon - 1));
    return true;
}

/* 401, 407; a quote in the realm would end it. */
static hd_rc_t challenge(hd_req_t *req, hd_str_t realm)
{
    hd_rc_t rc = hd_req_answer(req, is_proxy(req) ? 407 : 401, HD_STR_NONE, HD_STR_NONE,
                               NULL, "auth_basic_denied");

    if (hd_res_add_header(req,
                          is_proxy(req) ? HD_STR("Proxy-Authenticate")
                                        : HD_STR("WWW-Authenticate"),
                          hd_str_printf(hd_req_pool(req), "Basic realm=\"%.*s\"",
                                        HD_STR_ARG(realm))) != HD_OK)
        return HD_ERROR;
    return rc;
}

static hd_rc_t judge(hd_req_t *req, hd_str_t realm, hd_str_t path, hd_str_t user,
                     hd_str_t password)
{
    const char *name = hd_str_to_c(hd_req_pool(req), path);
    user_file_t *f = find_file(name);
    int error = refresh(f, name);
    hd_str_t stored;

    if (error != 0)
        return hd_req_fail(req, error == ENOENT ? 403 : 500, HD_E_DENIED,
                           "open() \"%s\" failed (%d: %s)", name, error, strerror(error));
    if (!find_user(hd_req_pool(req), f->text, user, &stored)) {
        hd_req_log(req, HD_LOG_ERROR, "user \"%.*s\" was not found in \"%s\"",
                   HD_STR_ARG(user), name);
        return challenge(req, realm);
    }
    switch (check(password, stored)) {
    case PASSWORD_RIGHT:
        return HD_OK;
    case PASSWORD_WRONG:
        hd_req_log(req, HD_LOG_ERROR, "user \"%.*s\": password mismatch",
                   HD_STR_ARG(user));
        return challenge(req, realm);
    case PASSWORD_TOO_SLOW:
        return hd_req_fail(req, 500, HD_E_DENIED,
                           "user \"%.*s\": its hash would hold a worker up: bcrypt of "
                           "cost 8, 10000 rounds of $5$ or $6$ at most",
                           HD_STR_ARG(user));
    default:
        return hd_req_fail(req, 500, HD_E_DENIED,
                           "user \"%.*s\": a hash of an unknown kind in \"%s\"",
                           HD_STR_ARG(user), name);
    }
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const auth_conf_t *ac = conf;
    hd_str_t realm, path, user, password;

    if (ac->realm == NULL || ac->file == NULL)
        return HD_DECLINED;
    if (hd_expr_eval(ac->realm, req, &realm) != HD_OK ||
        hd_expr_eval(ac->file, req, &path) != HD_OK)
        return hd_req_fail(req, 500, HD_E_DENIED, "auth_basic: no realm or no file");
    if (hd_str_eq(realm, HD_STR("off")))
        return HD_DECLINED;
    if (!read_credentials(req, &user, &password)) {
        hd_req_log(req, HD_LOG_INFO,
                   "no user/password was provided for basic "
                   "authentication");
        return challenge(req, realm);
    }
    return judge(req, realm, path, user, password);
}

static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    (void)m, (void)loop;
    return RAND_bytes(secret, sizeof(secret)) == 1
               ? HD_OK
               : hd_err_set(err, HD_E_SYS, "no random bytes");
}

static void on_process_stop(hd_member_t *m)
{
    (void)m;
    while (files_n > 0)
        free_file(&files[--files_n]);
}

/* --- the directives --- */

static hd_rc_t compile(hd_conf_t *cf, hd_str_t text, const hd_expr_t **to, hd_err_t *err)
{
    hd_expr_t *expr;

    if (hd_expr_compile(cf, text, &expr, err) != HD_OK)
        return HD_ERROR;
    *to = expr;
    return HD_OK;
}

static hd_rc_t set_realm(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return compile(cf, args[0], &((auth_conf_t *)conf)->realm, err);
}

static hd_rc_t set_file(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return compile(cf, hd_conf_path(cf, args[0], true), &((auth_conf_t *)conf)->file,
                   err);
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_LIMIT_EXCEPT)

static const hd_directive_t directives[] = {
    {.name = "auth_basic",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_realm,
     .help = "REALM | off: a name and a password are asked for"},
    {.name = "auth_basic_user_file",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_file,
     .help =
         "FILE: lines NAME:PASSWORD, hashed by crypt, apr1, {SHA}, {SSHA} or {PLAIN}"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "auth_basic",
    .directives = directives,
    .conf_size = sizeof(auth_conf_t),
    .phase = HD_PHASE_ACCESS,
    .order = 1, /* behind access, as in nginx */
    .follows_rewrite = true,
    .on_process_start = on_process_start,
    .on_process_stop = on_process_stop,
    .on_request_headers = on_request_headers,
};
