#include "core/conf/hd_dict.h"
#include "core/base/hd_log.h"
#include "core/hd_module.h"
#include <stdio.h>

hd_rc_t hd_conf_blame(hd_conf_t *cf, const hd_node_t *node, hd_err_t *err)
{
    if (cf->build->_placed)
        return HD_ERROR;
    cf->build->_placed = true;
    return hd_err_prefix(err, "%.*s:%u: ", HD_STR_ARG(node->file), node->line);
}

/* --- which directive a node is, and whether it may stand here --- */

static hd_rc_t refuse_unknown(hd_conf_t *cf, const hd_node_t *node, hd_err_t *err)
{
    hd_str_t meant = hd_dict_suggest(node->name, cf->scope);

    if (meant.len > 0)
        return hd_err_set(err, HD_E_CONF,
                          "unknown directive \"%.*s\": did you mean \"%.*s\"?",
                          HD_STR_ARG(node->name), HD_STR_ARG(meant));
    return hd_err_set(err, HD_E_CONF,
                      "unknown directive \"%.*s\": no module in the modules' directory "
                      "has it; what of nginx isn't there is in docs/nginx-users.md, and "
                      "load_module names a module from elsewhere",
                      HD_STR_ARG(node->name));
}

static hd_rc_t refuse_misplaced(const hd_entry_t *e, const hd_node_t *node, hd_err_t *err)
{
    char text[256];
    unsigned scope = 0;

    for (; e != NULL; e = e->next)
        scope |= e->directive->scope;
    hd_ignore(hd_scope_names(scope, text, sizeof(text)).len == 0);
    return hd_err_set(err, HD_E_CONF,
                      "\"%.*s\" directive is not allowed here: it may stand in %s",
                      HD_STR_ARG(node->name), text);
}

static hd_rc_t check_args(const hd_directive_t *d, const hd_node_t *node, hd_err_t *err)
{
    uint32_t min = d->args_n, max = d->args_max != 0 ? d->args_max : d->args_n;

    if (node->args_n >= min && (node->args_n <= max || max == HD_ARGS_ANY))
        return HD_OK;
    return hd_err_set(err, HD_E_CONF,
                      "invalid number of arguments in \"%.*s\" directive (%u): %s",
                      HD_STR_ARG(node->name), node->args_n,
                      d->help != NULL ? d->help : "see the documentation");
}

static hd_rc_t check_node(hd_conf_t *cf, hd_node_t *node, uint64_t block_no,
                          hd_err_t *err)
{
    hd_entry_t *e = hd_dict_find(node->name), *first = e;
    const hd_directive_t *d;

    while (e != NULL && (e->directive->scope & cf->scope) == 0)
        e = e->next;
    if (e == NULL)
        return first == NULL ? refuse_unknown(cf, node, err)
                             : refuse_misplaced(first, node, err);
    d = e->directive;
    if (d->block != NULL && !node->is_block)
        return hd_err_set(err, HD_E_CONF, "directive \"%s\" has no opening \"{\"",
                          d->name);
    if (d->block == NULL && node->is_block)
        return hd_err_set(err, HD_E_CONF,
                          "directive \"%s\" is not terminated by \";\": it has no block",
                          d->name);
    if (check_args(d, node, err) != HD_OK)
        return HD_ERROR;
    node->_is_first = e->met_in != block_no;
    if (!node->_is_first && !d->repeats)
        return hd_err_set(err, HD_E_CONF,
                          "\"%s\" directive is duplicate: it stands in %.*s:%u already",
                          d->name, HD_STR_ARG(e->met->file), e->met->line);
    if (node->_is_first)
        e->met = node;
    e->met_in = block_no;
    node->_entry = e;
    return HD_OK;
}

static hd_rc_t check_block(hd_conf_t *cf, const hd_node_t *block, hd_err_t *err)
{
    static uint64_t blocks_n;
    uint64_t block_no = ++blocks_n;

    for (hd_node_t *n = block->first; n != NULL; n = n->next)
        if (check_node(cf, n, block_no, err) != HD_OK)
            return hd_conf_blame(cf, n, err);
    return HD_OK;
}

/* --- conf structs ---
 *
 * They lie in cf->temp: most of what a block sets is looked at while a resource is built
 * and never again. What lasts is copied into the region, once for all blocks that say the
 * same. */

/* Before each. */
typedef struct conf_head_s {
    struct conf_head_s *outer; /* what it began as a copy of; NULL: of nothing */
    void *kept;                /* in the region; NULL: it isn't asked for yet */
} conf_head_t;

static conf_head_t *head_of(void *conf)
{
    return (conf_head_t *)conf - 1;
}

static bool is_own(const hd_conf_t *cf, uint16_t module)
{
    return (cf->_own[module / 64] >> (module % 64) & 1) != 0;
}

void *hd_conf_copy(hd_conf_t *cf, uint16_t module, void *from)
{
    size_t bytes = hd_module_get(module)->conf_size;
    conf_head_t *head = hd_pool_calloc(cf->temp, sizeof(*head) + bytes);

    if (from == NULL)
        return head + 1;
    memcpy(head + 1, from, bytes);
    head->outer = head_of(from);
    return head + 1;
}

