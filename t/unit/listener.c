/* Listeners in a loom: accept, listener filters, hand-over, transport's choice, refresh,
 * removal, and what happens when descriptors run out. */
#include "core/net/hd_listener.h"
#include "core/loom/hd_batch.h"
#include "core/os/hd_clock.h"
#include "nettest.h"
#include <signal.h>
#include <sys/resource.h>

static hd_loop_t *loop;
static hd_err_t err;
static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *writer, *reader;
static hd_acceptor_t *acceptor;

static uint64_t extra_ns;
static uint64_t shifted_clock(void)
{
    return hd_clock_mono_ns() + extra_ns;
}

/* --- a protocol that notes what it gets --- */

static owner_t o;
static hd_conn_t *last;
static char last_chain[64];
static const hd_slot_t *last_slot;
static int conns_n;

static void on_conn(hd_conn_t *c, const hd_entrance_t *in)
{
    conns_n++;
    last = c;
    last_slot = in->listener;
    snprintf(last_chain, sizeof(last_chain), "%.*s", HD_STR_ARG(in->chain->name));
    hd_conn_set_handler(c, &owner_handler, &o);
}

static const hd_protocol_t note_protocol = {.name = "note", .on_conn = on_conn};
static const hd_protocol_t other_protocol = {.name = "other", .on_conn = on_conn};
static uint16_t note, other;

static void forget(void)
{
    if (last != NULL)
        hd_conn_close(last, 0);
    last = NULL;
    last_chain[0] = '\0';
    memset(&o, 0, sizeof(o));
    o.read_all = true;
    turn_some(loop);
}

/* --- building --- */

#define MATCH_MAX 4

typedef struct {
    const char *name;
    hd_listener_t head; /* chains by the fields below */
    hd_filter_chain_t chains[MATCH_MAX];
    bool no_default;
} plan_t;

static hd_slot_t *publish(const plan_t *plan)
{
    hd_batch_t *b = hd_batch_begin(arena);
    hd_str_t name = hd_str_c(plan->name);
    hd_slot_t *slot = hd_slot_find_or_add(arena, HD_RES_LISTENER, name, &err);
    hd_pool_t *pool;
    hd_region_t *r =
        hd_batch_region(b, HD_RES_LISTENER, name, HD_STR("test:1"), 0, &pool, &err);
    hd_listener_t *l = hd_pool_new(pool, hd_listener_t);
    hd_filter_chain_t *chains = hd_pool_new_n(pool, hd_filter_chain_t, MATCH_MAX + 1);

    *l = plan->head;
    l->name = hd_str_dup(pool, name);
    l->chains = chains;
    for (; l->chains_n < MATCH_MAX && plan->chains[l->chains_n].name.len > 0;
         l->chains_n++) {
        hd_filter_chain_t *ch = &chains[l->chains_n];

        *ch = plan->chains[l->chains_n];
        ch->name = hd_str_dup(pool, ch->name);
        ch->match.transport = hd_str_dup(pool, ch->match.transport);
        if (ch->protocol == 0)
            ch->protocol = note;
        if (ch->match.app_protocols_n > 0) {
            hd_str_t *app = hd_pool_new(pool, hd_str_t);

            *app = hd_str_dup(pool, ch->match.app_protocols[0]);
            ch->match.app_protocols = app;
        }
    }
    if (!plan->no_default) {
        chains[MATCH_MAX].name = hd_str_dup(pool, HD_STR("default"));
        chains[MATCH_MAX].protocol = note;
        l->default_chain = &chains[MATCH_MAX];
    }
    ok(hd_batch_put(b, slot, r, l, 0, &err) == HD_OK, "%s is published", plan->name);
    hd_batch_publish(b, 0);
    return slot;
}

static void remove_slot(hd_slot_t *slot)
{
    hd_batch_t *b = hd_batch_begin(arena);

    hd_batch_remove(b, slot);
    hd_batch_publish(b, 0);
}

static void refresh(hd_post_t *p)
{
    (void)p;
    hd_acceptor_refresh(acceptor);
}

/* In a turn, as a ring would. */
static void refresh_now(void)
{
    hd_post_t p;

    hd_post_init(&p, refresh);
    hd_post(loop, &p);
    hd_loop_turn(loop, 0);
}

static int connect_to(const hd_addr_t *to)
{
    struct sockaddr_storage ss;
    socklen_t len = hd_addr_to_sockaddr(to, &ss);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&ss, len) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool is_ended(int fd)
{
    char b;

    wait_readable(fd);
    return recv(fd, &b, 1, 0) <= 0;
}

