#include "mesh/xds/hd_xds_stream.h"
#include "core/base/hd_map.h"
#include "core/hd_grpc.h"
#include "istio/mesh.pb-c.h"
#include "proto/hd_pb.h"
#include "xds/core.pb-c.h"
#include "xds/discovery.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

#define SERVICE "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
#define MESSAGE_MAX ((size_t)256 << 20) /* of an answer; istiod's have no bound */
#define MEMORY_MAX (4 * MESSAGE_MAX)
#define NACK_CODE 3 /* INVALID_ARGUMENT */
#define ROOTS_URL "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig" /* PCDS */

/* One type's subscription on this stream. */
typedef struct {
    bool is_requested, is_answered;
    bool is_dirty;     /* what is needed has changed */
    hd_map_t *sent;    /* names subscribed; keys are copies */
    char nonce[512];   /* of the last answer */
    char version[512]; /* accepted last: state of the world */
} type_t;

struct hd_xstream_s {
    hd_proc_t *proc;
    hd_xstore_t *store;
    const hd_xds_conf_t *conf;
    hd_xca_t *ca; /* NULL: none */
    hd_xds_peer_t peer;
    hd_call_t *call; /* NULL: closed */
    hd_chain_t in;
    uint64_t generation; /* of streams: an update of an older one isn't acknowledged */
    type_t types[HD_XDS_KINDS_N];
    bool node_sent, has_answer;
    hd_xds_backoff_t backoff;
    hd_timer_t retry;
    hd_post_t flush;
    bool is_broken; /* its answers can't be read: given up in the next event */
    hd_xstream_stats_t stats;
    char last_end[HD_ERR_TEXT_MAX];
};

static bool is_wild(hd_xds_kind_t kind)
{
    return kind == HD_XDS_CLUSTER || kind == HD_XDS_LISTENER;
}

static bool is_delta(const hd_xstream_t *x)
{
    return x->conf->protocol == HD_XDS_DELTA;
}

/* --- names --- */

static void clear_names(hd_map_t *names)
{
    size_t at = 0;
    hd_str_t key;
    void *value;

    while (hd_map_next(names, &at, &key, &value)) {
        hd_ignore(hd_map_remove(names, key) == NULL);
        free(value);
    }
}

/* The value is the key's own copy. */
static void add_name(hd_map_t *names, hd_str_t name)
{
    char *copy = strndup(name.data, name.len);

    hd_bug_on(copy == NULL || hd_map_put(names, hd_str_n(copy, name.len), copy) != NULL);
}

static bool is_wanted(const hd_xres_t *r)
{
    return r->refs > 0 && !r->is_local;
}

/* --- requests --- */

static void send_message(hd_xstream_t *x, const void *msg)
{
    ProtobufCBinaryData bytes;
    hd_pb_arena_t pb;
    hd_chain_t out;

    hd_pb_arena_init(&pb, MEMORY_MAX);
    hd_chain_init(&out);
    if (hd_pb_pack(msg, &pb, &bytes) &&
        hd_grpc_try_add_message(&out, bytes.data, bytes.len)) {
        hd_call_send(x->call, &out);
    } else {
        hd_log(HD_LOG_ALERT, "xds: no room for a request to the control plane");
        hd_chain_free(&out);
    }
    hd_pb_arena_deinit(&pb);
}

/* Of the stream's first request only. */
static PbCore__Node *take_node(hd_xstream_t *x, hd_pb_arena_t *pb)
{
    if (x->node_sent)
        return NULL;
    x->node_sent = true;
    return hd_pb_unpack(HD_PB(pb_core__node), x->conf->node.data, x->conf->node.len, pb,
                        NULL);
}

/* Arrays of names for one request, lent by the store. */
typedef struct {
    const char **add, **remove;
    size_t add_n, remove_n;
    PbDiscovery__DeltaDiscoveryRequest__InitialResourceVersionsEntry **held;
    size_t held_n;
} names_t;

