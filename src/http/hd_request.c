#include "http/hd_request.h"
#include "core/base/hd_spare.h"
#include "core/net/hd_clients.h"
#include "core/net/hd_overload.h"
#include "core/os/hd_os.h"
#include "core/hd_grpc.h"
#include "http/hd_http_xds.h"
#include "http/hd_pace.h"
#include "http/hd_request_int.h"
#include "http/hd_rewrite.h"
#include "http/hd_sub.h"
#include "http/hd_try.h"
#include <stdarg.h>
#include <stdio.h>

#define REROUTES_MAX 10
/* First block of a request's pool: an everyday request fits, so that its memory is one
 * piece, used again and again. */
#define POOL_BYTES 8176
#define FREE_POOLS_MAX 128
/* Body bytes held for filters or an action that isn't there yet. */
#define BODY_WAIT_BYTES 65536

static _Thread_local hd_pool_t *free_pools[FREE_POOLS_MAX];
static _Thread_local unsigned free_pools_n;
static _Thread_local unsigned free_pools_low; /* the least since spares were trimmed */
static _Thread_local size_t active_n;
static _Thread_local uint64_t last_id;
static const hd_action_ops_t *actions[HD_ACT_SERVICE + 1];

/* --- the steps --- */

static hd_rc_t read_head(hd_req_t *req)
{
    /* nginx's post-read phase; the filters of xDS come after the route. */
    if (req->http == NULL || req->is_sub)
        return HD_OK;
    if (req->http->is_xds)
        hd_http_xds_request(req);
    else if (req->head.method_id == HD_M_CONNECT)
        req->head.path = HD_STR("/"); /* where nginx looks for its location */
    if (req->http->is_xds || req->http->filters_n == 0)
        return HD_OK;
    if (req->chain == NULL)
        hd_filters_select(req);
    return hd_filters_run(req);
}

static const hd_routes_t *pin_routes(hd_req_t *req)
{
    const hd_region_t *r;

    if (req->http->routes == NULL) { /* in the listener's region, pinned with it */
        req->routes_region = req->listener_region;
        return req->http->inline_routes;
    }
    r = hd_slot_get(req->member, req->http->routes);
    if (r == NULL)
        return NULL;
    hd_pin(req->member, r);
    req->routes_region = r;
    return r->root;
}

static const hd_weighted_t *choose_target(const hd_proxy_conf_t *proxy)
{
    uint32_t at;

    if (proxy->targets_n <= 1)
        return proxy->targets_n == 0 ? NULL : proxy->targets;
    if (proxy->weights_total == 0)
        return proxy->targets;
    at = (uint32_t)(hd_request_random() % proxy->weights_total);
    for (uint32_t i = 0; i < proxy->targets_n; i++) {
        if (at < proxy->targets[i].weight)
            return &proxy->targets[i];
        at -= proxy->targets[i].weight;
    }
    return proxy->targets;
}

static hd_rc_t redirect(hd_req_t *req, unsigned status, hd_str_t url, const char *details)
{
    hd_filters_select(req);
    hd_response_local(req, status, HD_STR_NONE, HD_STR(""), 0, details);
    hd_headers_add_id(&req->res.headers, HD_H_LOCATION, HD_STR("location"), url);
    return HD_DONE;
}

static hd_str_t url_with(hd_req_t *req, hd_str_t scheme)
{
    return hd_str_printf(req->pool, "%.*s://%.*s%.*s", HD_STR_ARG(scheme),
                         HD_STR_ARG(req->head.authority), HD_STR_ARG(req->head.raw_path));
}

/* Envoy's require_tls: the same URL, https. */
static hd_rc_t redirect_to_tls(hd_req_t *req)
{
    return redirect(req, 301, url_with(req, HD_STR("https")), "tls_required");
}

/* Envoy's UNESCAPE_AND_REDIRECT: all before us and behind shall see the path that was
 * judged. gRPC's clients follow nobody. */
static hd_rc_t redirect_to_path(hd_req_t *req)
{
    hd_str_t path = req->head.raw_path;

    if (!hd_req_is_grpc(req)) {
        if (path.len > 1 && (path.data[1] == '/' || path.data[1] == '\\'))
            path = url_with(req, req->head.scheme); /* or "//name" would be a host */
        return redirect(req, 307, path, "path_normalized");
    }
    hd_filters_select(req);
    hd_ignore(
        hd_req_err(req, HD_E_PROTOCOL, "an escaped slash in a gRPC request's path"));
    hd_response_fail(req, 400, 0, "path_normalized");
    return HD_ERROR;
}

/* What was announced, and what came: the route may allow more than its server. An error
 * page may be had for any. */
