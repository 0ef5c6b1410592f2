/* Resources as a control plane sends them, built, modules' part too: the first byte is
 * the kind, the rest its encoding. It is built, or refused with a reason, and a batch
 * that holds it can be given up or published. What it finds goes to regression/ with its
 * fix. */
#include "../lib/program.h"
#include "mesh/xds/hd_xds.h"
#include <stdlib.h>

static hd_xds_names_t resolve(void *arg, hd_str_t host, const hd_dns_conf_t *how)
{
    static hd_addr_t one = {.family = AF_INET, .v4 = {127, 0, 0, 1}};

    (void)arg, (void)how;
    return (hd_xds_names_t){.addrs = &one, .n = host.len % 2};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static hd_pool_t *temp;
    static unsigned inputs;
    hd_xds_env_t env;
    hd_xds_built_t out = {0};
    hd_err_t err = {.code = HD_E_NONE};

    if (n < 1)
        return 0;
    if (inputs++ % INPUTS_PER_WORLD == 0)
        start_world(HD_ARENA_DYNAMIC, HD_MEMBER_AGENT);
    if (temp == NULL)
        temp = hd_pool_create(0);
    env = (hd_xds_env_t){.arena = arena,
                         .member = member,
                         .temp = temp,
                         .resolve = resolve,
                         .batch = hd_batch_begin(arena)};
    if (hd_xds_build(&env, data[0] % HD_XDS_KINDS_N, HD_STR_NONE,
                     hd_str_n((const char *)data + 1, n - 1), HD_STR("1"), &out,
                     &err) != HD_OK &&
        err.text[0] == '\0')
        abort();
    if (data[0] & 0x80)
        hd_batch_abort(env.batch);
    else
        hd_batch_publish(env.batch, 1);
    hd_arena_reclaim(arena, 0);
    hd_pool_reset(temp);
    if (inputs % INPUTS_PER_WORLD == 0)
        end_world();
    return 0;
}
