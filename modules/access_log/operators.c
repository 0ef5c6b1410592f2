#include "operators.h"
#include "times.h"

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
    OP_LOCAL_PORT,
    OP_REMOTE,
    OP_DIRECT,
    OP_DIRECT_IP,
    OP_REQ_PATH, /* of REQ_WITHOUT_QUERY */
    OP_FLAGS_LONG,
    OP_ATTEMPTS,
    OP_GRPC_NAME,
    OP_GRPC_NUMBER,
    OP_UPSTREAM_SAN,
    OP_LOCAL_IP,
    OP_UPSTREAM_IP, /* of OP_UPSTREAM_HOST */
    OP_UPSTREAM_PORT,
    OP_UPSTREAM_LOCAL_IP,
    OP_UPSTREAM_LOCAL_PORT,
    OP_LOG_TYPE,
    OP_QUERY, /* a parameter, decoded as little as Envoy does: not at all */
    OP_PATH,
} op_t;

/* Of PATH: with its query, and which of both where it was rewritten. */
enum { PATH_NO_QUERY = 1, PATH_ORIGINAL = 2, PATH_CURRENT = 4 };

struct log_operator_s {
    op_t op;
    uint32_t max_bytes;   /* 0: as long as it is */
    uint8_t path;         /* PATH_… */
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
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", OP_ATTR, "client_ip"},
    {"DOWNSTREAM_PEER_URI_SAN", OP_ATTR, "peer_principal"},
    {"REQUESTED_SERVER_NAME", OP_ATTR, "requested_server_name"},
    {"ROUTE_NAME", OP_ROUTE, NULL},
    {"PROTOCOL", OP_PROTOCOL, NULL},
    {"HOSTNAME", OP_ATTR, "hostname"},
    {"RESPONSE_FLAGS_LONG", OP_FLAGS_LONG, NULL},
    {"UPSTREAM_REMOTE_ADDRESS", OP_UPSTREAM_HOST, NULL},
    {"UPSTREAM_REQUEST_ATTEMPT_COUNT", OP_ATTEMPTS, NULL},
    {"UPSTREAM_PEER_URI_SAN", OP_UPSTREAM_SAN, NULL},
    {"GRPC_STATUS", OP_GRPC_NAME, NULL},
    {"GRPC_STATUS_NUMBER", OP_GRPC_NUMBER, NULL},
    {"DOWNSTREAM_LOCAL_PORT", OP_LOCAL_PORT, NULL},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", OP_DIRECT, NULL},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", OP_DIRECT_IP, NULL},
    {"DOWNSTREAM_LOCAL_URI_SAN", OP_ATTR, "local_principal"},
    {"DOWNSTREAM_PEER_SUBJECT", OP_ATTR, "ssl_client_s_dn"},
    {"DOWNSTREAM_TLS_VERSION", OP_ATTR, "ssl_protocol"},
    {"DOWNSTREAM_TLS_CIPHER", OP_ATTR, "ssl_cipher"},
    {"DOWNSTREAM_PEER_CERT_V_START", OP_ATTR, "ssl_client_v_start"},
    {"DOWNSTREAM_PEER_CERT_V_END", OP_ATTR, "ssl_client_v_end"},
    {"CONNECTION_ID", OP_ATTR, "connection"},
    {"DOWNSTREAM_PEER_ISSUER", OP_ATTR, "ssl_client_i_dn"},
    {"DOWNSTREAM_PEER_SERIAL", OP_ATTR, "ssl_client_serial"},
    {"DOWNSTREAM_TLS_SESSION_ID", OP_ATTR, "ssl_session_id"},
    {"DOWNSTREAM_REMOTE_PORT", OP_ATTR, "remote_port"},
    {"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", OP_LOCAL_IP, NULL},
    {"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", OP_UPSTREAM_IP, NULL},
    {"UPSTREAM_REMOTE_PORT", OP_UPSTREAM_PORT, NULL},
    {"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", OP_UPSTREAM_LOCAL_IP, NULL},
    {"UPSTREAM_LOCAL_PORT", OP_UPSTREAM_LOCAL_PORT, NULL},
    {"ACCESS_LOG_TYPE", OP_LOG_TYPE, NULL},
    {"VIRTUAL_CLUSTER_NAME", OP_UNTOLD, NULL},
    {"DOWNSTREAM_TRANSPORT_FAILURE_REASON", OP_UNTOLD, NULL},
    {"PATH", OP_PATH, NULL},
};

