#include "core/proc/hd_surroundings.h"
#include "core/base/hd_log.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

/* --- environment --- */

/* <texts> are NAME or NAME=value, each with its zero. The next one, or NULL. */
static const char *next_env(const hd_settings_t *s, const char *text)
{
    const char *next = text == NULL ? s->envs : text + strlen(text) + 1;

    return next < s->envs + s->envs_bytes ? next : NULL;
}

static size_t name_bytes(const char *text)
{
    return strcspn(text, "=");
}

static bool is_name(const char *text, const char *name)
{
    return name_bytes(text) == strlen(name) && strncmp(text, name, strlen(name)) == 0;
}

static char *inherited(const char *name)
{
    for (char **e = environ; *e != NULL; e++)
        if (is_name(*e, name))
            return *e;
    return NULL;
}

void hd_surroundings_set_env(const hd_settings_t *s)
{
    static char texts[HD_ENVS_BYTES];
    static char *kept[HD_ENVS_BYTES / 2 + 2];
    bool has_tz = false;
    size_t n = 0;

    for (const char *text = next_env(s, NULL); text != NULL; text = next_env(s, text)) {
        char *at = texts + (text - s->envs);

        has_tz = has_tz || is_name(text, "TZ");
        memcpy(at, text, strlen(text) + 1);
        if (text[name_bytes(text)] == '\0') /* as it was, if it was there */
            at = inherited(text);
        if (at != NULL)
            kept[n++] = at;
    }
    if (!has_tz && inherited("TZ") != NULL)
        kept[n++] = inherited("TZ");
    kept[n] = NULL;
    environ = kept;
}

/* A later line for the same name is instead of the earlier. */
static void forget_env(hd_settings_t *s, hd_str_t name)
{
    char *at = s->envs;

    while (at < s->envs + s->envs_bytes) {
        size_t bytes = strlen(at) + 1;
        char *end = s->envs + s->envs_bytes;

        if (!hd_str_eq(hd_str_n(at, name_bytes(at)), name)) {
            at += bytes;
            continue;
        }
        memmove(at, at + bytes, (size_t)(end - at) - bytes);
        s->envs_bytes -= (uint32_t)bytes;
    }
}

hd_rc_t hd_set_env(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_settings_t *s = cf->build->settings;
    hd_str_t name = {args[0].data, 0};

    (void)conf;
    if (cf->is_first)
        s->envs_bytes = 0;
    while (name.len < args[0].len && args[0].data[name.len] != '=')
        name.len++;
    if (name.len == 0 || memchr(args[0].data, '\0', args[0].len) != NULL)
        return hd_err_set(err, HD_E_CONF,
                          "invalid \"%.*s\" in \"env\" directive: NAME, or NAME=VALUE",
                          HD_STR_ARG(args[0]));
    forget_env(s, name);
    if (args[0].len + 1 > HD_ENVS_BYTES - s->envs_bytes)
        return hd_err_set(err, HD_E_CONF, "\"env\" lines of more than %d bytes together",
                          HD_ENVS_BYTES);
    memcpy(s->envs + s->envs_bytes, args[0].data, args[0].len);
    s->envs[s->envs_bytes + args[0].len] = '\0';
    s->envs_bytes += (uint32_t)args[0].len + 1;
    return HD_OK;
}

/* --- priority --- */

hd_rc_t hd_set_priority(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t digits = args[0];
    bool is_below = digits.len > 0 && digits.data[0] == '-';
    uint64_t n;

    (void)conf;
    if (digits.len > 0 && (digits.data[0] == '-' || digits.data[0] == '+'))
        digits = hd_str_sub(digits, 1, digits.len - 1);
    if (!hd_str_to_u64(digits, 20, &n))
        return hd_err_set(err, HD_E_CONF,
                          "invalid number \"%.*s\" in \"worker_priority\" directive: "
                          "from -20 (first) to 20 (last)",
                          HD_STR_ARG(args[0]));
    cf->build->settings->priority = is_below ? -(int32_t)n : (int32_t)n;
    return HD_OK;
}

/* --- CPUs --- */

static bool has_cpu(const hd_cpus_t *cpus, size_t cpu)
{
    return (cpus->bits[cpu / 64] >> (cpu % 64) & 1) != 0;
}

static hd_rc_t parse_mask(hd_str_t text, hd_cpus_t *to, hd_err_t *err)
{
    bool is_empty = true;

    *to = (hd_cpus_t){0};
    if (text.len > HD_CPUS_MAX)
        return hd_err_set(err, HD_E_CONF,
                          "\"worker_cpu_affinity\": a mask is for at most %d CPUs",
                          HD_CPUS_MAX);
    for (size_t i = 0; i < text.len; i++) {
        size_t cpu = text.len - 1 - i; /* the last digit is the first CPU's */

        if (text.data[i] != '0' && text.data[i] != '1')
            return hd_err_set(err, HD_E_CONF,
                              "invalid mask \"%.*s\" in \"worker_cpu_affinity\" "
                              "directive: a 0 or 1 for each CPU, the first one's last",
                              HD_STR_ARG(text));
        to->bits[cpu / 64] |= (uint64_t)(text.data[i] == '1') << (cpu % 64);
        is_empty = is_empty && text.data[i] == '0';
    }
    if (is_empty)
        return hd_err_set(err, HD_E_CONF,
                          "\"worker_cpu_affinity %.*s\": no CPU at all: one at least is "
                          "a 1",
                          HD_STR_ARG(text));
    return HD_OK;
}

