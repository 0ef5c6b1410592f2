/* An update, to its end: items in slices, removals, what became warm, sockets, one batch.
 */
#include "mesh/xds/hd_xds_store_int.h"
#include "core/base/hd_log.h"
#include "core/os/hd_clock.h"

#define SLICE_NS 5000000u /* of decoding: then the agent turns to others */

static bool is_in(const hd_xupdate_t *u, hd_str_t name, const hd_map_t *names)
{
    (void)u;
    return hd_map_get(names, name) != NULL;
}

/* What the control plane has given us. */
static size_t count_held(const hd_xstore_t *s, hd_xds_kind_t kind)
{
    size_t n = 0;

    for (hd_xres_t *r = hd_xstore_next(s, kind, NULL); r != NULL;
         r = hd_xstore_next(s, kind, r))
        n += r->bytes.len > 0;
    return n;
}

static void keep_world(hd_xstore_t *s, const hd_xupdate_t *u)
{
    s->stats.kept_empty++;
    hd_log(HD_LOG_WARN,
           "xds: the control plane came back without any %s: what was in force stays",
           hd_xds_short(u->kind));
}

/* What isn't among the items goes. */
static void remove_others(hd_xstore_t *s, const hd_xupdate_t *u)
{
    hd_map_t *names = hd_map_create();
    hd_xres_t *next;

    for (size_t i = 0; i < u->items_n; i++)
        hd_ignore(hd_map_put(names, u->items[i].name, names) == NULL);
    for (hd_xres_t *r = hd_xstore_next(s, u->kind, NULL); r != NULL; r = next) {
        next = hd_xstore_next(s, u->kind, r);
        if (r->is_asked_for && !is_in(u, r->name, names))
            hd_xres_remove(s, r);
    }
    hd_map_destroy(names);
}

static void take_removals(hd_xstore_t *s, const hd_xupdate_t *u)
{
    bool is_wild = u->kind == HD_XDS_CLUSTER || u->kind == HD_XDS_LISTENER;
    size_t have = u->is_first && u->items_n == 0 ? count_held(s, u->kind) : 0;

    if (have > 0 && (u->is_all || u->removed_n >= have)) {
        keep_world(s, u);
        return;
    }
    if (u->is_all && is_wild)
        remove_others(s, u);
    for (size_t i = 0; i < u->removed_n; i++) {
        hd_xres_t *r = hd_xstore_find(s, u->kind, u->removed[i]);

        if (r != NULL && !r->is_local)
            hd_xres_remove(s, r);
    }
}

/* Builds those that waited and need nothing more; what becomes warm may warm others. */
static void warm_up(hd_xstore_t *s)
{
    bool again = true;

    while (again) {
        again = false;
        for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
            hd_xres_t *next;

            for (hd_xres_t *r = hd_xstore_next(s, k, NULL); r != NULL; r = next) {
                next = hd_xstore_next(s, k, r);
                if (r->state != HD_XRES_WAITING || r->is_staged ||
                    !hd_xres_is_warm(s, r) || r->waits_for_names ||
                    hd_xstore_waits_for_checks(s, r))
                    continue;
                hd_xstore_build(s, r, &(hd_xitem_t){r->name, r->version, r->bytes});
                again |= r->is_staged;
                if (!r->is_staged && r->state == HD_XRES_WAITING && hd_xres_is_warm(s, r))
                    r->state = HD_XRES_NONE; /* refused now: not tried for ever */
            }
        }
    }
}

static void rebuild_named(hd_xstore_t *s)
{
    hd_xres_t *next;

    s->names_changed = false;
    for (hd_xres_t *r = hd_xstore_next(s, HD_XDS_CLUSTER, NULL); r != NULL; r = next) {
        next = hd_xstore_next(s, HD_XDS_CLUSTER, r);
        if (r->is_staged) { /* in this batch already: in the next one */
            s->names_changed |= r->is_old;
            continue;
        }
        if ((r->names.n > 0 || r->is_old) && r->bytes.len > 0)
            hd_xstore_build(s, r, &(hd_xitem_t){r->name, r->version, r->bytes});
        r->is_old = false;
    }
}

