#include "control/hd_xds_server.h"
#include "control/hd_grpc_server.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "istio/mesh.pb-c.h"
#include "proto/hd_pb.h"
#include "xds/discovery.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUEST_BYTES_MAX (4u << 20) /* as istiod's */
#define DECODED_BYTES_MAX (16u << 20)
#define RESPONSE_BYTES_MAX ((size_t)1 << 30)
#define ROOTS_URL "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig" /* PCDS */
#define NAMES_MAX 100000

/* What a stream has of one type. */
typedef struct {
    bool is_open; /* a request of this type came */
    bool wildcard;
    bool had_names;  /* SotW: a later empty list means none, not all */
    hd_map_t *names; /* asked for by name -> a heap copy of the name */
    hd_map_t *held;  /* sent last: name -> hd_xres_t (counted) */
    uint64_t nonce;  /* of the last response; 0: none */
} sub_t;

typedef struct {
    hd_grpc_stream_t *stream;
    hd_link_t link;
    bool is_delta, has_node, is_linked;
    bool dirty; /* the view is older than the model */
    hd_proxy_t proxy;
    hd_caller_t caller;
    hd_view_t view;
    sub_t subs[HD_VIEW_KINDS_N];
    sub_t roots; /* is_open and nonce only */
    uint64_t nonces;
} client_t;

static struct {
    hd_xds_server_conf_t conf;
    hd_link_t clients;
    hd_post_t work; /* renews dirty clients, one a run */
    hd_xds_server_stats_t stats;
    uint64_t version;
    char *roots_pem; /* NULL: none are given out */
    bool started, is_quitting;
} server;

static const char *const short_names[] = {"CDS", "EDS", "LDS", "RDS"};

/* --- names --- */

static bool add_name(sub_t *s, hd_str_t name)
{
    char *copy;

    if (s->names == NULL)
        s->names = hd_map_create();
    if (hd_map_get(s->names, name) != NULL || hd_map_count(s->names) >= NAMES_MAX)
        return false;
    copy = malloc(name.len + 1);
    hd_bug_on(copy == NULL);
    memcpy(copy, name.data, name.len);
    copy[name.len] = 0;
    hd_map_put(s->names, hd_str_n(copy, name.len), copy);
    return true;
}

static void remove_name(sub_t *s, hd_str_t name)
{
    if (s->names != NULL)
        free(hd_map_remove(s->names, name));
}

static void clear_names(sub_t *s)
{
    size_t at = 0;
    hd_str_t key;
    void *copy;

    if (s->names == NULL)
        return;
    while (hd_map_next(s->names, &at, &key, &copy))
        free(copy);
    hd_map_destroy(s->names);
    s->names = NULL;
}

static bool is_wanted(const sub_t *s, hd_str_t name)
{
    return s->wildcard || (s->names != NULL && hd_map_get(s->names, name) != NULL);
}

static void hold(sub_t *s, hd_xres_t *r)
{
    hd_xres_t *old;

    if (s->held == NULL)
        s->held = hd_map_create();
    old = hd_map_remove(s->held, r->name); /* its key goes with it */
    if (old != NULL)
        hd_xres_unref(old);
    hd_map_put(s->held, r->name, hd_xres_ref(r));
}

static void let_go(sub_t *s, hd_str_t name)
{
    hd_xres_t *old = s->held != NULL ? hd_map_remove(s->held, name) : NULL;

    if (old != NULL)
        hd_xres_unref(old);
}

static const hd_xres_t *held(const sub_t *s, hd_str_t name)
{
    return s->held != NULL ? hd_map_get(s->held, name) : NULL;
}

static void free_sub(sub_t *s)
{
    size_t at = 0;
    hd_str_t key;
    void *r;

    clear_names(s);
    if (s->held == NULL)
        return;
    while (hd_map_next(s->held, &at, &key, &r))
        hd_xres_unref(r);
    hd_map_destroy(s->held);
    s->held = NULL;
}

/* --- responses --- */

/* What goes into one response; lists lie in <pool>. */
typedef struct {
    hd_pool_t *pool;
    hd_xres_t **resources;
    size_t resources_n;
    char **removed;
    size_t removed_n;
} answer_t;

