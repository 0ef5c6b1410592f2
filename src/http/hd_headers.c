#include "http/hd_headers.h"
#include "core/base/hd_word.h"

static const hd_str_t names[HD_H_IDS_N] = {
    [HD_H_ACCEPT] = HD_STR_INIT("accept"),
    [HD_H_ACCEPT_ENCODING] = HD_STR_INIT("accept-encoding"),
    [HD_H_AUTHORIZATION] = HD_STR_INIT("authorization"),
    [HD_H_CACHE_CONTROL] = HD_STR_INIT("cache-control"),
    [HD_H_CONNECTION] = HD_STR_INIT("connection"),
    [HD_H_CONTENT_ENCODING] = HD_STR_INIT("content-encoding"),
    [HD_H_CONTENT_LENGTH] = HD_STR_INIT("content-length"),
    [HD_H_CONTENT_TYPE] = HD_STR_INIT("content-type"),
    [HD_H_COOKIE] = HD_STR_INIT("cookie"),
    [HD_H_DATE] = HD_STR_INIT("date"),
    [HD_H_ETAG] = HD_STR_INIT("etag"),
    [HD_H_EXPECT] = HD_STR_INIT("expect"),
    [HD_H_FORWARDED] = HD_STR_INIT("forwarded"),
    [HD_H_GRPC_MESSAGE] = HD_STR_INIT("grpc-message"),
    [HD_H_GRPC_STATUS] = HD_STR_INIT("grpc-status"),
    [HD_H_GRPC_TIMEOUT] = HD_STR_INIT("grpc-timeout"),
    [HD_H_HOST] = HD_STR_INIT("host"),
    [HD_H_HTTP2_SETTINGS] = HD_STR_INIT("http2-settings"),
    [HD_H_KEEP_ALIVE] = HD_STR_INIT("keep-alive"),
    [HD_H_LAST_MODIFIED] = HD_STR_INIT("last-modified"),
    [HD_H_LOCATION] = HD_STR_INIT("location"),
    [HD_H_ORIGIN] = HD_STR_INIT("origin"),
    [HD_H_PROXY_AUTHENTICATE] = HD_STR_INIT("proxy-authenticate"),
    [HD_H_PROXY_CONNECTION] = HD_STR_INIT("proxy-connection"),
    [HD_H_RANGE] = HD_STR_INIT("range"),
    [HD_H_REFERER] = HD_STR_INIT("referer"),
    [HD_H_SERVER] = HD_STR_INIT("server"),
    [HD_H_SET_COOKIE] = HD_STR_INIT("set-cookie"),
    [HD_H_TE] = HD_STR_INIT("te"),
    [HD_H_TRACEPARENT] = HD_STR_INIT("traceparent"),
    [HD_H_TRAILER] = HD_STR_INIT("trailer"),
    [HD_H_TRANSFER_ENCODING] = HD_STR_INIT("transfer-encoding"),
    [HD_H_UPGRADE] = HD_STR_INIT("upgrade"),
    [HD_H_USER_AGENT] = HD_STR_INIT("user-agent"),
    [HD_H_VARY] = HD_STR_INIT("vary"),
    [HD_H_VIA] = HD_STR_INIT("via"),
    [HD_H_WWW_AUTHENTICATE] = HD_STR_INIT("www-authenticate"),
    [HD_H_X_ACCEL_REDIRECT] = HD_STR_INIT("x-accel-redirect"),
    [HD_H_X_ENVOY_ATTEMPT_COUNT] = HD_STR_INIT("x-envoy-attempt-count"),
    [HD_H_X_ENVOY_ORIGINAL_PATH] = HD_STR_INIT("x-envoy-original-path"),
    [HD_H_X_ENVOY_PEER_METADATA] = HD_STR_INIT("x-envoy-peer-metadata"),
    [HD_H_X_ENVOY_PEER_METADATA_ID] = HD_STR_INIT("x-envoy-peer-metadata-id"),
    [HD_H_X_ENVOY_UPSTREAM_SERVICE_TIME] = HD_STR_INIT("x-envoy-upstream-service-time"),
    [HD_H_X_FORWARDED_CLIENT_CERT] = HD_STR_INIT("x-forwarded-client-cert"),
    [HD_H_X_FORWARDED_FOR] = HD_STR_INIT("x-forwarded-for"),
    [HD_H_X_FORWARDED_HOST] = HD_STR_INIT("x-forwarded-host"),
    [HD_H_X_FORWARDED_PROTO] = HD_STR_INIT("x-forwarded-proto"),
    [HD_H_X_REAL_IP] = HD_STR_INIT("x-real-ip"),
    [HD_H_X_REQUEST_ID] = HD_STR_INIT("x-request-id"),
};

/* Known names by (length, first, last byte): a bucket holds at most BUCKET_MAX of them,
 * which fill_index asserts, so a look-up is a hash of three bytes and a compare or two.
 */
#define BUCKETS 256
#define BUCKET_MAX 3
static uint8_t name_index[BUCKETS][BUCKET_MAX];

