#include "http/hd_h2_budget.h"
#include <stdatomic.h>
#include <string.h>

#define CELL_KIND 0x48324752u /* "H2GR" */
#define SETS 512
#define WAYS 4
#define SERVED 5 /* a PING, and windows of the stream and of the conn */
#define SERVED_MAX 1000
#define BACK_PER_S 10 /* a tenth of a budget comes back each second */

static const struct {
    const char *name;
    uint32_t price;
} kinds[HD_H2_KINDS] = {
    [HD_H2_RESETS] = {"reset", 5},
    [HD_H2_PROVOKED] = {"provoked_reset", 5},
    [HD_H2_REFUSED] = {"refused_stream", 2},
    [HD_H2_SETTINGS_SENT] = {"settings", 5},
    [HD_H2_PINGS] = {"ping", 2},
    [HD_H2_PRIORITIES] = {"priority", 1},
    [HD_H2_EMPTY] = {"empty_frame", 1},
    [HD_H2_CONTINUATIONS] = {"continuation", 1},
    [HD_H2_TINY_WINDOWS] = {"tiny_window", 1},
    [HD_H2_UNKNOWN] = {"unknown_frame", 1},
    [HD_H2_LATE] = {"late_frame", 1},
    [HD_H2_LARGE_HEADS] = {"large_head", 50},
    [HD_H2_SLOW] = {"slow_reader", 0},
};

const char *hd_h2_kind_name(hd_h2_kind_t kind)
{
    return kinds[kind].name;
}

/* --- addresses --- */

/* A bucket as GCRA: when it is full again; in the past: it is full. */
typedef struct {
    _Atomic uint64_t key; /* 0: free */
    _Atomic uint64_t full_at_ns;
} bucket_t;

struct hd_h2_clients_s {
    bucket_t buckets[SETS][WAYS];
};

hd_h2_clients_t *hd_h2_clients_get(hd_member_t *m)
{
    return hd_cell_get(m, CELL_KIND, HD_STR("http2 clients"), sizeof(hd_h2_clients_t));
}

/* The bucket of <key>, in place of the one that is full the longest. Two that come at
 * once may share one for a moment: it is a bound, not a bill. */
static bucket_t *find_bucket(hd_h2_clients_t *t, uint64_t key)
{
    bucket_t *set = t->buckets[key % SETS], *oldest = set;

    for (unsigned i = 0; i < WAYS; i++) {
        if (atomic_load_explicit(&set[i].key, memory_order_relaxed) == key)
            return &set[i];
        if (atomic_load_explicit(&set[i].full_at_ns, memory_order_relaxed) <
            atomic_load_explicit(&oldest->full_at_ns, memory_order_relaxed))
            oldest = &set[i];
    }
    atomic_store_explicit(&oldest->key, key, memory_order_relaxed);
    atomic_store_explicit(&oldest->full_at_ns, 0, memory_order_relaxed);
    return oldest;
}

bool hd_h2_clients_take(hd_h2_clients_t *t, uint64_t key, uint32_t max, uint32_t price,
                        uint64_t now_ns)
{
    bucket_t *b = find_bucket(t, key);
    uint64_t one_ns = 1000000000ull * BACK_PER_S / max; /* until one is back */
    uint64_t was = atomic_load_explicit(&b->full_at_ns, memory_order_relaxed), full;

    do {
        full = hd_max(was, now_ns) + price * one_ns;
        if (full - now_ns > max * one_ns)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &b->full_at_ns, &was, full, memory_order_relaxed, memory_order_relaxed));
    return true;
}

uint64_t hd_h2_client_key(const hd_addr_t *a)
{
    uint64_t key = a->family == AF_INET    ? hd_hash64(a->v4, sizeof(a->v4), AF_INET)
                   : a->family == AF_INET6 ? hd_hash64(a->v6, 8, AF_INET6)
                                           : 0;

    return key;
}

/* --- metrics --- */

typedef struct {
    hd_member_t *member; /* whose series they are */
    hd_series_t glitches[HD_H2_KINDS][2], calmed[HD_H2_KINDS][2];
} counters_t;

static const char *const label_names[] = {"side", "kind", NULL};
static const hd_family_t families[] = {
    {.name = "heddle_http2_glitches_total",
     .help = "What peers of HTTP/2 and weft did that is rare among honest ones, by kind.",
     .kind = HD_COUNTER,
     .labels = label_names},
    {.name = "heddle_http2_calmed_total",
     .help = "Connections of HTTP/2 and weft ended for it, by what was too much.",
     .kind = HD_COUNTER,
     .labels = label_names},
};

static void count_in(hd_member_t *m, hd_series_t (*all)[2], const hd_family_t *family,
                     hd_h2_kind_t kind, bool is_server, uint32_t n)
{
    hd_series_t *s = &all[kind][is_server];

    if (*s == 0) {
        hd_str_t values[] = {is_server ? HD_STR("downstream") : HD_STR("upstream"),
                             hd_str_c(kinds[kind].name)};

        *s = hd_series_enter(m, hd_family_enter(m, family), values);
    }
    hd_counter_add(m, *s, n);
}

static counters_t *counters_of(hd_member_t *m)
{
    static _Thread_local counters_t counters;

    if (counters.member != m)
        counters = (counters_t){.member = m};
    return &counters;
}

void hd_h2_count(const hd_h2_budget_t *b, hd_h2_kind_t kind, uint32_t n)
{
    if (b->member != NULL)
        count_in(b->member, counters_of(b->member)->glitches, &families[0], kind,
                 b->is_server, n);
}

/* --- the budget --- */

static bool take(hd_h2_budget_t *b, uint32_t price, uint64_t now_ns)
{
    uint64_t back;

    if (b->clients != NULL && b->client_max != HD_H2_NO_BUDGET && b->client_key != 0 &&
        !hd_h2_clients_take(b->clients, b->client_key, b->client_max, price, now_ns))
        return false;
    if (b->max == HD_H2_NO_BUDGET)
        return true;
    back = (now_ns - b->at_ns) * (b->max / BACK_PER_S + 1) / 1000000000;
    if (back > 0) {
        b->left = (uint32_t)hd_min((uint64_t)b->left + back, (uint64_t)b->max);
        b->at_ns = now_ns;
    }
    if (b->left < price) {
        b->left = 0;
        return false;
    }
    b->left -= price;
    return true;
}

/* What is left of <price> once what was earned so is spent. */
static uint32_t spend_served(hd_h2_budget_t *b, hd_h2_kind_t kind, uint32_t price)
{
    uint32_t spent = hd_min(price, b->served);

    if (kind != HD_H2_PINGS && kind != HD_H2_TINY_WINDOWS)
        return price;
    b->served -= spent;
    return price - spent;
}

bool hd_h2_budget_take(hd_h2_budget_t *b, hd_h2_kind_t kind, uint32_t n, uint64_t now_ns)
{
    uint32_t price = spend_served(b, kind, n * kinds[kind].price);

    hd_h2_count(b, kind, n);
    if (price == 0 || take(b, price, now_ns))
        return true;
    if (b->member != NULL)
        count_in(b->member, counters_of(b->member)->calmed, &families[1], kind,
                 b->is_server, 1);
    return false;
}

void hd_h2_budget_earn(hd_h2_budget_t *b, uint32_t n)
{
    b->left = hd_min(b->left + n, b->max);
}

void hd_h2_budget_serve(hd_h2_budget_t *b)
{
    b->served = hd_min(b->served + SERVED, SERVED_MAX);
}
