/* The client's side of a weft: each stream is a request of another Heddle. */
#include "core/net/hd_overload.h"
#include "http/hd_chars.h"
#include "http/hd_request_int.h"
#include "http/hd_weft.h"

#include <stdlib.h>

#define HEAD_BYTES_MAX 65536
#define HEAD_FIELDS_MAX 200
#define GOAWAY_MS 5000 /* for the client to see it and close */
#define WATCH_MS 1000  /* how often those that are waited for are looked at */
#define SPARE_MAX 256

typedef struct weft_server_s weft_server_t;

/* It may outlive its request: what was answered waits for credit. */
typedef struct stream_s {
    hd_weft_stream_t st; /* first: callbacks get it */
    weft_server_t *server;
    hd_req_t *req;    /* NULL once it has finished */
    hd_link_t link;   /* in the server's list while there is a request */
    uint64_t data_ns; /* when some of the request came last */
    struct stream_s *next_spare;
} stream_t;

struct weft_server_s {
    hd_weft_t w; /* first: callbacks get it */
    hd_http_entry_t entry;
    hd_timer_t timer;  /* idle: its end; else the next look at who is waited for */
    uint64_t waits_ms; /* for which <timer> was set */
    hd_http_times_t times;
    hd_link_t link;
    hd_link_t requests;  /* streams whose request is under way */
    uint32_t requests_n; /* begun so far */
    uint32_t streams_max;
    bool is_draining;
};

static hd_link_t conns = {&conns, &conns};
static _Thread_local stream_t *spare_streams;
static _Thread_local unsigned spare_n;

static stream_t *take_stream(void)
{
    stream_t *s = spare_streams;

    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        hd_bug_on(s == NULL);
        return s;
    }
    spare_streams = s->next_spare;
    spare_n--;
    memset(s, 0, sizeof(*s));
    return s;
}

static void free_stream(stream_t *s)
{
    if (spare_n >= SPARE_MAX) {
        free(s);
        return;
    }
    s->next_spare = spare_streams;
    spare_streams = s;
    spare_n++;
}

static bool is_idle(const weft_server_t *h)
{
    return h->w.streams_n == 0 && hd_list_is_empty(&h->requests);
}

static void set_timer(weft_server_t *h)
{
    h->waits_ms = !is_idle(h)        ? WATCH_MS
                  : h->w.goaway_sent ? GOAWAY_MS
                                     : hd_http_idle_ms(h->w.conn, h->times.idle_ms,
                                                       h->times.duration_ms);
    hd_timer_set(h->w.conn->loop, &h->timer, h->waits_ms);
}

/* Where a stream stands changed: the message is over on both sides, or the request is.
 * Answered early it is over, too: nobody wants the rest of its body. */
static void settle(stream_t *s)
{
    weft_server_t *h = s->server;

    if (hd_weft_is_open(&s->st) && s->st.end_sent && s->st.in_ended)
        hd_weft_close(&h->w, &s->st);
    else if (s->st.end_sent && s->req == NULL)
        hd_weft_reset(&h->w, &s->st, HD_WEFT_CANCEL);
    if (hd_weft_is_open(&s->st) || s->req != NULL)
        return;
    free_stream(s);
    if (is_idle(h))
        set_timer(h);
}

static hd_req_t *take_request(stream_t *s)
{
    hd_req_t *req = s->req;

    s->req = NULL;
    hd_list_remove(&s->link);
    return req;
}

static void lose_request(stream_t *s, hd_err_code_t code, const char *why)
{
    if (s->req != NULL)
        hd_request_client_gone(take_request(s), code, why);
}

/* Requests under way lose their client. The conn, and what is left to do: to end it. */
static hd_conn_t *let_go(weft_server_t *h, hd_err_code_t code, const char *why)
{
    hd_conn_t *c = h->w.conn;
    hd_weft_stream_t *st;
    uint32_t at = 0;

    while ((st = hd_weft_next(&h->w, &at)) != NULL) {
        hd_weft_close(&h->w, st);
        lose_request((stream_t *)st, code, why);
        settle((stream_t *)st);
    }
    while (!hd_list_is_empty(&h->requests)) { /* aborted ones that go on till they end */
        stream_t *s = hd_list_entry(h->requests.next, stream_t, link);

        lose_request(s, code, why);
        settle(s);
    }
    hd_timer_stop(c->loop, &h->timer);
    hd_list_remove(&h->link);
    hd_http_entry_end(&h->entry, c);
    hd_weft_deinit(&h->w);
    free(h);
    return c;
}