static void *take(hd_pool_t *pool, size_t n, size_t bytes)
{
    return hd_pool_calloc(pool, (n + 1) * bytes);
}

/* What to subscribe to and what to leave, and takes it as sent. */
static void diff_names(hd_xstream_t *x, hd_xds_kind_t kind, hd_pool_t *pool, names_t *n)
{
    type_t *t = &x->types[kind];
    size_t max = 0, at = 0;
    hd_str_t key;
    void *value;

    for (hd_xres_t *r = hd_xstore_next(x->store, kind, NULL); r != NULL;
         r = hd_xstore_next(x->store, kind, r))
        max++;
    n->add = take(pool, max, sizeof(*n->add));
    n->remove = take(pool, hd_map_count(t->sent), sizeof(*n->remove));
    while (hd_map_next(t->sent, &at, &key, &value)) {
        const hd_xres_t *r = hd_xstore_find(x->store, kind, key);

        if (r != NULL && is_wanted(r))
            continue;
        n->remove[n->remove_n++] = hd_str_to_c(pool, key);
        hd_xstore_left(x->store, kind, key);
        hd_ignore(hd_map_remove(t->sent, key) == NULL);
        free(value);
    }
    for (hd_xres_t *r = hd_xstore_next(x->store, kind, NULL); r != NULL;
         r = hd_xstore_next(x->store, kind, r)) {
        if (!is_wanted(r) || hd_map_get(t->sent, r->name) != NULL)
            continue;
        n->add[n->add_n++] = r->name.data;
        add_name(t->sent, r->name);
    }
}

/* What we hold already, by version, so that the server needs not send it again. */
static void list_held(hd_xstream_t *x, hd_xds_kind_t kind, hd_pool_t *pool, names_t *n)
{
    size_t max = 0;

    for (hd_xres_t *r = hd_xstore_next(x->store, kind, NULL); r != NULL;
         r = hd_xstore_next(x->store, kind, r))
        max++;
    n->held = take(pool, max, sizeof(*n->held));
    for (hd_xres_t *r = hd_xstore_next(x->store, kind, NULL); r != NULL;
         r = hd_xstore_next(x->store, kind, r)) {
        PbDiscovery__DeltaDiscoveryRequest__InitialResourceVersionsEntry *e;

        if (r->bytes.len == 0 || r->is_local || !(is_wild(kind) || is_wanted(r)))
            continue;
        e = hd_pool_calloc(pool, sizeof(*e));
        pb_discovery__delta_discovery_request__initial_resource_versions_entry__init(e);
        e->key = r->name.data;
        e->value = r->version.data;
        n->held[n->held_n++] = e;
    }
}

/* Changes of a subscription; the first of a type on this stream begins it. */
static void send_delta(hd_xstream_t *x, hd_xds_kind_t kind)
{
    PbDiscovery__DeltaDiscoveryRequest msg;
    type_t *t = &x->types[kind];
    hd_pool_t *pool = hd_pool_create(0);
    hd_pb_arena_t pb;
    names_t n = {0};

    if (!is_wild(kind))
        diff_names(x, kind, pool, &n);
    if (!t->is_requested)
        list_held(x, kind, pool, &n);
    if ((t->is_requested || !is_wild(kind)) && n.add_n + n.remove_n == 0) {
        hd_pool_destroy(pool);
        return;
    }
    t->is_requested = true;
    hd_pb_arena_init(&pb, MEMORY_MAX);
    pb_discovery__delta_discovery_request__init(&msg);
    msg.node = take_node(x, &pb);
    msg.type_url = hd_xds_url(kind);
    msg.resource_names_subscribe = n.add;
    msg.n_resource_names_subscribe = n.add_n;
    msg.resource_names_unsubscribe = n.remove;
    msg.n_resource_names_unsubscribe = n.remove_n;
    msg.initial_resource_versions = n.held;
    msg.n_initial_resource_versions = n.held_n;
    send_message(x, &msg);
    hd_pb_arena_deinit(&pb);
    hd_pool_destroy(pool);
}

