/* operators: Envoy's format strings (config/observability/access_log: "%RESPONSE_CODE%"),
 * compiled where configuration is read. Text only: no JSON format.
 *
 * Known are the operators that Istio's formats use (ALOG-2), without arguments of their
 * own but for REQ, RESP and a length (":12"). What Heddle can't tell
 * (CONNECTION_TERMINATION_DETAILS, UPSTREAM_LOCAL_ADDRESS) is "-". */
#pragma once
#include "format.h"

typedef struct log_operator_s log_operator_t;

typedef struct {
    const log_operator_t *parts;
    uint32_t n;
    bool omit_empty; /* ALOG-4: nothing rather than "-" */
} log_operators_t;

hd_rc_t log_operators_compile(hd_conf_t *cf, hd_str_t text, log_operators_t *to,
                              hd_err_t *err) HD_MUST_CHECK;
void log_operators_render(const log_operators_t *format, hd_req_t *req, log_line_t *line);
