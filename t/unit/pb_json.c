/* Messages as JSON: the forms of protobuf's mapping that the recordings don't show. */
#include "tap.h"
#include "proto/hd_pb_json.h"
#include "ext/tls.pb-c.h"
#include "xds/cluster.pb-c.h"
#include "xds/core.pb-c.h"
#include "xds/discovery.pb-c.h"

static hd_pb_arena_t arena;
static hd_pb_json_opts_t opts;

/* The JSON of an encoded message. */
static const char *json(const ProtobufCMessageDescriptor *type, const void *bytes,
                        size_t len)
{
    hd_pb_fault_t fault;
    const void *msg = hd_pb_unpack(type, bytes, len, &arena, &fault);
    const char *text = msg != NULL ? hd_pb_json_text(msg, &opts, &arena, &fault) : NULL;
    static char why[256];

    if (text != NULL)
        return text;
    hd_pb_fault_print(&fault, why, sizeof(why));
    return why;
}

#define is_json(name, bytes, want)                                                       \
    is_str(json(HD_PB(name), bytes, sizeof(bytes) - 1), want)

static const char *json_of(const void *msg)
{
    return hd_pb_json_text(msg, &opts, &arena, NULL);
}

static void test_durations(void)
{
    static const struct {
        int64_t seconds;
        int32_t nanos;
        const char *text;
    } rows[] = {
        {0, 0, "\"0s\""},
        {3, 0, "\"3s\""},
        {0, 250000000, "\"0.250s\""},
        {1, 1000, "\"1.000001s\""},
        {1, 1, "\"1.000000001s\""},
        {0, -500000000, "\"-0.500s\""},
        {-1, -500000000, "\"-1.500s\""},
        {INT64_MIN, INT32_MIN, "\"-9223372036854775808.2147483648s\""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        Pb__Duration d = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__duration)), rows[i].seconds,
                          rows[i].nanos};
        is_str(json_of(&d), rows[i].text, "duration %s", rows[i].text);
    }
}

static void test_timestamps(void)
{
    static const struct {
        int64_t seconds;
        int32_t nanos;
        const char *text;
    } rows[] = {
        {0, 0, "\"1970-01-01T00:00:00Z\""},
        {951782400, 0, "\"2000-02-29T00:00:00Z\""},
        {1767225599, 5000000, "\"2025-12-31T23:59:59.005Z\""},
        {-1, 0, "\"1969-12-31T23:59:59Z\""},
        {-62135596800, 0, "\"0001-01-01T00:00:00Z\""},
        {253402300799, 0, "\"9999-12-31T23:59:59Z\""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        Pb__Timestamp t = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__timestamp)), rows[i].seconds,
                           rows[i].nanos};
        is_str(json_of(&t), rows[i].text, "timestamp %s", rows[i].text);
    }
}

static void test_numbers(void)
{
    static const struct {
        double value;
        const char *text;
    } rows[] = {{0.1, "0.1"},
                {100, "100"},
                {1.0 / 3, "0.3333333333333333"},
                {-0.0, "-0"},
                {1e300, "1e+300"},
                {0.0 / 0.0, "\"NaN\""},
                {1.0 / 0.0, "\"Infinity\""},
                {-1.0 / 0.0, "\"-Infinity\""}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        Pb__DoubleValue d = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__double_value)),
                             rows[i].value};
        is_str(json_of(&d), rows[i].text, "double %s", rows[i].text);
    }

    Pb__FloatValue f = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__float_value)), 0.1f};
    Pb__Int64Value i = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__int64_value)), INT64_MIN};
    Pb__UInt64Value u = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__uint64_value)), UINT64_MAX};
    Pb__UInt32Value w = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__uint32_value)), UINT32_MAX};

    is_str(json_of(&f), "0.1", "float");
    is_str(json_of(&i), "\"-9223372036854775808\"", "64 bits are a string");
    is_str(json_of(&u), "\"18446744073709551615\"", "unsigned as well");
    is_str(json_of(&w), "4294967295", "32 bits are a number");
}

static void test_fields(void)
{
    is_json(pb_cluster__cluster, "", "{}");
    is_json(pb_cluster__cluster, "\x10\x03", "{\"type\":\"EDS\"}");
    is_json(pb_cluster__cluster, "\x10\x00",
            "{\"type\":\"STATIC\"}"); /* a oneof says "set" */
    is_json(pb_cluster__cluster, "\x30\x63", "{\"lb_policy\":99}"); /* an unknown value */
    is_json(pb_cluster__circuit_breakers__thresholds, "\x12\x00",
            "{\"max_connections\":0}");
    is_json(pb_cluster__cluster, "\x22\x00", "{\"connect_timeout\":\"0s\"}");
    is_json(pb_core__data_source, "\x12\x04\x00\x01\xfe\xff",
            "{\"inline_bytes\":\"AAH+/w==\"}");
    is_json(pb_core__data_source, "\x12\x00", "{\"inline_bytes\":\"\"}");
    is_json(pb_core__data_source, "\x1a\x06\"\\\n\x01\xc3\xa4",
            "{\"inline_string\":\"\\\"\\\\\\n\\u0001\xc3\xa4\"}");
    is_json(pb_discovery__delta_discovery_request,
            "\x2a\x06\x0a\x01"
            "b\x12\x01"
            "1\x2a\x06\x0a\x01"
            "a\x12\x01"
            "2\x2a\x06\x0a\x01"
            "b\x12\x01"
            "3\x2a\x00",
            "{\"initial_resource_versions\":{\"\":\"\",\"a\":\"2\",\"b\":\"3\"}}");
    is_json(pb_core__metadata, "\x0a\x03\x0a\x01k", "{\"filter_metadata\":{\"k\":{}}}");
    is_json(pb_cluster__cluster, "\x0a\x01n\xfa\x7f\x01z", "{\"name\":\"n\"}");
}

