/* filter: which requests an access log by xDS is for (envoy.config.accesslog.v3.
 * AccessLogFilter), compiled where configuration is read. */
#pragma once
#include "operators.h"
#include "xds/accesslog.pb-c.h"

typedef struct log_filter_s log_filter_t;

/* HD_DECLINED: of a kind that is told to nobody here (CEL, dynamic metadata): the log can't
 * be written rightly. */
hd_rc_t log_filter_compile(hd_conf_t *cf, const PbAccesslog__AccessLogFilter *msg,
                           const log_filter_t **to, hd_err_t *err) HD_MUST_CHECK;
bool log_filter_wants(const log_filter_t *filter, const log_facts_t *facts);
