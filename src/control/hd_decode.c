/* The engine: reads YAML by tables of fields. Documents and kinds are in hd_decode_doc.c.
 */
#include "control/hd_decode_int.h"
#include "control/hd_status_list.h"
#include <stdio.h>
#include <stdlib.h>

#define ERRORS_MAX 20 /* of one document, then one line says that there are more */
#define WARNINGS_MAX 50
#define NAMES_SHOWN 24 /* of the allowed ones, in a message */

/* --- the path and what is said of it --- */

void hd_decode_push(hd_decoder_t *d, const char *name)
{
    hd_assert(d->path_n < hd_countof(d->path));
    d->path[d->path_n].name = hd_str_c(name);
    d->path_n++;
}

static void push_str(hd_decoder_t *d, hd_str_t name)
{
    hd_assert(d->path_n < hd_countof(d->path));
    d->path[d->path_n].name = name;
    d->path_n++;
}

void hd_decode_push_index(hd_decoder_t *d, uint32_t index)
{
    hd_assert(d->path_n < hd_countof(d->path));
    d->path[d->path_n].name = HD_STR_NONE;
    d->path[d->path_n].index = index;
    d->path_n++;
}

void hd_decode_pop(hd_decoder_t *d)
{
    hd_assert(d->path_n > 0);
    d->path_n--;
}

/* "spec.http[0].route" */
static hd_str_t print_path(hd_decoder_t *d)
{
    hd_str_t path = HD_STR("");

    for (uint32_t i = 0; i < d->path_n; i++) {
        hd_str_t name = hd_str_sub(d->path[i].name, 0, 80);

        if (d->path[i].name.data == NULL)
            path =
                hd_str_printf(d->scratch, "%.*s[%u]", HD_STR_ARG(path), d->path[i].index);
        else
            path = hd_str_printf(d->scratch, "%.*s%s%.*s", HD_STR_ARG(path),
                                 i == 0 ? "" : ".", HD_STR_ARG(name));
    }
    return path;
}

static void add_status(hd_decoder_t *d, hd_severity_t severity, const char *code,
                       const hd_yaml_t *at, hd_str_t text)
{
    hd_status_t s = {.severity = severity,
                     .code = hd_str_c(code),
                     .place = d->place,
                     .kind = hd_str_c(hd_kind_name(d->obj->kind)),
                     .ns = d->obj->ns,
                     .name = d->obj->name,
                     .text = text};

    if (at != NULL && at->line != 0)
        s.place.line = at->line;
    hd_status_list_add(d->statuses, &s);
}

void hd_decode_error(hd_decoder_t *d, const hd_yaml_t *at, const char *fmt, ...)
{
    hd_str_t path = print_path(d), text;
    va_list args;

    if (d->errors_n++ >= ERRORS_MAX) {
        if (d->errors_n == ERRORS_MAX + 1)
            add_status(d, HD_STATUS_ERROR, "", at, HD_STR("and more errors after this"));
        return;
    }
    va_start(args, fmt);
    text = hd_str_vprintf(d->scratch, fmt, args);
    va_end(args);
    text = path.len == 0 ? text
                         : hd_str_printf(d->scratch, "%.*s: %.*s", HD_STR_ARG(path),
                                         HD_STR_ARG(text));
    add_status(d, HD_STATUS_ERROR, "", at, text);
}

void hd_decode_warn(hd_decoder_t *d, const hd_yaml_t *at, const char *code,
                    const char *fmt, ...)
{
    hd_str_t path = print_path(d), text;
    va_list args;

    if (d->warnings_n++ >= WARNINGS_MAX)
        return;
    va_start(args, fmt);
    text = hd_str_vprintf(d->scratch, fmt, args);
    va_end(args);
    text = path.len == 0 ? text
                         : hd_str_printf(d->scratch, "%.*s: %.*s", HD_STR_ARG(path),
                                         HD_STR_ARG(text));
    add_status(d, HD_STATUS_WARNING, code, at, text);
}

