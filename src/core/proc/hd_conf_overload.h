/* hd_conf_overload: overload_memory and overload_lag, and that they are in force in each
 * worker (core/net/hd_overload.h), from its start and after each reload. */
#pragma once

/* At process start. */
void hd_overload_register(void);
