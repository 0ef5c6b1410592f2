#include "core/loom/hd_series.h"
#include "core/loom/hd_labels_int.h"
#include <math.h>

#define VALUE_MAX_BYTES 1024
#define LABELS_MAX_BYTES 8192
#define FOLDED_WORD 1 /* of each member; word 0 is nobody's */

#define FAMILY_KIND(b) ((hd_series_kind_t)((b)&255))
#define FAMILY_BUCKETS(b) ((b) >> 8)

/* Strings in a record: each is its length in two bytes, then its bytes. */
typedef struct {
    char *at, *end;
    bool is_full;
} writer_t;

static void write_bytes(writer_t *w, const void *data, size_t n)
{
    if ((size_t)(w->end - w->at) < n) {
        w->is_full = true;
        return;
    }
    if (n > 0)
        memcpy(w->at, data, n);
    w->at += n;
}

static void write_str(writer_t *w, hd_str_t s)
{
    uint16_t len = (uint16_t)s.len;

    write_bytes(w, &len, sizeof(len));
    write_bytes(w, s.data, len);
}

static hd_str_t read_str(const char **at, const char *end)
{
    uint16_t len;
    hd_str_t s;

    if (end - *at < (ptrdiff_t)sizeof(len))
        return HD_STR_NONE;
    memcpy(&len, *at, sizeof(len));
    *at += sizeof(len);
    len = (uint16_t)hd_min((ptrdiff_t)len, end - *at);
    s = hd_str_n(*at, len);
    *at += len;
    return s;
}

/* At most VALUE_MAX_BYTES, no UTF-8 character cut in two. */
static hd_str_t cut_value(hd_str_t s)
{
    if (s.len <= VALUE_MAX_BYTES)
        return s;
    s.len = VALUE_MAX_BYTES;
    while (s.len > 0 && ((unsigned char)s.data[s.len] & 0xc0) == 0x80)
        s.len--;
    return s;
}

/* Families */

/* Data: name (the key), label names, bounds, help. */
static bool describe(const hd_family_t *f, hd_rec_want_t *w, char *room, size_t bytes)
{
    writer_t to = {room, room + bytes, false};
    uint32_t labels_n = 0;

    if (f->buckets_n > HD_BUCKETS_MAX || strlen(f->name) > 255)
        return false;
    write_str(&to, hd_str_c(f->name));
    w->key_len = (uint32_t)(to.at - room);
    for (; f->labels != NULL && f->labels[labels_n] != NULL; labels_n++)
        write_str(&to, hd_str_c(f->labels[labels_n]));
    write_bytes(&to, f->buckets, f->buckets_n * sizeof(double));
    write_str(&to, hd_str_sub(hd_str_c(f->help), 0, 1024));
    w->kind = HD_REC_FAMILY;
    w->a = labels_n;
    w->b = (uint32_t)f->kind | f->buckets_n << 8;
    w->words_n = f->kind == HD_HISTOGRAM ? f->buckets_n + 2 : 1; /* +Inf, sum */
    w->word = f->series_max;
    w->data = room;
    w->data_len = (uint32_t)(to.at - room);
    return !to.is_full && labels_n <= HD_LABELS_MAX;
}

/* All but the help and the limit. */
static bool is_same_family(const hd_rec_t *r, const hd_rec_want_t *w, hd_str_t help)
{
    uint32_t n = w->data_len - (uint32_t)hd_min(help.len, (size_t)1024) - 2;

    return r != NULL && r->kind == HD_REC_FAMILY && r->a == w->a && r->b == w->b &&
           r->data_len >= n && memcmp(r->data, w->data, n) == 0;
}

static const hd_rec_t *get_family(const hd_state_t *s, hd_family_id_t id)
{
    const hd_rec_t *f = hd_rec_at(s, id);

    return f != NULL && f->kind == HD_REC_FAMILY && f->a <= HD_LABELS_MAX &&
                   FAMILY_BUCKETS(f->b) <= HD_BUCKETS_MAX
               ? f
               : NULL;
}

static uint32_t series_max(const hd_state_t *s, const hd_rec_t *f)
{
    return f->word != 0 ? f->word : s->conf.series_max / 4 / f->words_n;
}

/* Series */

/* NULL: too long. */
static bool write_labels(hd_rec_want_t *w, const hd_str_t *values, uint32_t n, char *room,
                         size_t bytes)
{
    writer_t to = {room, room + bytes, false};

    for (uint32_t i = 0; i < n; i++)
        write_str(&to, cut_value(values[i]));
    *w = (hd_rec_want_t){.kind = HD_REC_LABELS, .data = room};
    w->data_len = w->key_len = (uint32_t)(to.at - room);
    return !to.is_full;
}

