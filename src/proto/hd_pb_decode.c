/* The unpacker, behind the scan: what it is given is sound, so that only memory can fail
 * it.
 *
 * Not protobuf-c's: that one fails on, or wrongly merges, a message field that is given
 * twice (1.4.1: always when a oneof in it is unset both times), though an encoding may be
 * put together so (protobuf's "last one wins, messages merge"), and takes scratch memory
 * for every field.
 *
 * Two passes over a message: the first counts the elements of its lists, the second fills
 * them. */
#include "hd_pb_wire_int.h"
#include <string.h>

typedef struct {
    const ProtobufCFieldDescriptor *field; /* NULL: unknown */
    uint32_t number;
    unsigned wire_type;
    hd_pb_span_t value; /* of a length-delimited one: what is in it */
} item_t;

static item_t take_item(const ProtobufCMessageDescriptor *type, hd_pb_span_t *in)
{
    uint64_t tag = 0, n = 0;
    item_t item;

    hd_pb_take_varint(in, HD_PB_TAG_MAX, &tag);
    item.number = (uint32_t)tag >> 3;
    item.wire_type = tag & 7;
    item.field = hd_pb_find_field(type, item.number, item.wire_type);
    if (item.wire_type == HD_PB_LENGTH)
        hd_pb_take_varint(in, HD_PB_TAG_MAX, &n);
    item.value.at = in->at;
    switch (item.wire_type) {
    case HD_PB_VARINT:
        hd_pb_take_varint(in, HD_PB_VARINT_MAX, &n);
        break;
    case HD_PB_FIXED64:
        in->at += 8;
        break;
    case HD_PB_FIXED32:
        in->at += 4;
        break;
    default:
        in->at += n;
    }
    item.value.end = in->at;
    return item;
}

static bool is_packed(const item_t *item)
{
    return item->wire_type == HD_PB_LENGTH &&
           hd_pb_wire_type(item->field->type) != HD_PB_LENGTH;
}

static size_t count_packed(const item_t *item)
{
    size_t len = (size_t)(item->value.end - item->value.at), n = 0;

    switch (hd_pb_wire_type(item->field->type)) {
    case HD_PB_FIXED64:
        return len / 8;
    case HD_PB_FIXED32:
        return len / 4;
    default:
        for (const uint8_t *p = item->value.at; p < item->value.end; p++)
            n += *p < 0x80; /* the last byte of each */
        return n;
    }
}

static void *member(ProtobufCMessage *msg, size_t offset)
{
    return (char *)msg + offset;
}

static int64_t undo_zigzag(uint64_t v)
{
    return (int64_t)(v >> 1 ^ -(v & 1));
}

/* Takes one number from <in> and lays it down at <to>. */
static void put_number(ProtobufCType type, hd_pb_span_t *in, void *to)
{
    uint64_t v = 0;

    switch (hd_pb_wire_type(type)) {
    case HD_PB_FIXED64:
    case HD_PB_FIXED32:
        for (size_t i = 0; i < hd_pb_size_of(type); i++)
            v |= (uint64_t)*in->at++ << (8 * i);
        break;
    default:
        hd_pb_take_varint(in, HD_PB_VARINT_MAX, &v);
    }
    if (type == PROTOBUF_C_TYPE_SINT32 || type == PROTOBUF_C_TYPE_SINT64)
        v = (uint64_t)undo_zigzag(type == PROTOBUF_C_TYPE_SINT32 ? (uint32_t)v : v);
    if (type == PROTOBUF_C_TYPE_BOOL)
        v = v != 0;
    if (hd_pb_size_of(type) == 8)
        memcpy(to, &v, 8);
    else
        memcpy(to, &(uint32_t){(uint32_t)v},
               4); /* of a longer number the low bits count */
}

static bool put_text(hd_pb_span_t in, void *to, hd_pb_arena_t *arena)
{
    size_t len = (size_t)(in.end - in.at);
    char *text = hd_pb_arena_alloc_bytes(arena, len + 1);

    if (text == NULL)
        return false;
    memcpy(text, in.at, len);
    text[len] = '\0';
    *(char **)to = text;
    return true;
}

static bool put_bytes(hd_pb_span_t in, ProtobufCBinaryData *to, hd_pb_arena_t *arena)
{
    *to = (ProtobufCBinaryData){.len = (size_t)(in.end - in.at)};
    if (to->len == 0)
        return true;
    to->data = hd_pb_arena_alloc_bytes(arena, to->len);
    if (to->data == NULL)
        return false;
    memcpy(to->data, in.at, to->len);
    return true;
}

static bool decode_into(ProtobufCMessage *msg, hd_pb_span_t in, hd_pb_arena_t *arena);

static ProtobufCMessage *make_message(const ProtobufCMessageDescriptor *type,
                                      hd_pb_arena_t *arena)
{
    ProtobufCMessage *msg = hd_pb_arena_alloc(arena, type->sizeof_message);

    if (msg != NULL)
        protobuf_c_message_init(type, msg);
    return msg;
}

/* <is_set>: there is a message at <to> already, and this one is merged into it. */
static bool put_message(const ProtobufCMessageDescriptor *type, hd_pb_span_t in,
                        ProtobufCMessage **to, bool is_set, hd_pb_arena_t *arena)
{
    if (!is_set)
        *to = make_message(type, arena);
    return *to != NULL && decode_into(*to, in, arena);
}

