/* opened: log files whose names have variables. Nobody knows them before requests come,
 * so a worker opens them itself, with the rights it has; nginx's open_log_file_cache
 * keeps them open. */
#pragma once
#include "hd_module.h"

typedef struct {
    uint32_t max;                   /* files kept open; 0: each is opened for each line */
    uint32_t min_uses;              /* within <inactive_ms>, before one is kept */
    uint64_t inactive_ms, valid_ms; /* unused so long: closed; looked at again after */
} log_cache_conf_t;

/* Appends a line to the file <path>, which is made if need be. */
void log_opened_write(const log_cache_conf_t *conf, hd_str_t path, hd_str_t line,
                      const hd_attr_of_t *of);
void log_opened_close_all(void);
