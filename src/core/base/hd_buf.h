/* hd_buf: bodies and byte queues: chains of counted references to fixed-size blocks, file
 * ranges or pipes. ◆
 *
 * A *block* is HD_BLOCK_BYTES of payload with a reference count (per process, not
 * atomic); it comes from a per-process free list and goes back when the last *slice* on
 * it is freed. A slice names a byte range and may carry flags that take effect after its
 * bytes. A *chain* is a FIFO of slices with a running byte count. An idle conn owns no
 * block.
 *
 *   recv -> block -> slice -> chain -> (filters: slices move or are split, bytes don't)
 * -> writev
 *
 * Limits: hd_blocks_max (directive client_body_buffers …) bounds the blocks of a process;
 * at the ceiling hd_block_try_take says no and the caller stops reading (back-pressure).
 */
#pragma once
#include "core/base/hd_list.h"
#include "core/base/hd_pipe.h"
#include "core/base/hd_str.h"
#include <sys/uio.h>

#define HD_BLOCK_BYTES 16384 /* payload: one TLS record */

typedef struct hd_block_s {
    uint32_t refs;
    uint32_t _room; /* bytes of data[] */
    struct hd_block_s *_next;
    char data[];
} hd_block_t;

/* A file that slices name ranges of. Counted as blocks are: the descriptor is closed with
 * the last reference. */
typedef struct {
    uint32_t refs;
    int fd;
} hd_open_file_t;

typedef enum {
    HD_SLICE_BLOCK, /* data/len inside <block> (or static memory when block is NULL) */
    HD_SLICE_FILE,  /* file (a reference of its own), offset, len */
    HD_SLICE_PIPE,  /* the next len bytes of <pipe> (a reference of its own) */
} hd_slice_kind_t;

enum {
    HD_SLICE_END = 1, /* the body ends after this slice */
    HD_SLICE_TRAILERS =
        2, /* trailers follow (in the request's or response's trailer list) */
    HD_SLICE_FLUSH = 4, /* send what came so far without waiting for more */
};

typedef struct hd_slice_s {
    struct hd_slice_s *next;
    hd_block_t *block;
    union {
        const char *data;     /* HD_SLICE_BLOCK */
        hd_open_file_t *file; /* HD_SLICE_FILE */
        hd_pipe_t *pipe;      /* HD_SLICE_PIPE */
    };
    size_t len;
    int64_t offset; /* HD_SLICE_FILE; HD_SLICE_PIPE: of all that was ever in it */
    uint8_t kind, flags;
    bool _owns_tail; /* the block's room behind it is this slice's to fill */
} hd_slice_t;

typedef struct {
    hd_slice_t *first, *last;
    size_t bytes;
} hd_chain_t;

/* One reference is the caller's. NULL at the process's ceiling. */
hd_block_t *hd_block_try_take(void);
void hd_block_ref(hd_block_t *b);
void hd_block_unref(hd_block_t *b);
size_t hd_blocks_in_use(void);
void hd_blocks_set_max(size_t blocks);
/* For tests: the <n>-th block that is asked for from now on isn't there, and with
 * <for_ever> none after it, until this or hd_blocks_set_max is called; 0: all are. */
void hd_blocks_fail_at(size_t n, bool for_ever);
bool hd_blocks_have_failed(void); /* one wasn't there since hd_blocks_fail_at */
void hd_blocks_trim(size_t keep); /* frees cached blocks beyond <keep> */

/* Takes <fd>; one reference is the caller's. */
hd_open_file_t *hd_open_file_create(int fd);
void hd_open_file_ref(hd_open_file_t *f);
void hd_open_file_unref(hd_open_file_t *f);
size_t hd_open_files_n(void); /* of this process, for tests */

static inline void hd_chain_init(hd_chain_t *c)
{
    *c = (hd_chain_t){NULL, NULL, 0};
}
static inline bool hd_chain_is_empty(const hd_chain_t *c)
{
    return c->first == NULL;
}

/* A slice over [data, data+len) of <block>, taking a reference of its own. <block> NULL:
 * static memory that outlives the chain. An empty slice is allowed to carry flags. */
void hd_chain_add(hd_chain_t *c, hd_block_t *block, const char *data, size_t len,
                  unsigned flags);
/* Copies bytes in, filling the last block's free room first if the chain is its only
 * user; false at the block ceiling, with nothing added. */
bool hd_chain_try_add_copy(hd_chain_t *c, const char *data, size_t len) HD_MUST_CHECK;
/* A range of <file>, taking a reference of its own. Its bytes must stay as they are until
 * the slice is gone. */
void hd_chain_add_file(hd_chain_t *c, hd_open_file_t *file, int64_t offset, size_t len,
                       unsigned flags);
/* The last <len> bytes that went into <pipe>, taking a reference of its own. They can be
 * taken out only in order, and once: no share of such a chain, and what is freed unsent
 * takes with it all that came behind. */
void hd_chain_add_pipe(hd_chain_t *c, hd_pipe_t *pipe, size_t len, unsigned flags);
void hd_chain_set_flags(hd_chain_t *c,
                        unsigned flags);      /* on the last slice; adds an empty one */
unsigned hd_chain_flags(const hd_chain_t *c); /* of all slices, or-ed */
/* Moves all of <from> behind <to>; <from> is empty then. */
void hd_chain_move(hd_chain_t *to, hd_chain_t *from);
/* Moves the first <len> bytes (splitting a slice where needed) and the empty slices that
 * follow: flags go with the byte before them. */
void hd_chain_move_bytes(hd_chain_t *to, hd_chain_t *from, size_t len);
/* The same bytes again, by reference (a replay window). */
void hd_chain_share(hd_chain_t *to, const hd_chain_t *from);
/* Frees the first <len> bytes, and the empty slices that follow. END and TRAILERS are
 * never lost: a slice that carries them stays, empty, until hd_chain_take_flags. */
void hd_chain_drop(hd_chain_t *c, size_t len);
/* The flags that take effect now, at the head: of the empty slices there, which go. 0 if
 * bytes come first. */
unsigned hd_chain_take_flags(hd_chain_t *c);
void hd_chain_free_slices(hd_chain_t *c); /* of hd_chain_free */
static inline void hd_chain_free(hd_chain_t *c)
{
    if (c->first != NULL)
        hd_chain_free_slices(c);
}
/* Fills <iov> from memory slices at the head; returns how many, bytes in *bytes. Stops
 * before a file or pipe slice. */
int hd_chain_to_iov(const hd_chain_t *c, struct iovec *iov, int max, size_t *bytes);
/* Copies up to <len> bytes out without consuming; returns how many. Stops before a file
 * or pipe slice. */
size_t hd_chain_peek(const hd_chain_t *c, void *out, size_t len);
