#include "mesh/xds/hd_xds_store.h"
#include "core/net/hd_tls.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/loom/hd_batch.h"
#include "core/net/hd_listener.h"
#include "core/os/hd_clock.h"
#include "mesh/hd_dns.h"
#include "core/loom/hd_gauge.h"

#include <stdlib.h>
#include <string.h>

#define SLICE_NS 5000000u /* of decoding: then the agent turns to others */
#define WHY_MAX 4096      /* bytes of a NACK's text */
#define RECLAIM_MS 200

/* Where the update at the head of the queue stands. */
typedef enum { IDLE, ITEMS, PREPARING } step_t;

struct hd_xstore_s {
    hd_proc_t *proc;
    hd_map_t *by_name[HD_XDS_KINDS_N];
    hd_link_t lists[HD_XDS_KINDS_N];
    hd_xupdate_t *first, **last;
    step_t step;
    size_t at; /* the next item of the update */
    hd_batch_t *batch;
    hd_pool_t *temp;    /* of the update under way */
    hd_str_t why;       /* in temp */
    hd_array_t changed; /* hd_xres_t *: staged in the batch, or accepted to wait */
    hd_array_t logs;    /* hd_str_t: files that must be open */
    hd_array_t gone;    /* hd_xres_t *: to be freed after the batch */
    bool needs_changed[HD_XDS_KINDS_N];
    bool names_changed;
    hd_dns_t *dns; /* made with the first name; NULL: none was needed */
    hd_post_t run;
    hd_timer_t deadline, reclaim;
    uint64_t healed_ns;
    hd_build_t build;
    const hd_xstore_user_t *user;
    void *user_arg;
    hd_xstore_stats_t stats;
    hd_array_t released; /* hd_socket_spec_t: closed by the master after the batch */
};

/* --- resources --- */

static hd_str_t keep(hd_str_t s)
{
    char *copy = malloc(s.len + 1);

    hd_bug_on(copy == NULL);
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    copy[s.len] = '\0';
    return hd_str_n(copy, s.len);
}

static void let_go(hd_str_t *s)
{
    free((char *)s->data);
    *s = HD_STR_NONE;
}

static void replace(hd_str_t *to, hd_str_t by)
{
    hd_str_t copy = keep(by);

    let_go(to);
    *to = copy;
}

hd_xres_t *hd_xstore_find(const hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name)
{
    return hd_map_get(s->by_name[kind], name);
}

hd_xres_t *hd_xstore_next(const hd_xstore_t *s, hd_xds_kind_t kind, const hd_xres_t *res)
{
    const hd_link_t *link = res == NULL ? s->lists[kind].next : res->link.next;

    return link == &s->lists[kind] ? NULL : hd_list_entry(link, hd_xres_t, link);
}

static hd_xres_t *find_or_add(hd_xstore_t *s, hd_xds_kind_t kind, hd_str_t name)
{
    hd_xres_t *r = hd_xstore_find(s, kind, name);

    if (r != NULL)
        return r;
    r = calloc(1, sizeof(*r));
    hd_bug_on(r == NULL);
    r->kind = kind;
    r->name = keep(name);
    hd_list_add_last(&s->lists[kind], &r->link);
    hd_bug_on(hd_map_put(s->by_name[kind], r->name, r) != NULL);
    return r;
}

static void free_notes(hd_xres_t *r)
{
    for (uint32_t i = 0; i < r->notes_n; i++)
        let_go(&r->notes[i]);
    free(r->notes);
    r->notes = NULL;
    r->notes_n = 0;
}

/* What was accepted before isn't needed any more. */
static void drop_before(hd_xres_t *r)
{
    let_go(&r->before);
    let_go(&r->before_version);
}

static void free_res(hd_xres_t *r)
{
    drop_before(r);
    hd_list_remove(&r->link);
    let_go(&r->name);
    let_go(&r->bytes);
    let_go(&r->version);
    let_go(&r->refused_version);
    let_go(&r->refused_why);
    free_notes(r);
    free(r->needs);
    hd_dns_names_clear(&r->names);
    free(r);
}

/* --- needs --- */

static void drop_unneeded(hd_xstore_t *s, hd_xres_t *r);

static void unref(hd_xstore_t *s, hd_xres_t *r)
{
    hd_bug_on(r->refs == 0);
    if (--r->refs == 0) {
        s->needs_changed[r->kind] = true;
        drop_unneeded(s, r);
    }
}

