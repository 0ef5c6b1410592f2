#include "hd_pb.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hd_pb_wire_int.h"

#define TYPE_URL_PREFIX "type.googleapis.com/"

/* ---- arenas */

typedef struct chunk_s {
    struct chunk_s *older;
    size_t len; /* this head included */
} chunk_t;

#define ALIGN 16
#define CHUNK_HEAD ((sizeof(chunk_t) + ALIGN - 1) & ~(size_t)(ALIGN - 1))
#define CHUNK_MIN 4096
#define CHUNK_MAX (256 * 1024)

void hd_pb_arena_init(hd_pb_arena_t *arena, size_t max_bytes)
{
    *arena = (hd_pb_arena_t){.max_bytes = max_bytes};
}

void hd_pb_arena_deinit(hd_pb_arena_t *arena)
{
    for (chunk_t *c = arena->_chunks, *older; c != NULL; c = older) {
        older = c->older;
        free(c);
    }
    hd_pb_arena_init(arena, arena->max_bytes);
}

/* Chunks double, so that an arena of any size has few of them, but never pass the
 * ceiling. */
static bool add_chunk(hd_pb_arena_t *arena, size_t len)
{
    size_t left = arena->max_bytes - arena->used_bytes;
    size_t want = arena->used_bytes < CHUNK_MIN   ? CHUNK_MIN
                  : arena->used_bytes > CHUNK_MAX ? CHUNK_MAX
                                                  : arena->used_bytes;

    if (left < CHUNK_HEAD || len > left - CHUNK_HEAD)
        return false;
    if (want < len + CHUNK_HEAD)
        want = len + CHUNK_HEAD;
    if (want > left)
        want = left;

    chunk_t *c = malloc(want);

    if (c == NULL)
        return false;
    *c = (chunk_t){.older = arena->_chunks, .len = want};
    arena->_chunks = c;
    arena->used_bytes += want;
    arena->_next = (char *)c + CHUNK_HEAD;
    arena->_end = (char *)c + want;
    return true;
}

void *hd_pb_arena_alloc(hd_pb_arena_t *arena, size_t len)
{
    /* Nothing has an address of its own as well: NULL means full. */
    size_t rounded = len == 0 ? ALIGN : (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);

    if (rounded < len ||
        ((size_t)(arena->_end - arena->_next) < rounded && !add_chunk(arena, rounded))) {
        arena->is_full = true;
        return NULL;
    }

    void *p = arena->_next;

    arena->_next += rounded;
    return p;
}

/* Text is laid from a chunk's end downwards, so that it needs no padding. */
void *hd_pb_arena_alloc_bytes(hd_pb_arena_t *arena, size_t len)
{
    if ((size_t)(arena->_end - arena->_next) < len && !add_chunk(arena, len)) {
        arena->is_full = true;
        return NULL;
    }
    arena->_end -= len;
    return arena->_end;
}

/* ---- faults */

static const char *const rc_texts[] = {
    [HD_PB_OK] = "no fault",
    [HD_PB_MALFORMED] = "malformed",
    [HD_PB_TOO_DEEP] = "nested too deeply",
    [HD_PB_TOO_BIG] = "larger than is allowed here",
    [HD_PB_NO_TYPE] = "unknown type",
    [HD_PB_OTHER_TYPE] = "not the type that belongs here",
    [HD_PB_WRITE] = "could not be written",
};

static void *fail(hd_pb_fault_t *fault, hd_pb_rc_t rc,
                  const ProtobufCMessageDescriptor *type)
{
    if (fault != NULL)
        *fault = (hd_pb_fault_t){.rc = rc, .why = rc_texts[rc], .message = type};
    return NULL;
}

void hd_pb_fault_print(const hd_pb_fault_t *fault, char *text, size_t size)
{
    const ProtobufCFieldDescriptor *field = NULL;
    const char *why = fault->why != NULL ? fault->why : rc_texts[fault->rc];

    if (fault->message == NULL) {
        snprintf(text, size, "%s", why);
        return;
    }
    if (fault->field != 0)
        field = protobuf_c_message_descriptor_get_field(fault->message, fault->field);
    if (field != NULL)
        snprintf(text, size, "%s.%s, byte %zu: %s", fault->message->name, field->name,
                 fault->offset, why);
    else if (fault->field != 0)
        snprintf(text, size, "%s, field %u, byte %zu: %s", fault->message->name,
                 (unsigned)fault->field, fault->offset, why);
    else
        snprintf(text, size, "%s, byte %zu: %s", fault->message->name, fault->offset,
                 why);
}

