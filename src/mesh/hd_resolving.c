#include "mesh/hd_resolving.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/loom/hd_batch.h"
#include "core/proc/hd_process.h"
#include "mesh/hd_named.h"

#include <stdio.h>
#include <stdlib.h>

#define HOST_MAX 253
#define KEY_MAX (HOST_MAX + 1 + sizeof(uint64_t))
#define ASK_MS 1000    /* asked again so often while a request waits: an agent may die */
#define STALE_MS 1000  /* how long a request waits while an old answer is at hand */
#define FAILED_MS 1000 /* a failure is told for so long */
#define FIRST_MS 5000  /* for the first endpoints of a cluster */
#define SWEEP_MS 10000
#define UNUSED_NS UINT64_C(60000000000) /* an answer that is old for so long goes */

/* --- the table --- */

typedef struct {
    hd_str_t key; /* the host, 0, hd_resolver_t.id */
    uint64_t hash;
    uint64_t answered_ns, until_ns; /* monotonic */
    const hd_addr_t *addrs;
    uint32_t n;
    uint32_t failure; /* hd_dns_failure_t of the last question */
} entry_t;

typedef struct {
    const entry_t *items;
    uint32_t n;
} piece_t;

static uint32_t make_key(hd_str_t host, uint64_t id, char *to)
{
    for (size_t i = 0; i < host.len; i++)
        to[i] = hd_ascii_lower(host.data[i]);
    to[host.len] = '\0';
    memcpy(to + host.len + 1, &id, sizeof(id));
    return (uint32_t)(host.len + 1 + sizeof(id));
}

static uint32_t piece_of(uint64_t hash)
{
    return (uint32_t)(hash >> 32) % HD_RESOLVING_PIECES;
}

static hd_str_t piece_name(uint32_t no, char room[16])
{
    return hd_str_n(room, (size_t)snprintf(room, 16, "names %u", no));
}

static const entry_t *find_entry(hd_member_t *m, hd_str_t key, uint64_t hash)
{
    char room[16];
    const hd_slot_t *slot =
        hd_slot_find(m, NULL, HD_RES_POLICY, piece_name(piece_of(hash), room));
    const hd_region_t *r = slot != NULL ? hd_slot_get(m, slot) : NULL;
    const piece_t *piece = r != NULL ? r->root : NULL;

    for (uint32_t i = 0; piece != NULL && i < piece->n; i++) {
        if (piece->items[i].hash == hash && hd_str_eq(piece->items[i].key, key))
            return &piece->items[i];
    }
    return NULL;
}

/* --- worker: asking and waiting --- */

/* What the agent is told. */
typedef struct {
    hd_resolver_t resolver;
    uint32_t host_len;
    char host[HOST_MAX + 1];
} question_t;

static struct {
    hd_link_t waits;
    uint32_t waits_n;
    hd_loop_t *loop;
    hd_timer_t timer;
    bool is_init;
} worker;

static void ask(const hd_resolver_t *r, hd_str_t host)
{
    question_t q = {.resolver = *r, .host_len = (uint32_t)host.len};

    memcpy(q.host, host.data, host.len);
    hd_process_ask(&hd_proc, &q, sizeof(q));
}

static void wake_all(void)
{
    hd_list_each(it, &worker.waits)
    {
        hd_resolve_wait_t *w = hd_list_entry(it, hd_resolve_wait_t, _link);

        hd_post(worker.loop, w->_wake);
    }
}

/* Asks again, and wakes those whose time is over. */
static void on_timer(hd_timer_t *t)
{
    uint64_t now_ns = hd_loop_now_ns(worker.loop), next_ns = now_ns + ASK_MS * 1000000ull;

    hd_list_each(it, &worker.waits)
    {
        hd_resolve_wait_t *w = hd_list_entry(it, hd_resolve_wait_t, _link);

        if (w->_is_asker && now_ns - w->_asked_ns >= ASK_MS * 1000000ull)
            ask(w->_resolver, w->_host);
        if (w->_until_ns <= now_ns)
            hd_post(worker.loop, w->_wake);
        else
            next_ns = hd_min(next_ns, w->_until_ns);
    }
    if (!hd_list_is_empty(&worker.waits))
        hd_timer_set(worker.loop, t, (next_ns - now_ns) / 1000000 + 1);
}

