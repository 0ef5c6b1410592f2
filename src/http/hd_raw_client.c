/* The upstream's side of a tunnel that ends here (HD_ACT_TUNNEL): nothing is spoken on
 * its conn. The one exchange is answered with 200 once the conn is open, and then the conn
 * is given away. */
#include "http/hd_codec.h"

typedef struct {
    hd_upconn_t *up;
    hd_exchange_t *x; /* NULL: none, or it is over */
    bool is_told;     /* of its answer */
} raw_client_t;

static void on_readable(hd_conn_t *c)
{
    raw_client_t *r = c->owner;
    hd_exchange_t *x = r->x;

    if (x == NULL || r->is_told) /* what comes stays unread: it is the taker's */
        return;
    r->is_told = true;
    x->res = (hd_res_head_t){
        .status = 200, .content_length = HD_LEN_UNKNOWN, .version = HD_HTTP_11};
    hd_headers_init(&x->res.headers, x->pool, 4);
    x->upgraded = true;
    x->user->on_head(x);
}

static void on_closed(hd_conn_t *c)
{
    raw_client_t *r = c->owner;
    hd_exchange_t *x = r->x;

    r->x = NULL;
    r->up->draining = true;
    if (x != NULL)
        x->user->on_end(x, HD_XR_RESET, c->err);
    hd_upconn_gone(r->up);
}

static const hd_conn_handler_t handler = {.on_readable = on_readable,
                                          .on_closed = on_closed};

hd_rc_t hd_raw_client_open(hd_upconn_t *u, hd_err_t *err)
{
    raw_client_t *r = hd_pool_new(hd_conn_pool(u->conn), raw_client_t);

    (void)err;
    r->up = u;
    u->_codec = r;
    u->codec = &hd_raw_client;
    u->streams_max = 1;
    hd_conn_set_handler(u->conn, &handler, r);
    return HD_OK;
}

static void send_head(hd_exchange_t *x, hd_req_t *req, bool has_body, int64_t length)
{
    raw_client_t *r = x->upconn->_codec;

    (void)req;
    (void)has_body;
    (void)length;
    r->x = x;
    hd_conn_wake(x->upconn->conn); /* the answer comes out of this call */
}

static void send_body(hd_exchange_t *x, hd_chain_t *body, const hd_headers_t *trailers)
{
    (void)x;
    (void)trailers;
    hd_chain_free(body); /* a CONNECT has none */
}

static bool is_full(hd_exchange_t *x)
{
    (void)x;
    return false;
}

static void pause(hd_exchange_t *x, bool paused)
{
    (void)x;
    (void)paused;
}

/* The conn leaves its pool: with its exchange, or to its taker, until whose end it is
 * counted. */
static void leave(hd_exchange_t *x)
{
    hd_upconn_t *up = x->upconn;

    ((raw_client_t *)up->_codec)->x = NULL;
    up->draining = true;
    hd_upconn_gone(up);
}

static hd_conn_t *take_conn(hd_exchange_t *x)
{
    hd_conn_t *c = x->upconn->conn;

    x->upconn->conn = NULL;
    leave(x);
    return c;
}

const hd_client_codec_t hd_raw_client = {
    .name = "raw",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .pause = pause,
    .cancel = leave,
    .take_conn = take_conn,
};
