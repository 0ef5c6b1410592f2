#include "control/hd_translate_int.h"

void *hd_tr_message(hd_tr_t *t, const ProtobufCMessageDescriptor *type)
{
    void *msg = hd_pool_calloc(t->pool, type->sizeof_message);

    protobuf_c_message_init(type, msg);
    return msg;
}

/* Room doubles at 4, 8, 16 …: the pool keeps the old ones, which is at most as much
 * again. */
void *hd_tr_grow(hd_tr_t *t, void *items, size_t n, size_t item_bytes)
{
    void *more;

    if (n == 0)
        return hd_pool_calloc(t->pool, 4 * item_bytes);
    if (n < 4 || (n & (n - 1)) != 0)
        return items;
    more = hd_pool_calloc(t->pool, 2 * n * item_bytes);
    memcpy(more, items, n * item_bytes);
    return more;
}

char *hd_tr_text(hd_tr_t *t, hd_str_t s)
{
    return hd_str_to_c(t->pool, s);
}

char *hd_tr_printf(hd_tr_t *t, const char *fmt, ...)
{
    va_list args;
    hd_str_t s;

    va_start(args, fmt);
    s = hd_str_vprintf(t->pool, fmt, args);
    va_end(args);
    return (char *)(uintptr_t)s.data;
}

Pb__Any *hd_tr_any(hd_tr_t *t, const void *msg)
{
    Pb__Any *any = hd_pb_pack_any(msg, &t->pb);

    hd_bug_on(any == NULL); /* the arena has no ceiling that a model could reach */
    return any;
}

Pb__BoolValue *hd_tr_bool(hd_tr_t *t, bool value)
{
    Pb__BoolValue *v = HD_TR_NEW(t, Pb__BoolValue, pb__bool_value);

    v->value = value;
    return v;
}

Pb__UInt32Value *hd_tr_u32(hd_tr_t *t, int64_t value)
{
    Pb__UInt32Value *v = HD_TR_NEW(t, Pb__UInt32Value, pb__uint32_value);

    v->value = (uint32_t)value;
    return v;
}

Pb__Duration *hd_tr_duration(hd_tr_t *t, int64_t ns)
{
    Pb__Duration *d = HD_TR_NEW(t, Pb__Duration, pb__duration);

    d->seconds = ns / 1000000000;
    d->nanos = (int32_t)(ns % 1000000000);
    return d;
}

PbType__FractionalPercent *hd_tr_ppm(hd_tr_t *t, int64_t ppm)
{
    PbType__FractionalPercent *p =
        HD_TR_NEW(t, PbType__FractionalPercent, pb_type__fractional_percent);

    p->numerator = (uint32_t)ppm;
    p->denominator = PB_TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__MILLION;
    return p;
}

Pb__Struct *hd_tr_struct(hd_tr_t *t)
{
    return HD_TR_NEW(t, Pb__Struct, pb__struct);
}

void hd_tr_struct_value(hd_tr_t *t, Pb__Struct *s, const char *key, Pb__Value *value)
{
    Pb__Struct__FieldsEntry *e =
        HD_TR_NEW(t, Pb__Struct__FieldsEntry, pb__struct__fields_entry);

    e->key = (char *)(uintptr_t)key;
    e->value = value;
    HD_TR_ADD(t, s, fields, e);
}

void hd_tr_struct_text(hd_tr_t *t, Pb__Struct *s, const char *key, const char *text)
{
    Pb__Value *v = HD_TR_NEW(t, Pb__Value, pb__value);

    v->kind_case = PB__VALUE__KIND_STRING_VALUE;
    v->string_value = (char *)(uintptr_t)text;
    hd_tr_struct_value(t, s, key, v);
}

Pb__Value *hd_tr_value_struct(hd_tr_t *t, Pb__Struct *s)
{
    Pb__Value *v = HD_TR_NEW(t, Pb__Value, pb__value);

    v->kind_case = PB__VALUE__KIND_STRUCT_VALUE;
    v->struct_value = s;
    return v;
}