hd_rc_t hd_set_affinity(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_settings_t *s = cf->build->settings;
    size_t n = cf->node->args_n, from = 0;

    (void)conf;
    s->cpus_auto = hd_str_eq(args[0], HD_STR("auto"));
    s->cpus_n = 0;
    if (s->cpus_auto)
        from = 1;
    if (n - from > (s->cpus_auto ? 1 : HD_WORKERS_MAX))
        return hd_err_set(err, HD_E_CONF,
                          "\"worker_cpu_affinity\": too many masks: %s",
                          s->cpus_auto ? "\"auto\" has one at most"
                                       : "one for each worker");
    for (size_t i = from; i < n; i++)
        if (parse_mask(args[i], &s->cpus[s->cpus_n++], err) != HD_OK)
            return HD_ERROR;
    return HD_OK;
}

/* Worker <no>'s own: the <no>th CPU of those there are, over and over. */
static void choose_one(const hd_settings_t *s, uint32_t no, cpu_set_t *set)
{
    cpu_set_t all;
    uint32_t n = 0;

    CPU_ZERO(set);
    if (sched_getaffinity(0, sizeof(all), &all) != 0)
        return;
    for (size_t cpu = 0; cpu < HD_CPUS_MAX; cpu++)
        if (s->cpus_n > 0 && !has_cpu(&s->cpus[0], cpu))
            CPU_CLR(cpu, &all);
    if (CPU_COUNT(&all) == 0)
        return; /* none of the mask is there: said where it is set */
    no %= (uint32_t)CPU_COUNT(&all);
    for (size_t cpu = 0; cpu < HD_CPUS_MAX; cpu++)
        if (CPU_ISSET(cpu, &all) && n++ == no)
            CPU_SET(cpu, set);
}

static void set_cpus(const hd_settings_t *s, uint32_t no)
{
    const hd_cpus_t *mask = &s->cpus[s->cpus_n > 0 ? hd_min(no, s->cpus_n - 1) : 0];
    cpu_set_t set;

    CPU_ZERO(&set);
    if (s->cpus_auto)
        choose_one(s, no, &set);
    for (size_t cpu = 0; cpu < HD_CPUS_MAX && !s->cpus_auto; cpu++)
        if (has_cpu(mask, cpu))
            CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        hd_log(HD_LOG_ALERT,
               "worker_cpu_affinity: sched_setaffinity() failed: %s: are there these "
               "CPUs?",
               strerror(errno));
}

/* --- the directory --- */

hd_rc_t hd_set_directory(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_settings_t *s = cf->build->settings;
    hd_str_t path = hd_conf_path(cf, args[0], false);
    struct stat st;

    (void)conf;
    if (path.len >= HD_PATH_MAX_BYTES)
        return hd_err_set(err, HD_E_CONF, "a path of more than %d bytes",
                          HD_PATH_MAX_BYTES - 1);
    (void)snprintf(s->directory, HD_PATH_MAX_BYTES, "%.*s", HD_STR_ARG(path));
    if (stat(s->directory, &st) != 0)
        return hd_err_set_sys(err, errno, "working_directory \"%s\"", s->directory);
    if (!S_ISDIR(st.st_mode))
        return hd_err_set(err, HD_E_CONF, "working_directory \"%s\" is no directory",
                          s->directory);
    return HD_OK;
}

hd_rc_t hd_surroundings_enter_directory(const hd_settings_t *s, hd_err_t *err)
{
    if (s->directory[0] != '\0' && chdir(s->directory) != 0)
        return hd_err_set_sys(err, errno, "chdir() \"%s\" failed", s->directory);
    return HD_OK;
}

/* --- all of it --- */

static void set_core_limit(const hd_settings_t *s)
{
    struct rlimit limit = {s->core_bytes, s->core_bytes};

    if (s->core_bytes != UINT64_MAX && setrlimit(RLIMIT_CORE, &limit) != 0)
        hd_log(HD_LOG_ALERT, "worker_rlimit_core: setrlimit() failed: %s",
               strerror(errno));
}

void hd_surroundings_take(const hd_proc_t *p)
{
    const hd_settings_t *s = p->settings;

    hd_surroundings_set_env(s);
    set_core_limit(s);
    if (p->kind != HD_PROC_WORKER)
        return;
    if (s->priority != 0 && setpriority(PRIO_PROCESS, 0, s->priority) != 0)
        hd_log(HD_LOG_ALERT, "worker_priority: setpriority(%d) failed: %s",
               (int)s->priority, strerror(errno));
    if (s->cpus_auto || s->cpus_n > 0)
        set_cpus(s, p->worker_no % hd_max(s->workers_n, 1u));
}