/* A request names all that is subscribed to; <why> not empty: a NACK. */
static void send_sotw(hd_xstream_t *x, hd_xds_kind_t kind, hd_str_t why)
{
    PbDiscovery__DiscoveryRequest msg;
    type_t *t = &x->types[kind];
    hd_pool_t *pool = hd_pool_create(0);
    PbRpc__Status status;
    hd_pb_arena_t pb;
    names_t n = {0};
    size_t at = 0, names_n = 0;
    const char **names;
    hd_str_t key;
    void *value;

    hd_pb_arena_init(&pb, MEMORY_MAX);
    pb_discovery__discovery_request__init(&msg);
    if (!is_wild(kind))
        diff_names(x, kind, pool, &n);
    names = take(pool, hd_map_count(t->sent), sizeof(*names));
    while (hd_map_next(t->sent, &at, &key, &value))
        names[names_n++] = value;
    t->is_requested = true;
    msg.node = take_node(x, &pb);
    msg.type_url = hd_xds_url(kind);
    msg.version_info = t->version;
    msg.response_nonce = t->nonce;
    msg.resource_names = names;
    msg.n_resource_names = names_n;
    if (why.len > 0) {
        pb_rpc__status__init(&status);
        status.code = NACK_CODE;
        status.message = hd_str_to_c(pool, why);
        msg.error_detail = &status;
    }
    send_message(x, &msg);
    hd_pb_arena_deinit(&pb);
    hd_pool_destroy(pool);
}

/* Has what is needed changed since it was sent? */
static bool has_news(hd_xstream_t *x, hd_xds_kind_t kind)
{
    type_t *t = &x->types[kind];
    size_t wanted = 0;

    for (hd_xres_t *r = hd_xstore_next(x->store, kind, NULL); r != NULL;
         r = hd_xstore_next(x->store, kind, r)) {
        if (!is_wanted(r))
            continue;
        wanted++;
        if (hd_map_get(t->sent, r->name) == NULL)
            return true;
    }
    return wanted != hd_map_count(t->sent);
}

static void subscribe(hd_xstream_t *x, hd_xds_kind_t kind)
{
    if (is_delta(x))
        send_delta(x, kind);
    else if (is_wild(kind) ? !x->types[kind].is_requested : has_news(x, kind))
        send_sotw(x, kind, HD_STR_NONE);
}

static void give_up(hd_xstream_t *x);

static void on_flush(hd_post_t *post)
{
    hd_xstream_t *x = hd_container_of(post, hd_xstream_t, flush);

    if (x->is_broken) {
        give_up(x);
        return;
    }
    for (hd_xds_kind_t k = 0; x->call != NULL && k < HD_XDS_KINDS_N; k++) {
        if (!x->types[k].is_dirty)
            continue;
        x->types[k].is_dirty = false;
        subscribe(x, k);
    }
}

static void make_dirty(hd_xstream_t *x, hd_xds_kind_t kind)
{
    x->types[kind].is_dirty = true;
    if (x->call != NULL)
        hd_post(x->proc->loop, &x->flush);
}

void hd_xstream_needs_changed(hd_xstream_t *x, hd_xds_kind_t kind)
{
    make_dirty(x, kind);
}

/* --- answers --- */

/* What is remembered of an answer until it was applied. */
typedef struct {
    hd_xstream_t *x;
    uint64_t generation;
    hd_str_t nonce, version;
} answer_t;

