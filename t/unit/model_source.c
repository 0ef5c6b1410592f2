/* A watched directory: real files and inotify, edits hot. Time is the loop's own clock,
 * set by hand, where the waiting itself is the question. */
#include "control/hd_source_dir.h"
#include "tap.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static hd_loop_t *loop;
static hd_model_t *model;
static hd_source_dir_t *dir;
static char path[64];
static uint64_t fake_ns;
static size_t commits_n;

static uint64_t fake_clock(void)
{
    return fake_ns;
}

static void on_commit(void *arg)
{
    (void)arg;
    commits_n++;
}

static const char *in_dir(const char *name)
{
    static char text[4][256];
    static unsigned at;

    at = (at + 1) % 4;
    snprintf(text[at], sizeof(text[at]), "%s/%s", path, name);
    return text[at];
}

/* A file being written: opened and filled, not closed. */
static int start_writing(const char *name, const char *text)
{
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        diag("%s: %s", name, strerror(errno));
    return fd;
}

static void write_file(const char *name, const char *text)
{
    close(start_writing(name, text));
}

/* As careful editors do. */
static void replace_file(const char *name, const char *text)
{
    write_file(".new", text);
    if (rename(in_dir(".new"), in_dir(name)) != 0)
        diag("rename: %s", strerror(errno));
}

#define NS(name) "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: " name "}\n"

static bool has(const char *ns)
{
    return hd_model_get(model, HD_KIND_NAMESPACE, HD_STR(""), hd_str_c(ns)) != NULL;
}

static size_t errors_n(void)
{
    size_t n, found = 0;
    const hd_status_t *list = hd_model_statuses(model, &n);

    for (size_t i = 0; i < n; i++)
        found += list[i].severity == HD_STATUS_ERROR;
    return found;
}

static bool start(const hd_source_dir_conf_t *more)
{
    hd_source_dir_conf_t conf = *more;
    hd_err_t err = {0};

    conf.path = hd_str_c(path);
    loop = hd_loop_create(NULL, 64, &err);
    model = hd_model_create(NULL);
    commits_n = 0;
    hd_model_set_on_commit(model, on_commit, NULL);
    if (loop == NULL || hd_source_dir_create(loop, model, &conf, &dir, &err) != HD_OK) {
        diag("%s", err.text);
        return false;
    }
    return true;
}

static void stop(void)
{
    hd_source_dir_destroy(dir);
    hd_model_destroy(model);
    hd_loop_destroy(loop);
}

/* Turns, each waiting for an event or a timer, until the model is told of a commit. */
static void wait_for_commit(void)
{
    size_t before = commits_n;

    while (commits_n == before)
        hd_loop_turn(loop, -1);
}

static void test_edits(void)
{
    hd_source_dir_conf_t conf = {0};
    hd_source_dir_stats_t stats;

    write_file("a.yaml", NS("a"));
    write_file("b.yml", NS("b"));
    write_file("notes.txt", NS("text"));
    write_file(".hidden.yaml", NS("hidden"));
    mkdir(in_dir("d.yaml"), 0755);
    ok(start(&conf), "a directory is read");
    ok(has("a") && has("b") && !has("text") && !has("hidden"));
    is_int(commits_n, 1, "by the time create returns");
    is_int(errors_n(), 1, "a directory in it is no file, and said to be none");
    rmdir(in_dir("d.yaml"));
    wait_for_commit();
    is_int(errors_n(), 0);

    write_file("a.yaml", NS("a") NS("a2"));
    wait_for_commit();
    ok(has("a") && has("a2"), "a file rewritten in place");
    replace_file("a.yaml", NS("a3"));
    wait_for_commit();
    ok(!has("a") && has("a3"), "a file renamed into place");
    write_file("c.yaml", NS("c"));
    wait_for_commit();
    ok(has("c"), "a new file");
    unlink(in_dir("c.yaml"));
    wait_for_commit();
    ok(!has("c"), "a file deleted");
    rename(in_dir("b.yml"), in_dir("b.off"));
    wait_for_commit();
    ok(!has("b"), "a file renamed away");

    write_file("a.yaml", "broken: [\n");
    wait_for_commit();
    ok(has("a3"), "broken: the last good object stays in force");
    is_int(errors_n(), 1);
    write_file("a.yaml", NS("a4"));
    wait_for_commit();
    ok(has("a4") && !has("a3"), "and mended");
    is_int(errors_n(), 0);

    hd_source_dir_get_stats(dir, &stats);
    is_int(stats.files_n, 1);
    stop();
    unlink(in_dir("a.yaml"));
    unlink(in_dir("b.off"));
    unlink(in_dir("notes.txt"));
    unlink(in_dir(".hidden.yaml"));
}

