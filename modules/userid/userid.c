/* userid: clients are told apart by a cookie of their own:
 *     userid on; userid_name uid; userid_expires 365d;
 * $uid_got is what came with the request, $uid_set what was sent. The number in it is made
 * of the server's address, the time, the process and a count, as nginx makes it. */
#include "hd_module.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

extern const hd_module_t hd_module;

#define UID_WORDS 4
#define UID_BYTES 16
#define TEXT_BYTES 22 /* base64 of them, without padding */
#define FIRST_COUNT 0x03030302u
#define EXPIRES_MAX UINT64_MAX

enum { USERID_OFF, USERID_LOG, USERID_V1, USERID_ON };
enum { SAMESITE_NONE_GIVEN, SAMESITE_STRICT, SAMESITE_LAX, SAMESITE_NONE };

typedef struct {
    uint32_t enable;
    uint32_t service, samesite;
    bool has_service, is_secure, is_httponly;
    char mark; /* 0: none */
    uint64_t expires_s; /* 0: none */
    hd_str_t name, domain, path, p3p; /* empty, not given: uid, none, /, none */
    hd_attr_t cookie, reset; /* $cookie_NAME, $uid_reset */
} userid_conf_t;

/* A number as in a cookie: its bytes, and as words of this machine in logs. */
typedef union {
    uint32_t words[UID_WORDS];
    uint8_t bytes[UID_BYTES];
} number_t;

typedef struct {
    number_t got, set; /* last word 0: none */
    char mark;         /* behind the one that came */
    bool is_read, is_made;
} state_t;

/* --- directives --- */

static const hd_conf_enum_t modes[] = {{"off", USERID_OFF},
                                       {"log", USERID_LOG},
                                       {"v1", USERID_V1},
                                       {"on", USERID_ON},
                                       {0}};

static hd_rc_t set_expires(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    userid_conf_t *uc = conf;
    uint64_t ms;

    (void)cf;
    uc->expires_s = 0;
    if (hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    if (hd_str_eq(args[0], HD_STR("max"))) {
        uc->expires_s = EXPIRES_MAX;
        return HD_OK;
    }
    if (hd_parse_msec(args[0], &ms, NULL) != HD_OK || ms < 1000)
        return hd_err_set(err, HD_E_CONF,
                          "invalid value \"%.*s\": a time as 365d, max or off is allowed",
                          HD_STR_ARG(args[0]));
    uc->expires_s = ms / 1000;
    return HD_OK;
}

static hd_rc_t set_mark(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t value = args[0];
    char c = value.len == 1 ? value.data[0] : '\0';
    bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

    (void)cf;
    if (!hd_str_eq(value, HD_STR("off")) && !is_letter && c != '=' &&
        (c < '0' || c > '9'))
        return hd_err_set(err, HD_E_CONF,
                          "invalid value \"%.*s\": a letter, a digit, = or off is "
                          "allowed",
                          HD_STR_ARG(value));
    ((userid_conf_t *)conf)->mark = c;
    return HD_OK;
}

static hd_rc_t set_flags(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    userid_conf_t *uc = conf;

    uc->is_secure = uc->is_httponly = false;
    uc->samesite = SAMESITE_NONE_GIVEN;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (hd_str_eq(args[i], HD_STR("off")) && cf->node->args_n == 1)
            return HD_OK;
        if (hd_str_eq(args[i], HD_STR("secure")))
            uc->is_secure = true;
        else if (hd_str_eq(args[i], HD_STR("httponly")))
            uc->is_httponly = true;
        else if (hd_str_eq(args[i], HD_STR("samesite=strict")))
            uc->samesite = SAMESITE_STRICT;
        else if (hd_str_eq(args[i], HD_STR("samesite=lax")))
            uc->samesite = SAMESITE_LAX;
        else if (hd_str_eq(args[i], HD_STR("samesite=none")))
            uc->samesite = SAMESITE_NONE;
        else
            return hd_err_set(err, HD_E_CONF,
                              "invalid flag \"%.*s\": secure, httponly, samesite=strict, "
                              "samesite=lax and samesite=none are known, or off alone",
                              HD_STR_ARG(args[i]));
    }
    return HD_OK;
}

