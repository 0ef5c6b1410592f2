/* HD_ACT_PROXY: runs the tries, keeps the body for another one, passes the winner's
 * response on. */
#include "http/hd_body_file.h"
#include "http/hd_pace.h"
#include "http/hd_proxy_int.h"
#include "http/hd_stay.h"
#include "http/hd_temp_file.h"
#include "http/hd_sub.h"
#include "http/hd_uri.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define REPLAY_BYTES 65536          /* where nothing else is configured */
#define REQUEST_BUFFER_BYTES 262144 /* buffer_request: beyond it, a temp file */
#define HELD_BYTES 65536
#define NO_BLOCK_MS 20 /* until one may be free */
/* A client isn't waited for longer than this in all, during a response: then the upstream
 * is read ahead of it. A whole MB for one of many clients at once takes less. */
#define SLOW_MS 250
#define SLOW_NS (SLOW_MS * UINT64_C(1000000))

static hd_proxy_t *proxy_of(const hd_req_t *req)
{
    return req->action;
}

/* --- failure --- */

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
    [HD_FAIL_INTERNAL] = {500, 500, 0, "internal_error"},
};

static void answer_failure(hd_proxy_t *p, hd_fail_t why)
{
    const fail_answer_t *a = &answers[why];
    hd_req_t *req = p->req;
    bool is_xds = req->http == NULL || req->http->is_xds;
    unsigned status = is_xds ? a->xds_status : a->status;

    if (why == HD_FAIL_NO_CLUSTER && p->conf->no_cluster_status != 0)
        status = p->conf->no_cluster_status;
    if ((why == HD_FAIL_IDLE || why == HD_FAIL_DURATION) && !req->body_ended)
        status = 408; /* it was the client that let us wait */
    p->is_over = true;
    hd_response_fail(req, status, a->flag, a->details);
}

/* --- another try? --- */

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

static void drop_retry(hd_proxy_t *p)
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

