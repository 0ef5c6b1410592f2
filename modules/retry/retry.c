/* retry: another try where the first one failed, as in
 *     retry 5xx reset attempts=3 backoff=25ms,250ms status=429;
 * or by xDS in a route's RetryPolicy (VS-RETRY-*). How often at most, and how long to
 * wait: full jitter over a doubling bound, so that clients which failed together don't
 * come back together. Budgets over all requests are the cluster's (max_retries,
 * retry_budget). */
#include "hd_module.h"
#include "hd_pb.h"
#include "hd_pb_value.h"
#include "lib/pb_match.h"
#include "lib/pb_unpack.h"
#include "lib/rand.h"
#include "ext/retry_priorities.pb-c.h"
#include "xds/route.pb-c.h"

enum {
    ON_5XX = 1,                  /* 500 to 599, and whatever ends without a response */
    ON_GATEWAY_ERROR = 2,        /* 502, 503, 504, and likewise */
    ON_RESET = 4,                /* no response: reset, closed, timed out */
    ON_RESET_BEFORE_REQUEST = 8, /* the same, before a byte of the request was sent */
    ON_CONNECT_FAILURE = 16,
    ON_REFUSED_STREAM = 32, /* the upstream says it didn't process it */
    ON_RETRIABLE_4XX = 64,  /* 409 */
    ON_STATUS = 128,        /* the listed ones */
    ON_CANCELLED = 256,     /* gRPC statuses, from the response's head */
    ON_DEADLINE_EXCEEDED = 512,
    ON_RESOURCE_EXHAUSTED = 1024,
    ON_UNAVAILABLE = 2048,
    ON_INTERNAL = 4096,
    ON_RATELIMITED = 8192, /* a response with x-envoy-ratelimited */
    ON_HEADERS = 16384,    /* a response with one of the listed fields */
    IDEMPOTENT_ONLY = 1 << 30,
};

static const struct {
    const char *name;
    uint32_t bit;
} conditions[] = {
    {"5xx", ON_5XX},
    {"gateway-error", ON_GATEWAY_ERROR},
    {"reset", ON_RESET},
    {"reset-before-request", ON_RESET_BEFORE_REQUEST},
    {"connect-failure", ON_CONNECT_FAILURE},
    {"refused-stream", ON_REFUSED_STREAM},
    {"retriable-4xx", ON_RETRIABLE_4XX},
    {"retriable-status-codes", ON_STATUS},
    {"cancelled", ON_CANCELLED},
    {"deadline-exceeded", ON_DEADLINE_EXCEEDED},
    {"resource-exhausted", ON_RESOURCE_EXHAUSTED},
    {"unavailable", ON_UNAVAILABLE},
    {"internal", ON_INTERNAL},
    {"envoy-ratelimited", ON_RATELIMITED},
    {"retriable-headers", ON_HEADERS},
};

#define STATUS_MIN 100
#define STATUS_MAX 599
#define ATTEMPTS_MAX 100
#define BACKOFF_MS 25 /* Envoy's; the ceiling is ten times as much */

typedef struct {
    uint32_t on;
    uint32_t attempts; /* retries, beyond the first try */
    uint32_t base_ms, max_ms;
    bool may_repeat;               /* an endpoint that was tried */
    uint32_t priorities_frequency; /* hd_pick_t's; 0: not wanted */
    uint32_t try_timeout_ms;       /* 0: the route's; by xDS it stands there */
    uint64_t statuses[(STATUS_MAX - STATUS_MIN) / 64 + 1]; /* a bit each, from STATUS_MIN */
    const pb_header_match_t *headers; /* by xDS: of the response */
    const pb_header_match_t *asked;   /* likewise: only such requests; asked_n 0: all */
    uint32_t headers_n, asked_n;
    bool is_set;
} retry_conf_t;

