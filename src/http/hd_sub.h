/* hd_sub: requests whose client is another request (auth_request, mirror; hd_module.h has
 * what modules see of it), and Envoy's request mirroring.
 *
 * A sub has a pool, pins and copies of its own, so that it may outlive its parent: one in
 * the background goes on then, any other is let go of. It has no access control of its
 * own, as in nginx, and isn't logged. */
#pragma once
#include "http/hd_request.h"

/* A cluster that gets a copy of what a route's gets (VS-MIRROR-*). Data in the route's
 * region. */
typedef struct hd_shadow_s {
    hd_route_t route;
    hd_proxy_conf_t proxy;
    hd_weighted_t target;
    uint32_t fraction_ppm;
    bool keeps_host; /* else -shadow is appended */
} hd_shadow_t;

/* Starts those that are drawn, when all is set that the upstream is to see. */
void hd_shadows_start(hd_req_t *req, const hd_shadow_t *shadows, uint32_t n);
/* The same body for all subs that mirror it; <body> stays. */
void hd_subs_give_body(hd_req_t *req, const hd_chain_t *body);
/* The parent ends: its conn is not looked at any more. */
void hd_subs_detach(hd_req_t *req);
