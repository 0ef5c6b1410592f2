/* hd_conf_resolver: nginx's resolver and resolver_timeout, of http and stream. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/hd_module.h"
#include "core/net/hd_resolve.h"

extern const hd_module_t hd_resolver_module;

/* What is in force in <confs> (of a block); servers_n 0: no `resolver` says anything. */
hd_resolver_t hd_conf_resolver_of(void *const *confs);
/* The same in cf->pool; NULL: none. An agent will run. */
const hd_resolver_t *hd_conf_resolver(hd_conf_t *cf);
