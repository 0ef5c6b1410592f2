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

/* The `match` block of that name, before or behind the upstream. */
static hd_rc_t find_match(hd_conf_t *cf, hd_str_t name, const hd_node_t **match,
                          hd_err_t *err)
{
    const hd_node_t *upstream = cf->node->parent;
    const hd_node_t *n = upstream->parent->first;

    while (n != NULL && !(hd_str_eq(n->name, HD_STR("match")) && n->args_n == 1 &&
                          hd_str_eq(n->args[0], name)))
        n = n->next;
    *match = n;
    return n != NULL ? HD_OK
                     : hd_err_set(err, HD_E_CONF, "there is no match block \"%.*s\"",
                                  HD_STR_ARG(name));
}

static hd_rc_t set_parameter(hd_conf_t *cf, hd_check_draft_t *d, hd_str_t name,
                             hd_str_t value, hd_err_t *err)
{
    hd_check_conf_t *k = &d->check;
    hd_rc_t rc = set_number(k, name, value, err);
    hd_str_t *one;

    if (rc != HD_DECLINED)
        return rc;
    if (hd_str_eq(name, HD_STR("match")))
        return find_match(cf, value, &d->match, err);
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
            "grpc_service=, send=, expect=, match=, mandatory, persistent",
            HD_STR_ARG(name));
    }
    return HD_OK;
}

/* Another one, behind those that are there; NULL: there are too many. */
static hd_check_draft_t *add_draft(hd_conf_t *cf, hd_guard_conf_t *g)
{
    hd_check_draft_t **to = &g->checks;
    uint32_t n = 0;

    for (; *to != NULL; to = &(*to)->next)
        n++;
    if (n < HD_CHECKS_MAX)
        *to = hd_pool_new(cf->temp, hd_check_draft_t);
    return *to;
}

hd_rc_t hd_conf_set_check(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    static const hd_status_range_t good = {200, 399}; /* as in nginx */
    hd_check_draft_t *d = add_draft(cf, conf);
    hd_check_conf_t *k;

    if (d == NULL)
        return hd_err_set(err, HD_E_CONF, "more than %d \"health_check\" of an upstream",
                          HD_CHECKS_MAX);
    k = &d->check;
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
        if (set_parameter(cf, d, name, value, err) != HD_OK)
            return HD_ERROR;
    }
    if (k->unhealthy_threshold == 0 || k->healthy_threshold == 0)
        return hd_err_set(err, HD_E_CONF,
                          "\"health_check\": fails= and passes= are 1 at least");
    return HD_OK;
}

/* --- match { … } --- */

#define FIELDS_MAX 32

static hd_rc_t make_value(hd_pool_t *pool, hd_str_t op, hd_str_t text, hd_match_t *p,
                          hd_err_t *err)
{
    bool is_regex = hd_str_has_suffix(op, HD_STR("~"));

    if (!is_regex && !hd_str_has_suffix(op, HD_STR("=")))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": =, !=, ~ or !~ is expected",
                          HD_STR_ARG(op));
    *p = (hd_match_t){.kind = is_regex ? HD_MATCH_REGEX : HD_MATCH_EXACT,
                      .part = is_regex,
                      .invert = op.data[0] == '!',
                      .text = hd_str_dup(pool, text)};
    return hd_match_check(p, err);
}

static hd_rc_t read_field(const hd_node_t *n, hd_check_field_t *f, hd_pool_t *pool,
                          hd_err_t *err)
{
    bool is_absent = n->args_n == 2 && hd_str_eq(n->args[0], HD_STR("!"));

    if (n->args_n != 1 && n->args_n != 3 && !is_absent)
        return hd_err_set(err, HD_E_CONF,
                          "\"header\": NAME, ! NAME, or NAME =|!=|~|!~ VALUE");
    f->name = hd_str_dup(pool, n->args[is_absent]);
    f->value = (hd_match_t){.kind = HD_MATCH_ANY, .invert = is_absent};
    return n->args_n == 3 ? make_value(pool, n->args[1], n->args[2], &f->value, err)
                          : HD_OK;
}

static hd_rc_t read_match_statuses(hd_conf_t *cf, const hd_node_t *n, hd_check_conf_t *k,
                                   hd_err_t *err)
{
    uint32_t at = n->args_n > 0 && hd_str_eq(n->args[0], HD_STR("!"));
    hd_str_t all = HD_STR_NONE;

    k->is_unexpected = at > 0;
    for (; at < n->args_n; at++)
        all = hd_str_printf(cf->temp, "%.*s%s%.*s", HD_STR_ARG(all),
                            all.len > 0 ? "," : "", HD_STR_ARG(n->args[at]));
    return read_statuses(cf, all, k, err);
}

