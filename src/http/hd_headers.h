/* hd_headers: one header list for HTTP/1 and HTTP/2: ordered fields {name, value, known
 * id, flags}. ◆
 *
 * The case received on HTTP/1 is kept, comparison ignores it (HTTP/2 writes lower case).
 * Look-up by known id is O(1): the list keeps the first and whether there are more.
 * Strings are slices of what was received (the owner keeps the blocks) or of the owner's
 * pool. Limits: at most HD_FIELDS_MAX fields; bytes are bounded by the codec.
 */
#pragma once
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

#define HD_FIELDS_MAX 255

/* Known names. The table of texts is in hd_headers.c, sorted for a perfect hash at start.
 */
typedef enum {
    HD_H_OTHER = 0,
    HD_H_ACCEPT,
    HD_H_ACCEPT_ENCODING,
    HD_H_AUTHORIZATION,
    HD_H_CACHE_CONTROL,
    HD_H_CONNECTION,
    HD_H_CONTENT_ENCODING,
    HD_H_CONTENT_LENGTH,
    HD_H_CONTENT_TYPE,
    HD_H_COOKIE,
    HD_H_DATE,
    HD_H_ETAG,
    HD_H_EXPECT,
    HD_H_FORWARDED,
    HD_H_GRPC_MESSAGE,
    HD_H_GRPC_STATUS,
    HD_H_GRPC_TIMEOUT,
    HD_H_HOST,
    HD_H_HTTP2_SETTINGS,
    HD_H_KEEP_ALIVE,
    HD_H_LAST_MODIFIED,
    HD_H_LOCATION,
    HD_H_ORIGIN,
    HD_H_PROXY_AUTHENTICATE,
    HD_H_PROXY_CONNECTION,
    HD_H_RANGE,
    HD_H_REFERER,
    HD_H_SERVER,
    HD_H_SET_COOKIE,
    HD_H_TE,
    HD_H_TRACEPARENT,
    HD_H_TRAILER,
    HD_H_TRANSFER_ENCODING,
    HD_H_UPGRADE,
    HD_H_USER_AGENT,
    HD_H_VARY,
    HD_H_VIA,
    HD_H_WWW_AUTHENTICATE,
    HD_H_X_ACCEL_REDIRECT,
    HD_H_X_ENVOY_ATTEMPT_COUNT,
    HD_H_X_ENVOY_ORIGINAL_PATH,
    HD_H_X_ENVOY_PEER_METADATA,
    HD_H_X_ENVOY_PEER_METADATA_ID,
    HD_H_X_ENVOY_UPSTREAM_SERVICE_TIME,
    HD_H_X_FORWARDED_CLIENT_CERT,
    HD_H_X_FORWARDED_FOR,
    HD_H_X_FORWARDED_HOST,
    HD_H_X_FORWARDED_PROTO,
    HD_H_X_REAL_IP,
    HD_H_X_REQUEST_ID,
    HD_H_IDS_N,
} hd_header_id_t;

enum {
    HD_FIELD_REMOVED = 1,     /* skip it */
    HD_FIELD_HOP = 2,         /* hop-by-hop, or named by Connection: never forwarded */
    HD_FIELD_NEVER_INDEX = 4, /* HPACK never-indexed */
};

typedef struct {
    hd_str_t name, value;
    uint8_t id; /* hd_header_id_t */
    uint8_t flags;
} hd_field_t;

typedef struct hd_headers_s {
    hd_field_t *fields;
    uint16_t n, _room;
    uint64_t _seen, _many;      /* sets of known ids: those added, those added again */
    uint8_t _first[HD_H_IDS_N]; /* the first field's index, of an id in <_seen> */
    hd_pool_t *pool;            /* where the array grows */
} hd_headers_t;

void hd_headers_init(hd_headers_t *h, hd_pool_t *pool, uint32_t room);
hd_header_id_t hd_header_id(hd_str_t name); /* any case */
/* Adds at the end; NULL at HD_FIELDS_MAX. Strings are borrowed. */
hd_field_t *hd_headers_add(hd_headers_t *h, hd_str_t name, hd_str_t value);
hd_field_t *hd_headers_add_id(hd_headers_t *h, hd_header_id_t id, hd_str_t name,
                              hd_str_t value);
/* The first live field; NULL: none. */
hd_field_t *hd_headers_get_slow(const hd_headers_t *h, hd_header_id_t id);
static inline hd_field_t *hd_headers_get(const hd_headers_t *h, hd_header_id_t id)
{
    hd_field_t *f;

    if (!(h->_seen >> id & 1))
        return NULL;
    f = &h->fields[h->_first[id]];
    return hd_likely(!(f->flags & HD_FIELD_REMOVED)) ? f : hd_headers_get_slow(h, id);
}
hd_field_t *hd_headers_find(const hd_headers_t *h, hd_str_t name);
hd_field_t *hd_headers_find_next(const hd_headers_t *h, const hd_field_t *after);
void hd_headers_remove(hd_headers_t *h, hd_str_t name);
void hd_headers_remove_id(hd_headers_t *h, hd_header_id_t id);
/* One field of that name with that value stays. */
hd_field_t *hd_headers_set(hd_headers_t *h, hd_str_t name, hd_str_t value);
hd_str_t hd_headers_joined(const hd_headers_t *h, hd_str_t name, hd_pool_t *pool,
                           bool *found);
/* The second of a field that has one value and comes once (Authorization, Expect); NULL:
 * there is none. */
const hd_field_t *hd_headers_repeated(const hd_headers_t *h);
/* Marks Connection's nominees, Keep-Alive, TE, Upgrade … as HD_FIELD_HOP (RFC 9110
 * §7.6.1). */
void hd_headers_mark_hops(hd_headers_t *h);
hd_str_t hd_header_name(hd_header_id_t id); /* lower case */
