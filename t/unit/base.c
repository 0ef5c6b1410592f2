/* core/base: strings, errors, logs, pools, lists, arrays, maps; core/os. */
#include "core/base/hd_array.h"
#include "core/base/hd_err.h"
#include "core/base/hd_list.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"
#include "core/base/hd_word.h"
#include "core/os/hd_clock.h"
#include "core/os/hd_os.h"
#include "tap.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_str(void)
{
    hd_str_t rest = HD_STR("a,,b,"), part;
    char seen[16] = "";
    uint64_t n = 7;
    int64_t i;

    ok(hd_str_eq(HD_STR_NONE, HD_STR("")), "unset equals empty");
    ok(hd_str_eq_nocase(HD_STR("HoSt"), HD_STR("hOsT")));
    ok(hd_str_is_lower(HD_STR("a.b-c:8080[@{")) && hd_str_is_lower(HD_STR_NONE) &&
       !hd_str_is_lower(HD_STR("shop.examplE")) && !hd_str_is_lower(HD_STR("A")) &&
       !hd_str_is_lower(HD_STR("longer.thaN.eight")));
    ok(!hd_str_eq_nocase(HD_STR("a["), HD_STR("a{")), "only letters fold");
    ok(hd_str_cmp(HD_STR("ab"), HD_STR("abc")) < 0 &&
       hd_str_cmp(HD_STR("b"), HD_STR("abc")) > 0 &&
       hd_str_cmp(HD_STR("a"), HD_STR("a")) == 0);
    ok(hd_str_has_prefix(HD_STR("/api/x"), HD_STR("/api")) &&
       !hd_str_has_prefix(HD_STR("/a"), HD_STR("/api")));
    ok(hd_str_has_suffix(HD_STR("a.b.c"), HD_STR(".c")) &&
       !hd_str_has_suffix(HD_STR("c"), HD_STR(".c")));
    ok(hd_str_has_prefix_nocase(HD_STR("Bearer x"), HD_STR("bearer ")));
    is_int(hd_str_find(HD_STR("abcabd"), HD_STR("abd")), 3, "find");
    is_int(hd_str_find(HD_STR("abc"), HD_STR("x")), -1, "find nothing");
    is_int(hd_str_find_char(HD_STR_NONE, 'x'), -1, "find in nothing");
    ok(hd_str_eq(hd_str_trim(HD_STR(" \t a b \t")), HD_STR("a b")), "trim");
    ok(hd_str_trim(HD_STR(" \t ")).len == 0, "trim to nothing");
    ok(hd_str_eq(hd_str_sub(HD_STR("abcdef"), 2, 3), HD_STR("cde")) &&
           hd_str_sub(HD_STR("abc"), 9, 1).len == 0 &&
           hd_str_sub(HD_STR("abc"), 1, SIZE_MAX).len == 2,
       "sub is cut to what there is");
    while (hd_str_split(&rest, ',', &part)) {
        strncat(seen, "<", 2);
        strncat(seen, part.data, part.len);
    }
    is_str(seen, "<a<<b<", "split: empty parts too");
    rest = HD_STR_NONE;
    ok(!hd_str_split(&rest, ',', &part), "nothing has no parts");
    rest = HD_STR("");
    ok(hd_str_split(&rest, ',', &part) && part.len == 0 &&
           !hd_str_split(&rest, ',', &part),
       "the empty string has one");
    ok(hd_str_to_u64(HD_STR("18446744073709551615"), UINT64_MAX, &n) && n == UINT64_MAX);
    ok(!hd_str_to_u64(HD_STR("18446744073709551616"), UINT64_MAX, &n), "overflow");
    ok(!hd_str_to_u64(HD_STR("101"), 100, &n), "beyond max");
    ok(!hd_str_to_u64(HD_STR(""), 1, &n) && !hd_str_to_u64(HD_STR("+1"), 9, &n) &&
           !hd_str_to_u64(HD_STR(" 1"), 9, &n) && !hd_str_to_u64(HD_STR("1a"), 9, &n) &&
           !hd_str_to_u64(HD_STR("-1"), UINT64_MAX, &n),
       "digits only");
    ok(hd_str_to_u64(HD_STR("0"), 0, &n) && n == 0);
    ok(hd_str_to_i64(HD_STR("-9223372036854775807"), &i) && i == -INT64_MAX);
    ok(hd_str_to_i64(HD_STR("7"), &i) && i == 7);
    ok(!hd_str_to_i64(HD_STR("-"), &i) && !hd_str_to_i64(HD_STR("--1"), &i) &&
           !hd_str_to_i64(HD_STR("9223372036854775808"), &i),
       "no signed number");
}

