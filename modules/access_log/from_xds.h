/* from_xds: an envoy.config.accesslog.v3.AccessLog: FileAccessLog to standard output or
 * error, as text or JSON, for the requests that its filter wants. One whose filter can't be
 * understood (CEL, metadata) is left out with a warning: writing too much would be wrong,
 * and losing its listener worse. Anything else is refused. */
#pragma once
#include "filter.h"
#include "json.h"
#include "operators.h"

typedef struct {
    hd_str_t path; /* /dev/stdout or /dev/stderr; empty: this conf isn't from xDS */
    const log_filter_t *filter; /* NULL: all */
    log_operators_t text;       /* the line, or … */
    const log_json_t *json;     /* NULL: text */
    log_json_how_t how;
} log_xds_t;

hd_rc_t log_from_xds(hd_conf_t *cf, hd_str_t bytes, log_xds_t *to,
                     hd_err_t *err) HD_MUST_CHECK;
/* The line of a request or session, with its newline; empty: it isn't wanted. */
void log_xds_render(const log_xds_t *xds, const hd_attr_of_t *of, log_line_t *line);
