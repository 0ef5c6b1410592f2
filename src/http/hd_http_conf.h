/* hd_http_conf: an HTTP server's settings on a filter chain (nginx: http and server
 * blocks; Envoy: HttpConnectionManager); protocol_conf of hd_filter_chain_t. Data in the
 * listener's region. */
#pragma once
#include "http/hd_router.h"

typedef enum { HD_CODEC_AUTO, HD_CODEC_HTTP1, HD_CODEC_HTTP2 } hd_codec_kind_t;
typedef enum {
    HD_XFCC_SANITIZE,
    HD_XFCC_FORWARD_ONLY,
    HD_XFCC_APPEND_FORWARD,
    HD_XFCC_SANITIZE_SET,
    HD_XFCC_ALWAYS_FORWARD_ONLY,
} hd_xfcc_t;

/* What is left to be asked of a conn at each request, since it is answered in HTTP. */
enum {
    HD_HTTP_TLS_MISSING = 1, /* plain HTTP where TLS is spoken */
    HD_HTTP_TLS_CLIENT = 2,  /* some server of this address verifies its clients */
    HD_HTTP_TLS_EARLY = 4,   /* early data is taken */
};

typedef struct hd_http_conf_s {
    hd_str_t stat_prefix;
    hd_codec_kind_t codec;
    const hd_slot_t *routes;          /* HD_RES_ROUTES by name (RDS, nginx tables) */
    const hd_routes_t *inline_routes; /* or in this region */
    const hd_filter_conf_t
        *filters; /* xDS's chain, in order; NULL: the route has its own */
    uint32_t filters_n;
    const hd_filter_conf_t *logs; /* access logs and the like: on_log only; of nginx-style
                                     configuration: for requests that found no route */
    uint32_t logs_n;
    bool is_xds; /* Envoy's header conventions (x-request-id, x-envoy-*, server) */
    hd_str_t server_name;  /* Server header; empty: leave the upstream's / "heddle" */
    uint8_t server_header; /* 0 overwrite, 1 if absent, 2 pass through */
    bool use_remote_address, skip_xff_append, preserve_request_id, always_set_request_id;
    bool generate_request_id;
    bool suppress_envoy_headers; /* the router filter's: no x-envoy-* is added */
    uint32_t xff_trusted_hops;
    hd_xfcc_t xfcc;
    bool xfcc_subject, xfcc_uri, xfcc_dns, xfcc_cert, xfcc_chain;
    bool normalize_path, merge_slashes;
    uint8_t
        escaped_slashes; /* 0 keep, 1 reject, 2 unescape+redirect, 3 unescape+forward */
    bool strip_port, upgrade_websocket;
    bool strip_own_port; /* only one that is the listener's */
    bool accepts_http10;                 /* xDS; by file it always is */
    hd_str_t http10_host;                /* xDS: of who sends none; empty: 400 */
    hd_upgrades_t upgrades;              /* xDS */
    uint32_t head_bytes_max, fields_max; /* of a request head; 0: defaults 32 KB, 100 */
    uint32_t head_line_max;              /* of a line of it; 0: as the head */
    uint64_t header_timeout_ms, stream_idle_timeout_ms, idle_timeout_ms,
        request_timeout_ms;
    uint64_t max_conn_duration_ms, drain_timeout_ms, max_stream_duration_ms;
    uint32_t requests_per_conn;
    uint32_t h2_streams, h2_stream_window, h2_conn_window;
    uint32_t h2_ping_ms, h2_ping_timeout_ms; /* PING each so often; 0: none */
    uint32_t h2_budget, h2_client_budget;    /* hd_h2_budget.h; 0: the default */
    struct hd_h2_clients_s *h2_clients;      /* in the state arena; NULL: none */
    const hd_http_loc_t *loc;                /* before a route is known */
    uint8_t tls_checks;                      /* HD_HTTP_TLS_… */
    uint8_t tracing;                         /* modules read their own conf; reserved */
} hd_http_conf_t;

extern const hd_http_loc_t hd_http_loc_defaults;
uint16_t hd_http_protocol(void); /* its number for hd_filter_chain_t.protocol */