static uint32_t condition_of(hd_str_t name)
{
    for (unsigned i = 0; i < hd_countof(conditions); i++) {
        if (hd_str_eq(name, hd_str_c(conditions[i].name)))
            return conditions[i].bit;
    }
    return 0;
}

/* Others can't come. */
static void put_status(retry_conf_t *rc, uint64_t status)
{
    if (status >= STATUS_MIN && status <= STATUS_MAX)
        rc->statuses[(status - STATUS_MIN) / 64] |= UINT64_C(1)
                                                    << ((status - STATUS_MIN) % 64);
}

static hd_rc_t add_status(retry_conf_t *rc, hd_str_t text, hd_err_t *err)
{
    uint64_t status;

    if (!hd_str_to_u64(text, 599, &status) || status < 100)
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is no status: 100 to 599 are",
                          HD_STR_ARG(text));
    put_status(rc, status);
    rc->on |= ON_STATUS;
    return HD_OK;
}

/* --- the directive --- */

static hd_rc_t set_backoff(retry_conf_t *rc, hd_str_t text, hd_err_t *err)
{
    hd_str_t base;
    uint64_t ms;

    hd_str_split(&text, ',', &base);
    if (hd_parse_msec(base, &ms, err) != HD_OK)
        return HD_ERROR;
    rc->base_ms = (uint32_t)hd_min(ms, 3600000u);
    rc->max_ms = rc->base_ms * 10;
    if (text.len > 0) {
        if (hd_parse_msec(text, &ms, err) != HD_OK)
            return HD_ERROR;
        rc->max_ms = (uint32_t)hd_min(ms, 3600000u);
    }
    if (rc->base_ms == 0 || rc->max_ms < rc->base_ms)
        return hd_err_set(err, HD_E_CONF,
                          "backoff=BASE[,MAX]: BASE is at least 1ms, MAX not less");
    return HD_OK;
}

static hd_rc_t set_parameter(retry_conf_t *rc, hd_str_t arg, hd_err_t *err)
{
    ssize_t eq = hd_str_find_char(arg, '=');
    hd_str_t name = hd_str_sub(arg, 0, eq < 0 ? 0 : (size_t)eq);
    hd_str_t value = eq < 0 ? HD_STR_NONE : hd_str_sub(arg, (size_t)eq + 1, arg.len), one;
    uint64_t n;

    if (hd_str_eq(name, HD_STR("attempts"))) {
        if (!hd_str_to_u64(value, ATTEMPTS_MAX, &n) || n == 0)
            return hd_err_set(err, HD_E_CONF, "attempts=N: 1 to %d", ATTEMPTS_MAX);
        rc->attempts = (uint32_t)n;
        return HD_OK;
    }
    if (hd_str_eq(name, HD_STR("backoff")))
        return set_backoff(rc, value, err);
    if (hd_str_eq(name, HD_STR("per_try_timeout"))) {
        if (hd_parse_msec(value, &n, err) != HD_OK)
            return HD_ERROR;
        rc->try_timeout_ms = (uint32_t)hd_min(n, 3600000u);
        return n > 0 ? HD_OK
                     : hd_err_set(err, HD_E_CONF, "per_try_timeout=TIME: at least 1ms");
    }
    if (hd_str_eq(name, HD_STR("status"))) {
        while (hd_str_split(&value, ',', &one)) {
            if (add_status(rc, one, err) != HD_OK)
                return HD_ERROR;
        }
        return HD_OK;
    }
    return hd_err_set(
        err, HD_E_CONF,
        "unknown condition or parameter \"%.*s\"; conditions are 5xx gateway-error "
        "reset reset-before-request connect-failure refused-stream retriable-4xx "
        "cancelled deadline-exceeded resource-exhausted unavailable internal "
        "envoy-ratelimited idempotent, parameters attempts= backoff= per_try_timeout= "
        "status=",
        HD_STR_ARG(arg));
}

