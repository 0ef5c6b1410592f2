/* A client's HTTP/1 conn, its writing half: heads with framing made anew, bodies as they
 * come or in chunks. */
#include "core/net/hd_overload.h"
#include "http/hd_browser.h"
#include "http/hd_h1_server_int.h"
#include "http/hd_h1_write.h"

static bool may_have_body(const hd_req_t *req)
{
    unsigned status = req->res.status;

    return req->head.method_id != HD_M_HEAD && status >= 200 && status != 204 &&
           status != 304;
}

static void put_framing(hd_h1_server_t *h, hd_h1_writer_t *w, const hd_req_t *req)
{
    int64_t length = req->res.content_length;

    h->response_chunked = false;
    if (!may_have_body(req)) {
        /* what a GET would have had (RFC 9110 §8.6); never with 1xx and 204 */
        if (length >= 0 && req->res.status != 204 && req->res.status >= 200)
            hd_h1_put_length(w, length);
    } else if (length >= 0) {
        hd_h1_put_length(w, length);
    } else if (req->head.version >= HD_HTTP_11 && !req->loc->no_chunked) {
        hd_h1_put_lit(w, "Transfer-Encoding: chunked\r\n");
        h->response_chunked = true;
    } else {
        h->close_after = true; /* HTTP/1.0: the body ends with the conn */
    }
}

/* What the client must know before it sends another request: RFC 9112 §9.6. */
static bool is_last_response(const hd_h1_server_t *h, const hd_req_t *req)
{
    uint32_t max = req->loc->keepalive_requests;

    if (h->close_after || h->idle->is_draining || req->no_keepalive ||
        req->loc->no_keepalive || !req->head.keep_alive || hd_overload_now.saves_memory)
        return true;
    if (max > 0 && h->idle->requests_n >= max)
        return true;
    if (hd_conn_is_older(h->conn, req->loc->keepalive_time_ms))
        return true;
    if (hd_unlikely(req->loc->keepalive_disable != 0) &&
        hd_browser_is_among(req, req->loc->keepalive_disable))
        return true;
    /* A body that nobody asked for may come or not: nothing behind it could be told from
     * it. One that is long isn't read for an answer of ours (413, 403). */
    return h->wants_continue || (req->is_local_reply && h->state == HD_H1S_LENGTH &&
                                 h->left > HD_H1_DISCARD_BYTES_MAX);
}

bool hd_h1_ends_conn(const hd_req_t *req)
{
    const hd_h1_server_t *h = req->client_state;

    return req->response_started ? h->close_after : is_last_response(h, req);
}

/* The timer that runs is that of the settings before a location was found. */
static void time_response(hd_h1_server_t *h, const hd_req_t *req)
{
    const hd_http_loc_t *before = req->http != NULL ? req->http->loc : NULL;

    if (hd_unlikely(before != NULL &&
                    before->send_timeout_ms != req->loc->send_timeout_ms) &&
        h->state == HD_H1S_ANSWER && req->loc->send_timeout_ms > 0)
        hd_conn_set_timer(h->conn, req->loc->send_timeout_ms);
}

/* Who may not know that the conn stays is told so. */
static void put_connection(const hd_h1_server_t *h, hd_h1_writer_t *w,
                           const hd_req_t *req)
{
    uint32_t field_s = req->loc->keepalive_field_s;

    if (h->close_after) {
        hd_h1_put_lit(w, "Connection: close\r\n");
        return;
    }
    if (field_s > 0 || req->head.version == HD_HTTP_10 ||
        hd_headers_get(&req->head.headers, HD_H_CONNECTION) != NULL)
        hd_h1_put_lit(w, "Connection: keep-alive\r\n");
    if (hd_unlikely(field_s > 0)) {
        hd_h1_put_lit(w, "Keep-Alive: timeout=");
        hd_h1_put_u64(w, field_s);
        hd_h1_put(w, "\r\n", 2);
    }
}

void hd_h1_send_head(hd_req_t *req, bool is_interim)
{
    hd_h1_server_t *h = req->client_state;
    hd_chain_t out;
    hd_h1_writer_t w;

    if (is_interim && req->head.version < HD_HTTP_11)
        return; /* RFC 9110 §15.2 */
    if (h->is_lost) {
        h->is_aborted = true;
        hd_conn_wake(h->conn); /* the conn's half ends it, out of this call */
        return;
    }
    hd_chain_init(&out);
    hd_h1_writer_init(&w, &out);
    hd_h1_put_status_line(&w, &req->res);
    if (req->res.status == 101) {
        const hd_field_t *f = hd_headers_get(&req->res.headers, HD_H_UPGRADE);

        hd_h1_put_lit(&w, "Connection: upgrade\r\nUpgrade: ");
        hd_h1_put_str(&w, f != NULL ? f->value : req->head.protocol);
        hd_h1_put(&w, "\r\n", 2);
    } else if (!is_interim) {
        bool is_tunnel =
            req->head.method_id == HD_M_CONNECT && req->res.status / 100 == 2;

        h->close_after = is_last_response(h, req);
        time_response(h, req);
        if (!is_tunnel) {
            put_framing(h, &w, req);
            put_connection(h, &w, req);
        }
    }
    hd_h1_put_fields(&w, &req->res.headers);
    hd_h1_put(&w, "\r\n", 2);
    if (!hd_h1_writer_end(&w)) {
        hd_chain_free(&out);
        h->is_aborted = h->close_after = true;
        hd_conn_wake(h->conn); /* the conn's half ends it, out of this call */
        return;
    }
    if (!is_interim)
        req->head_bytes_sent += out.bytes;
    hd_conn_send(h->conn, &out);
}

void hd_h1_send_body(hd_req_t *req, hd_chain_t *body)
{
    hd_h1_server_t *h = req->client_state;
    size_t content = body->bytes;
    hd_chain_t out;

    hd_chain_init(&out);
    if (!may_have_body(req) || h->is_aborted) { /* nothing follows what is missing */
        hd_chain_free(body);
    } else if (!h->response_chunked) {
        hd_chain_move(&out, body);
    } else if (!hd_h1_try_chunk(&out, body, &req->res_trailers)) {
        hd_chain_free(&out);
        h->is_aborted = h->close_after = true;
        hd_conn_wake(h->conn); /* the conn's half ends it, out of this call */
    } else {
        req->framing_bytes_sent += out.bytes - content;
    }
    hd_conn_send(h->conn, &out);
}

bool hd_h1_is_full(hd_req_t *req)
{
    hd_h1_server_t *h = req->client_state;

    return hd_conn_is_high(h->conn);
}

bool hd_h1_sends_files(hd_req_t *req)
{
    hd_h1_server_t *h = req->client_state;

    return hd_conn_sends_files(h->conn);
}

static void send_continue(hd_h1_server_t *h)
{
    hd_chain_t out;

    h->wants_continue = false;
    hd_chain_init(&out);
    hd_chain_add(&out, NULL, "HTTP/1.1 100 Continue\r\n\r\n", 25, 0);
    hd_conn_send(h->conn, &out);
}

void hd_h1_want_body(hd_req_t *req)
{
    hd_h1_server_t *h = req->client_state;

    if (h->wants_continue && !req->response_started)
        send_continue(h);
    if (!req->body_ended && req->loc->client_body_timeout_ms > 0)
        hd_conn_set_timer(h->conn, req->loc->client_body_timeout_ms);
    if (h->is_paused) {
        h->is_paused = false;
        hd_conn_wake(h->conn);
    }
}
