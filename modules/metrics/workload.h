/* workload: who a workload is, in the words of metrics; how it travels in headers
 * (Istio's metadata exchange) and in endpoints.
 *
 * A workload_t is ordinary memory of this process, counted: those that peers told of are
 * kept in a small table, so that the same header is read once.
 */
#pragma once
#include "hd_module.h"
#include "google/protobuf.pb-c.h"

#define WORKLOAD_HEADER "x-envoy-peer-metadata"
#define WORKLOAD_ID_HEADER "x-envoy-peer-metadata-id"
#define WORKLOAD_HEADER_MAX 8192

typedef struct {
    hd_str_t name, namespace, app, version, service, revision, cluster;
} workload_names_t; /* empty: unknown */

typedef struct workload_s {
    workload_names_t names;
    uint32_t id; /* unique in the process, not 0 */
    uint32_t _refs;
    size_t _len;
    char _text[]; /* the header, then the names' bytes */
} workload_t;

/* From a peer's header; NULL: it makes no sense. Balance with workload_release. */
workload_t *workload_get(hd_str_t header);
void workload_release(workload_t *w); /* NULL is none */

/* Out of node metadata or a header's struct; strings are <s>'s (MLABEL-2 to MLABEL-7). */
void workload_read_struct(const Pb__Struct *s, workload_names_t *names);
/* "name;namespace;canonical;revision;cluster", as endpoints carry it. */
void workload_read_endpoint(hd_str_t text, workload_names_t *names);
/* The namespace of spiffe://TD/ns/NS/sa/SA; empty: none. */
hd_str_t workload_namespace_of(hd_str_t principal);
/* What the header says of <names>, in <pool>. */
hd_str_t workload_encode(const workload_names_t *names, hd_pool_t *pool);