static char *print_version(hd_pool_t *pool, uint64_t v)
{
    return (char *)(uintptr_t)hd_str_printf(pool, "%016" PRIx64, v).data;
}

static Pb__Any *make_any(hd_pool_t *pool, const char *url, const hd_xres_t *r)
{
    Pb__Any *any = hd_pool_new(pool, Pb__Any);

    pb__any__init(any);
    any->type_url = (char *)(uintptr_t)url;
    any->value.data = (uint8_t *)(uintptr_t)r->bytes.data;
    any->value.len = r->bytes.len;
    return any;
}

static void send_message(client_t *c, const void *msg)
{
    hd_pb_arena_t arena;
    ProtobufCBinaryData bytes;

    hd_pb_arena_init(&arena, RESPONSE_BYTES_MAX);
    if (hd_pb_pack(msg, &arena, &bytes))
        hd_grpc_stream_send(c->stream, bytes.data, bytes.len);
    else
        hd_grpc_stream_end(c->stream, HD_GRPC_INTERNAL, HD_STR("response too large"));
    hd_pb_arena_deinit(&arena);
}

static char *next_nonce(client_t *c, hd_pool_t *pool, sub_t *s)
{
    s->nonce = ++c->nonces;
    return print_version(pool, s->nonce);
}

static void send_delta(client_t *c, const char *url, sub_t *s, const answer_t *a)
{
    PbDiscovery__DeltaDiscoveryResponse msg =
        PB_DISCOVERY__DELTA_DISCOVERY_RESPONSE__INIT;

    msg.resources = hd_pool_new_n(a->pool, PbDiscovery__Resource *, a->resources_n);
    for (size_t i = 0; i < a->resources_n; i++) {
        PbDiscovery__Resource *r = hd_pool_new(a->pool, PbDiscovery__Resource);

        pb_discovery__resource__init(r);
        r->name = (char *)(uintptr_t)hd_str_to_c(a->pool, a->resources[i]->name);
        r->version = print_version(a->pool, a->resources[i]->version);
        r->resource = make_any(a->pool, url, a->resources[i]);
        msg.resources[i] = r;
    }
    msg.n_resources = a->resources_n;
    msg.removed_resources = (void *)a->removed;
    msg.n_removed_resources = a->removed_n;
    msg.type_url = (char *)(uintptr_t)url;
    msg.system_version_info = print_version(a->pool, server.version);
    msg.nonce = next_nonce(c, a->pool, s);
    send_message(c, &msg);
    server.stats.pushes++;
}

static void send_sotw(client_t *c, const char *url, sub_t *s, const answer_t *a)
{
    PbDiscovery__DiscoveryResponse msg = PB_DISCOVERY__DISCOVERY_RESPONSE__INIT;

    msg.resources = hd_pool_new_n(a->pool, Pb__Any *, a->resources_n);
    for (size_t i = 0; i < a->resources_n; i++)
        msg.resources[i] = make_any(a->pool, url, a->resources[i]);
    msg.n_resources = a->resources_n;
    msg.type_url = (char *)(uintptr_t)url;
    msg.version_info = print_version(a->pool, server.version);
    msg.nonce = next_nonce(c, a->pool, s);
    send_message(c, &msg);
    server.stats.pushes++;
}

static bool is_held_as(const sub_t *s, const hd_xres_t *r)
{
    const hd_xres_t *h = held(s, r->name);

    return h != NULL && h->version == r->version;
}

/* What the client held and the view hasn't any more, or it doesn't want any more. */
static void find_removed(client_t *c, hd_view_kind_t kind, answer_t *a)
{
    sub_t *s = &c->subs[kind];
    size_t at = 0, room = s->held != NULL ? hd_map_count(s->held) : 0;
    hd_str_t name;
    void *r;

    a->removed =
        hd_pool_new_n(a->pool, char *, room + (s->names ? hd_map_count(s->names) : 0));
    while (s->held != NULL && hd_map_next(s->held, &at, &name, &r)) {
        if (hd_view_find(&c->view, kind, name) == NULL)
            a->removed[a->removed_n++] = hd_str_to_c(a->pool, name);
    }
}