/* What modules say of a result; the first that wants more is heard. */
static hd_verdict_t judge(hd_proxy_t *p, const hd_try_result_t *r, uint64_t *wait_ms)
{
    hd_req_t *req = p->req;

    *wait_ms = 0;
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

static void start_try(hd_proxy_t *p)
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

static void schedule_try(hd_proxy_t *p, uint64_t wait_ms)
{
    p->retry_due = true;
    if (wait_ms > 0)
        hd_timer_set(p->req->loop, &p->backoff, wait_ms);
    else
        hd_request_wake(p->req); /* never from within the exchange's callback */
}

static void on_backoff(hd_timer_t *t)
{
    hd_proxy_t *p = hd_container_of(t, hd_proxy_t, backoff);

    hd_request_wake(p->req);
}

void hd_proxy_on_fail(hd_proxy_t *p, hd_try_t *t, hd_fail_t why, const hd_try_result_t *r)
{
    uint64_t wait_ms;
    hd_verdict_t v;

    if (p->is_over || p->winner != NULL)
        return;
    v = why == HD_FAIL_NO_CLUSTER || why == HD_FAIL_INTERNAL || why == HD_FAIL_IDLE
            ? HD_TRY_DONE
            : judge(p, r, &wait_ms);
    if (v != HD_TRY_DONE) {
        schedule_try(p, wait_ms);
        return;
    }
    if (has_active_try(p) || p->retry_due) /* another may still win */
        return;
    (void)t;
    answer_failure(p, why);
}

void hd_proxy_on_timeout(hd_proxy_t *p, hd_try_t *t)
{
    hd_try_result_t r = {.result = HD_RESULT_TIMEOUT,
                         .grpc_status = UINT32_MAX,
                         .attempt = t->attempt,
                         .head_sent = t->x != NULL && t->x->head_written,
                         .is_reused_conn = t->was_reused};
    uint64_t wait_ms;
    hd_verdict_t v = judge(p, &r, &wait_ms);

    if (v == HD_TRY_HEDGE) { /* this one goes on beside the next */
        hd_try_push_timer(t);
        schedule_try(p, wait_ms);
        return;
    }
    hd_ignore(hd_req_err(p->req, HD_E_TIMEOUT,
                         "upstream did not answer try %u within its time", t->attempt));
    hd_try_end(t, HD_RESULT_TIMEOUT);
    if (v == HD_TRY_RETRY) {
        schedule_try(p, wait_ms);
        return;
    }
    if (!has_active_try(p) && !p->retry_due)
        answer_failure(p, HD_FAIL_TIMEOUT);
}

/* --- the response --- */

static unsigned grpc_status_of(const hd_exchange_t *x)
{
    const hd_field_t *f = hd_headers_get(&x->res.headers, HD_H_GRPC_STATUS);
    uint64_t n;

    return f != NULL && hd_str_to_u64(f->value, 1000, &n) ? (unsigned)n : UINT32_MAX;
}

static void end_others(hd_proxy_t *p, const hd_try_t *winner)
{
    for (hd_try_t *t = p->req->tries; t != NULL; t = t->next) {
        if (t->proxy == p && t != winner) {
            hd_try_end(t, HD_RESULT_CANCELLED);
            hd_try_release(t);
        }
    }
    drop_retry(p);
}

/* X-Accel-…: the upstream's word on how its answer is passed on. */
static void obey_field(hd_proxy_t *p, hd_field_t *f)
{
    uint64_t rate;

    f->flags |= HD_FIELD_REMOVED;
    if (hd_str_eq_nocase(f->name, HD_STR("X-Accel-Limit-Rate")) &&
        !(p->conf->ignores & HD_IGNORES_LIMIT_RATE) &&
        hd_str_to_u64(f->value, INT64_MAX, &rate)) {
        p->req->rate = rate;
        p->req->has_rate = true;
    }
    if (hd_str_eq_nocase(f->name, HD_STR("X-Accel-Buffering")) &&
        !(p->conf->ignores & HD_IGNORES_BUFFERING)) {
        if (hd_str_eq_nocase(f->value, HD_STR("no")))
            p->buffers = false;
        else if (hd_str_eq_nocase(f->value, HD_STR("yes")))
            p->buffers = true;
    }
}

/* nginx keeps these of an upstream to itself. */
static void hide_fields(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_headers_t *h = &req->res.headers;
    const hd_field_t *redirect;

    if (req->http == NULL || req->http->is_xds)
        return;
    redirect = hd_headers_get(h, HD_H_X_ACCEL_REDIRECT);
    if (redirect != NULL && !(p->conf->ignores & HD_IGNORES_REDIRECT))
        p->redirect = redirect->value;
    for (unsigned i = 0; i < h->n; i++) {
        hd_field_t *f = &h->fields[i];

        if (f->id == HD_H_OTHER && hd_str_has_prefix_nocase(f->name, HD_STR("X-Accel-")))
            obey_field(p, f);
        else if (f->id == HD_H_X_ACCEL_REDIRECT ||
                 (f->id == HD_H_OTHER && hd_str_eq_nocase(f->name, HD_STR("X-Pad"))))
            f->flags |= HD_FIELD_REMOVED;
    }
}

static void free_text(void *arg)
{
    hd_chain_free(arg);
}

/* A short body in memory stays to its request's end: $request_body of a log. */
static void keep_text(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (!p->body_complete || p->replay.bytes == 0 || p->replay.bytes > HD_BLOCK_BYTES ||
        p->temp_fd >= 0 || req->http == NULL || req->http->is_xds)
        return;
    if (req->body_text == NULL) {
        req->body_text = hd_pool_new(req->pool, hd_chain_t);
        hd_pool_defer(req->pool, free_text, req->body_text);
    }
    hd_chain_free(req->body_text);
    hd_chain_move(req->body_text, &p->replay);
}

const hd_chain_t *hd_proxy_request_body(const hd_req_t *req)
{
    const hd_proxy_t *p = req->action;

    if (req->action_ops == &hd_proxy_action && p->body_complete && !p->replay_lost &&
        p->temp_fd < 0 && p->replay.bytes <= HD_BLOCK_BYTES)
        return &p->replay;
    return req->body_text;
}

/* From now on nobody could ask for the body again. */
static void lose_replay(hd_proxy_t *p)
{
    p->replay_lost = true;
    keep_text(p);
    hd_chain_free(&p->replay);
}

/* Of the upstream's answer these stay when another answers in its place, as in nginx. */
static bool is_kept(const hd_field_t *f)
{
    return f->id == HD_H_CONTENT_TYPE || f->id == HD_H_SET_COOKIE ||
           f->id == HD_H_CACHE_CONTROL ||
           hd_str_eq_nocase(f->name, HD_STR("Content-Disposition")) ||
           hd_str_eq_nocase(f->name, HD_STR("Accept-Ranges")) ||
           hd_str_eq_nocase(f->name, HD_STR("Expires"));
}

void hd_proxy_put_kept(hd_req_t *req)
{
    hd_headers_t *h = &req->res.headers;

    for (unsigned i = 0; i < req->kept->n; i++) {
        const hd_field_t *f = &req->kept->fields[i];

        if (f->id == HD_H_CONTENT_TYPE && req->is_local_reply && req->res.status >= 300)
            continue; /* an error page has its own */
        if (f->id == HD_H_SET_COOKIE ||
            hd_str_eq_nocase(f->name, HD_STR("WWW-Authenticate")))
            hd_ignore(hd_headers_add(h, f->name, f->value) == NULL); /* full: as it is */
        else
            hd_ignore(hd_headers_set(h, f->name, f->value) == NULL);
    }
    req->kept = NULL;
}

/* X-Accel-Redirect: the answer is another location's. */
static void redirect_inside(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    const hd_headers_t *h = &req->res.headers;
    hd_str_t to = p->redirect, path, query;

    if (to.data[0] == '/' && !hd_uri_has_bad_bytes(to) &&
        hd_http_normalize_path(to, req->http, req->pool, &path, &query) == HD_OK) {
        to = path;
        if (query.len > 0)
            to = hd_str_printf(req->pool, "%.*s?%.*s", HD_STR_ARG(path),
                               HD_STR_ARG(query));
    } else if (to.data[0] != '@') {
        hd_ignore(hd_req_err(req, HD_E_PROTOCOL,
                             "upstream sent an unsafe X-Accel-Redirect \"%.*s\"",
                             HD_STR_ARG(to)));
        p->is_over = true;
        hd_response_fail(req, 404, HD_RF(UPSTREAM_PROTOCOL), "bad_redirect");
        return;
    }
    req->kept = hd_pool_new(req->pool, hd_headers_t);
    hd_headers_init(req->kept, req->pool, 4);
    for (unsigned i = 0; i < h->n; i++) {
        const hd_field_t *f = &h->fields[i];

        if (!(f->flags & (HD_FIELD_REMOVED | HD_FIELD_HOP)) && is_kept(f))
            hd_ignore(hd_headers_add(req->kept, f->name, f->value) == NULL);
    }
    if (req->head.method_id != HD_M_HEAD) {
        req->head.method = HD_STR("GET");
        req->head.method_id = HD_M_GET;
    }
    req->up_method = HD_STR_NONE;
    hd_request_reroute(req, to);
}

static void take_head(hd_proxy_t *p, hd_try_t *t)
{
    hd_req_t *req = p->req;

    p->winner = t;
    t->step = HD_TRY_STEP_BODY;
    end_others(p, t);
    req->upstream_head_ns = t->head_ns;
    req->upstream_status = t->status;
    req->err = NULL;
    req->res = t->x->res;
    req->is_local_reply = false;
    /* a failure is one already; an answer is good when it has ended well */
    if (t->status >= 500)
        hd_balancer->report(req->member, &t->pick, HD_RESULT_OK, t->status);
    p->buffers = p->conf->buffer_response;
    hide_fields(p);
    hd_try_push_timer(t);
}

void hd_proxy_on_head(hd_proxy_t *p, hd_try_t *t)
{
    hd_try_result_t r = {
        .result = HD_RESULT_OK,
        .status = t->status,
        .attempt = t->attempt,
        .head_sent = true,
        .is_reused_conn = t->was_reused,
    };
    hd_verdict_t v;
    uint64_t wait_ms;

    if (p->winner != NULL || p->is_over) {
        hd_try_end(t, HD_RESULT_CANCELLED);
        return;
    }
    r.grpc_status = grpc_status_of(t->x);
    v = judge(p, &r, &wait_ms);
    if (v == HD_TRY_RETRY) {
        t->pick.was_failure = true;
        hd_try_end(t, HD_RESULT_OK);
        schedule_try(p, wait_ms);
        return;
    }
    if (v == HD_TRY_HEDGE)
        schedule_try(p, wait_ms);
    take_head(p, t);
    for (const hd_set_cookie_t *c = p->cookies; c != NULL; c = c->next)
        hd_ignore(hd_res_add_header(p->req, HD_STR("set-cookie"), c->value));
    if (hd_unlikely(t->pick.cluster != NULL && t->pick.cluster->sticky != NULL))
        hd_stay_head(p, t);
    if (t->x->upgraded) {
        hd_conn_t *up = t->x->upconn->codec->take_conn == NULL
                            ? NULL
                            : t->x->upconn->codec->take_conn(t->x);

        t->x = NULL;
        hd_try_end(t, HD_RESULT_OK);
        if (up == NULL)
            hd_response_fail(p->req, 502, HD_RF(UPSTREAM_PROTOCOL), "upgrade_failed");
        else
            hd_request_tunnel(p->req, up);
        return;
    }
    if (p->redirect.len > 0) {
        redirect_inside(p);
        return;
    }
    hd_response_start(p->req);
    if (p->req->response_started && !p->is_over)
        lose_replay(p);
}

/* --- its body --- */

static bool is_reading_ahead(const hd_proxy_t *p)
{
    return p->ahead != NULL && p->ahead->is_on;
}

static bool has_room(const hd_proxy_t *p)
{
    if (hd_unlikely(p->waits_for_rate))
        return false;
    return is_reading_ahead(p) ? !hd_ahead_is_full(p->ahead)
                               : !hd_response_is_full(p->req);
}

static void resume_upstream(hd_proxy_t *p)
{
    hd_try_t *t = p->winner;

    if (t == NULL || t->x == NULL || !t->is_paused || !has_room(p))
        return;
    t->is_paused = false;
    if (p->ahead != NULL)
        p->ahead->waited_ns += hd_loop_now_ns(p->req->loop) - p->ahead->paused_ns;
    hd_try_push_timer(t);
    t->x->upconn->codec->pause(t->x, false);
}

static void watch_slow(hd_ahead_t *a, uint64_t waited_ns)
{
    if (!hd_timer_is_set(&a->slow))
        hd_timer_set(a->req->loop, &a->slow,
                     waited_ns >= SLOW_NS ? 1 : (SLOW_NS - waited_ns) / 1000000 + 1);
}

/* proxy_limit_rate: has more of the response come than its time allows? A second's worth
 * may come at once. Then the wait's end wakes the request. */
static bool is_too_fast(hd_proxy_t *p, const hd_try_t *t)
{
    hd_req_t *req = p->req;
    uint64_t ms = (hd_loop_now_ns(req->loop) - t->head_ns) / 1000000 + 1000, wait_ms;

    if (p->rate == 0 && p->buffers)
        p->rate = hd_pace_eval(req, p->conf->limit_rate, "proxy_limit_rate");
    if (p->rate == 0 || !p->buffers || p->rate > UINT64_MAX / 2 / ms)
        return false;
    wait_ms = t->body_bytes * 1000 / p->rate + 1;
    if (wait_ms <= ms)
        return false;
    p->waits_for_rate = true;
    hd_timer_set(req->loop, &p->backoff, wait_ms - ms);
    return true;
}

/* A client that let us wait for so long is slow: the upstream shall not be. Those that
 * are about as fast as it never cost a copy, nor a file. */
static void on_slow(hd_timer_t *timer)
{
    hd_ahead_t *a = hd_container_of(timer, hd_ahead_t, slow);
    hd_proxy_t *p = proxy_of(a->req);
    const hd_try_t *t = p->winner;
    uint64_t waited_ns;

    if (p->is_over || a->req->response_ended || t == NULL || t->x == NULL ||
        !t->is_paused)
        return;
    waited_ns = a->waited_ns + hd_loop_now_ns(a->req->loop) - a->paused_ns;
    if (waited_ns < SLOW_NS) { /* it was resumed meanwhile */
        watch_slow(a, waited_ns);
        return;
    }
    a->is_on = true;
    resume_upstream(p);
}

/* The upstream is held back: its client is full, or all is that may be kept for it. */
static void pause_upstream(hd_proxy_t *p, hd_try_t *t)
{
    hd_req_t *req = p->req;

    t->is_paused = true;
    t->x->upconn->codec->pause(t->x, true);
    if (!p->buffers || is_reading_ahead(p) || hd_req_is_grpc(req))
        return;
    if (p->ahead == NULL) {
        p->ahead = hd_ahead_create(req, p->conf);
        hd_timer_init(&p->ahead->slow, on_slow);
    }
    p->ahead->paused_ns = hd_loop_now_ns(req->loop);
    watch_slow(p->ahead, p->ahead->waited_ns);
}

/* The client gets what it takes of what was read ahead; behind it, why there is no more.
 */
static void give_ahead(hd_proxy_t *p)
{
    hd_req_t *req = p->req;
    hd_ahead_t *a = p->ahead;
    hd_rc_t rc = hd_ahead_give(a);

    if (rc == HD_AGAIN && !hd_timer_is_set(&p->backoff)) {
        hd_timer_set(req->loop, &p->backoff, NO_BLOCK_MS);
    } else if (rc == HD_ERROR) {
        hd_response_fail(req, 500, 0, "internal_error");
    } else if (rc == HD_OK && hd_ahead_is_empty(a) && a->cut_status != 0 &&
               !req->response_ended) {
        hd_response_fail(req, a->cut_status, a->cut_flag, a->cut_details);
    }
}

void hd_proxy_cut_body(hd_proxy_t *p, unsigned status, uint64_t flag, const char *details)
{
    if (p->ahead == NULL || hd_ahead_is_empty(p->ahead)) {
        hd_response_fail(p->req, status, flag, details);
        return;
    }
    p->ahead->cut_status = status;
    p->ahead->cut_flag = flag;
    p->ahead->cut_details = details;
}

bool hd_proxy_takes_pipes(const hd_proxy_t *p, const hd_try_t *t)
{
    return t == p->winner && !is_reading_ahead(p) && p->conf->limit_rate == NULL &&
           p->req->pace == NULL && hd_response_takes_files(p->req);
}

void hd_proxy_on_body(hd_proxy_t *p, hd_try_t *t, hd_chain_t *body)
{
    hd_req_t *req = p->req;

    if (t != p->winner) {
        hd_chain_free(body);
        return;
    }
    if (t->step == HD_TRY_STEP_END) {
        req->upstream_end_ns = t->end_ns;
        if (hd_unlikely(t->pick.cluster != NULL && t->pick.cluster->sticky != NULL))
            hd_stay_end(p, t);
    }
    if (!is_reading_ahead(p) ||
        (hd_ahead_is_empty(p->ahead) && (body->bytes == 0 || !hd_response_is_full(req))))
        hd_response_give_body(req, body);
    else
        hd_ahead_add(p->ahead, body);
    if (t->step == HD_TRY_STEP_END || t->x == NULL)
        return;
    if (!t->is_paused &&
        (!has_room(p) || (hd_unlikely(p->conf->limit_rate != NULL) && is_too_fast(p, t))))
        pause_upstream(p, t);
    hd_try_push_timer(t);
}

static void on_drained(hd_req_t *req)
{
    hd_proxy_t *p = proxy_of(req);

    if (p->ahead != NULL)
        give_ahead(p);
    resume_upstream(p);
}

/* --- the request's body --- */

/* Whose exchange takes body now; NULL: none yet. Several only while all of it is kept. */
static hd_try_t *next_sender(hd_proxy_t *p, hd_try_t *after)
{
    hd_try_t *t = after == NULL ? p->req->tries : after->next;

    for (; t != NULL; t = t->next) {
        if (t->proxy == p && t->x != NULL &&
            (t->step == HD_TRY_STEP_SEND || t->step == HD_TRY_STEP_BODY))
            return t;
    }
    return NULL;
}

/* Whether the file took it; a request that can't be kept is answered at once. */
static bool add_to_temp(hd_proxy_t *p, hd_chain_t *body)
{
    hd_req_t *req = p->req;
    hd_err_t err = {0};

    if (p->temp_fd < 0)
        p->temp_fd = hd_temp_file_open(req->pool, req->loc->body_temp_path, &err);
    if (p->temp_fd >= 0 &&
        hd_temp_file_write(p->temp_fd, p->temp_bytes, body, &err) == HD_OK) {
        p->temp_bytes += (int64_t)body->bytes;
        p->temp_flags |= hd_chain_flags(body);
        hd_chain_free(body);
        return true;
    }
    hd_ignore(hd_req_err(req, err.code, "%s", err.text));
    hd_chain_free(body);
    answer_failure(p, HD_FAIL_INTERNAL);
    return false;
}

static bool goes_to_temp(const hd_proxy_t *p, const hd_chain_t *body)
{
    return p->waits_for_body && p->req->loc != NULL &&
           (p->temp_fd >= 0 || p->replay.bytes + body->bytes > p->replay_max);
}

/* HD_AGAIN: there is no block now. */
static hd_rc_t read_temp(hd_proxy_t *p, hd_try_t *t, hd_chain_t *out)
{
    hd_block_t *b = hd_block_try_take();
    size_t want = (size_t)hd_min(p->temp_bytes - t->temp_at, (int64_t)HD_BLOCK_BYTES);
    ssize_t n;

    if (b == NULL)
        return HD_AGAIN;
    do
        n = pread(p->temp_fd, b->data, want, t->temp_at);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        hd_chain_add(out, b, b->data, (size_t)n, 0);
    hd_block_unref(b);
    if (n <= 0)
        return hd_req_err(p->req, HD_E_SYS, "reading the request's temp file: %s",
                          n < 0 ? strerror(errno) : "it has become shorter");
    t->temp_at += n;
    if (t->temp_at == p->temp_bytes)
        hd_chain_set_flags(out, p->temp_flags);
    return HD_OK;
}

void hd_proxy_send_temp(hd_proxy_t *p, hd_try_t *t)
{
    hd_rc_t rc = HD_OK;

    if (hd_likely(p->temp_fd < 0) || p->is_sending_temp) /* the loop below goes on */
        return;
    p->is_sending_temp = true;
    while (!p->is_over && t->x != NULL && t->temp_at < p->temp_bytes &&
           !t->x->upconn->codec->is_full(t->x)) {
        hd_chain_t part;

        hd_chain_init(&part);
        rc = read_temp(p, t, &part);
        if (rc != HD_OK)
            break;
        hd_try_send_body(t, &part);
    }
    p->is_sending_temp = false;
    if (rc == HD_AGAIN) {
        if (!hd_timer_is_set(&p->backoff))
            hd_timer_set(p->req->loop, &p->backoff, NO_BLOCK_MS);
    } else if (rc != HD_OK)
        answer_failure(p, HD_FAIL_INTERNAL);
}

static void send_temp(hd_proxy_t *p)
{
    for (hd_try_t *t = next_sender(p, NULL); t != NULL; t = next_sender(p, t))
        hd_proxy_send_temp(p, t);
}

/* Kept for another try as long as it fits the window. */
static void keep(hd_proxy_t *p, const hd_chain_t *body, bool is_sent)
{
    if (p->req->response_started)
        lose_replay(p);
    if (p->replay_lost)
        return;
    hd_chain_share(&p->replay, body);
    if (p->replay.bytes <= p->replay_max)
        return;
    p->replay_lost = true;
    if (is_sent)
        hd_chain_free(&p->replay);
    else /* no try has any of it: the first one still gets all */
        hd_chain_move(&p->held, &p->replay);
}

static void begin(hd_proxy_t *p)
{
    p->waits_for_body = false;
    if (!p->waits_for_name)
        start_try(p);
}

/* gRPC over HTTP/2, "Timeout": at most eight digits and a unit. */
static bool parse_grpc_timeout(hd_str_t text, uint64_t *ms)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600000000000ull}, {'M', 60000000000ull}, {'S', 1000000000ull},
                 {'m', 1000000},          {'u', 1000},           {'n', 1}};
    uint64_t n;

    if (text.len < 2 || text.len > 9 ||
        !hd_str_to_u64(hd_str_sub(text, 0, text.len - 1), 99999999, &n))
        return false;
    for (size_t i = 0; i < hd_countof(units); i++) {
        if (units[i].unit == text.data[text.len - 1]) {
            *ms = hd_max(n * units[i].ns / 1000000, (uint64_t)1);
            return true;
        }
    }
    return false;
}