const void *hd_conf_keep(hd_conf_t *cf, uint16_t module)
{
    size_t bytes = hd_module_get(module)->conf_size;
    conf_head_t *head;

    if (bytes == 0)
        return NULL;
    head = head_of(cf->confs[module]);
    while (head->outer != NULL && memcmp(head + 1, head->outer + 1, bytes) == 0)
        head = head->outer;
    if (head->kept == NULL)
        head->kept = hd_pool_alloc(cf->pool, bytes);
    memcpy(head->kept, head + 1, bytes);
    return head->kept;
}

/* Inner blocks may have kept a conf of this one before it was complete. */
static void renew_kept(hd_conf_t *cf)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        void *conf = cf->confs[i];

        if (is_own(cf, i) && head_of(conf)->kept != NULL)
            memcpy(head_of(conf)->kept, conf, hd_module_get(i)->conf_size);
    }
}

static void *own_conf(hd_conf_t *cf, uint16_t module)
{
    if (hd_module_get(module)->conf_size == 0)
        return NULL;
    if (is_own(cf, module))
        return cf->confs[module];
    cf->confs[module] = hd_conf_copy(cf, module, cf->confs[module]);
    cf->_own[module / 64] |= (uint64_t)1 << (module % 64);
    return cf->confs[module];
}

/* One zeroed conf for each module: what the first block of a resource inherits. */
static void fresh_confs(hd_conf_t *cf)
{
    uint16_t n = hd_modules_n();

    cf->confs = hd_pool_new_n(cf->temp, void *, n);
    cf->_own[0] = cf->_own[1] = 0;
    for (uint16_t i = 0; i < n; i++)
        hd_ignore(own_conf(cf, i) == NULL);
}

void *hd_conf_of(hd_conf_t *cf, const hd_module_t *module)
{
    uint16_t number = hd_module_number(module);

    hd_bug_on(number == UINT16_MAX);
    return own_conf(cf, number);
}

/* --- applying --- */

static hd_rc_t apply_node(hd_conf_t *cf, hd_node_t *node, hd_err_t *err)
{
    const hd_entry_t *e = node->_entry;
    const hd_directive_t *d = e->directive;
    hd_rc_t rc = HD_OK;
    void *conf;

    cf->node = node;
    cf->directive = d;
    cf->is_first = node->_is_first;
    conf = own_conf(cf, e->module);
    node->uses++;
    if (d->block != NULL)
        rc = d->block(cf, node->args, conf, err);
    else if (d->set != NULL)
        rc = d->set(cf, node->args, conf, err);
    if (rc == HD_OK || rc == HD_DONE)
        return HD_OK;
    if (err != NULL && err->code == HD_E_NONE)
        hd_ignore(hd_err_set(err, HD_E_CONF, "\"%s\" failed", d->name));
    return hd_conf_blame(cf, node, err);
}

static bool is_block_node(const hd_node_t *node)
{
    const hd_entry_t *e = node->_entry;

    return e->directive->block != NULL;
}

static hd_rc_t apply_all(hd_conf_t *cf, const hd_node_t *block, bool blocks,
                         hd_err_t *err)
{
    for (hd_node_t *n = block->first; n != NULL; n = n->next)
        if (is_block_node(n) == blocks && apply_node(cf, n, err) != HD_OK)
            return HD_ERROR;
    return HD_OK;
}

hd_rc_t hd_conf_complete(hd_conf_t *cf, unsigned scope, hd_err_t *err)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_module_t *m = hd_module_get(i);
        const hd_directive_t *d = m->directives;
        unsigned scopes = 0;

        if (m->on_conf == NULL)
            continue;
        for (; d != NULL && d->name != NULL; d++)
            scopes |= d->scope;
        if ((scopes & scope) != 0 && m->on_conf(cf, own_conf(cf, i), err) != HD_OK)
            return hd_conf_blame(cf, cf->node, err);
    }
    return HD_OK;
}

hd_rc_t hd_conf_enter(hd_conf_t *cf, const hd_node_t *block, unsigned scope,
                      void ***confs, hd_err_t *err)
{
    hd_conf_t inner = *cf;
    uint16_t n = hd_modules_n();

    inner.outer = cf;
    inner.scope = scope;
    inner.node = block;
    inner.confs = hd_pool_new_n(cf->temp, void *, n);
    memcpy(inner.confs, cf->confs, n * sizeof(void *));
    inner._own[0] = inner._own[1] = 0;
    if (confs != NULL)
        *confs = inner.confs;
    if (check_block(&inner, block, err) != HD_OK ||
        apply_all(&inner, block, false, err) != HD_OK ||
        apply_all(&inner, block, true, err) != HD_OK)
        return HD_ERROR;
    inner.node = block;
    if (hd_conf_complete(&inner, scope, err) != HD_OK)
        return HD_ERROR;
    renew_kept(&inner);
    return HD_OK;
}

