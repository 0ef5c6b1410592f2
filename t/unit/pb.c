/* Arenas, Anys, packing, merging, equality, paths, plain values of src/proto. */
#include "tap.h"
#include "proto/hd_pb.h"
#include "proto/hd_pb_reflect.h"
#include "proto/hd_pb_value.h"
#include "ext/common_ratelimit.pb-c.h"
#include "ext/tls.pb-c.h"
#include "xds/cluster.pb-c.h"
#include "xds/core.pb-c.h"
#include "xds/listener.pb-c.h"
#include "xds/route.pb-c.h"

static hd_pb_arena_t arena;
static hd_pb_fault_t fault;

static void test_arena(void)
{
    hd_pb_arena_t a;
    char *p, *q;
    size_t n = 0;

    hd_pb_arena_init(&a, 100000);
    is_int(a.used_bytes, 0, "an arena begins without memory");
    p = hd_pb_arena_alloc(&a, 1);
    q = hd_pb_arena_alloc(&a, 0);
    ok(p != NULL && q != NULL && p != q, "also nothing has an address");
    ok((uintptr_t)p % 16 == 0 && (uintptr_t)q % 16 == 0, "aligned");
    ok(hd_pb_arena_alloc(&a, SIZE_MAX) == NULL && a.is_full, "SIZE_MAX is refused");
    ok(hd_pb_arena_alloc(&a, 100000) == NULL, "the ceiling counts the arena's own bytes");
    while ((p = hd_pb_arena_alloc(&a, 1000)) != NULL) {
        memset(p, 0xa5, 1000);
        n++;
    }
    ok(n > 80 && n < 100 && a.used_bytes <= 100000, "%zu KB fit in 100,000 bytes", n);
    hd_pb_arena_deinit(&a);
    ok(a.used_bytes == 0 && hd_pb_arena_alloc(&a, 1000) != NULL, "it may be used again");
    hd_pb_arena_deinit(&a);
    hd_pb_arena_init(&a, 0);
    ok(hd_pb_arena_alloc(&a, 1) == NULL, "a ceiling of 0 allows nothing");
    hd_pb_arena_deinit(&a);
}

static void test_any(void)
{
    PbTls__UpstreamTlsContext tls = PB_TLS__UPSTREAM_TLS_CONTEXT__INIT;
    const PbTls__UpstreamTlsContext *got;
    Pb__Any *any;
    hd_pb_arena_t small;

    tls.sni = "outbound_.80_._.a";
    any = hd_pb_pack_any(&tls, &arena);
    is_str(any->type_url,
           "type.googleapis.com/"
           "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
           "type URL");
    got = hd_pb_unpack_any(any, &arena, &fault);
    ok(got != NULL && got->base.descriptor == HD_PB(pb_tls__upstream_tls_context) &&
           strcmp(got->sni, tls.sni) == 0,
       "comes out as its type");
    ok(hd_pb_unpack_any_as(any, HD_PB(pb_tls__upstream_tls_context), &arena, &fault) !=
           NULL,
       "as the type that was asked for");
    ok(hd_pb_unpack_any_as(any, HD_PB(pb_tls__secret), &arena, &fault) == NULL &&
           fault.rc == HD_PB_OTHER_TYPE,
       "not as another");
    any->type_url = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    ok(hd_pb_unpack_any(any, &arena, &fault) != NULL,
       "what stands before the slash is free");
    any->type_url = "type.googleapis.com/envoy.Nothing";
    ok(hd_pb_unpack_any(any, &arena, &fault) == NULL && fault.rc == HD_PB_NO_TYPE,
       "unknown type");
    any->type_url = "";
    ok(hd_pb_unpack_any(any, &arena, &fault) == NULL && fault.rc == HD_PB_NO_TYPE,
       "no type");
    hd_pb_arena_init(&small, 64);
    ok(hd_pb_pack_any(&tls, &small) == NULL, "no room");
    hd_pb_arena_deinit(&small);
}

