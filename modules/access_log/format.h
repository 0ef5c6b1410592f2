/* format: nginx's log_format: text with variables, each value escaped by the format's
 * rule, compiled where configuration is read. */
#pragma once
#include "hd_module.h"

typedef enum {
    LOG_ESCAPE_DEFAULT, /* " \ and what is no printable ASCII as \xHH; none: "-" */
    LOG_ESCAPE_JSON,    /* as in a JSON string; none: nothing */
    LOG_ESCAPE_NONE,
} log_escape_t;

typedef struct {
    hd_str_t name;
    log_escape_t escape;
    const hd_expr_t *text;
} log_format_t;

/* A line that grows in a request's pool. */
typedef struct {
    hd_pool_t *pool;
    char *data;
    size_t len, room;
} log_line_t;

void log_add(log_line_t *line, hd_str_t s);
/* With control bytes as \xHH, so that the line stays one. */
void log_add_clean(log_line_t *line, hd_str_t s);
/* Renders <format> for a request or conn, with its newline. */
void log_render(const log_format_t *format, const hd_attr_of_t *of, log_line_t *line);
