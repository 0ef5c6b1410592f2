/* hd_conf_service: a listener whose requests are all answered by one of our own services:
 * the admin port, the control plane's. */
#pragma once
#include "core/conf/hd_conf.h"

/* Puts a listener on <address> ("127.0.0.1:15010", "unix:/path") into cf->batch and asks
 * for its socket, for the processes of <roles> (HD_ROLE_…). <service>: hd_service.h's
 * name. */
hd_rc_t hd_conf_put_service(hd_conf_t *cf, hd_str_t address, hd_str_t service,
                            unsigned roles, hd_err_t *err) HD_MUST_CHECK;