static void report_unknown(hd_decoder_t *d, const hd_schema_t *schema,
                           const hd_yaml_entry_t *e)
{
    const char *names[NAMES_SHOWN + 1];
    size_t n = 0;
    hd_yaml_t at = {.line = e->line};
    hd_str_t path, text;

    for (const hd_field_t *f = schema->fields; f->name != NULL; f++) {
        if (n < NAMES_SHOWN)
            names[n++] = f->name;
    }
    for (size_t i = 0; schema->skip != NULL && schema->skip[i] != NULL; i++) {
        if (n < NAMES_SHOWN)
            names[n++] = schema->skip[i];
    }
    names[n] = NULL;
    push_str(d, e->key);
    path = print_path(d);
    hd_decode_pop(d);
    text = hd_decode_choice(d->scratch, e->key, names, n == NAMES_SHOWN);
    text = hd_str_printf(d->scratch, "unknown field %.*s: %.*s", HD_STR_ARG(path),
                         HD_STR_ARG(text));
    if (d->errors_n++ < ERRORS_MAX)
        add_status(d, HD_STATUS_ERROR, "", &at, text);
}

/* --- scalars --- */

static bool is_scalar(hd_decoder_t *d, const hd_yaml_t *node, const char *wanted)
{
    if (node->type == HD_YAML_SCALAR)
        return true;
    hd_decode_error(d, node, "must be %s, not %s", wanted, hd_yaml_what(node));
    return false;
}

/* A host as HOST-4 allows it; what is wrong, or NULL. */
static const char *host_form(hd_str_t s)
{
    hd_str_t rest = s, label;

    if (s.len == 0 || s.len > 255)
        return s.len == 0 ? "must not be empty" : "is longer than 255 bytes";
    if (hd_str_eq(s, HD_STR("*")) || hd_form_ip(s) == NULL)
        return NULL;
    if (hd_str_has_prefix(rest, HD_STR("*.")))
        rest = hd_str_sub(rest, 2, rest.len);
    if (rest.len > 0 && rest.data[rest.len - 1] == '.')
        rest.len--;
    while (hd_str_split(&rest, '.', &label)) {
        if (label.len == 0 || label.len > 63)
            return "has an empty or too long part";
        for (size_t i = 0; i < label.len; i++) {
            char c = hd_ascii_lower(label.data[i]);

            if (c == '*')
                return "has a * that isn't its first part (*.example.com)";
            if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
                  c == '_'))
                return "is no host name";
        }
    }
    return NULL;
}

static bool read_str(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                     hd_str_t *out)
{
    const char *wrong = NULL;
    hd_str_t text = node->text;
    bool flag;

    if (!is_scalar(d, node, "a text"))
        return false;
    if (!(f->flags & HD_F_ANY_SCALAR) &&
        (hd_yaml_is_number(node) || hd_yaml_is_bool(node, &flag))) {
        hd_decode_error(d, node, "must be a text, not %s: quote it, \"%.*s\"",
                        hd_yaml_what(node), HD_STR_ARG(hd_str_sub(text, 0, 60)));
        return false;
    }
    if (hd_yaml_is_null(node))
        text = HD_STR("");
    if (f->flags & HD_F_HOST)
        wrong = host_form(text);
    else if ((f->flags & HD_F_REQUIRED) && text.len == 0)
        wrong = "must not be empty";
    if (wrong == NULL && f->form != NULL)
        wrong = f->form(text);
    if (wrong != NULL) {
        hd_decode_error(d, node, "\"%.*s\" %s", HD_STR_ARG(hd_str_sub(text, 0, 100)),
                        wrong);
        return false;
    }
    if (f->flags & HD_F_HOST)
        *out = hd_host_resolve(d->pool, text, d->obj->ns, d->conf->cluster_domain);
    else if (f->flags & HD_F_LOWER)
        *out = hd_str_dup_lower(d->pool, text);
    else
        *out = hd_str_dup(d->pool, text);
    return true;
}

static bool read_bool(hd_decoder_t *d, const hd_yaml_t *node, bool *out)
{
    if (node->type == HD_YAML_SCALAR && hd_yaml_is_bool(node, out))
        return true;
    hd_decode_error(d, node, "must be true or false, not %s%s", hd_yaml_what(node),
                    node->quoted ? " in quotes" : "");
    return false;
}

