/* The protocol "http" of a filter chain: which codec a conn gets, and what the program
 * calls to have HTTP at all. */
#include "http/hd_action_answer.h"
#include "http/hd_action_tunnel.h"
#include "http/hd_codec.h"
#include "http/hd_file.h"
#include "http/hd_http.h"
#include "http/hd_request_int.h"
#include "http/hd_maps.h"
#include "http/hd_service.h"
#include "http/hd_try.h"
#include "http/hd_weft.h"
#include <stdlib.h>

/* RFC 9113 §3.4 */
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_BYTES (sizeof(preface) - 1)
#define SNIFF_MS 60000
#define IDLE_MAX_MS 2147483647 /* some 25 days */

const hd_http_loc_t hd_http_loc_defaults = {
    .client_max_body_size = 0,
    .client_body_timeout_ms = 60000,
    .send_timeout_ms = 60000,
    .keepalive_timeout_ms = 75000,
    .lingering_time_ms = 30000,
    .lingering_gap_ms = 5000,
    .keepalive_time_ms = 3600000,
    .keepalive_requests = 1000,
    .sendfile_max_chunk = 2 << 20,
    .merge_slashes = true,
    .ignore_invalid_headers = true,
    .default_type = HD_STR_INIT("text/plain"),
};

/* --- limits --- */

uint64_t hd_http_idle_ms(const hd_conn_t *c, uint64_t idle_ms, uint64_t duration_ms)
{
    uint64_t age_ms = (hd_loop_now_ns(c->loop) - c->opened_ns) / 1000000, left_ms;

    if (duration_ms == 0)
        return idle_ms;
    left_ms = duration_ms > age_ms ? duration_ms - age_ms : 1;
    return idle_ms == 0 ? left_ms : hd_min(idle_ms, left_ms);
}

hd_linger_t hd_linger_of(const hd_http_loc_t *loc)
{
    return loc->lingers == HD_LINGERS_NOT ? (hd_linger_t){0}
                                          : (hd_linger_t){hd_ms32(loc->lingering_time_ms),
                                                          hd_ms32(loc->lingering_gap_ms)};
}

hd_http_times_t hd_http_times(const hd_http_conf_t *http)
{
    const hd_http_loc_t *loc = http->loc != NULL ? http->loc : &hd_http_loc_defaults;
    uint64_t idle_ms = loc->keepalive_timeout_ms;

    if (idle_ms == 0) /* by xDS for ever; in a file not even for one more request */
        idle_ms = http->is_xds ? IDLE_MAX_MS : hd_http_loc_defaults.keepalive_timeout_ms;
    return (hd_http_times_t){.idle_ms = hd_min(idle_ms, (uint64_t)IDLE_MAX_MS),
                             .duration_ms = http->is_xds ? http->max_conn_duration_ms : 0,
                             .send_timeout_ms = loc->send_timeout_ms,
                             .linger = hd_linger_of(loc)};
}

bool hd_http_is_worn(const hd_http_conf_t *http, const hd_conn_t *c, uint32_t requests_n)
{
    uint64_t max_ms = http->is_xds || http->loc == NULL ? http->max_conn_duration_ms
                                                        : http->loc->keepalive_time_ms;
    uint32_t max = http->is_xds || http->loc == NULL ? http->requests_per_conn
                   : http->loc->no_keepalive         ? 1
                                                     : http->loc->keepalive_requests;

    return (max > 0 && requests_n >= max) || hd_conn_is_older(c, max_ms);
}

hd_h1_limits_t hd_http_limits(const hd_http_conf_t *http, uint32_t bytes_max,
                              uint32_t fields_max)
{
    hd_h1_limits_t l = {
        .bytes_max = http->head_bytes_max > 0 ? http->head_bytes_max : bytes_max,
        .fields_max = http->fields_max > 0 ? http->fields_max : fields_max,
        .line_max = http->head_line_max,
        .underscores = http->is_xds,
        .is_strict = !http->is_xds,
        .odd_fields = HD_ODD_DROP};

    if (http->loc != NULL) {
        l.underscores = http->loc->underscores_in_headers;
        if (!http->loc->ignore_invalid_headers) /* by Envoy's word, or as nginx means it */
            l.odd_fields = http->is_xds ? HD_ODD_REFUSE : HD_ODD_PASS;
    }
    return l;
}

void hd_http_say_limit(hd_req_t *req, bool is_xds, hd_http_limit_t which, uint32_t max,
                       hd_str_t name)
{
    const char *bytes = is_xds ? "max_request_headers_kb" : "large_client_header_buffers";

    if (which == HD_LIMIT_FIELDS)
        hd_ignore(hd_req_err(req, HD_E_LIMIT,
                             "client sent too many header lines: more than %u (%s)", max,
                             is_xds ? "max_headers_count" : "max_headers"));
    else if (which == HD_LIMIT_TARGET)
        hd_ignore(hd_req_err(
            req, HD_E_LIMIT,
            "client sent too long URI: a head of more than %u bytes (%s)", max, bytes));
    else if (which == HD_LIMIT_LINE)
        hd_ignore(hd_req_err(req, HD_E_LIMIT,
                             "client sent too long header line: \"%.*s\" of more than %u "
                             "bytes (%s)",
                             HD_STR_ARG(hd_str_sub(name, 0, 64)), max, bytes));
    else
        hd_ignore(hd_req_err(req, HD_E_LIMIT,
                             "client sent too long header line: \"%.*s\" in a head of "
                             "more than %u bytes (%s)",
                             HD_STR_ARG(hd_str_sub(name, 0, 64)), max, bytes));
}

