/* hd_route: what a router returns, the same for nginx's location tree and xDS's match
 * list: an action with its settings, and settings of filters. Data in a HD_RES_ROUTES
 * region. ◆ */
#pragma once
#include "core/conf/hd_expr.h"
#include "core/loom/hd_match.h"
#include "core/net/hd_cluster.h"
#include "core/net/hd_listener.h"
#include "core/net/hd_resolve.h"

typedef enum {
    HD_ACT_NONE = 0, /* 404 */
    HD_ACT_PROXY,
    HD_ACT_FILE,
    HD_ACT_ANSWER, /* return 200 "text" */
    HD_ACT_REDIRECT,
    HD_ACT_TUNNEL,   /* CONNECT */
    HD_ACT_INTERNAL, /* to an internal listener */
    HD_ACT_SERVICE,  /* hd_service.h, by number */
} hd_action_kind_t;

/* A filter with settings: in a listener's chain, or a route's override (same name). */
typedef struct {
    hd_str_t name;
    uint16_t module;
    bool is_disabled; /* override: not run on this route */
    const void *conf;
} hd_filter_conf_t;

typedef struct {
    hd_str_t name;
    const hd_expr_t *value;
    uint8_t how; /* hd_header_op_t */
    bool always; /* add_header … always */
    bool keep_empty;
} hd_header_op_conf_t;

typedef enum {
    HD_HOP_APPEND, /* add beside what is there */
    HD_HOP_SET,    /* overwrite or add */
    HD_HOP_ADD_IF_ABSENT,
    HD_HOP_OVERWRITE_IF_EXISTS,
    HD_HOP_REMOVE,
} hd_header_op_t;

/* nginx's `expires`. */
typedef enum {
    HD_EXPIRES_NOT,
    HD_EXPIRES_EPOCH,
    HD_EXPIRES_MAX,
    HD_EXPIRES_ACCESS,   /* from now */
    HD_EXPIRES_MODIFIED, /* from Last-Modified */
    HD_EXPIRES_DAILY,    /* at that time of day */
} hd_expires_kind_t;
typedef struct {
    uint8_t kind; /* hd_expires_kind_t */
    int64_t seconds;
    const hd_expr_t *value; /* says it on the request; NULL: as above */
} hd_expires_t;

typedef struct {
    const hd_slot_t *cluster;
    hd_str_t cluster_name; /* as configured */
    uint32_t weight;
    const hd_header_op_conf_t *request_ops, *response_ops;
    uint32_t request_ops_n, response_ops_n;
    const hd_kv_t *subset;
    uint32_t subset_n;
    const hd_filter_conf_t *filters;
    uint32_t filters_n;
    const hd_fixed_pick_t *fixed; /* of calls of our own; else NULL */
} hd_weighted_t;

typedef struct {
    hd_str_t header, cookie, query; /* which one: not empty */
    bool source_ip, terminal;
    hd_match_t rewrite; /* of the header's value; text.len 0: none */
    hd_str_t rewrite_to;
    /* A client without the cookie gets one, and it counts at once. */
    bool makes_cookie;
    uint64_t cookie_ttl_s; /* 0: until the browser ends */
    hd_str_t cookie_path;
    hd_str_t cookie_attributes; /* "; Name=Value", as they are sent */
} hd_hash_policy_t;

/* xDS upgrade_configs: may a client ask for this protocol? */
typedef struct {
    hd_str_t type; /* a token of Upgrade, in any case; "CONNECT": the method */
    bool is_on;
} hd_upgrade_t;

typedef struct {
    const hd_upgrade_t *items;
    uint32_t n;
} hd_upgrades_t;

/* Fields of an upstream's response that are told to us (hd_proxy_accel_bit). */
enum {
    HD_IGNORES_REDIRECT = 1, /* X-Accel-Redirect */
    HD_IGNORES_BUFFERING = 2,
    HD_IGNORES_LIMIT_RATE = 4,
    HD_IGNORES_CHARSET = 8,
    HD_IGNORES_EXPIRES = 16, /* for a cache: there is none */
};

/* The upstream's host by the request: a field's value, or what a pattern makes of the path;
 * nothing comes of a field that isn't there. */
typedef struct {
    hd_str_t header; /* empty: by the path */
    hd_match_t path;
    hd_str_t path_to;
} hd_host_rewrite_t;