static void clear_needs(hd_xstore_t *s, hd_xres_t *r)
{
    hd_xneed_t *old = r->needs;
    uint32_t n = r->needs_n;

    r->needs = NULL;
    r->needs_n = 0;
    for (uint32_t i = 0; i < n; i++)
        unref(s, old[i].res);
    free(old);
}

static uint64_t now_ns(const hd_xstore_t *s)
{
    return hd_loop_now_ns(s->proc->loop);
}

/* New ones are taken before old ones go, so that what both name stays. */
static void set_needs(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_xds_need_t *from = out->needs.items;
    hd_xneed_t *list = out->needs.n > 0 ? calloc(out->needs.n, sizeof(*list)) : NULL;

    hd_bug_on(out->needs.n > 0 && list == NULL);
    for (size_t i = 0; i < out->needs.n; i++) {
        hd_xres_t *other = find_or_add(s, from[i].kind, from[i].name);

        if (other->refs++ == 0 && !from[i].is_local)
            s->needs_changed[other->kind] = true;
        other->is_local |= from[i].is_local;
        list[i].res = other;
        list[i].wait_until_ns = from[i].wait_ms > 0
                                    ? now_ns(s) + (uint64_t)from[i].wait_ms * 1000000
                                    : UINT64_MAX;
    }
    clear_needs(s, r);
    r->needs = list;
    r->needs_n = (uint32_t)out->needs.n;
}

/* New ones are held before old ones are let go of, so that what both name stays. */
static void set_names(hd_xstore_t *s, hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_xds_name_t *from = out->names.items;
    hd_dns_names_t names = {0};

    for (size_t i = 0; i < out->names.n && s->dns != NULL; i++)
        hd_dns_names_add(s->dns, &names, from[i].host, from[i].how);
    hd_dns_names_clear(&r->names);
    r->names = names;
}

static bool is_there(const hd_xres_t *r)
{
    return r->is_staged || r->state == HD_XRES_LIVE || r->state == HD_XRES_ABSENT;
}

static bool is_warm(const hd_xstore_t *s, const hd_xres_t *r)
{
    for (uint32_t i = 0; i < r->needs_n; i++) {
        if (!is_there(r->needs[i].res) && r->needs[i].wait_until_ns > now_ns(s))
            return false;
    }
    return true;
}

/* --- removal --- */

static void release_socket(hd_xstore_t *s, hd_xres_t *r)
{
    hd_socket_spec_t *spec;

    if (!r->is_listening)
        return;
    r->is_listening = false;
    spec = hd_array_add(&s->released);
    if (spec != NULL)
        *spec = r->socket;
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
    release_socket(s, r);
    clear_needs(s, r);
    hd_dns_names_clear(&r->names);
}

static void drop_unneeded(hd_xstore_t *s, hd_xres_t *r)
{
    if (r->refs == 0 && !r->is_asked_for && !r->is_local)
        forget(s, r);
}

/* The control plane has it no more. Those who still need it go on without. */
static void remove_res(hd_xstore_t *s, hd_xres_t *r)
{
    r->is_asked_for = false;
    if (r->refs == 0) {
        forget(s, r);
        return;
    }
    remove_slot(s, r);
    clear_needs(s, r);
    hd_dns_names_clear(&r->names);
    let_go(&r->bytes);
    let_go(&r->version);
    r->state = HD_XRES_ABSENT;
}

/* --- building --- */

static bool may_put(void *arg, const hd_xds_built_t *out);

static void on_names(void *arg)
{
    hd_xstore_names_changed(arg);
}

static hd_dns_t *get_dns(hd_xstore_t *s)
{
    hd_err_t err = {0};

    if (s->dns == NULL)
        s->dns = hd_dns_create(s->proc->loop, on_names, s, &err);
    if (s->dns == NULL)
        hd_log(HD_LOG_ERROR, "xds: %s", err.text);
    return s->dns;
}

static hd_xds_names_t resolve(void *arg, hd_str_t host, const hd_dns_conf_t *how)
{
    hd_dns_t *dns = get_dns(arg);
    hd_dns_answer_t answer = {0};

    if (dns != NULL)
        answer = hd_dns_get(dns, host, how);
    return (hd_xds_names_t){answer.addrs, answer.n, answer.first};
}

