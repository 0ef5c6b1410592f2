/* hd_word: bytes, eight at a time, where a loop over single ones would be felt.
 *
 * For the files that look at every byte a peer sends; plain C, no alignment needed.
 */
#pragma once
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HD_WORD_ONES 0x0101010101010101u
#define HD_WORD_HIGHS 0x8080808080808080u

static inline uint64_t hd_word_load(const void *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return v;
}

/* 0 to 8 bytes as one number; different strings of one length give different numbers. */
static inline uint64_t hd_word_load_short(const void *from, size_t n)
{
    const unsigned char *p = from;
    uint32_t first, last;

    if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        return first | (uint64_t)last << 32;
    }
    if (n > 0)
        return p[0] | (uint64_t)p[n / 2] << 8 | (uint64_t)p[n - 1] << 16;
    return 0;
}

/* ASCII upper case made lower. */
static inline uint64_t hd_word_lower(uint64_t w)
{
    uint64_t low = w & ~HD_WORD_HIGHS;
    uint64_t from_a = low + HD_WORD_ONES * (0x80 - 'A');
    uint64_t behind_z = low + HD_WORD_ONES * (0x80 - 'Z' - 1);

    return w | (from_a & ~behind_z & ~w & HD_WORD_HIGHS) >> 2;
}

/* Where the first control (below 0x20, or DEL) stands among the 8 bytes from <p>; 8:
 * none. Tab is one, too. */
static inline size_t hd_word_find_control(const void *p)
{
    uint64_t w = le64toh(hd_word_load(p)); /* the first byte is the lowest */
    uint64_t del = w ^ HD_WORD_ONES * 0x7f;
    /* Subtracting borrows from the bytes above a control, so only the lowest hit counts.
     */
    uint64_t below = (w - HD_WORD_ONES * 0x20) & ~w, is_del = (del - HD_WORD_ONES) & ~del;
    uint64_t hits = (below | is_del) & HD_WORD_HIGHS;

    return hits == 0 ? 8 : (size_t)__builtin_ctzll(hits) / 8;
}
