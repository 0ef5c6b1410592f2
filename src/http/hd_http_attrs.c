#include "http/hd_http_attrs_int.h"
#include "http/hd_request_int.h"

void hd_http_attrs_register(void)
{
    hd_attr_register(hd_http_attrs_request);
    hd_attr_register(hd_http_attrs_fields);
    hd_attr_register(hd_http_attrs_conn);
    hd_attr_register(hd_http_attrs_tls);
    hd_attr_register(hd_http_attrs_response);
    hd_attr_register(hd_http_attrs_upstream);
    hd_attr_register(hd_http_attrs_process);
}