/* A gRPC client may say how long it waits (VS-ROUTE-8): from now on, since its messages
 * may go on for as long. */
static void set_grpc_deadline(hd_proxy_t *p)
{
    const hd_proxy_conf_t *conf = p->conf;
    const hd_field_t *f = conf->has_grpc_timeout
                              ? hd_headers_get(&p->req->head.headers, HD_H_GRPC_TIMEOUT)
                              : NULL;
    uint64_t ms;

    if (f == NULL || !parse_grpc_timeout(f->value, &ms))
        return;
    if (conf->max_grpc_timeout_ms > 0)
        ms = hd_min(ms, (uint64_t)conf->max_grpc_timeout_ms);
    p->req->has_grpc_deadline = true;
    hd_timer_set(p->req->loop, &p->req->deadline, ms);
}

/* The whole request's time, tries included. */
static void set_deadline(hd_proxy_t *p)
{
    if (p->conf->timeout_ms > 0 && !p->req->has_grpc_deadline)
        hd_timer_set(p->req->loop, &p->req->deadline, p->conf->timeout_ms);
}

static void give_body(hd_req_t *req, hd_chain_t *body)
{
    hd_proxy_t *p = proxy_of(req);
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    hd_try_t *t = next_sender(p, NULL), *other;
    bool was_lost = p->replay_lost;

    if (is_last) {
        p->body_complete = true;
        set_deadline(p);
    }
    if (p->drops_body) {
        if (hd_unlikely(req->body_file != NULL) && hd_body_file_add(req, body) != HD_OK) {
            hd_chain_free(body);
            answer_failure(p, HD_FAIL_INTERNAL);
            return;
        }
        hd_chain_free(body);
        if (is_last && p->waits_for_body)
            begin(p);
        return;
    }
    if (goes_to_temp(p, body)) {
        if (add_to_temp(p, body) && is_last)
            begin(p);
        return;
    }
    keep(p, body, t != NULL);
    if (t == NULL) {
        if (was_lost)
            hd_chain_move(&p->held, body);
        hd_chain_free(body);
        if (p->waits_for_body && (is_last || p->replay_lost))
            begin(p);
        return;
    }
    while ((other = next_sender(p, t)) != NULL) { /* hedged: each gets its own */
        hd_chain_t copy;

        hd_chain_init(&copy);
        hd_chain_share(&copy, body);
        hd_try_send_body(t, &copy);
        t = other;
    }
    hd_try_send_body(t, body);
}