static void begin(hd_xstore_t *s)
{
    s->temp = hd_pool_create(0);
    s->why = HD_STR_NONE;
    hd_array_init(&s->changed, s->temp, sizeof(hd_xres_t *), 1u << 20);
    hd_array_init(&s->gone, s->temp, sizeof(hd_xres_t *), 1u << 20);
    hd_array_init(&s->logs, s->temp, sizeof(hd_str_t), 1024);
    hd_array_init(&s->released, s->temp, sizeof(hd_socket_spec_t), 65536);
    s->batch = hd_batch_begin(s->proc->arenas[HD_ARENA_DYNAMIC]);
    s->at = 0;
    s->step = HD_XSTORE_ITEMS;
}

static uint64_t next_deadline(const hd_xstore_t *s)
{
    uint64_t at = UINT64_MAX, until = hd_xstore_clusters_until_ns(s);

    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        for (hd_xres_t *r = hd_xstore_next(s, k, NULL); r != NULL;
             r = hd_xstore_next(s, k, r)) {
            at = hd_min(at, hd_xres_leaves_ns(r, until));
            for (uint32_t i = 0; r->state == HD_XRES_WAITING && i < r->needs_n; i++)
                if (!hd_xres_is_there(r->needs[i].res))
                    at = hd_min(at, r->needs[i].wait_until_ns);
        }
    }
    return at;
}

static void set_deadline(hd_xstore_t *s)
{
    uint64_t at = next_deadline(s), now = hd_xstore_now_ns(s);

    hd_timer_stop(s->proc->loop, &s->deadline);
    if (at != UINT64_MAX)
        hd_timer_set(s->proc->loop, &s->deadline,
                     at > now ? (at - now) / 1000000 + 1 : 0);
}

static void tell_needs(hd_xstore_t *s)
{
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        if (!s->needs_changed[k])
            continue;
        s->needs_changed[k] = false;
        if (s->user != NULL)
            s->user->on_needs(s->user_arg, k);
    }
}

static void end_update(hd_xstore_t *s)
{
    hd_xupdate_t *u = s->first;
    hd_str_t why = s->why;

    s->step = HD_XSTORE_IDLE;
    if (u != NULL) {
        s->first = u->next;
        if (s->first == NULL)
            s->last = &s->first;
        s->stats.updates++;
        if (u->done != NULL)
            u->done(u, why);
        hd_pool_destroy(u->pool);
    }
    tell_needs(s);
    if (s->dns != NULL)
        hd_dns_forget(s->dns);
    hd_pool_destroy(s->temp);
    s->temp = NULL;
    set_deadline(s);
    if (s->first != NULL || s->names_changed)
        hd_post(s->proc->loop, &s->run);
}

static void publish(hd_xstore_t *s)
{
    hd_xres_t **changed = s->changed.items, **gone = s->gone.items;
    size_t n = hd_batch_publish(s->batch, hd_xstore_now_ns(s));

    s->batch = NULL;
    for (size_t i = 0; i < s->changed.n; i++) {
        hd_xres_drop_before(changed[i]);
        hd_xres_settle_sockets(s, changed[i]);
        if (!changed[i]->is_staged)
            continue; /* removed in the same batch */
        changed[i]->is_staged = false;
        changed[i]->state = HD_XRES_LIVE;
    }
    for (size_t i = 0; i < s->gone.n; i++)
        hd_xres_free(gone[i]);
    if (s->released.n > 0)
        hd_process_release(s->proc, s->released.items, (uint32_t)s->released.n);
    if (n > 0) {
        s->stats.published++;
        hd_process_ring(s->proc);
        if (s->user != NULL)
            s->user->on_published(s->user_arg);
    }
    end_update(s);
}

