/* The policies: who of a list is next. */
#include "mesh/hd_balance_int.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define SEQUENCE_MAX 4096       /* turns kept ready */
#define SEQUENCE_WORK (1 << 18) /* steps to make them, at most */
#define SMALL 8 /* least request: so many are looked at whole, which costs no more */

/* --- weights --- */

/* When it has warmed up: new or well again and so long since; 0: it has no such time.
 * nginx's slow_start counts from when a server that was given up may serve again. */
static uint64_t warm_at_ns(const hd_lb_view_t *v, const hd_endpoint_t *e,
                           uint64_t *window_ns)
{
    uint32_t window_ms = e->slow_start_ms > 0 ? (uint32_t)e->slow_start_ms
                                              : v->conf->slow_start.window_ms;
    uint64_t since_ns;

    if (window_ms == 0 || e->state == NULL)
        return 0;
    since_ns = atomic_load_explicit(e->slow_start_ms > 0 ? &e->state->ejected_until_ns
                                                         : &e->state->warm_since_ns,
                                    memory_order_relaxed);
    *window_ns = window_ms * 1000000ull;
    return since_ns == 0 ? 0 : since_ns + *window_ns;
}

/* While it warms up its weight is but a share: Envoy's formula. */
static double warm_share(const hd_lb_view_t *v, const hd_endpoint_t *e, uint64_t now_ns)
{
    uint64_t window_ns = 0, at_ns = warm_at_ns(v, e, &window_ns);
    const hd_slow_start_t *s = &v->conf->slow_start;
    double part;

    if (now_ns >= at_ns)
        return 1;
    part = 1 - (double)hd_min(at_ns - now_ns, window_ns) / (double)window_ns;
    part = hd_max(part, 1000000.0 / (double)window_ns);
    if (s->aggression > 0 && s->aggression != 1)
        part = pow(part, 1 / s->aggression);
    return hd_max(part, s->min_percent / 100);
}

static uint32_t requests_of(hd_member_t *m, const hd_endpoint_t *e)
{
    return e->state != NULL && e->state->requests != HD_GAUGE_NONE
               ? hd_gauge_read(m, e->state->requests)
               : 0;
}

/* Envoy's: weight / (requests + 1) ^ bias. */
static double weight_now(hd_member_t *m, const hd_lb_view_t *v, const hd_endpoint_t *e,
                         uint64_t now_ns)
{
    double weight = e->weight * warm_share(v, e, now_ns), load;

    if (v->cluster->lb != HD_LB_LEAST_REQUEST || v->conf->bias == 0)
        return weight;
    load = requests_of(m, e) + 1.0;
    return weight / (v->conf->bias == 1 ? load : pow(load, v->conf->bias));
}

/* --- what a policy needs --- */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static const hd_lb_order_t *order_of(const hd_lb_list_t *list)
{
    static const hd_lb_order_t none;

    return list->order != NULL ? list->order : &none;
}

static hd_lb_order_t *make_order(hd_lb_view_t *v, hd_lb_list_t *list)
{
    if (list->order == NULL)
        list->order = hd_pool_new(hd_lb_lists_pool(v), hd_lb_order_t);
    return list->order;
}

/* nginx's smooth weighted round robin comes back to its start after total / gcd turns:
 * they are played through once. False: that would be too many. */
static bool make_sequence(hd_lb_view_t *v, hd_lb_list_t *list)
{
    uint64_t divisor = 0, period;
    hd_lb_order_t *o;
    int64_t *current;

    for (uint32_t i = 0; i < list->n; i++)
        divisor = common_divisor(v->eps->items[list->at[i]].weight, divisor);
    period = list->total / divisor;
    if (period > SEQUENCE_MAX || period * list->n > SEQUENCE_WORK)
        return false;
    o = make_order(v, list);
    current = hd_pool_calloc(v->lists, list->n * sizeof(*current));
    o->sequence = hd_pool_alloc(v->lists, period * sizeof(*o->sequence));
    o->period = (uint32_t)period;
    for (uint32_t turn = 0; turn < period; turn++) {
        uint32_t best = 0;

        for (uint32_t i = 0; i < list->n; i++) {
            current[i] += v->eps->items[list->at[i]].weight;
            if (current[i] > current[best])
                best = i;
        }
        current[best] -= (int64_t)list->total;
        o->sequence[turn] = list->at[best];
    }
    return true;
}