static const hd_rec_t *find_series(const hd_state_t *s, hd_family_id_t family,
                                   const hd_rec_want_t *labels)
{
    hd_rec_want_t w = {.kind = HD_REC_SERIES, .a = family};

    w.b = hd_rec_find(s, labels);
    return w.b == 0 ? NULL : hd_rec_at(s, hd_rec_find(s, &w));
}

static const hd_rec_t *enter_series(hd_member_t *m, hd_family_id_t family,
                                    const hd_rec_want_t *labels)
{
    hd_rec_t *f = (hd_rec_t *)(uintptr_t)hd_rec_at(m->state, family);
    hd_rec_want_t w = {.kind = HD_REC_SERIES, .a = family, .words_n = f->words_n};
    hd_rec_ref_t ref;

    w.b = hd_rec_enter(m, labels);
    ref = w.b == 0 ? 0 : hd_rec_enter(m, &w);
    if (ref != 0) {
        hd_loom_step();
        atomic_fetch_add_explicit(&f->series_n, 1, memory_order_relaxed);
    }
    return hd_rec_at(m->state, ref);
}

static void grow_words(hd_member_t *m, hd_series_t word)
{
    size_t n = hd_align_up((size_t)word + HD_BUCKETS_MAX + 2, HD_WORD_CHUNK);

    if (m->words_n > word + HD_BUCKETS_MAX + 1)
        return;
    n = hd_min(n, (size_t)m->state->conf.series_max);
    hd_store(&m->row->words_n, (uint32_t)n, release);
    m->words_n = (uint32_t)n;
}

static bool is_usable(hd_member_t *m, hd_series_t word, uint32_t words_n)
{
    if (hd_likely(word != 0 && (uint64_t)word + words_n <= m->words_n))
        return true;
    if (word == 0 || (uint64_t)word + words_n > m->state->conf.series_max)
        return false;
    grow_words(m, word);
    return true;
}

static hd_series_t fold(hd_member_t *m, const hd_rec_t *f)
{
    const hd_rec_t *r = hd_rec_at(m->state, hd_load(&f->overflow, acquire));

    if (is_usable(m, FOLDED_WORD, 1))
        hd_bump(&m->words[FOLDED_WORD], 1, relaxed);
    return r == NULL ? 0 : r->word;
}

static hd_rec_ref_t ref_of(const hd_state_t *s, const hd_rec_t *r)
{
    return (hd_rec_ref_t)(((const char *)r - s->labels) / 8 + 1);
}

/* NULL: there is no room for it. */
static const hd_rec_t *find_or_enter(hd_member_t *m, const hd_rec_t *f,
                                     const hd_str_t *values)
{
    hd_family_id_t family = ref_of(m->state, f);
    char room[LABELS_MAX_BYTES];
    hd_rec_want_t labels;
    const hd_rec_t *r;

    if (!write_labels(&labels, values, f->a, room, sizeof(room)))
        return NULL;
    r = find_series(m->state, family, &labels);
    if (r == NULL && hd_load(&f->series_n, relaxed) < series_max(m->state, f))
        r = enter_series(m, family, &labels);
    return r;
}

hd_series_t hd_series_enter(hd_member_t *m, hd_family_id_t family, const hd_str_t *values)
{
    const hd_rec_t *f = get_family(m->state, family), *r;

    if (f == NULL)
        return 0;
    r = find_or_enter(m, f, values);
    if (r == NULL)
        return fold(m, f);
    grow_words(m, r->word);
    return r->word;
}

/* The series into which others are folded; entered before any other, so that there is
 * room for it. */
static bool enter_overflow(hd_member_t *m, hd_family_id_t family)
{
    hd_rec_t *f = (hd_rec_t *)(uintptr_t)hd_rec_at(m->state, family);
    hd_str_t values[HD_LABELS_MAX];
    char room[LABELS_MAX_BYTES];
    hd_rec_want_t labels;
    const hd_rec_t *r;

    if (hd_load(&f->overflow, acquire) != 0)
        return true;
    for (uint32_t i = 0; i < f->a; i++)
        values[i] = HD_STR("_overflow");
    if (!write_labels(&labels, values, f->a, room, sizeof(room)))
        return false;
    r = find_series(m->state, family, &labels);
    if (r == NULL)
        r = enter_series(m, family, &labels);
    if (r == NULL)
        return false;
    hd_store(&f->overflow, ref_of(m->state, r), release);
    return true;
}

hd_family_id_t hd_family_enter(hd_member_t *m, const hd_family_t *family)
{
    char room[LABELS_MAX_BYTES];
    hd_rec_want_t w;
    hd_family_id_t id;

    if (!describe(family, &w, room, sizeof(room)))
        return 0;
    id = hd_rec_enter(m, &w);
    if (id == 0 || !is_same_family(hd_rec_at(m->state, id), &w, hd_str_c(family->help)) ||
        !enter_overflow(m, id))
        return 0;
    return id;
}

