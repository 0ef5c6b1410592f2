/* The client's side of HTTP/1: requests out of a conn's bytes, one after the other, and
 * their responses back. Pipelined requests wait in the block until the one before is
 * answered. */
#include "core/base/hd_asan.h"
#include "core/net/hd_clients.h"
#include "http/hd_chars.h"
#include "http/hd_h1_server_int.h"

#include <stdlib.h>

/* Heads may be this long if nothing else is configured; nginx: 4 buffers of 8 KB. */
#define HEAD_BYTES_MAX 32768
#define HEAD_FIELDS_MAX 100
#define TIMEOUT_MS 60000 /* where nothing is configured */
#define FREE_MAX 64
/* Of those that are there already so many are begun in one turn. */
#define PIPELINED_A_TURN 32

static void count_reading(hd_h1_server_t *h, bool is_reading)
{
    if (h->is_reading == is_reading)
        return;
    h->is_reading = is_reading;
    if (is_reading)
        hd_clients_enter(HD_CLIENTS_READING);
    else
        hd_clients_leave(HD_CLIENTS_READING);
}

static const hd_linger_t default_linger = {30000, 5000}; /* nginx's */

/* Some that are free, since each request takes one. */
static hd_h1_server_t *free_servers[FREE_MAX];
static unsigned free_servers_n;

static hd_h1_server_t *wake_up(hd_conn_t *c)
{
    hd_h1_idle_t *idle = c->owner;
    hd_h1_server_t *h = idle->busy;

    if (h != NULL)
        return h;
    h = free_servers_n > 0 ? free_servers[--free_servers_n] : malloc(sizeof(*h));
    hd_bug_on(h == NULL);
    hd_asan_unpoison(h, sizeof(*h));
    *h = (hd_h1_server_t){
        .conn = c, .idle = idle, .bytes_out_seen = UINT64_MAX, .linger = default_linger};
    idle->busy = h;
    return h;
}

static void fall_asleep(hd_h1_server_t *h)
{
    count_reading(h, false);
    hd_h1_input_free(&h->in);
    h->idle->busy = NULL;
    if (free_servers_n == FREE_MAX) {
        free(h);
        return;
    }
    free_servers[free_servers_n++] = h;
    hd_asan_poison(h, sizeof(*h));
}

static void free_owner(hd_conn_t *c)
{
    hd_h1_idle_t *idle = c->owner;

    if (idle->busy != NULL)
        fall_asleep(idle->busy);
    hd_http_entry_end(&idle->entry, c);
    hd_conn_set_timer(c, 0);
    free(idle);
}

/* Ends the conn; <linger>: what is queued still goes out. */
static void end_idle(hd_conn_t *c, bool linger)
{
    const hd_h1_idle_t *idle = c->owner;
    uint64_t send_timeout_ms = idle->send_timeout_ms;
    hd_linger_t how = idle->busy != NULL ? idle->busy->linger : default_linger;

    free_owner(c);
    if (linger)
        hd_hangup(c, send_timeout_ms, how);
    else
        hd_conn_reset(c);
}

static void end_conn(hd_h1_server_t *h, bool linger)
{
    hd_bug_on(h->req != NULL);
    end_idle(h->conn, linger);
}

/* 0: no bound. */
static void set_timer(hd_h1_server_t *h, uint64_t ms)
{
    hd_conn_set_timer(h->conn, ms);
}

/* The client is gone or broke the protocol: the request ends by itself. */
static void lose_client(hd_h1_server_t *h, hd_err_code_t code, const char *why)
{
    hd_req_t *req = h->req;

    h->req = NULL;
    h->state = HD_H1S_GONE;
    if (req != NULL)
        hd_request_client_gone(req, code, why);
    end_conn(h, false);
}

