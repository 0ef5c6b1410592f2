/* How an endpoint is chosen: the cluster's current version, its endpoints' current
 * version, those of them that may serve, the policy's choice among these. */
#include "mesh/hd_balance.h"
#include "core/os/hd_clock.h"
#include "mesh/hd_endpoint_state.h"
#include "mesh/hd_mesh_cluster.h"

#include <stdlib.h>

/* A worker's own view of one version of endpoints: smooth weighted round robin's running
 * weights (as nginx has them), and room for the candidates of one pick. */
typedef struct {
    int64_t *current;
    uint32_t *candidates;
    uint64_t random;
} view_t;

static void *create_view(hd_member_t *m, const void *owner, const void *arg,
                         hd_err_t *err)
{
    const hd_endpoints_t *eps = arg;
    view_t *v = calloc(1, sizeof(*v));

    (void)err;
    hd_bug_on(v == NULL);
    v->current = calloc(eps->n + 1, sizeof(*v->current));
    v->candidates = calloc(eps->n + 1, sizeof(*v->candidates));
    hd_bug_on(v->current == NULL || v->candidates == NULL);
    v->random =
        hd_clock_mono_ns() ^ (uintptr_t)owner ^ (uint64_t)hd_member_index(m) << 32;
    /* worker n starts at the n-th endpoint, or all of them would send their first
     * requests to the same one */
    if (eps->n > 0)
        v->current[(uint32_t)hd_member_index(m) % eps->n] = 1;
    return v;
}

static void destroy_view(hd_member_t *m, void *companion)
{
    view_t *v = companion;

    (void)m;
    free(v->current);
    free(v->candidates);
    free(v);
}

static const hd_companion_type_t view_type = {
    .name = "endpoints view", .create = create_view, .destroy = destroy_view};

static uint64_t next_random(view_t *v)
{
    v->random ^= v->random << 13;
    v->random ^= v->random >> 7;
    v->random ^= v->random << 17;
    return v->random;
}

static bool has_labels(const hd_kv_t *have, uint32_t have_n, const hd_kv_t *want,
                       uint32_t want_n)
{
    for (uint32_t w = 0; w < want_n; w++) {
        uint32_t h = 0;

        while (h < have_n && !(hd_str_eq(have[h].key, want[w].key) &&
                               hd_str_eq(have[h].value, want[w].value)))
            h++;
        if (h == have_n)
            return false;
    }
    return true;
}

static bool was_tried(const hd_pick_t *p, const hd_addr_t *addr)
{
    for (uint32_t i = 0; i < p->tried_n; i++) {
        if (hd_addr_eq(&p->tried[i], addr))
            return true;
    }
    return false;
}

/* The first whose labels the endpoint has (tlsMode); NULL: none. */
static const hd_transport_match_t *find_transport(const hd_cluster_t *c,
                                                  const hd_endpoint_t *e)
{
    for (uint32_t i = 0; i < c->transports_n; i++) {
        const hd_transport_match_t *t = &c->transports[i];

        if (has_labels(e != NULL ? e->transport_match : NULL,
                       e != NULL ? e->transport_match_n : 0, t->match, t->match_n))
            return t;
    }
    return NULL;
}

/* Its transport is one that we can't speak: it isn't reached by another one. */
static bool is_out_of_reach(const hd_pick_t *p, const hd_endpoint_t *e)
{
    const hd_transport_match_t *t = find_transport(p->cluster, e);

    return t != NULL && t->is_unsupported;
}

/* What a candidate must satisfy; each round of the search lets go of one wish. */
enum { WANT_HEALTHY = 1, WANT_UNTRIED = 2 };

static bool may_serve(hd_member_t *m, const hd_pick_t *p, const hd_endpoint_t *e,
                      unsigned wishes, uint64_t now_ns)
{
    if (e->down || e->health == 3 /* draining */ || is_out_of_reach(p, e))
        return false;
    if (p->subset_n > 0 && !has_labels(e->labels, e->labels_n, p->subset, p->subset_n))
        return false;
    if ((wishes & WANT_HEALTHY) &&
        (e->health == 2 || e->health == 4 || hd_endpoint_is_ejected(e, now_ns)))
        return false;
    if (hd_endpoint_is_full(m, e))
        return false;
    return !(wishes & WANT_UNTRIED) || !was_tried(p, &e->addr);
}

/* Endpoints of the best priority that has any; backup servers are nginx's second
 * priority. */
