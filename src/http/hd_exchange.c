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
    x->is_reused_conn = u->exchanges > 0 || u->idle_ms > 0;
    u->active++;
    u->exchanges++;
    return x;
}
