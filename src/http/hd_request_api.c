/* What modules see of a request (core/hd_module.h). */
#include "core/loom/hd_region.h"
#include "core/proc/hd_modules.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"
#include "http/hd_uri.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

hd_pool_t *hd_req_pool(hd_req_t *req)
{
    return req->pool;
}

hd_conn_t *hd_req_conn(hd_req_t *req)
{
    return req->conn;
}

const hd_listener_t *hd_req_listener(hd_req_t *req)
{
    return req->listener;
}

hd_member_t *hd_req_member(hd_req_t *req)
{
    return req->member;
}

hd_loop_t *hd_req_loop(hd_req_t *req)
{
    return req->loop;
}

const hd_addr_t *hd_req_remote(hd_req_t *req)
{
    if (req->conn == NULL)
        return NULL;
    return req->client_addr.family != AF_UNSPEC ? &req->client_addr
                                                : hd_conn_remote(req->conn);
}

void hd_req_set_remote(hd_req_t *req, const hd_addr_t *addr)
{
    req->client_addr = *addr;
    req->has_real_addr = true;
}

const hd_addr_t *hd_request_peer(const hd_req_t *req)
{
    return req->has_real_addr ? &req->client_addr : hd_conn_remote(req->conn);
}

hd_str_t hd_req_method(hd_req_t *req)
{
    return req->head.method;
}

void hd_request_make_get(hd_req_t *req)
{
    if (req->head.method_id == HD_M_HEAD)
        return;
    if (req->head.line_method.len == 0)
        req->head.line_method = req->head.method;
    req->head.method = HD_STR("GET");
    req->head.method_id = HD_M_GET;
}

hd_str_t hd_req_scheme(hd_req_t *req)
{
    return req->head.scheme;
}

hd_str_t hd_req_authority(hd_req_t *req)
{
    return req->head.authority;
}

hd_str_t hd_req_path(hd_req_t *req)
{
    return req->head.path;
}

hd_str_t hd_req_raw_path(hd_req_t *req)
{
    return req->head.raw_path;
}

hd_str_t hd_req_query(hd_req_t *req)
{
    return req->head.query;
}

/* --- fields --- */

static hd_str_t value_of(const hd_field_t *f, bool *found)
{
    if (found != NULL)
        *found = f != NULL;
    return f == NULL ? HD_STR_NONE : f->value;
}

/* Pseudo-fields are fields of the request; Host is the authority, whatever brought it. */
static bool find_pseudo(hd_req_t *req, hd_str_t name, hd_str_t *value)
{
    if (name.len == 0)
        return false;
    if (name.data[0] == ':') {
        if (hd_str_eq(name, HD_STR(":method")))
            *value = req->head.method;
        else if (hd_str_eq(name, HD_STR(":path")))
            *value = req->head.raw_path;
        else if (hd_str_eq(name, HD_STR(":authority")))
            *value = req->head.authority;
        else if (hd_str_eq(name, HD_STR(":scheme")))
            *value = req->head.scheme;
        else if (hd_str_eq(name, HD_STR(":protocol")) && req->head.protocol.len > 0)
            *value = req->head.protocol;
        else
            return false;
        return true;
    }
    if (name.len == 4 && hd_header_id(name) == HD_H_HOST && req->head.authority.len > 0) {
        *value = req->head.authority;
        return true;
    }
    return false;
}

hd_str_t hd_req_header(hd_req_t *req, hd_str_t name, bool *found)
{
    hd_str_t value;

    if (find_pseudo(req, name, &value)) {
        if (found != NULL)
            *found = true;
        return value;
    }
    return value_of(hd_headers_find(&req->head.headers, name), found);
}

hd_str_t hd_req_header_joined(hd_req_t *req, hd_str_t name, bool *found)
{
    hd_str_t value;
    bool is_there;

    if (find_pseudo(req, name, &value)) {
        if (found != NULL)
            *found = true;
        return value;
    }
    value = hd_headers_joined(&req->head.headers, name, req->pool, &is_there);
    if (found != NULL)
        *found = is_there;
    return value;
}

