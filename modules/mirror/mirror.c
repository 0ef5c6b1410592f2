/* mirror: other locations get a copy of each request; what they answer is dropped:
 *     mirror /shadow;
 *     location = /shadow { internal; proxy_pass http://test$request_uri; }
 * The answer doesn't wait for them. By xDS the route says it (request_mirror_policies),
 * which is the core's. */
#include "hd_module.h"

#define MIRRORS_MAX 16

typedef struct {
    const hd_str_t *uris;
    uint32_t n;
    uint32_t without_body;
} mirror_conf_t;

/* mirror URI | off: a block with one inherits none. */
static hd_rc_t add_mirror(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    mirror_conf_t *mc = conf;
    uint32_t n = cf->is_first ? 0 : mc->n;
    hd_str_t *list;

    if (hd_str_eq(args[0], HD_STR("off"))) {
        mc->n = 0;
        return HD_OK;
    }
    if (n == MIRRORS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d mirrors here", MIRRORS_MAX);
    list = hd_pool_new_n(cf->pool, hd_str_t, n + 1);
    if (n > 0)
        memcpy(list, mc->uris, n * sizeof(*list));
    list[n] = hd_str_dup(cf->pool, args[0]);
    mc->uris = list;
    mc->n = n + 1;
    return HD_OK;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const mirror_conf_t *mc = conf;

    for (uint32_t i = 0; i < mc->n && !hd_req_is_sub(req); i++)
        hd_req_start_sub(req, &(hd_sub_spec_t){.uri = mc->uris[i],
                                               .args = hd_req_query(req),
                                               .with_body = !mc->without_body,
                                               .is_background = true});
    return HD_OK;
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_conf_enum_t not_names[] = {{"on", 0}, {"off", 1}, {NULL, 0}};

static const hd_directive_t directives[] = {
    {.name = "mirror",
     .scope = IN_ANY,
     .args_n = 1,
     .repeats = true,
     .set = add_mirror,
     .help = "URI | off: a location that gets a copy of each request; a block with one "
             "inherits none"},
    {.name = "mirror_request_body",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_enum,
     .offset = offsetof(mirror_conf_t, without_body),
     .post = not_names,
     .help = "on|off: with its body; on"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "mirror",
    .directives = directives,
    .conf_size = sizeof(mirror_conf_t),
    .phase = HD_PHASE_CONTENT,
    .follows_rewrite = true,
    .on_request_headers = on_request_headers,
};
