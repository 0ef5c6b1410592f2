#include "http/hd_browser.h"

static bool has(hd_str_t agent, const char *word)
{
    return hd_str_find(agent, hd_str_c(word)) >= 0;
}

/* "MSIE N.": what stands from N on; empty: there is no such thing. */
static hd_str_t msie_version(hd_str_t agent)
{
    ssize_t at = hd_str_find(agent, HD_STR("MSIE "));
    hd_str_t version = at < 0 ? HD_STR_NONE : hd_str_sub(agent, (size_t)at + 5, agent.len);

    return version.len > 2 && version.data[1] == '.' ? version : HD_STR_NONE;
}

/* Internet Explorer 4 to 6, but for 6 of Windows XP's second service pack; Opera called
 * itself so, too. */
static bool is_msie6(hd_str_t agent)
{
    hd_str_t version = msie_version(agent);

    if (version.len == 0 || has(agent, "Opera"))
        return false;
    return version.data[0] == '4' || version.data[0] == '5' ||
           (version.data[0] == '6' && !has(hd_str_sub(version, 3, version.len), "SV1"));
}

static bool is_safari(hd_str_t agent)
{
    return has(agent, "Safari/") && has(agent, "Mac OS X") && !has(agent, "Chrome/") &&
           !has(agent, "Gecko/") && !has(agent, "Opera") && !has(agent, "MSIE ");
}

bool hd_browser_is_among(const hd_req_t *req, unsigned browsers)
{
    const hd_headers_t *h =
        req->received != NULL ? req->received : &req->head.headers;
    const hd_field_t *f;

    if ((browsers & HD_BROWSER_SAFARI) == 0 && req->head.method_id != HD_M_POST)
        return false;
    f = hd_headers_get(h, HD_H_USER_AGENT);
    if (f == NULL)
        return false;
    return ((browsers & HD_BROWSER_MSIE6) != 0 && req->head.method_id == HD_M_POST &&
            is_msie6(f->value)) ||
           ((browsers & HD_BROWSER_SAFARI) != 0 && is_safari(f->value));
}