static bool is_full(hd_req_t *req)
{
    hd_proxy_t *p = proxy_of(req);
    hd_try_t *t = next_sender(p, NULL);

    if (t != NULL)
        return t->x->upconn->codec->is_full(t->x);
    if (p->waits_for_body)
        return false;
    /* not connected yet, or between two tries */
    return p->replay_lost ? p->held.bytes >= HELD_BYTES
                          : p->replay.bytes >= p->replay_max;
}

void hd_proxy_on_writable(hd_proxy_t *p)
{
    if (hd_unlikely(p->temp_fd >= 0))
        send_temp(p);
    if (!p->req->body_ended)
        p->req->client->want_body(p->req);
}

/* --- the action --- */

static void stop_waiting(hd_proxy_t *p)
{
    if (p->waits_for_name)
        hd_resolving->stop(&p->wait);
    p->waits_for_name = false;
}

static void free_ahead(hd_proxy_t *p)
{
    if (p->ahead == NULL)
        return;
    hd_timer_stop(p->req->loop, &p->ahead->slow);
    hd_ahead_free(p->ahead);
}

/* Whatever a finished request still holds. */
static void free_proxy(void *arg)
{
    hd_proxy_t *p = arg;

    stop_waiting(p);
    for (hd_try_t *t = p->req->tries; t != NULL; t = t->next) {
        if (t->proxy == p)
            hd_try_release(t);
    }
    hd_chain_free(&p->replay);
    hd_chain_free(&p->held);
    hd_temp_file_close(&p->temp_fd);
    free_ahead(p);
}