/* The version before stays in force, if there is one. */
static void undo(hd_xstore_t *s, hd_xres_t *r, const char *why)
{
    hd_xstore_refuse(s, r, r->version, why);
    hd_batch_undo(s->batch, r->slot);
    r->is_staged = false;
    hd_xres_free_str(&r->bytes);
    hd_xres_free_str(&r->version);
    r->bytes = r->before;
    r->version = r->before_version;
    r->before = r->before_version = HD_STR_NONE;
    hd_xres_undo_sockets(r);
    if (r->bytes.len == 0) {
        r->state = HD_XRES_NONE;
        r->slot = NULL;
    }
}

static bool wants_sockets(const hd_xres_t *r)
{
    for (uint32_t i = 0; i < r->sockets.n; i++) {
        if (!r->sockets.items[i].is_open)
            return true;
    }
    return false;
}

/* Sockets or log files can't be had: those that want them are refused, the rest goes on
 * in a batch of its own. */
static void on_prepared(void *arg, const hd_err_t *err)
{
    hd_xstore_t *s = arg;
    hd_xres_t **changed = s->changed.items;

    hd_bug_on(s->step != HD_XSTORE_PREPARING);
    for (size_t i = 0; i < s->changed.n; i++) {
        hd_xres_t *r = changed[i];

        if (!r->is_staged || !wants_sockets(r))
            continue;
        if (err == NULL) {
            for (uint32_t k = 0; k < r->sockets.n; k++)
                r->sockets.items[k].is_open = true;
            continue;
        }
        undo(s, r, err->text);
        changed[i--] = changed[--s->changed.n];
    }
    publish(s);
}

static void prepare(hd_xstore_t *s)
{
    hd_xres_t **changed = s->changed.items;
    hd_socket_spec_t *specs;
    size_t room = 0;
    uint32_t n = 0;

    for (size_t i = 0; i < s->changed.n; i++)
        room += changed[i]->sockets.n;
    specs = hd_pool_new_n(s->temp, hd_socket_spec_t, room + 1);
    for (size_t i = 0; i < s->changed.n; i++) {
        for (uint32_t k = 0; changed[i]->is_staged && k < changed[i]->sockets.n; k++) {
            if (!changed[i]->sockets.items[k].is_open)
                specs[n++] = changed[i]->sockets.items[k].spec;
        }
    }
    if (n == 0 && s->logs.n == 0) {
        publish(s);
        return;
    }
    s->step = HD_XSTORE_PREPARING;
    hd_process_prepare(s->proc, specs, n, s->logs.items, (uint32_t)s->logs.n, on_prepared,
                       s);
}

/* A slice of the update at the head of the queue. */
static void run_update(hd_xstore_t *s)
{
    hd_xupdate_t *u = s->first;
    uint64_t until = hd_clock_mono_ns() + SLICE_NS;

    if (s->step == HD_XSTORE_IDLE)
        begin(s);
    while (u != NULL && s->at < u->items_n) {
        hd_xstore_take_item(s, u, &u->items[s->at++]);
        if (hd_clock_mono_ns() > until && s->at < u->items_n) {
            hd_post(s->proc->loop, &s->run);
            return;
        }
    }
    if (u != NULL)
        take_removals(s, u);
    if (s->names_changed)
        rebuild_named(s);
    warm_up(s);
    hd_xstore_drop_unneeded(s);
    prepare(s);
}

void hd_xstore_on_run(hd_post_t *post)
{
    hd_xstore_t *s = hd_container_of(post, hd_xstore_t, run);

    if (s->step != HD_XSTORE_PREPARING)
        run_update(s);
}

void hd_xstore_on_deadline(hd_timer_t *t)
{
    hd_xstore_t *s = hd_container_of(t, hd_xstore_t, deadline);

    if (s->step == HD_XSTORE_IDLE)
        run_update(s);
}
