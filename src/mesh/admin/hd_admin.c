#include "mesh/admin/hd_admin.h"
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"
#include "http/hd_conf_service.h"
#include "http/hd_service.h"
#include "mesh/admin/hd_admin_int.h"

#include <stdio.h>

/* --- text --- */

void hd_admin_put(hd_admin_answer_t *a, hd_str_t text)
{
    if (text.len > 0 && !a->failed)
        a->failed = !hd_chain_try_add_copy(&a->out, text.data, text.len);
}

void hd_admin_print(hd_admin_answer_t *a, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    hd_admin_put(a, hd_str_n(text, hd_min((size_t)hd_max(n, 0), sizeof(text) - 1)));
}

void hd_admin_put_json(hd_admin_answer_t *a, hd_str_t text)
{
    size_t from = 0;

    hd_admin_put(a, HD_STR("\""));
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        hd_admin_put(a, hd_str_sub(text, from, i - from));
        if (c == '"' || c == '\\')
            hd_admin_print(a, "\\%c", c);
        else
            hd_admin_print(a, "\\u%04x", c);
        from = i + 1;
    }
    hd_admin_put(a, hd_str_sub(text, from, text.len));
    hd_admin_put(a, HD_STR("\""));
}

bool hd_admin_is_slice_full(const hd_admin_answer_t *a)
{
    return a->failed || a->out.bytes >= HD_ADMIN_SLICE_BYTES;
}

/* --- small pages --- */

bool hd_admin_is_ready(const char **why)
{
    const hd_xstore_t *store = hd_xds_agent_store();
    const hd_xstream_t *stream = hd_xds_agent_stream();
    hd_xstream_stats_t stats = {0};

    *why = "DRAINING: the program is about to end";
    if (hd_proc.is_leaving)
        return false;
    *why = "LIVE";
    if (store == NULL)
        return true;
    if (stream != NULL)
        hd_xstream_get_stats(stream, &stats);
    /* from a snapshot it serves, too */
    for (hd_xres_t *r = hd_xstore_next(store, HD_XDS_LISTENER, NULL); r != NULL;
         r = hd_xstore_next(store, HD_XDS_LISTENER, r)) {
        if (r->state == HD_XRES_LIVE)
            return true;
    }
    *why = "PRE_INITIALIZING: no listeners from the control plane yet";
    return stats.is_answered[HD_XDS_CLUSTER] && stats.is_answered[HD_XDS_LISTENER];
}

static bool write_ready(hd_admin_answer_t *a)
{
    const char *why;

    hd_ignore(hd_admin_is_ready(&why)); /* the status says it */
    hd_admin_print(a, "%s\n", why);
    return false;
}

static bool write_help(hd_admin_answer_t *a);

static const hd_admin_page_def_t pages[] = {
    {"/metrics", "figures of the mesh and of the program, for Prometheus",
     "text/plain; version=0.0.4; charset=utf-8", hd_admin_metrics},
    {"/stats/prometheus", "the same, where Envoy has it",
     "text/plain; version=0.0.4; charset=utf-8", hd_admin_metrics},
    {"/ready", "200 when it serves, else 503", "text/plain", write_ready},
    {"/config_dump", "what the control plane sent, in Envoy's form; secrets redacted",
     "application/json", hd_admin_config_dump},
    {"/memory", "what the shared configuration holds and costs", "application/json",
     hd_admin_memory},
    {"/clusters", "clusters in force and their endpoints", "text/plain",
     hd_admin_clusters},
    {"/listeners", "listeners in force", "text/plain", hd_admin_listeners},
    {"/help", "this page", "text/plain", write_help},
};

static bool write_help(hd_admin_answer_t *a)
{
    for (size_t i = 0; i < hd_countof(pages); i++)
        hd_admin_print(a, "%-20s %s\n", pages[i].path, pages[i].help);
    for (uint16_t m = 0; m < hd_modules_n(); m++) {
        const hd_admin_page_t *p = hd_module_get(m)->admin_pages;

        for (; p != NULL && p->path != NULL; p++)
            hd_admin_print(a, "%-20s %s\n", p->path, p->help);
    }
    return false;
}

/* --- an answer --- */

static void start_head(hd_req_t *req, unsigned status, hd_str_t type)
{
    req->res.status = status;
    req->res.version = HD_HTTP_11;
    req->res.content_length = HD_LEN_UNKNOWN;
    req->res.has_body = req->head.method_id != HD_M_HEAD;
    req->res.is_local = true;
    hd_headers_init(&req->res.headers, req->pool, 4);
    hd_headers_add(&req->res.headers, HD_STR("content-type"), type);
    hd_headers_add(&req->res.headers, HD_STR("cache-control"), HD_STR("no-cache"));
    hd_response_start(req);
}

static void give_end(hd_req_t *req, hd_chain_t *out)
{
    hd_chain_set_flags(out, HD_SLICE_END);
    hd_response_give_body(req, out);
    hd_chain_free(out);
}

