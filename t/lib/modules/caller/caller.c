/* caller: what a module may do with clusters and scripts, for tests.
 *
 *     ask CLUSTER PATH;        asks the cluster first (HTTP): an answer other than 200
 * refuses the request with its body, X-Who of a good one goes upstream ask_grpc CLUSTER
 * PATH;   the same by gRPC: the message is the request's path, the answer's message goes
 * upstream as X-Said choose ADDRESS|least|none [only];  leads to that endpoint, or to the
 * one with the fewest requests
 *
 * and to scripts hd.caller.add(A, B), hd.caller.path(), hd.caller.fail(TEXT). */
#include "hd_module.h"
#include <stdlib.h>

#define SAID_MAX 1024

typedef struct {
    const hd_slot_t *cluster;
    hd_str_t path, authority;
    bool is_grpc;
    hd_str_t choose;
    bool only;
} caller_conf_t;

extern const hd_module_t hd_module;

/* --- asking --- */

/* On the request: its pool. */
typedef struct {
    hd_req_t *req;
    hd_call_t *call; /* NULL: over */
    unsigned status;
    hd_str_t who;
    hd_str_t grpc_status;
    hd_chain_t body;
    bool is_over, has_failed;
} asked_t;

static void on_head(hd_call_t *call, unsigned status, const hd_headers_t *headers)
{
    asked_t *a = hd_call_arg(call);
    bool found;
    hd_str_t who = hd_headers_value(headers, HD_STR("x-who"), &found);

    a->status = status;
    if (found)
        a->who = hd_str_dup(hd_req_pool(a->req), who);
}

static void on_body(hd_call_t *call, hd_chain_t *body)
{
    asked_t *a = hd_call_arg(call);

    if (a->body.bytes + body->bytes <= SAID_MAX)
        hd_chain_move(&a->body, body);
    hd_chain_free(body);
}

static void on_end(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err)
{
    asked_t *a = hd_call_arg(call);
    hd_str_t name, value;
    uint32_t at = 0;

    a->call = NULL;
    a->is_over = true;
    a->has_failed = err != NULL;
    while (trailers != NULL && hd_headers_next(trailers, &at, &name, &value)) {
        if (hd_str_eq_nocase(name, HD_STR("grpc-status")))
            a->grpc_status = hd_str_dup(hd_req_pool(a->req), value);
    }
    hd_req_wake(a->req);
}

static const hd_call_user_t user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

/* The request is gone, whatever the call does. */
static void let_go(void *arg)
{
    asked_t *a = arg;

    if (a->call != NULL)
        hd_call_cancel(a->call);
    hd_chain_free(&a->body);
}

static hd_rc_t ask(hd_req_t *req, const caller_conf_t *cc)
{
    static const hd_kv_t grpc[] = {
        {HD_STR_INIT("content-type"), HD_STR_INIT("application/grpc")},
        {HD_STR_INIT("te"), HD_STR_INIT("trailers")}};
    hd_call_spec_t spec = {.cluster = cc->cluster,
                           .method = cc->is_grpc ? HD_STR("POST") : HD_STR("GET"),
                           .authority = cc->authority,
                           .path = cc->path,
                           .headers = grpc,
                           .headers_n = cc->is_grpc ? 2 : 0,
                           .timeout_ms = 5000,
                           .protocol = cc->is_grpc ? HD_UP_HTTP2 : HD_UP_HTTP1};
    asked_t *a = hd_pool_new(hd_req_pool(req), asked_t);
    hd_err_t err = {0};
    hd_chain_t body;

    a->req = req;
    hd_chain_init(&a->body);
    a->call = hd_call_start(hd_req_loop(req), hd_req_member(req), &spec, &user, a, &err);
    if (a->call == NULL)
        return hd_req_fail(req, 500, err.code, "caller: %s", err.text);
    hd_pool_defer(hd_req_pool(req), let_go, a);
    hd_req_set_state(req, &hd_module, a);
    if (cc->is_grpc) {
        hd_str_t path = hd_req_path(req);

        hd_chain_init(&body);
        hd_bug_on(!hd_grpc_try_add_message(&body, path.data, path.len));
        hd_chain_set_flags(&body, HD_SLICE_END);
        hd_call_send(a->call, &body);
        hd_chain_free(&body);
    }
    return HD_AGAIN;
}

static hd_str_t text_of(hd_req_t *req, hd_chain_t *body)
{
    char *text = hd_pool_alloc(hd_req_pool(req), body->bytes + 1);

    return hd_str_n(text, hd_chain_peek(body, text, body->bytes));
}

