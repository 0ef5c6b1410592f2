/* hd_conf_upstream: nginx's `upstream NAME { … }`, and the clusters that `proxy_pass`
 * names without one; fills core/conf/hd_conf_cluster.h's table. */
#pragma once
#include "core/conf/hd_conf_cluster.h"
#include "core/hd_module.h"

extern const hd_module_t hd_upstream_module;
extern const hd_conf_cluster_t hd_mesh_conf_cluster;