static hd_rc_t set_service(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    userid_conf_t *uc = conf;
    uint64_t n;

    (void)cf;
    if (!hd_str_to_u64(args[0], UINT32_MAX, &n))
        return hd_err_set(err, HD_E_CONF, "invalid number \"%.*s\": 0 to 4294967295",
                          HD_STR_ARG(args[0]));
    uc->service = (uint32_t)n;
    uc->has_service = true;
    return HD_OK;
}

/* What goes into a field as it stands. */
static hd_rc_t keep_text(hd_conf_t *cf, hd_str_t text, const char *end, hd_str_t *out,
                         hd_err_t *err)
{
    *out = HD_STR_NONE;
    if (hd_str_eq(text, hd_str_c(end)))
        return HD_OK;
    if (!hd_http_is_field_value(text) || hd_str_find_char(text, ';') >= 0)
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" can't stand in a cookie",
                          HD_STR_ARG(text));
    *out = hd_str_dup(cf->pool, text);
    return HD_OK;
}

static hd_rc_t set_domain(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return keep_text(cf, args[0], "none", &((userid_conf_t *)conf)->domain, err);
}

static hd_rc_t set_path(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return keep_text(cf, args[0], "", &((userid_conf_t *)conf)->path, err);
}

static hd_rc_t set_p3p(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t *p3p = &((userid_conf_t *)conf)->p3p;

    *p3p = HD_STR_NONE;
    if (hd_str_eq(args[0], HD_STR("none")))
        return HD_OK;
    if (!hd_http_is_field_value(args[0]))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is no value of a field",
                          HD_STR_ARG(args[0]));
    *p3p = hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

static hd_rc_t set_name(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    if (!hd_http_is_field_name(args[0])) /* a token, as a cookie's name (RFC 6265 §4.1) */
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" can't name a cookie",
                          HD_STR_ARG(args[0]));
    ((userid_conf_t *)conf)->name = hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

static hd_str_t name_of(const userid_conf_t *uc)
{
    return uc->name.len > 0 ? uc->name : HD_STR("uid");
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    userid_conf_t *uc = conf;
    hd_str_t cookie;

    if (uc->enable == USERID_OFF)
        return HD_OK;
    cookie = hd_str_printf(cf->temp, "cookie_%.*s", HD_STR_ARG(name_of(uc)));
    if (hd_str_eq(uc->cookie.name, cookie))
        return HD_OK; /* an outer block's */
    if (hd_attr_key(cf->pool, cookie, false, &uc->cookie, err) != HD_OK)
        return HD_ERROR;
    return hd_attr_key(cf->pool, HD_STR("uid_reset"), false, &uc->reset, err);
}

/* --- numbers --- */

/* What came with the request; logged where it is none. */
static void read_number(hd_req_t *req, const userid_conf_t *uc, state_t *s)
{
    uint8_t bytes[HD_BASE64_BYTES_MAX(TEXT_BYTES)];
    hd_attr_of_t of = hd_req_attr_of(req);
    hd_str_t text = hd_attr_text(&of, &uc->cookie);
    size_t n = 0;

    s->is_read = true;
    if (text.len == 0)
        return;
    if (text.len < TEXT_BYTES) {
        hd_req_log(req, HD_LOG_ERROR, "client sent too short userid cookie \"%.*s\"",
                   HD_STR_ARG(text));
        return;
    }
    if (!hd_base64_decode(hd_str_sub(text, 0, TEXT_BYTES), HD_BASE64, HD_BASE64_LOOSE,
                          bytes, &n) ||
        n != UID_BYTES) {
        hd_req_log(req, HD_LOG_ERROR, "client sent invalid userid cookie \"%.*s\"",
                   HD_STR_ARG(text));
        return;
    }
    memcpy(s->got.bytes, bytes, UID_BYTES);
    if (text.len >= TEXT_BYTES + 2 && text.data[TEXT_BYTES + 1] == '=')
        s->mark = text.data[TEXT_BYTES];
}

/* The last four bytes of the address that the client came to. */
static uint32_t local_word(hd_req_t *req)
{
    const hd_conn_t *c = hd_req_conn(req);
    const hd_addr_t *a = c != NULL ? hd_conn_local(c) : NULL;
    uint32_t word = 0;

    if (a != NULL && a->family == AF_INET)
        memcpy(&word, a->v4, sizeof(word));
    else if (a != NULL && a->family == AF_INET6)
        memcpy(&word, a->v6 + 12, sizeof(word));
    return word;
}

