/* A whole configuration: the text is parsed, and what its directives say is built, as the
 * loader does, without modules of their own and without files. It is built, or refused
 * with its place. What it finds goes to regression/ with its fix. */
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"
#include "core/loom/hd_batch.h"
#include "core/proc/hd_process.h"
#include "core/proc/hd_settings.h"
#include "http/hd_conf_http.h"
#include "http/hd_http.h"
#include "../../t/lib/loom_test.h"
#include "mesh/hd_balance.h"
#include "mesh/hd_conf_guard.h"
#include "mesh/hd_conf_upstream.h"
#include "stream/hd_conf_stream.h"
#include "stream/hd_tcp.h"
#include <stdlib.h>

#define INPUTS_PER_WORLD 300 /* slots are never given back */

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *member;

static void register_parts(void)
{
    static const char *const raw[] = {"*_by_lua_block", NULL};

    hd_log_level = HD_LOG_ALERT;
    hd_parse_set_raw_blocks(raw);
    hd_process_register();
    hd_balancer = &hd_mesh_balancer;
    hd_conf_cluster = &hd_mesh_conf_cluster;
    hd_http_register();
    hd_ignore(hd_tcp_protocol() == 0);
    hd_ignore(hd_module_add(&hd_ssl_module) == 0);
    hd_ignore(hd_module_add(&hd_proxy_ssl_module) == 0);
    hd_ignore(hd_module_add(&hd_upstream_module) == 0);
    hd_ignore(hd_module_add(&hd_guard_module) == 0);
    hd_http_conf_register();
    hd_ignore(hd_module_add(&hd_stream_module) == 0);
}

static void start_world(void)
{
    hd_err_t err = {0};

    state = loom_state();
    arena = loom_arena(state, HD_ARENA_FILES, (size_t)64 << 20);
    member = hd_member_start(state, -1, HD_MEMBER_LOADER, &err);
    hd_bug_on(member == NULL || hd_arena_open_writer(arena, member, &err) != HD_OK);
    hd_member_add_arena(member, arena);
}

static void end_world(void)
{
    hd_member_stop(member);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}

static void ignore_warning(hd_conf_t *cf, const char *text)
{
    (void)cf, (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const hd_build_ops_t ops = {.on_warning = ignore_warning};
    static hd_settings_t settings;
    static unsigned inputs;
    hd_pool_t *pool = hd_pool_create(0);
    hd_err_t err = {0};
    hd_build_t build = {.settings = &settings,
                        .ops = &ops,
                        .prefix = HD_STR("/nonexistent/"),
                        .conf_dir = HD_STR("/nonexistent/")};
    hd_node_t *root;

    if (inputs == 0)
        register_parts();
    if (inputs++ % INPUTS_PER_WORLD == 0)
        start_world();
    hd_settings_init(&settings);
    root = hd_parse_text(pool, HD_STR("f"), hd_str_n((const char *)data, size), &err);
    if (root != NULL) {
        hd_batch_t *batch = hd_batch_begin(arena);

        if (hd_conf_build(root, arena, member, batch, pool, &build, &err) == HD_OK) {
            hd_batch_remove_others(batch);
            hd_batch_publish(batch, 1);
        } else {
            if (!hd_str_has_prefix(hd_str_c(err.text), HD_STR("f:")))
                abort();
            hd_batch_abort(batch);
        }
        hd_arena_reclaim(arena, 0);
    }
    hd_pool_destroy(pool);
    if (inputs % INPUTS_PER_WORLD == 0)
        end_world();
    return 0;
}
