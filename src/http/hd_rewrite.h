/* hd_rewrite: nginx's rewrite directives (if, set, rewrite, break, return) of a server or
 * a location, compiled to a list of operations: data in the route table's region, run
 * whenever a request comes to the place, before its filters. */
#pragma once
#include "core/conf/hd_expr.h"
#include "core/loom/hd_match.h"

struct hd_req_s;
struct hd_route_s;
struct hd_named_group_s;

typedef enum {
    HD_RW_SET,
    HD_RW_IF,
    HD_RW_REWRITE,
    HD_RW_BREAK,
    HD_RW_RETURN,
} hd_rw_kind_t;

typedef enum {
    HD_RW_TRUE, /* neither empty nor "0" */
    HD_RW_EQUAL,
    HD_RW_REGEX,
    HD_RW_FILE, /* -f */
    HD_RW_DIR,  /* -d */
    HD_RW_ANY,  /* -e */
    HD_RW_EXEC, /* -x */
} hd_rw_test_t;

typedef struct {
    uint8_t kind; /* hd_rw_kind_t */
    uint8_t test; /* IF: hd_rw_test_t */
    bool negative;
    /* IF: left side or path; SET: the value; REWRITE: the new path, or the URL */
    const hd_expr_t *value;
    const hd_expr_t *other; /* IF: right side; REWRITE: new arguments, NULL: none given */
    uint32_t skip;          /* IF: so many operations follow that are inside it */
    /* IF: the settings inside it (NULL: a server's); RETURN, and REWRITE to a URL: what
     * answers */
    const struct hd_route_s *route;
    hd_attr_t name; /* SET */
    hd_match_t regex;
    const struct hd_named_group_s *groups;
    uint32_t groups_n;
    bool is_redirect; /* REWRITE: the client is told */
    bool has_mark;    /* there is a '?' in its URL */
    bool adds_args;   /* REWRITE: the request's arguments stay, behind new ones */
    bool is_last, is_break;
} hd_rw_op_t;

typedef struct hd_rewrite_s {
    const hd_rw_op_t *ops;
    uint32_t n;
    bool log; /* rewrite_log: at level notice */
} hd_rewrite_t;

/* Runs <rw> on a request that has come to the place it is of. HD_OK: on with req->route,
 * which an `if` may have changed; *changed: the URI was rewritten, a location is to be
 * found anew. HD_DONE: req->route answers, nothing else is looked for. HD_ERROR: with
 * req->err, not answered. */
hd_rc_t hd_rewrite_run(struct hd_req_s *req, const hd_rewrite_t *rw,
                       bool *changed) HD_MUST_CHECK;