Pb__Value *hd_tr_value_list(hd_tr_t *t, Pb__Value **items, size_t n)
{
    Pb__Value *v = HD_TR_NEW(t, Pb__Value, pb__value);

    v->kind_case = PB__VALUE__KIND_LIST_VALUE;
    v->list_value = HD_TR_NEW(t, Pb__ListValue, pb__list_value);
    v->list_value->values = items;
    v->list_value->n_values = n;
    return v;
}

void hd_tr_metadata(hd_tr_t *t, PbCore__Metadata **metadata, const char *filter,
                    Pb__Struct *s)
{
    PbCore__Metadata__FilterMetadataEntry *e =
        HD_TR_NEW(t, PbCore__Metadata__FilterMetadataEntry,
                  pb_core__metadata__filter_metadata_entry);

    if (*metadata == NULL)
        *metadata = HD_TR_NEW(t, PbCore__Metadata, pb_core__metadata);
    e->key = (char *)(uintptr_t)filter;
    e->value = s;
    HD_TR_ADD(t, *metadata, filter_metadata, e);
}

PbCore__Address *hd_tr_address(hd_tr_t *t, hd_str_t ip, int64_t port)
{
    PbCore__Address *a = HD_TR_NEW(t, PbCore__Address, pb_core__address);
    PbCore__SocketAddress *s =
        HD_TR_NEW(t, PbCore__SocketAddress, pb_core__socket_address);

    s->address = hd_tr_text(t, ip);
    s->port_specifier_case = PB_CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
    s->port_value = (uint32_t)port;
    a->address_case = PB_CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS;
    a->socket_address = s;
    return a;
}

/* initial_fetch_timeout 0: waited for as long as it takes, as istiod has it. */
PbCore__ConfigSource *hd_tr_ads(hd_tr_t *t)
{
    PbCore__ConfigSource *s = HD_TR_NEW(t, PbCore__ConfigSource, pb_core__config_source);

    s->config_source_specifier_case = PB_CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS;
    s->ads =
        HD_TR_NEW(t, PbCore__AggregatedConfigSource, pb_core__aggregated_config_source);
    s->initial_fetch_timeout = hd_tr_duration(t, 0);
    s->resource_api_version = PB_CORE__API_VERSION__V3;
    return s;
}

PbMatcher__StringMatcher *hd_tr_exact(hd_tr_t *t, const char *text)
{
    PbMatcher__StringMatcher *m =
        HD_TR_NEW(t, PbMatcher__StringMatcher, pb_matcher__string_matcher);

    m->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT;
    m->exact = (char *)(uintptr_t)text;
    return m;
}

PbMatcher__StringMatcher *hd_tr_prefix(hd_tr_t *t, const char *text)
{
    PbMatcher__StringMatcher *m =
        HD_TR_NEW(t, PbMatcher__StringMatcher, pb_matcher__string_matcher);

    m->match_pattern_case = PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_PREFIX;
    m->prefix = (char *)(uintptr_t)text;
    return m;
}

PbMatcher__RegexMatcher *hd_tr_regex(hd_tr_t *t, const char *regex)
{
    PbMatcher__RegexMatcher *m =
        HD_TR_NEW(t, PbMatcher__RegexMatcher, pb_matcher__regex_matcher);

    m->regex = (char *)(uintptr_t)regex;
    return m;
}

PbCore__TransportSocket *hd_tr_socket(hd_tr_t *t, const char *name, const void *context)
{
    PbCore__TransportSocket *s =
        HD_TR_NEW(t, PbCore__TransportSocket, pb_core__transport_socket);

    s->name = (char *)(uintptr_t)name;
    s->config_type_case = PB_CORE__TRANSPORT_SOCKET__CONFIG_TYPE_TYPED_CONFIG;
    s->typed_config = hd_tr_any(t, context);
    return s;
}

void hd_tr_put(hd_tr_t *t, hd_view_kind_t kind, const char *name, const void *msg)
{
    ProtobufCBinaryData bytes;

    hd_bug_on(!hd_pb_pack(msg, &t->pb, &bytes));
    t->stats->resources++;
    hd_part_give(t->part, hd_xres_share(t->shelf, kind, hd_str_c(name),
                                        hd_str_n((const char *)bytes.data, bytes.len)));
}
