#include "operators.h"

#include <time.h>

#define PARTS_MAX 256
#define NS_PER_MS 1000000u

typedef enum {
    OP_TEXT,
    OP_UNTOLD, /* known to Envoy, not to us */
    OP_ATTR,
    OP_REQ,
    OP_RESP,
    OP_START_TIME,
    OP_STATUS,
    OP_FLAGS,
    OP_DETAILS,
    OP_BYTES_RECEIVED,
    OP_BYTES_SENT,
    OP_DURATION,
    OP_UPSTREAM_HOST,
    OP_UPSTREAM_LOCAL,
    OP_CLUSTER,
    OP_ROUTE,
    OP_FAILURE,
    OP_PROTOCOL,
    OP_LOCAL,
    OP_REMOTE,
} op_t;

struct log_operator_s {
    op_t op;
    uint32_t max_bytes;   /* 0: as long as it is */
    hd_str_t text, other; /* text; header, and the one instead of it */
    hd_attr_t attr;
};

static const struct {
    const char *name;
    op_t op;
    const char *variable;
} known[] = {
    {"START_TIME", OP_START_TIME, NULL},
    {"RESPONSE_CODE", OP_STATUS, NULL},
    {"RESPONSE_FLAGS", OP_FLAGS, NULL},
    {"RESPONSE_CODE_DETAILS", OP_DETAILS, NULL},
    {"CONNECTION_TERMINATION_DETAILS", OP_UNTOLD, NULL},
    {"UPSTREAM_TRANSPORT_FAILURE_REASON", OP_FAILURE, NULL},
    {"BYTES_RECEIVED", OP_BYTES_RECEIVED, NULL},
    {"BYTES_SENT", OP_BYTES_SENT, NULL},
    {"DURATION", OP_DURATION, NULL},
    {"UPSTREAM_HOST", OP_UPSTREAM_HOST, NULL},
    {"UPSTREAM_CLUSTER", OP_CLUSTER, NULL},
    {"UPSTREAM_CLUSTER_RAW", OP_CLUSTER, NULL},
    {"UPSTREAM_LOCAL_ADDRESS", OP_UPSTREAM_LOCAL, NULL},
    {"DOWNSTREAM_LOCAL_ADDRESS", OP_LOCAL, NULL},
    {"DOWNSTREAM_REMOTE_ADDRESS", OP_REMOTE, NULL},
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", OP_ATTR, "remote_addr"},
    {"DOWNSTREAM_PEER_URI_SAN", OP_ATTR, "peer_principal"},
    {"REQUESTED_SERVER_NAME", OP_ATTR, "ssl_server_name"},
    {"ROUTE_NAME", OP_ROUTE, NULL},
    {"PROTOCOL", OP_PROTOCOL, NULL},
    {"HOSTNAME", OP_ATTR, "hostname"},
};

/* --- compiling --- */

static hd_rc_t unknown(hd_str_t text, hd_err_t *err)
{
    return hd_err_set(err, HD_E_RESOURCE, "the format operator %%%.*s%% isn't known here",
                      HD_STR_ARG(text));
}

/* "A?B" */
static void set_header(hd_conf_t *cf, hd_str_t arg, log_operator_t *part)
{
    ssize_t mark = hd_str_find_char(arg, '?');
    hd_str_t first = mark < 0 ? arg : hd_str_sub(arg, 0, (size_t)mark);

    part->text = hd_str_dup_lower(cf->pool, first);
    if (mark >= 0)
        part->other =
            hd_str_dup_lower(cf->pool, hd_str_sub(arg, (size_t)mark + 1, SIZE_MAX));
}

