/* hd_tr_route_int: what the files that make routes share. hd_tr_action.c turns a route of
 * a VirtualService into match and action, hd_tr_route.c puts a sidecar's tables together,
 * hd_tr_gateway_route.c a gateway's. */
#pragma once
#include "control/hd_translate_int.h"

/* Where a route is for: what of a VirtualService counts there. */
typedef struct {
    hd_tr_t *t;
    const char *gateway; /* "mesh", or "NS/NAME" */
    int64_t port;        /* of the listener */
    bool any_port;       /* services of other ports are known there, too: gateways */
    hd_map_t *domains;   /* a sidecar's table: those in it so far; a gateway's: what
                            has joined which virtual host */
} hd_tr_place_t;

/* --- hd_tr_action.c --- */

/* <m> NULL: everything. */
PbRoute__RouteMatch *hd_tr_route_match(hd_tr_t *t, const hd_http_match_t *m);
/* <r> NULL: what is retried when nothing is said. NULL: nothing is. */
PbRoute__RetryPolicy *hd_tr_retry_policy(hd_tr_t *t, const hd_retries_t *r);
/* As the DestinationRule of <host> has it, if it hashes. */
void hd_tr_set_hash(hd_tr_t *t, PbRoute__RouteAction *a, hd_str_t host);
/* The cluster's name. */
char *hd_tr_destination(const hd_tr_place_t *s, const hd_destination_t *d);
void hd_tr_set_action(const hd_tr_place_t *s, PbRoute__Route *route,
                      const hd_http_route_t *http);

/* --- hd_tr_route.c --- */

PbRoute__RouteConfiguration *hd_tr_new_table(hd_tr_t *t, char *name);
/* Those of <vs> that count there, up to the first that takes everything. */
void hd_tr_add_routes(const hd_tr_place_t *s, PbRoute__VirtualHost *vh,
                      const hd_object_t *vs);
