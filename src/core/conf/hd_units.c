/* nginx's sizes and times. */
#include "core/conf/hd_parse.h"

static bool take_number(hd_str_t *text, uint64_t *n)
{
    size_t digits = 0;
    bool good;

    while (digits < text->len && text->data[digits] >= '0' && text->data[digits] <= '9')
        digits++;
    good = hd_str_to_u64(hd_str_sub(*text, 0, digits), UINT64_MAX, n);
    *text = hd_str_sub(*text, digits, SIZE_MAX);
    return good;
}

hd_rc_t hd_parse_size(hd_str_t text, uint64_t max, uint64_t *bytes, hd_err_t *err)
{
    hd_str_t unit = text;
    unsigned shift = 0;
    uint64_t n;

    if (!take_number(&unit, &n) || unit.len > 1)
        goto wrong;
    if (unit.len == 1) {
        char c = hd_ascii_lower(unit.data[0]);

        shift = c == 'k' ? 10 : c == 'm' ? 20 : c == 'g' ? 30 : 0;
        if (shift == 0)
            goto wrong;
    }
    if (n > max >> shift)
        return hd_err_set(err, HD_E_CONF, "\"%.*s\" is too large: at most %llu bytes",
                          HD_STR_ARG(text), (unsigned long long)max);
    *bytes = n << shift;
    return HD_OK;
wrong:
    return hd_err_set(err, HD_E_CONF,
                      "\"%.*s\" is not a size: bytes, or with k, m or g, "
                      "as in 64k",
                      HD_STR_ARG(text));
}

typedef struct {
    hd_str_t name;
    uint64_t ms;
} unit_t;

/* From large to small: units may be combined in this order only, each once. */
static const unit_t units[] = {
    {HD_STR_INIT("y"), 31536000000u}, {HD_STR_INIT("M"), 2592000000u},
    {HD_STR_INIT("w"), 604800000u},   {HD_STR_INIT("d"), 86400000u},
    {HD_STR_INIT("h"), 3600000u},     {HD_STR_INIT("m"), 60000u},
    {HD_STR_INIT("s"), 1000u},        {HD_STR_INIT("ms"), 1u},
};

#define MS_MAX ((uint64_t)INT64_MAX / 1000000) /* in nanoseconds it must fit, too */

hd_rc_t hd_parse_msec(hd_str_t text, uint64_t *ms, hd_err_t *err)
{
    hd_str_t rest = text;
    size_t from = 0; /* the first unit that may still come */
    uint64_t sum = 0, n;

    if (text.len == 0)
        goto wrong;
    while (rest.len > 0) {
        size_t letters = 0, i;
        hd_str_t name;

        if (!take_number(&rest, &n))
            goto wrong;
        while (letters < rest.len && rest.data[letters] != ' ' &&
               (rest.data[letters] < '0' || rest.data[letters] > '9'))
            letters++;
        name = letters > 0 ? hd_str_sub(rest, 0, letters) : HD_STR("s"); /* "60": 60 s */
        rest = hd_str_sub(rest, letters, SIZE_MAX);
        for (i = from; i < hd_countof(units) && !hd_str_eq(units[i].name, name); i++)
            ;
        if (i == hd_countof(units))
            goto wrong;
        if (n > MS_MAX / units[i].ms || (sum += n * units[i].ms) > MS_MAX)
            return hd_err_set(err, HD_E_CONF, "\"%.*s\" is too long a time",
                              HD_STR_ARG(text));
        from = i + 1;
        if (rest.len > 1 && rest.data[0] == ' ')
            rest = hd_str_sub(rest, 1, SIZE_MAX);
    }
    *ms = sum;
    return HD_OK;
wrong:
    return hd_err_set(err, HD_E_CONF,
                      "\"%.*s\" is not a time: seconds, or with a unit "
                      "(ms s m h d w M y), as in 500ms or 1h30m",
                      HD_STR_ARG(text));
}
