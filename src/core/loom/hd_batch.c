#include "core/loom/hd_batch.h"
#include "core/base/hd_map.h"
#include "core/loom/hd_arena_int.h"
#include <stdlib.h>

/* What becomes of one slot. */
typedef struct {
    hd_slot_t *slot;
    hd_region_t *region; /* its next version; NULL with <keeps>: the present one */
    hd_slot_state_t state;
    bool keeps;     /* state only */
    bool unchanged; /* equal content was put: just not to be removed as "other" */
} op_t;

struct hd_batch_s {
    hd_arena_t *arena;
    op_t **ops;
    size_t ops_n, ops_room;
    hd_map_t *by_slot;  /* id's bytes -> op */
    hd_map_t *building; /* a region's index's bytes -> hd_builder_t */
};

static void *take_zeroed(size_t bytes)
{
    void *p = calloc(1, bytes);

    hd_bug_on(p == NULL);
    return p;
}

hd_batch_t *hd_batch_begin(hd_arena_t *a)
{
    hd_batch_t *b = take_zeroed(sizeof(*b));

    hd_bug_on(a->writer == NULL);
    b->arena = a;
    a->batches_n++;
    b->by_slot = hd_map_create();
    b->building = hd_map_create();
    return b;
}

static hd_str_t key_of(const hd_slot_t *slot)
{
    return hd_str_n((const char *)&slot->id, sizeof(slot->id));
}

static op_t *op_of(hd_batch_t *b, hd_slot_t *slot)
{
    op_t *op = hd_map_get(b->by_slot, key_of(slot));

    if (op != NULL)
        return op;
    if (b->ops_n == b->ops_room) {
        b->ops_room = hd_max(b->ops_room * 2, (size_t)16);
        b->ops = realloc(b->ops, b->ops_room * sizeof(*b->ops));
        hd_bug_on(b->ops == NULL);
    }
    op = take_zeroed(sizeof(*op));
    op->slot = slot;
    op->keeps = true;
    op->state = hd_slot_state(slot);
    b->ops[b->ops_n++] = op;
    hd_bug_on(hd_map_put(b->by_slot, key_of(slot), op) != NULL);
    return op;
}

/* Building */

static hd_str_t index_key(const hd_region_t *r)
{
    return hd_str_n((const char *)&r->index, sizeof(r->index));
}

hd_region_t *hd_batch_region(hd_batch_t *b, hd_res_type_t type, hd_str_t name,
                             hd_str_t source, size_t size_hint, hd_pool_t **pool,
                             hd_err_t *err)
{
    hd_builder_t *it = take_zeroed(sizeof(*it));

    hd_bug_on(type == HD_RES_NONE || type >= HD_RES_TYPES_N);
    if (!hd_region_begin(it, b->arena, type, name, source, size_hint, err)) {
        free(it);
        return NULL;
    }
    hd_bug_on(hd_map_put(b->building, index_key(it->region), it) != NULL);
    *pool = it->pool;
    return it->region;
}

/* Of this batch, and not put yet. */
static hd_builder_t *get_builder(hd_batch_t *b, const hd_region_t *r)
{
    hd_builder_t *it = hd_map_get(b->building, index_key(r));

    hd_bug_on(it == NULL || it->region != r);
    return it;
}

static hd_builder_t *take_builder(hd_batch_t *b, const hd_region_t *r)
{
    hd_builder_t *it = get_builder(b, r);

    hd_bug_on(hd_map_remove(b->building, index_key(r)) != it);
    return it;
}

void *hd_batch_secret(hd_batch_t *b, hd_region_t *r, size_t bytes, hd_err_t *err)
{
    void *p = hd_region_add_secret(get_builder(b, r), bytes);

    if (p == NULL)
        hd_ignore(hd_err_set(err, HD_E_LIMIT, "no room for %zu bytes in the secret area",
                             bytes));
    return p;
}

