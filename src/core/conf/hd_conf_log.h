/* hd_conf_log: nginx's error_log, at whatever level of a configuration. */
#pragma once
#include "core/base/hd_log.h"
#include "core/conf/hd_conf.h"

#define HD_CONF_LOG_ARGS "FILE | stderr | syslog:server=ADDRESS[,PARAMETER…] [LEVEL]"

/* What the line being applied says; in cf->pool. */
hd_rc_t hd_conf_log_target(hd_conf_t *cf, const hd_str_t *args, hd_log_target_t *target,
                           hd_err_t *err) HD_MUST_CHECK;
/* The master is asked for its file, if it is one. */
hd_rc_t hd_conf_log_need(hd_conf_t *cf, const hd_log_target_t *target,
                         hd_err_t *err) HD_MUST_CHECK;
/* Both for a block: its first line replaces what was inherited in <*place> (NULL: the
 * program's log), further ones are added. */
hd_rc_t hd_conf_log_place(hd_conf_t *cf, const hd_str_t *args,
                          const hd_log_place_t **place, hd_err_t *err) HD_MUST_CHECK;
