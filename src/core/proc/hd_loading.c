/* From text to a batch: what loader, -t and master_process off have in common. */
#include "core/proc/hd_process_int.h"
#include "core/os/hd_clock.h"
#include "hd_auto_config.h"
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static hd_loading_t *loading; /* one at a time: the callbacks below have no argument */

/* --- modules --- */

static hd_rc_t keep_path(hd_str_t path, hd_err_t *err)
{
    hd_settings_t *s = loading->settings;
    char *to = s->modules[s->modules_n];

    if (s->modules_n == HD_MODULES_MAX || path.len >= HD_PATH_MAX_BYTES)
        return hd_err_set(err, HD_E_LIMIT,
                          "at most %d modules, with paths of at most %d bytes",
                          HD_MODULES_MAX, HD_PATH_MAX_BYTES - 1);
    (void)snprintf(to, HD_PATH_MAX_BYTES, "%.*s", HD_STR_ARG(path));
    s->module_files[s->modules_n++] = hd_module_file(to);
    return HD_OK;
}

static uint16_t loaded_from(hd_str_t path)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++)
        if (hd_str_eq(hd_module_path(i), path))
            return i;
    return UINT16_MAX;
}

void hd_loading_need_generation(hd_loading_t *l, hd_str_t what)
{
    (void)snprintf(l->needs_generation, sizeof(l->needs_generation), "\"%.*s\"",
                   HD_STR_ARG(what));
}

static hd_rc_t load(hd_str_t path, hd_err_t *err)
{
    if (loading->running != NULL) {
        hd_loading_need_generation(loading, path);
        return hd_err_set(err, HD_E_CONF,
                          "module \"%.*s\" can't be added to running processes",
                          HD_STR_ARG(path));
    }
    if (hd_module_load(path, err) != HD_OK)
        return HD_ERROR;
    return keep_path(path, err);
}

static hd_rc_t load_module(hd_conf_t *cf, hd_str_t name, hd_err_t *err)
{
    hd_str_t path = hd_conf_path(cf, name, false);
    uint16_t number = loaded_from(path);

    for (uint32_t i = 0; i < loading->named_n; i++)
        if (loading->named[i] == number && number != UINT16_MAX)
            return hd_err_set(err, HD_E_CONF, "module \"%.*s\" is already loaded",
                              HD_STR_ARG(path));
    if (number == UINT16_MAX) {
        if (load(path, err) != HD_OK)
            return HD_ERROR;
        number = loaded_from(path);
    }
    if (loading->named_n < HD_MODULES_MAX)
        loading->named[loading->named_n++] = number;
    loading->settings->load_lines =
        hd_hash64(path.data, path.len, loading->settings->load_lines + 1);
    return HD_OK;
}

static hd_rc_t find_module(hd_conf_t *cf, hd_str_t what, hd_str_t name, hd_err_t *err)
{
    hd_str_t path = hd_module_index_find(hd_modules_dir(cf->temp), what, name, cf->temp);

    if (path.len == 0 || loaded_from(path) != UINT16_MAX)
        return HD_DECLINED;
    return load(path, err);
}

static hd_rc_t load_once(hd_str_t path, hd_err_t *err)
{
    return loaded_from(path) != UINT16_MAX ? HD_OK : load(path, err);
}

static hd_rc_t find_xds_modules(hd_conf_t *cf, hd_err_t *err)
{
    return hd_module_index_each(hd_modules_dir(cf->temp), HD_STR("type"), cf->temp,
                                load_once, err);
}

/* --- what the master is asked for --- */

static hd_rc_t need_listen(hd_conf_t *cf, const hd_socket_spec_t *spec, unsigned roles,
                           hd_err_t *err)
{
    hd_settings_t *s = loading->settings;
    hd_listen_item_t item;

    (void)cf;
    if (!hd_listen_item_init(&item, spec, roles))
        return hd_err_set(err, HD_E_CONF,
                          "the path of a unix socket has at most 107 bytes");
    for (uint32_t i = 0; i < s->listens_n; i++) {
        if (hd_listen_item_same(&s->listens[i], &item)) {
            s->listens[i].roles |= roles;
            return HD_OK;
        }
    }
    if (s->listens_n == HD_LISTENS_MAX)
        return hd_err_set(err, HD_E_LIMIT, "more than %d listening sockets",
                          HD_LISTENS_MAX);
    s->listens[s->listens_n++] = item;
    return HD_OK;
}

static hd_rc_t need_log(hd_conf_t *cf, hd_str_t path, hd_err_t *err)
{
    hd_settings_t *s = loading->settings;

    (void)cf;
    for (uint32_t i = 0; i < s->logs_n; i++)
        if (hd_str_eq(hd_str_c(s->logs[i]), path))
            return HD_OK;
    if (s->logs_n == HD_LOG_FILES_MAX || path.len >= HD_PATH_MAX_BYTES)
        return hd_err_set(err, HD_E_LIMIT,
                          "at most %d log files, with paths of at most %d bytes",
                          HD_LOG_FILES_MAX, HD_PATH_MAX_BYTES - 1);
    (void)snprintf(s->logs[s->logs_n++], HD_PATH_MAX_BYTES, "%.*s", HD_STR_ARG(path));
    return HD_OK;
}

/* As nginx, by whoever may: a worker's user often has no right to make it there. */
static void need_dir(hd_conf_t *cf, hd_str_t path)
{
    const hd_settings_t *s = loading->settings;

    if (mkdir(path.data, 0700) != 0) {
        if (errno != EEXIST)
            hd_conf_warn(cf, "mkdir() \"%s\" failed: %s", path.data, strerror(errno));
        return;
    }
    if (geteuid() == 0 && s->uid != UINT32_MAX && chown(path.data, s->uid, s->gid) != 0)
        hd_conf_warn(cf, "chown() of \"%s\" failed: %s", path.data, strerror(errno));
}