static hd_rc_t set_retry(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    retry_conf_t *rc = conf;

    memset(rc, 0, sizeof(*rc)); /* replaces what was inherited */
    if (cf->node->args_n == 1 && hd_str_eq(args[0], HD_STR("off")))
        return HD_OK;
    rc->is_set = true;
    rc->attempts = 2; /* Istio's default, as below */
    rc->base_ms = BACKOFF_MS;
    rc->max_ms = BACKOFF_MS * 10;
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        uint32_t bit = condition_of(args[i]);

        if (hd_str_eq(args[i], HD_STR("idempotent")))
            bit = IDEMPOTENT_ONLY;
        rc->on |= bit;
        if (bit == 0 && set_parameter(rc, args[i], err) != HD_OK)
            return HD_ERROR;
    }
    if ((rc->on & ~IDEMPOTENT_ONLY) ==
        0) /* VS-RETRY: what Istio retries when nothing is said */
        rc->on |= ON_CONNECT_FAILURE | ON_REFUSED_STREAM | ON_UNAVAILABLE | ON_CANCELLED;
    return HD_OK;
}

/* --- xDS --- */

/* Names that we don't know are skipped, as Envoy does: a policy may be written for
 * several. */
static void read_conditions(retry_conf_t *rc, hd_str_t text)
{
    hd_str_t one;

    while (hd_str_split(&text, ',', &one))
        rc->on |= condition_of(hd_str_trim(one));
}

static bool ends_with(const char *url, const char *name)
{
    return url != NULL && hd_str_has_suffix(hd_str_c(url), hd_str_c(name));
}

/* Where retries go: not to endpoints, not to priorities that were tried. */
static hd_rc_t read_choice(const PbRoute__RetryPolicy *p, retry_conf_t *rc, hd_err_t *err)
{
    const PbRoute__RetryPolicy__RetryPriority *pri = p->retry_priority;
    const PbRetryPriorities__PreviousPrioritiesConfig *m;
    hd_pb_fault_t fault = {0};
    hd_pb_arena_t arena;

    rc->may_repeat = true;
    for (size_t i = 0; i < p->n_retry_host_predicate; i++) {
        const PbRoute__RetryPolicy__RetryHostPredicate *h = p->retry_host_predicate[i];
        const char *url = h->typed_config != NULL ? h->typed_config->type_url : h->name;

        if (ends_with(url, "previous_hosts.v3.PreviousHostsPredicate") ||
            ends_with(url, "previous_hosts"))
            rc->may_repeat = false;
    }
    if (pri == NULL || pri->typed_config == NULL ||
        !hd_pb_any_is(pri->typed_config,
                      HD_PB(pb_retry_priorities__previous_priorities_config)))
        return HD_OK;
    hd_pb_arena_init(&arena, 4096);
    m = hd_pb_unpack_any_as(pri->typed_config,
                            HD_PB(pb_retry_priorities__previous_priorities_config),
                            &arena, &fault);
    rc->priorities_frequency = m != NULL ? (uint32_t)hd_max(m->update_frequency, 0) : 0;
    hd_pb_arena_deinit(&arena);
    return rc->priorities_frequency > 0
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE,
                            "previous_priorities: update_frequency is 1 or more");
}

