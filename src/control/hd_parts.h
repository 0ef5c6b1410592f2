/* hd_parts: pieces of translation, each kept until something that it was made from
 * changes: the dependency index.
 *
 * A part is a few resources that are made in one go (a service's cluster and endpoints, a
 * port's routes), for all proxies that see the same. While it is made, each lookup enters
 * a key of what was asked for, found or not: "the VirtualServices of reviews.shop", "the
 * pod 10.0.0.7". A change touches the keys of what was there and of what is now, and
 * whatever has entered one of them is stale: it isn't found any more and is made anew by
 * whoever needs it. Nothing else is.
 *
 *   begin → depend …, give … → finish → found by all proxies alike → stale → gone
 *
 * Counted: views hold the parts that they are made of (hd_view_give_part), and a part
 * that no view holds goes. In the control process's own thread.
 */
#pragma once
#include "control/hd_model.h"
#include "core/base/hd_list.h"
#include "core/base/hd_map.h"

struct hd_xres_s;

typedef struct hd_parts_s hd_parts_t;

typedef struct hd_part_s {
    uint32_t refs;
    bool is_stale;
    bool uses_labels;   /* made for proxies of these labels only */
    uint64_t last_view; /* the translation that took it last: once a view is enough */
    hd_str_t name;      /* what it is, and for which class of proxies */
    hd_str_t ns;        /* who sees it: changes that aren't exported there don't touch it;
                           unset: all do */
    hd_str_t labels;
    struct hd_xres_s **items;
    uint32_t n, _room;
    hd_link_t _deps;
    hd_link_t _same; /* of the same name, for other labels */
    hd_parts_t *_store;
} hd_part_t;

hd_parts_t *hd_parts_create(void);
/* Parts that views still hold live on, found by nobody. */
void hd_parts_destroy(hd_parts_t *store);

/* NULL: there is none in force. Lent. */
hd_part_t *hd_parts_find(hd_parts_t *store, hd_str_t name, hd_str_t labels);
/* One reference is the caller's. Copies the strings. */
hd_part_t *hd_part_begin(hd_parts_t *store, hd_str_t name, hd_str_t ns, hd_str_t labels);
/* Takes the reference. */
void hd_part_give(hd_part_t *part, struct hd_xres_s *r);
/* From now on it is found. */
void hd_part_finish(hd_part_t *part);
hd_part_t *hd_part_ref(hd_part_t *part);
void hd_part_unref(hd_part_t *part);

/* What a part can depend on: a key is one of these and one or two names. */
typedef enum {
    HD_DEP_KIND = 'K',    /* all of a kind that are seen; <a> its plural */
    HD_DEP_IN_NS = 'N',   /* all of a kind in a namespace; <a> plural, <b> namespace */
    HD_DEP_OBJECT = 'O',  /* <a> plural, <b> "NS/NAME" */
    HD_DEP_PORT = 'P',    /* services with this port; <a> decimal */
    HD_DEP_HOST = 'H',    /* services of this host */
    HD_DEP_VS = 'V',      /* VirtualServices that list this host */
    HD_DEP_GATEWAY = 'G', /* VirtualServices that list this gateway, "NS/NAME" */
    HD_DEP_RULE = 'D',    /* DestinationRules of this host */
    HD_DEP_SLICES = 'S',  /* EndpointSlices of a Service; <a> "NS/NAME" */
    HD_DEP_POD = 'I',     /* the pod of an IP */
} hd_dep_t;

void hd_part_depend(hd_part_t *part, hd_dep_t dep, hd_str_t a, hd_str_t b);
/* <host> and every wildcard that covers it. */
void hd_part_depend_host(hd_part_t *part, hd_dep_t dep, hd_str_t host);
/* Makes stale what depends on the changes; returns how many parts that were. */
size_t hd_parts_touch(hd_parts_t *store, const hd_change_t *changes, size_t n);
size_t hd_parts_count(const hd_parts_t *store);