static void end_conn(weft_server_t *h, hd_err_code_t code, const char *why, bool linger)
{
    hd_http_times_t times = h->times;
    hd_conn_t *c = let_go(h, code, why);

    if (linger)
        hd_hangup(c, times.send_timeout_ms, times.linger);
    else
        hd_conn_reset(c);
}

/* No more requests than those under way. */
static void say_goaway(weft_server_t *h)
{
    hd_weft_goaway(&h->w);
    if (is_idle(h))
        set_timer(h);
}

/* --- the response: what hd_request.h asks of a client --- */

static void send_head(hd_req_t *req, bool is_interim)
{
    stream_t *s = req->client_state;
    hd_weft_t *w = &s->server->w;
    hd_h1_writer_t *to;
    size_t at;

    if (!hd_weft_is_open(&s->st) || (is_interim && req->res.status == 101))
        return;
    to = hd_weft_begin_head(w);
    at = hd_h1_written(to);
    hd_h1_put_status_line(to, &req->res);
    if (!is_interim && req->res.content_length >= 0 && req->res.status != 204)
        hd_h1_put_length(to, req->res.content_length);
    hd_h1_put_fields(to, &req->res.headers);
    hd_h1_put(to, "\r\n", 2);
    req->head_bytes_sent += hd_h1_written(to) - at;
    if (hd_weft_end_head(w, &s->st, !is_interim && !req->res.has_body ? HD_WEFT_END : 0))
        return;
    hd_ignore(hd_req_err(req, HD_E_LIMIT, "a response head longer than a link takes"));
    if (!is_interim)
        hd_weft_reset(w, &s->st, HD_WEFT_INTERNAL);
}

static void send_body(hd_req_t *req, hd_chain_t *body)
{
    stream_t *s = req->client_state;

    if (req->head.method_id == HD_M_HEAD || req->res.status == 204 ||
        req->res.status == 304)
        hd_chain_drop(body, body->bytes);
    hd_weft_send_body(&s->server->w, &s->st, body, &req->res_trailers);
}

static bool is_full(hd_req_t *req)
{
    stream_t *s = req->client_state;

    return hd_weft_is_full(&s->st);
}

static void want_body(hd_req_t *req)
{
    stream_t *s = req->client_state;

    s->data_ns = hd_loop_now_ns(req->loop); /* from now on it is waited for */
    hd_weft_consume(&s->server->w, &s->st, s->st.held);
    s->st.held = 0;
}

static void abort_response(hd_req_t *req, uint32_t h2_error)
{
    stream_t *s = req->client_state;

    (void)h2_error;
    hd_weft_reset(&s->server->w, &s->st, HD_WEFT_INTERNAL);
}

static void on_finished(hd_req_t *req)
{
    stream_t *s = req->client_state;

    hd_ignore(take_request(s) != NULL);
    hd_h2_budget_earn(&s->server->w.budget, HD_H2_EARNED_BY_REQUEST);
    settle(s);
}

static const hd_client_ops_t client_ops = {
    .name = "weft",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .want_body = want_body,
    .abort = abort_response,
    .on_finished = on_finished,
};

/* --- the request --- */

