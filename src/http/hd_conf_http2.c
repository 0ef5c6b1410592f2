/* Settings of HTTP/2 towards clients (nginx's ngx_http_v2_module), and how much of what
 * costs them nothing they may do. */
#include "http/hd_conf_http2.h"
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "http/hd_h2_budget.h"

typedef struct {
    uint32_t streams;
    uint64_t preread_bytes, accepted;
    uint32_t budget, client_budget; /* hd_h2_budget.h */
} http2_conf_t;

void hd_http2_fill(const hd_conf_t *cf, hd_http_conf_t *http)
{
    const http2_conf_t *hc = hd_http_look(cf, &hd_http2_module);

    http->h2_streams = hc->streams;
    http->h2_stream_window = (uint32_t)hc->preread_bytes;
    http->h2_budget = hc->budget;
    http->h2_client_budget = hc->client_budget;
    http->h2_clients = hd_h2_clients_get(cf->member);
}

/* N | off */
static hd_rc_t set_budget(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    uint32_t *budget = (uint32_t *)(void *)((char *)conf + cf->directive->offset);
    uint64_t n;

    if (hd_str_eq(args[0], HD_STR("off"))) {
        *budget = HD_H2_NO_BUDGET;
        return HD_OK;
    }
    if (!hd_str_to_u64(args[0], 1000000000, &n) || n < 10)
        return hd_err_set(err, HD_E_CONF,
                          "invalid number \"%.*s\": 10 to 1000000000, off",
                          HD_STR_ARG(args[0]));
    *budget = (uint32_t)n;
    return HD_OK;
}

/* What nginx had before 1.19.7, and what replaces it. */
static hd_rc_t warn_of_old(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)args, (void)conf, (void)err;
    if (cf->node->uses == 1)
        hd_conf_warn(
            cf, "the \"%.*s\" directive is obsolete, use the \"%s\" directive instead",
            HD_STR_ARG(cf->node->name), (const char *)cf->directive->post);
    return HD_OK;
}

static const hd_conf_limits_t one_and_more = {1, INT32_MAX};
static const hd_conf_limits_t windows = {1, INT32_MAX};

#define IN_SERVERS (HD_IN_HTTP | HD_IN_SERVER)
#define AT(field) offsetof(http2_conf_t, field)
#define OLD(NAME, INSTEAD)                                                               \
    {                                                                                    \
        .name = NAME, .scope = IN_SERVERS, .args_n = 1, .set = warn_of_old,              \
        .post = INSTEAD, .help = "obsolete: " INSTEAD                                    \
    }

static const hd_directive_t directives[] = {
    {.name = "http2_max_concurrent_streams",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = AT(streams),
     .post = &one_and_more,
     .help = "N: requests that a client may have under way over a connection; 128"},
    {.name = "http2_body_preread_size",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(preread_bytes),
     .post = &windows,
     .help = "SIZE: so much of a request's body may come before it is asked for (a "
             "stream's window); 256k"},
    {.name = "http2_recv_buffer_size",
     .scope = HD_IN_HTTP,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(accepted),
     .help = "SIZE: accepted; input is read in blocks of 16 KB"},
    {.name = "http2_glitches",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_budget,
     .offset = AT(budget),
     .help = "N|off: points a connection has for resets (5), pings (2), settings (5), "
             "empty frames (1) and the like before it is ended; a tenth comes back each "
             "second, and some with each answer; 1000"},
    {.name = "http2_client_glitches",
     .scope = IN_SERVERS,
     .args_n = 1,
     .set = set_budget,
     .offset = AT(client_budget),
     .help = "N|off: points a client's address has for the same over all connections and "
             "workers; a tenth comes back each second; 10000"},
    OLD("http2_recv_timeout", "client_header_timeout"),
    OLD("http2_idle_timeout", "keepalive_timeout"),
    OLD("http2_max_requests", "keepalive_requests"),
    OLD("http2_max_field_size", "large_client_header_buffers"),
    OLD("http2_max_header_size", "large_client_header_buffers"),
    {0},
};

const hd_module_t hd_http2_module = {
    .abi = HD_MODULE_ABI,
    .name = "http2",
    .directives = directives,
    .conf_size = sizeof(http2_conf_t),
};
