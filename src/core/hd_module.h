/* hd_module: what a module sees of Heddle; the only header it needs (with src/proto). ◆
 *
 * A module is one shared object that exports `const hd_module_t hd_module`. It sees
 * requests through functions rather than struct layouts, so that the core stays free to
 * change.
 *
 * Configuration: conf_size bytes a block, zeroed, inherited by inner blocks, built by the
 * module's directives (nginx-style) or by its xDS types; it lies in shared memory,
 * read-only once published: data only, everything it points to in cf->pool. A conf that
 * is all zero means "not used here": the module's callbacks are not called there.
 * Filters: request callbacks run in order, response callbacks in reverse order. A
 * callback returns
 *
 *     HD_OK       go on
 *     HD_AGAIN    wait: after hd_req_wake (or hd_req_wait_ms's time) the same callback is
 *                 called again; hd_req_is_resumed tells
 *     HD_DONE     answered (hd_req_answer): the response filters and the log still run
 *     HD_REROUTE  find a route anew (at most 10 times a request)
 *     HD_ERROR    failed (hd_req_fail)
 *
 * All callbacks run in a worker's loop: nothing may block.
 */
#pragma once
#include "core/base/hd_array.h"
#include "core/base/hd_base64.h"
#include "core/base/hd_buf.h"
#include "core/base/hd_hashes.h"
#include "core/base/hd_list.h"
#include "core/base/hd_log.h"
#include "core/base/hd_map.h"
#include "core/base/hd_rate.h"
#include "core/conf/hd_conf.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_module_table.h"
#include "core/hd_call.h"
#include "core/hd_grpc.h"
#include "core/loom/hd_gauge.h"
#include "core/loom/hd_match.h"
#include "core/loom/hd_series.h"
#include "core/net/hd_clients.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_listener.h"
#include "core/net/hd_syslog.h"
#include "core/proc/hd_files.h"
#ifndef HD_ABI_MAKING
#include "hd_abi.h"
#endif

#define HD_MODULE_ABI_NUMBER 2u
/* The number above, and in the low bits a hash over name, offset and size of every field
 * of every struct in this header and those it includes (hd_abi.h, made by auto/abi), as
 * the module's compiler laid them out: one built with other headers, or laid out
 * otherwise, is refused with a clear error. */
#define HD_MODULE_ABI (HD_MODULE_ABI_NUMBER << 24 | (uint32_t)(HD_ABI_HASH) >> 8)

typedef struct hd_req_s hd_req_t;

/* Where nginx-style configuration places a module's request filters; xDS places them in
 * the order received. Within a phase: the order of loading. */
typedef enum {
    HD_PHASE_NONE = 0,  /* no request filters */
    HD_PHASE_POST_READ, /* before a route is looked for: realip, … */
    HD_PHASE_REWRITE,
    HD_PHASE_PREACCESS, /* limits, faults */
    HD_PHASE_AUTHN,     /* who is it: mtls, jwt */
    HD_PHASE_ACCESS,    /* may it: authz, ext_authz */
    HD_PHASE_CONTENT,   /* changes to head and body: lua, headers, retry policies */
} hd_phase_t;
#define HD_ORDERS 8u

/* An xDS typed_config that the module understands. */
typedef struct hd_xds_type_s {
    const char *url; /* "type.googleapis.com/…" */
    /* Builds <conf> (conf_size bytes, zeroed, in cf->pool) from the message's bytes.
     * HD_ERROR refuses the resource (NACK) with the reason. <is_route>: a per-route
     * override. */
    hd_rc_t (*build)(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                     hd_err_t *err);
    bool is_network; /* an L4 filter: on_conn is meant */
} hd_xds_type_t;

typedef enum {
    HD_TRY_DONE,  /* this result is the answer */
    HD_TRY_RETRY, /* another try, after *wait_ms */
    HD_TRY_HEDGE, /* another try beside this one */
} hd_verdict_t;

typedef struct {
    hd_pick_result_t result;
    unsigned status;      /* of the response; 0: none came */
    unsigned grpc_status; /* from headers of a trailers-only answer; UINT32_MAX: none */
    uint32_t attempt;     /* 1: the first */
    bool head_sent;       /* bytes of the request reached the upstream */
    bool is_reused_conn;  /* a kept-alive conn that may have been closed meanwhile */
    bool refused_stream;  /* REFUSED_STREAM, or GOAWAY below its id */
    bool is_invalid;      /* what came is no response */
    bool is_denied;       /* nobody was asked: …_allow_upstream said no */
} hd_try_result_t;

