/* hd_request: a request on its way: read head, find a route, filters, act, respond, log.
 * ◆
 *
 * Its *client* is a codec (HTTP/1 or HTTP/2 conn), a parent request, or a caller of our
 * own (hd_call.h): they differ only in hd_client_ops_t. Its *action* produces the
 * response; proxying runs through tries (hd_try.h). The order of steps stands in
 * hd_request.c alone; waking always posts, so the loop is never entered from within
 * itself.
 *
 *   client codec --hd_request_start--> READ_HEAD -> FIND_ROUTE -> FILTERS -> ACT ->
 * FINISH body  --hd_request_give_body--> filters --> action (hd_action_ops_t.give_body)
 *        action --hd_response_start, hd_response_give_body--> response filters --> client
 * ops
 *
 * Both bodies are chains handed on; who can't take more says so by marks:
 * hd_request_is_full tells the codec to stop reading, client->is_full tells the action to
 * stop. A request lives until its response ended and its client let go; finish logs,
 * counts, unpins and destroys its pool.
 *
 * The steps run in a posted event only, so that no function here calls the codec back
 * before it returned: hd_request_start and the rest may be called from anywhere in it.
 */
#pragma once
#include "core/hd_module.h"
#include "http/hd_headers.h"
#include "http/hd_http_conf.h"

typedef enum {
    HD_STEP_READ_HEAD,  /* waits for the whole head; checks it */
    HD_STEP_FIND_ROUTE, /* pins listener's route table; virtual host, router */
    HD_STEP_FILTERS,    /* request header callbacks in order; a filter may wait */
    HD_STEP_ACT,        /* the action owns it until the response is over */
    HD_STEP_FINISH,
} hd_step_t;

typedef enum {
    HD_M_OTHER,
    HD_M_GET,
    HD_M_HEAD,
    HD_M_POST,
    HD_M_PUT,
    HD_M_DELETE,
    HD_M_OPTIONS,
    HD_M_PATCH,
    HD_M_CONNECT,
    HD_M_TRACE
} hd_method_t;

/* RFC 9110 §9.2.2; one that we don't know isn't. */
static inline bool hd_method_is_idempotent(uint8_t method_id)
{
    return method_id != HD_M_POST && method_id != HD_M_PATCH &&
           method_id != HD_M_CONNECT && method_id != HD_M_OTHER;
}

typedef enum {
    HD_HTTP_09 = 9,
    HD_HTTP_10 = 10,
    HD_HTTP_11 = 11,
    HD_HTTP_20 = 20
} hd_http_version_t;

#define HD_LEN_UNKNOWN (-1) /* chunked, or until the end of stream */

/* The head of a request, as a codec fills it. Strings: slices of the received block, or
 * of the request's pool. */
typedef struct {
    hd_str_t method, scheme, authority; /* authority lower case */
    hd_str_t raw_path;     /* path?query, "*": as received; by xDS as it was normalised */
    hd_str_t line_method;  /* as received, where <method> is another by now; else empty */
    hd_str_t whole_target; /* of HTTP/1, where it is an absolute URL; else empty */
    hd_str_t path;     /* normalised path, without query (RFC 3986 §5.2.4) */
    hd_str_t query;    /* without '?' */
    hd_str_t protocol; /* :protocol of an extended CONNECT; or Upgrade's token */
    hd_headers_t headers;
    int64_t content_length; /* HD_LEN_UNKNOWN */
    uint8_t method_id, version;
    bool has_body; /* something follows the head */
    bool expects_continue;
    bool is_upgrade; /* Connection: upgrade with a token */
    bool keep_alive;
    bool is_unescaped; /* raw_path lost a %2f or %5c: its client is sent there */
} hd_req_head_t;

typedef struct {
    unsigned status;
    hd_str_t reason; /* HTTP/1's; empty: the standard one */
    hd_headers_t headers;
    int64_t content_length; /* HD_LEN_UNKNOWN; set from the field or by local answers */
    uint8_t version;        /* of the upstream's message */
    bool has_body;          /* false for HEAD, 204, 304 … */
    bool is_local;          /* made here, not by an upstream */
} hd_res_head_t;