/* Sends what differs. <named>: names that the client has just asked for: sent whether it
 * has them or not, and said to be removed when there are none. <all>: everything it
 * wants. <always>: an answer even if it is empty. */
static void push(client_t *c, hd_view_kind_t kind, hd_map_t *named, bool all, bool always)
{
    sub_t *s = &c->subs[kind];
    const hd_xres_set_t *set = &c->view.sets[kind];
    answer_t a = {.pool = hd_pool_create(0)};
    bool changed = false;
    size_t at = 0;
    hd_str_t name;
    void *ignored;

    a.resources = hd_pool_new_n(a.pool, hd_xres_t *, set->n);
    for (uint32_t i = 0; i < set->n; i++) {
        hd_xres_t *r = set->items[i];
        bool differs;

        if (!is_wanted(s, r->name))
            continue;
        differs =
            !is_held_as(s, r) || (named != NULL && hd_map_get(named, r->name) != NULL);
        changed |= differs;
        if (differs || all || !c->is_delta)
            a.resources[a.resources_n++] = r;
    }
    find_removed(c, kind, &a);
    for (size_t i = 0; i < a.removed_n; i++)
        let_go(s, hd_str_c(a.removed[i]));
    changed |= a.removed_n > 0 && (c->is_delta || hd_view_is_wildcard(kind));
    while (named != NULL && c->is_delta && hd_map_next(named, &at, &name, &ignored)) {
        if (hd_view_find(&c->view, kind, name) == NULL) {
            a.removed[a.removed_n++] = hd_str_to_c(a.pool, name);
            changed = true;
        }
    }
    if (changed || always || (all && a.resources_n > 0)) {
        for (size_t i = 0; i < a.resources_n; i++)
            hold(s, a.resources[i]);
        if (c->is_delta)
            send_delta(c, hd_view_url(kind), s, &a);
        else
            send_sotw(c, hd_view_url(kind), s, &a);
    }
    hd_pool_destroy(a.pool);
}

/* --- streams --- */

static bool renew_view(client_t *c)
{
    hd_view_t view;
    hd_err_t err = {0};

    hd_view_init(&view);
    if (hd_translate(server.conf.translator, &c->proxy, &view, &err) != HD_OK) {
        hd_view_deinit(&view);
        hd_grpc_stream_end(c->stream, HD_GRPC_INVALID_ARGUMENT, hd_str_c(err.text));
        return false;
    }
    hd_view_deinit(&c->view);
    c->view = view;
    c->dirty = false;
    return true;
}

static void renew(client_t *c)
{
    if (!renew_view(c))
        return;
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++) {
        if (c->subs[k].is_open)
            push(c, (hd_view_kind_t)k, NULL, false, false);
    }
}

/* One client a run: others, and the loop, get their turn between. */
static void on_work(hd_post_t *p)
{
    hd_list_each(link, &server.clients)
    {
        client_t *c = hd_list_entry(link, client_t, link);

        if (c->dirty && !hd_grpc_stream_is_full(c->stream)) {
            renew(c);
            hd_post(server.conf.loop, p);
            return;
        }
    }
}

void hd_xds_server_on_commit(void)
{
    if (!server.started || !hd_translator_on_commit(server.conf.translator))
        return;
    server.version++;
    hd_list_each(link, &server.clients)
    {
        client_t *c = hd_list_entry(link, client_t, link);

        c->dirty |= !hd_view_is_current(&c->view);
    }
    hd_post(server.conf.loop, &server.work);
}

/* The identity that the caller proved must be the one that its node claims. */
static bool check_identity(client_t *c)
{
    hd_str_t token = hd_grpc_stream_token(c->stream);

    if (server.conf.tokens == NULL)
        return true;
    hd_tokens_renew(server.conf.tokens);
    if (token.len == 0 || !hd_tokens_find(server.conf.tokens, token, &c->caller)) {
        hd_grpc_stream_end(
            c->stream, HD_GRPC_UNAUTHENTICATED,
            HD_STR("a bearer token that the control plane knows is needed"));
        return false;
    }
    if (!hd_str_eq(c->caller.namespace, c->proxy.ns) ||
        (c->proxy.account.len > 0 && !hd_str_eq(c->caller.account, c->proxy.account))) {
        hd_grpc_stream_end(c->stream, HD_GRPC_PERMISSION_DENIED,
                           HD_STR("the node claims another identity than its token has"));
        return false;
    }
    return true;
}