static bool is_too_large(const hd_req_t *req)
{
    uint64_t max = req->loc->client_max_body_size;

    if (max == 0 || req->is_sub || req->has_error_page || !req->head.has_body)
        return false;
    return req->bytes_received > max || req->head.content_length > (int64_t)max;
}

static hd_rc_t refuse_body(hd_req_t *req)
{
    hd_ignore(hd_req_err(req, HD_E_LIMIT, "client intended to send too large body"));
    hd_response_fail(req, 413, 0, "request_payload_too_large");
    return HD_ERROR;
}

/* limit_except */
static const hd_route_t *by_method(const hd_req_t *req, const hd_route_t *route)
{
    const hd_except_t *except = route != NULL ? route->except : NULL;

    if (hd_likely(except == NULL))
        return route;
    for (uint32_t i = 0; i < except->methods_n; i++) {
        if (hd_str_eq(except->methods[i], req->head.method))
            return route;
    }
    return except->route;
}

/* HD_ERROR: it can't be told, and <req->route> isn't it. */
static hd_rc_t find_known(hd_req_t *req)
{
    const hd_route_t *found = hd_router_find(req, req->vhost);

    if (req->route_unknown)
        return hd_req_err(req, HD_E_LIMIT,
                          "no route for \"%.*s\": a regular expression "
                          "was given up",
                          HD_STR_ARG(req->head.path));
    req->route = by_method(req, found);
    return HD_OK;
}

/* By nginx's locations: the server's rewrite directives, then location after location as
 * long as theirs change the URI. HD_ERROR: answered. */
static hd_rc_t find_location(hd_req_t *req)
{
    const hd_locations_t *l = req->vhost->routes;
    const hd_route_t *server = l->server_route;
    bool changed = false;
    hd_rc_t rc = HD_OK;

    req->redirect_to = HD_STR_NONE;
    req->leaves_location = req->adds_to_alias = false;
    if (req->reroute_to.len > 0) {
        req->route = by_method(req, hd_router_find_named(req->vhost, req->reroute_to));
        req->reroute_to = HD_STR_NONE;
    } else {
        req->route = server;
        req->loc = server->loc; /* whose error_log its rewriting is told in */
        if (server->rewrite != NULL)
            rc = hd_rewrite_run(req, server->rewrite, &changed);
        if (rc == HD_OK)
            rc = find_known(req);
    }
    while (rc == HD_OK && req->route != NULL && req->route != server &&
           req->route->rewrite != NULL) {
        req->loc = req->route->loc;
        rc = hd_rewrite_run(req, req->route->rewrite, &changed);
        if (rc != HD_OK || !changed)
            break;
        if (++req->reroutes > REROUTES_MAX)
            rc = hd_req_err(req, HD_E_CONF,
                            "rewrite or internal redirection cycle while processing "
                            "\"%.*s\"",
                            HD_STR_ARG(req->head.path));
        else
            rc = find_known(req);
    }
    if (rc != HD_ERROR)
        return HD_OK;
    req->loc = req->route->loc;
    hd_filters_select(req);
    hd_response_fail(req, 500, 0, "rewrite_failed");
    return HD_ERROR;
}

static hd_rc_t refuse_head(hd_req_t *req, unsigned status, const char *why, hd_str_t what)
{
    if (req->vhost != NULL && req->vhost->loc != NULL)
        req->loc = req->vhost->loc;
    req->no_keepalive = true;
    hd_filters_select(req);
    return hd_req_fail(req, status, HD_E_PROTOCOL, "client sent %s%.*s", why,
                       HD_STR_ARG(what));
}

/* What nginx's servers don't take, whatever their locations say. A forward proxy is who
 * has a tunnel: in a server without one nothing answers CONNECT. Two of a field that
 * comes once are two requests: one for us to judge, one for who is behind. */
static hd_rc_t check_head(hd_req_t *req)
{
    uint8_t method = req->head.method_id;
    const hd_field_t *f;

    if (req->http->is_xds || req->is_internal || req->is_sub)
        return HD_OK;
    if (method == HD_M_CONNECT && (req->vhost == NULL || !req->vhost->allows_connect))
        return refuse_head(req, 405, "CONNECT method", HD_STR(""));
    if (method == HD_M_TRACE)
        return refuse_head(req, 405, "TRACE method", HD_STR(""));
    f = hd_headers_repeated(&req->head.headers);
    return f == NULL ? HD_OK : refuse_head(req, 400, "duplicate header line: ", f->name);
}

static bool is_exempt(const hd_req_t *req)
{
    return req->conn == NULL || req->is_sub || req->loc->overload_exempt ||
           req->route->action == HD_ACT_SERVICE ||
           (req->listener != NULL && req->listener->bypasses_overload);
}