static unsigned parse_head(weft_server_t *h, stream_t *s, const hd_http_conf_t *http,
                           hd_str_t text, bool ended, const char **why)
{
    hd_req_head_t *head = &s->req->head;
    hd_h1_limits_t limits = hd_http_limits(http, HEAD_BYTES_MAX, HEAD_FIELDS_MAX);
    size_t scan_from = 0, used = 0;
    hd_h1_rc_t rc;

    hd_weft_hold(&h->w, s->req->pool); /* what was read of a bad one is logged, too */
    rc = hd_h1_parse_request(text, &scan_from, &limits, s->req->pool, head, &used, why);
    if (rc == HD_H1_TOO_LONG)
        return hd_h1_say_limit(s->req, http->is_xds, text, &limits);
    if (rc != HD_H1_OK || used != text.len) {
        if (**why == '\0')
            *why = "bad head";
        return 400;
    }
    if (hd_headers_get(&head->headers, HD_H_TRANSFER_ENCODING) != NULL) {
        *why = "Transfer-Encoding over a weft";
        return 400;
    }
    if (hd_headers_get(&head->headers, HD_H_CONTENT_LENGTH) == NULL)
        head->content_length = ended ? 0 : HD_LEN_UNKNOWN;
    if (ended && head->content_length > 0) {
        *why = "a body is announced, and none comes";
        return 400;
    }
    if (head->method_id == HD_M_CONNECT || head->is_upgrade) {
        *why = "a tunnel over a weft";
        return 400;
    }
    if (hd_http_take_path(s->req, http) != HD_OK) {
        *why = "bad path";
        return 400;
    }
    return 0;
}

/* A link stands for the connections of many clients: the number of requests that is
 * enough for one of those, where nobody said another, doesn't count here. */
static bool is_worn(const weft_server_t *h, const hd_http_conf_t *http)
{
    bool is_counted =
        http->is_xds || http->loc == NULL || http->loc->no_keepalive ||
        http->loc->keepalive_requests != hd_http_loc_defaults.keepalive_requests;

    return hd_http_is_worn(http, h->w.conn, is_counted ? h->requests_n : 0);
}

/* It knows since long that it should begin nothing more: this didn't cross it. */
static bool was_told(const weft_server_t *h)
{
    return h->w.goaway_sent && hd_loop_now_ns(h->w.conn->loop) - h->w.goaway_ns >=
                                   GOAWAY_MS * UINT64_C(1000000);
}

static void start_request(weft_server_t *h, stream_t *s, hd_str_t text, uint8_t flags)
{
    const hd_http_conf_t *http = hd_http_entry_refresh(&h->entry, h->w.conn);
    bool ended = (flags & HD_WEFT_END) != 0;
    hd_req_head_t *head;
    const char *why = "";
    unsigned status;

    if (http == NULL || was_told(h)) { /* it may be repeated elsewhere */
        hd_weft_goaway(&h->w);
        hd_weft_reset(&h->w, &s->st, HD_WEFT_REFUSED);
        settle(s);
        return;
    }
    if (hd_list_is_empty(&h->requests))
        set_timer(h);
    h->times = hd_http_times(http);
    s->data_ns = hd_loop_now_ns(h->w.conn->loop);
    s->req = hd_request_create(h->w.conn, h->w.conn->loop,
                               hd_loop_member(h->w.conn->loop), &client_ops, s);
    hd_list_add_last(&h->requests, &s->link);
    s->req->conn_requests = ++h->requests_n;
    s->st.in_ended = ended;
    head = &s->req->head;
    status = parse_head(h, s, http, text, ended, &why);
    if (status != 0) {
        hd_request_set_entry(s->req, &h->entry);
        hd_http_entry_let_go(&h->entry, h->w.conn);
        hd_request_reject(s->req, status, why);
        return;
    }
    head->version = (flags & HD_WEFT_VERSION2) ? HD_HTTP_20 : HD_HTTP_11;
    head->scheme = HD_STR("https");
    head->keep_alive = true;
    head->has_body = !ended;
    if (!ended)
        s->st.in_left = head->content_length;
    s->req->head_bytes_received = text.len;
    hd_headers_mark_hops(&head->headers);
    hd_request_start(s->req, &h->entry);
    hd_http_entry_let_go(&h->entry, h->w.conn);
    if (h->entry.is_old || hd_overload_now.saves_memory || is_worn(h, http))
        hd_weft_goaway(&h->w);
}

/* Beyond the number of streams, and its sender must have known it. */
static bool is_beyond(const weft_server_t *h, uint32_t id)
{
    uint32_t index = id & 0xffff;

    return index >= h->streams_max &&
           (index >= HD_WEFT_STREAMS_FIRST || h->w.heads_n > HD_WEFT_STREAMS_FIRST);
}

