/* hd_view: what one proxy should have: its xDS resources, encoded, by kind and name.
 * Translation makes views (hd_translate.h), the xDS server sends what differs between two
 * of them.
 *
 * A resource is counted: proxies with equal views share the encoded bytes. A view knows
 * the parts that it is made of, and so whether it still holds. In the control process's
 * own thread.
 */
#pragma once
#include "control/hd_parts.h"
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
    struct hd_xres_shelf_s *_shelf;
    struct hd_xres_s *_next_same; /* of its name, on the shelf */
} hd_xres_t;

/* Where equal resources are found to be one. */
typedef struct hd_xres_shelf_s {
    hd_map_t *_by_name[HD_VIEW_KINDS_N];
    size_t made_n; /* that weren't there yet */
} hd_xres_shelf_t;

/* One reference is the caller's. Copies both. */
hd_xres_t *hd_xres_create(hd_view_kind_t kind, hd_str_t name, hd_str_t bytes);
void hd_xres_shelf_init(hd_xres_shelf_t *shelf);
/* Resources of it live on, as long as somebody has them. */
void hd_xres_shelf_deinit(hd_xres_shelf_t *shelf);
/* The equal one of the shelf, or a new one that lies there as long as it lives. One
 * reference is the caller's. */
hd_xres_t *hd_xres_share(hd_xres_shelf_t *shelf, hd_view_kind_t kind, hd_str_t name,
                         hd_str_t bytes);
hd_xres_t *hd_xres_ref(hd_xres_t *r);
void hd_xres_unref(hd_xres_t *r);

typedef struct {
    hd_xres_t **items; /* sorted by name once sealed; NULL for none */
    uint32_t n, _room;
} hd_xres_set_t;

typedef struct {
    hd_xres_set_t sets[HD_VIEW_KINDS_N];
    hd_part_t **_parts;
    uint32_t _parts_n, _parts_room;
} hd_view_t;

void hd_view_init(hd_view_t *v);
void hd_view_deinit(hd_view_t *v);
/* Takes the reference. A second one of a name replaces the first when sealed. */
void hd_view_give(hd_view_t *v, hd_xres_t *r);
/* Takes a reference of its own to the part, and to each of its resources. */
void hd_view_add_part(hd_view_t *v, hd_part_t *part);
/* Whether none of its parts is stale. */
bool hd_view_is_current(const hd_view_t *v);
void hd_view_seal(hd_view_t *v);
/* NULL: none. Of a sealed view. */
hd_xres_t *hd_view_find(const hd_view_t *v, hd_view_kind_t kind, hd_str_t name);
