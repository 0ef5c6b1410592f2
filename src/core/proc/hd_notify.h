/* hd_notify: tells the service manager how the program is, as sd_notify(3) describes it:
 * one datagram of lines to the unix socket that NOTIFY_SOCKET names ("@…": an abstract
 * one). Without that variable nothing happens.
 *
 * The master, and the one process of master_process off, alone. Nothing here waits: what
 * the socket doesn't take at once is lost, and the log says so.
 */
#pragma once
#include "core/base/hd_types.h"

/* Reads the variables, and leaves them for a new binary (USR2). First of all. */
void hd_notify_init(void);
/* READY=1: it serves; after a start and after each reload, whatever came of that. <status>
 * is for people: one line. */
void hd_notify_ready(const char *status);
void hd_notify_reloading(void); /* RELOADING=1, with the time as systemd wants it */
void hd_notify_stopping(void);  /* STOPPING=1 */
/* MAINPID=: from here on <pid> is the program; the service goes on. */
void hd_notify_main(pid_t pid);
void hd_notify_alive(void); /* WATCHDOG=1 */
/* How often the manager is to hear that (half of what it allows); 0: it doesn't ask. */
uint64_t hd_notify_alive_ms(void);
/* In a child that is about to be another program in this one's place: it is the one that
 * the manager watches next. */
void hd_notify_hand_on(void);
