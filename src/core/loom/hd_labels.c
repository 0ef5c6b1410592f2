/* Entering a record: reserve (memory at the end of a chunk that only this member fills),
 * fill, publish (one compare-and-swap into a table), hang on its family's list, and last
 * move the chunk's end behind it. So what lies behind the end of a dead member's chunk is
 * either a published record whose entry is completed for it, or nothing.
 *
 * The tables: seven, each four times the one before; a name belongs into the first free
 * cell of eight neighbours in the first table that has one. Cells are never emptied, so
 * that a free cell ends a search; and few series touch few pages.
 */
#include "core/loom/hd_labels_int.h"
#include <string.h>

#define NEIGHBOURS 8

/* Records */

const hd_rec_t *hd_rec_at(const hd_state_t *s, hd_rec_ref_t ref)
{
    size_t at = ((size_t)ref - 1) * 8;
    const hd_rec_t *r;

    if (ref == 0 || at > s->conf.labels_bytes - sizeof(*r))
        return NULL;
    r = (const hd_rec_t *)(s->labels + at);
    return r->bytes > s->conf.labels_bytes - at || r->bytes < sizeof(*r) + r->data_len
               ? NULL
               : r;
}

static hd_rec_t *rec_of(hd_state_t *s, hd_rec_ref_t ref)
{
    return (hd_rec_t *)(s->labels + ((size_t)ref - 1) * 8);
}

static uint32_t hash_want(const hd_rec_want_t *w)
{
    uint64_t seed = w->kind;

    if (w->kind == HD_REC_SERIES)
        seed |= (uint64_t)w->a << 32 | (uint64_t)w->b << 2;
    return (uint32_t)hd_hash64(w->data, w->key_len, seed);
}

static bool is_wanted(const hd_rec_t *r, const hd_rec_want_t *w, uint32_t hash)
{
    if (r == NULL || r->kind != w->kind || r->hash != hash)
        return false;
    if (w->kind == HD_REC_SERIES)
        return r->a == w->a && r->b == w->b;
    if (w->kind == HD_REC_LABELS && r->data_len != w->data_len)
        return false;
    return r->data_len >= w->key_len && memcmp(r->data, w->data, w->key_len) == 0;
}

/* The <i>-th cell where <hash> may lie; NULL after the last. */
static _Atomic uint64_t *cell_at(const hd_state_t *s, uint32_t hash, unsigned i)
{
    unsigned table = i / NEIGHBOURS;
    uint32_t start = hash + (hash >> 16) * table;

    if (table >= HD_SERIES_TABLES)
        return NULL;
    return &s->tables[table]
                     [(start + i % NEIGHBOURS) & (HD_SERIES_TABLE_CELLS(table) - 1)];
}

/* The record, or 0 and the free cell where it belongs (NULL: all are taken). */
static hd_rec_ref_t find(const hd_state_t *s, const hd_rec_want_t *w, uint32_t hash,
                         _Atomic uint64_t **cell)
{
    for (unsigned i = 0; (*cell = cell_at(s, hash, i)) != NULL; i++) {
        uint64_t v = hd_load(*cell, acquire);

        if (v == 0)
            return 0;
        if (v >> 32 == hash && is_wanted(hd_rec_at(s, (hd_rec_ref_t)v), w, hash))
            return (hd_rec_ref_t)v;
    }
    return 0;
}

static bool is_published(const hd_state_t *s, hd_rec_ref_t ref, uint32_t hash)
{
    _Atomic uint64_t *cell;

    for (unsigned i = 0; (cell = cell_at(s, hash, i)) != NULL; i++) {
        uint64_t v = hd_load(cell, acquire);

        if (v == ((uint64_t)hash << 32 | ref))
            return true;
        if (v == 0)
            break;
    }
    return false;
}

hd_rec_ref_t hd_rec_find(const hd_state_t *s, const hd_rec_want_t *want)
{
    _Atomic uint64_t *cell;

    return find(s, want, hash_want(want), &cell);
}

