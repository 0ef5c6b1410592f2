#include "hd_pb_json.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hd_pb_reflect.h"
#include "ext/tls.pb-c.h"

#define MAX_BYTES_DEFAULT ((size_t)64 << 20)
#define REDACTED "[redacted]"

typedef struct {
    hd_pb_json_opts_t opts;
    hd_pb_write_pt *write;
    void *to;
    hd_pb_rc_t rc; /* the first failure; nothing is written after it */
    hd_pb_fault_t fault;
    unsigned level;     /* of brackets */
    unsigned anys_n;    /* Anys around here */
    unsigned secrets_n; /* secret fields around here */
    size_t buffered_n;
    char buffer[4096]; /* the writer is called once a buffer, not once a comma */
} json_t;

/* ---- output */

static void fail(json_t *j, hd_pb_rc_t rc, const char *why)
{
    if (j->rc == HD_PB_OK) {
        j->rc = rc;
        j->fault = (hd_pb_fault_t){.rc = rc, .why = why};
    }
}

static void flush(json_t *j)
{
    if (j->rc == HD_PB_OK && j->buffered_n > 0 &&
        !j->write(j->to, j->buffer, j->buffered_n))
        fail(j, HD_PB_WRITE, "could not be written");
    j->buffered_n = 0;
}

static void put(json_t *j, const char *text, size_t len)
{
    while (len > 0) {
        size_t n = sizeof(j->buffer) - j->buffered_n;

        n = n < len ? n : len;
        memcpy(j->buffer + j->buffered_n, text, n);
        j->buffered_n += n;
        text += n;
        len -= n;
        if (j->buffered_n == sizeof(j->buffer))
            flush(j);
    }
}

static void put_text(json_t *j, const char *text)
{
    put(j, text, strlen(text));
}

static void put_string(json_t *j, const char *s)
{
    put(j, "\"", 1);
    while (*s != '\0') {
        size_t plain_n = 0;
        char escape[12];

        while ((unsigned char)s[plain_n] >= 0x20 && s[plain_n] != '"' &&
               s[plain_n] != '\\')
            plain_n++;
        put(j, s, plain_n);
        s += plain_n;
        if (*s == '\0')
            break;
        switch (*s) {
        case '\n':
            put_text(j, "\\n");
            break;
        case '\t':
            put_text(j, "\\t");
            break;
        case '"':
        case '\\':
            put(j, (char[]){'\\', *s}, 2);
            break;
        default:
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)(unsigned char)*s);
            put_text(j, escape);
        }
        s++;
    }
    put(j, "\"", 1);
}

static void put_base64(json_t *j, const uint8_t *p, size_t len)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    put(j, "\"", 1);
    for (; len > 0; p += 3, len = len > 3 ? len - 3 : 0) {
        uint32_t bits = (uint32_t)p[0] << 16 | (len > 1 ? (uint32_t)p[1] << 8 : 0) |
                        (len > 2 ? p[2] : 0);

        put(j,
            (char[]){digits[bits >> 18], digits[bits >> 12 & 63],
                     len > 1 ? digits[bits >> 6 & 63] : '=',
                     len > 2 ? digits[bits & 63] : '='},
            4);
    }
    put(j, "\"", 1);
}

/* The shortest text that reads back as <value>. */
static void put_double(json_t *j, double value, bool is_float)
{
    char text[32];
    int digits = is_float ? 6 : 15, digits_max = is_float ? 9 : 17;

    if (!isfinite(value)) {
        put_text(j, isnan(value) ? "\"NaN\""
                    : value > 0  ? "\"Infinity\""
                                 : "\"-Infinity\"");
        return;
    }
    do {
        snprintf(text, sizeof(text), "%.*g", digits, value);
    } while (digits++ < digits_max && (is_float ? strtof(text, NULL) != (float)value
                                                : strtod(text, NULL) != value));
    put_text(j, text);
}

static void put_line(json_t *j)
{
    if (j->opts.indent == 0)
        return;
    put(j, "\n", 1);
    for (unsigned i = 0; i < j->level * j->opts.indent; i++)
        put(j, " ", 1);
}

/* One object or array: what separates its members. */
typedef struct {
    bool has_member;
    char close;
} brackets_t;

