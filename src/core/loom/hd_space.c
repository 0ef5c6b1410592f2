#include "core/loom/hd_space_int.h"
#include "core/base/hd_asan.h"
#include "core/loom/hd_loom_int.h"
#include "core/os/hd_os.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    FREE_FIRST = 1, /* bits of kind: first and last page of a free run */
    FREE_LAST = 2,
    RUN = 4,
    INNER = 8, /* of a run found by mark */
    SHARED = 16,
};

#define NONE UINT32_MAX
#define GRAIN 64
#define SMALL_MAX (HD_PAGE - GRAIN)
#define RUNS_COMPARED 64
#define ORDER_COMPARED 64
#define TINY_GRAINS 3 /* and less */

static unsigned grains_of(size_t bytes)
{
    return (unsigned)((bytes + GRAIN - 1) / GRAIN);
}

/* <n> bits from <at> on; 1 to 64 of them. */
static uint64_t bits(unsigned at, unsigned n)
{
    return (n == 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1) << at;
}

static uint32_t pages_of(size_t bytes)
{
    return (uint32_t)((bytes + HD_PAGE - 1) / HD_PAGE);
}

static char *page_at(const hd_space_t *s, uint32_t page)
{
    return s->base + (size_t)page * HD_PAGE;
}

static unsigned bin_of(uint32_t len)
{
    return 31 - (unsigned)__builtin_clz(len);
}

void hd_space_init(hd_space_t *s, char *base, size_t bytes, int fd, size_t fd_offset)
{
    memset(s, 0, sizeof(*s));
    s->base = base;
    s->fd = fd;
    s->fd_offset = fd_offset;
    s->pages_n = (uint32_t)(bytes / HD_PAGE);
    s->pages = calloc(s->pages_n + 1, sizeof(*s->pages)); /* touched only as it grows */
    hd_bug_on(s->pages == NULL);
}

void hd_space_deinit(hd_space_t *s)
{
    hd_asan_unpoison(s->base, (size_t)s->top_max * HD_PAGE);
    free(s->pages);
    s->pages = NULL;
}

size_t hd_space_round(size_t bytes)
{
    if (bytes <= SMALL_MAX)
        return (size_t)hd_max(grains_of(bytes), 1u) * GRAIN;
    return (size_t)pages_of(bytes) * HD_PAGE;
}

/* Lists */

static void link_page(hd_space_t *s, uint32_t *head, uint32_t page)
{
    s->pages[page].prev = 0;
    s->pages[page].next = *head;
    if (*head != 0)
        s->pages[*head - 1].prev = page + 1;
    *head = page + 1;
}

/* By address, lowest first (as far as a short look goes): what comes next fills the low
 * pages, so that those above become empty and are given back. */
static void link_in_order(hd_space_t *s, uint32_t *head, uint32_t page)
{
    uint32_t before = 0, after = *head;
    int tries = ORDER_COMPARED;

    while (after != 0 && after < page + 1 && tries-- > 0) {
        before = after;
        after = s->pages[after - 1].next;
    }
    s->pages[page].prev = before;
    s->pages[page].next = after;
    if (after != 0)
        s->pages[after - 1].prev = page + 1;
    if (before != 0)
        s->pages[before - 1].next = page + 1;
    else
        *head = page + 1;
}

static void unlink_page(hd_space_t *s, uint32_t *head, uint32_t page)
{
    hd_space_page_t *p = &s->pages[page];

    if (p->prev != 0)
        s->pages[p->prev - 1].next = p->next;
    else
        *head = p->next;
    if (p->next != 0)
        s->pages[p->next - 1].prev = p->prev;
}

/* Runs */

static void add_free_run(hd_space_t *s, uint32_t page, uint32_t len)
{
    s->pages[page + len - 1].kind = FREE_LAST;
    s->pages[page + len - 1].len = len;
    s->pages[page].kind = len == 1 ? FREE_FIRST | FREE_LAST : FREE_FIRST;
    s->pages[page].len = len;
    link_page(s, &s->bins[bin_of(len)], page);
}

