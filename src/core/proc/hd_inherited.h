/* hd_inherited: listening sockets that were open before this program began:
 *
 * - those that a master left to the program it started (USR2): their numbers stand in the
 *   environment, HEDDLE="5;6;9;", as nginx does with NGINX;
 * - those that the service manager lends (sd_listen_fds(3)): LISTEN_FDS of them from 3
 *   on, if LISTEN_PID is us. It keeps them open and gives them to the next program, so
 *   their files (unix) stay. A new binary finds their numbers in HEDDLE_LENT, too. */
#pragma once
#include "core/net/hd_socket.h"

#define HD_INHERITED_NAME "HEDDLE"
#define HD_INHERITED_LENT_NAME "HEDDLE_LENT"
#define HD_INHERITED_STATE_NAME "HEDDLE_STATE" /* its state's memory file */

/* Reads the variables and removes them. True: another master started this program. */
bool hd_inherited_read(void);
/* Those of an address become the caller's: at most <max>, into <fds>. Returns how many.
 * <own>: each can be one of a group (SO_REUSEPORT). <lent>: the service manager's. */
uint32_t hd_inherited_take(const hd_socket_spec_t *spec, int *fds, uint32_t max,
                           bool *own, bool *lent);
/* The master's state, the caller's; -1: none. */
int hd_inherited_state(void);
/* Lent ones that nobody took: the log says so. */
void hd_inherited_tell_unused(void);
/* What nobody took. In forked children, too. */
void hd_inherited_close(void);
