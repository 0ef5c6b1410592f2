/* hd_xds: xDS resources to loom resources: from a message's bytes to the same structs
 * that nginx-style configuration builds. Nothing behind them knows where they came from.
 *
 * What isn't understood is never silently dropped. Refused (HD_ERROR with a reason, the
 * protocol's NACK) is what is malformed, fails the protocol's own validation, names an
 * unknown required extension, or sets a field that would change what happens to traffic
 * and that we don't have. Everything else without effect is a note: hd_xds_fields.c and
 * hd_xds_ext.c are the tables, with the reasons.
 *
 * In the process that writes <arena> (the agent), or a test or tool. One resource is one
 * call and one region; inline endpoints and certificates become regions beside it.
 *
 * Elsewhere: who asks for resources, and when they are published (hd_xds_client.h).
 */
#pragma once
#include "core/base/hd_array.h"
#include "core/conf/hd_conf.h"
#include "mesh/hd_dns.h"

typedef enum {
    HD_XDS_CLUSTER,
    HD_XDS_ENDPOINTS,
    HD_XDS_LISTENER,
    HD_XDS_ROUTES,
    HD_XDS_SECRET,
    HD_XDS_KINDS_N,
} hd_xds_kind_t;

const char *hd_xds_url(hd_xds_kind_t kind);   /* "type.googleapis.com/…" */
const char *hd_xds_short(hd_xds_kind_t kind); /* "CDS", "EDS", … */
hd_res_type_t hd_xds_res_type(hd_xds_kind_t kind);
/* By type URL; what stands before the last '/' isn't looked at. KINDS_N: none of these.
 */
hd_xds_kind_t hd_xds_kind(hd_str_t url);

/* Another resource that this one needs before it is warm. */
typedef struct {
    hd_xds_kind_t kind;
    hd_str_t name;
    const hd_slot_t *slot;
    uint32_t wait_ms; /* initial_fetch_timeout: then it goes on without; 0: for ever */
    bool is_local;    /* a secret that the agent makes itself ("sds-grpc") */
} hd_xds_need_t;

/* Addresses of a name, by who resolves names; n 0: not known (yet). */
typedef struct {
    const hd_addr_t *addrs; /* ports unused */
    uint32_t n;
    const hd_addr_t *first; /* in DNS's order; NULL: none */
} hd_xds_names_t;

typedef struct {
    hd_str_t host;
    const hd_dns_conf_t *how;
} hd_xds_name_t;

struct hd_xds_built_s;

/* Who we are, for zone-aware routing. */
typedef struct {
    hd_str_t local_cluster; /* empty: none is known */
    hd_str_t region, zone, subzone;
} hd_xds_self_t;

typedef struct {
    hd_arena_t *arena;
    hd_member_t *member;
    hd_batch_t *batch;
    hd_pool_t *temp;   /* what is said about the resource, until the caller is done */
    hd_build_t *build; /* may be NULL: for modules that need a log file open */
    /* STRICT_DNS, LOGICAL_DNS; NULL: no name is known. Noted in out->names. */
    hd_xds_names_t (*resolve)(void *arg, hd_str_t host, const hd_dns_conf_t *how);
    void *resolve_arg;
    /* Asked before what was built is put: false leaves it out (out->is_waiting), since
     * something that it needs isn't there yet. NULL: all is put. */
    bool (*may_put)(void *arg, const struct hd_xds_built_s *out);
    void *may_put_arg;
    const hd_xds_self_t *self; /* NULL: unknown */
    /* For tools: the root is built here and nothing is put into <batch> (NULL). */
    hd_pool_t *pool;
} hd_xds_env_t;

/* What was built, and what was said on the way; all in env->temp. */
typedef struct hd_xds_built_s {
    hd_xds_kind_t kind;
    hd_str_t name;
    hd_slot_t *slot;
    const void *root; /* of what is in force next; when is_waiting, of nothing any more */
    const void *inline_endpoints; /* of a cluster: hd_endpoints_t; NULL: none */
    bool is_unchanged;            /* equal to the live version */
    bool is_waiting;              /* may_put said so: built, and dropped */
    bool needs_no_names;          /* of a cluster: it doesn't wait for their answers */
    bool
        has_default_high; /* a cluster with limits of priority HIGH that it doesn't say */
    hd_array_t needs;     /* hd_xds_need_t */
    hd_array_t names;     /* hd_xds_name_t: host names that it depends on */
    hd_array_t clusters;  /* hd_str_t: whom routes and chains lead to, some of them twice */
    hd_array_t secrets;   /* hd_slot_t *: inline secrets put beside it */
    hd_array_t notes;     /* hd_str_t: fields and extensions without effect */
} hd_xds_built_t;

#define HD_XDS_MEMORY_MAX ((size_t)256 << 20) /* of one decoded resource */

/* Builds the resource that <bytes> encode and puts it into env->batch. <version> is for
 * people. HD_ERROR: refused, nothing of it is in the batch, <err> names field and reason.
 * <name>: what the control plane calls it; empty: whatever the message says. */
hd_rc_t hd_xds_build(const hd_xds_env_t *env, hd_xds_kind_t kind, hd_str_t name,
                     hd_str_t bytes, hd_str_t version, hd_xds_built_t *out,
                     hd_err_t *err) HD_MUST_CHECK;

/* The next cluster that was built without limits of priority HIGH, which a route with
 * that priority needs: it is to be built once more. False: no more. By the agent. */
bool hd_xds_take_high(hd_str_t *name);

/* A secret made by the agent itself, under <name>; <texts> are copied. */
struct hd_secret_s;
hd_rc_t hd_xds_put_secret(const hd_xds_env_t *env, hd_str_t name,
                          const struct hd_secret_s *texts, hd_slot_t **slot,
                          hd_err_t *err) HD_MUST_CHECK;
