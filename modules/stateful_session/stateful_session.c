/* stateful_session: requests of a session go to the endpoint that answered its first one,
 * whose address the client keeps in a cookie or a header (Envoy's filter of that name, by
 * xDS only; Istio's label istio.io/persistent-session, DR-LB-11). In configuration files
 * it is `sticky cookie`.
 *
 * The value is Envoy's: base64 of the address, in a cookie inside of a message {1:
 * address, 2: when it ends}. What a client makes up leads to endpoints of the same
 * cluster only. */
#include "hd_module.h"
#include "hd_pb.h"
#include "hd_pb_value.h"
#include "lib/pb_unpack.h"
#include "ext/http_stateful_session.pb-c.h"
#include "ext/session_cookie.pb-c.h"
#include "ext/session_header.pb-c.h"

#define VALUE_MAX 512 /* bytes of a cookie or header of ours */
#define ROOM HD_BASE64_BYTES_MAX(VALUE_MAX)
#define TAG_ADDRESS 0x0a
#define TAG_EXPIRES 0x10

typedef struct {
    bool is_set, is_strict;
    hd_str_t cookie, path; /* <cookie> empty: by <header> */
    hd_str_t attributes;   /* "; Max-Age=…", as it is sent */
    uint64_t ttl_s;
    hd_str_t header;
} session_conf_t;

/* --- a cookie's message --- */

static size_t put_varint(uint8_t *to, uint64_t v)
{
    size_t n = 0;

    for (; v > 127; v >>= 7)
        to[n++] = (uint8_t)(v | 128);
    to[n++] = (uint8_t)v;
    return n;
}

static bool get_varint(const uint8_t *from, size_t len, size_t *at, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; *at < len && shift < 64; shift += 7) {
        uint8_t b = from[(*at)++];

        *v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return true;
    }
    return false;
}

/* False: none of that form; the older one is the bare address. */
static bool read_message(const uint8_t *from, size_t len, hd_str_t *address,
                         uint64_t *expires_s)
{
    uint64_t n;
    size_t at = 0;

    *address = HD_STR_NONE;
    *expires_s = 0;
    while (at < len) {
        uint8_t tag = from[at++];

        if ((tag != TAG_ADDRESS && tag != TAG_EXPIRES) || !get_varint(from, len, &at, &n))
            return false;
        if (tag == TAG_EXPIRES) {
            *expires_s = n;
            continue;
        }
        if (n > len - at)
            return false;
        *address = hd_str_n((const char *)from + at, n);
        at += n;
    }
    return address->len > 0;
}

static int64_t now_s(hd_req_t *req)
{
    return hd_loop_wall_ns(hd_req_loop(req)) / 1000000000;
}

/* --- the request --- */

static bool find_cookie(hd_req_t *req, hd_str_t name, hd_str_t *value)
{
    uint32_t at = 0;
    hd_str_t field, rest, part;

    while (hd_req_next_header(req, &at, &field, &rest)) {
        if (!hd_str_eq_nocase(field, HD_STR("cookie")))
            continue;
        while (hd_str_split(&rest, ';', &part)) {
            ssize_t eq = hd_str_find_char(part = hd_str_trim(part), '=');

            if (eq < 0 || !hd_str_eq(hd_str_sub(part, 0, (size_t)eq), name))
                continue;
            *value = hd_str_sub(part, (size_t)eq + 1, part.len);
            if (value->len > 1 && value->data[0] == '"')
                *value = hd_str_sub(*value, 1, value->len - 2);
            return true;
        }
    }
    return false;
}

/* The address that the client brings, in <room> (ROOM bytes); empty: none. */
static hd_str_t address_of(hd_req_t *req, const session_conf_t *sc, uint8_t *room)
{
    hd_str_t value, address;
    uint64_t expires_s;
    bool found = true;
    size_t n;

    if (sc->cookie.len > 0)
        found = find_cookie(req, sc->cookie, &value);
    else
        value = hd_req_header(req, sc->header, &found);
    if (!found || value.len == 0 || value.len > VALUE_MAX ||
        !hd_base64_decode(value, HD_BASE64, HD_BASE64_LOOSE, room, &n))
        return HD_STR_NONE;
    if (sc->cookie.len == 0 || !read_message(room, n, &address, &expires_s))
        return hd_str_n((const char *)room, n);
    return expires_s > 0 && (int64_t)expires_s < now_s(req) ? HD_STR_NONE : address;
}