/* Counting */

void hd_counter_add(hd_member_t *m, hd_series_t s, uint64_t n)
{
    if (hd_likely(is_usable(m, s, 1)))
        hd_bump(&m->words[s], n, relaxed);
}

void hd_series_set(hd_member_t *m, hd_series_t s, uint64_t value)
{
    if (hd_likely(is_usable(m, s, 1)))
        hd_store(&m->words[s], value, relaxed);
}

void hd_histogram_observe(hd_member_t *m, const hd_family_t *family, hd_series_t s,
                          double value)
{
    uint32_t n = family->buckets_n, i = 0;

    if (hd_unlikely(!is_usable(m, s, n + 2)))
        return;
    if (isnan(value) || value < 0)
        value = 0;
    while (i < n && value > family->buckets[i])
        i++;
    hd_bump(&m->words[s + n + 1], (uint64_t)(hd_min(value, 9e15) * 1000 + 0.5), relaxed);
    hd_bump(&m->words[s + i], 1, relaxed);
}

/* Reading */

static uint64_t sum_word(const hd_state_t *s, uint32_t word)
{
    uint32_t n = hd_members_n(s);
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        if (word < hd_load(&s->head->rows[i].words_n, acquire))
            sum += hd_load(&s->words[(size_t)i * s->conf.series_max + word], relaxed);
    return sum;
}

uint64_t hd_series_sum(hd_state_t *s, hd_series_t series)
{
    return series == 0 ? 0 : sum_word(s, series);
}

uint64_t hd_series_folded(hd_state_t *s)
{
    return sum_word(s, FOLDED_WORD);
}

static void show_family(const hd_rec_t *f, hd_series_view_t *view)
{
    const char *at = f->data, *end = f->data + f->data_len;
    size_t bounds = FAMILY_BUCKETS(f->b) * sizeof(double);

    view->family = read_str(&at, end);
    view->kind = FAMILY_KIND(f->b);
    view->labels_n = f->a;
    for (uint32_t i = 0; i < f->a; i++)
        view->label_names[i] = read_str(&at, end);
    view->buckets_n = FAMILY_BUCKETS(f->b);
    if ((size_t)(end - at) >= bounds)
        memcpy(view->bounds, at, bounds);
    at += hd_min((ptrdiff_t)bounds, end - at);
    view->help = read_str(&at, end);
}

static void show_series_labels(const hd_state_t *s, const hd_rec_t *f, const hd_rec_t *r,
                               hd_series_view_t *view)
{
    const hd_rec_t *labels = hd_rec_at(s, r->b);
    const char *at = labels == NULL ? NULL : labels->data;
    const char *end = labels == NULL ? NULL : at + labels->data_len;

    for (uint32_t i = 0; i < f->a; i++)
        view->label_values[i] = read_str(&at, end);
}

/* False: nothing was ever counted in it. */
static bool show_series(const hd_state_t *s, const hd_rec_t *f, const hd_rec_t *r,
                        hd_series_view_t *view)
{
    uint64_t any = 0;

    if ((uint64_t)r->word + r->words_n > s->conf.series_max)
        return false;
    show_series_labels(s, f, r, view);
    view->count = 0;
    if (view->kind != HD_HISTOGRAM) {
        view->value = sum_word(s, r->word);
        return view->value != 0;
    }
    for (uint32_t i = 0; i <= view->buckets_n; i++) {
        view->buckets[i] = sum_word(s, r->word + i);
        view->count += view->buckets[i];
    }
    any = sum_word(s, r->word + view->buckets_n + 1);
    view->sum = (double)any / 1000;
    return view->count != 0 || any != 0;
}

static hd_rec_ref_t next_of(const hd_rec_t *r)
{
    return r == NULL ? 0 : hd_load(&r->next, acquire);
}

/* The series after <*at>, in its family or at the head of the next that has one. */
static const hd_rec_t *advance(const hd_state_t *s, uint32_t *at, const hd_rec_t **family)
{
    const hd_rec_t *now = hd_rec_at(s, *at);
    hd_rec_ref_t next = next_of(now), f;

    f = now == NULL ? hd_load(&s->head->families, acquire) : now->a;
    *family = get_family(s, f);
    if (now == NULL)
        next = *family == NULL ? 0 : hd_load(&(*family)->head, acquire);
    while (next == 0 && *family != NULL) {
        *family = get_family(s, next_of(*family));
        if (*family != NULL)
            next = hd_load(&(*family)->head, acquire);
    }
    *at = next;
    return *family == NULL ? NULL : hd_rec_at(s, next);
}