static hd_rc_t take_answer(hd_req_t *req, asked_t *a, bool is_grpc)
{
    hd_err_t err = {0};
    uint8_t *message;
    size_t len;
    hd_rc_t rc;

    if (a->has_failed)
        return hd_req_answer(req, 503, HD_STR("text/plain"), HD_STR("nobody to ask\n"),
                             "UAEX", "caller_failed");
    if (!is_grpc && a->status != 200)
        return hd_req_answer(req, 403, HD_STR("text/plain"), text_of(req, &a->body),
                             "UAEX", "caller_denied");
    if (!is_grpc)
        return hd_req_set_header(req, HD_STR("X-Who"), a->who);
    if (!hd_str_eq(a->grpc_status, HD_STR("0")) ||
        hd_grpc_take_message(&a->body, SAID_MAX, &message, &len, &err) != HD_OK)
        return hd_req_answer(req, 403, HD_STR("text/plain"), a->grpc_status, "UAEX",
                             "caller_denied");
    rc = hd_req_set_header(req, HD_STR("X-Said"),
                           hd_str_dup(hd_req_pool(req), hd_str_n((char *)message, len)));
    free(message);
    return rc;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const caller_conf_t *cc = conf;
    asked_t *a = hd_req_state(req, &hd_module);

    if (cc->cluster == NULL)
        return HD_OK;
    if (a == NULL)
        return ask(req, cc);
    return a->is_over ? take_answer(req, a, cc->is_grpc) : HD_AGAIN;
}

/* --- choosing --- */

static const hd_endpoint_t *least_loaded(hd_req_t *req, const hd_pick_t *pick)
{
    hd_member_t *m = hd_req_member(req);
    const hd_endpoints_t *eps = hd_pick_endpoints(m, pick);
    const hd_endpoint_t *best = NULL;

    for (uint32_t i = 0; eps != NULL && i < eps->n; i++) {
        const hd_endpoint_t *e = &eps->items[i];

        if (best == NULL || hd_endpoint_load(m, e) < hd_endpoint_load(m, best))
            best = e;
    }
    return best;
}

static hd_rc_t on_pick(hd_req_t *req, const void *conf, hd_pick_t *pick)
{
    const caller_conf_t *cc = conf;
    const hd_endpoint_t *e;

    if (cc->choose.len == 0)
        return HD_OK;
    pick->wanted_only = cc->only;
    if (hd_str_eq(cc->choose, HD_STR("least"))) {
        e = least_loaded(req, pick);
        if (e != NULL)
            pick->wanted = e->addr;
        return HD_OK;
    }
    return hd_addr_parse(hd_req_pool(req), cc->choose, 0, &pick->wanted, NULL);
}

/* --- scripts --- */

static hd_rc_t script_add(hd_req_t *req, const hd_script_value_t *args, uint32_t n,
                          hd_script_value_t *out, hd_err_t *err)
{
    (void)req;
    if (n != 2 || args[0].type != HD_SCRIPT_NUMBER || args[1].type != HD_SCRIPT_NUMBER)
        return hd_err_set(err, HD_E_MODULE, "two numbers are wanted");
    *out = (hd_script_value_t){.type = HD_SCRIPT_NUMBER,
                               .number = args[0].number + args[1].number};
    return HD_OK;
}

static hd_rc_t script_path(hd_req_t *req, const hd_script_value_t *args, uint32_t n,
                           hd_script_value_t *out, hd_err_t *err)
{
    (void)args, (void)n, (void)err;
    *out = (hd_script_value_t){.type = HD_SCRIPT_STRING, .string = hd_req_path(req)};
    return HD_OK;
}

static hd_rc_t script_fail(hd_req_t *req, const hd_script_value_t *args, uint32_t n,
                           hd_script_value_t *out, hd_err_t *err)
{
    (void)req, (void)out;
    return hd_err_set(err, HD_E_MODULE, "failed as told: %.*s",
                      n > 0 ? (int)args[0].string.len : 0,
                      n > 0 && args[0].string.len > 0 ? args[0].string.data : "");
}

static const hd_script_function_t functions[] = {
    {"add", script_add, "A, B: their sum"},
    {"path", script_path, ": the request's path"},
    {"fail", script_fail, "TEXT: nothing, ever"},
    {0},
};

/* --- directives --- */

static hd_rc_t set_ask(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    caller_conf_t *cc = conf;

    cc->is_grpc = hd_str_eq(cf->node->name, HD_STR("ask_grpc"));
    cc->authority = hd_str_dup(cf->pool, args[0]);
    cc->path = hd_str_dup(cf->pool, args[1]);
    return hd_conf_cluster->slot_for(cf, args[0], 80, false, &cc->cluster, err);
}

static hd_rc_t set_choose(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    caller_conf_t *cc = conf;

    (void)err;
    cc->choose = hd_str_dup(cf->pool, args[0]);
    cc->only = cf->node->args_n > 1;
    return HD_OK;
}

static const hd_directive_t directives[] = {
    {.name = "ask",
     .scope = HD_IN_LOCATION,
     .args_n = 2,
     .set = set_ask,
     .help = "CLUSTER PATH: asks before a request goes on"},
    {.name = "ask_grpc",
     .scope = HD_IN_LOCATION,
     .args_n = 2,
     .set = set_ask,
     .help = "CLUSTER PATH: the same by gRPC"},
    {.name = "choose",
     .scope = HD_IN_LOCATION,
     .args_n = 1,
     .args_max = 2,
     .set = set_choose,
     .help = "ADDRESS|least [only]: which endpoint"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "caller",
    .directives = directives,
    .conf_size = sizeof(caller_conf_t),
    .phase = HD_PHASE_ACCESS,
    .script_functions = functions,
    .on_request_headers = on_request_headers,
    .on_pick = on_pick,
};
