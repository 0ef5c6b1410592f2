/* Walking a message: every field that is set, by its path. */
#include "hd_pb_reflect.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *path; /* grows as needed; depth is bounded by the scan and HD_PB_ANYS_MAX */
    size_t len, size;
    unsigned anys_n; /* Anys around here */
    size_t max_bytes;
    bool only_unknown;
    hd_pb_visit_pt *visit;
    void *arg;
} walk_t;

static bool grow(walk_t *w, size_t size)
{
    if (size <= w->size)
        return true;
    size = size < 256 ? 256 : 2 * size;

    char *path = realloc(w->path, size);

    if (path == NULL)
        return false;
    w->path = path;
    w->size = size;
    return true;
}

/* Appends to the path; the caller remembers the length to go back to. */
static bool enter(walk_t *w, const char *before, const char *name)
{
    size_t before_len = strlen(before), len = strlen(name);

    if (!grow(w, w->len + before_len + len + 1))
        return false;
    memcpy(w->path + w->len, before, before_len);
    memcpy(w->path + w->len + before_len, name, len + 1);
    w->len += before_len + len;
    return true;
}

static void leave(walk_t *w, size_t len)
{
    w->len = len;
    w->path[len] = '\0';
}

/* Types whose fields mean nothing by themselves. */
static bool is_leaf(const ProtobufCMessageDescriptor *type)
{
    return strcmp(type->package_name, "google.protobuf") == 0;
}

static hd_pb_rc_t walk_message(walk_t *w, const ProtobufCMessage *msg);
static hd_pb_rc_t walk_unknown(walk_t *w, const ProtobufCMessage *msg);

/* What an Any holds begins a path of its own. */
static hd_pb_rc_t walk_any(walk_t *w, const Pb__Any *any)
{
    const ProtobufCMessageDescriptor *type = hd_pb_find_type(any->type_url);
    hd_pb_arena_t arena;
    hd_pb_fault_t fault;
    hd_pb_rc_t rc;

    if (type == NULL)
        return HD_PB_OK;
    if (w->anys_n == HD_PB_ANYS_MAX)
        return HD_PB_TOO_DEEP;
    hd_pb_arena_init(&arena, w->max_bytes);

    const ProtobufCMessage *msg = hd_pb_unpack_any(any, &arena, &fault);

    if (msg == NULL) {
        rc = fault.rc;
    } else {
        walk_t inner = *w;

        inner.path = NULL;
        inner.len = inner.size = 0;
        inner.anys_n++;
        inner.max_bytes -= arena.used_bytes;
        rc = enter(&inner, "", type->name) ? walk_message(&inner, msg) : HD_PB_TOO_BIG;
        free(inner.path);
    }
    hd_pb_arena_deinit(&arena);
    return rc;
}

static hd_pb_rc_t walk_value(walk_t *w, const ProtobufCMessage *value)
{
    if (value->descriptor == HD_PB(pb__any))
        return walk_any(w, (const Pb__Any *)value);
    /* Unknown fields in there are named all the same. */
    if (is_leaf(value->descriptor) && !w->only_unknown)
        return HD_PB_OK;
    return walk_message(w, value);
}

static hd_pb_rc_t walk_field(walk_t *w, const ProtobufCMessage *msg,
                             const ProtobufCFieldDescriptor *field)
{
    size_t n = hd_pb_count(msg, field), len = w->len;
    bool is_message = field->type == PROTOBUF_C_TYPE_MESSAGE;
    hd_pb_place_t at = {.message = msg, .field = field, .number = field->id};
    hd_pb_rc_t rc = HD_PB_OK;

    if (n == 0 || (w->only_unknown && !is_message))
        return HD_PB_OK;
    if (!enter(w, ".", field->name))
        return HD_PB_TOO_BIG;
    for (size_t i = 0; i < n && rc == HD_PB_OK; i++) {
        at.path = w->path;
        if (!w->only_unknown && (i == 0 || is_message))
            w->visit(w->arg, &at);
        if (!is_message)
            break;

        const ProtobufCMessage *value = hd_pb_message_at(msg, field, i);

        if (hd_pb_is_map(field)) {
            const ProtobufCFieldDescriptor *held = &value->descriptor->fields[1];

            rc = walk_unknown(w, value);
            if (rc != HD_PB_OK || held->type != PROTOBUF_C_TYPE_MESSAGE ||
                hd_pb_count(value, held) == 0)
                continue;
            value = hd_pb_message_at(value, held, 0);
        }
        rc = walk_value(w, value);
    }
    leave(w, len);
    return rc;
}

static hd_pb_rc_t walk_unknown(walk_t *w, const ProtobufCMessage *msg)
{
    size_t len = w->len;

    for (unsigned i = 0; i < msg->n_unknown_fields; i++) {
        char number[16];
        hd_pb_place_t at = {.message = msg, .number = msg->unknown_fields[i].tag};

        snprintf(number, sizeof(number), "%u", (unsigned)at.number);
        if (!enter(w, ".#", number))
            return HD_PB_TOO_BIG;
        at.path = w->path;
        w->visit(w->arg, &at);
        leave(w, len);
    }
    return HD_PB_OK;
}

static hd_pb_rc_t walk_message(walk_t *w, const ProtobufCMessage *msg)
{
    hd_pb_rc_t rc = walk_unknown(w, msg);

    for (unsigned i = 0; i < msg->descriptor->n_fields && rc == HD_PB_OK; i++)
        rc = walk_field(w, msg, &msg->descriptor->fields[i]);
    return rc;
}

static hd_pb_rc_t start(const ProtobufCMessage *msg, walk_t *w)
{
    hd_pb_rc_t rc = HD_PB_TOO_BIG;

    if (msg->descriptor == HD_PB(pb__any))
        return walk_any(w, (const Pb__Any *)msg);
    if (enter(w, "", msg->descriptor->name))
        rc = walk_message(w, msg);
    free(w->path);
    return rc;
}

hd_pb_rc_t hd_pb_walk(const void *msg, size_t max_bytes, hd_pb_visit_pt *visit, void *arg)
{
    return start(msg, &(walk_t){.max_bytes = max_bytes, .visit = visit, .arg = arg});
}

hd_pb_rc_t hd_pb_unknown_fields(const void *msg, size_t max_bytes, hd_pb_visit_pt *visit,
                                void *arg)
{
    return start(msg, &(walk_t){.max_bytes = max_bytes,
                                .visit = visit,
                                .arg = arg,
                                .only_unknown = true});
}
