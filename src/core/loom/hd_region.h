/* hd_region: what a reader may ask of a region beyond its head (hd_arena.h). */
#pragma once
#include "core/loom/hd_arena.h"

/* Does <p> lie in <r>, which <m> has pinned or read in this turn? A region is built in
 * pieces, each somewhere in the arena: its address and size alone don't tell. */
bool hd_region_holds(hd_member_t *m, const hd_region_t *r, const void *p);
