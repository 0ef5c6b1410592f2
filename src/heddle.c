/* heddle: the program: its command line. */
#include "core/os/hd_os.h"
#include "core/proc/hd_modules.h"
#include "core/proc/hd_nginx_words.h"
#include "core/proc/hd_print.h"
#include "core/proc/hd_process.h"
#include "hd_auto_config.h"
#include "hd_program.h"
#include "hd_version.h"
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/opensslv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What tools that read `nginx -V` look for, as far as it is true here. */
#define NGINX_VERSION "1.31.3"

/* nginx's form: "gcc (Debian 12) 12.2.0" is told as "gcc 12.2.0 (Debian 12)". */
static void print_compiler(void)
{
    const char *open = strchr(HD_COMPILER, '('), *close = strrchr(HD_COMPILER, ')');

    if (open == NULL || close == NULL || close < open || close[1] != ' ')
        fprintf(stderr, "built by %s\n", HD_COMPILER);
    else
        fprintf(stderr, "built by %.*s%s %.*s\n", (int)(open - HD_COMPILER), HD_COMPILER,
                close + 2, (int)(close - open) + 1, open);
}

static void print_build(void)
{
    const char *running = OpenSSL_version(OPENSSL_VERSION);
    hd_pool_t *pool = hd_pool_create(0);

    fprintf(stderr, "nginx version: nginx/" NGINX_VERSION " (compatible)\n");
    print_compiler();
    if (strcmp(running, OPENSSL_VERSION_TEXT) == 0)
        fprintf(stderr, "built with %s\n", OPENSSL_VERSION_TEXT);
    else
        fprintf(stderr, "built with %s (running with %s)\n", OPENSSL_VERSION_TEXT,
                running);
    fprintf(stderr, "TLS SNI support enabled\n");
    fprintf(stderr, "configure arguments: %s%s%.*s\n", HD_CONFIGURE,
            HD_CONFIGURE[0] != '\0' ? " " : "", HD_STR_ARG(hd_nginx_words(pool)));
    hd_pool_destroy(pool);
}

static void print_version(bool all)
{
    fprintf(stderr, "heddle version: heddle/%s\n", HD_VERSION);
    if (all)
        print_build();
}

static void print_help(void)
{
    print_version(false);
    fputs(
        "Usage: heddle [-?hvVtTq] [-s signal] [-p prefix]\n"
        "              [-e filename] [-c filename] [-g directives]\n"
        "\n"
        "Options:\n"
        "  -?,-h         : this help\n"
        "  -v            : show version and exit\n"
        "  -V            : show version and configure options then exit\n"
        "  -t            : test configuration and exit\n"
        "  -T            : test configuration, dump it and exit\n"
        "  -q            : suppress non-error messages during configuration testing\n"
        "  -s signal     : send signal to a master process: stop, quit, reopen, reload\n"
        "  -p prefix     : set prefix path (default: " HD_PREFIX "/)\n"
        "  -e filename   : set error log file (default: " HD_ERROR_LOG_PATH ")\n"
        "  -c filename   : set configuration file (default: " HD_CONF_PATH ")\n"
        "  -g directives : set global directives out of configuration file\n\n",
        stderr);
}

typedef struct {
    hd_options_t options;
    const char *prefix, *conf, *error_log;
    bool version, version_all, help;
} line_t;

static bool fail(const char *text, const char *what)
{
    fprintf(stderr, "heddle: %s \"%s\"\n", text, what);
    return false;
}

static bool is_signal(const char *name)
{
    return strcmp(name, "stop") == 0 || strcmp(name, "quit") == 0 ||
           strcmp(name, "reload") == 0 || strcmp(name, "reopen") == 0;
}

/* An option that has a value: the rest of the word, or the next one. */
static bool take_value(line_t *l, char option, const char *value)
{
    switch (option) {
    case 'p':
        l->prefix = value;
        return true;
    case 'c':
        l->conf = value;
        return true;
    case 'e':
        l->error_log = value;
        return true;
    case 'g':
        l->options.globals = hd_str_c(value);
        return true;
    default:
        l->options.signal = hd_str_c(value);
        return is_signal(value) || fail("invalid option: \"-s\"", value);
    }
}