static void make_number(hd_req_t *req, const userid_conf_t *uc, number_t *n)
{
    static uint32_t start, count = FIRST_COUNT, count_v1 = 1;
    uint32_t now = (uint32_t)(hd_loop_wall_ns(hd_req_loop(req)) / 1000000000);

    if (start == 0 && getrandom(&start, sizeof(start), GRND_NONBLOCK) != sizeof(start))
        start = (uint32_t)getpid() << 16 | (now & 0xffff); /* no entropy yet */
    start |= start == 0;
    if (uc->enable == USERID_V1) {
        *n = (number_t){.words = {uc->service, now, start, count_v1}};
        count_v1 += 0x100;
        return;
    }
    *n = (number_t){.words = {uc->has_service ? htonl(uc->service) : local_word(req),
                              htonl(now), htonl(start), htonl(count)}};
    count += 0x100;
    if (count < FIRST_COUNT)
        count = FIRST_COUNT;
}

static bool is_there(const number_t *n)
{
    return n->words[UID_WORDS - 1] != 0;
}

static hd_str_t text_of(hd_pool_t *pool, const userid_conf_t *uc, const number_t *n)
{
    return hd_str_printf(pool, "%.*s=%08X%08X%08X%08X", HD_STR_ARG(name_of(uc)),
                         n->words[0], n->words[1], n->words[2], n->words[3]);
}

static state_t *state_of(hd_req_t *req, const userid_conf_t *uc)
{
    state_t *s = hd_req_state(req, &hd_module);

    if (s == NULL) {
        s = hd_pool_new(hd_req_pool(req), state_t);
        hd_req_set_state(req, &hd_module, s);
    }
    if (!s->is_read)
        read_number(req, uc, s);
    return s;
}

/* Is the number that came to be forgotten? $uid_reset, neither empty nor 0. */
static bool is_reset(hd_req_t *req, const userid_conf_t *uc, const state_t *s)
{
    hd_attr_of_t of = hd_req_attr_of(req);
    hd_str_t word = hd_attr_text(&of, &uc->reset);

    if (word.len == 0 || hd_str_eq(word, HD_STR("0")))
        return false;
    if (hd_str_eq(word, HD_STR("log")))
        hd_req_log(req, HD_LOG_NOTICE, "userid cookie \"%.*s\" was reset",
                   HD_STR_ARG(text_of(hd_req_pool(req), uc, &s->got)));
    return true;
}

/* The number that the client is sent, once; none where it has one, with the right mark. */
static state_t *state_with_set(hd_req_t *req, const userid_conf_t *uc)
{
    state_t *s = state_of(req, uc);

    if (s->is_made)
        return s;
    s->is_made = true;
    if (!is_there(&s->got) || is_reset(req, uc, s))
        make_number(req, uc, &s->set);
    else if (uc->mark != '\0' && s->mark != uc->mark)
        s->set = s->got;
    return s;
}

/* --- the cookie --- */

/* RFC 6265's date in the older form, as nginx writes it: two digits of a year while that
 * has one meaning. */