static void stop(hd_resolve_wait_t *w)
{
    if (!w->_is_waiting)
        return;
    w->_is_waiting = false;
    hd_list_remove(&w->_link);
    worker.waits_n--;
    if (hd_list_is_empty(&worker.waits))
        hd_timer_stop(worker.loop, &worker.timer);
    for (hd_link_t *it = worker.waits.next; w->_is_asker && it != &worker.waits;
         it = it->next) { /* another asks in its place */
        hd_resolve_wait_t *other = hd_list_entry(it, hd_resolve_wait_t, _link);

        if (other->_hash == w->_hash) {
            other->_is_asker = true;
            break;
        }
    }
    w->_is_asker = false;
}

static bool is_asked(uint64_t hash)
{
    hd_list_each(it, &worker.waits)
    {
        if (hd_list_entry(it, hd_resolve_wait_t, _link)->_hash == hash)
            return true;
    }
    return false;
}

/* False: too many do already. */
static bool start(hd_loop_t *loop, hd_resolve_wait_t *w, hd_post_t *wake, uint64_t ms)
{
    uint64_t now_ns = hd_loop_now_ns(loop);

    if (!worker.is_init) {
        hd_list_init(&worker.waits);
        hd_timer_init(&worker.timer, on_timer);
        worker.is_init = true;
    }
    if (worker.waits_n >= HD_RESOLVING_WAITS_MAX)
        return false;
    worker.loop = loop;
    w->_wake = wake;
    w->_asked_ns = now_ns;
    w->_until_ns = now_ns + ms * 1000000;
    w->_is_waiting = true;
    hd_list_add_last(&worker.waits, &w->_link);
    worker.waits_n++;
    ms = hd_min(ms, (uint64_t)ASK_MS);
    if (!hd_timer_is_set(&worker.timer) || worker.timer.at_ns > now_ns + ms * 1000000)
        hd_timer_set(loop, &worker.timer, ms);
    return true;
}

static hd_rc_t refuse(hd_resolve_wait_t *w, hd_str_t host, hd_dns_failure_t failure,
                      hd_err_t *err)
{
    stop(w);
    return hd_err_set(err, HD_E_NO_CLUSTER, "%.*s could not be resolved (%d: %s)",
                      HD_STR_ARG(host), (int)failure, hd_dns_failure_text(failure));
}

/* A first look at a name that isn't known, or not any more. */
static hd_rc_t begin(hd_loop_t *loop, const hd_resolver_t *r, hd_str_t host,
                     uint64_t hash, bool is_stale, hd_resolve_wait_t *w, hd_post_t *wake,
                     hd_err_t *err)
{
    uint64_t ms = is_stale ? hd_min(r->timeout_ms, (uint32_t)STALE_MS) : r->timeout_ms;

    w->_hash = hash;
    w->_host = host;
    w->_resolver = r;
    w->_is_asker = worker.waits_n == 0 || !is_asked(hash);
    if (!start(loop, w, wake, ms)) {
        w->_is_asker = false;
        return hd_err_set(err, HD_E_LIMIT,
                          "%.*s could not be resolved: %d requests wait for names",
                          HD_STR_ARG(host), HD_RESOLVING_WAITS_MAX);
    }
    if (w->_is_asker)
        ask(r, host);
    return HD_AGAIN;
}

