/* hd_clock: the two clocks. Monotonic for time-outs and rates, wall for certificates and
 * logs. The loop reads them once a turn; cold code may call them freely. */
#pragma once
#include <stdint.h>

uint64_t hd_clock_mono_ns(void);
int64_t hd_clock_wall_ns(void); /* since 1970, UTC */
