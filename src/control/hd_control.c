#include "control/hd_control.h"
#include "control/hd_ca_service.h"
#include "control/hd_grpc_server.h"
#include "control/hd_source_dir.h"
#include "control/hd_xds_server.h"
#include "core/hd_module.h"
#include "core/proc/hd_modules.h"
#include "core/proc/hd_process.h"
#include "core/proc/hd_settings.h"
#include "http/hd_conf_service.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#define ROOTS_LOOK_MS 1000

/* What `control { … }` says; lies in the resource "main". */
typedef struct {
    hd_str_t listen, config_dir, ca_dir, tokens, trust_domain, cluster_domain,
        root_namespace;
    bool tokens_off, is_set;
} control_conf_t;

static struct {
    hd_model_t *model;
    hd_source_dir_t *source;
    hd_translator_t *translator;
    hd_tokens_t *tokens;
    hd_ca_t *ca;
    hd_loop_t *loop;
    hd_timer_t roots;
} control;

extern const hd_module_t hd_control_module;

/* --- configuration --- */

static hd_rc_t set_directory(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t *to = (hd_str_t *)((char *)conf + cf->directive->offset);
    char text[1024];
    struct stat st;

    *to = hd_conf_path(cf, args[0], false);
    snprintf(text, sizeof(text), "%.*s", HD_STR_ARG(*to));
    if (stat(text, &st) != 0)
        return hd_err_set_sys(err, errno, "\"%s\" must be there: \"%s\"",
                              cf->directive->name, text);
    return S_ISDIR(st.st_mode) ? HD_OK
                               : hd_err_set(err, HD_E_CONF, "\"%s\": \"%s\" is no directory",
                                            cf->directive->name, text);
}

static hd_rc_t set_tokens(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    control_conf_t *cc = conf;

    cc->tokens_off = hd_str_eq(args[0], HD_STR("off"));
    cc->tokens = cc->tokens_off ? HD_STR_NONE : hd_conf_path(cf, args[0], false);
    if (cc->tokens_off)
        hd_conf_warn(
            cf, "tokens off: any caller gets any proxy's configuration, and nobody gets "
                "a certificate");
    return cc->tokens_off ? HD_OK : hd_tokens_check(cc->tokens, err);
}

static hd_str_t or_default(hd_str_t s, const char *text)
{
    return s.len > 0 ? s : hd_str_c(text);
}

static hd_rc_t check(const control_conf_t *cc, hd_err_t *err)
{
    if (cc->listen.len == 0)
        return hd_err_set(err, HD_E_CONF, "control needs `listen ADDRESS;`");
    if (cc->config_dir.len == 0)
        return hd_err_set(err, HD_E_CONF, "control needs `config_dir DIRECTORY;`");
    if (cc->tokens.len == 0 && !cc->tokens_off)
        return hd_err_set(err, HD_E_CONF,
                          "control needs `tokens FILE;`, or `tokens off;` where "
                          "every caller may be believed");
    return HD_OK;
}

static hd_rc_t enter_control(hd_conf_t *cf, const hd_str_t *args, void *conf,
                             hd_err_t *err)
{
    control_conf_t *cc = conf, *inner;
    void **confs;

    (void)args;
    if (hd_conf_enter(cf, cf->node, HD_IN_CONTROL, &confs, err) != HD_OK)
        return HD_ERROR;
    inner = confs[hd_module_number(&hd_control_module)];
    if (inner == NULL || check(inner, err) != HD_OK)
        return inner == NULL
                   ? hd_err_set(err, HD_E_CONF, "control needs `listen ADDRESS;`")
                   : HD_ERROR;
    *cc = *inner;
    cc->is_set = true;
    cf->build->settings->has_control = true;
    return hd_conf_put_service(cf, cc->listen, HD_STR("grpc"), HD_ROLE_CONTROL, err);
}

#define IN HD_IN_CONTROL

static const hd_directive_t directives[] = {
    {.name = "control",
     .scope = HD_IN_MAIN,
     .args_n = 0,
     .block = enter_control,
     .help = "{ … }: runs the control plane: configuration and certificates for proxies"},
    {.name = "listen",
     .scope = IN,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(control_conf_t, listen),
     .help = "ADDRESS: where proxies ask for configuration and certificates (gRPC)"},
    {.name = "config_dir",
     .scope = IN,
     .args_n = 1,
     .set = set_directory,
     .offset = offsetof(control_conf_t, config_dir),
     .help = "DIRECTORY: YAML files with Kubernetes' and Istio's resources, watched"},
    {.name = "ca_dir",
     .scope = IN,
     .args_n = 1,
     .set = set_directory,
     .offset = offsetof(control_conf_t, ca_dir),
     .help = "DIRECTORY: root-cert.pem and root-key.pem of the mesh's CA, made if they "
             "are not "
             "there; without it no certificates are issued"},
    {.name = "tokens",
     .scope = IN,
     .args_n = 1,
     .set = set_tokens,
     .help = "FILE | off: lines \"TOKEN NAMESPACE SERVICE-ACCOUNT\": who callers are; "
             "off: any "
             "caller's word is taken for it, and no certificates are issued"},
    {.name = "trust_domain",
     .scope = IN,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(control_conf_t, trust_domain),
     .help = "NAME: of SPIFFE identities; cluster.local"},
    {.name = "cluster_domain",
     .scope = IN,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(control_conf_t, cluster_domain),
     .help = "NAME: the DNS suffix of services; cluster.local"},
    {.name = "root_namespace",
     .scope = IN,
     .args_n = 1,
     .set = hd_set_str,
     .offset = offsetof(control_conf_t, root_namespace),
     .help = "NAME: whose policies hold for the whole mesh; istio-system"},
    {0},
};

