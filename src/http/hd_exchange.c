#include "http/hd_codec.h"

hd_exchange_t *hd_exchange_begin(hd_upconn_t *u, hd_pool_t *pool,
                                 const hd_exchange_user_t *user, void *owner)
{
    hd_exchange_t *x;

    if (u->draining || u->active >= u->streams_max)
        return NULL;
    x = hd_pool_new(pool, hd_exchange_t);
    x->user = user;
    x->owner = owner;
    x->upconn = u;
    x->pool = pool;
    x->heard = u->conn->bytes_in;
    x->is_reused_conn = u->exchanges > 0 || u->idle_ms > 0;
    u->active++;
    u->exchanges++;
    return x;
}

void hd_exchange_timed_out(hd_exchange_t *x)
{
    hd_upconn_t *u = x->upconn;

    if (u->streams_max > 1 && u->conn != NULL && u->conn->bytes_in == x->heard)
        u->draining = true;
}

void hd_exchange_too_large(hd_err_t *err, size_t bytes_max, unsigned fields_max,
                           hd_str_t name)
{
    hd_ignore(hd_err_set(err, HD_E_PROTOCOL,
                         "upstream sent too big header while reading response header "
                         "from upstream: more than %zu bytes (proxy_buffer_size), or "
                         "more than %u fields; the longest is \"%.*s\"",
                         bytes_max, fields_max, HD_STR_ARG(hd_str_sub(name, 0, 64))));
}
