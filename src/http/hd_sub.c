#include "http/hd_sub.h"
#include "core/conf/hd_attr.h"
#include "http/hd_codec.h"
#include "http/hd_request_int.h"

#define READ_BYTES 65536        /* of an answer, not taken yet by who reads it */
#define DEPTH_MAX 50            /* nginx's */
#define SUBS_MAX 1000           /* of a client's request, with those of its subs */
#define BACKLOG_BYTES (1 << 20) /* a mirror that is so far behind gets no more */

typedef struct hd_sub_s {
    hd_req_t *req, *parent; /* parent NULL: it has ended */
    struct hd_sub_s *next;  /* of the parent */
    void (*on_head)(hd_req_t *sub, void *arg);
    void *arg;
    hd_sub_body_t *body; /* in the parent's pool; NULL: nobody reads */
    hd_chain_t backlog;  /* mirrored, not given yet */
    bool is_background, wants_body, is_told;
} hd_sub_t;

static hd_sub_t *sub_of(const hd_req_t *req)
{
    return req->client_state;
}

bool hd_req_is_sub(const hd_req_t *req)
{
    return req->is_sub;
}

/* --- as a client --- */

/* Its answer has begun, or never will. */
static void tell(hd_sub_t *sub)
{
    if (sub->is_told)
        return;
    sub->is_told = true;
    if (sub->parent == NULL || sub->on_head == NULL)
        return;
    sub->on_head(sub->req, sub->arg);
    hd_req_wake(sub->parent);
}

static void send_head(hd_req_t *req, bool is_interim)
{
    if (!is_interim)
        tell(sub_of(req));
}

static void send_body(hd_req_t *req, hd_chain_t *body)
{
    hd_sub_t *sub = sub_of(req);

    if (sub->body == NULL) {
        hd_chain_free(body);
        return;
    }
    sub->body->is_whole = (hd_chain_flags(body) & HD_SLICE_END) != 0;
    for (hd_slice_t *slice = body->first; slice != NULL; slice = slice->next)
        slice->flags = 0;
    hd_chain_move(&sub->body->bytes, body);
    hd_req_wake(sub->parent);
}

static bool is_full(hd_req_t *req)
{
    const hd_sub_t *sub = sub_of(req);

    return sub->body != NULL && sub->body->bytes.bytes >= READ_BYTES;
}

static void want_body(hd_req_t *req)
{
    hd_sub_t *sub = sub_of(req);

    if (!hd_chain_is_empty(&sub->backlog) && !hd_request_is_full(req))
        hd_request_give_body(req, &sub->backlog);
}

static void abort_sub(hd_req_t *req, uint32_t h2_error)
{
    (void)req, (void)h2_error; /* on_finished follows */
}

static void unlink_sub(hd_sub_t *sub)
{
    hd_sub_t **at;

    if (sub->parent == NULL)
        return;
    for (at = &sub->parent->subs; *at != NULL; at = &(*at)->next) {
        if (*at == sub) {
            *at = sub->next;
            break;
        }
    }
    sub->parent = NULL;
    if (sub->body != NULL)
        sub->body->_sub = NULL;
    sub->body = NULL;
}

static void let_go(hd_sub_t *sub)
{
    sub->req->conn = NULL;
    if (!sub->is_background) { /* what it shared with its parent */
        sub->req->attrs = NULL;
        sub->req->subs_left = NULL;
    }
    hd_chain_free(&sub->backlog);
}

static void on_finished(hd_req_t *req)
{
    hd_sub_t *sub = sub_of(req);

    if (!sub->is_told && !req->response_started)
        req->res.status = 500;
    tell(sub);
    if (sub->body != NULL && !sub->body->is_whole) {
        sub->body->is_cut = true;
        hd_req_wake(sub->parent);
    }
    unlink_sub(sub);
    let_go(sub);
}

static const hd_client_ops_t sub_client = {
    .name = "sub",
    .send_head = send_head,
    .send_body = send_body,
    .is_full = is_full,
    .want_body = want_body,
    .abort = abort_sub,
    .on_finished = on_finished,
};

/* --- making one --- */