typedef struct {
    const hd_weighted_t *targets; /* at least one, but for cluster_expr */
    uint32_t targets_n, weights_total;
    const hd_expr_t
        *cluster_expr; /* name computed on the request (variables, cluster_header) */
    /* Of <uri>: the cluster of hosts that are no cluster's name, and who is asked for
     * them (NULL: nobody). */
    const hd_slot_t *any;
    const hd_resolver_t *resolver;
    bool is_https,
        has_scheme_var; /* has_scheme_var: <uri> says, and <tls> may not count */
    bool tls_by_host, sni_by_host; /* TLS: the host is the peer's name; it is sent */
    bool tls_by_server;            /* the server's name is, rather than the host's */
    const hd_expr_t *tls_name;     /* or what this says is; NULL: it doesn't */
    bool has_protocol;             /* else the cluster's */
    bool has_uri;                  /* <uri_prefix> replaces the matched prefix */
    bool host_is_upstreams; /* nginx: $proxy_host by default; auto_host_rewrite */
    bool has_grpc_timeout;  /* grpc-timeout is honoured at all (VS-ROUTE-8) */
    bool never_idles;       /* xDS: no time between bytes is too long, whatever the listener
                               says */
    hd_up_protocol_t protocol;
    bool buffer_request, buffer_response; /* nginx's defaults; else stream */
    bool is_high;                         /* routing priority: limits of its own */
    bool allow_upgrade;                   /* any */
    const hd_tls_conf_t *tls;             /* overrides the cluster's (proxy_ssl_*) */
    /* URI towards the upstream */
    const hd_expr_t *uri; /* proxy_pass with variables: whole URI */
    hd_str_t uri_prefix;
    hd_match_t rewrite; /* regex_rewrite; text.len 0: none */
    hd_str_t rewrite_to;
    hd_str_t host;               /* host_rewrite_literal; empty: keep (or ops set Host) */
    const hd_host_rewrite_t *host_by; /* xDS; NULL: none */
    bool tells_host;                  /* xDS: what it was, in X-Forwarded-Host */
    uint32_t timeout_ms;              /* whole request; 0: none */
    uint32_t try_timeout_ms;     /* 0: none */
    uint32_t idle_timeout_ms;    /* between bytes, either way; 0: none is said here */
    uint32_t connect_timeout_ms; /* 0: the cluster's */
    uint32_t send_timeout_ms, read_timeout_ms;
    bool has_duration;   /* xDS: max_stream_duration, in place of the listener's */
    uint64_t duration_ms; /* 0: none */
    uint32_t max_grpc_timeout_ms; /* caps a client's grpc-timeout; 0: no cap */
    /* Of a response that is read ahead of its client (hd_ahead.h): bytes in memory, then
     * in a file (0: none) in a folder (NUL-terminated; empty: /tmp), which is written so
     * much at a time. */
    size_t buffer_bytes, temp_write_bytes;
    uint64_t temp_file_max;
    hd_str_t temp_path;
    uint32_t replay_bytes; /* body kept for retries when streaming; 64 KB */
    uint32_t tries_max;    /* at most so many attempts, whoever asks for them */
    const hd_hash_policy_t *hashes;
    const struct hd_shadow_s *shadows; /* hd_sub.h */
    uint32_t hashes_n, shadows_n;
    hd_upgrades_t upgrades;      /* the route's word, before the server's */
    bool pass_errors;            /* nginx: proxy_intercept_errors off */
    bool ignore_client_abort;    /* the upstream's answer is read to its end */
    bool no_multiplex;           /* Heddles upstream get a conn a request, as others */
    bool pass_server, pass_date; /* nginx: proxy_pass_header Server, Date */
    bool is_grpc;                /* grpc_pass: errors of ours are gRPC statuses */
    uint16_t no_cluster_status;  /* 503 */
    const void *filter;          /* nginx: hd_proxy_filter_t; NULL: xDS has none */
    /* nginx's proxy_method, _set_body, _pass_request_…, _bind, _http_version 1.0,
     * _buffer_size */
    const hd_expr_t *method, *body, *bind;
    bool no_request_headers, no_request_body, bind_transparent, is_http10;
    bool binds_each; /* <bind> is asked for each server, once it is known */
    /* The same before a server is asked: conditions that must hold, ends with NULL; NULL:
     * none. */
    const hd_expr_t *const *allow;
    bool socket_keepalive; /* TCP's, towards servers */
    bool drops_trailers;   /* of responses */
    bool force_ranges;     /* parts of what came whole are sent for Range */
    const hd_expr_t *limit_rate; /* of reading ahead, a size; NULL: none */
    /* HD_IGNORES_…: those that have no effect (proxy_ignore_headers), and those that the
     * client gets (proxy_pass_header) */
    uint32_t ignores, passes;
    uint32_t head_bytes_max;     /* of a response; 0: what the codec takes */
} hd_proxy_conf_t;

/* nginx's limit_except: what is done with requests of other methods than these. */
typedef struct {
    const hd_str_t *methods;
    uint32_t methods_n;
    const struct hd_route_s *route;
} hd_except_t;

/* Parts of the Location of an xDS redirect; empty, 0: the request's. */
typedef struct {
    hd_str_t host, path, prefix, scheme;
    hd_match_t rewrite; /* of the path; text.len 0: none */
    hd_str_t rewrite_to;
    uint16_t port;
    bool strips_query;
} hd_redirect_t;

