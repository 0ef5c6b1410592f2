/* hd_proxy_int: what hd_proxy.c (the action), hd_try.c (one attempt) and hd_proxy_uri.c
 * share. */
#pragma once
#include "http/hd_ahead.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"
#include "core/net/hd_resolve.h"

typedef struct hd_set_cookie_s {
    struct hd_set_cookie_s *next;
    hd_str_t value; /* of the set-cookie field */
} hd_set_cookie_t;

typedef struct hd_proxy_s {
    hd_req_t *req;
    const hd_proxy_conf_t *conf;
    const hd_slot_t *cluster;
    hd_str_t cluster_name;
    /* Of a host that variables name: its addresses, in the request's pool. */
    const hd_addr_t *addrs;
    uint32_t addrs_n;
    bool is_https;          /* of a URI made by variables */
    hd_resolve_wait_t wait; /* for a name */
    bool waits_for_name;
    /* The request's body so far: all of it in <replay> until that is too long; then what
     * no try has taken yet is in <held>. */
    hd_chain_t replay, held;
    size_t replay_max;
    /* A buffered body beyond <replay_max>: what follows <replay>; -1: none. Nobody else
     * can open it: it has no name. */
    int temp_fd;
    int64_t temp_bytes;
    unsigned temp_flags; /* of its last byte: HD_SLICE_… */
    bool is_sending_temp;
    int64_t length;    /* of the body, as far as it is known */
    bool has_body;     /* towards the upstream */
    bool drops_body;   /* the client's: it is read, and another or none is sent */
    hd_addr_t bind;    /* proxy_bind; AF_UNSPEC: none */
    hd_str_t redirect; /* X-Accel-Redirect of the response; empty */
    bool replay_lost, body_complete, waits_for_body, retry_due, is_over;
    hd_gauge_id_t retry_counted; /* a place among the cluster's retries; 0: none */
    hd_try_t *winner;            /* whose response it is */
    hd_timer_t backoff;
    bool waits_for_rate; /* proxy_limit_rate: the upstream is held back for <backoff> */
    uint64_t rate;       /* of proxy_limit_rate, once evaluated; 0: none */
    bool buffers;        /* the response may be read ahead of its client … */
    hd_ahead_t *ahead;   /* … who was full once; NULL: not yet */
    uint32_t attempts;
    uint64_t hash;
    bool has_hash;
    hd_set_cookie_t *cookies; /* for the client, with the response's head; NULL: none */
} hd_proxy_t;

typedef enum {
    HD_FAIL_NONE,
    HD_FAIL_NO_CLUSTER,
    HD_FAIL_NO_HEALTHY,
    HD_FAIL_OVERFLOW,
    HD_FAIL_CONNECT,
    HD_FAIL_CONNECT_TIMEOUT,
    HD_FAIL_TIMEOUT, /* per try */
    HD_FAIL_SILENT,  /* between bytes: nginx's proxy_read_timeout, proxy_send_timeout */
    HD_FAIL_IDLE,    /* xDS's idle time-outs, which end the request itself */
    HD_FAIL_DURATION, /* longer than its cluster's max_stream_duration */
    HD_FAIL_RESET,
    HD_FAIL_CLOSED,
    HD_FAIL_PROTOCOL,
    HD_FAIL_INTERNAL,
} hd_fail_t;

/* --- hd_try.c --- */
/* A new attempt; runs it as far as it goes now. */
void hd_try_start(hd_proxy_t *p);
void hd_try_resume(hd_try_t *t); /* the balancer woke the request */
/* More of the request's body, END flag as in the message. */
void hd_try_send_body(hd_try_t *t, hd_chain_t *body);
/* Ends interest in it; harmless when it is over. */
void hd_try_end(hd_try_t *t, hd_pick_result_t result);
void hd_try_release(hd_try_t *t);    /* its pick; once */
void hd_try_push_timer(hd_try_t *t); /* something moved */

/* --- hd_proxy.c: what tries tell --- */
void hd_proxy_on_head(hd_proxy_t *p, hd_try_t *t);
void hd_proxy_on_body(hd_proxy_t *p, hd_try_t *t, hd_chain_t *body);
/* May bytes of <t>'s body come in a pipe: they go to the client unseen, and at once. */
bool hd_proxy_takes_pipes(const hd_proxy_t *p, const hd_try_t *t);
/* The upstream's body ends early: as hd_response_fail, after what was read of it. */
void hd_proxy_cut_body(hd_proxy_t *p, unsigned status, uint64_t flag,
                       const char *details);
void hd_proxy_on_fail(hd_proxy_t *p, hd_try_t *t, hd_fail_t why,
                      const hd_try_result_t *r);
void hd_proxy_on_timeout(hd_proxy_t *p, hd_try_t *t);
void hd_proxy_on_writable(hd_proxy_t *p);
/* What <t> takes now of the part of the body that lies in a temp file. */
void hd_proxy_send_temp(hd_proxy_t *p, hd_try_t *t);

/* --- hd_proxy_uri.c --- */
/* Path and host towards the upstream, header changes. */
hd_rc_t hd_proxy_prepare(hd_proxy_t *p);
/* The cluster's slot by target, variables or header. HD_AGAIN: a name is being looked up;
 * to be called again when the request wakes. */
hd_rc_t hd_proxy_find_cluster(hd_proxy_t *p);
void hd_proxy_hash(hd_proxy_t *p); /* hash policies, for consistent hashing */