static hd_rc_t find(hd_loop_t *loop, const hd_resolver_t *r, hd_str_t host,
                    hd_resolve_wait_t *w, hd_post_t *wake, const hd_addr_t **addrs,
                    uint32_t *n, hd_err_t *err)
{
    uint64_t now_ns = hd_loop_now_ns(loop), hash;
    const entry_t *e;
    char room[KEY_MAX];
    hd_str_t key;
    bool is_answer;

    if (host.len > HOST_MAX)
        return refuse(w, host, HD_DNS_BAD_QUERY, err);
    key = hd_str_n(room, make_key(host, r->id, room));
    hash = hd_hash64(key.data, key.len, 0);
    e = find_entry(hd_loop_member(loop), key, hash);
    is_answer = e != NULL && (e->until_ns > now_ns ||
                              (w->_is_waiting && e->answered_ns >= w->_asked_ns));
    if (!is_answer && !w->_is_waiting)
        return begin(loop, r, host, hash, e != NULL && e->n > 0, w, wake, err);
    if (!is_answer && now_ns < w->_until_ns)
        return HD_AGAIN;
    if (e == NULL || (e->n == 0 && !is_answer))
        return refuse(w, host, HD_DNS_TIMED_OUT, err);
    if (e->n == 0)
        return refuse(w, host, (hd_dns_failure_t)e->failure, err);
    stop(w);
    *addrs = e->addrs;
    *n = e->n;
    return HD_OK;
}

static hd_rc_t wait_for(hd_loop_t *loop, const hd_cluster_t *c, hd_resolve_wait_t *w,
                        hd_post_t *wake)
{
    if (c->resolved.len > 0 && hd_cluster_endpoints(hd_loop_member(loop), c) == NULL) {
        if (w->_is_waiting ? hd_loop_now_ns(loop) < w->_until_ns
                           : start(loop, w, wake, FIRST_MS))
            return HD_AGAIN;
    }
    stop(w);
    return HD_OK;
}

const hd_resolving_t hd_mesh_resolving = {
    .find = find, .wait_for = wait_for, .stop = stop};

/* --- agent: answering --- */

/* A name that a worker asked for. */
typedef struct {
    hd_link_t link; /* of its piece, the one asked last at the end */
    hd_str_t key;   /* its own */
    hd_str_t host;  /* in <key> */
    uint64_t hash, asked_ns;
    hd_dns_conf_t how;
    hd_dns_names_t held;
    bool is_pending;
} asked_t;

static struct {
    hd_proc_t *proc;
    hd_dns_t *dns;
    hd_map_t *asked;
    struct {
        hd_link_t asked;
        uint32_t n;
        bool is_changed;
    } pieces[HD_RESOLVING_PIECES];
    hd_timer_t sweep;
} agent;

static void free_asked(asked_t *a)
{
    uint32_t no = piece_of(a->hash);

    hd_ignore(hd_map_remove(agent.asked, a->key) == NULL);
    hd_list_remove(&a->link);
    agent.pieces[no].n--;
    agent.pieces[no].is_changed = true;
    hd_dns_names_clear(&a->held);
    free((char *)a->key.data);
    free(a);
}

static bool build_entry(hd_pool_t *pool, const asked_t *a, entry_t *e)
{
    hd_dns_answer_t answer = hd_dns_get(agent.dns, a->host, &a->how);
    hd_addr_t *addrs;

    if (answer.answered_ns == 0)
        return false;
    *e = (entry_t){.key = hd_str_dup(pool, a->key),
                   .hash = a->hash,
                   .answered_ns = answer.answered_ns,
                   .until_ns = answer.until_ns,
                   .n = answer.n,
                   .failure = answer.failure};
    if (answer.n == 0)
        e->until_ns = answer.answered_ns + FAILED_MS * 1000000ull;
    addrs = hd_pool_new_n(pool, hd_addr_t, answer.n + 1);
    if (answer.n > 0)
        memcpy(addrs, answer.addrs, answer.n * sizeof(*addrs));
    e->addrs = addrs;
    return true;
}

