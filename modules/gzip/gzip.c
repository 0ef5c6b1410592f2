/* gzip: bodies are compressed for clients that take it, and undone for those that don't:
 *     gzip on; gzip_types text/css application/json;
 *     gunzip on;
 * or by xDS (envoy.filters.http.compressor with gzip). What may be compressed at all for
 * a client is the core's to say (hd_req_takes_gzip). */
#include "gzip.h"

#include <zlib.h>

#define WINDOW_BITS 15
#define MEMORY_LEVEL 8
#define WRAP_GZIP 16 /* zlib: added to the window's bits */
#define LITTLE_BYTES 262

typedef struct {
    z_stream z;
    bool is_inflate, is_ended;
    uint64_t in, out; /* bytes so far: $gzip_ratio */
} stream_t;

/* Their addresses, as states: the client takes gzip; it doesn't, and might get it. */
static char taken, not_taken;

/* --- directives --- */

static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return types_set(cf, args, &((gzip_conf_t *)conf)->types, err);
}

static const hd_conf_limits_t levels = {1, 9};

/* --- which responses --- */

static bool is_status(const gzip_conf_t *gc, unsigned status)
{
    if (!gc->is_xds)
        return status == 200 || status == 403 || status == 404;
    for (uint32_t i = 0; i < gc->codes_n; i++) {
        if (gc->codes[i] == status)
            return false;
    }
    return status >= 200 && status != 204 && status != 206 && status != 304;
}

/* Envoy's further reasons to leave it. */
static bool is_left_by_envoy(hd_req_t *req, const gzip_conf_t *gc)
{
    bool found;
    hd_str_t value = hd_res_header(req, HD_STR("cache-control"), &found);

    if (found && hd_str_find(hd_str_dup_lower(hd_req_pool(req), value),
                             HD_STR("no-transform")) >= 0)
        return true;
    hd_ignore(hd_res_header(req, HD_STR("etag"), &found).len == 0);
    return found && gc->not_with_etag;
}

static bool is_long_enough(const gzip_conf_t *gc, int64_t length)
{
    return length < 0 || length >= (int64_t)(gc->min_length > 0 ? gc->min_length : 20);
}

static bool may_compress(hd_req_t *req, const gzip_conf_t *gc)
{
    int64_t length = hd_res_content_length(req);
    bool found;
    hd_str_t type = hd_res_header(req, HD_STR("Content-Type"), &found);

    if (!types_have(&gc->types, type) || !is_status(gc, hd_res_status(req)) ||
        !is_long_enough(gc, length))
        return false;
    hd_ignore(hd_res_header(req, HD_STR("Content-Encoding"), &found).len == 0);
    return !found && !(gc->is_xds && is_left_by_envoy(req, gc));
}

/* Once, if a compressed copy of a file stands beside it, too (gzip_static). */
static hd_rc_t add_vary(hd_req_t *req)
{
    bool found;
    hd_str_t vary = hd_res_header(req, HD_STR("Vary"), &found);

    if (found && hd_str_eq(vary, HD_STR("Accept-Encoding")))
        return HD_OK;
    return hd_res_add_header(req, HD_STR("Vary"), HD_STR("Accept-Encoding"));
}

/* --- streams --- */

static void end_stream(void *arg)
{
    stream_t *s = arg;

    if (s->is_inflate)
        inflateEnd(&s->z);
    else
        deflateEnd(&s->z);
}

/* A small body needs no large window: memory is what many streams at once cost. */
static void fit(int64_t length, int *bits, int *level)
{
    while (length > 0 && *bits > 9 && length < (1 << (*bits - 1)) - LITTLE_BYTES) {
        (*bits)--;
        *level = hd_max(*level - 1, 1);
    }
}

static hd_rc_t begin_stream(hd_req_t *req, const gzip_conf_t *gc, bool is_inflate)
{
    stream_t *s = hd_pool_new(hd_req_pool(req), stream_t);
    int bits = gc->window_bits > 0 ? (int)gc->window_bits : WINDOW_BITS;
    int memory = gc->memory_level > 0 ? (int)gc->memory_level : MEMORY_LEVEL, rc;

    if (hd_str_eq(hd_req_method(req), HD_STR("HEAD")))
        return HD_OK; /* the head of a GET */
    s->is_inflate = is_inflate;
    if (is_inflate) {
        rc = inflateInit2(&s->z, WINDOW_BITS + WRAP_GZIP);
    } else {
        fit(hd_res_content_length(req), &bits, &memory);
        rc = deflateInit2(&s->z, gc->level > 0 ? (int)gc->level : 1, Z_DEFLATED,
                          bits + WRAP_GZIP, memory, (int)gc->strategy);
    }
    if (rc != Z_OK)
        return HD_DECLINED; /* no memory: it goes as it is */
    hd_pool_defer(hd_req_pool(req), end_stream, s);
    hd_req_set_state(req, &hd_module, s);
    return HD_OK;
}

