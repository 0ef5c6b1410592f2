/* operators: Envoy's format strings (config/observability/access_log: "%RESPONSE_CODE%"),
 * compiled where configuration is read. Text only: no JSON format.
 *
 * Known are the operators that Istio's formats use (ALOG-2), without arguments of their
 * own but for REQ, RESP and a length (":12"). What Heddle can't tell
 * (CONNECTION_TERMINATION_DETAILS) is "-", and so is what a TCP session has not (a
 * request line, headers); its code is 0 (ALOG-3). */
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
/* Of a request, or where there is none of a session. */
void log_operators_render(const log_operators_t *format, const hd_attr_of_t *of,
                          log_line_t *line);
