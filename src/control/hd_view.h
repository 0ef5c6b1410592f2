/* hd_view: what one proxy should have: its xDS resources, encoded, by kind and name.
 * Translation makes views (hd_translate.h), the xDS server sends what differs between two
 * of them.
 *
 * A resource is counted: proxies with equal views share the encoded bytes. In the control
 * process's own thread.
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_str.h"

/* In the order in which one change is sent (make before break). */
typedef enum {
    HD_VIEW_CLUSTERS,
    HD_VIEW_ENDPOINTS,
    HD_VIEW_LISTENERS,
    HD_VIEW_ROUTES,
    HD_VIEW_KINDS_N,
} hd_view_kind_t;

const char *hd_view_url(hd_view_kind_t kind); /* "type.googleapis.com/…" */
hd_view_kind_t hd_view_kind(hd_str_t url);    /* KINDS_N: none of these */
/* Listeners and clusters come to whoever asks for the type; the others are named. */
bool hd_view_is_wildcard(hd_view_kind_t kind);

typedef struct hd_xres_s {
    uint32_t refs;
    hd_view_kind_t kind;
    uint64_t version; /* hash of the bytes: equal content, equal version */
    hd_str_t name;
    hd_str_t bytes; /* the message without its Any */
} hd_xres_t;

/* One reference is the caller's. Copies both. */
hd_xres_t *hd_xres_create(hd_view_kind_t kind, hd_str_t name, hd_str_t bytes);
hd_xres_t *hd_xres_ref(hd_xres_t *r);
void hd_xres_unref(hd_xres_t *r);

typedef struct {
    hd_xres_t **items; /* sorted by name once sealed; NULL for none */
    uint32_t n, _room;
} hd_xres_set_t;

typedef struct {
    hd_xres_set_t sets[HD_VIEW_KINDS_N];
} hd_view_t;

void hd_view_init(hd_view_t *v);
void hd_view_deinit(hd_view_t *v);
/* Takes the reference. A second one of a name replaces the first when sealed. */
void hd_view_give(hd_view_t *v, hd_xres_t *r);
void hd_view_seal(hd_view_t *v);
/* NULL: none. Of a sealed view. */
hd_xres_t *hd_view_find(const hd_view_t *v, hd_view_kind_t kind, hd_str_t name);
