#include "mesh/hd_named.h"
#include "core/base/hd_array.h"
#include "core/base/hd_log.h"
#include "core/loom/hd_batch.h"
#include "core/net/hd_sticky.h"
#include "core/proc/hd_process.h"
#include "mesh/hd_endpoint_state.h"

#include <stdlib.h>

#define ENDPOINTS_MAX 65536
#define WEIGHT_MAX 100000000u
#define RETRY_MS 1000 /* after a failure, doubled with each … */
#define RETRY_MAX_MS 30000
#define RECLAIM_MS 200
#define NO_TTL_MS 1000 /* of an answer whose TTL is 0, and of NXDOMAIN */

/* A resource of the files arena, as the agent knows it. */
typedef struct {
    hd_link_t link;
    const hd_slot_t *slot; /* held */
    uint64_t version;      /* last built from */
    hd_slot_t *endpoints;  /* held; NULL: there are none yet */
    hd_dns_names_t names;
    bool is_wanted;
} named_t;

static struct {
    hd_proc_t *proc;
    hd_dns_t *dns; /* NULL: no name was needed */
    hd_link_t all;
    hd_timer_t reclaim; /* set while something that was replaced may be in use */
} agent;

hd_dns_conf_t hd_named_dns_conf(const hd_resolver_t *r)
{
    hd_dns_conf_t conf = {
        .servers_n = hd_min(r->servers_n, (uint32_t)HD_DNS_SERVERS_MAX),
        .has_no_search = true,
        .has_no_files = r->servers_n > 0,
        .family = r->no_ipv4   ? HD_DNS_V6_ONLY
                  : r->no_ipv6 ? HD_DNS_V4_ONLY
                               : HD_DNS_ALL,
        .respects_ttl = r->valid_ms == 0,
        .refresh_ms = r->valid_ms > 0 ? r->valid_ms : NO_TTL_MS,
        .failure_ms = RETRY_MS,
        .failure_max_ms = RETRY_MAX_MS,
    };

    for (uint32_t i = 0; i < conf.servers_n; i++)
        conf.servers[i] = r->servers[i];
    return conf;
}

/* --- endpoints of names --- */

/* While a list is made; it lies in <temp>. */
typedef struct {
    hd_array_t items; /* hd_endpoint_t */
    hd_dns_names_t names;
    hd_dns_conf_t how;
    bool is_known; /* each name is answered, or failed */
} list_t;

static void add(list_t *l, const hd_endpoint_t *like, const hd_addr_t *addr,
                uint16_t port)
{
    hd_endpoint_t *e = hd_array_add(&l->items);

    if (e == NULL)
        return;
    *e = *like;
    e->addr = *addr;
    if (port != 0)
        e->addr.port = port;
}

static hd_dns_answer_t look_up(list_t *l, hd_str_t host, bool is_srv)
{
    hd_dns_conf_t how = l->how;
    hd_dns_answer_t answer;

    how.is_srv = is_srv;
    hd_dns_names_add(agent.dns, &l->names, host, &how);
    answer = hd_dns_get(agent.dns, host, &how);
    l->is_known &= answer.is_known;
    return answer;
}

static void add_host(list_t *l, const hd_endpoint_t *like, hd_str_t host, uint16_t port)
{
    hd_dns_answer_t answer = look_up(l, host, false);

    for (uint32_t i = 0; i < answer.n; i++)
        add(l, like, &answer.addrs[i], port);
}

/* RFC 2782, in nginx's reading: those of the first priority serve, the others stand by;
 * of a backup server only the first ones count. */
static void add_service(list_t *l, const hd_named_server_t *s)
{
    hd_dns_answer_t answer = look_up(l, s->host, true);
    uint16_t first = UINT16_MAX;

    for (uint32_t i = 0; i < answer.srvs_n; i++)
        first = hd_min(first, answer.srvs[i].priority);
    for (uint32_t i = 0; i < answer.srvs_n; i++) {
        const hd_srv_t *srv = &answer.srvs[i];
        hd_endpoint_t like = s->like;

        if (srv->priority != first && like.backup)
            continue;
        like.backup |= srv->priority != first;
        like.weight = (uint32_t)hd_min((uint64_t)like.weight * hd_max(srv->weight, 1),
                                       (uint64_t)WEIGHT_MAX);
        like.hostname = hd_str_c(srv->target);
        add_host(l, &like, like.hostname, srv->port);
    }
}