static uint32_t gather(hd_member_t *m, const hd_pick_t *p, const hd_endpoints_t *eps,
                       view_t *v, unsigned wishes, uint64_t now_ns)
{
    unsigned best = UINT32_MAX;
    uint32_t n = 0;

    for (uint32_t i = 0; i < eps->n; i++) {
        const hd_endpoint_t *e = &eps->items[i];
        unsigned priority = e->priority + (e->backup ? 256u : 0u);

        if (priority > best || !may_serve(m, p, e, wishes, now_ns))
            continue;
        if (priority < best) {
            best = priority;
            n = 0;
        }
        v->candidates[n++] = i;
    }
    return n;
}

static uint32_t choose_round_robin(const hd_endpoints_t *eps, view_t *v, uint32_t n)
{
    uint32_t best = v->candidates[0];
    int64_t total = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = v->candidates[i];

        v->current[at] += eps->items[at].weight;
        total += eps->items[at].weight;
        if (v->current[at] > v->current[best])
            best = at;
    }
    v->current[best] -= total;
    return best;
}

/* Requests under way on all workers, by weight; ×1024 to compare without division's loss.
 */
static uint64_t load_of(hd_member_t *m, const hd_endpoint_t *e)
{
    uint64_t requests = e->state != NULL ? hd_gauge_read(m, e->state->requests) : 0;

    return (requests + 1) * 1024 / e->weight;
}

/* Small sets are looked at whole; of large ones <choices> random ones are compared
 * (Mitzenmacher: the power of two choices). */
static uint32_t choose_least_request(hd_member_t *m, const hd_cluster_t *c,
                                     const hd_endpoints_t *eps, view_t *v, uint32_t n)
{
    uint32_t looks = c->lb_choices > 1 ? c->lb_choices : 2;
    uint64_t least = UINT64_MAX;
    uint32_t best = 0;
    bool all = n <= 8 || looks >= n;
    uint32_t start = (uint32_t)(next_random(v) % n);

    for (uint32_t i = 0; i < (all ? n : looks); i++) {
        uint32_t at = v->candidates[all ? (start + i) % n : next_random(v) % n];
        uint64_t load = load_of(m, &eps->items[at]);

        if (load < least) {
            least = load;
            best = at;
        }
    }
    return best;
}

static uint32_t choose_random(const hd_endpoints_t *eps, view_t *v, uint32_t n)
{
    uint64_t total = 0, at;

    for (uint32_t i = 0; i < n; i++)
        total += eps->items[v->candidates[i]].weight;
    at = next_random(v) % total;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t weight = eps->items[v->candidates[i]].weight;

        if (at < weight)
            return v->candidates[i];
        at -= weight;
    }
    return v->candidates[n - 1];
}

/* Rendezvous hashing: each endpoint's score from key and address, the highest wins;
 * removing one endpoint moves only its own keys. */
static uint32_t choose_by_hash(const hd_endpoints_t *eps, const view_t *v, uint32_t n,
                               uint64_t key)
{
    uint64_t highest = 0;
    uint32_t best = v->candidates[0];

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = v->candidates[i];
        uint64_t x =
            key ^ (uint64_t)hd_addr_hash(&eps->items[at].addr) * 0x9e3779b97f4a7c15u;

        x ^= x >> 32;
        x *= 0xd6e8feb86659fd93u;
        x ^= x >> 32;
        if (x >= highest) {
            highest = x;
            best = at;
        }
    }
    return best;
}

static uint32_t choose(hd_member_t *m, const hd_pick_t *p, const hd_endpoints_t *eps,
                       view_t *v, uint32_t n)
{
    if (n == 1)
        return v->candidates[0];
    switch (p->cluster->lb) {
    case HD_LB_LEAST_REQUEST:
        return choose_least_request(m, p->cluster, eps, v, n);
    case HD_LB_RANDOM:
        return choose_random(eps, v, n);
    case HD_LB_RING_HASH:
    case HD_LB_MAGLEV:
        if (p->has_hash)
            return choose_by_hash(eps, v, n, p->hash);
        return choose_random(eps, v, n);
    default:
        return choose_round_robin(eps, v, n);
    }
}

/* The transport that the endpoint's labels ask for, else the cluster's. */
static const hd_tls_conf_t *choose_tls(const hd_cluster_t *c, const hd_endpoint_t *e)
{
    const hd_transport_match_t *t = find_transport(c, e);

    return t != NULL ? t->tls : c->tls;
}

