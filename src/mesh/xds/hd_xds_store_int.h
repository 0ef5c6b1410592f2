/* hd_xds_store_int: the agent's store of resources, a file a noun:
 *   hd_xds_store.c   what it is given, and its life
 *   hd_xds_res.c     a resource: what it holds, whom it needs, its end
 *   hd_xds_stage.c   an item is built and put into the update's batch
 *   hd_xds_update.c  an update, to its end */
#pragma once
#include "core/base/hd_map.h"
#include "core/loom/hd_batch.h"
#include "mesh/hd_dns.h"
#include "mesh/xds/hd_xds_store.h"

/* Where the update at the head of the queue stands. */
typedef enum { HD_XSTORE_IDLE, HD_XSTORE_ITEMS, HD_XSTORE_PREPARING } hd_xstore_step_t;

struct hd_xstore_s {
    hd_proc_t *proc;
    hd_map_t *by_name[HD_XDS_KINDS_N];
    hd_link_t lists[HD_XDS_KINDS_N];
    hd_xupdate_t *first, **last;
    hd_xstore_step_t step;
    size_t at; /* the next item of the update */
    hd_batch_t *batch;
    hd_pool_t *temp;    /* of the update under way */
    hd_str_t why;       /* in temp */
    hd_array_t changed; /* hd_xres_t *: staged in the batch, or accepted to wait */
    hd_array_t logs;    /* hd_str_t: files that must be open */
    hd_array_t gone;    /* hd_xres_t *: to be freed after the batch */
    bool needs_changed[HD_XDS_KINDS_N];
    bool names_changed;
    bool has_opened;       /* a listener didn't have to wait for checks of clusters … */
    bool waits_for_checks; /* … as others do now */
    hd_dns_t *dns;         /* made with the first name; NULL: none was needed */
    hd_post_t run;
    hd_timer_t deadline, reclaim;
    uint64_t healed_ns;
    hd_build_t build;
    hd_xds_self_t self;
    const hd_xstore_user_t *user;
    void *user_arg;
    hd_xstore_stats_t stats;
    hd_array_t released; /* hd_socket_spec_t: closed by the master after the batch */
};

static inline uint64_t hd_xstore_now_ns(const hd_xstore_t *s)
{
    return hd_loop_now_ns(s->proc->loop);
}

/* --- hd_xds_res.c --- */
/* Of routes or a listener of which a version is in force: the next one needs new clusters
 * that <out> leads to and that are still being warmed. */
void hd_xres_wait_for_clusters(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out);
/* Until when routes or listeners wait so, and what they lead to now must stay; 0: none.
 */
uint64_t hd_xstore_clusters_until_ns(const hd_xstore_t *s);
/* A resource's strings are its own: copied, let go of, exchanged for a copy. */
hd_str_t hd_xres_keep_str(hd_str_t s);
void hd_xres_free_str(hd_str_t *s);
void hd_xres_replace_str(hd_str_t *to, hd_str_t by);
hd_xres_t *hd_xstore_find_or_add(hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name);
void hd_xres_free(hd_xres_t *r);
/* What was accepted before isn't needed any more. */
void hd_xres_drop_before(hd_xres_t *r);
/* What <out> says of it: notes, whom it needs, names that it depends on. */
void hd_xres_set_notes(hd_xres_t *r, const hd_xds_built_t *out);
void hd_xres_set_needs(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out);
/* Its new version doesn't wait: what the one in force needed isn't held any more. */
void hd_xres_let_go(hd_xstore_t *s, hd_xres_t *r);
void hd_xres_set_names(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out);
/* Nobody has to wait for it. */
bool hd_xres_is_there(const hd_xres_t *r);
/* All that it needs is there, or was waited for long enough. */
bool hd_xres_is_warm(const hd_xstore_t *s, const hd_xres_t *r);
/* A listener's sockets are <sockets>, taken over, if the batch is published: then
 * hd_xres_settle_sockets has those closed that were open and aren't among them. */
void hd_xres_set_sockets(hd_xres_t *r, hd_xsockets_t sockets);
void hd_xres_settle_sockets(hd_xstore_t *s, hd_xres_t *r);
void hd_xres_undo_sockets(hd_xres_t *r);
/* When it goes, since nobody needs it any more; UINT64_MAX: it stays. <clusters_until_ns>:
 * of hd_xstore_clusters_until_ns, asked once for all. */
uint64_t hd_xres_leaves_ns(const hd_xres_t *r, uint64_t clusters_until_ns);
/* Within an update: those whose time has come. */
void hd_xstore_drop_unneeded(hd_xstore_t *s);
/* The control plane has it no more. Those who still need it go on without. */
void hd_xres_remove(hd_xstore_t *s, hd_xres_t *r);

/* --- hd_xds_stage.c --- */
/* Some version of it is, maybe of an agent before this one. */
bool hd_xstore_is_in_force(const hd_xstore_t *s, const hd_xres_t *r);
/* Builds <item> as <r>'s next version: staged, waiting, or refused. */
void hd_xstore_build(hd_xstore_t *s, hd_xres_t *r, const hd_xitem_t *item);
/* A listener that must not open yet: the clusters in force are to be checked once before.
 */
bool hd_xstore_waits_for_checks(hd_xstore_t *s, const hd_xres_t *r);
void hd_xstore_take_item(hd_xstore_t *s, hd_xupdate_t *u, const hd_xitem_t *item);
/* Counts it, and says why in the update's NACK and the log. */
void hd_xstore_refuse(hd_xstore_t *s, hd_xres_t *r, hd_str_t version, const char *why);

/* --- hd_xds_update.c --- */
/* For the store's post and its timer. */
void hd_xstore_on_run(hd_post_t *post);
void hd_xstore_on_deadline(hd_timer_t *t);
