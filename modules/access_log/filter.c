#include "filter.h"

#include "lib/pb_match.h"
#include "lib/rand.h"

#define DEPTH_MAX 16
#define MILLION 1000000u
#define GRPC_STATUS_MAX 16

typedef enum {
    WANT_STATUS,
    WANT_DURATION,
    WANT_ALL,  /* NotHealthCheckFilter: no request is one of ours */
    WANT_NONE, /* TraceableFilter: nothing is traced */
    WANT_SHARE,
    WANT_AND,
    WANT_OR,
    WANT_HEADER,
    WANT_FLAGS,
    WANT_GRPC,
} kind_t;

struct log_filter_s {
    kind_t kind;
    PbAccesslog__ComparisonFilter__Op op;
    uint32_t value; /* of a comparison; parts in a million of a share */
    bool is_random; /* a share, whatever the request's id */
    bool is_not;    /* GrpcStatusFilter.exclude */
    uint32_t n;
    const log_filter_t *const *filters;
    const hd_str_t *flags; /* of n = 0: any */
    uint32_t statuses;     /* bits by gRPC's codes */
    pb_header_match_t header;
};

/* --- compiling --- */

static hd_rc_t set_comparison(log_filter_t *f, kind_t kind,
                              const PbAccesslog__ComparisonFilter *msg, hd_err_t *err)
{
    f->kind = kind;
    if (msg == NULL || msg->value == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an access log's filter without comparison");
    if (msg->op > PB_ACCESSLOG__COMPARISON_FILTER__OP__NE)
        return hd_err_set(err, HD_E_RESOURCE, "a comparison of an unknown kind");
    f->op = msg->op;
    f->value = msg->value->default_value; /* there is no runtime layer */
    return HD_OK;
}

static bool is_flag(hd_str_t flag)
{
    static const char *const all[] = {
        "LH",  "UH",   "UT",   "LR",  "UR",    "UF",   "UC", "UO",   "NR",   "DI",
        "FI",  "RL",   "UAEX", "RLSE", "DC",   "URX",  "SI", "IH",   "DPE",  "UMSDR",
        "RFCF", "NFCF", "DT",  "UPE", "NC",    "OM",   "DF", "DO",   "DR",   "UDO"};

    for (size_t i = 0; i < hd_countof(all); i++) {
        if (hd_str_eq(flag, hd_str_c(all[i])))
            return true;
    }
    return false;
}

static hd_rc_t set_flags(hd_conf_t *cf, log_filter_t *f,
                         const PbAccesslog__ResponseFlagFilter *msg, hd_err_t *err)
{
    hd_str_t *flags = hd_pool_new_n(cf->pool, hd_str_t, msg->n_flags + 1);

    f->kind = WANT_FLAGS;
    for (size_t i = 0; i < msg->n_flags; i++) {
        flags[i] = hd_str_dup(cf->pool, hd_str_c(msg->flags[i]));
        if (!is_flag(flags[i]))
            return hd_err_set(err, HD_E_RESOURCE, "\"%s\" is no response flag",
                              msg->flags[i]);
    }
    f->flags = flags;
    f->n = (uint32_t)msg->n_flags;
    return HD_OK;
}

static hd_rc_t set_statuses(log_filter_t *f, const PbAccesslog__GrpcStatusFilter *msg,
                            hd_err_t *err)
{
    f->kind = WANT_GRPC;
    f->is_not = msg->exclude != 0;
    for (size_t i = 0; i < msg->n_statuses; i++) {
        if ((unsigned)msg->statuses[i] > GRPC_STATUS_MAX)
            return hd_err_set(err, HD_E_RESOURCE, "%d is no status of gRPC",
                              (int)msg->statuses[i]);
        f->statuses |= 1u << msg->statuses[i];
    }
    return HD_OK;
}

static hd_rc_t set_share(log_filter_t *f, const PbAccesslog__RuntimeFilter *msg)
{
    f->kind = WANT_SHARE;
    f->is_random = msg->use_independent_randomness != 0;
    f->value = hd_pb_fraction_ppm(msg->percent_sampled, 0);
    return HD_OK;
}

static hd_rc_t compile(hd_conf_t *cf, const PbAccesslog__AccessLogFilter *msg,
                       unsigned depth, const log_filter_t **to, hd_err_t *err);

static hd_rc_t set_all(hd_conf_t *cf, log_filter_t *f, kind_t kind,
                       PbAccesslog__AccessLogFilter *const *msgs, size_t n,
                       unsigned depth, hd_err_t *err)
{
    const log_filter_t **list = hd_pool_new_n(cf->pool, const log_filter_t *, n + 1);

    f->kind = kind;
    f->filters = list;
    f->n = (uint32_t)n;
    if (n < 2)
        return hd_err_set(err, HD_E_RESOURCE, "an and or or of fewer than two filters");
    for (size_t i = 0; i < n; i++) {
        hd_rc_t rc = compile(cf, msgs[i], depth + 1, &list[i], err);

        if (rc != HD_OK)
            return rc;
    }
    return HD_OK;
}

static hd_rc_t compile(hd_conf_t *cf, const PbAccesslog__AccessLogFilter *msg,
                       unsigned depth, const log_filter_t **to, hd_err_t *err)
{
    log_filter_t *f = hd_pool_new(cf->pool, log_filter_t);

    *to = f;
    if (depth > DEPTH_MAX)
        return hd_err_set(err, HD_E_RESOURCE, "access log filters of more than %d levels",
                          DEPTH_MAX);
    switch (msg->filter_specifier_case) {
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_STATUS_CODE_FILTER:
        return set_comparison(f, WANT_STATUS, msg->status_code_filter->comparison, err);
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_DURATION_FILTER:
        return set_comparison(f, WANT_DURATION, msg->duration_filter->comparison, err);
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_NOT_HEALTH_CHECK_FILTER:
        f->kind = WANT_ALL;
        return HD_OK;
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_TRACEABLE_FILTER:
        f->kind = WANT_NONE;
        return HD_OK;
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RUNTIME_FILTER:
        return set_share(f, msg->runtime_filter);
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_AND_FILTER:
        return set_all(cf, f, WANT_AND, msg->and_filter->filters,
                       msg->and_filter->n_filters, depth, err);
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_OR_FILTER:
        return set_all(cf, f, WANT_OR, msg->or_filter->filters,
                       msg->or_filter->n_filters, depth, err);
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_HEADER_FILTER:
        f->kind = WANT_HEADER;
        return msg->header_filter->header != NULL
                   ? pb_header_match(cf->pool, msg->header_filter->header, &f->header,
                                     err)
                   : hd_err_set(err, HD_E_RESOURCE, "a header filter without its header");
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RESPONSE_FLAG_FILTER:
        return set_flags(cf, f, msg->response_flag_filter, err);
    case PB_ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_GRPC_STATUS_FILTER:
        return set_statuses(f, msg->grpc_status_filter, err);
    default:
        return HD_DECLINED;
    }
}

hd_rc_t log_filter_compile(hd_conf_t *cf, const PbAccesslog__AccessLogFilter *msg,
                           const log_filter_t **to, hd_err_t *err)
{
    return compile(cf, msg, 1, to, err);
}

/* --- asking --- */

static bool compares(const log_filter_t *f, uint64_t n)
{
    switch (f->op) {
    case PB_ACCESSLOG__COMPARISON_FILTER__OP__GE:
        return n >= f->value;
    case PB_ACCESSLOG__COMPARISON_FILTER__OP__LE:
        return n <= f->value;
    case PB_ACCESSLOG__COMPARISON_FILTER__OP__NE:
        return n != f->value;
    default:
        return n == f->value;
    }
}

static bool has_flag(const log_filter_t *f, hd_str_t set)
{
    if (f->n == 0)
        return set.len > 0;
    while (set.len > 0) {
        ssize_t comma = hd_str_find_char(set, ',');
        size_t len = comma < 0 ? set.len : (size_t)comma;

        for (uint32_t i = 0; i < f->n; i++) {
            if (hd_str_eq(f->flags[i], hd_str_sub(set, 0, len)))
                return true;
        }
        set = hd_str_sub(set, comma < 0 ? len : len + 1, SIZE_MAX);
    }
    return false;
}

static bool has_status(const log_filter_t *f, uint32_t status)
{
    return status <= GRPC_STATUS_MAX && (f->statuses >> status & 1) != 0;
}

/* By the request's id, if it has one, so that all who see it choose alike. */
static bool is_sampled(const log_filter_t *f, const log_facts_t *facts)
{
    uint64_t n = rand_next();

    if (!f->is_random && facts->of->req != NULL) {
        hd_str_t id = hd_req_header(facts->of->req, HD_STR("x-request-id"), NULL);

        if (id.len > 0)
            n = hd_hash64(id.data, id.len, 0);
    }
    return n % MILLION < f->value;
}

bool log_filter_wants(const log_filter_t *f, const log_facts_t *facts)
{
    switch (f->kind) {
    case WANT_STATUS:
        return compares(f, facts->info.status);
    case WANT_DURATION:
        return compares(f, facts->info.duration_ns / 1000000);
    case WANT_SHARE:
        return is_sampled(f, facts);
    case WANT_AND:
    case WANT_OR:
        for (uint32_t i = 0; i < f->n; i++) {
            if (log_filter_wants(f->filters[i], facts) != (f->kind == WANT_AND))
                return f->kind == WANT_OR;
        }
        return f->kind == WANT_AND;
    case WANT_HEADER:
        return facts->of->req != NULL && pb_header_matches(facts->of->req, &f->header);
    case WANT_FLAGS:
        return has_flag(f, facts->info.flags);
    case WANT_GRPC:
        return has_status(f, log_facts_grpc_status(facts)) != f->is_not;
    case WANT_NONE:
        return false;
    case WANT_ALL:
        break;
    }
    return true;
}
