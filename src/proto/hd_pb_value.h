/* hd_pb_value: plain values out of protobuf's small messages: wrappers with a default,
 * durations, fractions, members of structs. All of them may be NULL, which is "not set".
 */
#pragma once
#include "hd_pb.h"
#include "xds/type.pb-c.h"

static inline uint32_t hd_pb_u32(const Pb__UInt32Value *v, uint32_t unset)
{
    return v != NULL ? v->value : unset;
}

static inline uint64_t hd_pb_u64(const Pb__UInt64Value *v, uint64_t unset)
{
    return v != NULL ? v->value : unset;
}

static inline bool hd_pb_bool(const Pb__BoolValue *v, bool unset)
{
    return v != NULL ? v->value != 0 : unset;
}

static inline double hd_pb_double(const Pb__DoubleValue *v, double unset)
{
    return v != NULL ? v->value : unset;
}

/* Nanoseconds, at most INT64_MAX (292 years); <unset> if NULL. False: not a duration
 * (nanos out of range, signs that differ, more than 10,000 years), to be refused;
 * negative ones are sound. */
bool hd_pb_duration_ns(const Pb__Duration *d, int64_t unset,
                       int64_t *ns) HD_PB_MUST_CHECK;

/* The same in milliseconds, rounded away from 0: a timeout of 1 ns is not "off". */
bool hd_pb_duration_ms(const Pb__Duration *d, int64_t unset,
                       int64_t *ms) HD_PB_MUST_CHECK;

/* Parts in a million, at most 1,000,000; <unset> if NULL, or if its denominator is
 * unknown. */
uint32_t hd_pb_fraction_ppm(const PbType__FractionalPercent *f, uint32_t unset);

/* A member; NULL: there is none. Of members of one name the last counts. */
const Pb__Value *hd_pb_struct_get(const Pb__Struct *s, const char *name);

/* A member that is a string; <unset> if there is none, or it is none. */
const char *hd_pb_struct_text(const Pb__Struct *s, const char *name, const char *unset);