/* Every pair of bytes at every place of strings around the word's size. */
static bool folds_like_bytes(size_t len, size_t at)
{
    char a[24], b[24];

    memset(a, 'k', sizeof(a));
    memset(b, 'K', sizeof(b));
    for (int x = 0; x < 256; x++) {
        for (int y = 0; y < 256; y++) {
            a[at] = (char)x;
            b[at] = (char)y;
            if (hd_str_eq_nocase(hd_str_n(a, len), hd_str_n(b, len)) !=
                (hd_ascii_lower(a[at]) == hd_ascii_lower(b[at])))
                return false;
        }
    }
    return true;
}

static void test_words(void)
{
    static const size_t lens[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17};
    static const unsigned char around[] = {' ', '~', 'a', 0x80, 0xff};
    bool folds = true, finds = true;
    unsigned char w[8];

    for (size_t i = 0; i < hd_countof(lens); i++) {
        for (size_t at = 0; at < lens[i]; at++)
            folds = folds && folds_like_bytes(lens[i], at);
    }
    ok(folds, "eq_nocase is that of its bytes");
    for (size_t i = 0; i < hd_countof(around); i++) {
        memset(w, around[i], sizeof(w));
        for (size_t at = 0; at < 8; at++) {
            for (int c = 0; c < 256; c++) {
                w[at] = (unsigned char)c;
                finds =
                    finds && hd_word_find_control(w) == (c < 0x20 || c == 0x7f ? at : 8);
                if (at == 7)
                    continue;
                w[7] = '\r'; /* a later one takes nothing from it */
                finds =
                    finds && hd_word_find_control(w) == (c < 0x20 || c == 0x7f ? at : 7);
                w[7] = around[i];
            }
            w[at] = around[i];
        }
    }
    ok(finds, "controls are found at each place, and nothing else");
}

static void test_hash(void)
{
    static char text[64];
    uint32_t buckets[64] = {0}, worst = 0;
    bool all_lengths = true;

    for (size_t len = 0; len < 40; len++) { /* every byte of every length counts */
        memset(text, 'a', sizeof(text));
        for (size_t i = 0; i < len; i++) {
            uint64_t before = hd_hash64(text, len, 1);

            text[i] = 'b';
            all_lengths = all_lengths && hd_hash64(text, len, 1) != before;
            text[i] = 'a';
        }
        all_lengths = all_lengths && hd_hash64(text, len, 1) != hd_hash64(text, len, 2) &&
                      hd_hash64(text, len, 1) != hd_hash64(text, len + 1, 1);
    }
    ok(all_lengths, "a byte, the length and the seed change the hash");
    ok(hd_str_hash(HD_STR("abc")) == hd_str_hash(hd_str_c("abc")), "equal in a process");
    ok(hd_str_hash_nocase(HD_STR("X-Request-Id-And-More-Bytes")) ==
           hd_str_hash_nocase(HD_STR("x-request-id-and-more-bytes")),
       "case is folded");
    for (int i = 0; i < 6400; i++) {
        int n = snprintf(text, sizeof(text), "cluster-%d", i);

        buckets[hd_str_hash(hd_str_n(text, (size_t)n)) & 63]++;
    }
    for (size_t i = 0; i < 64; i++)
        worst = hd_max(worst, buckets[i]);
    ok(worst < 160, "low bits spread (fullest of 64 buckets: %u of 6400)", worst);
}

