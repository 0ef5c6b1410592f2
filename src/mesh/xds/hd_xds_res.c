/* A resource of the store: what it holds, whom it needs, and its end. */
#include "mesh/xds/hd_xds_store_int.h"

#include <stdlib.h>
#include <string.h>

#define UNNEEDED_NS 5000000000u /* so long what nobody needs any more stays */
#define REMOVED_NS 1000000000u  /* a cluster that was removed: routes may follow it */
#define STALE_NS 2000000000u    /* so long what was left and needed again is waited for */
#define WARMING_NS 5000000000u  /* so long routes in force wait for new clusters */

hd_str_t hd_xres_keep_str(hd_str_t s)
{
    char *copy = malloc(s.len + 1);

    hd_bug_on(copy == NULL);
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    copy[s.len] = '\0';
    return hd_str_n(copy, s.len);
}

void hd_xres_free_str(hd_str_t *s)
{
    free((char *)s->data);
    *s = HD_STR_NONE;
}

void hd_xres_replace_str(hd_str_t *to, hd_str_t by)
{
    hd_str_t copy = hd_xres_keep_str(by);

    hd_xres_free_str(to);
    *to = copy;
}

hd_xres_t *hd_xstore_find_or_add(hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name)
{
    hd_xres_t *r = hd_xstore_find(s, kind, name);

    if (r != NULL)
        return r;
    r = calloc(1, sizeof(*r));
    hd_bug_on(r == NULL);
    r->kind = kind;
    r->name = hd_xres_keep_str(name);
    hd_list_add_last(&s->lists[kind], &r->link);
    hd_bug_on(hd_map_put(s->by_name[kind], r->name, r) != NULL);
    return r;
}

static void free_notes(hd_xres_t *r)
{
    for (uint32_t i = 0; i < r->notes_n; i++)
        hd_xres_free_str(&r->notes[i]);
    free(r->notes);
    r->notes = NULL;
    r->notes_n = 0;
}

void hd_xres_set_notes(hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_str_t *from = out->notes.items;

    free_notes(r);
    if (out->notes.n == 0)
        return;
    r->notes = calloc(out->notes.n, sizeof(*r->notes));
    hd_bug_on(r->notes == NULL);
    for (size_t i = 0; i < out->notes.n; i++)
        r->notes[i] = hd_xres_keep_str(from[i]);
    r->notes_n = (uint32_t)out->notes.n;
}

static void drop_before_sockets(hd_xres_t *r)
{
    free(r->before_sockets.items);
    r->before_sockets = (hd_xsockets_t){0};
    r->has_before_sockets = false;
}

void hd_xres_drop_before(hd_xres_t *r)
{
    hd_xres_free_str(&r->before);
    hd_xres_free_str(&r->before_version);
}

void hd_xres_free(hd_xres_t *r)
{
    hd_xres_drop_before(r);
    hd_list_remove(&r->link);
    hd_xres_free_str(&r->name);
    hd_xres_free_str(&r->bytes);
    hd_xres_free_str(&r->version);
    hd_xres_free_str(&r->refused_version);
    hd_xres_free_str(&r->refused_why);
    free_notes(r);
    free(r->needs);
    free(r->held);
    hd_dns_names_clear(&r->names);
    drop_before_sockets(r);
    free(r->sockets.items);
    free(r);
}

static void drop_unneeded(hd_xstore_t *s, hd_xres_t *r);

static void unref(hd_xstore_t *s, hd_xres_t *r)
{
    hd_bug_on(r->refs == 0);
    if (--r->refs == 0) {
        s->needs_changed[r->kind] = true;
        drop_unneeded(s, r);
    }
}

static void clear_list(hd_xstore_t *s, hd_xneed_t **list, uint32_t *n)
{
    hd_xneed_t *old = *list;
    uint32_t old_n = *n;

    *list = NULL;
    *n = 0;
    for (uint32_t i = 0; i < old_n; i++)
        unref(s, old[i].res);
    free(old);
}

void hd_xres_let_go(hd_xstore_t *s, hd_xres_t *r)
{
    clear_list(s, &r->held, &r->held_n);
}

static void clear_needs(hd_xstore_t *s, hd_xres_t *r)
{
    clear_list(s, &r->needs, &r->needs_n);
    hd_xres_let_go(s, r);
}

