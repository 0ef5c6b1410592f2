/* sub: strings in bodies are replaced by others:
 *     sub_filter '<a href="http://10.0.0.1/' '<a href="https://$host/';
 *     sub_filter_once off;
 * Strings are found whatever their case. What might be the beginning of one is held back
 * until more has come, so that no string is missed between two pieces of a body. */
#include "lib/bodies.h"

extern const hd_module_t hd_module;

#define PAIRS_MAX 1000
#define STRING_BYTES_MAX 4096 /* as an argument may have */

typedef struct {
    const hd_expr_t *from, *to;
} pair_t;

typedef struct {
    const pair_t *pairs;
    uint32_t n;
    bool again;      /* sub_filter_once off */
    bool keeps_time; /* sub_filter_last_modified on */
    types_t types;
} sub_conf_t;

typedef struct {
    hd_str_t from; /* lower case; empty: no more */
    hd_str_t to;
    bool has_to;
} string_t;

typedef struct {
    const sub_conf_t *conf;
    string_t *strings;
    uint32_t active;  /* how many of them are looked for still */
    size_t longest;   /* of all strings, in bytes */
    size_t held;      /* bytes in <window> that may begin one */
    bool may_begin[256];
    char *window;     /* longest - 1 held bytes, and a block */
} state_t;

/* --- directives --- */

static hd_rc_t add_pair(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    sub_conf_t *sc = conf;
    uint32_t before = cf->is_first ? 0 : sc->n;
    hd_expr_t *from, *to;
    pair_t *list;

    if (args[0].len == 0)
        return hd_err_set(err, HD_E_CONF, "empty search pattern: a string is needed");
    if (before == PAIRS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d sub_filter here", PAIRS_MAX);
    if (hd_expr_compile(cf, args[0], &from, err) != HD_OK ||
        hd_expr_compile(cf, args[1], &to, err) != HD_OK)
        return HD_ERROR;
    list = hd_pool_new_n(cf->pool, pair_t, before + 1);
    if (before > 0)
        memcpy(list, sc->pairs, before * sizeof(*list));
    list[before] = (pair_t){from, to};
    sc->pairs = list;
    sc->n = before + 1;
    return HD_OK;
}

static hd_rc_t set_once(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool once;

    (void)cf;
    if (!hd_str_eq(args[0], HD_STR("on")) && !hd_str_eq(args[0], HD_STR("off")))
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": on or off is allowed",
                          HD_STR_ARG(args[0]));
    once = hd_str_eq(args[0], HD_STR("on"));
    ((sub_conf_t *)conf)->again = !once;
    return HD_OK;
}

static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return types_set(cf, args, &((sub_conf_t *)conf)->types, err);
}

/* --- the head --- */

/* Only what is there is looked for: a string that variables leave empty isn't. */
static hd_rc_t begin(hd_req_t *req, const sub_conf_t *sc, state_t **out)
{
    hd_pool_t *pool = hd_req_pool(req);
    state_t *s = hd_pool_new(pool, state_t);

    s->conf = sc;
    s->strings = hd_pool_new_n(pool, string_t, sc->n);
    for (uint32_t i = 0; i < sc->n; i++) {
        string_t *str = &s->strings[i];
        hd_str_t from;

        if (hd_expr_eval(sc->pairs[i].from, req, &from) != HD_OK)
            return HD_ERROR;
        if (from.len == 0)
            continue;
        if (from.len > STRING_BYTES_MAX) {
            hd_req_log(req, HD_LOG_ERROR,
                       "sub_filter: a string of %zu bytes isn't looked for: more than %d",
                       from.len, STRING_BYTES_MAX);
            continue;
        }
        str->from = hd_str_dup_lower(pool, from);
        s->may_begin[(uint8_t)str->from.data[0]] = true;
        s->longest = hd_max(s->longest, from.len);
        s->active++;
    }
    *out = s->active > 0 ? s : NULL;
    return HD_OK;
}

static bool may_change(hd_req_t *req, const sub_conf_t *sc)
{
    bool found;
    hd_str_t type = hd_res_header(req, HD_STR("Content-Type"), &found);

    if (sc->n == 0 || !types_have(&sc->types, type) || hd_res_content_length(req) == 0)
        return false;
    hd_ignore(hd_res_header(req, HD_STR("Content-Encoding"), &found).len == 0);
    return !found; /* compressed, it has other bytes */
}

static bool changes_file(hd_req_t *req, const void *conf, hd_str_t type,
                         hd_str_t encoding, int64_t length)
{
    const sub_conf_t *sc = conf;

    if (encoding.len > 0 || length == 0 || !types_have(&sc->types, type))
        return false;
    for (uint32_t i = 0; i < sc->n; i++) {
        hd_str_t from;

        if (hd_expr_eval(sc->pairs[i].from, req, &from) == HD_OK && from.len > 0)
            return true;
    }
    return false;
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const sub_conf_t *sc = conf;
    state_t *s = NULL;

    hd_req_set_state(req, &hd_module, NULL);
    if (may_change(req, sc) && begin(req, sc, &s) != HD_OK)
        return HD_ERROR;
    if (s == NULL) {
        hd_res_skip_body(req);
        return HD_OK;
    }
    s->window = hd_pool_alloc_unaligned(hd_req_pool(req), s->longest + HD_BLOCK_BYTES);
    hd_req_set_state(req, &hd_module, s);
    hd_res_remove_header(req, HD_STR("Content-Length"));
    hd_res_remove_header(req, HD_STR("Accept-Ranges"));
    if (sc->keeps_time)
        return bodies_weaken_etag(req);
    hd_res_remove_header(req, HD_STR("Last-Modified"));
    hd_res_remove_header(req, HD_STR("ETag"));
    return HD_OK;
}

