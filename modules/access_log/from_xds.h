/* from_xds: an envoy.config.accesslog.v3.AccessLog: FileAccessLog to standard output or
 * error, in a text format, without a filter. One with a filter is left out with
 * a warning: writing too much would be wrong, and losing its listener worse. Anything
 * else is refused. */
#pragma once
#include "operators.h"

typedef struct {
    hd_str_t path; /* /dev/stdout or /dev/stderr; empty: this conf isn't from xDS */
    log_operators_t format;
} log_xds_t;

hd_rc_t log_from_xds(hd_conf_t *cf, hd_str_t bytes, log_xds_t *to,
                     hd_err_t *err) HD_MUST_CHECK;
