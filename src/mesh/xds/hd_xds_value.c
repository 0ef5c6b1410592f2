/* Small values: durations, string patterns, addresses, texts. */
#include "mesh/xds/hd_xds_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

hd_str_t hd_xds_str(hd_xds_t *x, const char *s)
{
    return *s == '\0' ? HD_STR_NONE : hd_str_dup(x->cf.pool, hd_str_c(s));
}

hd_rc_t hd_xds_ms64(const Pb__Duration *d, uint64_t unset, const char *what, uint64_t *ms,
                    hd_err_t *err)
{
    int64_t value;

    if (!hd_pb_duration_ms(d, (int64_t)unset, &value) || value < 0)
        return hd_err_set(err, HD_E_RESOURCE, "%s is no duration of 0 or more", what);
    *ms = (uint64_t)value;
    return HD_OK;
}

/* Envoy asks for a time-out of 1 ms and more; without an interval there is no PING. */
static uint32_t ping_ms(const Pb__Duration *d)
{
    if (d == NULL || d->seconds < 0 || (d->seconds == 0 && d->nanos <= 0))
        return 0;
    return (uint32_t)hd_min(
        hd_max((uint64_t)d->seconds * 1000 + (uint64_t)hd_max(d->nanos, 0) / 1000000,
               (uint64_t)1),
        (uint64_t)UINT32_MAX);
}

void hd_xds_ping(const PbCore__KeepaliveSettings *msg, uint32_t *interval_ms,
                 uint32_t *timeout_ms)
{
    if (msg == NULL)
        return;
    *timeout_ms = ping_ms(msg->timeout);
    *interval_ms = *timeout_ms > 0 ? ping_ms(msg->interval) : 0;
}

hd_rc_t hd_xds_ms(const Pb__Duration *d, uint32_t unset, const char *what, uint32_t *ms,
                  hd_err_t *err)
{
    uint64_t value = 0;

    if (hd_xds_ms64(d, unset, what, &value, err) != HD_OK)
        return HD_ERROR;
    *ms = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    return HD_OK;
}

/* --- patterns --- */

static hd_rc_t set_match(hd_xds_t *x, hd_match_t *match, hd_match_kind_t kind,
                         const char *text, bool ignore_case, hd_err_t *err)
{
    match->kind = (uint8_t)kind;
    match->ignore_case = ignore_case;
    match->text = ignore_case ? hd_str_dup_lower(x->cf.pool, hd_str_c(text))
                              : hd_str_dup(x->cf.pool, hd_str_c(text));
    return hd_match_check_re2(match, err);
}

hd_rc_t hd_xds_regex(hd_xds_t *x, const PbMatcher__RegexMatcher *msg, hd_match_t *match,
                     hd_err_t *err)
{
    if (*msg->regex == '\0')
        return hd_err_set(err, HD_E_RESOURCE, "an empty regular expression");
    return set_match(x, match, HD_MATCH_REGEX, msg->regex, false, err);
}

hd_rc_t hd_xds_match(hd_xds_t *x, const PbMatcher__StringMatcher *msg, hd_match_t *match,
                     hd_err_t *err)
{
    bool no_case = msg->ignore_case;

    switch (msg->match_pattern_case) {
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT:
        return set_match(x, match, HD_MATCH_EXACT, msg->exact, no_case, err);
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        return set_match(x, match, HD_MATCH_PREFIX, msg->prefix, no_case, err);
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        return set_match(x, match, HD_MATCH_SUFFIX, msg->suffix, no_case, err);
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        return set_match(x, match, HD_MATCH_CONTAINS, msg->contains, no_case, err);
    case PB_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        return hd_xds_regex(x, msg->safe_regex, match, err); /* has its own (?i) */
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "a string matcher of a kind that isn't "
                          "known here");
    }
}

hd_rc_t hd_xds_rewrite(hd_xds_t *x, const PbMatcher__RegexMatchAndSubstitute *msg,
                       hd_match_t *match, hd_str_t *subst, hd_err_t *err)
{
    hd_regex_t *re;
    hd_rc_t rc;

    if (msg->pattern == NULL || *msg->pattern->regex == '\0')
        return hd_err_set(err, HD_E_RESOURCE, "a rewrite without a pattern");
    match->part = true;
    if (hd_xds_regex(x, msg->pattern, match, err) != HD_OK)
        return HD_ERROR;
    *subst = hd_str_dup(x->cf.pool, hd_str_c(msg->substitution));
    re = hd_regex_create(match->text, false, true, err);
    if (re == NULL)
        return HD_ERROR;
    rc = hd_regex_check_subst(re, *subst, err);
    hd_regex_destroy(re);
    return rc;
}

