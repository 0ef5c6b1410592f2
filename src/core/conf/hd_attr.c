#include "core/conf/hd_attr.h"
#include "core/conf/hd_dict.h"
#include "core/base/hd_map.h"

#define DEFS_MAX 4096

static const hd_attr_def_t *defs[DEFS_MAX];     /* by number; 0 is none */
static const hd_attr_def_t *of_conns[DEFS_MAX]; /* what a name of requests means there */
static uint16_t defs_n = 1;
static hd_map_t *defs_by_name; /* hd_attr_def_t ** into defs */

/* $status is one thing on a request and another on a conn of stream: one name, a
 * definition for either. */
static bool is_other_half(const hd_attr_def_t *def)
{
    const hd_attr_def_t **first = hd_map_get(defs_by_name, hd_str_c(def->name));
    bool is_req = (def->flags & HD_ATTR_REQ) != 0;

    if (first == NULL || (((*first)->flags & HD_ATTR_REQ) != 0) == is_req ||
        of_conns[first - defs] != NULL)
        return false;
    of_conns[first - defs] = is_req ? *first : def;
    if (is_req)
        *first = def;
    return true;
}

void hd_attr_register(const hd_attr_def_t *list)
{
    if (defs_by_name == NULL)
        defs_by_name = hd_map_create();
    for (; list->name != NULL; list++) {
        hd_bug_on(defs_n == DEFS_MAX);
        if (is_other_half(list))
            continue;
        defs[defs_n] = list;
        /* Two parts of the program must not mean different things by one name. */
        hd_bug_on(hd_map_put(defs_by_name, hd_str_c(list->name), &defs[defs_n]) != NULL);
        defs_n++;
    }
}

const hd_attr_def_t *hd_attr_def(uint16_t number)
{
    return number < defs_n ? defs[number] : NULL;
}

const hd_attr_def_t *hd_attr_conn_def(uint16_t number)
{
    return number < defs_n ? of_conns[number] : NULL;
}

uint16_t hd_attr_defs_n(void)
{
    return defs_n;
}

/* The definition of <name>: its own, else the family with the longest prefix. 0: none. */
static uint16_t find_def(hd_str_t name)
{
    const hd_attr_def_t **exact =
        defs_by_name != NULL ? hd_map_get(defs_by_name, name) : NULL;
    uint16_t best = 0;
    size_t best_len = 0;

    if (exact != NULL && ((*exact)->flags & HD_ATTR_PREFIX) == 0)
        return (uint16_t)(exact - defs);
    for (uint16_t i = 1; i < defs_n; i++) {
        hd_str_t prefix = hd_str_c(defs[i]->name);

        if ((defs[i]->flags & HD_ATTR_PREFIX) != 0 && prefix.len > best_len &&
            name.len > prefix.len && hd_str_has_prefix(name, prefix)) {
            best = i;
            best_len = prefix.len;
        }
    }
    return best;
}

static void make_key(hd_str_t name, uint16_t def, hd_attr_t *key)
{
    bool is_family = def != 0 && (defs[def]->flags & HD_ATTR_PREFIX) != 0;

    key->def = def;
    key->name = name;
    /* The same in every process, since keys lie in the arena. */
    key->hash = (uint32_t)hd_hash64(name.data, name.len, 0);
    key->rest_at = (uint16_t)(is_family ? strlen(defs[def]->name) : name.len);
}

hd_rc_t hd_attr_key(hd_pool_t *pool, hd_str_t name, bool declare, hd_attr_t *key,
                    hd_err_t *err)
{
    hd_str_t meant = HD_STR_NONE;
    uint16_t def = find_def(name);

    if (def == 0 && !declare) {
        for (uint16_t i = 1; i < defs_n; i++)
            if ((defs[i]->flags & HD_ATTR_PREFIX) == 0)
                meant = hd_closer_name(name, meant, hd_str_c(defs[i]->name));
        if (meant.len > 0)
            return hd_err_set(err, HD_E_CONF,
                              "unknown \"%.*s\" variable: did you mean \"$%.*s\"?",
                              HD_STR_ARG(name), HD_STR_ARG(meant));
        return hd_err_set(err, HD_E_CONF,
                          "unknown \"%.*s\" variable: nothing defines or sets it",
                          HD_STR_ARG(name));
    }
    if (name.len > UINT16_MAX)
        return hd_err_set(err, HD_E_CONF, "a variable's name of more than 65535 bytes");
    make_key(hd_str_dup(pool, name), def, key);
    return HD_OK;
}

hd_str_t hd_attr_seconds(hd_pool_t *pool, uint64_t ns)
{
    uint64_t ms = ns / 1000000;

    return hd_str_printf(pool, "%llu.%03u", (unsigned long long)(ms / 1000),
                         (unsigned)(ms % 1000));
}

void hd_attr_get_by_name(const hd_attr_of_t *of, hd_str_t name, hd_val_t *out)
{
    hd_attr_t key;

    if (name.len > UINT16_MAX) {
        out->type = HD_VAL_NONE;
        return;
    }
    make_key(name, find_def(name), &key);
    hd_attr_get(of, &key, out);
}
