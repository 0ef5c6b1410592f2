/* hd_hashes: hash functions whose values others compute, too, and rely on: the same key
 * must lead to the same place here as there. Not for tables that a peer may fill
 * (hd_str_hash is). */
#pragma once
#include "core/base/hd_str.h"

/* XXH64 (xxHash's specification 0.1.1). */
uint64_t hd_xxh64(const void *data, size_t len, uint64_t seed);
/* MurmurHash64A as libstdc++'s std::hash computes it on 64-bit machines; its seed is
 * HD_MURMUR_SEED. */
uint64_t hd_murmur64(const void *data, size_t len, uint64_t seed);
#define HD_MURMUR_SEED 0xc70f6907u
/* CRC-32 as zlib, PNG and nginx have it; begin with <crc> 0, go on with the last value.
 */
uint32_t hd_crc32(uint32_t crc, const void *data, size_t len);
