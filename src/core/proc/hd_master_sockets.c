/* The master's descriptors: listening sockets and log files, and how they come to be in
 * all processes before somebody publishes what names them. */
#include "core/proc/hd_inherited.h"
#include "core/proc/hd_files_int.h"
#include "core/proc/hd_master_int.h"
#include "core/base/hd_log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TRIES 5
#define TRY_AGAIN_MS 500

/* One address. A shared socket, or one for each worker (SO_REUSEPORT); kept open here as
 * long as it is wanted, so that the replacement of a dead worker goes on with the same
 * queue of connections. */
typedef struct socket_s {
    hd_listen_item_t item;
    hd_socket_spec_t said;  /* by whom asked for it last; else as in <item> */
    unsigned wanted, asked; /* bits of hd_requester_t */
    bool is_lent;           /* the service manager's: its file isn't ours to remove */
    uint32_t fds_n;         /* 0: not open yet */
    int fds[HD_WORKERS_MAX];
    uint32_t given_roles; /* HD_ROLE_… that have it by now: */
    uint32_t given_n;     /* so many of fds */
    struct socket_s *next;
} socket_t;

typedef struct {
    void (*done)(hd_requester_t by, const hd_err_t *err); /* NULL: nobody waits */
    unsigned tries;
    uint32_t unacknowledged;
    hd_timer_t timer;
} request_t;

static socket_t *sockets;
static request_t requests[HD_REQUESTERS_N];
static hd_file_t *new_logs[HD_LOG_FILES_MAX]; /* not yet told to the children */
static uint32_t new_logs_n;

static unsigned bit(hd_requester_t by)
{
    return 1u << by;
}

/* --- what is needed --- */

