#include "cond.h"

#define SCHEME "spiffe://"

/* --- building --- */

cond_t cond_of(hd_pool_t *pool, cond_kind_t kind, const cond_t *kids, uint32_t n)
{
    cond_t c = {.kind = (uint8_t)kind, .kids_n = n};
    cond_t *copy;

    if (n == 1)
        return kids[0];
    copy = hd_pool_new_n(pool, cond_t, n);
    if (n > 0)
        memcpy(copy, kids, n * sizeof(*kids));
    c.kids = copy;
    return c;
}

cond_t cond_not(hd_pool_t *pool, cond_t c)
{
    cond_t *kid = hd_pool_new(pool, cond_t);

    *kid = c;
    return (cond_t){.kind = COND_NOT, .kids_n = 1, .kids = kid};
}

/* What an operator may stand for: pchar of RFC 3986 without '*'. */
static bool is_segment_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~%!$&'()+,;:@=", c) != NULL);
}

/* "{*}" is "*": Istio's way of writing it, and Envoy's. Variables ({name}, {name=*})
 * capture what nobody asks for here, so only their pattern counts. */
static hd_rc_t plain_template(hd_pool_t *pool, hd_str_t text, hd_str_t *out,
                              hd_err_t *err)
{
    char *to = hd_pool_alloc_unaligned(pool, text.len + 1);
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        hd_str_t inner;
        ssize_t end, eq;

        if (text.data[i] == '}')
            return hd_err_set(err, HD_E_CONF, "a '}' without its '{'");
        if (text.data[i] != '{') {
            to[n++] = text.data[i];
            continue;
        }
        end = hd_str_find_char(hd_str_sub(text, i, text.len), '}');
        if (end < 0)
            return hd_err_set(err, HD_E_CONF, "a '{' without its '}'");
        inner = hd_str_sub(text, i + 1, (size_t)end - 1);
        eq = hd_str_find_char(inner, '=');
        if (eq >= 0)
            inner = hd_str_sub(inner, (size_t)eq + 1, inner.len);
        else if (!hd_str_eq(inner, HD_STR("*")) && !hd_str_eq(inner, HD_STR("**")))
            inner = HD_STR("*");
        if (!hd_str_eq(inner, HD_STR("*")) && !hd_str_eq(inner, HD_STR("**")))
            return hd_err_set(err, HD_E_CONF, "in braces only * and ** are supported");
        memcpy(to + n, inner.data, inner.len);
        n += inner.len;
        i += (size_t)end;
    }
    *out = hd_str_n(to, n);
    return HD_OK;
}

hd_rc_t cond_template(hd_pool_t *pool, hd_str_t text, cond_t *c, hd_err_t *err)
{
    hd_str_t plain;
    bool is_last = false, in_segment = false;

    *c = (cond_t){.kind = COND_TEMPLATE};
    if (plain_template(pool, text, &plain, err) != HD_OK)
        return hd_err_prefix(err, "path template \"%.*s\": ", HD_STR_ARG(text));
    if (plain.len == 0 || plain.data[0] != '/')
        return hd_err_set(err, HD_E_CONF, "path template \"%.*s\" must begin with '/'",
                          HD_STR_ARG(text));
    for (size_t i = 0; i < plain.len; i++) {
        if (plain.data[i] == '/')
            in_segment = false;
        if (plain.data[i] != '*')
            continue;
        if (is_last)
            return hd_err_set(err, HD_E_CONF,
                              "path template \"%.*s\": nothing that varies may follow **",
                              HD_STR_ARG(text));
        if (i + 1 == plain.len || plain.data[i + 1] != '*') {
            in_segment = true;
            continue;
        }
        if (in_segment)
            return hd_err_set(err, HD_E_CONF,
                              "path template \"%.*s\": * and ** in one segment",
                              HD_STR_ARG(text));
        is_last = true;
        i++;
    }
    c->match.text = plain;
    return HD_OK;
}

/* --- asking --- */

/* A segment; '*' is one character or more. What a '*' took grows by one wherever the rest
 * doesn't fit; only the last one ever needs to, so time is linear in both lengths'
 * product.
 */
static bool match_segment(hd_str_t t, hd_str_t s)
{
    size_t ti = 0, si = 0, after_star = 0, taken = 0;

    while (si < s.len) {
        if (ti < t.len && t.data[ti] == '*') {
            if (!is_segment_char(s.data[si]))
                return false;
            after_star = ++ti;
            taken = ++si;
        } else if (ti < t.len && t.data[ti] == s.data[si]) {
            ti++;
            si++;
        } else {
            if (after_star == 0 || !is_segment_char(s.data[taken]))
                return false;
            ti = after_star;
            si = ++taken;
        }
    }
    return ti == t.len;
}