/* What a request's client does for it. Never calls back into the request at once. A
 * response is: any number of interim heads, one final head, then send_body until one with
 * HD_SLICE_END (an empty one, where res.has_body is false), then on_finished, last. Or
 * abort at any point, then on_finished. Nothing after take_conn gave the conn, nor after
 * hd_request_client_gone. */
typedef struct {
    const char *name;
    /* Sends an interim (1xx) or the final head from req->res. Adds what it wrote to
     * req->head_bytes_sent. */
    void (*send_head)(hd_req_t *req, bool is_interim);
    /* Takes all of <body>; HD_SLICE_END ends the response, with req->res_trailers if
     * flagged. */
    void (*send_body)(hd_req_t *req, hd_chain_t *body);
    bool (*is_full)(hd_req_t *req); /* stop sending; hd_request_on_drained will come */
    bool (*sends_files)(hd_req_t *req); /* takes ranges of files in bodies; NULL: never */
    void (*want_body)(hd_req_t *req); /* the body is wanted (100 is due), or room again */
    /* The response can't be completed: close or RST_STREAM (HTTP/2 error code). */
    void (*abort)(hd_req_t *req, uint32_t h2_error);
    /* The request is done with (response sent or aborted): the codec may go on to the
     * next. */
    void (*on_finished)(hd_req_t *req);
    /* Does the conn end with this response, as far as is known before its head? NULL: a
     * response doesn't say. */
    bool (*ends_conn)(const hd_req_t *req);
    /* After Upgrade or CONNECT: gives up the conn for a tunnel; NULL: it can't (h2
     * stream: a conn over the stream). */
    hd_conn_t *(*take_conn)(hd_req_t *req);
} hd_client_ops_t;

/* What produces the response. One ops table an action kind; state in req->action. */
typedef struct {
    const char *name;
    /* HD_OK or HD_AGAIN: it goes on by events. HD_REROUTE, HD_ERROR as everywhere. */
    hd_rc_t (*start)(hd_req_t *req);
    void (*give_body)(hd_req_t *req, hd_chain_t *body); /* request body, after filters */
    bool (*is_full)(hd_req_t *req);
    void (*on_drained)(hd_req_t *req); /* the client has room again */
    void (*on_wake)(hd_req_t *req);    /* req->wake ran while it acts; may be NULL */
    /* The client has closed its side: is the answer of no more use? NULL: it is given. */
    bool (*ends_with_client)(hd_req_t *req);
    void (*cancel)(
        hd_req_t *req); /* the client is gone, or a filter answered: let go of all */
} hd_action_ops_t;

struct hd_try_s;

struct hd_req_s {
    /* --- who --- */
    hd_conn_t *conn; /* NULL: a call of our own */
    const hd_client_ops_t *client;
    void *client_state;      /* the codec's: an h2 stream, h1 conn */
    struct hd_req_s *parent; /* of a sub whose parent lives (hd_sub.h) */
    struct hd_sub_s *subs;   /* those of this request */
    uint32_t *subs_left; /* so many may be begun, all of one client's request together;
                            NULL: none was */
    uint32_t sub_depth; /* requests around it */
    hd_loop_t *loop;
    hd_member_t *member;
    hd_pool_t *pool;
    uint64_t id;            /* unique in the process */
    uint32_t conn_requests; /* of this conn so far, with this one */

    /* --- pinned versions, once each; NULL: not yet --- */
    const hd_slot_t *listener_slot;
    const hd_region_t *listener_region, *routes_region;
    const hd_listener_t *listener;
    const hd_http_conf_t *http;
    const hd_routes_t *routes;
    const hd_vhost_t *vhost;
    const hd_route_t *route;
    const hd_weighted_t *target; /* chosen by weight */
    const hd_http_loc_t *loc;

