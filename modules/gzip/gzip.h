/* What the files of the module share. */
#pragma once
#include "lib/bodies.h"

typedef struct {
    bool is_on, gunzip;
    uint32_t level, memory_level, window_bits, strategy; /* 0: defaults */
    uint64_t min_length;                                 /* 0: 20 */
    types_t types;
    /* Envoy's */
    bool is_xds, removes_accept, not_with_etag;
    const uint32_t *codes; /* statuses that aren't compressed */
    uint32_t codes_n;
} gzip_conf_t;

extern const hd_module_t hd_module;

/* --- from_xds.c --- */
hd_rc_t gzip_build_filter(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                          hd_err_t *err);
hd_rc_t gzip_build_route(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                         hd_err_t *err);
