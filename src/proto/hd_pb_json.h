/* hd_pb_json: any message as JSON, in protobuf's own mapping (and so in Envoy's form): an
 * Any with "@type" beside its fields, durations "1.5s", wrappers as what they wrap,
 * structs as the JSON that they are, bytes in base64, enums by name, 64-bit integers as
 * strings; what isn't set is left out; a map's keys are sorted. Where the mapping has no
 * answer: an Any of a type that we don't know is {"@type": URL, "value": its bytes in
 * base64}; unknown fields are left out (hd_pb_unknown_fields lists them). */
#pragma once
#include "hd_pb.h"

/* Gets the text piece by piece; false stops. */
typedef bool hd_pb_write_pt(void *to, const char *text, size_t len);

/* A writer whose <to> is a FILE *. */
bool hd_pb_write_file(void *file, const char *text, size_t len);

typedef struct {
    bool camel_names; /* typeUrl instead of type_url */
    bool redact;     /* private keys and their like as "[redacted]", as in Envoy's dump */
    unsigned indent; /* spaces a level; 0: all in one line */
    size_t max_bytes; /* memory for Anys and for sorting maps; 0: 64 MiB */
} hd_pb_json_opts_t;

/* <opts> may be NULL: proto's names, one line. On failure what was written is cut short;
 * what the reason was stands in <fault>, which may be NULL. */
hd_pb_rc_t hd_pb_to_json(const void *msg, const hd_pb_json_opts_t *opts,
                         hd_pb_write_pt *write, void *to,
                         hd_pb_fault_t *fault) HD_PB_MUST_CHECK;

/* The same into a C string, lent by <arena>. */
char *hd_pb_json_text(const void *msg, const hd_pb_json_opts_t *opts,
                      hd_pb_arena_t *arena, hd_pb_fault_t *fault) HD_PB_MUST_CHECK;