static bool read_double(hd_decoder_t *d, const hd_yaml_t *node, double min, double max,
                        double *out)
{
    if (!hd_yaml_is_number(node)) {
        hd_decode_error(d, node, "must be a number, not %s%s", hd_yaml_what(node),
                        node->quoted ? " in quotes" : "");
        return false;
    }
    *out = strtod(node->text.data, NULL);
    if (*out >= min && *out <= max) /* NaN is neither */
        return true;
    hd_decode_error(d, node, "%.*s is out of range: %g to %g",
                    HD_STR_ARG(hd_str_sub(node->text, 0, 40)), min, max);
    return false;
}

static bool read_int(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                     int64_t *out)
{
    int64_t max = f->min == 0 && f->max == 0 ? UINT32_MAX : f->max;
    hd_str_t digits = node->text;
    bool minus = digits.len > 0 && digits.data[0] == '-';
    uint64_t n;

    if (minus)
        digits = hd_str_sub(digits, 1, digits.len);
    if (node->type != HD_YAML_SCALAR || node->quoted ||
        !hd_str_to_u64(digits, INT64_MAX, &n)) {
        bool number = node->type == HD_YAML_SCALAR && hd_yaml_is_number(node);

        hd_decode_error(d, node, "must be a whole number, not %s%s",
                        number ? node->text.data : hd_yaml_what(node),
                        node->quoted ? " in quotes" : "");
        return false;
    }
    *out = minus ? -(int64_t)n : (int64_t)n;
    if (*out < f->min || *out > max) {
        hd_decode_error(d, node, "%lld is out of range: %lld to %lld", (long long)*out,
                        (long long)f->min, (long long)max);
        return false;
    }
    if (*out == 0 && (f->flags & HD_F_ZERO_UNSET))
        *out = HD_UNSET;
    return true;
}

static void read_duration(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                          int64_t *out)
{
    const char *wrong;
    int64_t ns;

    if (!is_scalar(d, node, "a duration like 1.5s"))
        return;
    wrong = hd_form_duration(node->text, &ns);
    if (wrong != NULL)
        hd_decode_error(d, node, "\"%.*s\" %s", HD_STR_ARG(hd_str_sub(node->text, 0, 60)),
                        wrong);
    else if (ns < f->min)
        hd_decode_error(d, node, "%.*s is too short: at least %g ms",
                        HD_STR_ARG(node->text), (double)f->min / 1e6);
    else
        *out = ns;
}

static void read_enum(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                      int *out)
{
    const char *names[40 + 1];
    size_t n = 0;
    hd_str_t text;

    if (!is_scalar(d, node, "a word") || hd_find_enum(f->values, node->text, false, out))
        return;
    for (const hd_enum_t *v = f->values; v->name != NULL && n < 40; v++)
        names[n++] = v->name;
    names[n] = NULL;
    text = hd_decode_choice(d->scratch, node->text, (const char *const *)names, false);
    hd_decode_error(d, node, "unknown value \"%.*s\": %.*s",
                    HD_STR_ARG(hd_str_sub(node->text, 0, 60)), HD_STR_ARG(text));
}

/* --- compounds --- */

/* All HD_LISTs are laid out alike. */
static void set_list(void *list, const void *items, size_t n)
{
    memcpy(list, &items, sizeof(items));
    memcpy((char *)list + sizeof(items), &n, sizeof(n));
}

static bool is_list(hd_decoder_t *d, const hd_yaml_t *node)
{
    if (node->type == HD_YAML_LIST)
        return true;
    hd_decode_error(d, node, "must be a list, not %s", hd_yaml_what(node));
    return false;
}

static bool is_map(hd_decoder_t *d, const hd_yaml_t *node)
{
    if (node->type == HD_YAML_MAP)
        return true;
    hd_decode_error(d, node, "must be a map, not %s", hd_yaml_what(node));
    return false;
}

