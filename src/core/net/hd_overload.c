#include "core/net/hd_overload.h"
#include "core/base/hd_buf.h"
#include "core/base/hd_log.h"
#include "core/base/hd_spare.h"
#include "core/loom/hd_series.h"
#include "core/net/hd_conn.h"
#include "core/net/hd_loop_int.h"
#include "core/os/hd_os.h"
#include <stdio.h>
#include <unistd.h>

#define WINDOW_NS ((uint64_t)HD_OVERLOAD_WINDOW_MS * 1000000)
#define TELL_NS 10000000000u /* lines of one kind begin at most so often */
#define TRIM_NS 1000000000u  /* the heap is asked for its free pages at most so often */
#define SOON_PART 64         /* blocks for so much of the limit: the size is read at once */

#define CALM_POINTS 5 /* percent points below a threshold at which its level ends */
/* Of the limit, thousandths. */
#define LAG_OVER 1000
#define LAG_WELL 800
/* Steps of the share, each window. */
#define SHARE_MAX 950  /* some go through, by which one sees whether it is over */
#define SHARE_STEP 100 /* for each limit above the limit */
#define SHARE_STEP_MAX 200
#define SHARE_BACK_PART 8
#define SHARE_BACK_MIN 10

hd_overload_now_t hd_overload_now;

/* --- the controller --- */

static uint64_t part_of(uint64_t limit, uint32_t percent)
{
    return limit / 100 * percent + limit % 100 * percent / 100;
}

static bool is_beyond(const hd_overload_conf_t *conf, uint32_t percent, bool was,
                      uint64_t bytes)
{
    if (was)
        percent = percent > CALM_POINTS ? percent - CALM_POINTS : 0;
    return bytes >= part_of(conf->memory_bytes, percent);
}

hd_memory_level_t hd_overload_memory(const hd_overload_conf_t *conf,
                                     hd_memory_level_t was, uint64_t bytes)
{
    if (is_beyond(conf, conf->refuse_percent, was == HD_MEMORY_REFUSING, bytes))
        return HD_MEMORY_REFUSING;
    return is_beyond(conf, conf->save_percent, was != HD_MEMORY_CALM, bytes)
               ? HD_MEMORY_SAVING
               : HD_MEMORY_CALM;
}

void hd_overload_lag(hd_lag_control_t *lag, uint64_t pressure)
{
    if (pressure > LAG_OVER) {
        uint64_t step = (pressure - LAG_OVER) * SHARE_STEP / LAG_OVER;

        if (lag->over_windows++ == 0 && lag->share == 0)
            return;
        lag->over_windows = 2;
        step = hd_min(hd_max(step, (uint64_t)SHARE_BACK_MIN), (uint64_t)SHARE_STEP_MAX);
        lag->share = (uint32_t)hd_min(lag->share + step, (uint64_t)SHARE_MAX);
        return;
    }
    lag->over_windows = 0;
    if (pressure < LAG_WELL)
        lag->share -= hd_min(
            lag->share, hd_max(lag->share / SHARE_BACK_PART, (uint32_t)SHARE_BACK_MIN));
}

/* --- what is told --- */

typedef enum { TELL_SAVING, TELL_REFUSING, TELL_LAG, TELLS } tell_t;
enum { BY_MEMORY, BY_LAG, REASONS };

static struct {
    hd_loop_t *loop; /* NULL: nothing is watched */
    hd_member_t *member;
    hd_overload_conf_t conf;
    hd_timer_t tick; /* set while there is pressure: ends it where nothing else happens */

    hd_memory_level_t level;
    uint64_t memory_bytes, read_ns;
    size_t blocks;    /* in use when it was read */
    uint64_t trim_ns; /* not before */
    int statm;        /* -1: not open */

    hd_lag_control_t lag;
    uint64_t window_ns;   /* its start */
    uint64_t lag_ns;      /* the longest of the window */
    uint64_t seen_lag_ns; /* of the one before */
    uint64_t behind_ns;   /* full turns so far: what they left has waited so long */