/* A file is read when its writer closes it, whatever happens in between. */
static void test_half_written(void)
{
    hd_source_dir_conf_t conf = {0};
    int fd;

    write_file("a.yaml", NS("a") NS("b"));
    ok(start(&conf));
    fd = start_writing("a.yaml", NS("a"));
    write_file("other.yaml", NS("other")); /* a burst beside it */
    wait_for_commit();
    ok(has("other") && has("b"), "half a file is not read");
    if (write(fd, NS("b2"), strlen(NS("b2"))) < 0)
        diag("write: %s", strerror(errno));
    close(fd);
    wait_for_commit();
    ok(has("a") && has("b2") && !has("b"), "the whole is");
    stop();
    unlink(in_dir("a.yaml"));
    unlink(in_dir("other.yaml"));
}

/* 20 ms of quiet, 500 ms at most. */
static void test_debounce(void)
{
    hd_source_dir_conf_t conf = {0};
    size_t before;
    char text[64];

    write_file("a.yaml", NS("a"));
    ok(start(&conf));
    fake_ns = 1000000000;
    hd_loop_set_clock(loop, fake_clock);
    before = commits_n;
    write_file("a.yaml", NS("b"));
    hd_loop_turn(loop, 0);
    fake_ns += 19 * 1000000;
    hd_loop_turn(loop, 0);
    is_int(commits_n, before, "19 ms after an edit nothing has happened");
    write_file("a.yaml", NS("c"));
    hd_loop_turn(loop, 0);
    fake_ns += 19 * 1000000;
    hd_loop_turn(loop, 0);
    is_int(commits_n, before, "another edit starts the quiet anew");
    fake_ns += 1000000;
    hd_loop_turn(loop, 0);
    is_int(commits_n, before + 1, "20 ms of quiet");
    ok(has("c"));

    before = commits_n;
    for (unsigned ms = 0; ms < 490; ms += 10) {
        snprintf(text, sizeof(text), NS("n%u"), ms);
        write_file("a.yaml", text);
        hd_loop_turn(loop, 0);
        fake_ns += 10 * 1000000;
    }
    hd_loop_turn(loop, 0);
    is_int(commits_n, before, "never quiet for 490 ms");
    for (unsigned ms = 490; ms < 510; ms += 10) {
        snprintf(text, sizeof(text), NS("n%u"), ms);
        write_file("a.yaml", text);
        hd_loop_turn(loop, 0);
        fake_ns += 10 * 1000000;
    }
    hd_loop_turn(loop, 0);
    is_int(commits_n, before + 1, "taken all the same after 500");
    stop();
    unlink(in_dir("a.yaml"));
}

/* Many files in one burst are one commit. */
static void test_burst(void)
{
    hd_source_dir_conf_t conf = {0};
    hd_source_dir_stats_t stats;
    char name[32], text[64];
    size_t before;

    ok(start(&conf));
    fake_ns = 1000000000;
    hd_loop_set_clock(loop, fake_clock);
    before = commits_n;
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "f%d.yaml", i);
        snprintf(text, sizeof(text), NS("n%d"), i);
        replace_file(name, text);
    }
    hd_loop_turn(loop, 0);
    fake_ns += 20 * 1000000;
    hd_loop_turn(loop, 0);
    is_int(commits_n, before + 1);
    ok(has("n0") && has("n299"));
    hd_source_dir_get_stats(dir, &stats);
    is_int(stats.files_read, 300, "each was read once");
    stop();
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "f%d.yaml", i);
        unlink(in_dir(name));
    }
}

