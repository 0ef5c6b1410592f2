#include "core/loom/hd_companion.h"
#include "core/loom/hd_arena_int.h"
#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 64

typedef enum { BY_REGION, BY_SLOT, BY_CONTENT } keyed_t;

typedef struct companion_s {
    struct companion_s *next; /* in its bucket; then in the list of the doomed */
    const hd_companion_type_t *type;
    union {
        void *made;
        hd_err_t *err; /* why it could not be made */
    };
    const void *key; /* of a part of a region; the slot */
    union {
        uint64_t version; /* the region's */
        struct {
            uint32_t refs, content_len; /* by content */
        };
    };
    uint32_t hash, index; /* <index>: the region's */
    uint8_t keyed, arena;
    bool has_failed;
    char content[];
} companion_t;

struct hd_companions_s {
    companion_t **buckets;
    size_t buckets_n, n;
    bool waits; /* for an unpin: an owner is gone, but its region still in use here */
};

static hd_companions_t *table_of(hd_member_t *m)
{
    if (m->companions == NULL) {
        m->companions = calloc(1, sizeof(*m->companions));
        hd_bug_on(m->companions == NULL);
    }
    return m->companions;
}

static void resize(hd_companions_t *t)
{
    size_t n = hd_max(t->buckets_n * 2, (size_t)BUCKETS_MIN);
    companion_t **buckets = calloc(n, sizeof(companion_t *)), *c, *next;

    hd_bug_on(buckets == NULL);
    for (size_t i = 0; i < t->buckets_n; i++) {
        for (c = t->buckets[i]; c != NULL; c = next) {
            next = c->next;
            c->next = buckets[c->hash & (n - 1)];
            buckets[c->hash & (n - 1)] = c;
        }
    }
    free(t->buckets);
    t->buckets = buckets;
    t->buckets_n = n;
}

static bool is_like(const companion_t *c, const companion_t *like, hd_str_t content)
{
    if (c->hash != like->hash || c->type != like->type || c->keyed != like->keyed)
        return false;
    if (c->keyed == BY_CONTENT)
        return hd_str_eq(hd_str_n(c->content, c->content_len), content);
    return c->key == like->key && c->version == like->version &&
           c->arena == like->arena && c->index == like->index;
}

static companion_t *find(const hd_companions_t *t, const companion_t *like,
                         hd_str_t content)
{
    companion_t *c =
        t->buckets_n == 0 ? NULL : t->buckets[like->hash & (t->buckets_n - 1)];

    while (c != NULL && !is_like(c, like, content))
        c = c->next;
    return c;
}

static uint32_t hash_of(const companion_t *like, hd_str_t content)
{
    uint64_t facts[] = {(uintptr_t)like->type, (uintptr_t)like->key, like->version,
                        (uint64_t)like->index << 16 | (uint64_t)like->arena << 8 |
                            like->keyed};
    uint64_t h = hd_hash64(facts, sizeof(facts), 0);

    return (uint32_t)(content.len == 0 ? h : hd_hash64(content.data, content.len, h));
}

static companion_t *add(hd_companions_t *t, const companion_t *like, hd_str_t content)
{
    companion_t *c = malloc(sizeof(*c) + content.len);

    hd_bug_on(c == NULL);
    *c = *like;
    if (c->keyed == BY_CONTENT) {
        c->content_len = (uint32_t)content.len;
        memcpy(c->content, content.data, content.len);
    }
    if (t->n >= t->buckets_n)
        resize(t);
    c->next = t->buckets[c->hash & (t->buckets_n - 1)];
    t->buckets[c->hash & (t->buckets_n - 1)] = c;
    t->n++;
    return c;
}

/* What was made, or why it could not be. */
static void *made_of(const companion_t *c, hd_err_t *err)
{
    if (!c->has_failed)
        return c->made;
    if (err != NULL && err->code == HD_E_NONE)
        *err = *c->err;
    return NULL;
}

/* Found or made. Making one may ask for others: so it is added only after. */
static companion_t *get(hd_member_t *m, companion_t *like, hd_str_t content,
                        const void *owner, const void *arg, hd_err_t *err)
{
    hd_companions_t *t = table_of(m);
    hd_err_t why = {.code = HD_E_NONE};
    companion_t *c;

    like->hash = hash_of(like, content);
    c = find(t, like, content);
    if (c != NULL)
        return c;
    like->made = like->type->create(m, owner, arg, &why);
    if (like->made == NULL) {
        hd_ignore(
            hd_err_set(&why, HD_E_INTERNAL, "%s could not be made", like->type->name));
        if (like->keyed == BY_CONTENT) { /* nobody holds it: not remembered */
            if (err != NULL && err->code == HD_E_NONE)
                *err = why;
            return NULL;
        }
        like->has_failed = true;
        like->err = malloc(sizeof(why));
        hd_bug_on(like->err == NULL);
        *like->err = why;
    }
    if (like->keyed == BY_SLOT)
        hd_slot_hold(m, owner);
    return add(t, like, content);
}

void *hd_companion_of_part(hd_member_t *m, const hd_companion_type_t *type,
                           const hd_region_t *r, const void *key, const void *arg,
                           hd_err_t *err)
{
    companion_t like = {.type = type,
                        .key = key,
                        .version = r->version,
                        .index = r->index,
                        .keyed = BY_REGION,
                        .arena = r->arena};

    return made_of(get(m, &like, HD_STR_NONE, r, arg, err), err);
}

void *hd_companion_of_region(hd_member_t *m, const hd_companion_type_t *type,
                             const hd_region_t *r, const void *arg, hd_err_t *err)
{
    return hd_companion_of_part(m, type, r, NULL, arg, err);
}