/* The head of the next request may come, or is there already. */
static void await_head(hd_h1_server_t *h)
{
    h->in.scan_from = 0;
    h->is_head_timed = false;
    if (hd_h1_input_has_bytes(&h->in)) {
        h->state = HD_H1S_HEAD;
        return;
    }
    h->state = HD_H1S_IDLE;
    hd_h1_input_drop_block(&h->in);
    hd_conn_trim(h->conn);
    set_timer(h, h->idle->idle_timeout_ms);
}

static const hd_http_conf_t *http_conf(hd_h1_server_t *h)
{
    return hd_http_entry_refresh(&h->idle->entry, h->conn);
}

/* on_finished follows and ends the conn. */
static void abort_response(hd_req_t *req, uint32_t h2_error)
{
    hd_h1_server_t *h = req->client_state;

    (void)h2_error;
    h->is_aborted = h->close_after = true;
}

static bool is_framed(const hd_h1_server_t *h, const hd_req_t *req)
{
    return h->response_chunked || req->res.content_length >= 0;
}

/* The client must see that its response isn't whole: by its framing, or else by a reset.
 */
static void cut_response(hd_h1_server_t *h, const hd_req_t *req)
{
    bool is_444 = !req->response_started && req->res.status == 444;

    hd_conn_flush(h->conn); /* what there is of it */
    end_conn(h,
             is_framed(h, req) && !(is_444 && req->loc->timedout == HD_TIMEDOUT_RESETS));
}

/* The client took too long over its request or our answer. */
static void lose_slow_client(hd_h1_server_t *h, const char *why)
{
    hd_req_t *req = h->req;
    hd_conn_t *c = h->conn;

    if (req == NULL || req->loc->timedout != HD_TIMEDOUT_CLOSES ||
        (req->response_started && !is_framed(h, req))) {
        lose_client(h, HD_E_TIMEOUT, why);
        return;
    }
    h->req = NULL;
    h->state = HD_H1S_GONE;
    hd_request_client_gone(req, HD_E_TIMEOUT, why);
    free_owner(c);
    hd_conn_close(c, 0);
}

/* The next request is there already: of many the next turn's. */
static void go_on(const hd_h1_server_t *h)
{
    if (h->idle->requests_n % PIPELINED_A_TURN == 0)
        hd_conn_yield(h->conn);
    else
        hd_conn_wake(h->conn);
}

/* How long the conn may wait for the next request. */
static uint64_t idle_ms_of(const hd_req_t *req)
{
    const hd_h1_server_t *h = req->client_state;
    const hd_http_conf_t *http = req->http;
    uint64_t duration_ms = http != NULL && http->is_xds && http->max_conn_duration_ms > 0
                               ? http->max_conn_duration_ms + http->drain_timeout_ms
                               : 0;

    return hd_http_idle_ms(h->conn, req->loc->keepalive_timeout_ms, duration_ms);
}

/* The request is over: on to the next one, or the conn ends. A body that the client is
 * still sending is read and dropped if that is cheaper than a new conn, for as long as
 * the conn would linger otherwise. */
static void on_finished(hd_req_t *req)
{
    hd_h1_server_t *h = req->client_state;
    uint32_t patience_ms;

    h->req = NULL;
    h->is_paused = false;
    h->linger = hd_linger_of(req->loc);
    patience_ms = h->linger.gap_ms > 0 ? h->linger.gap_ms : h->linger.time_ms;
    h->idle->send_timeout_ms = hd_ms32(req->loc->send_timeout_ms);
    h->idle->idle_timeout_ms = hd_ms32(idle_ms_of(req));
    h->idle->min_idle_s =
        (uint16_t)hd_min((req->loc->keepalive_min_ms + 999) / 1000, (uint64_t)UINT16_MAX);
    if (h->state == HD_H1S_ANSWER && !h->close_after) {
        await_head(h);
        h->is_pipelined = h->in.from < h->in.to;
        if (h->is_pipelined || h->conn->is_readable || h->conn->peer_closed)
            go_on(h);
        else
            fall_asleep(h);
        return;
    }
    if (!h->close_after && !h->wants_continue && patience_ms > 0 &&
        (h->state == HD_H1S_CHUNKED ||
         (h->state == HD_H1S_LENGTH && h->left <= HD_H1_DISCARD_BYTES_MAX))) {
        h->discards = true;
        set_timer(h, patience_ms);
        h->left = h->state == HD_H1S_LENGTH ? h->left : 0;
        hd_conn_wake(h->conn);
        return;
    }
    if (h->is_lost)
        end_conn(h, false);
    else if (h->is_aborted)
        cut_response(h, req);
    else
        end_conn(h, true);
}

