#include "core/proc/hd_conf_overload.h"
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"
#include "core/net/hd_overload.h"
#include "core/proc/hd_process.h"

#define SAVE_PERCENT 80
#define REFUSE_PERCENT 95
#define MEMORY_MIN ((uint64_t)1 << 20)

static const hd_module_t module;

/* "80%" of <name>=80% */
static hd_rc_t take_percent(hd_str_t arg, hd_str_t name, uint32_t *percent, hd_err_t *err)
{
    hd_str_t text = hd_str_sub(arg, name.len, SIZE_MAX);
    uint64_t n = 0;

    if (text.len > 0 && text.data[text.len - 1] == '%')
        text.len--;
    else
        text.len = 0;
    if (!hd_str_to_u64(text, 100, &n) || n == 0)
        return hd_err_set(err, HD_E_CONF, "invalid parameter \"%.*s\": %.*s1%% to 100%%",
                          HD_STR_ARG(arg), HD_STR_ARG(name));
    *percent = (uint32_t)n;
    return HD_OK;
}

static hd_rc_t set_memory(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_overload_conf_t *oc = conf;

    oc->save_percent = SAVE_PERCENT;
    oc->refuse_percent = REFUSE_PERCENT;
    if (hd_set_size(cf, args, &oc->memory_bytes, err) != HD_OK)
        return HD_ERROR;
    for (uint32_t i = 1; i < cf->node->args_n; i++) {
        static const hd_str_t save = HD_STR_INIT("save="), refuse = HD_STR_INIT("refuse=");
        hd_rc_t rc;

        if (hd_str_has_prefix(args[i], save))
            rc = take_percent(args[i], save, &oc->save_percent, err);
        else if (hd_str_has_prefix(args[i], refuse))
            rc = take_percent(args[i], refuse, &oc->refuse_percent, err);
        else
            rc = hd_err_set(err, HD_E_CONF,
                            "invalid parameter \"%.*s\": save=PERCENT, refuse=PERCENT",
                            HD_STR_ARG(args[i]));
        if (rc != HD_OK)
            return rc;
    }
    if (oc->save_percent > oc->refuse_percent)
        return hd_err_set(err, HD_E_CONF,
                          "save=%u%% is above refuse=%u%%: memory is saved before work is "
                          "refused",
                          oc->save_percent, oc->refuse_percent);
    return HD_OK;
}

static const hd_conf_limits_t memory_limits = {MEMORY_MIN, (uint64_t)1 << 44};
static const hd_conf_limits_t lag_limits = {1, 3600000};

static const hd_directive_t directives[] = {
    {.name = "overload_memory",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .args_max = 3,
     .set = set_memory,
     .post = &memory_limits,
     .help = "SIZE [save=PERCENT] [refuse=PERCENT]: memory of a worker's own: from 80% of "
             "it on connections aren't kept, from 95% on new requests and sessions are "
             "refused (503); default: no limit"},
    {.name = "overload_lag",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = offsetof(hd_overload_conf_t, lag_ms),
     .post = &lag_limits,
     .help = "TIME: when what is ready waits for longer, time after time, a growing share "
             "of new requests and sessions is refused (503); default: no limit"},
    {0},
};

static const hd_module_t module = {
    .abi = HD_MODULE_ABI,
    .name = "overload",
    .directives = directives,
    .conf_size = sizeof(hd_overload_conf_t),
};

static void use_conf(hd_proc_t *p)
{
    hd_overload_set(p->loop, hd_conf_main_of(p->member, &module), p->worker_no);
}

static hd_rc_t on_start(hd_proc_t *p, hd_err_t *err)
{
    (void)err;
    use_conf(p);
    return HD_OK;
}

static void on_stop(hd_proc_t *p)
{
    (void)p;
    hd_overload_stop();
}

void hd_overload_register(void)
{
    static const hd_process_hooks_t hooks = {.name = "overload",
                                             .kinds = 1u << HD_PROC_WORKER,
                                             .on_start = on_start,
                                             .on_batch = use_conf,
                                             .on_stop = on_stop};

    hd_ignore(hd_module_add(&module) == 0);
    hd_process_add_hooks(&hooks);
}
