/* root, alias, index, try_files and what else concerns files. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "http/hd_file.h"

#define INDEX_MAX 32
#define TRIES_MAX 64

/* --- root PATH, alias PATH --- */

static bool has_sibling(const hd_conf_t *cf, hd_str_t name)
{
    const hd_node_t *n = cf->node->parent != NULL ? cf->node->parent->first : NULL;

    for (; n != NULL; n = n->next) {
        if (hd_str_eq(n->name, name))
            return true;
    }
    return false;
}

static hd_rc_t set_path(hd_conf_t *cf, hd_str_t path, hd_file_conf_t *fc, hd_err_t *err)
{
    hd_expr_t *e;

    if (has_sibling(cf, HD_STR("root")) && has_sibling(cf, HD_STR("alias")))
        return hd_err_set(err, HD_E_CONF,
                          "\"root\" and \"alias\" in one block: one of them is enough");
    if (path.len > 0 && path.data[0] != '/' && path.data[0] != '$')
        path = hd_conf_path(cf, path, false);
    if (hd_expr_compile(cf, path, &e, err) != HD_OK)
        return HD_ERROR;
    fc->root = e;
    return HD_OK;
}

static hd_rc_t set_root(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_file_conf_t *fc = conf;

    if (hd_str_find(args[0], HD_STR("$document_root")) >= 0 ||
        hd_str_find(args[0], HD_STR("$realpath_root")) >= 0)
        return hd_err_set(err, HD_E_CONF,
                          "the $document_root variable may not be used in \"root\"");
    fc->is_alias = fc->is_regex_alias = false;
    return set_path(cf, args[0], fc, err);
}

static hd_rc_t set_alias(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_place_t *place = hd_http_build_of(cf)->place;
    hd_file_conf_t *fc = conf;

    if (place->kind == HD_PLACE_NAMED)
        return hd_err_set(err, HD_E_CONF,
                          "\"alias\" cannot be used inside the named location");
    fc->is_alias = true;
    fc->is_regex_alias = place->kind == HD_PLACE_REGEX;
    fc->alias_len = (uint32_t)place->path.len;
    return set_path(cf, args[0], fc, err);
}

/* --- index FILE … --- */

static hd_rc_t set_index(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_file_conf_t *fc = conf;
    uint32_t before = cf->is_first ? 0 : fc->index_n, n = cf->node->args_n;
    const hd_expr_t **list;

    if (before + n > INDEX_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d index files", INDEX_MAX);
    list = hd_pool_new_n(cf->pool, const hd_expr_t *, before + n);
    if (before > 0)
        memcpy(list, fc->index, before * sizeof(*list));
    for (uint32_t i = 0; i < n; i++) {
        hd_expr_t *e;

        if (args[i].len == 0)
            return hd_err_set(err, HD_E_CONF, "index \"\" is invalid");
        if (hd_expr_compile(cf, args[i], &e, err) != HD_OK)
            return HD_ERROR;
        list[before + i] = e;
    }
    fc->index = list;
    fc->index_n = before + n;
    return HD_OK;
}

static hd_rc_t set_max_ranges(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    hd_file_conf_t *fc = conf;
    uint64_t n;

    (void)cf;
    if (!hd_str_to_u64(args[0], UINT32_MAX - 1, &n))
        return hd_err_set(err, HD_E_CONF, "invalid number \"%.*s\"", HD_STR_ARG(args[0]));
    fc->max_ranges_plus_1 = (uint32_t)n + 1;
    return HD_OK;
}

static hd_rc_t set_symlinks(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    hd_file_conf_t *fc = conf;
    hd_expr_t *from = NULL;

    if (cf->node->args_n > 1 &&
        (!hd_str_has_prefix(args[1], HD_STR("from=")) || args[1].len == 5 ||
         hd_str_eq(args[0], HD_STR("off"))))
        return hd_err_set(err, HD_E_CONF,
                          "invalid parameter \"%.*s\": from=PART, behind on or "
                          "if_not_owner",
                          HD_STR_ARG(args[1]));
    if (cf->node->args_n > 1 &&
        hd_expr_compile(cf, hd_str_sub(args[1], 5, args[1].len), &from, err) != HD_OK)
        return HD_ERROR;
    fc->symlinks_from = from;
    if (hd_str_eq(args[0], HD_STR("off")))
        fc->symlinks = HD_SYMLINKS_ALL;
    else if (hd_str_eq(args[0], HD_STR("on")))
        fc->symlinks = HD_SYMLINKS_NONE;
    else if (hd_str_eq(args[0], HD_STR("if_not_owner")))
        fc->symlinks = HD_SYMLINKS_OWNER;
    else
        return hd_err_set(err, HD_E_CONF,
                          "invalid parameter \"%.*s\": off, on, if_not_owner",
                          HD_STR_ARG(args[0]));
    return HD_OK;
}

/* --- accepted: it changes no answer --- */

static hd_rc_t accept_cache(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    (void)conf, (void)err;
    if (cf->node->uses == 1 && !hd_str_eq(args[0], HD_STR("off")))
        hd_conf_warn(cf, "not used: files are opened anew for each request");
    return HD_OK;
}

/* How files are read changes no answer. */
static hd_rc_t accept_reading(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    (void)conf, (void)err;
    if (cf->node->uses == 1 && !hd_str_eq(args[0], HD_STR("off")))
        hd_conf_warn(cf,
                     "\"%s %.*s\" has no effect: files are read by the worker itself, "
                     "through the page cache",
                     cf->directive->name, HD_STR_ARG(args[0]));
    return HD_OK;
}

static hd_rc_t accept_any(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)cf, (void)args, (void)conf, (void)err;
    return HD_OK;
}