static unsigned bucket_of(hd_str_t name)
{
    unsigned first = (unsigned char)name.data[0] | 0x20; /* lower case, of letters */
    unsigned last = (unsigned char)name.data[name.len - 1] | 0x20;

    return ((unsigned)name.len * 7 + first * 31 + last * 101) % BUCKETS;
}

__attribute__((constructor)) static void fill_index(void)
{
    for (unsigned id = 1; id < HD_H_IDS_N; id++) {
        uint8_t *bucket = name_index[bucket_of(names[id])];
        unsigned i = 0;

        while (i < BUCKET_MAX && bucket[i] != 0)
            i++;
        hd_bug_on(i == BUCKET_MAX);
        bucket[i] = (uint8_t)id;
    }
}

hd_str_t hd_header_name(hd_header_id_t id)
{
    return names[id];
}

/* <known> is lower case, so only the other one is folded. */
static bool is_name(hd_str_t known, hd_str_t name)
{
    size_t n = known.len, at;

    if (n != name.len)
        return false;
    if (n < 8)
        return hd_word_load_short(known.data, n) ==
               hd_word_lower(hd_word_load_short(name.data, n));
    for (at = 0; n - at > 8; at += 8) {
        if (hd_word_load(known.data + at) != hd_word_lower(hd_word_load(name.data + at)))
            return false;
    }
    return hd_word_load(known.data + n - 8) ==
           hd_word_lower(hd_word_load(name.data + n - 8));
}

static inline hd_header_id_t id_of(hd_str_t name)
{
    const uint8_t *bucket;

    if (name.len == 0)
        return HD_H_OTHER;
    bucket = name_index[bucket_of(name)];
    for (unsigned i = 0; i < BUCKET_MAX && bucket[i] != 0; i++) {
        if (is_name(names[bucket[i]], name))
            return (hd_header_id_t)bucket[i];
    }
    return HD_H_OTHER;
}

hd_header_id_t hd_header_id(hd_str_t name)
{
    return id_of(name);
}

void hd_headers_init(hd_headers_t *h, hd_pool_t *pool, uint32_t room)
{
    h->pool = pool;
    h->n = 0;
    h->_seen = h->_many = 0;
    h->_room = (uint16_t)hd_min(room, HD_FIELDS_MAX);
    h->fields = room == 0 ? NULL : hd_pool_alloc(pool, h->_room * sizeof(hd_field_t));
}

static bool try_grow(hd_headers_t *h)
{
    uint32_t room = hd_min(h->_room == 0 ? 8u : h->_room * 2u, (uint32_t)HD_FIELDS_MAX);
    hd_field_t *fields;

    if (h->_room >= HD_FIELDS_MAX)
        return false;
    fields = hd_pool_alloc(h->pool, room * sizeof(hd_field_t));
    if (h->n > 0)
        memcpy(fields, h->fields, h->n * sizeof(hd_field_t));
    h->fields = fields;
    h->_room = (uint16_t)room;
    return true;
}

_Static_assert(HD_H_IDS_N <= 64, "ids fit a word's bits");

#define SET_OF(id) ((uint64_t)1 << (id))

static inline hd_field_t *add(hd_headers_t *h, hd_header_id_t id, hd_str_t name,
                              hd_str_t value)
{
    hd_field_t *f;

    if (h->n == h->_room && !try_grow(h))
        return NULL;
    f = &h->fields[h->n];
    f->name = name;
    f->value = value;
    f->id = (uint8_t)id;
    f->flags = 0;
    if (id != HD_H_OTHER) {
        h->_many |= h->_seen & SET_OF(id);
        if (!(h->_seen & SET_OF(id)))
            h->_first[id] = (uint8_t)h->n;
        h->_seen |= SET_OF(id);
    }
    h->n++;
    return f;
}

hd_field_t *hd_headers_add_id(hd_headers_t *h, hd_header_id_t id, hd_str_t name,
                              hd_str_t value)
{
    return add(h, id, name, value);
}

hd_field_t *hd_headers_add(hd_headers_t *h, hd_str_t name, hd_str_t value)
{
    return add(h, id_of(name), name, value);
}

static hd_field_t *find_from(const hd_headers_t *h, unsigned at, hd_header_id_t id,
                             hd_str_t name)
{
    for (; at < h->n; at++) {
        hd_field_t *f = &h->fields[at];

        if ((f->flags & HD_FIELD_REMOVED) || f->id != id)
            continue;
        if (id != HD_H_OTHER || hd_str_eq_nocase(f->name, name))
            return f;
    }
    return NULL;
}

hd_field_t *hd_headers_get_slow(const hd_headers_t *h, hd_header_id_t id)
{
    return find_from(h, h->_first[id], id, HD_STR_NONE);
}

hd_field_t *hd_headers_find(const hd_headers_t *h, hd_str_t name)
{
    hd_header_id_t id = hd_header_id(name);

    return id != HD_H_OTHER ? hd_headers_get(h, id) : find_from(h, 0, id, name);
}

