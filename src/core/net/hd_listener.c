#include "core/net/hd_listener.h"
#include "core/base/hd_log.h"
#include "core/net/hd_conn_int.h"
#include "core/net/hd_listener_int.h"
#include <stdlib.h>

#define PROTOCOLS_MAX 16

hd_listener_stats_t hd_listener_stats;
hd_rc_t (*hd_listener_run_filters)(hd_conn_t *c, const hd_filter_chain_t *chain,
                                   uint32_t from);

/* Protocols */

static const hd_protocol_t *protocols[PROTOCOLS_MAX];
static uint16_t protocols_n;

uint16_t hd_protocol_register(const hd_protocol_t *p)
{
    hd_bug_on(protocols_n == PROTOCOLS_MAX);
    protocols[protocols_n] = p;
    return ++protocols_n;
}

const hd_protocol_t *hd_protocol_get(uint16_t number)
{
    return number >= 1 && number <= protocols_n ? protocols[number - 1] : NULL;
}

uint16_t hd_protocol_find(hd_str_t name)
{
    for (uint16_t i = 0; i < protocols_n; i++) {
        if (hd_str_eq(hd_str_c(protocols[i]->name), name))
            return (uint16_t)(i + 1);
    }
    return 0;
}

/* A conn on its way from accept to its protocol's server, where it has to wait. */
typedef enum {
    FILTERING,   /* listener filters: for the client's first bytes */
    HANDSHAKING, /* transport: for TLS */
    ADMITTING,   /* L4 filters: for a module's answer */
} phase_t;

typedef struct {
    hd_conn_t *conn;
    const hd_slot_t *slot;
    const hd_region_t *held;        /* the listener's version it goes by, pinned */
    const hd_filter_chain_t *chain; /* in it; from HANDSHAKING on */
    hd_timer_t timer;               /* of all listener filters */
    uint64_t tls_hash;
    phase_t phase;
    uint8_t done; /* HD_LF_… that have looked */
    bool was_handed_over;
    bool is_gone; /* ended while ADMITTING: closed once the module answers */
} entry_t;

/* In the order in which they look. */
static const struct {
    uint8_t bit;
    hd_rc_t (*look)(hd_conn_t *c);
} listener_filters[] = {
    {HD_LF_PROXY_PROTOCOL, hd_inspect_proxy},
    {HD_LF_ORIGINAL_DST, hd_inspect_original_dst},
    {HD_LF_TLS_INSPECTOR, hd_inspect_tls},
    {HD_LF_HTTP_INSPECTOR, hd_inspect_http},
};

static const hd_conn_handler_t entry_handler;

const hd_filter_chain_t *hd_listener_chain_of(const hd_conn_t *c)
{
    return c->handler == &entry_handler ? ((const entry_t *)c->owner)->chain : NULL;
}

static const hd_region_t *current(const hd_conn_t *c, const hd_slot_t *slot)
{
    return hd_slot_get(hd_loop_member(c->loop), slot);
}

static const hd_listener_t *listener_in(const hd_region_t *r)
{
    return r != NULL ? r->root : NULL;
}

static uint64_t tls_hash_of(const hd_filter_chain_t *chain)
{
    return chain->tls != NULL ? chain->tls->peer_hash : 0;
}

/* The way's ends */

static const hd_log_place_t *log_of(const hd_conn_t *c, const hd_slot_t *slot)
{
    const hd_listener_t *l = listener_in(current(c, slot));

    return l != NULL ? l->error_log : NULL;
}

static void drop(hd_conn_t *c, const hd_slot_t *slot, const char *why, const char *doing)
{
    char from[HD_ADDR_TEXT_MAX];

    hd_log_at(log_of(c, slot), HD_LOG_INFO, c->id, "%s%s, client: %.*s, server: %.*s",
              why, doing, HD_STR_ARG(hd_addr_print_ip(hd_conn_remote(c), from)),
              HD_STR_ARG(slot->name));
    hd_conn_close(c, 0);
}

static void hold(entry_t *e, const hd_region_t *r)
{
    hd_member_t *m = hd_loop_member(e->conn->loop);

    hd_pin(m, r);
    if (e->held != NULL)
        hd_unpin(m, e->held);
    e->held = r;
}