static hd_rc_t read_pattern(const hd_node_t *n, hd_check_conf_t *k, hd_pool_t *pool,
                            hd_err_t *err)
{
    hd_match_t *p = hd_pool_new(pool, hd_match_t);

    if (n->args_n != 2 || !hd_str_has_suffix(n->args[0], HD_STR("~")))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": ~ REGEX is expected",
                          HD_STR_ARG(n->name));
    if (make_value(pool, n->args[0], n->args[1], p, err) != HD_OK)
        return HD_ERROR;
    k->body = p;
    return HD_OK;
}

static hd_rc_t read_line(hd_conf_t *cf, const hd_node_t *n, hd_check_conf_t *k,
                         hd_check_field_t *fields, hd_pool_t *pool, hd_err_t *err)
{
    hd_str_t *one;

    if (hd_str_eq(n->name, HD_STR("status")))
        return read_match_statuses(cf, n, k, err);
    if (hd_str_eq(n->name, HD_STR("header"))) {
        if (k->fields_n == FIELDS_MAX)
            return hd_err_set(err, HD_E_CONF, "more than %d fields", FIELDS_MAX);
        return read_field(n, &fields[k->fields_n++], pool, err);
    }
    if (hd_str_eq(n->name, HD_STR("body")) ||
        (hd_str_eq(n->name, HD_STR("expect")) && n->args_n == 2))
        return read_pattern(n, k, pool, err);
    if (hd_str_eq(n->name, HD_STR("expect")) && n->args_n == 1) {
        k->receive = one = hd_pool_new(pool, hd_str_t);
        *one = n->args[0];
        k->receive_n = 1;
        return HD_OK;
    }
    if (hd_str_eq(n->name, HD_STR("send")) && n->args_n == 1) {
        k->send = n->args[0];
        return HD_OK;
    }
    return hd_err_set(
        err, HD_E_CONF,
        "\"%.*s\": status, header, body, send and expect may stand in match",
        HD_STR_ARG(n->name));
}

hd_rc_t hd_conf_read_match(hd_conf_t *cf, const hd_node_t *match, hd_check_conf_t *k,
                           hd_pool_t *pool, hd_err_t *err)
{
    static const hd_status_range_t any = {100, 599};
    hd_check_field_t *fields = hd_pool_new_n(pool, hd_check_field_t, FIELDS_MAX);

    k->expected = &any; /* as in nginx: what isn't said doesn't count */
    k->expected_n = 1;
    k->fields = fields;
    for (const hd_node_t *n = match->first; n != NULL; n = n->next) {
        if (read_line(cf, n, k, fields, pool, err) != HD_OK)
            return hd_conf_blame(cf, n, err);
    }
    return HD_OK;
}

hd_rc_t hd_conf_enter_match(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    hd_check_conf_t ignored = {0};

    (void)args, (void)conf;
    return hd_conf_read_match(cf, cf->node, &ignored, cf->temp, err);
}

/* --- into the cluster --- */

static hd_rc_t make_check(hd_conf_t *cf, const hd_check_draft_t *d, hd_check_conf_t *k,
                          hd_pool_t *pool, hd_err_t *err)
{
    static const hd_status_range_t any = {100, 599}; /* nginx: fails= counts them all */
    hd_status_range_t *ranges;
    hd_str_t *receive;

    *k = d->check;
    if (d->match != NULL && hd_conf_read_match(cf, d->match, k, pool, err) != HD_OK)
        return HD_ERROR;
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
        return HD_OK;
    receive = hd_pool_new(pool, hd_str_t);
    *receive = hd_str_dup(pool, k->receive[0]);
    k->receive = receive;
    return HD_OK;
}

hd_rc_t hd_conf_apply_check(hd_conf_t *cf, const hd_guard_conf_t *g, hd_cluster_t *c,
                            hd_pool_t *pool, hd_err_t *err)
{
    const hd_check_conf_t **to = &c->check;

    for (const hd_check_draft_t *d = g->checks; d != NULL; d = d->next) {
        hd_check_conf_t *k = hd_pool_new(pool, hd_check_conf_t);

        if (make_check(cf, d, k, pool, err) != HD_OK)
            return HD_ERROR;
        *to = k;
        to = &k->next;
    }
    return HD_OK;
}
