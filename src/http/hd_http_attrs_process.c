/* Variables of the program: all its clients (nginx's stub_status), the process, the time.
 */
#include "http/hd_http_attrs_int.h"
#include "hd_version.h"
#include "core/net/hd_clients.h"
#include "http/hd_request_int.h"

#include <time.h>
#include <unistd.h>

static hd_clients_t clients_now(void)
{
    hd_clients_t c;

    hd_clients_sum(&c);
    return c;
}

GET(connections_active)
{
    UNUSED_REST;
    hd_val_set_int(out, (int64_t)clients_now().now[HD_CLIENTS_ACTIVE]);
}

GET(connections_reading)
{
    UNUSED_REST;
    hd_val_set_int(out, (int64_t)clients_now().now[HD_CLIENTS_READING]);
}

GET(connections_writing)
{
    UNUSED_REST;
    hd_val_set_int(out, (int64_t)clients_now().now[HD_CLIENTS_WRITING]);
}

GET(connections_waiting)
{
    hd_clients_t c = clients_now();

    UNUSED_REST;
    hd_val_set_int(out, (int64_t)hd_clients_waiting(&c));
}

GET(hostname)
{
    static char name[256];

    UNUSED_REST;
    if (name[0] == '\0' && gethostname(name, sizeof(name) - 1) != 0)
        name[0] = '-';
    hd_val_set_str(out, hd_str_c(name));
}

GET(pid)
{
    UNUSED_REST;
    (void)of;
    hd_val_set_int(out, getpid());
}

GET(nginx_version)
{
    UNUSED_REST;
    hd_val_set_str(out, HD_STR(HD_VERSION));
}

static int64_t wall_ns(of_t *of)
{
    return hd_loop_wall_ns(of->req != NULL ? of->req->loop : of->conn->loop);
}

GET(msec)
{
    UNUSED_REST;
    hd_val_set_str(out, hd_attr_seconds(of->pool, (uint64_t)wall_ns(of)));
}

/* Local time, made once a second. */
static hd_str_t time_text(of_t *of, const char *format, char *cache, size_t room,
                          int64_t *cached_s)
{
    int64_t now_s = wall_ns(of) / 1000000000;
    time_t t = (time_t)now_s;
    struct tm tm;

    if (*cached_s != now_s) {
        localtime_r(&t, &tm);
        if (strftime(cache, room, format, &tm) == 0)
            cache[0] = '\0';
        *cached_s = now_s;
    }
    return hd_str_dup(of->pool, hd_str_c(cache));
}

GET(time_local)
{
    static _Thread_local char cache[64];
    static _Thread_local int64_t at_s = -1;

    UNUSED_REST;
    hd_val_set_str(out,
                   time_text(of, "%d/%b/%Y:%H:%M:%S %z", cache, sizeof(cache), &at_s));
}

GET(time_iso8601)
{
    static _Thread_local char cache[64];
    static _Thread_local int64_t at_s = -1;
    hd_str_t text;

    UNUSED_REST;
    text = time_text(of, "%Y-%m-%dT%H:%M:%S%z", cache, sizeof(cache), &at_s);
    if (text.len >= 5) /* +0000 to +00:00 */
        text = hd_str_printf(of->pool, "%.*s:%.*s", (int)(text.len - 2), text.data, 2,
                             text.data + text.len - 2);
    hd_val_set_str(out, text);
}

/* nginx's ssi module, with its format where none is configured. */
GET(date_local)
{
    static _Thread_local char cache[64];
    static _Thread_local int64_t at_s = -1;

    UNUSED_REST;
    hd_val_set_str(
        out, time_text(of, "%A, %d-%b-%Y %H:%M:%S %Z", cache, sizeof(cache), &at_s));
}

GET(date_gmt)
{
    time_t t = (time_t)(wall_ns(of) / 1000000000);
    char text[64];
    struct tm tm;

    UNUSED_REST;
    gmtime_r(&t, &tm);
    if (strftime(text, sizeof(text), "%A, %d-%b-%Y %H:%M:%S GMT", &tm) > 0)
        hd_val_set_str(out, hd_str_dup(of->pool, hd_str_c(text)));
}

const hd_attr_def_t hd_http_attrs_process[] = {
    A("nginx_version", nginx_version, HD_VAL_STR, C, "version of this program"),
    A("connections_active", connections_active, HD_VAL_INT, C, "clients' connections"),
    A("connections_reading", connections_reading, HD_VAL_INT, C, "a head is read in"),
    A("connections_writing", connections_writing, HD_VAL_INT, C, "that are answered"),
    A("connections_waiting", connections_waiting, HD_VAL_INT, C, "in which all is idle"),
    A("date_local", date_local, HD_VAL_STR, C, "local time, as in SSI"),
    A("date_gmt", date_gmt, HD_VAL_STR, C, "the same in GMT"),
    A("hostname", hostname, HD_VAL_STR, C, "name of this machine"),
    A("pid", pid, HD_VAL_INT, C, "of the worker"),
    A("msec", msec, HD_VAL_STR, C, "seconds since 1970, with milliseconds"),
    A("time_local", time_local, HD_VAL_STR, C, "local time in the common log format"),
    A("time_iso8601", time_iso8601, HD_VAL_STR, C, "local time in ISO 8601"),
    {0},
};
