/* From a key to its pool. */
#include "http/hd_upool_int.h"
#include <stdlib.h>

#define BUCKETS_MIN 64

_Thread_local struct hd_upool_table_s hd_upool_table;

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

/* No string is hashed: those that differ under one address and TLS settings are few, and
 * is_same_key tells them apart. */
uint64_t hd_upool_hash(const hd_upool_key_t *k)
{
    uint64_t h = mix((uintptr_t)k->cluster, k->tls_hash ^ k->secret_version);
    uint64_t a = 0, b = 0;

    if (k->addr.family == AF_INET) {
        memcpy(&a, k->addr.v4, 4);
    } else if (k->addr.family == AF_INET6) {
        memcpy(&a, k->addr.v6, 8);
        memcpy(&b, k->addr.v6 + 8, 8);
    } else {
        a = k->addr.path.len;
    }
    if (k->own_cert.len > 0) /* of these there may be many */
        h = mix(h, hd_hash64(k->own_cert.data, k->own_cert.len, 0));
    h = mix(h, a ^ (uint64_t)k->addr.port << 48);
    return mix(h, b ^ k->protocol ^ (uint64_t)k->offers_weft << 4 ^
                      (uint64_t)k->proxy_source.port << 32 ^
                      (uint64_t)k->source_identity.len << 8 ^ (uint64_t)k->sni.len << 16);
}