/* Every name was answered, or failed. */
static bool are_names_known(hd_xstore_t *s, const hd_xds_built_t *out)
{
    const hd_xds_name_t *names = out->names.items;

    for (size_t i = 0; i < out->names.n; i++) {
        if (s->dns != NULL && !hd_dns_get(s->dns, names[i].host, names[i].how).is_known)
            return false;
    }
    return true;
}

static hd_xds_env_t make_env(hd_xstore_t *s)
{
    return (hd_xds_env_t){.arena = s->proc->arenas[HD_ARENA_DYNAMIC],
                          .member = s->proc->writer,
                          .batch = s->batch,
                          .temp = s->temp,
                          .build = &s->build,
                          .resolve = resolve,
                          .resolve_arg = s,
                          .may_put = may_put,
                          .may_put_arg = s};
}

/* Between build and put: what it needs is known now. */
static bool may_put(void *arg, const hd_xds_built_t *out)
{
    hd_xstore_t *s = arg;
    hd_xres_t *r = hd_xstore_find(s, out->kind, out->name);

    hd_bug_on(r == NULL);
    set_needs(s, r, out);
    r->waits_for_names = !are_names_known(s, out);
    return is_warm(s, r) && !r->waits_for_names;
}

static void add_why(hd_xstore_t *s, const char *text)
{
    if (s->why.len >= WHY_MAX)
        return;
    s->why = hd_str_printf(s->temp, "%.*s%s%.*s", HD_STR_ARG(s->why),
                           s->why.len > 0 ? "; " : "", WHY_MAX, text);
}

static void note_changed(hd_xstore_t *s, hd_xres_t *r)
{
    hd_xres_t **to = hd_array_add(&s->changed);

    hd_bug_on(to == NULL);
    *to = r;
}

static void set_notes(hd_xres_t *r, const hd_xds_built_t *out)
{
    const hd_str_t *from = out->notes.items;

    free_notes(r);
    if (out->notes.n == 0)
        return;
    r->notes = calloc(out->notes.n, sizeof(*r->notes));
    hd_bug_on(r->notes == NULL);
    for (size_t i = 0; i < out->notes.n; i++)
        r->notes[i] = keep(from[i]);
    r->notes_n = (uint32_t)out->notes.n;
}

static void set_socket(hd_xstore_t *s, hd_xres_t *r, const hd_listener_t *l)
{
    if (r->is_listening && (!l->bind || !hd_addr_eq(&r->socket.bind, &l->socket.bind)))
        release_socket(s, r);
    if (!l->bind)
        return;
    r->socket = l->socket;
    r->socket.bind = hd_addr_keep(&l->socket.bind);
}

static void refuse(hd_xstore_t *s, hd_xres_t *r, hd_str_t version, const char *why)
{
    r->refused_n++;
    replace(&r->refused_version, version);
    replace(&r->refused_why, hd_str_c(why));
    s->stats.refused++;
    add_why(s, why);
    hd_log(HD_LOG_ERROR, "xds: refused: %s", why);
}

/* Clusters that want limits of priority HIGH now are built once more, as if a name of
 * theirs had another answer. */
static void note_high(hd_xstore_t *s)
{
    hd_str_t name;

    while (hd_xds_take_high(&name)) {
        hd_xres_t *r = hd_xstore_find(s, HD_XDS_CLUSTER, name);

        if (r == NULL)
            continue; /* it will be built with them */
        r->wants_high = true;
        s->names_changed = true;
    }
}

/* Builds <item> as <r>'s next version. */
static void build_res(hd_xstore_t *s, hd_xres_t *r, const hd_xitem_t *item)
{
    hd_xds_env_t env = make_env(s);
    hd_xds_built_t out;
    hd_err_t err = {0};

    if (hd_xds_build(&env, r->kind, r->name, item->bytes, item->version, &out, &err) !=
        HD_OK) {
        refuse(s, r, item->version, err.text);
        return;
    }
    s->stats.accepted++;
    note_high(s);
    set_names(s, r, &out);
    if (item->bytes.data != r->bytes.data) {
        drop_before(r);
        r->before = r->bytes;
        r->before_version = r->version;
        r->bytes = keep(item->bytes);
        r->version = keep(item->version);
    }
    let_go(&r->refused_version);
    let_go(&r->refused_why);
    set_notes(r, &out);
    r->updated_wall_ns = hd_loop_wall_ns(s->proc->loop);
    if (out.is_waiting) {
        r->state = HD_XRES_WAITING;
        return;
    }
    r->slot = out.slot;
    r->is_staged = true;
    if (r->kind == HD_XDS_LISTENER)
        set_socket(s, r, out.root);
    note_changed(s, r);
}

