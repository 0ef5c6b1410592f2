/* fault: delays and errors on purpose, for a share of requests, to see how callers take
 * them: fault delay=2s percent=10 if=$http_x_test; fault abort=503 percent=1; or by xDS
 * (HTTPFault; VS-FAULT-*). A delay comes first, then the abort.
 */
#include "hd_module.h"
#include "lib/pb_match.h"
#include "lib/pb_unpack.h"
#include "lib/rand.h"
#include "ext/common_fault.pb-c.h"
#include "ext/http_fault.pb-c.h"

#define PPM 1000000u
#define DELAY_MS_MAX 3600000u
#define GRPC_NONE UINT32_MAX

typedef struct {
    uint32_t delay_ms, delay_ppm;
    bool delay_by_header; /* x-envoy-fault-delay-request: milliseconds */
    uint32_t status, grpc_status, abort_ppm;
    bool abort_by_header; /* x-envoy-fault-abort-request, -abort-grpc-request: a status */
    /* What a header's percentage counts, in ppm: a request may ask for less. */
    uint32_t delay_unit_ppm, abort_unit_ppm;
    bool is_set, has_grpc;
    const hd_expr_t *delay_if, *abort_if; /* a value that is not empty and not "0" */
    const pb_header_match_t *headers;
    uint32_t headers_n;
} fault_conf_t;

/* --- the directive --- */

static hd_rc_t set_percent(hd_str_t text, uint32_t *ppm, hd_err_t *err)
{
    ssize_t dot = hd_str_find_char(text, '.');
    hd_str_t whole = dot < 0 ? text : hd_str_sub(text, 0, (size_t)dot);
    hd_str_t part = dot < 0 ? HD_STR_NONE : hd_str_sub(text, (size_t)dot + 1, text.len);
    uint64_t n, fraction = 0;

    if (!hd_str_to_u64(whole, 100, &n) || part.len > 4 ||
        (part.len > 0 && !hd_str_to_u64(part, 9999, &fraction)))
        goto wrong;
    for (size_t i = part.len; i < 4; i++)
        fraction *= 10;
    *ppm = (uint32_t)(n * 10000 + fraction);
    if (*ppm <= PPM)
        return HD_OK;
wrong:
    return hd_err_set(err, HD_E_CONF, "percent=%.*s: 0 to 100, with up to 4 decimals",
                      HD_STR_ARG(text));
}

typedef struct {
    uint64_t delay_ms, status, grpc_status;
    uint32_t ppm;
    bool has_delay, has_abort, has_grpc;
    hd_expr_t *only_if;
} args_t;

/* Statuses of gRPC, by their number. */
static const char *const grpc_names[] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

/* A status of HTTP, or "grpc:" and one of gRPC, by name or number (VS-FAULT-2). */
static hd_rc_t set_abort(hd_str_t value, args_t *a, hd_err_t *err)
{
    hd_str_t grpc = HD_STR("grpc:"), name;

    a->has_abort = true;
    if (!hd_str_has_prefix(value, grpc))
        return hd_str_to_u64(value, 599, &a->status) && a->status >= 200
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF,
                                "abort=STATUS: 200 to 599, or grpc: and a status of gRPC");
    a->has_grpc = true;
    a->status = 200;
    name = hd_str_sub(value, grpc.len, value.len);
    if (hd_str_to_u64(name, hd_countof(grpc_names) - 1, &a->grpc_status))
        return HD_OK;
    for (a->grpc_status = 0; a->grpc_status < hd_countof(grpc_names); a->grpc_status++) {
        if (hd_str_eq(name, hd_str_c(grpc_names[a->grpc_status])))
            return HD_OK;
    }
    return hd_err_set(err, HD_E_CONF,
                      "abort=grpc:%.*s: a status of gRPC is 0 to 16, or its name, as in "
                      "grpc:UNAVAILABLE",
                      HD_STR_ARG(name));
}