    struct {
        uint64_t told_ns; /* 0: never */
        uint64_t refused; /* since it began */
        bool is_on, is_told;
    } tells[TELLS];
    hd_series_t shed[REASONS], shedding[REASONS], pressure[REASONS], closed;
    uint64_t random;
} o = {.statm = -1};

static const char *const reason_labels[] = {"reason", NULL};
static const char *const pressure_labels[] = {"resource", "worker", NULL};

static const hd_family_t families[] = {
    {.name = "heddle_overload_shed_total",
     .help = "Requests and sessions that were refused, by the limit that was met.",
     .kind = HD_COUNTER,
     .labels = reason_labels},
    {.name = "heddle_overload_shedding",
     .help = "Workers that refuse now.",
     .kind = HD_SERIES_GAUGE,
     .labels = reason_labels},
    {.name = "heddle_overload_pressure_percent",
     .help = "What a worker uses of overload_memory, or its lag of overload_lag.",
     .kind = HD_SERIES_GAUGE,
     .labels = pressure_labels},
    {.name = "heddle_overload_closed_total",
     .help = "Idle connections that were closed to save memory.",
     .kind = HD_COUNTER},
};

static void enter_series(uint32_t worker_no)
{
    static const hd_str_t names[REASONS] = {HD_STR_INIT("memory"), HD_STR_INIT("lag")};
    char no[HD_U64_DIGITS_MAX];
    hd_family_id_t ids[hd_countof(families)];

    for (size_t i = 0; i < hd_countof(families); i++)
        ids[i] = hd_family_enter(o.member, &families[i]);
    for (size_t i = 0; i < REASONS; i++) {
        hd_str_t values[] = {names[i], hd_str_from_u64(worker_no, no)};

        o.shed[i] = hd_series_enter(o.member, ids[0], values);
        o.shedding[i] = hd_series_enter(o.member, ids[1], values);
        o.pressure[i] = hd_series_enter(o.member, ids[2], values);
    }
    o.closed = hd_series_enter(o.member, ids[3], NULL);
}

static unsigned to_mb(uint64_t bytes)
{
    return (unsigned)((bytes + 524288) >> 20);
}

static void tell_begin(tell_t t)
{
    switch (t) {
    case TELL_SAVING:
        hd_log(HD_LOG_WARN,
               "overload: %u MB of memory, of %u MB: connections aren't kept",
               to_mb(o.memory_bytes), to_mb(o.conf.memory_bytes));
        break;
    case TELL_REFUSING:
        hd_log(HD_LOG_WARN, "overload: %u MB of memory, of %u MB: new work is refused",
               to_mb(o.memory_bytes), to_mb(o.conf.memory_bytes));
        break;
    default:
        hd_log(HD_LOG_WARN,
               "overload: events wait for %u ms, of %u ms: new work is refused in part",
               (unsigned)(o.seen_lag_ns / 1000000), (unsigned)o.conf.lag_ms);
    }
}

static void tell_end(tell_t t)
{
    if (t == TELL_LAG)
        hd_log(HD_LOG_NOTICE,
               "overload: events wait for %u ms: all is taken again, after %llu that "
               "were refused",
               (unsigned)(o.seen_lag_ns / 1000000), (unsigned long long)o.tells[t].refused);
    else if (t == TELL_REFUSING)
        hd_log(HD_LOG_NOTICE,
               "overload: %u MB of memory, of %u MB: new work is taken again, after %llu "
               "that were refused",
               to_mb(o.memory_bytes), to_mb(o.conf.memory_bytes),
               (unsigned long long)o.tells[t].refused);
    else
        hd_log(HD_LOG_NOTICE, "overload: %u MB of memory, of %u MB: connections are kept",
               to_mb(o.memory_bytes), to_mb(o.conf.memory_bytes));
}