static void remove_free_run(hd_space_t *s, uint32_t page)
{
    uint32_t len = s->pages[page].len;

    unlink_page(s, &s->bins[bin_of(len)], page);
    s->pages[page].kind = 0;
    s->pages[page + len - 1].kind = 0;
}

/* Free pages and free neighbours become one run; at the top, the top comes down. */
static void put_run(hd_space_t *s, uint32_t page, uint32_t len)
{
    s->pages[page].kind = 0;
    s->pages[page + len - 1].kind = 0;
    if (page > 0 && (s->pages[page - 1].kind & FREE_LAST) != 0) {
        uint32_t before = s->pages[page - 1].len;

        remove_free_run(s, page - before);
        page -= before;
        len += before;
    }
    if (page + len < s->top && (s->pages[page + len].kind & FREE_FIRST) != 0) {
        uint32_t after = s->pages[page + len].len;

        remove_free_run(s, page + len);
        len += after;
    }
    if (page + len == s->top)
        s->top = page;
    else
        add_free_run(s, page, len);
}

/* The lowest of the first few that fit. */
static uint32_t find_in_bin(const hd_space_t *s, unsigned bin, uint32_t len)
{
    uint32_t best = NONE;
    int tries = RUNS_COMPARED;

    for (uint32_t p = s->bins[bin]; p != 0 && (tries > 0 || best == NONE);
         p = s->pages[p - 1].next, tries--)
        if (s->pages[p - 1].len >= len && p - 1 < best)
            best = p - 1;
    return best;
}

static uint32_t find_run(hd_space_t *s, uint32_t len)
{
    for (unsigned b = bin_of(len); b < HD_SPACE_BINS; b++) {
        uint32_t page = find_in_bin(s, b, len), have;

        if (page == NONE)
            continue;
        have = s->pages[page].len;
        remove_free_run(s, page);
        if (have > len)
            add_free_run(s, page + len, have - len);
        return page;
    }
    return NONE;
}

static uint32_t take_run(hd_space_t *s, uint32_t len)
{
    uint32_t page = find_run(s, len);

    if (page == NONE) {
        if (s->pages_n - s->top < len)
            return NONE;
        page = s->top;
        s->top += len;
    }
    hd_loom_step();
    if (hd_os_reserve(s->fd, s->fd_offset + (size_t)page * HD_PAGE,
                      (size_t)len * HD_PAGE) != 0) {
        put_run(s, page, len);
        return NONE;
    }
    s->pages_used += len;
    s->top_max = hd_max(s->top_max, s->top);
    hd_asan_unpoison(page_at(s, page), (size_t)len * HD_PAGE);
    return page;
}

static void free_run(hd_space_t *s, uint32_t page, uint32_t len)
{
    hd_loom_step();
    hd_ignore(hd_os_punch(s->fd, s->fd_offset + (size_t)page * HD_PAGE,
                          (size_t)len * HD_PAGE)); /* it costs memory, nothing else */
    s->pages_used -= len;
    hd_asan_poison(page_at(s, page), (size_t)len * HD_PAGE);
    put_run(s, page, len);
}

/* Grains */

/* The next run of free grains from *at on: *at and its length; 0: there is none. */
static unsigned next_free(uint64_t free, unsigned *at)
{
    uint64_t rest = *at < 64 ? free & ~(uint64_t)0 << *at : 0, taken;

    if (rest == 0)
        return 0;
    *at = (unsigned)__builtin_ctzll(rest);
    taken = ~free & ~(uint64_t)0 << *at;
    return (taken == 0 ? 64 : (unsigned)__builtin_ctzll(taken)) - *at;
}

static unsigned longest_free(uint64_t free)
{
    unsigned best = 0;

    for (unsigned at = 0, n; (n = next_free(free, &at)) != 0; at += n)
        best = hd_max(best, n);
    return best;
}

