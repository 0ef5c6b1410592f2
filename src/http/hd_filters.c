/* The filters in force on a request, and its way through them towards the action. */
#include "core/proc/hd_modules.h"
#include "http/hd_request_int.h"
#include "http/hd_sub.h"

const hd_module_t *hd_filter_module(const hd_filter_conf_t *f)
{
    const hd_module_t *mod = f->is_disabled ? NULL : hd_module_get(f->module);

    /* no settings: not used here (hd_module.h) */
    return mod != NULL && (f->conf != NULL || mod->conf_size == 0) ? mod : NULL;
}

static unsigned hooks_of(const hd_module_t *mod)
{
    return (mod->on_request_headers != NULL ? HD_HOOK_REQUEST : 0u) |
           (mod->on_request_body != NULL || mod->on_request_trailers != NULL
                ? HD_HOOK_REQUEST_BODY
                : 0u) |
           (mod->on_response_headers != NULL ? HD_HOOK_RESPONSE : 0u) |
           (mod->on_response_body != NULL || mod->on_response_trailers != NULL
                ? HD_HOOK_RESPONSE_BODY
                : 0u) |
           (mod->on_log != NULL ? HD_HOOK_LOG : 0u) |
           (mod->on_pick != NULL ? HD_HOOK_PICK : 0u) |
           (mod->on_try_result != NULL ? HD_HOOK_TRY : 0u);
}

static const hd_filter_conf_t *find_by_name(const hd_filter_conf_t *list, uint32_t n,
                                            hd_str_t name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq(list[i].name, name))
            return &list[i];
    }
    return NULL;
}

/* The most specific settings for <f>: of the weighted cluster, the route, the virtual
 * host, the route table; NULL: its own. */
static const hd_filter_conf_t *find_override(const hd_req_t *req,
                                             const hd_filter_conf_t *f)
{
    const hd_filter_conf_t *o = NULL;

    if (req->target != NULL)
        o = find_by_name(req->target->filters, req->target->filters_n, f->name);
    if (o == NULL)
        o = find_by_name(req->route->filters, req->route->filters_n, f->name);
    if (o == NULL && req->vhost != NULL)
        o = find_by_name(req->vhost->filters, req->vhost->filters_n, f->name);
    if (o == NULL && req->routes != NULL)
        o = find_by_name(req->routes->filters, req->routes->filters_n, f->name);
    return o;
}

static bool has_overrides(const hd_req_t *req)
{
    if (req->route == NULL) /* then Envoy asks nobody */
        return false;
    return (req->target != NULL && req->target->filters_n > 0) ||
           req->route->filters_n > 0 ||
           (req->vhost != NULL && req->vhost->filters_n > 0) ||
           (req->routes != NULL && req->routes->filters_n > 0);
}

static const hd_filter_conf_t *with_overrides(hd_req_t *req, const hd_filter_conf_t *list,
                                              uint32_t n)
{
    hd_filter_conf_t *merged = hd_pool_alloc(req->pool, n * sizeof(*merged));

    for (uint32_t i = 0; i < n; i++) {
        const hd_filter_conf_t *o = find_override(req, &list[i]);

        merged[i] = list[i];
        if (o == NULL)
            continue;
        merged[i].is_disabled = o->is_disabled;
        if (o->conf != NULL)
            merged[i].conf = o->conf;
    }
    return merged;
}

void hd_filters_select(hd_req_t *req)
{
    const hd_http_conf_t *http = req->http;
    const hd_route_t *route = req->route;
    const hd_filter_conf_t *list = NULL;
    uint32_t n = 0;

    if (route != NULL && route->filters_are_chain) {
        list = route->filters;
        n = route->filters_n;
    } else if (http != NULL) {
        list = http->filters;
        n = http->filters_n;
        if (http->is_xds && n > 0 && has_overrides(req))
            list = with_overrides(req, list, n);
    }
    req->chain = list;
    req->chain_n = (uint16_t)n;
    req->hooks = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hd_module_t *mod = hd_filter_module(&list[i]);

        if (mod != NULL)
            req->hooks |= (uint8_t)hooks_of(mod);
    }
}

/* May what waits go on? Not parked: yes. */
static bool may_go_on(const hd_req_t *req, unsigned hook)
{
    return (req->parked & hook) == 0 || req->may_resume;
}

/* Before a callback of <f>: the request knows who runs, and whether it ran before. */
static void enter_filter(hd_req_t *req, const hd_filter_conf_t *f, unsigned hook)
{
    req->running = f;
    req->is_resumed = (req->parked & hook) != 0;
    req->parked &= (uint8_t)~hook;
}

/* --- satisfy any: one access module's word is enough --- */