/* One that comes and goes is told once in a while: its beginning and its end. */
static void tell(tell_t t, bool is_on, uint64_t now_ns)
{
    if (o.tells[t].is_on == is_on)
        return;
    o.tells[t].is_on = is_on;
    if (is_on) {
        o.tells[t].is_told =
            o.tells[t].told_ns == 0 || now_ns - o.tells[t].told_ns >= TELL_NS;
        if (!o.tells[t].is_told)
            return;
        o.tells[t].told_ns = now_ns;
        o.tells[t].refused = 0;
        tell_begin(t);
    } else if (o.tells[t].is_told) {
        tell_end(t);
    }
}

/* --- what follows --- */

bool hd_overload_refuses(void)
{
    int by = hd_overload_now.is_for_memory ? BY_MEMORY : BY_LAG;

    if (hd_overload_now.share == 0)
        return false;
    /* xorshift64 (Marsaglia) */
    o.random ^= o.random << 13;
    o.random ^= o.random >> 7;
    o.random ^= o.random << 17;
    if (o.random % HD_OVERLOAD_ALL >= hd_overload_now.share)
        return false;
    hd_counter_add(o.member, o.shed[by], 1);
    o.tells[by == BY_MEMORY ? TELL_REFUSING : TELL_LAG].refused++;
    return true;
}

static void set_pressure(int which, uint64_t part, uint64_t limit)
{
    hd_series_set(o.member, o.pressure[which], part * 100 / limit);
}

/* One turn more, so that pressure is seen to have gone where nothing else happens. */
static void tick_later(void)
{
    if (!hd_timer_is_set(&o.tick))
        hd_timer_set(o.loop, &o.tick, HD_OVERLOAD_WINDOW_MS);
}

/* What was measured is in force from now on. */
static void apply(uint64_t now_ns)
{
    bool refuses_all = o.level == HD_MEMORY_REFUSING;

    hd_overload_now.saves_memory = o.level != HD_MEMORY_CALM;
    hd_overload_now.is_for_memory = refuses_all;
    hd_overload_now.share = refuses_all ? HD_OVERLOAD_ALL : o.lag.share;
    hd_series_set(o.member, o.shedding[BY_MEMORY], refuses_all);
    hd_series_set(o.member, o.shedding[BY_LAG], o.lag.share > 0);
    tell(TELL_SAVING, hd_overload_now.saves_memory, now_ns);
    tell(TELL_REFUSING, refuses_all, now_ns);
    tell(TELL_LAG, o.lag.share > 0, now_ns);
    if (o.level != HD_MEMORY_CALM || o.lag.share > 0 ||
        (o.conf.lag_ms > 0 && o.seen_lag_ns * 100 >= o.conf.lag_ms * 1000000))
        tick_later();
}

/* Memory comes back from conns that idle and from what was kept for its next use. */
static void save_memory(void)
{
    uint64_t now_ns = hd_loop_now_ns(o.loop);

    hd_counter_add(o.member, o.closed, hd_conns_reuse(o.loop, HD_CONNS_REUSE_MAX));
    if (now_ns < o.trim_ns)
        return;
    o.trim_ns = now_ns + TRIM_NS;
    hd_ignore(hd_spares_trim() == 0);
    hd_blocks_trim(0);
    hd_os_heap_trim();
}

static void on_tick(hd_timer_t *t)
{
    (void)t; /* what the turn's end makes of it is the purpose */
    if (o.level != HD_MEMORY_CALM)
        save_memory();
}

/* --- what is measured --- */

/* What a full turn has left waits for the turns behind it, though not for longer than all
 * conns would take. */
static void measure_lag(uint64_t took_ns, bool is_full)
{
    uint64_t lag_ns = o.behind_ns + took_ns;
    uint64_t turns = hd_conns_open(o.loop) / HD_LOOP_EVENTS + 1;

    o.lag_ns = hd_max(o.lag_ns, lag_ns);
    o.behind_ns = is_full ? hd_min(lag_ns, took_ns * turns) : 0;
}

