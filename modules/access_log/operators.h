/* operators: Envoy's format strings (config/observability/access_log: "%RESPONSE_CODE%"),
 * compiled where configuration is read.
 *
 * Known are the operators that Istio's formats use (ALOG-2) and their like; arguments have
 * REQ, REQ_WITHOUT_QUERY, RESP, QUERY_PARAM, PATH and START_TIME, and each may have a length
 * (":12"). What Heddle can't tell (CONNECTION_TERMINATION_DETAILS, metadata, filter state)
 * is "-", and so is what a TCP session has not (a request line, headers); its code is 0
 * (ALOG-3). */
#pragma once
#include "format.h"

typedef struct log_operator_s log_operator_t;

typedef struct {
    const log_operator_t *parts;
    uint32_t n;
} log_operators_t;

/* What is known of a request, or where there is none of a session, when it is logged. */
typedef struct {
    const hd_attr_of_t *of;
    hd_req_info_t info;
    const hd_conn_t *upstream; /* a session's; NULL: none */
} log_facts_t;

void log_facts_init(log_facts_t *facts, const hd_attr_of_t *of);
/* The client's and the response's message, as a gRPC status: its own, else what its code
 * stands for. */
uint32_t log_facts_grpc_status(const log_facts_t *facts);

hd_rc_t log_operators_compile(hd_conf_t *cf, hd_str_t text, log_operators_t *to,
                              hd_err_t *err) HD_MUST_CHECK;
/* Adds the text, "-" for what is empty; <omit_empty>: nothing (ALOG-4). <cleans>: no value
 * brings control bytes. */
void log_operators_render(const log_operators_t *format, const log_facts_t *facts,
                          bool omit_empty, bool cleans, log_line_t *line);
/* One operator and nothing else: its value, empty if there is none. False: it isn't so. */
bool log_operators_single(const log_operators_t *format, const log_facts_t *facts,
                          hd_str_t *value, bool *is_number);