static void drop_builder(hd_builder_t *it)
{
    hd_region_drop(it);
    free(it);
}

void hd_batch_drop(hd_batch_t *b, hd_region_t *r)
{
    drop_builder(take_builder(b, r));
}

/* Deciding */

static bool is_same(const hd_slot_t *slot, uint64_t content_hash)
{
    const hd_region_t *live = hd_cell_region(hd_load(&slot->_cell, relaxed));

    return content_hash != 0 && live != NULL && live->content_hash == content_hash &&
           hd_slot_state(slot) == HD_SLOT_LIVE;
}

static void forget_put(hd_batch_t *b, op_t *op)
{
    if (op->region != NULL)
        hd_region_free(b->arena, op->region);
    op->region = NULL;
}

hd_rc_t hd_batch_put(hd_batch_t *b, hd_slot_t *slot, hd_region_t *r, const void *root,
                     uint64_t content_hash, hd_err_t *err)
{
    hd_builder_t *it = take_builder(b, r);
    op_t *op;

    hd_bug_on(slot->arena != b->arena->id || slot->type != r->type);
    if (hd_pool_has_failed(it->pool)) {
        hd_rc_t rc = hd_err_set(err, HD_E_LIMIT,
                                "no room in the arena for \"%.*s\": raise loom_size",
                                HD_STR_ARG(slot->name));

        drop_builder(it);
        return rc;
    }
    if (hd_slot_has_clash(b->arena, (hd_res_type_t)slot->type, slot->name)) {
        drop_builder(it);
        return hd_err_set(err, HD_E_RESOURCE,
                          "\"%.*s\" is defined both in a file and by the control plane",
                          HD_STR_ARG(slot->name));
    }
    if (content_hash == HD_CONTENT_BUILT)
        content_hash = hd_region_hash(it, root);
    op = op_of(b, slot);
    forget_put(b, op);
    op->state = HD_SLOT_LIVE;
    op->unchanged = is_same(slot, content_hash);
    op->keeps = op->unchanged;
    if (op->unchanged) {
        hd_bump(&b->arena->shared->unchanged, 1, relaxed);
        drop_builder(it);
        return HD_DONE;
    }
    hd_region_end(it, slot, root, content_hash);
    free(it);
    op->region = r;
    return HD_OK;
}

bool hd_batch_has(const hd_batch_t *b, hd_res_type_t type, hd_str_t name)
{
    const hd_slot_t *slot = hd_slot_find(b->arena->writer, b->arena, type, name);
    const op_t *op = slot == NULL ? NULL : hd_map_get(b->by_slot, key_of(slot));

    return op != NULL && (op->region != NULL || op->unchanged);
}

void hd_batch_remove(hd_batch_t *b, hd_slot_t *slot)
{
    op_t *op = op_of(b, slot);

    forget_put(b, op);
    op->keeps = op->unchanged = false;
    op->state = HD_SLOT_REMOVED;
}

void hd_batch_undo(hd_batch_t *b, hd_slot_t *slot)
{
    op_t *op = op_of(b, slot);

    forget_put(b, op);
    op->unchanged = false;
    op->keeps = true;
    op->state = hd_slot_state(slot);
}

void hd_batch_set_state(hd_batch_t *b, hd_slot_t *slot, hd_slot_state_t state)
{
    op_t *op = op_of(b, slot);

    op->unchanged = false;
    op->state = state;
    if (state == HD_SLOT_ABSENT || state == HD_SLOT_REMOVED) {
        forget_put(b, op);
        op->keeps = false;
    }
}

void hd_batch_remove_others(hd_batch_t *b)
{
    for (hd_slot_t *slot = hd_slot_next(b->arena, NULL); slot != NULL;
         slot = hd_slot_next(b->arena, slot))
        if (hd_cell_region(hd_load(&slot->_cell, relaxed)) != NULL &&
            hd_map_get(b->by_slot, key_of(slot)) == NULL)
            hd_batch_remove(b, slot);
}