/* The worker has more to do than it can (hd_overload.h): this request isn't begun. No
 * line in the error log: the access log says OM, and the worker when it began and ended.
 */
static hd_rc_t refuse_for_overload(hd_req_t *req)
{
    req->no_keepalive |= hd_overload_now.is_for_memory;
    if (hd_req_is_grpc(req)) {
        hd_response_local_grpc(req, hd_grpc_status_from_http(503), HD_STR("overloaded"),
                               HD_RF(OVERLOAD), "overload");
        return HD_DONE;
    }
    hd_response_local(req, 503, HD_STR_NONE, HD_STR_NONE, HD_RF(OVERLOAD), "overload");
    hd_headers_add(&req->res.headers,
                   req->http != NULL && req->http->is_xds ? HD_STR("retry-after")
                                                          : HD_STR("Retry-After"),
                   HD_STR("1"));
    return HD_DONE;
}

static bool is_refused(hd_req_t *req)
{
    if (hd_likely(hd_overload_now.share == 0) || req->was_admitted || is_exempt(req))
        return false;
    req->was_admitted = true;
    return hd_overload_refuses();
}

static hd_rc_t refuse_unrouted(hd_req_t *req)
{
    hd_response_local(req, 404, HD_STR_NONE, HD_STR_NONE, HD_RF(NO_ROUTE),
                      "route_not_found");
    return HD_DONE;
}

static hd_rc_t find_route(hd_req_t *req)
{
    if (req->http == NULL) /* a call of our own brings its route */
        return HD_OK;
    if (req->routes == NULL)
        req->routes = pin_routes(req);
    if (hd_unlikely(req->head.is_unescaped))
        return redirect_to_path(req);
    req->vhost = req->routes == NULL ? NULL : hd_router_find_vhost(req);
    if (req->vhost != NULL && req->vhost->require_tls && !hd_http_xds_came_by_tls(req))
        return redirect_to_tls(req);
    if (hd_unlikely(check_head(req) != HD_OK))
        return HD_ERROR;
    if (req->vhost != NULL && req->vhost->router == HD_ROUTER_LOCATIONS) {
        if (find_location(req) != HD_OK)
            return HD_ERROR;
    } else {
        req->route = NULL;
        req->reroute_to = HD_STR_NONE;
        if (req->vhost != NULL && find_known(req) != HD_OK) {
            hd_filters_select(req);
            hd_response_fail(req, 500, 0, "route_unknown");
            return HD_ERROR;
        }
    }
    req->target = NULL;
    if (req->route == NULL) {
        hd_filters_select(req);
        if (req->http->tls_checks != 0 && hd_http_tls_check(req) != HD_OK)
            return HD_ERROR;
        /* Envoy's filters see it before its router does: who may not come in doesn't
         * learn what isn't there. */
        return req->http->is_xds ? HD_OK : refuse_unrouted(req);
    }
    if (req->route->proxy != NULL)
        req->target = choose_target(req->route->proxy);
    if (req->route->loc != NULL)
        req->loc = req->route->loc;
    else if (req->vhost->loc != NULL)
        req->loc = req->vhost->loc;
    req->filter_at = 0;
    hd_filters_select(req);
    if (req->http->tls_checks != 0 && hd_http_tls_check(req) != HD_OK)
        return HD_ERROR;
    if (is_refused(req))
        return refuse_for_overload(req);
    req->was_admitted = true;
    if (is_too_large(req))
        return refuse_body(req);
    return HD_OK;
}

static hd_rc_t run_filters(hd_req_t *req)
{
    hd_rc_t rc;

    while ((rc = hd_filters_run(req)) == HD_OK && req->route_wanted) {
        uint16_t at = req->filter_at; /* the chain goes on behind the one that asked */

        req->route_wanted = false;
        rc = find_route(req);
        req->filter_at = at;
        if (rc != HD_OK)
            return rc;
    }
    return rc;
}

/* A tunnel is asked for by CONNECT, which by nginx's configuration nobody else passes on,
 * or has a file for. */
static bool fits_method(const hd_req_t *req)
{
    hd_action_kind_t kind = req->route != NULL ? req->route->action : HD_ACT_NONE;

    if (req->action_ops == &hd_local_action)
        return true;
    if (hd_likely(req->head.method_id != HD_M_CONNECT))
        return kind != HD_ACT_TUNNEL;
    return req->http == NULL || req->http->is_xds || kind == HD_ACT_TUNNEL ||
           kind == HD_ACT_ANSWER || kind == HD_ACT_REDIRECT;
}

