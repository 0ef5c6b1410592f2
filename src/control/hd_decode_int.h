/* hd_decode_int: the tables of fields, for the decoders of each API group only. */
#pragma once
#include "control/hd_decode.h"

typedef struct hd_decoder_s {
    const hd_decode_conf_t *conf;
    hd_pool_t *pool;    /* the object's: what is decoded lies here */
    hd_object_t *obj;   /* its metadata is read before its spec */
    hd_pool_t *scratch; /* lives until the whole text is decoded */
    hd_place_t place;   /* of the document; messages have lines of their own */
    struct hd_status_list_s *statuses;
    uint32_t errors_n, warnings_n; /* of this document */
    uint32_t path_n;
    struct {
        hd_str_t name; /* unset: an index */
        uint32_t index;
    } path[HD_YAML_DEPTH_MAX + 8];
} hd_decoder_t;

typedef enum {
    HD_D_STR,        /* hd_str_t */
    HD_D_BOOL,       /* bool, false if not set */
    HD_D_TRI,        /* int64_t: 0, 1, HD_UNSET */
    HD_D_INT,        /* int64_t in [min, max], HD_UNSET (or dflt) */
    HD_D_DOUBLE,     /* double in [min, max], dflt */
    HD_D_DURATION,   /* int64_t ns, "1m30s", at least min ns; HD_UNSET */
    HD_D_PERCENT,    /* int64_t parts per million, from a number 0-100 */
    HD_D_ENUM,       /* an enum: values; 0 (or dflt) if not set */
    HD_D_FLAT,       /* a map whose fields lie in the same struct, from <at> on */
    HD_D_OBJ,        /* a map: a pointer to a struct, NULL if not set */
    HD_D_LIST,       /* of maps: HD_LIST of structs */
    HD_D_STRS,       /* hd_strs_t */
    HD_D_NUMS,       /* hd_nums_t in [min, max] */
    HD_D_LABELS,     /* hd_labels_t: a map of texts */
    HD_D_MATCH,      /* hd_strmatch_t pointer: {exact|prefix|regex: …} */
    HD_D_MATCHES,    /* hd_strmatches_t */
    HD_D_KEYMATCHES, /* hd_keymatches_t: a map of matches; {} is "present" */
    HD_D_READ,       /* <read> does it */
    HD_D_LATER,      /* known; the struct's <check> reads it */
    HD_D_SKIP,       /* known, and nothing to a mesh: not looked at */
    HD_D_NO_EFFECT,  /* known, but without effect here: a warning */
} hd_field_type_t;

enum {
    HD_F_REQUIRED = 1,    /* set, and not empty */
    HD_F_DEFAULT = 2,     /* dflt holds where it isn't set */
    HD_F_LOWER = 4,       /* texts become lower case */
    HD_F_HOST = 8,        /* texts are hosts: resolved (HOST-1), checked (HOST-4) */
    HD_F_ZERO_UNSET = 16, /* 0 is stored as HD_UNSET (DR-CP-16) */
    HD_F_ANY_SCALAR = 32, /* a number or flag is taken as the text it is written as */
};

typedef struct {
    const char *name;
    int value;
} hd_enum_t; /* a list ends with {NULL, 0} */

typedef struct hd_schema_s hd_schema_t;

typedef struct hd_field_s {
    const char *name;
    hd_field_type_t type;
    uint32_t flags;
    size_t at;
    const hd_schema_t *schema; /* FLAT, OBJ, LIST */
    const hd_enum_t *values;   /* ENUM */
    int64_t min, max;          /* both 0: any number not below 0 */
    int64_t dflt;
    /* A text's form: what is wrong with it ("is no port"), or NULL. */
    const char *(*form)(hd_str_t value);
    void (*read)(hd_decoder_t *d, const hd_yaml_t *node, void *into);
} hd_field_t;

struct hd_schema_s {
    size_t size;
    const hd_field_t *fields; /* ends with {0} */
    const char *const *skip;  /* names treated as HD_D_SKIP; NULL-terminated, or NULL */
    /* After all fields of <node>, a map, are read into <obj>. */
    void (*check)(hd_decoder_t *d, const hd_yaml_t *node, void *obj);
};