    /* --- messages --- */
    hd_req_head_t head;
    hd_headers_t trailers;
    const hd_headers_t *received; /* the client's fields before ours; NULL: unchanged */
    hd_res_head_t res;
    hd_headers_t res_trailers;
    hd_chain_t *body_text;  /* of a short body that was passed on; NULL */
    /* Of the last upstream's answer, where another has taken its place; NULL. */
    const hd_headers_t *up_headers;
    uint16_t fields_n_plus_1; /* of <res>, as they came; 0: its filters haven't begun */
    hd_headers_t *kept;     /* X-Accel-Redirect: fields that go on to the answer; NULL */
    hd_str_t up_path;       /* path?query towards the upstream; empty: raw_path */
    hd_str_t up_host;       /* Host towards the upstream; empty: authority */
    hd_str_t up_method;     /* towards the upstream; empty: the client's */
    hd_captures_t captures; /* of the route's regex, into capture_of */
    hd_str_t capture_of;

    /* --- where it is --- */
    uint8_t step; /* hd_step_t; changed in hd_request.c only */
    uint8_t reroutes;
    uint16_t local_code;    /* nginx's 494 (431 for the client) and 495 to 497 (400), by
                               which error_page may name it; 0: none */
    uint16_t error_status;  /* replaces the answer's, where error_page says so; 0: not */
    hd_str_t client_method; /* of a sub: its parent's, for $request_method; else empty */
    hd_str_t wanted_charset; /* X-Accel-Charset; empty: none */
    hd_str_t redirect_to;   /* Location that `rewrite` has made; empty: the route's */
    hd_str_t reroute_args;  /* of reroute_to, with reroute_is_exact */
    hd_str_t reroute_to; /* with HD_REROUTE: path[?query], or "@name"; empty: as it is */
    uint8_t hooks;       /* HD_HOOK_…: callbacks that the chain has */
    uint8_t parked;      /* HD_HOOK_…: whose filter waits */
    uint8_t response_step; /* of hd_response.c */
    bool is_resumed;       /* the callback being run was called before */
    bool is_woken;         /* hd_req_wake or its timer: parked filters may go on … */
    bool may_resume;       /* … in this run */
    bool is_acting;        /* the action was started and not cancelled */
    bool is_local_reply;   /* the response is our own */
    bool body_ended;       /* the client's message is complete */
    bool response_started, response_ended; /* head, last byte given to the client */
    bool client_gone, no_keepalive;
    bool route_wanted; /* a filter changed what routing looks at: find it anew */
    bool is_tunnel, is_logged, wants_upgrade;
    bool has_error_page;   /* error_page was used */
    bool no_more_pages;    /* … or could have been: once a request, unless recursive */
    bool body_given;       /* some of the body went to an action: no other one gets it */
    bool is_sub;           /* hd_sub.h */
    bool route_unknown;    /* a regex of the router was given up: no route is right */
    bool is_client;        /* a client's conn brought it: counted (hd_clients.h) */
    bool is_internal;      /* was rewritten or redirected: `internal` lets it in */
    bool reroute_is_exact; /* a '?' in reroute_to is one of the path */
    bool adds_to_alias;    /* try_files behind an alias by regular expression */
    bool leaves_location;  /* rewrite … break: the location's path isn't replaced */
    bool has_own_text;     /* return CODE TEXT: no error page takes its place */
    bool is_pipelined;     /* its first bytes were there before the last one's answer */
    bool path_changed;     /* head.path is ours: what goes upstream is made from it */
    bool was_admitted;     /* or refused: overload is looked at once */
    bool delays_denial;    /* auth_delay: the answer made here waits */
    /* Filters in force: of the location (nginx), or of the listener with the route's
     * settings; and where each pass through them stands. */
    const hd_filter_conf_t *chain, *running;
    uint16_t chain_n, filter_at, body_filter_at, response_filter_at,
        response_body_filter_at;
    uint64_t body_skips; /* filters, by place, that the response's body doesn't concern */
    bool has_rate;       /* <rate> is known */
    bool waits_for_room; /* a filter does, for the client's */
    bool may_be_cut;     /* the client may have parts of the response (hd_part.h) */
    bool has_body_filter;        /* the response's body concerns one */
    uint16_t response_filters_n; /* those that a response begun now passes */
    struct hd_rest_s *rests;     /* what filters have put back, the last filter's first */
    struct hd_denial_s *denial;  /* satisfy any: what is said if no access module is */
    bool is_satisfied;
    const hd_action_ops_t *action_ops;
    void *action;           /* the action's state, in the pool */
    struct hd_try_s *tries; /* all attempts, newest first */
    uint32_t tries_n;
    /* Bodies that wait to be let in, and what the filter at …_filter_at holds up. */
    hd_chain_t body_wait, body_held, response_wait, response_held;
    struct hd_body_file_s *body_file; /* hd_body_file.h; NULL: none */
    struct hd_pace_s *pace;           /* its rate is limited; NULL: not (hd_pace.h) */
    struct hd_part_s *part;           /* of the response, what is sent; NULL: all */
    uint64_t rate;                    /* bytes a second, with has_rate; 0: no limit */
    hd_conn_t *tunnel_up; /* to be joined to the client's conn after the head */
    struct hd_tunnel_s *tunnel;
    hd_post_t wake;
    hd_timer_t timer; /* filters' wait; request time-out */
    hd_timer_t deadline;
    bool has_grpc_deadline; /* it is what the client allows */
    void **states;          /* by module number; made lazily */
    struct hd_attrs_s *attrs;