void *hd_companion_of_slot(hd_member_t *m, const hd_companion_type_t *type,
                           const hd_slot_t *slot, const void *arg, hd_err_t *err)
{
    companion_t like = {
        .type = type, .key = slot, .keyed = BY_SLOT, .arena = slot->arena};

    return made_of(get(m, &like, HD_STR_NONE, slot, arg, err), err);
}

void *hd_companion_of_content(hd_member_t *m, const hd_companion_type_t *type,
                              hd_str_t content, const void *arg, hd_err_t *err)
{
    companion_t like = {.type = type, .keyed = BY_CONTENT};
    companion_t *c = get(m, &like, content, NULL, arg, err);

    if (c == NULL)
        return NULL;
    c->refs++;
    return c->made;
}

/* Ending */

static companion_t *unlink_at(hd_companions_t *t, companion_t **from)
{
    companion_t *c = *from;

    *from = c->next;
    t->n--;
    return c;
}

static void destroy(hd_member_t *m, companion_t *c)
{
    if (c->has_failed)
        free(c->err);
    else
        c->type->destroy(m, c->made);
    if (c->keyed == BY_SLOT)
        hd_slot_let_go(m, c->key);
    free(c);
}

void hd_companion_release(hd_member_t *m, const hd_companion_type_t *type, void *made)
{
    hd_companions_t *t = table_of(m);

    for (size_t i = 0; i < t->buckets_n; i++) {
        companion_t **from = &t->buckets[i];

        for (; *from != NULL; from = &(*from)->next) {
            companion_t *c = *from;

            if (c->keyed != BY_CONTENT || c->type != type || c->made != made)
                continue;
            hd_assert(c->refs > 0);
            if (--c->refs == 0)
                destroy(m, unlink_at(t, from));
            return;
        }
    }
    hd_assert(false); /* not made here, or released too often */
}

static bool is_pinned_here(const hd_member_t *m, int arena, uint32_t index)
{
    return index < m->pins_n[arena] && hd_load(&m->pins[arena][index], relaxed) != 0;
}

/* Does this member pin any version of <slot>? */
static bool is_slot_pinned(const hd_member_t *m, const hd_slot_t *slot)
{
    const hd_arena_t *a = m->arenas[slot->arena];

    for (uint32_t i = 0; i < m->pins_n[slot->arena]; i++) {
        const hd_piece_t *first;

        if (!is_pinned_here(m, slot->arena, i))
            continue;
        first = hd_piece_at(a, a->regions[i].first); /* pinned, so it is there */
        if (first != NULL && ((const hd_region_t *)(first + 1))->slot == slot)
            return true;
    }
    return false;
}

typedef enum { KEEP, WAIT, END } verdict_t;

static verdict_t judge_region(const hd_member_t *m, const companion_t *c)
{
    const hd_arena_t *a = m->arenas[c->arena];
    uint64_t word = hd_load(&a->regions[c->index].word, acquire);

    if (hd_entry_version(word) != c->version || hd_entry_state(word) == HD_REGION_FREE)
        return END;
    if (hd_entry_state(word) == HD_REGION_LIVE)
        return KEEP;
    return is_pinned_here(m, c->arena, c->index) ? WAIT : END;
}

static verdict_t judge_slot(const hd_member_t *m, const companion_t *c)
{
    const hd_slot_t *slot = c->key;
    hd_slot_state_t state = hd_slot_state(slot);

    if (state != HD_SLOT_REMOVED && state != HD_SLOT_ABSENT)
        return KEEP;
    return is_slot_pinned(m, slot) ? WAIT : END;
}

static verdict_t judge(const hd_member_t *m, const companion_t *c)
{
    if (c->keyed == BY_CONTENT)
        return KEEP;
    return c->keyed == BY_REGION ? judge_region(m, c) : judge_slot(m, c);
}

/* At the start of a turn: what nothing in it can name any more goes. */
void hd_companions_sweep(hd_member_t *m)
{
    hd_companions_t *t = m->companions;
    companion_t *doomed = NULL;

    m->companions_dirty = false;
    if (t == NULL)
        return;
    t->waits = false;
    for (size_t i = 0; i < t->buckets_n; i++) {
        companion_t **from = &t->buckets[i];

        while (*from != NULL) {
            verdict_t verdict = judge(m, *from);
            companion_t *c;

            t->waits = t->waits || verdict == WAIT;
            if (verdict != END) {
                from = &(*from)->next;
                continue;
            }
            c = unlink_at(t, from);
            c->next = doomed;
            doomed = c;
        }
    }
    while (doomed != NULL) { /* destroying one may release others */
        companion_t *c = doomed;

        doomed = c->next;
        destroy(m, c);
    }
}

void hd_companions_unpinned(hd_member_t *m)
{
    if (m->companions != NULL && m->companions->waits)
        m->companions_dirty = true;
}

void hd_companions_destroy(hd_member_t *m)
{
    hd_companions_t *t = m->companions;

    if (t == NULL)
        return;
    for (int shared = 0; shared <= 1; shared++) { /* those by content last */
        for (size_t i = 0; i < t->buckets_n; i++) {
            companion_t **from = &t->buckets[i];

            while (*from != NULL) {
                if (shared == 0 && (*from)->keyed == BY_CONTENT) {
                    from = &(*from)->next;
                    continue;
                }
                destroy(m, unlink_at(t, from));
                from = &t->buckets[i]; /* it may have released a neighbour */
            }
        }
    }
    free(t->buckets);
    free(t);
    m->companions = NULL;
}

size_t hd_companion_count(const hd_member_t *m)
{
    return m->companions == NULL ? 0 : m->companions->n;
}