static bool on_head(hd_weft_t *w, uint32_t id, hd_weft_stream_t *st, hd_str_t text,
                    uint8_t flags)
{
    stream_t *s;

    w->heads_n++;
    if (st != NULL || id == 0)
        return false;
    if (is_beyond((weft_server_t *)w, id)) {
        hd_weft_refuse(w, id);
        return true;
    }
    s = take_stream();
    s->server = (weft_server_t *)w;
    hd_list_init(&s->link);
    if (!hd_weft_try_open(w, &s->st, id)) {
        free_stream(s);
        return false;
    }
    start_request(s->server, s, text, flags);
    return true;
}

static void on_data(hd_weft_t *w, hd_weft_stream_t *st, hd_chain_t *body)
{
    stream_t *s = (stream_t *)st;
    uint32_t len = (uint32_t)body->bytes;

    s->data_ns = hd_loop_now_ns(w->conn->loop);
    if (s->req != NULL) {
        hd_request_give_body(s->req, body);
        if (s->req != NULL && hd_request_is_full(s->req)) {
            st->held += len;
            return;
        }
    }
    hd_weft_consume(w, st, len);
}

static void on_trailers(hd_weft_t *w, hd_weft_stream_t *st, hd_str_t text)
{
    static const hd_h1_limits_t limits = {
        .bytes_max = HEAD_BYTES_MAX, .fields_max = 50, .underscores = true};
    stream_t *s = (stream_t *)st;
    const char *why = "";
    size_t used;

    if (s->req == NULL)
        return;
    hd_weft_hold(w, s->req->pool);
    if (hd_h1_parse_trailers(text, &limits, s->req->pool, &s->req->trailers, &used,
                             &why) == HD_H1_OK &&
        used == text.len)
        return;
    hd_weft_reset(w, st, HD_WEFT_PROTOCOL);
    lose_request(s, HD_E_PROTOCOL, "bad trailers");
    settle(s);
}

static void on_end(hd_weft_t *w, hd_weft_stream_t *st)
{
    stream_t *s = (stream_t *)st;
    hd_chain_t body;

    (void)w;
    if (s->req != NULL) {
        hd_chain_init(&body);
        hd_chain_set_flags(&body, HD_SLICE_END |
                                      (s->req->trailers.n > 0 ? HD_SLICE_TRAILERS : 0));
        hd_request_give_body(s->req, &body);
        hd_chain_free(&body);
    }
    settle(s);
}

static void on_reset(hd_weft_t *w, hd_weft_stream_t *st, uint32_t code)
{
    stream_t *s = (stream_t *)st;

    (void)w;
    if (code == HD_WEFT_PROTOCOL)
        lose_request(s, HD_E_PROTOCOL, "client reset the stream");
    else if (s->req != NULL)
        hd_request_client_reset(take_request(s), false);
    settle(s);
}

static void on_drained(hd_weft_t *w, hd_weft_stream_t *st)
{
    stream_t *s = (stream_t *)st;

    (void)w;
    if (s->req != NULL)
        hd_request_on_drained(s->req);
}

static void on_sent(hd_weft_t *w, hd_weft_stream_t *st)
{
    (void)w;
    settle((stream_t *)st);
}

static const hd_weft_user_t weft_user = {
    .on_head = on_head,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_end = on_end,
    .on_reset = on_reset,
    .on_drained = on_drained,
    .on_sent = on_sent,
};

/* --- the conn --- */

static void on_readable(hd_conn_t *c)
{
    weft_server_t *h = c->owner;
    hd_rc_t rc = hd_weft_read(&h->w);

    if (rc == HD_DONE)
        end_conn(h, HD_E_RESET, "client closed the connection", true);
    else if (rc == HD_ERROR)
        end_conn(h, c->err != NULL ? c->err->code : HD_E_RESET,
                 c->err != NULL ? c->err->text : "broken", false);
}

static void on_writable(hd_conn_t *c)
{
    hd_weft_on_writable(&((weft_server_t *)c->owner)->w);
}

static void on_closed(hd_conn_t *c)
{
    end_conn(c->owner, HD_E_RESET, "client reset the connection", false);
}

static void on_stale(hd_conn_t *c)
{
    say_goaway(c->owner);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    const weft_server_t *h = c->owner;

    if (!is_idle(h))
        return 0;
    return h->w.goaway_sent ? c->opened_ns : h->timer.at_ns - h->waits_ms * 1000000;
}

