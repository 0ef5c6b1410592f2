/* hd_channel: messages between master and children: a SOCK_SEQPACKET pair, non-blocking.
 * ◆
 *
 * A message is {type, length, sequence} and at most HD_CHANNEL_BYTES of payload, and up
 * to HD_CHANNEL_FDS descriptors by SCM_RIGHTS. A full queue is an error of the sender,
 * who says so and lives on. A broken message is logged and closes the channel: on_closed.
 */
#pragma once
#include "core/net/hd_loop.h"

#define HD_CHANNEL_BYTES 32768
#define HD_CHANNEL_FDS 64

typedef enum {
    HD_MSG_NONE = 0,
    /* loader -> master */
    HD_MSG_SETTINGS,   /* all is right; what is needed stands in the page that master and
                          loader share (hd_settings_t) */
    HD_MSG_PUBLISHED,  /* uint64_t: how many resources changed */
    HD_MSG_FAILED,     /* text: file:line: reason */
    HD_MSG_GENERATION, /* text: what running processes can't follow: the master starts new
                          ones, with a loader of their own */
    /* master -> loader */
    HD_MSG_PUBLISH, /* descriptors are in place: go */
    HD_MSG_STOP,
    /* master -> worker, agent, control */
    HD_MSG_LISTEN,    /* hd_listen_item_t … + fds */
    HD_MSG_UNLISTEN,  /* hd_listen_item_t: nobody wants it (any more) */
    HD_MSG_LOG,       /* path + fd: open or reopened */
    HD_MSG_LOG_GONE,  /* path: nobody writes there any more */
    HD_MSG_ERROR_LOG, /* level (uint32_t) + fd */
    HD_MSG_PING,      /* answered by HD_MSG_ACK: all before it was done */
    /* any -> master */
    HD_MSG_ACK,    /* uint64_t: the ping's sequence */
    HD_MSG_SOCKET, /* broker: ticket and hd_listen_item_t; answered with fd or reason */
    HD_MSG_SOCKET_MADE,
    HD_MSG_NEED_LISTEN, /* agent: sockets for dynamic listeners: hd_listen_item_t … */
    HD_MSG_FREE_LISTEN, /* agent: no longer needed */
    HD_MSG_NEED_LOG,    /* agent: path */
    HD_MSG_PREPARE,     /* agent: that was all; answered by PREPARED when all workers have
                           what was asked for since the last one */
    HD_MSG_PREPARED,    /* master -> agent: text: the reason of a failure, or empty */
    HD_MSG_READY,
    HD_MSG_ASK,  /* worker -> master -> agent: what hd_process_ask says; not looked at */
    HD_MSG_WARM, /* agent, control: after READY, once (hd_process_hooks_t.is_warm) */
    HD_MSG_LEAVING, /* the program is about to end: it isn't ready any more */
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
void hd_channel_destroy(hd_channel_t *ch); /* from its callbacks, too; NULL is fine */
/* Handles what lies in the queue, at once: the last words of a peer that has ended. */
void hd_channel_drain(hd_channel_t *ch);
int hd_channel_fd(const hd_channel_t *ch); /* lent: to close in a forked child */
/* Returns the message's sequence number, 0: not sent, <err>. Descriptors stay the
 * caller's. */
uint64_t hd_channel_send(hd_channel_t *ch, hd_msg_type_t type, const void *payload,
                         size_t len, const int *fds, unsigned fds_n, hd_err_t *err);