static void on_warning(hd_conf_t *cf, const char *text)
{
    (void)cf;
    if (!loading->is_reading) /* it comes again when all is built */
        hd_tell(HD_LOG_WARN, "%s", text);
}

static const hd_build_ops_t ops = {
    .load_module = load_module,
    .find_module = find_module,
    .find_xds_modules = find_xds_modules,
    .need_listen = need_listen,
    .need_log = need_log,
    .need_dir = need_dir,
    .on_warning = on_warning,
};

/* --- the way --- */

static const hd_node_t *find_line(const hd_node_t *block, hd_str_t name)
{
    for (const hd_node_t *n = block->first; n != NULL; n = n->next) {
        const hd_node_t *inner = NULL;

        if (hd_str_eq(n->name, HD_STR("events")))
            inner = find_line(n, name);
        if (inner != NULL || hd_str_eq(n->name, name))
            return inner != NULL ? inner : n;
    }
    return NULL;
}

/* What running processes can't follow is an error here, and none where new ones can be
 * started (needs_generation). */
static hd_rc_t refuse_change(hd_loading_t *l, const char *name, hd_err_t *err)
{
    const hd_node_t *at = find_line(l->root, hd_str_c(name));

    if (at == NULL)
        at = l->root; /* it was there, and is no more */
    return hd_err_set(err, HD_E_CONF,
                      "%.*s:%u: \"%s\" can't be changed in running processes: stop and "
                      "start heddle, or put it back",
                      HD_STR_ARG(at->file), at->line, name);
}

/* Before anything is built: it may not fit the running processes. */
static hd_rc_t check_settings(hd_loading_t *l, hd_err_t *err)
{
    const char *name;

    if (l->running == NULL)
        return HD_OK;
    name = hd_settings_refused(l->running, l->settings);
    if (name != NULL)
        return refuse_change(l, name, err);
    name = hd_settings_differ(l->running, l->settings);
    if (name == NULL)
        return HD_OK;
    hd_loading_need_generation(l, hd_str_c(name));
    return refuse_change(l, name, err);
}

static hd_rc_t check_load_lines(hd_loading_t *l, hd_err_t *err)
{
    if (l->running == NULL || l->running->load_lines == l->settings->load_lines)
        return HD_OK;
    hd_loading_need_generation(l, HD_STR("load_module"));
    return refuse_change(l, "load_module", err);
}

static hd_str_t dir_of(hd_str_t path)
{
    while (path.len > 0 && path.data[path.len - 1] != '/')
        path.len--;
    return path;
}

hd_rc_t hd_loading_read(hd_loading_t *l, hd_err_t *err)
{
    const hd_options_t *o = l->options;
    hd_rc_t rc;

    loading = l;
    l->pool = hd_pool_create(0);
    hd_settings_init(l->settings);
    if (l->settings->pid_path[0] != '/')
        (void)snprintf(l->settings->pid_path, HD_PATH_MAX_BYTES, "%.*s%s",
                       HD_STR_ARG(o->prefix), HD_PID_PATH);
    if (l->running != NULL)
        hd_settings_copy_modules(l->settings, l->running);
    (void)snprintf(l->settings->error_log, HD_PATH_MAX_BYTES, "%s", o->error_log.data);
    l->build = (hd_build_t){.settings = l->settings,
                            .ops = &ops,
                            .prefix = o->prefix,
                            .conf_dir = dir_of(o->conf),
                            .is_test = o->test};
    l->root = hd_parse_file(l->pool, o->conf, o->globals, &l->sources, err);
    if (l->root == NULL)
        return HD_ERROR;
    l->is_reading = true;
    rc = hd_conf_read_main(l->root, &hd_core_module, &l->build, l->pool, err);
    l->is_reading = false;
    if (rc != HD_OK)
        return HD_ERROR;
    l->build.warnings = 0;
    return check_settings(l, err);
}

hd_rc_t hd_loading_build(hd_loading_t *l, hd_arena_t *arena, hd_member_t *m,
                         hd_err_t *err)
{
    loading = l;
    l->batch = arena != NULL ? hd_batch_begin(arena) : NULL;
    if (hd_conf_build(l->root, arena, m, l->batch, l->pool, &l->build, err) != HD_OK ||
        check_load_lines(l, err) != HD_OK)
        return HD_ERROR;
    l->settings->has_agent |= l->build.needs_agent;
    if (l->batch != NULL)
        hd_batch_remove_others(l->batch);
    return HD_OK;
}

size_t hd_loading_publish(hd_loading_t *l, hd_proc_t *p)
{
    size_t changed = hd_batch_publish(l->batch, hd_clock_mono_ns());

    l->batch = NULL;
    hd_process_ring(p);
    return changed;
}

bool hd_loading_publish_first(hd_loading_t *l, hd_proc_t *p, size_t *changed)
{
    size_t left_n;

    *changed = hd_batch_publish_first(l->batch, hd_clock_mono_ns(), &left_n);
    *changed += left_n;
    if (left_n == 0) {
        hd_batch_abort(l->batch);
        l->batch = NULL;
    }
    hd_process_ring(p);
    return left_n > 0;
}

void hd_loading_end(hd_loading_t *l)
{
    if (l->batch != NULL)
        hd_batch_abort(l->batch);
    if (l->pool != NULL)
        hd_pool_destroy(l->pool);
    l->batch = NULL;
    l->pool = NULL;
}