static hd_rc_t start_action(hd_req_t *req)
{
    hd_rc_t rc;

    if (req->action_ops == NULL && req->route == NULL)
        return refuse_unrouted(req);
    if (req->action_ops == NULL)
        req->action_ops = actions[req->route->action];
    if (hd_unlikely(!fits_method(req)))
        return hd_req_fail(req, 405, HD_E_PROTOCOL, "client sent %.*s method",
                           HD_STR_ARG(req->head.method));
    if (req->action_ops == NULL) {
        hd_response_local(req, 404, HD_STR_NONE, HD_STR_NONE, 0, "direct_response");
        return HD_DONE;
    }
    req->is_acting = true;
    rc = req->action_ops->start(req);
    if ((rc != HD_OK && rc != HD_AGAIN) || !req->is_acting)
        return rc;
    hd_filters_pass_body(req);
    if (!req->body_ended && req->is_acting && req->action_ops->give_body != NULL)
        req->client->want_body(req);
    return rc;
}

static hd_rc_t run_action(hd_req_t *req)
{
    if (!req->response_ended && !req->is_acting) {
        hd_rc_t rc = start_action(req);

        if (rc != HD_OK && rc != HD_AGAIN)
            return rc;
    } else if (!req->response_ended) {
        if (req->parked & HD_HOOK_REQUEST_BODY)
            hd_filters_pass_body(req);
        if (req->parked & (HD_HOOK_RESPONSE | HD_HOOK_RESPONSE_BODY))
            hd_response_resume(req);
        if (req->is_acting && req->action_ops->on_wake != NULL)
            req->action_ops->on_wake(req);
    }
    return req->response_ended ? HD_OK : HD_AGAIN;
}

/* A step returns
 *   HD_OK       go on to the next one
 *   HD_AGAIN    parked: what wakes it (socket, timer, filter) posts it, and it runs again
 *   HD_REROUTE  back to FIND_ROUTE with filter state cleared, at most 10 times
 *   HD_DONE     answered early (redirect, denial): the answer is now the action
 *   HD_ERROR    failed: req->err says why; an error page is now the action */
static hd_rc_t (*const steps[HD_STEP_FINISH])(hd_req_t *req) = {
    [HD_STEP_READ_HEAD] = read_head,   /* limits; filters before routing (post-read) */
    [HD_STEP_FIND_ROUTE] = find_route, /* the router of the virtual host; its settings */
    [HD_STEP_FILTERS] = run_filters,   /* in their order: authz, jwt, fault … */
    [HD_STEP_ACT] = run_action,        /* proxy (tries: hd_proxy.c), answer, tunnel … */
};

/* Where a reroute goes: a path takes the place of the request's, "@name" doesn't. */
static void take_path(hd_req_t *req)
{
    ssize_t at = req->reroute_is_exact ? -1 : hd_str_find_char(req->reroute_to, '?');

    if (req->reroute_to.len == 0 || req->reroute_to.data[0] == '@')
        return;
    req->head.path =
        at < 0 ? req->reroute_to : hd_str_sub(req->reroute_to, 0, (size_t)at);
    req->head.query = req->reroute_is_exact ? req->reroute_args
                      : at < 0              ? HD_STR_NONE
                               : hd_str_sub(req->reroute_to, (size_t)at + 1, SIZE_MAX);
    req->reroute_is_exact = false;
    req->reroute_to = HD_STR_NONE;
    req->up_path = HD_STR_NONE;
    req->path_changed = true;
}

/* Filter state and the action are cleared for another route. False: once too often. */
static bool begin_reroute(hd_req_t *req)
{
    if (++req->reroutes > REROUTES_MAX) {
        hd_ignore(hd_req_err(req, HD_E_INTERNAL, "more than %d internal redirections",
                             REROUTES_MAX));
        hd_response_local(req, 500, HD_STR_NONE, HD_STR_NONE, 0, "too_many_reroutes");
        return false;
    }
    req->is_internal = true;
    hd_response_keep_upstream(req);
    hd_request_act(req, NULL);
    hd_response_clear(req);
    req->filter_at = req->body_filter_at = 0;
    req->response_filters_n = UINT16_MAX;
    req->parked = 0;
    req->denial = NULL;
    req->is_satisfied = false;
    req->route_wanted = false;
    req->states = NULL;
    take_path(req);
    hd_header_ops_undo(req);
    if (req->attrs != NULL)
        hd_attrs_on_reroute(req->attrs);
    if (req->body_given) { /* it can't be given twice */
        req->head.has_body = false;
        req->head.content_length = 0;
        req->body_ended = true;
        hd_chain_free(&req->body_wait);
        hd_chain_free(&req->body_held);
    }
    return true;
}

/* What failed without having answered gets an error page. */
static void fail_request(hd_req_t *req)
{
    if (req->action_ops != &hd_local_action || req->is_acting)
        hd_response_fail(req, 500, 0, "internal_error");
}