const hd_module_t hd_control_module = {
    .abi = HD_MODULE_ABI,
    .name = "control",
    .directives = directives,
    .conf_size = sizeof(control_conf_t),
};

/* --- the process --- */

static const control_conf_t *conf_in_force(hd_proc_t *p)
{
    const control_conf_t *cc = hd_conf_main_of(p->member, &hd_control_module);

    return cc != NULL && cc->is_set ? cc : NULL;
}

/* The CA and its callers; without a directory there is none. */
static hd_rc_t start_ca(const control_conf_t *cc, hd_str_t trust_domain, hd_err_t *err)
{
    hd_ca_service_conf_t service = {.trust_domain = trust_domain};

    if (cc->tokens.len > 0) {
        control.tokens = hd_tokens_open(cc->tokens, err);
        if (control.tokens == NULL)
            return HD_ERROR;
    }
    if (cc->ca_dir.len == 0)
        return HD_OK;
    control.ca = hd_ca_open(cc->ca_dir, trust_domain, err);
    if (control.ca == NULL)
        return HD_ERROR;
    service.ca = control.ca;
    service.tokens = control.tokens;
    hd_ca_service_start(&service);
    return HD_OK;
}

/* Whoever follows one root by another wants all proxies to know within moments. */
static void look_at_roots(hd_timer_t *t)
{
    hd_ca_renew(control.ca);
    hd_xds_server_set_roots(hd_ca_root_pem(control.ca));
    hd_timer_set(control.loop, t, ROOTS_LOOK_MS);
}

static void on_commit(void *arg)
{
    (void)arg;
    hd_xds_server_on_commit();
    hd_model_clear_changes(control.model);
}

static hd_rc_t start_control(hd_proc_t *p, hd_err_t *err)
{
    const control_conf_t *cc = conf_in_force(p);
    hd_pool_t *pool = hd_pool_create(0); /* lives as long as the process */
    hd_str_t trust_domain;
    hd_model_conf_t model = {0};

    if (cc == NULL) {
        hd_pool_destroy(pool);
        return HD_OK;
    }
    trust_domain = hd_str_dup(pool, or_default(cc->trust_domain, "cluster.local"));
    model.cluster_domain =
        hd_str_dup(pool, or_default(cc->cluster_domain, "cluster.local"));
    model.root_namespace =
        hd_str_dup(pool, or_default(cc->root_namespace, "istio-system"));
    if (start_ca(cc, trust_domain, err) != HD_OK)
        return HD_ERROR;
    control.model = hd_model_create(&model);
    control.translator = hd_translator_create(control.model, trust_domain);
    hd_xds_server_start(&(hd_xds_server_conf_t){.loop = p->loop,
                                                .translator = control.translator,
                                                .tokens = control.tokens,
                                                .trust_domain = trust_domain});
    hd_model_set_on_commit(control.model, on_commit, NULL);
    control.loop = p->loop;
    hd_timer_init(&control.roots, look_at_roots);
    if (control.ca != NULL)
        look_at_roots(&control.roots);
    return hd_source_dir_create(p->loop, control.model,
                                &(hd_source_dir_conf_t){.path = cc->config_dir},
                                &control.source, err);
}

/* hd_turn_begin: the loop's first turn hasn't begun yet. */
static hd_rc_t on_start(hd_proc_t *p, hd_err_t *err)
{
    hd_rc_t rc;

    hd_turn_begin(p->member);
    rc = start_control(p, err);
    hd_turn_sleep(p->member);
    return rc;
}

static void on_quit(hd_proc_t *p)
{
    (void)p;
    hd_xds_server_quit();
}

static void on_stop(hd_proc_t *p)
{
    (void)p;
    if (control.source != NULL)
        hd_source_dir_destroy(control.source);
    hd_xds_server_stop();
    if (control.translator != NULL)
        hd_translator_destroy(control.translator);
    if (control.model != NULL)
        hd_model_destroy(control.model);
    if (control.ca != NULL) {
        if (control.loop != NULL)
            hd_timer_stop(control.loop, &control.roots);
        hd_ca_close(control.ca);
    }
    if (control.tokens != NULL)
        hd_tokens_close(control.tokens);
}

static const hd_process_hooks_t hooks = {
    .name = "control",
    .kinds = 1u << HD_PROC_CONTROL,
    .on_start = on_start,
    .on_quit = on_quit,
    .on_stop = on_stop,
};

void hd_control_register(void)
{
    hd_grpc_server_register();
    hd_xds_server_register();
    hd_ca_service_register();
    hd_ignore(hd_module_add(&hd_control_module) == 0);
    hd_process_add_hooks(&hooks);
}
