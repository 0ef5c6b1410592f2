#include "mesh/xds/hd_xds_store.h"
#include "mesh/xds/hd_xds_store_int.h"
#include "core/base/hd_log.h"
#include "core/loom/hd_gauge.h"
#include "mesh/hd_check.h"

#include <stdlib.h>

#define RECLAIM_MS 200

hd_xres_t *hd_xstore_find(const hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name)
{
    return hd_map_get(s->by_name[kind], name);
}

void hd_xstore_left(hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name)
{
    hd_xres_t *r = hd_xstore_find(s, kind, name);

    if (r != NULL)
        r->is_stale = true;
}

hd_xres_t *hd_xstore_next(const hd_xstore_t *s, hd_xds_kind_t kind, const hd_xres_t *res)
{
    const hd_link_t *link = res == NULL ? s->lists[kind].next : res->link.next;

    return link == &s->lists[kind] ? NULL : hd_list_entry(link, hd_xres_t, link);
}

hd_xupdate_t *hd_xupdate_create(hd_xds_kind_t kind, size_t items_max, size_t removed_max)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_xupdate_t *u = hd_pool_new(pool, hd_xupdate_t);

    u->pool = pool;
    u->kind = kind;
    u->items = hd_pool_new_n(pool, hd_xitem_t, items_max + 1);
    u->removed = hd_pool_new_n(pool, hd_str_t, removed_max + 1);
    return u;
}

void hd_xstore_give(hd_xstore_t *s, hd_xupdate_t *u)
{
    *s->last = u;
    s->last = &u->next;
    if (s->step == HD_XSTORE_IDLE)
        hd_post(s->proc->loop, &s->run);
}

void hd_xstore_names_changed(hd_xstore_t *s)
{
    s->names_changed = true;
    if (s->step == HD_XSTORE_IDLE)
        hd_post(s->proc->loop, &s->run);
}

void hd_xstore_set_self(hd_xstore_t *s, const hd_xds_self_t *self)
{
    const hd_xds_self_t *before = &s->self;

    if (hd_str_eq(before->local_cluster, self->local_cluster) &&
        hd_str_eq(before->region, self->region) && hd_str_eq(before->zone, self->zone) &&
        hd_str_eq(before->subzone, self->subzone))
        return;
    hd_xres_replace_str(&s->self.local_cluster, self->local_cluster);
    hd_xres_replace_str(&s->self.region, self->region);
    hd_xres_replace_str(&s->self.zone, self->zone);
    hd_xres_replace_str(&s->self.subzone, self->subzone);
    for (hd_xres_t *r = hd_xstore_next(s, HD_XDS_CLUSTER, NULL); r != NULL;
         r = hd_xstore_next(s, HD_XDS_CLUSTER, r)) {
        r->is_old = true;
        hd_xstore_names_changed(s);
    }
}

void hd_xstore_put_local(hd_xstore_t *s, hd_str_t name, hd_str_t chain_pem,
                         hd_str_t key_pem, hd_str_t trust_pem)
{
    hd_arena_t *arena = s->proc->arenas[HD_ARENA_DYNAMIC];
    hd_xres_t *r = hd_xstore_find_or_add(s, HD_XDS_SECRET, name);
    hd_pool_t *temp = hd_pool_create(0);
    hd_xds_env_t env = {.arena = arena, .member = s->proc->writer, .temp = temp};
    hd_secret_t texts = {
        .chain_pem = chain_pem, .key_pem = key_pem, .trust_pem = trust_pem};
    hd_err_t err = {0};

    r->is_local = true;
    env.batch = hd_batch_begin(arena);
    if (hd_xds_put_secret(&env, name, &texts, &r->slot, &err) == HD_OK) {
        r->state = HD_XRES_LIVE;
        r->updated_wall_ns = hd_loop_wall_ns(s->proc->loop);
        if (hd_batch_publish(env.batch, hd_xstore_now_ns(s)) > 0)
            hd_process_ring(s->proc);
    } else {
        hd_log(HD_LOG_ERROR, "xds: secret \"%.*s\": %s", HD_STR_ARG(name), err.text);
        hd_batch_abort(env.batch);
    }
    hd_pool_destroy(temp);
    if (s->step == HD_XSTORE_IDLE)
        hd_post(s->proc->loop, &s->run); /* some may have waited for it */
}