static hd_rc_t set_operator(hd_conf_t *cf, hd_str_t text, log_operator_t *part,
                            hd_err_t *err)
{
    ssize_t open = hd_str_find_char(text, '('), close = hd_str_find_char(text, ')');
    ssize_t colon;
    hd_str_t name, arg = HD_STR_NONE, rest;
    uint64_t max = 0;

    if ((open < 0) != (close < 0) || close < open)
        return unknown(text, err);
    if (open >= 0) {
        arg = hd_str_sub(text, (size_t)open + 1, (size_t)(close - open - 1));
        name = hd_str_sub(text, 0, (size_t)open);
        rest = hd_str_sub(text, (size_t)close + 1, SIZE_MAX);
    } else {
        colon = hd_str_find_char(text, ':');
        name = colon < 0 ? text : hd_str_sub(text, 0, (size_t)colon);
        rest = hd_str_sub(text, name.len, SIZE_MAX);
    }
    if (rest.len > 0 &&
        (rest.data[0] != ':' ||
         !hd_str_to_u64(hd_str_sub(rest, 1, SIZE_MAX), UINT32_MAX, &max) || max == 0))
        return unknown(text, err);
    part->max_bytes = (uint32_t)max;
    if (arg.len > 0 &&
        (hd_str_eq(name, HD_STR("REQ")) || hd_str_eq(name, HD_STR("RESP")))) {
        part->op = name.len == 3 ? OP_REQ : OP_RESP;
        set_header(cf, arg, part);
        return HD_OK;
    }
    for (size_t i = 0; open < 0 && i < hd_countof(known); i++) {
        if (!hd_str_eq(name, hd_str_c(known[i].name)))
            continue;
        part->op = known[i].op;
        return known[i].variable == NULL
                   ? HD_OK
                   : hd_attr_key(cf->pool, hd_str_c(known[i].variable), false,
                                 &part->attr, err);
    }
    return unknown(text, err);
}

hd_rc_t log_operators_compile(hd_conf_t *cf, hd_str_t text, log_operators_t *to,
                              hd_err_t *err)
{
    hd_array_t parts;

    hd_array_init(&parts, cf->temp, sizeof(log_operator_t), PARTS_MAX);
    while (text.len > 0) {
        log_operator_t *part = hd_array_add(&parts);
        ssize_t at = hd_str_find_char(text, '%'), end;
        size_t plain = at < 0 ? text.len : (size_t)at;

        if (part == NULL)
            return hd_err_set(err, HD_E_RESOURCE, "a format of more than %d parts",
                              PARTS_MAX);
        *part = (log_operator_t){.op = OP_TEXT};
        if (plain > 0) {
            part->text = hd_str_dup(cf->pool, hd_str_sub(text, 0, plain));
            text = hd_str_sub(text, plain, SIZE_MAX);
            continue;
        }
        text = hd_str_sub(text, 1, SIZE_MAX);
        end = hd_str_find_char(text, '%');
        if (end < 0)
            return hd_err_set(err, HD_E_RESOURCE, "a format with a %% but not its other");
        if (end == 0)
            part->text = hd_str_dup(cf->pool, HD_STR("%"));
        else if (set_operator(cf, hd_str_sub(text, 0, (size_t)end), part, err) != HD_OK)
            return HD_ERROR;
        text = hd_str_sub(text, (size_t)end + 1, SIZE_MAX);
    }
    to->parts = hd_array_copy(&parts, cf->pool);
    to->n = (uint32_t)parts.n;
    return HD_OK;
}

/* --- rendering --- */

static hd_str_t request_header(hd_req_t *req, hd_str_t name)
{
    if (name.len == 0 || name.data[0] != ':')
        return hd_req_header_joined(req, name, NULL);
    if (hd_str_eq(name, HD_STR(":method")))
        return hd_req_method(req);
    if (hd_str_eq(name, HD_STR(":path")))
        return hd_req_raw_path(req);
    if (hd_str_eq(name, HD_STR(":authority")))
        return hd_req_authority(req);
    return hd_str_eq(name, HD_STR(":scheme")) ? hd_req_scheme(req) : HD_STR_NONE;
}

static hd_str_t header(hd_req_t *req, const log_operator_t *part)
{
    for (int i = 0; i < 2; i++) {
        hd_str_t name = i == 0 ? part->text : part->other, value = HD_STR_NONE;

        if (name.len > 0)
            value = part->op == OP_REQ ? request_header(req, name)
                                       : hd_res_header(req, name, NULL);
        if (value.len > 0)
            return value;
    }
    return HD_STR_NONE;
}

static hd_str_t number(const hd_attr_of_t *of, uint64_t n)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)n);
}

