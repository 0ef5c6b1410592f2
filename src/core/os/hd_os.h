/* hd_os: what the platform gives: memory files, random bytes, the process's title.
 *
 * Functions that can fail return -1 or NULL and leave the reason in errno. They retry
 * after a signal.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A sparse file in memory of <bytes>, mode 0600, closed on exec, its size sealed. */
int hd_os_memfd(const char *name, size_t bytes);
/* The same file through a descriptor that can't write: a shared mapping of it can never
 * be made writable. */
int hd_os_memfd_reopen_ro(int fd);
/* Makes [offset, offset+bytes) writable without SIGBUS, or says that there is no room. */
int hd_os_reserve(int fd, size_t offset, size_t bytes);
/* Gives the pages back; they read as zeros. */
int hd_os_punch(int fd, size_t offset, size_t bytes);
/* What the file costs now. */
size_t hd_os_file_bytes(int fd);

/* A shared mapping of <fd>. <at> not NULL: exactly there (EEXIST if something else is in
 * the way), else anywhere. <fd> -1: anonymous, shared with children. */
void *hd_os_map(int fd, void *at, size_t bytes, bool writable);
int hd_os_unmap(void *at, size_t bytes);
/* Keeps [at, at+bytes) out of core dumps; best effort. */
void hd_os_dont_dump(void *at, size_t bytes);
/* Zeroes in a way that the compiler doesn't leave out. */
void hd_os_wipe(void *at, size_t bytes);
size_t hd_os_page_bytes(void);

/* Free bytes within malloc's heap, and giving its whole free pages to the system: slow
 * enough not to be done often. 0 and nothing where malloc doesn't tell. */
size_t hd_os_heap_free(void);
void hd_os_heap_trim(void);

/* The process's own memory: resident pages that it shares with no file. <fd>: of
 * hd_os_open_statm, by the same process. 0: not told. One system call. */
int hd_os_open_statm(void);
size_t hd_os_private_bytes(int fd);

/* How many bytes the TCP peer's kernel has acknowledged since the connection began, its
 * SYN counted as one (RFC 4898 tcpEStatsAppHCThruOctetsAcked). -1: not TCP, or not told.
 */
int hd_os_tcp_acked(int fd, uint64_t *bytes);

/* Fills <out> from the kernel's generator; ends the process where there is none. */
void hd_os_random(void *out, size_t bytes);

/* Once, at the start of main: makes room for titles where argv and environ lay. */
void hd_os_init_title(int argc, char **argv);
/* What ps shows: "heddle: <title>". Nothing happens without hd_os_init_title. */
void hd_os_set_title(const char *title);

/* A number for "this thread" as ps -L and the log show it. */
pid_t hd_os_tid(void);