static void send_delta_ack(hd_xstream_t *x, hd_xds_kind_t kind, hd_str_t nonce,
                           hd_str_t why)
{
    PbDiscovery__DeltaDiscoveryRequest msg;
    hd_pool_t *pool = hd_pool_create(0);
    PbRpc__Status status;

    pb_discovery__delta_discovery_request__init(&msg);
    msg.type_url = hd_xds_url(kind);
    msg.response_nonce = hd_str_to_c(pool, nonce);
    if (why.len > 0) {
        pb_rpc__status__init(&status);
        status.code = NACK_CODE;
        status.message = hd_str_to_c(pool, why);
        msg.error_detail = &status;
    }
    send_message(x, &msg);
    hd_pool_destroy(pool);
}

/* Listeners are asked for once clusters are in force, so that routes find them. */
static void ask_on(hd_xstream_t *x, hd_xds_kind_t kind)
{
    if (kind == HD_XDS_CLUSTER && !x->types[HD_XDS_LISTENER].is_requested)
        make_dirty(x, HD_XDS_LISTENER);
}

static void on_applied(hd_xupdate_t *u, hd_str_t why)
{
    answer_t *a = u->arg;
    hd_xstream_t *x = a->x;
    type_t *t = &x->types[u->kind];

    if (x->call == NULL || a->generation != x->generation)
        return;
    if (why.len > 0) {
        x->stats.nacks++;
        x->stats.nacks_by_kind[u->kind]++;
    } else {
        x->stats.acks++;
        (void)snprintf(t->version, sizeof(t->version), "%.*s", HD_STR_ARG(a->version));
    }
    if (is_delta(x))
        send_delta_ack(x, u->kind, a->nonce, why);
    else
        send_sotw(x, u->kind, why);
    ask_on(x, u->kind);
}

/* What isn't a resource of the store: asked for, and acknowledged with <nonce>. */
static void ask_roots(hd_xstream_t *x, const char *nonce, const char *version)
{
    PbDiscovery__DeltaDiscoveryRequest delta;
    PbDiscovery__DiscoveryRequest sotw;

    if (is_delta(x)) {
        pb_discovery__delta_discovery_request__init(&delta);
        delta.type_url = ROOTS_URL;
        delta.response_nonce = nonce;
        send_message(x, &delta);
    } else {
        pb_discovery__discovery_request__init(&sotw);
        sotw.type_url = ROOTS_URL;
        sotw.response_nonce = nonce;
        sotw.version_info = version;
        send_message(x, &sotw);
    }
}

/* One that has none, or says what we can't read, says nothing. */
static void take_roots(hd_xstream_t *x, const Pb__Any *any, hd_pb_arena_t *pb)
{
    const PbMesh__ProxyConfig *msg = hd_pb_unpack_any(any, pb, NULL);
    hd_pool_t *pool = hd_pool_create(0);
    hd_str_t pem = HD_STR_NONE;

    for (size_t i = 0; msg != NULL && i < msg->n_ca_certificates_pem; i++)
        pem = hd_str_printf(pool, "%.*s%s", HD_STR_ARG(pem), msg->ca_certificates_pem[i]);
    if (pem.len > 0 && x->ca != NULL)
        hd_xca_roots_told(x->ca, pem);
    hd_pool_destroy(pool);
}

static hd_xupdate_t *begin_update(hd_xstream_t *x, const char *type_url,
                                  const char *nonce, const char *version, size_t items,
                                  size_t removed)
{
    hd_xds_kind_t kind = hd_xds_kind(hd_str_c(type_url));
    hd_xupdate_t *u;
    answer_t *a;
    type_t *t;

    x->stats.answers++;
    if (kind == HD_XDS_KINDS_N) {
        hd_log(HD_LOG_WARN, "xds: an answer of type %s, which nobody asked for",
               type_url);
        return NULL;
    }
    t = &x->types[kind];
    if (strlen(nonce) >= sizeof(t->nonce)) {
        hd_log(HD_LOG_ERROR, "xds: a nonce of %zu bytes", strlen(nonce));
        return NULL;
    }
    (void)snprintf(t->nonce, sizeof(t->nonce), "%s", nonce);
    u = hd_xupdate_create(kind, items, removed);
    u->is_first = !t->is_answered;
    t->is_answered = x->stats.is_answered[kind] = true;
    a = hd_pool_new(u->pool, answer_t);
    *a = (answer_t){.x = x,
                    .generation = x->generation,
                    .nonce = hd_str_dup(u->pool, hd_str_c(nonce)),
                    .version = hd_str_dup(u->pool, hd_str_c(version))};
    u->arg = a;
    u->done = on_applied;
    return u;
}

