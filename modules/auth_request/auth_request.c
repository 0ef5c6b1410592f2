/* auth_request: another location says whether a request may pass:
 *     auth_request /auth;
 *     auth_request_set $user $upstream_http_x_user;
 * 2xx lets it in, 401 and 403 are its answer, anything else is an error (500). */
#include "hd_module.h"

#define SETS_MAX 100

typedef struct {
    hd_attr_t name;
    const hd_expr_t *value; /* evaluated on the request to <uri> */
} set_t;

typedef struct {
    hd_str_t uri; /* empty: off */
    const set_t *sets;
    uint32_t sets_n;
} auth_conf_t;

extern const hd_module_t hd_module;

typedef struct {
    hd_req_t *req;
    const auth_conf_t *conf;
    unsigned status; /* 0: no answer yet */
    hd_str_t challenge;
} auth_t;

static hd_rc_t set_auth(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    auth_conf_t *ac = conf;

    (void)err;
    ac->uri =
        hd_str_eq(args[0], HD_STR("off")) ? HD_STR_NONE : hd_str_dup(cf->pool, args[0]);
    return HD_OK;
}

/* auth_request_set $NAME VALUE: a block with one inherits none. */
static hd_rc_t add_set(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    auth_conf_t *ac = conf;
    uint32_t n = cf->is_first ? 0 : ac->sets_n;
    hd_str_t name = args[0];
    hd_expr_t *value;
    set_t *list;

    if (name.len < 2 || name.data[0] != '$')
        return hd_err_set(err, HD_E_CONF,
                          "invalid variable name \"%.*s\": it begins with $",
                          HD_STR_ARG(name));
    if (n == SETS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d auth_request_set here", SETS_MAX);
    list = hd_pool_new_n(cf->pool, set_t, n + 1);
    if (n > 0)
        memcpy(list, ac->sets, n * sizeof(*list));
    name = hd_str_dup_lower(cf->temp, hd_str_sub(name, 1, name.len));
    if (hd_attr_key(cf->pool, name, true, &list[n].name, err) != HD_OK ||
        hd_expr_compile(cf, args[1], &value, err) != HD_OK)
        return HD_ERROR;
    if (list[n].name.def != 0)
        return hd_err_set(err, HD_E_CONF,
                          "the duplicate \"%.*s\" variable: it is built in",
                          HD_STR_ARG(name));
    list[n].value = value;
    ac->sets = list;
    ac->sets_n = n + 1;
    return HD_OK;
}

/* The answer of the location that was asked. */
static void on_head(hd_req_t *sub, void *arg)
{
    auth_t *a = arg;
    hd_attr_of_t of = hd_req_attr_of(a->req);
    bool found;

    a->status = hd_res_status(sub);
    a->challenge = hd_str_dup(hd_req_pool(a->req),
                              hd_res_header(sub, HD_STR("WWW-Authenticate"), &found));
    for (uint32_t i = 0; i < a->conf->sets_n; i++) {
        hd_val_t value = {.type = HD_VAL_STR};

        if (hd_expr_eval(a->conf->sets[i].value, sub, &value.str) != HD_OK)
            continue;
        value.str = hd_str_dup(hd_req_pool(a->req), value.str);
        hd_ignore(hd_attr_set(&of, &a->conf->sets[i].name, value)); /* by name: it can */
    }
}

static hd_rc_t ask(hd_req_t *req, const auth_conf_t *ac)
{
    auth_t *a = hd_pool_new(hd_req_pool(req), auth_t);

    a->req = req;
    a->conf = ac;
    hd_req_set_state(req, &hd_module, a);
    if (!hd_req_start_sub(req, &(hd_sub_spec_t){.uri = ac->uri,
                                                .method = HD_STR("GET"),
                                                .on_head = on_head,
                                                .arg = a}))
        return hd_req_fail(req, 500, HD_E_LIMIT, "auth_request: too many subrequests");
    return HD_AGAIN;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const auth_conf_t *ac = conf;
    const auth_t *a = hd_req_state(req, &hd_module);
    hd_rc_t rc;

    if (ac->uri.len == 0 || hd_req_is_sub(req))
        return HD_DECLINED;
    if (a == NULL)
        return ask(req, ac);
    if (a->status == 0)
        return HD_AGAIN;
    if (a->status >= 200 && a->status < 300)
        return HD_OK;
    if (a->status != 401 && a->status != 403)
        return hd_req_fail(req, 500, HD_E_DENIED, "auth request unexpected status: %u",
                           a->status);
    rc = hd_req_answer(req, a->status, HD_STR_NONE, HD_STR_NONE, "UAEX",
                       "auth_request_denied");
    if (a->status == 401 && a->challenge.len > 0 &&
        hd_res_add_header(req, HD_STR("WWW-Authenticate"), a->challenge) != HD_OK)
        return HD_ERROR;
    return rc;
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "auth_request",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_auth,
     .help = "URI | off: a location that says whether a request may pass: by 2xx, 401 or "
             "403"},
    {.name = "auth_request_set",
     .scope = IN_ANY,
     .args_n = 2,
     .repeats = true,
     .set = add_set,
     .declares = 1,
     .help = "$NAME VALUE: a variable from what that location answered, as in "
             "$upstream_http_x_user; a block with one inherits none"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "auth_request",
    .directives = directives,
    .conf_size = sizeof(auth_conf_t),
    .phase = HD_PHASE_ACCESS,
    .order = 2, /* behind auth_basic, as in nginx */
    .follows_rewrite = true,
    .on_request_headers = on_request_headers,
};
