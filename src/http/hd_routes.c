/* The index of a route table's domains. */
#include "core/base/hd_array.h"
#include "http/hd_router.h"

typedef enum { EXACT, SUFFIX, PREFIX, KINDS_N } domain_kind_t;

/* 16 bytes: a route table has thousands. */
typedef struct {
    const char *text; /* without the '*', in the virtual host's domain */
    uint32_t vhost;
    uint16_t len;
    uint8_t kind; /* domain_kind_t */
} domain_t;

#define DOMAIN_MAX 1024

typedef struct {
    hd_match_t match;
    uint32_t vhost, domain;
} regex_t;

/* One hash table of all patterns; wildcards are looked up by each length that occurs, the
 * longest first, so a look-up costs a hash a distinct length, however many domains there
 * are. */
typedef struct hd_domain_index_s {
    const domain_t *slots;
    uint32_t mask; /* slots - 1; an empty slot has vhost UINT32_MAX */
    const uint16_t *lengths[KINDS_N];
    uint32_t lengths_n[KINDS_N];
    const regex_t *regexes;
    uint32_t regexes_n;
} index_t;

static uint32_t hash_domain(uint8_t kind, hd_str_t text)
{
    return hd_str_hash(text) * 31 + kind;
}

static domain_t *find_slot(domain_t *slots, uint32_t mask, uint8_t kind, hd_str_t text)
{
    uint32_t at = hash_domain(kind, text) & mask;

    while (slots[at].vhost != UINT32_MAX &&
           (slots[at].kind != kind ||
            !hd_str_eq(hd_str_n(slots[at].text, slots[at].len), text)))
        at = (at + 1) & mask;
    return &slots[at];
}

static const domain_t *look_up(const index_t *ix, uint8_t kind, hd_str_t text)
{
    const domain_t *d = find_slot((domain_t *)ix->slots, ix->mask, kind, text);

    return d->vhost == UINT32_MAX ? NULL : d;
}

static void index_lengths(hd_pool_t *pool, index_t *ix, uint8_t kind)
{
    bool has[DOMAIN_MAX] = {false};
    uint16_t *lengths;
    uint32_t n = 0;

    for (uint32_t i = 0; i <= ix->mask; i++) {
        if (ix->slots[i].vhost == UINT32_MAX || ix->slots[i].kind != kind)
            continue;
        n += !has[ix->slots[i].len];
        has[ix->slots[i].len] = true;
    }
    lengths = hd_pool_new_n(pool, uint16_t, n);
    ix->lengths[kind] = lengths;
    for (uint16_t len = DOMAIN_MAX; len-- > 0;) {
        if (has[len])
            lengths[ix->lengths_n[kind]++] = len;
    }
}

static domain_kind_t classify(hd_str_t domain, hd_str_t *text)
{
    *text = domain;
    if (domain.len == 0) /* nginx's server_name "": no Host at all */
        return EXACT;
    if (domain.data[0] == '*') {
        *text = hd_str_sub(domain, 1, domain.len);
        return SUFFIX;
    }
    if (domain.data[domain.len - 1] == '*') {
        *text = hd_str_sub(domain, 0, domain.len - 1);
        return PREFIX;
    }
    return EXACT;
}

static hd_rc_t add_domain(hd_routes_t *routes, index_t *ix, uint32_t vhost,
                          hd_str_t domain, bool first_wins, hd_err_t *err)
{
    domain_t *slot;
    hd_str_t text;
    domain_kind_t kind;

    if ((domain.len == 0 && !first_wins) || domain.len > DOMAIN_MAX)
        return hd_err_set(err, HD_E_CONF, "a domain has 1 to %d bytes", DOMAIN_MAX);
    if (domain.len == 1 && domain.data[0] == '*') {
        if (routes->default_vhost == NULL)
            routes->default_vhost = &routes->vhosts[vhost];
        else if (!first_wins)
            return hd_err_set(err, HD_E_CONF,
                              "domain \"*\" stands twice in route table %.*s",
                              HD_STR_ARG(routes->name));
        return HD_OK;
    }
    kind = classify(domain, &text);
    slot = find_slot((domain_t *)ix->slots, ix->mask, (uint8_t)kind, text);
    if (slot->vhost != UINT32_MAX)
        return first_wins ? HD_OK
                          : hd_err_set(err, HD_E_CONF,
                                       "domain \"%.*s\" stands twice in route table %.*s",
                                       HD_STR_ARG(domain), HD_STR_ARG(routes->name));
    *slot = (domain_t){.text = text.data,
                       .vhost = vhost,
                       .len = (uint16_t)text.len,
                       .kind = (uint8_t)kind};
    return HD_OK;
}

static bool is_regex(hd_str_t domain)
{
    return domain.len > 1 && domain.data[0] == '~';
}