/* What follows "**" stands at the end; what "**" took is any path. */
static bool match_rest(hd_str_t suffix, hd_str_t s)
{
    if (!hd_str_has_suffix(s, suffix))
        return false;
    for (size_t i = 0; i + suffix.len < s.len; i++) {
        if (s.data[i] != '/' && !is_segment_char(s.data[i]))
            return false;
    }
    return true;
}

static size_t segment_len(hd_str_t s)
{
    ssize_t slash = hd_str_find_char(s, '/');

    return slash < 0 ? s.len : (size_t)slash;
}

static bool match_template(hd_str_t t, hd_str_t s)
{
    for (;;) {
        size_t tn = segment_len(t), sn = segment_len(s);
        ssize_t any = hd_str_find(hd_str_sub(t, 0, tn), HD_STR("**"));

        if (any >= 0)
            return hd_str_has_prefix(s, hd_str_sub(t, 0, (size_t)any)) &&
                   match_rest(hd_str_sub(t, (size_t)any + 2, t.len),
                              hd_str_sub(s, (size_t)any, s.len));
        if (!match_segment(hd_str_sub(t, 0, tn), hd_str_sub(s, 0, sn)))
            return false;
        if (tn == t.len || sn == s.len)
            return tn == t.len && sn == s.len;
        t = hd_str_sub(t, tn + 1, t.len);
        s = hd_str_sub(s, sn + 1, s.len);
    }
}

static bool match_text(cond_subject_t *s, const hd_match_t *p, hd_str_t text)
{
    hd_rc_t rc = hd_match_ask(s->member, s->region, p, text, NULL);

    if (rc == HD_ERROR)
        s->failed = true;
    return rc == HD_OK;
}

static bool match_value(cond_subject_t *s, const pb_header_match_t *h, hd_str_t value,
                        bool found)
{
    if (h->match.kind == HD_MATCH_REGEX && !h->is_range)
        return (found || h->treat_missing_as_empty) && match_text(s, &h->match, value);
    return pb_value_matches(s->req, h, value, found);
}

/* One of several values by itself. */
static bool match_one_of(cond_subject_t *s, const pb_header_match_t *h)
{
    hd_str_t name, value;
    uint32_t at = 0, n = 0;
    bool matches = false;

    while (hd_req_next_header(s->req, &at, &name, &value)) {
        if (!hd_str_eq_nocase(name, h->name))
            continue;
        n++;
        matches = matches || match_value(s, h, value, true);
    }
    return n > 1 && matches;
}

/* A field that stands there several times is one value, joined (AP-WHEN-1). Who is kept
 * out by a value shall not get in by sending another beside it: there each counts by
 * itself, too (CVE-2026-26308). */
static bool match_header(cond_subject_t *s, const pb_header_match_t *h)
{
    pb_header_match_t plain = *h;
    bool found, any = h->match.kind == HD_MATCH_ANY && !h->is_range;
    hd_str_t value = pb_header_value(s->req, h->name, &found);

    if (any || (!found && !h->treat_missing_as_empty))
        return pb_value_matches(s->req, h, value, found);
    plain.invert = false;
    return (match_value(s, &plain, value, found) ||
            (s->keeps_out != h->invert && match_one_of(s, &plain))) != h->invert;
}

/* "spiffe://TD/ns/NS/sa/SA" in parts; false: it isn't one of a workload. */
static bool split_identity(hd_str_t id, hd_str_t *domain, hd_str_t *ns, hd_str_t *account)
{
    hd_str_t rest = hd_str_sub(id, sizeof(SCHEME) - 1, id.len), ns_word, sa_word;

    *domain = *ns = *account = HD_STR_NONE;
    if (!hd_str_has_prefix(id, HD_STR(SCHEME)) || !hd_str_split(&rest, '/', domain))
        return false;
    if (!hd_str_split(&rest, '/', &ns_word) || !hd_str_eq(ns_word, HD_STR("ns")) ||
        !hd_str_split(&rest, '/', ns))
        return true;
    *account = hd_str_n(ns->data, 0);
    if (hd_str_split(&rest, '/', &sa_word) && hd_str_eq(sa_word, HD_STR("sa")))
        *account = rest;
    return true;
}

static bool match_identity(const cond_t *c, cond_subject_t *s, hd_str_t id)
{
    hd_str_t domain, ns, account;

    if (c->kind == COND_PRINCIPAL)
        return match_text(s, &c->match, id);
    if (c->kind == COND_PRINCIPAL_ID)
        return hd_str_has_prefix(id, HD_STR(SCHEME)) &&
               match_text(s, &c->match, hd_str_sub(id, sizeof(SCHEME) - 1, id.len));
    if (!split_identity(id, &domain, &ns, &account))
        return false;
    if (c->kind == COND_DOMAIN)
        return match_text(s, &c->match, domain);
    if (ns.len == 0)
        return false;
    if (c->kind == COND_NAMESPACE)
        return match_text(s, &c->match, ns);
    return account.len > 0 && /* "NS/SA": one run but for "/sa" in between */
           hd_str_has_prefix(c->match.text, ns) && c->match.text.len > ns.len + 1 &&
           c->match.text.data[ns.len] == '/' &&
           hd_str_eq(hd_str_sub(c->match.text, ns.len + 1, c->match.text.len), account);
}