static hd_rc_t set_parameter(hd_conf_t *cf, hd_str_t arg, args_t *a, hd_err_t *err)
{
    ssize_t eq = hd_str_find_char(arg, '=');
    hd_str_t name = hd_str_sub(arg, 0, eq < 0 ? 0 : (size_t)eq);
    hd_str_t value = eq < 0 ? HD_STR_NONE : hd_str_sub(arg, (size_t)eq + 1, arg.len);

    if (hd_str_eq(name, HD_STR("delay"))) {
        a->has_delay = true;
        if (hd_parse_msec(value, &a->delay_ms, err) != HD_OK)
            return HD_ERROR;
        return a->delay_ms > 0 && a->delay_ms <= DELAY_MS_MAX
                   ? HD_OK
                   : hd_err_set(err, HD_E_CONF, "delay=TIME: 1ms to 1h");
    }
    if (hd_str_eq(name, HD_STR("abort")))
        return set_abort(value, a, err);
    if (hd_str_eq(name, HD_STR("percent")))
        return set_percent(value, &a->ppm, err);
    if (hd_str_eq(name, HD_STR("if")))
        return hd_expr_compile(cf, value, &a->only_if, err);
    return hd_err_set(
        err, HD_E_CONF,
        "unknown parameter \"%.*s\"; allowed are delay=, abort=, percent=, if=",
        HD_STR_ARG(arg));
}

static hd_rc_t set_fault(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    fault_conf_t *fc = conf;
    args_t a = {.ppm = PPM};

    if (cf->is_first)
        memset(fc, 0, sizeof(*fc)); /* replaces what was inherited */
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        if (set_parameter(cf, args[i], &a, err) != HD_OK)
            return HD_ERROR;
    }
    if (a.has_delay == a.has_abort)
        return hd_err_set(err, HD_E_CONF,
                          "either delay=TIME or abort=STATUS is needed; two "
                          "directives give both");
    fc->is_set = true;
    if (a.has_delay) {
        fc->delay_ms = (uint32_t)a.delay_ms;
        fc->delay_ppm = a.ppm;
        fc->delay_if = a.only_if;
    } else {
        fc->status = (unsigned)a.status;
        fc->has_grpc = a.has_grpc;
        fc->grpc_status = (uint32_t)a.grpc_status;
        fc->abort_ppm = a.ppm;
        fc->abort_if = a.only_if;
    }
    return HD_OK;
}

/* --- xDS --- */

static uint32_t unit_ppm(const PbType__FractionalPercent *p)
{
    PbType__FractionalPercent one = PB_TYPE__FRACTIONAL_PERCENT__INIT;

    one.numerator = 1;
    one.denominator = p != NULL ? p->denominator : one.denominator;
    return hd_pb_fraction_ppm(&one, 0);
}

static hd_rc_t read_delay(const PbCommonFault__FaultDelay *d, fault_conf_t *fc,
                          hd_err_t *err)
{
    int64_t ms;

    fc->delay_ppm = hd_pb_fraction_ppm(d->percentage, 0);
    fc->delay_unit_ppm = unit_ppm(d->percentage);
    if (d->fault_delay_secifier_case ==
        PB_COMMON_FAULT__FAULT_DELAY__FAULT_DELAY_SECIFIER_HEADER_DELAY) {
        fc->delay_by_header = true;
        return HD_OK;
    }
    if (d->fault_delay_secifier_case !=
            PB_COMMON_FAULT__FAULT_DELAY__FAULT_DELAY_SECIFIER_FIXED_DELAY ||
        !hd_pb_duration_ms(d->fixed_delay, 0, &ms) || ms <= 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "fault.delay: fixed_delay must be more than 0");
    fc->delay_ms = (uint32_t)hd_min(ms, (int64_t)DELAY_MS_MAX);
    return HD_OK;
}