/* ---- from the wire */

void *hd_pb_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t len,
                   hd_pb_arena_t *arena, hd_pb_fault_t *fault)
{
    if (hd_pb_scan(type, bytes, len, HD_PB_DEPTH_MAX, fault) != HD_PB_OK)
        return NULL;

    const uint8_t *start = len > 0 ? bytes : (const uint8_t *)"";
    void *msg = hd_pb_decode(type, (hd_pb_span_t){start, start + len}, arena);

    return msg != NULL ? msg : fail(fault, HD_PB_TOO_BIG, type);
}

void *hd_pb_unpack_any(const Pb__Any *any, hd_pb_arena_t *arena, hd_pb_fault_t *fault)
{
    const ProtobufCMessageDescriptor *type = hd_pb_find_type(any->type_url);

    if (type == NULL)
        return fail(fault, HD_PB_NO_TYPE, NULL);
    return hd_pb_unpack(type, any->value.data, any->value.len, arena, fault);
}

void *hd_pb_unpack_any_as(const Pb__Any *any, const ProtobufCMessageDescriptor *type,
                          hd_pb_arena_t *arena, hd_pb_fault_t *fault)
{
    if (!hd_pb_any_is(any, type))
        return fail(fault, HD_PB_OTHER_TYPE, type);
    return hd_pb_unpack(type, any->value.data, any->value.len, arena, fault);
}

bool hd_pb_any_is(const Pb__Any *any, const ProtobufCMessageDescriptor *type)
{
    const char *slash = strrchr(any->type_url, '/');

    return strcmp(slash != NULL ? slash + 1 : any->type_url, type->name) == 0;
}

/* ---- to the wire */

bool hd_pb_pack(const void *msg, hd_pb_arena_t *arena, ProtobufCBinaryData *bytes)
{
    bytes->len = protobuf_c_message_get_packed_size(msg);
    bytes->data = hd_pb_arena_alloc(arena, bytes->len);
    if (bytes->data == NULL)
        return false;
    protobuf_c_message_pack(msg, bytes->data);
    return true;
}

Pb__Any *hd_pb_pack_any(const void *msg, hd_pb_arena_t *arena)
{
    const char *name = ((const ProtobufCMessage *)msg)->descriptor->name;
    size_t url_size = sizeof(TYPE_URL_PREFIX) + strlen(name);
    Pb__Any *any = hd_pb_arena_alloc(arena, sizeof(*any));
    char *url = hd_pb_arena_alloc(arena, url_size);

    if (any == NULL || url == NULL)
        return NULL;
    pb__any__init(any);
    snprintf(url, url_size, TYPE_URL_PREFIX "%s", name);
    any->type_url = url;
    return hd_pb_pack(msg, arena, &any->value) ? any : NULL;
}

void *hd_pb_clone(const void *msg, hd_pb_arena_t *arena)
{
    ProtobufCBinaryData bytes;

    if (!hd_pb_pack(msg, arena, &bytes))
        return NULL;
    return hd_pb_unpack(((const ProtobufCMessage *)msg)->descriptor, bytes.data,
                        bytes.len, arena, NULL);
}

/* Merging is what decoding does with two encodings in a row. */
void *hd_pb_merge(const void *base, const void *over, hd_pb_arena_t *arena)
{
    size_t base_len = protobuf_c_message_get_packed_size(base);
    size_t over_len = protobuf_c_message_get_packed_size(over);
    uint8_t *bytes = hd_pb_arena_alloc(arena, base_len + over_len);

    if (bytes == NULL)
        return NULL;
    protobuf_c_message_pack(base, bytes);
    protobuf_c_message_pack(over, bytes + base_len);
    return hd_pb_unpack(((const ProtobufCMessage *)base)->descriptor, bytes,
                        base_len + over_len, arena, NULL);
}