static brackets_t open_brackets(json_t *j, const char *pair)
{
    put(j, pair, 1);
    j->level++;
    return (brackets_t){.close = pair[1]};
}

static void begin_member(json_t *j, brackets_t *b)
{
    if (b->has_member)
        put(j, ",", 1);
    b->has_member = true;
    put_line(j);
}

static void put_name(json_t *j, brackets_t *b, const char *name)
{
    begin_member(j, b);
    put_string(j, name);
    put_text(j, j->opts.indent > 0 ? ": " : ":");
}

static void close_brackets(json_t *j, const brackets_t *b)
{
    j->level--;
    if (b->has_member)
        put_line(j);
    put(j, &b->close, 1);
}

/* ---- well-known types */

static void put_fraction(json_t *j, uint32_t nanos)
{
    char text[16];

    if (nanos == 0)
        return;
    if (nanos % 1000000 == 0)
        snprintf(text, sizeof(text), ".%03u", (unsigned)(nanos / 1000000));
    else if (nanos % 1000 == 0)
        snprintf(text, sizeof(text), ".%06u", (unsigned)(nanos / 1000));
    else
        snprintf(text, sizeof(text), ".%09u", (unsigned)nanos);
    put_text(j, text);
}

/* Also where a duration is out of its range or its signs differ: what was sent is shown.
 */
static void put_duration(json_t *j, const Pb__Duration *d)
{
    char text[32];
    int64_t seconds = d->seconds;
    uint32_t nanos = d->nanos < 0 ? -(uint32_t)d->nanos : (uint32_t)d->nanos;

    snprintf(text, sizeof(text), "\"%s%" PRIu64, seconds < 0 || d->nanos < 0 ? "-" : "",
             seconds < 0 ? -(uint64_t)seconds : (uint64_t)seconds);
    put_text(j, text);
    put_fraction(j, nanos);
    put_text(j, "s\"");
}

/* RFC 3339 in UTC, by the civil calendar (days since 0000-03-01, 400-year cycles). */
static void put_timestamp(json_t *j, const Pb__Timestamp *t)
{
    int64_t days = t->seconds / 86400, second = t->seconds % 86400;
    char text[64];

    if (second < 0) {
        second += 86400;
        days--;
    }
    if (days < -719162 || days > 2932896) /* outside the years 1 to 9999 */
        days = second = 0;
    days += 719468;

    int64_t era = days / 146097, day_of_era = days % 146097;
    int64_t year =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day = day_of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * day + 2) / 153;

    day = day - (153 * month + 2) / 5 + 1;
    month = month < 10 ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);
    snprintf(text, sizeof(text), "\"%04d-%02d-%02dT%02d:%02d:%02d", (int)year, (int)month,
             (int)day, (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60));
    put_text(j, text);
    put_fraction(j, (uint32_t)t->nanos);
    put_text(j, "Z\"");
}

static void put_map(json_t *j, const ProtobufCMessage *msg,
                    const ProtobufCFieldDescriptor *field);
static void put_message(json_t *j, const ProtobufCMessage *msg);

static void put_list(json_t *j, const Pb__ListValue *list)
{
    brackets_t b = open_brackets(j, "[]");

    for (size_t i = 0; i < list->n_values; i++) {
        begin_member(j, &b);
        put_message(j, &list->values[i]->base);
    }
    close_brackets(j, &b);
}

static void put_value(json_t *j, const Pb__Value *value)
{
    switch (value->kind_case) {
    case PB__VALUE__KIND_NUMBER_VALUE:
        put_double(j, value->number_value, false);
        return;
    case PB__VALUE__KIND_STRING_VALUE:
        put_string(j, j->secrets_n > 0 ? REDACTED : value->string_value);
        return;
    case PB__VALUE__KIND_BOOL_VALUE:
        put_text(j, value->bool_value ? "true" : "false");
        return;
    case PB__VALUE__KIND_STRUCT_VALUE:
        put_message(j, &value->struct_value->base);
        return;
    case PB__VALUE__KIND_LIST_VALUE:
        put_list(j, value->list_value);
        return;
    default:
        put_text(j, "null");
    }
}

static void put_scalar(json_t *j, const ProtobufCFieldDescriptor *field,
                       const void *value);