static bool meet(client_t *c, const PbCore__Node *node)
{
    hd_err_t err = {0};

    if (c->has_node)
        return true;
    if (hd_proxy_read(node, hd_grpc_stream_pool(c->stream), &c->proxy, &err) != HD_OK) {
        hd_grpc_stream_end(c->stream, HD_GRPC_INVALID_ARGUMENT, hd_str_c(err.text));
        return false;
    }
    if (!check_identity(c) || !renew_view(c))
        return false;
    c->has_node = true;
    hd_log(HD_LOG_NOTICE, "xds: %.*s connected (%s)", HD_STR_ARG(c->proxy.id),
           c->is_delta ? "delta" : "state of the world");
    return true;
}

/* True: the request answers the last response (or is the first); false: it is stale. */
static bool take_nonce(client_t *c, hd_view_kind_t kind, const char *nonce,
                       const PbRpc__Status *error)
{
    char last[17];

    if (nonce[0] == 0)
        return true;
    snprintf(last, sizeof(last), "%016" PRIx64, c->subs[kind].nonce);
    if (strcmp(nonce, last) != 0)
        return false;
    if (error != NULL) {
        server.stats.rejects++;
        hd_log(HD_LOG_ERROR, "xds: %.*s refused %s: %s", HD_STR_ARG(c->proxy.id),
               short_names[kind], error->message);
    }
    return true;
}

/* A type without a view. */
static void send_other(client_t *c, const char *url, sub_t *s, const answer_t *a)
{
    if (c->is_delta)
        send_delta(c, url, s, a);
    else
        send_sotw(c, url, s, a);
}

static void send_roots(client_t *c)
{
    PbMesh__ProxyConfig msg = PB_MESH__PROXY_CONFIG__INIT;
    const char *list[] = {server.roots_pem};
    hd_xres_t res = {.name = HD_STR("roots")}, *resources[] = {&res};
    answer_t a = {.pool = hd_pool_create(0)};
    ProtobufCBinaryData bytes;
    hd_pb_arena_t arena;

    msg.ca_certificates_pem = list;
    msg.n_ca_certificates_pem = hd_countof(list);
    hd_pb_arena_init(&arena, 1 << 20);
    if (server.roots_pem != NULL && hd_pb_pack(&msg, &arena, &bytes)) {
        res.bytes = hd_str_n((const char *)bytes.data, bytes.len);
        res.version = hd_hash64(bytes.data, bytes.len, 0);
        a.resources = resources;
        a.resources_n = hd_countof(resources);
    }
    send_other(c, ROOTS_URL, &c->roots, &a);
    hd_pb_arena_deinit(&arena);
    hd_pool_destroy(a.pool);
}

/* Types that we have nothing of get an empty answer once, so that nobody waits. */
static void answer_other(client_t *c, const char *url, const char *nonce)
{
    sub_t none = {0};
    answer_t a = {.pool = hd_pool_create(0)};

    if (nonce[0] == 0 && strcmp(url, ROOTS_URL) == 0) {
        c->roots.is_open = true;
        send_roots(c);
    } else if (nonce[0] == 0) {
        send_other(c, url, &none, &a);
    }
    hd_pool_destroy(a.pool);
}

void hd_xds_server_set_roots(hd_str_t pem)
{
    if (server.roots_pem != NULL && hd_str_eq(hd_str_c(server.roots_pem), pem))
        return;
    free(server.roots_pem);
    server.roots_pem = strndup(pem.data, pem.len);
    hd_bug_on(server.roots_pem == NULL);
    hd_list_each(link, &server.clients)
    {
        client_t *c = hd_list_entry(link, client_t, link);

        if (c->roots.is_open)
            send_roots(c);
    }
}