hd_rc_t hd_sockets_need(hd_requester_t by, const hd_listen_item_t *item, hd_err_t *err)
{
    socket_t *s;

    for (s = sockets; s != NULL; s = s->next) {
        if (hd_listen_item_same(&s->item, item)) {
            s->asked |= bit(by);
            s->item.roles |= item->roles;
            s->said = item->spec;
            return HD_OK;
        }
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return hd_err_set_sys(err, ENOMEM, "a listening socket");
    s->item = *item;
    hd_ignore(!hd_listen_item_fix(&s->item)); /* it was whole where it came from */
    s->said = s->item.spec;
    s->asked = bit(by);
    s->next = sockets;
    sockets = s;
    return HD_OK;
}

hd_rc_t hd_sockets_need_log(hd_requester_t by, hd_str_t path, hd_err_t *err)
{
    hd_file_t *there = hd_file_get(path);
    char name[HD_PATH_MAX_BYTES];
    int fd;

    if (there != NULL) {
        if (by != HD_BY_LOADER) /* it doesn't say when it needs it no more */
            hd_file_set_lasting(there);
        return HD_OK;
    }
    if (new_logs_n == HD_LOG_FILES_MAX || path.len >= sizeof(name))
        return hd_err_set(err, HD_E_LIMIT, "too many new log files at once");
    (void)snprintf(name, sizeof(name), "%.*s", HD_STR_ARG(path));
    fd = hd_open_log(name, err);
    if (fd < 0)
        return HD_ERROR;
    new_logs[new_logs_n] = hd_file_put(path, fd);
    if (by != HD_BY_LOADER)
        hd_file_set_lasting(new_logs[new_logs_n]);
    new_logs_n++;
    return HD_OK;
}

/* --- opening --- */

static void close_socket(socket_t *s)
{
    for (uint32_t i = 0; i < s->fds_n; i++)
        hd_ignore(close(s->fds[i])); /* a listening socket */
    if (s->fds_n > 0 && s->item.spec.bind.family == AF_UNIX && s->item.path[0] != '@' &&
        !s->is_lent && !hd_upgrade_shares_sockets())
        hd_ignore(unlink(s->item.path)); /* may be gone already */
    s->fds_n = 0;
}

/* How many it should have. Never less than there are: connections may wait in each. */
static uint32_t wanted_fds(const socket_t *s)
{
    if (s->item.exclusive)
        return hd_max(s->fds_n, 1u);
    return hd_max(hd_max(hd_master.shared->workers_n, s->fds_n), 1u);
}

/* Options that it had from <from> as <said> has them; as nginx, at each reload. What
 * would take another socket (reuseport, ipv6only) stays. */
static void adjust(socket_t *s, const hd_socket_spec_t *from)
{
    hd_socket_spec_t to = s->said;
    char text[HD_ADDR_TEXT_MAX];

    to.bind = s->item.spec.bind;
    to.reuseport = s->item.spec.reuseport;
    to.v6only = s->item.spec.v6only;
    to.freebind = s->item.spec.freebind;
    for (uint32_t i = 0; i < s->fds_n; i++) {
        hd_err_t err = {0};

        if (hd_socket_adjust(s->fds[i], from, &to, &err) != HD_OK)
            hd_log(HD_LOG_WARN, "%.*s: %s", HD_STR_ARG(hd_addr_print(&to.bind, text)),
                   err.text);
    }
    s->item.spec = to;
}

static hd_rc_t open_socket(socket_t *s, hd_err_t *err)
{
    const hd_socket_spec_t *spec = &s->item.spec;
    uint32_t before;

    if (s->fds_n == 0) {
        bool own;

        s->fds_n = hd_inherited_take(spec, s->fds, HD_WORKERS_MAX, &own, &s->is_lent);
        s->item.exclusive = !own || !spec->reuseport || s->item.roles != HD_ROLE_WORKERS;
        if (s->fds_n > 0)
            adjust(s, &(hd_socket_spec_t){.type = spec->type});
    }
    before = s->fds_n;
    while (s->fds_n < wanted_fds(s)) {
        if (hd_socket_make(spec, &s->fds[s->fds_n], err) != HD_OK) {
            while (s->fds_n > before)
                hd_ignore(close(s->fds[--s->fds_n])); /* new: nobody waits there */
            return HD_ERROR;
        }
        s->fds_n++;
    }
    return HD_OK;
}

static uint32_t role_of(const hd_child_t *c)
{
    switch (c->kind) {
    case HD_PROC_WORKER:
        return HD_ROLE_WORKERS;
    case HD_PROC_AGENT:
        return HD_ROLE_AGENT;
    case HD_PROC_CONTROL:
        return HD_ROLE_CONTROL;
    default:
        return 0;
    }
}

/* Children that have it and didn't come to use it would keep it open. */
static void tell_closed(const socket_t *s)
{
    hd_each_child(g, c)
    {
        if (g->step <= HD_GEN_IN_FORCE && c->channel != NULL && !c->is_held &&
            (s->given_roles & role_of(c)) != 0)
            hd_ignore(
                hd_child_send(c, HD_MSG_UNLISTEN, &s->item, sizeof(s->item), NULL, 0));
    }
}

static void drop_unwanted(void)
{
    socket_t **at = &sockets;

    while (*at != NULL) {
        socket_t *s = *at;

        if (s->wanted != 0 || s->asked != 0) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        tell_closed(s);
        close_socket(s);
        free(s);
    }
}

/* --- giving --- */

/* Is the socket's <i>th descriptor <c>'s? One that all share; or each worker its own, and
 * its part of those that are there for more workers: a generation's that is to come, or
 * has been. The kernel spreads connections over all of them. */
static bool is_its_fd(const socket_t *s, uint32_t i, const hd_child_t *c)
{
    if ((s->item.roles & role_of(c)) == 0 || c->is_held)
        return false;
    return s->item.exclusive || i % hd_max(c->gen->settings.workers_n, 1u) ==
                                    c->no % hd_max(c->gen->settings.workers_n, 1u);
}

typedef struct {
    hd_child_t *to;
    hd_listen_item_t items[HD_CHANNEL_BYTES / sizeof(hd_listen_item_t)];
    int fds[HD_CHANNEL_FDS];
    size_t n;
} parcel_t;

static bool send_parcel(parcel_t *p)
{
    size_t n = p->n;

    p->n = 0;
    return n == 0 || hd_child_send(p->to, HD_MSG_LISTEN, p->items,
                                   n * sizeof(p->items[0]), p->fds, (unsigned)n);
}

/* From the <from>th descriptor on. */
static bool add_socket(parcel_t *p, const socket_t *s, uint32_t from)
{
    for (uint32_t i = from; i < s->fds_n; i++) {
        if (!is_its_fd(s, i, p->to))
            continue;
        p->items[p->n] = s->item;
        p->fds[p->n++] = s->fds[i];
        if (p->n == hd_min(hd_countof(p->items), hd_countof(p->fds)) && !send_parcel(p))
            return false;
    }
    return true;
}

/* What it hasn't got yet. */
static bool give_sockets(hd_child_t *c)
{
    parcel_t p = {.to = c};

    for (const socket_t *s = sockets; s != NULL; s = s->next)
        if (!add_socket(&p, s, (s->given_roles & role_of(c)) != 0 ? s->given_n : 0))
            return false;
    return send_parcel(&p);
}

void hd_sockets_release(hd_child_t *c)
{
    parcel_t p = {.to = c};

    c->is_held = false;
    for (const socket_t *s = sockets; s != NULL; s = s->next)
        if (!add_socket(&p, s, 0))
            return;             /* it is replaced */
    hd_ignore(send_parcel(&p)); /* or it is replaced */
}

static bool give_log(hd_child_t *c, const hd_file_t *f)
{
    const char *path = hd_file_path(f);
    int fd = hd_file_fd(f);

    return hd_child_send(c, HD_MSG_LOG, path, strlen(path), &fd, 1);
}

/* In a child, right after the fork: it has the descriptors, and takes them over. */
void hd_master_give_listens(hd_proc_t *p)
{
    for (socket_t *s = sockets; s != NULL; s = s->next) {
        hd_addr_t addr;

        for (uint32_t i = 0; i < s->fds_n; i++) {
            if (p->acceptor == NULL || !is_its_fd(s, i, hd_master.self)) {
                hd_ignore(close(s->fds[i])); /* another process's */
                continue;
            }
            addr = hd_addr_keep(&s->item.spec.bind);
            hd_acceptor_add_fd(p->acceptor, &addr, s->item.spec.type, s->fds[i],
                               s->item.exclusive);
        }
    }
}

/* --- a request's way: open, give, wait, done --- */

static void finish(hd_requester_t by, const hd_err_t *err)
{
    void (*done)(hd_requester_t by, const hd_err_t *err) = requests[by].done;

    requests[by].done = NULL;
    hd_timer_stop(hd_master.loop, &requests[by].timer);
    if (done != NULL)
        done(by, err);
}

/* All that is new, to one; then a ping. Its sequence number; 0: it doesn't hear: it is
 * replaced, and its replacement inherits all. */
static uint64_t give_to(hd_child_t *c)
{
    hd_err_t err = {0};

    if (!give_sockets(c))
        return 0;
    for (uint32_t k = 0; k < new_logs_n; k++)
        if (!give_log(c, new_logs[k]))
            return 0;
    return hd_channel_send(c->channel, HD_MSG_PING, NULL, 0, NULL, 0, &err);
}

/* To all generations alike, so that what is open is in all that live: who asked may be
 * abandoned, and the next to ask finds it open. Only one that drains needs none of it. */
static void give(hd_requester_t by)
{
    request_t *r = &requests[by];

    r->unacknowledged = 1; /* ourselves, until all were told */
    hd_each_child(g, c)
    {
        c->awaited[by] = 0;
        if (g->step > HD_GEN_IN_FORCE || c->pid == 0 || c->channel == NULL ||
            c->kind == HD_PROC_LOADER)
            continue;
        c->awaited[by] = give_to(c);
        if (c->awaited[by] != 0)
            r->unacknowledged++;
    }
    for (socket_t *s = sockets; s != NULL; s = s->next) {
        if (s->fds_n > 0)
            s->given_roles |= s->item.roles;
        s->given_n = s->fds_n;
    }
    new_logs_n = 0;
    if (--r->unacknowledged == 0)
        finish(by, NULL);
}

/* As nginx: at each try. */
static void tell_in_use(const hd_err_t *err)
{
    if (hd_master.phase == HD_MASTER_STARTING)
        hd_tell(HD_LOG_EMERG, "%s", err->text);
    else
        hd_log(HD_LOG_EMERG, "%s", err->text);
}

static void open_and_give(hd_requester_t by)
{
    request_t *r = &requests[by];
    bool in_use = false;
    hd_err_t first = {0};

    for (socket_t *s = sockets; s != NULL; s = s->next) {
        hd_err_t err = {0};

        if ((s->asked & bit(by)) == 0 || open_socket(s, &err) == HD_OK)
            continue;
        if (err.sys_errno == EADDRINUSE) {
            in_use = true;
            tell_in_use(&err);
        }
        if (first.code == HD_E_NONE || err.sys_errno != EADDRINUSE)
            first = err;
    }
    if (first.code == HD_E_NONE) {
        give(by);
    } else if (in_use && first.sys_errno == EADDRINUSE && ++r->tries < TRIES) {
        hd_timer_set(hd_master.loop, &r->timer, TRY_AGAIN_MS); /* as nginx: it may end */
    } else {
        if (first.sys_errno == EADDRINUSE)
            hd_ignore(hd_err_prefix(&first, "still could not bind(): "));
        finish(by, &first);
    }
}

static void on_try_again(hd_timer_t *t)
{
    open_and_give((hd_requester_t)(hd_container_of(t, request_t, timer) - requests));
}

void hd_sockets_prepare(hd_requester_t by,
                        void (*done)(hd_requester_t by, const hd_err_t *err))
{
    request_t *r = &requests[by];

    hd_bug_on(r->done != NULL);
    r->done = done;
    r->tries = 0;
    hd_timer_init(&r->timer, on_try_again);
    open_and_give(by);
}

static void one_less(hd_child_t *c, hd_requester_t by)
{
    c->awaited[by] = 0;
    if (--requests[by].unacknowledged == 0)
        finish(by, NULL);
}

void hd_sockets_on_ack(hd_child_t *c, uint64_t seq)
{
    for (int by = 0; by < HD_REQUESTERS_N; by++)
        if (c->awaited[by] == seq && seq != 0)
            one_less(c, (hd_requester_t)by);
}

void hd_sockets_on_death(hd_child_t *c)
{
    for (int by = 0; by < HD_REQUESTERS_N; by++)
        if (c->awaited[by] != 0)
            one_less(c, (hd_requester_t)by);
}

void hd_sockets_commit(hd_requester_t by, bool whole)
{
    for (socket_t *s = sockets; s != NULL; s = s->next) {
        if ((s->asked & bit(by)) != 0) {
            const hd_socket_spec_t before = s->item.spec;

            s->wanted |= bit(by);
            adjust(s, &before);
        } else if (whole)
            s->wanted &= ~bit(by);
        s->asked &= ~bit(by);
    }
    drop_unwanted();
}

void hd_sockets_abort(hd_requester_t by)
{
    requests[by].done = NULL;
    if (hd_timer_is_set(&requests[by].timer) && requests[by].timer.on_due != NULL)
        hd_timer_stop(hd_master.loop, &requests[by].timer);
    hd_each_child(g, c)
    {
        c->awaited[by] = 0;
    }
    for (socket_t *s = sockets; s != NULL; s = s->next)
        s->asked &= ~bit(by);
    drop_unwanted();
}

void hd_sockets_forget(hd_requester_t by)
{
    for (socket_t *s = sockets; s != NULL; s = s->next)
        s->wanted &= ~bit(by);
    hd_sockets_abort(by);
}

void hd_sockets_free(hd_requester_t by, const hd_listen_item_t *item)
{
    for (socket_t *s = sockets; s != NULL; s = s->next)
        if (hd_listen_item_same(&s->item, item))
            s->wanted &= ~bit(by);
    drop_unwanted();
}

void hd_sockets_each(void (*visit)(void *arg, int fd, bool is_lent), void *arg)
{
    for (const socket_t *s = sockets; s != NULL; s = s->next)
        for (uint32_t i = 0; i < s->fds_n; i++)
            visit(arg, s->fds[i], s->is_lent);
}

void hd_sockets_close_all(void)
{
    for (socket_t *s = sockets; s != NULL; s = s->next)
        s->wanted = s->asked = 0;
    drop_unwanted();
}

/* --- logs that nothing names any more --- */

static bool is_named(const hd_file_t *f)
{
    const hd_settings_t *s = &hd_master.gen->settings;

    for (uint32_t i = 0; i < s->logs_n; i++)
        if (strcmp(s->logs[i], hd_file_path(f)) == 0)
            return true;
    for (uint32_t i = 0; i < new_logs_n; i++) /* asked for, and not given yet */
        if (new_logs[i] == f)
            return true;
    return hd_file_is_lasting(f);
}

void hd_sockets_close_logs(void)
{
    hd_file_t *next;

    if (!hd_master.is_settled || hd_master.next != NULL || hd_master.gen->older != NULL)
        return;
    for (hd_file_t *f = hd_files_next(NULL); f != NULL; f = next) {
        const char *path = hd_file_path(f);

        next = hd_files_next(f);
        if (is_named(f))
            continue;
        hd_each_child(g, c)
        {
            if (c->pid != 0 && c->channel != NULL && c->kind != HD_PROC_LOADER)
                hd_ignore(hd_child_send(c, HD_MSG_LOG_GONE, path, strlen(path), NULL, 0));
        }
        hd_file_remove(hd_str_c(path));
    }
}

/* --- USR1 --- */

static void reopen_error_log(void)
{
    static hd_error_log_t logs[HD_ERROR_LOGS_MAX + 1]; /* the first one's file is <fd> */
    const hd_settings_t *s = hd_master.p->settings;
    const char *path = s->error_log;
    uint32_t n = hd_min(s->more_error_logs_n, (uint32_t)HD_ERROR_LOGS_MAX);
    hd_err_t err = {0};
    int fd;

    logs[0].level = (uint32_t)s->log_level;
    memcpy(logs + 1, s->more_error_logs, n * sizeof(logs[0]));

    if (path[0] != '\0' && hd_use_error_log(path, &err) != HD_OK)
        hd_log(HD_LOG_EMERG, "%s", err.text);
    fd = hd_log_fd();
    hd_each_child(g, c)
    {
        if (c->pid != 0 && c->kind != HD_PROC_LOADER)
            hd_ignore(hd_child_send(c, HD_MSG_ERROR_LOG, logs, (1 + n) * sizeof(logs[0]),
                                    &fd, path[0] != '\0' ? 1 : 0));
    }
}

void hd_sockets_reopen_logs(bool named_only)
{
    reopen_error_log();
    for (hd_file_t *f = hd_files_next(NULL); f != NULL; f = hd_files_next(f)) {
        hd_err_t err = {0};
        int fd;

        if (named_only && !is_named(f))
            continue;
        fd = hd_open_log(hd_file_path(f), &err);
        if (fd < 0) {
            hd_log(HD_LOG_EMERG, "%s", err.text);
            continue;
        }
        hd_ignore(hd_file_put(hd_str_c(hd_file_path(f)), fd) == NULL);
        hd_each_child(g, c)
        {
            if (c->pid != 0 && c->kind != HD_PROC_LOADER)
                hd_ignore(give_log(c, f));
        }
    }
}