/* Its cluster is known now. */
static hd_rc_t prepare(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (hd_proxy_prepare(p) != HD_OK)
        return HD_ERROR;
    if (p->conf->hashes_n > 0)
        hd_proxy_hash(p);
    if (p->conf->shadows_n > 0)
        hd_shadows_start(req, p->conf->shadows, p->conf->shadows_n);
    return HD_OK;
}

static void resume(hd_proxy_t *p)
{
    if (!p->waits_for_body)
        start_try(p);
}

/* Is the name answered that it waits for? */
static void look_again(hd_proxy_t *p)
{
    hd_rc_t rc = hd_proxy_find_cluster(p);

    if (rc == HD_AGAIN)
        return;
    stop_waiting(p);
    if (rc != HD_OK)
        answer_failure(p, HD_FAIL_NO_CLUSTER);
    else if (prepare(p) == HD_OK)
        resume(p);
    else if (p->req->action == p && !p->is_over)
        answer_failure(p, HD_FAIL_INTERNAL);
}

/* client_body_in_file_only: what is buffered goes to a file that has a name. */
static hd_rc_t keep_body(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (!req->head.has_body || req->is_sub || !(p->conf->buffer_request || p->drops_body))
        return HD_OK;
    if (hd_body_file_open(req) != HD_OK)
        return HD_ERROR;
    if (p->drops_body) /* it isn't sent from there */
        return HD_OK;
    p->replay_max = 0;
    p->temp_fd = fcntl(req->body_file->fd, F_DUPFD_CLOEXEC, 0);
    return p->temp_fd >= 0
               ? HD_OK
               : hd_req_err(req, HD_E_SYS, "a body's file: %s", strerror(errno));
}

