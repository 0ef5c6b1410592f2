/* Fuzz target: the configuration's parser, and sizes and times. What it finds goes to
 * regression/ with its fix. */
#include "core/conf/hd_parse.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every node has a name's place and hangs where it says; returns how deep it goes. */
static unsigned check_children(const hd_node_t *parent)
{
    unsigned deepest = 0;

    for (const hd_node_t *n = parent->first; n != NULL; n = n->next) {
        unsigned depth;

        if (n->parent != parent || n->line == 0 || (!n->is_block && n->first != NULL) ||
            (n->next == NULL && parent->last != n))
            abort();
        for (uint32_t i = 0; i < n->args_n; i++)
            if (n->args[i].data == NULL || n->args[i].data[n->args[i].len] != '\0')
                abort();
        depth = 1 + check_children(n);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const raw[] = {"*_by_lua_block", NULL};
    hd_str_t text = hd_str_n((const char *)data, size);
    hd_pool_t *pool = hd_pool_create(0);
    hd_err_t err = {0};
    hd_node_t *root;
    uint64_t n;

    hd_parse_set_raw_blocks(raw);
    root = hd_parse_text(pool, HD_STR("f"), text, &err);
    if (root == NULL ? !hd_str_has_prefix(hd_str_c(err.text), HD_STR("f:"))
                     : check_children(root) > 101)
        abort();
    if (hd_parse_size(text, 1000, &n, NULL) == HD_OK && n > 1000)
        abort();
    if (hd_parse_msec(text, &n, NULL) == HD_OK && n > INT64_MAX / 1000000)
        abort();
    hd_pool_destroy(pool);
    return 0;
}