/* Wrappers are their one field, set or not. */
static bool is_wrapper(const ProtobufCMessageDescriptor *type)
{
    const ProtobufCMessageDescriptor *const wrappers[] = {
        HD_PB(pb__double_value), HD_PB(pb__float_value),  HD_PB(pb__int64_value),
        HD_PB(pb__uint64_value), HD_PB(pb__int32_value),  HD_PB(pb__uint32_value),
        HD_PB(pb__bool_value),   HD_PB(pb__string_value), HD_PB(pb__bytes_value),
    };

    for (size_t i = 0; i < sizeof(wrappers) / sizeof(*wrappers); i++) {
        if (type == wrappers[i])
            return true;
    }
    return false;
}

/* True: <msg> is of a type with a JSON form of its own, and was written. */
static bool put_well_known(json_t *j, const ProtobufCMessage *msg)
{
    const ProtobufCMessageDescriptor *type = msg->descriptor;

    if (strcmp(type->package_name, "google.protobuf") != 0)
        return false;
    if (type == HD_PB(pb__duration))
        put_duration(j, (const Pb__Duration *)msg);
    else if (type == HD_PB(pb__timestamp))
        put_timestamp(j, (const Pb__Timestamp *)msg);
    else if (type == HD_PB(pb__struct))
        put_map(j, msg, &type->fields[0]);
    else if (type == HD_PB(pb__value))
        put_value(j, (const Pb__Value *)msg);
    else if (type == HD_PB(pb__list_value))
        put_list(j, (const Pb__ListValue *)msg);
    else if (is_wrapper(type))
        put_scalar(j, &type->fields[0], hd_pb_at(msg, &type->fields[0], 0));
    else
        return false; /* Empty is {} anyway */
    return true;
}

static void put_fields(json_t *j, brackets_t *b, const ProtobufCMessage *msg);

static void put_any(json_t *j, const Pb__Any *any)
{
    const ProtobufCMessageDescriptor *type = hd_pb_find_type(any->type_url);
    brackets_t b = open_brackets(j, "{}");
    hd_pb_arena_t arena;

    if (*any->type_url != '\0') {
        put_name(j, &b, "@type");
        put_string(j, any->type_url);
    }
    if (type == NULL) {
        if (any->value.len > 0) {
            put_name(j, &b, "value");
            put_base64(j, j->secrets_n > 0 ? (const uint8_t *)REDACTED : any->value.data,
                       j->secrets_n > 0 ? strlen(REDACTED) : any->value.len);
        }
        close_brackets(j, &b);
        return;
    }
    if (j->anys_n == HD_PB_ANYS_MAX) {
        fail(j, HD_PB_TOO_DEEP, "Anys nested too deeply");
        return;
    }
    hd_pb_arena_init(&arena, j->opts.max_bytes);
    j->anys_n++;

    hd_pb_fault_t fault;
    const ProtobufCMessage *msg = hd_pb_unpack_any(any, &arena, &fault);

    if (msg == NULL) {
        if (j->rc == HD_PB_OK) {
            j->rc = fault.rc;
            j->fault = fault;
        }
    } else if (strcmp(type->package_name, "google.protobuf") == 0) {
        /* These are no objects by themselves, or were not always. */
        put_name(j, &b, "value");
        put_message(j, msg);
    } else {
        put_fields(j, &b, msg);
    }
    j->anys_n--;
    hd_pb_arena_deinit(&arena);
    close_brackets(j, &b);
}

/* ---- fields */

static void put_enum(json_t *j, const ProtobufCEnumDescriptor *type, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    char text[16];

    if (known != NULL) {
        put_string(j, known->name);
        return;
    }
    snprintf(text, sizeof(text), "%d", value);
    put_text(j, text);
}

