/* times: START_TIME of Envoy's formats. */
#pragma once
#include "hd_module.h"

/* <wall_ns> (since 1970) by <format>: strftime's, with %f for nanoseconds and %1f to %9f for
 * so many digits of them; empty: RFC 3339 with milliseconds. UTC; in <pool>. */
hd_str_t log_time(hd_pool_t *pool, hd_str_t format, int64_t wall_ns);