static void make_list(const hd_named_t *conf, list_t *l, hd_pool_t *temp)
{
    *l = (list_t){.is_known = true, .how = hd_named_dns_conf(&conf->resolver)};
    hd_array_init(&l->items, temp, sizeof(hd_endpoint_t), ENDPOINTS_MAX);
    for (uint32_t i = 0; i < conf->servers_n; i++) {
        const hd_named_server_t *s = &conf->servers[i];

        if (s->host.len == 0)
            add(l, &s->like, &s->like.addr, 0);
        else if (s->is_srv)
            add_service(l, s);
        else
            add_host(l, &s->like, s->host, s->port);
    }
}

static void set_endpoints(named_t *n, hd_slot_t *slot)
{
    if (slot == NULL || slot == n->endpoints)
        return;
    hd_slot_hold(agent.proc->member, slot);
    if (n->endpoints != NULL)
        hd_slot_let_go(agent.proc->member, n->endpoints);
    n->endpoints = slot;
}

static hd_rc_t put(hd_batch_t *batch, named_t *n, const hd_named_t *conf, const list_t *l,
                   hd_pool_t *temp, hd_err_t *err)
{
    hd_arena_t *arena = agent.proc->arenas[HD_ARENA_DYNAMIC];
    hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_ENDPOINTS, conf->resolved, err);
    hd_endpoints_t *eps;
    hd_region_t *r;
    hd_pool_t *pool;
    hd_rc_t rc;

    if (slot == NULL)
        return HD_ERROR;
    r = hd_batch_region(batch, HD_RES_ENDPOINTS, conf->resolved, n->slot->name,
                        l->items.n * sizeof(hd_endpoint_t), &pool, err);
    if (r == NULL)
        return HD_ERROR;
    eps = hd_pool_new(pool, hd_endpoints_t);
    eps->items = hd_array_copy(&l->items, pool);
    eps->n = (uint32_t)l->items.n;
    eps->overprovisioning_factor = 140;
    for (uint32_t i = 0; i < eps->n; i++) {
        hd_endpoint_t *e = (hd_endpoint_t *)&eps->items[i];

        e->hostname = hd_str_dup(pool, e->hostname);
        e->more = hd_endpoint_copy_more(pool, e, conf->is_sticky);
        if (e->addr.family == AF_UNIX)
            e->addr.path = hd_str_dup(pool, e->addr.path);
        if (eps->n == 1) /* who is alone is never given up, as in nginx */
            e->max_fails = e->slow_start_ms = 0;
    }
    hd_endpoints_attach_state(agent.proc->writer, conf->resolved, eps,
                              conf->is_load_read);
    if (conf->is_counted)
        hd_endpoints_count(agent.proc->writer, conf->resolved);
    if (conf->table.kind != HD_TABLE_NONE)
        hd_tables_build(eps, &conf->table, pool, temp);
    rc = hd_batch_put(batch, slot, r, eps, HD_CONTENT_BUILT, err);
    set_endpoints(n, slot);
    return rc == HD_DONE ? HD_OK : rc;
}

static void build(hd_batch_t *batch, named_t *n, const hd_region_t *r)
{
    const hd_named_t *conf = r->root;
    hd_pool_t *temp = hd_pool_create(0);
    hd_err_t err = {0};
    bool is_live;
    list_t l;

    make_list(conf, &l, temp);
    hd_dns_names_clear(&n->names);
    n->names = l.names;
    n->version = r->version;
    if (n->endpoints == NULL) /* an agent before this one may have made it */
        set_endpoints(n, hd_slot_find(agent.proc->member,
                                      agent.proc->arenas[HD_ARENA_DYNAMIC],
                                      HD_RES_ENDPOINTS, conf->resolved));
    is_live = n->endpoints != NULL && hd_slot_state(n->endpoints) == HD_SLOT_LIVE;
    if ((l.is_known || (!is_live && l.items.n > 0)) &&
        put(batch, n, conf, &l, temp, &err) != HD_OK)
        hd_log(HD_LOG_ERROR, "%.*s: %s", HD_STR_ARG(n->slot->name), err.text);
    hd_pool_destroy(temp);
}

/* --- which there are --- */

static named_t *find_or_add(const hd_slot_t *slot)
{
    named_t *n;

    hd_list_each(it, &agent.all)
    {
        n = hd_list_entry(it, named_t, link);
        if (n->slot == slot)
            return n;
    }
    n = calloc(1, sizeof(*n));
    hd_bug_on(n == NULL);
    n->slot = slot;
    hd_slot_hold(agent.proc->member, slot);
    hd_list_add_last(&agent.all, &n->link);
    return n;
}

