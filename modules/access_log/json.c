#include "json.h"

#include <math.h>
#include <stdlib.h>

#define DEPTH_MAX 16
#define MEMBERS_MAX 1024 /* of one object or list */

typedef enum { JSON_OBJECT, JSON_LIST, JSON_TEXT, JSON_LITERAL } kind_t;

typedef struct {
    hd_str_t key; /* escaped, in its quotes; empty in a list */
    const log_json_t *value;
} member_t;

struct log_json_s {
    kind_t kind;
    uint32_t n;
    const member_t *members; /* of objects, sorted, and lists */
    log_operators_t text;
    hd_str_t literal; /* a number, true, false, null */
};

/* --- strings (RFC 8259 §7) --- */

/* The length of the UTF-8 sequence at <s>; 0: it is none (RFC 3629 §4). */
static size_t utf8_len(const unsigned char *s, size_t left)
{
    static const struct {
        unsigned char from, to, second_from, second_to, len;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
        {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < hd_countof(forms); i++) {
        if (s[0] < forms[i].from || s[0] > forms[i].to)
            continue;
        if (left < forms[i].len || s[1] < forms[i].second_from ||
            s[1] > forms[i].second_to)
            return 0;
        for (size_t k = 2; k < forms[i].len; k++) {
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        }
        return forms[i].len;
    }
    return 0;
}

static void add_escaped(log_line_t *line, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

    switch (c) {
    case '"':
        log_add(line, HD_STR("\\\""));
        break;
    case '\\':
        log_add(line, HD_STR("\\\\"));
        break;
    case '\n':
        log_add(line, HD_STR("\\n"));
        break;
    case '\r':
        log_add(line, HD_STR("\\r"));
        break;
    case '\t':
        log_add(line, HD_STR("\\t"));
        break;
    default:
        log_add(line, hd_str_n(text, sizeof(text)));
    }
}

/* What a client sent need not be UTF-8: a byte that isn't becomes U+FFFD. */
static void add_string(log_line_t *line, hd_str_t s)
{
    const unsigned char *p = (const unsigned char *)s.data;
    size_t from = 0, at = 0;

    log_add(line, HD_STR("\""));
    while (at < s.len) {
        size_t len = p[at] < 0x80 ? 1 : utf8_len(p + at, s.len - at);

        if (len > 1 || (len == 1 && p[at] >= 0x20 && p[at] != '"' && p[at] != '\\' &&
                        p[at] != 0x7f)) {
            at += len;
            continue;
        }
        log_add(line, hd_str_sub(s, from, at - from));
        if (len == 0)
            log_add(line, HD_STR("\xef\xbf\xbd"));
        else
            add_escaped(line, p[at]);
        from = ++at;
    }
    log_add(line, hd_str_sub(s, from, at - from));
    log_add(line, HD_STR("\""));
}

/* --- compiling --- */

static hd_rc_t compile_value(hd_conf_t *cf, const Pb__Value *v, unsigned depth,
                             log_json_t *to, hd_err_t *err);

static int by_key(const void *a, const void *b)
{
    const Pb__Struct__FieldsEntry *const *x = a, *const *y = b;

    return strcmp((*x)->key, (*y)->key);
}

static hd_str_t quoted(hd_conf_t *cf, const char *key)
{
    log_line_t line = {.pool = cf->pool};

    add_string(&line, hd_str_c(key));
    return hd_str_n(line.data, line.len);
}

static hd_rc_t check_size(size_t n, unsigned depth, hd_err_t *err)
{
    if (depth > DEPTH_MAX)
        return hd_err_set(err, HD_E_RESOURCE, "a JSON format of more than %d levels",
                          DEPTH_MAX);
    if (n > MEMBERS_MAX)
        return hd_err_set(err, HD_E_RESOURCE, "more than %d members in a JSON format",
                          MEMBERS_MAX);
    return HD_OK;
}

static hd_rc_t add_member(hd_conf_t *cf, const Pb__Value *v, unsigned depth,
                          member_t *to, hd_err_t *err)
{
    log_json_t *json = hd_pool_new(cf->pool, log_json_t);

    to->value = json;
    return compile_value(cf, v, depth + 1, json, err);
}

static hd_rc_t compile_object(hd_conf_t *cf, const Pb__Struct *s, unsigned depth,
                              log_json_t *to, hd_err_t *err)
{
    Pb__Struct__FieldsEntry **sorted;
    member_t *members;

    to->kind = JSON_OBJECT;
    if (check_size(s->n_fields, depth, err) != HD_OK)
        return HD_ERROR;
    if (s->n_fields == 0)
        return HD_OK;
    sorted = hd_pool_new_n(cf->temp, Pb__Struct__FieldsEntry *, s->n_fields);
    memcpy(sorted, s->fields, s->n_fields * sizeof(*sorted));
    qsort(sorted, s->n_fields, sizeof(*sorted), by_key);
    members = hd_pool_new_n(cf->pool, member_t, s->n_fields);
    for (size_t i = 0; i < s->n_fields; i++) {
        if (i + 1 < s->n_fields && strcmp(sorted[i]->key, sorted[i + 1]->key) == 0)
            return hd_err_set(err, HD_E_RESOURCE, "a JSON format with the key \"%s\" twice",
                              sorted[i]->key);
        members[to->n].key = quoted(cf, sorted[i]->key);
        if (add_member(cf, sorted[i]->value, depth, &members[to->n], err) != HD_OK)
            return HD_ERROR;
        to->n++;
    }
    to->members = members;
    return HD_OK;
}

static hd_rc_t compile_list(hd_conf_t *cf, const Pb__ListValue *list, unsigned depth,
                            log_json_t *to, hd_err_t *err)
{
    member_t *members;

    to->kind = JSON_LIST;
    if (check_size(list->n_values, depth, err) != HD_OK)
        return HD_ERROR;
    members = hd_pool_new_n(cf->pool, member_t, list->n_values + 1);
    for (size_t i = 0; i < list->n_values; i++) {
        if (add_member(cf, list->values[i], depth, &members[i], err) != HD_OK)
            return HD_ERROR;
    }
    to->members = members;
    to->n = (uint32_t)list->n_values;
    return HD_OK;
}

/* No pointer to what this process has goes into shared memory. */
static hd_str_t literal(hd_conf_t *cf, const char *text)
{
    return hd_str_dup(cf->pool, hd_str_c(text));
}

static hd_str_t print_number(hd_conf_t *cf, double d)
{
    if (!isfinite(d))
        return literal(cf, "null");
    if (d == floor(d) && fabs(d) < 9007199254740992.0)
        return hd_str_printf(cf->pool, "%lld", (long long)d);
    return hd_str_printf(cf->pool, "%.17g", d);
}

static hd_rc_t compile_value(hd_conf_t *cf, const Pb__Value *v, unsigned depth,
                             log_json_t *to, hd_err_t *err)
{
    to->kind = JSON_LITERAL;
    switch (v != NULL ? v->kind_case : PB__VALUE__KIND__NOT_SET) {
    case PB__VALUE__KIND_STRING_VALUE:
        to->kind = JSON_TEXT;
        return log_operators_compile(cf, hd_str_c(v->string_value), &to->text, err);
    case PB__VALUE__KIND_STRUCT_VALUE:
        return compile_object(cf, v->struct_value, depth, to, err);
    case PB__VALUE__KIND_LIST_VALUE:
        return compile_list(cf, v->list_value, depth, to, err);
    case PB__VALUE__KIND_NUMBER_VALUE:
        to->literal = print_number(cf, v->number_value);
        return HD_OK;
    case PB__VALUE__KIND_BOOL_VALUE:
        to->literal = literal(cf, v->bool_value ? "true" : "false");
        return HD_OK;
    default:
        to->literal = literal(cf, "null");
        return HD_OK;
    }
}

hd_rc_t log_json_compile(hd_conf_t *cf, const Pb__Struct *s, const log_json_t **to,
                         hd_err_t *err)
{
    log_json_t *json = hd_pool_new(cf->pool, log_json_t);

    *to = json;
    return compile_object(cf, s, 1, json, err);
}

/* --- rendering --- */

static void add_text(const log_json_t *json, const log_json_how_t *how,
                     const log_facts_t *facts, log_line_t *line)
{
    log_line_t text = {.pool = line->pool};
    bool is_number = false;
    hd_str_t value;

    if (how->keeps_types &&
        log_operators_single(&json->text, facts, &value, &is_number)) {
        if (value.len == 0)
            log_add(line, HD_STR("null"));
        else if (is_number)
            log_add(line, value);
        else
            add_string(line, value);
        return;
    }
    log_operators_render(&json->text, facts, how->omit_empty, false, &text);
    add_string(line, hd_str_n(text.data, text.len));
}

static bool is_null(const log_json_t *json, const log_facts_t *facts)
{
    bool is_number;
    hd_str_t value;

    if (json->kind == JSON_LITERAL)
        return hd_str_eq(json->literal, HD_STR("null"));
    return json->kind == JSON_TEXT &&
           log_operators_single(&json->text, facts, &value, &is_number) && value.len == 0;
}

void log_json_render(const log_json_t *json, const log_json_how_t *how,
                     const log_facts_t *facts, log_line_t *line)
{
    bool is_object = json->kind == JSON_OBJECT, is_first = true;

    if (json->kind == JSON_LITERAL) {
        log_add(line, json->literal);
        return;
    }
    if (json->kind == JSON_TEXT) {
        add_text(json, how, facts, line);
        return;
    }
    log_add(line, is_object ? HD_STR("{") : HD_STR("["));
    for (uint32_t i = 0; i < json->n; i++) {
        if (how->omit_empty && is_object && is_null(json->members[i].value, facts))
            continue;
        if (!is_first)
            log_add(line, HD_STR(","));
        is_first = false;
        if (is_object) {
            log_add(line, json->members[i].key);
            log_add(line, HD_STR(":"));
        }
        log_json_render(json->members[i].value, how, facts, line);
    }
    log_add(line, is_object ? HD_STR("}") : HD_STR("]"));
}