void hd_xstore_set_user(hd_xstore_t *s, const hd_xstore_user_t *user, void *arg)
{
    s->user = user;
    s->user_arg = arg;
}

bool hd_xstore_is_settled(const hd_xstore_t *s)
{
    if (s->first != NULL || s->step != HD_XSTORE_IDLE)
        return false;
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++)
        for (hd_xres_t *r = hd_xstore_next(s, k, NULL); r != NULL;
             r = hd_xstore_next(s, k, r))
            if (r->state == HD_XRES_WAITING)
                return false;
    return true;
}

void hd_xstore_get_stats(const hd_xstore_t *s, hd_xstore_stats_t *stats)
{
    *stats = s->stats;
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        for (hd_xres_t *r = hd_xstore_next(s, k, NULL); r != NULL;
             r = hd_xstore_next(s, k, r))
            stats->by_state[r->state]++;
    }
}

/* Freed regions, and gauges that a death left wrong (once a second). */
static void on_reclaim(hd_timer_t *t)
{
    hd_xstore_t *s = hd_container_of(t, hd_xstore_t, reclaim);
    uint64_t now = hd_xstore_now_ns(s);

    hd_ignore(hd_arena_reclaim(s->proc->arenas[HD_ARENA_DYNAMIC], now) == 0);
    if (now - s->healed_ns >= 1000000000u) {
        s->healed_ns = now;
        hd_ignore(hd_gauge_heal(s->proc->writer) == 0);
    }
    if (s->waits_for_checks && s->step == HD_XSTORE_IDLE && hd_checks_are_warm(s->proc))
        hd_post(s->proc->loop, &s->run);
    hd_timer_set(s->proc->loop, t, RECLAIM_MS);
}

/* Modules may name log files while a resource is built. */
static hd_xstore_t *building; /* one store a program */

static hd_rc_t need_log(hd_conf_t *cf, hd_str_t path, hd_err_t *err)
{
    hd_str_t *to;

    (void)cf;
    if (building == NULL || building->temp == NULL)
        return hd_err_set(err, HD_E_INTERNAL, "no log can be opened now");
    to = hd_array_add(&building->logs);
    if (to == NULL)
        return hd_err_set(err, HD_E_LIMIT, "too many log files");
    *to = hd_str_dup(building->temp, path);
    return HD_OK;
}

static const hd_build_ops_t build_ops = {.need_log = need_log};

hd_xstore_t *hd_xstore_create(hd_proc_t *p)
{
    hd_xstore_t *s = calloc(1, sizeof(*s));

    hd_bug_on(s == NULL);
    s->proc = p;
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        s->by_name[k] = hd_map_create();
        hd_list_init(&s->lists[k]);
    }
    s->last = &s->first;
    s->build =
        (hd_build_t){.ops = &build_ops, .prefix = p->prefix, .conf_dir = p->prefix};
    hd_post_init(&s->run, hd_xstore_on_run);
    hd_timer_init(&s->deadline, hd_xstore_on_deadline);
    hd_timer_init(&s->reclaim, on_reclaim);
    hd_timer_set(p->loop, &s->reclaim, RECLAIM_MS);
    building = s;
    return s;
}

void hd_xstore_destroy(hd_xstore_t *s)
{
    hd_xupdate_t *next;

    hd_post_cancel(&s->run);
    hd_timer_stop(s->proc->loop, &s->deadline);
    hd_timer_stop(s->proc->loop, &s->reclaim);
    if (s->batch != NULL)
        hd_batch_abort(s->batch);
    for (size_t i = 0; s->temp != NULL && i < s->gone.n; i++)
        hd_xres_free(((hd_xres_t **)s->gone.items)[i]);
    if (s->temp != NULL)
        hd_pool_destroy(s->temp);
    for (hd_xupdate_t *u = s->first; u != NULL; u = next) {
        next = u->next;
        hd_pool_destroy(u->pool);
    }
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        while (!hd_list_is_empty(&s->lists[k]))
            hd_xres_free(hd_list_entry(s->lists[k].next, hd_xres_t, link));
        hd_map_destroy(s->by_name[k]);
    }
    building = NULL;
    if (s->dns != NULL)
        hd_dns_destroy(s->dns);
    hd_xres_free_str(&s->self.local_cluster);
    hd_xres_free_str(&s->self.region);
    hd_xres_free_str(&s->self.zone);
    hd_xres_free_str(&s->self.subzone);
    free(s);
}