typedef struct {
    const char *path; /* "/memory" */
    const char *help;
    /* Writes the page into <out>; content type by *type. In the agent's process. */
    hd_rc_t (*get)(hd_str_t query, hd_pool_t *pool, hd_chain_t *out, hd_str_t *type);
} hd_admin_page_t;

/* What a script gives and gets: strings are borrowed for the call; a string given back
 * must live as long as the request's pool. */
typedef enum {
    HD_SCRIPT_NIL,
    HD_SCRIPT_BOOL,
    HD_SCRIPT_NUMBER,
    HD_SCRIPT_STRING,
} hd_script_type_t;

typedef struct {
    hd_script_type_t type;
    bool boolean;
    double number;
    hd_str_t string;
} hd_script_value_t;

/* A function that policy scripts may call: `hd.MODULE.NAME(…)` in Lua. It must not block
 * and can't wait. HD_ERROR: the script ends with the reason. */
typedef struct {
    const char *name;
    hd_rc_t (*call)(hd_req_t *req, const hd_script_value_t *args, uint32_t args_n,
                    hd_script_value_t *out, hd_err_t *err);
    const char *help; /* "ARGS: what it gives" */
} hd_script_function_t;

typedef enum {
    HD_SESSION_OPENED, /* the upstream is connected; not told of one that never was */
    HD_SESSION_ENDED,  /* once for each session */
} hd_session_event_t;

typedef struct hd_module_s {
    uint32_t abi; /* HD_MODULE_ABI */
    const char *name;
    const hd_directive_t *directives; /* ends with name NULL */
    size_t conf_size;
    hd_phase_t phase;
    /* Within the phase, below HD_ORDERS: smaller ones come first, equal ones in the order
     * of loading. */
    uint8_t order;
    /* Of HD_PHASE_POST_READ: where a location has settings of its own it is called once
     * more, before the other filters. */
    bool is_again_in_location;
    /* Of nginx's access and preaccess phases, which `return` and redirects of the rewrite
     * phase come before. */
    bool follows_rewrite;
    const hd_xds_type_t *xds_types;               /* ends with url NULL */
    const hd_attr_def_t *attributes;              /* ends with name NULL */
    const hd_admin_page_t *admin_pages;           /* ends with path NULL */
    const hd_script_function_t *script_functions; /* ends with name NULL */

    /* After all directives of a block were applied, before it is used: check and
     * complete. */
    hd_rc_t (*on_conf)(hd_conf_t *cf, void *conf, hd_err_t *err);
    hd_rc_t (*on_process_start)(hd_member_t *m, hd_loop_t *loop, hd_err_t *err);
    void (*on_process_stop)(hd_member_t *m);

    hd_rc_t (*on_request_headers)(hd_req_t *req, const void *conf);
    hd_rc_t (*on_request_body)(hd_req_t *req, const void *conf, hd_chain_t *body);
    hd_rc_t (*on_request_trailers)(hd_req_t *req, const void *conf);
    hd_rc_t (*on_response_headers)(hd_req_t *req, const void *conf);
    hd_rc_t (*on_response_body)(hd_req_t *req, const void *conf, hd_chain_t *body);
    hd_rc_t (*on_response_trailers)(hd_req_t *req, const void *conf);
    /* A file of <length> bytes is about to be answered with: will the filter change its
     * bytes? Then the whole of it goes out, whatever part the client asks for. <encoding>:
     * its Content-Encoding, or empty. */
    bool (*changes_file)(hd_req_t *req, const void *conf, hd_str_t type,
                         hd_str_t encoding, int64_t length);
    void (*on_log)(hd_req_t *req, const void *conf);

    /* Upstream: before each try's pick (may set hash, subset, or the endpoint itself:
     * <wanted>, of hd_pick_endpoints), and after each try. */
    hd_rc_t (*on_pick)(hd_req_t *req, const void *conf, hd_pick_t *pick);
    hd_verdict_t (*on_try_result)(hd_req_t *req, const void *conf,
                                  const hd_try_result_t *r, uint64_t *wait_ms);

    /* L4: after transport, before the protocol; of a session of stream: when it has its
     * upstream, and at its end. */
    hd_rc_t (*on_conn)(hd_conn_t *c, const void *conf);
    void (*on_session)(hd_conn_t *c, const void *conf, hd_session_event_t event);
} hd_module_t;

