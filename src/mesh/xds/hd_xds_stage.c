/* From an item of an update to a version that is staged in its batch, waits, or is
 * refused. */
#include "mesh/xds/hd_xds_store_int.h"
#include "core/net/hd_listener.h"
#include "core/base/hd_log.h"
#include "mesh/hd_check.h"
#include <stdlib.h>

#define WHY_MAX 4096 /* bytes of a NACK's text */

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
                          .may_put_arg = s,
                          .self = &s->self};
}

bool hd_xstore_is_in_force(const hd_xstore_t *s, const hd_xres_t *r)
{
    const hd_slot_t *slot =
        hd_slot_find(s->proc->member, s->proc->arenas[HD_ARENA_DYNAMIC],
                     hd_xds_res_type(r->kind), r->name);

    return slot != NULL && hd_slot_get(s->proc->member, slot) != NULL;
}

/* As Envoy's clusters are warmed before it asks for its first listeners. */
bool hd_xstore_waits_for_checks(hd_xstore_t *s, const hd_xres_t *r)
{
    if (r->kind != HD_XDS_LISTENER || s->has_opened)
        return false;
    s->has_opened = hd_checks_are_warm(s->proc) || hd_xstore_is_in_force(s, r);
    s->waits_for_checks = !s->has_opened;
    return s->waits_for_checks;
}

/* Between build and put: what it needs is known now. */
static bool may_put(void *arg, const hd_xds_built_t *out)
{
    hd_xstore_t *s = arg;
    hd_xres_t *r = hd_xstore_find(s, out->kind, out->name);

    hd_bug_on(r == NULL);
    hd_xres_set_needs(s, r, out);
    hd_xres_wait_for_clusters(s, r, out);
    r->waits_for_names = !out->needs_no_names && !are_names_known(s, out);
    return hd_xres_is_warm(s, r) && !r->waits_for_names &&
           !hd_xstore_waits_for_checks(s, r);
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

static void set_sockets(hd_xres_t *r, const hd_listener_t *l)
{
    hd_xsockets_t sockets = {.n = l->bind ? 1 + l->more_n : 0};

    if (sockets.n > 0)
        sockets.items = calloc(sockets.n, sizeof(*sockets.items));
    hd_bug_on(sockets.n > 0 && sockets.items == NULL);
    for (uint32_t i = 0; i < sockets.n; i++) {
        hd_socket_spec_t *spec = &sockets.items[i].spec;

        *spec = i == 0 ? l->socket : l->more[i - 1];
        spec->bind = hd_addr_keep(&spec->bind);
    }
    hd_xres_set_sockets(r, sockets);
}

void hd_xstore_refuse(hd_xstore_t *s, hd_xres_t *r, hd_str_t version, const char *why)
{
    r->refused_n++;
    hd_xres_replace_str(&r->refused_version, version);
    hd_xres_replace_str(&r->refused_why, hd_str_c(why));
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
        r->is_old = true;
        s->names_changed = true;
    }
}

void hd_xstore_build(hd_xstore_t *s, hd_xres_t *r, const hd_xitem_t *item)
{
    hd_xds_env_t env = make_env(s);
    hd_xds_built_t out;
    hd_err_t err = {0};

    if (hd_xds_build(&env, r->kind, r->name, item->bytes, item->version, &out, &err) !=
        HD_OK) {
        hd_xstore_refuse(s, r, item->version, err.text);
        return;
    }
    s->stats.accepted++;
    note_high(s);
    hd_xres_set_names(s, r, &out);
    if (item->bytes.data != r->bytes.data) {
        hd_xres_drop_before(r);
        r->before = r->bytes;
        r->before_version = r->version;
        r->bytes = hd_xres_keep_str(item->bytes);
        r->version = hd_xres_keep_str(item->version);
    }
    hd_xres_free_str(&r->refused_version);
    hd_xres_free_str(&r->refused_why);
    hd_xres_set_notes(r, &out);
    r->updated_wall_ns = hd_loop_wall_ns(s->proc->loop);
    if (out.is_waiting) {
        r->state = HD_XRES_WAITING;
        return;
    }
    hd_xres_let_go(s, r);
    r->slot = out.slot;
    r->clusters_until_ns = 0;
    r->is_staged = true;
    if (r->kind == HD_XDS_LISTENER)
        set_sockets(r, out.root);
    note_changed(s, r);
}

/* The same bytes again, in force or waiting: nothing to do. */
static bool is_known(const hd_xres_t *r, const hd_xitem_t *item)
{
    return (r->state == HD_XRES_LIVE || r->state == HD_XRES_WAITING) &&
           hd_str_eq(r->bytes, item->bytes);
}

void hd_xstore_take_item(hd_xstore_t *s, hd_xupdate_t *u, const hd_xitem_t *item)
{
    bool is_wild = u->kind == HD_XDS_CLUSTER || u->kind == HD_XDS_LISTENER;
    hd_xres_t *r = hd_xstore_find(s, u->kind, item->name);

    if (r == NULL && !is_wild)
        return; /* not asked for, or no more */
    if (r == NULL)
        r = hd_xstore_find_or_add(s, u->kind, item->name);
    if (r->is_local)
        return; /* nobody else says who we are */
    r->is_asked_for |= is_wild;
    if (r->refs > 0) /* else it was on its way when we left it */
        r->is_stale = false;
    if (is_known(r, item)) {
        hd_xres_replace_str(&r->version, item->version);
        return;
    }
    r->clusters_until_ns = 0;
    hd_xstore_build(s, r, item);
}
