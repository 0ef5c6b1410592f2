#include "core/proc/hd_nginx_words.h"
#include "core/conf/hd_conf.h"
#include "core/hd_module.h"
#include "core/proc/hd_modules.h"

#define ALWAYS "--with-pcre --with-pcre-jit --with-stream --with-stream_ssl_module"

typedef struct {
    const char *word, *directive;
} word_t;

/* Those that nginx's configure leaves out unless asked for, */
static const word_t with[] = {
    {"http_ssl_module", "ssl_certificate"},
    {"http_v2_module", "http2"},
    {"http_v3_module", "http3"},
    {"http_realip_module", "set_real_ip_from"},
    {"http_addition_module", "add_after_body"},
    {"http_xslt_module", "xslt_stylesheet"},
    {"http_image_filter_module", "image_filter"},
    {"http_geoip_module", "geoip_country"},
    {"http_sub_module", "sub_filter"},
    {"http_dav_module", "dav_methods"},
    {"http_flv_module", "flv"},
    {"http_mp4_module", "mp4"},
    {"http_gunzip_module", "gunzip"},
    {"http_gzip_static_module", "gzip_static"},
    {"http_auth_request_module", "auth_request"},
    {"http_random_index_module", "random_index"},
    {"http_secure_link_module", "secure_link"},
    {"http_slice_module", "slice"},
    {"http_stub_status_module", "stub_status"},
    {"stream_realip_module", "set_real_ip_from"},
    {"stream_ssl_preread_module", "ssl_preread"},
};

/* and those that it builds unless told not to. */
static const word_t without[] = {
    {"http_charset_module", "charset"},
    {"http_gzip_module", "gzip"},
    {"http_ssi_module", "ssi"},
    {"http_userid_module", "userid"},
    {"http_access_module", "allow"},
    {"http_auth_basic_module", "auth_basic"},
    {"http_mirror_module", "mirror"},
    {"http_autoindex_module", "autoindex"},
    {"http_geo_module", "geo"},
    {"http_map_module", "map"},
    {"http_split_clients_module", "split_clients"},
    {"http_referer_module", "valid_referers"},
    {"http_rewrite_module", "rewrite"},
    {"http_proxy_module", "proxy_pass"},
    {"http_fastcgi_module", "fastcgi_pass"},
    {"http_uwsgi_module", "uwsgi_pass"},
    {"http_scgi_module", "scgi_pass"},
    {"http_grpc_module", "grpc_pass"},
    {"http_tunnel_module", "tunnel_pass"},
    {"http_memcached_module", "memcached_pass"},
    {"http_limit_conn_module", "limit_conn"},
    {"http_limit_req_module", "limit_req"},
    {"http_empty_gif_module", "empty_gif"},
    {"http_browser_module", "ancient_browser"},
    {"http_upstream_hash_module", "hash"},
    {"http_upstream_ip_hash_module", "ip_hash"},
    {"http_upstream_least_conn_module", "least_conn"},
    {"http_upstream_random_module", "random"},
    {"http_upstream_keepalive_module", "keepalive"},
    {"http_upstream_zone_module", "zone"},
    {"http_upstream_sticky_module", "sticky"},
    {"http-cache", "proxy_cache"},
    {"stream_pass_module", "pass"},
};

static bool is_known(hd_str_t dir, const char *name, hd_pool_t *pool)
{
    const hd_directive_t *d;
    const hd_module_t *mod;
    uint32_t at = 0;

    while (hd_directives_next(&at, &mod, &d)) {
        if (strcmp(d->name, name) == 0)
            return true;
    }
    return hd_module_index_find(dir, HD_STR("directive"), hd_str_c(name), pool).len > 0;
}

hd_str_t hd_nginx_words(hd_pool_t *pool)
{
    hd_str_t dir = hd_modules_dir(pool), text = HD_STR(ALWAYS);

    for (size_t i = 0; i < hd_countof(with); i++) {
        if (is_known(dir, with[i].directive, pool))
            text = hd_str_printf(pool, "%.*s --with-%s", HD_STR_ARG(text), with[i].word);
    }
    for (size_t i = 0; i < hd_countof(without); i++) {
        if (!is_known(dir, without[i].directive, pool))
            text = hd_str_printf(pool, "%.*s --without-%s", HD_STR_ARG(text),
                                 without[i].word);
    }
    return text;
}