static void end_window(uint64_t now_ns)
{
    uint64_t limit_ns = o.conf.lag_ms * 1000000;
    bool is_first = now_ns - o.window_ns > 2 * WINDOW_NS + o.lag_ns; /* after a rest */

    o.window_ns = now_ns;
    o.seen_lag_ns = o.lag_ns;
    o.lag_ns = 0;
    if (limit_ns == 0)
        return;
    if (is_first)
        o.lag.over_windows = 0;
    hd_overload_lag(&o.lag, o.seen_lag_ns * 1000 / limit_ns);
    set_pressure(BY_LAG, o.seen_lag_ns, limit_ns);
}

/* At once, where much was taken since. */
static bool is_memory_due(uint64_t now_ns)
{
    size_t blocks = hd_blocks_in_use();

    if (o.conf.memory_bytes == 0)
        return false;
    return now_ns - o.read_ns >= WINDOW_NS ||
           (blocks > o.blocks &&
            (blocks - o.blocks) * HD_BLOCK_BYTES > o.conf.memory_bytes / SOON_PART);
}

static void measure_memory(uint64_t now_ns)
{
    size_t bytes = hd_os_private_bytes(o.statm);

    o.read_ns = now_ns;
    o.blocks = hd_blocks_in_use();
    if (bytes == 0)
        return; /* not told: as it was */
    o.memory_bytes = bytes;
    o.level = hd_overload_memory(&o.conf, o.level, bytes);
    set_pressure(BY_MEMORY, bytes, o.conf.memory_bytes);
}

static void on_turn(hd_loop_t *loop, uint64_t took_ns, bool is_full)
{
    uint64_t now_ns = hd_loop_now_ns(loop) + took_ns;
    bool ends_window = now_ns - o.window_ns >= WINDOW_NS;
    bool reads_memory = is_memory_due(now_ns);

    measure_lag(took_ns, is_full);
    if (!ends_window && !reads_memory)
        return;
    if (reads_memory)
        measure_memory(now_ns);
    if (ends_window)
        end_window(now_ns);
    apply(now_ns);
}

/* --- start, change, end --- */

static void rest(void)
{
    o.level = HD_MEMORY_CALM;
    o.lag = (hd_lag_control_t){0};
    o.lag_ns = o.seen_lag_ns = o.behind_ns = 0;
    o.read_ns = 0;
    o.window_ns = hd_loop_now_ns(o.loop);
}

void hd_overload_set(hd_loop_t *loop, const hd_overload_conf_t *conf, uint32_t worker_no)
{
    static const hd_overload_conf_t none;
    bool has_limits = conf != NULL && (conf->memory_bytes > 0 || conf->lag_ms > 0);

    if (!has_limits && o.loop == NULL)
        return;
    if (o.loop == NULL) {
        o.loop = loop;
        o.member = hd_loop_member(loop);
        hd_os_random(&o.random, sizeof(o.random));
        o.random |= 1; /* not 0 */
        hd_timer_init(&o.tick, on_tick);
        enter_series(worker_no);
        rest();
    }
    conf = has_limits ? conf : &none;
    if (conf->memory_bytes == 0)
        o.level = HD_MEMORY_CALM;
    if (conf->lag_ms == 0)
        o.lag = (hd_lag_control_t){0};
    o.conf = *conf;
    if (conf->memory_bytes > 0 && o.statm < 0) {
        o.statm = hd_os_open_statm();
        if (o.statm < 0)
            hd_log(HD_LOG_ERROR, "/proc/self/statm can't be read: overload_memory has no "
                                 "effect");
    }
    o.read_ns = 0;
    apply(hd_loop_now_ns(loop));
    loop->on_turn = has_limits ? on_turn : NULL;
}

void hd_overload_stop(void)
{
    if (o.loop == NULL)
        return;
    o.loop->on_turn = NULL;
    hd_timer_stop(o.loop, &o.tick);
    if (o.statm >= 0)
        hd_ignore(close(o.statm)); /* only read */
    o.statm = -1;
    o.loop = NULL;
    hd_overload_now = (hd_overload_now_t){0};
}
