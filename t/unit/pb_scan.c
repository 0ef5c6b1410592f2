/* Hostile encodings end in the scan, with a reason and a place, and never reach the
 * unpacker. */
#include "tap.h"
#include "proto/hd_pb.h"
#include "xds/cluster.pb-c.h"
#include "xds/core.pb-c.h"
#include "xds/discovery.pb-c.h"
#include "xds/listener.pb-c.h"
#include "xds/rbac.pb-c.h"

static hd_pb_fault_t fault;
static char fault_text[256];

/* The scan's verdict; unpacking must agree. */
static hd_pb_rc_t scan(const ProtobufCMessageDescriptor *type, const void *bytes,
                       size_t len)
{
    hd_pb_arena_t arena;
    hd_pb_rc_t rc = hd_pb_scan(type, bytes, len, HD_PB_DEPTH_MAX, &fault);
    hd_pb_arena_init(&arena, 1 << 20);

    const void *msg = hd_pb_unpack(type, bytes, len, &arena, NULL);

    if ((msg != NULL) != (rc == HD_PB_OK))
        fail("unpack disagrees with scan");
    hd_pb_arena_deinit(&arena);
    if (rc != HD_PB_OK)
        hd_pb_fault_print(&fault, fault_text, sizeof(fault_text));
    return rc;
}

#define SCAN(type, literal) scan(HD_PB(type), literal, sizeof(literal) - 1)

static void test_sound(void)
{
    is_int(SCAN(pb_cluster__cluster, ""), HD_PB_OK, "nothing is an empty message");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x01n"), HD_PB_OK, "a name");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x04n\xe2\x82\xac"), HD_PB_OK, "in UTF-8");
    is_int(SCAN(pb_cluster__cluster, "\xf8\x7f\x01"), HD_PB_OK, "unknown number");
    is_int(SCAN(pb_cluster__cluster, "\xfa\x7f\x03\xff\x00\x08"), HD_PB_OK,
           "unknown bytes are not looked into");
    is_int(SCAN(pb_core__data_source, "\x12\x02\x0a\xff"), HD_PB_OK,
           "a bytes field is not taken for a message");
    is_int(SCAN(pb_listener__filter_chain_match, "\x3a\x03\x01\x80\x01"), HD_PB_OK,
           "packed");
    is_int(SCAN(pb_listener__filter_chain_match, "\x38\x01\x38\x80\x01"), HD_PB_OK,
           "the same unpacked");
    is_int(SCAN(pb__int64_value, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
           HD_PB_OK, "-1 takes ten bytes");
}

