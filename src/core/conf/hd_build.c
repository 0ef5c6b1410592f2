/* What precedes applying: modules that the text names or needs, variables that it
 * declares; and what a directive may ask of the whole. */
#include "core/conf/hd_dict.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/hd_module.h"
#include <stdio.h>

/* --- modules and variables --- */

static void declare(hd_conf_t *cf, hd_str_t name)
{
    hd_str_t key = hd_str_dup_lower(cf->temp, name);

    if (key.len > 0)
        hd_ignore(hd_map_put(cf->build->declared, key, cf->build) == NULL);
}

/* (?<name>…) and (?P<name>…) in a regular expression make variables. */
static void declare_captures(hd_conf_t *cf, hd_str_t arg)
{
    for (size_t i = 0; i + 3 < arg.len; i++) {
        size_t at = i + 2, end;

        if (arg.data[i] != '(' || arg.data[i + 1] != '?')
            continue;
        if (arg.data[at] == 'P')
            at++;
        if (arg.data[at] != '<' && arg.data[at] != '\'')
            continue;
        for (end = ++at;
             end < arg.len &&
             (arg.data[end] == '_' || (arg.data[end] >= '0' && arg.data[end] <= '9') ||
              (hd_ascii_lower(arg.data[end]) >= 'a' &&
               hd_ascii_lower(arg.data[end]) <= 'z'));
             end++)
            ;
        if (end < arg.len && (arg.data[end] == '>' || arg.data[end] == '\''))
            declare(cf, hd_str_sub(arg, at, end - at));
    }
}

static void declare_by(hd_conf_t *cf, const hd_node_t *node)
{
    for (const hd_entry_t *e = hd_dict_find(node->name); e != NULL; e = e->next) {
        unsigned which = e->directive->declares;
        hd_str_t arg;

        if (which == HD_ARG_LAST)
            which = node->args_n;
        if (which == 0 || which > node->args_n)
            continue;
        arg = node->args[which - 1];
        if (arg.len > 1 && arg.data[0] == '$')
            declare(cf, hd_str_sub(arg, 1, SIZE_MAX));
    }
    declare_captures(cf, node->name); /* a line of map */
    for (uint32_t i = 0; i < node->args_n; i++)
        declare_captures(cf, node->args[i]);
}

static hd_rc_t place(hd_conf_t *cf, const hd_node_t *node, hd_err_t *err)
{
    cf->build->_placed = true;
    return hd_err_prefix(err, "%.*s:%u: ", HD_STR_ARG(node->file), node->line);
}

/* A module of nginx's own ("modules/ngx_http_perl_module.so"), as distributions' files
 * load them: if a directive of it is used, that will be unknown. */
static bool is_nginx_module(hd_str_t path)
{
    for (size_t i = path.len; i > 0; i--) {
        if (path.data[i - 1] == '/') {
            path = hd_str_sub(path, i, path.len);
            break;
        }
    }
    return hd_str_has_prefix(path, HD_STR("ngx_"));
}

static hd_rc_t load_named(hd_conf_t *cf, const hd_node_t *root, hd_err_t *err)
{
    const hd_build_ops_t *ops = cf->build->ops;

    for (const hd_node_t *n = root->first; n != NULL; n = n->next) {
        if (!hd_str_eq(n->name, HD_STR("load_module")) || n->args_n != 1)
            continue;
        cf->node = n;
        if (is_nginx_module(n->args[0])) {
            hd_conf_warn(cf, "\"%.*s\" is a module of nginx: not loaded",
                         HD_STR_ARG(n->args[0]));
            continue;
        }
        if (ops == NULL || ops->load_module == NULL)
            hd_ignore(hd_err_set(err, HD_E_CONF, "modules can't be loaded here"));
        else if (ops->load_module(cf, n->args[0], err) == HD_OK)
            continue;
        return place(cf, n, err);
    }
    return HD_OK;
}

