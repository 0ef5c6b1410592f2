/* $1 to $9: groups of the regular expression that chose the location. */
#include "http/hd_request_int.h"

static void get_group(const hd_attr_of_t *of, uint32_t n, hd_val_t *out)
{
    const hd_req_t *req = of->req;
    int32_t from, to;

    if (n >= req->captures.n)
        return;
    from = req->captures.at[n].from;
    to = req->captures.at[n].to;
    if (from < 0 || to < from || (size_t)to > req->capture_of.len)
        return;
    out->type = HD_VAL_STR;
    out->str = hd_str_n(req->capture_of.data + from, (size_t)(to - from));
}

#define GROUP(n)                                                                         \
    static void get_##n(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)            \
    {                                                                                    \
        (void)rest;                                                                      \
        get_group(of, n, out);                                                           \
    }
GROUP(1)
GROUP(2)
GROUP(3)
GROUP(4)
GROUP(5)
GROUP(6)
GROUP(7)
GROUP(8)
GROUP(9)

#define DEF(n)                                                                           \
    {                                                                                    \
        .name = #n, .type = HD_VAL_STR, .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,         \
        .get = get_##n, .help = "a group of the location's regular expression"           \
    }

static const hd_attr_def_t defs[] = {DEF(1), DEF(2), DEF(3), DEF(4), DEF(5),
                                     DEF(6), DEF(7), DEF(8), DEF(9), {0}};

void hd_http_captures_register(void)
{
    hd_attr_register(defs);
}
