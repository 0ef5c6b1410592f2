/* What the files of the http block share: hd_conf_http.c, hd_conf_server.c,
 * hd_conf_location.c, hd_conf_core.c, hd_conf_proxy.c, hd_conf_answer.c.
 *
 * The block is walked several times: once to know all servers, their addresses and names
 * (nothing is built: <is_sketch>), then for each route table and for each listener in its
 * own region. Places live while the walk is in them. */
#pragma once
#include "core/base/hd_array.h"
#include "core/conf/hd_conf_listen.h"
#include "core/hd_module.h"
#include "http/hd_http_conf.h"

typedef enum {
    HD_PLACE_SERVER,
    HD_PLACE_PREFIX,
    HD_PLACE_EXACT,
    HD_PLACE_REGEX,
    HD_PLACE_NAMED,
    HD_PLACE_IF, /* an `if` block in one of these */
} hd_place_kind_t;

/* A server or location being read. */
typedef struct hd_place_s {
    hd_place_kind_t kind;
    hd_str_t path; /* the location's, without modifier */
    bool stops_regex, ignore_case;
    uint32_t id; /* unique in the walk: whose a setting is that isn't inherited */
    const hd_node_t *node;
    struct hd_place_s *outer;  /* NULL: a server */
    hd_array_t *inner;         /* hd_location_t, in order of text */
    const hd_except_t *except; /* limit_except; NULL: none */
    hd_array_t *rewrites;      /* of hd_conf_rewrite.c; NULL: none */
} hd_place_t;

/* A server block, as sketched. */
typedef struct {
    hd_node_t *node;
    hd_array_t listens; /* hd_conf_listen_t */
    hd_array_t names;   /* hd_str_t, lower case but for regular expressions */
    bool has_cert, is_http2, verifies; /* verifies: its clients' certificates */
} hd_conf_server_t;

/* An address listened on. */
typedef struct {
    hd_conf_listen_t listen; /* of all servers together */
    hd_array_t servers;      /* hd_conf_server_t *, in order of text */
    hd_conf_server_t *first; /* the default one */
    const hd_slot_t *routes;
} hd_conf_address_t;

typedef struct hd_http_build_s {
    hd_node_t *node;          /* of http */
    hd_array_t servers;       /* hd_conf_server_t */
    hd_array_t addresses;     /* hd_conf_address_t */
    hd_conf_server_t *server; /* being sketched; else NULL */
    hd_place_t *place;        /* being read; NULL: http itself */
    bool is_sketch;           /* locations are left out */
    bool has_tunnel;          /* the server being read, somewhere in it */
    uint32_t places_n;
} hd_http_build_t;

extern const hd_module_t hd_http_module, hd_http_core_module, hd_proxy_module,
    hd_answer_module, hd_error_page_module, hd_rewrite_module, hd_file_module,
    hd_try_files_module;

/* The walk that <cf> is part of. */
hd_http_build_t *hd_http_build_of(const hd_conf_t *cf);
/* A module's conf in <cf>'s block, to look at. */
const void *hd_http_look(const hd_conf_t *cf, const hd_module_t *module);

/* --- hd_conf_server.c --- */
hd_rc_t hd_http_build_tables(hd_http_build_t *b, hd_conf_t *cf, hd_err_t *err);
hd_rc_t hd_http_build_listeners(hd_http_build_t *b, hd_conf_t *cf, hd_err_t *err);
/* Begins a resource of the walk with the http level's settings in force. */
hd_rc_t hd_http_begin(hd_http_build_t *b, hd_conf_t *outer, hd_res_type_t type,
                      hd_str_t name, hd_conf_t *cf, hd_err_t *err);

/* --- hd_conf_location.c --- */
hd_rc_t hd_http_enter_location(hd_conf_t *cf, const hd_str_t *args, void *conf,
                               hd_err_t *err);
hd_rc_t hd_http_enter_limit_except(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                   hd_err_t *err);
/* Enters a server or location block; <at> is then a view of it with its settings. */
hd_rc_t hd_http_enter(hd_conf_t *cf, hd_node_t *node, hd_place_t *place, unsigned scope,
                      hd_conf_t *at, hd_err_t *err);
/* What a place does with a request: in <cf>'s region. */
hd_rc_t hd_http_make_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t **route,
                           hd_err_t *err);
hd_locations_t *hd_http_make_locations(hd_conf_t *cf, const hd_place_t *place);
/* Every loaded module's filter that is used in <cf>'s block, in phase order: those of a
 * route; those that run before one is known; those that log what never got one. */
typedef enum { HD_FILTERS_OF_ROUTE, HD_FILTERS_POST_READ, HD_FILTERS_LOG } hd_filters_t;
hd_rc_t hd_http_make_filters(hd_conf_t *cf, hd_filters_t which, const hd_route_t *route,
                             const hd_filter_conf_t **filters, uint32_t *n,
                             hd_err_t *err);

/* --- hd_conf_core.c --- */
void hd_http_core_defaults(hd_conf_t *cf);
/* The `types` of <block>, where only its simple directives are applied. */
hd_rc_t hd_http_core_types(hd_conf_t *cf, const hd_node_t *block, hd_err_t *err);
const hd_http_loc_t *hd_http_core_loc(hd_conf_t *cf);
/* Fills what of an HTTP server's settings comes from its own block. */
void hd_http_core_fill(const hd_conf_t *cf, hd_http_conf_t *http);
bool hd_http_core_is_http2(const hd_conf_t *cf);
/* A directive's arguments, each a condition: a list in <cf>'s region, ended by NULL. */
hd_rc_t hd_http_conf_conditions(hd_conf_t *cf, const hd_str_t *args,
                                const hd_expr_t *const **to, hd_err_t *err);
bool hd_http_core_is_internal(const hd_conf_t *cf, const hd_place_t *place);

/* --- hd_conf_file.c --- */
void hd_http_file_defaults(hd_conf_t *cf);
/* Its files, where nothing else answers. */
void hd_http_file_route(hd_conf_t *cf, hd_route_t *route);

/* --- hd_conf_rewrite.c --- */
/* Compiles what rewrite directives <place> has, into <route>. Last, when all else of it
 * is known. */
void hd_http_make_rewrite(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route);
/* The server or location that <place> is or, as an `if`, lies in. */
const hd_place_t *hd_http_location_of(const hd_place_t *place);
/* Is <id> the place, or one around it that an `if` takes such settings from as aren't
 * inherited otherwise? */
bool hd_http_is_of(const hd_place_t *place, uint32_t id);

/* --- hd_conf_proxy_route.c --- */
/* <conf>, the proxy module's or one like it, passes requests from just here. */
bool hd_http_proxy_passes(const void *conf, const hd_place_t *place);
/* HD_DECLINED: there is no proxy_pass in this place. */
hd_rc_t hd_http_proxy_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route,
                            hd_err_t *err);
/* --- hd_conf_answer.c --- */
void hd_http_headers_route(hd_conf_t *cf, const hd_place_t *place, hd_route_t *route);