void hd_http_file_defaults(hd_conf_t *cf)
{
    hd_file_conf_t *fc = hd_conf_of(cf, &hd_file_module);

    fc->prefix = hd_conf_path(cf, HD_STR(""), false);
}

void hd_http_file_route(hd_conf_t *cf, hd_route_t *route)
{
    route->file = hd_conf_keep(cf, hd_module_number(&hd_file_module));
    if (route->action == HD_ACT_NONE)
        route->action = HD_ACT_FILE;
}

static const hd_conf_enum_t not_names[] = {{"on", 0}, {"off", 1}, {NULL, 0}};
static const hd_conf_enum_t ims_names[] = {
    {"exact", HD_IMS_EXACT}, {"off", HD_IMS_OFF}, {"before", HD_IMS_BEFORE}, {NULL, 0}};
static const hd_conf_enum_t format_names[] = {
    {"html", HD_AUTOINDEX_HTML},
    {"xml", HD_AUTOINDEX_XML},
    {"json", HD_AUTOINDEX_JSON},
    {"jsonp", HD_AUTOINDEX_JSONP},
    {NULL, 0}};
static const hd_conf_enum_t gzip_static_names[] = {{"off", HD_GZIP_STATIC_OFF},
                                                   {"on", HD_GZIP_STATIC_ON},
                                                   {"always", HD_GZIP_STATIC_ALWAYS},
                                                   {NULL, 0}};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)
#define AT(field) offsetof(hd_file_conf_t, field)
#define ENUM(NAME, FIELD, NAMES, HELP)                                                   \
    {                                                                                    \
        .name = NAME, .scope = IN_ANY, .args_n = 1, .set = hd_set_enum,                  \
        .offset = AT(FIELD), .post = NAMES, .help = HELP                                 \
    }
#define FLAG(NAME, FIELD, HELP)                                                          \
    {                                                                                    \
        .name = NAME, .scope = IN_ANY, .args_n = 1, .set = hd_set_flag,                  \
        .offset = AT(FIELD), .help = HELP                                                \
    }
#define ANY(NAME, MAX, SET, HELP)                                                        \
    {                                                                                    \
        .name = NAME, .scope = IN_ANY, .args_n = 1, .args_max = MAX, .set = SET,         \
        .help = HELP                                                                     \
    }

static const hd_directive_t directives[] = {
    {.name = "root",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = set_root,
     .help = "PATH: files lie there, under their URI; html"},
    {.name = "alias",
     .scope = HD_IN_LOCATION,
     .args_n = 1,
     .set = set_alias,
     .help = "PATH: takes the place of the location's path in a file's name; the whole "
             "name in a location by regular expression"},
    {.name = "index",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_index,
     .help = "FILE …: what answers for a directory, the first that is there; index.html"},
    ENUM("etag", no_etag, not_names, "on|off: files have an ETag; on"),
    ENUM("if_modified_since", if_modified_since, ims_names,
         "off|exact|before: how the time is compared with the file's; exact"),
    ENUM("log_not_found", quiet_not_found, not_names,
         "on|off: files that aren't there are logged as errors; on"),
    FLAG("autoindex", autoindex, "on|off: a directory without index file is listed; off"),
    ENUM("autoindex_format", autoindex_format, format_names,
         "html|xml|json|jsonp: what a list looks like; jsonp: JSON as the argument of the "
         "function that the query's callback= names; html"),
    ENUM("autoindex_exact_size", rough_size, not_names,
         "on|off: sizes in bytes, or rounded to K, M, G; on"),
    FLAG("autoindex_localtime", autoindex_localtime,
         "on|off: times of a list are local ones; off"),
    {.name = "random_index",
     .scope = HD_IN_LOCATION,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(random_index),
     .help = "on|off: any file of a directory answers for it; off"},
    ENUM(
        "gzip_static", gzip_static, gzip_static_names,
        "off|on|always: FILE.gz is sent where it is there, and the client takes it; off"),
    ANY("max_ranges", 0, set_max_ranges,
        "N: at most so many ranges of a file at once, else all of it is sent; 0: none"),
    ANY("disable_symlinks", 2, set_symlinks,
        "off|on|if_not_owner [from=PART]: files behind symbolic links are refused, but for "
        "links in PART, with which the path begins; off"),
    ANY("open_file_cache", 2, accept_cache, "off|max=N …: accepted; there is no cache"),
    ANY("open_file_cache_valid", 0, accept_any, "TIME: accepted; there is no cache"),
    ANY("open_file_cache_min_uses", 0, accept_any, "N: accepted; there is no cache"),
    ANY("open_file_cache_errors", 0, accept_any, "on|off: accepted; there is no cache"),
    ANY("output_buffers", 2, accept_any, "N SIZE: accepted; files are read by 16 KB"),
    ANY("read_ahead", 0, accept_any, "SIZE: accepted; it is the system's"),
    ANY("directio_alignment", 0, accept_any, "SIZE: accepted; directio is off"),
    ANY("directio", 0, accept_reading,
        "SIZE|off: accepted; files are read through the page cache"),
    ANY("aio", 0, accept_reading,
        "on|off|threads[=POOL]: accepted; files are read by the worker itself"),
    ANY("aio_write", 0, accept_reading,
        "on|off: accepted; temporary files are written by the worker itself"),
    {0},
};