/* The shortest run that holds <n>, the first of these. */
static unsigned find_grains(uint64_t free, unsigned n)
{
    unsigned best = 0, best_n = UINT_MAX;

    for (unsigned at = 0, len; (len = next_free(free, &at)) != 0; at += len) {
        if (len >= n && len < best_n) {
            best = at;
            best_n = len;
        }
    }
    hd_bug_on(best_n == UINT_MAX);
    return best;
}

/* Its free grains are others now: into the list where it belongs. */
static void relink(hd_space_t *s, uint32_t page)
{
    hd_space_page_t *p = &s->pages[page];
    unsigned longest = longest_free(p->free);

    if (longest == p->longest)
        return;
    if (p->longest != 0)
        unlink_page(s, &s->partial[p->is_tiny][p->longest], page);
    p->longest = (uint8_t)longest;
    if (longest != 0)
        link_in_order(s, &s->partial[p->is_tiny][longest], page);
}

static void *alloc_grains(hd_space_t *s, unsigned n)
{
    bool is_tiny = n <= TINY_GRAINS;
    unsigned list = n, at;
    uint32_t page;
    char *to;

    while (list <= HD_SPACE_GRAINS && s->partial[is_tiny][list] == 0)
        list++;
    if (list <= HD_SPACE_GRAINS) {
        page = s->partial[is_tiny][list] - 1;
    } else {
        page = take_run(s, 1);
        if (page == NONE)
            return NULL;
        s->pages[page].kind = SHARED;
        s->pages[page].free = UINT64_MAX;
        s->pages[page].longest = 0; /* in no list yet */
        s->pages[page].is_tiny = is_tiny;
        hd_asan_poison(page_at(s, page), HD_PAGE);
    }
    at = find_grains(s->pages[page].free, n);
    s->pages[page].free &= ~bits(at, n);
    relink(s, page);
    to = page_at(s, page) + (size_t)at * GRAIN;
    hd_asan_unpoison(to, (size_t)n * GRAIN);
    return to;
}

static void free_grains(hd_space_t *s, uint32_t page, unsigned at, unsigned n)
{
    hd_space_page_t *p = &s->pages[page];
    char *from = page_at(s, page) + (size_t)at * GRAIN;

    hd_bug_on(p->kind != SHARED || at + n > HD_SPACE_GRAINS || n == 0 ||
              (p->free & bits(at, n)) != 0);
#ifdef HD_DEBUG
    memset(from, 0xdd, (size_t)n * GRAIN); /* who still reads it shall notice */
#endif
    hd_asan_poison(from, (size_t)n * GRAIN);
    p->free |= bits(at, n);
    relink(s, page);
    /* One that is all free is kept for the next piece. */
    if (p->free != UINT64_MAX ||
        (s->partial[p->is_tiny][HD_SPACE_GRAINS] == page + 1 && p->next == 0))
        return;
    unlink_page(s, &s->partial[p->is_tiny][HD_SPACE_GRAINS], page);
    free_run(s, page, 1);
}

void *hd_space_alloc(hd_space_t *s, size_t bytes)
{
    uint32_t page;

    if (bytes <= SMALL_MAX)
        return alloc_grains(s, hd_max(grains_of(bytes), 1u));
    if (bytes > (size_t)s->pages_n * HD_PAGE)
        return NULL;
    page = take_run(s, pages_of(bytes));
    if (page == NONE)
        return NULL;
    s->pages[page].kind = RUN;
    return page_at(s, page);
}

void hd_space_free(hd_space_t *s, void *at, size_t bytes)
{
    size_t offset = (size_t)((char *)at - s->base);
    uint32_t page = (uint32_t)(offset / HD_PAGE);

    hd_bug_on(page >= s->top);
    if (bytes > SMALL_MAX) {
        hd_bug_on(s->pages[page].kind != RUN);
        free_run(s, page, pages_of(bytes));
        return;
    }
    free_grains(s, page, (unsigned)(offset % HD_PAGE / GRAIN),
                hd_max(grains_of(bytes), 1u));
}

size_t hd_space_trimmed(size_t bytes, size_t want)
{
    if (bytes <= SMALL_MAX)
        return hd_min(hd_space_round(want), bytes);
    return hd_min((size_t)pages_of(hd_max(want, (size_t)SMALL_MAX + 1)) * HD_PAGE, bytes);
}

