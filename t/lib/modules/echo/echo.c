/* echo: a protocol and its listeners, for tests of processes: no http needed.
 *
 *     echo_listen ADDRESS TEXT [LOG];
 *
 * A conn is greeted with "PID TEXT\n" and gets back what it sends, with TEXT as in force
 * when it was accepted; each greeting is a line in LOG. A line "segv" is answered by a
 * crash; TEXT die-at-reload kills the loader, TEXT own… asks for SO_REUSEPORT. */
#include "hd_module.h"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

typedef struct {
    hd_str_t text, log;
} echo_t;

static void on_readable(hd_conn_t *c)
{
    char bytes[256];
    ssize_t n;

    while (c->is_readable && (n = hd_conn_read(c, bytes, sizeof(bytes))) > 0) {
        if (n >= 4 && memcmp(bytes, "segv", 4) == 0)
            raise(SIGSEGV);
        hd_ignore(!hd_conn_try_send_copy(c, bytes, (size_t)n));
    }
    if (c->peer_closed || c->err != NULL)
        hd_conn_close(c, 1000);
}

static void on_closed(hd_conn_t *c)
{
    hd_conn_close(c, 0);
}

static const hd_conn_handler_t handler = {.on_readable = on_readable,
                                          .on_closed = on_closed};

static void on_conn(hd_conn_t *c, const hd_slot_t *listener,
                    const hd_filter_chain_t *chain)
{
    const echo_t *e = chain->protocol_conf;
    hd_file_t *log = e->log.len > 0 ? hd_file_get(e->log) : NULL;
    char line[512];
    int n = snprintf(line, sizeof(line), "%d %.*s\n", (int)getpid(), HD_STR_ARG(e->text));

    (void)listener;
    hd_conn_set_handler(c, &handler, NULL);
    hd_ignore(!hd_conn_try_send_copy(c, line, (size_t)n));
    if (log != NULL)
        hd_file_write(log, hd_str_n(line, (size_t)n), true);
}

static const hd_protocol_t protocol = {.name = "echo", .on_conn = on_conn};
static uint16_t protocol_number;

__attribute__((constructor)) static void register_protocol(void)
{
    protocol_number = hd_protocol_register(&protocol);
}

static hd_rc_t need(hd_conf_t *cf, const hd_listener_t *l, const echo_t *e, hd_err_t *err)
{
    hd_socket_spec_t spec = l->socket;

    spec.bind = l->addr;
    if (hd_build_need_listen(cf, &spec, err) != HD_OK)
        return HD_ERROR;
    return e->log.len > 0 ? hd_build_need_log(cf, e->log, err) : HD_OK;
}

static hd_rc_t set_listen(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_slot_t *slot;
    hd_conf_t inner;
    hd_listener_t *l;
    hd_filter_chain_t *chain;
    echo_t *e;
    hd_rc_t rc;

    (void)conf;
    if (hd_str_eq(args[1], HD_STR("die-at-reload")))
        raise(SIGKILL);
    slot = hd_slot_find_or_add(cf->arena, HD_RES_LISTENER, args[0], err);
    if (slot == NULL ||
        hd_conf_begin_resource(cf, HD_RES_LISTENER, args[0], &inner, err) != HD_OK)
        return HD_ERROR;
    l = hd_pool_new(inner.pool, hd_listener_t);
    chain = hd_pool_new(inner.pool, hd_filter_chain_t);
    e = hd_pool_new(inner.pool, echo_t);
    l->name = hd_str_dup(inner.pool, args[0]);
    if (hd_addr_parse(inner.pool, args[0], 0, &l->addr, err) != HD_OK)
        return HD_ERROR;
    l->socket =
        (hd_socket_spec_t){.type = SOCK_STREAM,
                           .listen = true,
                           .reuseport = hd_str_has_prefix(args[1], HD_STR("own"))};
    l->bind = true;
    l->default_chain = chain;
    chain->protocol = protocol_number;
    chain->protocol_conf = e;
    e->text = hd_str_dup(inner.pool, args[1]);
    if (cf->node->args_n > 2)
        e->log = hd_conf_path(&inner, args[2], false);
    if (need(cf, l, e, err) != HD_OK)
        return HD_ERROR;
    rc = hd_batch_put(cf->batch, slot, inner.region, l, 0, err);
    return rc == HD_DONE ? HD_OK : rc;
}

static const hd_directive_t directives[] = {
    {.name = "echo_listen",
     .scope = HD_IN_MAIN,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = set_listen,
     .help = "ADDRESS TEXT [LOG]: greets with the process id and TEXT"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "echo",
    .directives = directives,
};
