/* hd_balance: the choice of an endpoint; fills core/net/hd_cluster.h's table. */
#pragma once
#include "core/net/hd_cluster.h"

extern const hd_balancer_t hd_mesh_balancer;