static void destroy_entry(entry_t *e)
{
    hd_timer_stop(e->conn->loop, &e->timer);
    hd_unpin(hd_loop_member(e->conn->loop), e->held);
    free(e);
}

static void tell_refused(const entry_t *e)
{
    static const unsigned statuses[] = {
        [FILTERING] = 400, [HANDSHAKING] = 500, [ADMITTING] = 403};
    const hd_listener_t *l = e->held->root;
    const hd_filter_chain_t *chain = e->chain != NULL     ? e->chain
                                     : l->untaken != NULL ? l->untaken
                                                          : l->default_chain;
    const hd_protocol_t *p = chain != NULL ? hd_protocol_get(chain->protocol) : NULL;

    if (p != NULL && p->on_refused != NULL)
        p->on_refused(e->conn, &(hd_entrance_t){e->slot, e->held, chain},
                      statuses[e->phase]);
}

static void drop_entry(entry_t *e, const char *why)
{
    hd_conn_t *c = e->conn;
    const hd_slot_t *slot = e->slot;
    const char *doing =
        e->phase == HANDSHAKING && e->tls_hash != 0 ? " while SSL handshaking" : "";

    tell_refused(e);
    destroy_entry(e);
    drop(c, slot, c->err != NULL ? c->err->text : why, doing);
}

static void serve(hd_conn_t *c, const hd_slot_t *slot, const hd_region_t *r,
                  const hd_filter_chain_t *chain)
{
    const hd_protocol_t *p = hd_protocol_get(chain->protocol);

    hd_bug_on(p == NULL); /* who builds listeners checks the number */
    c->protocol = chain->protocol;
    p->on_conn(c, &(hd_entrance_t){slot, r, chain});
}

/* Its steps */

static uint8_t filters_for(const hd_listener_t *l, const hd_conn_t *c)
{
    uint32_t port = hd_conn_local(c)->port;
    uint8_t filters = l->filters;

    for (uint32_t i = 0; i < l->filters_off_n; i++) {
        if (port >= l->filters_off[i].from && port < l->filters_off[i].to)
            filters &= (uint8_t)~l->filters_off[i].filters;
    }
    return filters;
}

static hd_rc_t run_listener_filters(entry_t *e, const hd_listener_t *l)
{
    for (size_t i = 0; i < hd_countof(listener_filters); i++) {
        uint8_t bit = listener_filters[i].bit;
        hd_rc_t rc;

        /* Asked each time: the destination may be known only now. */
        if ((filters_for(l, e->conn) & bit) == 0 || (e->done & bit) != 0)
            continue;
        rc = listener_filters[i].look(e->conn);
        if (rc != HD_OK)
            return rc;
        e->done |= bit;
    }
    return HD_OK;
}

/* Hands over, once, to the listener whose address is the conn's original destination: as
 * if that one had accepted it. */
static const hd_listener_t *hand_over(entry_t *e, const hd_listener_t *l)
{
    hd_conn_t *c = e->conn;
    const hd_region_t *r;
    const hd_slot_t *to;

    if (!l->use_original_dst || e->was_handed_over || c->loop->acceptor == NULL)
        return l;
    e->was_handed_over = true;
    (void)hd_inspect_original_dst(c); /* its answer is a fact, or there is none */
    e->done |= HD_LF_ORIGINAL_DST;
    if (c->facts == NULL || c->facts->original_dst.family == AF_UNSPEC)
        return l;
    to = hd_acceptor_find(c->loop->acceptor, &c->facts->original_dst);
    r = to != NULL ? current(c, to) : NULL;
    if (r == NULL)
        return l;
    e->slot = to;
    hold(e, r);
    return r->root;
}

/* True: there is a version newer than the one held, and now it is held. */
static bool take_next_version(entry_t *e)
{
    const hd_region_t *r = current(e->conn, e->slot);

    if (r == NULL || r == e->held)
        return false;
    hold(e, r);
    return true;
}

/* The secrets that this version names may be gone with it, even since it was read in this
 * turn. Nothing was said yet: then the next version is as good. */