    /* --- for the log --- */
    uint64_t start_ns, upstream_start_ns, upstream_head_ns, upstream_end_ns;
    int64_t start_wall_ns;
    /* Bodies; heads, and what frames the request's body over HTTP/1. */
    uint64_t bytes_received, bytes_sent, head_bytes_received, head_bytes_sent;
    uint32_t head_wire_bytes; /* HTTP/2's head as it came, compressed; 0: not known */
    uint64_t framing_bytes_sent; /* of chunks: nginx counts them as body */
    uint64_t flags;              /* response flags, HD_RF_… */
    const char *details;
    unsigned upstream_status;
    hd_str_t upstream_host, cluster_name;
    hd_str_t request_id;   /* empty until it is asked for */
    hd_timer_t *duration;  /* max_stream_duration; NULL: none */
    bool try_timed_out;    /* the last one that was judged: another may follow */
    const hd_headers_t *judged; /* in on_try_result: what hd_res_header reads */
    hd_addr_t client_addr; /* xDS: after X-Forwarded-For as far as it is trusted */
    bool has_real_addr;    /* <client_addr> stands for the conn's remote in everything */
    hd_err_t *err; /* NULL: none; in the pool */
};

/* Towards the upstream: what was set for it, else the client's. */
static inline hd_str_t hd_req_up_path(const hd_req_t *req)
{
    return req->up_path.len > 0 ? req->up_path : req->head.raw_path;
}

/* The target of the request's line, as received; of CONNECT: host and port. */
static inline hd_str_t hd_req_target(const hd_req_t *req)
{
    return req->head.whole_target.len > 0 ? req->head.whole_target
           : req->head.raw_path.len > 0   ? req->head.raw_path
                                          : req->head.authority;
}

static inline hd_str_t hd_req_up_host(const hd_req_t *req)
{
    return req->up_host.len > 0 ? req->up_host : req->head.authority;
}

static inline hd_str_t hd_req_up_method(const hd_req_t *req)
{
    return req->up_method.len > 0 ? req->up_method : req->head.method;
}

/* Callbacks of a filter chain, and which of them waits. */
enum {
    HD_HOOK_REQUEST = 1,
    HD_HOOK_REQUEST_BODY = 2,
    HD_HOOK_RESPONSE = 4,
    HD_HOOK_RESPONSE_BODY = 8,
    HD_HOOK_LOG = 16,
    HD_HOOK_PICK = 32,
    HD_HOOK_TRY = 64,
};

