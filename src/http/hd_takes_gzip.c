/* Does a client take gzip, and may a response of this kind be compressed for it? nginx's
 * gzip_http_version, gzip_proxied, gzip_disable. */
#include "http/hd_request_int.h"

/* "gzip" in Accept-Encoding with a weight above 0. */
static bool accepts_gzip(hd_str_t list)
{
    hd_str_t part;

    while (hd_str_split(&list, ',', &part)) {
        hd_str_t rest = part, coding, parameter;

        if (!hd_str_split(&rest, ';', &coding) ||
            !hd_str_eq_nocase(hd_str_trim(coding), HD_STR("gzip")))
            continue;
        while (hd_str_split(&rest, ';', &parameter)) {
            parameter = hd_str_trim(parameter);
            if (!hd_str_has_prefix_nocase(parameter, HD_STR("q=")))
                continue;
            for (size_t i = 2; i < parameter.len; i++) {
                if (parameter.data[i] >= '1' && parameter.data[i] <= '9')
                    return true;
            }
            return false;
        }
        return true;
    }
    return false;
}

static bool has(hd_req_t *req, const char *name)
{
    bool found;

    hd_ignore(hd_res_header(req, hd_str_c(name), &found).len == 0);
    return found;
}

static bool says(hd_req_t *req, const char *word)
{
    bool found;
    hd_str_t value = hd_res_header(req, HD_STR("Cache-Control"), &found);

    return found && hd_str_find(hd_str_dup_lower(req->pool, value), hd_str_c(word)) >= 0;
}

/* A request with Via comes from a proxy, which may give the response to others. */
static bool may_for_proxy(hd_req_t *req, uint32_t which)
{
    bool found;

    if (which & HD_GZIP_ANY)
        return true;
    hd_ignore(hd_req_header(req, HD_STR("Authorization"), &found).len == 0);
    return ((which & HD_GZIP_AUTH) && found) ||
           ((which & HD_GZIP_EXPIRED) && has(req, "Expires")) ||
           ((which & HD_GZIP_NO_CACHE) && says(req, "no-cache")) ||
           ((which & HD_GZIP_NO_STORE) && says(req, "no-store")) ||
           ((which & HD_GZIP_PRIVATE) && says(req, "private")) ||
           ((which & HD_GZIP_NO_LM) && !has(req, "Last-Modified")) ||
           ((which & HD_GZIP_NO_ETAG) && !has(req, "ETag"));
}

bool hd_req_has_gzip_vary(hd_req_t *req)
{
    return req->loc->gzip_vary;
}

bool hd_req_takes_gzip(hd_req_t *req)
{
    const hd_http_loc_t *loc = req->loc;
    bool found;
    hd_str_t value;

    if (req->is_sub) /* its bytes become part of others' */
        return false;
    value = hd_req_header(req, HD_STR("Accept-Encoding"), &found);
    if (req->http != NULL && req->http->is_xds)
        return found && accepts_gzip(value);
    if (!found || !accepts_gzip(value) ||
        req->head.version < (loc->gzip_on_http10 ? HD_HTTP_10 : HD_HTTP_11))
        return false;
    value = hd_req_header(req, HD_STR("Via"), &found);
    if (found && !may_for_proxy(req, loc->gzip_proxied))
        return false;
    if (loc->gzip_disable_n == 0)
        return true;
    value = hd_req_header(req, HD_STR("User-Agent"), &found);
    for (uint32_t i = 0; found && i < loc->gzip_disable_n; i++) {
        if (hd_match(req->member, req->routes_region, &loc->gzip_disable[i], value, NULL))
            return false;
    }
    return true;
}