static hd_conn_t *take_conn(hd_req_t *req)
{
    hd_h1_server_t *h = req->client_state;
    hd_conn_t *c = h->conn;

    if (h->in.from < h->in.to)
        hd_conn_unread(c, h->in.block, h->in.block->data + h->in.from,
                       h->in.to - h->in.from);
    h->req = NULL;
    free_owner(c);
    return c;
}

static const hd_client_ops_t client_ops = {
    .name = "http/1",
    .send_head = hd_h1_send_head,
    .send_body = hd_h1_send_body,
    .is_full = hd_h1_is_full,
    .sends_files = hd_h1_sends_files,
    .want_body = hd_h1_want_body,
    .abort = abort_response,
    .on_finished = on_finished,
    .ends_conn = hd_h1_ends_conn,
    .take_conn = take_conn,
};

/* --- the request --- */

static uint64_t send_timeout_of(const hd_req_t *req)
{
    return req->loc->send_timeout_ms > 0 ? req->loc->send_timeout_ms : TIMEOUT_MS;
}

/* Of a request, or of what is left of one that is over. */
static uint64_t body_timeout_of(const hd_h1_server_t *h)
{
    return h->req != NULL ? h->req->loc->client_body_timeout_ms : TIMEOUT_MS;
}

static size_t head_bytes_max(const hd_http_conf_t *http)
{
    return http != NULL && http->head_bytes_max > 0 ? http->head_bytes_max
                                                    : HEAD_BYTES_MAX;
}

static unsigned status_of(hd_h1_rc_t rc)
{
    switch (rc) {
    case HD_H1_VERSION:
        return 505;
    case HD_H1_TE:
        return 501;
    case HD_H1_OLD:
        return 426;
    default:
        return 400;
    }
}

static void begin_body(hd_h1_server_t *h, const hd_req_t *req)
{
    h->wants_continue = req->head.expects_continue && h->in.from == h->in.to;
    h->is_paused = h->discards = false;
    if (!req->head.has_body) {
        h->state = HD_H1S_ANSWER;
    } else if (req->head.content_length == HD_LEN_UNKNOWN) {
        h->state = HD_H1S_CHUNKED;
        h->chunked = (hd_chunked_t){0};
    } else {
        h->state = HD_H1S_LENGTH;
        h->left = (uint64_t)req->head.content_length;
    }
}

/* By xDS: Envoy's accept_http_10 and default_host_for_http_10. */
static hd_h1_rc_t check_version(const hd_http_conf_t *http, hd_req_head_t *head,
                                const char **why)
{
    if (hd_likely(head->version != HD_HTTP_10 || !http->is_xds))
        return HD_H1_OK;
    if (!http->accepts_http10) {
        *why = "HTTP/1.0, and accept_http_10 isn't set";
        return HD_H1_OLD;
    }
    if (head->authority.len == 0)
        head->authority = http->http10_host;
    if (head->authority.len > 0)
        return HD_H1_OK;
    *why = "no Host, and no default_host_for_http_10";
    return HD_H1_BAD;
}