static hd_str_t cookie_date(hd_pool_t *pool, int64_t s)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = (time_t)s;
    struct tm tm;

    gmtime_r(&t, &tm);
    return hd_str_printf(pool, "%.3s, %02d-%.3s-%02d %02d:%02d:%02d GMT",
                         days + tm.tm_wday * 3, tm.tm_mday, months + tm.tm_mon * 3,
                         tm.tm_year + 1900 > 2037 ? tm.tm_year + 1900 : tm.tm_year % 100,
                         tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static hd_str_t expires_text(hd_req_t *req, const userid_conf_t *uc)
{
    hd_pool_t *pool = hd_req_pool(req);
    int64_t now = hd_loop_wall_ns(hd_req_loop(req)) / 1000000000;
    hd_str_t date;

    if (uc->expires_s == 0)
        return HD_STR_NONE;
    date = uc->expires_s == EXPIRES_MAX ? HD_STR("Thu, 31-Dec-37 23:55:55 GMT")
                                        : cookie_date(pool, now + (int64_t)uc->expires_s);
    return hd_str_printf(pool, "; expires=%.*s", HD_STR_ARG(date));
}

static hd_rc_t add_cookie(hd_req_t *req, const userid_conf_t *uc, const number_t *n)
{
    static const char *const samesite[] = {"", "; samesite=strict", "; samesite=lax",
                                           "; samesite=none"};
    hd_pool_t *pool = hd_req_pool(req);
    hd_str_t number = hd_base64_encode(pool, HD_BASE64, n->bytes, UID_BYTES);
    hd_str_t path = uc->path.len > 0 ? uc->path : HD_STR("/");
    hd_str_t expires = expires_text(req, uc);

    return hd_res_add_header(
        req, HD_STR("Set-Cookie"),
        hd_str_printf(pool, "%.*s=%.*s%c=%.*s%s%.*s; path=%.*s%s%s%s",
                      HD_STR_ARG(name_of(uc)),
                      HD_STR_ARG(hd_str_sub(number, 0, TEXT_BYTES)),
                      uc->mark != '\0' ? uc->mark : '=', HD_STR_ARG(expires),
                      uc->domain.len > 0 ? "; domain=" : "", HD_STR_ARG(uc->domain),
                      HD_STR_ARG(path), uc->is_secure ? "; secure" : "",
                      uc->is_httponly ? "; httponly" : "", samesite[uc->samesite]));
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const userid_conf_t *uc = conf;
    const state_t *s;

    if (uc->enable < USERID_V1 || hd_req_is_sub(req))
        return HD_OK;
    s = state_with_set(req, uc);
    if (!is_there(&s->set))
        return HD_OK;
    if (add_cookie(req, uc, &s->set) != HD_OK)
        return HD_ERROR;
    return uc->p3p.len > 0 ? hd_res_add_header(req, HD_STR("P3P"), uc->p3p) : HD_OK;
}

/* --- variables --- */

static void get_got(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    const userid_conf_t *uc = hd_req_conf(of->req, &hd_module);
    const state_t *s;

    (void)rest;
    if (uc == NULL || uc->enable == USERID_OFF)
        return;
    s = state_of(of->req, uc);
    if (is_there(&s->got))
        hd_val_set_str(out, text_of(of->pool, uc, &s->got));
}

static void get_set(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    const userid_conf_t *uc = hd_req_conf(of->req, &hd_module);
    const state_t *s;

    (void)rest;
    if (uc == NULL || uc->enable < USERID_V1)
        return;
    s = state_with_set(of->req, uc);
    if (is_there(&s->set))
        hd_val_set_str(out, text_of(of->pool, uc, &s->set));
}

/* Empty until configuration sets it. */
static void get_reset(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)of, (void)rest;
    hd_val_set_str(out, HD_STR(""));
}

static const hd_attr_def_t attributes[] = {
    {.name = "uid_got",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_got,
     .help = "the cookie's name and number as it came"},
    {.name = "uid_set",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_set,
     .help = "the cookie's name and number as it is sent; none if none is"},
    {.name = "uid_reset",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE | HD_ATTR_KEPT | HD_ATTR_SETTABLE,
     .get = get_reset,
     .help = "set it, and a new cookie is sent; log: that is logged, too"},
    {0},
};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)
#define ONE(NAME, SET, HELP)                                                             \
    {                                                                                    \
        .name = NAME, .scope = IN_ANY, .args_n = 1, .set = SET, .help = HELP             \
    }

static const hd_directive_t directives[] = {
    {.name = "userid",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = offsetof(userid_conf_t, enable),
     .post = modes,
     .help = "on|v1|log|off: clients without the cookie get one, in the newer or the "
             "older form; log: those that come are told by $uid_got; off"},
    ONE("userid_name", set_name, "NAME: of the cookie; uid"),
    ONE("userid_domain", set_domain, "DOMAIN|none: for which it is; none"),
    ONE("userid_path", set_path, "PATH: for which it is; /"),
    ONE("userid_expires", set_expires,
        "TIME|max|off: for how long browsers keep it; off: while they run"),
    ONE("userid_mark", set_mark,
        "LETTER|DIGIT|=|off: ends the number; a cookie with another one is sent anew, "
        "with the same number; off"),
    ONE("userid_p3p", set_p3p, "TEXT|none: a field P3P beside the cookie; none"),
    ONE("userid_service", set_service,
        "NUMBER: begins the numbers of this server; its address's last four bytes"),
    {.name = "userid_flags",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 3,
     .set = set_flags,
     .help = "off | secure httponly samesite=strict|lax|none …: what browsers are told "
             "of it; off"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "userid",
    .directives = directives,
    .conf_size = sizeof(userid_conf_t),
    .phase = HD_PHASE_CONTENT,
    .attributes = attributes,
    .on_conf = on_conf,
    .on_response_headers = on_response_headers,
};
