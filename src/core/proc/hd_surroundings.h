/* hd_surroundings: what of the system a process has around it: environment, working
 * directory, priority, CPUs, the size of core files. Settings (hd_settings.h) say what, a
 * forked child takes it; nginx's directives of the same names.
 */
#pragma once
#include "core/proc/hd_process.h"

/* The environment: TZ and what `env` lines name; nothing else of what it was. */
void hd_surroundings_set_env(const hd_settings_t *s);
/* While there are root's rights: all but the directory. What the system refuses is an
 * alert, and the process goes on. */
void hd_surroundings_take(const hd_proc_t *p);
/* As the user it runs as. */
hd_rc_t hd_surroundings_enter_directory(const hd_settings_t *s,
                                        hd_err_t *err) HD_MUST_CHECK;

/* Setters of the directives. */
hd_rc_t hd_set_env(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
hd_rc_t hd_set_priority(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
hd_rc_t hd_set_affinity(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
hd_rc_t hd_set_directory(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err);
