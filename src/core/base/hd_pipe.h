/* hd_pipe: kernel pipes that carry bytes from socket to socket without a copy here
 * (splice(2)), counted as blocks are. What is in one is named by slices of kind
 * HD_SLICE_PIPE, in the order in which it was filled, and is filled once: it is taken
 * empty, and with its last reference goes back to a few that are kept, or, with bytes
 * still in it, is closed.
 */
#pragma once
#include "core/base/hd_types.h"

#define HD_PIPE_BYTES 262144 /* what one holds at least, of a socket's whole pages */

typedef struct hd_pipe_s {
    uint32_t refs;
    int fd[2];        /* what comes out, what goes in */
    uint64_t in, out; /* bytes so far; whoever moves them adds them here */
    struct hd_pipe_s *_next;
} hd_pipe_t;

/* An empty one; the reference is the caller's. NULL: none is to be had now. */
hd_pipe_t *hd_pipe_try_take(void);
void hd_pipe_ref(hd_pipe_t *p);
void hd_pipe_unref(hd_pipe_t *p);
size_t hd_pipes_in_use(void); /* of this thread */
void hd_pipes_set_max(size_t pipes);