static hd_rc_t begin_gunzip(hd_req_t *req, const gzip_conf_t *gc)
{
    bool found;
    hd_str_t coding = hd_res_header(req, HD_STR("Content-Encoding"), &found);

    if (!found || !hd_str_eq_nocase(coding, HD_STR("gzip")))
        return HD_OK;
    if (hd_req_has_gzip_vary(req) && add_vary(req) != HD_OK)
        return HD_ERROR;
    if (hd_req_takes_gzip(req))
        return HD_OK;
    if (begin_stream(req, gc, true) != HD_OK)
        return HD_OK;
    hd_res_remove_header(req, HD_STR("Content-Encoding"));
    hd_res_remove_header(req, HD_STR("Content-Length"));
    hd_res_remove_header(req, HD_STR("Accept-Ranges"));
    return bodies_weaken_etag(req);
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const gzip_conf_t *gc = conf;

    if (!gc->removes_accept || !gc->is_on)
        return HD_OK;
    /* only this hop compresses; what the client takes is kept in mind */
    hd_req_set_state(req, &hd_module, hd_req_takes_gzip(req) ? (void *)&taken : NULL);
    hd_req_remove_header(req, HD_STR("Accept-Encoding"));
    return HD_OK;
}

static bool takes_gzip(hd_req_t *req, const gzip_conf_t *gc)
{
    return gc->removes_accept ? hd_req_state(req, &hd_module) == &taken
                              : hd_req_takes_gzip(req);
}

/* Is the body to be changed? Then the head says so, and there is a state. */
static hd_rc_t change_head(hd_req_t *req, const gzip_conf_t *gc)
{
    bool takes = takes_gzip(req, gc);
    bool varies = gc->is_xds || hd_req_has_gzip_vary(req);

    /* a part of what goes out compressed to others */
    if (hd_req_state(req, &hd_module) == &not_taken && hd_req_has_gzip_vary(req) &&
        (hd_res_status(req) == 206 || hd_res_status(req) == 416) &&
        add_vary(req) != HD_OK)
        return HD_ERROR;
    hd_req_set_state(req, &hd_module, NULL);
    if (gc->gunzip && begin_gunzip(req, gc) != HD_OK)
        return HD_ERROR;
    if (!gc->is_on || hd_req_state(req, &hd_module) != NULL || !may_compress(req, gc))
        return HD_OK;
    if (varies && add_vary(req) != HD_OK) /* caches keep it for others, too */
        return HD_ERROR;
    if (!takes || begin_stream(req, gc, false) != HD_OK)
        return HD_OK;
    hd_res_remove_header(req, HD_STR("Content-Length"));
    hd_res_remove_header(req, HD_STR("Accept-Ranges"));
    if (hd_res_set_header(req, HD_STR("Content-Encoding"), HD_STR("gzip")) != HD_OK)
        return HD_ERROR;
    return bodies_weaken_etag(req);
}

static bool changes_file(hd_req_t *req, const void *conf, hd_str_t type,
                         hd_str_t encoding, int64_t length)
{
    const gzip_conf_t *gc = conf;

    if (encoding.len > 0)
        return gc->gunzip && hd_str_eq_nocase(encoding, HD_STR("gzip")) &&
               !hd_req_takes_gzip(req);
    if (!gc->is_on || !types_have(&gc->types, type) || !is_long_enough(gc, length))
        return false;
    if (takes_gzip(req, gc))
        return true;
    if (!gc->removes_accept)
        hd_req_set_state(req, &hd_module, &not_taken);
    return false;
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    hd_rc_t rc = change_head(req, conf);

    if (rc == HD_OK && hd_req_state(req, &hd_module) == NULL)
        hd_res_skip_body(req);
    return rc;
}

/* --- the body --- */