static void copy_fields(hd_req_t *to, const hd_headers_t *from)
{
    hd_headers_init(&to->head.headers, to->pool, from->n + 4u);
    for (uint32_t i = 0; i < from->n; i++) {
        const hd_field_t *f = &from->fields[i];

        if (!(f->flags & HD_FIELD_REMOVED) && f->id != HD_H_CONTENT_LENGTH)
            hd_ignore(hd_headers_add(&to->head.headers, hd_str_dup(to->pool, f->name),
                                     hd_str_dup(to->pool, f->value)) == NULL);
    }
    hd_headers_mark_hops(&to->head.headers);
}

static hd_sub_t *create(hd_req_t *parent, bool has_body)
{
    hd_req_t *req =
        hd_request_create(NULL, parent->loop, parent->member, &sub_client, NULL);
    hd_sub_t *sub = hd_pool_new(req->pool, hd_sub_t);
    const hd_req_head_t *from = &parent->head;
    hd_req_head_t *head = &req->head;

    req->client_state = sub;
    req->is_sub = true;
    req->client_method = hd_str_dup(req->pool, from->method);
    req->start_wall_ns = parent->start_wall_ns;
    sub->req = req;
    sub->parent = parent;
    sub->wants_body = has_body && from->has_body;
    sub->next = parent->subs;
    parent->subs = sub;
    *head = (hd_req_head_t){
        .method = hd_str_dup(req->pool, from->method),
        .line_method = hd_str_dup(
            req->pool, from->line_method.len > 0 ? from->line_method : from->method),
        .scheme = hd_str_dup(req->pool, from->scheme),
        .authority = hd_str_dup(req->pool, from->authority),
        .raw_path = hd_str_dup(req->pool, from->raw_path),
        .path = hd_str_dup(req->pool, from->path),
        .query = hd_str_dup(req->pool, from->query),
        .content_length = sub->wants_body ? from->content_length : HD_LEN_UNKNOWN,
        .method_id = from->method_id,
        .version = from->version,
        .has_body = sub->wants_body,
        .keep_alive = true,
    };
    copy_fields(req, parent->received != NULL && parent->http != NULL ? parent->received
                                                                      : &from->headers);
    return sub;
}

static void free_body(void *arg)
{
    hd_chain_free(&((hd_sub_body_t *)arg)->bytes);
}

void hd_sub_take_body(hd_sub_body_t *body, hd_chain_t *to)
{
    hd_chain_move(to, &body->bytes);
    if (body->_sub != NULL)
        hd_request_on_drained(body->_sub);
}

hd_req_t *hd_req_parent(const hd_req_t *req)
{
    return req->parent;
}

/* May one more be begun? A page that includes itself would begin them for ever. */
static bool take_place(hd_req_t *parent)
{
    if (parent->subs_left == NULL) {
        parent->subs_left = hd_pool_alloc(parent->pool, sizeof(uint32_t));
        *parent->subs_left = SUBS_MAX;
    }
    if (parent->sub_depth >= DEPTH_MAX || *parent->subs_left == 0)
        return false;
    --*parent->subs_left;
    return true;
}