static plan_t plan_at(const char *name, const hd_addr_t *addr)
{
    return (plan_t){.name = name, .head = {.addr = *addr, .bind = true}};
}

/* --- tests --- */

static void test_accept(void)
{
    hd_addr_t at, remote;
    struct sockaddr_in in;
    socklen_t len = sizeof(in);
    int l = tcp_listen(&at), fd;
    plan_t plan = plan_at("plain", &at);
    hd_slot_t *slot;

    hd_acceptor_add_fd(acceptor, &at, SOCK_STREAM, l, false);
    fd = connect_to(&at);
    turn_some(loop);
    is_int(conns_n, 0, "a socket that came before its listener waits");
    slot = publish(&plan);
    refresh_now();
    turn_until(loop, conns_n == 1);
    getsockname(fd, (struct sockaddr *)&in, &len);
    hd_addr_from_sockaddr((struct sockaddr *)&in, len, &remote);
    ok(hd_addr_eq(&last->remote, &remote) && hd_addr_eq(hd_conn_local(last), &at),
       "both addresses are known");
    ok(strcmp(last_chain, "default") == 0 && last_slot == slot && last->protocol == note);
    ok(send(fd, "hello", 5, 0) == 5);
    turn_until(loop, o.got == 5);
    is_str(o.text, "hello");
    ok(hd_blocks_in_use() == 0 && last->pool == NULL, "nothing was allocated for it");

    hd_turn_begin(reader);
    ok(hd_listener_refresh(last, slot) != NULL, "its chain is still there");
    hd_turn_sleep(reader);
    plan.chains[0] = (hd_filter_chain_t){.name = HD_STR_INIT("new"), .protocol = other};
    ok(publish(&plan) == slot);
    hd_turn_begin(reader);
    ok(hd_listener_refresh(last, slot) == NULL,
       "nor once another protocol stands there: its settings are of another type");
    hd_turn_sleep(reader);

    remove_slot(slot);
    refresh_now();
    hd_turn_begin(reader);
    ok(hd_listener_refresh(last, slot) == NULL, "a removed listener drains its conns");
    hd_turn_sleep(reader);
    is_int(connect_to(&at), -1, "and its socket is closed");
    close(fd);
    forget();
}

static void test_no_chain(void)
{
    hd_addr_t at;
    int l = tcp_listen(&at), fd;
    plan_t plan = plan_at("strict", &at);
    uint64_t before = hd_listener_stats.no_chain;

    plan.no_default = true;
    plan.chains[0] = (hd_filter_chain_t){.name = HD_STR_INIT("tls"),
                                         .match.transport = HD_STR_INIT("tls")};
    hd_acceptor_add_fd(acceptor, &at, SOCK_STREAM, l, true);
    conns_n = 0;
    publish(&plan);
    refresh_now();
    fd = connect_to(&at);
    turn_until(loop, hd_listener_stats.no_chain > before);
    turn_some(loop);
    ok(is_ended(fd) && conns_n == 0, "no filter chain: closed (flag NR)");
    close(fd);
}

static hd_addr_t filtered_at; /* one listener with all of them, below */

static void send_in_pieces(int fd, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        hd_ignore(send(fd, bytes + i, 1, 0) != 1);
        hd_loop_turn(loop, 0);
    }
}

