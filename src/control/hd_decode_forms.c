/* Forms of texts, names that were nearly right, and pieces that several kinds share. */
#include "control/hd_decode_int.h"
#include <arpa/inet.h>
#include <math.h>

/* --- near names --- */

#define NEAR_LEN_MAX 40

/* How many letters differ (Levenshtein); 99 for what is too long to be looked at. */
static unsigned distance(hd_str_t a, hd_str_t b)
{
    unsigned row[NEAR_LEN_MAX + 1];

    if (a.len > NEAR_LEN_MAX || b.len > NEAR_LEN_MAX)
        return 99;
    for (size_t j = 0; j <= b.len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned up = row[j];
            unsigned same =
                hd_ascii_lower(a.data[i - 1]) != hd_ascii_lower(b.data[j - 1]);

            row[j] = hd_min(hd_min(up + 1, row[j - 1] + 1), diagonal + same);
            diagonal = up;
        }
    }
    return row[b.len];
}

hd_str_t hd_decode_choice(hd_pool_t *pool, hd_str_t given, const char *const *names,
                          bool more)
{
    hd_str_t list = HD_STR("");
    const char *near = NULL;
    unsigned best = (unsigned)hd_max(given.len / 3, (size_t)1) + 1;

    for (size_t i = 0; names[i] != NULL; i++) {
        unsigned far = distance(given, hd_str_c(names[i]));

        if (far < best) {
            best = far;
            near = names[i];
        }
        list = hd_str_printf(pool, "%.*s%s%s", HD_STR_ARG(list), i > 0 ? ", " : "",
                             names[i]);
    }
    return hd_str_printf(pool, "%s%s%sllowed are %.*s%s",
                         near != NULL ? "did you mean " : "", near != NULL ? near : "",
                         near != NULL ? "? A" : "a", HD_STR_ARG(list), more ? " …" : "");
}

bool hd_find_enum(const hd_enum_t *values, hd_str_t name, bool nocase, int *value)
{
    for (const hd_enum_t *v = values; v->name != NULL; v++) {
        if (nocase ? hd_str_eq_nocase(hd_str_c(v->name), name)
                   : hd_str_eq(hd_str_c(v->name), name)) {
            *value = v->value;
            return true;
        }
    }
    return false;
}

/* --- forms --- */

static int64_t unit_ns(hd_str_t *rest)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ns", 1},           {"us", 1000},      {"µs", 1000},
                 {"ms", 1000000},     {"s", 1000000000}, {"m", 60000000000},
                 {"h", 3600000000000}};

    for (size_t i = 0; i < hd_countof(units); i++) {
        hd_str_t name = hd_str_c(units[i].name);

        if (hd_str_has_prefix(*rest, name)) {
            *rest = hd_str_sub(*rest, name.len, rest->len);
            return units[i].ns;
        }
    }
    return 0;
}

/* Takes "1", "1.5", ".5" off <rest>. */
static bool take_number(hd_str_t *rest, double *number)
{
    double whole = 0, part = 0, scale = 1;
    size_t i = 0, digits_n = 0;

    for (; i < rest->len && rest->data[i] >= '0' && rest->data[i] <= '9'; i++, digits_n++)
        whole = whole * 10 + (rest->data[i] - '0');
    if (i < rest->len && rest->data[i] == '.') {
        for (i++; i < rest->len && rest->data[i] >= '0' && rest->data[i] <= '9'; i++) {
            scale /= 10;
            part += (rest->data[i] - '0') * scale;
            digits_n++;
        }
    }
    *number = whole + part;
    *rest = hd_str_sub(*rest, i, rest->len);
    return digits_n > 0 && digits_n <= 20;
}

const char *hd_form_duration(hd_str_t s, int64_t *ns)
{
    double total = 0;

    *ns = 0;
    if (hd_str_eq(s, HD_STR("0")))
        return NULL;
    if (s.len == 0)
        return "is no duration: write 1.5s, 200ms or 1h30m";
    if (s.data[0] == '-')
        return "must not be negative";
    while (s.len > 0) {
        double number;
        int64_t unit;

        if (!take_number(&s, &number) || (unit = unit_ns(&s)) == 0)
            return "is no duration: write 1.5s, 200ms or 1h30m";
        total += number * (double)unit;
    }
    if (total > 9e18 / 10) /* some 28 years */
        return "is too long";
    *ns = llround(total);
    return NULL;
}