/* A list of anything whose items <read> reads; each gets <bytes>. */
static void
read_list(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node, size_t bytes,
          void (*read)(hd_decoder_t *, const hd_field_t *, const hd_yaml_t *, void *),
          void *list)
{
    char *items;

    if (!is_list(d, node))
        return;
    if (node->n == 0) {
        if (f->flags & HD_F_REQUIRED)
            hd_decode_error(d, node, "must not be empty");
        return;
    }
    items = hd_pool_calloc(d->pool, bytes * node->n);
    for (uint32_t i = 0; i < node->n; i++) {
        hd_decode_push_index(d, i);
        if (hd_yaml_is_null(node->entries[i].value))
            hd_decode_error(d, node->entries[i].value, "must not be empty");
        else
            read(d, f, node->entries[i].value, items + i * bytes);
        hd_decode_pop(d);
    }
    set_list(list, items, node->n);
}

static void read_item_map(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                          void *into)
{
    hd_decode_map(d, f->schema, node, into);
}

static void read_item_str(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                          void *into)
{
    hd_field_t item = *f;

    item.flags |= HD_F_REQUIRED;               /* no empty texts in lists (AP-FROM-14) */
    hd_ignore(read_str(d, &item, node, into)); /* reported */
}

static void read_item_num(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                          void *into)
{
    hd_ignore(read_int(d, f, node, into)); /* reported */
}

/* VS-MATCH-15 */
static void read_match(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                       void *into)
{
    static const hd_enum_t kinds[] = {{"exact", HD_STRMATCH_EXACT},
                                      {"prefix", HD_STRMATCH_PREFIX},
                                      {"regex", HD_STRMATCH_REGEX},
                                      {NULL, 0}};
    static const hd_field_t text = {.name = "", .type = HD_D_STR};
    static const char *const names[] = {"exact", "prefix", "regex", NULL};
    hd_strmatch_t *m = into;
    int kind;

    (void)f;
    if (!is_map(d, node))
        return;
    if (node->n != 1) {
        hd_decode_error(d, node, "must have exactly one of exact, prefix, regex");
        return;
    }
    if (!hd_find_enum(kinds, node->entries[0].key, false, &kind)) {
        hd_str_t choice =
            hd_decode_choice(d->scratch, node->entries[0].key, names, false);
        hd_yaml_t at = {.line = node->entries[0].line};

        hd_decode_error(d, &at, "unknown match %.*s: %.*s",
                        HD_STR_ARG(hd_str_sub(node->entries[0].key, 0, 60)),
                        HD_STR_ARG(choice));
        return;
    }
    m->kind = (hd_strmatch_kind_t)kind;
    push_str(d, node->entries[0].key);
    if (read_str(d, &text, node->entries[0].value, &m->value)) {
        if (m->value.len == 0 && kind != HD_STRMATCH_EXACT)
            hd_decode_error(d, node, "must not be empty");
        else if (kind == HD_STRMATCH_REGEX && m->value.len > 1024)
            hd_decode_error(d, node, "is longer than 1024 bytes");
        else if (kind == HD_STRMATCH_REGEX && hd_str_eq(m->value, HD_STR("*")))
            *m = (hd_strmatch_t){.kind = HD_STRMATCH_PRESENT};
    }
    hd_decode_pop(d);
}

static int cmp_keys(const void *a, const void *b)
{
    return hd_str_cmp(*(const hd_str_t *)a, *(const hd_str_t *)b); /* the first member */
}

static void read_keymatches(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                            void *list)
{
    hd_keymatch_t *items;

    if (!is_map(d, node) || node->n == 0)
        return;
    items = hd_pool_new_n(d->pool, hd_keymatch_t, node->n);
    for (uint32_t i = 0; i < node->n; i++) {
        const hd_yaml_entry_t *e = &node->entries[i];

        push_str(d, e->key);
        if (e->key.len == 0)
            hd_decode_error(d, e->value, "the name must not be empty");
        items[i].key = f->flags & HD_F_LOWER ? hd_str_dup_lower(d->pool, e->key)
                                             : hd_str_dup(d->pool, e->key);
        /* VS-MATCH-16: {} and nothing at all are "present" */
        if (!hd_yaml_is_null(e->value) &&
            !(e->value->type == HD_YAML_MAP && e->value->n == 0))
            read_match(d, f, e->value, &items[i].match);
        hd_decode_pop(d);
    }
    qsort(items, node->n, sizeof(*items), cmp_keys);
    set_list(list, items, node->n);
}