static hd_rc_t find_needed(hd_conf_t *cf, const hd_node_t *block, hd_err_t *err)
{
    const hd_build_ops_t *ops = cf->build->ops;

    for (const hd_node_t *n = block->first; n != NULL; n = n->next) {
        if (ops != NULL && ops->find_module != NULL && hd_dict_find(n->name) == NULL) {
            cf->node = n;
            if (ops->find_module(cf, HD_STR("directive"), n->name, err) == HD_ERROR)
                return place(cf, n, err);
        }
        if (ops != NULL && ops->find_xds_modules != NULL &&
            hd_str_eq(n->name, HD_STR("xds"))) {
            cf->node = n;
            if (ops->find_xds_modules(cf, err) != HD_OK)
                return place(cf, n, err);
        }
        if (find_needed(cf, n, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

static void find_declared(hd_conf_t *cf, const hd_node_t *block)
{
    for (const hd_node_t *n = block->first; n != NULL; n = n->next) {
        declare_by(cf, n);
        find_declared(cf, n);
    }
}

/* A variable that nothing declares may be a module's. */
static hd_rc_t find_variables_of(hd_conf_t *cf, const hd_node_t *node, hd_err_t *err)
{
    for (uint32_t i = 0; i < node->args_n; i++) {
        hd_str_t rest = node->args[i], name;

        while (hd_expr_next_name(&rest, &name)) {
            name = hd_str_dup_lower(cf->temp, name);
            if (hd_map_get(cf->build->declared, name) == NULL &&
                cf->build->ops->find_module(cf, HD_STR("variable"), name, err) ==
                    HD_ERROR)
                return place(cf, node, err);
        }
    }
    return HD_OK;
}

static hd_rc_t find_variables(hd_conf_t *cf, const hd_node_t *block, hd_err_t *err)
{
    if (cf->build->ops == NULL || cf->build->ops->find_module == NULL)
        return HD_OK;
    for (const hd_node_t *n = block->first; n != NULL; n = n->next) {
        cf->node = n;
        if (find_variables_of(cf, n, err) != HD_OK ||
            find_variables(cf, n, err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}

hd_rc_t hd_build_prepare(hd_conf_t *cf, const hd_node_t *root, hd_err_t *err)
{
    if (cf->build->declared == NULL) {
        cf->build->declared = hd_map_create();
        hd_pool_defer(cf->temp, (void (*)(void *))hd_map_destroy, cf->build->declared);
    }
    if (load_named(cf, root, err) != HD_OK || find_needed(cf, root, err) != HD_OK)
        return HD_ERROR;
    find_declared(cf, root);
    if (find_variables(cf, root, err) != HD_OK)
        return HD_ERROR;
    cf->node = root;
    return HD_OK;
}

/* --- what a directive may ask --- */

const hd_node_t *hd_conf_find(const hd_node_t *block, hd_str_t name)
{
    for (const hd_node_t *b = block; b != NULL; b = b->parent) {
        for (const hd_node_t *n = b->first; n != NULL; n = n->next) {
            if (hd_str_eq(n->name, name))
                return n;
        }
    }
    return block;
}

hd_str_t hd_conf_place(const hd_conf_t *cf)
{
    return hd_str_printf(cf->temp, "%.*s:%u", HD_STR_ARG(cf->node->file), cf->node->line);
}

hd_str_t hd_conf_path(const hd_conf_t *cf, hd_str_t path, bool in_conf_dir)
{
    hd_str_t dir = in_conf_dir ? cf->build->conf_dir : cf->build->prefix;
    bool has_slash = dir.len == 0 || dir.data[dir.len - 1] == '/';

    if (path.len > 0 && path.data[0] == '/')
        return hd_str_dup(cf->pool, path);
    return hd_str_printf(cf->pool, "%.*s%s%.*s", HD_STR_ARG(dir), has_slash ? "" : "/",
                         HD_STR_ARG(path));
}

void hd_conf_warn(const hd_conf_t *cf, const char *fmt, ...)
{
    char why[400], text[700];
    hd_conf_t at = *cf;
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(why, sizeof(why), fmt, args);
    va_end(args);
    (void)snprintf(text, sizeof(text), "%.*s:%u: %s", HD_STR_ARG(cf->node->file),
                   cf->node->line, why);
    cf->build->warnings++;
    if (cf->build->ops != NULL && cf->build->ops->on_warning != NULL)
        cf->build->ops->on_warning(&at, text);
    else
        hd_log(HD_LOG_WARN, "%s", text);
}

hd_rc_t hd_build_need_listen_for(hd_conf_t *cf, const hd_socket_spec_t *spec,
                                 unsigned roles, hd_err_t *err)
{
    if (cf->build->ops == NULL || cf->build->ops->need_listen == NULL)
        return HD_OK; /* a test: nobody opens sockets */
    return cf->build->ops->need_listen(cf, spec, roles, err);
}

hd_rc_t hd_build_need_listen(hd_conf_t *cf, const hd_socket_spec_t *spec, hd_err_t *err)
{
    return hd_build_need_listen_for(cf, spec, HD_ROLE_WORKERS, err);
}

hd_rc_t hd_build_need_log(hd_conf_t *cf, hd_str_t path, hd_err_t *err)
{
    if (cf->build->ops == NULL || cf->build->ops->need_log == NULL)
        return HD_OK;
    return cf->build->ops->need_log(cf, path, err);
}

void hd_build_need_dir(hd_conf_t *cf, hd_str_t path)
{
    if (cf->build->ops != NULL && cf->build->ops->need_dir != NULL)
        cf->build->ops->need_dir(cf, path);
}

hd_str_t (*hd_node_bytes)(hd_member_t *m);

const void *hd_conf_main_of(hd_member_t *m, const hd_module_t *module)
{
    const hd_slot_t *slot = hd_slot_find(m, NULL, HD_RES_SETTINGS, HD_STR("main"));
    const hd_region_t *r = slot != NULL ? hd_slot_get(m, slot) : NULL;
    const hd_main_confs_t *main = r != NULL ? r->root : NULL;
    uint16_t number = hd_module_number(module);

    return main != NULL && number < main->n ? main->confs[number] : NULL;
}