static void test_merge(void)
{
    PbTls__CertificateValidationContext base =
        PB_TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    PbTls__CertificateValidationContext over =
        PB_TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    PbCore__DataSource ca = PB_CORE__DATA_SOURCE__INIT;
    PbMatcher__StringMatcher san = PB_MATCHER__STRING_MATCHER__INIT, *sans[] = {&san};
    const PbTls__CertificateValidationContext *got;

    san.match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT;
    san.exact = "spiffe://td/ns/a/sa/b";
    base.n_match_subject_alt_names = 1;
    base.match_subject_alt_names = sans;
    base.only_verify_leaf_cert_crl = true;
    ca.specifier_case = PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING;
    ca.inline_string = "PEM";
    over.trusted_ca = &ca;
    over.n_match_subject_alt_names = 1;
    over.match_subject_alt_names = sans;
    got = hd_pb_merge(&base, &over, &arena);
    ok(got != NULL && got->trusted_ca != NULL && got->only_verify_leaf_cert_crl &&
           strcmp(got->trusted_ca->inline_string, "PEM") == 0,
       "set in either");
    is_int(got->n_match_subject_alt_names, 2, "lists are appended");
    ok(base.trusted_ca == NULL, "the parts stay as they were");
}

/* What is given more than once: protobuf's encoding guide, "last one wins". */
static void test_repeated(void)
{
    /* A struct's member "b" with two values, neither set: protobuf-c's own decoder fails
     * here. */
    static const uint8_t twice_unset[] = "\x0a\x07\x0a\x01"
                                         "b\x12\x00\x12\x00";
    /* name twice; circuit_breakers (10) twice with one thresholds (1) each; the second
     * adds per_host_thresholds (2). */
    static const uint8_t cluster[] = "\x0a\x01x\x0a\x01y"
                                     "\x52\x06\x0a\x04\x12\x02\x08\x07"
                                     "\x52\x06\x0a\x02\x08\x01\x12\x00";
    /* match's prefix, then its path; safe_regex {regex a}, path, safe_regex {} again. */
    static const uint8_t match[] = "\x0a\x01/\x12\x02/x";
    static const uint8_t regex[] = "\x52\x03\x12\x01"
                                   "a\x12\x01/\x52\x00";
    static const uint8_t regexes[] = "\x52\x03\x12\x01"
                                     "a\x52\x03\x12\x01"
                                     "b\x52\x00";
    static const uint8_t ports[] = "\x3a\x02\x01\x02\x38\x03\x3a\x00\x3a\x02\xac\x02";
    const Pb__Struct *s;
    const PbCluster__Cluster *c;
    const PbRoute__RouteMatch *m;
    const PbListener__FilterChainMatch *f;

    s = hd_pb_unpack(HD_PB(pb__struct), twice_unset, sizeof(twice_unset) - 1, &arena,
                     NULL);
    ok(s != NULL && s->n_fields == 1 && s->fields[0]->value->kind_case == 0,
       "a message twice, with a oneof that is unset both times");
    c = hd_pb_unpack(HD_PB(pb_cluster__cluster), cluster, sizeof(cluster) - 1, &arena,
                     NULL);
    ok(c != NULL && strcmp(c->name, "y") == 0, "the last scalar");
    ok(c != NULL && c->circuit_breakers->n_thresholds == 2 &&
           c->circuit_breakers->n_per_host_thresholds == 1 &&
           c->circuit_breakers->thresholds[0]->max_connections->value == 7 &&
           c->circuit_breakers->thresholds[1]->priority == 1,
       "messages merge, their lists are appended");
    m = hd_pb_unpack(HD_PB(pb_route__route_match), match, sizeof(match) - 1, &arena,
                     NULL);
    ok(m != NULL &&
           m->path_specifier_case == PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH &&
           strcmp(m->path, "/x") == 0,
       "the last of a oneof");
    m = hd_pb_unpack(HD_PB(pb_route__route_match), regex, sizeof(regex) - 1, &arena,
                     NULL);
    ok(m != NULL && strcmp(m->safe_regex->regex, "") == 0,
       "what another member of the oneof has replaced is not merged");
    m = hd_pb_unpack(HD_PB(pb_route__route_match), regexes, sizeof(regexes) - 1, &arena,
                     NULL);
    ok(m != NULL && strcmp(m->safe_regex->regex, "b") == 0, "the same member is");
    f = hd_pb_unpack(HD_PB(pb_listener__filter_chain_match), ports, sizeof(ports) - 1,
                     &arena, NULL);
    ok(f != NULL && f->n_source_ports == 4 && f->source_ports[1] == 2 &&
           f->source_ports[2] == 3 && f->source_ports[3] == 300,
       "a list packed, then not, then packed");
}