static hd_rc_t push_tls(entry_t *e, hd_err_t *err)
{
    while (hd_tls_push_server(e->conn, e->chain->tls, err) != HD_OK) {
        if (!take_next_version(e))
            return HD_ERROR;
        e->chain = hd_listener_match(e->held->root, e->conn);
        if (e->chain == NULL)
            return hd_err_set(err, HD_E_CONF, "no filter chain matches any more");
        e->tls_hash = tls_hash_of(e->chain);
        if (e->chain->tls == NULL)
            return HD_DONE;
        hd_err_clear(err);
    }
    return HD_OK;
}

static hd_rc_t start_transport(entry_t *e, const hd_filter_chain_t *chain)
{
    hd_err_t err = {.code = HD_E_NONE};
    hd_rc_t rc;

    e->phase = HANDSHAKING;
    e->chain = chain;
    e->tls_hash = tls_hash_of(chain);
    if (chain->tls == NULL)
        return HD_OK;
    rc = push_tls(e, &err);
    if (rc == HD_DONE)
        return HD_OK;
    if (rc != HD_OK) {
        hd_log_at(log_of(e->conn, e->slot), HD_LOG_ERROR, e->conn->id, "%s, server: %.*s",
                  err.text, HD_STR_ARG(e->slot->name));
        return hd_conn_fail(e->conn, HD_E_TLS, "%s", err.text);
    }
    hd_conn_set_handshake_timeout(e->conn, e->chain->handshake_timeout_ms);
    return HD_AGAIN;
}

/* Of the listener's newest version, if it takes the conn as what it has become. Else what
 * was begun ends as it began: by the version it was accepted with. */
static void take_newest(entry_t *e)
{
    const hd_region_t *r = current(e->conn, e->slot);
    const hd_filter_chain_t *chain;

    if (r == NULL || r == e->held)
        return;
    chain = hd_listener_match(r->root, e->conn);
    if (chain == NULL || tls_hash_of(chain) != e->tls_hash)
        return;
    hold(e, r);
    e->chain = chain;
}

static void admit(entry_t *e, uint32_t from)
{
    hd_rc_t rc = HD_OK;
    hd_conn_t *c = e->conn;
    const hd_slot_t *slot = e->slot;
    const hd_filter_chain_t *chain;
    const hd_region_t *held;

    if (from == 0) /* else filters of this one have looked already */
        take_newest(e);
    chain = e->chain;
    held = e->held;
    e->phase = ADMITTING;
    if (hd_listener_run_filters != NULL && chain->filters_n > from)
        rc = hd_listener_run_filters(c, chain, from);
    if (rc == HD_AGAIN)
        return;
    if (rc != HD_OK || e->is_gone) {
        drop_entry(e, "refused by a network filter");
        return;
    }
    hd_timer_stop(c->loop, &e->timer);
    free(e);
    c->handler = NULL;
    c->owner = NULL;
    serve(c, slot, held, chain);
    hd_unpin(hd_loop_member(c->loop), held); /* <c> is there until the turn's end */
}

static void run(entry_t *e)
{
    const hd_listener_t *l = hand_over(e, e->held->root);
    const hd_filter_chain_t *chain;
    hd_rc_t rc = run_listener_filters(e, l);

    if (rc == HD_AGAIN) {
        if (!hd_timer_is_set(&e->timer) && l->filters_timeout_ms != 0)
            hd_timer_set(e->conn->loop, &e->timer, l->filters_timeout_ms);
        return;
    }
    hd_timer_stop(e->conn->loop, &e->timer);
    if (rc != HD_OK) {
        hd_listener_stats.filter_failed++;
        drop_entry(e, "a listener filter failed");
        return;
    }
    chain = hd_listener_match(l, e->conn);
    if (chain == NULL) {
        hd_listener_stats.no_chain++;
        hd_ignore(hd_conn_fail(e->conn, HD_E_NO_ROUTE, "no filter chain matches"));
        drop_entry(e, NULL);
        return;
    }
    rc = start_transport(e, chain);
    if (rc == HD_OK)
        admit(e, 0);
    else if (rc != HD_AGAIN)
        drop_entry(e, "no transport");
}

