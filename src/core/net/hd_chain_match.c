/* Which filter chain a conn gets: Envoy's order, criterion by criterion, the most
 * specific entries of each kept, none taken back (xDS FilterChainMatch). */
#include "core/net/hd_listener.h"
#include "core/net/hd_loop_int.h"
#include <limits.h>

#define ON_STACK 64

typedef struct {
    const hd_addr_t *local, *remote, *direct; /* as policies see it, and the socket's */
    hd_str_t server_name, transport, app_protocol, alpn;
    hd_member_t *member;
    const hd_region_t *region;
    bool is_same_host; /* remote is loopback or our own address */
} seen_t;

/* How specific the match is on one criterion: 0 not at all, 1 it asks for nothing, more
 * for more. */
typedef int (*score_pt)(const hd_chain_match_t *m, const seen_t *seen);

static int score_port(const hd_chain_match_t *m, const seen_t *seen)
{
    if (m->destination_port == 0)
        return 1;
    return m->destination_port == seen->local->port ? 2 : 0;
}

/* The longest prefix; none asked for is as long as 0.0.0.0/0. */
static int score_cidrs(const hd_cidr_t *cidrs, uint32_t n, const hd_addr_t *addr)
{
    int best = n == 0 ? 1 : 0;

    for (uint32_t i = 0; i < n; i++) {
        if (hd_cidr_has(&cidrs[i], addr))
            best = hd_max(best, cidrs[i].bits + 1);
    }
    return best;
}

static int score_destination(const hd_chain_match_t *m, const seen_t *seen)
{
    return score_cidrs(m->destinations, m->destinations_n, seen->local);
}

/* nginx's order: exact, the longest "*.x", the longest "x.*", the first regex. */
enum { SCORE_REGEX = 2, SCORE_PREFIX = 1000, SCORE_SUFFIX = 1000000 };

static int score_regexes(const hd_chain_match_t *m, const seen_t *seen)
{
    for (uint32_t i = 0; i < m->server_regexes_n && seen->region != NULL; i++) {
        if (hd_match(seen->member, seen->region, &m->server_regexes[i], seen->server_name,
                     NULL))
            return SCORE_REGEX;
    }
    return 0;
}

static int score_server_name(const hd_chain_match_t *m, const seen_t *seen)
{
    int best = m->server_names_n + m->server_regexes_n == 0 ? 1 : 0;

    for (uint32_t i = 0; i < m->server_names_n; i++) {
        hd_str_t name = m->server_names[i], suffix = hd_str_sub(name, 1, name.len);

        if (hd_str_eq(name, seen->server_name))
            return INT_MAX;
        if (name.len > 2 && name.data[0] == '*' && name.data[1] == '.' &&
            seen->server_name.len > suffix.len &&
            hd_str_has_suffix(seen->server_name, suffix))
            best = hd_max(best, SCORE_SUFFIX + (int)suffix.len);
        if (name.len > 2 && hd_str_has_suffix(name, HD_STR(".*")) &&
            seen->server_name.len > name.len - 1 &&
            hd_str_has_prefix(seen->server_name, hd_str_sub(name, 0, name.len - 1)))
            best = hd_max(best, SCORE_PREFIX + (int)name.len);
    }
    return best > 0 || seen->server_name.len == 0 ? best : score_regexes(m, seen);
}

static int score_transport(const hd_chain_match_t *m, const seen_t *seen)
{
    if (m->transport.len == 0)
        return 1;
    return hd_str_eq(m->transport, seen->transport) ? 2 : 0;
}

static bool has_protocol(const hd_chain_match_t *m, hd_str_t protocol)
{
    for (uint32_t i = 0; i < m->app_protocols_n; i++) {
        if (hd_str_eq(m->app_protocols[i], protocol))
            return true;
    }
    return false;
}

