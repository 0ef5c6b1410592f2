/* Variables of the upstream side. One value a try, as nginx has it: "a, b". */
#include "http/hd_http_attrs_int.h"
#include "http/hd_request_int.h"
#include "http/hd_try.h"

typedef hd_str_t (*try_text_pt)(of_t *of, const hd_try_t *t);

static hd_str_t each_try(of_t *of, const hd_try_t *t, try_text_pt text)
{
    hd_str_t earlier, own;

    if (t == NULL)
        return HD_STR_NONE;
    own = text(of, t);
    if (own.len == 0)
        own = HD_STR("-");
    earlier = each_try(of, t->next, text);
    if (earlier.len == 0)
        return own;
    /* an internal redirection leads to another group, behind a colon */
    return hd_str_printf(of->pool, "%.*s%s%.*s", HD_STR_ARG(earlier),
                         t->next->proxy == t->proxy ? ", " : " : ", HD_STR_ARG(own));
}

static hd_str_t addr_of_try(of_t *of, const hd_try_t *t)
{
    char text[HD_ADDR_TEXT_MAX];

    if (t->pick.addr.family == AF_UNSPEC)
        return HD_STR_NONE;
    return hd_str_dup(of->pool, hd_addr_print(&t->pick.addr, text));
}

/* Without an answer: what nginx counts it as. */
static hd_str_t status_of_try(of_t *of, const hd_try_t *t)
{
    unsigned status = t->status;

    if (status == 0 && t->step == HD_TRY_STEP_END && t->result != HD_RESULT_CANCELLED)
        status = t->result == HD_RESULT_TIMEOUT ? 504 : 502;
    return status == 0 ? HD_STR_NONE : hd_str_printf(of->pool, "%u", status);
}

static hd_str_t since_start(of_t *of, const hd_try_t *t, uint64_t at_ns)
{
    return at_ns == 0 ? HD_STR_NONE : hd_attr_seconds(of->pool, at_ns - t->start_ns);
}

static hd_str_t connect_time_of(of_t *of, const hd_try_t *t)
{
    return since_start(of, t, t->connected_ns);
}

static hd_str_t header_time_of(of_t *of, const hd_try_t *t)
{
    return since_start(of, t, t->head_ns);
}

static hd_str_t response_time_of(of_t *of, const hd_try_t *t)
{
    return since_start(of, t, t->end_ns); /* "-" while it comes */
}

static hd_str_t response_length_of(of_t *of, const hd_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->body_bytes);
}

/* Its conn, while it goes on; NULL. */
static const hd_conn_t *conn_of_try(const hd_try_t *t)
{
    return t->x != NULL && t->x->upconn != NULL ? t->x->upconn->conn : NULL;
}

static hd_str_t bytes_received_of(of_t *of, const hd_try_t *t)
{
    const hd_conn_t *c = conn_of_try(t);
    uint64_t n = c != NULL ? c->bytes_in - t->conn_in : t->bytes_received;

    return hd_str_printf(of->pool, "%llu", (unsigned long long)n);
}

/* While it goes on: 0, as in nginx. */
static hd_str_t bytes_sent_of(of_t *of, const hd_try_t *t)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)t->bytes_sent);
}

#define GET_EACH_TRY(name, text)                                                         \
    GET(name)                                                                            \
    {                                                                                    \
        UNUSED_REST;                                                                     \
        hd_val_set_if_any(out, each_try(of, of->req->tries, text));                      \
    }

GET_EACH_TRY(upstream_addr, addr_of_try)
GET_EACH_TRY(upstream_status, status_of_try)
GET_EACH_TRY(upstream_response_length, response_length_of)
GET_EACH_TRY(upstream_bytes_received, bytes_received_of)
GET_EACH_TRY(upstream_bytes_sent, bytes_sent_of)
GET_EACH_TRY(upstream_connect_time, connect_time_of)
GET_EACH_TRY(upstream_header_time, header_time_of)
GET_EACH_TRY(upstream_response_time, response_time_of)

GET(upstream_last_addr)
{
    UNUSED_REST;
    if (of->req->tries != NULL)
        hd_val_set_if_any(out, addr_of_try(of, of->req->tries));
}

/* As `server` says it. */
GET(upstream_last_server_name)
{
    const hd_try_t *t = of->req->tries;

    UNUSED_REST;
    if (t != NULL && t->is_picked && t->pick.endpoint != NULL)
        hd_val_set_if_any(out, t->pick.endpoint->hostname);
}

GET(upstream_cluster)
{
    UNUSED_REST;
    hd_val_set_if_any(out, of->req->cluster_name);
}

/* What proxy_pass of the location names, or its variables do. */
static hd_str_t proxy_host_of(const hd_req_t *req)
{
    if (req->route == NULL || req->route->proxy == NULL)
        return HD_STR_NONE;
    return req->target != NULL && req->target->cluster != NULL ? req->target->cluster_name
                                                               : req->cluster_name;
}

GET(proxy_host)
{
    UNUSED_REST;
    hd_val_set_if_any(out, proxy_host_of(of->req));
}

GET(proxy_port)
{
    hd_str_t name = proxy_host_of(of->req);
    ssize_t at = hd_str_find_char(name, ':');

    UNUSED_REST;
    if (name.len > 0)
        hd_val_set_str(out, at < 0 ? HD_STR("80")
                                   : hd_str_sub(name, (size_t)at + 1, name.len));
}

GET(upstream_cache_status)
{
    UNUSED_REST;
    (void)out;
}

const hd_attr_def_t hd_http_attrs_upstream[] = {
    A("upstream_addr", upstream_addr, HD_VAL_STR, R, "addresses tried"),
    A("upstream_last_addr", upstream_last_addr, HD_VAL_STR, R,
      "address of the server that is asked, or was asked last"),
    A("upstream_last_server_name", upstream_last_server_name, HD_VAL_STR, R,
      "name of that server, as `server` says it"),
    A("upstream_status", upstream_status, HD_VAL_STR, R, "statuses of the tries"),
    A("upstream_connect_time", upstream_connect_time, HD_VAL_STR, R, "seconds, each try"),
    A("upstream_response_length", upstream_response_length, HD_VAL_STR, R,
      "bytes of the upstreams' bodies"),
    A("upstream_bytes_received", upstream_bytes_received, HD_VAL_STR, R,
      "bytes that came from the upstreams"),
    A("upstream_bytes_sent", upstream_bytes_sent, HD_VAL_STR, R,
      "bytes that went to the upstreams"),
    A("upstream_header_time", upstream_header_time, HD_VAL_STR, R, "seconds, each try"),
    A("upstream_response_time", upstream_response_time, HD_VAL_STR, R, "the same"),
    A("upstream_cluster", upstream_cluster, HD_VAL_STR, R, "name of the cluster"),
    A("proxy_host", proxy_host, HD_VAL_STR, R, "name and port in proxy_pass"),
    A("proxy_port", proxy_port, HD_VAL_STR, R, "port in proxy_pass"),
    A("upstream_cache_status", upstream_cache_status, HD_VAL_STR, R, "empty: no cache"),
    {0},
};