static void test_inspectors(void)
{
    static const hd_str_t app = HD_STR_INIT("h2c");
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const char head[] = "PROXY TCP4 9.8.7.6 5.4.3.2 1000 2000\r\n";
    plan_t plan;
    int l = tcp_listen(&filtered_at), fd;
    uint64_t failed = hd_listener_stats.filter_failed;

    plan = plan_at("filtered", &filtered_at);
    plan.head.filters = HD_LF_PROXY_PROTOCOL | HD_LF_TLS_INSPECTOR | HD_LF_HTTP_INSPECTOR;
    plan.head.filters_timeout_ms = 15000;
    plan.head.continue_on_timeout = true;
    plan.chains[0] = (hd_filter_chain_t){.name = HD_STR_INIT("tls"),
                                         .match.transport = HD_STR_INIT("tls")};
    plan.chains[1] =
        (hd_filter_chain_t){.name = HD_STR_INIT("h2c"),
                            .match = {.app_protocols = &app, .app_protocols_n = 1}};
    conns_n = 0;
    hd_acceptor_add_fd(acceptor, &filtered_at, SOCK_STREAM, l, false);
    publish(&plan);
    refresh_now();

    fd = connect_to(&filtered_at);
    send_in_pieces(fd, head, sizeof(head) - 1);
    turn_some(loop);
    is_int(conns_n, 0, "the head alone: the inspectors wait");
    send_in_pieces(fd, preface, sizeof(preface) - 1);
    turn_until(loop, conns_n == 1);
    is_str(last_chain, "h2c", "by its first bytes, one at a time");
    turn_until(loop, o.got >= sizeof(preface) - 1);
    is_str(o.text, preface, "which the protocol reads, without the PROXY head");
    ok(hd_conn_remote(last)->port == 1000 && hd_conn_local(last)->port == 2000 &&
           last->remote.port != 1000,
       "announced addresses are what policies see; the socket's stay known");
    close(fd);
    forget();

    fd = connect_to(&filtered_at);
    ok(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0) == 18);
    turn_until(loop, hd_listener_stats.filter_failed > failed);
    turn_some(loop);
    ok(is_ended(fd) && conns_n == 1, "GW-16: no PROXY head: closed");
    close(fd);

    fd = connect_to(&filtered_at);
    ok(send(fd, "PROXY TCP4 x\r\n", 14, 0) == 14);
    turn_until(loop, hd_listener_stats.filter_failed > failed + 1);
    turn_some(loop);
    ok(is_ended(fd) && conns_n == 1, "a broken one: closed");
    close(fd);

    fd = connect_to(&filtered_at);
    ok(send(fd, "PROXY", 5, 0) == 5);
    turn_some(loop);
    close(fd);
    turn_until(loop, hd_listener_stats.filter_failed > failed + 2);
    turn_some(loop);
    is_int(hd_conns_open(loop), 0, "a client that leaves meanwhile leaves nothing");

    fd = connect_to(&filtered_at);
    ok(send(fd, "PROXY UNKNOWN\r\n\x16\x03\x01", 18, 0) == 18);
    turn_some(loop);
    is_int(conns_n, 1, "half a ClientHello: it waits");
    ok(send(fd, "\xff\xff", 2, 0) == 2);
    turn_until(loop, conns_n == 2);
    is_str(last_chain, "default", "a broken one is no TLS");
    close(fd);
    forget();
}

static void test_filters_timeout(void)
{
    uint64_t before = hd_listener_stats.filter_timeouts;
    int fd = connect_to(&filtered_at), fd2 = connect_to(&filtered_at);

    conns_n = 0;
    ok(send(fd, "PROXY UNKNOWN\r\n", 15, 0) == 15);
    ok(send(fd2, "PROXY", 5, 0) == 5);
    turn_until(loop, hd_conns_open(loop) == 2);
    turn_some(loop);
    extra_ns += 14000000000u;
    hd_loop_turn(loop, 0);
    is_int(hd_listener_stats.filter_timeouts, before);
    extra_ns += 2000000000u;
    hd_loop_turn(loop, 0);
    turn_some(loop);
    is_int(hd_listener_stats.filter_timeouts, before + 2);
    ok(conns_n == 1 && strcmp(last_chain, "default") == 0,
       "a server-first protocol: it goes on with what is known");
    ok(is_ended(fd2), "but never without the PROXY head");
    close(fd);
    close(fd2);
    forget();
}

