/* empty_gif: one transparent pixel, for pages that count their readers:
 *     location = /_.gif { empty_gif; }
 */
#include "hd_module.h"

/* GIF89a, 1 by 1, two colours; the graphic control extension makes the second one
 * transparent. */
#define PIXEL                                                                            \
    "GIF89a\001\000\001\000\200\001\000\000\000\000\377\377\377"                         \
    "!\371\004\001\000\000\001\000"                                                      \
    ",\000\000\000\000\001\000\001\000\000\002\002L\001\000;"
/* When it was made, by nginx's word: clients that have it needn't load it again. */
#define MADE_S 23349600
#define MADE "Mon, 28 Sep 1970 06:00:00 GMT"

typedef struct {
    bool is_on;
} gif_conf_t;

static hd_rc_t set_on(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    (void)cf, (void)args, (void)err;
    ((gif_conf_t *)conf)->is_on = true;
    return HD_OK;
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    hd_str_t method = hd_req_method(req);
    unsigned status;

    (void)conf;
    if (!hd_str_eq(method, HD_STR("GET")) && !hd_str_eq(method, HD_STR("HEAD")))
        return hd_req_answer(req, 405, HD_STR_NONE, HD_STR_NONE, NULL, "empty_gif");
    status = hd_req_conditional(req, HD_STR_NONE, MADE_S);
    if (status == 412)
        return hd_req_answer(req, 412, HD_STR_NONE, HD_STR_NONE, NULL, "empty_gif");
    if (status == 304)
        hd_ignore(hd_req_answer(req, 304, HD_STR_NONE, HD_STR_NONE, NULL, "empty_gif"));
    else
        hd_ignore(hd_req_answer(req, 200, HD_STR("image/gif"),
                                hd_str_n(PIXEL, sizeof(PIXEL) - 1), NULL, "empty_gif"));
    return hd_res_add_header(req, HD_STR("Last-Modified"), HD_STR(MADE)) == HD_OK
               ? HD_DONE
               : HD_ERROR;
}

static const hd_directive_t directives[] = {
    {.name = "empty_gif",
     .scope = HD_IN_LOCATION,
     .args_n = 0,
     .set = set_on,
     .help = "answers with one transparent pixel, a GIF"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "empty_gif",
    .directives = directives,
    .conf_size = sizeof(gif_conf_t),
    .phase = HD_PHASE_CONTENT,
    .follows_rewrite = true,
    .on_request_headers = on_request_headers,
};
