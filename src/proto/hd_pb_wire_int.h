/* hd_pb_wire_int: the wire format's elements, for the scan and the unpacker. */
#pragma once
#include "hd_pb.h"

/* Bytes that are still to be read. */
typedef struct {
    const uint8_t *at, *end;
} hd_pb_span_t;

enum { HD_PB_VARINT = 0, HD_PB_FIXED64 = 1, HD_PB_LENGTH = 2, HD_PB_FIXED32 = 5 };

#define HD_PB_TAG_MAX 5     /* bytes of a tag or length: 32 bits */
#define HD_PB_VARINT_MAX 10 /* bytes of 64 bits */

/* False: it runs past the end, has more than <bytes_max> bytes or more than 64 bits. */
static inline bool hd_pb_take_varint(hd_pb_span_t *in, size_t bytes_max, uint64_t *value)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes_max && in->at < in->end; i++) {
        uint8_t b = *in->at++;

        if (i == HD_PB_VARINT_MAX - 1 && b > 1)
            return false;
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (b < 0x80) {
            *value = v;
            return true;
        }
    }
    return false;
}

/* How a single value of this type is encoded. */
static inline unsigned hd_pb_wire_type(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return HD_PB_LENGTH;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return HD_PB_FIXED64;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return HD_PB_FIXED32;
    default:
        return HD_PB_VARINT;
    }
}

/* The field of this number; NULL: unknown. So is a known one that is encoded as another
 * type than we have for it: upstream's parsers do the same. Numbers of a list may be
 * packed. */
static inline const ProtobufCFieldDescriptor *
hd_pb_find_field(const ProtobufCMessageDescriptor *type, uint32_t number,
                 unsigned wire_type)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(type, number);

    if (field == NULL || wire_type == hd_pb_wire_type(field->type) ||
        (wire_type == HD_PB_LENGTH && field->label == PROTOBUF_C_LABEL_REPEATED))
        return field;
    return NULL;
}

/* Bytes of one value in a generated struct. */
static inline size_t hd_pb_size_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default: /* 32 bits, bool and enum */
        return 4;
    }
}

/* Bytes without alignment, for text; NULL beyond the ceiling. */
void *hd_pb_arena_alloc_bytes(hd_pb_arena_t *arena, size_t len) HD_PB_MUST_CHECK;

/* Decodes what has passed hd_pb_scan; NULL: no room. */
ProtobufCMessage *hd_pb_decode(const ProtobufCMessageDescriptor *type, hd_pb_span_t in,
                               hd_pb_arena_t *arena) HD_PB_MUST_CHECK;
