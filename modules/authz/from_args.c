/* The directive `authz` to rules: parameters are AND'ed, a parameter's values OR'ed. */
#include "rules.h"

#define PARAMETERS_MAX 32

typedef hd_rc_t add_value_pt(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err);

/* Istio's value forms: x, x*, *x, * (AP-VAL-1). */
static void read_form(hd_str_t value, hd_match_t *m)
{
    *m = (hd_match_t){.kind = HD_MATCH_EXACT, .text = value};
    if (hd_str_eq(value, HD_STR("*"))) {
        m->kind = HD_MATCH_ANY;
    } else if (hd_str_has_suffix(value, HD_STR("*"))) {
        m->kind = HD_MATCH_PREFIX;
        m->text.len--;
    } else if (hd_str_has_prefix(value, HD_STR("*"))) {
        m->kind = HD_MATCH_SUFFIX;
        m->text = hd_str_sub(value, 1, value.len);
    }
}

static hd_rc_t add_form(hd_conf_t *cf, cond_kind_t kind, hd_str_t value, cond_t *c)
{
    *c = (cond_t){.kind = (uint8_t)kind};
    read_form(hd_str_dup(cf->pool, value), &c->match);
    return HD_OK;
}

static hd_rc_t add_principal(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)err;
    if (hd_str_has_prefix(value, HD_STR("spiffe://")))
        value = hd_str_sub(value, 9, value.len);
    return add_form(cf, COND_PRINCIPAL_ID, value, c);
}

static hd_rc_t add_namespace(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)err;
    return add_form(cf, COND_NAMESPACE, value, c);
}

static hd_rc_t add_account(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    if (hd_str_find_char(value, '/') <= 0 || hd_str_find_char(value, '*') >= 0)
        return hd_err_set(err, HD_E_CONF, "service_account=NAMESPACE/NAME, without *");
    return add_form(cf, COND_ACCOUNT, value, c);
}

static hd_rc_t add_domain(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)err;
    return add_form(cf, COND_DOMAIN, value, c);
}

static hd_rc_t add_cidr(hd_str_t value, cond_kind_t kind, cond_t *c, hd_err_t *err)
{
    *c = (cond_t){.kind = (uint8_t)kind};
    return hd_cidr_parse(value, &c->cidr)
               ? HD_OK
               : hd_err_set(err, HD_E_CONF,
                            "\"%.*s\" is no IP address or block (10.0.0.0/8)",
                            HD_STR_ARG(value));
}

static hd_rc_t add_ip(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)cf;
    return add_cidr(value, COND_DIRECT_IP, c, err);
}

static hd_rc_t add_remote_ip(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)cf;
    return add_cidr(value, COND_REMOTE_IP, c, err);
}

static hd_rc_t add_method(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)err;
    return add_form(cf, COND_METHOD, value, c);
}

static hd_rc_t add_host(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)err;
    return add_form(cf, COND_HOST, hd_str_dup_lower(cf->temp, value), c);
}

static hd_rc_t add_path(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    if (hd_str_find_char(value, '{') >= 0)
        return cond_template(cf->pool, value, c, err);
    return add_form(cf, COND_PATH, value, c);
}

static hd_rc_t add_port(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    uint64_t port;

    (void)cf;
    if (!hd_str_to_u64(value, 65535, &port))
        return hd_err_set(err, HD_E_CONF, "port=%.*s: 0 to 65535", HD_STR_ARG(value));
    *c =
        (cond_t){.kind = COND_DST_PORT, .from = (uint32_t)port, .to = (uint32_t)port + 1};
    return HD_OK;
}

static hd_rc_t add_sni(hd_conf_t *cf, hd_str_t value, cond_t *c, hd_err_t *err)
{
    (void)err;
    return add_form(cf, COND_SNI, hd_str_dup_lower(cf->temp, value), c);
}

/* NAME:VALUE,…; without values, or *: the field is there. */
static hd_rc_t add_header(hd_conf_t *cf, hd_str_t name, hd_str_t value, cond_t *c,
                          hd_err_t *err)
{
    pb_header_match_t *h = hd_pool_new(cf->pool, pb_header_match_t);

    if (!hd_http_is_field_name(name))
        return hd_err_set(err, HD_E_CONF, "header=NAME:VALUE: \"%.*s\" is no field name",
                          HD_STR_ARG(name));
    h->name = hd_str_dup_lower(cf->pool, name);
    read_form(hd_str_dup(cf->pool, value), &h->match);
    *c = (cond_t){.kind = COND_HEADER, .header = h};
    return HD_OK;
}

static const struct {
    const char *name;
    add_value_pt *add;
    bool needs_request;
} parameters[] = {
    {"principal", add_principal, false},
    {"namespace", add_namespace, false},
    {"service_account", add_account, false},
    {"trust_domain", add_domain, false},
    {"ip", add_ip, false},
    {"remote_ip", add_remote_ip, false},
    {"port", add_port, false},
    {"sni", add_sni, false},
    {"method", add_method, true},
    {"host", add_host, true},
    {"path", add_path, true},
    {"header", NULL, true},
};

static ssize_t find_parameter(hd_str_t name)
{
    for (unsigned i = 0; i < hd_countof(parameters); i++) {
        if (hd_str_eq(name, hd_str_c(parameters[i].name)))
            return i;
    }
    return -1;
}

