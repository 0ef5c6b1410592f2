/* Fuzz target: decoding of messages and what treats all of them alike. The first byte
 * chooses a type, the rest is its encoding. What it finds goes to regression/ with its
 * fix. */
#include "proto/hd_pb_json.h"
#include "proto/hd_pb_reflect.h"
#include <stdlib.h>
#include "ext/hcm.pb-c.h"
#include "ext/tls.pb-c.h"
#include "xds/cluster.pb-c.h"
#include "xds/discovery.pb-c.h"
#include "xds/endpoint.pb-c.h"
#include "xds/listener.pb-c.h"
#include "xds/rbac.pb-c.h"
#include "xds/route.pb-c.h"

#define MAX_BYTES ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Only added to at the end: the corpus counts on the order. */
static const ProtobufCMessageDescriptor *const types[] = {
    HD_PB(pb_discovery__delta_discovery_response),
    HD_PB(pb_discovery__discovery_response),
    HD_PB(pb_cluster__cluster),
    HD_PB(pb_endpoint__cluster_load_assignment),
    HD_PB(pb_listener__listener),
    HD_PB(pb_route__route_configuration),
    HD_PB(pb_hcm__http_connection_manager),
    HD_PB(pb_tls__secret),
    HD_PB(pb_rbac__rbac),
    HD_PB(pb__struct),
    HD_PB(pb__any),
    HD_PB(pb_discovery__delta_discovery_request),
};

static bool count(void *to, const char *text, size_t len)
{
    (void)text;
    *(size_t *)to += len;
    return true;
}

static void ignore(void *arg, const hd_pb_place_t *at)
{
    *(size_t *)arg += at->number;
}

/* A decoded message prints, is walked, and comes back from its own encoding. */
static void use(const ProtobufCMessage *msg, hd_pb_arena_t *arena)
{
    hd_pb_arena_t scratch;
    size_t sum = 0;
    hd_pb_rc_t rc = hd_pb_to_json(msg, NULL, count, &sum, NULL);

    if (rc != HD_PB_OK && rc != HD_PB_MALFORMED && rc != HD_PB_TOO_DEEP &&
        rc != HD_PB_TOO_BIG)
        abort();
    rc = hd_pb_walk(msg, MAX_BYTES, ignore, &sum);
    rc = hd_pb_unknown_fields(msg, MAX_BYTES, ignore, &sum);

    const void *again = hd_pb_clone(msg, arena);

    hd_pb_arena_init(&scratch, MAX_BYTES);
    if (again == NULL ? !arena->is_full
                      : !hd_pb_equal(msg, again, &scratch) && !scratch.is_full)
        abort();
    hd_pb_arena_deinit(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_pb_arena_t arena;
    hd_pb_fault_t fault;
    char text[64];

    if (size == 0)
        return 0;

    const ProtobufCMessageDescriptor *type =
        types[data[0] % (sizeof(types) / sizeof(*types))];
    hd_pb_rc_t rc = hd_pb_scan(type, data + 1, size - 1, HD_PB_DEPTH_MAX, &fault);

    if (rc != HD_PB_OK)
        hd_pb_fault_print(&fault, text, sizeof(text));
    hd_pb_arena_init(&arena, MAX_BYTES);

    const ProtobufCMessage *msg = hd_pb_unpack(type, data + 1, size - 1, &arena, &fault);

    /* What the scan lets through fails only for want of memory. */
    if ((msg != NULL && rc != HD_PB_OK) ||
        (msg == NULL && rc == HD_PB_OK && !arena.is_full))
        abort();
    if (msg != NULL)
        use(msg, &arena);
    hd_pb_arena_deinit(&arena);
    return 0;
}
