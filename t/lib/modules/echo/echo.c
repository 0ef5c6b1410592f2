/* echo: a protocol and its listeners, for tests of processes: no http needed.
 *
 *     echo_listen ADDRESS TEXT [LOG];
 *     echo_agent ADDRESS TEXT;           the same, but made by the agent, as xDS would be
 *     echo_low_port ADDRESS;             the agent asks the master for that socket
 *     echo_cold FILE;                    the agent isn't warm before it has published and
 *                                        there is such a file
 *     echo_worker die;                   workers kill themselves at their start
 *     echo_worker refuse;                or can't start
 *
 * A conn is greeted with "PID TEXT\n" and gets back what it sends, with TEXT as in force
 * when it was accepted; each greeting is a line in LOG. A line "segv" is answered by a
 * crash, "env NAME" by that variable before it comes back; TEXT die-at-reload kills the loader, TEXT own… asks for SO_REUSEPORT. */
#include "hd_module.h"
#include "core/proc/hd_process.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    hd_str_t text, log;
} echo_t;

typedef struct {
    hd_str_t agent_address, agent_text, low_port, cold, worker;
} main_conf_t;

/* Of "env NAME\n". */
static void tell_env(hd_conn_t *c, char *bytes, size_t n)
{
    const char *value;
    char line[300];
    int len;

    bytes[n - 1] = '\0';
    value = getenv(bytes + 4);
    len = snprintf(line, sizeof(line), "%.200s\n", value != NULL ? value : "(none)");
    hd_ignore(!hd_conn_try_send_copy(c, line, (size_t)len));
    bytes[n - 1] = '\n';
}