/* The same bytes again, in force or waiting: nothing to do. */
static bool is_known(const hd_xres_t *r, const hd_xitem_t *item)
{
    return (r->state == HD_XRES_LIVE || r->state == HD_XRES_WAITING) &&
           hd_str_eq(r->bytes, item->bytes);
}

static void take_item(hd_xstore_t *s, hd_xupdate_t *u, const hd_xitem_t *item)
{
    bool is_wild = u->kind == HD_XDS_CLUSTER || u->kind == HD_XDS_LISTENER;
    hd_xres_t *r = hd_xstore_find(s, u->kind, item->name);

    if (r == NULL && !is_wild)
        return; /* not asked for, or no more */
    if (r == NULL)
        r = find_or_add(s, u->kind, item->name);
    if (r->is_local)
        return; /* nobody else says who we are */
    r->is_asked_for |= is_wild;
    if (is_known(r, item))
        replace(&r->version, item->version);
    else
        build_res(s, r, item);
}

/* --- an update to its end --- */

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
            remove_res(s, r);
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
            remove_res(s, r);
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
                if (r->state != HD_XRES_WAITING || r->is_staged || !is_warm(s, r) ||
                    r->waits_for_names)
                    continue;
                build_res(s, r, &(hd_xitem_t){r->name, r->version, r->bytes});
                again |= r->is_staged;
                if (!r->is_staged && r->state == HD_XRES_WAITING && is_warm(s, r))
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
            s->names_changed |= r->wants_high;
            continue;
        }
        if ((r->names.n > 0 || r->wants_high) && r->bytes.len > 0)
            build_res(s, r, &(hd_xitem_t){r->name, r->version, r->bytes});
        r->wants_high = false;
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
    s->step = ITEMS;
}

static uint64_t next_deadline(const hd_xstore_t *s)
{
    uint64_t at = UINT64_MAX;

    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        for (hd_xres_t *r = hd_xstore_next(s, k, NULL); r != NULL;
             r = hd_xstore_next(s, k, r)) {
            for (uint32_t i = 0; r->state == HD_XRES_WAITING && i < r->needs_n; i++)
                if (!is_there(r->needs[i].res))
                    at = hd_min(at, r->needs[i].wait_until_ns);
        }
    }
    return at;
}

static void set_deadline(hd_xstore_t *s)
{
    uint64_t at = next_deadline(s), now = now_ns(s);

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

    s->step = IDLE;
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
    size_t n = hd_batch_publish(s->batch, now_ns(s));

    s->batch = NULL;
    for (size_t i = 0; i < s->changed.n; i++) {
        drop_before(changed[i]);
        if (!changed[i]->is_staged)
            continue; /* removed in the same batch */
        changed[i]->is_staged = false;
        changed[i]->state = HD_XRES_LIVE;
    }
    for (size_t i = 0; i < s->gone.n; i++)
        free_res(gone[i]);
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
    refuse(s, r, r->version, why);
    hd_batch_undo(s->batch, r->slot);
    r->is_staged = false;
    let_go(&r->bytes);
    let_go(&r->version);
    r->bytes = r->before;
    r->version = r->before_version;
    r->before = r->before_version = HD_STR_NONE;
    r->socket.bind.family = AF_UNSPEC;
    if (r->bytes.len == 0) {
        r->state = HD_XRES_NONE;
        r->slot = NULL;
    }
}

/* Sockets or log files can't be had: those that want them are refused, the rest goes on
 * in a batch of its own. */
static void on_prepared(void *arg, const hd_err_t *err)
{
    hd_xstore_t *s = arg;
    hd_xres_t **changed = s->changed.items;

    hd_bug_on(s->step != PREPARING);
    for (size_t i = 0; i < s->changed.n; i++) {
        hd_xres_t *r = changed[i];

        if (r->kind != HD_XDS_LISTENER || r->is_listening || !r->is_staged ||
            r->socket.bind.family == AF_UNSPEC)
            continue;
        if (err == NULL) {
            r->is_listening = true;
            continue;
        }
        undo(s, r, err->text);
        changed[i--] = changed[--s->changed.n];
    }
    publish(s);
}

