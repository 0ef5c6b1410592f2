#include "core/net/hd_cluster.h"

const hd_balancer_t *hd_balancer;