static void put_scalar(json_t *j, const ProtobufCFieldDescriptor *field,
                       const void *value)
{
    const ProtobufCBinaryData *bytes = value;
    char text[32];

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        snprintf(text, sizeof(text), "%" PRId32, *(const int32_t *)value);
        put_text(j, text);
        return;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        snprintf(text, sizeof(text), "%" PRIu32, *(const uint32_t *)value);
        put_text(j, text);
        return;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        snprintf(text, sizeof(text), "\"%" PRId64 "\"", *(const int64_t *)value);
        put_text(j, text);
        return;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        snprintf(text, sizeof(text), "\"%" PRIu64 "\"", *(const uint64_t *)value);
        put_text(j, text);
        return;
    case PROTOBUF_C_TYPE_FLOAT:
        put_double(j, *(const float *)value, true);
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        put_double(j, *(const double *)value, false);
        return;
    case PROTOBUF_C_TYPE_BOOL:
        put_text(j, *(const protobuf_c_boolean *)value ? "true" : "false");
        return;
    case PROTOBUF_C_TYPE_ENUM:
        put_enum(j, field->descriptor, *(const int *)value);
        return;
    case PROTOBUF_C_TYPE_STRING:
        put_string(j, j->secrets_n > 0 ? REDACTED : *(const char *const *)value);
        return;
    case PROTOBUF_C_TYPE_BYTES:
        if (j->secrets_n > 0)
            put_base64(j, (const uint8_t *)REDACTED, strlen(REDACTED));
        else
            put_base64(j, bytes->data, bytes->len);
        return;
    case PROTOBUF_C_TYPE_MESSAGE:
        put_message(j, *(const ProtobufCMessage *const *)value);
        return;
    }
}

static void put_map_key(json_t *j, brackets_t *b, const ProtobufCFieldDescriptor *field,
                        const void *key)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        put_name(j, b, *(const char *const *)key);
        return;
    }

    /* A number or bool in quotes; 64 bits have theirs already. */
    bool is_quoted =
        field->type == PROTOBUF_C_TYPE_INT64 || field->type == PROTOBUF_C_TYPE_UINT64 ||
        field->type == PROTOBUF_C_TYPE_SINT64 || field->type == PROTOBUF_C_TYPE_FIXED64 ||
        field->type == PROTOBUF_C_TYPE_SFIXED64;

    begin_member(j, b);
    put_text(j, is_quoted ? "" : "\"");
    put_scalar(j, field, key);
    put_text(j, is_quoted ? "" : "\"");
    put_text(j, j->opts.indent > 0 ? ": " : ":");
}

static void put_map(json_t *j, const ProtobufCMessage *msg,
                    const ProtobufCFieldDescriptor *field)
{
    const ProtobufCMessageDescriptor *type = field->descriptor;
    brackets_t b = open_brackets(j, "{}");
    hd_pb_arena_t arena;
    size_t n;

    hd_pb_arena_init(&arena, j->opts.max_bytes);

    const ProtobufCMessage **entries = hd_pb_map_entries(msg, field, &arena, &n);

    if (entries == NULL)
        fail(j, HD_PB_TOO_BIG, "a map larger than is allowed here");
    for (size_t i = 0; entries != NULL && i < n && j->rc == HD_PB_OK; i++) {
        const void *value = hd_pb_at(entries[i], &type->fields[1], 0);

        put_map_key(j, &b, &type->fields[0], hd_pb_at(entries[i], &type->fields[0], 0));
        if (type->fields[1].type == PROTOBUF_C_TYPE_MESSAGE &&
            *(const void *const *)value == NULL)
            /* An entry without value has an empty one. */
            put_text(j, type->fields[1].descriptor == HD_PB(pb__value) ? "null" : "{}");
        else
            put_scalar(j, &type->fields[1], value);
    }
    hd_pb_arena_deinit(&arena);
    close_brackets(j, &b);
}

/* What must never be shown: private keys and their passwords, tickets' keys, generic
 * secrets (upstream marks the same ones sensitive). */
static bool is_secret(const ProtobufCMessageDescriptor *type,
                      const ProtobufCFieldDescriptor *field)
{
    static const struct {
        const ProtobufCMessageDescriptor *type;
        const char *field;
    } secrets[] = {
        {HD_PB(pb_tls__tls_certificate), "private_key"},
        {HD_PB(pb_tls__tls_certificate), "password"},
        {HD_PB(pb_tls__tls_certificate), "pkcs12"},
        {HD_PB(pb_tls__private_key_provider), "typed_config"},
        {HD_PB(pb_tls__tls_session_ticket_keys), "keys"},
        {HD_PB(pb_tls__generic_secret), "secret"},
        {HD_PB(pb_tls__generic_secret), "secrets"},
    };

    for (size_t i = 0; i < sizeof(secrets) / sizeof(*secrets); i++) {
        if (type == secrets[i].type && strcmp(field->name, secrets[i].field) == 0)
            return true;
    }
    return false;
}

