#include "core/loom/hd_space_int.h"
#include "core/base/hd_asan.h"
#include "core/loom/hd_loom_int.h"
#include "core/os/hd_os.h"
#include <stdlib.h>
#include <string.h>

enum {
    FREE_FIRST = 1, /* bits of kind: first and last page of a free run */
    FREE_LAST = 2,
    RUN = 4,
    INNER = 8, /* of a run found by mark */
    CLASS = 16,
};

#define NONE UINT32_MAX
#define SMALL_MAX 2048
#define RUNS_COMPARED 64

/* Cells of a page, one bit each in 64. The steps keep waste under a third. */
static const uint16_t class_bytes[HD_SPACE_CLASSES] = {64,  96,  128,  192,  256, 384,
                                                       512, 768, 1024, 1344, 2048};

static unsigned class_of(size_t bytes)
{
    unsigned c = 0;

    while (class_bytes[c] < bytes)
        c++;
    return c;
}

static uint64_t all_cells(unsigned cls)
{
    unsigned n = HD_PAGE / class_bytes[cls];

    return n == 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
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
        return class_bytes[class_of(bytes)];
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

/* By address, lowest first: what comes next fills the low pages, so that those above
 * become empty and are given back. */
static void link_in_order(hd_space_t *s, uint32_t *head, uint32_t page)
{
    uint32_t before = 0, after = *head;

    while (after != 0 && after < page + 1) {
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

/* Cells */

static void *alloc_cell(hd_space_t *s, unsigned cls)
{
    uint32_t page;
    unsigned cell;
    char *at;

    if (s->partial[cls] == 0) {
        page = take_run(s, 1);
        if (page == NONE)
            return NULL;
        s->pages[page].kind = CLASS;
        s->pages[page].cls = (uint8_t)cls;
        s->pages[page].free = all_cells(cls);
        hd_asan_poison(page_at(s, page), HD_PAGE);
        link_page(s, &s->partial[cls], page); /* the only one */
    }
    page = s->partial[cls] - 1;
    cell = (unsigned)__builtin_ctzll(s->pages[page].free);
    s->pages[page].free &= ~((uint64_t)1 << cell);
    if (s->pages[page].free == 0)
        unlink_page(s, &s->partial[cls], page);
    at = page_at(s, page) + (size_t)cell * class_bytes[cls];
    hd_asan_unpoison(at, class_bytes[cls]);
    return at;
}

static void free_cell(hd_space_t *s, uint32_t page, unsigned cell)
{
    hd_space_page_t *p = &s->pages[page];
    unsigned cls = p->cls;
    char *at = page_at(s, page) + (size_t)cell * class_bytes[cls];

    hd_bug_on((p->free >> cell & 1) != 0);
#ifdef HD_DEBUG
    memset(at, 0xdd, class_bytes[cls]); /* who still reads it shall notice */
#endif
    hd_asan_poison(at, class_bytes[cls]);
    if (p->free == 0)
        link_in_order(s, &s->partial[cls], page);
    p->free |= (uint64_t)1 << cell;
    if (p->free != all_cells(cls))
        return;
    if (s->partial[cls] == page + 1 && p->next == 0)
        return; /* the class's last page with room: kept for the next piece */
    unlink_page(s, &s->partial[cls], page);
    free_run(s, page, 1);
}

void *hd_space_alloc(hd_space_t *s, size_t bytes)
{
    uint32_t page;

    if (bytes <= SMALL_MAX)
        return alloc_cell(s, class_of(bytes));
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
    hd_bug_on(s->pages[page].kind != CLASS);
    free_cell(s, page, (unsigned)(offset % HD_PAGE / class_bytes[s->pages[page].cls]));
}

size_t hd_space_trimmed(size_t bytes, size_t want)
{
    size_t pages = (size_t)pages_of(hd_max(want, (size_t)SMALL_MAX + 1)) * HD_PAGE;

    return bytes <= SMALL_MAX || pages >= bytes ? bytes : pages;
}

void hd_space_trim(hd_space_t *s, void *at, size_t bytes, size_t want)
{
    uint32_t page = (uint32_t)((size_t)((char *)at - s->base) / HD_PAGE);
    uint32_t keep = pages_of(want), have = pages_of(bytes);

    if (bytes > SMALL_MAX && keep > 0 && keep < have)
        free_run(s, page + keep, have - keep);
}

/* Rebuilding */

static bool mark_cell(hd_space_t *s, size_t offset, unsigned cls)
{
    hd_space_page_t *p = &s->pages[offset / HD_PAGE];
    size_t cell = offset % HD_PAGE / class_bytes[cls];

    if (p->kind == 0) {
        p->kind = CLASS;
        p->cls = (uint8_t)cls;
        p->free = all_cells(cls);
        s->pages_used++;
    }
    if (p->kind != CLASS || p->cls != cls || offset % HD_PAGE % class_bytes[cls] != 0 ||
        (p->free >> cell & 1) == 0)
        return false;
    p->free &= ~((uint64_t)1 << cell);
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
        if (!mark_cell(s, offset, class_of(bytes)))
            return false;
        bytes = class_bytes[class_of(bytes)];
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

static void finish_class_page(hd_space_t *s, uint32_t page, bool wipe)
{
    hd_space_page_t *p = &s->pages[page];
    size_t bytes = class_bytes[p->cls];

    if (p->free == 0)
        return;
    link_in_order(s, &s->partial[p->cls], page);
    for (size_t cell = 0; cell < HD_PAGE / bytes; cell++) {
        char *at = page_at(s, page) + cell * bytes;

        if ((p->free >> cell & 1) == 0)
            continue;
        if (wipe) {
            hd_asan_unpoison(at, bytes);
            hd_os_wipe(at, bytes);
        }
        hd_asan_poison(at, bytes);
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
        if (page < top && s->pages[page].kind == CLASS)
            finish_class_page(s, page, wipe);
    }
}
