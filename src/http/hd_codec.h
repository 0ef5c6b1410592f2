/* hd_codec: the two sides' codecs. A server codec takes an open conn and makes requests
 * of it; a client codec takes an open upstream conn and carries exchanges over it. ◆
 *
 * HTTP/1: one exchange at a time. HTTP/2 (nghttp2): many; automatic WINDOW_UPDATE is off:
 * conn credit is returned on receipt, stream credit on consumption. Weft (hd_weft.h):
 * many, between two Heddles.
 */
#pragma once
#include "core/net/hd_hangup.h"
#include "http/hd_request.h"

/* Server side: takes <c> (its handler becomes the codec's) and what <entry> holds. */
void hd_h1_serve(hd_conn_t *c, const hd_http_entry_t *entry);
void hd_h2_serve(hd_conn_t *c, const hd_http_entry_t *entry);
/* The next response says Connection: close; conns that get no request are closed. */
void hd_h1_drain(hd_loop_t *loop, const hd_drain_round_t *round);
void hd_h2_drain(hd_loop_t *loop, const hd_drain_round_t *round); /* GOAWAY */

/* --- client side: one exchange --- */
#define HD_UP_HEAD_BYTES                                                                 \
    (80 * 1024) /* of a response's head if nothing is set; Envoy's                       \
                 */
/* A request's or response's head that a weft takes, with what we may add to it. */
#define HD_WEFT_HEAD_BYTES (120 * 1024)

typedef struct hd_exchange_s hd_exchange_t;
typedef struct hd_upconn_s hd_upconn_t; /* a pooled upstream conn with its codec */

typedef enum {
    HD_XR_CLOSED,    /* the conn ended before a whole response */
    HD_XR_RESET,     /* the conn */
    HD_XR_STREAM,    /* the peer reset the stream: its word, which no race explains */
    HD_XR_PROTOCOL,  /* not HTTP: 502 */
    HD_XR_REFUSED,   /* REFUSED_STREAM, GOAWAY below: not processed, safe to repeat */
    HD_XR_TOO_LARGE, /* response head beyond limits */
} hd_exchange_end_t;

#define HD_INTERIMS_MAX 1000 /* before a response: each takes memory of its request */
#define HD_LONG_INTERIM 100  /* longer than a block it counts for so many */

/* What the user of an exchange hears; never from within a call it made. */
typedef struct {
    void (*on_interim)(hd_exchange_t *x); /* 1xx in x->res */
    void (*on_head)(
        hd_exchange_t *x); /* x->res is filled, strings in x->pool or its block */
    /* END / TRAILERS flags: complete; END comes for every response, empty where
     * res.has_body is false. After END <x> is dead, whatever of the request is left. */
    void (*on_body)(hd_exchange_t *x, hd_chain_t *body);
    void (*on_writable)(hd_exchange_t *x); /* room for request bytes again */
    /* May the next bytes of the body be slices of a pipe, which come out once and unseen?
     * NULL: no. */
    bool (*takes_pipes)(const hd_exchange_t *x);
    /* Ended before completion; after it the exchange is dead. <reusable> false always. */
    void (*on_end)(hd_exchange_t *x, hd_exchange_end_t why, const hd_err_t *err);
} hd_exchange_user_t;

struct hd_exchange_s {
    const hd_exchange_user_t *user;
    void *owner; /* the user's */
    hd_upconn_t *upconn;
    hd_pool_t *pool; /* of the request */
    hd_res_head_t res;
    hd_headers_t trailers;
    bool head_written; /* a byte of the request may have reached the peer; good in on_end
                        */
    uint64_t heard;    /* bytes that had come over the conn when it began */
    bool was_unaware;  /* in on_end: refused by a peer that hadn't yet said of how
                          many it takes */
    bool is_reused_conn;     /* the conn has carried an exchange or idled before */
    bool is_http10;          /* set before send_head: HTTP/1.0, once a conn */
    uint32_t head_bytes_max; /* the same: of the response's head; 0: the codec's */
    uint32_t fields_max;     /* the same: of the response; 0: HD_FIELDS_MAX */
    bool upgraded; /* 101 or 2xx to CONNECT: take the conn with hd_exchange_take_conn */
    void *_codec;
};

typedef struct {
    const char *name;
    bool is_for_many; /* its conns stand for those of many clients */
    /* Writes the head from <req> (hop-by-hop made anew; up_path, up_host). */
    void (*send_head)(hd_exchange_t *x, hd_req_t *req, bool has_body,
                      int64_t content_length);
    void (*send_body)(hd_exchange_t *x, hd_chain_t *body, const hd_headers_t *trailers);
    bool (*is_full)(hd_exchange_t *x);
    void (*pause)(hd_exchange_t *x, bool paused); /* back-pressure on the response */
    /* Ends our interest: the conn is closed (h1) or the stream reset (h2). <x> is dead.
     */
    void (*cancel)(hd_exchange_t *x);
    hd_conn_t *(*take_conn)(hd_exchange_t *x);
} hd_client_codec_t;