/* A slice, and the next one in a later event unless the client is slow. */
static void write_slice(hd_admin_answer_t *a)
{
    hd_req_t *req = a->req;
    bool has_more = a->page->write(a);

    if (a->failed) {
        hd_chain_free(&a->out);
        hd_response_fail(req, 503, 0, "admin_out_of_memory");
        return;
    }
    if (!has_more) {
        give_end(req, &a->out);
        return;
    }
    if (!hd_chain_is_empty(&a->out))
        hd_response_give_body(req, &a->out);
    if (!hd_response_is_full(req))
        hd_post(req->loop, &a->more);
}

static void on_more(hd_post_t *post)
{
    write_slice(hd_container_of(post, hd_admin_answer_t, more));
}

static void drop_answer(void *arg)
{
    hd_admin_answer_t *a = arg;

    hd_post_cancel(&a->more);
    hd_chain_free(&a->out);
}

/* The first slice is written from an event, never from within the request's own step. */
static void begin(hd_req_t *req, const hd_admin_page_def_t *page)
{
    hd_admin_answer_t *a = hd_pool_new(req->pool, hd_admin_answer_t);
    const char *why;
    unsigned status = page->write == write_ready && !hd_admin_is_ready(&why) ? 503 : 200;

    a->req = req;
    a->page = page;
    hd_chain_init(&a->out);
    hd_post_init(&a->more, on_more);
    hd_pool_defer(req->pool, drop_answer, a);
    req->action = a;
    start_head(req, status, hd_str_c(page->type));
    if (req->res.has_body)
        hd_post(req->loop, &a->more);
    else
        give_end(req, &a->out);
}

/* A module's page is short: it is written at once. */
static bool begin_module_page(hd_req_t *req)
{
    for (uint16_t m = 0; m < hd_modules_n(); m++) {
        const hd_admin_page_t *p = hd_module_get(m)->admin_pages;

        for (; p != NULL && p->path != NULL; p++) {
            hd_str_t type = HD_STR("text/plain");
            hd_chain_t out;

            if (!hd_str_eq(req->head.path, hd_str_c(p->path)))
                continue;
            hd_chain_init(&out);
            if (p->get(req->head.query, req->pool, &out, &type) != HD_OK) {
                hd_chain_free(&out);
                hd_response_local(req, 500, HD_STR("text/plain"),
                                  HD_STR("the page can't be written\n"), 0, "admin");
                return true;
            }
            start_head(req, 200, type);
            if (!req->res.has_body)
                hd_chain_free(&out);
            give_end(req, &out);
            return true;
        }
    }
    return false;
}

static hd_rc_t on_start(hd_req_t *req, const void *conf)
{
    hd_str_t path = req->head.path;

    (void)conf;
    if (req->head.method_id != HD_M_GET && req->head.method_id != HD_M_HEAD) {
        hd_response_local(req, 405, HD_STR("text/plain"), HD_STR("GET is understood\n"),
                          0, "admin");
        return HD_AGAIN;
    }
    if (hd_str_eq(path, HD_STR("/")))
        path = HD_STR("/help");
    for (size_t i = 0; i < hd_countof(pages); i++) {
        if (hd_str_eq(path, hd_str_c(pages[i].path))) {
            begin(req, &pages[i]);
            return HD_AGAIN;
        }
    }
    if (!begin_module_page(req))
        hd_response_local(req, 404, HD_STR("text/plain"), HD_STR("no such page: /help\n"),
                          0, "admin");
    return HD_AGAIN;
}

static void on_drained(hd_req_t *req)
{
    hd_admin_answer_t *a = req->action;

    if (a != NULL)
        hd_post(req->loop, &a->more);
}

static void on_cancel(hd_req_t *req)
{
    hd_admin_answer_t *a = req->action;

    if (a != NULL)
        hd_post_cancel(&a->more);
}

static const hd_service_t service = {.name = "admin",
                                     .on_start = on_start,
                                     .on_drained = on_drained,
                                     .on_cancel = on_cancel};

/* --- the directive --- */

static hd_rc_t set_admin(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)conf;
    if (cf->build->settings != NULL)
        cf->build->settings->has_agent = true;
    return hd_conf_put_service(cf, args[0], HD_STR("admin"), HD_ROLE_AGENT, err);
}

static const hd_directive_t directives[] = {
    {.name = "admin",
     .scope = HD_IN_MAIN,
     .args_n = 1,
     .repeats = true,
     .set = set_admin,
     .help = "ADDRESS: a port for operators: /metrics, /ready, /config_dump, /memory, "
             "/help; whoever reaches it may read all of it"},
    {0},
};

static const hd_module_t module = {
    .abi = HD_MODULE_ABI,
    .name = "admin",
    .directives = directives,
};

void hd_admin_register(void)
{
    hd_ignore(hd_module_add(&module) == 0);
    hd_ignore(hd_service_register(&service) == 0);
}
