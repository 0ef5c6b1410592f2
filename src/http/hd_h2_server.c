/* The client's side of HTTP/2: the conn, its settings, time-outs and end. Each h2 stream
 * is a request (RFC 9113). */
#include "http/hd_h2_server_int.h"

#include <stdlib.h>

#define HEAD_BYTES_MAX 65536
#define HEAD_FIELDS_MAX 200
#define STREAMS_MAX 128 /* nginx's default */
#define HEAD_TIMEOUT_MS 60000
#define GOODBYE_MS 1000 /* for the answer to a PING: the client has heard of the end */

static hd_link_t conns = {&conns, &conns};

void hd_h2_server_set_idle_timer(hd_h2_server_t *h)
{
    h->waits_ms = h->is_final      ? 1
                  : h->is_draining ? GOODBYE_MS
                                   : hd_http_idle_ms(h->s.conn, h->times.idle_ms,
                                                     h->times.duration_ms);
    hd_timer_set(h->s.conn->loop, &h->timer, h->waits_ms);
}

/* Requests under way lose their client. */
static hd_conn_t *let_go(hd_h2_server_t *h, hd_err_code_t code, const char *why)
{
    hd_conn_t *c = h->s.conn;

    hd_list_each(link, &h->streams)
    {
        hd_h2_stream_t *st = hd_list_entry(link, hd_h2_stream_t, link);
        hd_req_t *req = st->req;

        st->req = NULL;
        st->closed = true;
        if (req != NULL)
            hd_request_client_gone(req, code, why);
        hd_h2_stream_free(st);
    }
    hd_timer_stop(c->loop, &h->timer);
    hd_timer_stop(c->loop, &h->unwanted);
    hd_timer_stop(c->loop, &h->goodbye);
    hd_list_remove(&h->link);
    hd_http_entry_end(&h->entry, c);
    hd_h2_session_deinit(&h->s);
    free(h);
    return c;
}

void hd_h2_server_end(hd_h2_server_t *h, hd_err_code_t code, const char *why,
                      hd_h2_end_t how)
{
    hd_http_times_t times = h->times;
    hd_conn_t *c = let_go(h, code, why);

    if (how == HD_H2_END_LINGERING)
        hd_hangup(c, times.send_timeout_ms, times.linger);
    else if (how == HD_H2_END_CLOSING)
        hd_conn_close(c, 0);
    else
        hd_conn_reset(c);
}

void hd_h2_server_begin_drain(hd_h2_server_t *h)
{
    if (h->is_draining || h->s.is_ending)
        return;
    h->is_draining = true;
    hd_h2_session_notice(&h->s);
    hd_timer_set(h->s.conn->loop, &h->goodbye, GOODBYE_MS);
}

void hd_h2_server_finish_drain(hd_h2_server_t *h)
{
    if (h->is_final)
        return;
    h->is_final = true;
    hd_timer_stop(h->s.conn->loop, &h->goodbye);
    hd_h2_session_goaway(&h->s, NGHTTP2_NO_ERROR);
    if (h->s.streams == 0)
        hd_h2_server_set_idle_timer(h);
}

static void on_goodbye(hd_timer_t *t)
{
    hd_h2_server_finish_drain(hd_container_of(t, hd_h2_server_t, goodbye));
}

/* The client has closed its side, or reset the conn. Are there requests that go on
 * nevertheless? They are the conn's last, the others lose their client. */
