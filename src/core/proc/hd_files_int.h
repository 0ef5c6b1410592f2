/* hd_files_int: which log files there are is the master's to say. */
#pragma once
#include "core/proc/hd_files.h"

/* Closes it; what is gathered is written before. One that isn't there: nothing. */
void hd_file_remove(hd_str_t path);
/* It stays for the process's whole life, whatever configuration names. */
void hd_file_set_lasting(hd_file_t *f);
bool hd_file_is_lasting(const hd_file_t *f);