/* RFLAG-1 to -27, those that we set. */
static const struct {
    const char *flag, *name;
} long_names[] = {
    {"UH", "NoHealthyUpstream"},
    {"UF", "UpstreamConnectionFailure"},
    {"UO", "UpstreamOverflow"},
    {"NR", "NoRouteFound"},
    {"URX", "UpstreamRetryLimitExceeded"},
    {"NC", "NoClusterFound"},
    {"DC", "DownstreamConnectionTermination"},
    {"UT", "UpstreamRequestTimeout"},
    {"UR", "UpstreamRemoteReset"},
    {"UC", "UpstreamConnectionTermination"},
    {"LR", "LocalReset"},
    {"DI", "DelayInjected"},
    {"FI", "FaultInjected"},
    {"RL", "RateLimited"},
    {"UAEX", "UnauthorizedExternalService"},
    {"SI", "StreamIdleTimeout"},
    {"DPE", "DownstreamProtocolError"},
    {"UMSDR", "UpstreamMaxStreamDurationReached"},
    {"DR", "DownstreamRemoteReset"},
    {"UPE", "UpstreamProtocolError"},
    {"DT", "DurationTimeout"},
    {"OM", "OverloadManagerTerminated"},
};

/* Of gRPC's codes, by number, as Envoy spells them. */
static const char *const grpc_names[] = {
    "OK",           "Canceled",         "Unknown",           "InvalidArgument",
    "DeadlineExceeded", "NotFound",     "AlreadyExists",     "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted",    "OutOfRange",
    "Unimplemented", "Internal",        "Unavailable",       "DataLoss",
    "Unauthenticated"};

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

/* "WQ", "NQ", with ":ORIG", ":PATH" or ":ORIG_OR_PATH" behind it. */
static bool set_path(hd_str_t arg, log_operator_t *part)
{
    hd_str_t query;

    hd_str_split(&arg, ':', &query);
    if (hd_str_eq(query, HD_STR("NQ")))
        part->path = PATH_NO_QUERY;
    else if (!hd_str_eq(query, HD_STR("WQ")))
        return false;
    if (hd_str_eq(arg, HD_STR("ORIG")))
        part->path |= PATH_ORIGINAL;
    else if (hd_str_eq(arg, HD_STR("PATH")))
        part->path |= PATH_CURRENT;
    else if (arg.len > 0 && !hd_str_eq(arg, HD_STR("ORIG_OR_PATH")))
        return false;
    return true;
}

static const struct {
    const char *name;
    op_t op;
} with_header[] = {{"REQ", OP_REQ},
                   {"RESP", OP_RESP},
                   {"REQUEST_HEADER", OP_REQ},
                   {"RESPONSE_HEADER", OP_RESP},
                   {"REQ_WITHOUT_QUERY", OP_REQ_PATH}};

/* With an argument that says what; those that are untold are nowhere kept here. */
static const struct {
    const char *name;
    op_t op;
} with_arg[] = {{"QUERY_PARAM", OP_QUERY},       {"START_TIME", OP_START_TIME},
                {"PATH", OP_PATH},               {"DYNAMIC_METADATA", OP_UNTOLD},
                {"CLUSTER_METADATA", OP_UNTOLD}, {"UPSTREAM_METADATA", OP_UNTOLD},
                {"METADATA", OP_UNTOLD},         {"FILTER_STATE", OP_UNTOLD},
                {"UPSTREAM_FILTER_STATE", OP_UNTOLD}};

