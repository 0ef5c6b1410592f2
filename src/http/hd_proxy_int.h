/* hd_proxy_int: a request that goes to an upstream, a file a noun:
 *   hd_proxy.c           the action: its beginning, its wakes, its end
 *   hd_try.c             one attempt
 *   hd_proxy_retry.c     what becomes of an attempt that failed
 *   hd_proxy_body.c      the request's body
 *   hd_proxy_response.c  the winner's response
 *   hd_proxy_accel.c     its X-Accel-… fields
 *   hd_proxy_uri.c       which cluster; path and head towards it */
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
    const hd_slot_t *named; /* held: found by its name; NULL: its route names it */
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
    bool text_lost;    /* and was too long for $request_body */
    bool is_prepared;  /* head and address towards the upstream are made */
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
    HD_FAIL_DENIED, /* …_allow_upstream: its client may not go there */
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

/* --- hd_proxy.c --- */
#define HD_PROXY_NO_BLOCK_MS 20 /* until a block may be free */

static inline hd_proxy_t *hd_proxy_of(const hd_req_t *req)
{
    return req->action;
}
/* The first try, if nothing else is waited for; the body is there as far as it must be.
 */
void hd_proxy_begin(hd_proxy_t *p);
/* The request is all there: its time begins, tries included. */
void hd_proxy_set_deadline(hd_proxy_t *p);

/* --- hd_proxy_retry.c --- */
void hd_proxy_answer_failure(hd_proxy_t *p, hd_fail_t why);
/* What modules say of a result; the first that wants more is heard. Not HD_TRY_DONE:
 * there may be another try, for which a place is taken, after <wait_ms>. */
hd_verdict_t hd_proxy_judge(hd_proxy_t *p, const hd_try_result_t *r, uint64_t *wait_ms);
void hd_proxy_schedule_try(hd_proxy_t *p, uint64_t wait_ms);
void hd_proxy_start_try(hd_proxy_t *p);
void hd_proxy_drop_retry(hd_proxy_t *p); /* none follows; its place is given back */
/* By tries. The request's next step is a retry, or an answer if no other try goes on. */
void hd_proxy_on_fail(hd_proxy_t *p, hd_try_t *t, hd_fail_t why,
                      const hd_try_result_t *r);
void hd_proxy_on_timeout(hd_proxy_t *p, hd_try_t *t);

/* --- hd_proxy_body.c --- */
/* Of hd_action_ops_t. */
void hd_proxy_give_body(hd_req_t *req, hd_chain_t *body);
bool hd_proxy_is_full(hd_req_t *req);
void hd_proxy_on_writable(hd_proxy_t *p); /* by tries */
/* What <t> takes now of the part of the body that lies in a temp file. */
void hd_proxy_send_temp(hd_proxy_t *p, hd_try_t *t);
void hd_proxy_send_temps(hd_proxy_t *p); /* the same, of each try that takes body */
/* From now on nobody could ask for the body again. */
void hd_proxy_lose_replay(hd_proxy_t *p);
/* A short body in memory stays to its request's end: $request_body of a log. */
void hd_proxy_keep_text(hd_proxy_t *p);
/* client_body_in_file_only: what is buffered goes to a file that has a name. */
hd_rc_t hd_proxy_open_body_file(hd_proxy_t *p) HD_MUST_CHECK;
/* Another action may follow (a reroute): what was read of the body is its to have, if it
 * is all there. */
void hd_proxy_give_back(hd_proxy_t *p);

/* --- hd_proxy_response.c --- */
/* By tries: a head; some of the body (taken), or its end. */
void hd_proxy_on_head(hd_proxy_t *p, hd_try_t *t);
void hd_proxy_on_body(hd_proxy_t *p, hd_try_t *t, hd_chain_t *body);
/* May bytes of <t>'s body come in a pipe: they go to the client unseen, and at once. */
bool hd_proxy_takes_pipes(const hd_proxy_t *p, const hd_try_t *t);
/* The upstream's body ends early: as hd_response_fail, after what was read of it. */
void hd_proxy_cut_body(hd_proxy_t *p, unsigned status, uint64_t flag,
                       const char *details);
void hd_proxy_on_drained(hd_req_t *req); /* of hd_action_ops_t */

/* --- hd_proxy_accel.c --- */
/* Of X-Accel-NAME its HD_IGNORES_…; 0: it is another field. */
uint32_t hd_proxy_accel_bit(hd_str_t name);
/* Out of the response's head into <p>. */
void hd_proxy_take_accel(hd_proxy_t *p);
/* X-Accel-Redirect: the answer is another location's, or 404. */
void hd_proxy_redirect(hd_proxy_t *p);

/* --- hd_proxy_uri.c --- */
/* Path and host towards the upstream, header changes. */
hd_rc_t hd_proxy_prepare(hd_proxy_t *p);
/* The cluster's slot by target, variables or header. HD_AGAIN: a name is being looked up;
 * to be called again when the request wakes. */
hd_rc_t hd_proxy_find_cluster(hd_proxy_t *p);
/* proxy_bind for the server that is asked now, into p->bind. */
hd_rc_t hd_proxy_eval_bind(hd_proxy_t *p) HD_MUST_CHECK;
void hd_proxy_hash(hd_proxy_t *p); /* hash policies, for consistent hashing */
