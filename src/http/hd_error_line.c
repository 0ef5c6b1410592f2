/* The error log's lines about requests, in nginx's form. */
#include "http/hd_request_int.h"
#include "http/hd_try.h"
#include <stdarg.h>
#include <stdio.h>

static const char *version_text(const hd_req_t *req)
{
    switch (req->head.version) {
    case HD_HTTP_20:
        return " HTTP/2.0";
    case HD_HTTP_11:
        return " HTTP/1.1";
    case HD_HTTP_10:
        return " HTTP/1.0";
    default:
        return "";
    }
}

/* nginx: `, upstream: "http://127.0.0.1:80/uri"`: where the last try went, or else the
 * name of those among which none was found; empty if none was asked. */
static hd_str_t upstream_text(hd_req_t *req, const hd_req_info_t *info)
{
    const hd_try_t *t = req->tries;
    hd_str_t host = info->upstream_host;
    hd_str_t uri = hd_req_up_path(req);
    const char *scheme = "http";

    if (t == NULL)
        return HD_STR_NONE;
    if (host.len == 0)
        host = info->cluster;
    if (req->route != NULL && req->route->proxy != NULL && req->route->proxy->is_grpc)
        scheme = t->pick.tls != NULL ? "grpcs" : "grpc";
    else if (req->route != NULL && req->route->action == HD_ACT_TUNNEL)
        scheme = "tunnel";
    else if (t->pick.tls != NULL)
        scheme = "https";
    return hd_str_printf(
        req->pool, ", upstream: \"%s://%.*s%s%.*s\"", scheme, HD_STR_ARG(host),
        hd_str_has_prefix(host, HD_STR("unix:")) ? ":" : "", HD_STR_ARG(uri));
}

static const hd_log_place_t *place_of(const hd_req_t *req)
{
    return req->loc != NULL ? req->loc->error_log : NULL;
}

/* Before one is found it is the default one of the address. */
static hd_str_t server_of(const hd_req_t *req)
{
    if (req->vhost != NULL)
        return req->vhost->name;
    return req->listener != NULL && req->listener->default_chain != NULL
               ? req->listener->default_chain->name
               : HD_STR_NONE;
}

/* For whom, in nginx's order. */
static hd_str_t who_text(hd_req_t *req)
{
    char remote[HD_ADDR_TEXT_MAX];
    hd_str_t client = HD_STR("-"), referrer, host, upstream;
    hd_str_t server = server_of(req);
    bool has_referrer;
    hd_req_info_t info;

    hd_req_get_info(req, &info);
    if (req->conn != NULL)
        client = hd_addr_print_ip(hd_request_peer(req), remote);
    upstream = upstream_text(req, &info);
    host = req->head.authority;
    if (host.len > 0)
        host = hd_str_printf(req->pool, ", host: \"%.*s\"", HD_STR_ARG(host));
    referrer = hd_req_header(req, HD_STR("referer"), &has_referrer);
    if (has_referrer)
        referrer = hd_str_printf(req->pool, ", referrer: \"%.*s\"", HD_STR_ARG(referrer));
    return hd_str_printf(
        req->pool, ", client: %.*s, server: %.*s, request: \"%.*s %.*s%s\"%.*s%.*s%.*s",
        HD_STR_ARG(client), HD_STR_ARG(server), HD_STR_ARG(req->head.method),
        HD_STR_ARG(hd_req_target(req)), version_text(req), HD_STR_ARG(upstream),
        HD_STR_ARG(host), HD_STR_ARG(referrer));
}

/* What a client does wrong by itself, or by going, is worth less than what goes wrong
 * here; as in nginx. */
static hd_log_level_t level_of(const hd_req_t *req)
{
    return req->client_gone || (req->flags & HD_RF(DOWNSTREAM_PROTOCOL)) != 0 ||
                   req->res.status == 408
               ? HD_LOG_INFO
               : HD_LOG_ERROR;
}

/* Why, and for whom; then in Envoy's words: flags and details. */
void hd_error_line_end(hd_req_t *req)
{
    hd_log_level_t level = level_of(req);
    hd_req_info_t info;
    hd_str_t who;

    if (!hd_log_is_on(place_of(req), level))
        return;
    hd_req_get_info(req, &info);
    who = who_text(req);
    hd_log_at(place_of(req), level, req->conn != NULL ? req->conn->id : 0,
              "%s%.*s, flags: \"%.*s\", details: \"%.*s\", after %llu ms", req->err->text,
              HD_STR_ARG(who), HD_STR_ARG(info.flags), HD_STR_ARG(info.details),
              (unsigned long long)(info.duration_ns / 1000000));
}

bool hd_req_logs(const hd_req_t *req, hd_log_level_t level)
{
    return hd_log_is_on(place_of(req), level);
}

void hd_req_log_write(hd_req_t *req, hd_log_level_t level, const char *fmt, ...)
{
    char text[1024];
    hd_str_t who = who_text(req);
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    hd_log_at(place_of(req), level, req->conn != NULL ? req->conn->id : 0, "%s%.*s", text,
              HD_STR_ARG(who));
}