static bool set_with_arg(hd_conf_t *cf, hd_str_t name, hd_str_t arg, log_operator_t *part)
{
    for (size_t i = 0; i < hd_countof(with_header); i++) {
        if (hd_str_eq(name, hd_str_c(with_header[i].name))) {
            part->op = with_header[i].op;
            set_header(cf, arg, part);
            return true;
        }
    }
    for (size_t i = 0; i < hd_countof(with_arg); i++) {
        if (hd_str_eq(name, hd_str_c(with_arg[i].name))) {
            part->op = with_arg[i].op;
            part->text = hd_str_dup(cf->pool, arg);
            return part->op != OP_PATH || set_path(arg, part);
        }
    }
    return false;
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
    if (arg.len > 0)
        return set_with_arg(cf, name, arg, part) ? HD_OK : unknown(text, err);
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

/* The '%' that ends an operator: not one within its parentheses. */
static ssize_t find_end(hd_str_t text)
{
    bool inside = false;

    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '(')
            inside = true;
        else if (text.data[i] == ')')
            inside = false;
        else if (text.data[i] == '%' && !inside)
            return (ssize_t)i;
    }
    return -1;
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
        end = find_end(text);
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
            value = part->op == OP_RESP ? hd_res_header(req, name, NULL)
                                        : request_header(req, name);
        if (value.len > 0)
            return value;
    }
    return HD_STR_NONE;
}

static hd_str_t number(const hd_attr_of_t *of, uint64_t n)
{
    return hd_str_printf(of->pool, "%llu", (unsigned long long)n);
}

static hd_str_t print(const hd_attr_of_t *of, const hd_addr_t *addr)
{
    char text[HD_ADDR_TEXT_MAX];

    return addr == NULL ? HD_STR_NONE : hd_str_dup(of->pool, hd_addr_print(addr, text));
}

static hd_str_t address(const hd_attr_of_t *of, op_t op)
{
    const hd_conn_t *c = of->conn;
    char text[HD_ADDR_TEXT_MAX];

    if (c == NULL)
        return HD_STR_NONE;
    switch (op) {
    case OP_LOCAL:
        return print(of, hd_conn_local(c));
    case OP_LOCAL_IP:
        return hd_str_dup(of->pool, hd_addr_print_ip(hd_conn_local(c), text));
    case OP_LOCAL_PORT:
        return number(of, hd_conn_local(c)->port);
    case OP_DIRECT:
        return print(of, &c->remote);
    case OP_DIRECT_IP:
        return hd_str_dup(of->pool, hd_addr_print_ip(&c->remote, text));
    default:
        return print(of, of->req != NULL ? hd_req_remote(of->req) : hd_conn_remote(c));
    }
}

static hd_str_t without_query(hd_str_t path)
{
    ssize_t at = hd_str_find_char(path, '?');

    return at < 0 ? path : hd_str_sub(path, 0, (size_t)at);
}

static hd_str_t path_of(hd_req_t *req, const log_operator_t *part)
{
    hd_str_t path = HD_STR_NONE;

    if (!(part->path & PATH_CURRENT))
        path = request_header(req, HD_STR("x-envoy-original-path"));
    if (path.len == 0 && !(part->path & PATH_ORIGINAL))
        path = hd_req_raw_path(req);
    return part->path & PATH_NO_QUERY ? without_query(path) : path;
}

static hd_str_t query_of(hd_req_t *req, hd_str_t name)
{
    hd_str_t rest = hd_req_query(req), pair;

    while (hd_str_split(&rest, '&', &pair)) {
        ssize_t eq = hd_str_find_char(pair, '=');

        if (hd_str_eq(eq < 0 ? pair : hd_str_sub(pair, 0, (size_t)eq), name))
            return eq < 0 ? HD_STR_NONE : hd_str_sub(pair, (size_t)eq + 1, SIZE_MAX);
    }
    return HD_STR_NONE;
}

