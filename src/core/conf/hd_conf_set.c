/* The ready-made setters: each says what is allowed. */
#include "core/conf/hd_conf.h"
#include "core/conf/hd_dict.h"
#include <stdio.h>

static void *field(const hd_conf_t *cf, void *conf)
{
    return (char *)conf + cf->directive->offset;
}

static hd_conf_limits_t limits_of(const hd_conf_t *cf, uint64_t max)
{
    const hd_conf_limits_t *given = cf->directive->post;

    return given != NULL ? *given : (hd_conf_limits_t){0, max};
}

static hd_rc_t check_limits(const hd_conf_t *cf, hd_str_t arg, uint64_t n,
                            const hd_conf_limits_t *limits, const char *unit,
                            hd_err_t *err)
{
    if (n >= limits->min && n <= limits->max)
        return HD_OK;
    return hd_err_set(err, HD_E_CONF, "\"%s %.*s\" is out of range: from %llu to %llu%s",
                      cf->directive->name, HD_STR_ARG(arg),
                      (unsigned long long)limits->min, (unsigned long long)limits->max,
                      unit);
}

hd_rc_t hd_set_flag(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    bool *flag = field(cf, conf);

    if (hd_str_eq_nocase(args[0], HD_STR("on")))
        *flag = true;
    else if (hd_str_eq_nocase(args[0], HD_STR("off")))
        *flag = false;
    else
        return hd_err_set(err, HD_E_CONF,
                          "invalid value \"%.*s\" in \"%s\" directive: it must be \"on\" "
                          "or \"off\"",
                          HD_STR_ARG(args[0]), cf->directive->name);
    return HD_OK;
}

hd_rc_t hd_set_str(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t *str = field(cf, conf);

    (void)err;
    *str = hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

hd_rc_t hd_set_u32(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_conf_limits_t limits = limits_of(cf, UINT32_MAX);
    uint32_t *number = field(cf, conf);
    uint64_t n;

    if (!hd_str_to_u64(args[0], UINT64_MAX, &n))
        return hd_err_set(err, HD_E_CONF,
                          "invalid number \"%.*s\" in \"%s\" directive: digits only",
                          HD_STR_ARG(args[0]), cf->directive->name);
    if (check_limits(cf, args[0], n, &limits, "", err) != HD_OK)
        return HD_ERROR;
    *number = (uint32_t)n;
    return HD_OK;
}

hd_rc_t hd_set_size(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_conf_limits_t limits = limits_of(cf, INT64_MAX);
    uint64_t *size = field(cf, conf), n;

    if (hd_parse_size(args[0], INT64_MAX, &n, err) != HD_OK ||
        check_limits(cf, args[0], n, &limits, " bytes", err) != HD_OK)
        return HD_ERROR;
    *size = n;
    return HD_OK;
}

hd_rc_t hd_set_msec(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_conf_limits_t limits = limits_of(cf, UINT64_MAX);
    uint64_t *ms = field(cf, conf), n;

    if (hd_parse_msec(args[0], &n, err) != HD_OK ||
        check_limits(cf, args[0], n, &limits, " ms", err) != HD_OK)
        return HD_ERROR;
    *ms = n;
    return HD_OK;
}

hd_rc_t hd_set_enum(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    const hd_conf_enum_t *table = cf->directive->post;
    uint32_t *value = field(cf, conf);
    char allowed[256] = "";
    size_t n = 0;

    for (; table->name != NULL; table++) {
        if (hd_str_eq(args[0], hd_str_c(table->name))) {
            *value = table->value;
            return HD_OK;
        }
        if (n < sizeof(allowed))
            n += (size_t)snprintf(allowed + n, sizeof(allowed) - n, "%s\"%s\"",
                                  n > 0 ? ", " : "", table->name);
    }
    return hd_err_set(err, HD_E_CONF,
                      "invalid value \"%.*s\" in \"%s\" directive: it must be one of %s",
                      HD_STR_ARG(args[0]), cf->directive->name, allowed);
}

hd_rc_t hd_set_expr(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_expr_t **expr = field(cf, conf);

    return hd_expr_compile(cf, args[0], expr, err);
}
