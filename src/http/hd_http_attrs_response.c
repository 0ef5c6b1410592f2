/* Variables of the response. */
#include "http/hd_http_attrs_int.h"
#include "http/hd_request_int.h"

/* On the way to an error page that error's. */
GET(status)
{
    unsigned status =
        of->req->error_status != 0 ? of->req->error_status : of->req->res.status;

    UNUSED_REST;
    out->type = HD_VAL_STR;
    out->str = hd_str_printf(of->pool, "%03u", status);
}

GET(body_bytes_sent)
{
    UNUSED_REST;
    hd_val_set_int(out, (int64_t)(of->req->bytes_sent + of->req->framing_bytes_sent));
}

GET(bytes_sent)
{
    UNUSED_REST;
    hd_val_set_int(out, (int64_t)(of->req->head_bytes_sent + of->req->bytes_sent +
                                  of->req->framing_bytes_sent));
}

GET(response_flags)
{
    hd_req_info_t info;

    UNUSED_REST;
    hd_req_get_info(of->req, &info);
    hd_val_set_str(out, info.flags);
}

GET(response_code_details)
{
    hd_req_info_t info;

    UNUSED_REST;
    hd_req_get_info(of->req, &info);
    hd_val_set_if_any(out, info.details);
}

GET(route_name)
{
    UNUSED_REST;
    if (of->req->route != NULL)
        hd_val_set_if_any(out, of->req->route->name);
}

const hd_attr_def_t hd_http_attrs_response[] = {
    A("status", status, HD_VAL_STR, R, "status of the response"),
    A("body_bytes_sent", body_bytes_sent, HD_VAL_INT, R, "bytes sent without the head"),
    A("bytes_sent", bytes_sent, HD_VAL_INT, R, "bytes sent"),
    A("response_flags", response_flags, HD_VAL_STR, R, "Envoy's: UF, UC, …"),
    A("response_code_details", response_code_details, HD_VAL_STR, R, "why this status"),
    A("route_name", route_name, HD_VAL_STR, R, "name of the route"),
    {0},
};
