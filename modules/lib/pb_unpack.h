/* pb_unpack: the message that a module was given as bytes, or why they aren't one. */
#pragma once
#include "hd_module.h"
#include "hd_pb.h"

/* Lent by <arena>. NULL: <err> says why, beginning with <prefix>. */
static inline void *pb_unpack(const ProtobufCMessageDescriptor *type, hd_str_t bytes,
                              hd_pb_arena_t *arena, const char *prefix, hd_err_t *err)
{
    hd_pb_fault_t fault = {0};
    void *msg = hd_pb_unpack(type, bytes.data, bytes.len, arena, &fault);
    char text[256];

    if (msg == NULL) {
        hd_pb_fault_print(&fault, text, sizeof(text));
        hd_ignore(hd_err_set(err, HD_E_RESOURCE, "%s%s", prefix, text));
    }
    return msg;
}