/* --- the body --- */

static bool is_same(const char *text, const char *lower, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (hd_ascii_lower(text[i]) != lower[i])
            return false;
    }
    return true;
}

/* The first of the strings that stands at <at>; <*more> is set instead if one might, had
 * more come. */
static string_t *find_at(state_t *s, const char *at, size_t len, bool is_end, bool *more)
{
    for (uint32_t i = 0; i < s->conf->n; i++) {
        string_t *str = &s->strings[i];

        if (str->from.len == 0 ||
            !is_same(at, str->from.data, hd_min(len, str->from.len)))
            continue;
        if (str->from.len <= len)
            return str;
        if (!is_end) {
            *more = true;
            return NULL;
        }
    }
    return NULL;
}

static hd_rc_t out_of_blocks(hd_req_t *req)
{
    return hd_req_fail(req, 503, HD_E_LIMIT, "sub_filter: no block left");
}

static hd_rc_t replace(hd_req_t *req, state_t *s, string_t *str, hd_chain_t *out)
{
    const pair_t *pair = &s->conf->pairs[str - s->strings];

    if (!str->has_to) {
        if (hd_expr_eval(pair->to, req, &str->to) != HD_OK)
            return HD_ERROR;
        str->has_to = true;
    }
    if (str->to.len > 0 && !hd_chain_try_add_copy(out, str->to.data, str->to.len))
        return out_of_blocks(req);
    return HD_OK;
}

/* Moves what is decided of the <len> bytes in the window to <out>, and the rest to its
 * beginning. */
static hd_rc_t scan(hd_req_t *req, state_t *s, size_t len, bool is_end, hd_chain_t *out)
{
    const char *w = s->window;
    size_t from = 0, at = 0;
    bool more = false;

    while (at < len && s->active > 0) {
        string_t *str;

        if (!s->may_begin[(uint8_t)hd_ascii_lower(w[at])]) {
            at++;
            continue;
        }
        str = find_at(s, w + at, len - at, is_end, &more);
        if (more)
            break;
        if (str == NULL) {
            at++;
            continue;
        }
        if (at > from && !hd_chain_try_add_copy(out, w + from, at - from))
            return out_of_blocks(req);
        if (replace(req, s, str, out) != HD_OK)
            return HD_ERROR;
        at += str->from.len;
        from = at;
        if (!s->conf->again) {
            str->from.len = 0;
            s->active--;
        }
    }
    if (!more)
        at = len;
    if (at > from && !hd_chain_try_add_copy(out, w + from, at - from))
        return out_of_blocks(req);
    s->held = len - at;
    memmove(s->window, w + at, s->held);
    return HD_OK;
}

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    state_t *s = hd_req_state(req, &hd_module);
    unsigned flags = hd_chain_flags(body);
    hd_chain_t out;

    (void)conf;
    if (s == NULL || (s->active == 0 && s->held == 0))
        return HD_OK;
    hd_chain_init(&out);
    for (const hd_slice_t *slice = body->first; slice != NULL; slice = slice->next) {
        for (size_t at = 0, n; at < slice->len; at += n) {
            n = hd_min(slice->len - at, HD_BLOCK_BYTES);
            memcpy(s->window + s->held, slice->data + at, n);
            if (scan(req, s, s->held + n, false, &out) != HD_OK)
                goto failed;
        }
    }
    if ((flags & HD_SLICE_END) && scan(req, s, s->held, true, &out) != HD_OK)
        goto failed;
    bodies_replace(body, &out);
    return HD_OK;
failed:
    hd_chain_free(&out);
    return HD_ERROR;
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "sub_filter",
     .scope = IN_ANY,
     .args_n = 2,
     .repeats = true,
     .set = add_pair,
     .help = "STRING REPLACEMENT: in bodies the one is replaced by the other, whatever "
             "its case; both may have variables"},
    {.name = "sub_filter_once",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_once,
     .help = "on|off: of each string the first alone, or all; on"},
    {.name = "sub_filter_types",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_types,
     .help = "TYPE …|*: in which, besides text/html"},
    {.name = "sub_filter_last_modified",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(sub_conf_t, keeps_time),
     .help = "on|off: Last-Modified stays and ETag becomes weak, or both go; off"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "sub",
    .directives = directives,
    .conf_size = sizeof(sub_conf_t),
    .phase = HD_PHASE_CONTENT,
    .order = 3,
    .on_response_headers = on_response_headers,
    .on_response_body = on_response_body,
    .changes_file = changes_file,
};