static hd_rc_t read_headers(hd_conf_t *cf, PbRoute__HeaderMatcher *const *msgs, size_t n,
                            const pb_header_match_t **list, uint32_t *list_n,
                            hd_err_t *err)
{
    pb_header_match_t *to = n > 0 ? hd_pool_new_n(cf->pool, pb_header_match_t, n) : NULL;

    for (size_t i = 0; i < n; i++) {
        if (pb_header_match(cf->pool, msgs[i], &to[i], err) != HD_OK)
            return HD_ERROR;
    }
    *list = to;
    *list_n = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t read_policy(hd_conf_t *cf, const PbRoute__RetryPolicy *p, retry_conf_t *rc,
                           hd_err_t *err)
{
    int64_t ms;

    rc->is_set = true;
    read_conditions(rc, hd_str_c(p->retry_on));
    rc->attempts = hd_min(hd_pb_u32(p->num_retries, 1), (uint32_t)ATTEMPTS_MAX);
    for (size_t i = 0; i < p->n_retriable_status_codes; i++)
        put_status(rc, p->retriable_status_codes[i]);
    if (read_choice(p, rc, err) != HD_OK ||
        read_headers(cf, p->retriable_headers, p->n_retriable_headers, &rc->headers,
                     &rc->headers_n, err) != HD_OK ||
        read_headers(cf, p->retriable_request_headers, p->n_retriable_request_headers,
                     &rc->asked, &rc->asked_n, err) != HD_OK)
        return HD_ERROR;
    rc->base_ms = BACKOFF_MS;
    rc->max_ms = BACKOFF_MS * 10;
    if (p->retry_back_off == NULL)
        return HD_OK;
    if (p->retry_back_off->base_interval == NULL ||
        !hd_pb_duration_ms(p->retry_back_off->base_interval, 0, &ms) || ms <= 0)
        return hd_err_set(err, HD_E_RESOURCE,
                          "retry_back_off.base_interval must be more than 0");
    rc->base_ms = (uint32_t)hd_min(ms, 3600000);
    if (!hd_pb_duration_ms(p->retry_back_off->max_interval, (int64_t)rc->base_ms * 10,
                           &ms) ||
        ms < rc->base_ms)
        return hd_err_set(
            err, HD_E_RESOURCE,
            "retry_back_off.max_interval must not be less than base_interval");
    rc->max_ms = (uint32_t)hd_min(ms, 3600000);
    return HD_OK;
}

static hd_rc_t build_policy(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                            hd_err_t *err)
{
    hd_pb_arena_t arena;
    const PbRoute__RetryPolicy *p;
    hd_rc_t rc = HD_ERROR;

    (void)is_route;
    hd_pb_arena_init(&arena, 65536);
    p = pb_unpack(HD_PB(pb_route__retry_policy), bytes, &arena, "retry_policy: ", err);
    if (p != NULL)
        rc = read_policy(cf, p, conf, err);
    hd_pb_arena_deinit(&arena);
    return rc;
}

/* --- judging a try --- */

static bool has_status(const retry_conf_t *rc, unsigned status)
{
    return status >= STATUS_MIN && status <= STATUS_MAX &&
           (rc->statuses[(status - STATUS_MIN) / 64] >> ((status - STATUS_MIN) % 64) & 1);
}

static bool has_header(const retry_conf_t *rc, hd_req_t *req)
{
    for (uint32_t i = 0; i < rc->headers_n; i++) {
        bool found;
        hd_str_t value = hd_res_header(req, rc->headers[i].name, &found);

        if (pb_value_matches(req, &rc->headers[i], value, found))
            return true;
    }
    return false;
}

static bool is_asked(const retry_conf_t *rc, hd_req_t *req)
{
    for (uint32_t i = 0; i < rc->asked_n; i++) {
        if (pb_header_matches(req, &rc->asked[i]))
            return true;
    }
    return rc->asked_n == 0;
}

static uint32_t grpc_condition(uint32_t grpc_status)
{
    switch (grpc_status) {
    case 1:
        return ON_CANCELLED;
    case 4:
        return ON_DEADLINE_EXCEEDED;
    case 8:
        return ON_RESOURCE_EXHAUSTED;
    case 13:
        return ON_INTERNAL;
    case 14:
        return ON_UNAVAILABLE;
    default:
        return 0;
    }
}

/* Every condition that this result meets. */
static uint32_t conditions_met(const retry_conf_t *rc, hd_req_t *req,
                               const hd_try_result_t *r)
{
    uint32_t met = 0;
    bool found;

    switch (r->result) {
    case HD_RESULT_OK:
        if (r->status >= 500)
            met |= ON_5XX;
        if (r->status >= 502 && r->status <= 504)
            met |= ON_GATEWAY_ERROR;
        if (r->status == 409)
            met |= ON_RETRIABLE_4XX;
        if (has_status(rc, r->status))
            met |= ON_STATUS;
        if (rc->on & ON_RATELIMITED) {
            hd_res_header(req, HD_STR("x-envoy-ratelimited"), &found);
            met |= found ? ON_RATELIMITED : 0;
        }
        if ((rc->on & ON_HEADERS) && has_header(rc, req))
            met |= ON_HEADERS;
        return met | grpc_condition(r->grpc_status);
    case HD_RESULT_CONNECT:
        met = ON_5XX | ON_GATEWAY_ERROR | ON_RESET | ON_CONNECT_FAILURE;
        break;
    case HD_RESULT_TIMEOUT:
    case HD_RESULT_RESET:
        met = ON_5XX | ON_GATEWAY_ERROR | ON_RESET;
        break;
    case HD_RESULT_CANCELLED:
        return 0;
    }
    if (!r->head_sent)
        met |= ON_RESET_BEFORE_REQUEST;
    if (r->refused_stream)
        met |= ON_REFUSED_STREAM;
    return met;
}

static bool is_idempotent(hd_str_t method) /* RFC 9110 §9.2.2 */
{
    static const char *const names[] = {"GET", "HEAD",   "OPTIONS",
                                        "PUT", "DELETE", "TRACE"};

    for (unsigned i = 0; i < hd_countof(names); i++) {
        if (hd_str_eq(method, hd_str_c(names[i])))
            return true;
    }
    return false;
}

/* Full jitter: anywhere in [0, bound), the bound doubling from base to max (VS-RETRY
 * back-off). */
static uint64_t wait_before(const retry_conf_t *rc, uint32_t attempt)
{
    uint64_t bound = rc->base_ms;

    for (uint32_t i = 1; i < attempt && bound < rc->max_ms; i++)
        bound *= 2;
    bound = hd_min(bound, rc->max_ms);
    return bound == 0 ? 0 : rand_next() % bound;
}

static hd_verdict_t on_try_result(hd_req_t *req, const void *conf,
                                  const hd_try_result_t *r, uint64_t *wait_ms)
{
    const retry_conf_t *rc = conf;

    if ((conditions_met(rc, req, r) & rc->on) == 0 || !is_asked(rc, req))
        return HD_TRY_DONE;
    if ((rc->on & IDEMPOTENT_ONLY) && r->head_sent && !is_idempotent(hd_req_method(req)))
        return HD_TRY_DONE;
    if (r->attempt > rc->attempts) {
        if (rc->attempts > 0)
            hd_req_set_flag(req, "URX"); /* VS-RETRY-15 */
        return HD_TRY_DONE;
    }
    *wait_ms = wait_before(rc, r->attempt);
    return HD_TRY_RETRY;
}

static hd_rc_t on_pick(hd_req_t *req, const void *conf, hd_pick_t *pick)
{
    const retry_conf_t *rc = conf;

    (void)req;
    pick->try_timeout_ms = rc->try_timeout_ms;
    pick->may_repeat = rc->may_repeat;
    pick->priorities_frequency = rc->priorities_frequency;
    return HD_OK;
}

static const hd_directive_t directives[] = {
    {.name = "retry",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .set = set_retry,
     .help = "off | CONDITION… [attempts=N] [backoff=BASE[,MAX]] [per_try_timeout=TIME] "
             "[status=CODE,…] [idempotent]: tries again, at most N times (2), where a "
             "try ended so; the wait is random below a bound that doubles from BASE "
             "(25ms) to MAX (10 × BASE)"},
    {0},
};

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/envoy.config.route.v3.RetryPolicy",
     .build = build_policy},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "retry",
    .directives = directives,
    .conf_size = sizeof(retry_conf_t),
    .phase = HD_PHASE_CONTENT,
    .xds_types = xds_types,
    .on_pick = on_pick,
    .on_try_result = on_try_result,
};
