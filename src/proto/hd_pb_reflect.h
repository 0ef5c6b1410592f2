/* hd_pb_reflect: messages seen through their descriptors, for code that treats all types
 * alike: JSON, equality, lists of field paths, of unknown fields. Decoders use the
 * generated structs. */
#pragma once
#include "hd_pb.h"

/* How many values of <field> are set in <msg>: 0 or 1, or a list's length. In proto3 a
 * plain scalar is set when it isn't 0, one in a oneof when the oneof says so. */
size_t hd_pb_count(const void *msg, const ProtobufCFieldDescriptor *field);

/* The <i>-th of them, i < hd_pb_count: points to an int32_t, uint32_t, int64_t, uint64_t,
 * float, double, protobuf_c_boolean, int (enum), char *, ProtobufCBinaryData or
 * ProtobufCMessage *. */
const void *hd_pb_at(const void *msg, const ProtobufCFieldDescriptor *field, size_t i);

/* The same for a field of messages. */
const ProtobufCMessage *hd_pb_message_at(const void *msg,
                                         const ProtobufCFieldDescriptor *field, size_t i);

/* Whether <field> was declared map<K, V>: a list of entries whose field 1 is the key. */
bool hd_pb_is_map(const ProtobufCFieldDescriptor *field);

/* The entries of a map by key, each key once (the last entry of a key counts). The array
 * comes from <arena>; NULL: no room. */
const ProtobufCMessage **hd_pb_map_entries(const void *msg,
                                           const ProtobufCFieldDescriptor *field,
                                           hd_pb_arena_t *arena, size_t *n);

/* Whether both say the same: type, fields, unknown fields; maps whatever their order.
 * Anys are compared by their bytes. <scratch> is for sorting; false also where it has no
 * room. */
bool hd_pb_equal(const void *a, const void *b, hd_pb_arena_t *scratch);

/* One field that is set in a message. */
typedef struct {
    /* Names from the outermost message:
     * "envoy.config.cluster.v3.Cluster.eds_cluster_config"; an unknown field is "#" and
     * its number. Within an Any it begins with the type in there. Lists have no index; a
     * map's keys stand for nothing: "...filter_metadata". Lent. */
    const char *path;
    const ProtobufCMessage *message;       /* that holds the field */
    const ProtobufCFieldDescriptor *field; /* NULL: unknown */
    uint32_t number;
} hd_pb_place_t;

typedef void hd_pb_visit_pt(void *arg, const hd_pb_place_t *at);

/* Visits each field that is set in <msg> and below, before what is in it; a list's once
 * an element where its elements are messages, once otherwise. Structs and other
 * well-known types are one field. Anys of known types are followed; of others only the
 * Any is visited. An Any that can't be decoded ends the walk. What Anys are decoded into
 * may take <max_bytes>. */
hd_pb_rc_t hd_pb_walk(const void *msg, size_t max_bytes, hd_pb_visit_pt *visit,
                      void *arg) HD_PB_MUST_CHECK;

/* Only the unknown fields: what was accepted and has no effect here. */
hd_pb_rc_t hd_pb_unknown_fields(const void *msg, size_t max_bytes, hd_pb_visit_pt *visit,
                                void *arg) HD_PB_MUST_CHECK;