/* Response flags, Envoy's meaning and short names. */
#define HD_RESPONSE_FLAGS(X)                                                             \
    X(NO_HEALTHY, "UH")                                                                  \
    X(UPSTREAM_CONNECT, "UF")                                                            \
    X(UPSTREAM_OVERFLOW, "UO")                                                           \
    X(NO_ROUTE, "NR")                                                                    \
    X(UPSTREAM_RETRY_LIMIT, "URX")                                                       \
    X(NO_CLUSTER, "NC")                                                                  \
    X(DOWNSTREAM_CLOSED, "DC")                                                           \
    X(UPSTREAM_TIMEOUT, "UT")                                                            \
    X(UPSTREAM_RESET, "UR")                                                              \
    X(UPSTREAM_CLOSED, "UC")                                                             \
    X(LOCAL_RESET, "LR")                                                                 \
    X(DELAY_INJECTED, "DI")                                                              \
    X(FAULT_INJECTED, "FI")                                                              \
    X(RATE_LIMITED, "RL")                                                                \
    X(UNAUTHORIZED, "UAEX")                                                              \
    X(STREAM_IDLE, "SI")                                                                 \
    X(UPSTREAM_DURATION, "UMSDR")                                                        \
    X(DOWNSTREAM_RESET, "DR")                                                            \
    X(DOWNSTREAM_PROTOCOL, "DPE")                                                        \
    X(UPSTREAM_PROTOCOL, "UPE")                                                          \
    X(DURATION_TIMEOUT, "DT") X(OVERLOAD, "OM") X(DENIED, "RBAC")
enum {
#define X(name, text) HD_RFI_##name,
    HD_RESPONSE_FLAGS(X)
#undef X
        HD_RFI_N
};
#define HD_RF(name) (1ull << HD_RFI_##name)

/* Where a client's conn came in, kept by its codec: looked up anew for each request
 * (hd_listener.h), which costs a match of filter chains only when the listener has a new
 * version. The version that a conn came by is held for its first request: whoever was let
 * in is answered, even if the listener has gone or asks for other proofs by then. */
typedef struct {
    const hd_slot_t *listener;
    uint64_t _version : 62;         /* of <region> */
    uint64_t is_held : 1;           /* <region> is pinned, for the first request */
    uint64_t is_old : 1;            /* the newest wouldn't take the conn: to be drained */
    const hd_region_t *region;      /* the listener's version; good in this turn */
    const hd_filter_chain_t *chain; /* in it */
} hd_http_entry_t;

/* --- for client codecs --- */
/* In on_conn; holds the listener's slot until hd_http_entry_end. Who copies <e> has that
 * to do instead. <in>'s version may be NULL: nobody publishes another meanwhile. */
void hd_http_entry_init(hd_http_entry_t *e, hd_conn_t *c, const hd_entrance_t *in);
/* The settings in force now, or those held; NULL: there are none, end the conn. */
const hd_http_conf_t *hd_http_entry_refresh(hd_http_entry_t *e, hd_conn_t *c);
/* The first request has its own pins, or none will come. Harmless when repeated. */
void hd_http_entry_let_go(hd_http_entry_t *e, hd_conn_t *c);
/* Nothing comes from the conn any more. Lets go, too. */
void hd_http_entry_end(hd_http_entry_t *e, hd_conn_t *c);
/* A request in a fresh pool; the codec fills head and calls start. */
hd_req_t *hd_request_create(hd_conn_t *c, hd_loop_t *loop, hd_member_t *m,
                            const hd_client_ops_t *client, void *client_state);
/* Where it came in, refreshed in this turn: pinned. By codecs before hd_request_reject;
 * hd_request_start does it itself. */
void hd_request_set_entry(hd_req_t *req, const hd_http_entry_t *entry);
/* The head is complete. <entry> refreshed in this turn; NULL for calls, which set their
 * route themselves. */