static void make_edf(hd_lb_view_t *v, hd_lb_list_t *list, uint32_t start)
{
    hd_edf_t *edf = &make_order(v, list)->edf;

    hd_edf_init(edf, v->lists, list->n);
    for (uint32_t i = 0; i < list->n; i++) {
        uint32_t at = (i + start) % list->n;

        hd_edf_add(edf, list->at[at], v->eps->items[list->at[at]].weight);
    }
}

static void make_sums(hd_lb_view_t *v, hd_lb_list_t *list)
{
    uint64_t *sums, sum = 0;

    make_order(v, list)->sums = sums =
        hd_pool_alloc(hd_lb_lists_pool(v), list->n * sizeof(*sums));
    for (uint32_t i = 0; i < list->n; i++)
        sums[i] = sum += v->eps->items[list->at[i]].weight;
}

void hd_lb_list_prepare(hd_lb_view_t *v, hd_lb_list_t *list, uint32_t start,
                        uint64_t now_ns)
{
    uint64_t window_ns, at_ns;
    bool warms = false;

    list->is_equal = true;
    list->total = 0;
    list->turn = start;
    for (uint32_t i = 0; i < list->n; i++) {
        const hd_endpoint_t *e = &v->eps->items[list->at[i]];

        list->total += e->weight;
        list->is_equal = list->is_equal && e->weight == v->eps->items[list->at[0]].weight;
        at_ns = warm_at_ns(v, e, &window_ns);
        if (at_ns > now_ns) {
            warms = true;
            v->old_at_ns = hd_min(v->old_at_ns, at_ns);
        }
    }
    if (list->n < 2)
        return;
    switch (v->cluster->lb) {
    case HD_LB_ROUND_ROBIN:
        if (warms || (!list->is_equal && !make_sequence(v, list)))
            make_edf(v, list, start);
        return;
    case HD_LB_LEAST_REQUEST:
        if (v->conf->is_nginx && v->conf->looks_at_all)
            make_order(v, list)->current =
                hd_pool_calloc(hd_lb_lists_pool(v), list->n * sizeof(int64_t));
        else if (v->conf->is_nginx && !list->is_equal)
            make_sums(v, list);
        else if (!v->conf->is_nginx && (warms || !list->is_equal))
            make_edf(v, list, start);
        return;
    case HD_LB_RANDOM:
        if (v->conf->is_nginx && !list->is_equal)
            make_sums(v, list);
        return;
    case HD_LB_PEAK_EWMA:
        return;
    default: /* hashing: nginx's by weight; round robin where that finds nobody */
        if (!list->is_equal) {
            make_sums(v, list);
            if (!make_sequence(v, list))
                make_edf(v, list, start);
        }
    }
}

/* --- the policies --- */

static uint32_t next_by_edf(hd_member_t *m, hd_lb_view_t *v, hd_lb_list_t *list,
                            uint64_t now_ns)
{
    hd_edf_t *edf = &list->order->edf;
    uint32_t at = hd_edf_peek(edf);

    hd_edf_turn(edf, weight_now(m, v, &v->eps->items[at], now_ns));
    v->steps += edf->steps;
    return at;
}

static uint32_t next_in_turn(hd_member_t *m, hd_lb_view_t *v, hd_lb_list_t *list,
                             uint64_t now_ns)
{
    const hd_lb_order_t *o = order_of(list);

    if (o->edf.n > 0)
        return next_by_edf(m, v, list, now_ns);
    v->steps++;
    if (o->sequence != NULL)
        return o->sequence[list->turn++ % o->period];
    return list->at[list->turn++ % list->n];
}

uint32_t hd_lb_list_at(hd_lb_view_t *v, const hd_lb_list_t *list, uint64_t number)
{
    const uint64_t *sums = order_of(list)->sums;
    uint32_t low = 0, high = list->n - 1;

    if (sums == NULL)
        return list->at[number / (list->total / list->n)];
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        v->steps++;
        if (sums[middle] > number)
            high = middle;
        else
            low = middle + 1;
    }
    return list->at[low];
}

static uint32_t next_random(hd_lb_view_t *v, const hd_lb_list_t *list)
{
    v->steps++;
    if (order_of(list)->sums == NULL)
        return list->at[hd_lb_random(v) % list->n];
    return hd_lb_list_at(v, list, hd_lb_random(v) % list->total);
}

