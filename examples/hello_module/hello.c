/* hello: a module of one's own, built outside the tree. It greets a caller by its
 * verified identity and counts whom it greeted:
 *
 *     location /hello { hello "good day" ; }
 *
 * Build it with the installed header alone:
 *
 *     cc -shared -fPIC $(pkg-config --cflags heddle) -o hello_module.so hello.c
 *
 * or with heddle itself: ./configure --add-dynamic-module=examples/hello_module. Load it
 * with `load_module /path/to/hello_module.so;`.
 */
#include "hd_module.h"

/* What a block says. Zeroed at first; inner blocks start as a copy of the outer one. All
 * zero means "not used here": then no callback is called. It lies in shared memory, so it
 * holds data only. */
typedef struct {
    hd_expr_t *greeting; /* may hold $variables */
} hello_conf_t;

/* Of this process: the counter's family, entered when the process starts. */
static hd_family_id_t family_id;
static const char *const labels[] = {"caller", NULL};
static const hd_family_t family = {.name = "hello_total",
                                   .help = "Callers greeted.",
                                   .kind = HD_COUNTER,
                                   .labels = labels};

static hd_rc_t set_hello(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hello_conf_t *hc = conf;

    if (args[0].len == 0) /* file:line is put in front */
        return hd_err_set(err, HD_E_CONF, "an empty greeting; say something");
    return hd_expr_compile(cf, args[0], &hc->greeting, err);
}

static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    (void)loop, (void)err;
    family_id = hd_family_enter(m, &family);
    return HD_OK;
}

/* The identity that TLS verified; no header can forge it. */
static hd_str_t caller_of(hd_req_t *req)
{
    hd_conn_t *c = hd_req_conn(req);

    if (c == NULL || c->facts == NULL || c->facts->peer_principal.len == 0)
        return HD_STR("stranger");
    return c->facts->peer_principal;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const hello_conf_t *hc = conf;
    hd_str_t caller = caller_of(req), greeting, body;

    if (hd_expr_eval(hc->greeting, req, &greeting) != HD_OK)
        return hd_req_fail(req, 500, HD_E_MODULE, "hello: no greeting");
    hd_counter_add(hd_req_member(req),
                   hd_series_enter(hd_req_member(req), family_id, &caller), 1);
    body = hd_str_printf(hd_req_pool(req), "%.*s, %.*s\n", HD_STR_ARG(greeting),
                         HD_STR_ARG(caller));
    return hd_req_answer(req, 200, HD_STR("text/plain"), body, NULL, "hello");
}

static const hd_directive_t directives[] = {
    {.name = "hello",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = set_hello,
     .help = "GREETING: answers with GREETING and the caller's identity"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "hello",
    .directives = directives,
    .conf_size = sizeof(hello_conf_t),
    .phase = HD_PHASE_CONTENT,
    .on_process_start = on_process_start,
    .on_request_headers = on_request_headers,
};
