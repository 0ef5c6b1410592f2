#include "core/conf/hd_conf_log.h"
#include "core/net/hd_syslog.h"

#define TARGETS_MAX 16

hd_rc_t hd_conf_log_target(hd_conf_t *cf, const hd_str_t *args, hd_log_target_t *target,
                           hd_err_t *err)
{
    *target = (hd_log_target_t){.level = HD_LOG_ERROR};
    if (cf->node->args_n > 1 && !hd_log_parse_level(args[1], &target->level))
        return hd_err_set(err, HD_E_CONF,
                          "invalid log level \"%.*s\": it must be one of debug, info, "
                          "notice, warn, error, crit, alert, emerg",
                          HD_STR_ARG(args[1]));
    if (hd_str_eq(args[0], HD_STR("stderr")))
        return HD_OK;
    if (hd_syslog_is(args[0]))
        return hd_syslog_check(cf->pool, args[0], &target->to, err);
    if (hd_str_has_prefix(args[0], HD_STR("memory:")) || args[0].len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "the error log is a file, \"stderr\" or \"syslog:…\", not "
                          "\"%.*s\"",
                          HD_STR_ARG(args[0]));
    target->to = hd_conf_path(cf, args[0], false);
    return HD_OK;
}

hd_rc_t hd_conf_log_need(hd_conf_t *cf, const hd_log_target_t *target, hd_err_t *err)
{
    if (target->to.len == 0 || hd_syslog_is(target->to))
        return HD_OK;
    return hd_build_need_log(cf, target->to, err);
}

hd_rc_t hd_conf_log_place(hd_conf_t *cf, const hd_str_t *args,
                          const hd_log_place_t **place, hd_err_t *err)
{
    uint32_t n = cf->is_first || *place == NULL ? 0 : (*place)->n;
    hd_log_place_t *made;
    hd_log_target_t *list;

    if (n == TARGETS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d error logs here", TARGETS_MAX);
    made = hd_pool_new(cf->pool, hd_log_place_t);
    list = hd_pool_new_n(cf->pool, hd_log_target_t, n + 1);
    if (n > 0) {
        memcpy(list, (*place)->targets, n * sizeof(*list));
        made->level = (*place)->level;
    }
    if (hd_conf_log_target(cf, args, &list[n], err) != HD_OK ||
        hd_conf_log_need(cf, &list[n], err) != HD_OK)
        return HD_ERROR;
    made->targets = list;
    made->n = n + 1;
    made->level = hd_max(made->level, list[n].level);
    *place = made;
    return HD_OK;
}
