/* hd_pid_file: the master's process id in a file, and its name while a new binary takes
 * over: "<path>.oldbin", as nginx has it. In the master. */
#pragma once
#include "core/base/hd_err.h"

/* Written there from now on; one at another path goes. */
hd_rc_t hd_pid_file_write(const char *path, hd_err_t *err) HD_MUST_CHECK;
/* Makes way for the new binary's, and back. */
hd_rc_t hd_pid_file_step_aside(hd_err_t *err) HD_MUST_CHECK;
hd_rc_t hd_pid_file_step_back(hd_err_t *err) HD_MUST_CHECK;
void hd_pid_file_remove(void);
