/* hd_asan: tells AddressSanitizer which memory is free; nothing in other builds. */
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HD_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(HD_ASAN)
#define HD_ASAN 1
#endif

#ifdef HD_ASAN
#include <sanitizer/asan_interface.h>
#define hd_asan_poison(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define hd_asan_unpoison(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#define HD_ASAN_GAP 16 /* bytes that stay poisoned behind each piece of a pool */
#else
#define hd_asan_poison(at, bytes) ((void)(at), (void)(bytes))
#define hd_asan_unpoison(at, bytes) ((void)(at), (void)(bytes))
#define HD_ASAN_GAP 0
#endif