static bool is_pseudo(hd_str_t name)
{
    return name.len > 0 && name.data[0] == ':';
}

static hd_rc_t set_pseudo(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    if (hd_uri_has_bad_bytes(value))
        return hd_req_err(req, HD_E_MODULE, "not a value for %.*s", HD_STR_ARG(name));
    if (hd_str_eq(name, HD_STR(":path")))
        hd_req_set_path(req, value);
    else if (hd_str_eq(name, HD_STR(":authority")))
        req->up_host = hd_str_dup(req->pool, value);
    else
        return hd_req_err(req, HD_E_MODULE, "%.*s can't be set", HD_STR_ARG(name));
    return HD_OK;
}

static hd_rc_t check_field(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    if (!hd_http_is_field_name(name))
        return hd_req_err(req, HD_E_MODULE, "not a field name: %.*s", HD_STR_ARG(name));
    if (!hd_http_is_field_value(value))
        return hd_req_err(req, HD_E_MODULE, "not a value for %.*s", HD_STR_ARG(name));
    return HD_OK;
}

static hd_rc_t put_field(hd_req_t *req, hd_headers_t *h, hd_str_t name, hd_str_t value,
                         bool replaces)
{
    if (check_field(req, name, value) != HD_OK)
        return HD_ERROR;
    name = hd_str_dup(req->pool, name);
    value = hd_str_dup(req->pool, value);
    if ((replaces ? hd_headers_set(h, name, value) : hd_headers_add(h, name, value)) ==
        NULL)
        return hd_req_err(req, HD_E_LIMIT, "more than %d header fields", HD_FIELDS_MAX);
    return HD_OK;
}

hd_rc_t hd_req_add_header(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    if (is_pseudo(name) || hd_header_id(name) == HD_H_HOST)
        return hd_req_set_header(req, name, value);
    return put_field(req, &req->head.headers, name, value, false);
}

hd_rc_t hd_req_set_header(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    if (is_pseudo(name))
        return set_pseudo(req, name, value);
    if (hd_header_id(name) == HD_H_HOST)
        return set_pseudo(req, HD_STR(":authority"), value);
    return put_field(req, &req->head.headers, name, value, true);
}

void hd_req_remove_header(hd_req_t *req, hd_str_t name)
{
    hd_headers_remove(&req->head.headers, name);
}

void hd_req_set_path(hd_req_t *req, hd_str_t path_and_query)
{
    req->up_path = hd_str_dup(req->pool, path_and_query);
}

hd_str_t hd_res_header(hd_req_t *req, hd_str_t name, bool *found)
{
    const hd_headers_t *h = req->judged != NULL ? req->judged : &req->res.headers;

    return value_of(h->n == 0 ? NULL : hd_headers_find(h, name), found);
}

/* A body of another length: the codec frames anew. One that is empty may get bytes. */
static void forget_length(hd_req_t *req, hd_str_t name)
{
    if (hd_header_id(name) != HD_H_CONTENT_LENGTH)
        return;
    req->res.has_body |= req->res.content_length == 0;
    req->res.content_length = HD_LEN_UNKNOWN;
}

hd_rc_t hd_res_add_header(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    return put_field(req, &req->res.headers, name, value, false);
}

hd_rc_t hd_res_set_header(hd_req_t *req, hd_str_t name, hd_str_t value)
{
    forget_length(req, name);
    return put_field(req, &req->res.headers, name, value, true);
}

void hd_res_remove_header(hd_req_t *req, hd_str_t name)
{
    forget_length(req, name);
    hd_headers_remove(&req->res.headers, name);
}

hd_str_t hd_res_wanted_charset(hd_req_t *req)
{
    return req->wanted_charset;
}

void hd_res_skip_body(hd_req_t *req)
{
    size_t at = req->running != NULL ? (size_t)(req->running - req->chain) : SIZE_MAX;

    if (at < 64) /* one that is further behind is asked, as before */
        req->body_skips |= 1ull << at;
}

