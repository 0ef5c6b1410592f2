#include "core/loom/hd_match.h"
#include "core/base/hd_log.h"

static void *create_regex(hd_member_t *m, const void *owner, const void *arg,
                          hd_err_t *err)
{
    const hd_match_t *p = arg;

    (void)m;
    (void)owner;
    return hd_regex_create(p->text, p->ignore_case, p->part, err);
}

static void destroy_regex(hd_member_t *m, void *companion)
{
    (void)m;
    hd_regex_destroy(companion);
}

static const hd_companion_type_t regex_type = {
    .name = "regex",
    .create = create_regex,
    .destroy = destroy_regex,
};

/* NULL: it doesn't compile, which hd_match_check found where it was read, or should. */
static hd_regex_t *get_regex(hd_member_t *m, const hd_region_t *r, const hd_match_t *p)
{
    hd_err_t err = {0};
    hd_regex_t *re = hd_companion_of_part(m, &regex_type, r, p, p, &err);

    if (re == NULL)
        hd_log(HD_LOG_ERROR, "%s: taken as no match", err.text);
    return re;
}

hd_rc_t hd_match_check(const hd_match_t *p, hd_err_t *err)
{
    hd_regex_t *re;

    if (p->kind > HD_MATCH_REGEX)
        return hd_err_set(err, HD_E_CONF, "unknown kind of match %u", p->kind);
    if (p->kind == HD_MATCH_REGEX) {
        if ((re = hd_regex_create(p->text, p->ignore_case, p->part, err)) == NULL)
            return HD_ERROR;
        hd_regex_destroy(re);
        return HD_OK;
    }
    if (p->kind != HD_MATCH_ANY && p->kind != HD_MATCH_EXACT && p->text.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "an empty prefix, suffix or part is in every string");
    if (p->ignore_case)
        for (size_t i = 0; i < p->text.len; i++)
            if (p->text.data[i] != hd_ascii_lower(p->text.data[i]))
                return hd_err_set(err, HD_E_INTERNAL,
                                  "\"%.*s\" ignores case and isn't lower case",
                                  HD_STR_ARG(p->text));
    return HD_OK;
}

hd_rc_t hd_match_check_re2(const hd_match_t *p, hd_err_t *err)
{
    return p->kind == HD_MATCH_REGEX && hd_regex_check_re2(p->text, err) != HD_OK
               ? HD_ERROR
               : hd_match_check(p, err);
}

/* Whether <text> stands in <s> at <at>; there is room for it. */
static bool is_at(const hd_match_t *p, hd_str_t s, size_t at)
{
    hd_str_t part = {s.data + at, p->text.len};

    return p->ignore_case ? hd_str_eq_nocase(part, p->text) : hd_str_eq(part, p->text);
}

static bool match_text(const hd_match_t *p, hd_str_t s)
{
    if (s.len < p->text.len)
        return false;
    switch (p->kind) {
    case HD_MATCH_EXACT:
        return s.len == p->text.len && is_at(p, s, 0);
    case HD_MATCH_PREFIX:
        return is_at(p, s, 0);
    case HD_MATCH_SUFFIX:
        return is_at(p, s, s.len - p->text.len);
    case HD_MATCH_CONTAINS:
        if (!p->ignore_case)
            return hd_str_find(s, p->text) >= 0;
        for (size_t at = 0; at + p->text.len <= s.len; at++)
            if (is_at(p, s, at))
                return true;
        return false;
    default:
        return p->kind == HD_MATCH_ANY;
    }
}

bool hd_match_with(hd_regex_t *re, const hd_match_t *p, hd_str_t s,
                   hd_captures_t *captures)
{
    hd_rc_t rc;

    if (captures != NULL)
        captures->n = 0;
    if (p->kind != HD_MATCH_REGEX)
        return match_text(p, s) != p->invert;
    if (re == NULL)
        return false;
    rc = hd_regex_match(re, s, captures);
    /* Given up is no match, and not its opposite's match either. */
    return rc != HD_ERROR && (rc == HD_OK) != p->invert;
}

bool hd_match(hd_member_t *m, const hd_region_t *r, const hd_match_t *p, hd_str_t s,
              hd_captures_t *captures)
{
    return hd_match_with(p->kind == HD_MATCH_REGEX ? get_regex(m, r, p) : NULL, p, s,
                         captures);
}

hd_rc_t hd_match_ask(hd_member_t *m, const hd_region_t *r, const hd_match_t *p,
                     hd_str_t s, hd_captures_t *captures)
{
    hd_regex_t *re;
    hd_rc_t rc;

    if (captures != NULL)
        captures->n = 0;
    if (p->kind != HD_MATCH_REGEX)
        return match_text(p, s) != p->invert ? HD_OK : HD_DECLINED;
    if ((re = get_regex(m, r, p)) == NULL ||
        (rc = hd_regex_match(re, s, captures)) == HD_ERROR)
        return HD_ERROR;
    return (rc == HD_OK) != p->invert ? HD_OK : HD_DECLINED;
}

hd_rc_t hd_match_replace(hd_member_t *m, const hd_region_t *r, const hd_match_t *p,
                         hd_str_t subst, hd_str_t s, hd_pool_t *pool, hd_str_t *out)
{
    hd_regex_t *re = p->kind == HD_MATCH_REGEX ? get_regex(m, r, p) : NULL;

    *out = s;
    return re == NULL ? HD_ERROR : hd_regex_replace(re, subst, s, pool, out);
}