static void test_hand_over(void)
{
    hd_addr_t any = {.family = AF_INET, .port = 9999}, exact = any, elsewhere = any;
    plan_t wild = plan_at("0.0.0.0_9999", &any), one, from;
    hd_conn_t *ends[2];
    hd_slot_t *in;
    uint64_t off_n;

    hd_ignore(!hd_addr_parse_ip(HD_STR("10.1.1.1"), &exact));
    exact.port = 9999;
    hd_ignore(!hd_addr_parse_ip(HD_STR("10.2.2.2"), &elsewhere));
    one = plan_at("10.1.1.1_9999", &exact);
    wild.head.bind = one.head.bind = false;
    from = plan_at("virtual", &elsewhere);
    from.head.bind = false;
    from.head.use_original_dst = true;
    from.head.filters = HD_LF_HTTP_INSPECTOR;
    from.head.filters_off = &(const hd_filters_off_t){
        .from = 1, .to = 65536, .filters = HD_LF_HTTP_INSPECTOR};
    from.chains[0] = (hd_filter_chain_t){.name = HD_STR_INIT("own")};
    one.chains[0] = (hd_filter_chain_t){.name = HD_STR_INIT("exact")};
    wild.chains[0] = (hd_filter_chain_t){.name = HD_STR_INIT("wild")};
    off_n = from.head.filters_off_n;
    in = publish(&from);
    publish(&wild);
    publish(&one);
    refresh_now();

    for (int i = 0; i < 4; i++) {
        static const char *const to[] = {"10.1.1.1", "10.3.3.3", "10.3.3.3", "10.1.1.1"};
        static const uint16_t port[] = {9999, 9999, 80, 80};
        static const char *const want[] = {"exact", "wild", "own", "own"};
        hd_addr_t dst;

        ok(hd_conn_create_pipe(loop, ends, &err) == HD_OK);
        hd_ignore(!hd_addr_parse_ip(hd_str_c(to[i]), &dst));
        dst.port = port[i];
        hd_conn_facts(ends[0])->original_dst = dst;
        hd_turn_begin(reader);
        hd_listener_enter(ends[0], in);
        hd_turn_sleep(reader);
        if (i >= 2) { /* its own chains, behind its own filters */
            ok(hd_conn_try_send_copy(ends[1], "x\n", 2));
            turn_until(loop, last != NULL);
        }
        is_str(last_chain, want[i], "%s:%u", to[i], port[i]);
        hd_conn_close(ends[1], 0);
        forget();
    }
    is_int(off_n, 0);
}

/* filter_disabled of istiod's virtualInbound: no waiting at ports of server-first
 * protocols. */
static void test_filters_off(void)
{
    static hd_filters_off_t off = {
        .from = 3306, .to = 3307, .filters = HD_LF_TLS_INSPECTOR};
    hd_addr_t at = {.family = AF_INET, .port = 15006}, dst = {.family = AF_INET};
    plan_t plan = plan_at("inbound", &at);
    hd_conn_t *ends[2];
    hd_slot_t *slot;

    plan.head.bind = false;
    plan.head.filters = HD_LF_TLS_INSPECTOR;
    plan.head.filters_off = &off;
    plan.head.filters_off_n = 1;
    slot = publish(&plan);
    for (uint16_t port = 3306; port <= 3307; port++) {
        ok(hd_conn_create_pipe(loop, ends, &err) == HD_OK);
        dst.port = port;
        hd_conn_facts(ends[0])->original_dst = dst;
        hd_turn_begin(reader);
        hd_listener_enter(ends[0], slot);
        hd_turn_sleep(reader);
        ok((last != NULL) == (port == 3306), "port %u", port);
        hd_conn_close(ends[1], 0); /* ends the other, too, where it waits */
        turn_some(loop);
        forget();
    }
}

/* --- L4 filters --- */

static hd_conn_t *asking;
static hd_rc_t verdict;
static uint32_t asked_from;

static hd_rc_t run_filters(hd_conn_t *c, const hd_filter_chain_t *chain, uint32_t from)
{
    (void)chain;
    asking = c;
    asked_from = from;
    return verdict;
}

static void test_network_filters(void)
{
    static const hd_net_filter_t two[2];
    hd_addr_t at = {.family = AF_INET, .port = 1};
    plan_t plan = plan_at("filters", &at);
    hd_conn_t *ends[2];
    hd_slot_t *slot;

    plan.head.bind = false;
    plan.chains[0] =
        (hd_filter_chain_t){.name = HD_STR_INIT("two"), .filters = two, .filters_n = 2};
    slot = publish(&plan);
    hd_listener_run_filters = run_filters;
    for (int i = 0; i < 4; i++) {
        bool leaves = i == 3;

        verdict = i == 0 ? HD_OK : i == 1 ? HD_ERROR : HD_AGAIN;
        ok(hd_conn_create_pipe(loop, ends, &err) == HD_OK);
        hd_turn_begin(reader);
        hd_listener_enter(ends[0], slot);
        if (i >= 2) {
            ok(last == NULL && asking == ends[0], "one that waits holds the conn");
            if (leaves) {
                hd_turn_sleep(reader);
                hd_conn_reset(ends[1]);
                turn_some(loop);
                is_int(hd_conns_open(loop), 1, "even when its peer is gone");
                hd_turn_begin(reader);
            }
            verdict = HD_OK;
            hd_listener_go_on(asking, 1);
        }
        hd_turn_sleep(reader);
        ok((last != NULL) == (i == 0 || i == 2), "%d", i);
        if (i == 2)
            is_int(asked_from, 1, "and goes on behind itself");
        if (!leaves)
            hd_conn_close(ends[1], 0);
        turn_some(loop);
        forget();
        is_int(hd_conns_open(loop), 0);
    }
    hd_listener_run_filters = NULL;
}