static hd_step_t step_after(hd_req_t *req, hd_rc_t rc)
{
    if (rc == HD_REROUTE)
        return begin_reroute(req) ? HD_STEP_FIND_ROUTE : HD_STEP_ACT;
    if (rc == HD_DONE || rc == HD_ERROR)
        return HD_STEP_ACT;
    return (hd_step_t)(req->step + 1);
}

/* --- the end --- */

void hd_request_log(hd_req_t *req)
{
    if (req->is_logged)
        return;
    req->is_logged = true;
    hd_filters_log(req);
    if (req->err != NULL)
        hd_error_line_end(req);
    if (hd_unlikely(req->subs != NULL))
        hd_subs_detach(req);
    req->conn = NULL;
}

static void unpin(hd_req_t *req)
{
    if (req->routes_region != NULL && req->routes_region != req->listener_region)
        hd_unpin(req->member, req->routes_region);
    if (req->listener_region != NULL)
        hd_unpin(req->member, req->listener_region);
}

/* Log, count, let go of all: <req> is gone. */
static void finish(hd_req_t *req)
{
    hd_pool_t *pool = req->pool;

    hd_request_act(req, NULL);
    hd_request_log(req);
    req->client->on_finished(req);
    hd_response_clear(req);
    hd_timer_stop(req->loop, &req->timer);
    hd_timer_stop(req->loop, &req->deadline);
    hd_post_cancel(&req->wake);
    hd_chain_free(&req->body_wait);
    hd_chain_free(&req->body_held);
    unpin(req);
    if (req->is_client)
        hd_clients_leave(HD_CLIENTS_WRITING);
    active_n--;
    if (free_pools_n == FREE_POOLS_MAX) {
        hd_pool_destroy(pool);
        return;
    }
    hd_pool_reset(pool);
    free_pools[free_pools_n++] = pool;
}

/* Entered from req->wake only, so never from within itself or a codec's call. */
static void run(hd_req_t *req)
{
    req->may_resume = req->is_woken;
    req->is_woken = false;
    while (req->step != HD_STEP_FINISH) {
        hd_rc_t rc = steps[req->step](req);

        if (rc == HD_AGAIN) {
            req->may_resume = false;
            return;
        }
        if (rc == HD_ERROR)
            fail_request(req);
        req->step = (uint8_t)step_after(req, rc);
    }
    finish(req);
}

/* --- what wakes it --- */

static void on_wake(hd_post_t *p)
{
    run(hd_container_of(p, hd_req_t, wake));
}

void hd_request_wake(hd_req_t *req)
{
    hd_post(req->loop, &req->wake);
}

/* A filter's wait is over. */
static void on_timer(hd_timer_t *t)
{
    hd_req_wake(hd_container_of(t, hd_req_t, timer));
}

static void on_deadline(hd_timer_t *t)
{
    hd_req_t *req = hd_container_of(t, hd_req_t, deadline);

    if (req->response_ended)
        return;
    hd_ignore(hd_req_err(req, HD_E_TIMEOUT, "request timed out"));
    req->no_keepalive |= !req->body_ended; /* the rest isn't waited for */
    if (req->has_grpc_deadline && !req->response_started && hd_req_is_grpc(req)) {
        hd_response_local_grpc(req, HD_GRPC_DEADLINE_EXCEEDED,
                               HD_STR("the client's grpc-timeout is over"),
                               HD_RF(DURATION_TIMEOUT), "grpc_timeout");
        return;
    }
    hd_response_fail(req, req->body_ended ? 504 : 408,
                     req->body_ended ? HD_RF(UPSTREAM_TIMEOUT) : 0,
                     req->body_ended ? "response_timeout" : "request_overall_timeout");
}

/* Envoy's max_stream_duration: of the request as a whole, body and answer. */
typedef struct {
    hd_timer_t timer;
    hd_req_t *req;
} duration_t;

static void on_duration(hd_timer_t *t)
{
    hd_req_t *req = hd_container_of(t, duration_t, timer)->req;

    if (req->response_ended || req->is_tunnel)
        return;
    hd_ignore(hd_req_err(req, HD_E_TIMEOUT, "request took longer than it may"));
    req->no_keepalive |= !req->body_ended;
    hd_response_fail(req, req->body_ended ? 504 : 408, HD_RF(DURATION_TIMEOUT),
                     "max_duration_timeout");
}

static void stop_duration(void *arg)
{
    duration_t *d = arg;

    hd_timer_stop(d->req->loop, &d->timer);
}

