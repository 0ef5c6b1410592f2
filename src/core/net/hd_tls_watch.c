/* hd_tls_watch: a peer was verified once, and its conn may live for days. Its certificate
 * ends, its issuer is withdrawn, it is revoked: then its owner hears on_stale, and ends
 * the conn as gently as its protocol can. Who has certificates of hours renews them long
 * before and makes new conns anyway; so this costs honest peers nothing.
 *
 * Looked at when a certificate ends, else every few seconds whether roots have changed: a
 * pass over the conns of verified peers alone compares two numbers each. */
#include "core/base/hd_log.h"
#include "core/net/hd_tls_int.h"

enum { CHECK_S = 5 };

static _Thread_local hd_link_t watched; /* next NULL: not begun */
static _Thread_local hd_timer_t timer;
static _Thread_local hd_loop_t *timer_loop; /* NULL: not set */

uint64_t hd_tls_content_of(const hd_region_t *r)
{
    return r->content_hash != 0 ? r->content_hash : r->version;
}

static bool is_good(hd_tls_layer_t *l)
{
    const hd_tls_conf_t *conf = &l->ctx->conf;
    const hd_region_t *r;
    uint64_t content;

    if (!hd_tls_allows_expired(l) && l->good_until_s != 0 &&
        l->good_until_s < hd_tls_now_s(l))
        return false;
    if (conf->trust == NULL)
        return true;
    r = hd_slot_get(l->ctx->member, conf->trust);
    content = r != NULL ? hd_tls_content_of(r) : 0;
    if (content == l->trust_content)
        return true;
    if (r == NULL || !hd_tls_verify_again(l))
        return false;
    l->trust_content = content;
    return true;
}

static void look_at(hd_tls_layer_t *l)
{
    hd_conn_t *c = l->layer.conn;

    if (is_good(l))
        return;
    hd_log_conn(HD_LOG_INFO, c->id,
                "the peer's certificate has ended or is verified no longer");
    hd_tls_watch_stop(l); /* told once */
    if (c->state == HD_CONN_OPEN && c->handler != NULL && c->handler->on_stale != NULL)
        c->handler->on_stale(c);
}

static void set_timer(int64_t now_s, int64_t next_s)
{
    hd_timer_set(timer_loop, &timer,
                 (uint64_t)hd_min(hd_max(next_s - now_s, 1), CHECK_S) * 1000);
}

static void on_due(hd_timer_t *t)
{
    hd_link_t end; /* so that any of them may go meanwhile, and new ones come */
    int64_t now_s = 0, next_s = INT64_MAX;

    (void)t;
    hd_list_add_last(&watched, &end);
    while (watched.next != &end) {
        hd_tls_layer_t *l = hd_list_entry(watched.next, hd_tls_layer_t, watched);

        hd_list_remove(&l->watched);
        hd_list_add_last(&watched, &l->watched);
        now_s = hd_tls_now_s(l);
        if (l->good_until_s != 0 && l->good_until_s >= now_s)
            next_s = hd_min(next_s, l->good_until_s + 1);
        look_at(l);
    }
    hd_list_remove(&end);
    if (hd_list_is_empty(&watched))
        timer_loop = NULL;
    else
        set_timer(now_s, next_s);
}

void hd_tls_watch_start(hd_tls_layer_t *l)
{
    int64_t now_s = hd_tls_now_s(l), ends_s;
    const X509 *leaf = SSL_get0_peer_certificate(l->ssl);

    ends_s = hd_tls_time_s(X509_get0_notAfter(leaf));
    if (l->good_until_s == 0 || ends_s < l->good_until_s)
        l->good_until_s = ends_s;
    if (watched.next == NULL)
        hd_list_init(&watched);
    hd_list_add_last(&watched, &l->watched);
    if (timer_loop == NULL) {
        timer_loop = l->layer.conn->loop;
        hd_timer_init(&timer, on_due);
        set_timer(now_s, l->good_until_s + 1);
    } else if (l->good_until_s < now_s + CHECK_S) {
        set_timer(now_s, l->good_until_s + 1);
    }
}

void hd_tls_watch_stop(hd_tls_layer_t *l)
{
    hd_list_remove(&l->watched); /* nothing if it is in none */
    hd_list_init(&l->watched);
    if (timer_loop != NULL && hd_list_is_empty(&watched)) {
        hd_timer_stop(timer_loop, &timer);
        timer_loop = NULL;
    }
}