/* --- shortage --- */

static void test_shortage(void)
{
    struct rlimit old, low;
    hd_addr_t at;
    int l = tcp_listen(&at), clients[8], spare[64], n = 0;
    plan_t plan = plan_at("short", &at);
    uint64_t pauses;

    hd_acceptor_add_fd(acceptor, &at, SOCK_STREAM, l, false);
    publish(&plan);
    refresh_now();
    conns_n = 0;
    for (int i = 0; i < 8; i++)
        clients[i] = connect_to(&at);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)clients[7] + 20;
    setrlimit(RLIMIT_NOFILE, &low);
    while (n < 64 && (spare[n] = dup(0)) >= 0)
        n++;
    close(spare[--n]); /* room for one */
    pauses = hd_listener_stats.pauses;
    hd_loop_turn(loop, 0);
    turn_some(loop);
    ok(conns_n == 1 && hd_listener_stats.pauses == pauses + 1,
       "EMFILE: accept pauses, and doesn't spin");
    refresh_now();
    turn_some(loop);
    is_int(hd_listener_stats.pauses, pauses + 1,
           "a batch meanwhile doesn't end the pause");
    extra_ns += 300000000;
    hd_loop_turn(loop, 0);
    turn_some(loop);
    ok(conns_n == 1 && hd_listener_stats.pauses == pauses + 2, "it tries again later");
    while (n > 0)
        close(spare[--n]);
    setrlimit(RLIMIT_NOFILE, &old);
    extra_ns += 300000000;
    turn_until(loop, conns_n == 8);
    pass("and goes on where it stopped: nobody was lost");
    for (int i = 0; i < 8; i++)
        close(clients[i]);
}

static void test_stop(void)
{
    hd_addr_t at;
    int l = tcp_listen(&at), fd;
    plan_t plan = plan_at("last", &at);

    hd_acceptor_add_fd(acceptor, &at, SOCK_STREAM, l, false);
    publish(&plan);
    refresh_now();
    turn_some(loop);
    conns_n = 0;
    fd = connect_to(&at);
    hd_turn_begin(reader);
    hd_acceptor_stop(acceptor);
    hd_turn_sleep(reader);
    ok(fd >= 0 && conns_n == 1, "who waited in the queue is served");
    is_int(connect_to(&at), -1, "and nobody comes after");
    close(fd);
}

static void setup(void)
{
    hd_state_conf_t conf = {.regions_max = 1024,
                            .gauges_max = 64,
                            .series_max = 64,
                            .cells_bytes = 1 << 20,
                            .labels_bytes = 1 << 20};
    hd_arena_conf_t arena_conf = {.bytes_max = 64 << 20, .secret_bytes_max = 1 << 20};

    note = hd_protocol_register(&note_protocol);
    other = hd_protocol_register(&other_protocol);
    ok(hd_protocol_find(HD_STR("other")) == other &&
       hd_protocol_find(HD_STR("none")) == 0 && hd_protocol_get(0) == NULL &&
       hd_protocol_get(99) == NULL && hd_protocol_get(note) == &note_protocol);
    state = hd_state_create(&conf, &err);
    arena = hd_arena_create(HD_ARENA_FILES, &arena_conf, state, &err);
    writer = hd_member_start(state, -1, HD_MEMBER_LOADER, &err);
    reader = hd_member_start(state, -1, HD_MEMBER_WORKER, &err);
    if (hd_arena_open_writer(arena, writer, &err) != HD_OK ||
        hd_arena_open_reader(arena, reader, &err) != HD_OK) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    loop = hd_loop_create(reader, 1000, &err);
    hd_loop_set_clock(loop, shifted_clock);
    acceptor = hd_acceptor_create(loop, 500);
    hd_acceptor_add_arena(acceptor, arena);
}

int main(void)
{
    alarm(HANG_S);
    setup();
    forget();
    test_accept();
    test_no_chain();
    test_inspectors();
    test_filters_timeout();
    test_hand_over();
    test_filters_off();
    test_network_filters();
    test_shortage();
    forget();
    test_stop();
    forget();
    hd_acceptor_destroy(acceptor);
    hd_loop_destroy(loop);
    is_int(hd_blocks_in_use(), 0);
    hd_member_stop(reader);
    hd_member_stop(writer);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
    return done_testing();
}
