/* hd_attr: attributes: one mechanism for nginx variables, dynamic metadata and filter
 * state. ◆
 *
 * A *key* is a name with a type, where it lives (conn: inherited through internal hops;
 * request) and whether a reroute clears it. Values are evaluated lazily, at most once
 * where the definition says so. authz, logs, metrics, Lua and routing read only these.
 * Peer identity has no setter: it comes from the TLS or HBONE layer.
 *
 * Definitions are registered at process start by core and modules in the same order in
 * all processes of a generation, so that a number in the arena means the same everywhere.
 * Names made by configuration (`set $x`, map, captures) are kept by name, with their
 * hash, in a small table of the request. Prefixed families: $http_NAME, $sent_http_NAME,
 * $upstream_http_NAME, $arg_NAME, $cookie_NAME, $trailer_NAME: one definition with the
 * rest of the name as parameter.
 */
#pragma once
#include "core/net/hd_conn.h"

struct hd_req_s;

typedef enum {
    HD_VAL_NONE = 0,
    HD_VAL_STR,
    HD_VAL_INT,
    HD_VAL_BOOL,
    HD_VAL_PTR
} hd_val_type_t;

typedef struct {
    uint8_t type; /* NONE: there is no such value: nginx's "not found" */
    bool no_cache;
    union {
        hd_str_t str;
        int64_t num;
        void *ptr;
    };
} hd_val_t;

/* A string isn't copied: it lives as long as whom it is asked of, or in of->pool. */
static inline void hd_val_set_str(hd_val_t *out, hd_str_t s)
{
    out->type = HD_VAL_STR;
    out->str = s;
}

/* An empty value counts as none, as in nginx's log ("-"). */
static inline void hd_val_set_if_any(hd_val_t *out, hd_str_t s)
{
    if (s.len > 0)
        hd_val_set_str(out, s);
}

static inline void hd_val_set_int(hd_val_t *out, int64_t n)
{
    out->type = HD_VAL_INT;
    out->num = n;
}

/* Whom a value is asked of. req NULL: on a conn (stream). conn NULL: a request without a
 * client conn. */
typedef struct {
    hd_conn_t *conn;
    struct hd_req_s *req;
    hd_pool_t *pool; /* where strings made on the way live */
    hd_member_t *member;
} hd_attr_of_t;

enum {
    HD_ATTR_CONN = 1,      /* lives on the conn, inherited by internal hops */
    HD_ATTR_REQ = 2,       /* needs a request */
    HD_ATTR_VOLATILE = 4,  /* asked anew each time */
    HD_ATTR_KEPT = 8,      /* survives a reroute */
    HD_ATTR_PREFIX = 16,   /* a family: <name> is the prefix */
    HD_ATTR_SETTABLE = 32, /* configuration may `set` it */
};

typedef struct {
    const char *name; /* without '$' */
    uint8_t type;
    uint8_t flags;
    /* <rest>: of a family; else empty. */
    void (*get)(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out);
    hd_rc_t (*set)(const hd_attr_of_t *of, hd_val_t value);
    const char *help;
} hd_attr_def_t;

/* A key as configuration keeps it; arena-safe. */
typedef struct {
    uint16_t def;  /* number of the definition; 0: by name only */
    uint32_t hash; /* of name */
    hd_str_t name; /* whole name; a family's rest begins at <rest_at> */
    uint16_t rest_at;
} hd_attr_t;

/* At start only. A second definition of a name is an error of the program, unless one of
 * them needs a request (HD_ATTR_REQ) and the other is asked of a conn alone. */
void hd_attr_register(const hd_attr_def_t *defs); /* up to one with name NULL */
const hd_attr_def_t *hd_attr_def(uint16_t number);
/* What a name that needs a request means where there is only a conn; NULL: nothing. */
const hd_attr_def_t *hd_attr_conn_def(uint16_t number);
uint16_t hd_attr_defs_n(void);
/* Key for <name>; <declare>: a name that nothing defines becomes a by-name key (`set`,
 * map); otherwise unknown names are refused with "unknown variable". The name is copied
 * to <pool>. */
hd_rc_t hd_attr_key(hd_pool_t *pool, hd_str_t name, bool declare, hd_attr_t *key,
                    hd_err_t *err) HD_MUST_CHECK;

/* Lazily: from the cache of conn or request, else by its definition. */
void hd_attr_get(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t *out);
/* Stores a value under a key (a string is not copied: it lives as long as of->pool). */
hd_rc_t hd_attr_set(const hd_attr_of_t *of, const hd_attr_t *key, hd_val_t value);
/* As text; empty when there is none. Numbers are printed into of->pool. */
hd_str_t hd_attr_text(const hd_attr_of_t *of, const hd_attr_t *key);
/* Nanoseconds as seconds with three decimals, the way of nginx's variables of time. */
hd_str_t hd_attr_seconds(hd_pool_t *pool, uint64_t ns);
/* By name at run time (Lua, metadata): slow path. */
void hd_attr_get_by_name(const hd_attr_of_t *of, hd_str_t name, hd_val_t *out);

/* The store on a request or conn: made lazily in its pool. */
typedef struct hd_attrs_s hd_attrs_t;
hd_attrs_t *hd_attrs_create(hd_pool_t *pool);
/* Values of by-name keys that nothing has stored (`map`); *out is NONE. Set by src/http
 * for requests, by hd_value_map for conns without one; NULL: there are none. */
extern void (*hd_attr_resolve)(const hd_attr_of_t *of, const hd_attr_t *key,
                               hd_val_t *out);
extern void (*hd_attr_resolve_conn)(const hd_attr_of_t *of, const hd_attr_t *key,
                                    hd_val_t *out);
/* Where a request's store is; set by src/http. */
extern hd_attrs_t **(*hd_attrs_of_req)(struct hd_req_s *req);
void hd_attrs_on_reroute(hd_attrs_t *attrs); /* drops what is not KEPT */
/* Copies what is inherited through an internal hop. */
void hd_attrs_inherit(hd_attrs_t *to, const hd_attrs_t *from, hd_pool_t *pool);