const char *hd_form_ip(hd_str_t s)
{
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char addr[16];

    if (s.len >= sizeof(text))
        return "is no IP address";
    memcpy(text, s.data, s.len);
    text[s.len] = '\0';
    return inet_pton(AF_INET, text, addr) == 1 || inet_pton(AF_INET6, text, addr) == 1
               ? NULL
               : "is no IP address";
}

const char *hd_form_cidr(hd_str_t s)
{
    ssize_t slash = hd_str_find_char(s, '/');
    uint64_t bits;

    if (slash < 0)
        return hd_form_ip(s) == NULL ? NULL : "is no IP address or CIDR";
    hd_str_t ip = hd_str_sub(s, 0, (size_t)slash);
    hd_str_t rest = hd_str_sub(s, (size_t)slash + 1, s.len);
    uint64_t max = hd_str_find_char(ip, ':') >= 0 ? 128 : 32;

    return hd_form_ip(ip) == NULL && hd_str_to_u64(rest, max, &bits)
               ? NULL
               : "is no IP address or CIDR";
}

const char *hd_form_port(hd_str_t s)
{
    uint64_t port;

    return hd_str_to_u64(s, 65535, &port) ? NULL : "is no port: 0 to 65535";
}

const char *hd_form_header(hd_str_t s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];

        if (c <= ' ' || c >= 127 || strchr("\"(),/;<=>?@[\\]{}", c) != NULL ||
            (c == ':' && i > 0))
            return "is no header name (RFC 9110 §5.1)";
    }
    return s.len == 0 ? "is no header name (RFC 9110 §5.1)" : NULL;
}

/* SEL-1 */
const char *hd_form_label_value(hd_str_t s)
{
    if (hd_str_find_char(s, '*') >= 0)
        return "must not have a * (selectors know no wildcards)";
    return s.len > 63 ? "is longer than 63 bytes" : NULL;
}

/* --- shared pieces --- */

const hd_field_t hd_selector_fields[] = {
    {.name = "matchLabels", .type = HD_D_LABELS, .form = hd_form_label_value}, {0}};
const hd_schema_t hd_selector_schema = {sizeof(hd_labels_t), hd_selector_fields, NULL,
                                        NULL};

static const hd_field_t labels_selector_fields[] = {
    {.name = "labels", .type = HD_D_LABELS, .form = hd_form_label_value}, {0}};
const hd_schema_t hd_labels_selector_schema = {sizeof(hd_labels_t),
                                               labels_selector_fields, NULL, NULL};

static bool is_dns_label(hd_str_t s)
{
    if (s.len == 0 || s.len > 63)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

/* EXP-2 */
void hd_read_export_to(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t list = {.name = "", .type = HD_D_STRS};
    hd_strs_t *out = into;

    if (node->type != HD_YAML_LIST) {
        hd_decode_error(d, node, "must be a list, not %s", hd_yaml_what(node));
        return;
    }
    hd_decode_typed(d, &list, node, out);
    for (size_t i = 0; i < out->n; i++) {
        hd_str_t s = out->items[i];
        bool special = hd_str_eq(s, HD_STR(".")) || hd_str_eq(s, HD_STR("*")) ||
                       hd_str_eq(s, HD_STR("~"));

        if (s.data == NULL)
            continue; /* reported */
        if (!special && !is_dns_label(s))
            hd_decode_error(d, node,
                            "\"%.*s\" is no namespace: allowed are names, ., *, ~",
                            HD_STR_ARG(hd_str_sub(s, 0, 60)));
        if (out->n > 1 && special && s.data[0] != '.')
            hd_decode_error(d, node, "%.*s can't be combined with others", HD_STR_ARG(s));
        for (size_t j = 0; j < i; j++) {
            bool twice =
                hd_str_eq(s, out->items[j]) ||
                (hd_str_eq(s, HD_STR(".")) && hd_str_eq(out->items[j], d->obj->ns)) ||
                (hd_str_eq(out->items[j], HD_STR(".")) && hd_str_eq(s, d->obj->ns));

            if (twice)
                hd_decode_error(d, node, "%.*s is there twice", HD_STR_ARG(s));
        }
    }
}
