/* The loop: timers in order and lazily re-armed, posts, flushes, rings, and no event of a
 * closed descriptor for who comes after it. */
#include "core/net/hd_loop.h"
#include "tap.h"
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t fake_ns = 1000000000;
static hd_loop_t *loop;
static hd_err_t err;

static uint64_t fake_clock(void)
{
    return fake_ns;
}

static void pass_ms(uint64_t ms)
{
    fake_ns += ms * 1000000;
    hd_loop_turn(loop, 0);
}

/* --- timers --- */

#define TIMERS 500

static struct {
    hd_timer_t timer;
    uint64_t want_ms;
} timers[TIMERS];
static uint64_t last_at_ms, due_n, out_of_order;

static void on_one_due(hd_timer_t *t)
{
    uint64_t i = (uint64_t)((char *)t - (char *)timers) / sizeof(timers[0]);

    due_n++;
    out_of_order += timers[i].want_ms < last_at_ms;
    last_at_ms = timers[i].want_ms;
}

static uint64_t random_below(uint64_t n)
{
    static uint64_t state = 88172645463325252u; /* xorshift64: the same each run */

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % n;
}

static void test_timers_in_order(void)
{
    uint64_t stopped = 0;

    for (int i = 0; i < TIMERS; i++) {
        hd_timer_init(&timers[i].timer, on_one_due);
        timers[i].want_ms = 1 + random_below(1000);
        hd_timer_set(loop, &timers[i].timer, timers[i].want_ms);
    }
    for (int i = 0; i < TIMERS; i += 3) { /* later and earlier */
        timers[i].want_ms = 1 + random_below(1000);
        hd_timer_set(loop, &timers[i].timer, timers[i].want_ms);
    }
    for (int i = 0; i < TIMERS; i += 7, stopped++) {
        hd_timer_stop(loop, &timers[i].timer);
        out_of_order += hd_timer_is_set(&timers[i].timer);
    }
    pass_ms(2000);
    is_int(due_n, TIMERS - stopped, "all that weren't stopped came due");
    is_int(out_of_order, 0, "in order of their times");
}

static int due_count;
static hd_timer_t other;

static void count_due(hd_timer_t *t)
{
    (void)t;
    due_count++;
}

static void test_lazy_rearm(void)
{
    hd_timer_t t;

    due_count = 0;
    hd_timer_init(&t, count_due);
    hd_timer_set(loop, &t, 100);
    for (int i = 0; i < 10; i++) {
        pass_ms(50);
        hd_timer_set(loop, &t, 100);
    }
    is_int(due_count, 0, "a timer pushed on isn't due at its old times");
    pass_ms(99);
    is_int(due_count, 0, "nor early");
    pass_ms(1);
    is_int(due_count, 1, "but at its last one, once");
    hd_timer_set(loop, &t, 100);
    hd_timer_set(loop, &t, 10);
    pass_ms(10);
    is_int(due_count, 2, "moved earlier");
    pass_ms(1000);
    is_int(due_count, 2, "and not at the later time again");
    hd_timer_set(loop, &t, UINT64_MAX);
    ok(hd_timer_is_set(&t), "a time beyond the clock's end is a time");
    hd_timer_stop(loop, &t);
    hd_timer_stop(loop, &t);
}

static void set_again(hd_timer_t *t)
{
    due_count++;
    hd_timer_set(loop, t, 0);
}

static void stop_other(hd_timer_t *t)
{
    (void)t;
    hd_timer_stop(loop, &other);
}

static void test_timers_in_callbacks(void)
{
    hd_timer_t t;

    due_count = 0;
    hd_timer_init(&t, set_again);
    hd_timer_set(loop, &t, 0);
    pass_ms(1);
    is_int(due_count, 1, "a timer that sets itself with 0 ms waits for the next turn");
    hd_timer_stop(loop, &t);

    due_count = 0;
    hd_timer_init(&t, stop_other);
    hd_timer_init(&other, count_due);
    hd_timer_set(loop, &t, 1);
    hd_timer_set(loop, &other, 2);
    pass_ms(5);
    is_int(due_count, 0,
           "a due timer that another one stops in the same turn stays quiet");
}

