/* The winner's response: its head, and its body at the pace of its client. */
#include "http/hd_proxy_int.h"
#include "http/hd_pace.h"
#include "http/hd_part.h"
#include "http/hd_stay.h"

/* A client isn't waited for longer than this in all, during a response: then the upstream
 * is read ahead of it. A whole MB for one of many clients at once takes less. */
#define SLOW_MS 250
#define SLOW_NS (SLOW_MS * UINT64_C(1000000))

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
    hd_proxy_drop_retry(p);
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
    hd_proxy_take_accel(p);
    if (hd_unlikely(p->conf->force_ranges))
        hd_part_offer(req);
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
    p->req->judged = &t->x->res.headers;
    v = hd_proxy_judge(p, &r, &wait_ms);
    p->req->judged = NULL;
    if (v == HD_TRY_RETRY) {
        t->pick.was_failure = true;
        hd_try_end(t, HD_RESULT_OK);
        hd_proxy_schedule_try(p, wait_ms);
        return;
    }
    if (v == HD_TRY_HEDGE)
        hd_proxy_schedule_try(p, wait_ms);
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
        t->is_tunnel = up != NULL;
        hd_try_end(t, HD_RESULT_OK);
        if (up == NULL)
            hd_response_fail(p->req, 502, HD_RF(UPSTREAM_PROTOCOL), "upgrade_failed");
        else
            hd_request_tunnel(p->req, up);
        return;
    }
    if (p->redirect.len > 0) {
        hd_proxy_redirect(p);
        return;
    }
    hd_response_start(p->req);
    if (p->req->response_started && !p->is_over)
        hd_proxy_lose_replay(p);
}

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
    hd_proxy_t *p = hd_proxy_of(a->req);
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
        hd_timer_set(req->loop, &p->backoff, HD_PROXY_NO_BLOCK_MS);
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

void hd_proxy_on_drained(hd_req_t *req)
{
    hd_proxy_t *p = hd_proxy_of(req);

    if (p->ahead != NULL)
        give_ahead(p);
    resume_upstream(p);
}