/* Of a cookie with a path: requests below it only (Envoy's reading). */
static bool is_meant(hd_req_t *req, const session_conf_t *sc)
{
    hd_str_t path = hd_req_path(req);

    if (!sc->is_set)
        return false;
    if (sc->cookie.len == 0 || sc->path.len == 0 || hd_str_eq(sc->path, HD_STR("/")))
        return true;
    return hd_str_has_prefix(path, sc->path) &&
           (path.len == sc->path.len || hd_str_has_suffix(sc->path, HD_STR("/")) ||
            path.data[sc->path.len] == '/');
}

static hd_rc_t on_pick(hd_req_t *req, const void *conf, hd_pick_t *pick)
{
    const session_conf_t *sc = conf;
    uint8_t room[ROOM];
    hd_str_t address;

    if (!is_meant(req, sc))
        return HD_OK;
    address = address_of(req, sc, room);
    if (address.len == 0)
        return HD_OK;
    pick->sticky = hd_sticky_hash(address);
    pick->is_sticky_strict = sc->is_strict;
    return HD_OK;
}

/* --- the answer: where it went, if the client doesn't know --- */

static void set_cookie(hd_req_t *req, const session_conf_t *sc, hd_str_t address)
{
    uint8_t message[VALUE_MAX];
    hd_pool_t *pool = hd_req_pool(req);
    size_t n = 0;
    hd_str_t value;

    message[n++] = TAG_ADDRESS;
    n += put_varint(message + n, address.len);
    memcpy(message + n, address.data, address.len);
    n += address.len;
    if (sc->ttl_s > 0) {
        message[n++] = TAG_EXPIRES;
        n += put_varint(message + n, (uint64_t)now_s(req) + sc->ttl_s);
    }
    value = hd_base64_encode(pool, HD_BASE64, message, n);
    hd_ignore(hd_res_add_header(req, HD_STR("set-cookie"),
                                hd_str_printf(pool, "%.*s=\"%.*s\"%.*s; HttpOnly",
                                              HD_STR_ARG(sc->cookie), HD_STR_ARG(value),
                                              HD_STR_ARG(sc->attributes))));
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const session_conf_t *sc = conf;
    hd_req_info_t info;
    uint8_t room[ROOM];

    if (!is_meant(req, sc))
        return HD_OK;
    hd_req_get_info(req, &info);
    if (info.endpoint == NULL || info.upstream_status == 0 ||
        info.upstream_host.len == 0 || info.upstream_host.len > VALUE_MAX / 2 ||
        hd_str_eq(address_of(req, sc, room), info.upstream_host))
        return HD_OK;
    if (sc->cookie.len > 0)
        set_cookie(req, sc, info.upstream_host);
    else
        hd_ignore(hd_res_set_header(req, sc->header,
                                    hd_base64_encode(hd_req_pool(req), HD_BASE64,
                                                     info.upstream_host.data,
                                                     info.upstream_host.len)));
    return HD_OK;
}

/* --- by xDS --- */

#define MESSAGE_MAX ((size_t)1 << 20)
#define OVERRIDE_SESSION                                                                 \
    PB_HTTP_STATEFUL_SESSION__STATEFUL_SESSION_PER_ROUTE__OVERRIDE_STATEFUL_SESSION
#define STATE "type.googleapis.com/envoy.extensions.http.stateful_session."
#define FILTER "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3."

static hd_rc_t take_cookie(hd_conf_t *cf,
                           const PbSessionCookie__CookieBasedSessionState *msg,
                           session_conf_t *sc, hd_err_t *err)
{
    const PbTypeHttp__Cookie *c = msg->cookie;

    if (c == NULL || !hd_http_is_field_name(hd_str_c(c->name)))
        return hd_err_set(err, HD_E_RESOURCE, "stateful_session: a cookie wants a name");
    sc->cookie = hd_str_dup(cf->pool, hd_str_c(c->name));
    sc->path = hd_str_dup(cf->pool, hd_str_c(c->path));
    sc->ttl_s = c->ttl != NULL && c->ttl->seconds > 0 ? (uint64_t)c->ttl->seconds : 0;
    if (sc->ttl_s > 0)
        sc->attributes =
            hd_str_printf(cf->pool, "; Max-Age=%llu", (unsigned long long)sc->ttl_s);
    if (sc->path.len > 0)
        sc->attributes = hd_str_printf(cf->pool, "%.*s; Path=%.*s",
                                       HD_STR_ARG(sc->attributes), HD_STR_ARG(sc->path));
    for (size_t i = 0; i < c->n_attributes; i++)
        sc->attributes = hd_str_printf(
            cf->pool, "%.*s; %s%s%s", HD_STR_ARG(sc->attributes), c->attributes[i]->name,
            c->attributes[i]->value[0] != '\0' ? "=" : "", c->attributes[i]->value);
    return hd_http_is_field_value(sc->attributes)
               ? HD_OK
               : hd_err_set(err, HD_E_RESOURCE,
                            "stateful_session: path or attributes no cookie can have");
}