/* What wakes it */

static void on_entry_open(hd_conn_t *c)
{
    admit(c->owner, 0);
}

static void on_entry_readable(hd_conn_t *c)
{
    entry_t *e = c->owner;

    if (e->phase == FILTERING)
        run(e);
}

static void on_entry_closed(hd_conn_t *c)
{
    entry_t *e = c->owner;

    if (e->phase == ADMITTING)
        e->is_gone = true;
    else
        drop_entry(e, "closed");
}

/* Until its first byte. */
static uint64_t entry_idle_since(const hd_conn_t *c)
{
    const entry_t *e = c->owner;

    return c->bytes_in == 0 && e->phase != ADMITTING ? c->opened_ns : 0;
}

static void on_entry_reuse(hd_conn_t *c)
{
    drop_entry(c->owner, "its place was needed");
}

static const hd_conn_handler_t entry_handler = {
    .idle_since = entry_idle_since,
    .on_reuse = on_entry_reuse,
    .on_open = on_entry_open,
    .on_readable = on_entry_readable,
    .on_closed = on_entry_closed,
};

static void on_filters_timeout(hd_timer_t *t)
{
    entry_t *e = hd_container_of(t, entry_t, timer);
    const hd_listener_t *l = e->held->root;
    bool must_look = (l->filters & HD_LF_PROXY_PROTOCOL & ~e->done) != 0;

    hd_listener_stats.filter_timeouts++;
    if (!l->continue_on_timeout || must_look) {
        drop_entry(e, "the client's first bytes didn't come in time");
        return;
    }
    e->done = UINT8_MAX; /* a server-first protocol: go on with what is known */
    run(e);
}

void hd_listener_go_on(hd_conn_t *c, uint32_t from)
{
    entry_t *e = c->owner;

    hd_bug_on(c->handler != &entry_handler || e->phase != ADMITTING);
    if (e->is_gone)
        drop_entry(e, "closed");
    else
        admit(e, from);
}

/* Entering */

static bool needs_entry(const hd_listener_t *l, const hd_filter_chain_t *chain)
{
    return chain->tls != NULL ||
           (chain->filters_n > 0 && hd_listener_run_filters != NULL) ||
           l->use_original_dst;
}

void hd_listener_enter(hd_conn_t *c, const hd_slot_t *slot)
{
    const hd_region_t *r = current(c, slot);
    const hd_listener_t *l = listener_in(r);
    const hd_filter_chain_t *chain;
    const hd_slot_t *own;
    entry_t *e;

    if (l != NULL && l->hands_over_local && c->loop->acceptor != NULL) {
        own = hd_acceptor_find(c->loop->acceptor, hd_conn_socket_local(c));
        if (own != NULL && own != slot) {
            slot = own;
            r = current(c, slot);
            l = listener_in(r);
        }
    }

    if (l == NULL) {
        drop(c, slot, "the listener is gone", "");
        return;
    }
    if (l->conn_buffer_bytes != 0)
        hd_conn_set_marks(c, l->conn_buffer_bytes, l->conn_buffer_bytes / 4);
    if (l->filters == 0) {
        chain = hd_listener_match(l, c);
        if (chain != NULL && !needs_entry(l, chain)) { /* the way of a plain server */
            serve(c, slot, r, chain);
            return;
        }
    }
    e = hd_net_realloc(NULL, sizeof(*e));
    *e = (entry_t){.conn = c, .slot = slot, .phase = FILTERING};
    hold(e, r);
    hd_timer_init(&e->timer, on_filters_timeout);
    hd_conn_set_handler(c, &entry_handler, e);
    run(e);
}

const hd_filter_chain_t *hd_listener_refresh(hd_conn_t *c, const hd_slot_t *listener)
{
    const hd_listener_t *l = listener_in(current(c, listener));
    const hd_filter_chain_t *chain = l != NULL ? hd_listener_match(l, c) : NULL;

    if (chain == NULL || tls_hash_of(chain) != hd_tls_peer_hash(c))
        return NULL;
    return c->protocol == 0 || c->protocol == chain->protocol ? chain : NULL;
}
