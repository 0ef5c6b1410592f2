#include "http/hd_pace.h"
#include "core/conf/hd_parse.h"
#include "http/hd_request_int.h"

#define STEPS_PER_S 8 /* bytes are let go so often, rather than one by one */

typedef struct hd_pace_s {
    hd_req_t *req;
    uint64_t rate;  /* bytes a second, not 0 */
    uint64_t after; /* bytes at full speed */
    uint64_t sent;  /* so far, head and all */
    hd_chain_t held;
    hd_timer_t timer;
} hd_pace_t;

uint64_t hd_pace_eval(hd_req_t *req, const hd_expr_t *value, const char *what)
{
    hd_err_t err = {0};
    uint64_t n = 0;
    hd_str_t text;

    if (value == NULL || hd_expr_eval(value, req, &text) != HD_OK || text.len == 0)
        return 0;
    if (hd_parse_size(text, INT64_MAX, &n, &err) != HD_OK) {
        hd_log_conn(HD_LOG_ERROR, req->conn != NULL ? req->conn->id : 0,
                    "%s: invalid size \"%.*s\"", what, HD_STR_ARG(text));
        return 0;
    }
    return n;
}

uint64_t hd_pace_rate(hd_req_t *req)
{
    if (!req->has_rate) {
        req->has_rate = true;
        req->rate = hd_pace_eval(req, req->loc->limit_rate, "limit_rate");
    }
    return req->rate;
}

/* --- time --- */

/* What may have been sent by now. */
static uint64_t allowed(const hd_pace_t *p)
{
    uint64_t ms = (hd_loop_now_ns(p->req->loop) - p->req->start_ns) / 1000000 + 1000;

    if (p->rate > UINT64_MAX / 2 / ms)
        return UINT64_MAX;
    return p->after + p->rate * ms / 1000;
}

static uint64_t left(const hd_pace_t *p)
{
    uint64_t may = allowed(p);

    return may > p->sent ? may - p->sent : 0;
}

/* The least that is worth a turn. */
static uint64_t step(const hd_pace_t *p)
{
    uint64_t n = hd_max(p->rate / STEPS_PER_S, (uint64_t)1);

    return hd_min(n, (uint64_t)p->held.bytes);
}

/* Until <step> bytes may go. */
static void wait_for_time(hd_pace_t *p)
{
    uint64_t short_of = p->sent + step(p) - allowed(p);

    hd_timer_set(p->req->loop, &p->timer, short_of * 1000 / p->rate + 1);
}

static void on_time(hd_timer_t *t)
{
    hd_req_t *req = hd_container_of(t, hd_pace_t, timer)->req;

    if (!req->response_ended)
        hd_request_on_drained(req); /* which comes here first */
}

/* --- bytes --- */

/* Moves what may go to <out>; sets the timer for the rest. */
static bool let_go(hd_pace_t *p, hd_chain_t *out)
{
    uint64_t may = left(p), n;

    if (p->held.bytes > 0 && may < step(p)) {
        wait_for_time(p);
        return false;
    }
    n = hd_min(may, (uint64_t)p->held.bytes);
    hd_chain_move_bytes(out, &p->held, (size_t)n);
    p->sent += n;
    if (p->held.bytes > 0)
        wait_for_time(p);
    return true;
}

void hd_pace_start(hd_req_t *req)
{
    uint64_t rate = hd_pace_rate(req);
    hd_pace_t *p;

    if (rate == 0)
        return;
    p = hd_pool_new(req->pool, hd_pace_t);
    p->req = req;
    p->rate = rate;
    p->after = hd_pace_eval(req, req->loc->limit_rate_after, "limit_rate_after");
    p->after = hd_min(p->after, (uint64_t)INT64_MAX / 2);
    p->sent = req->head_bytes_sent;
    hd_timer_init(&p->timer, on_time);
    req->pace = p;
}

bool hd_pace_pass(hd_req_t *req, hd_chain_t *body)
{
    hd_pace_t *p = req->pace;
    bool was_holding = p->held.bytes > 0;

    hd_chain_move(&p->held, body);
    return !was_holding && let_go(p, body);
}

bool hd_pace_is_holding(const hd_req_t *req)
{
    return req->pace->held.bytes > 0;
}

bool hd_pace_go_on(hd_req_t *req)
{
    hd_pace_t *p = req->pace;
    hd_chain_t out;

    if (p->held.bytes == 0)
        return true;
    if (req->client->is_full(req)) /* it comes back by itself */
        return false;
    hd_chain_init(&out);
    if (let_go(p, &out))
        hd_response_pass(req, &out);
    return p->held.bytes == 0 && !req->response_ended;
}

void hd_pace_stop(hd_req_t *req)
{
    hd_timer_stop(req->loop, &req->pace->timer);
    hd_chain_free(&req->pace->held);
    req->pace = NULL;
}