static bool put_value(const item_t *item, void *to, bool is_set, hd_pb_arena_t *arena)
{
    hd_pb_span_t value = item->value;

    switch (item->field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return put_text(value, to, arena);
    case PROTOBUF_C_TYPE_BYTES:
        return put_bytes(value, to, arena);
    case PROTOBUF_C_TYPE_MESSAGE:
        return put_message(item->field->descriptor, value, to, is_set, arena);
    default:
        put_number(item->field->type, &value, to);
        return true;
    }
}

/* Appends to a list, which has room. */
static bool put_element(ProtobufCMessage *msg, const item_t *item, hd_pb_arena_t *arena)
{
    size_t *n = member(msg, item->field->quantifier_offset);
    char *list = *(char **)member(msg, item->field->offset);
    size_t size = hd_pb_size_of(item->field->type);
    hd_pb_span_t value = item->value;

    if (!is_packed(item))
        return put_value(item, list + (*n)++ * size, false, arena);
    while (value.at < value.end)
        put_number(item->field->type, &value, list + (*n)++ * size);
    return true;
}

static bool put_single(ProtobufCMessage *msg, const item_t *item, hd_pb_arena_t *arena)
{
    const ProtobufCFieldDescriptor *field = item->field;
    void *to = member(msg, field->offset);
    bool is_set = field->type == PROTOBUF_C_TYPE_MESSAGE;

    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t *which = member(msg, field->quantifier_offset);

        is_set = is_set && *which == field->id; /* another member's value is forgotten */
        *which = field->id;
    } else if (field->label == PROTOBUF_C_LABEL_OPTIONAL &&
               hd_pb_wire_type(field->type) != HD_PB_LENGTH) {
        *(protobuf_c_boolean *)member(msg, field->quantifier_offset) = true;
    }
    return put_value(item, to, is_set && *(void **)to != NULL, arena);
}

static bool put_unknown(ProtobufCMessage *msg, const item_t *item, const uint8_t *start,
                        hd_pb_arena_t *arena)
{
    ProtobufCMessageUnknownField *unknown = &msg->unknown_fields[msg->n_unknown_fields++];
    hd_pb_span_t in = {start, item->value.end};
    uint64_t tag;

    hd_pb_take_varint(&in, HD_PB_TAG_MAX, &tag); /* protobuf-c keeps it without the tag */
    *unknown = (ProtobufCMessageUnknownField){
        .tag = item->number,
        .wire_type = (ProtobufCWireType)item->wire_type,
        .len = (size_t)(in.end - in.at),
    };
    unknown->data = hd_pb_arena_alloc_bytes(arena, unknown->len);
    if (unknown->data == NULL)
        return false;
    memcpy(unknown->data, in.at, unknown->len);
    return true;
}

/* An array of <n> more elements than <old_n>, these copied; <old> itself if there are
 * none. */
static bool extend(void *array, size_t old_n, size_t n, size_t size, hd_pb_arena_t *arena)
{
    void *old = *(void **)array, *extended;

    if (n == 0)
        return true;
    extended =
        hd_pb_arena_alloc(arena, (old_n + n) * size); /* n is bounded by the bytes */
    if (extended == NULL)
        return false;
    if (old_n > 0)
        memcpy(extended, old, old_n * size);
    *(void **)array = extended;
    return true;
}

/* Makes room in the lists of <msg> for what <in> brings. */
static bool make_room(ProtobufCMessage *msg, hd_pb_span_t in, hd_pb_arena_t *arena)
{
    const ProtobufCMessageDescriptor *type = msg->descriptor;
    size_t more_n[type->n_fields + 1]; /* by field; the last: unknown ones */

    memset(more_n, 0, sizeof(more_n));
    while (in.at < in.end) {
        item_t item = take_item(type, &in);

        if (item.field == NULL)
            more_n[type->n_fields]++;
        else if (item.field->label == PROTOBUF_C_LABEL_REPEATED)
            more_n[item.field - type->fields] +=
                is_packed(&item) ? count_packed(&item) : 1;
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];

        if (more_n[i] > 0 && !extend(member(msg, field->offset),
                                     *(size_t *)member(msg, field->quantifier_offset),
                                     more_n[i], hd_pb_size_of(field->type), arena))
            return false;
    }
    return extend(&msg->unknown_fields, msg->n_unknown_fields, more_n[type->n_fields],
                  sizeof(*msg->unknown_fields), arena);
}

static bool decode_into(ProtobufCMessage *msg, hd_pb_span_t in, hd_pb_arena_t *arena)
{
    if (!make_room(msg, in, arena))
        return false;
    while (in.at < in.end) {
        const uint8_t *start = in.at;
        item_t item = take_item(msg->descriptor, &in);
        bool is_done = item.field == NULL ? put_unknown(msg, &item, start, arena)
                       : item.field->label == PROTOBUF_C_LABEL_REPEATED
                           ? put_element(msg, &item, arena)
                           : put_single(msg, &item, arena);

        if (!is_done)
            return false;
    }
    return true;
}

ProtobufCMessage *hd_pb_decode(const ProtobufCMessageDescriptor *type, hd_pb_span_t in,
                               hd_pb_arena_t *arena)
{
    ProtobufCMessage *msg = make_message(type, arena);

    return msg != NULL && decode_into(msg, in, arena) ? msg : NULL;
}
