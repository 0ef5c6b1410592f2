/* hd_request_int: what the files of the request engine share: hd_request.c (order of
 * steps), hd_filters.c, hd_response.c, hd_local.c, hd_header_ops.c. */
#pragma once
#include "http/hd_request.h"

/* --- hd_request.c --- */
/* Lets go of the running action; <ops> answers instead, from the next run on. */
void hd_request_act(hd_req_t *req, const hd_action_ops_t *ops);
/* Envoy's max_stream_duration: so long from the request's start on; 0: none. */
void hd_request_set_duration(hd_req_t *req, uint64_t ms);
void hd_request_end_response(hd_req_t *req); /* the last byte was given, or never will */
/* The log phase, once; the client's conn is not looked at afterwards. Before it goes. */
void hd_request_log(hd_req_t *req);
extern const hd_client_ops_t hd_client_gone; /* for a client that is no more */
/* Another page than the one asked for is got, whatever the client's method; a HEAD stays
 * one. */
void hd_request_make_get(hd_req_t *req);
uint64_t hd_request_random(void); /* not for secrets */
/* How long neither side may say a word: the route's time, else the listener's
 * (stream_idle_timeout); 0: for ever. */
uint64_t hd_request_idle_ms(const hd_req_t *req, const hd_proxy_conf_t *proxy);
/* How long the client of one of many requests on a conn may do nothing while it is waited
 * for: to take what it was sent (<has_output>), else to send what it <owes> of a body. 0:
 * nobody waits for it, or no matter how long. <req> NULL: it is over for us. */
uint64_t hd_request_patience_ms(const hd_req_t *req, bool has_output, bool owes);

/* --- hd_request_api.c, hd_http_attrs.c --- */
void hd_request_api_start(void);
void hd_http_attrs_register(void);
void hd_http_captures_register(void);
void hd_http_auth_register(void);

/* --- hd_error_line.c --- */
/* At the end of a request that has an error: why. */
void hd_error_line_end(hd_req_t *req);

/* --- hd_filters.c --- */
/* Which filters are in force, for the route found (or none yet). */
void hd_filters_select(hd_req_t *req);
/* Request headers, from req->filter_at on. */
hd_rc_t hd_filters_run(hd_req_t *req);
/* Will one of them change the bytes of a file (see changes_file of hd_module_t)? */
bool hd_filters_change_file(hd_req_t *req, hd_str_t type, hd_str_t encoding,
                            int64_t length);
/* Request body: what waits goes through the filters to the action, as far as they let it.
 */
void hd_filters_pass_body(hd_req_t *req);
void hd_filters_log(hd_req_t *req);
/* The filter's module where its callbacks are called at all, else NULL. */
const hd_module_t *hd_filter_module(const hd_filter_conf_t *f);

/* --- hd_response.c --- */
void hd_response_resume(hd_req_t *req); /* parked response filters go on */
void hd_response_abort(hd_req_t *req);  /* the client's conn or h2 stream is reset */
void hd_response_clear(hd_req_t *req);  /* nothing was sent: another response comes */

/* How many fields the answer came with: further ones are of configuration's making. */
unsigned hd_response_fields_n(const hd_req_t *req);
/* An upstream's answer is about to be replaced: variables still tell of it. */
void hd_response_keep_upstream(hd_req_t *req);

/* --- hd_local.c --- */
extern const hd_action_ops_t hd_local_action;
/* nginx: after an error page of this status the client's next bytes aren't trusted, or we
 * aren't: its conn ends. */
bool hd_local_is_closing(unsigned status);
hd_str_t hd_http_date(hd_loop_t *loop); /* RFC 9110 §5.6.7; good for a second or more */
/* Server and Date as the settings say. */
void hd_local_sign(hd_req_t *req);
/* An error of ours, about to be sent: for a gRPC client it becomes a gRPC status without
 * a body, unless error_page or add_header made something else of it. */
void hd_local_speak_grpc(hd_req_t *req);

/* --- hd_header_ops.c --- */
void hd_header_ops_request(hd_req_t *req);
/* nginx: $http_NAME stays what the client sent; before its fields are changed. */
void hd_header_ops_keep_received(hd_req_t *req);
/* For another route (nginx's internal redirections): what the last one changed of the
 * request towards its upstream is undone. */
void hd_header_ops_undo(hd_req_t *req);
void hd_header_ops_response(hd_req_t *req);
bool hd_header_ops_has_trailers(const hd_req_t *req); /* by its status */
void hd_header_ops_trailers(hd_req_t *req); /* nginx's add_trailer, at the body's end */

/* --- hd_http_tls.c --- */
/* Is the conn as the server found needs it? If not, an answer has been made. */
hd_rc_t hd_http_tls_check(hd_req_t *req);
/* nginx's words for local_code; NULL: it has none. */
const char *hd_http_tls_words(unsigned local_code);

/* --- hd_response.c --- */
/* The end of its way: <body> goes to the client, and is empty then. */
void hd_response_pass(hd_req_t *req, hd_chain_t *body);