/* Chunks */

static bool try_own(hd_member_t *m, hd_chunk_t *c, uint32_t size, uint32_t need)
{
    uint32_t nobody = 0;

    if (hd_load(&c->owner, relaxed) != 0 || size - hd_load(&c->used, relaxed) < need)
        return false;
    hd_loom_step();
    if (!atomic_compare_exchange_strong(&c->owner, &nobody, (uint32_t)m->index + 1))
        return false;
    if (size - hd_load(&c->used, acquire) >= need)
        return true;
    hd_store(&c->owner, 0, release); /* another filled it meanwhile */
    return false;
}

/* Sees to it that <*mine> has room for <need>. */
static bool own_chunk(hd_member_t *m, uint32_t *mine, hd_chunk_t *chunks, uint32_t max,
                      _Atomic uint32_t *chunks_n, uint32_t size, uint32_t need)
{
    if (need > size)
        return false;
    if (*mine != 0) {
        hd_chunk_t *c = &chunks[*mine - 1];

        if (size - hd_load(&c->used, relaxed) >= need)
            return true;
        *mine = 0;
        hd_store(&c->owner, 0, release);
    }
    for (uint32_t i = 0; i < max; i++) {
        hd_raise(chunks_n, i + 1); /* before it can be ours: a reaper looks that far */
        if (try_own(m, &chunks[i], size, need)) {
            *mine = i + 1;
            return true;
        }
    }
    return false;
}

static bool reserve(hd_member_t *m, uint32_t bytes, uint32_t words)
{
    hd_state_t *s = m->state;

    return own_chunk(m, &m->label_chunk, s->label_chunks, s->label_chunks_max,
                     &s->head->label_chunks_n, HD_LABEL_CHUNK_BYTES, bytes) &&
           (words == 0 || own_chunk(m, &m->word_chunk, s->word_chunks, s->word_chunks_max,
                                    &s->head->word_chunks_n, HD_WORD_CHUNK, words));
}

static hd_rec_ref_t end_of_chunk(const hd_state_t *s, uint32_t chunk)
{
    uint32_t used = hd_load(&s->label_chunks[chunk].used, acquire);

    return (hd_rec_ref_t)(((size_t)chunk * HD_LABEL_CHUNK_BYTES + used) / 8 + 1);
}

static hd_rec_ref_t fill(hd_member_t *m, const hd_rec_want_t *w, uint32_t hash,
                         uint32_t bytes)
{
    hd_state_t *s = m->state;
    hd_rec_ref_t ref = end_of_chunk(s, m->label_chunk - 1);
    hd_rec_t *r = rec_of(s, ref);

    hd_loom_step();
    memset(r, 0, sizeof(*r));
    r->kind = w->kind;
    r->bytes = bytes;
    r->hash = hash;
    r->data_len = w->data_len;
    r->a = w->a;
    r->b = w->b;
    r->words_n = w->words_n;
    r->word = w->word;
    if (w->kind == HD_REC_SERIES)
        r->word = (m->word_chunk - 1) * HD_WORD_CHUNK +
                  hd_load(&s->word_chunks[m->word_chunk - 1].used, relaxed);
    hd_loom_step();
    if (w->data_len > 0)
        memcpy(r->data, w->data, w->data_len);
    return ref;
}

/* Publishing */

static _Atomic hd_rec_ref_t *list_of(hd_state_t *s, const hd_rec_t *r)
{
    if (r->kind == HD_REC_FAMILY)
        return &s->head->families;
    if (r->kind == HD_REC_SERIES && hd_rec_at(s, r->a) != NULL)
        return &rec_of(s, r->a)->head;
    return NULL;
}

static void hang(hd_state_t *s, hd_rec_ref_t ref)
{
    hd_rec_t *r = rec_of(s, ref);
    _Atomic hd_rec_ref_t *list = list_of(s, r);
    hd_rec_ref_t first;

    if (list == NULL)
        return;
    first = hd_load(list, relaxed);
    do {
        hd_store(&r->next, first, relaxed);
        hd_loom_step();
    } while (!atomic_compare_exchange_weak(list, &first, ref));
}

