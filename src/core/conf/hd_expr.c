#include "core/conf/hd_expr.h"
#include "core/base/hd_array.h"
#include "core/base/hd_map.h"
#include "core/conf/hd_conf.h"

#define PARTS_MAX 1024
#define IN_STREAM (HD_IN_STREAM | HD_IN_STREAM_SERVER | HD_IN_STREAM_UPSTREAM)

static bool is_name_char(char c)
{
    return (c >= '0' && c <= '9') || c == '_' ||
           (hd_ascii_lower(c) >= 'a' && hd_ascii_lower(c) <= 'z');
}

/* The name at <text>, which begins behind '$'; how many bytes it takes in *len. */
static hd_rc_t read_name(hd_str_t text, hd_str_t *name, size_t *len, hd_err_t *err)
{
    bool braced = text.len > 0 && text.data[0] == '{';
    size_t from = braced ? 1 : 0, end = from;

    if (!braced && text.len > 0 && text.data[0] >= '1' && text.data[0] <= '9')
        end = 1; /* a group is one digit */
    else
        while (end < text.len && is_name_char(text.data[end]))
            end++;
    *name = hd_str_sub(text, from, end - from);
    if (braced && (end == text.len || text.data[end] != '}'))
        return hd_err_set(err, HD_E_CONF,
                          "the closing bracket in \"%.*s\" variable is missing",
                          HD_STR_ARG(*name));
    if (name->len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "invalid variable name: behind \"$\" belongs a "
                          "name, as in $host or ${host}");
    *len = braced ? end + 1 : end;
    return HD_OK;
}

bool hd_expr_next_name(hd_str_t *rest, hd_str_t *name)
{
    ssize_t at;
    size_t len;

    while ((at = hd_str_find_char(*rest, '$')) >= 0) {
        *rest = hd_str_sub(*rest, (size_t)at + 1, SIZE_MAX);
        if (read_name(*rest, name, &len, NULL) != HD_OK)
            continue;
        *rest = hd_str_sub(*rest, len, SIZE_MAX);
        return true;
    }
    return false;
}

static bool is_capture_number(hd_str_t name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < '0' || name.data[i] > '9')
            return false;
    return true;
}

static hd_rc_t compile_name(hd_conf_t *cf, hd_str_t name, hd_attr_t *key, hd_err_t *err)
{
    hd_str_t lower = hd_str_dup_lower(cf->temp, name);
    bool declared =
        is_capture_number(name) || (cf->build != NULL && cf->build->declared != NULL &&
                                    hd_map_get(cf->build->declared, lower) != NULL);

    if (hd_attr_key(cf->pool, lower, declared, key, err) != HD_OK)
        return HD_ERROR;
    if ((cf->scope & IN_STREAM) != 0 && key->def != 0 && !is_capture_number(name) &&
        (hd_attr_def(key->def)->flags & HD_ATTR_REQ) != 0 &&
        hd_attr_conn_def(key->def) == NULL)
        return hd_err_set(err, HD_E_CONF,
                          "unknown \"%.*s\" variable: it is of HTTP, not of stream",
                          HD_STR_ARG(name));
    return HD_OK;
}

hd_rc_t hd_expr_compile(hd_conf_t *cf, hd_str_t text, hd_expr_t **expr, hd_err_t *err)
{
    hd_expr_t *e = hd_pool_new(cf->pool, hd_expr_t);
    hd_array_t parts;
    size_t at = 0;

    hd_array_init(&parts, cf->temp, sizeof(hd_expr_part_t), PARTS_MAX);
    while (at < text.len || parts.n == 0) {
        hd_str_t rest = hd_str_sub(text, at, SIZE_MAX), name;
        ssize_t dollar = hd_str_find_char(rest, '$');
        hd_expr_part_t *part = hd_array_add(&parts);
        size_t len = 0;

        if (part == NULL)
            return hd_err_set(err, HD_E_CONF, "more than %d variables in one string",
                              PARTS_MAX / 2);
        if (dollar != 0) {
            len = dollar < 0 ? rest.len : (size_t)dollar;
            part->text = hd_str_dup(cf->pool, hd_str_sub(rest, 0, len));
            at += len;
            continue;
        }
        rest = hd_str_sub(rest, 1, SIZE_MAX);
        if (read_name(rest, &name, &len, err) != HD_OK ||
            compile_name(cf, name, &part->attr, err) != HD_OK)
            return HD_ERROR;
        at += 1 + len;
    }
    e->parts = hd_array_copy(&parts, cf->pool);
    e->n = (uint32_t)parts.n;
    *expr = e;
    return HD_OK;
}

bool hd_expr_is_literal(const hd_expr_t *e)
{
    return e->n == 1 && e->parts[0].attr.name.len == 0;
}

static hd_str_t eval_part(const hd_expr_part_t *p, const hd_attr_of_t *of)
{
    hd_str_t text = p->attr.name.len == 0 ? p->text : hd_attr_text(of, &p->attr);

    if (hd_unlikely(p->max_bytes > 0) && text.len > p->max_bytes)
        text.len = p->max_bytes;
    return text;
}

hd_rc_t hd_expr_eval_of(const hd_expr_t *e, const hd_attr_of_t *of, hd_str_t *out)
{
    hd_str_t few[16], *texts = few;
    size_t len = 0;
    char *to;

    if (e->n == 1) {
        *out = eval_part(&e->parts[0], of);
        return HD_OK;
    }
    if (e->n > hd_countof(few))
        texts = hd_pool_new_n(of->pool, hd_str_t, e->n);
    for (uint32_t i = 0; i < e->n; i++) {
        if (hd_unlikely(e->parts[i].instead) && texts[i - 1].len > 0)
            texts[i] = HD_STR_NONE;
        else
            texts[i] = eval_part(&e->parts[i], of);
        len += texts[i].len;
    }
    to = hd_pool_alloc_unaligned(of->pool, len + 1);
    *out = hd_str_n(to, len);
    for (uint32_t i = 0; i < e->n; i++) {
        if (texts[i].len > 0)
            memcpy(to, texts[i].data, texts[i].len);
        to += texts[i].len;
    }
    *to = '\0';
    return HD_OK;
}

/* More of them than configuration itself wrote. */
bool hd_expr_climbs(const hd_expr_t *e, hd_str_t value)
{
    unsigned n = hd_str_climbs(value);

    for (uint32_t i = 0; n > 0 && i < e->n; i++) {
        if (e->parts[i].attr.name.len == 0)
            n -= hd_min(n, hd_str_climbs(e->parts[i].text));
    }
    return n > 0;
}
