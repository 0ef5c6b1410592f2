/* What is learnt of upstreams' idle time-outs (hd_peer_idle.h). */
#include "http/hd_peer_idle.h"
#include "tap.h"

static void test_closes(void)
{
    ok(hd_peer_idle_usable(1, false) == UINT32_MAX && hd_peer_idle_keep(1) == UINT32_MAX,
       "unknown: used at any age");
    ok(hd_peer_idle_usable(1, true) > 0 && hd_peer_idle_usable(1, true) < 1000,
       "but at a small one by what can't be repeated");
    hd_peer_idle_closed(1, 5000);
    ok(hd_peer_idle_usable(1, false) < 5000 && hd_peer_idle_usable(1, false) >= 4000,
       "closed after 5 s: used until shortly before");
    ok(hd_peer_idle_keep(1) > 5000, "and watched for longer");
    ok(hd_peer_idle_usable(1 + 1024, false) == UINT32_MAX, "nothing is said of another");
}

static void test_soon(void)
{
    hd_peer_idle_closed(2, 0);
    ok(hd_peer_idle_usable(2, false) == UINT32_MAX,
       "closed with its answer: that is no time-out");
    ok(hd_peer_idle_usable(2, true) == 0, "but enough against what can't be repeated");
}

static void test_open(void)
{
    hd_peer_idle_open(3, 10000);
    ok(hd_peer_idle_usable(3, true) >= 9000 && hd_peer_idle_usable(3, true) < 10000,
       "one was open after 10 s: nearly so long by what can't be repeated");
}

static void test_doubts(void)
{
    hd_peer_idle_closed(4, 20);
    for (int i = 0; i < 3; i++)
        hd_peer_idle_open(4, 30000);
    ok(hd_peer_idle_usable(4, false) < 20, "few that last longer change nothing");
    hd_peer_idle_closed(4, 25);
    for (int i = 0; i < 15; i++)
        hd_peer_idle_open(4, 30000);
    ok(hd_peer_idle_usable(4, false) < 20, "nor many that aren't in a row");
    hd_peer_idle_open(4, 30000);
    ok(hd_peer_idle_usable(4, false) > 20000 && hd_peer_idle_usable(4, true) > 20000,
       "many in a row do");
    hd_peer_idle_closed(6, 1);
    for (int i = 0; i < 9999; i++)
        hd_peer_idle_open(6, 0);
    ok(hd_peer_idle_usable(6, true) == 0, "closed with its answer: thousands must last");
    hd_peer_idle_open(6, 0);
    ok(hd_peer_idle_usable(6, true) > 100, "then that's forgotten");
}

static void test_told(void)
{
    hd_peer_idle_told(5, 4000);
    ok(hd_peer_idle_usable(5, false) < 4000 && hd_peer_idle_keep(5) == 4000,
       "what it says of itself");
    hd_peer_idle_closed(5, 1000);
    ok(hd_peer_idle_usable(5, false) < 1000, "what it does is believed more");
    hd_peer_idle_told(5, 500);
    ok(hd_peer_idle_usable(5, false) < 500, "a new word takes the place of the old");
}

int main(void)
{
    test_closes();
    test_soon();
    test_open();
    test_doubts();
    test_told();
    return done_testing();
}