/* "1.2.3.4:80", "[::1]:80": one of its halves. */
static hd_str_t half_of(hd_str_t addr, bool is_port)
{
    size_t at = addr.len;

    while (at > 0 && addr.data[at - 1] != ':')
        at--;
    if (at == 0) /* a path */
        return is_port ? HD_STR_NONE : addr;
    if (is_port)
        return hd_str_sub(addr, at, SIZE_MAX);
    return addr.data[0] == '[' ? hd_str_sub(addr, 1, at - 3) : hd_str_sub(addr, 0, at - 1);
}

static hd_str_t upstream_local(const log_facts_t *facts)
{
    hd_addr_t addr;

    return facts->upstream != NULL && hd_conn_ask_local(facts->upstream, &addr)
               ? print(facts->of, &addr)
               : HD_STR_NONE;
}

static hd_str_t long_name(hd_str_t flag)
{
    for (size_t i = 0; i < hd_countof(long_names); i++) {
        if (hd_str_eq(flag, hd_str_c(long_names[i].flag)))
            return hd_str_c(long_names[i].name);
    }
    return flag;
}

static hd_str_t long_flags(const log_facts_t *facts)
{
    hd_str_t rest = facts->info.flags, all = HD_STR_NONE;

    while (rest.len > 0) {
        ssize_t comma = hd_str_find_char(rest, ',');
        size_t len = comma < 0 ? rest.len : (size_t)comma;

        all = hd_str_printf(facts->of->pool, "%.*s%s%.*s", HD_STR_ARG(all),
                            all.len > 0 ? "," : "",
                            HD_STR_ARG(long_name(hd_str_sub(rest, 0, len))));
        rest = hd_str_sub(rest, comma < 0 ? len : len + 1, SIZE_MAX);
    }
    return all;
}

/* gRPC's table of HTTP codes (doc/http-grpc-status-mapping.md). */
static uint32_t grpc_of_http(unsigned status)
{
    switch (status) {
    case 400:
        return 13;
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return 12;
    case 429:
    case 502:
    case 503:
    case 504:
        return 14;
    default:
        return 2;
    }
}

uint32_t log_facts_grpc_status(const log_facts_t *facts)
{
    return facts->info.grpc_status != UINT32_MAX ? facts->info.grpc_status
                                                 : grpc_of_http(facts->info.status);
}

static hd_str_t grpc_status(const log_facts_t *facts, op_t op)
{
    uint32_t status = facts->info.grpc_status;

    if (facts->of->req == NULL || !facts->info.is_grpc)
        return HD_STR_NONE;
    if (status == UINT32_MAX)
        status = grpc_of_http(facts->info.status);
    if (op == OP_GRPC_NUMBER || status >= hd_countof(grpc_names))
        return number(facts->of, status);
    return hd_str_c(grpc_names[status]);
}