static bool hangs(hd_state_t *s, hd_rec_ref_t ref)
{
    _Atomic hd_rec_ref_t *list = list_of(s, rec_of(s, ref));
    hd_rec_ref_t it;

    if (list == NULL)
        return true;
    it = hd_load(list, acquire);
    while (it != 0 && it != ref && hd_rec_at(s, it) != NULL)
        it = hd_load(&rec_of(s, it)->next, relaxed);
    return it == ref;
}

/* Moves the chunks' ends behind a published record: words first. */
static void pass_record(hd_state_t *s, uint32_t chunk, const hd_rec_t *r)
{
    if (r->kind == HD_REC_SERIES && r->word / HD_WORD_CHUNK < s->word_chunks_max) {
        hd_chunk_t *words = &s->word_chunks[r->word / HD_WORD_CHUNK];
        uint32_t end = r->word % HD_WORD_CHUNK + r->words_n;

        if (hd_load(&words->used, relaxed) < end && end <= HD_WORD_CHUNK)
            hd_store(&words->used, end, release);
    }
    hd_bump(&s->label_chunks[chunk].used, r->bytes, release);
}

hd_rec_ref_t hd_rec_enter(hd_member_t *m, const hd_rec_want_t *w)
{
    uint32_t hash = hash_want(w);
    size_t bytes = hd_align_up(sizeof(hd_rec_t) + w->data_len, 8);
    hd_state_t *s = m->state;
    hd_rec_ref_t mine = 0;

    if (bytes > HD_LABEL_CHUNK_BYTES)
        return 0;
    for (;;) {
        _Atomic uint64_t *cell;
        hd_rec_ref_t found = find(s, w, hash, &cell);
        uint64_t nothing = 0;

        if (found != 0 || cell == NULL)
            return found; /* what was filled is written over by the next one */
        if (mine == 0) {
            if (!reserve(m, (uint32_t)bytes, w->kind == HD_REC_SERIES ? w->words_n : 0))
                return 0;
            mine = fill(m, w, hash, (uint32_t)bytes);
        }
        hd_loom_step();
        if (atomic_compare_exchange_strong(cell, &nothing, (uint64_t)hash << 32 | mine))
            break;
    }
    hang(s, mine);
    pass_record(s, m->label_chunk - 1, rec_of(s, mine));
    return mine;
}

/* Reaping */

static void finish_chunk(hd_state_t *s, uint32_t chunk)
{
    hd_rec_ref_t ref = end_of_chunk(s, chunk);
    uint32_t used = hd_load(&s->label_chunks[chunk].used, acquire);
    const hd_rec_t *r;

    if (used > HD_LABEL_CHUNK_BYTES - sizeof(*r))
        return;
    r = rec_of(s, ref);
    if (r->bytes < sizeof(*r) || r->bytes > HD_LABEL_CHUNK_BYTES - used ||
        !is_published(s, ref, r->hash))
        return;
    if (!hangs(s, ref))
        hang(s, ref);
    pass_record(s, chunk, r);
}

void hd_labels_reap(hd_state_t *s, int index)
{
    uint32_t owner = (uint32_t)index + 1;
    uint32_t labels =
        hd_min(hd_load(&s->head->label_chunks_n, acquire), s->label_chunks_max);
    uint32_t words =
        hd_min(hd_load(&s->head->word_chunks_n, acquire), s->word_chunks_max);

    for (uint32_t i = 0; i < labels; i++) {
        if (hd_load(&s->label_chunks[i].owner, acquire) != owner)
            continue;
        finish_chunk(s, i);
        hd_store(&s->label_chunks[i].owner, 0, release);
    }
    for (uint32_t i = 0; i < words; i++)
        if (hd_load(&s->word_chunks[i].owner, acquire) == owner)
            hd_store(&s->word_chunks[i].owner, 0, release);
}