static void test_lengths(void)
{
    is_int(SCAN(pb_cluster__cluster, "\x0a"), HD_PB_MALFORMED, "a tag alone");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x02n"), HD_PB_MALFORMED, "one byte short");
    is_str(fault_text,
           "envoy.config.cluster.v3.Cluster.name, byte 0: longer than what holds it",
           "the reason names the field");
    is_int(SCAN(pb_cluster__cluster, "\x1a\x05\x0a\x09\x0a\x00\x00\x00\x00\x00\x00\x00"),
           HD_PB_MALFORMED, "inner length beyond the outer message, within the bytes");
    is_int(SCAN(pb_cluster__cluster, "\x0a\xff\xff\xff\xff\x0f"), HD_PB_MALFORMED,
           "4 GiB");
    is_int(SCAN(pb_cluster__cluster, "\x0a\xff\xff\xff\xff\x7f"), HD_PB_MALFORMED,
           "more than 32 bits");
    is_int(SCAN(pb_cluster__cluster, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
           HD_PB_MALFORMED, "2^64 - 1");
    is_int(SCAN(pb_cluster__cluster, "\xfa\x7f\x05z"), HD_PB_MALFORMED,
           "of an unknown field as well");
    is_int(SCAN(pb__double_value, "\x09\x00\x00\x00\x00\x00\x00\x00"), HD_PB_MALFORMED,
           "seven of a double's eight bytes");
}

static void test_numbers(void)
{
    is_int(SCAN(pb__int64_value, "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
           HD_PB_MALFORMED, "eleven bytes");
    is_int(SCAN(pb__int64_value, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
           HD_PB_MALFORMED, "more than 64 bits in ten");
    is_int(SCAN(pb__int64_value, "\x08\x80"), HD_PB_MALFORMED, "unfinished");
    is_int(SCAN(pb_listener__filter_chain_match, "\x3a\x02\x01\x80"), HD_PB_MALFORMED,
           "unfinished in a packed list");
    is_int(SCAN(pb_listener__filter_chain_match, "\x3a\x02\x01\x80\x01"), HD_PB_MALFORMED,
           "finished only by the byte after the list");
}

static void test_tags(void)
{
    is_int(SCAN(pb_cluster__cluster, "\x00\x00"), HD_PB_MALFORMED, "field 0");
    is_int(SCAN(pb_cluster__cluster, "\x80\x80\x80\x80\x80\x01"), HD_PB_MALFORMED,
           "tag of six bytes");
    is_int(SCAN(pb_cluster__cluster, "\xff\xff\xff\xff\x7f"), HD_PB_MALFORMED,
           "tag of more than 32 bits");
    is_int(SCAN(pb_cluster__cluster, "\x0b\x0c"), HD_PB_MALFORMED,
           "a group for a string");
    is_int(SCAN(pb_cluster__cluster, "\xfb\x7f\xfc\x7f"), HD_PB_MALFORMED,
           "an unknown group");
    is_int(SCAN(pb_cluster__cluster, "\xfe\x7f\x00"), HD_PB_MALFORMED, "wire type 6");
    is_int(SCAN(pb_cluster__cluster, "\x08\x01"), HD_PB_OK,
           "a number for a string is an unknown field");
    is_int(SCAN(pb_cluster__cluster, "\x22\x00"), HD_PB_OK, "connect_timeout, empty");
    is_int(SCAN(pb_cluster__cluster, "\x20\x00"), HD_PB_OK, "so is one for a message");
    is_int(SCAN(pb__int64_value, "\x0a\x01\x01"), HD_PB_OK,
           "and a packed list for one number");
}

static void test_text(void)
{
    is_int(SCAN(pb_cluster__cluster, "\x0a\x03"
                                     "a\0b"),
           HD_PB_MALFORMED, "NUL: a C string would end there");
    is_str(fault_text, "envoy.config.cluster.v3.Cluster.name, byte 3: a NUL in a string",
           "the reason names the byte");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x01\x80"), HD_PB_MALFORMED,
           "a lone continuation");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x01\xc3"), HD_PB_MALFORMED,
           "half a character");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x01\xc3\xa4"), HD_PB_MALFORMED,
           "whose other half is beyond the string");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x02\xc0\xaf"), HD_PB_MALFORMED, "overlong");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x03\xe0\x80\x80"), HD_PB_MALFORMED,
           "overlong in 3");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x03\xed\xa0\x80"), HD_PB_MALFORMED,
           "surrogate");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x04\xf4\x90\x80\x80"), HD_PB_MALFORMED,
           "beyond U+10FFFF");
    is_int(SCAN(pb_cluster__cluster, "\x0a\x04\xf4\x8f\xbf\xbf"), HD_PB_OK, "U+10FFFF");
}

/* <levels> Permissions, each the not_rule (8) of the one before. */
static uint8_t *make_bomb(unsigned levels, size_t *len)
{
    uint8_t *bytes = malloc(levels * 6 + 1), *at = bytes + levels * 6;

    *len = 0;
    for (unsigned i = 1; i < levels; i++) {
        size_t n = *len;
        uint8_t head[6] = {8 << 3 | 2};
        size_t head_len = 1;

        do {
            head[head_len++] = (uint8_t)(n & 0x7f) | (n > 0x7f ? 0x80 : 0);
            n >>= 7;
        } while (n > 0);
        at -= head_len;
        memcpy(at, head, head_len);
        *len += head_len;
    }
    memmove(bytes, at, *len);
    return bytes;
}

static void test_depth(void)
{
    static const struct {
        unsigned levels;
        hd_pb_rc_t rc;
    } rows[] = {{1, HD_PB_OK},
                {HD_PB_DEPTH_MAX, HD_PB_OK},
                {HD_PB_DEPTH_MAX + 1, HD_PB_TOO_DEEP},
                {500, HD_PB_TOO_DEEP},
                {1000000, HD_PB_TOO_DEEP}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        size_t len;
        uint8_t *bomb = make_bomb(rows[i].levels, &len);

        is_int(scan(HD_PB(pb_rbac__permission), bomb, len), rows[i].rc, "%u levels",
               rows[i].levels);
        free(bomb);
    }
    is_int(hd_pb_scan(HD_PB(pb_cluster__cluster), "\x22\x00", 2, 1, &fault),
           HD_PB_TOO_DEEP, "the caller may allow less");
}

