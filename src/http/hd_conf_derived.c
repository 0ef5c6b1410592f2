#include "http/hd_conf_derived.h"
#include "core/conf/hd_module_table.h"

#include <stdio.h>

static const hd_directive_t *find(const hd_module_t *m, const char *name)
{
    const hd_directive_t *d = m->directives;

    while (d->name != NULL && strcmp(d->name, name) != 0)
        d++;
    hd_bug_on(d->name == NULL);
    return d;
}

void hd_conf_derived_add(hd_conf_derived_t *d, const hd_directive_t *own)
{
    hd_bug_on(d->n == HD_CONF_DERIVED_MAX);
    d->directives[d->n++] = *own;
}

hd_directive_t *hd_conf_derived_take(hd_conf_derived_t *d, const hd_module_t *from,
                                     const char *name, const char *prefix)
{
    char *own = d->names[d->n];
    hd_directive_t *to = &d->directives[d->n];

    hd_conf_derived_add(d, find(from, name));
    (void)snprintf(own, HD_CONF_DERIVED_NAME_BYTES, "%s%s", prefix,
                   name + strlen("proxy_"));
    to->name = own;
    to->scope &= HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION;
    return to;
}

void hd_conf_derived_register(hd_conf_derived_t *d, const char *name,
                              const hd_module_t *from)
{
    d->module = (hd_module_t){.abi = HD_MODULE_ABI,
                              .name = name,
                              .directives = d->directives,
                              .conf_size = from->conf_size};
    hd_ignore(hd_module_add(&d->module) == 0);
}

hd_rc_t hd_conf_derived_apply(hd_conf_t *cf, const char *name, hd_str_t arg, void *conf,
                              hd_err_t *err)
{
    hd_conf_t at = *cf;

    at.directive = find(&hd_proxy_module, name);
    return at.directive->set(&at, &arg, conf, err);
}

void hd_conf_derived_enter(hd_conf_t *cf, const hd_conf_derived_t *d, hd_conf_t *at)
{
    uint16_t number = hd_module_number(&hd_proxy_module);
    void **confs = hd_pool_new_n(cf->temp, void *, hd_modules_n());

    memcpy(confs, cf->confs, hd_modules_n() * sizeof(*confs));
    confs[number] = hd_conf_copy(cf, number, cf->confs[hd_module_number(&d->module)]);
    *at = *cf;
    at->confs = confs;
}