static bool is_same_str(hd_str_t a, hd_str_t b)
{
    return a.len == b.len &&
           (a.data == b.data || a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool is_same_addr(const hd_addr_t *a, const hd_addr_t *b)
{
    return a->family == b->family && (a->family == AF_UNSPEC || hd_addr_eq(a, b));
}

static bool is_same_key(const hd_upool_key_t *a, const hd_upool_key_t *b)
{
    return a->cluster == b->cluster && a->tls_hash == b->tls_hash &&
           a->secret_version == b->secret_version && a->protocol == b->protocol &&
           a->offers_weft == b->offers_weft && a->is_high == b->is_high &&
           a->mark == b->mark && a->netns == b->netns &&
           a->transparent == b->transparent && a->probes_idle == b->probes_idle &&
           is_same_addr(&a->addr, &b->addr) &&
           is_same_addr(&a->bind, &b->bind) && a->proxy_version == b->proxy_version &&
           is_same_addr(&a->proxy_source, &b->proxy_source) &&
           is_same_addr(&a->proxy_local, &b->proxy_local) &&
           is_same_str(a->source_identity, b->source_identity) &&
           is_same_str(a->own_cert, b->own_cert) && is_same_str(a->own_key, b->own_key) &&
           is_same_str(a->sni, b->sni) && is_same_str(a->verify_host, b->verify_host);
}

static char *copy_str(char *at, hd_str_t *s)
{
    if (s->len > 0)
        memcpy(at, s->data, s->len);
    s->data = at;
    return at + s->len;
}

static size_t path_bytes(const hd_addr_t *a)
{
    return a->family == AF_UNIX ? a->path.len : 0;
}

static hd_upool_cluster_t *cluster_of(hd_member_t *m, const hd_slot_t *slot, bool is_high)
{
    hd_upool_cluster_t *c;

    if (hd_upool_table.clusters.next == NULL)
        hd_list_init(&hd_upool_table.clusters);
    hd_list_each(link, &hd_upool_table.clusters)
    {
        c = hd_list_entry(link, hd_upool_cluster_t, link);
        if (c->slot == slot && c->is_high == is_high)
            return c;
    }
    c = calloc(1, sizeof(*c));
    hd_bug_on(c == NULL);
    c->slot = slot;
    c->m = m;
    if (slot != NULL)
        hd_slot_hold(m, slot);
    c->is_high = is_high;
    c->conns.max = UINT32_MAX;
    hd_list_init(&c->idle);
    hd_timer_init(&c->look, hd_upool_on_look);
    hd_list_add_first(&hd_upool_table.clusters, &c->link);
    return c;
}

static void grow_table(void)
{
    size_t room = hd_upool_table.room == 0 ? BUCKETS_MIN : hd_upool_table.room * 2;
    hd_upool_t **buckets = calloc(room, sizeof(*buckets));

    hd_bug_on(buckets == NULL);
    for (size_t i = 0; i < hd_upool_table.room; i++) {
        hd_upool_t *p, *next;

        for (p = hd_upool_table.buckets[i]; p != NULL; p = next) {
            next = p->next;
            p->next = buckets[p->hash & (room - 1)];
            buckets[p->hash & (room - 1)] = p;
        }
    }
    free(hd_upool_table.buckets);
    hd_upool_table.buckets = buckets;
    hd_upool_table.room = room;
}

static void on_serve(hd_post_t *post)
{
    hd_upool_serve(hd_container_of(post, hd_upool_t, serve));
}

hd_upool_t *hd_upool_create(hd_loop_t *loop, hd_member_t *m, const hd_upool_key_t *key,
                            uint64_t hash)
{
    hd_upool_t *p = calloc(1, sizeof(*p) + key->source_identity.len + key->sni.len +
                                  key->own_cert.len + key->own_key.len +
                                  key->verify_host.len + path_bytes(&key->addr) +
                                  path_bytes(&key->bind));
    char *at = (char *)(p + 1);

    hd_bug_on(p == NULL);
    p->key = *key;
    at = copy_str(at, &p->key.source_identity);
    at = copy_str(at, &p->key.sni);
    at = copy_str(at, &p->key.own_cert);
    at = copy_str(at, &p->key.own_key);
    at = copy_str(at, &p->key.verify_host);
    if (key->addr.family == AF_UNIX)
        at = copy_str(at, &p->key.addr.path);
    if (key->bind.family == AF_UNIX)
        copy_str(at, &p->key.bind.path);
    p->hash = hash;
    p->loop = loop;
    p->m = m;
    hd_list_init(&p->ready);
    hd_list_init(&p->busy);
    hd_list_init(&p->connecting);
    hd_list_init(&p->waits);
    hd_post_init(&p->serve, on_serve);
    hd_timer_init(&p->starved, hd_upool_on_starved);
    p->cluster = cluster_of(m, key->cluster, key->is_high);
    p->multiplexes = key->protocol == HD_UP_HTTP2 || key->offers_weft;
    p->cluster->loop = loop;
    p->cluster->pools_n++;
    if (hd_upool_table.n >= hd_upool_table.room)
        grow_table();
    p->next = hd_upool_table.buckets[hash & (hd_upool_table.room - 1)];
    hd_upool_table.buckets[hash & (hd_upool_table.room - 1)] = p;
    hd_upool_table.n++;
    return p;
}

hd_upool_t *hd_upool_find(const hd_upool_key_t *key, uint64_t hash)
{
    hd_upool_t *p;

    if (hd_upool_table.room == 0)
        return NULL;
    for (p = hd_upool_table.buckets[hash & (hd_upool_table.room - 1)]; p != NULL;
         p = p->next) {
        if (p->hash == hash && !p->is_draining && is_same_key(&p->key, key))
            return p;
    }
    return NULL;
}

void hd_upool_set_secret(hd_upool_t *p, const hd_slot_t *slot)
{
    if (slot == p->secret)
        return;
    if (slot != NULL)
        hd_slot_hold(p->m, slot);
    if (p->secret != NULL)
        hd_slot_let_go(p->m, p->secret);
    p->secret = slot;
}

void hd_upool_destroy_if_unused(hd_upool_t *p)
{
    hd_upool_t **at;

    if (p->conns_n > 0 || p->waits_n > 0)
        return;
    if (p->counted != HD_GAUGE_NONE)
        hd_gauge_down(p->m, p->counted);
    for (at = &hd_upool_table.buckets[p->hash & (hd_upool_table.room - 1)]; *at != p;
         at = &(*at)->next)
        ;
    *at = p->next;
    hd_upool_table.n--;
    hd_upool_set_secret(p, NULL);
    if (--p->cluster->pools_n == 0) {
        hd_timer_stop(p->loop, &p->cluster->look);
        hd_list_remove(&p->cluster->link);
        if (p->cluster->slot != NULL)
            hd_slot_let_go(p->cluster->m, p->cluster->slot);
        free(p->cluster);
    }
    hd_post_cancel(&p->serve);
    hd_timer_stop(p->loop, &p->starved);
    free(p);
}

void hd_upool_drain(hd_upool_t *p)
{
    p->is_draining = true;
    hd_list_each(link, &p->ready)
    {
        hd_pooled_t *uc = hd_list_entry(link, hd_pooled_t, u.link);

        uc->u.draining = true;
        if (uc->u.active == 0)
            hd_pooled_close(uc);
        else
            hd_pooled_settle(p, uc);
    }
    hd_list_each(link, &p->busy)
    {
        hd_list_entry(link, hd_pooled_t, u.link)->u.draining = true;
    }
}

static bool has_tls(const hd_cluster_t *c, uint64_t hash)
{
    if (c->tls != NULL && c->tls->hash == hash)
        return true;
    for (uint32_t i = 0; i < c->transports_n; i++) {
        if (c->transports[i].tls != NULL && c->transports[i].tls->hash == hash)
            return true;
    }
    return false;
}

static bool has_endpoint(hd_member_t *m, const hd_cluster_t *c, const hd_addr_t *addr)
{
    const hd_region_t *r;
    const hd_endpoints_t *eps;

    if (c->is_logical || !hd_cluster_has_endpoints(c)) /* original destination: any */
        return true;
    r = hd_cluster_endpoints(m, c);
    if (r == NULL)
        return false;
    eps = r->root;
    for (uint32_t i = 0; i < eps->n; i++) {
        if (hd_addr_eq(&eps->items[i].addr, addr))
            return !c->closes_failed || hd_balancer->is_well(c, &eps->items[i]);
    }
    return false;
}

/* Would a request of now still come to this pool? TLS settings of a route's own aren't
 * found in the cluster; they are in the key, so a pool that lost its route just idles
 * out. */
static bool is_current(hd_member_t *m, const hd_upool_t *p)
{
    const hd_region_t *r = hd_slot_get(m, p->key.cluster);
    const hd_region_t *secret = p->secret == NULL ? NULL : hd_slot_get(m, p->secret);
    const hd_cluster_t *c;

    if (r == NULL)
        return false;
    c = r->root;
    if (p->secret != NULL && (secret == NULL || secret->version != p->key.secret_version))
        return false;
    if (p->key.tls_hash == 0 && c->tls != NULL && c->transports_n == 0)
        return false;
    if (p->key.tls_hash != 0 && (c->tls != NULL || c->transports_n > 0) &&
        !has_tls(c, p->key.tls_hash))
        return false;
    return has_endpoint(m, c, &p->key.addr);
}

void hd_upool_refresh(hd_member_t *m)
{
    for (size_t i = 0; i < hd_upool_table.room; i++) {
        for (hd_upool_t *p = hd_upool_table.buckets[i]; p != NULL; p = p->next) {
            if (!p->is_draining && p->m == m && !is_current(m, p))
                hd_upool_drain(p);
        }
    }
}

void hd_upool_close_all(hd_loop_t *loop)
{
    for (size_t i = 0; i < hd_upool_table.room; i++) {
        hd_upool_t *p, *next;

        for (p = hd_upool_table.buckets[i]; p != NULL; p = next) {
            next = p->next;
            if (p->loop != loop)
                continue;
            p->is_draining = true;
            p->is_serving = true;
            while (!hd_list_is_empty(&p->ready))
                hd_pooled_close(hd_list_entry(p->ready.next, hd_pooled_t, u.link));
            while (!hd_list_is_empty(&p->busy))
                hd_pooled_close(hd_list_entry(p->busy.next, hd_pooled_t, u.link));
            while (!hd_list_is_empty(&p->connecting))
                hd_pooled_close(hd_list_entry(p->connecting.next, hd_pooled_t, u.link));
            p->is_serving = false;
            hd_upool_destroy_if_unused(p);
        }
    }
    if (hd_upool_table.n == 0) {
        free(hd_upool_table.buckets);
        hd_upool_table.buckets = NULL;
        hd_upool_table.room = 0;
    }
}

size_t hd_upool_conns(void)
{
    return hd_upool_table.conns_n;
}
