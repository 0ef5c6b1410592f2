/* hd_peer_idle: for how long each upstream lets a connection idle, learnt from
 * what upstreams say (Keep-Alive: timeout=N) and do, so that no request is sent on a
 * conn that its peer closes at the same moment (RFC 9112 §9.3.1).
 *
 * A close sooner than was believed is believed at once, and doubted only when several
 * conns in a row last longer: a restart of the upstream, which closes conns of every age,
 * is forgotten so. For a request that couldn't be repeated more is asked: that some conn
 * has idled longer than this one, and was still open.
 *
 * A bounded table that all workers share; an upstream that loses its place is learnt
 * anew. <peer>: a hash of what tells upstreams apart. All times are milliseconds.
 */
#pragma once
#include "core/base/hd_types.h"

/* The peer closed a conn that had idled so long; one that had idled so long was open. */
void hd_peer_idle_closed(uint64_t peer, uint32_t idle_ms);
void hd_peer_idle_open(uint64_t peer, uint32_t idle_ms);
/* It said so. */
void hd_peer_idle_told(uint64_t peer, uint32_t idle_ms);
/* A conn that has idled so long isn't to be used again; <once>: by a request that can't
 * be repeated. UINT32_MAX: nothing is known. */
uint32_t hd_peer_idle_usable(uint64_t peer, bool once);
/* Nothing is known of anybody any more. */
void hd_peer_idle_forget(void);
/* How long one is worth keeping. UINT32_MAX: for ever. */
uint32_t hd_peer_idle_keep(uint64_t peer);
