/* hd_conf_sticky: nginx's `sticky` of an upstream block. */
#pragma once
#include "core/conf/hd_conf.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_sticky.h"

/* Is <node> (a `sticky` directive) right? Where it stands, so that errors have their
 * place. */
hd_rc_t hd_conf_check_sticky(hd_conf_t *cf, hd_err_t *err);
/* Its settings, in <pool>. */
hd_rc_t hd_conf_make_sticky(hd_conf_t *cf, const hd_node_t *node, hd_pool_t *pool,
                            const hd_sticky_t **sticky, hd_err_t *err);
