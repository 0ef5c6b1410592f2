/* hd_cell_int: what hd_cell.c shares with the rest of the folder. */
#pragma once
#include "core/loom/hd_loom_int.h"
#include "core/loom/hd_space_int.h"

/* The kind of the records that name gauges; cells have any other. */
#define HD_CELL_GAUGES UINT32_MAX