/* A mounted ConfigMap: links to ..data/NAME, and ..data is replaced. */
static void test_config_map(void)
{
    hd_source_dir_conf_t conf = {0};

    mkdir(in_dir("..v1"), 0755);
    mkdir(in_dir("..v2"), 0755);
    write_file("..v1/a.yaml", NS("v1"));
    write_file("..v2/a.yaml", NS("v2"));
    ok(symlink("..v1", in_dir("..data")) == 0 &&
       symlink("..data/a.yaml", in_dir("a.yaml")) == 0);
    ok(start(&conf));
    ok(has("v1"));
    ok(symlink("..v2", in_dir("..tmp")) == 0 &&
       rename(in_dir("..tmp"), in_dir("..data")) == 0);
    wait_for_commit();
    ok(has("v2") && !has("v1"));
    stop();
    unlink(in_dir("a.yaml"));
    unlink(in_dir("..data"));
    unlink(in_dir("..v1/a.yaml"));
    unlink(in_dir("..v2/a.yaml"));
    rmdir(in_dir("..v1"));
    rmdir(in_dir("..v2"));
}

/* The directory goes and comes back. */
static void test_directory_gone(void)
{
    hd_source_dir_conf_t conf = {0};
    char aside[80];

    snprintf(aside, sizeof(aside), "%s.aside", path);
    write_file("a.yaml", NS("a"));
    ok(start(&conf));
    ok(rename(path, aside) == 0);
    wait_for_commit();
    ok(has("a"), "what it held stays in force");
    is_int(errors_n(), 1);
    ok(mkdir(path, 0755) == 0);
    write_file("b.yaml", NS("b"));
    while (!has("b"))
        hd_loop_turn(loop, -1);
    ok(!has("a"), "the new one is what counts");
    is_int(errors_n(), 0);
    write_file("b.yaml", NS("b2"));
    wait_for_commit();
    ok(has("b2"), "and it is watched");
    stop();
    unlink(in_dir("b.yaml"));
    rmdir(path);
    rename(aside, path);
    unlink(in_dir("a.yaml"));
}

static void test_bad(void)
{
    hd_source_dir_conf_t conf = {.files_max = 2};
    int fd;

    write_file("a.yaml", NS("a"));
    ok(mkfifo(in_dir("pipe.yaml"), 0644) == 0);
    ok(start(&conf), "a pipe blocks nobody");
    is_int(errors_n(), 1);
    write_file("c.yaml", NS("c"));
    write_file("a.yaml", NS("a2"));
    wait_for_commit();
    ok(has("a2") && !has("c"), "no more files than files_max");
    unlink(in_dir("pipe.yaml"));
    unlink(in_dir("c.yaml"));
    fd = start_writing("a.yaml", NS("a3"));
    if (ftruncate(fd, (off_t)(8 << 20) + 1) != 0)
        diag("ftruncate: %s", strerror(errno));
    close(fd);
    wait_for_commit();
    ok(has("a2"), "too large: the last good stays");
    is_int(errors_n(), 1);
    stop();
    unlink(in_dir("a.yaml"));

    loop = hd_loop_create(NULL, 64, NULL);
    model = hd_model_create(NULL);
    {
        hd_source_dir_conf_t gone = {.path = HD_STR("/nonexistent/mesh")};
        hd_err_t err = {0};

        is_int(hd_source_dir_create(loop, model, &gone, &dir, &err), HD_ERROR);
        ok(strstr(err.text, "/nonexistent/mesh: can't be watched") != NULL, "%s",
           err.text);
    }
    hd_model_destroy(model);
    hd_loop_destroy(loop);
}

int main(void)
{
    snprintf(path, sizeof(path), "/tmp/hd-model-source.XXXXXX");
    if (mkdtemp(path) == NULL) {
        printf("Bail out! mkdtemp: %s\n", strerror(errno));
        return 1;
    }
    test_edits();
    test_half_written();
    test_debounce();
    test_burst();
    test_config_map();
    test_directory_gone();
    test_bad();
    ok(rmdir(path) == 0, "nothing is left behind");
    return done_testing();
}