static void test_err(void)
{
    hd_err_t err = {0};

    is_int(hd_err_set(&err, HD_E_CONF, "unknown \"%s\"", "x"), HD_ERROR, "returns it");
    is_int(hd_err_set(&err, HD_E_TLS, "later"), HD_ERROR, "set again");
    is_str(err.text, "unknown \"x\"", "the first reason stays");
    hd_ignore(hd_err_prefix(&err, "%s:%d: ", "t.conf", 3));
    is_str(err.text, "t.conf:3: unknown \"x\"", "prefix");
    hd_err_clear(&err);
    hd_ignore(hd_err_set_sys(&err, ENOENT, "open \"%s\"", "f"));
    is_str(err.text, "open \"f\": No such file or directory", "errno's words");
    is_int(err.sys_errno, ENOENT, "and number");
    memset(err.text, 'a', sizeof(err.text) - 1);
    hd_ignore(hd_err_prefix(&err, "%0600d", 1));
    is_int(strlen(err.text), HD_ERR_TEXT_MAX - 1, "cut, not overrun");
    is_int(hd_err_set(NULL, HD_E_CONF, "x"), HD_ERROR, "nowhere to say it");
}

static int deferred_sum;

static void add_deferred(void *arg)
{
    deferred_sum = deferred_sum * 10 + (int)(intptr_t)arg;
}

static void test_pool(void)
{
    hd_pool_t *pool = hd_pool_create(0);
    char *first = hd_pool_alloc(pool, 10), *p;
    bool aligned = true, kept = true;
    hd_str_t s;

    for (size_t i = 1; i < 3000; i += 7) {
        p = hd_pool_alloc(pool, i);
        memset(p, (int)i, i);
        aligned = aligned && (uintptr_t)p % 16 == 0;
    }
    ok(aligned, "16-aligned");
    p = hd_pool_calloc(pool, 100000);
    for (size_t i = 0; i < 100000; i++)
        kept = kept && p[i] == 0;
    ok(kept, "calloc zeroes a large piece");
    ok(hd_pool_bytes(pool) > 100000);
    hd_pool_defer(pool, add_deferred, (void *)1);
    hd_pool_defer(pool, add_deferred, (void *)2);
    hd_pool_reset(pool);
    is_int(deferred_sum, 21, "deferred: last first");
    ok(hd_pool_alloc(pool, 10) == (void *)first, "reset keeps the first block");
    is_int(hd_pool_bytes(pool), 10, "bytes start anew");
    s = hd_str_printf(pool, "%s-%0300d", "x", 5);
    is_int(s.len, 302, "printf beyond its first guess");
    ok(s.data[301] == '5' && s.data[302] == '\0');
    is_str(hd_str_dup_lower(pool, HD_STR("AbZ1")).data, "abz1", "dup_lower");
    ok(!hd_pool_has_failed(pool));
    hd_pool_destroy(pool);
}

/* A source of 64 bytes: what doesn't fit lands in scratch memory. */
typedef struct {
    char room[64] __attribute__((aligned(16)));
    size_t at;
    int freed;
} tiny_t;

static void *tiny_take(void *owner, size_t bytes, size_t align)
{
    tiny_t *t = owner;
    size_t at = hd_align_up(t->at, align);

    if (at > sizeof(t->room) || sizeof(t->room) - at < bytes)
        return NULL;
    t->at = at + bytes;
    return t->room + at;
}

static void tiny_free(void *owner)
{
    ((tiny_t *)owner)->freed++;
}

