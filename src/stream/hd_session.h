/* hd_session: what TCP and UDP have in common: one client's session with an upstream.
 *
 *   SETTINGS -> CHOOSE -> PICK -> CONNECT -> bytes both ways -> end, logged
 *                          ^________| another server, while there is one
 *
 * Lives in the down conn's pool and goes with it. A UDP client's down conn has addresses
 * and facts but carries no bytes (hd_conn_create_bare). Private to src/stream.
 */
#pragma once
#include "core/hd_module.h"
#include "stream/hd_tcp.h"

#define HD_SESSION_TRIED_MAX 16

typedef struct hd_session_s hd_session_t;

/* One server that was asked. Times are monotonic, 0: not reached. */
typedef struct hd_session_try_s {
    struct hd_session_try_s *next;
    hd_str_t addr; /* as text */
    uint64_t start_ns, connected_ns, first_byte_ns, end_ns;
    uint64_t bytes_sent, bytes_received;
} hd_session_try_t;

typedef struct {
    const char *protocol; /* "TCP", "UDP" */
    /* Connects to s->pick.addr; later hd_session_lose_try or hd_session_connected. */
    void (*connect)(hd_session_t *s);
    /* Closes what there is towards the upstream. */
    void (*drop_upstream)(hd_session_t *s);
    /* Brings s->count and s->tries' last up to date. */
    void (*count)(hd_session_t *s);
    /* Sends <text> to the client (`return`). */
    void (*answer)(hd_session_t *s, hd_str_t text);
    /* Ends the client's side; <s> is gone when it returns or at the turn's end. */
    void (*close)(hd_session_t *s);
} hd_session_ops_t;

typedef struct {
    uint64_t bytes_received, bytes_sent; /* from and to the client */
} hd_session_count_t;

struct hd_session_s {
    const hd_session_ops_t *ops;
    hd_conn_t *down;
    hd_loop_t *loop;
    hd_member_t *member;
    const hd_region_t *listener; /* pinned */
    const hd_filter_chain_t *chain;
    const hd_tcp_conf_t *conf;
    const hd_tcp_target_t *target; /* NULL: not chosen yet */
    hd_tcp_target_t named;         /* the target, where variables name it */
    const hd_slot_t *held;         /* its cluster, if it was found by its name */
    hd_pick_t pick;
    hd_addr_t tried[HD_SESSION_TRIED_MAX];
    /* Of a host that variables name: its addresses, in <down>'s pool. */
    const hd_addr_t *addrs;
    uint32_t addrs_n;
    hd_str_t host; /* without port */
    uint16_t port;
    bool is_name;           /* <host> is no address */
    bool is_waiting;        /* for addresses, or servers' names */
    hd_resolve_wait_t wait; /* for a name */
    uint32_t attempts;
    bool is_picked;           /* the balancer wants to know of the end */
    bool is_opened;           /* modules were told so */
    hd_gauge_id_t counted[2]; /* cluster's and endpoint's conns, until the upstream's conn
                                 has them */
    hd_session_try_t *tries, *last_try;
    hd_session_count_t count;
    void **states; /* modules' own, by number; NULL: none has one */
    hd_post_t wake;
    uint64_t start_ns;
    uint16_t status;   /* nginx's; 0: goes on */
    const char *flags; /* Envoy's; NULL: none */
    const char *ended_by;
    hd_err_t err;
};

/* Makes one of an open conn, in its pool, and pins <in>'s version. The rest of it,
 * <bytes> in all, is zeroed. */
hd_session_t *hd_session_create(hd_conn_t *c, const hd_entrance_t *in,
                                const hd_session_ops_t *ops, size_t bytes);
/* Sets variables, answers, or chooses an upstream: then ops->connect follows. */
void hd_session_start(hd_session_t *s);
/* This server couldn't be reached (s->err): another one, if there is one. */
void hd_session_lose_try(hd_session_t *s, hd_pick_result_t result);
/* It could: modules are told. */
void hd_session_connected(hd_session_t *s);
/* Before bytes went both ways: the client is closed. */
void hd_session_fail(hd_session_t *s, hd_pick_result_t result);
/* Logged, and all but the conns let go of. */
void hd_session_end(hd_session_t *s, hd_pick_result_t result);
/* What proxy_bind says for this session; HD_ERROR: s->err. */
hd_rc_t hd_session_set_bind(hd_session_t *s, hd_socket_spec_t *spec) HD_MUST_CHECK;
/* What was counted for the upstream becomes <up>'s; NULL: counted down at once. */
void hd_session_give_counts(hd_session_t *s, hd_conn_t *up);

/* Whom its variables are asked of. */
hd_attr_of_t hd_session_attr_of(const hd_session_t *s);
/* A conn that is refused before it is one (hd_protocol_t.on_refused), told as such. */
void hd_session_refuse(hd_session_t *s, unsigned status);
/* The session whose client <c> is; NULL: none. */
hd_session_t *hd_session_of(const hd_conn_t *c);

extern const hd_attr_def_t hd_stream_attrs[];
/* At process start: variables that `map` makes are found on sessions from then on. */
void hd_stream_maps_register(void);