static bool take_flag(line_t *l, char option)
{
    switch (option) {
    case '?':
    case 'h':
        l->help = true;
        return true;
    case 'v':
        l->version = true;
        return true;
    case 'V':
        l->version_all = true;
        return true;
    case 't':
        l->options.test = true;
        return true;
    case 'T':
        l->options.test = l->options.dump = true;
        return true;
    case 'q':
        l->options.quiet = true;
        return true;
    default:
        return false;
    }
}

/* nginx's forms: -tq, -cFILE, -c FILE. */
static bool read_line(line_t *l, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *at = argv[i];

        if (*at++ != '-')
            return fail("invalid option:", argv[i]);
        for (; *at != '\0'; at++) {
            if (take_flag(l, *at))
                continue;
            if (strchr("pcegs", *at) == NULL) {
                char option[2] = {*at, '\0'};

                return fail("invalid option:", option);
            }
            if (at[1] == '\0' && i + 1 == argc) {
                fprintf(stderr, "heddle: option \"-%c\" requires a value\n", *at);
                return false;
            }
            if (!take_value(l, *at, at[1] != '\0' ? at + 1 : argv[++i]))
                return false;
            break;
        }
    }
    return true;
}

/* Absolute, and with a slash at its end. */
static hd_str_t prefix_path(hd_pool_t *pool, const char *given)
{
    char cwd[PATH_MAX] = "";
    size_t n;

    if (given == NULL)
        return HD_STR(HD_PREFIX "/");
    n = strlen(given);
    if (given[0] != '/' && getcwd(cwd, sizeof(cwd)) == NULL)
        cwd[0] = '\0';
    return hd_str_printf(pool, "%s%s%s%s", cwd, cwd[0] != '\0' ? "/" : "", given,
                         n > 0 && given[n - 1] == '/' ? "" : "/");
}

static hd_str_t under(hd_pool_t *pool, hd_str_t prefix, const char *given,
                      const char *otherwise)
{
    if (given == NULL)
        given = otherwise;
    return given[0] == '/' ? hd_str_dup(pool, hd_str_c(given))
                           : hd_str_printf(pool, "%.*s%s", HD_STR_ARG(prefix), given);
}

/* What a new binary is started by (USR2): as it was called, for that may be a link to
 * another file by then; found by PATH: the file itself, by the name it has now. */
static void keep_call(hd_pool_t *pool, hd_options_t *o, int argc, char **argv)
{
    char exe[PATH_MAX];
    ssize_t n;

    o->argv = hd_pool_calloc(pool, ((size_t)argc + 1) * sizeof(*o->argv));
    for (int i = 0; i < argc; i++)
        o->argv[i] = hd_str_to_c(pool, hd_str_c(argv[i]));
    o->program = hd_str_c(o->argv[0]);
    if (strchr(argv[0], '/') != NULL)
        return;
    n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n > 0)
        o->program = hd_str_printf(pool, "%.*s", (int)n, exe);
}

int main(int argc, char **argv)
{
    hd_pool_t *pool;
    line_t l = {0};
    hd_options_t *o = &l.options;
    int status;

    hd_os_init_title(argc, argv);
    hd_program_register();
    if (argc > 1 && strncmp(argv[1], "--print-", 8) == 0)
        return hd_print_main(argc - 1, argv + 1);
    if (!read_line(&l, argc, argv))
        return 1;
    if (l.help)
        print_help();
    else if (l.version || l.version_all)
        print_version(l.version_all);
    if (l.help || l.version || l.version_all)
        return 0;
    pool = hd_pool_create(0);
    keep_call(pool, o, argc, argv);
    o->globals = hd_str_dup(pool, o->globals); /* a process's title goes over argv */
    o->prefix = prefix_path(pool, l.prefix);
    o->conf = under(pool, o->prefix, l.conf, HD_CONF_PATH);
    o->error_log = l.error_log != NULL && strcmp(l.error_log, "stderr") == 0
                       ? HD_STR("")
                       : under(pool, o->prefix, l.error_log, HD_ERROR_LOG_PATH);
    status = hd_process_main(o);
    hd_pool_destroy(pool);
    return status;
}
