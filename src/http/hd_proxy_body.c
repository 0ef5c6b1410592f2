/* The request's body: kept for another try, in memory or in a temp file, and passed on to
 * the try that takes it. */
#include "http/hd_body_file.h"
#include "http/hd_proxy_int.h"
#include "http/hd_temp_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define HELD_BYTES 65536

static void free_text(void *arg)
{
    hd_chain_free(arg);
}

static hd_chain_t *body_text(hd_req_t *req)
{
    if (req->body_text == NULL) {
        req->body_text = hd_pool_new(req->pool, hd_chain_t);
        hd_pool_defer(req->pool, free_text, req->body_text);
    }
    return req->body_text;
}

static bool is_text(const hd_proxy_t *p, const hd_chain_t *body)
{
    const hd_http_conf_t *http = p->req->http;

    return p->body_complete && body->bytes > 0 && body->bytes <= HD_BLOCK_BYTES &&
           p->temp_fd < 0 && !p->drops_body && http != NULL && !http->is_xds;
}

void hd_proxy_keep_text(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (!is_text(p, &p->replay))
        return;
    hd_chain_free(body_text(req));
    hd_chain_move(req->body_text, &p->replay);
}

/* The same of one that isn't passed on. */
static void keep_dropped(hd_proxy_t *p, hd_chain_t *body)
{
    hd_req_t *req = p->req;

    if (p->text_lost || body->bytes == 0 || req->http == NULL || req->http->is_xds)
        return;
    p->text_lost = body_text(req)->bytes + body->bytes > HD_BLOCK_BYTES;
    if (p->text_lost)
        hd_chain_free(req->body_text);
    else
        hd_chain_move(req->body_text, body);
}

const hd_chain_t *hd_proxy_request_body(const hd_req_t *req)
{
    const hd_proxy_t *p = req->action;

    if (req->action_ops == &hd_proxy_action && p->body_complete && !p->replay_lost &&
        !p->drops_body && p->temp_fd < 0 && p->replay.bytes <= HD_BLOCK_BYTES)
        return &p->replay;
    return req->body_ended ? req->body_text : NULL;
}

void hd_proxy_lose_replay(hd_proxy_t *p)
{
    p->replay_lost = true;
    hd_proxy_keep_text(p);
    hd_chain_free(&p->replay);
}

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
    hd_proxy_answer_failure(p, HD_FAIL_INTERNAL);
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
            hd_timer_set(p->req->loop, &p->backoff, HD_PROXY_NO_BLOCK_MS);
    } else if (rc != HD_OK)
        hd_proxy_answer_failure(p, HD_FAIL_INTERNAL);
}

void hd_proxy_send_temps(hd_proxy_t *p)
{
    for (hd_try_t *t = next_sender(p, NULL); t != NULL; t = next_sender(p, t))
        hd_proxy_send_temp(p, t);
}

/* Kept for another try as long as it fits the window. */
static void keep(hd_proxy_t *p, const hd_chain_t *body, bool is_sent)
{
    if (p->req->response_started)
        hd_proxy_lose_replay(p);
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

void hd_proxy_give_body(hd_req_t *req, hd_chain_t *body)
{
    hd_proxy_t *p = hd_proxy_of(req);
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    hd_try_t *t = next_sender(p, NULL), *other;
    bool was_lost = p->replay_lost;

    if (is_last) {
        p->body_complete = true;
        hd_proxy_set_deadline(p);
    }
    if (p->drops_body) {
        if (hd_unlikely(req->body_file != NULL) && hd_body_file_add(req, body) != HD_OK) {
            hd_chain_free(body);
            hd_proxy_answer_failure(p, HD_FAIL_INTERNAL);
            return;
        }
        keep_dropped(p, body);
        hd_chain_free(body);
        if (is_last && p->waits_for_body)
            hd_proxy_begin(p);
        return;
    }
    if (goes_to_temp(p, body)) {
        if (add_to_temp(p, body) && is_last)
            hd_proxy_begin(p);
        return;
    }
    keep(p, body, t != NULL);
    if (t == NULL) {
        if (was_lost)
            hd_chain_move(&p->held, body);
        hd_chain_free(body);
        if (p->waits_for_body && (is_last || p->replay_lost))
            hd_proxy_begin(p);
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

bool hd_proxy_is_full(hd_req_t *req)
{
    hd_proxy_t *p = hd_proxy_of(req);
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
        hd_proxy_send_temps(p);
    if (!p->req->body_ended)
        p->req->client->want_body(p->req);
}

hd_rc_t hd_proxy_open_body_file(hd_proxy_t *p)
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

void hd_proxy_give_back(hd_proxy_t *p)
{
    hd_req_t *req = p->req;

    if (!req->head.has_body || req->response_started || req->response_ended)
        return;
    if (p->replay_lost || p->drops_body || p->temp_fd >= 0)
        return;
    hd_chain_move(&p->replay, &req->body_wait);
    hd_chain_move(&req->body_wait, &p->replay);
    req->body_given = false;
    if (!is_text(p, &req->body_wait))
        return;
    hd_chain_free(body_text(req)); /* whoever answers now may not look at it */
    hd_chain_share(req->body_text, &req->body_wait);
}