/* Clusters that were delivered again wait for their endpoints, and their client may not
 * ask for those again (delta, xds-transport §3 server 6). */
static void push_children(client_t *c, hd_view_kind_t kind)
{
    if (kind == HD_VIEW_CLUSTERS && c->subs[HD_VIEW_ENDPOINTS].is_open)
        push(c, HD_VIEW_ENDPOINTS, NULL, true, false);
    if (kind == HD_VIEW_LISTENERS && c->subs[HD_VIEW_ROUTES].is_open)
        push(c, HD_VIEW_ROUTES, NULL, true, false);
}

static void on_delta_request(client_t *c, const PbDiscovery__DeltaDiscoveryRequest *msg)
{
    hd_view_kind_t kind = hd_view_kind(hd_str_c(msg->type_url));
    hd_map_t *named = NULL;
    bool is_first;
    sub_t *s;

    if (!meet(c, msg->node))
        return;
    if (kind == HD_VIEW_KINDS_N) {
        answer_other(c, msg->type_url, msg->response_nonce);
        return;
    }
    s = &c->subs[kind];
    if (!take_nonce(c, kind, msg->response_nonce, msg->error_detail))
        return;
    is_first = !s->is_open;
    s->is_open = true;
    if (is_first && msg->n_resource_names_subscribe == 0)
        s->wildcard = true;
    for (size_t i = 0; i < msg->n_resource_names_subscribe; i++) {
        hd_str_t name = hd_str_c(msg->resource_names_subscribe[i]);

        if (hd_str_eq(name, HD_STR("*"))) {
            s->wildcard = true;
            continue;
        }
        add_name(s, name);
        if (named == NULL)
            named = hd_map_create();
        hd_map_put(named, name, s);
    }
    for (size_t i = 0; i < msg->n_resource_names_unsubscribe; i++) {
        hd_str_t name = hd_str_c(msg->resource_names_unsubscribe[i]);

        if (hd_str_eq(name, HD_STR("*")))
            s->wildcard = false;
        remove_name(s, name);
        if (!s->wildcard)
            let_go(s, name);
    }
    if (is_first || named != NULL) {
        push(c, kind, named, false, true);
        if (is_first)
            push_children(c, kind);
    }
    if (named != NULL)
        hd_map_destroy(named);
}

static void on_sotw_request(client_t *c, const PbDiscovery__DiscoveryRequest *msg)
{
    hd_view_kind_t kind = hd_view_kind(hd_str_c(msg->type_url));
    bool is_first, added = false;
    sub_t *s;

    if (!meet(c, msg->node))
        return;
    if (kind == HD_VIEW_KINDS_N) {
        answer_other(c, msg->type_url, msg->response_nonce);
        return;
    }
    s = &c->subs[kind];
    if (!take_nonce(c, kind, msg->response_nonce, msg->error_detail))
        return;
    is_first = !s->is_open || msg->response_nonce[0] == 0;
    s->is_open = true;
    for (size_t i = 0; i < msg->n_resource_names; i++)
        added |= held(s, hd_str_c(msg->resource_names[i])) == NULL &&
                 (s->names == NULL ||
                  hd_map_get(s->names, hd_str_c(msg->resource_names[i])) == NULL);
    clear_names(s);
    s->had_names |= msg->n_resource_names > 0;
    s->wildcard =
        msg->n_resource_names == 0 && hd_view_is_wildcard(kind) && !s->had_names;
    for (size_t i = 0; i < msg->n_resource_names; i++) {
        hd_str_t name = hd_str_c(msg->resource_names[i]);

        if (hd_str_eq(name, HD_STR("*")))
            s->wildcard = true;
        else
            add_name(s, name);
    }
    if (is_first || added) {
        push(c, kind, NULL, true, true);
        if (is_first)
            push_children(c, kind);
    }
}

