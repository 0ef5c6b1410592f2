/* json: an access log's line as a JSON object, from the Struct that Envoy's json_format is:
 * keys sorted, nested ones kept; a text of operators. A value that is one operator alone
 * keeps its type (a number, null where there is none); others are text (ALOG-5 to -8). */
#pragma once
#include "operators.h"
#include "google/protobuf.pb-c.h"

typedef struct log_json_s log_json_t;

typedef struct {
    bool keeps_types; /* else every value is a string: the older json_format */
    bool omit_empty;  /* keys whose value would be null are left out */
} log_json_how_t;

hd_rc_t log_json_compile(hd_conf_t *cf, const Pb__Struct *s, const log_json_t **to,
                         hd_err_t *err) HD_MUST_CHECK;
void log_json_render(const log_json_t *json, const log_json_how_t *how,
                     const log_facts_t *facts, log_line_t *line);
