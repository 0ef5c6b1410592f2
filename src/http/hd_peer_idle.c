#include "http/hd_peer_idle.h"
#include "core/os/hd_os.h"
#include <stdatomic.h>

#define PEERS 1024u /* a power of two */
/* A close so soon after a response needn't be a time-out: it comes, say, with the last
 * request that the upstream takes on one conn. What can be repeated isn't kept from it.
 */
#define SOONEST_MS 10
#define MARGIN_MAX_MS 1000
#define TRUSTED_MS 500 /* nobody's time-out is shorter, as long as nothing says so */
#define DOUBTS 16      /* conns in a row that last longer than is believed */
#define SOON_DOUBTS                                                                      \
    10000 /* that last at all, where a close was sooner than SOONEST_MS                  \
           */

/* Each field by itself is right at any time; two workers that give a place to two
 * upstreams at once make a mixture that heals like any other wrong belief. */
typedef struct {
    _Atomic uint64_t peer;    /* with IS_TAKEN; 0: free */
    _Atomic uint32_t seen_ms; /* the soonest close, but for those below SOONEST_MS */
    _Atomic uint32_t soon_ms; /* the soonest of all; UINT32_MAX in these: none */
    _Atomic uint32_t told_ms;
    _Atomic uint32_t open_ms; /* the longest that one has idled and was open */
    _Atomic uint32_t doubts;
} peer_t;

#define IS_TAKEN (1ull << 63)

static peer_t *peers; /* shared by the processes that are forked from this one */

__attribute__((constructor)) static void map_peers(void)
{
    peers = hd_os_map(-1, NULL, PEERS * sizeof(*peers), true);
    hd_bug_on(peers == NULL);
}

static uint32_t get(const _Atomic uint32_t *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static void set(_Atomic uint32_t *field, uint32_t value)
{
    atomic_store_explicit(field, value, memory_order_relaxed);
}

static peer_t *find(uint64_t peer)
{
    peer_t *p = &peers[peer & (PEERS - 1)];

    return atomic_load_explicit(&p->peer, memory_order_acquire) == (peer | IS_TAKEN)
               ? p
               : NULL;
}

static peer_t *find_or_add(uint64_t peer)
{
    peer_t *p = find(peer);

    if (p != NULL)
        return p;
    p = &peers[peer & (PEERS - 1)];
    set(&p->seen_ms, UINT32_MAX);
    set(&p->soon_ms, UINT32_MAX);
    set(&p->told_ms, UINT32_MAX);
    set(&p->open_ms, 0);
    set(&p->doubts, 0);
    atomic_store_explicit(&p->peer, peer | IS_TAKEN, memory_order_release);
    return p;
}

/* An age at which what was believed is doubted; less might be a slow peer's delay. */
static uint32_t doubtful(uint32_t ms)
{
    return ms > UINT32_MAX / 2 ? UINT32_MAX : hd_max(ms * 2, (uint32_t)TRUSTED_MS);
}

void hd_peer_idle_closed(uint64_t peer, uint32_t idle_ms)
{
    peer_t *p = find_or_add(peer);

    if (idle_ms <= doubtful(get(&p->soon_ms)))
        set(&p->doubts, 0);
    set(&p->soon_ms, hd_min(get(&p->soon_ms), idle_ms));
    if (idle_ms >= SOONEST_MS)
        set(&p->seen_ms, hd_min(get(&p->seen_ms), idle_ms));
}

void hd_peer_idle_open(uint64_t peer, uint32_t idle_ms)
{
    peer_t *p = idle_ms > TRUSTED_MS ? find_or_add(peer) : find(peer);
    uint32_t soon_ms;
    bool is_soon;

    if (p == NULL)
        return;
    if (idle_ms > get(&p->open_ms))
        set(&p->open_ms, idle_ms);
    soon_ms = get(&p->soon_ms);
    is_soon = soon_ms < SOONEST_MS && idle_ms < doubtful(soon_ms);
    if (soon_ms == UINT32_MAX || (!is_soon && idle_ms < doubtful(soon_ms)))
        return;
    set(&p->doubts, get(&p->doubts) + 1);
    if (get(&p->doubts) < (is_soon ? SOON_DOUBTS : DOUBTS))
        return;
    set(&p->doubts, 0);
    set(&p->soon_ms, is_soon ? get(&p->seen_ms) : idle_ms);
    if (get(&p->seen_ms) < idle_ms)
        set(&p->seen_ms, idle_ms);
}

void hd_peer_idle_told(uint64_t peer, uint32_t idle_ms)
{
    peer_t *p = find(peer);

    if (p == NULL || get(&p->told_ms) != idle_ms)
        set(&find_or_add(peer)->told_ms, idle_ms);
}

/* Their clock started before ours, by the time that the response was on its way. */
static uint32_t less_margin(uint32_t ms)
{
    uint32_t margin_ms = hd_min(ms / 10 + 2, (uint32_t)MARGIN_MAX_MS);

    return ms == UINT32_MAX ? ms : ms <= margin_ms ? 0 : ms - margin_ms;
}

uint32_t hd_peer_idle_usable(uint64_t peer, bool once)
{
    const peer_t *p = find(peer);
    uint32_t told_ms, trusted_ms;

    if (p == NULL)
        return once ? TRUSTED_MS : UINT32_MAX;
    told_ms = get(&p->told_ms);
    if (!once)
        return less_margin(hd_min(get(&p->seen_ms), told_ms));
    trusted_ms = hd_max(less_margin(get(&p->open_ms)), (uint32_t)TRUSTED_MS);
    return hd_min(less_margin(hd_min(get(&p->soon_ms), told_ms)), trusted_ms);
}

uint32_t hd_peer_idle_keep(uint64_t peer)
{
    const peer_t *p = find(peer);

    /* longer than it was seen to last: to see whether that still holds */
    return p == NULL ? UINT32_MAX : hd_min(get(&p->told_ms), doubtful(get(&p->seen_ms)));
}

void hd_peer_idle_forget(void)
{
    for (size_t i = 0; i < PEERS; i++)
        atomic_store_explicit(&peers[i].peer, 0, memory_order_relaxed);
}