/* --- posts --- */

static char order[64];
static hd_post_t post_a, post_b, flush_a;

static void note(const char *what)
{
    strncat(order, what, sizeof(order) - strlen(order) - 1);
}

static void on_a(hd_post_t *p)
{
    (void)p;
    note("a");
    hd_post(loop, &post_b);
}

static void on_b(hd_post_t *p)
{
    (void)p;
    note("b");
}

static void on_flush(hd_post_t *p)
{
    (void)p;
    note("F");
}

static void on_timer_note(hd_timer_t *t)
{
    (void)t;
    note("t");
}

static hd_timer_t timer_t_;
static int again_n;

static void on_again(hd_post_t *p)
{
    again_n++;
    hd_post(loop, p);
}

static void test_posts(void)
{
    hd_post_t again;

    hd_post_init(&post_a, on_a);
    hd_post_init(&post_b, on_b);
    hd_post_init(&flush_a, on_flush);
    hd_timer_init(&timer_t_, on_timer_note);
    hd_loop_flush_later(loop, &flush_a);
    hd_post(loop, &post_a);
    hd_post(loop, &post_a);
    hd_timer_set(loop, &timer_t_, 1);
    pass_ms(1);
    is_str(order, "tabF", "timers, posts and what they post, flushes; each once");
    order[0] = '\0';
    hd_post(loop, &post_a);
    hd_post_cancel(&post_a);
    hd_post_cancel(&post_a);
    hd_loop_turn(loop, 0);
    is_str(order, "", "cancelled");
    hd_post(loop, &post_b);
    hd_loop_turn(loop, -1);
    is_str(order, "b", "a post keeps the loop from waiting");

    hd_post_init(&again, on_again);
    hd_post(loop, &again);
    hd_loop_turn(loop, 0);
    is_int(again_n, HD_LOOP_POSTED_MAX,
           "one that posts itself doesn't hold the turn for ever");
    hd_loop_turn(loop, 0);
    is_int(again_n, 2 * HD_LOOP_POSTED_MAX, "and goes on in the next");
    hd_post_cancel(&again);
}

/* --- descriptors --- */

static hd_watch_t one, two, fresh;
static int one_n, two_n, fresh_n, fresh_fd, fresh_peer, two_fd;
static unsigned fresh_events;

static void on_fresh(hd_watch_t *w, unsigned events)
{
    (void)w;
    fresh_n++;
    fresh_events |= events;
}

/* Whoever comes first closes the other and makes a new pair in its place. */
static void replace(hd_watch_t *victim, int *victim_fd)
{
    int sv[2];
    uint32_t index = victim->_index;

    *victim_fd = victim->fd;
    hd_watch_close(loop, victim);
    hd_ignore(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) != 0);
    fresh_fd = sv[0];
    fresh_peer = sv[1];
    ok(hd_watch_start(loop, &fresh, fresh_fd, on_fresh, &err) == HD_OK, "a new watch");
    is_int(fresh_fd, *victim_fd, "on the same descriptor");
    is_int(fresh._index, index, "and in the same place of the table");
}

static void on_one(hd_watch_t *w, unsigned events)
{
    (void)w;
    (void)events;
    one_n++;
    replace(&two, &two_fd);
}

static void on_two(hd_watch_t *w, unsigned events)
{
    (void)w;
    (void)events;
    two_n++;
    replace(&one, &two_fd);
}

