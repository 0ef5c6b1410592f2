/* hd_yaml: YAML text as bounded trees with line numbers, one a document.
 *
 * Hostile input costs at most the limits below: nothing recurses while parsing, depth is
 * bounded so that whoever walks a tree may. Aliases are resolved by sharing; what they
 * would expand to counts. Refused beside YAML's own errors: duplicate keys, keys that are
 * no scalars, tags but !!str, merge keys, zero bytes.
 */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

#define HD_YAML_BYTES_MAX (8u << 20) /* a file */
#define HD_YAML_NODES_MAX 1000000u   /* of a file, aliases expanded */
#define HD_YAML_DEPTH_MAX 40u
#define HD_YAML_DOCS_MAX 20000u

typedef enum {
    HD_YAML_SCALAR,
    HD_YAML_LIST,
    HD_YAML_MAP,
} hd_yaml_type_t;

typedef struct hd_yaml_entry_s hd_yaml_entry_t;

typedef struct hd_yaml_s {
    hd_yaml_type_t type;
    bool quoted; /* a scalar that is text for sure: quoted, block, or !!str */
    uint32_t line, column;
    hd_str_t text;                  /* a scalar's */
    const hd_yaml_entry_t *entries; /* of a list or map */
    uint32_t n;
    uint32_t _height, _weight; /* levels and nodes below, itself included */
} hd_yaml_t;

struct hd_yaml_entry_s {
    hd_str_t key; /* a map's; each once */
    uint32_t line;
    const hd_yaml_t *value;
};

/* The documents of <text>, into <pool>; empty ones are {scalar, ""}. On HD_ERROR
 * *err_line says where (0: nowhere in particular). */
hd_rc_t hd_yaml_parse(hd_pool_t *pool, hd_str_t text, const hd_yaml_t *const **docs,
                      size_t *docs_n, uint32_t *err_line, hd_err_t *err) HD_MUST_CHECK;

/* The value of <key> in a map; NULL if there is none, or <map> is no map. */
const hd_yaml_t *hd_yaml_get(const hd_yaml_t *map, const char *key);
/* An empty or null plain scalar: as if it weren't there. */
bool hd_yaml_is_null(const hd_yaml_t *node);
/* A plain scalar that YAML reads as a number, true or false. */
bool hd_yaml_is_number(const hd_yaml_t *node);
bool hd_yaml_is_bool(const hd_yaml_t *node, bool *value);
/* "a list", "a map", "a number" …, for messages. */
const char *hd_yaml_what(const hd_yaml_t *node);
/* The same for equal content, wherever it lies. */
uint64_t hd_yaml_digest(const hd_yaml_t *node);