static hd_rc_t take_state(hd_conf_t *cf, const Pb__Any *any, session_conf_t *sc,
                          hd_pb_arena_t *arena, hd_err_t *err)
{
    hd_str_t bytes = hd_str_n((const char *)any->value.data, any->value.len);
    const PbSessionCookie__CookieBasedSessionState *cookie;
    const PbSessionHeader__HeaderBasedSessionState *header;

    if (strcmp(any->type_url, STATE "cookie.v3.CookieBasedSessionState") == 0) {
        cookie = pb_unpack(&pb_session_cookie__cookie_based_session_state__descriptor,
                           bytes, arena, "stateful_session: ", err);
        return cookie != NULL ? take_cookie(cf, cookie, sc, err) : HD_ERROR;
    }
    if (strcmp(any->type_url, STATE "header.v3.HeaderBasedSessionState") != 0)
        return hd_err_set(err, HD_E_RESOURCE, "stateful_session: unknown state %s",
                          any->type_url);
    header = pb_unpack(&pb_session_header__header_based_session_state__descriptor, bytes,
                       arena, "stateful_session: ", err);
    if (header == NULL)
        return HD_ERROR;
    if (!hd_http_is_field_name(hd_str_c(header->name)))
        return hd_err_set(err, HD_E_RESOURCE, "stateful_session: \"%s\" is no field name",
                          header->name);
    sc->header = hd_str_dup_lower(cf->pool, hd_str_c(header->name));
    return HD_OK;
}

static hd_rc_t take(hd_conf_t *cf, const PbHttpStatefulSession__StatefulSession *msg,
                    session_conf_t *sc, hd_pb_arena_t *arena, hd_err_t *err)
{
    uint32_t status = msg->status_on_strict_destination_not_found;

    if (msg->session_state == NULL) /* waits for a route's */
        return HD_OK;
    if (msg->session_state->typed_config == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "stateful_session: a state without type");
    if (status != 0 && status != 503)
        return hd_err_set(err, HD_E_RESOURCE,
                          "stateful_session: status_on_strict_destination_not_found: 503 "
                          "alone is supported");
    sc->is_set = true;
    sc->is_strict = msg->strict;
    return take_state(cf, msg->session_state->typed_config, sc, arena, err);
}

static hd_rc_t build_filter(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                            hd_err_t *err)
{
    const PbHttpStatefulSession__StatefulSession *msg;
    hd_pb_arena_t arena;

    hd_rc_t rc;

    (void)is_route;
    hd_pb_arena_init(&arena, MESSAGE_MAX);
    msg = pb_unpack(&pb_http_stateful_session__stateful_session__descriptor, bytes,
                    &arena, "stateful_session: ", err);
    rc = msg != NULL ? take(cf, msg, conf, &arena, err) : HD_ERROR;
    hd_pb_arena_deinit(&arena);
    return rc;
}

static hd_rc_t build_route(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                           hd_err_t *err)
{
    const PbHttpStatefulSession__StatefulSessionPerRoute *msg;
    hd_pb_arena_t arena;

    hd_rc_t rc = HD_OK; /* disabled: not set */

    (void)is_route;
    hd_pb_arena_init(&arena, MESSAGE_MAX);
    msg = pb_unpack(&pb_http_stateful_session__stateful_session_per_route__descriptor,
                    bytes, &arena, "stateful_session: ", err);
    if (msg == NULL)
        rc = HD_ERROR;
    else if (msg->override_case == OVERRIDE_SESSION)
        rc = take(cf, msg->stateful_session, conf, &arena, err);
    hd_pb_arena_deinit(&arena);
    return rc;
}

static const hd_xds_type_t xds_types[] = {
    {.url = FILTER "StatefulSession", .build = build_filter},
    {.url = FILTER "StatefulSessionPerRoute", .build = build_route},
    {0},
};

static const hd_directive_t directives[] = {{0}};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "stateful_session",
    .directives = directives,
    .conf_size = sizeof(session_conf_t),
    .phase = HD_PHASE_CONTENT,
    .xds_types = xds_types,
    .on_pick = on_pick,
    .on_response_headers = on_response_headers,
};
