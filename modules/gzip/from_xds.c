/* Envoy's compressor, where its library is gzip. */
#include "gzip.h"
#include "lib/pb_unpack.h"
#include "ext/compressor_gzip.pb-c.h"
#include "ext/http_compressor.pb-c.h"

typedef PbHttpCompressor__Compressor compressor_t;
typedef PbHttpCompressor__Compressor__CommonDirectionConfig common_t;
typedef PbHttpCompressor__Compressor__ResponseDirectionConfig response_t;

static const char *const default_types[] = {"application/javascript",
                                            "application/json",
                                            "application/xhtml+xml",
                                            "image/svg+xml",
                                            "text/css",
                                            "text/html",
                                            "text/plain",
                                            "text/xml"};

static hd_rc_t read_library(const PbCore__TypedExtensionConfig *library,
                            hd_pb_arena_t *arena, gzip_conf_t *gc, hd_err_t *err)
{
    const PbCompressorGzip__Gzip *g;

    if (library == NULL || library->typed_config == NULL)
        return hd_err_set(err, HD_E_RESOURCE,
                          "compressor: compressor_library is missing");
    if (!hd_pb_any_is(library->typed_config, HD_PB(pb_compressor_gzip__gzip)))
        return hd_err_set(err, HD_E_RESOURCE,
                          "compressor: of the libraries only gzip is supported: %s",
                          library->typed_config->type_url);
    g = hd_pb_unpack_any(library->typed_config, arena, NULL);
    if (g == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "compressor: a bad Gzip message");
    gc->level = g->compression_level == 0 ? 6 : (uint32_t)g->compression_level;
    gc->strategy = (uint32_t)g->compression_strategy;
    gc->memory_level = g->memory_level != NULL ? g->memory_level->value : 5;
    gc->window_bits = g->window_bits != NULL ? g->window_bits->value : 12;
    if (gc->level > 9 || gc->strategy > 4 || gc->memory_level < 1 ||
        gc->memory_level > 9 || gc->window_bits < 9 || gc->window_bits > 15)
        return hd_err_set(err, HD_E_RESOURCE,
                          "compressor: memory_level is 1 to 9, window_bits 9 to 15");
    return HD_OK;
}

static void read_types(hd_conf_t *cf, char *const *list, size_t n, gzip_conf_t *gc)
{
    size_t all = n > 0 ? n : hd_countof(default_types);
    hd_str_t *types = hd_pool_new_n(cf->pool, hd_str_t, all);

    for (size_t i = 0; i < all; i++)
        types[i] =
            hd_str_dup_lower(cf->pool, hd_str_c(n > 0 ? list[i] : default_types[i]));
    gc->types.list = types;
    gc->types.n = (uint32_t)all;
}

static void read_response(hd_conf_t *cf, const compressor_t *c, gzip_conf_t *gc)
{
    const response_t *r = c->response_direction_config;
    const common_t *common = r != NULL ? r->common_config : NULL;
    uint32_t *codes;

    gc->is_on = true;
    gc->min_length = 30;
    if (r == NULL) { /* the form before directions */
        if (c->content_length != NULL)
            gc->min_length = c->content_length->value;
        if (c->runtime_enabled != NULL && c->runtime_enabled->default_value != NULL)
            gc->is_on = c->runtime_enabled->default_value->value;
        gc->not_with_etag = c->disable_on_etag_header;
        gc->removes_accept = c->remove_accept_encoding_header;
        read_types(cf, (char *const *)c->content_type, c->n_content_type, gc);
        return;
    }
    if (common != NULL && common->enabled != NULL &&
        common->enabled->default_value != NULL)
        gc->is_on = common->enabled->default_value->value;
    if (common != NULL && common->min_content_length != NULL)
        gc->min_length = common->min_content_length->value;
    read_types(cf, common != NULL ? (char *const *)common->content_type : NULL,
               common != NULL ? common->n_content_type : 0, gc);
    gc->not_with_etag = r->disable_on_etag_header;
    gc->removes_accept = r->remove_accept_encoding_header;
    codes = hd_pool_new_n(cf->pool, uint32_t, r->n_uncompressible_response_codes + 1);
    for (size_t i = 0; i < r->n_uncompressible_response_codes; i++)
        codes[i] = r->uncompressible_response_codes[i];
    gc->codes = codes;
    gc->codes_n = (uint32_t)r->n_uncompressible_response_codes;
}

static hd_rc_t read_filter(hd_conf_t *cf, const compressor_t *c, hd_pb_arena_t *arena,
                           gzip_conf_t *gc, hd_err_t *err)
{
    gc->is_xds = true;
    if (c->request_direction_config != NULL)
        return hd_err_set(err, HD_E_RESOURCE,
                          "compressor: request_direction_config is not supported");
    read_response(cf, c, gc);
    return read_library(c->compressor_library, arena, gc, err);
}

hd_rc_t gzip_build_filter(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                          hd_err_t *err)
{
    hd_pb_arena_t arena;
    const compressor_t *c;
    hd_rc_t rc = HD_ERROR;

    (void)is_route;
    hd_pb_arena_init(&arena, 1 << 20);
    c = pb_unpack(HD_PB(pb_http_compressor__compressor), bytes, &arena,
                  "compressor: ", err);
    if (c != NULL)
        rc = read_filter(cf, c, &arena, conf, err);
    hd_pb_arena_deinit(&arena);
    return rc;
}

hd_rc_t gzip_build_route(hd_conf_t *cf, hd_str_t bytes, bool is_route, void *conf,
                         hd_err_t *err)
{
    const PbHttpCompressor__CompressorPerRoute *p;
    gzip_conf_t *gc = conf;
    hd_pb_arena_t arena;
    hd_rc_t rc = HD_ERROR;

    (void)cf, (void)is_route;
    hd_pb_arena_init(&arena, 1 << 20);
    p = pb_unpack(HD_PB(pb_http_compressor__compressor_per_route), bytes, &arena,
                  "compressor: ", err);
    if (p != NULL &&
        p->override_case == PB_HTTP_COMPRESSOR__COMPRESSOR_PER_ROUTE__OVERRIDE_DISABLED &&
        p->disabled) {
        gc->is_xds = true; /* and nothing is on */
        rc = HD_OK;
    } else if (p != NULL) {
        rc = hd_err_set(err, HD_E_RESOURCE,
                        "compressor: per route only disabled: true is supported");
    }
    hd_pb_arena_deinit(&arena);
    return rc;
}