typedef struct hd_route_s {
    hd_str_t name;
    hd_action_kind_t action;
    const hd_proxy_conf_t *proxy;
    unsigned status;       /* ANSWER, REDIRECT */
    const hd_expr_t *text; /* body, or Location */
    hd_str_t content_type;
    uint16_t service; /* SERVICE */
    const void *service_conf;
    const hd_redirect_t *redirect; /* by xDS; NULL: <text> says it */
    hd_str_t
        matched_prefix; /* what prefix rewriting replaces: location's or match's prefix */
    /* headers, applied around the filters */
    const hd_header_op_conf_t *request_ops, *response_ops;
    uint32_t request_ops_n, response_ops_n;
    const hd_expires_t *expires;            /* NULL: no */
    const hd_header_op_conf_t *trailer_ops; /* nginx's add_trailer */
    uint32_t trailer_ops_n;
    /* nginx-style: the whole filter chain of this location; xDS: overrides by name */
    const hd_filter_conf_t *filters;
    uint32_t filters_n;
    bool filters_are_chain;
    const struct hd_file_conf_s *file;  /* nginx's root and the like; NULL: by xDS */
    const hd_except_t *except;          /* NULL: all methods alike */
    const struct hd_rewrite_s *rewrite; /* nginx's rewrite directives; NULL: none */
    const struct hd_http_loc_s *loc;    /* limits and time-outs of the request's side */
} hd_route_t;

/* Which file name extension has which type: nginx's `types`. Sorted by extension, lower
 * case. */
typedef struct {
    hd_str_t extension, type;
} hd_http_type_t;

typedef struct {
    const hd_http_type_t *items;
    uint32_t n;
} hd_http_types_t;

/* gzip_proxied */
enum {
    HD_GZIP_ANY = 1,
    HD_GZIP_AUTH = 2,
    HD_GZIP_EXPIRED = 4,
    HD_GZIP_NO_CACHE = 8,
    HD_GZIP_NO_STORE = 16,
    HD_GZIP_PRIVATE = 32,
    HD_GZIP_NO_LM = 64,
    HD_GZIP_NO_ETAG = 128,
};

/* keepalive_disable: browsers whose conns end with a response. */
enum {
    HD_BROWSER_MSIE6 = 1, /* after a POST */
    HD_BROWSER_SAFARI = 2,
};

/* reset_timedout_connection: whether a conn that timed out, or is closed by 444, is
 * reset. */
typedef enum {
    HD_TIMEDOUT_DEFAULT, /* the first is, the second isn't */
    HD_TIMEDOUT_CLOSES,  /* neither, unless only a reset tells that an answer isn't whole */
    HD_TIMEDOUT_RESETS,
} hd_timedout_t;

/* lingering_close */
typedef enum {
    HD_LINGERS,
    HD_LINGERS_NOT,
} hd_lingers_t;

/* Settings of the client's side that a location may change. */
typedef struct hd_http_loc_s {
    uint64_t client_max_body_size; /* bytes; 0: no limit */
    uint64_t client_body_timeout_ms, send_timeout_ms, keepalive_timeout_ms,
        lingering_time_ms, lingering_gap_ms; /* hd_linger_t */
    uint64_t keepalive_time_ms; /* an older conn ends with its response; 0: none does */
    uint64_t body_buffer_bytes; /* client_body_buffer_size; 0: the default */
    hd_str_t body_temp_path;    /* a folder, NUL-terminated; empty: /tmp */
    uint32_t body_in_file;      /* hd_body_in_file_t */
    uint32_t keepalive_requests;
    uint32_t keepalive_field_s; /* what Keep-Alive tells clients; 0: no such field */
    uint64_t keepalive_min_ms;  /* an idle conn isn't ended for others before that */
    uint64_t auth_delay_ms;     /* a 401 of access control waits for so long */
    uint8_t keepalive_disable;  /* HD_BROWSER_… */
    uint8_t timedout;           /* hd_timedout_t */
    uint32_t lingers;           /* hd_lingers_t */
    uint64_t h2_chunk_bytes; /* of HTTP/2's DATA frames at most; 0: 16 KB */
    const hd_expr_t *limit_rate, *limit_rate_after; /* sizes; NULL: none */
    uint64_t
        sendfile_max_chunk; /* bytes of a file given to the kernel at a time; 0: all */
    bool sendfile;          /* large files go from the file to the socket */
    bool no_keepalive; /* keepalive_timeout 0, whatever is said of requests */
    bool server_tokens, merge_slashes, underscores_in_headers, ignore_invalid_headers;
    bool satisfy_any, log_subrequest;
    bool overload_exempt;     /* is answered whatever the worker's load (hd_overload.h) */
    bool no_chunked;          /* chunked_transfer_encoding off */
    bool warns_uninitialized; /* uninitialized_variable_warn */
    bool relative_redirect;   /* absolute_redirect off */
    bool no_port_in_redirect, server_name_in_redirect;
    bool gzip_vary, gzip_on_http10;
    uint32_t gzip_proxied; /* HD_GZIP_… */
    /* Conditions for 103 to be passed on, ends with NULL; NULL: it is. */
    const hd_expr_t *const *early_hints;
    const hd_match_t *gzip_disable;
    uint32_t gzip_disable_n;
    const struct hd_log_place_s *error_log; /* NULL: the program's */
    hd_str_t default_type;
    const hd_http_types_t *types; /* NULL: default_type for all */
} hd_http_loc_t;
/* The type for a path by its extension, else the default. */
hd_str_t hd_http_type_of(const hd_http_loc_t *loc, hd_str_t path);