static void test_equal(void)
{
    PbRoute__Route a = PB_ROUTE__ROUTE__INIT, b = PB_ROUTE__ROUTE__INIT;
    PbRoute__Route__TypedPerFilterConfigEntry x =
        PB_ROUTE__ROUTE__TYPED_PER_FILTER_CONFIG_ENTRY__INIT;
    PbRoute__Route__TypedPerFilterConfigEntry y = x, *xy[] = {&x, &y}, *yx[] = {&y, &x};
    PbRoute__RouteMatch m = PB_ROUTE__ROUTE_MATCH__INIT, n = PB_ROUTE__ROUTE_MATCH__INIT;
    Pb__Any any = PB__ANY__INIT;
    PbRoute__Route *copy;

    x.key = "x";
    y.key = "y";
    x.value = y.value = &any;
    a.n_typed_per_filter_config = b.n_typed_per_filter_config = 2;
    a.typed_per_filter_config = xy;
    b.typed_per_filter_config = yx;
    ok(hd_pb_equal(&a, &b, &arena), "a map's order says nothing");
    b.name = "b";
    ok(!hd_pb_equal(&a, &b, &arena), "strings differ");
    b.name = "";
    a.match = &m;
    ok(!hd_pb_equal(&a, &b, &arena), "an empty message is not an unset one");
    b.match = &n;
    m.path_specifier_case = PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX;
    m.prefix = "";
    ok(!hd_pb_equal(&a, &b, &arena), "a oneof set to \"\" is not an unset one");
    n.path_specifier_case = PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH;
    n.path = "";
    ok(!hd_pb_equal(&a, &b, &arena), "nor another member of it");
    copy = hd_pb_clone(&a, &arena);
    ok(copy != NULL && copy->match != &m && hd_pb_equal(&a, copy, &arena),
       "a clone is equal");
    ok(!hd_pb_equal(&a, &m, &arena), "types differ");
}

static void test_maps(void)
{
    const ProtobufCFieldDescriptor *f;

    f = protobuf_c_message_descriptor_get_field_by_name(HD_PB(pb_route__route),
                                                        "typed_per_filter_config");
    ok(hd_pb_is_map(f), "typed_per_filter_config is a map");
    f = protobuf_c_message_descriptor_get_field_by_name(
        HD_PB(pb_common_ratelimit__rate_limit_descriptor), "entries");
    ok(!hd_pb_is_map(f), "entries of key and value are not");
}

typedef struct {
    char text[1024];
} paths_t;

static void on_place(void *arg, const hd_pb_place_t *at)
{
    paths_t *p = arg;
    size_t len = strlen(p->text);

    snprintf(p->text + len, sizeof(p->text) - len, "%s\n", at->path);
}