static void test_pool_on_source(void)
{
    static const hd_pool_source_t source = {tiny_take, tiny_free};
    tiny_t tiny = {.at = 0};
    hd_pool_t *pool = hd_pool_create_on(&source, &tiny);
    char *a = hd_pool_alloc_unaligned(pool, 3), *b = hd_pool_alloc_unaligned(pool, 3);
    char *c = hd_pool_alloc(pool, 16), *d;

    ok(a == tiny.room && b == a + 3 && c == a + 16, "packed as asked for");
    hd_pool_defer(pool, add_deferred, (void *)3);
    is_int(tiny.at, 32, "deferring takes no room in the source");
    ok(!hd_pool_has_failed(pool));
    d = hd_pool_alloc(pool, 33);
    memset(d, 1, 33);
    ok(hd_pool_has_failed(pool) && (d < tiny.room || d >= tiny.room + 64),
       "full: marked failed, scratch memory instead");
    d = hd_pool_alloc(pool, 1);
    ok(d < tiny.room || d >= tiny.room + 64, "and so is the rest");
    hd_pool_destroy(pool);
    is_int(tiny.freed, 1, "the source is told");
}

static void test_list_and_array(void)
{
    struct item {
        int n;
        hd_link_t link;
    } items[4] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};
    hd_pool_t *pool = hd_pool_create(0);
    hd_link_t head;
    hd_array_t a;
    int seen = 0, *tight;

    hd_list_init(&head);
    for (int i = 1; i < 4; i++)
        hd_list_add_last(&head, &items[i].link);
    hd_list_add_first(&head, &items[0].link);
    hd_list_each(it, &head)
    {
        struct item *item = hd_list_entry(it, struct item, link);

        seen = seen * 10 + item->n + 1;
        if (item->n == 1)
            hd_list_remove(it);
    }
    is_int(seen, 1234, "each, removing the current one");
    hd_list_remove(&items[1].link);
    ok(head.next->next == &items[2].link, "removing twice is harmless");

    hd_array_init(&a, pool, sizeof(int), 20);
    ok(hd_array_copy(&a, pool) == NULL, "no items, no copy");
    for (int i = 0; i < 20; i++)
        *(int *)hd_array_add(&a) = i;
    ok(hd_array_add(&a) == NULL, "ceiling");
    tight = hd_array_copy(&a, pool);
    ok(tight[19] == 19 && *hd_array_at(&a, int, 7) == 7);
    hd_pool_destroy(pool);
}

static void test_map(void)
{
    static char keys[500][8];
    hd_map_t *map = hd_map_create();
    size_t at = 0, walked = 0;
    bool all = true;
    hd_str_t key;
    void *value;

    ok(hd_map_get(map, HD_STR("x")) == NULL && hd_map_remove(map, HD_STR("x")) == NULL,
       "an empty map");
    for (int i = 0; i < 500; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%d", i);
        all = all && hd_map_put(map, hd_str_c(keys[i]), keys[i]) == NULL;
    }
    for (int i = 0; i < 500; i++)
        all = all && hd_map_get(map, hd_str_c(keys[i])) == keys[i];
    ok(all && hd_map_count(map) == 500, "put and get");
    ok(hd_map_put(map, HD_STR("k7"), keys[8]) == keys[7] && hd_map_count(map) == 500,
       "put again gives the old one back");
    while (hd_map_next(map, &at, &key, &value)) {
        walked++;
        if (walked % 2 == 0)
            hd_map_remove(map, key);
    }
    ok(walked == 500 && hd_map_count(map) == 250, "walk, removing the current one");
    for (int round = 0; round < 2000; round++) { /* graves don't pile up */
        snprintf(keys[0], sizeof(keys[0]), "r%d", round);
        hd_map_put(map, hd_str_c(keys[0]), keys);
        all = all && hd_map_remove(map, hd_str_c(keys[0])) == keys;
    }
    ok(all && hd_map_count(map) == 250);
    hd_map_destroy(map);
}

static void read_log(char *out, size_t max, void (*fn)(void))
{
    int fds[2], saved = hd_log_fd();
    ssize_t n;

    if (pipe(fds) != 0)
        abort();
    hd_log_set_fd(fds[1]);
    fn();
    hd_log_set_fd(saved);
    close(fds[1]);
    n = read(fds[0], out, max - 1);
    out[n < 0 ? 0 : n] = '\0';
    close(fds[0]);
}