bool hd_req_start_sub(hd_req_t *parent, const hd_sub_spec_t *spec)
{
    hd_sub_t *sub;
    hd_req_t *req;

    if (!take_place(parent)) {
        hd_req_log(parent, HD_LOG_ERROR, "subrequests cycle while processing \"%.*s\"",
                   HD_STR_ARG(spec->uri));
        return false;
    }
    sub = create(parent, spec->with_body);
    req = sub->req;
    req->sub_depth = parent->sub_depth + 1;
    if (!spec->is_background)
        req->subs_left = parent->subs_left;
    sub->is_background = spec->is_background;
    sub->on_head = spec->on_head;
    sub->arg = spec->arg;
    sub->body = spec->body;
    if (spec->body != NULL) {
        spec->body->_sub = req;
        hd_pool_defer(parent->pool, free_body, spec->body);
    }
    req->conn = parent->conn;
    req->conn_requests = parent->conn_requests;
    req->parent = parent;
    req->http = parent->http;
    req->listener_slot = parent->listener_slot;
    req->listener = parent->listener;
    req->listener_region = parent->listener_region;
    if (req->listener_region != NULL)
        hd_pin(req->member, req->listener_region);
    req->client_addr = parent->client_addr;
    req->has_real_addr = parent->has_real_addr;
    req->request_id = hd_str_dup(req->pool, parent->request_id);
    req->head.path = hd_str_dup(req->pool, spec->uri);
    req->head.query = hd_str_dup(req->pool, spec->args);
    if (spec->method.len > 0) {
        req->head.method = hd_str_dup(req->pool, spec->method);
        req->head.method_id = hd_http_method_id(req->head.method);
    }
    req->is_internal = req->path_changed = true;
    if (spec->is_background && parent->attrs != NULL) {
        req->attrs = hd_attrs_create(req->pool);
        hd_attrs_inherit(req->attrs, parent->attrs, req->pool);
    } else {
        req->attrs = parent->attrs;
    }
    hd_request_start(req, NULL);
    return true;
}

/* --- mirroring --- */

void hd_subs_give_body(hd_req_t *parent, const hd_chain_t *body)
{
    hd_sub_t *next;

    for (hd_sub_t *sub = parent->subs; sub != NULL; sub = next) {
        next = sub->next;
        if (!sub->wants_body)
            continue;
        hd_chain_share(&sub->backlog, body);
        if (hd_chain_flags(body) & HD_SLICE_END)
            sub->wants_body = false;
        if (!hd_request_is_full(sub->req)) {
            hd_request_give_body(sub->req, &sub->backlog);
        } else if (sub->backlog.bytes > BACKLOG_BYTES) {
            unlink_sub(sub);
            let_go(sub);
            hd_request_client_gone(sub->req, HD_E_LIMIT, "the mirror is too slow");
        }
    }
}

void hd_subs_detach(hd_req_t *parent)
{
    while (parent->subs != NULL) {
        hd_sub_t *sub = parent->subs;
        bool goes_on = sub->is_background && !sub->wants_body;
        hd_chain_t rest = sub->backlog;

        hd_chain_init(&sub->backlog);
        unlink_sub(sub);
        let_go(sub);
        sub->req->parent = NULL;
        sub->backlog = rest; /* what is whole is still sent */
        if (!goes_on)
            hd_request_client_gone(sub->req, HD_E_NONE, "the request it was for ended");
    }
}

/* host:80 becomes host-shadow:80, as Envoy does. */
static hd_str_t shadow_host(hd_pool_t *pool, hd_str_t host)
{
    size_t at = host.len;

    while (at > 0 && host.data[at - 1] >= '0' && host.data[at - 1] <= '9')
        at--;
    if (at == 0 || at == host.len || host.data[at - 1] != ':')
        at = host.len;
    else
        at--;
    return hd_str_printf(pool, "%.*s-shadow%.*s", HD_STR_ARG(hd_str_sub(host, 0, at)),
                         HD_STR_ARG(hd_str_sub(host, at, host.len)));
}

static void start_shadow(hd_req_t *parent, const hd_shadow_t *shadow)
{
    hd_sub_t *sub = create(parent, true);
    hd_req_t *req = sub->req;
    hd_str_t host = hd_req_up_host(parent);

    sub->is_background = true;
    copy_fields(req, &parent->head.headers);
    if (parent->up_path.len > 0)
        req->head.raw_path = hd_str_dup(req->pool, parent->up_path);
    req->head.authority =
        shadow->keeps_host ? hd_str_dup(req->pool, host) : shadow_host(req->pool, host);
    req->route = &shadow->route;
    req->target = &shadow->target;
    req->routes_region = parent->routes_region;
    if (req->routes_region != NULL)
        hd_pin(req->member, req->routes_region);
    hd_request_start(req, NULL);
}

void hd_shadows_start(hd_req_t *req, const hd_shadow_t *shadows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (shadows[i].fraction_ppm >= 1000000 ||
            hd_request_random() % 1000000 < shadows[i].fraction_ppm)
            start_shadow(req, &shadows[i]);
    }
}
