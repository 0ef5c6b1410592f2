/* The scan before each unpack: hostile bytes end here. It follows the descriptor, so that
 * a bytes field is never taken for a message, and recurses once a nesting level, which
 * <depth_max> bounds. */
#include "hd_pb_wire_int.h"

typedef struct {
    const uint8_t *start; /* of all that is scanned */
    hd_pb_fault_t *fault; /* never NULL */
} scan_t;

static hd_pb_rc_t fail_at(scan_t *scan, hd_pb_rc_t rc,
                          const ProtobufCMessageDescriptor *type, uint32_t field,
                          const uint8_t *at, const char *why)
{
    *scan->fault = (hd_pb_fault_t){
        .rc = rc,
        .why = why,
        .message = type,
        .field = field,
        .offset = (size_t)(at - scan->start),
    };
    return rc;
}

static bool skip_fixed(hd_pb_span_t *in, size_t len)
{
    if ((size_t)(in->end - in->at) < len)
        return false;
    in->at += len;
    return true;
}

/* RFC 3629, and no NUL. */
static const uint8_t *find_bad_text(hd_pb_span_t text)
{
    while (text.at < text.end) {
        const uint8_t *p = text.at;
        size_t left = (size_t)(text.end - p);
        size_t n = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;

        if (*p == 0 || (*p >= 0x80 && *p < 0xc2) || *p > 0xf4 || n > left)
            return p;
        for (size_t i = 1; i < n; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return p;
        }
        /* Overlong forms, surrogates, beyond U+10FFFF. */
        if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
            (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
            return p;
        text.at += n;
    }
    return NULL;
}

static bool skip_scalar(hd_pb_span_t *in, unsigned wire_type)
{
    uint64_t ignored;

    switch (wire_type) {
    case HD_PB_VARINT:
        return hd_pb_take_varint(in, HD_PB_VARINT_MAX, &ignored);
    case HD_PB_FIXED64:
        return skip_fixed(in, 8);
    case HD_PB_FIXED32:
        return skip_fixed(in, 4);
    default:
        return false;
    }
}

static hd_pb_rc_t scan_message(scan_t *scan, const ProtobufCMessageDescriptor *type,
                               hd_pb_span_t in, unsigned depth_left);

/* The <len> bytes of a length-delimited field known to <type>. */
static hd_pb_rc_t scan_delimited(scan_t *scan, const ProtobufCMessageDescriptor *type,
                                 const ProtobufCFieldDescriptor *field, hd_pb_span_t in,
                                 unsigned depth_left)
{
    const uint8_t *bad;

    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        if (depth_left <= 1)
            return fail_at(scan, HD_PB_TOO_DEEP, type, field->id, in.at,
                           "nested too deeply");
        return scan_message(scan, field->descriptor, in, depth_left - 1);
    case PROTOBUF_C_TYPE_STRING:
        bad = find_bad_text(in);
        if (bad != NULL)
            return fail_at(scan, HD_PB_MALFORMED, type, field->id, bad,
                           *bad == 0 ? "a NUL in a string" : "not UTF-8");
        return HD_PB_OK;
    case PROTOBUF_C_TYPE_BYTES:
        return HD_PB_OK;
    default: /* packed */
        while (in.at < in.end) {
            if (!skip_scalar(&in, hd_pb_wire_type(field->type)))
                return fail_at(scan, HD_PB_MALFORMED, type, field->id, in.at,
                               "a packed list ends within a number");
        }
        return HD_PB_OK;
    }
}

static hd_pb_rc_t scan_message(scan_t *scan, const ProtobufCMessageDescriptor *type,
                               hd_pb_span_t in, unsigned depth_left)
{
    while (in.at < in.end) {
        const uint8_t *start = in.at;
        uint64_t tag, len;

        if (!hd_pb_take_varint(&in, HD_PB_TAG_MAX, &tag) || tag > UINT32_MAX ||
            tag >> 3 == 0)
            return fail_at(scan, HD_PB_MALFORMED, type, 0, start, "not a field's tag");

        uint32_t number = (uint32_t)tag >> 3;
        unsigned wire_type = tag & 7;
        const ProtobufCFieldDescriptor *field = hd_pb_find_field(type, number, wire_type);

        if (wire_type != HD_PB_LENGTH) {
            if (!skip_scalar(&in, wire_type))
                return fail_at(scan, HD_PB_MALFORMED, type, number, start,
                               wire_type == 3 || wire_type == 4 ? "a group"
                               : wire_type > HD_PB_FIXED32      ? "not a wire type"
                                                                : "not a whole number");
            continue;
        }
        if (!hd_pb_take_varint(&in, HD_PB_TAG_MAX, &len) ||
            len > (uint64_t)(in.end - in.at))
            return fail_at(scan, HD_PB_MALFORMED, type, number, start,
                           "longer than what holds it");

        hd_pb_span_t content = {in.at, in.at + len};

        in.at = content.end;
        if (field != NULL) {
            hd_pb_rc_t rc = scan_delimited(scan, type, field, content, depth_left);

            if (rc != HD_PB_OK)
                return rc;
        }
    }
    return HD_PB_OK;
}

hd_pb_rc_t hd_pb_scan(const ProtobufCMessageDescriptor *type, const void *bytes,
                      size_t len, unsigned depth_max, hd_pb_fault_t *fault)
{
    hd_pb_fault_t ignored;
    scan_t scan = {.start = bytes, .fault = fault != NULL ? fault : &ignored};

    if (len == 0)
        return HD_PB_OK;
    /* protobuf-c counts in int here and there. */
    if (len > INT32_MAX)
        return fail_at(&scan, HD_PB_TOO_BIG, type, 0, bytes, "more than 2 GiB");
    return scan_message(&scan, type, (hd_pb_span_t){scan.start, scan.start + len},
                        depth_max);
}
