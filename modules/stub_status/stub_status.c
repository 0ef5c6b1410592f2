/* stub_status: how busy the program is, in nginx's words:
 *     location = /basic_status { stub_status; allow 127.0.0.1; deny all; }
 * Of all workers together; $connections_active and its kin say the same. */
#include "hd_module.h"

typedef struct {
    bool is_on;
} stub_conf_t;

/* nginx took an argument once, and ignores it. */
static hd_rc_t set_on(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)cf, (void)args, (void)err;
    ((stub_conf_t *)conf)->is_on = true;
    return HD_OK;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    hd_str_t method = hd_req_method(req);
    hd_clients_t c;

    (void)conf;
    if (!hd_str_eq(method, HD_STR("GET")) && !hd_str_eq(method, HD_STR("HEAD")))
        return hd_req_answer(req, 405, HD_STR_NONE, HD_STR_NONE, NULL, "stub_status");
    hd_clients_sum(&c);
    return hd_req_answer(req, 200, HD_STR("text/plain"),
                         hd_str_printf(hd_req_pool(req),
                                       "Active connections: %llu \n"
                                       "server accepts handled requests\n"
                                       " %llu %llu %llu \n"
                                       "Reading: %llu Writing: %llu Waiting: %llu \n",
                                       (unsigned long long)c.now[HD_CLIENTS_ACTIVE],
                                       (unsigned long long)c.accepted,
                                       (unsigned long long)c.accepted,
                                       (unsigned long long)c.requests,
                                       (unsigned long long)c.now[HD_CLIENTS_READING],
                                       (unsigned long long)c.now[HD_CLIENTS_WRITING],
                                       (unsigned long long)hd_clients_waiting(&c)),
                         NULL, "stub_status");
}

static const hd_directive_t directives[] = {
    {.name = "stub_status",
     .scope = HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 0,
     .args_max = 1,
     .set = set_on,
     .help = "answers with counts of connections and requests, in nginx's words"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "stub_status",
    .directives = directives,
    .conf_size = sizeof(stub_conf_t),
    .phase = HD_PHASE_CONTENT,
    .follows_rewrite = true,
    .on_request_headers = on_request_headers,
};