/* RFC 3339 with milliseconds. */
static hd_str_t wall_time(const hd_attr_of_t *of, int64_t wall_ns)
{
    time_t s = (time_t)(wall_ns / 1000000000);
    struct tm tm;

    if (gmtime_r(&s, &tm) == NULL)
        return HD_STR_NONE;
    return hd_str_printf(of->pool, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                         tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                         tm.tm_min, tm.tm_sec, (int)(wall_ns / NS_PER_MS % 1000));
}

static hd_str_t print(const hd_attr_of_t *of, const hd_addr_t *addr)
{
    char text[HD_ADDR_TEXT_MAX];

    return addr == NULL ? HD_STR_NONE : hd_str_dup(of->pool, hd_addr_print(addr, text));
}

static hd_str_t address(const hd_attr_of_t *of, bool is_local)
{
    if (of->conn == NULL)
        return HD_STR_NONE;
    if (is_local)
        return print(of, hd_conn_local(of->conn));
    return print(of, of->req != NULL ? hd_req_remote(of->req) : hd_conn_remote(of->conn));
}

static hd_str_t value_of(const log_operator_t *part, const hd_attr_of_t *of,
                         const hd_req_info_t *info, const hd_conn_t *upstream)
{
    hd_addr_t addr;

    switch (part->op) {
    case OP_TEXT:
        return part->text;
    case OP_ATTR:
        return hd_attr_text(of, &part->attr);
    case OP_REQ:
    case OP_RESP:
        return of->req != NULL ? header(of->req, part) : HD_STR_NONE;
    case OP_START_TIME:
        return wall_time(of, info->start_wall_ns);
    case OP_STATUS:
        return number(of, info->status);
    case OP_FLAGS:
        return info->flags;
    case OP_DETAILS:
        return info->details;
    case OP_BYTES_RECEIVED:
        return number(of, info->bytes_received);
    case OP_BYTES_SENT:
        return number(of, info->bytes_sent);
    case OP_DURATION:
        return number(of, info->duration_ns / NS_PER_MS);
    case OP_UPSTREAM_HOST:
        return info->upstream_host;
    case OP_UPSTREAM_LOCAL:
        return upstream != NULL && hd_conn_ask_local(upstream, &addr) ? print(of, &addr)
                                                                      : HD_STR_NONE;
    case OP_CLUSTER:
        return info->cluster;
    case OP_ROUTE:
        return info->route;
    case OP_FAILURE:
        return info->error;
    case OP_PROTOCOL:
        return info->protocol;
    case OP_LOCAL:
    case OP_REMOTE:
        return address(of, part->op == OP_LOCAL);
    case OP_UNTOLD:
        break;
    }
    return HD_STR_NONE;
}

/* A session in a request's words. */
static void describe_session(const hd_session_info_t *s, hd_req_info_t *info)
{
    *info = (hd_req_info_t){.start_wall_ns = s->start_wall_ns,
                            .duration_ns = s->duration_ns,
                            .bytes_received = s->bytes_received,
                            .bytes_sent = s->bytes_sent,
                            .flags = s->flags,
                            .upstream_host = s->upstream_host,
                            .cluster = s->cluster,
                            .error = s->is_opened ? HD_STR_NONE : s->error};
}

void log_operators_render(const log_operators_t *format, const hd_attr_of_t *of,
                          log_line_t *line)
{
    hd_session_info_t session = {.upstream = NULL};
    hd_req_info_t info = {0};

    if (of->req != NULL)
        hd_req_get_info(of->req, &info);
    else if (hd_session_get_info(of->conn, &session))
        describe_session(&session, &info);
    for (uint32_t i = 0; i < format->n; i++) {
        const log_operator_t *part = &format->parts[i];
        hd_str_t value = value_of(part, of, &info, session.upstream);

        if (value.len == 0 && !format->omit_empty)
            value = HD_STR("-");
        if (part->max_bytes > 0 && part->max_bytes < value.len)
            value.len = part->max_bytes;
        log_add(line, value);
    }
    if (line->len == 0 || line->data[line->len - 1] != '\n')
        log_add(line, HD_STR("\n"));
}