static void test_paths(void)
{
    /* Route: match {prefix, field 99}, a map entry whose Any holds a CidrRange with field
     * 50, field 100. */
    static const uint8_t cidr[] = "\x0a\x01:\x92\x03\x01z";
    PbRoute__Route__TypedPerFilterConfigEntry e =
        PB_ROUTE__ROUTE__TYPED_PER_FILTER_CONFIG_ENTRY__INIT;
    PbRoute__Route__TypedPerFilterConfigEntry *es[] = {&e};
    PbRoute__Route r = PB_ROUTE__ROUTE__INIT;
    PbRoute__RouteMatch m = PB_ROUTE__ROUTE_MATCH__INIT;
    Pb__Any any = PB__ANY__INIT;
    uint8_t nothing[] = "\x01";
    ProtobufCMessageUnknownField in_match = {99, PROTOBUF_C_WIRE_TYPE_VARINT, 1, nothing};
    ProtobufCMessageUnknownField in_route = {100, PROTOBUF_C_WIRE_TYPE_VARINT, 1,
                                             nothing};
    paths_t paths = {0};

    any.type_url = "type.googleapis.com/envoy.config.core.v3.CidrRange";
    any.value = (ProtobufCBinaryData){sizeof(cidr) - 1, (uint8_t *)cidr};
    e.key = "filter";
    e.value = &any;
    r.n_typed_per_filter_config = 1;
    r.typed_per_filter_config = es;
    r.match = &m;
    m.path_specifier_case = PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX;
    m.prefix = "";
    m.base.n_unknown_fields = r.base.n_unknown_fields = 1;
    m.base.unknown_fields = &in_match;
    r.base.unknown_fields = &in_route;

    is_int(hd_pb_walk(&r, 1 << 20, on_place, &paths), HD_PB_OK, "walked");
    is_str(paths.text,
           "envoy.config.route.v3.Route.#100\n"
           "envoy.config.route.v3.Route.match\n"
           "envoy.config.route.v3.Route.match.#99\n"
           "envoy.config.route.v3.Route.match.prefix\n"
           "envoy.config.route.v3.Route.typed_per_filter_config\n"
           "envoy.config.core.v3.CidrRange.#50\n"
           "envoy.config.core.v3.CidrRange.address_prefix\n",
           "every field by its path, an Any's content by its type");
    paths.text[0] = '\0';
    is_int(hd_pb_unknown_fields(&r, 1 << 20, on_place, &paths), HD_PB_OK,
           "unknown fields");
    is_str(paths.text,
           "envoy.config.route.v3.Route.#100\n"
           "envoy.config.route.v3.Route.match.#99\n"
           "envoy.config.core.v3.CidrRange.#50\n",
           "only those");
    any.value.len--;
    is_int(hd_pb_walk(&r, 1 << 20, on_place, &paths), HD_PB_MALFORMED,
           "a broken Any ends it");
    any.value.len++;
    is_int(hd_pb_walk(&r, 32, on_place, &paths), HD_PB_TOO_BIG, "so does the ceiling");
}

/* Encoded as another type than ours: kept and named, as unknown. */
static void test_other_wire_type(void)
{
    static const uint8_t bytes[] = "\x08\x07\x52\x00\x50\x01";
    const PbCluster__Cluster *c =
        hd_pb_unpack(HD_PB(pb_cluster__cluster), bytes, sizeof(bytes) - 1, &arena, NULL);
    ProtobufCBinaryData again;
    paths_t paths = {0};

    ok(c != NULL && strcmp(c->name, "") == 0 && c->circuit_breakers != NULL, "decoded");
    is_int(hd_pb_unknown_fields(c, 1 << 20, on_place, &paths), HD_PB_OK,
           "unknown fields");
    is_str(paths.text,
           "envoy.config.cluster.v3.Cluster.#1\nenvoy.config.cluster.v3.Cluster.#10\n",
           "a number for the name and for circuit_breakers");
    ok(hd_pb_pack(c, &arena, &again) && again.len == sizeof(bytes) - 1, "and not lost");
}

/* Anys within Anys, each a TypedExtensionConfig around the one before. */
static void test_any_depth(void)
{
    PbCore__TypedExtensionConfig c = PB_CORE__TYPED_EXTENSION_CONFIG__INIT;
    paths_t paths = {0};
    Pb__Any *any = hd_pb_pack_any(&c, &arena);

    for (int i = 1; i < HD_PB_ANYS_MAX; i++) {
        c.typed_config = any;
        any = hd_pb_pack_any(&c, &arena);
    }
    is_int(hd_pb_walk(any, 1 << 20, on_place, &paths), HD_PB_OK,
           "as many as are allowed");
    c.typed_config = any;
    any = hd_pb_pack_any(&c, &arena);
    is_int(hd_pb_walk(any, 1 << 20, on_place, &paths), HD_PB_TOO_DEEP, "one more");
}