/* False: others have taken its last place (max_conns) meanwhile. */
static bool try_answer(hd_member_t *m, hd_pick_t *p, const hd_endpoint_t *e,
                       const hd_addr_t *addr)
{
    if (e != NULL && e->state != NULL && e->state->requests != HD_GAUGE_NONE) {
        if (!hd_gauge_try_up(m, e->state->requests,
                             e->max_conns > 0 ? e->max_conns : HD_GAUGE_NO_LIMIT))
            return false;
        p->counted = true;
    }
    p->endpoint = e;
    p->addr = *addr;
    p->tls = choose_tls(p->cluster, e);
    return true;
}

static void let_go(hd_member_t *m, hd_pick_t *p)
{
    if (p->endpoints_region != NULL)
        hd_unpin(m, p->endpoints_region);
    if (p->cluster_region != NULL)
        hd_unpin(m, p->cluster_region);
    p->endpoints_region = p->cluster_region = NULL;
    p->cluster = NULL;
    p->endpoint = NULL;
}

static hd_rc_t no_healthy(hd_member_t *m, hd_pick_t *p, hd_err_t *err)
{
    hd_str_t name = p->cluster_slot->name;

    let_go(m, p);
    return hd_err_set(err, HD_E_NO_HEALTHY, "no endpoint of %.*s may serve",
                      HD_STR_ARG(name));
}

static uint32_t gather_best(hd_member_t *m, const hd_pick_t *p, const hd_endpoints_t *eps,
                            view_t *v, uint64_t now_ns)
{
    uint32_t n = gather(m, p, eps, v, WANT_HEALTHY | WANT_UNTRIED, now_ns);

    if (n == 0)
        n = gather(m, p, eps, v, WANT_HEALTHY, now_ns);
    if (n == 0) /* all are ejected: better one of them than none (panic) */
        n = gather(m, p, eps, v, WANT_UNTRIED, now_ns);
    return n > 0 ? n : gather(m, p, eps, v, 0, now_ns);
}

static hd_rc_t pick_endpoint(hd_member_t *m, hd_pick_t *p, hd_err_t *err)
{
    const hd_endpoints_t *eps;
    uint64_t now_ns;
    uint32_t n, at;
    view_t *v;

    if (p->cluster->endpoints == NULL)
        return no_healthy(m, p, err);
    p->endpoints_region = hd_slot_get(m, p->cluster->endpoints);
    if (p->endpoints_region == NULL)
        return no_healthy(m, p, err);
    hd_pin(m, p->endpoints_region);
    eps = p->endpoints_region->root;
    v = hd_companion_of_region(m, &view_type, p->endpoints_region, eps, err);
    if (v == NULL || eps->n == 0)
        return no_healthy(m, p, err);
    now_ns = hd_clock_mono_ns();
    do {
        n = gather_best(m, p, eps, v, now_ns);
        if (n == 0)
            return no_healthy(m, p, err);
        at = choose(m, p, eps, v, n);
    } while (!try_answer(m, p, &eps->items[at], &eps->items[at].addr));
    return HD_OK;
}

static hd_rc_t pick_original_dst(hd_member_t *m, hd_pick_t *p, hd_err_t *err)
{
    const hd_mesh_cluster_t *mesh = p->cluster->mesh;
    hd_addr_t addr = p->original_dst;

    if (addr.family == AF_UNSPEC)
        return no_healthy(m, p, err);
    if (mesh != NULL && mesh->port_override != 0)
        addr.port = mesh->port_override;
    hd_ignore(!try_answer(m, p, NULL, &addr)); /* no endpoint, no limit */
    return HD_OK;
}

static hd_rc_t pick(hd_member_t *m, hd_pick_t *p, hd_post_t *wake, hd_err_t *err)
{
    (void)wake;
    p->cluster_region = p->cluster_slot != NULL ? hd_slot_get(m, p->cluster_slot) : NULL;
    if (p->cluster_region == NULL)
        return hd_err_set(err, HD_E_NO_CLUSTER, "there is no cluster %.*s",
                          HD_STR_ARG(p->cluster_slot != NULL ? p->cluster_slot->name
                                                             : HD_STR("of that name")));
    hd_pin(m, p->cluster_region);
    p->cluster = p->cluster_region->root;
    if (p->cluster->lb == HD_LB_ORIGINAL_DST)
        return pick_original_dst(m, p, err);
    return pick_endpoint(m, p, err);
}

static void release(hd_member_t *m, hd_pick_t *p, hd_pick_result_t result,
                    unsigned status)
{
    if (p->endpoint != NULL) {
        hd_endpoint_report(p->cluster, p->endpoint, result, status, hd_clock_mono_ns());
        if (p->counted)
            hd_gauge_down(m, p->endpoint->state->requests);
    }
    p->counted = false;
    let_go(m, p);
}

const hd_balancer_t hd_mesh_balancer = {.pick = pick, .release = release};