static hd_rc_t start(hd_req_t *req)
{
    const hd_proxy_conf_t *conf = req->route->proxy;
    hd_proxy_t *p = hd_pool_new(req->pool, hd_proxy_t);
    hd_rc_t rc;

    req->action = p;
    p->req = req;
    p->conf = conf;
    p->drops_body = conf->body != NULL || conf->no_request_body;
    p->has_body = req->head.has_body && !p->drops_body;
    p->length = p->drops_body ? 0 : req->head.content_length;
    p->replay_max = conf->replay_bytes > 0 ? conf->replay_bytes : REPLAY_BYTES;
    p->temp_fd = -1;
    if (conf->buffer_request || conf->is_http10)
        p->replay_max = req->loc != NULL && req->loc->body_buffer_bytes > 0
                            ? (size_t)req->loc->body_buffer_bytes
                            : hd_max(p->replay_max, (size_t)REQUEST_BUFFER_BYTES);
    hd_timer_init(&p->backoff, on_backoff);
    hd_pool_defer(req->pool, free_proxy, p);
    if (hd_unlikely(req->loc->body_in_file != HD_BODY_IN_MEMORY) && keep_body(p) != HD_OK)
        return HD_ERROR;
    set_grpc_deadline(p);
    rc = hd_proxy_find_cluster(p);
    req->cluster_name = p->cluster_name;
    if (rc == HD_ERROR) {
        answer_failure(p, HD_FAIL_NO_CLUSTER);
        return HD_DONE;
    }
    p->waits_for_name = rc == HD_AGAIN;
    if (!p->waits_for_name && prepare(p) != HD_OK)
        return HD_ERROR;
    if (req->body_ended && !req->head.has_body) {
        p->body_complete = true;
        set_deadline(p);
    } else if (conf->buffer_request || p->drops_body || conf->is_http10) {
        p->waits_for_body = true;
        return HD_AGAIN;
    }
    begin(p);
    return HD_AGAIN;
}