hd_field_t *hd_headers_find_next(const hd_headers_t *h, const hd_field_t *after)
{
    if (after->id != HD_H_OTHER && !(h->_many & SET_OF(after->id)))
        return NULL;
    return find_from(h, (unsigned)(after - h->fields) + 1, (hd_header_id_t)after->id,
                     after->name);
}

void hd_headers_remove_id(hd_headers_t *h, hd_header_id_t id)
{
    for (hd_field_t *f = hd_headers_get(h, id); f != NULL; f = hd_headers_find_next(h, f))
        f->flags |= HD_FIELD_REMOVED;
    h->_seen &= ~SET_OF(id);
    h->_many &= ~SET_OF(id);
}

void hd_headers_remove(hd_headers_t *h, hd_str_t name)
{
    hd_header_id_t id = hd_header_id(name);

    if (id != HD_H_OTHER) {
        hd_headers_remove_id(h, id);
        return;
    }
    for (hd_field_t *f = find_from(h, 0, id, name); f != NULL;
         f = hd_headers_find_next(h, f))
        f->flags |= HD_FIELD_REMOVED;
}

hd_field_t *hd_headers_set(hd_headers_t *h, hd_str_t name, hd_str_t value)
{
    hd_field_t *first = hd_headers_find(h, name);

    if (first == NULL)
        return hd_headers_add(h, name, value);
    for (hd_field_t *f = hd_headers_find_next(h, first); f != NULL;
         f = hd_headers_find_next(h, f))
        f->flags |= HD_FIELD_REMOVED;
    first->value = value;
    first->flags = 0; /* a hop-by-hop mark was the client's, not ours */
    return first;
}

hd_str_t hd_headers_joined(const hd_headers_t *h, hd_str_t name, hd_pool_t *pool,
                           bool *found)
{
    const hd_field_t *first = hd_headers_find(h, name), *f;
    hd_header_id_t id;
    hd_str_t glue;
    size_t len;
    char *out, *p;

    if (found != NULL)
        *found = first != NULL;
    if (first == NULL)
        return HD_STR_NONE;
    if (hd_headers_find_next(h, first) == NULL)
        return first->value;
    id = (hd_header_id_t)first->id;
    glue = id == HD_H_COOKIE ? HD_STR("; ") : HD_STR(","); /* RFC 9113 §8.2.3 */
    len = 0;
    for (f = first; f != NULL; f = hd_headers_find_next(h, f))
        len += f->value.len + glue.len;
    p = out = hd_pool_alloc_unaligned(pool, len);
    for (f = first; f != NULL; f = hd_headers_find_next(h, f)) {
        if (f != first) {
            memcpy(p, glue.data, glue.len);
            p += glue.len;
        }
        if (f->value.len > 0)
            memcpy(p, f->value.data, f->value.len);
        p += f->value.len;
    }
    return hd_str_n(out, (size_t)(p - out));
}

static const uint64_t hops = SET_OF(HD_H_CONNECTION) | SET_OF(HD_H_KEEP_ALIVE) |
                             SET_OF(HD_H_PROXY_CONNECTION) | SET_OF(HD_H_TE) |
                             SET_OF(HD_H_UPGRADE) | SET_OF(HD_H_HTTP2_SETTINGS) |
                             SET_OF(HD_H_TRANSFER_ENCODING);

const hd_field_t *hd_headers_repeated(const hd_headers_t *h)
{
    static const uint64_t single = 1ull << HD_H_AUTHORIZATION | 1ull << HD_H_EXPECT;

    for (uint64_t left = h->_seen & single; left != 0; left &= left - 1) {
        const hd_field_t *f = hd_headers_get(h, (hd_header_id_t)__builtin_ctzll(left));
        const hd_field_t *second = f != NULL ? hd_headers_find_next(h, f) : NULL;

        if (second != NULL)
            return second;
    }
    return NULL;
}

void hd_headers_mark_hops(hd_headers_t *h)
{
    hd_field_t *f;

    if (!(h->_seen & hops))
        return;
    for (f = hd_headers_get(h, HD_H_CONNECTION); f != NULL;
         f = hd_headers_find_next(h, f)) {
        hd_str_t rest = f->value, token;

        while (hd_str_split(&rest, ',', &token)) {
            hd_field_t *named;

            token = hd_str_trim(token);
            if (token.len == 0 || hd_str_eq_nocase(token, HD_STR("close")) ||
                hd_str_eq_nocase(token, HD_STR("keep-alive")))
                continue;
            for (named = hd_headers_find(h, token); named != NULL;
                 named = hd_headers_find_next(h, named))
                named->flags |= HD_FIELD_HOP;
        }
    }
    for (uint64_t left = h->_seen & hops; left != 0; left &= left - 1) {
        for (f = hd_headers_get(h, (hd_header_id_t)__builtin_ctzll(left)); f != NULL;
             f = hd_headers_find_next(h, f))
            f->flags |= HD_FIELD_HOP;
    }
}