unsigned hd_h1_say_limit(hd_req_t *req, bool is_xds, hd_str_t bytes,
                         const hd_h1_limits_t *l)
{
    uint32_t line_max =
        l->line_max > 0 ? hd_min(l->line_max, l->bytes_max) : l->bytes_max;
    ssize_t end = hd_str_find(bytes, HD_STR("\r\n\r\n"));
    size_t line_len;
    hd_str_t name;

    if (hd_str_find_char(hd_str_sub(bytes, 0, line_max), '\n') < 0) {
        hd_http_say_limit(req, is_xds, HD_LIMIT_TARGET, line_max, HD_STR_NONE);
        return 414; /* RFC 9110 §15.5.15 */
    }
    if (end >= 0) /* what follows is none of it */
        bytes.len = (size_t)end + 4;
    name = hd_h1_longest_field(bytes, &line_len);
    if (line_len > line_max)
        hd_http_say_limit(req, is_xds, HD_LIMIT_LINE, line_max, name);
    else if (end >= 0 && bytes.len <= l->bytes_max)
        hd_http_say_limit(req, is_xds, HD_LIMIT_FIELDS, l->fields_max, HD_STR_NONE);
    else
        hd_http_say_limit(req, is_xds, HD_LIMIT_HEAD, l->bytes_max, name);
    return 431;
}

/* --- where a conn came in --- */

static void hold(hd_http_entry_t *e, hd_member_t *m, const hd_region_t *r)
{
    hd_pin(m, r);
    if (e->is_held)
        hd_unpin(m, e->region);
    e->is_held = true;
    e->region = r;
}

void hd_http_entry_init(hd_http_entry_t *e, hd_conn_t *c, const hd_entrance_t *in)
{
    *e = (hd_http_entry_t){.listener = in->listener, .chain = in->chain};
    hd_slot_hold(hd_loop_member(c->loop), in->listener);
    if (in->version == NULL)
        return;
    hold(e, hd_loop_member(c->loop), in->version);
    e->_version = in->version->version;
}

void hd_http_entry_let_go(hd_http_entry_t *e, hd_conn_t *c)
{
    if (e->is_held)
        hd_unpin(hd_loop_member(c->loop), e->region);
    e->is_held = false;
}

void hd_http_entry_end(hd_http_entry_t *e, hd_conn_t *c)
{
    hd_http_entry_let_go(e, c);
    hd_slot_let_go(hd_loop_member(c->loop), e->listener);
}

/* The listener has another version: does that take the conn? */
static const hd_http_conf_t *find_chain(hd_http_entry_t *e, hd_conn_t *c)
{
    hd_member_t *m = hd_loop_member(c->loop);
    const hd_region_t *r = hd_slot_get(m, e->listener), *seen;
    const hd_filter_chain_t *chain;

    /* A publishing between two looks at the slot must not mix two versions. */
    do {
        seen = r;
        chain = r == NULL ? NULL : hd_listener_refresh(c, e->listener);
        r = hd_slot_get(m, e->listener);
    } while (r != seen);
    if (chain == NULL && e->is_held) {
        e->is_old = true;
        return e->chain->protocol_conf;
    }
    e->chain = chain;
    if (chain == NULL) {
        e->region = NULL;
        return NULL;
    }
    if (e->is_held)
        hold(e, m, r);
    e->region = r;
    e->_version = r->version;
    e->is_old = false;
    return chain->protocol_conf;
}

const hd_http_conf_t *hd_http_entry_refresh(hd_http_entry_t *e, hd_conn_t *c)
{
    const hd_region_t *r = hd_slot_get(hd_loop_member(c->loop), e->listener);

    if (hd_likely(r != NULL && r->version == e->_version && r == e->region))
        return e->chain->protocol_conf;
    return find_chain(e, c);
}

/* --- a conn whose first bytes tell its codec --- */

/* Its owner is its entry. */

static hd_http_entry_t take_entry(hd_conn_t *c)
{
    hd_http_entry_t entry = *(hd_http_entry_t *)c->owner;

    free(c->owner);
    c->owner = NULL;
    return entry;
}

static void drop_conn(hd_conn_t *c)
{
    hd_http_entry_t entry = take_entry(c);

    hd_http_entry_end(&entry, c);
    hd_conn_close(c, 0);
}

