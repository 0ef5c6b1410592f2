/* What becomes of a try that failed: another one, or an answer of our own. */
#include "http/hd_proxy_int.h"

typedef struct {
    unsigned status, xds_status;
    uint64_t flag;
    const char *details;
} fail_answer_t;

static const fail_answer_t answers[] = {
    [HD_FAIL_NO_CLUSTER] = {502, 503, HD_RF(NO_CLUSTER), "cluster_not_found"},
    [HD_FAIL_NO_HEALTHY] = {502, 503, HD_RF(NO_HEALTHY), "no_healthy_upstream"},
    [HD_FAIL_OVERFLOW] = {503, 503, HD_RF(UPSTREAM_OVERFLOW),
                          "upstream_reset_before_response_started{overflow}"},
    [HD_FAIL_CONNECT] = {502, 503, HD_RF(UPSTREAM_CONNECT),
                         "upstream_reset_before_response_started{"
                         "remote_connection_failure}"},
    [HD_FAIL_CONNECT_TIMEOUT] = {504, 503, HD_RF(UPSTREAM_CONNECT),
                                 "upstream_reset_before_response_started{"
                                 "connection_timeout}"},
    [HD_FAIL_TIMEOUT] = {504, 504, HD_RF(UPSTREAM_TIMEOUT), "upstream_per_try_timeout"},
    [HD_FAIL_SILENT] = {504, 504, HD_RF(UPSTREAM_TIMEOUT), "response_timeout"},
    [HD_FAIL_IDLE] = {504, 504, HD_RF(STREAM_IDLE), "stream_idle_timeout"},
    [HD_FAIL_DURATION] = {504, 504, HD_RF(UPSTREAM_DURATION),
                          "upstream_max_stream_duration_reached"},
    [HD_FAIL_RESET] = {502, 503, HD_RF(UPSTREAM_RESET),
                       "upstream_reset_before_response_started{remote_reset}"},
    [HD_FAIL_CLOSED] = {502, 503, HD_RF(UPSTREAM_CLOSED),
                        "upstream_reset_before_response_started{connection_termination}"},
    [HD_FAIL_PROTOCOL] = {502, 502, HD_RF(UPSTREAM_PROTOCOL),
                          "upstream_reset_before_response_started{protocol_error}"},
    [HD_FAIL_DENIED] = {403, 403, HD_RF(DENIED), "upstream_denied"},
    [HD_FAIL_INTERNAL] = {500, 500, 0, "internal_error"},
};

void hd_proxy_answer_failure(hd_proxy_t *p, hd_fail_t why)
{
    const fail_answer_t *a = &answers[why];
    hd_req_t *req = p->req;
    bool is_xds = req->http == NULL || req->http->is_xds;
    unsigned status = is_xds ? a->xds_status : a->status;

    if (why == HD_FAIL_NO_CLUSTER && p->conf->no_cluster_status != 0)
        status = p->conf->no_cluster_status;
    if ((why == HD_FAIL_IDLE || why == HD_FAIL_DURATION) && !req->body_ended) {
        status = 408; /* it was the client that let us wait: nor is the rest waited for */
        req->no_keepalive = true;
    }
    p->is_over = true;
    hd_response_fail(req, status, a->flag, a->details);
}

static bool has_active_try(const hd_proxy_t *p)
{
    for (const hd_try_t *t = p->req->tries; t != NULL; t = t->next) {
        if (t->proxy == p && t->step != HD_TRY_STEP_END)
            return true;
    }
    return false;
}

static bool may_try_again(const hd_proxy_t *p)
{
    return !p->is_over && p->winner == NULL && !p->req->response_started &&
           !p->replay_lost && p->attempts < p->conf->tries_max;
}

/* A place among them, from the verdict to the try's end: who waits to try again counts,
 * too. */
static bool try_count_retry(hd_proxy_t *p)
{
    const hd_try_t *last = p->req->tries;

    if (p->retry_counted != HD_GAUGE_NONE || last == NULL || !last->is_picked)
        return true;
    return hd_cluster_try_count(p->req->member, p->cluster, last->pick.cluster,
                                p->conf->is_high, HD_CG_RETRIES, &p->retry_counted);
}