/* True: a request was begun, go on with its body. */
static bool read_head(hd_h1_server_t *h)
{
    const hd_http_conf_t *http = http_conf(h);
    hd_h1_limits_t limits;
    const char *why = "";
    size_t head_len = 0, used = 0, scan_again;
    hd_str_t bytes;
    hd_h1_rc_t rc;
    hd_req_t *req;

    if (http == NULL) { /* the listener is gone or has other TLS settings now */
        end_conn(h, true);
        return false;
    }
    hd_h1_input_skip_empty_lines(&h->in);
    bytes = hd_h1_input_bytes(&h->in);
    limits = hd_http_limits(http, HEAD_BYTES_MAX, HEAD_FIELDS_MAX);
    rc = hd_h1_scan_head(bytes, &h->in.scan_from, limits.bytes_max, &head_len, &why);
    count_reading(h, rc == HD_H1_MORE && bytes.len > 0);
    if (rc == HD_H1_MORE)
        return false;

    req = hd_request_create(h->conn, h->conn->loop, hd_loop_member(h->conn->loop),
                            &client_ops, h);
    h->req = req;
    req->is_pipelined = h->is_pipelined;
    req->head.scheme = hd_tls_is_on(h->conn) ? HD_STR("https") : HD_STR("http");
    req->conn_requests = ++h->idle->requests_n;
    scan_again = h->in.scan_from; /* where the end was found */
    h->in.scan_from = 0;
    if (rc == HD_H1_OK || rc == HD_H1_TOO_LONG)
        rc = hd_h1_parse_request(bytes, &scan_again, &limits, req->pool, &req->head,
                                 &used, &why);
    if (rc == HD_H1_OK)
        rc = check_version(http, &req->head, &why);
    if (rc == HD_H1_OK && !hd_h1_input_hold_head(&h->in, req->pool, used))
        rc = HD_H1_TOO_LONG;
    if (rc == HD_H1_OK && hd_http_take_path(req, http) != HD_OK) {
        rc = HD_H1_BAD;
        why = "bad path";
    }
    if (rc != HD_H1_OK) {
        if (h->in.block != NULL) /* what was read of it is still asked for */
            hd_h1_input_hold_block(&h->in, req->pool);
        if (req->head.raw_path.len > 0 && req->head.path.len == 0)
            hd_ignore(hd_http_take_path(req, http));
        hd_request_set_entry(req, &h->idle->entry);
        hd_http_entry_let_go(&h->idle->entry, h->conn);
        h->close_after = true;
        h->state = HD_H1S_ANSWER;
        hd_request_reject(req,
                          rc == HD_H1_TOO_LONG
                              ? hd_h1_say_limit(req, http->is_xds, bytes, &limits)
                              : status_of(rc),
                          why);
        return false;
    }
    req->head_bytes_received = used;
    hd_headers_mark_hops(&req->head.headers);
    /* what follows a CONNECT may be meant for the tunnel that isn't made */
    req->no_keepalive = req->head.method_id == HD_M_CONNECT;
    begin_body(h, req);
    hd_request_start(req, &h->idle->entry); /* its steps run later */
    hd_http_entry_let_go(&h->idle->entry, h->conn);
    h->idle->is_draining |= h->idle->entry.is_old;
    set_timer(h, h->state == HD_H1S_ANSWER ? send_timeout_of(req)
                                           : req->loc->client_body_timeout_ms);
    return h->req == req;
}

static void give_body(hd_h1_server_t *h, hd_str_t bytes, unsigned flags)
{
    hd_chain_t body;

    if (h->req == NULL) /* discarded */
        return;
    hd_chain_init(&body);
    hd_chain_add(&body, bytes.len > 0 ? h->in.block : NULL, bytes.data, bytes.len, flags);
    hd_request_give_body(h->req, &body);
    hd_chain_free(&body);
}

/* The request's last byte was read. */
static bool end_body(hd_h1_server_t *h, unsigned flags)
{
    if (h->discards) {
        h->discards = false;
        await_head(h);
        return true;
    }
    h->state = HD_H1S_ANSWER;
    set_timer(h, send_timeout_of(h->req));
    give_body(h, HD_STR_NONE, HD_SLICE_END | flags);
    return false;
}

