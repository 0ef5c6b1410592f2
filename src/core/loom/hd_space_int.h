/* hd_space_int: which bytes of a shared memory file are free: private to its one writer,
 * told anew (mark, finish) when a writer starts. Small pieces are runs of grains of 64
 * bytes that share pages; larger ones are runs of pages. Memory is reserved before it is
 * handed out; whole free pages are punched out. Nothing of this lies in shared memory.
 */
#pragma once
#include "core/base/hd_types.h"

#define HD_SPACE_GRAINS 64 /* a page's */
#define HD_SPACE_BINS 32

typedef struct {
    uint64_t free;       /* a shared page's free grains, one bit each */
    uint32_t len;        /* pages of the run, at its first and last one */
    uint32_t prev, next; /* page + 1 in the list of its bin or longest run */
    uint8_t kind;
    uint8_t longest; /* run of free grains, where there is any: the list it is in */
    bool is_tiny;    /* shared by tiny pieces */
} hd_space_page_t;

typedef struct {
    char *base;
    int fd;
    size_t fd_offset;
    uint32_t pages_n; /* ceiling */
    uint32_t top;     /* pages from here on are free */
    uint32_t top_max; /* and from here on were never used */
    size_t pages_used;
    hd_space_page_t *pages;
    uint32_t bins[HD_SPACE_BINS]; /* free runs by log2 of their length */
    /* Shared pages by their longest free run: those of tiny pieces by themselves, since
     * slots are such and stay, while regions come and go. */
    uint32_t partial[2][HD_SPACE_GRAINS + 1];
} hd_space_t;

/* <bytes> of <fd> from <fd_offset>, mapped at <base>. All free. */
void hd_space_init(hd_space_t *s, char *base, size_t bytes, int fd, size_t fd_offset);
void hd_space_deinit(hd_space_t *s);

/* What a piece of <bytes> really takes. */
size_t hd_space_round(size_t bytes);
/* 16-aligned (64-aligned for multiples of 64), holding any bytes. NULL: full. */
void *hd_space_alloc(hd_space_t *s, size_t bytes);
/* <bytes> as given to alloc, or as trimmed to. */
void hd_space_free(hd_space_t *s, void *at, size_t bytes);
/* Gives the end of a piece back, of a small one to the grain, else whole pages; returns
 * what it takes then, which the caller writes down before hd_space_trim is called. */
size_t hd_space_trimmed(size_t bytes, size_t want);
void hd_space_trim(hd_space_t *s, void *at, size_t bytes, size_t want);

/* When a writer starts: this piece is in use. False: it overlaps another or lies outside.
 */
bool hd_space_mark(hd_space_t *s, const void *at, size_t bytes) HD_MUST_CHECK;
/* All marks are made; the rest is free. <wipe>: free cells are zeroed. */
void hd_space_finish(hd_space_t *s, bool wipe);