static void read_labels(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                        void *list)
{
    hd_pair_t *items;

    if (!is_map(d, node) || node->n == 0)
        return;
    items = hd_pool_new_n(d->pool, hd_pair_t, node->n);
    for (uint32_t i = 0; i < node->n; i++) {
        const hd_yaml_entry_t *e = &node->entries[i];
        hd_field_t item = {.flags = f->flags & (HD_F_ANY_SCALAR), .form = f->form};

        push_str(d, e->key);
        if (e->key.len == 0)
            hd_decode_error(d, e->value, "the key must not be empty");
        items[i].key = f->flags & HD_F_LOWER ? hd_str_dup_lower(d->pool, e->key)
                                             : hd_str_dup(d->pool, e->key);
        hd_ignore(read_str(d, &item, e->value, &items[i].value)); /* reported */
        hd_decode_pop(d);
    }
    qsort(items, node->n, sizeof(*items), cmp_keys);
    set_list(list, items, node->n);
}

/* --- fields and maps --- */

static void put_int(void *at, int64_t n)
{
    memcpy(at, &n, sizeof(n));
}

static void read_percent(hd_decoder_t *d, const hd_yaml_t *node, void *at)
{
    double percent;

    if (read_double(d, node, 0, 100, &percent))
        put_int(at, (int64_t)(percent * 10000 + 0.5)); /* VS-FAULT-1 */
}

static void *read_object(hd_decoder_t *d, const hd_schema_t *schema,
                         const hd_yaml_t *node)
{
    void *obj = hd_pool_calloc(d->pool, schema->size);

    hd_decode_map(d, schema, node, obj);
    return obj;
}

/* One idea a case: a type. */
void hd_decode_typed(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                     void *at)
{
    bool flag;
    int64_t num;
    int word;
    void *obj;

    switch (f->type) {
    case HD_D_STR:
        hd_ignore(read_str(d, f, node, at)); /* reported */
        break;
    case HD_D_BOOL:
        hd_ignore(read_bool(d, node, at)); /* reported */
        break;
    case HD_D_TRI:
        if (read_bool(d, node, &flag))
            put_int(at, flag);
        break;
    case HD_D_INT:
        if (read_int(d, f, node, &num))
            put_int(at, num);
        break;
    case HD_D_DOUBLE:
        hd_ignore(read_double(d, node, (double)f->min, f->max == 0 ? 1e9 : (double)f->max,
                              at)); /* reported */
        break;
    case HD_D_DURATION:
        num = HD_UNSET;
        read_duration(d, f, node, &num);
        put_int(at, num);
        break;
    case HD_D_PERCENT:
        read_percent(d, node, at);
        break;
    case HD_D_ENUM:
        memcpy(&word, at, sizeof(word));
        read_enum(d, f, node, &word);
        memcpy(at, &word, sizeof(word));
        break;
    case HD_D_FLAT:
        hd_decode_map(d, f->schema, node, at);
        break;
    case HD_D_OBJ:
        obj = read_object(d, f->schema, node);
        memcpy(at, &obj, sizeof(obj));
        break;
    case HD_D_MATCH:
        obj = hd_pool_new(d->pool, hd_strmatch_t);
        read_match(d, f, node, obj);
        memcpy(at, &obj, sizeof(obj));
        break;
    case HD_D_LIST:
        read_list(d, f, node, f->schema->size, read_item_map, at);
        break;
    case HD_D_STRS:
        read_list(d, f, node, sizeof(hd_str_t), read_item_str, at);
        break;
    case HD_D_NUMS:
        read_list(d, f, node, sizeof(int64_t), read_item_num, at);
        break;
    case HD_D_MATCHES:
        read_list(d, f, node, sizeof(hd_strmatch_t), read_match, at);
        break;
    case HD_D_LABELS:
        read_labels(d, f, node, at);
        break;
    case HD_D_KEYMATCHES:
        read_keymatches(d, f, node, at);
        break;
    case HD_D_READ:
        f->read(d, node, at);
        break;
    case HD_D_NO_EFFECT:
        hd_decode_warn(d, node, "", "is not supported yet: it has no effect");
        break;
    case HD_D_LATER:
    case HD_D_SKIP:
        break;
    }
}