/* --- requests: borrowed strings are good while the request lives and the field isn't
 * changed --- */
hd_pool_t *hd_req_pool(hd_req_t *req);
hd_conn_t *hd_req_conn(hd_req_t *req); /* the client's; NULL: a call of our own */
const hd_listener_t *hd_req_listener(hd_req_t *req); /* NULL: a call of our own */
hd_member_t *hd_req_member(hd_req_t *req);
hd_loop_t *hd_req_loop(hd_req_t *req);
/* Who the client is, past the proxies that configuration trusts (X-Forwarded-For), else
 * hd_conn_remote; NULL: a call of our own. Its port may be 0. */
const hd_addr_t *hd_req_remote(hd_req_t *req);
/* Says who the client is from now on, for variables, logs, balancing and policies; an IP
 * address. */
void hd_req_set_remote(hd_req_t *req, const hd_addr_t *addr);
hd_str_t hd_req_method(hd_req_t *req);
hd_str_t hd_req_scheme(hd_req_t *req);
hd_str_t hd_req_authority(hd_req_t *req); /* lower case, port included as sent */
hd_str_t hd_req_path(hd_req_t *req);      /* normalised, without query */
hd_str_t hd_req_raw_path(hd_req_t *req);  /* as received, with query */
hd_str_t hd_req_query(hd_req_t *req);
/* The first value; empty when absent (*found tells, may be NULL). <name> in any case. */
hd_str_t hd_req_header(hd_req_t *req, hd_str_t name, bool *found);
/* All values joined by ',' as the upstream would see them: what policies compare. */
hd_str_t hd_req_header_joined(hd_req_t *req, hd_str_t name, bool *found);
hd_rc_t hd_req_add_header(hd_req_t *req, hd_str_t name, hd_str_t value);
hd_rc_t hd_req_set_header(hd_req_t *req, hd_str_t name, hd_str_t value);
void hd_req_remove_header(hd_req_t *req, hd_str_t name);
void hd_req_set_path(hd_req_t *req, hd_str_t path_and_query); /* towards the upstream */
/* In on_try_result: of the response that is judged. */
hd_str_t hd_res_header(hd_req_t *req, hd_str_t name, bool *found);
hd_rc_t hd_res_add_header(hd_req_t *req, hd_str_t name, hd_str_t value);
hd_rc_t hd_res_set_header(hd_req_t *req, hd_str_t name, hd_str_t value);
void hd_res_remove_header(hd_req_t *req, hd_str_t name);
/* Walk: start with *at = 0. */
bool hd_req_next_header(hd_req_t *req, uint32_t *at, hd_str_t *name, hd_str_t *value);
bool hd_res_next_header(hd_req_t *req, uint32_t *at, hd_str_t *name, hd_str_t *value);
unsigned hd_res_status(hd_req_t *req);
void hd_res_set_status(hd_req_t *req, unsigned status);
/* Does the client take gzip, and may this response be compressed for it (nginx's
 * gzip_http_version, gzip_proxied, gzip_disable)? */
bool hd_req_takes_gzip(hd_req_t *req);
/* nginx's gzip_vary. */
bool hd_req_has_gzip_vary(hd_req_t *req);
/* Of the response's body, in bytes; -1: not known. Removing Content-Length forgets it. */
int64_t hd_res_content_length(hd_req_t *req);
/* In on_response_headers: the body of this response doesn't concern the filter, whose
 * callbacks for body and trailers aren't called. Where it concerns none, files go to the
 * client without being read. */
void hd_res_skip_body(hd_req_t *req);

/* X-Accel-Charset: in which charset the upstream wants its answer to be; empty: it says
 * nothing. */
hd_str_t hd_res_wanted_charset(hd_req_t *req);

/* In on_response_body: of the body it takes no more now. Once what it left in <body>,
 * with HD_OK, has gone on, it is called again with <rest> (moved), before any other
 * bytes. Who leaves nothing waits (HD_AGAIN) instead. */
void hd_res_put_back(hd_req_t *req, hd_chain_t *rest);
/* In on_response_body, before it adds bytes of its own: has the client no room for them?
 * Then the filter waits, and is called again when there is some. */