static void test_structs(void)
{
    is_json(pb__struct, "", "{}");
    is_json(pb__struct,
            "\x0a\x07\x0a\x01"
            "b\x12\x02\x20\x01"
            "\x0a\x07\x0a\x01"
            "a\x12\x02\x08\x00"
            "\x0a\x0b\x0a\x01"
            "l\x12\x06\x32\x04\x0a\x02\x2a\x00"
            "\x0a\x03\x0a\x01v",
            "{\"a\":null,\"b\":true,\"l\":[{}],\"v\":null}");
    is_json(pb__value, "\x11\x00\x00\x00\x00\x00\x00\xf8\x3f", "1.5");
    is_json(pb__list_value, "\x0a\x02\x1a\x00\x0a\x00", "[\"\",null]");
}

static void test_anys(void)
{
    PbCore__TypedExtensionConfig c = PB_CORE__TYPED_EXTENSION_CONFIG__INIT;
    Pb__Duration d = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__duration)), 5, 0};
    Pb__Any unknown = PB__ANY__INIT;
    Pb__Any *any;

    c.typed_config = hd_pb_pack_any(&d, &arena);
    is_str(
        json_of(&c),
        "{\"typed_config\":{\"@type\":\"type.googleapis.com/google.protobuf.Duration\","
        "\"value\":\"5s\"}}",
        "a type with a form of its own stands under value");
    c.name = "n";
    c.typed_config = NULL;
    is_str(json_of(hd_pb_pack_any(&c, &arena)),
           "{\"@type\":\"type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig\","
           "\"name\":\"n\"}",
           "others beside their fields");
    unknown.type_url = "a/b.C";
    unknown.value = (ProtobufCBinaryData){3, (uint8_t *)"xyz"};
    is_str(json_of(&unknown), "{\"@type\":\"a/b.C\",\"value\":\"eHl6\"}",
           "of unknown type");
    is_str(json_of(&(Pb__Any)PB__ANY__INIT), "{}", "empty");

    any = hd_pb_pack_any(&c, &arena);
    for (int i = 1; i < HD_PB_ANYS_MAX; i++) {
        c.typed_config = any;
        any = hd_pb_pack_any(&c, &arena);
    }
    ok(json_of(any) != NULL, "Anys as deep as is allowed");
    c.typed_config = any;
    ok(json_of(hd_pb_pack_any(&c, &arena)) == NULL, "one deeper");
}

static bool refuse(void *to, const char *text, size_t len)
{
    (void)text;
    return ++*(unsigned *)to < 2 && len > 0;
}

static void test_options(void)
{
    PbTls__TlsCertificate cert = PB_TLS__TLS_CERTIFICATE__INIT;
    PbTls__Secret secret = PB_TLS__SECRET__INIT;
    PbCore__DataSource chain = PB_CORE__DATA_SOURCE__INIT,
                       key = PB_CORE__DATA_SOURCE__INIT;
    Pb__StringValue text = PB__STRING_VALUE__INIT;
    char *long_text = memset(malloc(20001), 'x', 20000);
    unsigned calls_n = 0;

    chain.specifier_case = PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING;
    chain.inline_string = "PEM";
    key.specifier_case = PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES;
    key.inline_bytes = (ProtobufCBinaryData){3, (uint8_t *)"KEY"};
    cert.certificate_chain = &chain;
    cert.private_key = &key;
    secret.name = "default";
    secret.type_case = PB_TLS__SECRET__TYPE_TLS_CERTIFICATE;
    secret.tls_certificate = &cert;
    opts.camel_names = true;
    opts.redact = true;
    is_str(json_of(&secret),
           "{\"name\":\"default\",\"tlsCertificate\":{\"certificateChain\":{"
           "\"inlineString\":"
           "\"PEM\"},\"privateKey\":{\"inlineBytes\":\"W3JlZGFjdGVkXQ==\"}}}",
           "camel names; the key is hidden");
    key.specifier_case = PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING;
    key.inline_string = "KEY";
    ok(strstr(json_of(hd_pb_pack_any(&secret, &arena)), "KEY") == NULL,
       "within an Any, too");
    opts = (hd_pb_json_opts_t){.indent = 1};
    is_str(json_of(&secret),
           "{\n \"name\": \"default\",\n \"tls_certificate\": {\n  "
           "\"certificate_chain\": {\n"
           "   \"inline_string\": \"PEM\"\n  },\n  \"private_key\": {\n"
           "   \"inline_string\": \"KEY\"\n  }\n }\n}",
           "indented; nothing hidden unless asked for");
    opts.indent = 0;

    long_text[20000] = '\0';
    text.value = long_text;
    is_int(strlen(json_of(&text)), 20002, "longer than any buffer");
    is_int(hd_pb_to_json(&text, NULL, refuse, &calls_n, NULL), HD_PB_WRITE,
           "writer refuses");
    is_int(calls_n, 2, "and is not asked again");
    free(long_text);
}

int main(void)
{
    hd_pb_arena_init(&arena, 16 << 20);
    test_durations();
    test_timestamps();
    test_numbers();
    test_fields();
    test_structs();
    test_anys();
    test_options();
    hd_pb_arena_deinit(&arena);
    return done_testing();
}
