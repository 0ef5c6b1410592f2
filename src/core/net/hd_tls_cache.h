/* hd_tls_cache: TLS sessions by id, in memory that all workers share.
 *
 * Lives in a cell of the state arena; zeroed memory is an empty cache. What one worker
 * puts, each other one finds; nobody waits for anybody: an entry that is being written is
 * none for that moment. Bounded: a full bucket loses the entry that ends first. A worker
 * that dies while it writes leaves one entry that is taken over after BUSY_S.
 */
#pragma once
#include "core/base/hd_str.h"

#define HD_TLS_CACHE_ID_MAX 32
#define HD_TLS_CACHE_BYTES_MIN 32768

typedef struct hd_tls_cache_s hd_tls_cache_t; /* the memory itself */

/* <bytes>: of the whole memory, at least HD_TLS_CACHE_BYTES_MIN and always the same.
 * False: too large for any entry, or all of its bucket is being written. */
bool hd_tls_cache_try_put(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, hd_str_t data,
                          int64_t ends_s, int64_t now_s);
/* Copies to <to>; 0: not there, or over. */
size_t hd_tls_cache_get(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s,
                        char *to, size_t room);
/* The same, and it is gone: of several that ask at once, one gets it. */
size_t hd_tls_cache_take(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s,
                         char *to, size_t room);
void hd_tls_cache_remove(hd_tls_cache_t *cache, size_t bytes, hd_str_t id, int64_t now_s);
