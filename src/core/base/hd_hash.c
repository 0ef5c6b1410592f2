/* Hashes of strings: 16 bytes a step, each step one 64x64->128 multiplication whose
 * halves are folded together. */
#include "core/base/hd_str.h"
#include "core/base/hd_word.h"
#include "core/os/hd_os.h"

#define ODD_A 0x9e3779b97f4a7c15u /* odd, about half of the bits set */
#define ODD_B 0xc2b2ae3d27d4eb4fu
#define LOWER_BITS 0x2020202020202020u

static uint64_t process_seed;

/* Before main: one seed for a process and for all that it forks. */
__attribute__((constructor)) static void init_seed(void)
{
    hd_os_random(&process_seed, sizeof(process_seed));
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;

    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static inline uint64_t hash_bytes(const unsigned char *p, size_t len, uint64_t seed,
                                  uint64_t or_mask)
{
    uint64_t h = seed ^ (len * ODD_A);
    uint64_t other =
        (seed ^ ODD_B) * ODD_A; /* secret too: nobody can aim at a factor 0 */
    uint64_t a, b;

    for (; len > 16; p += 16, len -= 16)
        h = fold((hd_word_load(p) | or_mask) ^ h,
                 (hd_word_load(p + 8) | or_mask) ^ other);
    if (len >= 8) {
        a = hd_word_load(p);
        b = hd_word_load(p + len - 8);
    } else {
        a = hd_word_load_short(p, len);
        b = 0;
    }
    h = fold((a | or_mask) ^ h ^ ODD_A, (b | or_mask) ^ other);
    return fold(h ^ ODD_B, ODD_A);
}

uint64_t hd_hash64(const void *data, size_t len, uint64_t seed)
{
    return hash_bytes(data, len, seed, 0);
}

uint32_t hd_str_hash(hd_str_t s)
{
    return (uint32_t)hash_bytes((const unsigned char *)s.data, s.len, process_seed, 0);
}

/* Bit 5 set in every byte maps upper case to lower; the few other bytes that fall
 * together by it only share a bucket. */
uint32_t hd_str_hash_nocase(hd_str_t s)
{
    return (uint32_t)hash_bytes((const unsigned char *)s.data, s.len, process_seed,
                                LOWER_BITS);
}
