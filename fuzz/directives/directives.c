/* A whole configuration: the text is parsed, and what its directives say is built, as the
 * loader does, modules' too, without files. It is built, or refused with its place. What
 * it finds goes to regression/ with its fix. */
#include "../lib/program.h"
#include "core/proc/hd_settings.h"
#include <stdlib.h>

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

    if (inputs++ % INPUTS_PER_WORLD == 0)
        start_world(HD_ARENA_FILES, HD_MEMBER_LOADER);
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