static void on_wake(hd_req_t *req)
{
    hd_proxy_t *p = proxy_of(req);

    if (p->is_over)
        return;
    if (hd_unlikely(p->waits_for_name)) {
        look_again(p);
        return;
    }
    if (p->retry_due && !hd_timer_is_set(&p->backoff)) {
        start_try(p);
        return;
    }
    for (hd_try_t *t = req->tries; t != NULL; t = t->next) {
        if (t->proxy == p)
            hd_try_resume(t);
    }
    if (hd_unlikely(p->temp_fd >= 0))
        send_temp(p);
    if (hd_unlikely(p->waits_for_rate) && !hd_timer_is_set(&p->backoff))
        p->waits_for_rate = false;
    if (hd_unlikely(p->ahead != NULL || p->conf->limit_rate != NULL))
        on_drained(req);
}

/* Another action may follow (a reroute): what was read of the body is its to have, if it
 * is all there. */
static void give_back(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (!req->head.has_body || req->response_started || req->response_ended)
        return;
    if (p->replay_lost || p->drops_body || p->temp_fd >= 0)
        return;
    hd_chain_move(&p->replay, &req->body_wait);
    hd_chain_move(&req->body_wait, &p->replay);
    req->body_given = false;
}

static void cancel(hd_req_t *req)
{
    hd_proxy_t *p = proxy_of(req);

    p->is_over = true;
    stop_waiting(p);
    for (hd_try_t *t = req->tries; t != NULL; t = t->next) {
        if (t->proxy == p)
            hd_try_end(t, HD_RESULT_CANCELLED);
    }
    drop_retry(p);
    hd_timer_stop(req->loop, &req->deadline);
    give_back(p);
    keep_text(p);
    hd_chain_free(&p->replay);
    hd_chain_free(&p->held);
    hd_temp_file_close(&p->temp_fd);
    free_ahead(p);
}