/* What the client offers first counts most. */
static int score_app_protocol(const hd_chain_match_t *m, const seen_t *seen)
{
    hd_str_t rest = seen->alpn;
    int rank = INT_MAX;

    if (m->app_protocols_n == 0)
        return 1;
    if (rest.len == 0)
        return seen->app_protocol.len > 0 && has_protocol(m, seen->app_protocol) ? 2 : 0;
    for (; rest.len > 0; rank--) {
        size_t len = (unsigned char)rest.data[0];

        if (len >= rest.len) /* a list cut short: the inspector gives none */
            return 0;
        if (has_protocol(m, hd_str_sub(rest, 1, len)))
            return rank;
        rest = hd_str_sub(rest, 1 + len, rest.len);
    }
    return 0;
}

static int score_direct_source(const hd_chain_match_t *m, const seen_t *seen)
{
    return score_cidrs(m->direct_sources, m->direct_sources_n, seen->direct);
}

static int score_source_type(const hd_chain_match_t *m, const seen_t *seen)
{
    if (m->source_type == 0)
        return 1;
    return (m->source_type == 1) == seen->is_same_host ? 2 : 0;
}

static int score_source(const hd_chain_match_t *m, const seen_t *seen)
{
    return score_cidrs(m->sources, m->sources_n, seen->remote);
}

static int score_source_port(const hd_chain_match_t *m, const seen_t *seen)
{
    for (uint32_t i = 0; i < m->source_ports_n; i++) {
        if (m->source_ports[i] == seen->remote->port)
            return 2;
    }
    return m->source_ports_n == 0 ? 1 : 0;
}

static const score_pt criteria[] = {
    score_port,        score_destination,  score_server_name,
    score_transport,   score_app_protocol, score_direct_source,
    score_source_type, score_source,       score_source_port,
};

/* Keeps of <left> those that score best; how many. */
static uint32_t keep_best(const hd_listener_t *l, const seen_t *seen, score_pt score,
                          uint32_t *left, uint32_t n)
{
    uint32_t kept = 0;
    int best = 1;

    for (uint32_t i = 0; i < n; i++) {
        int s = score(&l->chains[left[i]].match, seen);

        if (s > best) {
            best = s;
            kept = 0;
        }
        if (s == best)
            left[kept++] = left[i];
    }
    return kept;
}

static seen_t see(const hd_conn_t *c)
{
    seen_t seen = {.local = hd_conn_local(c),
                   .remote = hd_conn_remote(c),
                   .direct = &c->remote,
                   .transport = HD_STR("raw_buffer")};

    if (c->facts != NULL) {
        seen.server_name = c->facts->sni;
        seen.app_protocol = c->facts->app_protocol;
        seen.alpn = c->facts->offered_alpn;
        if (c->facts->transport.len > 0)
            seen.transport = c->facts->transport;
    }
    seen.is_same_host =
        hd_addr_is_loopback(seen.remote) || hd_addr_eq_ip(seen.remote, seen.local);
    return seen;
}

/* Room for one number a chain: gateways have thousands. Grows and stays. */
static uint32_t *take_room(uint32_t n)
{
    static _Thread_local uint32_t *room, room_n;

    if (n > room_n) {
        room = hd_net_realloc(room, sizeof(*room) * n);
        room_n = n;
    }
    return room;
}

const hd_filter_chain_t *hd_listener_match(const hd_listener_t *l, const hd_conn_t *c)
{
    uint32_t few[ON_STACK], n = l->chains_n;
    uint32_t *left = n <= ON_STACK ? few : take_room(n);
    seen_t seen = see(c);

    if ((seen.region = l->region) != NULL)
        seen.member = hd_loop_member(c->loop);
    for (uint32_t i = 0; i < n; i++)
        left[i] = i;
    for (size_t i = 0; i < hd_countof(criteria) && n > 0; i++)
        n = keep_best(l, &seen, criteria[i], left, n);
    return n > 0 ? &l->chains[left[0]] : l->default_chain;
}