void hd_request_set_duration(hd_req_t *req, uint64_t ms)
{
    uint64_t gone_ms = (hd_loop_now_ns(req->loop) - req->start_ns) / 1000000;
    duration_t *d;

    if (req->duration == NULL && ms > 0) {
        d = hd_pool_new(req->pool, duration_t);
        d->req = req;
        hd_timer_init(&d->timer, on_duration);
        hd_pool_defer(req->pool, stop_duration, d);
        req->duration = &d->timer;
    }
    if (ms > 0)
        hd_timer_set(req->loop, req->duration, ms > gone_ms ? ms - gone_ms : 1);
    else if (req->duration != NULL)
        hd_timer_stop(req->loop, req->duration);
}

void hd_request_act(hd_req_t *req, const hd_action_ops_t *ops)
{
    if (req->is_acting) {
        req->is_acting = false;
        if (req->action_ops->cancel != NULL)
            req->action_ops->cancel(req);
    }
    req->action_ops = ops;
    if (ops != NULL && req->step != HD_STEP_FINISH) {
        req->step = HD_STEP_ACT;
        hd_request_wake(req);
    }
}

void hd_request_end_response(hd_req_t *req)
{
    req->response_ended = true;
    hd_request_wake(req);
}

void hd_request_reroute(hd_req_t *req, hd_str_t new_path)
{
    hd_assert(!req->response_started);
    req->reroute_to = hd_str_dup(req->pool, new_path);
    if (begin_reroute(req)) {
        req->step = HD_STEP_FIND_ROUTE;
        hd_request_wake(req);
    }
}

/* --- for codecs --- */

static hd_pool_t *take_pool(void)
{
    if (free_pools_n == 0)
        return hd_pool_create(POOL_BYTES);
    free_pools_n--;
    free_pools_low = hd_min(free_pools_low, free_pools_n);
    return free_pools[free_pools_n];
}

static size_t trim_pools(void)
{
    unsigned n = hd_min(free_pools_low, free_pools_n);

    for (unsigned i = 0; i < n; i++)
        hd_pool_destroy(free_pools[--free_pools_n]);
    free_pools_low = free_pools_n;
    return (size_t)n * POOL_BYTES;
}

static hd_spare_t spare = {.trim = trim_pools};

__attribute__((constructor)) static void register_spare(void)
{
    hd_spare_register(&spare);
}

hd_req_t *hd_request_create(hd_conn_t *c, hd_loop_t *loop, hd_member_t *m,
                            const hd_client_ops_t *client, void *client_state)
{
    hd_pool_t *pool = take_pool();
    hd_req_t *req = hd_pool_new(pool, hd_req_t);

    active_n++;
    if (c != NULL) {
        req->is_client = true;
        hd_clients_requested();
    }
    req->conn = c;
    req->client = client;
    req->client_state = client_state;
    req->loop = loop;
    req->member = m;
    req->pool = pool;
    req->id = ++last_id;
    req->loc = &hd_http_loc_defaults;
    req->head.content_length = HD_LEN_UNKNOWN;
    req->response_filters_n = UINT16_MAX;
    req->start_ns = hd_loop_now_ns(loop);
    req->start_wall_ns = hd_loop_wall_ns(loop);
    hd_post_init(&req->wake, on_wake);
    hd_timer_init(&req->timer, on_timer);
    hd_timer_init(&req->deadline, on_deadline);
    return req;
}

void hd_request_set_entry(hd_req_t *req, const hd_http_entry_t *entry)
{
    if (entry == NULL || entry->region == NULL)
        return;
    req->listener_slot = entry->listener;
    req->listener_region = entry->region;
    req->listener = entry->region->root;
    hd_pin(req->member, entry->region);
    req->http = entry->chain->protocol_conf;
    if (req->http->loc != NULL)
        req->loc = req->http->loc;
}

void hd_request_start(hd_req_t *req, const hd_http_entry_t *entry)
{
    hd_request_set_entry(req, entry);
    req->body_ended = !req->head.has_body;
    if (req->http != NULL && req->http->request_timeout_ms > 0 && !req->body_ended)
        hd_timer_set(req->loop, &req->deadline, req->http->request_timeout_ms);
    if (req->http != NULL && req->http->max_stream_duration_ms > 0)
        hd_request_set_duration(req, req->http->max_stream_duration_ms);
    hd_request_wake(req);
}

void hd_request_give_body(hd_req_t *req, hd_chain_t *body)
{
    bool is_last = (hd_chain_flags(body) & HD_SLICE_END) != 0;

    req->bytes_received += body->bytes;
    req->body_ended |= is_last;
    if (req->response_ended || !req->head.has_body || req->step == HD_STEP_FINISH ||
        req->action_ops == &hd_local_action) {
        hd_chain_free(body);
        return;
    }
    if (is_last && req->http != NULL &&
        !req->has_grpc_deadline) /* what the proxy sets begins now */
        hd_timer_stop(req->loop, &req->deadline);
    hd_chain_move(&req->body_wait, body);
    if (req->route != NULL && hd_unlikely(is_too_large(req))) {
        hd_ignore(hd_req_err(req, HD_E_LIMIT, "client sent too large body"));
        hd_response_fail(req, 413, 0, "request_payload_too_large");
    } else if (req->is_acting) {
        hd_filters_pass_body(req);
    }
}

