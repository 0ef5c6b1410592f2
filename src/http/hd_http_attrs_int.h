/* hd_http_attrs_int: nginx's variables of requests, a file a noun: what these files
 * share. Most are cheap to look up, so they are asked anew each time rather than entered
 * into the request's table of values (VOLATILE). An empty value mostly counts as none:
 * nginx's
 * "-" in a log. */
#pragma once
#include "core/conf/hd_attr.h"

extern const hd_attr_def_t hd_http_attrs_request[], hd_http_attrs_fields[],
    hd_http_attrs_conn[], hd_http_attrs_tls[], hd_http_attrs_response[],
    hd_http_attrs_upstream[], hd_http_attrs_process[];

/* --- hd_http_attrs_conn.c --- */
/* The client's address, for which PROXY protocol or realip may stand; NULL: no client. */
const hd_addr_t *hd_http_attr_client(const hd_attr_of_t *of);
/* As text without the port, made in of->pool. */
void hd_http_attr_set_addr(const hd_attr_of_t *of, const hd_addr_t *a, hd_val_t *out);

/* --- how a definition is written --- */
typedef const hd_attr_of_t of_t;

#define GET(name) static void get_##name(of_t *of, hd_str_t rest, hd_val_t *out)
#define UNUSED_REST (void)rest, (void)of

#define R (HD_ATTR_REQ | HD_ATTR_VOLATILE)
#define C HD_ATTR_VOLATILE
#define FAMILY (HD_ATTR_REQ | HD_ATTR_VOLATILE | HD_ATTR_PREFIX)
#define A(text, fn, kind, how, about)                                                    \
    {                                                                                    \
        .name = text, .type = kind, .flags = how, .get = get_##fn, .help = about         \
    }