static void refuse_body(hd_h1_server_t *h, const char *why)
{
    hd_req_t *req = h->req;

    h->close_after = true;
    if (req == NULL) {
        end_conn(h, true);
    } else if (req->response_started) {
        lose_client(h, HD_E_PROTOCOL, why);
    } else {
        h->state = HD_H1S_ANSWER;
        hd_request_reject(req, 400, why);
    }
}

static bool read_length(hd_h1_server_t *h)
{
    hd_str_t bytes = {h->in.block->data + h->in.from,
                      hd_min(h->left, (uint64_t)(h->in.to - h->in.from))};
    hd_req_t *req = h->req;

    h->in.from += (uint32_t)bytes.len;
    h->left -= bytes.len;
    if (h->left > 0) {
        give_body(h, bytes, 0);
        return h->req == req && h->state == HD_H1S_LENGTH;
    }
    if (h->discards)
        return end_body(h, 0);
    h->state = HD_H1S_ANSWER;
    set_timer(h, send_timeout_of(h->req));
    give_body(h, bytes, HD_SLICE_END);
    return false;
}

static bool read_chunked(hd_h1_server_t *h)
{
    hd_str_t bytes = {h->in.block->data + h->in.from, h->in.to - h->in.from}, content;
    hd_req_t *req = h->req;
    const char *why = "";
    size_t used = 0;
    hd_h1_rc_t rc = hd_chunked_next(&h->chunked, bytes, &content, &used, &why);

    if (rc == HD_H1_BAD) {
        refuse_body(h, why);
        return false;
    }
    h->in.from += (uint32_t)used;
    if (req != NULL)
        req->head_bytes_received += used - content.len;
    if (h->discards && (h->left += content.len) > HD_H1_DISCARD_BYTES_MAX) {
        end_conn(h, true);
        return false;
    }
    if (rc == HD_H1_OK)
        h->state = HD_H1S_TRAILERS;
    if (content.len > 0) {
        give_body(h, content, 0);
        if (h->req != req)
            return false;
    }
    return h->state == HD_H1S_CHUNKED || h->state == HD_H1S_TRAILERS;
}

static bool read_trailers(hd_h1_server_t *h)
{
    hd_str_t bytes = {h->in.block->data + h->in.from, h->in.to - h->in.from};
    hd_h1_limits_t limits = {.bytes_max = 8192, .fields_max = 50, .underscores = true};
    hd_pool_t *pool = h->req != NULL ? h->req->pool : hd_pool_create(0);
    hd_headers_t unused, *trailers = h->req != NULL ? &h->req->trailers : &unused;
    const char *why = "";
    size_t used = 0;
    hd_h1_rc_t rc = hd_h1_parse_trailers(bytes, &limits, pool, trailers, &used, &why);
    bool has_any = rc == HD_H1_OK && trailers->n > 0;

    if (h->req == NULL)
        hd_pool_destroy(pool);
    if (rc == HD_H1_MORE)
        return false;
    if (rc != HD_H1_OK) {
        refuse_body(h, why);
        return false;
    }
    h->in.from += (uint32_t)used;
    if (h->req != NULL)
        h->req->head_bytes_received += used;
    if (has_any && h->req != NULL)
        hd_h1_input_hold_block(&h->in, h->req->pool);
    return end_body(h, has_any ? HD_SLICE_TRAILERS : 0);
}

static bool (*const readers[])(hd_h1_server_t *h) = {
    [HD_H1S_IDLE] = read_head,
    [HD_H1S_HEAD] = read_head,
    [HD_H1S_LENGTH] = read_length,
    [HD_H1S_CHUNKED] = read_chunked,
    [HD_H1S_TRAILERS] = read_trailers,
    [HD_H1S_ANSWER] = NULL,
    [HD_H1S_GONE] = NULL,
};

