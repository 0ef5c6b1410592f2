/* hd_health: what the agent does for endpoints' health: the sweep of outlier detection,
 * active checks (hd_check). */
#pragma once

/* Its part in the agent's process. */
void hd_health_register(void);