static void put_piece(hd_batch_t *batch, uint32_t no)
{
    hd_arena_t *arena = agent.proc->arenas[HD_ARENA_DYNAMIC];
    hd_err_t err = {0};
    char room[16];
    hd_str_t name = piece_name(no, room);
    hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_POLICY, name, &err);
    hd_pool_t *pool;
    hd_region_t *r = slot != NULL ? hd_batch_region(batch, HD_RES_POLICY, name,
                                                    HD_STR("dns"), 0, &pool, &err)
                                  : NULL;
    piece_t *piece;
    entry_t *items;

    if (r == NULL) {
        hd_log(HD_LOG_ERROR, "dns: %s", err.text);
        return;
    }
    piece = hd_pool_new(pool, piece_t);
    items = hd_pool_new_n(pool, entry_t, agent.pieces[no].n + 1);
    hd_list_each(it, &agent.pieces[no].asked)
    {
        if (build_entry(pool, hd_list_entry(it, asked_t, link), &items[piece->n]))
            piece->n++;
    }
    piece->items = items;
    if (hd_batch_put(batch, slot, r, piece, 0, &err) == HD_ERROR)
        hd_log(HD_LOG_ERROR, "dns: %s", err.text);
}

static void publish(void)
{
    hd_batch_t *batch = NULL;

    for (uint32_t no = 0; no < HD_RESOLVING_PIECES; no++) {
        if (!agent.pieces[no].is_changed)
            continue;
        agent.pieces[no].is_changed = false;
        if (batch == NULL)
            batch = hd_batch_begin(agent.proc->arenas[HD_ARENA_DYNAMIC]);
        put_piece(batch, no);
    }
    if (batch != NULL && hd_batch_publish(batch, hd_loop_now_ns(agent.proc->loop)) > 0)
        hd_process_ring(agent.proc);
}

static void on_answers(void *arg)
{
    size_t at = 0;
    void *value;

    (void)arg;
    while (hd_map_next(agent.asked, &at, NULL, &value)) {
        asked_t *a = value;

        if (a->is_pending &&
            hd_dns_get(agent.dns, a->host, &a->how).answered_ns >= a->asked_ns) {
            a->is_pending = false;
            agent.pieces[piece_of(a->hash)].is_changed = true;
        }
    }
    publish();
}

static void on_sweep(hd_timer_t *t)
{
    uint64_t now_ns = hd_loop_now_ns(agent.proc->loop);
    size_t at = 0;
    void *value;

    while (hd_map_next(agent.asked, &at, NULL, &value)) {
        asked_t *a = value;

        if (!a->is_pending &&
            hd_dns_get(agent.dns, a->host, &a->how).until_ns + UNUSED_NS < now_ns)
            free_asked(a);
    }
    publish();
    hd_dns_forget(agent.dns);
    if (hd_map_count(agent.asked) > 0)
        hd_timer_set(agent.proc->loop, t, SWEEP_MS);
}

/* Who was asked for least lately goes; false: all are being asked. */
static bool make_room(uint32_t no)
{
    if (agent.pieces[no].n < HD_RESOLVING_PIECE_MAX)
        return true;
    hd_list_each(it, &agent.pieces[no].asked)
    {
        asked_t *a = hd_list_entry(it, asked_t, link);

        if (a->is_pending)
            continue;
        free_asked(a);
        return true;
    }
    return false;
}

static bool has_dns(void)
{
    hd_err_t err = {0};

    if (agent.dns == NULL)
        agent.dns = hd_dns_create(agent.proc->loop, on_answers, NULL, &err);
    if (agent.dns == NULL)
        hd_log(HD_LOG_ERROR, "%s", err.text);
    return agent.dns != NULL;
}

static asked_t *find_or_add(hd_str_t host, const hd_resolver_t *r)
{
    char room[KEY_MAX];
    hd_str_t key = hd_str_n(room, make_key(host, r->id, room));
    asked_t *a = hd_map_get(agent.asked, key);
    char *copy;
    uint32_t no;

    if (a != NULL)
        return a;
    no = piece_of(hd_hash64(key.data, key.len, 0));
    if (!make_room(no)) {
        hd_log(HD_LOG_WARN, "dns: \"%.*s\" isn't asked for: too many names are",
               HD_STR_ARG(host));
        return NULL;
    }
    a = calloc(1, sizeof(*a));
    copy = malloc(key.len);
    hd_bug_on(a == NULL || copy == NULL);
    memcpy(copy, key.data, key.len);
    a->key = hd_str_n(copy, key.len);
    a->host = hd_str_n(copy, host.len);
    a->hash = hd_hash64(key.data, key.len, 0);
    a->how = hd_named_dns_conf(r);
    a->how.is_once = true;
    hd_ignore(hd_map_put(agent.asked, a->key, a) == NULL);
    hd_list_add_last(&agent.pieces[no].asked, &a->link);
    agent.pieces[no].n++;
    hd_dns_names_add(agent.dns, &a->held, a->host, &a->how); /* asks, the first time */
    return a;
}