hd_str_t hd_headers_value(const hd_headers_t *h, hd_str_t name, bool *found)
{
    const hd_field_t *f = hd_headers_find(h, name);

    if (found != NULL)
        *found = f != NULL;
    return f != NULL ? f->value : HD_STR_NONE;
}

bool hd_headers_next(const hd_headers_t *h, uint32_t *at, hd_str_t *name, hd_str_t *value)
{
    while (*at < h->n) {
        const hd_field_t *f = &h->fields[(*at)++];

        if (f->flags & HD_FIELD_REMOVED)
            continue;
        *name = f->name;
        *value = f->value;
        return true;
    }
    return false;
}

bool hd_req_next_header(hd_req_t *req, uint32_t *at, hd_str_t *name, hd_str_t *value)
{
    return hd_headers_next(&req->head.headers, at, name, value);
}

bool hd_res_next_header(hd_req_t *req, uint32_t *at, hd_str_t *name, hd_str_t *value)
{
    return hd_headers_next(&req->res.headers, at, name, value);
}

unsigned hd_res_status(hd_req_t *req)
{
    return req->res.status;
}

int64_t hd_res_content_length(hd_req_t *req)
{
    return req->res.content_length;
}

void hd_res_set_status(hd_req_t *req, unsigned status)
{
    req->res.status = status;
    req->res.reason = HD_STR_NONE;
}

/* --- answers --- */

static const char *const flag_names[] = {
#define X(name, text) text,
    HD_RESPONSE_FLAGS(X)
#undef X
};

static uint64_t flag_of(const char *text)
{
    for (unsigned i = 0; text != NULL && i < HD_RFI_N; i++) {
        if (strcmp(flag_names[i], text) == 0)
            return 1ull << i;
    }
    return 0;
}

hd_rc_t hd_req_answer(hd_req_t *req, unsigned status, hd_str_t type, hd_str_t body,
                      const char *flag, const char *details)
{
    hd_response_local(req, status, type, body, flag_of(flag), details);
    return HD_DONE;
}

hd_rc_t hd_req_answer_grpc(hd_req_t *req, uint32_t code, hd_str_t message,
                           const char *flag, const char *details)
{
    hd_response_local_grpc(req, code, message, flag_of(flag), details);
    return HD_DONE;
}

hd_rc_t hd_req_fail(hd_req_t *req, unsigned status, hd_err_code_t code, const char *fmt,
                    ...)
{
    char text[HD_ERR_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    hd_ignore(hd_req_err(req, code, "%s", text));
    hd_response_fail(req, status, 0, "filter_failed");
    return HD_ERROR;
}

hd_rc_t hd_req_abort(hd_req_t *req, const char *flag)
{
    hd_request_add_flag(req, flag_of(flag));
    if (!req->response_started) /* nginx's number for it */
        req->res.status = req->http != NULL && req->http->is_xds ? 0 : 444;
    hd_request_act(req, NULL);
    hd_response_abort(req);
    return HD_DONE;
}

void hd_req_set_flag(hd_req_t *req, const char *flag)
{
    hd_request_add_flag(req, flag_of(flag));
}

/* --- waiting and state --- */

void hd_req_wake(hd_req_t *req)
{
    req->is_woken = true;
    hd_request_wake(req);
}

hd_rc_t hd_req_wait_ms(hd_req_t *req, uint64_t ms)
{
    hd_timer_set(req->loop, &req->timer, ms);
    return HD_AGAIN;
}

void hd_req_find_route_anew(hd_req_t *req)
{
    if (req->http != NULL && req->http->is_xds && req->step == HD_STEP_FILTERS)
        req->route_wanted = true;
}

bool hd_req_is_resumed(hd_req_t *req)
{
    return req->is_resumed;
}

/* The module's number; that of the filter being run is at hand. */
static uint16_t number_of(const hd_req_t *req, const hd_module_t *module)
{
    if (req->running != NULL && hd_module_get(req->running->module) == module)
        return req->running->module;
    return hd_module_number(module);
}

void *hd_req_state(hd_req_t *req, const hd_module_t *module)
{
    return req->states == NULL ? NULL : req->states[number_of(req, module)];
}

void hd_req_set_state(hd_req_t *req, const hd_module_t *module, void *state)
{
    if (req->states == NULL)
        req->states = hd_pool_new_n(req->pool, void *, hd_modules_n());
    req->states[number_of(req, module)] = state;
}

static const void *conf_in(const hd_filter_conf_t *list, uint32_t n, uint16_t number)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].module == number && !list[i].is_disabled)
            return list[i].conf;
    }
    return NULL;
}

