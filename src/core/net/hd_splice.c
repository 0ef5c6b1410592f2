#include "core/net/hd_splice.h"
#include "core/loom/hd_series.h"
#include "core/net/hd_conn_int.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PIPE_BYTES 262144
#define LITTLE_BYTES 65536
#define DRY_MAX 4
#define PIPES_MAX 512 /* of a process: two descriptors each */

static _Thread_local unsigned pipes_n;

void hd_splice_init(hd_splice_t *s)
{
    *s = (hd_splice_t){.pipe = {-1, -1}};
}

bool hd_splice_may(const hd_conn_t *from, const hd_conn_t *to)
{
    return hd_conn_bare_fd(from) >= 0 && hd_conn_bare_fd(to) >= 0 && from->_in == NULL &&
           hd_chain_is_empty(&to->out) &&
           (from->_flags & (HD_CF_END_READ | HD_CF_READ_FAILED)) == 0 &&
           (to->_flags & (HD_CF_BROKEN | HD_CF_SHUT_WANTED)) == 0;
}

bool hd_splice_try_open(hd_splice_t *s)
{
    if (pipes_n >= PIPES_MAX || pipe2(s->pipe, O_NONBLOCK | O_CLOEXEC) != 0) {
        hd_splice_init(s);
        return false;
    }
    pipes_n++;
    /* Beyond the user's share it stays as it is. */
    hd_ignore(fcntl(s->pipe[1], F_SETPIPE_SZ, PIPE_BYTES) < 0);
    return true;
}

void hd_splice_close(hd_splice_t *s)
{
    if (!hd_splice_is_open(s))
        return;
    hd_ignore(
        close(s->pipe[0])); /* what is in it is lost with the tunnel, or it is empty */
    hd_ignore(close(s->pipe[1]));
    pipes_n--;
    hd_splice_init(s);
}

bool hd_splice_is_idle(const hd_splice_t *s)
{
    return s->in_pipe == 0 && s->dry_n >= DRY_MAX;
}

static ssize_t move(int from, int to, size_t len)
{
    ssize_t n;

    do
        n = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    return n;
}

static void fail(hd_conn_t *c, const char *what)
{
    int error = errno;

    (void)hd_conn_fail(c, error == ETIMEDOUT ? HD_E_TIMEOUT : HD_E_RESET,
                       "splice %s failed: %s", what, strerror(error));
    c->err->sys_errno = error;
    c->_flags |= HD_CF_TOLD;
}

/* HD_OK: the pipe is empty; HD_AGAIN: <to> is full; HD_ERROR. */
static hd_rc_t give(hd_splice_t *s, hd_conn_t *to, size_t *moved)
{
    while (s->in_pipe > 0) {
        ssize_t n =
            to->is_writable ? move(s->pipe[0], hd_conn_bare_fd(to), s->in_pipe) : -1;

        if (n > 0) {
            s->in_pipe -= (size_t)n;
            to->bytes_out += (uint64_t)n;
            *moved += (size_t)n;
            continue;
        }
        if (!to->is_writable || errno == EAGAIN) {
            to->is_writable = false;
            hd_conn_want_writable(to);
            return HD_AGAIN;
        }
        fail(to, "to it");
        return HD_ERROR;
    }
    return HD_OK;
}

/* HD_OK: some came; HD_AGAIN: dry; HD_DONE: the end; HD_ERROR. */
static hd_rc_t take(hd_splice_t *s, hd_conn_t *from)
{
    ssize_t n = move(hd_conn_bare_fd(from), s->pipe[1], PIPE_BYTES);

    if (n > 0) {
        s->in_pipe += (size_t)n;
        s->since_dry += (size_t)n;
        from->bytes_in += (uint64_t)n;
        return HD_OK;
    }
    if (n < 0 && errno != EAGAIN) {
        fail(from, "from it");
        return HD_ERROR;
    }
    from->is_readable = false;
    if (n == 0) {
        from->peer_closing = from->peer_closed = true;
        return HD_DONE;
    }
    /* The pipe is empty, so it was the socket that said so. */
    from->_flags |= HD_CF_DRAINED;
    s->dry_n = s->since_dry < LITTLE_BYTES ? s->dry_n + 1 : 0;
    s->since_dry = 0;
    return HD_AGAIN;
}

hd_splice_end_t hd_splice_run(hd_splice_t *s, hd_conn_t *from, hd_conn_t *to,
                              size_t budget, size_t *moved)
{
    *moved = 0;
    for (;;) {
        hd_rc_t rc = give(s, to, moved);

        if (rc != HD_OK)
            return rc == HD_AGAIN ? HD_SPLICE_FULL : HD_SPLICE_TO_FAILED;
        if (from->peer_closed)
            return HD_SPLICE_ENDED;
        if (!from->is_readable)
            return HD_SPLICE_DRY;
        if (*moved >= budget)
            return HD_SPLICE_MORE;
        rc = take(s, from);
        if (rc == HD_ERROR)
            return HD_SPLICE_FROM_FAILED;
    }
}

void hd_splice_count(hd_member_t *m, size_t bytes)
{
    static const char *const labels[] = {NULL};
    static const hd_family_t family = {
        .name = "heddle_spliced_bytes_total",
        .help = "Bytes that went from socket to socket without coming up here (splice).",
        .kind = HD_COUNTER,
        .labels = labels};
    static _Thread_local hd_series_t series;
    static _Thread_local const hd_member_t *of;

    if (m == NULL)
        return;
    if (of != m) {
        series = hd_series_enter(m, hd_family_enter(m, &family), NULL);
        of = m;
    }
    hd_counter_add(m, series, bytes);
}