#define HD_FIELD(S, member, yaml, kind, ...)                                             \
    {                                                                                    \
        .name = yaml, .type = HD_D_##kind, .at = offsetof(S, member), ##__VA_ARGS__      \
    }
#define HD_FIELD_NONE(yaml, kind)                                                        \
    {                                                                                    \
        .name = yaml, .type = HD_D_##kind                                                \
    }

/* A kind of object. */
typedef struct {
    hd_kind_t kind;
    const char *group;       /* "" is Kubernetes' core */
    const char *versions[4]; /* ends with NULL */
    bool is_global;          /* has no namespace */
    hd_schema_t schema;      /* of the document, but apiVersion, kind and metadata */
    /* Has no effect yet: a warning for the object says so. */
    bool not_supported;
} hd_kind_desc_t;

extern const hd_kind_desc_t hd_decode_k8s[], hd_decode_entry[], hd_decode_route[],
    hd_decode_rule[], hd_decode_gateway[],
    hd_decode_security[]; /* end with {.group NULL} */

/* --- what custom readers and checks use --- */

void hd_decode_error(hd_decoder_t *d, const hd_yaml_t *at, const char *fmt, ...)
    HD_PRINTF(3, 4);
void hd_decode_warn(hd_decoder_t *d, const hd_yaml_t *at, const char *code,
                    const char *fmt, ...) HD_PRINTF(4, 5);
/* Reads the map <node> into <into>, which is zeroed memory of schema->size. */
void hd_decode_map(hd_decoder_t *d, const hd_schema_t *schema, const hd_yaml_t *node,
                   void *into);
/* Reads one value as <f> says, into <into> + f->at; the path gets f->name. */
void hd_decode_value(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                     void *into);
/* The same into <at> itself, and without the path: for readers. */
void hd_decode_typed(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                     void *at);
void hd_decode_push(hd_decoder_t *d, const char *name);
void hd_decode_push_index(hd_decoder_t *d, uint32_t index);
void hd_decode_pop(hd_decoder_t *d);
/* Whether <map> has <key> with a value. */
bool hd_decode_has(const hd_yaml_t *map, const char *key);
/* "a, b" of those of <keys> (NULL-terminated) that <map> sets; returns how many. An error
 * if more than one, or none where <need>. */
size_t hd_decode_one_of(hd_decoder_t *d, const hd_yaml_t *map, const char *const *keys,
                        bool need);

/* "did you mean http? Allowed are a, b, c": what is near <given> among <names>
 * (NULL-terminated); <more>: there are further ones. */
hd_str_t hd_decode_choice(hd_pool_t *pool, hd_str_t given, const char *const *names,
                          bool more);

/* Forms: what is wrong with a text, to follow it in a message, or NULL. */
const char *hd_form_duration(hd_str_t s, int64_t *ns); /* Go's: "1h2m3.5s" */
const char *hd_form_ip(hd_str_t s);
const char *hd_form_cidr(hd_str_t s); /* or an IP */
const char *hd_form_port(hd_str_t s);
const char *hd_form_header(hd_str_t s);
const char *hd_form_label_value(hd_str_t s);

/* Shared pieces */
extern const hd_field_t hd_selector_fields[]; /* {matchLabels} into a hd_labels_t */
extern const hd_schema_t hd_selector_schema;
extern const hd_schema_t hd_labels_selector_schema; /* {labels} */
extern const hd_schema_t hd_pool_schema;            /* connectionPool */
extern const hd_schema_t hd_server_tls_schema;
extern const hd_schema_t hd_destination_schema;
/* [.|*|NS|~] (EXP-2) */
void hd_read_export_to(hd_decoder_t *d, const hd_yaml_t *node, void *into);
/* An enum of hd_proto_t, for Istio's ports: any case (GW-2, SE-3). */
void hd_read_protocol(hd_decoder_t *d, const hd_yaml_t *node, void *into);
/* Finds the name in <values>; for ENUM and readers. */
bool hd_find_enum(const hd_enum_t *values, hd_str_t name, bool nocase, int *value);
