/* Envoy's format strings, and the changes of headers that use them. */
#include "mesh/xds/hd_xds_int.h"
#include "core/hd_module.h"

#include <string.h>

#define PARTS_MAX 256

/* Operators without argument, as variables. */
static const struct {
    const char *operator, * variable;
} operators[] = {
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "client_ip"},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "realip_remote_addr"},
    {"DOWNSTREAM_REMOTE_PORT", "remote_port"},
    {"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "server_addr"},
    {"DOWNSTREAM_LOCAL_PORT", "server_port"},
    {"PROTOCOL", "server_protocol"},
    {"REQUESTED_SERVER_NAME", "requested_server_name"},
    {"DOWNSTREAM_PEER_URI_SAN", "peer_principal"},
    {"DOWNSTREAM_TLS_VERSION", "ssl_protocol"},
    {"DOWNSTREAM_TLS_CIPHER", "ssl_cipher"},
    {"HOSTNAME", "hostname"},
    {"RESPONSE_CODE", "status"},
    {"UPSTREAM_HOST", "upstream_addr"},
    {"UPSTREAM_CLUSTER", "proxy_host"},
    {"START_TIME", "time_iso8601"},
    {"CONNECTION_ID", "connection"},
    {"RESPONSE_FLAGS", "response_flags"},
    {"RESPONSE_CODE_DETAILS", "response_code_details"},
    {"ROUTE_NAME", "route_name"},
    {"DOWNSTREAM_LOCAL_URI_SAN", "local_principal"},
    {"DOWNSTREAM_PEER_SUBJECT", "ssl_client_s_dn"},
    {"DOWNSTREAM_PEER_ISSUER", "ssl_client_i_dn"},
    {"DOWNSTREAM_PEER_SERIAL", "ssl_client_serial"},
    {"DOWNSTREAM_PEER_CERT", "ssl_client_escaped_cert"},
    {"DOWNSTREAM_PEER_CERT_V_START", "ssl_client_v_start"},
    {"DOWNSTREAM_PEER_CERT_V_END", "ssl_client_v_end"},
    {"DOWNSTREAM_TLS_SESSION_ID", "ssl_session_id"},
};

static const struct {
    const char *header, *variable;
} pseudo[] = {
    {":method", "request_method"}, {":path", "request_uri"}, {":authority", "http_host"},
    {":scheme", "scheme"},         {"host", "http_host"},
};

/* "X-Some-Name" under a prefix: "http_x_some_name". */
static hd_str_t header_variable(hd_xds_t *x, const char *prefix, hd_str_t header)
{
    hd_str_t lower = hd_str_dup_lower(x->env->temp, header), all;

    for (size_t i = 0; i < hd_countof(pseudo); i++) {
        if (*prefix == 'h' && hd_str_eq(lower, hd_str_c(pseudo[i].header)))
            return hd_str_c(pseudo[i].variable);
    }
    all = hd_str_printf(x->env->temp, "%s%.*s", prefix, HD_STR_ARG(lower));
    for (size_t i = 0; i < all.len; i++) {
        if (all.data[i] == '-')
            ((char *)all.data)[i] = '_';
    }
    return all;
}

static hd_rc_t unknown(hd_str_t text, hd_err_t *err)
{
    return hd_err_set(err, HD_E_RESOURCE, "the format operator %%%.*s%% isn't known here",
                      HD_STR_ARG(text));
}

static hd_rc_t find_variable(hd_xds_t *x, hd_str_t name, hd_str_t arg, hd_str_t *variable,
                             hd_err_t *err)
{
    for (size_t i = 0; i < hd_countof(operators); i++) {
        if (arg.len == 0 && hd_str_eq(name, hd_str_c(operators[i].operator))) {
            *variable = hd_str_c(operators[i].variable);
            return HD_OK;
        }
    }
    if (arg.len > 0) {
        if (hd_str_eq(name, HD_STR("REQ")) || hd_str_eq(name, HD_STR("REQUEST_HEADER"))) {
            *variable = header_variable(x, "http_", arg);
            return HD_OK;
        }
        if (hd_str_eq(name, HD_STR("RESP")) ||
            hd_str_eq(name, HD_STR("RESPONSE_HEADER"))) {
            *variable = header_variable(x, "sent_http_", arg);
            return HD_OK;
        }
    }
    return arg.len == 0 ? unknown(name, err)
                        : unknown(hd_str_printf(x->env->temp, "%.*s(%.*s)",
                                                HD_STR_ARG(name), HD_STR_ARG(arg)),
                                  err);
}

static hd_rc_t set_part(hd_xds_t *x, hd_str_t name, hd_str_t arg, hd_expr_part_t *part,
                        hd_err_t *err)
{
    hd_str_t variable;

    return find_variable(x, name, arg, &variable, err) == HD_OK
               ? hd_attr_key(x->cf.pool, variable, false, &part->attr, err)
               : HD_ERROR;
}