extern const hd_client_codec_t hd_h1_client, hd_h2_client, hd_raw_client;

struct hd_upconn_s {
    hd_conn_t *conn;
    const hd_client_codec_t *codec;
    struct hd_upool_s *pool; /* NULL: taken out */
    hd_link_t link;          /* in the pool's idle or busy list */
    hd_timer_t idle;
    uint64_t born_ns;
    uint32_t exchanges;           /* begun so far */
    uint32_t idle_ms;             /* how long it idled before the exchange begun last */
    uint32_t active, streams_max; /* h1: 0 or 1 of 1 */
    bool is_http2; /* what its requests ask for, however they are carried */
    bool draining; /* no new exchange (Connection: close, GOAWAY, lifetime) */
    void *_codec;
};

/* Sets the conn's handler and readies the codec (preface for HTTP/2). Used by hd_upool.
 */
hd_rc_t hd_h1_client_open(hd_upconn_t *u, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_h2_client_open(hd_upconn_t *u, hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_raw_client_open(hd_upconn_t *u, hd_err_t *err) HD_MUST_CHECK;
/* Begins an exchange on an open upconn with room. NULL: it just lost that room. */
hd_exchange_t *hd_exchange_begin(hd_upconn_t *u, hd_pool_t *pool,
                                 const hd_exchange_user_t *user, void *owner);
/* Its time is over, and its user cancels it next. A conn for many requests over which
 * nothing at all has come since it began gets no more of them: its peer may be gone
 * without a word, and each of them would wait as long. */
void hd_exchange_timed_out(hd_exchange_t *x);
/* By codecs: how many fields a response's head may have. */
static inline uint32_t hd_exchange_fields_max(const hd_exchange_t *x)
{
    return x->fields_max > 0 ? x->fields_max : HD_FIELDS_MAX;
}
/* By codecs: the response's head has more than <bytes_max> bytes or <fields_max> fields;
 * <name>: the longest of them. */
void hd_exchange_too_large(hd_err_t *err, size_t bytes_max, unsigned fields_max,
                           hd_str_t name);
/* By codecs: an exchange ended; <reusable>: both messages complete, nothing unread. */
void hd_upconn_release(hd_upconn_t *u, bool reusable);
/* Before one of these two: the peer ended the conn while it idled, or about the time that
 * it was used again; or it said how long it lets a conn idle (Keep-Alive: timeout). */
void hd_upconn_peer_closed(hd_upconn_t *u);
void hd_upconn_peer_told(hd_upconn_t *u, uint32_t idle_ms);
/* The peer takes <n> exchanges at once, as conns to it will expect from now on. */
void hd_upconn_set_streams(hd_upconn_t *u, uint32_t n);
/* What to expect before it has said so: <most>, or less, if it was so the last time. */
uint32_t hd_upconn_streams_expected(const hd_upconn_t *u, uint32_t most);
/* Its cluster's settings now, good in this turn; NULL: it is gone, or out of its pool. */
const hd_cluster_t *hd_upconn_cluster(const hd_upconn_t *u);
/* Its peer is not to be trusted any longer: no new exchange, closed when it is unused. */
void hd_upconn_stale(hd_upconn_t *u);
uint64_t
hd_upconn_idle_since(const hd_upconn_t *u); /* monotonic ns; 0: it doesn't idle */
void hd_upconn_gone(hd_upconn_t *u); /* the conn closed: out of its pool, gauges down */

/* --- HTTP/1 text (hd_h1_parse.c, hd_h1_write.c): pure functions, fuzzed --- */
typedef enum {
    HD_H1_OK,
    HD_H1_MORE,     /* not all there yet */
    HD_H1_BAD,      /* 400 */
    HD_H1_TOO_LONG, /* 431 or 414 */
    HD_H1_VERSION,  /* 505 */
    HD_H1_TE,       /* 501: a transfer coding we don't know */
    HD_H1_OLD,      /* 426: HTTP/1.0, which isn't accepted here */
} hd_h1_rc_t;

typedef struct {
    uint32_t bytes_max, fields_max;
    uint32_t line_max;  /* bytes of a line with its CRLF; 0: as <bytes_max> */
    bool underscores;   /* of a field's name, as other letters */
    bool is_strict;     /* nginx: names are letters, digits and '-', nothing else */
    uint8_t odd_fields; /* what becomes of those with other names: HD_ODD_… */
} hd_h1_limits_t;

enum { HD_ODD_PASS, HD_ODD_DROP, HD_ODD_REFUSE };

/* Programs that make variables of fields can't tell other names apart. */
bool hd_h1_is_odd_name(hd_str_t name, const hd_h1_limits_t *limits);

/* <idle_ms>, or what is left of the time that <c> may be open in all if that is less;
 * <duration_ms> 0: no end. */
uint64_t hd_http_idle_ms(const hd_conn_t *c, uint64_t idle_ms, uint64_t duration_ms);
/* As a location says it. */
hd_linger_t hd_linger_of(const hd_http_loc_t *loc);
/* How long a client's conn for many requests (HTTP/2, a weft) lasts, and how it ends. */
typedef struct {
    uint64_t idle_ms;     /* without a request */
    uint64_t duration_ms; /* in all: Envoy's max_connection_duration; 0: no end */
    uint64_t send_timeout_ms;
    hd_linger_t linger;
} hd_http_times_t;

/* As the listener's settings say it now. */
hd_http_times_t hd_http_times(const hd_http_conf_t *http);
/* After so many requests, or so long (keepalive_requests, keepalive_time, and their like
 * by xDS), it is to end. */
bool hd_http_is_worn(const hd_http_conf_t *http, const hd_conn_t *c, uint32_t requests_n);
/* What a listener's settings say of request heads; its clients' codecs have the same. */
hd_h1_limits_t hd_http_limits(const hd_http_conf_t *http, uint32_t bytes_max,
                              uint32_t fields_max);

typedef enum {
    HD_LIMIT_FIELDS, /* their number */
    HD_LIMIT_TARGET,
    HD_LIMIT_LINE,
    HD_LIMIT_HEAD,
} hd_http_limit_t;

/* For the logs: the request's head is beyond the limit of <max> fields or bytes, by the
 * field <name>; and what sets that limit, by a file or by xDS. */
void hd_http_say_limit(hd_req_t *req, bool is_xds, hd_http_limit_t which, uint32_t max,
                       hd_str_t name);
/* The same of a head that HTTP/1's parser found too long: <bytes>, as far as it was read.
 * Returns the status that says so. */
unsigned hd_h1_say_limit(hd_req_t *req, bool is_xds, hd_str_t bytes,
                         const hd_h1_limits_t *l);

/* Looks for the end of a head: the empty line. HD_H1_OK: *head_len bytes with it.
 * <scan_from>: in/out, where the search goes on (0 at first), so that a slow head costs
 * no second look. */
hd_h1_rc_t hd_h1_scan_head(hd_str_t bytes, size_t *scan_from, size_t bytes_max,
                           size_t *head_len, const char **why);
uint8_t hd_http_method_id(hd_str_t method); /* hd_method_t; case-sensitive */
/* The method's towards the upstream: whose answer it says how to read, and whether it may
 * be repeated. */
static inline uint8_t hd_req_up_method_id(const hd_req_t *req)
{
    return hd_likely(req->up_method.len == 0) ? req->head.method_id
                                              : hd_http_method_id(req->up_method);
}

/* Parses a whole head at the start of <bytes>; *used: its length with the empty line.
 * <scan_from>: in/out, where the search for the end goes on (0 at first), so that a slow
 * head costs no second look. <why>: static text, for the log. RFC 9112 §2-§6 in its
 * strict reading. */
hd_h1_rc_t hd_h1_parse_request(hd_str_t bytes, size_t *scan_from,
                               const hd_h1_limits_t *limits, hd_pool_t *pool,
                               hd_req_head_t *head, size_t *used, const char **why);
hd_h1_rc_t hd_h1_parse_response(hd_str_t bytes, size_t *scan_from,
                                const hd_h1_limits_t *limits, hd_pool_t *pool,
                                bool was_head, bool was_connect, hd_res_head_t *head,
                                bool *keep_alive, bool *until_close, size_t *used,
                                const char **why);

/* The name of the field that a head (or what there is of it) is full of; for the log.
 * <line_len>: bytes of its line; may be NULL. */
hd_str_t hd_h1_longest_field(hd_str_t head, size_t *line_len);

/* Chunked bodies, incrementally (RFC 9112 §7.1). */
typedef struct {
    uint64_t left; /* of the chunk */
    uint8_t state;
    uint16_t line_bytes; /* of size line or trailer section: bounded */
} hd_chunked_t;

/* Consumes from <bytes>: *content is a run of content (may be empty), *used what
 * was consumed. HD_H1_OK: the last chunk's line was read, trailers follow
 * (hd_h1_parse_trailers); HD_H1_MORE: call again with what comes next; HD_H1_BAD. */
hd_h1_rc_t hd_chunked_next(hd_chunked_t *ch, hd_str_t bytes, hd_str_t *content,
                           size_t *used, const char **why);
hd_h1_rc_t hd_h1_parse_trailers(hd_str_t bytes, const hd_h1_limits_t *limits,
                                hd_pool_t *pool, hd_headers_t *trailers, size_t *used,
                                const char **why);