static uint32_t count_domains(const hd_routes_t *routes, uint32_t *regexes_n)
{
    uint32_t n = 0;

    for (uint32_t v = 0; v < routes->vhosts_n; v++) {
        n += routes->vhosts[v].domains_n;
        for (uint32_t d = 0; d < routes->vhosts[v].domains_n; d++)
            *regexes_n += is_regex(routes->vhosts[v].domains[d]);
    }
    return n - *regexes_n;
}

hd_rc_t hd_routes_index(hd_pool_t *pool, hd_routes_t *routes, bool first_wins,
                        hd_err_t *err)
{
    index_t *ix = hd_pool_new(pool, index_t);
    uint32_t regexes_n = 0, domains_n = count_domains(routes, &regexes_n), size = 4;
    regex_t *regexes = hd_pool_new_n(pool, regex_t, regexes_n);
    domain_t *slots;

    while ((uint64_t)size * 3 < (uint64_t)domains_n * 4)
        size *= 2;
    slots = hd_pool_alloc(pool, size * sizeof(domain_t));
    for (uint32_t i = 0; i < size; i++)
        slots[i] = (domain_t){.vhost = UINT32_MAX};
    ix->slots = slots;
    ix->mask = size - 1;
    for (uint32_t v = 0; v < routes->vhosts_n; v++) {
        for (uint32_t d = 0; d < routes->vhosts[v].domains_n; d++) {
            hd_str_t domain = routes->vhosts[v].domains[d];

            if (is_regex(domain)) {
                regexes[ix->regexes_n].match =
                    (hd_match_t){.kind = HD_MATCH_REGEX,
                                 .part = true,
                                 .ignore_case = true,
                                 .text = hd_str_sub(domain, 1, domain.len)};
                regexes[ix->regexes_n].vhost = v;
                regexes[ix->regexes_n].domain = d;
                if (hd_match_check(&regexes[ix->regexes_n].match, err) != HD_OK)
                    return HD_ERROR;
                ix->regexes_n++;
            } else if (add_domain(routes, ix, v, domain, first_wins, err) != HD_OK) {
                return HD_ERROR;
            }
        }
    }
    ix->regexes = regexes;
    index_lengths(pool, ix, SUFFIX);
    index_lengths(pool, ix, PREFIX);
    routes->domains = ix;
    return HD_OK;
}

/* host:80 without the port, [::1]:80 too. */
static hd_str_t without_port(hd_str_t authority)
{
    size_t at = authority.len;

    while (at > 0 && authority.data[at - 1] >= '0' && authority.data[at - 1] <= '9')
        at--;
    if (at > 0 && authority.data[at - 1] == ':')
        return hd_str_sub(authority, 0, at - 1);
    return authority;
}

/* A wildcard stands for at least one byte. */
static const domain_t *find_wildcard(const index_t *ix, domain_kind_t kind, hd_str_t host)
{
    for (uint32_t i = 0; i < ix->lengths_n[kind]; i++) {
        size_t len = ix->lengths[kind][i];
        const domain_t *d;

        if (len >= host.len)
            continue;
        d = look_up(ix, (uint8_t)kind,
                    hd_str_sub(host, kind == SUFFIX ? host.len - len : 0, len));
        if (d != NULL)
            return d;
    }
    return NULL;
}

const hd_vhost_t *hd_routes_find_vhost(hd_member_t *m, const hd_region_t *r,
                                       const hd_routes_t *routes, hd_str_t authority)
{
    return hd_routes_match_vhost(m, r, routes, authority, NULL);
}

const hd_vhost_t *hd_routes_match_vhost(hd_member_t *m, const hd_region_t *r,
                                        const hd_routes_t *routes, hd_str_t authority,
                                        hd_host_match_t *match)
{
    const index_t *ix = routes->domains;
    hd_str_t host = routes->ignore_port ? without_port(authority) : authority;
    const domain_t *d;

    if (host.len == 0) {
        d = look_up(ix, EXACT, host);
        if (d != NULL)
            return &routes->vhosts[d->vhost];
    } else {
        d = look_up(ix, EXACT, host);
        if (d == NULL &&
            host.data[host.len - 1] == '.') /* an absolute name is the same host */
            d = look_up(ix, EXACT, hd_str_sub(host, 0, host.len - 1));
        if (d == NULL)
            d = find_wildcard(ix, SUFFIX, host);
        if (d == NULL)
            d = find_wildcard(ix, PREFIX, host);
        if (d != NULL)
            return &routes->vhosts[d->vhost];
        for (uint32_t i = 0; i < ix->regexes_n; i++) {
            if (!hd_match(m, r, &ix->regexes[i].match, host,
                          match != NULL ? &match->captures : NULL))
                continue;
            if (match != NULL) {
                match->of = host;
                match->domain = ix->regexes[i].domain;
            }
            return &routes->vhosts[ix->regexes[i].vhost];
        }
    }
    return routes->default_vhost;
}