bool hd_series_next(hd_state_t *s, uint32_t *at, hd_series_view_t *view)
{
    const hd_rec_t *f, *r;

    while ((r = advance(s, at, &f)) != NULL) {
        hd_rec_ref_t overflow = hd_load(&f->overflow, acquire);
        bool counted;

        show_family(f, view);
        counted = show_series(s, f, r, view);
        if (counted || (*at != overflow && overflow != 0)) /* 0: just being entered */
            return true;
    }
    return false;
}

/* Carrying over */

/* One family on its way from a state to another. */
typedef struct {
    hd_member_t *m;
    const hd_rec_t *from; /* NULL: none yet */
    const hd_rec_t *to;   /* NULL: another shape than before: its counts end here */
    hd_series_view_t view;
    uint64_t rest[HD_BUCKETS_MAX + 2]; /* what has no series of its own there */
} carrying_t;

static hd_family_id_t enter_carried(carrying_t *c, hd_pool_t *pool)
{
    const hd_series_view_t *v = &c->view;
    const char *labels[HD_LABELS_MAX + 1] = {NULL};
    hd_family_t f = {.name = hd_str_to_c(pool, v->family),
                     .help = hd_str_to_c(pool, v->help),
                     .kind = v->kind,
                     .labels = labels,
                     .buckets = v->bounds,
                     .buckets_n = v->buckets_n,
                     .series_max = c->from->word};

    for (uint32_t i = 0; i < v->labels_n; i++)
        labels[i] = hd_str_to_c(pool, v->label_names[i]);
    return hd_family_enter(c->m, &f);
}

static void begin_family(carrying_t *c, const hd_rec_t *from)
{
    hd_pool_t *pool = hd_pool_create(0);

    *c = (carrying_t){.m = c->m, .from = from};
    show_family(from, &c->view);
    c->to = get_family(c->m->state, enter_carried(c, pool));
    hd_pool_destroy(pool);
}

/* The member's words for a series of <c>'s family; NULL: no room. */
static _Atomic uint64_t *words_of(carrying_t *c, const hd_rec_t *r)
{
    return r != NULL && is_usable(c->m, r->word, c->to->words_n) ? &c->m->words[r->word]
                                                                 : NULL;
}

static void carry_series(carrying_t *c, hd_state_t *s, const hd_rec_t *r,
                         bool is_overflow)
{
    _Atomic uint64_t *to = NULL;

    if (!is_overflow) {
        show_series_labels(s, c->from, r, &c->view);
        to = words_of(c, find_or_enter(c->m, c->to, c->view.label_values));
    }
    for (uint32_t i = 0; i < r->words_n; i++) {
        uint64_t n = sum_word(s, r->word + i);

        if (to != NULL)
            hd_store(&to[i], n, relaxed);
        else
            c->rest[i] += n;
    }
}

static void end_family(carrying_t *c)
{
    _Atomic uint64_t *to;

    if (c->from == NULL || c->to == NULL)
        return;
    to = words_of(c, hd_rec_at(c->m->state, hd_load(&c->to->overflow, acquire)));
    for (uint32_t i = 0; to != NULL && i < c->to->words_n; i++)
        hd_store(&to[i], c->rest[i], relaxed);
}

void hd_series_carry(hd_member_t *m, hd_state_t *from)
{
    carrying_t c = {.m = m};
    const hd_rec_t *f, *r;
    uint32_t at = 0;

    while ((r = advance(from, &at, &f)) != NULL) {
        if (FAMILY_KIND(f->b) == HD_SERIES_GAUGE)
            continue;
        if (f != c.from) {
            end_family(&c);
            begin_family(&c, f);
        }
        if (c.to != NULL && (uint64_t)r->word + r->words_n <= from->conf.series_max &&
            r->words_n == c.to->words_n && r->words_n <= hd_countof(c.rest))
            carry_series(&c, from, r, at == hd_load(&f->overflow, acquire));
    }
    end_family(&c);
    if (is_usable(m, FOLDED_WORD, 1))
        hd_store(&m->words[FOLDED_WORD], hd_series_folded(from), relaxed);
}

void hd_series_reap(hd_state_t *s, int index)
{
    uint32_t n =
        hd_min(hd_load(&s->head->rows[index].words_n, acquire), s->conf.series_max);
    const hd_rec_t *f, *r;
    uint32_t at = 0;

    while ((r = advance(s, &at, &f)) != NULL) {
        _Atomic uint64_t *word = &s->words[(size_t)index * s->conf.series_max + r->word];

        if (FAMILY_KIND(f->b) == HD_SERIES_GAUGE && r->word < n &&
            hd_load(word, relaxed) != 0)
            hd_store(word, 0, relaxed);
    }
}
