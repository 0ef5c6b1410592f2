#include "core/conf/hd_conf_cluster.h"

const hd_conf_cluster_t *hd_conf_cluster;