/* From another process, which may be broken: nothing of it is believed. */
static bool is_good(const question_t *q)
{
    const hd_resolver_t *r = &q->resolver;
    hd_str_t host;
    uint16_t port;

    if (r->servers_n > HD_RESOLVER_SERVERS_MAX ||
        q->host_len > HOST_MAX ||
        !hd_resolve_split(hd_str_n(q->host, q->host_len), 1, &host, &port) ||
        host.len != q->host_len)
        return false;
    for (uint32_t i = 0; i < r->servers_n; i++) {
        if (r->servers[i].family != AF_INET && r->servers[i].family != AF_INET6)
            return false;
    }
    return true;
}

static void on_ask(hd_proc_t *p, const void *payload, size_t len)
{
    uint64_t now_ns = hd_loop_now_ns(p->loop);
    question_t q;
    asked_t *a;

    if (len != sizeof(q) || agent.proc == NULL)
        return;
    memcpy(&q, payload, sizeof(q));
    if (!is_good(&q) || !has_dns())
        return;
    a = find_or_add(hd_str_n(q.host, q.host_len), &q.resolver);
    if (a == NULL || a->is_pending)
        return;
    hd_list_remove(&a->link);
    hd_list_add_last(&agent.pieces[piece_of(a->hash)].asked, &a->link);
    if (hd_dns_get(agent.dns, a->host, &a->how).until_ns > now_ns)
        return; /* answered meanwhile, for another worker */
    a->is_pending = true;
    a->asked_ns = now_ns;
    hd_dns_ask(agent.dns, a->host, &a->how);
    if (!hd_timer_is_set(&agent.sweep))
        hd_timer_set(p->loop, &agent.sweep, SWEEP_MS);
}

/* --- life --- */

static hd_rc_t on_agent_start(hd_proc_t *p, hd_err_t *err)
{
    (void)err;
    agent.proc = p;
    agent.asked = hd_map_create();
    hd_timer_init(&agent.sweep, on_sweep);
    for (uint32_t no = 0; no < HD_RESOLVING_PIECES; no++)
        hd_list_init(&agent.pieces[no].asked);
    return HD_OK;
}

static void on_agent_stop(hd_proc_t *p)
{
    size_t at = 0;
    void *value;

    if (agent.proc == NULL)
        return;
    hd_timer_stop(p->loop, &agent.sweep);
    while (hd_map_next(agent.asked, &at, NULL, &value))
        free_asked(value);
    hd_map_destroy(agent.asked);
    if (agent.dns != NULL)
        hd_dns_destroy(agent.dns);
    agent.dns = NULL;
    agent.proc = NULL;
}

/* Something was published: answers, maybe. */
static void on_batch(hd_proc_t *p)
{
    (void)p;
    if (worker.waits_n > 0)
        wake_all();
}

static const hd_process_hooks_t agent_hooks = {
    .name = "names",
    .kinds = 1u << HD_PROC_AGENT,
    .on_start = on_agent_start,
    .on_ask = on_ask,
    .on_stop = on_agent_stop,
};

static const hd_process_hooks_t worker_hooks = {
    .name = "waits for names",
    .kinds = 1u << HD_PROC_WORKER | 1u << HD_PROC_AGENT,
    .on_batch = on_batch,
};

void hd_resolving_register(void)
{
    hd_process_add_hooks(&agent_hooks);
    hd_process_add_hooks(&worker_hooks);
}