/* Must what was received wait? No request is begun for a client that lets its last
 * answers lie: they would become more without end. */
static bool is_full(const hd_h1_server_t *h)
{
    return h->req != NULL ? hd_request_is_full(h->req) : hd_conn_is_high(h->conn);
}

/* Consumes what was received as far as it goes; <h> may be gone afterwards. */
static void process(hd_h1_server_t *h)
{
    while (hd_h1_input_has_bytes(&h->in) && readers[h->state] != NULL) {
        if (is_full(h)) {
            h->is_paused = true;
            return;
        }
        if (!readers[h->state](h))
            return;
    }
}

static uint64_t header_timeout_of(hd_h1_server_t *h)
{
    const hd_http_conf_t *http = http_conf(h);

    return http != NULL && http->header_timeout_ms > 0 ? http->header_timeout_ms
                                                       : TIMEOUT_MS;
}

/* A head has its time from its first byte on. */
static void time_head(hd_h1_server_t *h)
{
    if (h->state != HD_H1S_HEAD || h->is_head_timed)
        return;
    if (h->is_paused) { /* it isn't the head that is late */
        set_timer(h, h->idle->send_timeout_ms);
        return;
    }
    h->is_head_timed = true;
    set_timer(h, header_timeout_of(h));
}

/* Nothing more comes. The answers that are still queued may well be read. */
static void on_end_of_stream(hd_h1_server_t *h)
{
    if (h->state == HD_H1S_IDLE) {
        end_conn(h, true);
        return;
    }
    if (h->state == HD_H1S_ANSWER) /* half-closed: it may still read our answer */
        h->close_after = true;
    else
        lose_client(h, HD_E_RESET, "client closed the connection within its request");
}

static void on_readable(hd_conn_t *c)
{
    hd_h1_idle_t *idle = c->owner;
    hd_h1_server_t *h = wake_up(c);
    bool was_answering = h->state == HD_H1S_ANSWER;
    size_t got = 0;

    if (h->is_aborted && h->req != NULL) {
        lose_client(h, h->is_lost ? HD_E_RESET : HD_E_LIMIT,
                    h->is_lost ? "the client had gone before"
                               : "no memory for the response");
        return;
    }
    if (h->state == HD_H1S_ANSWER && c->peer_closing && h->req != NULL &&
        hd_request_ends_with_client(h->req)) {
        lose_client(h, HD_E_RESET, "client closed the connection");
        return;
    }
    if (hd_h1_input_has_bytes(&h->in)) { /* pipelined, or left over from a pause */
        process(h);
        if (c->owner != idle || c->state >= HD_CONN_CLOSING)
            return;
    }
    while (h->state != HD_H1S_ANSWER && !h->is_paused && c->is_readable) {
        ssize_t n;

        if (got >= HD_CONN_TURN_BYTES) {
            hd_conn_yield(c);
            break;
        }
        n = hd_h1_input_receive(
            &h->in, c, h->state <= HD_H1S_HEAD ? head_bytes_max(http_conf(h)) : 0);
        if (n == HD_IO_AGAIN)
            break;
        if (n == HD_IO_ERROR) {
            lose_client(h, HD_E_RESET, "client reset the connection");
            return;
        }
        if (n == 0) {
            on_end_of_stream(h);
            return;
        }
        got += (size_t)n;
        if (h->state == HD_H1S_IDLE)
            h->state = HD_H1S_HEAD;
        else if (h->state != HD_H1S_HEAD)
            set_timer(h, body_timeout_of(h));
        process(h);
        if (c->owner != idle || c->state >= HD_CONN_CLOSING)
            return;
    }
    if (h->state == HD_H1S_HEAD && !hd_h1_input_has_bytes(&h->in))
        await_head(h); /* it was but an empty line */
    if (h->state == HD_H1S_IDLE) {
        fall_asleep(h);
        return;
    }
    time_head(h);
    /* The end came along with the request, and no other event will: looked at again once
     * the request has begun. */
    if (h->state == HD_H1S_ANSWER && !was_answering && c->peer_closing)
        hd_conn_wake(c);
}

