/* error_page: another answer where this one would be an error. */
#include "core/conf/hd_module_table.h"
#include "http/hd_conf_int.h"
#include "http/hd_request_int.h"

#define PAGES_MAX 200

typedef struct {
    uint16_t status;
    uint16_t instead; /* the answer's status; 0: as the page's own answer says */
    bool keeps;       /* the answer's status is <status> */
    const hd_expr_t *uri;
} page_t;

typedef struct {
    const page_t *pages;
    uint32_t n;
    bool recursive;
} error_conf_t;

/* --- error_page CODE … [=[CODE]] URI --- */

static hd_rc_t read_instead(hd_str_t arg, page_t *p, hd_err_t *err)
{
    uint64_t status;

    p->keeps = false;
    if (arg.len == 1)
        return HD_OK;
    if (!hd_str_to_u64(hd_str_sub(arg, 1, arg.len), 999, &status) || status < 200)
        return hd_err_set(err, HD_E_CONF, "invalid value \"%.*s\": =CODE, as in =200",
                          HD_STR_ARG(arg));
    p->instead = (uint16_t)status;
    return HD_OK;
}

static hd_rc_t set_error_page(hd_conf_t *cf, const hd_str_t *args, void *conf,
                              hd_err_t *err)
{
    error_conf_t *ec = conf;
    uint32_t codes_n = cf->node->args_n - 1, n = cf->is_first ? 0 : ec->n;
    page_t page = {.keeps = true}, *list;
    hd_str_t uri = args[codes_n];
    hd_expr_t *expr;

    if (args[codes_n - 1].len > 0 && args[codes_n - 1].data[0] == '=') {
        if (read_instead(args[--codes_n], &page, err) != HD_OK)
            return HD_ERROR;
        if (codes_n == 0)
            return hd_err_set(err, HD_E_CONF, "which status? error_page CODE … =%s",
                              " URI");
    }
    if (hd_expr_compile(cf, uri, &expr, err) != HD_OK)
        return HD_ERROR;
    page.uri = expr;
    if (n + codes_n > PAGES_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d statuses", PAGES_MAX);
    list = hd_pool_new_n(cf->pool, page_t, n + codes_n);
    if (n > 0)
        memcpy(list, ec->pages, n * sizeof(*list));
    for (uint32_t i = 0; i < codes_n; i++) {
        uint64_t status;

        if (!hd_str_to_u64(args[i], 599, &status) || status < 300 || status == 499)
            return hd_err_set(err, HD_E_CONF,
                              "invalid value \"%.*s\": a status from 300 to 599, not 499",
                              HD_STR_ARG(args[i]));
        page.status = (uint16_t)status;
        list[n++] = page;
    }
    ec->pages = list;
    ec->n = n;
    return HD_OK;
}

/* --- on a response --- */

static const page_t *find_page(const error_conf_t *ec, unsigned status)
{
    for (uint32_t i = 0; i < ec->n; i++) {
        if (ec->pages[i].status == status)
            return &ec->pages[i];
    }
    return NULL;
}

/* An upstream's answer only with proxy_intercept_errors, our own unless it has its text
 * (return CODE TEXT). */
static bool may_replace(const hd_req_t *req)
{
    const hd_route_t *route = req->route;

    if (req->no_more_pages || route == NULL)
        return false;
    if (!req->is_local_reply)
        return route->proxy != NULL && !route->proxy->pass_errors;
    return !req->has_own_text;
}

static bool is_redirect(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 ||
           status == 308;
}

static hd_rc_t redirect(hd_req_t *req, unsigned status, hd_str_t url)
{
    if (!hd_http_is_field_value(url))
        return HD_OK; /* CR or LF from a variable: the error stays */
    hd_response_local(req, is_redirect(status) ? status : 302, HD_STR_NONE, HD_STR_NONE,
                      0, "error_page");
    hd_headers_add_id(&req->res.headers, HD_H_LOCATION, HD_STR("Location"), url);
    return HD_DONE;
}

/* A page in the place of a 401 or 407 asks for a name no less (RFC 9110 §15.5.2,
 * §15.5.8). */
static void keep_challenge(hd_req_t *req)
{
    const hd_headers_t *h = &req->res.headers;

    for (unsigned i = 0; i < h->n; i++) {
        const hd_field_t *f = &h->fields[i];

        if ((f->flags & HD_FIELD_REMOVED) ||
            (!hd_str_eq_nocase(f->name, HD_STR("WWW-Authenticate")) &&
             !hd_str_eq_nocase(f->name, HD_STR("Proxy-Authenticate"))))
            continue;
        if (req->kept == NULL) {
            req->kept = hd_pool_new(req->pool, hd_headers_t);
            hd_headers_init(req->kept, req->pool, 2);
        }
        hd_ignore(hd_headers_add(req->kept, f->name, f->value) == NULL);
    }
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    unsigned status = req->res.status;
    const page_t *page = NULL;
    hd_str_t uri;

    if (status >= 300 && may_replace(req))
        page = find_page(conf, req->local_code != 0 ? req->local_code : status);
    if (page == NULL && status == 431 && may_replace(req))
        page = find_page(conf, status);
    if (status >= 300 && req->is_local_reply && !req->has_own_text)
        req->no_more_pages |= !((const error_conf_t *)conf)->recursive;
    if (page == NULL || hd_expr_eval(page->uri, req, &uri) != HD_OK || uri.len == 0)
        return HD_OK;
    req->has_error_page = true;
    req->no_keepalive |= hd_local_is_closing(status);
    req->no_more_pages |= !((const error_conf_t *)conf)->recursive;
    if (uri.data[0] != '/' && uri.data[0] != '@')
        return redirect(req, page->instead, uri);
    req->error_status = page->keeps ? status : page->instead;
    if (uri.data[0] == '/')
        hd_request_make_get(req);
    if (req->error_status == 401 || req->error_status == 407)
        keep_challenge(req);
    req->reroute_to = hd_str_dup(req->pool, uri);
    return HD_REROUTE;
}

static const hd_directive_t directives[] = {
    {.name = "error_page",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION | HD_IN_IF,
     .args_n = 2,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_error_page,
     .help = "CODE … [=[CODE]] URI|@NAME|URL: what answers in place of an error; a block "
             "with one inherits none"},
    {.name = "recursive_error_pages",
     .scope = HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(error_conf_t, recursive),
     .help = "on|off: an error page's own error may have another one; off"},
    {0},
};

const hd_module_t hd_error_page_module = {
    .abi = HD_MODULE_ABI,
    .name = "error_page",
    .directives = directives,
    .conf_size = sizeof(error_conf_t),
    .phase = HD_PHASE_REWRITE, /* the last one that a response passes */
    .on_response_headers = on_response_headers,
};
