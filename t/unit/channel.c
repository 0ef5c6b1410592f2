/* core/proc/hd_channel: messages and descriptors, a full queue, broken messages, ends. */
#include "core/proc/hd_channel.h"
#include "core/base/hd_log.h"
#include "tap.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static hd_loop_t *loop;
static hd_channel_t *here;
static int got_n, closed_n, fd_taken = -1;
static uint64_t got_seq;
static char got_text[64];
static bool take_fd, destroy_inside;

static void on_message(void *arg, const hd_msg_head_t *head, const void *payload,
                       int *fds)
{
    ok(arg == &got_n, "its argument");
    got_n++;
    got_seq = head->seq;
    (void)snprintf(got_text, sizeof(got_text), "%u:%.*s", head->type,
                   (int)hd_min(head->len, 40u), (const char *)payload);
    if (take_fd && head->fds_n > 0) {
        fd_taken = fds[0];
        fds[0] = -1;
    }
    if (destroy_inside) {
        hd_channel_destroy(here);
        here = NULL;
    }
}

static void on_closed(void *arg)
{
    (void)arg;
    closed_n++;
}

static hd_channel_t *create(int fd)
{
    hd_err_t err = {0};

    got_n = closed_n = 0;
    return hd_channel_create(loop, fd, on_message, on_closed, &got_n, &err);
}

static void turns(int n)
{
    while (n-- > 0)
        hd_loop_turn(loop, 0);
}

static int open_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return n;
}

static void test_messages(void)
{
    hd_err_t err = {0};
    hd_channel_t *there;
    int ends[2], many[HD_CHANNEL_FDS], before;
    char big[HD_CHANNEL_BYTES];
    uint64_t first;

    ok(hd_channel_pair(ends, &err) == HD_OK);
    here = create(ends[0]);
    there = hd_channel_create(loop, ends[1], on_message, on_closed, &got_n, &err);
    first = hd_channel_send(there, HD_MSG_PING, "abc", 3, NULL, 0, &err);
    ok(first != 0 && got_n == 0, "sending is not receiving");
    turns(2);
    is_int(got_n, 1, "one message");
    ok(got_seq == first && strncmp(got_text + strlen(got_text) - 3, "abc", 3) == 0,
       "as it was sent");
    for (int i = 0; i < 20; i++)
        hd_ignore(hd_channel_send(there, HD_MSG_ACK, NULL, 0, NULL, 0, &err) == 0);
    turns(2);
    is_int(got_n, 21, "all of a burst, by one edge");
    ok(got_seq == first + 20, "in order");
    memset(big, 'x', sizeof(big));
    ok(hd_channel_send(here, HD_MSG_LISTEN, big, sizeof(big), NULL, 0, &err) == 1,
       "each end counts for itself");
    turns(2);
    is_int(got_n, 22, "the largest");

    before = open_fds();
    for (int i = 0; i < HD_CHANNEL_FDS; i++)
        many[i] = 0;
    hd_ignore(hd_channel_send(there, HD_MSG_LISTEN, "x", 1, many, HD_CHANNEL_FDS, &err) ==
              0);
    turns(2);
    is_int(got_n, 23, "with as many descriptors as there may be");
    is_int(open_fds(), before, "what nobody took is closed");
    take_fd = true;
    hd_ignore(hd_channel_send(there, HD_MSG_LISTEN, "x", 1, many, 2, &err) == 0);
    turns(2);
    ok(fd_taken > 0 && fcntl(fd_taken, F_GETFD) == FD_CLOEXEC, "one is taken");
    is_int(open_fds(), before + 1, "the other is closed");
    close(fd_taken);
    take_fd = false;

    hd_channel_destroy(there);
    turns(2);
    is_int(closed_n, 1, "the peer's end");
    ok(hd_channel_send(here, HD_MSG_PING, NULL, 0, NULL, 0, &err) == 0 &&
           err.sys_errno == EPIPE,
       "sending says so");
    hd_channel_destroy(here);
}