static const hd_region_t *region_of(const hd_slot_t *slot)
{
    return slot->type == HD_RES_POLICY &&
                   hd_str_has_prefix(slot->name, HD_STR(HD_NAMED_PREFIX))
               ? hd_slot_get(agent.proc->member, slot)
               : NULL;
}

static void on_reclaim(hd_timer_t *t)
{
    hd_proc_t *p = agent.proc;

    if (hd_arena_reclaim(p->arenas[HD_ARENA_DYNAMIC], hd_loop_now_ns(p->loop)) > 0 ||
        hd_arena_slots_going(p->arenas[HD_ARENA_DYNAMIC]) > 0)
        hd_timer_set(p->loop, t, RECLAIM_MS);
}

static void on_names(void *arg);

static bool has_dns(void)
{
    hd_err_t err = {0};

    if (agent.dns == NULL)
        agent.dns = hd_dns_create(agent.proc->loop, on_names, NULL, &err);
    if (agent.dns == NULL)
        hd_log(HD_LOG_ERROR, "%s", err.text);
    return agent.dns != NULL;
}

static void end_named(hd_batch_t *batch, named_t *n)
{
    if (batch != NULL && n->endpoints != NULL &&
        hd_slot_state(n->endpoints) == HD_SLOT_LIVE)
        hd_batch_remove(batch, n->endpoints);
    hd_dns_names_clear(&n->names);
    hd_list_remove(&n->link);
    hd_slot_let_go(agent.proc->member, n->slot);
    if (n->endpoints != NULL)
        hd_slot_let_go(agent.proc->member, n->endpoints);
    free(n);
}

/* Builds what is new, or all of it once more; ends what is gone. */
static void refresh(hd_proc_t *p, bool all)
{
    const hd_slot_t *slot = NULL;
    hd_batch_t *batch = NULL;

    hd_list_each(it, &agent.all) hd_list_entry(it, named_t, link)->is_wanted = false;
    while ((slot = hd_slot_next(p->arenas[HD_ARENA_FILES], slot)) != NULL) {
        const hd_region_t *r = region_of(slot);
        named_t *n;

        if (r == NULL || !has_dns())
            continue;
        n = find_or_add(slot);
        n->is_wanted = true;
        if (!all && n->version == r->version)
            continue;
        if (batch == NULL)
            batch = hd_batch_begin(p->arenas[HD_ARENA_DYNAMIC]);
        build(batch, n, r);
    }
    hd_list_each(it, &agent.all)
    {
        named_t *n = hd_list_entry(it, named_t, link);

        if (n->is_wanted)
            continue;
        if (batch == NULL)
            batch = hd_batch_begin(p->arenas[HD_ARENA_DYNAMIC]);
        end_named(batch, n);
    }
    if (batch != NULL && hd_batch_publish(batch, hd_loop_now_ns(p->loop)) > 0) {
        hd_process_ring(p);
        hd_timer_set(p->loop, &agent.reclaim, RECLAIM_MS);
    }
    if (agent.dns != NULL)
        hd_dns_forget(agent.dns);
}

static void on_names(void *arg)
{
    (void)arg;
    refresh(agent.proc, true);
}

/* --- life --- */

static hd_rc_t on_start(hd_proc_t *p, hd_err_t *err)
{
    (void)err;
    agent.proc = p;
    hd_list_init(&agent.all);
    hd_timer_init(&agent.reclaim, on_reclaim);
    hd_turn_begin(p->member);
    refresh(p, false);
    return HD_OK;
}

static void on_batch(hd_proc_t *p)
{
    if (!p->is_quitting)
        refresh(p, false);
}

static void on_stop(hd_proc_t *p)
{
    if (agent.proc == NULL)
        return;
    hd_timer_stop(p->loop, &agent.reclaim);
    while (!hd_list_is_empty(&agent.all))
        end_named(NULL, hd_list_entry(agent.all.next, named_t, link));
    if (agent.dns != NULL)
        hd_dns_destroy(agent.dns);
    agent.dns = NULL;
    agent.proc = NULL;
}

static const hd_process_hooks_t hooks = {
    .name = "named servers",
    .kinds = 1u << HD_PROC_AGENT,
    .on_start = on_start,
    .on_batch = on_batch,
    .on_stop = on_stop,
};

void hd_named_register(void)
{
    hd_process_add_hooks(&hooks);
}
