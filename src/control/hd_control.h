/* hd_control: the control role: `control { … }` and the process behind it. */
#pragma once

/* At process start, before configuration is read. */
void hd_control_register(void);
