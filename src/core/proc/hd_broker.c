/* Sockets beyond a child's rights: asked from the master over the channel. */
#include "core/proc/hd_process_int.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    uint64_t ticket;
    hd_listen_item_t item;
} ask_t;

typedef struct {
    uint64_t ticket;
    int32_t sys_errno;
    char text[HD_ERR_TEXT_MAX];
} made_t;

/* --- in a child --- */

#define WAITING_MAX 256

static hd_socket_wait_t *waiting[WAITING_MAX];
static uint64_t last_ticket;
static hd_proc_t *proc;

static bool is_beyond_rights(const hd_socket_spec_t *spec)
{
    bool is_inet = spec->bind.family == AF_INET || spec->bind.family == AF_INET6;

    if (geteuid() == 0)
        return spec->netns != 0;
    return (is_inet && spec->bind.port > 0 && spec->bind.port < 1024) ||
           spec->transparent || spec->mark != 0 || spec->netns != 0 ||
           (spec->reuseport &&
            spec->bind.port > 0); /* the group is the master's user's */
}

static hd_rc_t ask(hd_loop_t *loop, const hd_socket_spec_t *spec, hd_socket_wait_t *wait,
                   hd_err_t *err)
{
    ask_t a = {.ticket = last_ticket + 1};
    size_t at = 0;

    (void)loop;
    while (at < WAITING_MAX && waiting[at] != NULL)
        at++;
    if (at == WAITING_MAX)
        return hd_err_set(err, HD_E_LIMIT, "more than %d sockets asked of the master",
                          WAITING_MAX);
    if (proc->to_master == NULL)
        return hd_err_set(err, HD_E_SYS, "there is no master to make this socket");
    if (!hd_listen_item_init(&a.item, spec, 0))
        return hd_err_set(err, HD_E_CONF,
                          "the path of a unix socket has at most 107 bytes");
    if (hd_channel_send(proc->to_master, HD_MSG_SOCKET, &a, sizeof(a), NULL, 0, err) == 0)
        return HD_ERROR;
    wait->_ticket = ++last_ticket;
    waiting[at] = wait;
    return HD_AGAIN;
}

static void cancel(hd_socket_wait_t *wait)
{
    for (size_t i = 0; i < WAITING_MAX; i++)
        if (waiting[i] == wait)
            waiting[i] = NULL;
}

static const hd_socket_broker_t broker = {is_beyond_rights, ask, cancel};

void hd_broker_use(hd_proc_t *p)
{
    proc = p;
    hd_socket_broker = &broker;
}

void hd_broker_on_made(const hd_msg_head_t *head, const void *payload, int *fds)
{
    const made_t *made = payload;
    hd_socket_wait_t *wait = NULL;
    hd_err_t err = {0};
    int fd;

    hd_bug_on(head->len != sizeof(*made));
    for (size_t i = 0; i < WAITING_MAX && wait == NULL; i++) {
        if (waiting[i] != NULL && waiting[i]->_ticket == made->ticket) {
            wait = waiting[i];
            waiting[i] = NULL;
        }
    }
    if (wait == NULL)
        return; /* cancelled: the descriptor is closed by the channel */
    if (head->fds_n == 1) {
        fd = fds[0];
        fds[0] = -1;
        wait->on_socket(wait, fd, NULL);
        return;
    }
    hd_ignore(hd_err_set(&err, HD_E_SYS, "%.*s", HD_ERR_TEXT_MAX - 1, made->text));
    err.sys_errno = made->sys_errno;
    wait->on_socket(wait, -1, &err);
}

/* --- in the master --- */

void hd_broker_serve(hd_channel_t *ch, const hd_msg_head_t *head, const void *payload)
{
    made_t made = {0};
    hd_err_t err = {0};
    ask_t a;
    int fd = -1;

    if (head->len != sizeof(a)) {
        hd_log(HD_LOG_ALERT, "a child asked for a socket in other words");
        return;
    }
    memcpy(&a, payload, sizeof(a));
    made.ticket = a.ticket;
    if (!hd_listen_item_fix(&a.item) || a.item.spec.netns != 0)
        hd_ignore(hd_err_set(&err, HD_E_INTERNAL, "no such socket can be made here"));
    else
        hd_ignore(hd_socket_make(&a.item.spec, &fd, &err));
    made.sys_errno = err.sys_errno;
    (void)snprintf(made.text, sizeof(made.text), "%s", err.text);
    hd_err_clear(&err);
    if (hd_channel_send(ch, HD_MSG_SOCKET_MADE, &made, sizeof(made), &fd, fd >= 0 ? 1 : 0,
                        &err) == 0) {
        /* that a child has died meanwhile is heard of elsewhere */
        bool is_gone = err.sys_errno == EPIPE || err.sys_errno == ECONNRESET;

        hd_log(is_gone ? HD_LOG_INFO : HD_LOG_ALERT, "broker: %s", err.text);
    }
    if (fd >= 0)
        hd_ignore(close(fd)); /* the child's copy lives on */
}
