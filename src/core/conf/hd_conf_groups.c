/* Named groups of regular expressions: each makes a variable. */
#include "core/conf/hd_value_map.h"

static bool is_name_char(char c)
{
    return c == '_' || (c >= '0' && c <= '9') ||
           (hd_ascii_lower(c) >= 'a' && hd_ascii_lower(c) <= 'z');
}

/* The next (?<name>, (?'name' or (?P<name> from *at on. */
static bool next_name(hd_str_t pattern, size_t *at, hd_str_t *name)
{
    for (; *at + 4 < pattern.len; (*at)++) {
        size_t from = *at + 2, end;

        if (pattern.data[*at] != '(' || pattern.data[*at + 1] != '?')
            continue;
        from += pattern.data[from] == 'P';
        if (pattern.data[from] != '<' && pattern.data[from] != '\'')
            continue;
        for (end = ++from; end < pattern.len && is_name_char(pattern.data[end]); end++)
            ;
        if (end == from || end == pattern.len ||
            (pattern.data[end] != '>' && pattern.data[end] != '\''))
            continue; /* a look-behind */
        *name = hd_str_sub(pattern, from, end - from);
        *at = end;
        return true;
    }
    return false;
}

hd_rc_t hd_conf_named_groups(hd_conf_t *cf, hd_str_t pattern, uint32_t domain,
                             hd_array_t *groups, hd_err_t *err)
{
    hd_regex_t *re = hd_regex_create(pattern, false, true, err);
    hd_rc_t rc = HD_OK;
    hd_str_t name;
    size_t at = 0;

    if (re == NULL)
        return HD_ERROR;
    while (rc == HD_OK && next_name(pattern, &at, &name)) {
        int group = hd_regex_group(re, name);
        hd_named_group_t *g;

        if (group < 0)
            continue;
        g = hd_array_add(groups);
        if (g == NULL) {
            rc = hd_err_set(err, HD_E_CONF, "too many named groups");
            break;
        }
        g->group = (uint32_t)group;
        g->domain = domain;
        rc = hd_attr_key(cf->pool, hd_str_dup_lower(cf->temp, name), true, &g->attr, err);
    }
    hd_regex_destroy(re);
    return rc;
}
