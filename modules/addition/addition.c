/* addition: what other locations answer stands before and behind a body:
 *     add_before_body /head.html;
 *     add_after_body /foot.html;
 */
#include "lib/bodies.h"

typedef struct {
    hd_str_t before, after; /* URIs; empty: none */
    types_t types;
} addition_conf_t;

extern const hd_module_t hd_module;

typedef struct {
    hd_sub_body_t before, after;
    bool before_started, before_ended, after_started;
} state_t;

static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return types_set(cf, args, &((addition_conf_t *)conf)->types, err);
}

/* --- the head --- */

static bool has_addition(hd_req_t *req, const addition_conf_t *ac, hd_str_t type)
{
    return ac->before.len + ac->after.len > 0 && !hd_req_is_sub(req) &&
           types_have(&ac->types, type);
}

static bool changes_file(hd_req_t *req, const void *conf, hd_str_t type,
                         hd_str_t encoding, int64_t length)
{
    (void)encoding, (void)length;
    return has_addition(req, conf, type);
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    hd_str_t type = hd_res_header(req, HD_STR("Content-Type"), NULL);

    if (hd_res_status(req) != 200 || !has_addition(req, conf, type)) {
        hd_res_skip_body(req);
        return HD_OK;
    }
    hd_res_remove_header(req, HD_STR("Content-Length"));
    hd_res_remove_header(req, HD_STR("Accept-Ranges"));
    if (hd_str_eq(hd_req_method(req), HD_STR("HEAD")))
        hd_res_skip_body(req);
    else
        hd_req_set_state(req, &hd_module, hd_pool_new(hd_req_pool(req), state_t));
    return bodies_weaken_etag(req);
}

/* --- the body --- */

static void start(hd_req_t *req, hd_str_t uri, hd_sub_body_t *body)
{
    /* one that can't be asked for adds nothing */
    body->is_whole = !hd_req_start_sub(
        req, &(hd_sub_spec_t){.uri = uri, .method = HD_STR("GET"), .body = body});
}

/* What has come of <from> goes on in <body>'s place, which is for later. HD_DONE: that
 * was all of it. */
static hd_rc_t insert(hd_req_t *req, hd_sub_body_t *from, hd_chain_t *body)
{
    if (hd_res_is_full(req))
        return HD_AGAIN;
    if (from->is_cut)
        return hd_req_fail(req, 502, HD_E_MODULE, "addition: a body broke off");
    if (hd_chain_is_empty(&from->bytes))
        return from->is_whole ? HD_DONE : HD_AGAIN;
    hd_res_put_back(req, body);
    hd_sub_take_body(from, body);
    return HD_OK;
}

static hd_rc_t insert_before(hd_req_t *req, const addition_conf_t *ac, state_t *s,
                             hd_chain_t *body)
{
    hd_rc_t rc;

    if (!s->before_started)
        start(req, ac->before, &s->before);
    s->before_started = true;
    rc = insert(req, &s->before, body);
    s->before_ended = rc == HD_DONE;
    return rc;
}

/* The body's last flags wait behind what follows it. */
static void put_back_end(hd_req_t *req, hd_chain_t *body)
{
    unsigned flags = hd_chain_flags(body);
    hd_chain_t end;

    for (hd_slice_t *slice = body->first; slice != NULL; slice = slice->next)
        slice->flags = 0;
    hd_chain_init(&end);
    hd_chain_set_flags(&end, flags);
    hd_res_put_back(req, &end);
}

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    const addition_conf_t *ac = conf;
    state_t *s = hd_req_state(req, &hd_module);
    hd_rc_t rc;

    if (s == NULL)
        return HD_OK;
    if (ac->before.len > 0 && !s->before_ended) {
        rc = insert_before(req, ac, s, body);
        if (rc != HD_DONE)
            return rc;
    }
    if (ac->after.len == 0 || !(hd_chain_flags(body) & HD_SLICE_END))
        return HD_OK;
    if (!s->after_started) {
        s->after_started = true;
        start(req, ac->after, &s->after);
        put_back_end(req, body);
        return HD_OK;
    }
    rc = insert(req, &s->after, body);
    return rc == HD_DONE ? HD_OK : rc;
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "add_before_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(addition_conf_t, before),
     .help = "URI: what this location answers stands before a body; empty: none"},
    {.name = "add_after_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(addition_conf_t, after),
     .help = "URI: the same behind it"},
    {.name = "addition_types",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_types,
     .help = "TYPE …|*: which bodies, besides text/html"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "addition",
    .directives = directives,
    .conf_size = sizeof(addition_conf_t),
    .phase = HD_PHASE_CONTENT,
    .on_response_headers = on_response_headers,
    .on_response_body = on_response_body,
    .changes_file = changes_file,
};