const hd_module_t hd_file_module = {
    .abi = HD_MODULE_ABI,
    .name = "http_file",
    .directives = directives,
    .conf_size = sizeof(hd_file_conf_t),
};

/* --- try_files FILE … URI|=CODE|@NAME --- */

typedef struct {
    uint32_t of; /* the place whose it is: not inherited */
    const hd_try_file_t *list;
    uint32_t n; /* with the last one */
    uint16_t status;
    const hd_expr_t *last;
} try_conf_t;

static hd_rc_t set_try_files(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    try_conf_t *tc = conf;
    uint32_t n = cf->node->args_n;
    hd_try_file_t *list = hd_pool_new_n(cf->pool, hd_try_file_t, n);
    hd_expr_t *e;
    uint64_t status;

    if (n > TRIES_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d files", TRIES_MAX);
    *tc = (try_conf_t){.of = hd_http_build_of(cf)->place->id, .list = list, .n = n};
    for (uint32_t i = 0; i < n; i++) {
        hd_str_t name = args[i];

        if (i + 1 == n && name.len > 0 && name.data[0] == '=') {
            if (!hd_str_to_u64(hd_str_sub(name, 1, name.len), 999, &status))
                return hd_err_set(err, HD_E_CONF, "invalid code \"%.*s\"",
                                  HD_STR_ARG(name));
            tc->status = (uint16_t)status;
            return HD_OK;
        }
        list[i].is_dir = name.len > 0 && name.data[name.len - 1] == '/' && i + 1 < n;
        if (list[i].is_dir)
            name.len--;
        if (hd_expr_compile(cf, name, &e, err) != HD_OK)
            return HD_ERROR;
        list[i].name = e;
        tc->last = e;
    }
    return HD_OK;
}

/* Inner blocks don't inherit it. */
static hd_rc_t on_try_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    const hd_place_t *place = hd_http_build_of(cf)->place;
    try_conf_t *tc = conf;

    (void)err;
    if (place != NULL && tc->of != place->id)
        *tc = (try_conf_t){.of = 0};
    return HD_OK;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const try_conf_t *tc = conf;
    hd_str_t to;
    hd_rc_t rc = hd_file_try(req, tc->list, tc->n);

    if (rc == HD_OK)
        return HD_OK;
    if (rc == HD_ERROR) {
        hd_response_fail(req, 500, 0, "try_files");
        return HD_ERROR;
    }
    if (tc->status != 0) {
        if (tc->status == 444)
            return hd_req_abort(req, NULL);
        hd_response_local(req, tc->status, HD_STR_NONE, HD_STR_NONE, 0, "try_files");
        return HD_DONE;
    }
    if (hd_expr_eval(tc->last, req, &to) != HD_OK || to.len == 0)
        return hd_req_fail(req, 500, HD_E_INTERNAL, "no value for try_files");
    req->reroute_to = hd_str_dup(req->pool, to);
    return HD_REROUTE;
}

static const hd_directive_t try_directives[] = {
    {.name = "try_files",
     .scope = HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 2,
     .args_max = HD_ARGS_ANY,
     .set = set_try_files,
     .help = "FILE … URI|@NAME|=CODE: the first file (with a slash: directory) that is "
             "there becomes the URI, else it goes to the last"},
    {0},
};

const hd_module_t hd_try_files_module = {
    .abi = HD_MODULE_ABI,
    .name = "try_files",
    .directives = try_directives,
    .conf_size = sizeof(try_conf_t),
    .phase = HD_PHASE_CONTENT,
    .follows_rewrite = true,
    .on_conf = on_try_conf,
    .on_request_headers = on_request_headers,
};
