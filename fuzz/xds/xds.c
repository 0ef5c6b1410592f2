/* Resources as a control plane sends them, built: the first byte is the kind, the rest
 * its encoding. It is built, or refused with a reason, and a batch that holds it can be
 * given up or published. What it finds goes to regression/ with its fix. */
#include "../../t/lib/xds_test.h"

#define INPUTS_PER_WORLD 300 /* slots are never given back */

static hd_xds_names_t resolve(void *arg, hd_str_t host, const hd_dns_conf_t *how)
{
    static hd_addr_t one = {.family = AF_INET, .v4 = {127, 0, 0, 1}};

    (void)arg, (void)how;
    return (hd_xds_names_t){.addrs = &one, .n = host.len % 2};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static xds_world_t *w;
    static unsigned inputs;
    hd_xds_built_t out = {0};
    hd_err_t err = {.code = HD_E_NONE};

    if (n < 1)
        return 0;
    if (w == NULL) {
        hd_log_level = HD_LOG_ALERT;
        w = xds_world(true);
        w->env.resolve = resolve;
    }
    w->env.batch = hd_batch_begin(w->arena);
    if (hd_xds_build(&w->env, data[0] % HD_XDS_KINDS_N, HD_STR_NONE,
                     hd_str_n((const char *)data + 1, n - 1), HD_STR("1"), &out,
                     &err) != HD_OK &&
        err.text[0] == '\0')
        abort();
    if (data[0] & 0x80)
        hd_batch_abort(w->env.batch);
    else
        hd_batch_publish(w->env.batch, 1);
    hd_arena_reclaim(w->arena, 0);
    hd_pool_reset(w->temp);
    if (++inputs % INPUTS_PER_WORLD == 0) {
        xds_world_end(w);
        w = NULL;
    }
    return 0;
}
