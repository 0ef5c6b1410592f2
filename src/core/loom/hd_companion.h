/* hd_companion: what a library must own for a resource (SSL_CTX, PCRE2 code, a Lua
 * function, a healthy list, a connection pool): made lazily, per process, never in the
 * arena. ◆
 *
 * Keyed by (type, region version), by (type, slot) when it must outlive versions, or by
 * (type, content) when equal content may share one (a single SSL_CTX for each distinct
 * TLS setting). Region-keyed ones are destroyed in the turn after the region retired and
 * this member has no pin on it; slot-keyed ones when the slot is removed and unpinned;
 * content-keyed ones when their last user lets go. Only the member's own thread uses
 * them. destroy must not touch the region.
 */
#pragma once
#include "core/loom/hd_slot.h"

typedef struct {
    const char *name;
    /* <owner>: the region or slot (or NULL by content); <arg>: as given to get. NULL:
     * <err>. */
    void *(*create)(hd_member_t *m, const void *owner, const void *arg, hd_err_t *err);
    void (*destroy)(hd_member_t *m, void *companion);
} hd_companion_type_t;

/* Found or made. A failed creation is remembered for this version: it is tried once, and
 * <err> tells the first reason again. */
void *hd_companion_of_region(hd_member_t *m, const hd_companion_type_t *type,
                             const hd_region_t *r, const void *arg, hd_err_t *err);
/* Several of one type in a region (each regex of a route table): <key> tells them apart,
 * a pointer into the region. */
void *hd_companion_of_part(hd_member_t *m, const hd_companion_type_t *type,
                           const hd_region_t *r, const void *key, const void *arg,
                           hd_err_t *err);
void *hd_companion_of_slot(hd_member_t *m, const hd_companion_type_t *type,
                           const hd_slot_t *slot, const void *arg, hd_err_t *err);
/* Counted: balance with hd_companion_release. <content> is compared whole, and copied. */
void *hd_companion_of_content(hd_member_t *m, const hd_companion_type_t *type,
                              hd_str_t content, const void *arg, hd_err_t *err);
void hd_companion_release(hd_member_t *m, const hd_companion_type_t *type,
                          void *companion);
size_t hd_companion_count(const hd_member_t *m);