/* Two bytes an element become a struct each: only the ceiling stands against that. */
static void test_amplification(void)
{
    size_t len = 2 * 100000;
    uint8_t *bytes = malloc(len);
    hd_pb_arena_t arena;

    for (size_t i = 0; i < len; i += 2) {
        bytes[i] = 2 << 3 | 2; /* resources */
        bytes[i + 1] = 0;
    }
    hd_pb_arena_init(&arena, 1 << 20);
    ok(hd_pb_unpack(HD_PB(pb_discovery__delta_discovery_response), bytes, len, &arena,
                    &fault) == NULL &&
           fault.rc == HD_PB_TOO_BIG,
       "100,000 empty resources in 1 MiB");
    ok(arena.is_full && arena.used_bytes <= 1 << 20, "the ceiling holds");
    hd_pb_arena_deinit(&arena);
    hd_pb_arena_init(&arena, 64 << 20);

    const PbDiscovery__DeltaDiscoveryResponse *r = hd_pb_unpack(
        HD_PB(pb_discovery__delta_discovery_response), bytes, len, &arena, &fault);

    ok(r != NULL && r->n_resources == 100000, "with room they all arrive");
    hd_pb_arena_deinit(&arena);
    free(bytes);
}

/* Every prefix of a sound message, and every byte of it turned: no crash, and the
 * unpacker never fails on what the scan let through. */
static void test_mutations(void)
{
    hd_pb_arena_t arena;
    PbCluster__Cluster c = PB_CLUSTER__CLUSTER__INIT;
    PbCluster__Cluster__EdsClusterConfig eds =
        PB_CLUSTER__CLUSTER__EDS_CLUSTER_CONFIG__INIT;
    Pb__Duration d = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__duration)), 5, 250000000};
    PbCluster__CircuitBreakers breakers = PB_CLUSTER__CIRCUIT_BREAKERS__INIT;
    PbCluster__CircuitBreakers__Thresholds t =
        PB_CLUSTER__CIRCUIT_BREAKERS__THRESHOLDS__INIT;
    PbCluster__CircuitBreakers__Thresholds *thresholds[] = {&t, &t, &t};
    Pb__UInt32Value limit = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__uint32_value)),
                             UINT32_MAX};
    ProtobufCBinaryData bytes;
    unsigned sound_n = 0;

    t.max_connections = t.max_requests = &limit;
    breakers.n_thresholds = 3;
    breakers.thresholds = thresholds;
    eds.service_name = "outbound|80||a.b";
    c.name = "outbound|80||a.b";
    c.cluster_discovery_type_case = PB_CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE;
    c.type = PB_CLUSTER__CLUSTER__DISCOVERY_TYPE__EDS;
    c.eds_cluster_config = &eds;
    c.connect_timeout = &d;
    c.circuit_breakers = &breakers;
    hd_pb_arena_init(&arena, 1 << 20);
    ok(hd_pb_pack(&c, &arena, &bytes), "packed");
    for (size_t i = 0; i < bytes.len; i++)
        sound_n += scan(HD_PB(pb_cluster__cluster), bytes.data, i) == HD_PB_OK;
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t was = bytes.data[i];

        for (unsigned v = 0; v < 256; v++) {
            bytes.data[i] = (uint8_t)v;
            sound_n +=
                scan(HD_PB(pb_cluster__cluster), bytes.data, bytes.len) == HD_PB_OK;
        }
        bytes.data[i] = was;
    }
    ok(sound_n > 0 && sound_n < 257 * bytes.len, "%u of %zu mutations are sound", sound_n,
       257 * bytes.len);
    hd_pb_arena_deinit(&arena);
}

int main(void)
{
    test_sound();
    test_lengths();
    test_numbers();
    test_tags();
    test_text();
    test_depth();
    test_amplification();
    test_mutations();
    return done_testing();
}
