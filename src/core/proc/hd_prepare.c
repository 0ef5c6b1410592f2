/* The agent's side of "descriptors first, then publish". */
#include "core/proc/hd_process_int.h"
#include <stdlib.h>

/* Asked for, in order: the master answers in the same order. */
typedef struct asked_s {
    void (*done)(void *arg, const hd_err_t *err);
    void *arg;
    struct asked_s *next;
} asked_t;

static asked_t *first, **last = &first;

static hd_rc_t send_items(hd_proc_t *p, hd_msg_type_t type, const hd_socket_spec_t *specs,
                          uint32_t n, hd_err_t *err)
{
    for (uint32_t i = 0; i < n; i++) {
        hd_listen_item_t item;

        if (!hd_listen_item_init(&item, &specs[i], HD_ROLE_WORKERS))
            return hd_err_set(err, HD_E_CONF,
                              "the path of a unix socket has at most 107 bytes");
        if (hd_channel_send(p->to_master, type, &item, sizeof(item), NULL, 0, err) == 0)
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t ask(hd_proc_t *p, const hd_socket_spec_t *specs, uint32_t specs_n,
                   const hd_str_t *logs, uint32_t logs_n, hd_err_t *err)
{
    if (send_items(p, HD_MSG_NEED_LISTEN, specs, specs_n, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = 0; i < logs_n; i++)
        if (logs[i].len >= HD_PATH_MAX_BYTES ||
            hd_channel_send(p->to_master, HD_MSG_NEED_LOG, logs[i].data, logs[i].len,
                            NULL, 0, err) == 0)
            return hd_err_set(err, HD_E_CONF, "the path of a log file is too long");
    return hd_channel_send(p->to_master, HD_MSG_PREPARE, NULL, 0, NULL, 0, err) != 0
               ? HD_OK
               : HD_ERROR;
}

void hd_process_prepare(hd_proc_t *p, const hd_socket_spec_t *specs, uint32_t specs_n,
                        const hd_str_t *logs, uint32_t logs_n,
                        void (*done)(void *arg, const hd_err_t *err), void *arg)
{
    hd_err_t err = {0};
    asked_t *a;

    if (p->kind == HD_PROC_SINGLE) {
        hd_rc_t rc = hd_single_prepare(p, specs, specs_n, logs, logs_n, &err);

        done(arg, rc == HD_OK ? NULL : &err);
        return;
    }
    if (p->to_master == NULL)
        hd_ignore(hd_err_set(&err, HD_E_SYS, "the master is gone"));
    else
        hd_ignore(ask(p, specs, specs_n, logs, logs_n, &err));
    if (err.code != HD_E_NONE) {
        done(arg, &err);
        return;
    }
    a = calloc(1, sizeof(*a));
    hd_bug_on(a == NULL);
    a->done = done;
    a->arg = arg;
    *last = a;
    last = &a->next;
}

void hd_process_release(hd_proc_t *p, const hd_socket_spec_t *specs, uint32_t specs_n)
{
    hd_err_t err = {0};

    if (p->kind == HD_PROC_SINGLE || p->to_master == NULL)
        return;
    if (send_items(p, HD_MSG_FREE_LISTEN, specs, specs_n, &err) != HD_OK)
        hd_log(HD_LOG_ALERT, "%s", err.text);
}

void hd_prepare_done(hd_str_t reason)
{
    asked_t *a = first;
    hd_err_t err = {0};

    hd_bug_on(a == NULL);
    first = a->next;
    if (first == NULL)
        last = &first;
    if (reason.len > 0)
        hd_ignore(hd_err_set(&err, HD_E_SYS, "%.*s", HD_STR_ARG(reason)));
    a->done(a->arg, reason.len > 0 ? &err : NULL);
    free(a);
}