static void add_item(hd_xupdate_t *u, const char *name, const char *version,
                     const Pb__Any *any)
{
    u->items[u->items_n++] = (hd_xitem_t){
        .name = hd_str_dup(u->pool, hd_str_c(name)),
        .version = hd_str_dup(u->pool, hd_str_c(version)),
        .bytes =
            hd_str_dup(u->pool, hd_str_n((const char *)any->value.data, any->value.len))};
}

static void take_delta(hd_xstream_t *x, const PbDiscovery__DeltaDiscoveryResponse *msg,
                       hd_pb_arena_t *pb)
{
    hd_xupdate_t *u;

    if (strcmp(msg->type_url, ROOTS_URL) == 0) {
        if (msg->n_resources > 0 && msg->resources[0]->resource != NULL)
            take_roots(x, msg->resources[0]->resource, pb);
        ask_roots(x, msg->nonce, "");
        return;
    }
    u = begin_update(x, msg->type_url, msg->nonce, msg->system_version_info,
                     msg->n_resources, msg->n_removed_resources);
    if (u == NULL)
        return;
    for (size_t i = 0; i < msg->n_resources; i++) {
        const PbDiscovery__Resource *r = msg->resources[i];

        if (r->resource != NULL) /* else a heartbeat */
            add_item(u, r->name, r->version, r->resource);
    }
    for (size_t i = 0; i < msg->n_removed_resources; i++)
        u->removed[u->removed_n++] =
            hd_str_dup(u->pool, hd_str_c(msg->removed_resources[i]));
    hd_xstore_give(x->store, u);
}

/* All five types have their name as field 1: taken from the front, without the rest. */
static hd_str_t peek_name(hd_str_t bytes)
{
    const uint8_t *at = (const uint8_t *)bytes.data, *end = at + bytes.len;
    size_t len = 0;

    if (at == end || *at++ != (1 << 3 | 2))
        return HD_STR_NONE;
    for (unsigned shift = 0; at < end && shift < 32; shift += 7) {
        len |= (size_t)(*at & 0x7f) << shift;
        if (*at++ < 0x80)
            return len <= (size_t)(end - at) ? hd_str_n((const char *)at, len)
                                             : HD_STR_NONE;
    }
    return HD_STR_NONE;
}

static void take_sotw(hd_xstream_t *x, const PbDiscovery__DiscoveryResponse *msg,
                      hd_pb_arena_t *pb)
{
    hd_xupdate_t *u;

    if (strcmp(msg->type_url, ROOTS_URL) == 0) {
        if (msg->n_resources > 0)
            take_roots(x, msg->resources[0], pb);
        ask_roots(x, msg->nonce, msg->version_info);
        return;
    }
    u = begin_update(x, msg->type_url, msg->nonce, msg->version_info, msg->n_resources,
                     0);
    if (u == NULL)
        return;
    u->is_all = is_wild(u->kind);
    for (size_t i = 0; i < msg->n_resources; i++) {
        const Pb__Any *any = msg->resources[i];
        const PbDiscovery__Resource *wrapped = NULL;

        if (hd_pb_any_is(any, HD_PB(pb_discovery__resource)))
            wrapped = hd_pb_unpack_any(any, pb, NULL);
        if (wrapped != NULL && wrapped->resource != NULL)
            any = wrapped->resource;
        add_item(u, "", msg->version_info, any);
        u->items[u->items_n - 1].name = peek_name(u->items[u->items_n - 1].bytes);
    }
    hd_xstore_give(x->store, u);
}