static bool outlives_client(hd_h2_server_t *h, bool may_read, const char *why)
{
    uint32_t n = 0;

    hd_list_each(link, &h->streams)
    {
        hd_req_t *req = hd_list_entry(link, hd_h2_stream_t, link)->req;

        n += req != NULL && hd_request_outlives_client(req);
    }
    if (n == 0)
        return false;
    h->is_draining = h->is_final = true;
    h->in_head = false;
    h->s.is_broken |= !may_read;
    hd_timer_stop(h->s.conn->loop, &h->goodbye);
    hd_list_each(link, &h->streams)
    {
        hd_h2_stream_t *st = hd_list_entry(link, hd_h2_stream_t, link);
        hd_req_t *req = st->req;

        if (req != NULL && hd_request_outlives_client(req)) {
            st->closed |= !may_read;
            continue;
        }
        st->req = NULL;
        if (req != NULL)
            hd_request_client_gone(req, HD_E_RESET, why);
        if (may_read && !st->closed) {
            hd_h2_tunnel_end(st);
            nghttp2_submit_rst_stream(h->s.ng, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
        } else {
            hd_h2_stream_free(st);
        }
    }
    hd_h2_session_flush_later(&h->s);
    return true;
}

static void on_readable(hd_conn_t *c)
{
    hd_h2_server_t *h = c->owner;
    hd_rc_t rc = hd_h2_session_read(&h->s);

    if (rc == HD_DONE && outlives_client(h, true, "client closed the connection"))
        return;
    if (rc == HD_ERROR && c->err != NULL && c->err->code == HD_E_RESET &&
        outlives_client(h, false, "client reset the connection"))
        return;
    if (rc == HD_DONE)
        hd_h2_server_end(h, HD_E_RESET, "client closed the connection",
                         HD_H2_END_LINGERING);
    else if (rc == HD_ERROR)
        hd_h2_server_end(h, c->err != NULL ? c->err->code : HD_E_RESET,
                         c->err != NULL ? c->err->text : "broken", HD_H2_END_RESETTING);
    else if (!hd_h2_session_is_over(&h->s))
        return;
    else if (hd_h2_session_is_peers_fault(&h->s))
        hd_h2_server_end(h, HD_E_PROTOCOL, c->err->text, HD_H2_END_LINGERING);
    else
        hd_h2_server_end(h, HD_E_RESET, "connection ended", HD_H2_END_LINGERING);
}

static void on_writable(hd_conn_t *c)
{
    hd_h2_server_t *h = c->owner;

    hd_h2_session_flush_later(&h->s);
}

static void on_closed(hd_conn_t *c)
{
    if (outlives_client(c->owner, false, "client reset the connection"))
        return;
    hd_h2_server_end(c->owner, HD_E_RESET, "client reset the connection",
                     HD_H2_END_RESETTING);
}

static void on_stale(hd_conn_t *c)
{
    hd_h2_server_begin_drain(c->owner);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    const hd_h2_server_t *h = c->owner;

    if (h->s.streams > 0 || h->in_head || h->timer.at_ns == UINT64_MAX)
        return 0;
    return h->is_draining ? h->born_ns : h->timer.at_ns - h->waits_ms * 1000000;
}

/* The client learns that nothing of it is lost. */
static void on_reuse(hd_conn_t *c)
{
    hd_h2_server_t *h = c->owner;

    hd_h2_session_goaway(&h->s, NGHTTP2_NO_ERROR);
    hd_h2_session_flush(&h->s);
    hd_conn_flush(c);
    hd_conn_close(let_go(h, HD_E_LIMIT, "its place was needed"), 0);
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_reuse,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed};

static void on_due(hd_timer_t *t)
{
    hd_h2_server_t *h = hd_container_of(t, hd_h2_server_t, timer);

    if (h->in_head) { /* a request's head within the time for one */
        if (!h->s.is_ending)
            hd_h2_session_goaway(&h->s, NGHTTP2_ENHANCE_YOUR_CALM);
        h->in_head = false;
        return;
    }
    if (h->s.streams > 0)
        return;
    if (!h->is_draining) {
        hd_h2_server_begin_drain(h);
        return;
    }
    if (!h->is_final) {
        hd_h2_server_finish_drain(h);
        return;
    }
    hd_h2_server_end(h, HD_E_TIMEOUT, "idle",
                     h->s.is_broken ? HD_H2_END_RESETTING : HD_H2_END_LINGERING);
}

static void submit_settings(hd_h2_server_t *h, const hd_http_conf_t *http)
{
    uint32_t stream_window = http != NULL && http->h2_stream_window > 0
                                 ? http->h2_stream_window
                                 : HD_H2_STREAM_WINDOW;
    uint32_t conn_window = http != NULL && http->h2_conn_window > 0 ? http->h2_conn_window
                                                                    : HD_H2_CONN_WINDOW;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, INT32_MAX}, /* see <streams_max> */
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h->head_bytes_max},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}, /* last: left out if not so */
    };
    size_t n = hd_countof(settings) - (http->upgrade_websocket ? 0 : 1);

    h->s.streams_max =
        http != NULL && http->h2_streams > 0 ? http->h2_streams : STREAMS_MAX;
    nghttp2_submit_settings(h->s.ng, NGHTTP2_FLAG_NONE, settings, n);
    nghttp2_session_set_local_window_size(h->s.ng, NGHTTP2_FLAG_NONE, 0,
                                          (int32_t)conn_window);
}

