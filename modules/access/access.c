/* access: who may ask, by the client's address:
 *     deny 10.1.0.7; allow 10.1.0.0/16; allow unix:; deny all;
 * The first rule that fits decides; with none the request goes on. A block with a rule of
 * its own inherits none. */
#include "hd_module.h"

#define RULES_MAX 10000

typedef enum { WHO_ALL, WHO_UNIX, WHO_CIDR } who_t;

typedef struct {
    hd_cidr_t cidr; /* of WHO_CIDR */
    uint8_t who;
    bool denies;
} rule_t;

typedef struct {
    const rule_t *rules;
    uint32_t n, room;
    const void *block; /* whose rules these are: the array of confs of the block */
} access_conf_t;

static hd_rc_t parse_rule(hd_str_t text, rule_t *rule, hd_err_t *err)
{
    if (hd_str_eq(text, HD_STR("all")))
        rule->who = WHO_ALL;
    else if (hd_str_eq(text, HD_STR("unix:")))
        rule->who = WHO_UNIX;
    else if (hd_cidr_parse(text, &rule->cidr))
        rule->who = WHO_CIDR;
    else
        return hd_err_set(
            err, HD_E_CONF,
            "invalid parameter \"%.*s\": an address, ADDRESS/BITS, unix: or "
            "all is allowed",
            HD_STR_ARG(text));
    return HD_OK;
}

static hd_rc_t add_rule(hd_conf_t *cf, hd_str_t text, bool denies, access_conf_t *ac,
                        hd_err_t *err)
{
    rule_t *list = (rule_t *)ac->rules;

    /* Which of the two comes first here: then what was inherited is let go. */
    if (ac->block != cf->confs) {
        *ac = (access_conf_t){.block = cf->confs};
        list = NULL;
    }
    if (ac->n == RULES_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d rules here", RULES_MAX);
    if (ac->n == ac->room) {
        ac->room = hd_max(8u, ac->room * 2);
        list = hd_pool_new_n(cf->pool, rule_t, ac->room);
        if (ac->n > 0)
            memcpy(list, ac->rules, ac->n * sizeof(*list));
        ac->rules = list;
    }
    list[ac->n].denies = denies;
    if (parse_rule(text, &list[ac->n], err) != HD_OK)
        return HD_ERROR;
    ac->n++;
    return HD_OK;
}

static hd_rc_t set_allow(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return add_rule(cf, args[0], false, conf, err);
}

static hd_rc_t set_deny(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return add_rule(cf, args[0], true, conf, err);
}

static hd_rc_t on_conf(hd_conf_t *cf, void *conf, hd_err_t *err)
{
    access_conf_t *ac = conf;

    (void)cf;
    (void)err;
    ac->block = NULL; /* of the process that reads: nothing that others could use */
    return HD_OK;
}

static bool is_meant(const rule_t *rule, const hd_addr_t *client)
{
    switch ((who_t)rule->who) {
    case WHO_ALL:
        return true;
    case WHO_UNIX:
        return client->family == AF_UNIX;
    default:
        return hd_cidr_has(&rule->cidr, client);
    }
}

/* The rule that decides; NULL: none does. */
static const rule_t *find_rule(const access_conf_t *ac, const hd_addr_t *client)
{
    for (uint32_t i = 0; client != NULL && i < ac->n; i++) {
        if (is_meant(&ac->rules[i], client))
            return &ac->rules[i];
    }
    return NULL;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const rule_t *rule = find_rule(conf, hd_req_remote(req));

    if (rule == NULL)
        return HD_DECLINED;
    return rule->denies ? hd_req_fail(req, 403, HD_E_DENIED, "access forbidden by rule")
                        : HD_OK;
}

/* Of stream. */
static hd_rc_t on_conn(hd_conn_t *c, const void *conf)
{
    const rule_t *rule = find_rule(conf, hd_conn_remote(c));

    return rule != NULL && rule->denies
               ? hd_conn_fail(c, HD_E_DENIED, "access forbidden by rule")
               : HD_OK;
}

#define IN_ANY                                                                           \
    (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_LIMIT_EXCEPT | HD_IN_STREAM |    \
     HD_IN_STREAM_SERVER)

static const hd_directive_t directives[] = {
    {.name = "allow",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = set_allow,
     .help =
         "ADDRESS | ADDRESS/BITS | unix: | all: these clients may; the first allow or "
         "deny that fits decides"},
    {.name = "deny",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = set_deny,
     .help = "ADDRESS | ADDRESS/BITS | unix: | all: these clients may not (403); a block "
             "with a rule inherits none"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "access",
    .directives = directives,
    .conf_size = sizeof(access_conf_t),
    .phase = HD_PHASE_ACCESS,
    .follows_rewrite = true,
    .on_conf = on_conf,
    .on_request_headers = on_request_headers,
    .on_conn = on_conn,
};