/* Publishing */

static bool is_removal(const op_t *op)
{
    return !op->keeps && op->region == NULL;
}

/* New versions bottom-up, then removals top-down; within a type by slot. */
static int compare_ops(const void *a, const void *b)
{
    const op_t *x = *(const op_t *const *)a, *y = *(const op_t *const *)b;
    int by_type = (int)x->slot->type - (int)y->slot->type;

    if (is_removal(x) != is_removal(y))
        return is_removal(x) ? 1 : -1;
    if (by_type != 0)
        return is_removal(x) ? -by_type : by_type;
    return (x->slot->id > y->slot->id) - (x->slot->id < y->slot->id);
}

static void free_batch(hd_batch_t *b)
{
    size_t at = 0;
    void *it;

    while (hd_map_next(b->building, &at, NULL, &it))
        drop_builder(it);
    hd_map_destroy(b->building);
    for (size_t i = 0; i < b->ops_n; i++)
        free(b->ops[i]);
    free(b->ops);
    hd_map_destroy(b->by_slot);
    if (b->arena->batches_n > 0)
        b->arena->batches_n--;
    free(b);
}

/* True if the slot changed. */
static bool commit(hd_batch_t *b, op_t *op, uint64_t seq, uint64_t now_ns)
{
    hd_arena_t *a = b->arena;
    hd_region_t *now = hd_cell_region(hd_load(&op->slot->_cell, relaxed));
    hd_region_t *next = op->keeps ? now : op->region, *old;

    if (next == now && op->state == hd_slot_state(op->slot))
        return false;
    if (op->region != NULL)
        hd_region_publish(a, op->region);
    op->region = NULL; /* the slot's */
    old = hd_slot_set(op->slot, next, op->state);
    if (now == NULL && next != NULL)
        hd_bump(&a->head->arrived[op->slot->type], 1, release);
    if (next == NULL)
        hd_slot_consider(a, op->slot);
    if (old != NULL)
        hd_region_retire(a, old, seq, now_ns);
    return true;
}

/* Those from <from> to <to>, in order. */
static size_t commit_ops(hd_batch_t *b, size_t from, size_t to, uint64_t now_ns)
{
    hd_arena_t *a = b->arena;
    uint64_t seq = hd_load(&a->shared->seq, relaxed) + 1;
    size_t changed = 0;

    for (size_t i = from; i < to; i++)
        changed += commit(b, b->ops[i], seq, now_ns);
    if (changed > 0) {
        hd_bump(&a->shared->batches, 1, relaxed);
        hd_store(&a->shared->seq, seq, seq_cst);
    }
    return changed;
}

static void sort_ops(hd_batch_t *b)
{
    if (b->ops_n > 1)
        qsort(b->ops, b->ops_n, sizeof(*b->ops), compare_ops);
}

size_t hd_batch_publish(hd_batch_t *b, uint64_t now_ns)
{
    size_t changed;

    sort_ops(b);
    changed = commit_ops(b, 0, b->ops_n, now_ns);
    free_batch(b);
    return changed;
}

/* The removals of listeners come first among the removals. */
size_t hd_batch_publish_first(hd_batch_t *b, uint64_t now_ns, size_t *left_n)
{
    size_t changed, n = 0, kept = 0;

    sort_ops(b);
    while (n < b->ops_n &&
           (!is_removal(b->ops[n]) || b->ops[n]->slot->type == HD_RES_LISTENER))
        n++;
    changed = commit_ops(b, 0, n, now_ns);
    for (size_t i = 0; i < b->ops_n; i++) {
        if (i < n)
            free(b->ops[i]);
        else
            b->ops[kept++] = b->ops[i];
    }
    b->ops_n = *left_n = kept;
    return changed;
}

void hd_batch_abort(hd_batch_t *b)
{
    for (size_t i = 0; i < b->ops_n; i++)
        forget_put(b, b->ops[i]);
    free_batch(b);
}
