/* hd_inherited: listening sockets that a master left to the program it started (USR2):
 * their numbers stand in the environment, HEDDLE="5;6;9;", as nginx does with NGINX. */
#pragma once
#include "core/net/hd_socket.h"

#define HD_INHERITED_NAME "HEDDLE"
#define HD_INHERITED_STATE_NAME "HEDDLE_STATE" /* its state's memory file */

/* Reads the variable and removes it. True: this program was started so. */
bool hd_inherited_read(void);
/* Those of an address become the caller's: at most <max>, into <fds>. Returns how many.
 * <own>: each can be one of a group (SO_REUSEPORT). */
uint32_t hd_inherited_take(const hd_socket_spec_t *spec, int *fds, uint32_t max,
                           bool *own);
/* The master's state, the caller's; -1: none. */
int hd_inherited_state(void);
/* What nobody took. In forked children, too. */
void hd_inherited_close(void);
