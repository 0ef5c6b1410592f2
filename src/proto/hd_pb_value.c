#include "hd_pb_value.h"
#include <string.h>

#define SECONDS_MAX INT64_C(315576000000) /* google.protobuf.Duration's own bound */
#define NANOS_MAX 999999999

static bool is_duration(const Pb__Duration *d)
{
    return d->seconds >= -SECONDS_MAX && d->seconds <= SECONDS_MAX &&
           d->nanos >= -NANOS_MAX && d->nanos <= NANOS_MAX &&
           !(d->seconds > 0 && d->nanos < 0) && !(d->seconds < 0 && d->nanos > 0);
}

bool hd_pb_duration_ns(const Pb__Duration *d, int64_t unset, int64_t *ns)
{
    if (d == NULL) {
        *ns = unset;
        return true;
    }
    if (!is_duration(d))
        return false;
    if (__builtin_mul_overflow(d->seconds, INT64_C(1000000000), ns) ||
        __builtin_add_overflow(*ns, (int64_t)d->nanos, ns))
        *ns = d->seconds > 0 ? INT64_MAX : INT64_MIN;
    return true;
}

bool hd_pb_duration_ms(const Pb__Duration *d, int64_t unset, int64_t *ms)
{
    if (d == NULL) {
        *ms = unset;
        return true;
    }
    if (!is_duration(d))
        return false;
    /* Within the bound nothing overflows. */
    *ms = d->seconds * 1000 + (d->nanos >= 0 ? (d->nanos + 999999) / 1000000
                                             : -((-d->nanos + 999999) / 1000000));
    return true;
}

uint32_t hd_pb_fraction_ppm(const PbType__FractionalPercent *f, uint32_t unset)
{
    uint64_t ppm;

    if (f == NULL)
        return unset;
    switch (f->denominator) {
    case PB_TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__HUNDRED:
        ppm = (uint64_t)f->numerator * 10000;
        break;
    case PB_TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__TEN_THOUSAND:
        ppm = (uint64_t)f->numerator * 100;
        break;
    case PB_TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__MILLION:
        ppm = f->numerator;
        break;
    default:
        return unset;
    }
    return ppm < 1000000 ? (uint32_t)ppm : 1000000;
}

const Pb__Value *hd_pb_struct_get(const Pb__Struct *s, const char *name)
{
    for (size_t i = s != NULL ? s->n_fields : 0; i > 0; i--) {
        if (strcmp(s->fields[i - 1]->key, name) == 0)
            return s->fields[i - 1]->value;
    }
    return NULL;
}

const char *hd_pb_struct_text(const Pb__Struct *s, const char *name, const char *unset)
{
    const Pb__Value *v = hd_pb_struct_get(s, name);

    return v != NULL && v->kind_case == PB__VALUE__KIND_STRING_VALUE ? v->string_value
                                                                     : unset;
}
