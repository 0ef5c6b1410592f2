/* hd_conf_derived: modules whose directives are the proxy's under names of their own:
 * grpc_…, tunnel_…. Their settings are the proxy's structs, too, so that a route is made
 * of them by the proxy's code. Made once, before configuration is read. */
#pragma once
#include "http/hd_conf_int.h"

#define HD_CONF_DERIVED_MAX 40
#define HD_CONF_DERIVED_NAME_BYTES 40

typedef struct {
    hd_module_t module;
    hd_directive_t directives[HD_CONF_DERIVED_MAX + 1];
    char names[HD_CONF_DERIVED_MAX][HD_CONF_DERIVED_NAME_BYTES];
    unsigned n;
} hd_conf_derived_t;

/* A directive of its own; lent for good. */
void hd_conf_derived_add(hd_conf_derived_t *d, const hd_directive_t *own);
/* <from>'s directive <name>, "proxy_x", as <prefix>x in an http block; to be changed as
 * the module wants it. */
hd_directive_t *hd_conf_derived_take(hd_conf_derived_t *d, const hd_module_t *from,
                                     const char *name, const char *prefix);
/* The module is known from now on, as <name>; its settings are <from>'s struct. */
void hd_conf_derived_register(hd_conf_derived_t *d, const char *name,
                              const hd_module_t *from);
/* A directive of the proxy with one argument, applied to <conf>, such a module's. */
hd_rc_t hd_conf_derived_apply(hd_conf_t *cf, const char *name, hd_str_t arg, void *conf,
                              hd_err_t *err);
/* <at>: <cf>, but that the proxy's settings are those of <d>. Of the walk. */
void hd_conf_derived_enter(hd_conf_t *cf, const hd_conf_derived_t *d,
                           hd_conf_t *at);