static void put_field_name(json_t *j, brackets_t *b, const char *name)
{
    if (!j->opts.camel_names) {
        put_name(j, b, name);
        return;
    }
    begin_member(j, b);
    put(j, "\"", 1);
    for (const char *c = name; *c != '\0'; c++) {
        if (*c != '_') {
            put(j, c, 1);
        } else if (c[1] >= 'a' && c[1] <= 'z') {
            put(j, (char[]){(char)(c[1] - 'a' + 'A')}, 1);
            c++;
        }
    }
    put_text(j, j->opts.indent > 0 ? "\": " : "\":");
}

static void put_field(json_t *j, brackets_t *b, const ProtobufCMessage *msg,
                      const ProtobufCFieldDescriptor *field)
{
    size_t n = hd_pb_count(msg, field);
    bool is_hidden = j->opts.redact && is_secret(msg->descriptor, field);

    if (n == 0)
        return;
    put_field_name(j, b, field->name);
    j->secrets_n += is_hidden;
    if (hd_pb_is_map(field)) {
        put_map(j, msg, field);
    } else if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        brackets_t list = open_brackets(j, "[]");

        for (size_t i = 0; i < n && j->rc == HD_PB_OK; i++) {
            begin_member(j, &list);
            put_scalar(j, field, hd_pb_at(msg, field, i));
        }
        close_brackets(j, &list);
    } else {
        put_scalar(j, field, hd_pb_at(msg, field, 0));
    }
    j->secrets_n -= is_hidden;
}

static void put_fields(json_t *j, brackets_t *b, const ProtobufCMessage *msg)
{
    for (unsigned i = 0; i < msg->descriptor->n_fields && j->rc == HD_PB_OK; i++)
        put_field(j, b, msg, &msg->descriptor->fields[i]);
}

static void put_message(json_t *j, const ProtobufCMessage *msg)
{
    if (msg->descriptor == HD_PB(pb__any)) {
        put_any(j, (const Pb__Any *)msg);
        return;
    }
    if (put_well_known(j, msg))
        return;

    brackets_t b = open_brackets(j, "{}");

    put_fields(j, &b, msg);
    close_brackets(j, &b);
}

/* ---- entry points */

hd_pb_rc_t hd_pb_to_json(const void *msg, const hd_pb_json_opts_t *opts,
                         hd_pb_write_pt *write, void *to, hd_pb_fault_t *fault)
{
    json_t j;

    j.opts = opts != NULL ? *opts : (hd_pb_json_opts_t){0};
    if (j.opts.max_bytes == 0)
        j.opts.max_bytes = MAX_BYTES_DEFAULT;
    j.write = write;
    j.to = to;
    j.rc = HD_PB_OK;
    j.level = j.anys_n = j.secrets_n = 0;
    j.buffered_n = 0;
    put_message(&j, msg);
    flush(&j);
    if (j.rc != HD_PB_OK && fault != NULL)
        *fault = j.fault;
    return j.rc;
}

bool hd_pb_write_file(void *file, const char *text, size_t len)
{
    return fwrite(text, 1, len, file) == len;
}

typedef struct {
    char *at;
    size_t len;
} text_t;

static bool count_text(void *to, const char *text, size_t len)
{
    (void)text;
    ((text_t *)to)->len += len;
    return true;
}

static bool copy_text(void *to, const char *text, size_t len)
{
    text_t *t = to;

    memcpy(t->at, text, len);
    t->at += len;
    return true;
}

char *hd_pb_json_text(const void *msg, const hd_pb_json_opts_t *opts,
                      hd_pb_arena_t *arena, hd_pb_fault_t *fault)
{
    text_t t = {0};

    if (hd_pb_to_json(msg, opts, count_text, &t, fault) != HD_PB_OK)
        return NULL;

    char *text = hd_pb_arena_alloc(arena, t.len + 1);

    if (text == NULL) {
        if (fault != NULL)
            *fault = (hd_pb_fault_t){.rc = HD_PB_TOO_BIG, .why = "no room for the JSON"};
        return NULL;
    }
    text[t.len] = '\0';
    t.at = text;
    return hd_pb_to_json(msg, opts, copy_text, &t, fault) == HD_PB_OK ? text : NULL;
}