/* Runs zlib until it has taken what it was given, block after block. */
static hd_rc_t run(hd_req_t *req, stream_t *s, int flush, hd_chain_t *out)
{
    for (;;) {
        hd_block_t *b = hd_block_try_take();
        size_t n;
        int rc;

        if (b == NULL)
            return hd_req_fail(req, 503, HD_E_LIMIT, "gzip: no block left");
        s->z.next_out = (Bytef *)b->data;
        s->z.avail_out = HD_BLOCK_BYTES;
        rc = s->is_inflate ? inflate(&s->z, Z_NO_FLUSH) : deflate(&s->z, flush);
        n = HD_BLOCK_BYTES - s->z.avail_out;
        s->out += n;
        if (n > 0 && !hd_chain_try_add_copy(out, b->data, n)) {
            hd_block_unref(b);
            return hd_req_fail(req, 503, HD_E_LIMIT, "gzip: no block left");
        }
        hd_block_unref(b);
        s->is_ended |= rc == Z_STREAM_END;
        if (rc == Z_STREAM_END && s->is_inflate && s->z.avail_in > 0) {
            inflateReset(&s->z); /* another member follows */
            s->is_ended = false;
            continue;
        }
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            return hd_req_fail(req, 502, HD_E_PROTOCOL, "gzip: %s",
                               s->z.msg != NULL ? s->z.msg : "bad stream");
        if (rc == Z_STREAM_END || (s->z.avail_in == 0 && s->z.avail_out > 0) ||
            rc == Z_BUF_ERROR)
            return HD_OK;
    }
}

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    stream_t *s = hd_req_state(req, &hd_module);
    unsigned flags = hd_chain_flags(body);
    hd_chain_t out;
    int flush = (flags & HD_SLICE_END)     ? Z_FINISH
                : (flags & HD_SLICE_FLUSH) ? Z_SYNC_FLUSH
                                           : Z_NO_FLUSH;

    (void)conf;
    if (s == NULL)
        return HD_OK;
    hd_chain_init(&out);
    for (hd_slice_t *slice = body->first; slice != NULL; slice = slice->next) {
        if (slice->len == 0)
            continue;
        s->z.next_in = (Bytef *)(uintptr_t)slice->data;
        s->z.avail_in = (uInt)slice->len;
        s->in += slice->len;
        if (run(req, s, Z_NO_FLUSH, &out) != HD_OK)
            goto failed;
    }
    s->z.avail_in = 0;
    if (!s->is_inflate && flush != Z_NO_FLUSH && run(req, s, flush, &out) != HD_OK)
        goto failed;
    if (s->is_inflate && (flags & HD_SLICE_END) && !s->is_ended && s->in > 0) {
        hd_ignore(hd_req_fail(req, 502, HD_E_PROTOCOL, "gunzip: the body ends early"));
        goto failed;
    }
    bodies_replace(body, &out);
    return HD_OK;
failed:
    hd_chain_free(&out);
    return HD_ERROR;
}

/* --- $gzip_ratio --- */

static void get_ratio(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    stream_t *s = hd_req_state(of->req, &hd_module);
    uint64_t hundredths;

    (void)rest;
    if (s == NULL || (void *)s == &taken || (void *)s == &not_taken || s->is_inflate ||
        s->out == 0)
        return;
    hundredths = (s->in * 1000 / s->out + 5) / 10;
    out->type = HD_VAL_STR;
    out->str =
        hd_str_printf(of->pool, "%llu.%02llu", (unsigned long long)hundredths / 100,
                      (unsigned long long)hundredths % 100);
}

static hd_rc_t accept_sizes(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    (void)cf, (void)args, (void)conf, (void)err;
    return HD_OK;
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "gzip",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(gzip_conf_t, is_on),
     .help = "on|off: bodies are compressed for clients that take it; off"},
    {.name = "gzip_types",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_types,
     .help = "TYPE …|*: which, besides text/html"},
    {.name = "gzip_min_length",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = offsetof(gzip_conf_t, min_length),
     .help = "SIZE: shorter ones are left (by Content-Length); 20"},
    {.name = "gzip_comp_level",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_u32,
     .offset = offsetof(gzip_conf_t, level),
     .post = &levels,
     .help = "1 to 9: how hard it tries; 1"},
    {.name = "gzip_buffers",
     .scope = IN_ANY,
     .args_n = 2,
     .set = accept_sizes,
     .help = "N SIZE: accepted; bodies lie in blocks of 16 KB"},
    {.name = "gunzip",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = offsetof(gzip_conf_t, gunzip),
     .help =
         "on|off: compressed bodies are undone for clients that don't take gzip; off"},
    {.name = "gunzip_buffers",
     .scope = IN_ANY,
     .args_n = 2,
     .set = accept_sizes,
     .help = "N SIZE: accepted; bodies lie in blocks of 16 KB"},
    {0},
};

static const hd_attr_def_t attributes[] = {
    {.name = "gzip_ratio",
     .type = HD_VAL_STR,
     .flags = HD_ATTR_REQ | HD_ATTR_VOLATILE,
     .get = get_ratio,
     .help = "how many times smaller the body has become"},
    {0},
};

static const hd_xds_type_t xds_types[] = {
    {.url = "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
     .build = gzip_build_filter},
    {.url = "type.googleapis.com/"
            "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
     .build = gzip_build_route},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "gzip",
    .directives = directives,
    .conf_size = sizeof(gzip_conf_t),
    .phase = HD_PHASE_REWRITE, /* the last that a response passes */
    .xds_types = xds_types,
    .attributes = attributes,
    .on_request_headers = on_request_headers,
    .on_response_headers = on_response_headers,
    .on_response_body = on_response_body,
    .changes_file = changes_file,
};
