#include "core/conf/hd_dict.h"
#include "core/base/hd_map.h"
#include "core/hd_module.h"
#include <stdio.h>

static hd_map_t *index_by_name; /* hd_entry_t, for the process's life */
static hd_pool_t *index_pool;
static uint16_t indexed_modules_n;

static void index_directive(const hd_directive_t *d, uint16_t module)
{
    hd_entry_t *e = hd_pool_new(index_pool, hd_entry_t), *last;

    e->directive = d;
    e->module = module;
    last = hd_map_get(index_by_name, hd_str_c(d->name));
    if (last == NULL) {
        hd_ignore(
            hd_map_put(index_by_name, hd_str_c(d->name), e)); /* nothing was there */
        return;
    }
    while (last->next != NULL)
        last = last->next;
    last->next = e;
}

static void bring_up_to_date(void)
{
    if (index_by_name == NULL) {
        index_by_name = hd_map_create();
        index_pool = hd_pool_create(0);
    }
    for (; indexed_modules_n < hd_modules_n(); indexed_modules_n++) {
        const hd_directive_t *d = hd_module_get(indexed_modules_n)->directives;

        for (; d != NULL && d->name != NULL; d++)
            index_directive(d, indexed_modules_n);
    }
}

hd_entry_t *hd_dict_find(hd_str_t name)
{
    bring_up_to_date();
    return hd_map_get(index_by_name, name);
}

#define NAME_MAX_BYTES 64

/* How many letters must be changed, left out or added (Levenshtein). */
static unsigned distance(hd_str_t a, hd_str_t b)
{
    unsigned row[NAME_MAX_BYTES + 1], diagonal, above;

    if (a.len > NAME_MAX_BYTES || b.len > NAME_MAX_BYTES)
        return UINT32_MAX;
    for (unsigned j = 0; j <= b.len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            bool same = hd_ascii_lower(a.data[i - 1]) == hd_ascii_lower(b.data[j - 1]);

            above = row[j];
            row[j] = hd_min(hd_min(row[j], row[j - 1]) + 1, diagonal + (same ? 0 : 1));
            diagonal = above;
        }
    }
    return row[b.len];
}

hd_str_t hd_closer_name(hd_str_t name, hd_str_t best, hd_str_t candidate)
{
    unsigned limit = name.len < 5 ? 1 : name.len < 10 ? 2 : 3;
    unsigned d = distance(name, candidate);

    if (d > limit || (best.len > 0 && d >= distance(name, best)))
        return best;
    return candidate;
}

hd_str_t hd_dict_suggest(hd_str_t name, unsigned scope)
{
    const hd_module_t *module;
    const hd_directive_t *d;
    hd_str_t best = HD_STR_NONE;
    uint32_t at = 0;

    while (hd_directives_next(&at, &module, &d))
        if ((d->scope & scope) != 0)
            best = hd_closer_name(name, best, hd_str_c(d->name));
    return best;
}

bool hd_directives_next(uint32_t *at, const hd_module_t **module,
                        const hd_directive_t **directive)
{
    uint16_t m = (uint16_t)(*at >> 16);
    uint32_t i = *at & 0xffff;

    for (; m < hd_modules_n(); m++, i = 0) {
        const hd_directive_t *d = hd_module_get(m)->directives;

        if (d != NULL && d[i].name != NULL) {
            *module = hd_module_get(m);
            *directive = &d[i];
            *at = (uint32_t)m << 16 | (i + 1);
            return true;
        }
    }
    return false;
}

static const struct {
    unsigned scope;
    const char *name;
} scopes[] = {
    {HD_IN_MAIN, "main"},
    {HD_IN_EVENTS, "events"},
    {HD_IN_HTTP, "http"},
    {HD_IN_SERVER, "server"},
    {HD_IN_LOCATION, "location"},
    {HD_IN_UPSTREAM, "upstream"},
    {HD_IN_IF, "if"},
    {HD_IN_SERVER_IF, "if in server"},
    {HD_IN_LIMIT_EXCEPT, "limit_except"},
    {HD_IN_STREAM, "stream"},
    {HD_IN_STREAM_SERVER, "server in stream"},
    {HD_IN_STREAM_UPSTREAM, "upstream in stream"},
    {HD_IN_CONTROL, "control"},
    {HD_IN_XDS, "xds"},
    {HD_IN_ADMIN, "admin"},
    {HD_IN_TYPES, "types"},
};

hd_str_t hd_scope_names(unsigned scope, char *out, size_t room)
{
    size_t n = 0;

    for (size_t i = 0; i < hd_countof(scopes); i++) {
        if ((scope & scopes[i].scope) != 0 && n < room)
            n += (size_t)snprintf(out + n, room - n, "%s%s", n > 0 ? ", " : "",
                                  scopes[i].name);
    }
    return hd_str_n(out, hd_min(n, room - 1));
}