bool hd_res_is_full(hd_req_t *req);

/* Of a 200 with <etag> (empty: none) that was changed at <mtime_s>, in seconds since 1970:
 * does the client have it (304), or does it refuse it (412)? 0: neither. RFC 9110 §13;
 * nginx's if_modified_since. */
unsigned hd_req_conditional(hd_req_t *req, hd_str_t etag, int64_t mtime_s);

/* Answers with <body> (copied) instead of going on; returns HD_DONE. <flag>: response
 * flag for the log ("FI", "RBAC", …), <details> likewise (Envoy's response code details).
 */
hd_rc_t hd_req_answer(hd_req_t *req, unsigned status, hd_str_t type, hd_str_t body,
                      const char *flag, const char *details);
/* Is the request gRPC's (by its content-type)? Then the answer is a status of gRPC: 200,
 * trailers only; returns HD_DONE. */
bool hd_req_is_grpc(hd_req_t *req);
hd_rc_t hd_req_answer_grpc(hd_req_t *req, uint32_t code, hd_str_t message,
                           const char *flag, const char *details);
/* The same for a failure: the reason goes to the error log; returns HD_ERROR. */
hd_rc_t hd_req_fail(hd_req_t *req, unsigned status, hd_err_code_t code, const char *fmt,
                    ...) HD_PRINTF(4, 5);
/* Closes the client's conn without an answer (a fault, nginx's 444); returns HD_DONE. */
hd_rc_t hd_req_abort(hd_req_t *req, const char *flag);
void hd_req_set_flag(hd_req_t *req, const char *flag); /* adds a response flag */

void hd_req_wake(hd_req_t *req); /* posts: never runs the request at once */
hd_rc_t hd_req_wait_ms(hd_req_t *req, uint64_t ms); /* returns HD_AGAIN */
bool hd_req_is_resumed(hd_req_t *req);
/* A filter changed what routing looks at: after it returned HD_OK the route is found anew
 * and the chain goes on behind it, state kept (xDS's clear_route_cache; on a listener's
 * chain, not on a location's). */
void hd_req_find_route_anew(hd_req_t *req);
/* A pointer of the module's own on the request, cleared by a reroute. */
void *hd_req_state(hd_req_t *req, const hd_module_t *module);
void hd_req_set_state(hd_req_t *req, const hd_module_t *module, void *state);
/* The module's conf in force on this request, as its callbacks get it; NULL: not used
 * here. */
const void *hd_req_conf(hd_req_t *req, const hd_module_t *module);

/* Does <s> match a pattern of this request's configuration? */
bool hd_req_match(hd_req_t *req, const hd_match_t *p, hd_str_t s);
hd_rc_t hd_expr_eval(const hd_expr_t *e, hd_req_t *req, hd_str_t *out) HD_MUST_CHECK;
hd_attr_of_t hd_req_attr_of(hd_req_t *req);
int hd_hex_value(char c); /* 0…15, -1 */
bool hd_http_is_field_name(hd_str_t name);
bool hd_http_is_field_value(hd_str_t value);

/* A line in the error log of the place where the request is, followed by client, server,
 * request and the rest in nginx's form. Arguments are evaluated only if it is written. */
#define hd_req_log(req, level, ...)                                                      \
    do {                                                                                 \
        if (hd_unlikely(hd_req_logs(req, level)))                                        \
            hd_req_log_write(req, level, __VA_ARGS__);                                   \
    } while (0)
bool hd_req_logs(const hd_req_t *req, hd_log_level_t level);
void hd_req_log_write(hd_req_t *req, hd_log_level_t level, const char *fmt, ...)
    HD_PRINTF(3, 4);

/* --- requests of our own inside this one (nginx's subrequests) --- */
/* The body of a sub's answer, whatever its status, for who reads it in the request's own
 * filters. Zeroed, in the request's pool. */
typedef struct {
    hd_chain_t bytes;      /* not taken yet; without flags */
    bool is_whole, is_cut; /* no more come: that was all, or it broke off */
    hd_req_t *_sub;        /* NULL: it has ended */
} hd_sub_body_t;