void hd_proxy_drop_retry(hd_proxy_t *p)
{
    p->retry_due = false;
    if (hd_timer_is_set(&p->backoff))
        hd_timer_stop(p->req->loop, &p->backoff);
    if (p->retry_counted != HD_GAUGE_NONE)
        hd_gauge_down(p->req->member, p->retry_counted);
    p->retry_counted = HD_GAUGE_NONE;
}

/* Whether another try may follow, for which a place is taken. Where not, the result that
 * was judged is the answer (VS-RETRY-14). */
static bool try_again(hd_proxy_t *p)
{
    if (!may_try_again(p)) {
        if (p->attempts >= p->conf->tries_max)
            hd_request_add_flag(p->req, HD_RF(UPSTREAM_RETRY_LIMIT));
        return false;
    }
    if (!try_count_retry(p)) {
        hd_request_add_flag(p->req, HD_RF(UPSTREAM_OVERFLOW));
        return false;
    }
    return true;
}

hd_verdict_t hd_proxy_judge(hd_proxy_t *p, const hd_try_result_t *r, uint64_t *wait_ms)
{
    hd_req_t *req = p->req;

    *wait_ms = 0;
    req->try_timed_out = r->result == HD_RESULT_TIMEOUT;
    if (!(req->hooks & HD_HOOK_TRY))
        return HD_TRY_DONE;
    for (uint32_t i = 0; i < req->chain_n; i++) {
        const hd_filter_conf_t *f = &req->chain[i];
        const hd_module_t *mod = hd_filter_module(f);
        hd_verdict_t v;

        if (mod == NULL || mod->on_try_result == NULL)
            continue;
        req->running = f;
        v = mod->on_try_result(req, f->conf, r, wait_ms);
        req->running = NULL;
        if (v != HD_TRY_DONE)
            return try_again(p) ? v : HD_TRY_DONE;
    }
    return HD_TRY_DONE;
}

void hd_proxy_start_try(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    p->retry_due = false;
    if (p->attempts > 0) {
        req->err = NULL; /* what counts is how this one ends */
        for (hd_try_t *t = req->tries; t != NULL; t = t->next) {
            if (t->proxy == p && t->step == HD_TRY_STEP_END)
                hd_try_release(t);
        }
    }
    hd_try_start(p);
}

void hd_proxy_schedule_try(hd_proxy_t *p, uint64_t wait_ms)
{
    p->retry_due = true;
    if (wait_ms > 0)
        hd_timer_set(p->req->loop, &p->backoff, wait_ms);
    else
        hd_request_wake(p->req); /* never from within the exchange's callback */
}

void hd_proxy_on_fail(hd_proxy_t *p, hd_try_t *t, hd_fail_t why, const hd_try_result_t *r)
{
    uint64_t wait_ms;
    hd_verdict_t v;

    if (p->is_over || p->winner != NULL)
        return;
    v = why == HD_FAIL_NO_CLUSTER || why == HD_FAIL_INTERNAL || why == HD_FAIL_IDLE
            ? HD_TRY_DONE
            : hd_proxy_judge(p, r, &wait_ms);
    if (v != HD_TRY_DONE) {
        hd_proxy_schedule_try(p, wait_ms);
        return;
    }
    if (has_active_try(p) || p->retry_due) /* another may still win */
        return;
    (void)t;
    hd_proxy_answer_failure(p, why);
}

void hd_proxy_on_timeout(hd_proxy_t *p, hd_try_t *t)
{
    hd_try_result_t r = {.result = HD_RESULT_TIMEOUT,
                         .grpc_status = UINT32_MAX,
                         .attempt = t->attempt,
                         .head_sent = t->x != NULL && t->x->head_written,
                         .is_reused_conn = t->was_reused};
    uint64_t wait_ms;
    hd_verdict_t v = hd_proxy_judge(p, &r, &wait_ms);

    if (v == HD_TRY_HEDGE) { /* this one goes on beside the next */
        hd_try_push_timer(t);
        hd_proxy_schedule_try(p, wait_ms);
        return;
    }
    hd_ignore(hd_req_err(p->req, HD_E_TIMEOUT,
                         "upstream did not answer try %u within its time", t->attempt));
    hd_try_end(t, HD_RESULT_TIMEOUT);
    if (v == HD_TRY_RETRY) {
        hd_proxy_schedule_try(p, wait_ms);
        return;
    }
    if (!has_active_try(p) && !p->retry_due)
        hd_proxy_answer_failure(p, HD_FAIL_TIMEOUT);
}
