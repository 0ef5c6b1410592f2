/* hd_mesh_cluster: what only src/mesh reads of a cluster (hd_cluster_t.mesh). */
#pragma once
#include "core/base/hd_types.h"

typedef struct {
    uint16_t
        port_override; /* HD_LB_ORIGINAL_DST: instead of the destination's; 0: none */
} hd_mesh_cluster_t;