typedef struct {
    hd_str_t uri, args; /* a location of the same server; copied */
    hd_str_t method;    /* empty: the request's */
    bool with_body;     /* it gets the request's body, too, as it comes */
    bool is_background; /* goes on when the request ends; else it is let go of then */
    /* The answer's head is there: in <sub>, as in a request of its own (hd_res_status,
     * hd_res_header, hd_expr_eval). Once, unless the request ended before; the request is
     * woken behind it. NULL: nobody asks. */
    void (*on_head)(hd_req_t *sub, void *arg);
    void *arg;
    /* Who reads its body: the request is woken whenever there is more of it, or its end.
     * NULL: nobody does. */
    hd_sub_body_t *body;
} hd_sub_spec_t;
/* Starts it; never calls back at once. It passes no access control and isn't logged.
 * False: it would be one within too many, or one of too many, which is logged. */
bool hd_req_start_sub(hd_req_t *req, const hd_sub_spec_t *spec);
/* Moves what is there to <to>; more may come then. */
void hd_sub_take_body(hd_sub_body_t *body, hd_chain_t *to);
bool hd_req_is_sub(const hd_req_t *req);
/* Whose sub it is; NULL: nobody's, or that has ended. */
hd_req_t *hd_req_parent(const hd_req_t *req);

/* --- log files: named by hd_build_need_log where configuration is read, opened by the
 * master, replaced at reopen --- */
typedef struct hd_file_s hd_file_t;
/* NULL: this process was not given it. */
hd_file_t *hd_file_get(hd_str_t path);
/* A whole line with its newline. <buffered> false: at once, else within a second; with
 * hd_file_write_as as <how> says. */
void hd_file_write(hd_file_t *f, hd_str_t line, bool buffered);

/* --- what the log phase may ask --- */
typedef struct {
    unsigned status, upstream_status, tries;
    int64_t start_wall_ns;
    uint64_t duration_ns, upstream_duration_ns; /* 0: no upstream */
    uint64_t bytes_received, bytes_sent;        /* bodies */
    uint64_t head_bytes_received, head_bytes_sent;
    hd_str_t flags;   /* "-" or "UF,URX" */
    hd_str_t details; /* "via_upstream", … */
    hd_str_t upstream_host, cluster, route, protocol;
    hd_str_t upstream_peer, upstream_self; /* verified identities; empty: no mTLS */
    hd_str_t error;                        /* why it failed; empty */
    uint32_t grpc_status;                  /* UINT32_MAX: none */
    bool is_grpc, upstream_is_reused;
    const hd_cluster_t *cluster_conf; /* in this turn; NULL: none */
    const hd_endpoint_t *endpoint;
    const hd_listener_t *listener;
} hd_req_info_t;
void hd_req_get_info(hd_req_t *req, hd_req_info_t *info);
/* --- what may be asked of a session of stream (TCP, UDP), by its client's conn --- */
typedef struct {
    unsigned status; /* nginx's: 200, 403, 500, 502, 503; 0: it goes on */
    int64_t start_wall_ns;
    uint64_t duration_ns;
    uint64_t bytes_received, bytes_sent; /* from and to the client, so far */
    hd_str_t flags;                      /* "-" or "UF,URX" */
    hd_str_t upstream_host, cluster, protocol;
    hd_str_t error;       /* why it failed; empty */
    const char *ended_by; /* "downstream", "upstream", "idle" …; NULL: unknown */
    bool is_opened;       /* it had an upstream */
    const hd_filter_chain_t *chain;
    const hd_listener_t *listener;
    const hd_cluster_t *cluster_conf; /* in this turn; NULL: none */
    const hd_endpoint_t *endpoint;
    const hd_conn_t *upstream; /* NULL: none now, or UDP */
} hd_session_info_t;
/* False: <c> isn't the client of a session. */
bool hd_session_get_info(hd_conn_t *c, hd_session_info_t *info);
/* A pointer of the module's own on the session. */
void *hd_session_state(hd_conn_t *c, const hd_module_t *module);
void hd_session_set_state(hd_conn_t *c, const hd_module_t *module, void *state);

/* A small cache for metric series of a module on this client's conn, route and endpoint:
 * what is stored in one of its HD_SERIES_CACHE slots is found again by later requests,
 * else it is 0. The slots behind <slot> follow it. NULL: no such slot. Good until the
 * next call. */
#define HD_SERIES_CACHE 16u
hd_series_t *hd_req_series_cache(hd_req_t *req, const hd_module_t *module, uint32_t slot);