static void log_forged(void)
{
    hd_log_conn(HD_LOG_ERROR, 5, "path %s", "/a\n2026/11/23 forged\x1b");
    hd_log(HD_LOG_DEBUG, "not shown");
}

static void log_long(void)
{
    hd_log(HD_LOG_ERROR, "%05000d", 1);
}

static void test_log(void)
{
    char line[8192], want[200];
    hd_log_level_t level;

    setenv("TZ", "UTC", 1);
    hd_log_set_time(1795424000000000000 + 11);
    read_log(line, sizeof(line), log_forged);
    snprintf(want, sizeof(want),
             "2026/11/23 08:53:20 [error] %d#%d: *5 path /a\\x0A2026/11/23 forged\\x1B\n",
             getpid(), hd_os_tid());
    is_str(line, want, "nginx's form; nobody can forge a line");
    read_log(line, sizeof(line), log_long);
    ok(strlen(line) == 2048 && line[2047] == '\n', "a line has 2 KB at most");
    hd_log_set_time(0);
    ok(hd_log_parse_level(HD_STR("warn"), &level) && level == HD_LOG_WARN);
    ok(!hd_log_parse_level(HD_STR("loud"), &level));
}

static void test_os(void)
{
    size_t page = hd_os_page_bytes();
    int fd = hd_os_memfd("test", 64 * page), ro;
    unsigned char a[16], b[16];
    char *p, *q;
    pid_t pid;
    int status;

    ok(fd >= 0 && hd_os_file_bytes(fd) == 0, "a memfd is sparse");
    ro = hd_os_memfd_reopen_ro(fd);
    p = hd_os_map(fd, NULL, 64 * page, true);
    q = hd_os_map(ro, (void *)0x7e9000000000, 64 * page, false);
    ok(p != NULL && q == (void *)0x7e9000000000, "mapped twice");
    ok(hd_os_map(ro, q, page, false) == NULL && errno == EEXIST, "in the way");
    ok(mprotect(q, page, PROT_READ | PROT_WRITE) != 0, "a reader can't make it writable");
    is_int(hd_os_reserve(fd, page, 2 * page), 0, "reserve");
    is_int(hd_os_file_bytes(fd), 2 * page, "costs what is reserved");
    memcpy(p + page, "warp", 5);
    is_str(q + page, "warp", "one memory");
    is_int(hd_os_punch(fd, page, page), 0, "punch");
    ok(hd_os_file_bytes(fd) == page && q[page] == 0, "gone, and costs nothing");
    ok(ftruncate(fd, 0) != 0, "the size is sealed");
    hd_os_unmap(p, 64 * page);
    hd_os_unmap(q, 64 * page);
    close(fd);
    close(ro);

    hd_os_random(a, sizeof(a));
    hd_os_random(b, sizeof(b));
    ok(memcmp(a, b, sizeof(a)) != 0, "random");
    ok(hd_clock_mono_ns() <= hd_clock_mono_ns() &&
       hd_clock_wall_ns() > 1700000000000000000);

    pid = fork();
    if (pid == 0) {
        hd_log_set_fd(open("/dev/null", O_WRONLY));
        hd_bug_on(page > 0);
    }
    ok(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGABRT,
       "a bug ends the process");
}

static void test_title(char **argv)
{
    char text[64] = "";
    int fd;
    ssize_t n;

    hd_os_set_title("worker process");
    fd = open("/proc/self/cmdline", O_RDONLY);
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    ok(n > 0);
    is_str(text, "heddle: worker process", "title in ps");
    ok(strcmp(argv[0], text) == 0 && getenv("PATH") != NULL, "environment kept");
}

int main(int argc, char **argv)
{
    hd_os_init_title(argc, argv);
    test_str();
    test_words();
    test_hash();
    test_err();
    test_pool();
    test_pool_on_source();
    test_list_and_array();
    test_map();
    test_log();
    test_os();
    test_title(argv);
    return done_testing();
}
