/* hd_channel: messages between master and children: a SOCK_SEQPACKET pair, non-blocking.
 * ◆
 *
 * A message is {type, length, sequence} and at most HD_CHANNEL_BYTES of payload, or a
 * reference to a memfd for more, and up to HD_CHANNEL_FDS descriptors by SCM_RIGHTS. A
 * full queue is an error of the sender, who says so and lives on. A broken message ends
 * the peer (child) as a bug.
 */
#pragma once
#include "core/net/hd_loop.h"

#define HD_CHANNEL_BYTES 32768
#define HD_CHANNEL_FDS 64

typedef enum {
    HD_MSG_NONE = 0,
    /* loader -> master */
    HD_MSG_SETTINGS,  /* hd_settings_t (memfd): parsed, all is right, sockets and logs
                         needed */
    HD_MSG_PUBLISHED, /* text: summary */
    HD_MSG_FAILED,    /* text: file:line: reason */
    /* master -> loader */
    HD_MSG_PUBLISH, /* descriptors are in place: go */
    HD_MSG_STOP,
    /* master -> worker, agent, control */
    HD_MSG_LISTEN, /* hd_socket_spec_t + fd */
    HD_MSG_LOG,    /* path + fd: open or reopened */
    HD_MSG_LOG_LEVEL,
    HD_MSG_PING,  /* answered by HD_MSG_ACK with its sequence: all before it was done */
    HD_MSG_QUIT,  /* graceful */
    HD_MSG_RINGS, /* eventfds of all workers, for who publishes */
    /* any -> master */
    HD_MSG_ACK,
    HD_MSG_SOCKET, /* broker: hd_socket_spec_t asked; answered with fd or errno */
    HD_MSG_SOCKET_MADE,
    HD_MSG_NEED_LISTEN, /* agent: sockets for dynamic listeners, acknowledged before
                           publishing */
    HD_MSG_NEED_LOG,
    HD_MSG_READY,
    HD_MSG_TYPES_N,
} hd_msg_type_t;

typedef struct {
    uint16_t type;
    uint16_t fds_n;
    uint32_t len;
    uint64_t seq;
} hd_msg_head_t;

typedef struct hd_channel_s hd_channel_t;

/* Before a fork: two ends. */
hd_rc_t hd_channel_pair(int fds[2], hd_err_t *err) HD_MUST_CHECK;
/* Over an end (taken). <on_message>: payload and descriptors are good during the call;
 * what it doesn't take from <fds> (set to -1) is closed after. <on_closed>: the peer is
 * gone. */
hd_channel_t *hd_channel_create(hd_loop_t *loop, int fd,
                                void (*on_message)(void *arg, const hd_msg_head_t *head,
                                                   const void *payload, int *fds),
                                void (*on_closed)(void *arg), void *arg, hd_err_t *err);
void hd_channel_destroy(hd_channel_t *ch);
/* <seq> 0: the next one; returns the sequence used, 0: HD_ERROR, <err>. Descriptors stay
 * the caller's. */
uint64_t hd_channel_send(hd_channel_t *ch, hd_msg_type_t type, const void *payload,
                         size_t len, const int *fds, unsigned fds_n, hd_err_t *err);
