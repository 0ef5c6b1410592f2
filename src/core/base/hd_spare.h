/* hd_spare: memory that is kept for its next use (blocks, pools), and given back when
 * nobody wanted it between two looks. So a busy process keeps what it works with, and one
 * that became quiet is small again.
 *
 * Each thread keeps its own; a keeper is registered once for all of them.
 */
#pragma once
#include "core/base/hd_types.h"

typedef struct hd_spare_s {
    /* Frees what this thread has had no use for since the last call. Bytes. */
    size_t (*trim)(void);
    struct hd_spare_s *_next;
} hd_spare_t;

/* Before threads are started; <s> is there for good. */
void hd_spare_register(hd_spare_t *s);
/* Asks each keeper, and lets the heap give whole pages back if that is of use. Bytes that
 * keepers freed. */
size_t hd_spares_trim(void);
