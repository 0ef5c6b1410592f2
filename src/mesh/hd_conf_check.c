/* health_check of an upstream block: parameters are nginx Plus's. */
#include "mesh/hd_conf_guard.h"

#include <string.h>

#define RANGES_MAX 32

/* "200-399,418" */
static hd_rc_t read_statuses(hd_conf_t *cf, hd_str_t value, hd_check_conf_t *k,
                             hd_err_t *err)
{
    hd_status_range_t *list = hd_pool_new_n(cf->temp, hd_status_range_t, RANGES_MAX);
    hd_str_t rest = value, one;
    uint32_t n = 0;

    while (hd_str_split(&rest, ',', &one)) {
        ssize_t dash = hd_str_find_char(one, '-');
        hd_str_t from = dash < 0 ? one : hd_str_sub(one, 0, (size_t)dash);
        hd_str_t to = dash < 0 ? one : hd_str_sub(one, (size_t)dash + 1, one.len);
        uint64_t a, b;

        if (n == RANGES_MAX || !hd_str_to_u64(from, 599, &a) ||
            !hd_str_to_u64(to, 599, &b) || a < 100 || b < a)
            return hd_err_set(err, HD_E_CONF,
                              "status=\"%.*s\": statuses and ranges are expected, as "
                              "200-399,418",
                              HD_STR_ARG(value));
        list[n++] = (hd_status_range_t){(uint32_t)a, (uint32_t)b};
    }
    k->expected = list;
    k->expected_n = n;
    return HD_OK;
}

static hd_rc_t read_type(hd_str_t value, hd_check_conf_t *k, hd_err_t *err)
{
    if (hd_str_eq(value, HD_STR("http")))
        k->kind = HD_CHECK_HTTP;
    else if (hd_str_eq(value, HD_STR("grpc")))
        k->kind = HD_CHECK_GRPC;
    else if (hd_str_eq(value, HD_STR("tcp")))
        k->kind = HD_CHECK_TCP;
    else
        return hd_err_set(err, HD_E_CONF, "type=\"%.*s\": it is http, grpc or tcp",
                          HD_STR_ARG(value));
    return HD_OK;
}

/* HD_DECLINED: none of the numbers and times. */
static hd_rc_t set_number(hd_check_conf_t *k, hd_str_t name, hd_str_t value,
                          hd_err_t *err)
{
    uint32_t port;

    if (hd_str_eq(name, HD_STR("interval")))
        return hd_guard_read_time(name, value, &k->interval_ms, err);
    if (hd_str_eq(name, HD_STR("jitter")))
        return hd_guard_read_time(name, value, &k->jitter_ms, err);
    if (hd_str_eq(name, HD_STR("timeout")))
        return hd_guard_read_time(name, value, &k->timeout_ms, err);
    if (hd_str_eq(name, HD_STR("fails")))
        return hd_guard_read_number(name, value, 1000000, &k->unhealthy_threshold, err);
    if (hd_str_eq(name, HD_STR("passes")))
        return hd_guard_read_number(name, value, 1000000, &k->healthy_threshold, err);
    if (!hd_str_eq(name, HD_STR("port")))
        return HD_DECLINED;
    if (hd_guard_read_number(name, value, 65535, &port, err) != HD_OK)
        return HD_ERROR;
    k->port = (uint16_t)port;
    return HD_OK;
}

static hd_rc_t set_parameter(hd_conf_t *cf, hd_check_conf_t *k, hd_str_t name,
                             hd_str_t value, hd_err_t *err)
{
    hd_rc_t rc = set_number(k, name, value, err);
    hd_str_t *one;

    if (rc != HD_DECLINED)
        return rc;
    if (hd_str_eq(name, HD_STR("type")))
        return read_type(value, k, err);
    if (hd_str_eq(name, HD_STR("status")))
        return read_statuses(cf, value, k, err);
    if (hd_str_eq(name, HD_STR("uri")) && value.len > 0 && value.data[0] == '/') {
        k->path = value;
    } else if (hd_str_eq(name, HD_STR("host"))) {
        k->host = value;
    } else if (hd_str_eq(name, HD_STR("grpc_service")) && value.len <= 127) {
        k->service = value;
    } else if (hd_str_eq(name, HD_STR("send"))) {
        k->send = value;
    } else if (hd_str_eq(name, HD_STR("expect")) && value.len > 0) {
        k->receive = one = hd_pool_new(cf->temp, hd_str_t);
        *one = value;
        k->receive_n = 1;
    } else {
        return hd_err_set(
            err, HD_E_CONF,
            "invalid parameter \"%.*s\"; allowed are interval=, jitter=, "
            "timeout=, fails=, passes=, uri=/…, port=, type=, status=, host=, "
            "grpc_service=, send=, expect=, mandatory, persistent",
            HD_STR_ARG(name));
    }
    return HD_OK;
}

hd_rc_t hd_conf_set_check(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    static const hd_status_range_t good = {200, 399}; /* as in nginx */
    hd_guard_conf_t *g = conf;
    hd_check_conf_t *k = &g->check;

    g->has_check = true;
    *k = (hd_check_conf_t){.kind = cf->scope == HD_IN_STREAM_UPSTREAM ? HD_CHECK_TCP
                                                                      : HD_CHECK_HTTP,
                           .interval_ms = 5000,
                           .timeout_ms = 5000,
                           .unhealthy_threshold = 1,
                           .healthy_threshold = 1,
                           .expected = &good,
                           .expected_n = 1,
                           .path = HD_STR("/"),
                           .method = HD_STR("GET")};
    for (uint32_t i = 0; i < cf->node->args_n; i++) {
        hd_str_t name = args[i], value = HD_STR_NONE;

        if (hd_str_eq(name, HD_STR("mandatory"))) {
            k->starts_down = true;
            continue;
        }
        if (hd_str_eq(name, HD_STR("persistent"))) /* results always outlive a reload */
            continue;
        hd_ignore(hd_guard_split(args[i], &name, &value));
        if (set_parameter(cf, k, name, value, err) != HD_OK)
            return HD_ERROR;
    }
    if (k->unhealthy_threshold == 0 || k->healthy_threshold == 0)
        return hd_err_set(err, HD_E_CONF,
                          "\"health_check\": fails= and passes= are 1 at least");
    return HD_OK;
}

void hd_conf_apply_check(const hd_guard_conf_t *g, hd_cluster_t *c, hd_pool_t *pool)
{
    static const hd_status_range_t any = {100, 599}; /* nginx: fails= counts them all */
    hd_status_range_t *ranges;
    hd_check_conf_t *k;
    hd_str_t *receive;

    if (!g->has_check)
        return;
    c->check = k = hd_pool_new(pool, hd_check_conf_t);
    *k = g->check;
    k->path = hd_str_dup(pool, k->path);
    k->method = hd_str_dup(pool, k->method);
    k->host = hd_str_dup(pool, k->host);
    k->service = hd_str_dup(pool, k->service);
    k->send = hd_str_dup(pool, k->send);
    ranges = hd_pool_new_n(pool, hd_status_range_t, k->expected_n + 1);
    memcpy(ranges, k->expected, k->expected_n * sizeof(*ranges));
    k->expected = ranges;
    ranges[k->expected_n] = any;
    k->retriable = &ranges[k->expected_n];
    k->retriable_n = 1;
    if (k->receive_n == 0)
        return;
    receive = hd_pool_new(pool, hd_str_t);
    *receive = hd_str_dup(pool, k->receive[0]);
    k->receive = receive;
}
