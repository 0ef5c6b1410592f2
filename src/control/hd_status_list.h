/* hd_status_list: findings being gathered, at most HD_STATUSES_MAX; then one line says
 * so.
 */
#pragma once
#include "control/hd_model.h"
#include "core/base/hd_array.h"

#define HD_STATUSES_MAX 1000 /* of one text, and of all references */

typedef struct hd_status_list_s {
    hd_array_t items;
    hd_pool_t *pool;
    size_t errors_n;
    bool full;
} hd_status_list_t;

void hd_status_list_init(hd_status_list_t *list, hd_pool_t *pool);
/* Copies all texts of <s> into the list's pool. */
void hd_status_list_add(hd_status_list_t *list, const hd_status_t *s);
/* Lives as long as the pool. */
hd_statuses_t hd_status_list_end(const hd_status_list_t *list);
/* The same in <pool>. */
hd_statuses_t hd_statuses_dup(hd_pool_t *pool, const hd_statuses_t *from);
/* Errors first, then by place. */
int hd_status_cmp(const void *a, const void *b);
