/* hd_program: which parts the program is put together from. */
#pragma once

/* All of them, once, before a configuration is read; modules that are loaded come behind.
 */
void hd_program_register(void);