/* A denial that counts only if no access module lets the request in. */
typedef struct hd_denial_s {
    unsigned status;
    hd_str_t challenge; /* of a 401 or 407 */
} hd_denial_t;

/* Who asks for a name, as a server or as a proxy (RFC 9110 §11.6.1, §11.7.1), does so by
 * this field. */
static hd_str_t challenge_field(unsigned status)
{
    return status == 407 ? HD_STR("Proxy-Authenticate") : HD_STR("WWW-Authenticate");
}

static bool asks_for_name(unsigned status)
{
    return status == 401 || status == 407;
}

/* auth_delay: how long it took to find that a password was wrong is not to be seen. */
static void delay_denial(hd_req_t *req)
{
    if (hd_unlikely(req->loc->auth_delay_ms > 0) && !req->is_sub &&
        req->action_ops == &hd_local_action && asks_for_name(req->res.status))
        req->delays_denial = true;
}

static hd_rc_t deny(hd_req_t *req)
{
    hd_denial_t *d = req->denial;

    req->denial = NULL;
    hd_response_local(req, d->status, HD_STR_NONE, HD_STR_NONE, HD_RF(DENIED), "satisfy");
    if (d->challenge.len > 0)
        hd_ignore(hd_headers_add(&req->res.headers, challenge_field(d->status),
                                 d->challenge) == NULL);
    delay_denial(req);
    return HD_DONE;
}

/* An access module has spoken: yes ends the matter, no (401, 403, 407) is kept in mind.
 */
static hd_rc_t judge(hd_req_t *req, hd_rc_t rc)
{
    bool found;

    if (rc == HD_OK) {
        req->is_satisfied = true;
        req->denial = NULL;
        return rc;
    }
    if ((rc != HD_DONE && rc != HD_ERROR) || req->response_ended ||
        req->action_ops != &hd_local_action ||
        (!asks_for_name(req->res.status) && req->res.status != 403))
        return rc;
    if (req->denial == NULL)
        req->denial = hd_pool_new(req->pool, hd_denial_t);
    if (!asks_for_name(req->denial->status)) /* who may try again is told so */
        *req->denial = (hd_denial_t){
            .status = req->res.status,
            .challenge = hd_res_header(req, challenge_field(req->res.status), &found)};
    hd_request_act(req, NULL);
    hd_response_clear(req);
    req->is_local_reply = false;
    req->step = HD_STEP_FILTERS;
    return HD_DECLINED;
}

/* Access control isn't asked for requests of our own, nor once it is satisfied. */
static bool is_passed_over(const hd_req_t *req, const hd_module_t *mod)
{
    return (req->is_sub &&
            (mod->phase == HD_PHASE_AUTHN || mod->phase == HD_PHASE_ACCESS)) ||
           (req->is_satisfied && mod->phase == HD_PHASE_ACCESS);
}

hd_rc_t hd_filters_run(hd_req_t *req)
{
    if (!(req->hooks & HD_HOOK_REQUEST))
        return HD_OK;
    if (!may_go_on(req, HD_HOOK_REQUEST))
        return HD_AGAIN;
    while (req->filter_at < req->chain_n) {
        const hd_filter_conf_t *f = &req->chain[req->filter_at];
        const hd_module_t *mod = hd_filter_module(f);
        hd_rc_t rc;

        if (mod == NULL || mod->on_request_headers == NULL) {
            req->filter_at++;
            continue;
        }
        if (hd_unlikely(req->denial != NULL) && mod->phase > HD_PHASE_ACCESS)
            return deny(req);
        if (is_passed_over(req, mod)) {
            req->filter_at++;
            continue;
        }
        enter_filter(req, f, HD_HOOK_REQUEST);
        rc = mod->on_request_headers(req, f->conf);
        req->running = NULL;
        if (hd_unlikely(req->loc->satisfy_any) && mod->phase == HD_PHASE_ACCESS)
            rc = judge(req, rc);
        if (rc == HD_AGAIN) {
            req->parked |= HD_HOOK_REQUEST;
            return rc;
        }
        if (rc != HD_OK && rc != HD_DECLINED) {
            if (mod->phase == HD_PHASE_AUTHN || mod->phase == HD_PHASE_ACCESS)
                delay_denial(req);
            return rc;
        }
        if (req->action_ops != NULL || req->response_ended) /* it has answered */
            return HD_DONE;
        req->filter_at++;
        if (req->route_wanted)
            return HD_OK;
    }
    return hd_unlikely(req->denial != NULL) ? deny(req) : HD_OK;
}

