/* hd_pb: protobuf messages from and to the wire, within bounds.
 *
 * protoc-c makes structs and descriptors from our .proto files. protobuf-c's own decoder
 * bounds neither nesting nor memory and takes any bytes for a string, so decoding is done
 * here: bytes are scanned first, then unpacked into an arena with a ceiling, which is
 * freed at once:
 *
 *     hd_pb_arena_init(&arena, 16 << 20);
 *     cluster = hd_pb_unpack(HD_PB(pb_cluster__cluster), bytes, len, &arena, &fault);
 *     if (cluster == NULL)
 *         hd_pb_fault_print(&fault, text, sizeof(text));
 *     hd_pb_arena_deinit(&arena);      the message and all below it are gone
 *
 * Never free an unpacked message with protobuf-c's functions. Nothing here keeps state
 * between calls; one arena belongs to one thread. A `const void *msg` is any generated
 * message (they begin with ProtobufCMessage).
 *
 * Elsewhere: fields by descriptor, equality, walking: hd_pb_reflect.h; JSON:
 * hd_pb_json.h; wrappers, durations, structs: hd_pb_value.h.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>
#include "google/protobuf.pb-c.h"

#define HD_PB_MUST_CHECK __attribute__((warn_unused_result))

/* The descriptor of a generated message: HD_PB(pb_cluster__cluster). */
#define HD_PB(name) (&name##__descriptor)

/* Messages inside messages, the outermost counted. An Any is opaque, and what it holds is
 * counted anew when it is unpacked. */
#define HD_PB_DEPTH_MAX 100

/* Anys inside Anys that what walks a whole message (JSON, paths) follows. */
#define HD_PB_ANYS_MAX 16

typedef enum {
    HD_PB_OK,
    HD_PB_MALFORMED,  /* the bytes are no encoding of the message */
    HD_PB_TOO_DEEP,   /* nested beyond HD_PB_DEPTH_MAX or HD_PB_ANYS_MAX */
    HD_PB_TOO_BIG,    /* the arena's ceiling, or memory, is reached */
    HD_PB_NO_TYPE,    /* the type URL is none of ours */
    HD_PB_OTHER_TYPE, /* the type URL is not the one that was asked for */
    HD_PB_WRITE,      /* the caller's writer refused */
} hd_pb_rc_t;

/* What was wrong, and where: for the reason of a NACK. */
typedef struct {
    hd_pb_rc_t rc;
    const char *why;                           /* static text, what is wrong */
    const ProtobufCMessageDescriptor *message; /* in which message; NULL: not known */
    uint32_t field;                            /* number of the field in it; 0: none */
    size_t offset; /* of the offending byte in what was scanned */
} hd_pb_fault_t;

/* "envoy.config.cluster.v3.Cluster.name, byte 17: not UTF-8"; cut at <size>. */
void hd_pb_fault_print(const hd_pb_fault_t *fault, char *text, size_t size);

/* ---- arenas */

typedef struct {
    size_t max_bytes;  /* ceiling of used_bytes */
    size_t used_bytes; /* taken from malloc so far */
    bool is_full;      /* the ceiling has refused something */
    void *_chunks;
    char *_next, *_end;
} hd_pb_arena_t;

/* Takes no memory before the first allocation. */
void hd_pb_arena_init(hd_pb_arena_t *arena, size_t max_bytes);

/* Frees all that was allocated in it; it may be used again. */
void hd_pb_arena_deinit(hd_pb_arena_t *arena);

/* <len> bytes, aligned for anything, not zeroed; NULL beyond the ceiling. */
void *hd_pb_arena_alloc(hd_pb_arena_t *arena, size_t len) HD_PB_MUST_CHECK;

/* ---- from the wire */

/* Holds <bytes> against <type>: tags and lengths, nesting, UTF-8 without NUL
 * in strings (a C string would be cut there), packed lists. Fields unknown to <type> are
 * measured only. Allocates nothing; time is linear in <len>. <fault> may be NULL, and is
 * set on failure. */
hd_pb_rc_t hd_pb_scan(const ProtobufCMessageDescriptor *type, const void *bytes,
                      size_t len, unsigned depth_max,
                      hd_pb_fault_t *fault) HD_PB_MUST_CHECK;

/* The decoded message, lent by <arena>, or NULL with <fault> set (it may be NULL). The
 * message holds copies: <bytes> may go. As protobuf has it, of a scalar or oneof given
 * more than once the last counts, messages given more than once are merged, and lists may
 * be packed or not. */
void *hd_pb_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t len,
                   hd_pb_arena_t *arena, hd_pb_fault_t *fault) HD_PB_MUST_CHECK;

/* The same for what <any> holds: ((ProtobufCMessage *)result)->descriptor is its type. */
void *hd_pb_unpack_any(const Pb__Any *any, hd_pb_arena_t *arena,
                       hd_pb_fault_t *fault) HD_PB_MUST_CHECK;

/* The same where only <type> will do. */
void *hd_pb_unpack_any_as(const Pb__Any *any, const ProtobufCMessageDescriptor *type,
                          hd_pb_arena_t *arena, hd_pb_fault_t *fault) HD_PB_MUST_CHECK;

/* ---- types */

/* By type URL or full name: what stands after the last slash. NULL: none of ours. */
const ProtobufCMessageDescriptor *hd_pb_find_type(const char *type_url);

bool hd_pb_any_is(const Pb__Any *any, const ProtobufCMessageDescriptor *type);

/* All types that an Any may hold, sorted by full name. */
const ProtobufCMessageDescriptor *const *hd_pb_types(size_t *n);

/* ---- to the wire */

/* The encoding of <msg>, lent by <arena>; false: no room. */
bool hd_pb_pack(const void *msg, hd_pb_arena_t *arena,
                ProtobufCBinaryData *bytes) HD_PB_MUST_CHECK;

/* An Any that holds <msg>, under type.googleapis.com/; NULL: no room. */
Pb__Any *hd_pb_pack_any(const void *msg, hd_pb_arena_t *arena) HD_PB_MUST_CHECK;

/* A deep copy; NULL: no room, or <msg> holds what could not be read back. */
void *hd_pb_clone(const void *msg, hd_pb_arena_t *arena) HD_PB_MUST_CHECK;

/* A copy of <base> with <over>, of the same type, merged into it as protobuf does it:
 * scalars and oneofs that are set in <over> win, messages merge, lists are appended. */
void *hd_pb_merge(const void *base, const void *over,
                  hd_pb_arena_t *arena) HD_PB_MUST_CHECK;