void hd_space_trim(hd_space_t *s, void *at, size_t bytes, size_t want)
{
    size_t offset = (size_t)((char *)at - s->base), kept = hd_space_trimmed(bytes, want);
    uint32_t page = (uint32_t)(offset / HD_PAGE);

    if (kept >= bytes)
        return;
    if (bytes <= SMALL_MAX)
        free_grains(s, page, (unsigned)((offset % HD_PAGE + kept) / GRAIN),
                    (unsigned)((bytes - kept) / GRAIN));
    else
        free_run(s, page + (uint32_t)(kept / HD_PAGE),
                 (uint32_t)((bytes - kept) / HD_PAGE));
}

/* Rebuilding */

static bool mark_grains(hd_space_t *s, size_t offset, size_t bytes)
{
    hd_space_page_t *p = &s->pages[offset / HD_PAGE];
    uint64_t taken;

    if (offset % GRAIN != 0 || bytes % GRAIN != 0 || offset % HD_PAGE + bytes > HD_PAGE)
        return false;
    taken = bits((unsigned)(offset % HD_PAGE / GRAIN), (unsigned)(bytes / GRAIN));
    if (p->kind == 0) {
        p->kind = SHARED;
        p->free = UINT64_MAX;
        p->longest = 0;
        p->is_tiny = true;
        s->pages_used++;
    }
    p->is_tiny &= bytes <= TINY_GRAINS * GRAIN;
    if (p->kind != SHARED || (p->free & taken) != taken)
        return false;
    p->free &= ~taken;
    return true;
}

bool hd_space_mark(hd_space_t *s, const void *at, size_t bytes)
{
    size_t offset = (size_t)((const char *)at - s->base);
    size_t max = (size_t)s->pages_n * HD_PAGE;
    uint32_t page, n;

    if ((const char *)at < s->base || bytes == 0 || bytes > max || offset > max - bytes)
        return false;
    page = (uint32_t)(offset / HD_PAGE);
    n = pages_of(bytes);
    if (bytes <= SMALL_MAX) {
        if (!mark_grains(s, offset, bytes))
            return false;
        n = 1;
    } else {
        for (uint32_t i = page; i < page + n; i++) {
            if (s->pages[i].kind != 0 || offset % HD_PAGE != 0)
                return false;
            s->pages[i].kind = i == page ? RUN : INNER;
        }
        s->pages_used += n;
    }
    s->top = hd_max(s->top, page + n);
    s->top_max = hd_max(s->top_max, s->top);
    hd_asan_unpoison(at, bytes);
    return true;
}

static void finish_shared_page(hd_space_t *s, uint32_t page, bool wipe)
{
    uint64_t free = s->pages[page].free;

    relink(s, page);
    for (unsigned at = 0, n; (n = next_free(free, &at)) != 0; at += n) {
        char *from = page_at(s, page) + (size_t)at * GRAIN;

        if (wipe) {
            hd_asan_unpoison(from, (size_t)n * GRAIN);
            hd_os_wipe(from, (size_t)n * GRAIN);
        }
        hd_asan_poison(from, (size_t)n * GRAIN);
    }
}

/* A dead writer may have reserved more than it wrote down: all that is free is punched.
 */
void hd_space_finish(hd_space_t *s, bool wipe)
{
    uint32_t first = 0, top = s->top;

    for (uint32_t page = 0; page <= top; page++) {
        if (page < top && s->pages[page].kind == 0)
            continue;
        if (page > first && page < top)
            add_free_run(s, first, page - first);
        if (page > first || page == top)
            hd_ignore(hd_os_punch(s->fd, s->fd_offset + (size_t)first * HD_PAGE,
                                  ((size_t)(page == top ? s->pages_n : page) - first) *
                                      HD_PAGE)); /* memory only */
        first = page + 1;
        if (page < top && s->pages[page].kind == SHARED)
            finish_shared_page(s, page, wipe);
    }
}
