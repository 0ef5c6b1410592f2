/* pb_match: Envoy's string, header and address matchers as a module's own data.
 * Everything built lies in the pool given, which is the region being built. */
#pragma once
#include "hd_module.h"
#include "hd_pb.h"
#include "hd_pb_value.h"
#include "xds/core.pb-c.h"
#include "xds/route.pb-c.h"
#include "xds/type_matcher.pb-c.h"
#include <stdio.h>

#define PB_UNUSED __attribute__((unused))

PB_UNUSED static hd_str_t pb_str(hd_pool_t *pool, const char *s)
{
    return hd_str_dup(pool, hd_str_c(s));
}

PB_UNUSED static hd_rc_t pb_string_match(hd_pool_t *pool,
                                         const PbMatcher__StringMatcher *msg,
                                         hd_match_t *m, hd_err_t *err)
{
    const char *text = "";

    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "string matcher is missing");
    memset(m, 0, sizeof(*m));
    m->ignore_case = msg->ignore_case != 0;
    switch (msg->match_pattern_case) {
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT:
        m->kind = HD_MATCH_EXACT;
        text = msg->exact;
        break;
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        m->kind = HD_MATCH_PREFIX;
        text = msg->prefix;
        break;
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        m->kind = HD_MATCH_SUFFIX;
        text = msg->suffix;
        break;
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        m->kind = HD_MATCH_CONTAINS;
        text = msg->contains;
        break;
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        m->kind = HD_MATCH_REGEX;
        text = msg->safe_regex->regex;
        break;
    default:
        return hd_err_set(err, HD_E_RESOURCE, "string matcher of an unknown kind");
    }
    m->text = m->ignore_case && m->kind != HD_MATCH_REGEX
                  ? hd_str_dup_lower(pool, hd_str_c(text))
                  : pb_str(pool, text);
    return hd_match_check_re2(m, err);
}

/* One header's test. A field that isn't there matches only a test for absence, unless
 * missing counts as empty (Envoy's HeaderMatcher). */
typedef struct {
    hd_str_t name;
    hd_match_t match;
    bool treat_missing_as_empty, is_range, invert;
    int64_t from, to;
} pb_header_match_t;

PB_UNUSED static hd_rc_t pb_header_match(hd_pool_t *pool,
                                         const PbRoute__HeaderMatcher *msg,
                                         pb_header_match_t *h, hd_err_t *err)
{
    memset(h, 0, sizeof(*h));
    h->name = hd_str_dup_lower(pool, hd_str_c(msg->name));
    if (h->name.len == 0)
        return hd_err_set(err, HD_E_RESOURCE, "header matcher without a name");
    h->treat_missing_as_empty = msg->treat_missing_header_as_empty != 0;
    h->invert = msg->invert_match != 0;
    h->match.kind = HD_MATCH_EXACT;
    switch (msg->header_match_specifier_case) {
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER__NOT_SET:
        h->match.kind = HD_MATCH_ANY;
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
        h->match.kind = HD_MATCH_ANY;
        h->invert ^= msg->present_match == 0;
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH:
        return pb_string_match(pool, msg->string_match, &h->match, err);
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_RANGE_MATCH:
        h->is_range = true;
        h->from = msg->range_match->start;
        h->to = msg->range_match->end;
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_EXACT_MATCH:
        h->match.text = pb_str(pool, msg->exact_match);
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PREFIX_MATCH:
        h->match.kind = HD_MATCH_PREFIX;
        h->match.text = pb_str(pool, msg->prefix_match);
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SUFFIX_MATCH:
        h->match.kind = HD_MATCH_SUFFIX;
        h->match.text = pb_str(pool, msg->suffix_match);
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_CONTAINS_MATCH:
        h->match.kind = HD_MATCH_CONTAINS;
        h->match.text = pb_str(pool, msg->contains_match);
        return HD_OK;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SAFE_REGEX_MATCH:
        h->match.kind = HD_MATCH_REGEX;
        h->match.text = pb_str(pool, msg->safe_regex_match->regex);
        return hd_match_check_re2(&h->match, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE, "header matcher of an unknown kind");
    }
}

PB_UNUSED static hd_str_t pb_header_value(hd_req_t *req, hd_str_t name, bool *found)
{
    *found = true;
    /* whatever version it came by: HTTP/2 has no Host */
    if (hd_str_eq(name, HD_STR(":authority")) || hd_str_eq(name, HD_STR("host")))
        return hd_req_authority(req);
    if (name.data[0] != ':')
        return hd_req_header_joined(req, name, found);
    if (hd_str_eq(name, HD_STR(":method")))
        return hd_req_method(req);
    if (hd_str_eq(name,
                  HD_STR(":path"))) /* normalised, or rules could be walked around */
        return hd_req_query(req).len == 0 ? hd_req_path(req)
                                          : hd_str_printf(hd_req_pool(req), "%.*s?%.*s",
                                                          HD_STR_ARG(hd_req_path(req)),
                                                          HD_STR_ARG(hd_req_query(req)));
    if (hd_str_eq(name, HD_STR(":scheme")))
        return hd_req_scheme(req);
    *found = false;
    return HD_STR_NONE;
}

/* <value>: of a request's or a response's field; <found>: there is one. */
PB_UNUSED static bool pb_value_matches(hd_req_t *req, const pb_header_match_t *h,
                                       hd_str_t value, bool found)
{
    int64_t n;

    if (h->match.kind == HD_MATCH_ANY && !h->is_range)
        return found != h->invert;
    if (!found && !h->treat_missing_as_empty)
        return false;
    if (h->is_range)
        return (hd_str_to_i64(value, &n) && n >= h->from && n < h->to) != h->invert;
    return hd_req_match(req, &h->match, value) != h->invert;
}

PB_UNUSED static bool pb_header_matches(hd_req_t *req, const pb_header_match_t *h)
{
    bool found;
    hd_str_t value = pb_header_value(req, h->name, &found);

    return pb_value_matches(req, h, value, found);
}

PB_UNUSED static hd_rc_t pb_cidr(const PbCore__CidrRange *msg, hd_cidr_t *cidr,
                                 hd_err_t *err)
{
    char text[128];
    int n;

    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "address range is missing");
    n = msg->prefix_len != NULL
            ? snprintf(text, sizeof(text), "%s/%u", msg->address_prefix,
                       msg->prefix_len->value)
            : snprintf(text, sizeof(text), "%s/0", msg->address_prefix);
    if (n < 0 || n >= (int)sizeof(text) ||
        !hd_cidr_parse(hd_str_n(text, (size_t)n), cidr))
        return hd_err_set(err, HD_E_RESOURCE,
                          "\"%s\" with its prefix length is no address range",
                          msg->address_prefix);
    return HD_OK;
}