static hd_str_t value_of(const log_operator_t *part, const log_facts_t *facts)
{
    const hd_attr_of_t *of = facts->of;
    const hd_req_info_t *info = &facts->info;

    switch (part->op) {
    case OP_TEXT:
        return part->text;
    case OP_ATTR:
        return hd_attr_text(of, &part->attr);
    case OP_REQ:
    case OP_RESP:
        return of->req != NULL ? header(of->req, part) : HD_STR_NONE;
    case OP_REQ_PATH:
        return of->req != NULL ? without_query(header(of->req, part)) : HD_STR_NONE;
    case OP_QUERY:
        return of->req != NULL ? query_of(of->req, part->text) : HD_STR_NONE;
    case OP_PATH:
        return of->req != NULL ? path_of(of->req, part) : HD_STR_NONE;
    case OP_LOG_TYPE:
        return of->req != NULL ? HD_STR("DownstreamEnd") : HD_STR("TcpConnectionEnd");
    case OP_START_TIME:
        return log_time(of->pool, part->text, info->start_wall_ns);
    case OP_STATUS:
        return number(of, info->status);
    case OP_FLAGS: /* "-" is a value of its own: JSON has no null there */
        return info->flags.len > 0 ? info->flags : HD_STR("-");
    case OP_FLAGS_LONG:
        return info->flags.len > 0 ? long_flags(facts) : HD_STR("-");
    case OP_DETAILS:
        return info->details;
    case OP_BYTES_RECEIVED:
        return number(of, info->bytes_received);
    case OP_BYTES_SENT:
        return number(of, info->bytes_sent);
    case OP_DURATION:
        return number(of, info->duration_ns / NS_PER_MS);
    case OP_ATTEMPTS:
        return number(of, info->tries);
    case OP_UPSTREAM_HOST:
        return info->upstream_host;
    case OP_UPSTREAM_SAN:
        return info->upstream_peer;
    case OP_UPSTREAM_IP:
    case OP_UPSTREAM_PORT:
        return half_of(info->upstream_host, part->op == OP_UPSTREAM_PORT);
    case OP_UPSTREAM_LOCAL:
        return upstream_local(facts);
    case OP_UPSTREAM_LOCAL_IP:
    case OP_UPSTREAM_LOCAL_PORT:
        return half_of(upstream_local(facts), part->op == OP_UPSTREAM_LOCAL_PORT);
    case OP_CLUSTER:
        return info->cluster;
    case OP_ROUTE:
        return info->route;
    case OP_FAILURE:
        return info->error;
    case OP_PROTOCOL:
        return hd_str_eq(info->protocol, HD_STR("HTTP/2.0")) ? HD_STR("HTTP/2")
                                                             : info->protocol;
    case OP_GRPC_NAME:
    case OP_GRPC_NUMBER:
        return grpc_status(facts, part->op);
    case OP_LOCAL:
    case OP_LOCAL_IP:
    case OP_LOCAL_PORT:
    case OP_REMOTE:
    case OP_DIRECT:
    case OP_DIRECT_IP:
        return address(of, part->op);
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
                            .grpc_status = UINT32_MAX,
                            .error = s->is_opened ? HD_STR_NONE : s->error};
}

void log_facts_init(log_facts_t *facts, const hd_attr_of_t *of)
{
    hd_session_info_t session = {.upstream = NULL};

    *facts = (log_facts_t){.of = of, .info = {.grpc_status = UINT32_MAX}};
    if (of->req != NULL) {
        hd_req_get_info(of->req, &facts->info);
    } else if (hd_session_get_info(of->conn, &session)) {
        describe_session(&session, &facts->info);
        facts->upstream = session.upstream;
    }
    if (hd_str_eq(facts->info.flags, HD_STR("-")))
        facts->info.flags = HD_STR_NONE;
}

static hd_str_t bounded(const log_operator_t *part, hd_str_t value)
{
    if (part->max_bytes > 0 && part->max_bytes < value.len)
        value.len = part->max_bytes;
    return value;
}

void log_operators_render(const log_operators_t *format, const log_facts_t *facts,
                          bool omit_empty, bool cleans, log_line_t *line)
{
    for (uint32_t i = 0; i < format->n; i++) {
        const log_operator_t *part = &format->parts[i];
        hd_str_t value = value_of(part, facts);

        if (value.len == 0 && !omit_empty)
            value = HD_STR("-");
        (cleans && part->op != OP_TEXT ? log_add_clean : log_add)(line,
                                                                  bounded(part, value));
    }
}

static bool is_number(const log_operator_t *part)
{
    switch (part->op) {
    case OP_STATUS:
    case OP_BYTES_RECEIVED:
    case OP_BYTES_SENT:
    case OP_DURATION:
    case OP_ATTEMPTS:
    case OP_GRPC_NUMBER:
    case OP_LOCAL_PORT:
        return part->max_bytes == 0;
    case OP_ATTR:
        return hd_str_eq(part->attr.name, HD_STR("connection"));
    default:
        return false;
    }
}

bool log_operators_single(const log_operators_t *format, const log_facts_t *facts,
                          hd_str_t *value, bool *number)
{
    if (format->n != 1 || format->parts[0].op == OP_TEXT)
        return false;
    *value = bounded(&format->parts[0], value_of(&format->parts[0], facts));
    *number = is_number(&format->parts[0]);
    return true;
}