static void test_stale_events(void)
{
    int a[2], b[2];

    hd_ignore(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a) != 0);
    hd_ignore(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b) != 0);
    ok(hd_watch_start(loop, &one, a[0], on_one, &err) == HD_OK &&
       hd_watch_start(loop, &two, b[0], on_two, &err) == HD_OK);
    ok(write(a[1], "x", 1) == 1 && write(b[1], "x", 1) == 1,
       "both are ready in one batch");
    hd_loop_turn(loop, 0);
    is_int(one_n + two_n, 1, "the second's event, already fetched, reaches nobody");
    is_int(fresh_n, 0, "least of all the new watch");
    hd_loop_turn(loop, 0);
    ok(fresh_n == 1 && fresh_events == HD_EV_WRITE,
       "which hears of itself in the next turn");
    hd_loop_turn(loop, 0);
    is_int(fresh_n, 1, "once: edge-triggered");
    ok(write(fresh_peer, "x", 1) == 1);
    hd_loop_turn(loop, 0);
    ok(fresh_n == 2 && (fresh_events & HD_EV_READ), "without being re-armed");
    close(fresh_peer);
    hd_loop_turn(loop, 0);
    ok(fresh_n == 3 && (fresh_events & HD_EV_HUP), "the peer's end");
    hd_watch_stop(loop, &fresh);
    hd_watch_stop(loop, &fresh);
    hd_watch_close(loop, &fresh);
    hd_watch_close(loop, one.fd >= 0 ? &one : &two);
    close(a[1]);
    close(b[1]);
}

static void on_nothing(hd_watch_t *w, unsigned events)
{
    (void)w;
    (void)events;
}

static void test_limits(void)
{
    hd_loop_t *small = hd_loop_create(NULL, 2, &err);
    hd_watch_t w[3];
    int sv[2];

    hd_ignore(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0);
    for (int i = 0; i < 3; i++)
        hd_watch_init(&w[i]);
    hd_err_clear(&err);
    ok(hd_watch_start(small, &w[0], sv[0], on_nothing, &err) == HD_OK);
    ok(hd_watch_start(small, &w[1], sv[0], on_nothing, &err) == HD_ERROR &&
           err.sys_errno == EEXIST,
       "epoll's refusal is told");
    hd_err_clear(&err);
    ok(hd_watch_start(small, &w[1], sv[1], on_nothing, &err) == HD_OK,
       "and has not used up a place");
    ok(hd_watch_start(small, &w[2], STDIN_FILENO, on_nothing, &err) == HD_ERROR &&
           err.code == HD_E_LIMIT,
       "a full table is an error: %s", err.text);
    hd_err_clear(&err);
    hd_watch_close(small, &w[0]);
    hd_watch_close(small, &w[1]);
    hd_loop_destroy(small);
}

/* --- rings and the end --- */

static int rings_n;

static void on_ring(void *arg)
{
    rings_n++;
    hd_loop_stop(arg);
}

static void test_ring(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    hd_loop_stats_t stats;
    uint64_t n = 1;

    ok(hd_loop_set_ring(loop, fd, on_ring, loop, &err) == HD_OK);
    ok(write(fd, &n, 8) == 8 && write(fd, &n, 8) == 8);
    hd_loop_run(loop);
    is_int(rings_n, 1, "two rings before a turn are one");
    ok(write(fd, &n, 8) == 8);
    hd_loop_run(loop);
    is_int(rings_n, 2, "and the next one rings again");
    hd_loop_take_stats(loop, &stats);
    ok(stats.turns > 0 && stats.events > 0 && stats.posted > 0 && stats.timers_due > 0);
    close(fd);
}

/* --- shares of a turn --- */

static struct {
    hd_post_t post;
    unsigned runs, told_before;
} greedy;
static unsigned told;

static void on_greedy(hd_post_t *p)
{
    greedy.runs++;
    greedy.told_before = told;
    if (greedy.runs < 5)
        hd_post_next(loop, p);
}

static void on_told(hd_watch_t *w, unsigned events)
{
    (void)w;
    (void)events;
    told++;
}

