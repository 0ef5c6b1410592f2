/* hd_xds_store: the resources that an agent holds: what was accepted, what waits for
 * what, what is in force. In the agent's process; one store a program.
 *
 *   NONE     needed by another, or asked for; nothing came yet
 *   WAITING  accepted, and not in force: it needs others that aren't there (warming). An
 *            older version stays in force meanwhile
 *   LIVE     in force
 *   ABSENT   the control plane says there is none: whoever needs it waits no longer
 *
 * Updates are taken one after the other: each is built in slices, sockets and log files
 * are opened in all workers, then one batch is published. A resource that is refused
 * leaves the one before it in force. What nobody needs any more is removed with the batch
 * that ended the need.
 *
 * A change of whom requests are led to loses none, in whatever order it is told: routes
 * and listeners in force stay until new clusters that the next version leads to are warm
 * (5 s at most), and a cluster that is taken away stays for a second, or as long as such
 * a version waits.
 *
 * Elsewhere: where updates come from (hd_xds_stream.h, hd_xds_snapshot.h, hd_xds_ca.h).
 */
#pragma once
#include "core/proc/hd_process.h"
#include "mesh/xds/hd_xds.h"

typedef enum {
    HD_XRES_NONE,
    HD_XRES_WAITING,
    HD_XRES_LIVE,
    HD_XRES_ABSENT
} hd_xres_state_t;

typedef struct hd_xres_s hd_xres_t;

typedef struct {
    hd_xres_t *res;
    uint64_t wait_until_ns; /* UINT64_MAX: for ever */
} hd_xneed_t;

typedef struct {
    hd_socket_spec_t spec;
    bool is_open; /* in all workers */
} hd_xsocket_t;

typedef struct {
    hd_xsocket_t *items;
    uint32_t n;
} hd_xsockets_t;

struct hd_xres_s {
    hd_xds_kind_t kind;
    hd_xres_state_t state;
    hd_str_t name;
    hd_str_t bytes, version;         /* accepted; empty: nothing yet */
    hd_str_t before, before_version; /* the same, until the next batch is published */
    hd_slot_t *slot;
    hd_xneed_t *needs;
    uint32_t needs_n;
    hd_xneed_t *held; /* what the version in force needs while another waits */
    uint32_t held_n;
    hd_dns_names_t names; /* that it depends on */
    /* Of routes and listeners: so long the version before stays in force while clusters
     * that the new one leads to are warmed; 0: not begun. */
    uint64_t clusters_until_ns;
    uint32_t refs;        /* resources that need it */
    uint64_t unneeded_ns; /* since when none does; 0: one does, or none ever did */
    bool is_asked_for;    /* by a wildcard: it stays without being needed */
    bool is_stale;  /* wasn't subscribed to for a while: not there until it comes again */
    bool is_local;  /* made by the agent itself */
    bool is_staged; /* its new version is in the batch being built */
    bool waits_for_names;
    bool is_old; /* a cluster: to be built once more (hd_xds_take_high, another self) */
    hd_xsockets_t sockets;        /* of a listener that binds */
    hd_xsockets_t before_sockets; /* the same, until the next batch is published */
    bool has_before_sockets;
    uint64_t refused_n;
    hd_str_t refused_version, refused_why; /* the last refusal; empty: none */
    hd_str_t *notes;
    uint32_t notes_n;
    int64_t updated_wall_ns;
    hd_link_t link; /* of its kind, in order of arrival */
};

typedef struct hd_xstore_s hd_xstore_t;

typedef struct {
    hd_str_t name;    /* empty: as the message says */
    hd_str_t version; /* of the resource, or of the answer */
    hd_str_t bytes;
} hd_xitem_t;

/* Taken over with all it holds when it is given; freed after <done>. */
typedef struct hd_xupdate_s {
    hd_xds_kind_t kind;
    hd_xitem_t *items;
    size_t items_n;
    hd_str_t *removed;
    size_t removed_n;
    bool is_all;   /* what isn't in it is removed (LDS and CDS, state of the world) */
    bool is_first; /* of its stream: an empty world isn't believed (below) */
    /* <why> empty: all accepted; else what was refused and why, for the NACK. */
    void (*done)(struct hd_xupdate_s *u, hd_str_t why);
    void *arg;
    hd_pool_t *pool; /* holds all of it */
    struct hd_xupdate_s *next;
} hd_xupdate_t;

hd_xstore_t *hd_xstore_create(hd_proc_t *p);
void hd_xstore_destroy(hd_xstore_t *s);

hd_xupdate_t *hd_xupdate_create(hd_xds_kind_t kind, size_t items_max, size_t removed_max);
/* A control plane that comes back without anything after it had some, in the first answer
 * of a stream, has lost its sources rather than its mesh: what it takes away then is
 * kept, and said in the log. */
void hd_xstore_give(hd_xstore_t *s, hd_xupdate_t *u);

/* Who we are from now on, copied; clusters follow. Nobody, before it is told. */
void hd_xstore_set_self(hd_xstore_t *s, const hd_xds_self_t *self);
/* A secret of the agent's own ("default", "ROOTCA"). */
void hd_xstore_put_local(hd_xstore_t *s, hd_str_t name, hd_str_t chain_pem,
                         hd_str_t key_pem, hd_str_t trust_pem);
/* Another answer for a name: what depends on it is built anew. */
void hd_xstore_names_changed(hd_xstore_t *s);

hd_xres_t *hd_xstore_find(const hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name);
/* The control plane is asked for it no more: what it becomes isn't known any longer. */
void hd_xstore_left(hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name);
/* In order of arrival; start with NULL. */
hd_xres_t *hd_xstore_next(const hd_xstore_t *s, hd_xds_kind_t kind, const hd_xres_t *res);

typedef struct {
    /* Names of <kind> that are needed have changed: subscriptions follow. */
    void (*on_needs)(void *arg, hd_xds_kind_t kind);
    void (*on_published)(void *arg); /* something changed: the snapshot follows */
} hd_xstore_user_t;
void hd_xstore_set_user(hd_xstore_t *s, const hd_xstore_user_t *user, void *arg);

/* Nothing is under way: no update is being taken, and none that was accepted waits for
 * others. */
bool hd_xstore_is_settled(const hd_xstore_t *s);

typedef struct {
    uint64_t updates, accepted, refused, published, kept_empty;
    uint32_t by_state[HD_XRES_ABSENT + 1];
} hd_xstore_stats_t;
void hd_xstore_get_stats(const hd_xstore_t *s, hd_xstore_stats_t *stats);