static void serve(hd_conn_t *c, bool is_h2)
{
    hd_http_entry_t entry;

    if (hd_http_entry_refresh(c->owner, c) == NULL) {
        drop_conn(c);
        return;
    }
    entry = take_entry(c);
    if (is_h2)
        hd_h2_serve(c, &entry);
    else
        hd_h1_serve(c, &entry);
}

/* A first line of three words and more whose last names no version: neither protocol.
 * One with a version is HTTP/1's, however wrong, and answered with 400. HTTP/2 says
 * so by its own error (RFC 9113 §3.4), which a client of it with a bad preface reads. */
static bool is_no_http1(hd_str_t bytes)
{
    ssize_t end = hd_str_find_char(bytes, '\r');
    hd_str_t line = hd_str_sub(bytes, 0, end < 0 ? 0 : (size_t)end);
    const char *last = line.len == 0 ? NULL : memrchr(line.data, ' ', line.len);

    return last != NULL && memchr(line.data, ' ', line.len) != last &&
           !hd_str_has_prefix_nocase(
               hd_str_sub(line, (size_t)(last - line.data) + 1, line.len),
               HD_STR("HTTP/"));
}

static void on_readable(hd_conn_t *c)
{
    hd_str_t bytes;
    hd_rc_t rc = hd_conn_peek(c, &bytes);

    if (rc == HD_DONE || rc == HD_ERROR) {
        drop_conn(c);
        return;
    }
    if (bytes.len == 0)
        return;
    if (memcmp(bytes.data, preface, hd_min(bytes.len, PREFACE_BYTES)) != 0)
        serve(c, is_no_http1(bytes));
    else if (bytes.len >= PREFACE_BYTES)
        serve(c, true);
}

/* Until its first byte. */
static uint64_t idle_since(const hd_conn_t *c)
{
    return c->bytes_in == 0 ? c->opened_ns : 0;
}

static const hd_conn_handler_t sniff_handler = {.idle_since = idle_since,
                                                .on_reuse = drop_conn,
                                                .on_readable = on_readable,
                                                .on_closed = drop_conn,
                                                .on_due = drop_conn};

static void sniff(hd_conn_t *c, const hd_http_entry_t *entry)
{
    const hd_http_conf_t *http = entry->chain->protocol_conf;
    hd_http_entry_t *own = malloc(sizeof(*own));

    hd_bug_on(own == NULL);
    *own = *entry;
    hd_conn_set_handler(c, &sniff_handler, own);
    hd_conn_set_timer(c,
                      http->header_timeout_ms > 0 ? http->header_timeout_ms : SNIFF_MS);
}

/* The codec setting, else ALPN, else what the inspector or we see in the first bytes. */
static void on_conn(hd_conn_t *c, const hd_entrance_t *in)
{
    const hd_http_conf_t *http = in->chain->protocol_conf;
    const hd_conn_facts_t *facts = c->facts;
    hd_http_entry_t entry;

    hd_http_entry_init(&entry, c, in);
    if (facts != NULL && hd_str_eq(facts->alpn, HD_STR(HD_WEFT_ALPN))) {
        hd_weft_serve(c, &entry);
    } else if (http->codec == HD_CODEC_HTTP1) {
        hd_h1_serve(c, &entry);
    } else if (http->codec == HD_CODEC_HTTP2) {
        hd_h2_serve(c, &entry);
    } else if (facts != NULL && facts->alpn.len > 0) {
        if (hd_str_eq(facts->alpn, HD_STR("h2")))
            hd_h2_serve(c, &entry);
        else
            hd_h1_serve(c, &entry);
    } else if (facts != NULL && hd_str_eq(facts->app_protocol, HD_STR("h2c"))) {
        hd_h2_serve(c, &entry);
    } else if (facts != NULL &&
               hd_str_has_prefix(facts->app_protocol, HD_STR("http/1"))) {
        hd_h1_serve(c, &entry);
    } else {
        sniff(c, &entry);
    }
}

static void drain(hd_loop_t *loop, const hd_drain_round_t *round)
{
    hd_h1_drain(loop, round);
    hd_h2_drain(loop, round);
    hd_weft_drain(loop, round);
}

static const hd_protocol_t protocol = {
    .name = "http", .on_conn = on_conn, .drain = drain};
static uint16_t number;

uint16_t hd_http_protocol(void)
{
    return number;
}

void hd_http_register(void)
{
    if (number != 0)
        return;
    number = hd_protocol_register(&protocol);
    hd_action_register(HD_ACT_PROXY, &hd_proxy_action);
    hd_action_register(HD_ACT_FILE, &hd_file_action);
    hd_action_register(HD_ACT_ANSWER, &hd_answer_action);
    hd_action_register(HD_ACT_REDIRECT, &hd_redirect_action);
    hd_action_register(HD_ACT_TUNNEL, &hd_tunnel_action);
    hd_action_register(HD_ACT_SERVICE, &hd_service_action);
    hd_request_api_start();
    hd_http_attrs_register();
    hd_http_captures_register();
    hd_http_auth_register();
    hd_http_maps_register();
}