bool hd_filters_change_file(hd_req_t *req, hd_str_t type, hd_str_t encoding,
                            int64_t length)
{
    bool changes = false;

    for (uint32_t i = 0; i < req->chain_n && !changes; i++) {
        const hd_filter_conf_t *f = &req->chain[i];
        const hd_module_t *mod = hd_filter_module(f);

        if (mod == NULL || mod->changes_file == NULL)
            continue;
        req->running = f;
        changes = mod->changes_file(req, f->conf, type, encoding, length);
        req->running = NULL;
    }
    return changes;
}

static hd_rc_t run_body_filter(hd_req_t *req, const hd_module_t *mod,
                               const hd_filter_conf_t *f)
{
    hd_rc_t rc = HD_OK;

    enter_filter(req, f, HD_HOOK_REQUEST_BODY);
    if (mod->on_request_body != NULL)
        rc = mod->on_request_body(req, f->conf, &req->body_held);
    if (rc == HD_OK && mod->on_request_trailers != NULL &&
        (hd_chain_flags(&req->body_held) & HD_SLICE_TRAILERS))
        rc = mod->on_request_trailers(req, f->conf);
    req->running = NULL;
    return rc == HD_DECLINED ? HD_OK : rc;
}

/* What is held goes through the filters that it hasn't passed. */
static hd_rc_t filter_body(hd_req_t *req)
{
    while (req->body_filter_at < req->chain_n) {
        const hd_filter_conf_t *f = &req->chain[req->body_filter_at];
        const hd_module_t *mod = hd_filter_module(f);

        if (mod != NULL &&
            (mod->on_request_body != NULL || mod->on_request_trailers != NULL)) {
            hd_rc_t rc = run_body_filter(req, mod, f);

            if (rc == HD_AGAIN)
                req->parked |= HD_HOOK_REQUEST_BODY;
            if (rc != HD_OK)
                return rc;
        }
        req->body_filter_at++;
    }
    req->body_filter_at = 0;
    return HD_OK;
}

/* A body filter's word other than "go on" or "wait". */
static void obey_body_filter(hd_req_t *req, hd_rc_t rc)
{
    hd_chain_free(&req->body_held);
    hd_chain_free(&req->body_wait);
    if (rc == HD_DONE && (req->action_ops == &hd_local_action || req->response_ended))
        return;
    hd_response_fail(req, 500, 0, "request_filter_failed");
}

static void give_to_action(hd_req_t *req, hd_chain_t *body)
{
    req->body_given = true;
    if (hd_unlikely(req->subs != NULL))
        hd_subs_give_body(req, body);
    req->action_ops->give_body(req, body);
}

void hd_filters_pass_body(hd_req_t *req)
{
    hd_rc_t rc;

    if (!may_go_on(req, HD_HOOK_REQUEST_BODY))
        return;
    if (!(req->hooks & HD_HOOK_REQUEST_BODY)) {
        if (hd_chain_is_empty(&req->body_wait))
            return;
        if (req->action_ops->give_body != NULL)
            give_to_action(req, &req->body_wait);
        else if (req->subs != NULL)
            hd_subs_give_body(req, &req->body_wait);
        hd_chain_free(&req->body_wait);
        return;
    }
    while (req->is_acting &&
           (!hd_chain_is_empty(&req->body_held) || !hd_chain_is_empty(&req->body_wait) ||
            (req->parked & HD_HOOK_REQUEST_BODY))) {
        bool was_held = req->body_held.bytes + req->body_wait.bytes > 0;

        if (hd_chain_is_empty(&req->body_held) && !(req->parked & HD_HOOK_REQUEST_BODY))
            hd_chain_move(&req->body_held, &req->body_wait);
        rc = filter_body(req);
        if (rc == HD_AGAIN)
            return;
        if (rc != HD_OK) {
            obey_body_filter(req, rc);
            return;
        }
        if (!req->is_acting)
            break;
        if (req->action_ops->give_body != NULL && !hd_chain_is_empty(&req->body_held))
            give_to_action(req, &req->body_held);
        hd_chain_free(&req->body_held);
        if (was_held && !req->body_ended && req->is_acting)
            req->client->want_body(req);
    }
}

static void log_by(hd_req_t *req, const hd_filter_conf_t *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const hd_module_t *mod = hd_filter_module(&list[i]);

        if (mod == NULL || mod->on_log == NULL)
            continue;
        req->running = &list[i];
        mod->on_log(req, list[i].conf);
    }
    req->running = NULL;
}

void hd_filters_log(hd_req_t *req)
{
    if (req->http == NULL ||
        (req->is_sub &&
         !req->loc->log_subrequest)) /* a call of our own is told of by its caller */
        return;
    if (req->hooks & HD_HOOK_LOG)
        log_by(req, req->chain, req->chain_n);
    if (req->http->logs_n > 0 && (req->http->is_xds || req->route == NULL))
        log_by(req, req->http->logs, req->http->logs_n);
}