const void *hd_req_conf(hd_req_t *req, const hd_module_t *module)
{
    uint16_t number = number_of(req, module);
    const void *conf;

    if (req->running != NULL && req->running->module == number)
        return req->running->conf;
    conf = conf_in(req->chain, req->chain_n, number);
    if (conf == NULL && req->route != NULL && req->route->filters_are_chain)
        conf =
            conf_in(req->route->filters, req->route->filters_n, number); /* rewriting */
    if (conf == NULL && req->http != NULL)
        conf = conf_in(req->http->logs, req->http->logs_n, number);
    return conf;
}

hd_attr_of_t hd_req_attr_of(hd_req_t *req)
{
    return (hd_attr_of_t){
        .conn = req->conn, .req = req, .pool = req->pool, .member = req->member};
}

hd_rc_t hd_expr_eval(const hd_expr_t *e, hd_req_t *req, hd_str_t *out)
{
    hd_attr_of_t of;

    if (e->n == 1 && e->parts[0].attr.name.len == 0) { /* a literal */
        *out = e->parts[0].text;
        return HD_OK;
    }
    of = hd_req_attr_of(req);
    return hd_expr_eval_of(e, &of, out);
}

static hd_attrs_t **attrs_of_req(hd_req_t *req)
{
    return &req->attrs;
}

/* --- for the log --- */

static hd_str_t print_flags(hd_req_t *req)
{
    char text[256];
    size_t n = 0;

    if (req->flags == 0)
        return HD_STR("-");
    for (unsigned i = 0; i < HD_RFI_N && n + 8 < sizeof(text); i++) {
        if (req->flags & (1ull << i))
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n > 0 ? "," : "",
                                  flag_names[i]);
    }
    return hd_str_dup(req->pool, hd_str_n(text, n));
}

static hd_str_t protocol_of(const hd_req_t *req)
{
    switch (req->head.version) {
    case HD_HTTP_20:
        return HD_STR("HTTP/2.0");
    case HD_HTTP_10:
        return HD_STR("HTTP/1.0");
    case HD_HTTP_09:
        return HD_STR("HTTP/0.9");
    default:
        return HD_STR("HTTP/1.1");
    }
}

static bool is_grpc(const hd_req_t *req)
{
    const hd_field_t *f = req->head.headers.n == 0
                              ? NULL
                              : hd_headers_get(&req->head.headers, HD_H_CONTENT_TYPE);

    return f != NULL && hd_str_has_prefix_nocase(f->value, HD_STR("application/grpc"));
}

/* From the trailers, or the head of a trailers-only answer. */
static uint32_t grpc_status_of(const hd_req_t *req)
{
    const hd_field_t *f = NULL;
    uint64_t n;

    if (req->res_trailers.n > 0)
        f = hd_headers_get(&req->res_trailers, HD_H_GRPC_STATUS);
    if (f == NULL && req->res.headers.n > 0)
        f = hd_headers_get(&req->res.headers, HD_H_GRPC_STATUS);
    return f != NULL && hd_str_to_u64(f->value, 1000, &n) ? (uint32_t)n : UINT32_MAX;
}

