/* hd_conf_proxy_int: nginx's proxy_… directives, a file a noun:
 *   hd_conf_proxy.c         the table of directives; proxy_pass and most others
 *   hd_conf_proxy_fields.c  those about fields, either way
 *   hd_conf_proxy_route.c   from what was set to a route */
#pragma once
#include "http/hd_conf_int.h"
#include "http/hd_proxy_filter.h"

#define HD_CONF_PROXY_HTTP10 1000 /* beside hd_up_protocol_t */

typedef struct {
    hd_str_t name;
    const hd_expr_t *value;
} hd_conf_proxy_header_t;

/* What a block has set, or inherits. */
typedef struct {
    hd_proxy_filter_t filter; /* what runs with each request */
    uint32_t pass_of;         /* the place of proxy_pass: not inherited */
    bool is_https, is_variable, has_uri;
    bool has_scheme_var;      /* the scheme, too, comes from variables */
    hd_str_t host_port, uri;  /* of proxy_pass without variables */
    const hd_expr_t *url;     /* with variables */
    const hd_slot_t *cluster; /* NULL: by <url> */
    const hd_slot_t *any;     /* of hosts that <url> makes; NULL: it makes none */
    const hd_conf_proxy_header_t *set_headers;
    uint32_t set_headers_n;
    const hd_str_t *hidden, *passed; /* response fields */
    uint32_t hidden_n, passed_n;
    uint64_t connect_timeout_ms, send_timeout_ms, read_timeout_ms; /* 0: 60 s */
    uint64_t accepted, head_bytes;                                 /* 0: 16 KB */
    uint64_t buffer_bytes, temp_write_bytes;                       /* 0: the default */
    uint64_t temp_max_plus_1;                                      /* 0: the default */
    hd_str_t temp_path;
    uint32_t version; /* VERSION_…; 0: 1.1 */
    const hd_expr_t *method, *body, *bind, *limit_rate;
    const hd_expr_t *const *allow; /* ends with NULL; NULL: none */
    bool bind_transparent, binds_each, drops_headers, drops_body, socket_keepalive,
        drops_trailers, force_ranges;
    uint32_t ignores; /* HD_IGNORES_… */
    uint32_t is_high;
    bool no_buffering, no_request_buffering, no_redirect, intercepts, no_multiplex;
    bool ignore_client_abort;
} hd_conf_proxy_t;

/* --- hd_conf_proxy_fields.c: set functions (hd_directive_t) --- */
hd_rc_t hd_conf_proxy_set_header(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                 hd_err_t *err);
hd_rc_t hd_conf_proxy_hide_header(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err);
hd_rc_t hd_conf_proxy_pass_header(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err);
hd_rc_t hd_conf_proxy_set_redirect(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                   hd_err_t *err);
hd_rc_t hd_conf_proxy_set_cookie_domain(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                        hd_err_t *err);
hd_rc_t hd_conf_proxy_set_cookie_path(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                      hd_err_t *err);
hd_rc_t hd_conf_proxy_set_cookie_flags(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                       hd_err_t *err);
hd_rc_t hd_conf_proxy_set_ignored(hd_conf_t *cf, const hd_str_t *args, void *conf,
                                  hd_err_t *err);
