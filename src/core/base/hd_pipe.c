#include "core/base/hd_pipe.h"
#include "core/base/hd_spare.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Of a process: two descriptors each, and the kernel's share of pages for one user
 * (pipe-user-pages-soft) is 256 of this size. */
#define PIPES_MAX 192

/* Per thread, as blocks are. */
static _Thread_local hd_pipe_t *spare_pipes;
static _Thread_local size_t spare_n, spare_low, used_n;
static _Thread_local size_t pipes_max = PIPES_MAX;

static hd_pipe_t *create(void)
{
    hd_pipe_t *p = malloc(sizeof(*p));

    hd_bug_on(p == NULL); /* exhausted memory is the end */
    if (pipe2(p->fd, O_NONBLOCK | O_CLOEXEC) != 0) {
        free(p);
        return NULL;
    }
    if (fcntl(p->fd[1], F_SETPIPE_SZ, HD_PIPE_BYTES) >= HD_PIPE_BYTES)
        return p;
    hd_ignore(close(p->fd[0])); /* the user's share is used up: a small one is of no use */
    hd_ignore(close(p->fd[1]));
    free(p);
    return NULL;
}

static void destroy(hd_pipe_t *p)
{
    hd_ignore(close(p->fd[0])); /* what is in it nobody wants any more */
    hd_ignore(close(p->fd[1]));
    free(p);
}

hd_pipe_t *hd_pipe_try_take(void)
{
    hd_pipe_t *p = spare_pipes;

    if (used_n >= pipes_max)
        return NULL;
    if (p != NULL) {
        spare_pipes = p->_next;
        spare_n--;
        spare_low = hd_min(spare_low, spare_n);
    } else {
        p = create();
        if (p == NULL)
            return NULL;
    }
    used_n++;
    p->refs = 1;
    p->in = p->out = 0;
    p->_next = NULL;
    return p;
}

void hd_pipe_ref(hd_pipe_t *p)
{
    hd_assert(p->refs > 0);
    p->refs++;
}

void hd_pipe_unref(hd_pipe_t *p)
{
    hd_assert(p->refs > 0);
    if (--p->refs > 0)
        return;
    used_n--;
    if (p->in != p->out) {
        destroy(p);
        return;
    }
    p->_next = spare_pipes;
    spare_pipes = p;
    spare_n++;
}

size_t hd_pipes_in_use(void)
{
    return used_n;
}

void hd_pipes_set_max(size_t pipes)
{
    pipes_max = pipes;
}

static size_t trim_spare(void)
{
    size_t n = hd_min(spare_low, spare_n);

    for (size_t i = 0; i < n; i++) {
        hd_pipe_t *p = spare_pipes;

        spare_pipes = p->_next;
        spare_n--;
        destroy(p);
    }
    spare_low = spare_n;
    return n * sizeof(hd_pipe_t);
}

static hd_spare_t spare = {.trim = trim_spare};

__attribute__((constructor)) static void register_spare(void)
{
    hd_spare_register(&spare);
}
