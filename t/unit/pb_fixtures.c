/* Every recorded answer of a real istiod decodes, loses nothing on the way back, and
 * holds no field or type that our .proto files lack. Reads t/fixtures/istiod. */
#include <glob.h>
#include "tap.h"
#include "proto/hd_pb.h"
#include "proto/hd_pb_reflect.h"
#include "xds/discovery.pb-c.h"

#define FILES "t/fixtures/istiod/*/*.pb"
#define MAX_BYTES ((size_t)64 << 20)

typedef struct {
    uint8_t *bytes;
    size_t len;
} file_t;

static file_t read_file(const char *name)
{
    FILE *f = fopen(name, "rb");
    file_t file = {.bytes = malloc(1 << 20)};

    if (f != NULL) {
        file.len = fread(file.bytes, 1, 1 << 20, f);
        fclose(f);
    }
    return file;
}

static bool is_sotw(const char *name)
{
    return strstr(name, "-sotw.pb") != NULL;
}

static size_t take_length(const uint8_t **at)
{
    size_t len = 0;

    for (unsigned shift = 0;; shift += 7) {
        uint8_t b = *(*at)++;

        len |= (size_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return len;
    }
}

static void on_unknown(void *arg, const hd_pb_place_t *at)
{
    ++*(unsigned *)arg;
    diag("unknown: %s", at->path);
}

typedef struct {
    unsigned anys_n, untyped_n;
} anys_t;

static void on_place(void *arg, const hd_pb_place_t *at)
{
    anys_t *anys = arg;

    if (at->field == NULL || at->field->descriptor != HD_PB(pb__any) ||
        hd_pb_is_map(at->field) || at->field->label == PROTOBUF_C_LABEL_REPEATED)
        return;

    const Pb__Any *any = (const void *)hd_pb_message_at(at->message, at->field, 0);

    anys->anys_n++;
    if (hd_pb_find_type(any->type_url) == NULL) {
        anys->untyped_n++;
        diag("no such type: %s at %s", any->type_url, at->path);
    }
}

/* Packs <msg> again, with what its Anys hold packed again as well, and compares. */
static bool comes_back(const ProtobufCMessage *msg)
{
    hd_pb_arena_t arena, scratch;
    hd_pb_arena_init(&arena, MAX_BYTES);
    hd_pb_arena_init(&scratch, MAX_BYTES);

    const ProtobufCMessage *again = hd_pb_clone(msg, &arena);
    bool is_same = again != NULL && again != msg && hd_pb_equal(msg, again, &scratch);

    hd_pb_arena_deinit(&scratch);
    hd_pb_arena_deinit(&arena);
    return is_same;
}

/* A second opinion: the library's own decoder. */
static bool is_what_protobuf_c_reads(const ProtobufCMessage *msg, const Pb__Any *any)
{
    ProtobufCMessage *other =
        protobuf_c_message_unpack(msg->descriptor, NULL, any->value.len, any->value.data);
    hd_pb_arena_t scratch;
    hd_pb_arena_init(&scratch, MAX_BYTES);

    bool is_same = other != NULL && hd_pb_equal(msg, other, &scratch);

    hd_pb_arena_deinit(&scratch);
    protobuf_c_message_free_unpacked(other, NULL);
    return is_same;
}

static bool any_comes_back(const Pb__Any *any)
{
    hd_pb_arena_t arena;
    hd_pb_fault_t fault = {0};
    char text[256];
    hd_pb_arena_init(&arena, MAX_BYTES);

    const ProtobufCMessage *msg = hd_pb_unpack_any(any, &arena, &fault);
    bool is_same = msg != NULL && comes_back(msg) && is_what_protobuf_c_reads(msg, any);

    if (msg == NULL) {
        hd_pb_fault_print(&fault, text, sizeof(text));
        diag("%s: %s", any->type_url, text);
    }
    hd_pb_arena_deinit(&arena);
    return is_same;
}

static bool resources_come_back(const ProtobufCMessage *msg, unsigned *resources_n)
{
    const PbDiscovery__DeltaDiscoveryResponse *delta = (const void *)msg;
    const PbDiscovery__DiscoveryResponse *sotw = (const void *)msg;
    bool is_delta = msg->descriptor == HD_PB(pb_discovery__delta_discovery_response);
    size_t n = is_delta ? delta->n_resources : sotw->n_resources;

    for (size_t i = 0; i < n; i++) {
        if (!any_comes_back(is_delta ? delta->resources[i]->resource
                                     : sotw->resources[i]))
            return false;
    }
    *resources_n += (unsigned)n;
    return true;
}

static void test_file(const char *name)
{
    file_t file = read_file(name);
    const uint8_t *at = file.bytes, *end = file.bytes + file.len;
    const ProtobufCMessageDescriptor *type =
        is_sotw(name) ? HD_PB(pb_discovery__discovery_response)
                      : HD_PB(pb_discovery__delta_discovery_response);
    unsigned responses_n = 0, resources_n = 0, unknown_n = 0;
    anys_t anys = {0};
    bool is_decoded = true, is_same = true;

    while (at < end && is_decoded) {
        size_t len = take_length(&at);
        hd_pb_arena_t arena;
        hd_pb_arena_init(&arena, MAX_BYTES);

        const ProtobufCMessage *msg = hd_pb_unpack(type, at, len, &arena, NULL);

        is_decoded =
            msg != NULL &&
            hd_pb_unknown_fields(msg, MAX_BYTES, on_unknown, &unknown_n) == HD_PB_OK &&
            hd_pb_walk(msg, MAX_BYTES, on_place, &anys) == HD_PB_OK;
        is_same = is_same && is_decoded && comes_back(msg) &&
                  resources_come_back(msg, &resources_n);
        responses_n++;
        hd_pb_arena_deinit(&arena);
        at += len;
    }
    ok(is_decoded && responses_n >= 3 && resources_n >= 10,
       "%s decodes: %u answers, %u resources", name, responses_n, resources_n);
    ok(is_same, "%s: packing and unpacking changes nothing", name);
    ok(unknown_n == 0 && anys.anys_n > 30 && anys.untyped_n == 0,
       "%s: no unknown field, no unknown type in %u Anys", name, anys.anys_n);
    free(file.bytes);
}

int main(void)
{
    glob_t files;

    if (glob(FILES, 0, NULL, &files) != 0) {
        fail("no %s: run from the top of the tree", FILES);
        return done_testing();
    }
    is_int(files.gl_pathc, 66, "11 features, 3 nodes, both protocols");
    for (size_t i = 0; i < files.gl_pathc; i++)
        test_file(files.gl_pathv[i]);
    globfree(&files);
    return done_testing();
}