/* The values of one parameter. */
static hd_rc_t read_values(hd_conf_t *cf, unsigned at, hd_str_t values, cond_t *c,
                           hd_err_t *err)
{
    hd_str_t name = HD_STR_NONE, value;
    uint32_t n = 0, max = 1;
    cond_t *list;

    if (parameters[at].add == NULL) {
        ssize_t colon = hd_str_find_char(values, ':');

        name = colon < 0 ? values : hd_str_sub(values, 0, (size_t)colon);
        values =
            colon < 0 ? HD_STR("*") : hd_str_sub(values, (size_t)colon + 1, values.len);
    }
    for (size_t i = 0; i < values.len; i++)
        max += values.data[i] == ',';
    list = hd_pool_new_n(cf->temp, cond_t, max);
    while (hd_str_split(&values, ',', &value)) {
        if (value.len == 0)
            return hd_err_set(err, HD_E_CONF, "%s= has an empty value",
                              parameters[at].name);
        if ((parameters[at].add == NULL
                 ? add_header(cf, name, value, &list[n], err)
                 : parameters[at].add(cf, value, &list[n], err)) != HD_OK)
            return HD_ERROR;
        n++;
    }
    if (n == 0)
        return hd_err_set(err, HD_E_CONF, "%s= needs a value", parameters[at].name);
    *c = cond_of(cf->pool, COND_OR, list, n);
    return HD_OK;
}

static hd_rc_t read_parameter(hd_conf_t *cf, hd_str_t arg, cond_t *c, hd_err_t *err)
{
    ssize_t eq = hd_str_find_char(arg, '=');
    hd_str_t name = hd_str_sub(arg, 0, eq < 0 ? 0 : (size_t)eq);
    bool is_not = hd_str_has_prefix(name, HD_STR("not_"));
    ssize_t at = find_parameter(is_not ? hd_str_sub(name, 4, name.len) : name);

    if (at < 0)
        return hd_err_set(
            err, HD_E_CONF,
            "unknown parameter \"%.*s\"; allowed are policy=, and with or without not_: "
            "principal= namespace= service_account= trust_domain= ip= remote_ip= port= "
            "sni= method= host= path= header=",
            HD_STR_ARG(arg));
    if (parameters[at].needs_request &&
        (cf->scope & (HD_IN_STREAM | HD_IN_STREAM_SERVER)))
        return hd_err_set(err, HD_E_CONF, "%s= needs HTTP", parameters[at].name);
    if (read_values(cf, (unsigned)at, hd_str_sub(arg, (size_t)eq + 1, arg.len), c, err) !=
        HD_OK)
        return HD_ERROR;
    if (is_not)
        *c = cond_not(cf->pool, *c);
    return HD_OK;
}

static void add_policy(hd_conf_t *cf, authz_conf_t *ac, rules_action_t action,
                       hd_str_t name, cond_t cond)
{
    unsigned at = action == RULES_DENY ? 0 : 1;
    const rules_t *old = ac->rules[at];
    uint32_t n = old == NULL ? 0 : old->policies_n;
    policy_t *policies = hd_pool_new_n(cf->pool, policy_t, n + 1);
    rules_t *rules = hd_pool_new(cf->pool, rules_t);

    if (n > 0)
        memcpy(policies, old->policies, n * sizeof(*policies));
    policy_init(cf->pool, &policies[n], name, cond);
    *rules = (rules_t){.action = action, .policies_n = n + 1, .policies = policies};
    ac->rules[at] = rules;
}

hd_rc_t authz_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    authz_conf_t *ac = conf;
    bool is_deny = hd_str_eq(args[0], HD_STR("deny"));
    hd_str_t name = hd_conf_place(cf), *seen;
    uint32_t args_n = cf->node->args_n, n = 0;
    cond_t *list;

    if (cf->is_first)
        *ac = (authz_conf_t){0}; /* replaces what was inherited */
    if (args_n == 1 && hd_str_eq(args[0], HD_STR("off"))) {
        if (!cf->is_first)
            return hd_err_set(err, HD_E_CONF, "\"authz off\" stands alone in its block");
        return HD_OK;
    }
    if (!is_deny && !hd_str_eq(args[0], HD_STR("allow")))
        return hd_err_set(err, HD_E_CONF, "\"%.*s\": allow, deny or off is needed",
                          HD_STR_ARG(args[0]));
    ac->region = cf->region;
    list = hd_pool_new_n(cf->temp, cond_t, args_n);
    seen = hd_pool_new_n(cf->temp, hd_str_t, args_n);
    for (uint32_t i = 1; i < args_n; i++) {
        ssize_t eq = hd_str_find_char(args[i], '=');

        if (hd_str_has_prefix(args[i], HD_STR("policy="))) {
            name = hd_str_sub(args[i], 7, args[i].len);
            continue;
        }
        if (read_parameter(cf, args[i], &list[n], err) != HD_OK)
            return HD_ERROR;
        seen[n] = hd_str_sub(args[i], 0, (size_t)eq);
        for (uint32_t k = 0; k < n; k++) {
            if (hd_str_eq(seen[k], seen[n]) &&
                !hd_str_has_suffix(seen[n], HD_STR("header")))
                return hd_err_set(err, HD_E_CONF,
                                  "%.*s= stands twice: one list, its values separated by "
                                  "commas, is meant",
                                  HD_STR_ARG(seen[n]));
        }
        n++;
    }
    add_policy(cf, ac, is_deny ? RULES_DENY : RULES_ALLOW, hd_str_dup(cf->pool, name),
               cond_of(cf->pool, COND_AND, list, n));
    return HD_OK;
}