static void on_writable(hd_conn_t *c)
{
    hd_h1_server_t *h = ((hd_h1_idle_t *)c->owner)->busy;

    if (h != NULL && h->req != NULL) {
        hd_request_on_drained(h->req);
    } else if (h != NULL && h->is_paused) {
        h->is_paused = false;
        hd_conn_wake(c);
    }
}

static void on_closed(hd_conn_t *c)
{
    hd_h1_server_t *h = wake_up(c);

    if (h->state == HD_H1S_ANSWER && h->req != NULL &&
        hd_request_outlives_client(h->req)) {
        h->is_lost = h->close_after = true;
        set_timer(h, 0);
    } else {
        lose_client(h, HD_E_RESET, "client reset the connection");
    }
}

static bool is_idle(const hd_h1_idle_t *idle)
{
    return idle->busy == NULL || idle->busy->state == HD_H1S_IDLE;
}

/* Since when it idles; 0: it doesn't. */
static uint64_t idle_from(const hd_conn_t *c)
{
    const hd_h1_idle_t *idle = c->owner;
    uint64_t due_ns = hd_conn_due_ns(c);

    if (!is_idle(idle))
        return 0;
    return due_ns == UINT64_MAX ? c->opened_ns
                                : due_ns - (uint64_t)idle->idle_timeout_ms * 1000000;
}

/* How long it is to be kept yet whoever needs its place: keepalive_min_timeout. */
static uint64_t kept_ms(const hd_conn_t *c)
{
    const hd_h1_idle_t *idle = c->owner;
    uint64_t until_ns;

    if (hd_likely(idle->min_idle_s == 0))
        return 0;
    until_ns = idle_from(c) + (uint64_t)idle->min_idle_s * 1000000000;
    return until_ns <= hd_loop_now_ns(c->loop)
               ? 0
               : (until_ns - hd_loop_now_ns(c->loop)) / 1000000 + 1;
}

static void end_if_idle(hd_conn_t *c)
{
    hd_h1_idle_t *idle = c->owner;
    uint64_t ms;

    if (!is_idle(idle) || c->is_readable)
        return;
    ms = kept_ms(c);
    if (ms == 0) {
        end_idle(c, true);
        return;
    }
    idle->idle_timeout_ms = (uint32_t)idle->min_idle_s * 1000; /* idle_from stays true */
    hd_conn_set_timer(c, ms);
}

static void on_stale(hd_conn_t *c)
{
    ((hd_h1_idle_t *)c->owner)->is_draining = true;
    end_if_idle(c);
}

static uint64_t idle_since(const hd_conn_t *c)
{
    return kept_ms(c) > 0 ? 0 : idle_from(c);
}

static void on_reuse(hd_conn_t *c)
{
    free_owner(c);
    hd_conn_close(c, 0);
}

/* The client takes what we send, or there is nothing to be taken. */
static bool is_taking(hd_h1_server_t *h)
{
    bool is_stuck =
        !hd_chain_is_empty(&h->conn->out) && h->conn->bytes_out == h->bytes_out_seen;

    h->bytes_out_seen = h->conn->bytes_out;
    return !is_stuck;
}

static void on_head_timeout(hd_h1_server_t *h)
{
    hd_req_t *req = hd_request_create(h->conn, h->conn->loop,
                                      hd_loop_member(h->conn->loop), &client_ops, h);

    count_reading(h, false);
    h->close_after = true;
    h->state = HD_H1S_ANSWER;
    h->req = req;
    req->start_ns -= header_timeout_of(h) * 1000000; /* refreshes the entry, too */
    hd_request_set_entry(req, &h->idle->entry);
    hd_http_entry_let_go(&h->idle->entry, h->conn);
    set_timer(h, send_timeout_of(req));
    hd_request_reject(req, 408, "client timed out while sending its request head");
}