/* Nobody waits for it any more, as far as one can tell: the upstream is spared. */
static bool ends_with_client(hd_req_t *req)
{
    const hd_proxy_t *p = req->action;

    return !p->conf->ignore_client_abort;
}

const hd_action_ops_t hd_proxy_action = {
    .name = "proxy",
    .start = start,
    .give_body = give_body,
    .is_full = is_full,
    .on_drained = on_drained,
    .on_wake = on_wake,
    .ends_with_client = ends_with_client,
    .cancel = cancel,
};

/* The try that a log tells of: the winner, else the last. */
static const hd_try_t *telling_try(const hd_req_t *req)
{
    for (const hd_try_t *t = req->tries; t != NULL; t = t->next) {
        if (t->proxy->winner == t)
            return t;
    }
    return req->tries;
}

void hd_proxy_get_info(hd_req_t *req, hd_req_info_t *info)
{
    const hd_try_t *t = telling_try(req);

    if (t == NULL)
        return;
    info->upstream_is_reused = t->was_reused;
    info->upstream_peer = t->peer_principal;
    info->upstream_self = t->own_principal;
    if (!t->is_picked)
        return;
    info->cluster_conf = t->pick.cluster;
    info->endpoint = t->pick.endpoint;
    if (info->upstream_host.len == 0) {
        char text[HD_ADDR_TEXT_MAX];

        info->upstream_host = hd_str_dup(req->pool, hd_addr_print(&t->pick.addr, text));
    }
}
