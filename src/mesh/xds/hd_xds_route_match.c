/* RouteMatch: path, headers, query parameters and the rest. */
#include "mesh/xds/hd_xds_int.h"

#include <string.h>

static hd_rc_t set_path_text(hd_xds_t *x, hd_match_t *path, hd_match_kind_t kind,
                             const char *text, bool case_sensitive)
{
    path->kind =
        (uint8_t)(kind == HD_MATCH_PREFIX && *text == '\0' ? HD_MATCH_ANY : kind);
    path->ignore_case = !case_sensitive;
    path->text = case_sensitive ? hd_str_dup(x->cf.pool, hd_str_c(text))
                                : hd_str_dup_lower(x->cf.pool, hd_str_c(text));
    return HD_OK;
}

static hd_rc_t set_path(hd_xds_t *x, const PbRoute__RouteMatch *msg, hd_route_match_t *rm,
                        hd_err_t *err)
{
    bool with_case = hd_pb_bool(msg->case_sensitive, true);
    const char *sep = msg->path_separated_prefix;

    switch (msg->path_specifier_case) {
    case PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX:
        return set_path_text(x, &rm->path, HD_MATCH_PREFIX, msg->prefix, with_case);
    case PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH:
        return set_path_text(x, &rm->path, HD_MATCH_EXACT, msg->path, with_case);
    case PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX:
        return hd_xds_regex(x, msg->safe_regex, &rm->path, err);
    case PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_CONNECT_MATCHER:
        rm->connect_only = true;
        return HD_OK;
    case PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH_SEPARATED_PREFIX:
        if (sep[0] != '/' || sep[1] == '\0' || sep[strlen(sep) - 1] == '/' ||
            strpbrk(sep, "?#") != NULL)
            return hd_err_set(err, HD_E_RESOURCE,
                              "path_separated_prefix \"%s\": right is /a or /a/b", sep);
        rm->path_is_segments = true;
        return set_path_text(x, &rm->path, HD_MATCH_PREFIX, sep, with_case);
    case PB_ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH_MATCH_POLICY:
        return hd_err_set(err, HD_E_RESOURCE, "path_match_policy isn't supported");
    default:
        return hd_err_set(err, HD_E_RESOURCE, "it says nothing about the path");
    }
}

static hd_rc_t set_plain(hd_xds_t *x, hd_match_t *m, hd_match_kind_t kind,
                         const char *text, hd_err_t *err)
{
    m->kind = (uint8_t)kind;
    m->text = hd_str_dup(x->cf.pool, hd_str_c(text));
    return hd_match_check_re2(m, err);
}

static hd_rc_t set_header(hd_xds_t *x, const PbRoute__HeaderMatcher *msg,
                          hd_field_match_t *to, hd_err_t *err)
{
    hd_match_t *m = &to->match;
    hd_rc_t rc = HD_OK;

    switch (msg->header_match_specifier_case) {
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER__NOT_SET:
        m->kind = HD_MATCH_ANY;
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
        m->kind = HD_MATCH_ANY;
        m->invert = !msg->present_match;
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_EXACT_MATCH:
        rc = set_plain(x, m, HD_MATCH_EXACT, msg->exact_match, err);
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PREFIX_MATCH:
        rc = set_plain(x, m, HD_MATCH_PREFIX, msg->prefix_match, err);
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SUFFIX_MATCH:
        rc = set_plain(x, m, HD_MATCH_SUFFIX, msg->suffix_match, err);
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_CONTAINS_MATCH:
        rc = set_plain(x, m, HD_MATCH_CONTAINS, msg->contains_match, err);
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SAFE_REGEX_MATCH:
        rc = hd_xds_regex(x, msg->safe_regex_match, m, err);
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH:
        rc = hd_xds_match(x, msg->string_match, m, err);
        break;
    case PB_ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_RANGE_MATCH:
        to->is_range = true;
        to->from = msg->range_match->start;
        to->to = msg->range_match->end;
        break;
    default:
        rc = hd_err_set(err, HD_E_RESOURCE, "a kind of match that isn't known here");
    }
    if (*msg->name == '\0')
        return hd_err_set(err, HD_E_RESOURCE, "a header match without a name");
    m->invert ^= msg->invert_match != 0;
    to->name = hd_str_dup_lower(x->cf.pool, hd_str_c(msg->name));
    to->treat_missing_as_empty = msg->treat_missing_header_as_empty;
    return rc == HD_OK ? HD_OK : hd_err_prefix(err, "header \"%s\": ", msg->name);
}

static hd_rc_t set_query(hd_xds_t *x, const PbRoute__QueryParameterMatcher *msg,
                         hd_field_match_t *to, hd_err_t *err)
{
    if (*msg->name == '\0')
        return hd_err_set(err, HD_E_RESOURCE, "a query parameter without a name");
    to->name = hd_xds_str(x, msg->name);
    to->match.kind = HD_MATCH_ANY;
    switch (msg->query_parameter_match_specifier_case) {
    case PB_ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH:
        to->match.invert = !msg->present_match;
        return HD_OK;
    case PB_ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH:
        return hd_xds_match(x, msg->string_match, &to->match, err);
    default:
        return HD_OK;
    }
}

static hd_rc_t set_fields(hd_xds_t *x, const PbRoute__RouteMatch *msg,
                          hd_route_match_t *rm, hd_err_t *err)
{
    hd_field_match_t *headers = hd_pool_new_n(x->cf.pool, hd_field_match_t,
                                              msg->n_headers + msg->n_query_parameters);
    hd_field_match_t *queries = headers + msg->n_headers;

    for (size_t i = 0; i < msg->n_headers; i++) {
        if (set_header(x, msg->headers[i], &headers[i], err) != HD_OK)
            return HD_ERROR;
    }
    for (size_t i = 0; i < msg->n_query_parameters; i++) {
        if (set_query(x, msg->query_parameters[i], &queries[i], err) != HD_OK)
            return HD_ERROR;
    }
    rm->headers = headers;
    rm->headers_n = (uint32_t)msg->n_headers;
    rm->queries = queries;
    rm->queries_n = (uint32_t)msg->n_query_parameters;
    return HD_OK;
}

hd_rc_t hd_xds_route_match(hd_xds_t *x, const PbRoute__RouteMatch *msg,
                           hd_route_match_t *rm, hd_err_t *err)
{
    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "it has no match");
    if (set_path(x, msg, rm, err) != HD_OK || set_fields(x, msg, rm, err) != HD_OK)
        return HD_ERROR;
    rm->grpc_only = msg->grpc != NULL;
    if (msg->tls_context != NULL && msg->tls_context->presented != NULL) {
        rm->has_tls_presented = true;
        rm->tls_presented = msg->tls_context->presented->value;
    }
    if (msg->runtime_fraction != NULL) {
        rm->has_fraction = true;
        rm->fraction_ppm =
            hd_pb_fraction_ppm(msg->runtime_fraction->default_value, 1000000);
    }
    return HD_OK;
}