/* New ones are taken before old ones go, so that what both name stays. */
void hd_xres_set_needs(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_xds_need_t *from = out->needs.items;
    hd_xneed_t *list = out->needs.n > 0 ? calloc(out->needs.n, sizeof(*list)) : NULL;

    hd_bug_on(out->needs.n > 0 && list == NULL);
    for (size_t i = 0; i < out->needs.n; i++) {
        hd_xres_t *other = hd_xstore_find_or_add(s, from[i].kind, from[i].name);

        if (other->refs++ == 0 && !from[i].is_local)
            s->needs_changed[other->kind] = true;
        other->unneeded_ns = 0;
        other->is_local |= from[i].is_local;
        list[i].res = other;
        list[i].wait_until_ns =
            from[i].wait_ms > 0
                ? hd_xstore_now_ns(s) + (uint64_t)from[i].wait_ms * 1000000
                : UINT64_MAX;
        if (other->is_stale) /* some servers don't send again what we had once */
            list[i].wait_until_ns =
                hd_min(list[i].wait_until_ns, hd_xstore_now_ns(s) + STALE_NS);
    }
    if (r->state == HD_XRES_LIVE && r->held == NULL) {
        r->held = r->needs;
        r->held_n = r->needs_n;
    } else {
        clear_list(s, &r->needs, &r->needs_n);
    }
    r->needs = list;
    r->needs_n = (uint32_t)out->needs.n;
}

static bool is_being_warmed(const hd_xstore_t *s, const hd_xres_t *cluster)
{
    return cluster->state == HD_XRES_WAITING && !cluster->is_staged &&
           !hd_xstore_is_in_force(s, cluster);
}

void hd_xres_wait_for_clusters(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_str_t *names = out->clusters.items;
    uint64_t now = hd_xstore_now_ns(s);

    if (out->clusters.n == 0 || !hd_xstore_is_in_force(s, r))
        return;
    if (r->clusters_until_ns == 0)
        r->clusters_until_ns = now + WARMING_NS;
    if (r->clusters_until_ns <= now)
        return;
    for (size_t i = 0; i < out->clusters.n; i++) {
        hd_xres_t *cluster = hd_xstore_find(s, HD_XDS_CLUSTER, names[i]);

        if (cluster == NULL || !is_being_warmed(s, cluster))
            continue;
        r->needs = realloc(r->needs, (r->needs_n + 1) * sizeof(*r->needs));
        hd_bug_on(r->needs == NULL);
        r->needs[r->needs_n++] = (hd_xneed_t){cluster, r->clusters_until_ns};
        cluster->refs++;
    }
}

uint64_t hd_xstore_clusters_until_ns(const hd_xstore_t *s)
{
    static const hd_xds_kind_t kinds[] = {HD_XDS_ROUTES, HD_XDS_LISTENER};
    uint64_t until = 0;

    for (size_t i = 0; i < hd_countof(kinds); i++)
        for (hd_xres_t *r = hd_xstore_next(s, kinds[i], NULL); r != NULL;
             r = hd_xstore_next(s, kinds[i], r))
            if (r->state == HD_XRES_WAITING && !r->is_staged)
                until = hd_max(until, r->clusters_until_ns);
    return until;
}

/* New ones are held before old ones are let go of, so that what both name stays. */
void hd_xres_set_names(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_xds_name_t *from = out->names.items;
    hd_dns_names_t names = {0};

    for (size_t i = 0; i < out->names.n && s->dns != NULL; i++)
        hd_dns_names_add(s->dns, &names, from[i].host, from[i].how);
    hd_dns_names_clear(&r->names);
    r->names = names;
}

bool hd_xres_is_there(const hd_xres_t *r)
{
    return !r->is_stale &&
           (r->is_staged || r->state == HD_XRES_LIVE || r->state == HD_XRES_ABSENT);
}

bool hd_xres_is_warm(const hd_xstore_t *s, const hd_xres_t *r)
{
    for (uint32_t i = 0; i < r->needs_n; i++) {
        if (!hd_xres_is_there(r->needs[i].res) &&
            r->needs[i].wait_until_ns > hd_xstore_now_ns(s))
            return false;
    }
    return true;
}

static hd_xsocket_t *find_socket(const hd_xsockets_t *in, const hd_socket_spec_t *spec)
{
    for (uint32_t i = 0; i < in->n; i++) {
        const hd_socket_spec_t *s = &in->items[i].spec;

        if (s->type == spec->type && hd_addr_eq(&s->bind, &spec->bind))
            return &in->items[i];
    }
    return NULL;
}