static hd_rc_t read_abort(const PbHttpFault__FaultAbort *a, fault_conf_t *fc,
                          hd_err_t *err)
{
    fc->abort_ppm = hd_pb_fraction_ppm(a->percentage, 0);
    fc->abort_unit_ppm = unit_ppm(a->percentage);
    switch (a->error_type_case) {
    case PB_HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_HTTP_STATUS:
        if (a->http_status < 200 || a->http_status > 599)
            return hd_err_set(err, HD_E_RESOURCE,
                              "fault.abort.http_status is 200 to 599");
        fc->status = a->http_status;
        return HD_OK;
    case PB_HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_GRPC_STATUS:
        fc->status = 200;
        fc->has_grpc = true;
        fc->grpc_status = a->grpc_status;
        return HD_OK;
    case PB_HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_HEADER_ABORT:
        fc->abort_by_header = true;
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "fault.abort: error_type is missing");
    }
}

static hd_rc_t read_fault(hd_conf_t *cf, const PbHttpFault__HTTPFault *f,
                          fault_conf_t *fc, hd_err_t *err)
{
    pb_header_match_t *headers = hd_pool_new_n(cf->pool, pb_header_match_t, f->n_headers);

    /* To leave these out would mean faults where none are wanted. */
    if (f->upstream_cluster[0] != '\0' || f->n_downstream_nodes > 0 ||
        f->max_active_faults != NULL || f->response_rate_limit != NULL)
        return hd_err_set(err, HD_E_RESOURCE,
                          "fault: upstream_cluster, downstream_nodes, max_active_faults "
                          "and response_rate_limit are not supported");
    fc->is_set = f->delay != NULL || f->abort != NULL;
    if (f->delay != NULL && read_delay(f->delay, fc, err) != HD_OK)
        return HD_ERROR;
    if (f->abort != NULL && read_abort(f->abort, fc, err) != HD_OK)
        return HD_ERROR;
    for (size_t i = 0; i < f->n_headers; i++) {
        if (pb_header_match(cf->pool, f->headers[i], &headers[i], err) != HD_OK)
            return HD_ERROR;
    }
    fc->headers = headers;
    fc->headers_n = (uint32_t)f->n_headers;
    return HD_OK;
}

static hd_rc_t build_fault(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                           hd_err_t *err)
{
    hd_pb_arena_t arena;
    const PbHttpFault__HTTPFault *f;
    hd_rc_t rc = HD_ERROR;

    (void)is_route;
    hd_pb_arena_init(&arena, 1 << 20);
    f = pb_unpack(HD_PB(pb_http_fault__httpfault), bytes, &arena, "fault: ", err);
    if (f != NULL)
        rc = read_fault(cf, f, conf, err);
    hd_pb_arena_deinit(&arena);
    return rc;
}

/* --- on a request --- */

static bool is_true(const hd_expr_t *e, hd_req_t *req)
{
    hd_str_t value;

    return e == NULL || (hd_expr_eval(e, req, &value) == HD_OK && value.len > 0 &&
                         !hd_str_eq(value, HD_STR("0")));
}

static bool is_drawn(uint32_t ppm)
{
    return ppm >= PPM || rand_next() % PPM < ppm;
}

static bool is_meant(hd_req_t *req, const fault_conf_t *fc)
{
    for (uint32_t i = 0; i < fc->headers_n; i++) {
        if (!pb_header_matches(req, &fc->headers[i]))
            return false;
    }
    return true;
}

/* At most <ppm>; less if the request says so in <header>. */
static bool is_drawn_by_header(hd_req_t *req, const char *header, uint32_t ppm,
                               uint32_t unit_ppm)
{
    bool found;
    uint64_t n;
    hd_str_t value = hd_req_header(req, hd_str_c(header), &found);

    if (found && hd_str_to_u64(value, PPM, &n))
        ppm = (uint32_t)hd_min((uint64_t)ppm, n * unit_ppm);
    return is_drawn(ppm);
}