void hd_decode_value(hd_decoder_t *d, const hd_field_t *f, const hd_yaml_t *node,
                     void *into)
{
    hd_decode_push(d, f->name);
    if (!hd_yaml_is_null(node))
        hd_decode_typed(d, f, node, (char *)into + f->at);
    else if (f->flags & HD_F_REQUIRED)
        hd_decode_error(d, node, "must not be empty");
    hd_decode_pop(d);
}

/* What fields hold that aren't set; those that lie flat in <into> too, since they may not
 * be in the YAML at all. */
static void set_defaults(const hd_schema_t *schema, void *into)
{
    for (const hd_field_t *f = schema->fields; f->name != NULL; f++) {
        char *at = (char *)into + f->at;
        double number = (double)f->dflt;
        int word = (int)f->dflt;

        if (f->type == HD_D_FLAT)
            set_defaults(f->schema, at);
        else if (f->type == HD_D_INT || f->type == HD_D_DURATION ||
                 f->type == HD_D_PERCENT || f->type == HD_D_TRI)
            put_int(at, f->flags & HD_F_DEFAULT ? f->dflt : HD_UNSET);
        else if (f->type == HD_D_DOUBLE && (f->flags & HD_F_DEFAULT))
            memcpy(at, &number, sizeof(number));
        else if (f->type == HD_D_ENUM && (f->flags & HD_F_DEFAULT))
            memcpy(at, &word, sizeof(word));
    }
}

static const hd_field_t *find_field(const hd_schema_t *schema, hd_str_t name)
{
    for (const hd_field_t *f = schema->fields; f->name != NULL; f++) {
        if (hd_str_eq(hd_str_c(f->name), name))
            return f;
    }
    return NULL;
}

static bool may_skip(const hd_schema_t *schema, hd_str_t name)
{
    for (size_t i = 0; schema->skip != NULL && schema->skip[i] != NULL; i++) {
        if (hd_str_eq(hd_str_c(schema->skip[i]), name))
            return true;
    }
    return false;
}

void hd_decode_map(hd_decoder_t *d, const hd_schema_t *schema, const hd_yaml_t *node,
                   void *into)
{
    uint32_t errors_n = d->errors_n;

    set_defaults(schema, into);
    if (!is_map(d, node))
        return;
    for (uint32_t i = 0; i < node->n; i++) {
        const hd_yaml_entry_t *e = &node->entries[i];
        const hd_field_t *f = find_field(schema, e->key);

        if (f != NULL)
            hd_decode_value(d, f, e->value, into);
        else if (!may_skip(schema, e->key))
            report_unknown(d, schema, e);
    }
    for (const hd_field_t *f = schema->fields; f->name != NULL; f++) {
        if ((f->flags & HD_F_REQUIRED) && hd_yaml_get(node, f->name) == NULL) {
            hd_decode_push(d, f->name);
            hd_decode_error(d, node, "is missing");
            hd_decode_pop(d);
        }
    }
    /* What is half read would only give consequential errors. */
    if (schema->check != NULL && d->errors_n == errors_n)
        schema->check(d, node, into);
}

bool hd_decode_has(const hd_yaml_t *map, const char *key)
{
    return !hd_yaml_is_null(hd_yaml_get(map, key));
}

size_t hd_decode_one_of(hd_decoder_t *d, const hd_yaml_t *map, const char *const *keys,
                        bool need)
{
    size_t n = 0;
    hd_str_t all = HD_STR(""), set = HD_STR("");

    for (size_t i = 0; keys[i] != NULL; i++) {
        all = hd_str_printf(d->scratch, "%.*s%s%s", HD_STR_ARG(all), i > 0 ? ", " : "",
                            keys[i]);
        if (!hd_decode_has(map, keys[i]))
            continue;
        set = hd_str_printf(d->scratch, "%.*s%s%s", HD_STR_ARG(set), n > 0 ? " and " : "",
                            keys[i]);
        n++;
    }
    if (n > 1)
        hd_decode_error(d, map, "%.*s exclude each other", HD_STR_ARG(set));
    else if (n == 0 && need)
        hd_decode_error(d, map, "needs one of %.*s", HD_STR_ARG(all));
    return n;
}
