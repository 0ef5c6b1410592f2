/* cond: a condition on a request or a conn, as a tree of plain data in the region being
 * built; both front ends (directives, RBAC messages) build the same tree.
 *
 * Who asks gives a subject. On a conn without a request (L4) what needs one is false. A
 * regular expression that was given up at its limit is neither true nor false: then
 * subject.failed is set, and the caller must refuse.
 */
#pragma once
#include "lib/pb_match.h"
#include "hd_module.h"

typedef enum {
    COND_ANY,
    COND_NEVER,
    COND_AND,          /* kids; of none: true */
    COND_OR,           /* kids; of none: false */
    COND_NOT,          /* the first kid's opposite */
    COND_METHOD,       /* match */
    COND_HOST,         /* match, on the authority as sent, in lower case */
    COND_PATH,         /* match, on the normalised path without query */
    COND_TEMPLATE,     /* match.text: a path with * and ** */
    COND_HEADER,       /* header */
    COND_DST_IP,       /* cidr */
    COND_DST_PORT,     /* from <= port < to */
    COND_SNI,          /* match */
    COND_PRINCIPAL,    /* match, on the peer's verified identity; none: never */
    COND_PRINCIPAL_ID, /* the same without "spiffe://" */
    COND_NAMESPACE,    /* match, on NS of spiffe://TD/ns/NS/… */
    COND_ACCOUNT,      /* match, on NS/SA of spiffe://TD/ns/NS/sa/SA */
    COND_DOMAIN,       /* match, on TD */
    COND_DIRECT_IP,    /* cidr: who the socket's other end is */
    COND_REMOTE_IP,    /* cidr: the client, by X-Forwarded-For or PROXY protocol */
} cond_kind_t;

typedef struct cond_s {
    uint8_t kind; /* cond_kind_t */
    uint32_t kids_n;
    const struct cond_s *kids;
    union {
        hd_match_t match;
        hd_cidr_t cidr;
        const pb_header_match_t *header;
        struct {
            uint32_t from, to;
        };
    };
} cond_t;

typedef struct {
    hd_req_t *req; /* NULL: only a conn */
    hd_conn_t *conn;
    hd_member_t *member;
    const hd_region_t *region; /* where the tree lies */
    bool keeps_out;            /* what is true here leads to a refusal */
    bool failed;               /* set where a test could not be finished */
} cond_subject_t;

bool cond_is_true(const cond_t *c, cond_subject_t *s);

/* AND, OR of <n> conditions (copied); of one: that one. */
cond_t cond_of(hd_pool_t *pool, cond_kind_t kind, const cond_t *kids, uint32_t n);
cond_t cond_not(hd_pool_t *pool, cond_t c);

/* Checks a path template ("/a/ * /b/ **" without the blanks, or with {*} and {**}) and
 * makes the condition: * is one segment or a part of it, not empty; ** is anything, and
 * the last of them. */
hd_rc_t cond_template(hd_pool_t *pool, hd_str_t text, cond_t *c,
                      hd_err_t *err) HD_MUST_CHECK;