static void prepare(hd_xstore_t *s)
{
    hd_socket_spec_t *specs = hd_pool_new_n(s->temp, hd_socket_spec_t, s->changed.n + 1);
    hd_xres_t **changed = s->changed.items;
    uint32_t n = 0;

    for (size_t i = 0; i < s->changed.n; i++) {
        if (changed[i]->kind == HD_XDS_LISTENER && !changed[i]->is_listening &&
            changed[i]->is_staged && changed[i]->socket.bind.family != AF_UNSPEC)
            specs[n++] = changed[i]->socket;
    }
    if (n == 0 && s->logs.n == 0) {
        publish(s);
        return;
    }
    s->step = PREPARING;
    hd_process_prepare(s->proc, specs, n, s->logs.items, (uint32_t)s->logs.n, on_prepared,
                       s);
}

/* A slice of the update at the head of the queue. */
static void run_update(hd_xstore_t *s)
{
    hd_xupdate_t *u = s->first;
    uint64_t until = hd_clock_mono_ns() + SLICE_NS;

    if (s->step == IDLE)
        begin(s);
    while (u != NULL && s->at < u->items_n) {
        take_item(s, u, &u->items[s->at++]);
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
    prepare(s);
}

static void on_run(hd_post_t *post)
{
    hd_xstore_t *s = hd_container_of(post, hd_xstore_t, run);

    if (s->step != PREPARING)
        run_update(s);
}

static void on_deadline(hd_timer_t *t)
{
    hd_xstore_t *s = hd_container_of(t, hd_xstore_t, deadline);

    if (s->step == IDLE)
        run_update(s);
}

/* Freed regions, and gauges that a death left wrong (once a second). */
static void on_reclaim(hd_timer_t *t)
{
    hd_xstore_t *s = hd_container_of(t, hd_xstore_t, reclaim);
    uint64_t now = now_ns(s);

    hd_ignore(hd_arena_reclaim(s->proc->arenas[HD_ARENA_DYNAMIC], now) == 0);
    if (now - s->healed_ns >= 1000000000u) {
        s->healed_ns = now;
        hd_ignore(hd_gauge_heal(s->proc->writer) == 0);
    }
    hd_timer_set(s->proc->loop, t, RECLAIM_MS);
}

/* --- what it is given --- */

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
    if (s->step == IDLE)
        hd_post(s->proc->loop, &s->run);
}

void hd_xstore_names_changed(hd_xstore_t *s)
{
    s->names_changed = true;
    if (s->step == IDLE)
        hd_post(s->proc->loop, &s->run);
}

void hd_xstore_put_local(hd_xstore_t *s, hd_str_t name, hd_str_t chain_pem,
                         hd_str_t key_pem, hd_str_t trust_pem)
{
    hd_arena_t *arena = s->proc->arenas[HD_ARENA_DYNAMIC];
    hd_xres_t *r = find_or_add(s, HD_XDS_SECRET, name);
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
        if (hd_batch_publish(env.batch, now_ns(s)) > 0)
            hd_process_ring(s->proc);
    } else {
        hd_log(HD_LOG_ERROR, "xds: secret \"%.*s\": %s", HD_STR_ARG(name), err.text);
        hd_batch_abort(env.batch);
    }
    hd_pool_destroy(temp);
    if (s->step == IDLE)
        hd_post(s->proc->loop, &s->run); /* some may have waited for it */
}

void hd_xstore_set_user(hd_xstore_t *s, const hd_xstore_user_t *user, void *arg)
{
    s->user = user;
    s->user_arg = arg;
}

bool hd_xstore_is_settled(const hd_xstore_t *s)
{
    if (s->first != NULL || s->step != IDLE)
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

/* --- life --- */

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
    hd_post_init(&s->run, on_run);
    hd_timer_init(&s->deadline, on_deadline);
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
        free_res(((hd_xres_t **)s->gone.items)[i]);
    if (s->temp != NULL)
        hd_pool_destroy(s->temp);
    for (hd_xupdate_t *u = s->first; u != NULL; u = next) {
        next = u->next;
        hd_pool_destroy(u->pool);
    }
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        while (!hd_list_is_empty(&s->lists[k]))
            free_res(hd_list_entry(s->lists[k].next, hd_xres_t, link));
        hd_map_destroy(s->by_name[k]);
    }
    building = NULL;
    if (s->dns != NULL)
        hd_dns_destroy(s->dns);
    free(s);
}
