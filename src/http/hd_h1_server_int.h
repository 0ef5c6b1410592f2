/* hd_h1_server_int: a client's HTTP/1 conn, as its two halves see it: hd_h1_server.c
 * reads requests and decides when the conn ends, hd_h1_response.c writes what
 * hd_request.h asks of a client. */
#pragma once
#include "http/hd_codec.h"
#include "http/hd_h1_input.h"
#include "core/net/hd_hangup.h"

/* What is left of a body whose request is over: read and dropped if that is cheaper than
 * a new conn. */
#define HD_H1_DISCARD_BYTES_MAX 65536

typedef enum {
    HD_H1S_IDLE,     /* between requests: nothing received; no block */
    HD_H1S_HEAD,     /* the first bytes of a head are there */
    HD_H1S_LENGTH,   /* body of known length: <left> bytes */
    HD_H1S_CHUNKED,  /* body in chunks */
    HD_H1S_TRAILERS, /* the field section after the last chunk */
    HD_H1S_ANSWER,   /* the request is complete, its response isn't */
    HD_H1S_GONE,     /* closing, or handed to a tunnel */
} hd_h1_server_state_t;

/* What lasts from one request to the next, the conn's owner: an idle conn has nothing
 * else. */
typedef struct {
    hd_http_entry_t entry;
    struct hd_h1_server_s *busy;               /* NULL: idle */
    uint32_t send_timeout_ms, idle_timeout_ms; /* of the last request's location */
    uint32_t requests_n;
    bool is_draining;    /* the next response says so */
    uint8_t told_rounds; /* of the graceful end, since it is */
    uint16_t min_idle_s; /* so long it isn't ended for others' sake */
} hd_h1_idle_t;

/* From a request's first byte to its response's end. The conn's timer is this state's. */
typedef struct hd_h1_server_s {
    hd_conn_t *conn;
    hd_h1_idle_t *idle; /* what lasts; its <busy> is this one */
    hd_req_t *req;      /* NULL between requests */
    hd_h1_input_t in;
    uint64_t left;
    uint64_t bytes_out_seen; /* at the last look of the send time-out */
    hd_linger_t linger;      /* at the conn's end: the last request's location says */
    hd_chunked_t chunked;
    uint8_t state;
    bool response_chunked, close_after, wants_continue, is_aborted;
    bool is_lost; /* the client is gone, and the request goes on */
    bool is_pipelined;  /* bytes of the next request came with the last one's */
    bool is_head_timed; /* the timer is the head's */
    bool is_reading;    /* counted so (hd_clients.h): some of a head is there */
    bool is_paused;     /* the request takes no more of its body, or the client doesn't
                           take the last answers: <in> waits */
    bool discards; /* the request is over, the rest of its body is read and dropped */
} hd_h1_server_t;

/* hd_h1_response.c: hd_client_ops_t's parts. */
void hd_h1_send_head(hd_req_t *req, bool is_interim);
void hd_h1_send_body(hd_req_t *req, hd_chain_t *body);
bool hd_h1_is_full(hd_req_t *req);
bool hd_h1_sends_files(hd_req_t *req);
void hd_h1_want_body(hd_req_t *req);
bool hd_h1_ends_conn(const hd_req_t *req);