static void on_readable(hd_conn_t *c)
{
    char bytes[256];
    ssize_t n;

    while (c->is_readable && (n = hd_conn_read(c, bytes, sizeof(bytes))) > 0) {
        if (n >= 4 && memcmp(bytes, "segv", 4) == 0)
            raise(SIGSEGV);
        if (n > 5 && memcmp(bytes, "env ", 4) == 0)
            tell_env(c, bytes, (size_t)n);
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

static void on_conn(hd_conn_t *c, const hd_entrance_t *in)
{
    const echo_t *e = in->chain->protocol_conf;
    hd_file_t *log = e->log.len > 0 ? hd_file_get(e->log) : NULL;
    char line[512];
    int n = snprintf(line, sizeof(line), "%d %.*s\n", (int)getpid(), HD_STR_ARG(e->text));

    hd_conn_set_handler(c, &handler, NULL);
    hd_ignore(!hd_conn_try_send_copy(c, line, (size_t)n));
    if (log != NULL)
        hd_file_write(log, hd_str_n(line, (size_t)n), true);
}

static const hd_protocol_t protocol = {.name = "echo", .on_conn = on_conn};
static uint16_t protocol_number;

extern const hd_module_t hd_module;

/* The resource itself, in <pool>. */
static hd_rc_t build(hd_pool_t *pool, hd_str_t address, hd_str_t text, hd_str_t log,
                     hd_listener_t **listener, hd_err_t *err)
{
    hd_listener_t *l = hd_pool_new(pool, hd_listener_t);
    hd_filter_chain_t *chain = hd_pool_new(pool, hd_filter_chain_t);
    echo_t *e = hd_pool_new(pool, echo_t);

    l->name = hd_str_dup(pool, address);
    l->socket = (hd_socket_spec_t){.type = SOCK_STREAM,
                                   .listen = true,
                                   .reuseport = hd_str_has_prefix(text, HD_STR("own"))};
    l->bind = true;
    l->default_chain = chain;
    chain->protocol = protocol_number;
    chain->protocol_conf = e;
    e->text = hd_str_dup(pool, text);
    e->log = log;
    *listener = l;
    if (hd_addr_parse(pool, address, 0, &l->addr, err) != HD_OK)
        return HD_ERROR;
    l->socket.bind = l->addr;
    return HD_OK;
}

static hd_rc_t set_listen(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t log = HD_STR_NONE;
    hd_slot_t *slot;
    hd_conf_t inner;
    hd_listener_t *l;
    hd_rc_t rc;

    (void)conf;
    if (hd_str_eq(args[1], HD_STR("die-at-reload")))
        raise(SIGKILL);
    slot = hd_slot_find_or_add(cf->arena, HD_RES_LISTENER, args[0], err);
    if (slot == NULL ||
        hd_conf_begin_resource(cf, HD_RES_LISTENER, args[0], &inner, err) != HD_OK)
        return HD_ERROR;
    if (cf->node->args_n > 2)
        log = hd_conf_path(&inner, args[2], false);
    if (build(inner.pool, args[0], args[1], log, &l, err) != HD_OK ||
        hd_build_need_listen(cf, &l->socket, err) != HD_OK ||
        (log.len > 0 && hd_build_need_log(cf, log, err) != HD_OK))
        return HD_ERROR;
    rc = hd_batch_put(cf->batch, slot, inner.region, l, 0, err);
    return rc == HD_DONE ? HD_OK : rc;
}

/* --- the agent's part --- */

static hd_rc_t set_agent(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    main_conf_t *mc = conf;

    (void)err;
    mc->agent_address = hd_str_dup(cf->pool, args[0]);
    mc->agent_text = hd_str_dup(cf->pool, args[1]);
    cf->build->settings->has_agent = true;
    return HD_OK;
}

static hd_rc_t set_low_port(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    main_conf_t *mc = conf;

    (void)err;
    mc->low_port = hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

static hd_rc_t set_main_str(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    hd_str_t *to = (hd_str_t *)((char *)conf + cf->directive->offset);

    (void)err;
    *to = hd_str_printf(cf->pool, "%.*s", HD_STR_ARG(args[0])); /* zero-terminated */
    return HD_OK;
}

static main_conf_t agent_conf; /* in the agent */
static bool has_published;
static hd_socket_spec_t agent_spec;
static hd_pool_t *agent_pool;
static hd_socket_wait_t low_wait;

static void publish(hd_proc_t *p)
{
    hd_arena_t *a = p->arenas[HD_ARENA_DYNAMIC];
    hd_batch_t *b = hd_batch_begin(a);
    hd_err_t err = {0};
    hd_listener_t *l;
    hd_pool_t *pool;
    hd_region_t *r;
    hd_slot_t *slot;

    slot = hd_slot_find_or_add(a, HD_RES_LISTENER, HD_STR("agent's"), &err);
    r = hd_batch_region(b, HD_RES_LISTENER, HD_STR("agent's"), HD_STR("agent"), 0, &pool,
                        &err);
    if (slot == NULL || r == NULL ||
        build(pool, agent_conf.agent_address, agent_conf.agent_text, HD_STR_NONE, &l,
              &err) != HD_OK ||
        hd_batch_put(b, slot, r, l, 0, &err) == HD_ERROR) {
        hd_log(HD_LOG_ALERT, "%s", err.text);
        hd_batch_abort(b);
        return;
    }
    hd_ignore(hd_batch_publish(b, hd_loop_now_ns(p->loop)));
    hd_process_ring(p);
    hd_log(HD_LOG_NOTICE, "the agent has published");
    has_published = true;
}

static void on_prepared(void *arg, const hd_err_t *err)
{
    if (err != NULL)
        hd_log(HD_LOG_NOTICE, "the agent was refused: %s", err->text);
    else
        publish(arg);
}

static void on_low_port(hd_socket_wait_t *w, int fd, const hd_err_t *err)
{
    (void)w;
    hd_log(HD_LOG_NOTICE, "the broker gave %s", fd >= 0 ? "a socket" : err->text);
    if (fd >= 0)
        hd_ignore(close(fd));
}

static void ask_low_port(hd_proc_t *p)
{
    hd_socket_spec_t spec = {.type = SOCK_STREAM, .listen = true};
    hd_err_t err = {0};
    int fd;

    if (hd_addr_parse(agent_pool, agent_conf.low_port, 0, &spec.bind, &err) != HD_OK)
        return;
    low_wait.on_socket = on_low_port;
    if (hd_socket_open(p->loop, &spec, &fd, &low_wait, &err) != HD_AGAIN)
        hd_log(HD_LOG_NOTICE, "the broker wasn't asked: %s", err.text);
}

static hd_rc_t on_agent_start(hd_proc_t *p, hd_err_t *err)
{
    hd_listener_t *l;

    hd_turn_begin(p->member);
    agent_pool = hd_pool_create(0);
    agent_conf = *(const main_conf_t *)hd_conf_main_of(p->member, &hd_module);
    agent_conf.agent_address = hd_str_dup(agent_pool, agent_conf.agent_address);
    agent_conf.agent_text = hd_str_dup(agent_pool, agent_conf.agent_text);
    agent_conf.low_port = hd_str_dup(agent_pool, agent_conf.low_port);
    agent_conf.cold = hd_str_printf(agent_pool, "%.*s", HD_STR_ARG(agent_conf.cold));
    hd_turn_sleep(p->member);
    if (agent_conf.agent_address.len == 0)
        return HD_OK; /* master_process off, and no echo_agent */
    if (build(agent_pool, agent_conf.agent_address, agent_conf.agent_text, HD_STR_NONE,
              &l, err) != HD_OK)
        return HD_ERROR;
    agent_spec = l->socket;
    hd_process_prepare(p, &agent_spec, 1, NULL, 0, on_prepared, p);
    if (agent_conf.low_port.len > 0)
        ask_low_port(p);
    return HD_OK;
}

static bool is_agent_warm(hd_proc_t *p)
{
    (void)p;
    return agent_conf.cold.len == 0 ||
           (has_published && access(agent_conf.cold.data, F_OK) == 0);
}

static void on_agent_stop(hd_proc_t *p)
{
    (void)p;
    if (agent_pool != NULL)
        hd_pool_destroy(agent_pool);
}

static const hd_process_hooks_t hooks = {.name = "echo",
                                         .kinds = 1u << HD_PROC_AGENT,
                                         .on_start = on_agent_start,
                                         .is_warm = is_agent_warm,
                                         .on_stop = on_agent_stop};

__attribute__((constructor)) static void register_parts(void)
{
    protocol_number = hd_protocol_register(&protocol);
    hd_process_add_hooks(&hooks);
}

static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    const main_conf_t *mc = hd_conf_main_of(m, &hd_module);

    (void)loop;
    if (mc == NULL || hd_member_kind(m) != HD_MEMBER_WORKER)
        return HD_OK;
    if (hd_str_eq(mc->worker, HD_STR("die")))
        raise(SIGKILL);
    if (hd_str_eq(mc->worker, HD_STR("refuse")))
        return hd_err_set(err, HD_E_CONF, "as told");
    return HD_OK;
}

static const hd_directive_t directives[] = {
    {.name = "echo_listen",
     .scope = HD_IN_MAIN,
     .args_n = 2,
     .args_max = 3,
     .repeats = true,
     .set = set_listen,
     .help = "ADDRESS TEXT [LOG]: greets with the process id and TEXT"},
    {.name = "echo_agent",
     .scope = HD_IN_MAIN,
     .args_n = 2,
     .set = set_agent,
     .help = "ADDRESS TEXT: the same, published by the agent"},
    {.name = "echo_low_port",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_low_port,
     .help = "ADDRESS: a socket that the agent asks the master for"},
    {.name = "echo_cold",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_main_str,
     .offset = offsetof(main_conf_t, cold),
     .help = "FILE: the agent isn't warm without it"},
    {.name = "echo_worker",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = set_main_str,
     .offset = offsetof(main_conf_t, worker),
     .help = "die | refuse: what workers do at their start"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "echo",
    .directives = directives,
    .conf_size = sizeof(main_conf_t),
    .on_process_start = on_process_start,
};