/* "NAME", "NAME(argument)", "NAME(one?other)", each with a length behind it (":12"). */
static hd_rc_t compile_operator(hd_xds_t *x, hd_str_t text, hd_array_t *parts,
                                hd_expr_part_t *part, hd_err_t *err)
{
    ssize_t open = hd_str_find_char(text, '('), close = hd_str_find_char(text, ')'), mark;
    ssize_t colon = hd_str_find_char(text, ':');
    size_t end = open >= 0 ? (size_t)close + 1 : colon >= 0 ? (size_t)colon : text.len;
    hd_str_t name = hd_str_sub(text, 0, open >= 0 ? (size_t)open : end);
    hd_str_t rest, arg = HD_STR_NONE, other;
    uint64_t max = 0;

    if ((open >= 0) != (close >= 0) || close < open)
        return unknown(text, err);
    rest = hd_str_sub(text, end, text.len);
    if (rest.len > 0 &&
        (rest.data[0] != ':' ||
         !hd_str_to_u64(hd_str_sub(rest, 1, rest.len), UINT32_MAX, &max) || max == 0))
        return unknown(text, err);
    if (open >= 0)
        arg = hd_str_sub(text, (size_t)open + 1, (size_t)(close - open - 1));
    part->max_bytes = (uint32_t)max;
    mark = hd_str_find_char(arg, '?');
    if (mark < 0)
        return set_part(x, name, arg, part, err);
    other = hd_str_sub(arg, (size_t)mark + 1, arg.len);
    if (set_part(x, name, hd_str_sub(arg, 0, (size_t)mark), part, err) != HD_OK)
        return HD_ERROR;
    part = hd_array_add(parts);
    if (part == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "too many operators in one text");
    part->instead = true;
    part->max_bytes = (uint32_t)max;
    return set_part(x, name, other, part, err);
}

hd_rc_t hd_xds_format(hd_xds_t *x, hd_str_t text, hd_expr_t **expr, hd_err_t *err)
{
    hd_expr_t *e = hd_pool_new(x->cf.pool, hd_expr_t);
    hd_array_t parts;

    hd_array_init(&parts, x->env->temp, sizeof(hd_expr_part_t), PARTS_MAX);
    while (text.len > 0 || parts.n == 0) {
        ssize_t at = hd_str_find_char(text, '%');
        hd_expr_part_t *part = hd_array_add(&parts);
        ssize_t end;

        if (part == NULL)
            return hd_err_set(err, HD_E_RESOURCE, "more than %d operators in one text",
                              PARTS_MAX / 2);
        if (at != 0) {
            size_t len = at < 0 ? text.len : (size_t)at;

            part->text = hd_str_dup(x->cf.pool, hd_str_sub(text, 0, len));
            text = hd_str_sub(text, len, text.len);
            continue;
        }
        text = hd_str_sub(text, 1, text.len);
        end = hd_str_find_char(text, '%');
        if (end < 0)
            return hd_err_set(err, HD_E_RESOURCE, "a %% without its other %%");
        if (end == 0) /* %% */
            part->text = hd_str_dup(x->cf.pool, HD_STR("%"));
        else if (compile_operator(x, hd_str_sub(text, 0, (size_t)end), &parts, part,
                                  err) != HD_OK)
            return HD_ERROR;
        text = hd_str_sub(text, (size_t)end + 1, text.len);
    }
    e->parts = hd_array_copy(&parts, x->cf.pool);
    e->n = (uint32_t)parts.n;
    *expr = e;
    return HD_OK;
}

static hd_header_op_t op_of(const PbCore__HeaderValueOption *msg)
{
    if (msg->append != NULL) /* the older field */
        return msg->append->value ? HD_HOP_APPEND : HD_HOP_SET;
    switch (msg->append_action) {
    case PB_CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__ADD_IF_ABSENT:
        return HD_HOP_ADD_IF_ABSENT;
    case PB_CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD:
        return HD_HOP_SET;
    case PB_CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS:
        return HD_HOP_OVERWRITE_IF_EXISTS;
    default:
        return HD_HOP_APPEND;
    }
}

/* ":authority" and ":path" may be set; other pseudo-headers are the codec's. */
static hd_rc_t set_name(hd_xds_t *x, const char *name, hd_str_t *to, hd_err_t *err)
{
    hd_str_t lower = hd_str_dup_lower(x->cf.pool, hd_str_c(name));

    if (hd_str_eq(lower, HD_STR(":authority")))
        lower = hd_str_dup(x->cf.pool, HD_STR("host"));
    else if (!hd_str_eq(lower, HD_STR(":path")) && !hd_http_is_field_name(lower))
        return hd_err_set(err, HD_E_RESOURCE, "\"%s\" is no name of a header", name);
    *to = lower;
    return HD_OK;
}

hd_rc_t hd_xds_header_ops(hd_xds_t *x, PbCore__HeaderValueOption *const *add,
                          size_t add_n, const char *const *remove, size_t remove_n,
                          const hd_header_op_conf_t **ops, uint32_t *ops_n, hd_err_t *err)
{
    size_t n = add_n + remove_n;
    hd_header_op_conf_t *list =
        n > 0 ? hd_pool_new_n(x->cf.pool, hd_header_op_conf_t, n) : NULL;

    for (size_t i = 0; i < remove_n; i++) {
        list[i].how = HD_HOP_REMOVE;
        list[i].always = true;
        if (set_name(x, remove[i], &list[i].name, err) != HD_OK)
            return HD_ERROR;
        if (hd_str_eq(list[i].name, HD_STR("host")) || list[i].name.data[0] == ':')
            return hd_err_set(err, HD_E_RESOURCE, "\"%s\" can't be removed", remove[i]);
    }
    for (size_t i = 0; i < add_n; i++) {
        hd_header_op_conf_t *op = &list[remove_n + i];
        hd_expr_t *value;

        if (add[i]->header == NULL)
            return hd_err_set(err, HD_E_RESOURCE, "a header to add without a name");
        if (set_name(x, add[i]->header->key, &op->name, err) != HD_OK ||
            hd_xds_format(x, hd_str_c(add[i]->header->value), &value, err) != HD_OK)
            return hd_err_prefix(err, "header \"%s\": ", add[i]->header->key);
        op->value = value;
        op->how = (uint8_t)op_of(add[i]);
        op->always = true;
        op->keep_empty = add[i]->keep_empty_value;
    }
    *ops = list;
    *ops_n = (uint32_t)n;
    return HD_OK;
}