/* --- addresses --- */

hd_rc_t hd_xds_socket_addr(const PbCore__SocketAddress *msg, hd_addr_t *addr,
                           hd_err_t *err)
{
    if (msg->port_specifier_case == PB_CORE__SOCKET_ADDRESS__PORT_SPECIFIER_NAMED_PORT)
        return hd_err_set(err, HD_E_RESOURCE, "a port by name (%s)", msg->named_port);
    if (!hd_addr_parse_ip(hd_str_c(msg->address), addr))
        return hd_err_set(err, HD_E_RESOURCE, "\"%s\" is no IP address", msg->address);
    if (msg->port_specifier_case == PB_CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE) {
        if (msg->port_value > 65535)
            return hd_err_set(err, HD_E_RESOURCE, "port %u", msg->port_value);
        addr->port = (uint16_t)msg->port_value;
    }
    return HD_OK;
}

hd_rc_t hd_xds_addr(hd_xds_t *x, const PbCore__Address *msg, hd_addr_t *addr,
                    hd_err_t *err)
{
    if (msg == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "an address is missing");
    switch (msg->address_case) {
    case PB_CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS:
        return hd_xds_socket_addr(msg->socket_address, addr, err);
    case PB_CORE__ADDRESS__ADDRESS_PIPE:
        return hd_addr_parse(x->cf.pool,
                             hd_str_printf(x->env->temp, "unix:%s", msg->pipe->path), 0,
                             addr, err);
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "an address that is neither IP nor path: not supported yet");
    }
}

hd_rc_t hd_xds_cidrs(hd_xds_t *x, PbCore__CidrRange *const *msgs, size_t n,
                     const hd_cidr_t **cidrs, uint32_t *cidrs_n, hd_err_t *err)
{
    hd_cidr_t *list = n > 0 ? hd_pool_new_n(x->cf.pool, hd_cidr_t, n) : NULL;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits = hd_pb_u32(msgs[i]->prefix_len, 0);

        if (!hd_addr_parse_ip(hd_str_c(msgs[i]->address_prefix), &list[i].addr) ||
            bits > (list[i].addr.family == AF_INET ? 32u : 128u))
            return hd_err_set(err, HD_E_RESOURCE, "\"%s\"/%u is no range of addresses",
                              msgs[i]->address_prefix, bits);
        list[i].bits = (uint8_t)bits;
    }
    *cidrs = list;
    *cidrs_n = (uint32_t)n;
    return HD_OK;
}

/* --- texts --- */

/* Files belong to the machine, not to the control plane: those of secrets are named by
 * their own resources (file-cert:, file-root:). */
hd_rc_t hd_xds_data(hd_xds_t *x, const PbCore__DataSource *msg, hd_str_t *text,
                    hd_err_t *err)
{
    *text = HD_STR_NONE;
    if (msg == NULL)
        return HD_OK;
    switch (msg->specifier_case) {
    case PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        *text = hd_str_dup(x->cf.pool, hd_str_c(msg->inline_string));
        return HD_OK;
    case PB_CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        *text = hd_str_dup(x->cf.pool, hd_str_n((const char *)msg->inline_bytes.data,
                                                msg->inline_bytes.len));
        return HD_OK;
    default:
        return hd_err_set(err, HD_E_RESOURCE,
                          "text out of a file or the environment: only inline text is "
                          "taken from a control plane");
    }
}

const Pb__Struct *hd_xds_metadata(const PbCore__Metadata *msg, const char *filter)
{
    for (size_t i = msg != NULL ? msg->n_filter_metadata : 0; i > 0; i--) {
        if (strcmp(msg->filter_metadata[i - 1]->key, filter) == 0)
            return msg->filter_metadata[i - 1]->value;
    }
    return NULL;
}

static hd_str_t value_text(hd_xds_t *x, const Pb__Value *v)
{
    switch (v->kind_case) {
    case PB__VALUE__KIND_STRING_VALUE:
        return hd_xds_str(x, v->string_value);
    case PB__VALUE__KIND_BOOL_VALUE:
        return hd_xds_str(x, v->bool_value ? "true" : "false");
    case PB__VALUE__KIND_NUMBER_VALUE:
        return hd_str_printf(x->cf.pool, "%.17g", v->number_value);
    default:
        return HD_STR_NONE;
    }
}