static void test_full(void)
{
    hd_err_t err = {0};
    char bytes[4096] = {0};
    int ends[2], n = 0;

    hd_ignore(hd_channel_pair(ends, &err) != HD_OK);
    here = create(ends[0]);
    while (n < 100000 &&
           hd_channel_send(here, HD_MSG_PING, bytes, sizeof(bytes), NULL, 0, &err) != 0)
        n++;
    ok(n > 4 && err.sys_errno == EAGAIN, "a full queue is the sender's error (%d fit)",
       n);
    close(ends[1]);
    turns(2);
    hd_channel_destroy(here);
}

/* What comes is closed upon, in every way in which it may be broken. */
static void test_broken(void)
{
    static const struct {
        const char *what;
        hd_msg_head_t head;
        size_t bytes;
    } rows[] = {
        {"no type", {HD_MSG_NONE, 0, 0, 1}, sizeof(hd_msg_head_t)},
        {"an unknown type", {HD_MSG_TYPES_N, 0, 0, 1}, sizeof(hd_msg_head_t)},
        {"a length that isn't so", {HD_MSG_PING, 0, 5, 1}, sizeof(hd_msg_head_t)},
        {"descriptors that aren't there", {HD_MSG_PING, 1, 0, 1}, sizeof(hd_msg_head_t)},
        {"half a head", {HD_MSG_PING, 0, 0, 1}, 4},
    };
    hd_err_t err = {0};
    int ends[2];

    hd_log_level = 0;
    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_ignore(hd_channel_pair(ends, &err) != HD_OK);
        here = create(ends[0]);
        hd_ignore(send(ends[1], &rows[i].head, rows[i].bytes, 0) < 0);
        turns(2);
        ok(got_n == 0 && closed_n == 1, "%s", rows[i].what);
        turns(2);
        is_int(closed_n, 1, "told once");
        hd_channel_destroy(here);
        close(ends[1]);
    }
    {
        static char huge[sizeof(hd_msg_head_t) + HD_CHANNEL_BYTES + 100];
        hd_msg_head_t head = {HD_MSG_PING, 0, HD_CHANNEL_BYTES + 100, 1};

        hd_ignore(hd_channel_pair(ends, &err) != HD_OK);
        here = create(ends[0]);
        memcpy(huge, &head, sizeof(head));
        hd_ignore(send(ends[1], huge, sizeof(huge), 0) < 0);
        turns(2);
        ok(got_n == 0 && closed_n == 1, "too long a message");
        hd_channel_destroy(here);
        close(ends[1]);
    }
}

static void test_destroy_inside(void)
{
    hd_err_t err = {0};
    hd_channel_t *there;
    int ends[2];

    hd_ignore(hd_channel_pair(ends, &err) != HD_OK);
    here = create(ends[0]);
    there = hd_channel_create(loop, ends[1], on_message, on_closed, &got_n, &err);
    for (int i = 0; i < 3; i++)
        hd_ignore(hd_channel_send(there, HD_MSG_PING, NULL, 0, NULL, 0, &err) == 0);
    destroy_inside = true;
    hd_loop_turn(loop, 0);
    is_int(got_n, 1, "nothing comes after it was destroyed in its callback");
    destroy_inside = false;
    hd_channel_destroy(there);

    /* Last words of a peer that has ended are still there. */
    hd_ignore(hd_channel_pair(ends, &err) != HD_OK);
    here = create(ends[0]);
    there = hd_channel_create(loop, ends[1], on_message, on_closed, &got_n, &err);
    hd_ignore(hd_channel_send(there, HD_MSG_FAILED, "why", 3, NULL, 0, &err) == 0);
    hd_channel_destroy(there);
    hd_channel_drain(here);
    ok(got_n == 1 && closed_n == 1 && strstr(got_text, ":why") != NULL, "drained");
    hd_channel_destroy(here);
}

int main(void)
{
    hd_err_t err = {0};

    loop = hd_loop_create(NULL, 64, &err);
    if (loop == NULL)
        return 1;
    test_messages();
    test_full();
    test_broken();
    test_destroy_inside();
    hd_loop_destroy(loop);
    return done_testing();
}