/* What crosses the GOAWAY on its way is repeated elsewhere. */
static void on_reuse(hd_conn_t *c)
{
    weft_server_t *h = c->owner;

    hd_weft_last_goaway(&h->w);
    hd_weft_flush(&h->w);
    hd_conn_flush(c);
    hd_conn_close(let_go(h, HD_E_LIMIT, "its place was needed"), 0);
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_reuse,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed};

/* The peer lets <s> wait for too long. False: the conn is gone: nothing leaves by it. */
static bool give_up(weft_server_t *h, stream_t *s, bool is_slow_reader)
{
    if (!is_slow_reader) {
        hd_request_reject(s->req, 408, "client timed out while sending its request body");
        return true;
    }
    if (hd_conn_is_high(h->w.conn)) {
        end_conn(h, HD_E_TIMEOUT, "client timed out while reading the response", false);
        return false;
    }
    hd_h2_count(&h->w.budget, HD_H2_SLOW, 1);
    hd_weft_reset(&h->w, &s->st, HD_WEFT_INTERNAL);
    lose_request(s, HD_E_TIMEOUT, "client timed out while reading the response");
    settle(s);
    return true;
}

static void watch(weft_server_t *h)
{
    uint64_t now_ns = hd_loop_now_ns(h->w.conn->loop);
    hd_weft_stream_t *st;
    uint32_t at = 0;

    while ((st = hd_weft_next(&h->w, &at)) != NULL) {
        stream_t *s = (stream_t *)st;
        bool has_output = st->out.bytes > 0;
        uint64_t since_ns = has_output ? st->moved_ns : s->data_ns;
        uint64_t ms =
            hd_request_patience_ms(s->req, has_output, !st->in_ended && st->held == 0);

        if (ms > 0 && now_ns - since_ns >= ms * 1000000 && !give_up(h, s, has_output))
            return;
    }
    set_timer(h);
}

static void on_due(hd_timer_t *t)
{
    weft_server_t *h = hd_container_of(t, weft_server_t, timer);

    if (!is_idle(h))
        watch(h);
    else if (!h->w.goaway_sent) /* what crosses it on its way is refused, and repeated */
        say_goaway(h);
    else
        end_conn(h, HD_E_TIMEOUT, "idle", true);
}

void hd_weft_serve(hd_conn_t *c, const hd_http_entry_t *entry)
{
    const hd_http_conf_t *http = entry->chain->protocol_conf;
    weft_server_t *h = calloc(1, sizeof(*h));

    hd_bug_on(h == NULL);
    h->entry = *entry;
    hd_timer_init(&h->timer, on_due);
    hd_list_init(&h->requests);
    hd_list_add_last(&conns, &h->link);
    hd_conn_set_handler(c, &handler, h);
    h->streams_max = http->h2_streams > 0 ? hd_min(http->h2_streams, HD_WEFT_STREAMS_MAX)
                                          : HD_WEFT_STREAMS_MAX / 2;
    hd_weft_init(&h->w, c, &weft_user, h->streams_max, true);
    hd_ping_start(&h->w.ping, http->h2_ping_ms, http->h2_ping_timeout_ms);
    h->times = hd_http_times(http);
    set_timer(h);
    if (c->is_readable)
        hd_conn_wake(c);
}

static bool is_untold(const weft_server_t *h, const hd_loop_t *loop)
{
    return h->w.conn->loop == loop && !h->is_draining;
}

/* Not in the first round: what comes over a link that is new is served. */
void hd_weft_drain(hd_loop_t *loop, const hd_drain_round_t *round)
{
    size_t n = 0;

    hd_list_each(link, &conns)
    {
        n += is_untold(hd_list_entry(link, weft_server_t, link), loop);
    }
    n = round->no > 0 ? hd_drain_share(round, n) : 0;
    hd_list_each(link, &conns)
    {
        weft_server_t *h = hd_list_entry(link, weft_server_t, link);

        if (n == 0)
            break;
        if (!is_untold(h, loop))
            continue;
        n--;
        h->is_draining = true;
        say_goaway(h);
    }
}