/* False: it isn't what the protocol says. */
static bool take_message(hd_xstream_t *x, const uint8_t *bytes, size_t len)
{
    const ProtobufCMessageDescriptor *type =
        is_delta(x) ? HD_PB(pb_discovery__delta_discovery_response)
                    : HD_PB(pb_discovery__discovery_response);
    hd_pb_fault_t fault;
    hd_pb_arena_t pb;
    char why[256];
    void *msg;

    hd_pb_arena_init(&pb, MEMORY_MAX);
    msg = hd_pb_unpack(type, bytes, len, &pb, &fault);
    if (msg == NULL) {
        hd_pb_fault_print(&fault, why, sizeof(why));
        (void)snprintf(x->last_end, sizeof(x->last_end),
                       "an answer that can't be read: %s", why);
    } else if (is_delta(x)) {
        take_delta(x, msg, &pb);
    } else {
        take_sotw(x, msg, &pb);
    }
    hd_pb_arena_deinit(&pb);
    return msg != NULL;
}

/* --- the stream --- */

static void open_stream(hd_xstream_t *x);

static void close_stream(hd_xstream_t *x, uint64_t retry_ms)
{
    x->call = NULL;
    x->is_broken = false;
    x->generation++;
    x->stats.is_open = false;
    hd_post_cancel(&x->flush);
    hd_chain_free(&x->in);
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        type_t *t = &x->types[k];

        clear_names(t->sent);
        t->is_requested = t->is_answered = t->is_dirty = false;
        t->nonce[0] = '\0';
    }
    hd_timer_set(x->proc->loop, &x->retry, retry_ms);
}

static void give_up(hd_xstream_t *x)
{
    hd_call_t *call = x->call;

    hd_log(HD_LOG_ERROR, "xds: %s: the stream to %.*s is given up", x->last_end,
           HD_STR_ARG(x->conf->server.host));
    close_stream(x, hd_xds_backoff_ms(&x->backoff));
    hd_call_cancel(call);
}

/* Not from within the call's own callback. */
static void break_off(hd_xstream_t *x)
{
    x->is_broken = true;
    hd_post(x->proc->loop, &x->flush);
}

static void on_body(hd_call_t *call, hd_chain_t *body)
{
    hd_xstream_t *x = hd_call_arg(call);
    uint8_t *bytes;
    size_t len;
    hd_err_t err = {0};
    hd_rc_t rc;

    if (x->is_broken)
        return;
    hd_chain_move(&x->in, body);
    while ((rc = hd_grpc_take_message(&x->in, MESSAGE_MAX, &bytes, &len, &err)) ==
           HD_OK) {
        bool is_good = take_message(x, bytes, len);

        free(bytes);
        if (!is_good) {
            break_off(x);
            return;
        }
        if (!x->has_answer)
            hd_log(HD_LOG_NOTICE, "xds: connected to %.*s",
                   HD_STR_ARG(x->conf->server.host));
        x->has_answer = x->stats.is_open = true;
        x->backoff.failures = 0;
    }
    if (rc == HD_ERROR) {
        (void)snprintf(x->last_end, sizeof(x->last_end), "%s", err.text);
        break_off(x);
    }
}

static void on_head(hd_call_t *call, unsigned status, const hd_headers_t *headers)
{
    hd_xstream_t *x = hd_call_arg(call);
    hd_str_t message;
    unsigned grpc = hd_xds_peer_status(headers, &message);

    if (status != 200)
        (void)snprintf(x->last_end, sizeof(x->last_end), "HTTP status %u", status);
    else if (grpc != HD_GRPC_NO_STATUS) /* an answer of trailers only */
        (void)snprintf(x->last_end, sizeof(x->last_end), "%s: %.*s",
                       hd_grpc_status_name(grpc), HD_STR_ARG(message));
}