/* Who has more to do than his share comes again behind what is ready by then. */
static void test_next_turn(void)
{
    hd_watch_t w;
    int fd = eventfd(0, EFD_NONBLOCK);

    hd_watch_init(&w);
    hd_ignore(hd_watch_start(loop, &w, fd, on_told, &err) != HD_OK);
    hd_loop_turn(loop, 0);
    hd_post_init(&greedy.post, on_greedy);
    hd_post(loop, &greedy.post);
    hd_loop_turn(loop, 0);
    is_int(greedy.runs, 1, "once in a turn, though he posts himself for the next");
    told = 0;
    hd_ignore(eventfd_write(fd, 1) != 0);
    hd_loop_turn(loop, -1);
    ok(greedy.runs == 2 && greedy.told_before == 1,
       "the next turn doesn't wait, and what is ready goes first");
    hd_post(loop, &greedy.post);
    hd_loop_turn(loop, 0);
    is_int(greedy.runs, 3, "posted already: once");
    hd_post_cancel(&greedy.post);
    hd_loop_turn(loop, 0);
    is_int(greedy.runs, 3, "taken back");
    hd_watch_close(loop, &w);
}

#define MANY_TIMERS 10000

static hd_timer_t many[MANY_TIMERS];
static unsigned many_due;

static void on_many(hd_timer_t *t)
{
    (void)t;
    many_due++;
}

/* Many timers at once are several turns' work, and none of these waits. */
static void test_many_timers(void)
{
    unsigned turns = 0, most = 0;

    for (int i = 0; i < MANY_TIMERS; i++) {
        hd_timer_init(&many[i], on_many);
        hd_timer_set(loop, &many[i], 10);
    }
    fake_ns += 10 * 1000000;
    while (many_due < MANY_TIMERS) {
        unsigned before = many_due;

        hd_loop_turn(loop, -1);
        most = (unsigned)hd_max(most, many_due - before);
        turns++;
    }
    ok(turns > 1 && most <= HD_LOOP_TIMERS_MAX, "%d at once: %u turns, %u at most",
       MANY_TIMERS, turns, most);
}

#define MANY_READY 1200 /* more than one wait fetches */

static unsigned ready_of[MANY_READY], ready_n;
static hd_watch_t ready_watches[MANY_READY];

static void on_many_ready(hd_watch_t *w, unsigned events)
{
    (void)events;
    ready_n += ready_of[w - ready_watches]++ == 0;
}

/* All that are ready at once have had their turn before one of them has a second one. */
static void test_many_ready(void)
{
    hd_loop_t *l = hd_loop_create(NULL, MANY_READY, &err);
    struct rlimit limit;
    unsigned turns = 0, twice = 0;
    int n = 0;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = hd_min(limit.rlim_max, (rlim_t)MANY_READY + 100);
    hd_ignore(setrlimit(RLIMIT_NOFILE, &limit) != 0); /* else fewer will do */
    for (; n < MANY_READY; n++) {
        int fd = eventfd(1, EFD_NONBLOCK);

        hd_watch_init(&ready_watches[n]);
        if (fd < 0 ||
            hd_watch_start(l, &ready_watches[n], fd, on_many_ready, &err) != HD_OK)
            break;
    }
    while (ready_n < (unsigned)n) {
        for (int i = 0; i < n; i++) /* all go on to be ready */
            hd_ignore(eventfd_write(ready_watches[i].fd, 1) != 0);
        hd_loop_turn(l, -1);
        turns++;
    }
    for (int i = 0; i < n; i++)
        twice += ready_of[i] > turns;
    ok(n > 512 && twice == 0 && turns <= (unsigned)n / 512 + 1,
       "%d are ready all the time: each was told within %u turns", n, turns);
    for (int i = 0; i < n; i++)
        hd_watch_close(l, &ready_watches[i]);
    hd_loop_destroy(l);
}

int main(void)
{
    loop = hd_loop_create(NULL, 1000, &err);
    ok(loop != NULL && hd_loop_now_ns(loop) > 0 && hd_loop_wall_ns(loop) > 0);
    hd_loop_set_clock(loop, fake_clock);
    test_timers_in_order();
    test_lazy_rearm();
    test_timers_in_callbacks();
    test_posts();
    test_stale_events();
    test_limits();
    test_ring();
    test_next_turn();
    test_many_timers();
    test_many_ready();
    hd_loop_destroy(loop);
    return done_testing();
}
