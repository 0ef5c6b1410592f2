#include "core/base/hd_hashes.h"

#include <string.h>

/* --- XXH64 --- */

#define X1 0x9e3779b185ebca87u
#define X2 0xc2b2ae3d27d4eb4fu
#define X3 0x165667b19e3779f9u
#define X4 0x85ebca77c2b2ae63u
#define X5 0x27d4eb2f165667c5u

static inline uint64_t rotate(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

/* Little-endian, wherever it lies. */
static inline uint64_t load(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline uint64_t mix_lane(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * X2, 31) * X1;
}

static inline uint64_t merge_lane(uint64_t h, uint64_t lane)
{
    return (h ^ mix_lane(0, lane)) * X1 + X4;
}

/* Stripes of 32 bytes over four lanes. */
static uint64_t hash_stripes(const uint8_t **p, size_t *len, uint64_t seed)
{
    uint64_t lanes[4] = {seed + X1 + X2, seed + X2, seed, seed - X1}, h;

    for (; *len >= 32; *p += 32, *len -= 32) {
        for (unsigned i = 0; i < 4; i++)
            lanes[i] = mix_lane(lanes[i], load(*p + 8 * i, 8));
    }
    h = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) +
        rotate(lanes[3], 18);
    for (unsigned i = 0; i < 4; i++)
        h = merge_lane(h, lanes[i]);
    return h;
}

uint64_t hd_xxh64(const void *data, size_t len, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t h = seed + X5, all = len;

    if (len >= 32)
        h = hash_stripes(&p, &len, seed);
    h += all;
    for (; len >= 8; p += 8, len -= 8)
        h = rotate(h ^ mix_lane(0, load(p, 8)), 27) * X1 + X4;
    if (len >= 4) {
        h = rotate(h ^ load(p, 4) * X1, 23) * X2 + X3;
        p += 4;
        len -= 4;
    }
    for (; len > 0; p++, len--)
        h = rotate(h ^ *p * X5, 11) * X1;
    h = (h ^ h >> 33) * X2;
    h = (h ^ h >> 29) * X3;
    return h ^ h >> 32;
}

/* --- MurmurHash64A --- */

#define M 0xc6a4a7935bd1e995u

uint64_t hd_murmur64(const void *data, size_t len, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t h = seed ^ len * M, k;

    for (; len >= 8; p += 8, len -= 8) {
        k = load(p, 8) * M;
        h = (h ^ (k ^ k >> 47) * M) * M;
    }
    if (len > 0)
        h = (h ^ load(p, len)) * M;
    h = (h ^ h >> 47) * M;
    return h ^ h >> 47;
}

/* --- CRC-32 --- */

/* Four bits a step: the polynomial 0xedb88320 applied to each of 16 remainders. */
static const uint32_t crc_of_nibble[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
    0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
    0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};

uint32_t hd_crc32(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;

    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc = crc_of_nibble[(crc ^ p[i]) & 15] ^ crc >> 4;
        crc = crc_of_nibble[(crc ^ p[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}