static void on_end(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err)
{
    hd_xstream_t *x = hd_call_arg(call);
    bool was_good = x->has_answer;
    hd_str_t message;
    unsigned status = hd_xds_peer_status(trailers, &message);

    x->stats.ended++;
    if (err != NULL)
        (void)snprintf(x->last_end, sizeof(x->last_end), "%s", err->text);
    else if (status != HD_GRPC_NO_STATUS)
        (void)snprintf(x->last_end, sizeof(x->last_end), "%s%s%.*s",
                       hd_grpc_status_name(status), message.len > 0 ? ": " : "",
                       HD_STR_ARG(message));
    hd_log(was_good ? HD_LOG_NOTICE : HD_LOG_WARN,
           "xds: the stream to %.*s has ended (%s); what is in force stays",
           HD_STR_ARG(x->conf->server.host), x->last_end);
    /* istiod ends streams now and then (§9): that is no failure */
    close_stream(x, was_good && err == NULL ? 10 : hd_xds_backoff_ms(&x->backoff));
}

static const hd_call_user_t call_user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

static bool holds(const hd_xstream_t *x, hd_xds_kind_t kind)
{
    return hd_xstore_next(x->store, kind, NULL) != NULL;
}

static void open_stream(hd_xstream_t *x)
{
    hd_err_t err = {0};

    x->node_sent = x->has_answer = false;
    (void)snprintf(x->last_end, sizeof(x->last_end), "closed");
    x->call = hd_xds_peer_call(&x->peer, x->proc->loop, x->proc->member,
                               is_delta(x) ? SERVICE "DeltaAggregatedResources"
                                           : SERVICE "StreamAggregatedResources",
                               0, &call_user, x, &err);
    if (x->call == NULL) {
        x->stats.ended++;
        hd_log(HD_LOG_ERROR, "xds: %s", err.text);
        hd_timer_set(x->proc->loop, &x->retry, hd_xds_backoff_ms(&x->backoff));
        return;
    }
    x->stats.streams++;
    subscribe(x, HD_XDS_CLUSTER);
    for (hd_xds_kind_t k = HD_XDS_ENDPOINTS; k < HD_XDS_KINDS_N; k++) {
        if (holds(x, k)) /* from before, or a snapshot */
            subscribe(x, k);
    }
    if (x->ca != NULL)
        ask_roots(x, "", "");
}

static void on_retry(hd_timer_t *t)
{
    open_stream(hd_container_of(t, hd_xstream_t, retry));
}

hd_xstream_t *hd_xstream_create(hd_proc_t *p, hd_xstore_t *store,
                                const hd_xds_conf_t *conf, hd_xca_t *ca, hd_pool_t *pool)
{
    hd_xstream_t *x = calloc(1, sizeof(*x));

    hd_bug_on(x == NULL);
    x->proc = p;
    x->store = store;
    x->conf = conf;
    x->ca = ca;
    hd_xds_peer_init(&x->peer, &conf->server, conf, pool);
    hd_chain_init(&x->in);
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++)
        x->types[k].sent = hd_map_create();
    hd_post_init(&x->flush, on_flush);
    hd_timer_init(&x->retry, on_retry);
    open_stream(x);
    return x;
}

void hd_xstream_destroy(hd_xstream_t *x)
{
    if (x->call != NULL)
        hd_call_cancel(x->call);
    hd_timer_stop(x->proc->loop, &x->retry);
    hd_post_cancel(&x->flush);
    hd_chain_free(&x->in);
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        clear_names(x->types[k].sent);
        hd_map_destroy(x->types[k].sent);
    }
    free(x);
}

void hd_xstream_get_stats(const hd_xstream_t *x, hd_xstream_stats_t *stats)
{
    *stats = x->stats;
    stats->last_end = hd_str_c(x->last_end);
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++)
        stats->is_asked[k] = x->types[k].is_requested;
}