void hd_request_start(hd_req_t *req, const hd_http_entry_t *entry);
/* More body (moved); flags END and TRAILERS as in the message. Counts bytes_received. */
void hd_request_give_body(hd_req_t *req, hd_chain_t *body);
/* $remote_addr's address; not without a conn. */
const hd_addr_t *hd_request_peer(const hd_req_t *req);
bool hd_request_is_full(const hd_req_t *req); /* don't read more body now */
void hd_request_on_drained(hd_req_t *req);    /* client: room for response bytes again */
/* The client has closed its side of the conn, and may have gone: is it to be let go of?
 */
bool hd_request_ends_with_client(hd_req_t *req);
/* Is it all there, and its upstream to be heard though nobody is left to read the answer
 * (proxy_ignore_client_abort)? The codec ends it once the answer begins, as nginx does. */
bool hd_request_outlives_client(hd_req_t *req);
/* The client closed or reset; or it broke the protocol (HD_E_PROTOCOL) or let us wait for too
 * long (HD_E_TIMEOUT), so that we end it. The request ends by itself; the codec must not use
 * it again. */
void hd_request_client_gone(hd_req_t *req, hd_err_code_t code, const char *why);
/* The codec has refused the head by itself (a reset): the logs tell of it, nothing else. */
void hd_request_misread(hd_req_t *req, const hd_http_entry_t *entry);
/* The same, of a stream that the client reset (with REFUSED_STREAM: <is_refused>). */
void hd_request_client_reset(hd_req_t *req, bool is_refused);
/* A message that could not be parsed: answers <status> through the response filters and
 * log, then closes. */
void hd_request_reject(hd_req_t *req, unsigned status, const char *why);

/* --- for actions --- */
/* req->res is filled: runs the response filters, gives the head to the client. HD_AGAIN:
 * a filter waits; body given meanwhile is kept. */
void hd_response_start(hd_req_t *req);
void hd_response_interim(hd_req_t *req); /* 1xx in req->res */
void hd_response_give_body(hd_req_t *req, hd_chain_t *body);
bool hd_response_is_full(const hd_req_t *req);
/* May hd_response_give_body be given ranges of files? Not where a filter looks at the
 * body, nor where they would be copied anyway. */
bool hd_response_takes_files(hd_req_t *req);
/* Fails: before the head was sent, a local answer <status>; after it, the client is
 * aborted. */
void hd_response_fail(hd_req_t *req, unsigned status, uint64_t flag, const char *details);
/* A local answer. <body> is copied. */
void hd_response_local(hd_req_t *req, unsigned status, hd_str_t type, hd_str_t body,
                       uint64_t flag, const char *details);
/* The same for a gRPC client, whatever the front end: 200, trailers only, with <code> and
 * <words>. */
void hd_response_local_grpc(hd_req_t *req, uint32_t code, hd_str_t words, uint64_t flag,
                            const char *details);
/* The request becomes a tunnel between the client's conn and <up>; logs at its end. */
void hd_request_tunnel(hd_req_t *req, hd_conn_t *up);

/* --- the rest --- */
void hd_request_wake(hd_req_t *req);
void hd_request_reroute(hd_req_t *req,
                        hd_str_t new_path); /* from local replies; counts */
void hd_request_add_flag(hd_req_t *req, uint64_t flag);
void hd_action_register(hd_action_kind_t kind, const hd_action_ops_t *ops);
size_t hd_requests_active(void); /* in this process */
hd_rc_t hd_req_err(hd_req_t *req, hd_err_code_t code, const char *fmt, ...)
    HD_PRINTF(3, 4);

/* --- paths (hd_path.c) --- */
/* Normalises as the settings say: dot segments, %-decoding of unreserved, slashes merged;
 * HD_ERROR: refused (encoded slash with reject, NUL, "..": above root). Into <pool> if
 * changed, else slices of <raw>. */
hd_rc_t hd_http_normalize_path(hd_str_t raw, const hd_http_conf_t *http, hd_pool_t *pool,
                               hd_str_t *path, hd_str_t *query);
/* The head's path and query out of its raw_path. By xDS that becomes what was made of it:
 * whoever looks at ":path" (rules, scripts, logs) judges what the upstream gets. */
hd_rc_t hd_http_take_path(hd_req_t *req, const hd_http_conf_t *http);