static void test_values(void)
{
    static const struct {
        int64_t seconds;
        int32_t nanos;
        bool is_sound;
        int64_t ns, ms;
    } rows[] = {
        {0, 0, true, 0, 0},
        {1, 500000000, true, 1500000000, 1500},
        {0, 1, true, 1, 1},
        {0, -1, true, -1, -1},
        {-1, -500000000, true, -1500000000, -1500},
        {315576000000, 0, true, INT64_MAX, 315576000000000},
        {-315576000000, 0, true, INT64_MIN, -315576000000000},
        {315576000001, 0, false, 0, 0},
        {1, -1, false, 0, 0},
        {-1, 1, false, 0, 0},
        {0, 1000000000, false, 0, 0},
        {INT64_MIN, INT32_MIN, false, 0, 0},
    };
    Pb__UInt32Value seven = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__uint32_value)), 7};
    PbType__FractionalPercent f = PB_TYPE__FRACTIONAL_PERCENT__INIT;
    int64_t ns = 0, ms = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        Pb__Duration d = {PROTOBUF_C_MESSAGE_INIT(HD_PB(pb__duration)), rows[i].seconds,
                          rows[i].nanos};
        bool is_sound = hd_pb_duration_ns(&d, -1, &ns);

        ok(is_sound == rows[i].is_sound && hd_pb_duration_ms(&d, -1, &ms) == is_sound &&
               (!is_sound || (ns == rows[i].ns && ms == rows[i].ms)),
           "duration %" PRId64 " s %" PRId32 " ns", rows[i].seconds, rows[i].nanos);
    }
    ok(hd_pb_duration_ns(NULL, 42, &ns) && ns == 42, "no duration");
    ok(hd_pb_u32(&seven, 9) == 7 && hd_pb_u32(NULL, 9) == 9, "wrappers");
    f.numerator = 50;
    is_int(hd_pb_fraction_ppm(&f, 0), 500000, "50 in a hundred");
    f.denominator = PB_TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__TEN_THOUSAND;
    is_int(hd_pb_fraction_ppm(&f, 0), 5000, "50 in ten thousand");
    f.numerator = UINT32_MAX;
    is_int(hd_pb_fraction_ppm(&f, 0), 1000000, "more than all is all");
    is_int(hd_pb_fraction_ppm(NULL, 3), 3, "no fraction");
}

static void test_structs(void)
{
    static const uint8_t bytes[] = "\x0a\x07\x0a\x01k\x12\x02\x20\x01"  /* k: true */
                                   "\x0a\x08\x0a\x01k\x12\x03\x1a\x01v" /* k: "v" */
                                   "\x0a\x03\x0a\x01n"; /* n, without a value */
    const Pb__Struct *s =
        hd_pb_unpack(HD_PB(pb__struct), bytes, sizeof(bytes) - 1, &arena, &fault);

    ok(s != NULL && s->n_fields == 3, "decoded");
    is_str(hd_pb_struct_text(s, "k", "?"), "v", "of one name the last counts");
    is_str(hd_pb_struct_text(s, "n", "?"), "?", "a member without value");
    is_str(hd_pb_struct_text(s, "x", "?"), "?", "no such member");
    is_str(hd_pb_struct_text(NULL, "x", "?"), "?", "no struct");
}

int main(void)
{
    hd_pb_arena_init(&arena, 16 << 20);
    test_arena();
    test_any();
    test_merge();
    test_repeated();
    test_equal();
    test_maps();
    test_paths();
    test_other_wire_type();
    test_any_depth();
    test_values();
    test_structs();
    hd_pb_arena_deinit(&arena);
    return done_testing();
}