bool hd_request_is_full(const hd_req_t *req)
{
    if (req->response_ended || req->step == HD_STEP_FINISH)
        return false;
    if (req->body_wait.bytes + req->body_held.bytes >= BODY_WAIT_BYTES)
        return true;
    return req->is_acting && req->action_ops->is_full != NULL &&
           req->action_ops->is_full((hd_req_t *)(uintptr_t)req);
}

void hd_request_on_drained(hd_req_t *req)
{
    if (hd_unlikely(req->pace != NULL) && !hd_pace_go_on(req))
        return;
    if (hd_unlikely(req->waits_for_room)) {
        req->waits_for_room = false;
        hd_req_wake(req);
    }
    if (req->is_acting && !req->response_ended && req->action_ops->on_drained != NULL)
        req->action_ops->on_drained(req);
}

bool hd_request_ends_with_client(hd_req_t *req)
{
    return req->is_acting && !req->response_ended &&
           req->action_ops->ends_with_client != NULL &&
           req->action_ops->ends_with_client(req);
}

bool hd_request_outlives_client(hd_req_t *req)
{
    return req->is_acting && !req->response_started && req->body_ended &&
           req->action_ops == &hd_proxy_action && req->head.protocol.len == 0 &&
           !hd_request_ends_with_client(req); /* a tunnel would have one end */
}

/* <status> is nginx's number for it; Envoy logs 0. */
static void lose_client(hd_req_t *req, unsigned status, hd_err_code_t code,
                        const char *why, uint64_t flag, const char *details)
{
    req->client = &hd_client_gone;
    if (req->step == HD_STEP_FINISH || req->response_ended)
        return;
    req->client_gone = true;
    hd_ignore(hd_req_err(req, code, "%s", why));
    hd_request_add_flag(req, flag);
    req->details = details;
    if (!req->response_started)
        req->res.status = req->http != NULL && req->http->is_xds ? 0 : status;
    req->response_ended = true;
    req->step = HD_STEP_FINISH;
    hd_request_act(req, NULL);
    hd_request_log(req);
    hd_request_wake(req);
}

void hd_request_client_gone(hd_req_t *req, hd_err_code_t code, const char *why)
{
    if (code == HD_E_TIMEOUT) /* Envoy's words for one who doesn't read, too */
        lose_client(req, 408, code, why, HD_RF(STREAM_IDLE), "stream_idle_timeout");
    else if (code != HD_E_PROTOCOL)
        lose_client(req, 499, code, why, HD_RF(DOWNSTREAM_CLOSED),
                    "downstream_remote_disconnect");
    else
        lose_client(req, 400, code,
                    hd_str_printf(req->pool, "client sent invalid request: %s", why).data,
                    HD_RF(DOWNSTREAM_PROTOCOL),
                    req->head.version == HD_HTTP_20 ? "codec_error"
                                                    : "http1.codec_error");
}

void hd_request_client_reset(hd_req_t *req, bool is_refused)
{
    lose_client(req, 499, HD_E_RESET, "client reset the stream", HD_RF(DOWNSTREAM_RESET),
                is_refused ? "http2.remote_refuse" : "http2.remote_reset");
}

/* By nginx's configuration what can't be read is a server's nevertheless: of the host
 * that it names, as far as it was read, else the default one. Its error_page may answer,
 * so that nothing may be left that its head says of a body. */
static void find_server(hd_req_t *req)
{
    const hd_vhost_t *vhost;

    if (req->route != NULL || req->http == NULL || req->http->is_xds)
        return;
    if (req->routes == NULL)
        req->routes = pin_routes(req);
    vhost = req->routes == NULL ? NULL : hd_router_find_vhost(req);
    if (vhost == NULL || vhost->router != HD_ROUTER_LOCATIONS)
        return;
    req->vhost = vhost;
    req->route = ((const hd_locations_t *)vhost->routes)->server_route;
    req->loc = req->route->loc;
    if (req->head.headers.pool == NULL)
        hd_headers_init(&req->head.headers, req->pool, 4);
    hd_headers_mark_hops(&req->head.headers);
    req->head.has_body = req->head.is_upgrade = req->head.expects_continue = false;
    req->head.content_length = 0;
    hd_headers_remove_id(&req->head.headers, HD_H_CONTENT_LENGTH);
    hd_filters_select(req);
}