/* Peers that showed who they are have the conn's budget alone, and a larger one: one
 * address of theirs, or one conn between two proxies, may stand for many clients. */
static void set_budget(hd_h2_server_t *h, const hd_http_conf_t *http)
{
    hd_h2_budget_t *b = &h->s.budget;
    const hd_conn_t *c = h->s.conn;
    bool is_known = c->facts != NULL && c->facts->peer_principal.len > 0;

    if (http->h2_budget > 0 || is_known)
        b->max = b->left = http->h2_budget > 0 ? http->h2_budget : HD_H2_CLIENT_BUDGET;
    if (is_known)
        return;
    b->client_max =
        http->h2_client_budget > 0 ? http->h2_client_budget : HD_H2_CLIENT_BUDGET;
    b->clients = http->h2_clients;
    b->client_key = hd_h2_client_key(hd_conn_remote(c));
}

void hd_h2_serve(hd_conn_t *c, const hd_http_entry_t *entry)
{
    static nghttp2_session_callbacks *callbacks;
    const hd_http_conf_t *http = entry->chain->protocol_conf;
    hd_h2_server_t *h = calloc(1, sizeof(*h));

    if (callbacks == NULL)
        callbacks = hd_h2_request_callbacks();
    hd_bug_on(h == NULL || callbacks == NULL);
    h->entry = *entry;
    h->is_xds = http->is_xds;
    h->head_bytes_max = http->head_bytes_max > 0 ? http->head_bytes_max : HEAD_BYTES_MAX;
    h->head_line_max = http->head_line_max > 0 ? http->head_line_max : UINT32_MAX;
    h->fields_max = http->fields_max > 0 ? http->fields_max : HEAD_FIELDS_MAX;
    h->times = hd_http_times(http);
    h->head_timeout_ms =
        http->header_timeout_ms > 0 ? http->header_timeout_ms : HEAD_TIMEOUT_MS;
    if (hd_h2_session_init(&h->s, c, callbacks, true,
                           hd_max(h->head_bytes_max, (uint32_t)65536), h) != HD_OK) {
        hd_http_entry_end(&h->entry, c);
        free(h);
        hd_conn_reset(c);
        return;
    }
    set_budget(h, http);
    h->s.on_out_drained = hd_h2_request_on_drained;
    hd_list_init(&h->streams);
    hd_list_add_last(&conns, &h->link);
    hd_timer_init(&h->timer, on_due);
    hd_timer_init(&h->unwanted, hd_h2_server_on_unwanted);
    hd_timer_init(&h->goodbye, on_goodbye);
    h->born_ns = hd_loop_now_ns(c->loop);
    hd_conn_set_handler(c, &handler, h);
    submit_settings(h, http);
    hd_ping_start(&h->s.ping, http->h2_ping_ms, http->h2_ping_timeout_ms);
    hd_h2_session_flush_later(&h->s);
    hd_h2_server_set_idle_timer(h);
    if (c->is_readable)
        hd_conn_wake(c);
}

static bool is_untold(const hd_h2_server_t *h, const hd_loop_t *loop)
{
    return h->s.conn->loop == loop && !h->is_draining;
}

/* Not in the first round: a conn that is new has its first requests on their way. */
void hd_h2_drain(hd_loop_t *loop, const hd_drain_round_t *round)
{
    size_t n = 0;

    hd_list_each(link, &conns)
    {
        n += is_untold(hd_list_entry(link, hd_h2_server_t, link), loop);
    }
    n = round->no > 0 ? hd_drain_share(round, n) : 0;
    hd_list_each(link, &conns)
    {
        hd_h2_server_t *h = hd_list_entry(link, hd_h2_server_t, link);

        if (n == 0)
            break;
        if (!is_untold(h, loop))
            continue;
        n--;
        hd_h2_server_begin_drain(h);
    }
}
