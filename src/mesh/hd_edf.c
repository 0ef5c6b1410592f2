#include "mesh/hd_edf.h"

#define WEIGHT_MIN 1e-9 /* a weight of 0 would never come again */

static bool is_before(const hd_edf_entry_t *a, const hd_edf_entry_t *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->filed < b->filed;
}

void hd_edf_init(hd_edf_t *edf, hd_pool_t *pool, uint32_t n_max)
{
    *edf = (hd_edf_t){._heap = hd_pool_alloc(pool, (n_max + 1) * sizeof(*edf->_heap))};
}

void hd_edf_add(hd_edf_t *edf, uint32_t item, double weight)
{
    hd_edf_entry_t e = {1 / hd_max(weight, WEIGHT_MIN), edf->_filings++, item};
    uint32_t at = edf->n++;

    for (; at > 0 && is_before(&e, &edf->_heap[(at - 1) / 2]); at = (at - 1) / 2)
        edf->_heap[at] = edf->_heap[(at - 1) / 2];
    edf->_heap[at] = e;
}

uint32_t hd_edf_peek(const hd_edf_t *edf)
{
    return edf->_heap[0].item;
}

void hd_edf_turn(hd_edf_t *edf, double weight)
{
    hd_edf_entry_t e = {edf->_heap[0].deadline + 1 / hd_max(weight, WEIGHT_MIN),
                        edf->_filings++, edf->_heap[0].item};
    uint32_t at = 0, child;

    edf->steps = 1;
    while ((child = 2 * at + 1) < edf->n) {
        edf->steps += 2;
        if (child + 1 < edf->n && is_before(&edf->_heap[child + 1], &edf->_heap[child]))
            child++;
        if (is_before(&e, &edf->_heap[child]))
            break;
        edf->_heap[at] = edf->_heap[child];
        at = child;
    }
    edf->_heap[at] = e;
}
