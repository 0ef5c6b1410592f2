#include "control/hd_tokens.h"
#include "core/base/hd_array.h"
#include "core/base/hd_log.h"
#include "core/base/hd_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (1 << 20)
#define TOKENS_MAX 10000
#define TOKEN_BYTES_MIN 16
#define PATH_BYTES 1024

typedef struct {
    uint8_t digest[SHA256_DIGEST_LENGTH]; /* of the token: equal length for the compare */
    hd_str_t namespace, account;
} entry_t;

struct hd_tokens_s {
    char path[PATH_BYTES];
    struct timespec mtime;
    off_t size;
    hd_pool_t *pool; /* of the content in force; NULL: none */
    hd_array_t entries;
};

static bool is_dns_label(hd_str_t s)
{
    if (s.len == 0 || s.len > 253)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.'))
            return false;
    }
    return true;
}

static bool take_word(hd_str_t *rest, hd_str_t *word)
{
    *rest = hd_str_trim(*rest);
    return hd_str_split(rest, ' ', word) && word->len > 0;
}

static hd_rc_t parse_line(hd_tokens_t *t, hd_pool_t *pool, hd_array_t *entries,
                          hd_str_t line, unsigned line_no, hd_err_t *err)
{
    hd_str_t rest = hd_str_trim(line), token, namespace, account;
    entry_t *e;

    if (rest.len == 0 || rest.data[0] == '#')
        return HD_OK;
    if (!take_word(&rest, &token) || !take_word(&rest, &namespace) ||
        !take_word(&rest, &account) || hd_str_trim(rest).len > 0)
        return hd_err_set(err, HD_E_CONF,
                          "%s:%u: three words are expected: TOKEN NAMESPACE "
                          "SERVICE-ACCOUNT",
                          t->path, line_no);
    if (token.len < TOKEN_BYTES_MIN)
        return hd_err_set(err, HD_E_CONF, "%s:%u: a token has at least %d bytes", t->path,
                          line_no, TOKEN_BYTES_MIN);
    if (!is_dns_label(namespace) || !is_dns_label(account))
        return hd_err_set(err, HD_E_CONF,
                          "%s:%u: namespace and service account are made of a-z, "
                          "0-9, '-' and '.'",
                          t->path, line_no);
    e = hd_array_add(entries);
    if (e == NULL)
        return hd_err_set(err, HD_E_CONF, "%s: more than %d tokens", t->path, TOKENS_MAX);
    SHA256((const uint8_t *)token.data, token.len, e->digest);
    e->namespace = hd_str_dup(pool, namespace);
    e->account = hd_str_dup(pool, account);
    return HD_OK;
}

static hd_rc_t parse(hd_tokens_t *t, hd_str_t text, hd_err_t *err)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_array_t entries;
    hd_str_t line;
    unsigned line_no = 0;

    hd_array_init(&entries, pool, sizeof(entry_t), TOKENS_MAX);
    while (hd_str_split(&text, '\n', &line)) {
        if (parse_line(t, pool, &entries, line, ++line_no, err) != HD_OK) {
            hd_pool_destroy(pool);
            return HD_ERROR;
        }
    }
    if (t->pool != NULL)
        hd_pool_destroy(t->pool);
    t->pool = pool;
    t->entries = entries;
    return HD_OK;
}

/* Whoever reads a token is who it belongs to. */
static hd_rc_t check_mode(const char *path, const struct stat *st, hd_err_t *err)
{
    return (st->st_mode & 07) == 0
               ? HD_OK
               : hd_err_set(err, HD_E_CONF, "%s is readable by others: chmod 600 it",
                            path);
}

static hd_rc_t read_fd(hd_tokens_t *t, int fd, const struct stat *st, hd_err_t *err)
{
    char *text;
    ssize_t n;
    hd_rc_t rc;

    if (check_mode(t->path, st, err) != HD_OK)
        return HD_ERROR;
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return hd_err_set(err, HD_E_CONF, "%s belongs to another user", t->path);
    if (st->st_size > FILE_BYTES_MAX)
        return hd_err_set(err, HD_E_CONF, "%s has more than 1 MB", t->path);
    text = malloc((size_t)st->st_size + 1);
    hd_bug_on(text == NULL);
    n = read(fd, text, (size_t)st->st_size);
    if (n < 0)
        rc = hd_err_set_sys(err, errno, "can't read %s", t->path);
    else
        rc = parse(t, hd_str_n(text, (size_t)n), err);
    OPENSSL_cleanse(text, (size_t)st->st_size);
    free(text);
    return rc;
}

hd_rc_t hd_tokens_refresh(hd_tokens_t *t, hd_err_t *err)
{
    int fd = open(t->path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    hd_rc_t rc = HD_OK;

    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = errno == EACCES
                 ? hd_err_set(err, HD_E_CONF,
                              "can't open %s: Permission denied: it must belong to the "
                              "user that heddle runs as",
                              t->path)
                 : hd_err_set_sys(err, errno, "can't open %s", t->path);
    } else if (t->pool == NULL || st.st_size != t->size ||
               st.st_mtim.tv_sec != t->mtime.tv_sec ||
               st.st_mtim.tv_nsec != t->mtime.tv_nsec) {
        rc = read_fd(t, fd, &st, err);
        t->mtime = st.st_mtim;
        t->size = st.st_size;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

void hd_tokens_renew(hd_tokens_t *t)
{
    hd_err_t err = {0};

    if (hd_tokens_refresh(t, &err) != HD_OK)
        hd_log(HD_LOG_ERROR, "control: %s; the last good tokens stay in force", err.text);
}

hd_tokens_t *hd_tokens_open(hd_str_t path, hd_err_t *err)
{
    hd_tokens_t *t = calloc(1, sizeof(*t));

    hd_bug_on(t == NULL);
    if (path.len >= sizeof(t->path)) {
        hd_ignore(hd_err_set(err, HD_E_CONF, "path too long"));
        free(t);
        return NULL;
    }
    memcpy(t->path, path.data, path.len);
    if (hd_tokens_refresh(t, err) != HD_OK) {
        hd_tokens_close(t);
        return NULL;
    }
    return t;
}

hd_rc_t hd_tokens_check(hd_str_t path, hd_err_t *err)
{
    char text[PATH_BYTES];
    struct stat st;

    if (path.len >= sizeof(text))
        return hd_err_set(err, HD_E_CONF, "path too long");
    memcpy(text, path.data, path.len);
    text[path.len] = '\0';
    return stat(text, &st) == 0 ? check_mode(text, &st, err)
                                : hd_err_set_sys(err, errno, "can't open %s", text);
}

void hd_tokens_close(hd_tokens_t *t)
{
    if (t->pool != NULL)
        hd_pool_destroy(t->pool);
    free(t);
}

bool hd_tokens_find(hd_tokens_t *t, hd_str_t token, hd_caller_t *caller)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    bool found = false;

    SHA256((const uint8_t *)token.data, token.len, digest);
    for (size_t i = 0; i < t->entries.n; i++) {
        const entry_t *e = hd_array_at(&t->entries, entry_t, i);

        if (CRYPTO_memcmp(e->digest, digest, sizeof(digest)) == 0) {
            caller->namespace = e->namespace;
            caller->account = e->account;
            found = true; /* no early end: the time tells nothing */
        }
    }
    return found;
}
