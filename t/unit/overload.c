/* What pressure makes of the share of new work that is refused. */
#include "core/net/hd_overload.h"
#include "t/lib/tap.h"
#include <stdio.h>

#define MB ((uint64_t)1 << 20)

static void test_memory(void)
{
    static const hd_overload_conf_t conf = {
        .memory_bytes = 100 * MB, .save_percent = 80, .refuse_percent = 95};
    static const struct {
        hd_memory_level_t was;
        uint64_t mb;
        hd_memory_level_t is;
    } table[] = {
        {HD_MEMORY_CALM, 0, HD_MEMORY_CALM},
        {HD_MEMORY_CALM, 79, HD_MEMORY_CALM},
        {HD_MEMORY_CALM, 80, HD_MEMORY_SAVING},
        {HD_MEMORY_CALM, 94, HD_MEMORY_SAVING},
        {HD_MEMORY_CALM, 95, HD_MEMORY_REFUSING},
        {HD_MEMORY_CALM, 300, HD_MEMORY_REFUSING},
        {HD_MEMORY_SAVING, 76, HD_MEMORY_SAVING},
        {HD_MEMORY_SAVING, 75, HD_MEMORY_SAVING},
        {HD_MEMORY_SAVING, 74, HD_MEMORY_CALM},
        {HD_MEMORY_SAVING, 94, HD_MEMORY_SAVING},
        {HD_MEMORY_SAVING, 95, HD_MEMORY_REFUSING},
        {HD_MEMORY_REFUSING, 94, HD_MEMORY_REFUSING},
        {HD_MEMORY_REFUSING, 90, HD_MEMORY_REFUSING},
        {HD_MEMORY_REFUSING, 89, HD_MEMORY_SAVING},
        {HD_MEMORY_REFUSING, 75, HD_MEMORY_SAVING},
        {HD_MEMORY_REFUSING, 74, HD_MEMORY_CALM},
        {HD_MEMORY_REFUSING, 0, HD_MEMORY_CALM},
    };
    hd_overload_conf_t edge = conf;

    for (size_t i = 0; i < hd_countof(table); i++)
        ok(hd_overload_memory(&conf, table[i].was, table[i].mb * MB) == table[i].is,
           "memory: from level %d, %u MB of 100", table[i].was, (unsigned)table[i].mb);
    edge.save_percent = 1;
    ok(hd_overload_memory(&edge, HD_MEMORY_SAVING, 1) == HD_MEMORY_SAVING,
       "a threshold of a few percent is never left, rather than missed");
    edge = (hd_overload_conf_t){
        .memory_bytes = UINT64_MAX, .save_percent = 100, .refuse_percent = 100};
    ok(hd_overload_memory(&edge, HD_MEMORY_CALM, UINT64_MAX / 2) == HD_MEMORY_CALM,
       "no product runs over");
}

/* Windows of one pressure after another, and the share behind each. */
static void test_lag(void)
{
    static const struct {
        const char *what;
        hd_lag_control_t from;
        struct {
            uint64_t pressure;
            uint32_t share;
        } windows[6];
        uint32_t n;
    } table[] = {
        {"below the limit", {0}, {{0, 0}, {999, 0}, {1000, 0}}, 3},
        {"one slow turn is an accident", {0}, {{50000, 0}, {0, 0}, {50000, 0}, {900, 0}}, 4},
        {"the second begins", {0}, {{2000, 0}, {2000, 100}, {2000, 200}, {1500, 250}}, 4},
        {"a step has its size", {0}, {{9000, 0}, {9000, 200}, {90000000, 400}}, 3},
        {"just above, slowly", {0}, {{1001, 0}, {1001, 10}, {1001, 20}}, 3},
        {"some go through", {.share = 900, .over_windows = 2}, {{5000, 950}, {5000, 950}}, 2},
        {"between well and over it stays",
         {.share = 400},
         {{1000, 400}, {800, 400}, {900, 400}},
         3},
        {"well below it shrinks", {.share = 400}, {{799, 350}, {0, 307}, {0, 269}}, 3},
        {"and ends", {.share = 25}, {{0, 15}, {0, 5}, {0, 0}, {0, 0}}, 4},
        {"while it is on, one window is enough", {.share = 100}, {{2000, 200}, {500, 175}}, 2},
    };

    for (size_t i = 0; i < hd_countof(table); i++) {
        hd_lag_control_t lag = table[i].from;
        bool good = true;

        for (uint32_t w = 0; w < table[i].n; w++) {
            hd_overload_lag(&lag, table[i].windows[w].pressure);
            if (lag.share != table[i].windows[w].share) {
                printf("# window %u: %u\n", w, lag.share);
                good = false;
            }
        }
        ok(good, "lag: %s", table[i].what);
    }
}

/* A server that answers so much of its load in time: does the share settle where the rest
 * is refused? */
static void test_settles(void)
{
    hd_lag_control_t lag = {0};
    uint64_t most = 0, least = UINT64_MAX;

    for (int i = 0; i < 200; i++) {
        uint64_t pressure = 3000 * (HD_OVERLOAD_ALL - lag.share) / HD_OVERLOAD_ALL;

        hd_overload_lag(&lag, pressure);
        if (i > 100) {
            most = hd_max(most, pressure);
            least = hd_min(least, pressure);
        }
    }
    ok(most <= 1300 && least >= 700, "three times the load: the lag stays near its limit "
                                     "(%u to %u thousandths)",
       (unsigned)least, (unsigned)most);
    for (int i = 0; i < 200; i++)
        hd_overload_lag(&lag, 300);
    ok(lag.share == 0, "and when the load is gone all is taken");
}

/* What it is without limits, and what a process's size is. */
static void test_process(void)
{
    hd_err_t err = {0};
    hd_loop_t *loop = hd_loop_create(NULL, 16, &err);

    hd_overload_set(loop, NULL, 0);
    ok(!hd_overload_refuses() && hd_overload_now.share == 0, "no limits: all is taken");
    hd_overload_stop();
    hd_loop_destroy(loop);
}

int main(void)
{
    test_memory();
    test_lag();
    test_settles();
    test_process();
    return done_testing();
}
