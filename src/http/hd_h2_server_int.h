/* hd_h2_server_int: the client's side of HTTP/2 (RFC 9113), a file a noun:
 *   hd_h2_server.c           the conn: its settings, its time-outs, its end
 *   hd_h2_server_request.c   frames to requests
 *   hd_h2_server_response.c  what a request asks of its client; clients that are slow
 *   hd_h2_server_tunnel.c    a stream that becomes a tunnel's end
 * An h2 stream lives until nghttp2 has closed it and its request and tunnel are over. */
#pragma once
#include "http/hd_h2_session.h"
#include "http/hd_h2_tube.h"
#include "core/net/hd_hangup.h"
#include "http/hd_request_int.h"

/* Of a body that nobody wants so much is read before it is cut off. */
#define HD_H2_UNWANTED_BYTES 65536

typedef struct hd_h2_server_s hd_h2_server_t;

typedef struct {
    hd_h2_server_t *server;
    hd_req_t *req; /* NULL once it has finished */
    int32_t id;
    hd_link_t link;
    hd_h2_out_t out;
    hd_h2_tube_t *tube;   /* the stream is a tunnel's end; NULL: not, or it is over */
    hd_req_t *tunnel_req; /* whose; NULL: it has finished */
    hd_chain_t early;     /* what came for a tunnel that isn't there yet */
    hd_timer_t timer;     /* the client doesn't take, or doesn't send */
    uint64_t data_ns;     /* when some of the body last came */
    uint32_t head_bytes, unconsumed;
    uint32_t unwanted;   /* so much of the body may still come: see …_stop_body */
    unsigned bad_status; /* the head breaks a rule of ours: answered with this */
    const char *bad_why;
    bool started, closed, remote_ended, in_trailers;
    bool was_reset;   /* by the client */
    bool end_sent;    /* our END_STREAM is out */
    bool is_aborted;  /* by us, for no fault of the client */
    bool is_large;    /* its head is: counted once */
    bool is_unwanted; /* and the rest of the request is dropped */
    bool is_connect;  /* what follows the head are a tunnel's bytes */
    bool is_long;     /* the request's body, by its announcement, or it waits for 100 */
    bool head_only;   /* it goes with the head: gRPC's Trailers-Only among them */
} hd_h2_stream_t;

struct hd_h2_server_s {
    hd_h2_session_t s; /* first: callbacks get it */
    hd_http_entry_t entry;
    hd_timer_t timer, unwanted; /* idle; bodies that are dropped */
    hd_timer_t goodbye;         /* between GOAWAY's two steps */
    hd_link_t link, streams;
    uint32_t streams_open; /* as RFC 9113 §5.1.2 counts them */
    uint32_t head_bytes_max, head_line_max, fields_max, requests_n;
    uint64_t head_timeout_ms;
    uint64_t waits_ms, born_ns; /* waits_ms: for which <timer> was set */
    hd_http_times_t times;      /* by the settings in force at the last request */
    bool is_draining, is_final; /* GOAWAY's two steps */
    bool has_settings;
    bool in_head; /* a field section is begun, and its end outstanding */
    bool is_xds;  /* its listener is, when the conn began */
};

static inline hd_h2_stream_t *stream_of(hd_h2_session_t *s, int32_t id)
{
    hd_h2_out_t *out = hd_h2_out_of(s, id);

    return out == NULL ? NULL : hd_container_of(out, hd_h2_stream_t, out);
}

/* --- hd_h2_server.c --- */
typedef enum {
    HD_H2_END_LINGERING, /* what was sent is still delivered */
    HD_H2_END_CLOSING,   /* it isn't waited for */
    HD_H2_END_RESETTING,
} hd_h2_end_t;
/* The conn is over, and <h> gone: requests under way lose their client, for that reason.
 */
void hd_h2_server_end(hd_h2_server_t *h, hd_err_code_t code, const char *why,
                      hd_h2_end_t how);
/* RFC 9113 §6.8: first the client is asked to begin nothing more; then, when it has heard
 * of it, what it has begun is the last. */
void hd_h2_server_begin_drain(hd_h2_server_t *h);
/* The second step: GOAWAY with the last stream. */
void hd_h2_server_finish_drain(hd_h2_server_t *h);
/* No stream is open: how long the conn may stay so. */
void hd_h2_server_set_idle_timer(hd_h2_server_t *h);

/* --- hd_h2_server_request.c --- */
/* Made anew, the caller's: nghttp2's callbacks for conns of clients. NULL: no memory. */
nghttp2_session_callbacks *hd_h2_request_callbacks(void);
void hd_h2_request_on_drained(hd_h2_out_t *out); /* for the session */
void hd_h2_stream_free(hd_h2_stream_t *st);
void hd_h2_stream_free_if_over(hd_h2_stream_t *st);

/* --- hd_h2_server_response.c --- */
extern const hd_client_ops_t hd_h2_server_ops;
/* The stream's timer is set at most once in its time: what moved meanwhile is seen when
 * it is due. */
void hd_h2_stream_watch(hd_h2_stream_t *st);
void hd_h2_stream_on_due(hd_timer_t *t); /* for the stream's timer */
/* The response is out, and the request isn't all there: what is short is read to its end,
 * since clients take a reset for a failure. Not before the response is out: a reset
 * overtakes what is queued. */
void hd_h2_stream_stop_body(hd_h2_stream_t *st);
/* <len> bytes of it came that nobody wants. */
void hd_h2_stream_drop_data(hd_h2_stream_t *st, size_t len);
void hd_h2_server_on_unwanted(hd_timer_t *t); /* the time for such bodies is over */
/* What was taken of the stream may be sent again: its window opens. */
void hd_h2_stream_return_credit(hd_h2_stream_t *st);

/* --- hd_h2_server_tunnel.c --- */
hd_conn_t *hd_h2_tunnel_take_conn(hd_req_t *req); /* of hd_client_ops_t */
/* The stream is over, and with it the tunnel: while its request's conn is still there to
 * be logged. */
void hd_h2_tunnel_end(hd_h2_stream_t *st);
/* Nothing goes on before the answer; what comes meanwhile is bounded by the window. */
void hd_h2_tunnel_take_data(hd_h2_stream_t *st, const uint8_t *data, size_t len);