/* The least loaded of all. Among equals it is random's turn, as with Envoy. */
static uint32_t least_of_all(hd_member_t *m, hd_lb_view_t *v, const hd_lb_list_t *list)
{
    uint32_t least = UINT32_MAX, equals = 0, best = list->at[0];

    for (uint32_t i = 0; i < list->n; i++) {
        uint32_t load = requests_of(m, &v->eps->items[list->at[i]]);

        if (load < least) {
            least = load;
            equals = 0;
        }
        if (load == least && hd_lb_random(v) % ++equals == 0)
            best = list->at[i];
    }
    v->steps += list->n;
    return best;
}

/* nginx's least_conn: the fewest requests by weight; among equals smooth round robin. */
static uint32_t least_conn(hd_member_t *m, hd_lb_view_t *v, hd_lb_list_t *list)
{
    const hd_endpoint_t *items = v->eps->items;
    int64_t *current = list->order->current;
    uint64_t least = UINT64_MAX, least_weight = 1, total = 0;
    uint32_t best = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < list->n; i++) {
            const hd_endpoint_t *e = &items[list->at[i]];
            uint64_t load = requests_of(m, e);

            if (pass == 0 &&
                (least == UINT64_MAX || load * least_weight < least * e->weight)) {
                least = load;
                least_weight = e->weight;
                best = i;
            }
            if (pass == 0 || load * least_weight != least * e->weight)
                continue;
            current[i] += e->weight;
            total += e->weight;
            if (current[i] > current[best])
                best = i;
        }
    }
    current[best] -= (int64_t)total;
    v->steps += 2 * list->n;
    return list->at[best];
}

/* Mitzenmacher's power of two choices; by weight where nginx says so (the list's sums).
 */
static uint32_t least_of_some(hd_member_t *m, hd_lb_view_t *v, const hd_lb_list_t *list)
{
    uint32_t looks = hd_max(v->cluster->lb_choices, 2u), best = HD_LB_NOBODY;
    uint64_t least = 0;

    for (uint32_t i = 0; i < looks; i++) {
        uint32_t at = next_random(v, list);
        uint64_t load = requests_of(m, &v->eps->items[at]);

        /* nginx wants two different ones; where luck gives the same, one more look */
        if (at == best && v->conf->is_nginx)
            at = next_random(v, list);
        load = requests_of(m, &v->eps->items[at]);
        if (best == HD_LB_NOBODY ||
            load * v->eps->items[best].weight < least * v->eps->items[at].weight) {
            best = at;
            least = load;
        }
    }
    return best;
}

static uint32_t next_least(hd_member_t *m, hd_lb_view_t *v, hd_lb_list_t *list,
                           uint64_t now_ns)
{
    const hd_lb_order_t *o = order_of(list);

    if (o->edf.n > 0)
        return next_by_edf(m, v, list, now_ns);
    if (o->current != NULL)
        return least_conn(m, v, list);
    if (!v->conf->is_nginx && (v->conf->looks_at_all || list->n <= SMALL))
        return least_of_all(m, v, list);
    return least_of_some(m, v, list);
}

static uint32_t next_fastest(hd_member_t *m, hd_lb_view_t *v, const hd_lb_list_t *list,
                             uint64_t now_ns)
{
    bool all = v->conf->looks_at_all || list->n <= 2;
    uint32_t looks = all ? list->n : 2, best = HD_LB_NOBODY;
    uint32_t start = (uint32_t)(hd_lb_random(v) % list->n);
    double least = 0;

    for (uint32_t i = 0; i < looks; i++) {
        uint32_t at = all ? list->at[(start + i) % list->n] : next_random(v, list);
        const hd_endpoint_t *e = &v->eps->items[at];
        double cost = hd_lb_cost(v, e, requests_of(m, e), now_ns);

        if (best == HD_LB_NOBODY || cost < least) {
            best = at;
            least = cost;
        }
    }
    v->steps += all ? looks : 0;
    return best;
}

uint32_t hd_lb_list_next(hd_member_t *m, hd_lb_view_t *v, hd_lb_list_t *list,
                         uint64_t now_ns)
{
    if (list->n == 1) {
        v->steps++;
        return list->at[0];
    }
    switch (v->cluster->lb) {
    case HD_LB_LEAST_REQUEST:
        return next_least(m, v, list, now_ns);
    case HD_LB_RANDOM:
        return next_random(v, list);
    case HD_LB_PEAK_EWMA:
        return next_fastest(m, v, list, now_ns);
    default:
        return next_in_turn(m, v, list, now_ns);
    }
}