void hd_xres_set_sockets(hd_xres_t *r, hd_xsockets_t sockets)
{
    if (r->has_before_sockets)
        free(r->sockets.items);
    else
        r->before_sockets = r->sockets;
    r->has_before_sockets = true;
    r->sockets = sockets;
    for (uint32_t i = 0; i < sockets.n; i++) {
        const hd_xsocket_t *old = find_socket(&r->before_sockets, &sockets.items[i].spec);

        sockets.items[i].is_open = old != NULL && old->is_open;
    }
}

void hd_xres_settle_sockets(hd_xstore_t *s, hd_xres_t *r)
{
    for (uint32_t i = 0; i < r->before_sockets.n; i++) {
        const hd_xsocket_t *old = &r->before_sockets.items[i];
        hd_socket_spec_t *gone;

        if (old->is_open && find_socket(&r->sockets, &old->spec) == NULL &&
            (gone = hd_array_add(&s->released)) != NULL)
            *gone = old->spec;
    }
    drop_before_sockets(r);
}

void hd_xres_undo_sockets(hd_xres_t *r)
{
    if (!r->has_before_sockets)
        return;
    free(r->sockets.items);
    r->sockets = r->before_sockets;
    r->before_sockets = (hd_xsockets_t){0};
    r->has_before_sockets = false;
}

static void remove_slot(hd_xstore_t *s, hd_xres_t *r)
{
    hd_slot_t *inline_slot;

    r->is_staged = false;
    if (r->slot == NULL)
        return;
    if (r->kind == HD_XDS_CLUSTER &&
        hd_xstore_find(s, HD_XDS_ENDPOINTS, r->name) == NULL) {
        inline_slot = hd_slot_find(s->proc->member, s->proc->arenas[HD_ARENA_DYNAMIC],
                                   HD_RES_ENDPOINTS, r->name);
        if (inline_slot != NULL && inline_slot->arena == HD_ARENA_DYNAMIC &&
            hd_slot_state(inline_slot) == HD_SLOT_LIVE)
            hd_batch_remove(s->batch, inline_slot);
    }
    hd_batch_remove(s->batch, r->slot);
    r->slot = NULL;
}

/* Nobody has a use for it: it goes with this batch. */
static void forget(hd_xstore_t *s, hd_xres_t *r)
{
    hd_xres_t **gone = hd_array_add(&s->gone);

    hd_bug_on(gone == NULL || hd_map_remove(s->by_name[r->kind], r->name) != r);
    *gone = r;
    hd_list_remove(&r->link);
    remove_slot(s, r);
    hd_xres_set_sockets(r, (hd_xsockets_t){0});
    hd_xres_settle_sockets(s, r);
    clear_needs(s, r);
    hd_dns_names_clear(&r->names);
}

/* What is in force stays for a while: conns that a listener accepted right before it went
 * still ask for its routes and secrets. */
static void drop_unneeded(hd_xstore_t *s, hd_xres_t *r)
{
    if (r->is_asked_for || r->is_local)
        return;
    if (r->slot != NULL)
        r->unneeded_ns = hd_xstore_now_ns(s);
    else
        forget(s, r);
}

uint64_t hd_xres_leaves_ns(const hd_xres_t *r, uint64_t clusters_until_ns)
{
    if (r->unneeded_ns == 0 || r->refs > 0 || r->is_asked_for)
        return UINT64_MAX;
    if (r->kind != HD_XDS_CLUSTER)
        return r->unneeded_ns + UNNEEDED_NS;
    return hd_max(r->unneeded_ns + REMOVED_NS, clusters_until_ns);
}

void hd_xstore_drop_unneeded(hd_xstore_t *s)
{
    uint64_t now = hd_xstore_now_ns(s), until = hd_xstore_clusters_until_ns(s);

    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        hd_xres_t *next;

        for (hd_xres_t *r = hd_xstore_next(s, k, NULL); r != NULL; r = next) {
            next = hd_xstore_next(s, k, r);
            if (hd_xres_leaves_ns(r, until) <= now)
                forget(s, r);
        }
    }
}

void hd_xres_remove(hd_xstore_t *s, hd_xres_t *r)
{
    r->is_asked_for = r->is_stale = false;
    if (r->kind == HD_XDS_CLUSTER && r->slot != NULL && !r->is_staged) {
        r->unneeded_ns = hd_xstore_now_ns(s);
        return;
    }
    if (r->refs == 0) {
        forget(s, r);
        return;
    }
    remove_slot(s, r);
    clear_needs(s, r);
    hd_dns_names_clear(&r->names);
    hd_xres_free_str(&r->bytes);
    hd_xres_free_str(&r->version);
    r->state = HD_XRES_ABSENT;
}