void hd_req_get_info(hd_req_t *req, hd_req_info_t *info)
{
    uint64_t now_ns = hd_loop_now_ns(req->loop);

    *info = (hd_req_info_t){
        .status = req->res.status,
        .upstream_status = req->upstream_status,
        .tries = req->tries_n,
        .start_wall_ns = req->start_wall_ns,
        .duration_ns = now_ns - req->start_ns,
        .bytes_received = req->bytes_received,
        .bytes_sent = req->bytes_sent,
        .head_bytes_received = req->head_bytes_received,
        .head_bytes_sent = req->head_bytes_sent,
        .flags = print_flags(req),
        .details = hd_str_c(req->details),
        .upstream_host = req->upstream_host,
        .cluster = req->cluster_name,
        .route = req->route != NULL ? req->route->name : HD_STR_NONE,
        .protocol = protocol_of(req),
        .error = req->err != NULL ? hd_str_c(req->err->text) : HD_STR_NONE,
        .is_grpc = is_grpc(req),
        .listener = req->listener,
    };
    info->grpc_status = grpc_status_of(req);
    if (info->details.len == 0 && req->upstream_status != 0)
        info->details = HD_STR("via_upstream");
    if (req->upstream_start_ns != 0)
        info->upstream_duration_ns =
            (req->upstream_end_ns != 0 ? req->upstream_end_ns : now_ns) -
            req->upstream_start_ns;
    hd_proxy_get_info(req, info);
}

/* One entry a client conn, route and cluster; in a table of the process, so that it
 * outlives requests. What doesn't match is overwritten: a cache, not a store. */
typedef struct {
    uint64_t conn_id, routes_version;
    const void *route, *cluster, *endpoint;
    uint16_t module;
    hd_series_t series[HD_SERIES_CACHE];
} series_entry_t;

#define SERIES_ENTRIES 512 /* a power of two */

static void set_series_key(hd_req_t *req, const hd_module_t *module, series_entry_t *e)
{
    hd_req_info_t info = {0};

    hd_proxy_get_info(req, &info);
    e->conn_id = req->conn != NULL ? req->conn->id : 0;
    e->routes_version = req->routes_region != NULL ? req->routes_region->version : 0;
    e->route = req->route;
    e->cluster = info.cluster_conf;
    e->endpoint = info.endpoint;
    e->module = number_of(req, module);
}

hd_series_t *hd_req_series_cache(hd_req_t *req, const hd_module_t *module, uint32_t slot)
{
    static _Thread_local series_entry_t *entries;
    series_entry_t key = {0}, *e;
    uint64_t hash;

    if (slot >= HD_SERIES_CACHE)
        return NULL;
    if (entries == NULL)
        entries = calloc(SERIES_ENTRIES, sizeof(*entries));
    hd_bug_on(entries == NULL);
    set_series_key(req, module, &key);
    hash = key.conn_id * 0x9e3779b97f4a7c15u + (uintptr_t)key.route * 31 +
           (uintptr_t)key.endpoint * 17 + key.module;
    e = &entries[(hash >> 7) % SERIES_ENTRIES];
    if (memcmp(e, &key, offsetof(series_entry_t, series)) != 0)
        *e = key;
    return &e->series[slot];
}

void hd_request_api_start(void)
{
    hd_attrs_of_req = attrs_of_req;
}

/* A pattern lies in one of the versions that the request has pinned. */
static const hd_region_t *region_of(const hd_req_t *req, const void *p)
{
    const hd_region_t *const regions[] = {req->routes_region, req->listener_region};

    for (unsigned i = 0; i < hd_countof(regions); i++) {
        if (regions[i] != NULL && hd_region_holds(req->member, regions[i], p))
            return regions[i];
    }
    return NULL;
}

bool hd_req_match(hd_req_t *req, const hd_match_t *p, hd_str_t s)
{
    return hd_match(req->member, p->kind == HD_MATCH_REGEX ? region_of(req, p) : NULL, p,
                    s, NULL);
}