void hd_xds_labels(hd_xds_t *x, const Pb__Struct *s, const hd_kv_t **kv, uint32_t *n)
{
    hd_kv_t *list;
    size_t room = 0;

    *kv = NULL;
    *n = 0;
    if (s == NULL || s->n_fields == 0)
        return;
    for (size_t i = 0; i < s->n_fields; i++)
        room += s->fields[i]->value != NULL &&
                        s->fields[i]->value->kind_case == PB__VALUE__KIND_LIST_VALUE
                    ? s->fields[i]->value->list_value->n_values
                    : 1;
    list = hd_pool_new_n(x->cf.pool, hd_kv_t, room + 1);
    for (size_t i = 0; i < s->n_fields; i++) {
        const Pb__Value *v = s->fields[i]->value;
        bool is_list = v != NULL && v->kind_case == PB__VALUE__KIND_LIST_VALUE;
        size_t values = v == NULL ? 0 : is_list ? v->list_value->n_values : 1;

        for (size_t k = 0; k < values; k++) {
            list[*n].key = hd_xds_str(x, s->fields[i]->key);
            list[(*n)++].value = value_text(x, is_list ? v->list_value->values[k] : v);
        }
    }
    *kv = list;
}

#define WANTED_MAX 4096 /* labels in all, alternatives included */
#define FALLBACK_LIST "fallback_list"

static bool add_label(hd_array_t *all, hd_kv_t label)
{
    hd_kv_t *to = hd_array_add(all);

    if (to != NULL)
        *to = label;
    return to != NULL;
}

/* Labels whose keys don't stand between <from> and <end>. */
static bool merge_labels(hd_array_t *all, size_t from, size_t end, const hd_kv_t *more,
                         uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t k = from;

        while (k < end && !hd_str_eq(hd_array_at(all, hd_kv_t, k)->key, more[i].key))
            k++;
        if (k == end && !hd_str_eq(more[i].key, HD_STR(FALLBACK_LIST)) &&
            !add_label(all, more[i]))
            return false;
    }
    return true;
}

static bool merge_struct(hd_xds_t *x, hd_array_t *all, size_t from, const Pb__Struct *s)
{
    const hd_kv_t *labels;
    uint32_t n;

    hd_xds_labels(x, s, &labels, &n);
    return merge_labels(all, from, all->n, labels, n);
}

/* Envoy: what an entry of the list says goes before what stands outside of it. */
static bool add_alternatives(hd_xds_t *x, hd_array_t *all, const Pb__ListValue *list)
{
    uint32_t n = (uint32_t)all->n;

    for (size_t i = 0; i < list->n_values; i++) {
        const Pb__Value *v = list->values[i];
        size_t from = all->n + 1, end;

        if (!add_label(all, (hd_kv_t){{0}, {0}}) ||
            (v->kind_case == PB__VALUE__KIND_STRUCT_VALUE &&
             !merge_struct(x, all, from, v->struct_value)))
            return false;
        end = all->n;
        for (uint32_t k = 0; k < n; k++) {
            hd_kv_t label = *hd_array_at(all, hd_kv_t, k); /* adding may move it */

            if (!merge_labels(all, from, end, &label, 1))
                return false;
        }
    }
    return true;
}

hd_rc_t hd_xds_wanted_labels(hd_xds_t *x, const PbCore__Metadata *first,
                             const PbCore__Metadata *second, const hd_kv_t **kv,
                             uint32_t *n, hd_err_t *err)
{
    const Pb__Struct *a = hd_xds_metadata(first, "envoy.lb");
    const Pb__Struct *b = hd_xds_metadata(second, "envoy.lb");
    const Pb__Value *list = hd_pb_struct_get(a, FALLBACK_LIST);
    hd_array_t all;

    if (list == NULL)
        list = hd_pb_struct_get(b, FALLBACK_LIST);
    hd_array_init(&all, x->env->temp, sizeof(hd_kv_t), WANTED_MAX);
    if (!merge_struct(x, &all, 0, a) || !merge_struct(x, &all, 0, b) ||
        (list != NULL && list->kind_case == PB__VALUE__KIND_LIST_VALUE &&
         !add_alternatives(x, &all, list->list_value)))
        return hd_err_set(err, HD_E_LIMIT, "metadata_match: more than %d labels",
                          WANTED_MAX);
    *kv = all.n > 0 ? hd_array_copy(&all, x->cf.pool) : NULL;
    *n = (uint32_t)all.n;
    return HD_OK;
}