static void on_message(hd_grpc_stream_t *stream, void *state, hd_str_t bytes)
{
    client_t *c = state;
    hd_pb_arena_t arena;
    hd_pb_fault_t fault = {0};
    char text[256];
    const void *msg;

    hd_pb_arena_init(&arena, DECODED_BYTES_MAX);
    msg = hd_pb_unpack(c->is_delta ? HD_PB(pb_discovery__delta_discovery_request)
                                   : HD_PB(pb_discovery__discovery_request),
                       bytes.data, bytes.len, &arena, &fault);
    if (msg == NULL) {
        hd_pb_fault_print(&fault, text, sizeof(text));
        hd_grpc_stream_end(stream, HD_GRPC_INVALID_ARGUMENT, hd_str_c(text));
    } else if (c->is_delta) {
        on_delta_request(c, msg);
    } else {
        on_sotw_request(c, msg);
    }
    hd_pb_arena_deinit(&arena);
}

static void open_client(hd_grpc_stream_t *stream, client_t *c, bool is_delta)
{
    if (!server.started || server.is_quitting) {
        hd_grpc_stream_end(stream, HD_GRPC_UNAVAILABLE,
                           server.started ? HD_STR("going away")
                                          : HD_STR("not ready yet"));
        return;
    }
    c->stream = stream;
    c->is_delta = is_delta;
    hd_view_init(&c->view);
    hd_list_add_last(&server.clients, &c->link);
    c->is_linked = true;
    server.stats.streams++;
}

static void on_open_delta(hd_grpc_stream_t *stream, void *state)
{
    open_client(stream, state, true);
}

static void on_open_sotw(hd_grpc_stream_t *stream, void *state)
{
    open_client(stream, state, false);
}

static void on_half_close(hd_grpc_stream_t *stream, void *state)
{
    (void)state;
    hd_grpc_stream_end(stream, HD_GRPC_OK, HD_STR_NONE);
}

static void on_drained(hd_grpc_stream_t *stream, void *state)
{
    client_t *c = state;

    (void)stream;
    if (c->dirty)
        hd_post(server.conf.loop, &server.work);
}

static void on_closed(hd_grpc_stream_t *stream, void *state)
{
    client_t *c = state;

    (void)stream;
    if (!c->is_linked)
        return;
    if (c->has_node)
        hd_log(HD_LOG_NOTICE, "xds: %.*s disconnected", HD_STR_ARG(c->proxy.id));
    hd_list_remove(&c->link);
    server.stats.streams--;
    hd_view_deinit(&c->view);
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++)
        free_sub(&c->subs[k]);
}

#define ADS "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

static const hd_grpc_method_t methods[] = {
    {.path = ADS "DeltaAggregatedResources",
     .message_max = REQUEST_BYTES_MAX,
     .state_size = sizeof(client_t),
     .on_open = on_open_delta,
     .on_message = on_message,
     .on_half_close = on_half_close,
     .on_drained = on_drained,
     .on_closed = on_closed},
    {.path = ADS "StreamAggregatedResources",
     .message_max = REQUEST_BYTES_MAX,
     .state_size = sizeof(client_t),
     .on_open = on_open_sotw,
     .on_message = on_message,
     .on_half_close = on_half_close,
     .on_drained = on_drained,
     .on_closed = on_closed},
    {0},
};

void hd_xds_server_register(void)
{
    hd_grpc_server_add(methods);
}

void hd_xds_server_start(const hd_xds_server_conf_t *conf)
{
    server.conf = *conf;
    server.version = 1;
    server.started = true;
    hd_list_init(&server.clients);
    hd_post_init(&server.work, on_work);
}

void hd_xds_server_quit(void)
{
    if (!server.started)
        return;
    server.is_quitting = true;
    hd_list_each(link, &server.clients)
    {
        hd_grpc_stream_end(hd_list_entry(link, client_t, link)->stream,
                           HD_GRPC_UNAVAILABLE, HD_STR("going away"));
    }
}

void hd_xds_server_stop(void)
{
    if (!server.started)
        return;
    hd_post_cancel(&server.work);
    free(server.roots_pem);
    server.roots_pem = NULL;
    server.started = false;
}

void hd_xds_server_get_stats(hd_xds_server_stats_t *stats)
{
    *stats = server.stats;
}
