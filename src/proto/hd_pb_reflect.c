#include "hd_pb_reflect.h"
#include <stdlib.h>
#include <string.h>
#include "hd_pb_wire_int.h"

/* ---- fields */

static const void *member(const void *msg, size_t offset)
{
    return (const char *)msg + offset;
}

static bool is_zero(ProtobufCType type, const void *value)
{
    static const char zeros[8];

    switch (type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(const char *const *)value;
        return s == NULL || *s == '\0';
    }
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)value)->len == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(const void *const *)value == NULL;
    default: /* -0.0 is not zero: its bits would be lost */
        return memcmp(value, zeros, hd_pb_size_of(type)) == 0;
    }
}

size_t hd_pb_count(const void *msg, const ProtobufCFieldDescriptor *field)
{
    const void *value = member(msg, field->offset);

    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)member(msg, field->quantifier_offset);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (*(const uint32_t *)member(msg, field->quantifier_offset) != field->id)
            return 0;
        return field->type != PROTOBUF_C_TYPE_MESSAGE || !is_zero(field->type, value);
    }
    return !is_zero(field->type, value);
}

const void *hd_pb_at(const void *msg, const ProtobufCFieldDescriptor *field, size_t i)
{
    const void *value = member(msg, field->offset);

    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const char *const *)value + i * hd_pb_size_of(field->type);
    return value;
}

const ProtobufCMessage *hd_pb_message_at(const void *msg,
                                         const ProtobufCFieldDescriptor *field, size_t i)
{
    return *(const ProtobufCMessage *const *)hd_pb_at(msg, field, i);
}

/* ---- maps */

/* protoc-c keeps no mark of a map, but protoc names its entry type after the field:
 * filter_metadata has FilterMetadataEntry. */
bool hd_pb_is_map(const ProtobufCFieldDescriptor *field)
{
    const ProtobufCMessageDescriptor *type = field->descriptor;

    if (field->label != PROTOBUF_C_LABEL_REPEATED ||
        field->type != PROTOBUF_C_TYPE_MESSAGE || type->n_fields != 2 ||
        type->fields[0].id != 1 || type->fields[1].id != 2 ||
        strcmp(type->fields[0].name, "key") != 0 ||
        strcmp(type->fields[1].name, "value") != 0)
        return false;

    const char *have = type->short_name;
    bool is_upper = true;

    for (const char *c = field->name; *c != '\0'; c++) {
        if (*c == '_') {
            is_upper = true;
            continue;
        }
        if (*have++ != (is_upper && *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c))
            return false;
        is_upper = false;
    }
    return strcmp(have, "Entry") == 0;
}

typedef struct {
    const ProtobufCMessage *entry;
    size_t at; /* in the list: the later entry of a key wins */
} keyed_t;

static int compare_keys(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    const ProtobufCFieldDescriptor *key = &a->descriptor->fields[0];
    const void *x = member(a, key->offset), *y = member(b, key->offset);

    switch (key->type) {
    case PROTOBUF_C_TYPE_STRING:
        return strcmp(*(const char *const *)x, *(const char *const *)y);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return (*(const int32_t *)x > *(const int32_t *)y) -
               (*(const int32_t *)x < *(const int32_t *)y);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return (*(const int64_t *)x > *(const int64_t *)y) -
               (*(const int64_t *)x < *(const int64_t *)y);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return (*(const uint64_t *)x > *(const uint64_t *)y) -
               (*(const uint64_t *)x < *(const uint64_t *)y);
    default: /* uint32, fixed32, bool */
        return (*(const uint32_t *)x > *(const uint32_t *)y) -
               (*(const uint32_t *)x < *(const uint32_t *)y);
    }
}

static int compare_keyed(const void *a, const void *b)
{
    const keyed_t *x = a, *y = b;
    int c = compare_keys(x->entry, y->entry);

    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

const ProtobufCMessage **hd_pb_map_entries(const void *msg,
                                           const ProtobufCFieldDescriptor *field,
                                           hd_pb_arena_t *arena, size_t *n)
{
    size_t listed_n = hd_pb_count(msg, field);
    keyed_t *keyed = hd_pb_arena_alloc(arena, listed_n * sizeof(*keyed));
    const ProtobufCMessage **entries =
        hd_pb_arena_alloc(arena, listed_n * sizeof(*entries));

    if (keyed == NULL || entries == NULL)
        return NULL;
    for (size_t i = 0; i < listed_n; i++)
        keyed[i] = (keyed_t){hd_pb_message_at(msg, field, i), i};
    qsort(keyed, listed_n, sizeof(*keyed), compare_keyed);
    *n = 0;
    for (size_t i = 0; i < listed_n; i++) {
        if (i + 1 == listed_n || compare_keys(keyed[i].entry, keyed[i + 1].entry) != 0)
            entries[(*n)++] = keyed[i].entry;
    }
    return entries;
}

/* ---- equality */

static bool are_equal(const ProtobufCMessage *a, const ProtobufCMessage *b,
                      hd_pb_arena_t *scratch);

static bool are_equal_values(const ProtobufCFieldDescriptor *field, const void *a,
                             const void *b, hd_pb_arena_t *scratch)
{
    const ProtobufCBinaryData *x = a, *y = b;

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return strcmp(*(const char *const *)a, *(const char *const *)b) == 0;
    case PROTOBUF_C_TYPE_BYTES:
        return x->len == y->len && (x->len == 0 || memcmp(x->data, y->data, x->len) == 0);
    case PROTOBUF_C_TYPE_MESSAGE:
        return are_equal(*(const ProtobufCMessage *const *)a,
                         *(const ProtobufCMessage *const *)b, scratch);
    default:
        return memcmp(a, b, hd_pb_size_of(field->type)) == 0;
    }
}

static bool are_equal_fields(const ProtobufCMessage *a, const ProtobufCMessage *b,
                             const ProtobufCFieldDescriptor *field,
                             hd_pb_arena_t *scratch)
{
    size_t n = hd_pb_count(a, field), b_n = hd_pb_count(b, field);

    if (hd_pb_is_map(field)) {
        const ProtobufCMessage **x = hd_pb_map_entries(a, field, scratch, &n);
        const ProtobufCMessage **y = hd_pb_map_entries(b, field, scratch, &b_n);

        if (x == NULL || y == NULL || n != b_n)
            return false;
        for (size_t i = 0; i < n; i++) {
            if (!are_equal(x[i], y[i], scratch))
                return false;
        }
        return true;
    }
    if (n != b_n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!are_equal_values(field, hd_pb_at(a, field, i), hd_pb_at(b, field, i),
                              scratch))
            return false;
    }
    return true;
}

static bool are_equal_unknown(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    if (a->n_unknown_fields != b->n_unknown_fields)
        return false;
    for (unsigned i = 0; i < a->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *x = &a->unknown_fields[i];
        const ProtobufCMessageUnknownField *y = &b->unknown_fields[i];

        if (x->tag != y->tag || x->wire_type != y->wire_type || x->len != y->len ||
            memcmp(x->data, y->data, x->len) != 0)
            return false;
    }
    return true;
}

static bool are_equal(const ProtobufCMessage *a, const ProtobufCMessage *b,
                      hd_pb_arena_t *scratch)
{
    if (a->descriptor != b->descriptor || !are_equal_unknown(a, b))
        return false;
    for (unsigned i = 0; i < a->descriptor->n_fields; i++) {
        if (!are_equal_fields(a, b, &a->descriptor->fields[i], scratch))
            return false;
    }
    return true;
}

bool hd_pb_equal(const void *a, const void *b, hd_pb_arena_t *scratch)
{
    return are_equal(a, b, scratch);
}