void hd_request_misread(hd_req_t *req, const hd_http_entry_t *entry)
{
    hd_request_set_entry(req, entry);
    find_server(req);
    lose_client(req, 400, HD_E_PROTOCOL, "client sent invalid request: malformed head",
                HD_RF(DOWNSTREAM_PROTOCOL), "http2.violation.of.messaging.rule");
}

void hd_request_reject(hd_req_t *req, unsigned status, const char *why)
{
    if (req->response_ended)
        return;
    req->body_ended = req->no_keepalive = true;
    if (req->action_ops == &hd_local_action) /* refused for another reason before */
        return;
    find_server(req);
    if (status == 431)
        req->local_code = 494; /* by which nginx's error_page may name it */
    if (status == 408) {
        hd_ignore(hd_req_err(req, HD_E_TIMEOUT, "%s", why));
        hd_response_fail(req, status, req->head.has_body ? HD_RF(STREAM_IDLE) : 0,
                         req->head.has_body ? "stream_idle_timeout"
                                            : "request_header_timeout");
        return;
    }
    hd_ignore(hd_req_err(req, HD_E_PROTOCOL, "client sent invalid request: %s", why));
    hd_response_fail(req, status, HD_RF(DOWNSTREAM_PROTOCOL),
                     req->head.version == HD_HTTP_20 ? "http2.violation.of.messaging.rule"
                     : status == 400 || status == 505 ? "http1.codec_error"
                     : status == 426                  ? "low_version"
                                                      : "http1.headers_too_large");
    if (status == 426) { /* RFC 9110 §15.5.22, §7.8 */
        hd_headers_add(&req->res.headers, HD_STR("connection"), HD_STR("upgrade"));
        hd_headers_add(&req->res.headers, HD_STR("upgrade"), HD_STR("HTTP/1.1"));
    }
}

/* --- the rest --- */

void hd_request_add_flag(hd_req_t *req, uint64_t flag)
{
    req->flags |= flag;
}

void hd_action_register(hd_action_kind_t kind, const hd_action_ops_t *ops)
{
    actions[kind] = ops;
}

size_t hd_requests_active(void)
{
    return active_n;
}

hd_rc_t hd_req_err(hd_req_t *req, hd_err_code_t code, const char *fmt, ...)
{
    va_list args;

    if (req->err != NULL)
        return HD_ERROR; /* the first reason stays */
    req->err = hd_pool_new(req->pool, hd_err_t);
    req->err->code = code;
    va_start(args, fmt);
    vsnprintf(req->err->text, sizeof(req->err->text), fmt, args);
    va_end(args);
    return HD_ERROR;
}

uint64_t hd_request_idle_ms(const hd_req_t *req, const hd_proxy_conf_t *proxy)
{
    if (proxy->idle_timeout_ms > 0 || proxy->never_idles || req->http == NULL)
        return proxy->idle_timeout_ms;
    return req->http->stream_idle_timeout_ms;
}

uint64_t hd_request_patience_ms(const hd_req_t *req, bool has_output, bool owes)
{
    const hd_http_loc_t *loc =
        req != NULL && req->loc != NULL ? req->loc : &hd_http_loc_defaults;

    if (has_output)
        return loc->send_timeout_ms > 0           ? loc->send_timeout_ms
               : req != NULL && req->http != NULL ? req->http->stream_idle_timeout_ms
                                                  : 0;
    if (req == NULL || !owes || !req->is_acting || req->is_tunnel ||
        req->response_started)
        return 0;
    return loc->client_body_timeout_ms; /* xDS: the request's own time-outs */
}

/* xoshiro256++ (Blackman and Vigna, public domain). */
uint64_t hd_request_random(void)
{
    static _Thread_local uint64_t s[4];
    uint64_t sum, result, t;

    if (hd_unlikely((s[0] | s[1] | s[2] | s[3]) == 0))
        hd_os_random(s, sizeof(s));
    sum = s[0] + s[3];
    result = ((sum << 23) | (sum >> 41)) + s[0];
    t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

static void ignore_head(hd_req_t *req, bool is_interim)
{
    (void)req;
    (void)is_interim;
}

static void drop_body(hd_req_t *req, hd_chain_t *body)
{
    (void)req;
    hd_chain_free(body);
}

static bool is_never_full(hd_req_t *req)
{
    (void)req;
    return false;
}

static void ignore_abort(hd_req_t *req, uint32_t h2_error)
{
    (void)req;
    (void)h2_error;
}

static void ignore(hd_req_t *req)
{
    (void)req;
}

const hd_client_ops_t hd_client_gone = {
    .name = "gone",
    .send_head = ignore_head,
    .send_body = drop_body,
    .is_full = is_never_full,
    .want_body = ignore,
    .abort = ignore_abort,
    .on_finished = ignore,
};