hd_rc_t hd_conf_apply_simple(hd_conf_t *cf, const hd_node_t *block, unsigned scope,
                             hd_err_t *err)
{
    unsigned outer_scope = cf->scope;
    const hd_node_t *outer_node = cf->node;
    hd_rc_t rc;

    cf->scope = scope;
    rc = check_block(cf, block, err);
    if (rc == HD_OK)
        rc = apply_all(cf, block, false, err);
    cf->scope = outer_scope;
    cf->node = outer_node;
    return rc;
}

hd_rc_t hd_conf_begin_resource(hd_conf_t *outer, hd_res_type_t type, hd_str_t name,
                               hd_conf_t *inner, hd_err_t *err)
{
    *inner = *outer;
    inner->outer = outer;
    if (outer->batch != NULL) {
        inner->region = hd_batch_region(outer->batch, type, name, hd_conf_place(outer), 0,
                                        &inner->pool, err);
        if (inner->region == NULL)
            return HD_ERROR;
    }
    fresh_confs(inner);
    return HD_OK;
}

/* --- the main level --- */

static void init_main(hd_conf_t *cf, hd_node_t *root, hd_build_t *build, hd_pool_t *temp)
{
    *cf = (hd_conf_t){
        .pool = temp, .temp = temp, .node = root, .build = build, .scope = HD_IN_MAIN};
    build->root = root;
    build->_placed = false;
}

/* Sets one simple directive if it is <module>'s. */
static hd_rc_t read_known(hd_conf_t *cf, hd_node_t *node, uint16_t module, hd_err_t *err)
{
    hd_entry_t *e = hd_dict_find(node->name);

    while (e != NULL && (e->module != module || (e->directive->scope & cf->scope) == 0))
        e = e->next;
    if (e == NULL || e->directive->block != NULL || node->is_block)
        return HD_OK;
    node->_entry = e;
    node->_is_first = true;
    if (check_args(e->directive, node, err) != HD_OK)
        return hd_conf_blame(cf, node, err);
    return apply_node(cf, node, err);
}

static hd_rc_t read_level(hd_conf_t *cf, const hd_node_t *block, unsigned scope,
                          uint16_t module, hd_err_t *err)
{
    for (hd_node_t *n = block->first; n != NULL; n = n->next) {
        cf->scope = scope;
        if (read_known(cf, n, module, err) != HD_OK)
            return HD_ERROR;
        if (n->is_block && scope == HD_IN_MAIN && hd_str_eq(n->name, HD_STR("events")) &&
            read_level(cf, n, HD_IN_EVENTS, module, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

hd_rc_t hd_conf_read_main(hd_node_t *root, const hd_module_t *module, hd_build_t *build,
                          hd_pool_t *pool, hd_err_t *err)
{
    hd_conf_t cf;

    init_main(&cf, root, build, pool);
    fresh_confs(&cf);
    return read_level(&cf, root, HD_IN_MAIN, hd_module_number(module), err);
}

static hd_rc_t publish_main(hd_conf_t *cf, hd_err_t *err)
{
    hd_main_confs_t *main = hd_pool_new(cf->pool, hd_main_confs_t);
    const void **confs = hd_pool_new_n(cf->pool, const void *, hd_modules_n());
    hd_slot_t *slot;
    hd_rc_t rc;

    slot = hd_slot_find_or_add(cf->arena, HD_RES_SETTINGS, HD_STR("main"), err);
    if (slot == NULL)
        return HD_ERROR;
    main->n = hd_modules_n();
    main->confs = confs;
    for (uint16_t i = 0; i < main->n; i++)
        confs[i] = hd_conf_keep(cf, i);
    rc = hd_batch_put(cf->batch, slot, cf->region, main, HD_CONTENT_BUILT, err);
    return rc == HD_DONE ? HD_OK : rc;
}

hd_rc_t hd_conf_build(hd_node_t *root, hd_arena_t *arena, hd_member_t *m,
                      hd_batch_t *batch, hd_pool_t *temp, hd_build_t *build,
                      hd_err_t *err)
{
    hd_conf_t cf;

    init_main(&cf, root, build, temp);
    if (hd_build_prepare(&cf, root, err) != HD_OK)
        return HD_ERROR;
    cf.arena = arena;
    cf.member = m;
    cf.batch = batch;
    if (batch != NULL) {
        cf.region = hd_batch_region(batch, HD_RES_SETTINGS, HD_STR("main"), root->file, 0,
                                    &cf.pool, err);
        if (cf.region == NULL)
            return HD_ERROR;
    }
    fresh_confs(&cf);
    if (check_block(&cf, root, err) != HD_OK ||
        apply_all(&cf, root, false, err) != HD_OK ||
        apply_all(&cf, root, true, err) != HD_OK)
        return HD_ERROR;
    cf.node = root;
    if (hd_conf_complete(&cf, HD_IN_MAIN, err) != HD_OK)
        return HD_ERROR;
    return batch != NULL ? publish_main(&cf, err) : HD_OK;
}