/* The identity that TLS or HBONE verified. A verified certificate without a SPIFFE ID
 * speaks by its URI names, else its DNS names, else its subject (Envoy's order). */
static bool match_peer(const cond_t *c, cond_subject_t *s)
{
    const hd_tls_peer_t *tls;

    if (s->conn == NULL || s->conn->facts == NULL)
        return false;
    if (s->conn->facts->peer_principal.len > 0)
        return match_identity(c, s, s->conn->facts->peer_principal);
    tls = hd_tls_peer(s->conn);
    if (tls == NULL || !tls->verified)
        return false;
    for (uint32_t i = 0; i < tls->uri_sans_n; i++) {
        if (match_identity(c, s, tls->uri_sans[i]))
            return true;
    }
    if (tls->uri_sans_n > 0)
        return false;
    for (uint32_t i = 0; i < tls->dns_sans_n; i++) {
        if (match_identity(c, s, tls->dns_sans[i]))
            return true;
    }
    return tls->dns_sans_n == 0 && tls->subject.len > 0 &&
           match_identity(c, s, tls->subject);
}

static bool has_addr(const hd_cidr_t *cidr, const hd_addr_t *a)
{
    return a != NULL && (a->family == AF_INET || a->family == AF_INET6) &&
           hd_cidr_has(cidr, a);
}

/* The socket's other end, whatever PROXY protocol said; behind an internal hop there is
 * no socket, and what the hop carries is the truth. */
static const hd_addr_t *direct_remote(const hd_conn_t *c)
{
    return c->remote.family == AF_INET || c->remote.family == AF_INET6
               ? &c->remote
               : hd_conn_remote(c);
}

static bool match_conn(const cond_t *c, cond_subject_t *s)
{
    const hd_addr_t *local;

    if (s->conn == NULL)
        return false;
    local = hd_conn_local(s->conn);
    switch (c->kind) {
    case COND_DST_IP:
        return has_addr(&c->cidr, local);
    case COND_DST_PORT:
        return (local->family == AF_INET || local->family == AF_INET6) &&
               local->port >= c->from && local->port < c->to;
    case COND_DIRECT_IP:
        return has_addr(&c->cidr, direct_remote(s->conn));
    case COND_REMOTE_IP:
        return has_addr(&c->cidr,
                        s->req != NULL ? hd_req_remote(s->req) : hd_conn_remote(s->conn));
    case COND_SNI:
        return s->conn->facts != NULL && match_text(s, &c->match, s->conn->facts->sni);
    default:
        return match_peer(c, s);
    }
}

static bool match_request(const cond_t *c, cond_subject_t *s)
{
    if (s->req == NULL)
        return false;
    switch (c->kind) {
    case COND_METHOD:
        return match_text(s, &c->match, hd_req_method(s->req));
    case COND_HOST:
        return match_text(s, &c->match, hd_req_authority(s->req));
    case COND_PATH:
        return match_text(s, &c->match, hd_req_path(s->req));
    case COND_TEMPLATE:
        return match_template(c->match.text, hd_req_path(s->req));
    default:
        return match_header(s, c->header);
    }
}

bool cond_is_true(const cond_t *c, cond_subject_t *s)
{
    bool is_true;

    switch ((cond_kind_t)c->kind) {
    case COND_ANY:
        return true;
    case COND_NEVER:
        return false;
    case COND_AND:
        for (uint32_t i = 0; i < c->kids_n; i++) {
            if (!cond_is_true(&c->kids[i], s))
                return false;
        }
        return true;
    case COND_OR:
        for (uint32_t i = 0; i < c->kids_n; i++) {
            if (cond_is_true(&c->kids[i], s))
                return true;
        }
        return false;
    case COND_NOT:
        s->keeps_out = !s->keeps_out;
        is_true = !cond_is_true(&c->kids[0], s);
        s->keeps_out = !s->keeps_out;
        return is_true;
    case COND_METHOD:
    case COND_HOST:
    case COND_PATH:
    case COND_TEMPLATE:
    case COND_HEADER:
        return match_request(c, s);
    case COND_DST_IP:
    case COND_DST_PORT:
    case COND_SNI:
    case COND_PRINCIPAL:
    case COND_PRINCIPAL_ID:
    case COND_NAMESPACE:
    case COND_ACCOUNT:
    case COND_DOMAIN:
    case COND_DIRECT_IP:
    case COND_REMOTE_IP:
        return match_conn(c, s);
    }
    return false;
}
