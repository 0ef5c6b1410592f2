/* xds_test: for tests of the xDS decoders: an arena to build into, stand-ins for modules
 * that the fixtures need, and what a real istiod sent. */
#pragma once
#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"
#include "core/loom/hd_batch.h"
#include "http/hd_http.h"
#include "http/hd_http_conf.h"
#include "loom_test.h"
#include "mesh/xds/hd_xds.h"
#include "proto/hd_pb.h"
#include "stream/hd_tcp.h"
#include "xds/discovery.pb-c.h"

#define XDS_MEMORY ((size_t)64 << 20)

typedef struct {
    hd_state_t *state;
    hd_arena_t *arena;
    hd_member_t *member;
    hd_pool_t *temp;
    hd_xds_env_t env;
    hd_err_t err;
} xds_world_t;

/* --- modules that keep what they are given --- */

typedef struct {
    hd_str_t bytes;
    bool is_route;
} xds_stub_conf_t;

TAP_UNUSED static hd_rc_t xds_stub_build(hd_conf_t *cf, hd_str_t bytes, bool is_route,
                                         void *conf, hd_err_t *err)
{
    xds_stub_conf_t *c = conf;

    (void)err;
    c->bytes = hd_str_dup(cf->pool, bytes);
    c->is_route = is_route;
    return HD_OK;
}

#define XDS_URL "type.googleapis.com/"
#define XDS_HTTP XDS_URL "envoy.extensions.filters.http."

static const hd_xds_type_t xds_stub_types[] = {
    {.url = XDS_HTTP "rbac.v3.RBAC", .build = xds_stub_build},
    {.url = XDS_HTTP "fault.v3.HTTPFault", .build = xds_stub_build},
    {.url = XDS_URL "envoy.config.route.v3.RetryPolicy", .build = xds_stub_build},
    {.url = XDS_URL "envoy.config.accesslog.v3.AccessLog", .build = xds_stub_build},
    {.url = XDS_URL "stats.PluginConfig", .build = xds_stub_build},
    {.url = XDS_URL "envoy.extensions.filters.network.rbac.v3.RBAC",
     .build = xds_stub_build,
     .is_network = true},
    {0},
};

TAP_UNUSED static const hd_module_t xds_stub = {.abi = HD_MODULE_ABI,
                                                .name = "stub",
                                                .conf_size = sizeof(xds_stub_conf_t),
                                                .xds_types = xds_stub_types};

/* --- */

TAP_UNUSED static xds_world_t *xds_world(bool with_modules)
{
    xds_world_t *w = calloc(1, sizeof(*w));
    static bool is_set;

    if (!is_set) {
        is_set = true;
        hd_http_register();
        hd_ignore(hd_tcp_protocol() == 0);
        if (with_modules)
            hd_ignore(hd_module_add(&xds_stub) == 0);
    }
    w->state = loom_state();
    w->arena = loom_arena(w->state, HD_ARENA_DYNAMIC, (size_t)64 << 20);
    w->member = hd_member_start(w->state, -1, HD_MEMBER_AGENT, &w->err);
    hd_member_add_arena(w->member, w->arena);
    if (hd_arena_open_writer(w->arena, w->member, &w->err) != HD_OK) {
        printf("Bail out! %s\n", w->err.text);
        exit(1);
    }
    w->temp = hd_pool_create(0);
    w->env = (hd_xds_env_t){.arena = w->arena, .member = w->member, .temp = w->temp};
    return w;
}

TAP_UNUSED static void xds_world_end(xds_world_t *w)
{
    hd_pool_destroy(w->temp);
    hd_member_stop(w->member);
    hd_arena_destroy(w->arena);
    hd_state_destroy(w->state);
    free(w);
}

/* --- fixtures: every resource of a file of delta answers --- */

typedef void xds_each_pt(void *arg, hd_xds_kind_t kind, const PbDiscovery__Resource *r);

TAP_UNUSED static size_t xds_take_length(const uint8_t **at, const uint8_t *end)
{
    size_t len = 0;

    for (unsigned shift = 0; *at < end; shift += 7) {
        uint8_t b = *(*at)++;

        len |= (size_t)(b & 0x7f) << shift;
        if (b < 0x80)
            break;
    }
    return len;
}

TAP_UNUSED static unsigned xds_each(const char *file, xds_each_pt *each, void *arg)
{
    static uint8_t bytes[4 << 20];
    const uint8_t *at = bytes, *end;
    FILE *f = fopen(file, "rb");
    unsigned n = 0;

    if (f == NULL) {
        printf("Bail out! no %s: run from the top of the tree\n", file);
        exit(1);
    }
    end = bytes + fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    while (at < end) {
        size_t len = xds_take_length(&at, end);
        hd_pb_arena_t arena;
        const PbDiscovery__DeltaDiscoveryResponse *msg;

        hd_pb_arena_init(&arena, XDS_MEMORY);
        msg = hd_pb_unpack(HD_PB(pb_discovery__delta_discovery_response), at, len, &arena,
                           NULL);
        for (size_t i = 0; msg != NULL && i < msg->n_resources; i++, n++)
            each(arg, hd_xds_kind(hd_str_c(msg->resources[i]->resource->type_url)),
                 msg->resources[i]);
        hd_pb_arena_deinit(&arena);
        at += len;
    }
    return n;
}