static void on_body_timeout(hd_h1_server_t *h)
{
    hd_req_t *req = h->req;

    h->close_after = true;
    if (req == NULL) {
        end_conn(h, true);
    } else if (req->response_started) {
        lose_slow_client(h, "client timed out while sending its request body");
    } else {
        h->state = HD_H1S_ANSWER;
        set_timer(h, send_timeout_of(req));
        hd_request_reject(req, 408, "client timed out while sending its request body");
    }
}

/* What it means depends on what we waited for. */
static void on_due(hd_conn_t *c)
{
    hd_h1_server_t *h = wake_up(c);

    switch (h->state) {
    case HD_H1S_HEAD:
        if (!h->is_paused) {
            on_head_timeout(h);
            return;
        }
        break;
    case HD_H1S_LENGTH:
    case HD_H1S_CHUNKED:
    case HD_H1S_TRAILERS:
        if (!h->is_paused) {
            on_body_timeout(h);
            return;
        }
        break; /* we wait for the upstream, or for the client to read */
    case HD_H1S_IDLE:
        if (hd_chain_is_empty(&h->conn->out)) {
            end_conn(h, true);
            return;
        }
        break;
    default:
        break;
    }
    if (is_taking(h))
        set_timer(h, h->req != NULL ? send_timeout_of(h->req) : h->idle->send_timeout_ms);
    else
        lose_slow_client(h, "client doesn't read its response");
}

static const hd_conn_handler_t handler = {.on_stale = on_stale,
                                          .idle_since = idle_since,
                                          .on_reuse = on_reuse,
                                          .on_readable = on_readable,
                                          .on_writable = on_writable,
                                          .on_closed = on_closed,
                                          .on_due = on_due};

void hd_h1_serve(hd_conn_t *c, const hd_http_entry_t *entry)
{
    const hd_http_conf_t *http = entry->chain->protocol_conf;
    hd_h1_idle_t *idle = malloc(sizeof(*idle));
    uint64_t timeout_ms =
        http->header_timeout_ms > 0 ? http->header_timeout_ms : TIMEOUT_MS;

    hd_bug_on(idle == NULL);
    *idle = (hd_h1_idle_t){.entry = *entry,
                           .send_timeout_ms = TIMEOUT_MS,
                           .idle_timeout_ms = hd_ms32(timeout_ms)};
    hd_conn_set_handler(c, &handler, idle);
    hd_conn_set_timer(c, timeout_ms);
}

typedef struct {
    const hd_drain_round_t *round;
    size_t n; /* not told yet */
} draining_t;

/* HTTP/1 has no word for an idle conn. So one that was told has a while for a request,
 * whose response says Connection: close (RFC 9112 §9.6): a client that is about to send
 * one is not cut off. */
static void end_or_count(hd_conn_t *c, void *arg)
{
    draining_t *d = arg;
    hd_h1_idle_t *idle = c->owner;

    if (c->handler != &handler)
        return;
    if (!idle->is_draining) {
        d->n++;
        return;
    }
    if (idle->told_rounds < UINT8_MAX)
        idle->told_rounds++;
    if (idle->told_rounds >= d->round->patience)
        end_if_idle(c);
}

static void tell_one(hd_conn_t *c, void *arg)
{
    draining_t *d = arg;
    hd_h1_idle_t *idle = c->owner;

    if (d->n == 0 || c->handler != &handler || idle->is_draining)
        return;
    idle->is_draining = true;
    d->n--;
}

void hd_h1_drain(hd_loop_t *loop, const hd_drain_round_t *round)
{
    draining_t d = {.round = round};

    hd_conns_each(loop, end_or_count, &d);
    d.n = hd_drain_share(round, d.n);
    hd_conns_each(loop, tell_one, &d);
}
