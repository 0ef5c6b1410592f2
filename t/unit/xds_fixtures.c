/* Every resource that a real istiod sent is built, or refused for a reason that stands
 * here; what has no effect is said. Reads t/fixtures/istiod. */
#include "xds_test.h"
#include <glob.h>

/* What of the fixtures can't be had yet: HBONE's tunnels, JWT. Beginning of the reason.
 */
static const char *const refusals[] = {
    "CDS \"connect_originate\": envoy.config.cluster.v3.Cluster.original_dst_lb_config."
    "metadata_key isn't supported",
    "LDS \"connect_originate\": "
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.tunneling_config isn't "
    "supported",
};

typedef struct {
    xds_world_t *w;
    unsigned built_n, refused_n, unexpected_n, notes_n, kinds[HD_XDS_KINDS_N];
    const char *file;
} count_t;

static bool is_expected(const char *why)
{
    for (size_t i = 0; i < hd_countof(refusals); i++) {
        if (strncmp(why, refusals[i], strlen(refusals[i])) == 0)
            return true;
    }
    return strncmp(why, "LDS \"virtualInbound\": filter chain ", 35) == 0 &&
           strstr(why, ": no loaded module has the extension type.googleapis.com/envoy."
                       "extensions.filters.http.jwt_authn.v3.JwtAuthentication") != NULL;
}

static void build(void *arg, hd_xds_kind_t kind, const PbDiscovery__Resource *r)
{
    count_t *c = arg;
    hd_xds_built_t out;
    hd_err_t err = {0};

    if (kind == HD_XDS_KINDS_N)
        return;
    if (hd_xds_build(&c->w->env, kind, hd_str_c(r->name),
                     hd_str_n((char *)r->resource->value.data, r->resource->value.len),
                     hd_str_c(r->version), &out, &err) == HD_OK) {
        c->built_n++;
        c->kinds[kind]++;
        c->notes_n += (unsigned)out.notes.n;
        return;
    }
    c->refused_n++;
    if (!is_expected(err.text)) {
        c->unexpected_n++;
        diag("%s: %s", c->file, err.text);
    }
}

static void test_file(const char *file)
{
    count_t c = {.w = xds_world(true), .file = file};
    unsigned n;

    c.w->env.batch = hd_batch_begin(c.w->arena);
    n = xds_each(file, build, &c);
    ok(c.unexpected_n == 0 && c.built_n + c.refused_n == n && c.built_n > 12,
       "%s: %u resources built, %u refused for known reasons", file, c.built_n,
       c.refused_n);
    ok(c.kinds[HD_XDS_CLUSTER] > 0 && c.kinds[HD_XDS_ENDPOINTS] > 0 && c.notes_n > 0,
       "with clusters, endpoints and notes");
    ok(hd_batch_publish(c.w->env.batch, 1) >= c.built_n, "published");
    xds_world_end(c.w);
}

int main(void)
{
    glob_t files;

    if (glob("t/fixtures/istiod/*/*-delta.pb", 0, NULL, &files) != 0) {
        fail("no fixtures: run from the top of the tree");
        return done_testing();
    }
    for (size_t i = 0; i < files.gl_pathc; i++)
        test_file(files.gl_pathv[i]);
    globfree(&files);
    return done_testing();
}