static uint64_t delay_for(hd_req_t *req, const fault_conf_t *fc)
{
    uint64_t ms = fc->delay_ms;
    bool found;

    if (fc->delay_by_header) {
        hd_str_t value =
            hd_req_header(req, HD_STR("x-envoy-fault-delay-request"), &found);

        if (!found || !hd_str_to_u64(value, DELAY_MS_MAX, &ms) ||
            !is_drawn_by_header(req, "x-envoy-fault-delay-request-percentage",
                                fc->delay_ppm, fc->delay_unit_ppm))
            return 0;
        return ms;
    }
    return ms > 0 && is_drawn(fc->delay_ppm) && is_true(fc->delay_if, req) ? ms : 0;
}

typedef struct {
    uint64_t status; /* 0: none */
    uint64_t grpc_status;
    bool is_grpc;
} abort_t;

/* x-envoy-fault-abort-request: of HTTP; or else x-envoy-fault-abort-grpc-request. */
static abort_t abort_by_header(hd_req_t *req, const fault_conf_t *fc)
{
    abort_t a = {0};
    bool found;
    hd_str_t value = hd_req_header(req, HD_STR("x-envoy-fault-abort-request"), &found);

    if (found && hd_str_to_u64(value, 599, &a.status) && a.status < 200)
        a.status = 0;
    if (a.status == 0) {
        value = hd_req_header(req, HD_STR("x-envoy-fault-abort-grpc-request"), &found);
        a.is_grpc = found && hd_str_to_u64(value, UINT32_MAX, &a.grpc_status);
        a.status = a.is_grpc ? 200 : 0;
    }
    if (a.status > 0 && !is_drawn_by_header(req, "x-envoy-fault-abort-request-percentage",
                                            fc->abort_ppm, fc->abort_unit_ppm))
        a.status = 0;
    return a;
}

static abort_t abort_for(hd_req_t *req, const fault_conf_t *fc)
{
    abort_t a = {fc->status, fc->grpc_status, fc->has_grpc};

    if (fc->abort_by_header)
        return abort_by_header(req, fc);
    if (a.status > 0 && (!is_drawn(fc->abort_ppm) || !is_true(fc->abort_if, req)))
        a.status = 0;
    return a;
}

static hd_rc_t inject_abort(hd_req_t *req, const fault_conf_t *fc)
{
    hd_str_t text = HD_STR("fault filter abort");
    abort_t a = abort_for(req, fc);

    if (a.status == 0)
        return HD_OK;
    if (a.is_grpc && hd_req_is_grpc(req))
        return hd_req_answer_grpc(req, (uint32_t)a.grpc_status, text, "FI",
                                  "fault_filter_abort");
    return hd_req_answer(req, (unsigned)a.status, HD_STR("text/plain"), text, "FI",
                         "fault_filter_abort");
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const fault_conf_t *fc = conf;
    uint64_t ms;

    if (hd_req_is_resumed(req)) /* the delay is over */
        return inject_abort(req, fc);
    if (!fc->is_set || !is_meant(req, fc))
        return HD_OK;
    ms = delay_for(req, fc);
    if (ms == 0)
        return inject_abort(req, fc);
    hd_req_set_flag(req, "DI");
    return hd_req_wait_ms(req, ms);
}

static const hd_directive_t directives[] = {
    {.name = "fault",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .args_max = 3,
     .repeats = true,
     .set = set_fault,
     .help = "off | delay=TIME | abort=STATUS|grpc:STATUS [percent=P] [if=VALUE]: holds "
             "back or refuses a share of requests (100 percent) for which VALUE is "
             "neither empty nor 0; delay and abort may stand beside each other"},
    {0},
};

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
     .build = build_fault},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "fault",
    .directives = directives,
    .conf_size = sizeof(fault_conf_t),
    .phase = HD_PHASE_PREACCESS,
    .xds_types = xds_types,
    .on_request_headers = on_request_headers,
};
