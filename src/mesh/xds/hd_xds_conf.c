#include "mesh/xds/hd_xds_conf.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_secret.h"
#include "core/conf/hd_module_table.h"
#include "core/proc/hd_settings.h"
#include "mesh/xds/hd_xds_node.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODE_FILE_MAX (1 << 20)
#define EXTRA_MAX 512
#define XDS_PORT 15010
#define XDS_TLS_PORT 15012
#define CERT_TTL_MS ((uint64_t)86400000)
#define READY_TIMEOUT_MS 30000

/* The block while it is read; the first member is what stays. */
typedef struct {
    hd_xds_conf_t xds;
    hd_str_t node_path, node_id, node_cluster, node_locality, root_path, trust_domain;
    hd_array_t *extra; /* hd_str_t; in cf->temp */
} block_t;

/* --- directives --- */

static hd_rc_t set_server_of(hd_conf_t *cf, const hd_str_t *args, hd_xds_server_t *to,
                             hd_err_t *err)
{
    hd_str_t host;
    ssize_t colon;

    if (cf->node->args_n > 1 && !hd_str_eq(args[1], HD_STR("tls")))
        return hd_err_set(err, HD_E_CONF, "unknown parameter \"%.*s\": \"tls\" is known",
                          HD_STR_ARG(args[1]));
    to->tls = cf->node->args_n > 1;
    if (hd_conf_cluster->slot_for(cf, args[0], to->tls ? XDS_TLS_PORT : XDS_PORT, false,
                                  &to->cluster, err) != HD_OK)
        return HD_ERROR;
    host = args[0];
    colon = hd_str_find_char(host, ':');
    if (colon > 0)
        host = hd_str_sub(host, 0, (size_t)colon);
    to->host = hd_str_dup(cf->pool, host);
    return HD_OK;
}

static hd_rc_t set_server(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return set_server_of(cf, args, &((block_t *)conf)->xds.server, err);
}

static hd_rc_t set_ca(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return set_server_of(cf, args, &((block_t *)conf)->xds.ca, err);
}

static hd_rc_t set_path(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    hd_str_t *to = (hd_str_t *)((char *)conf + cf->directive->offset);

    (void)err;
    *to = hd_str_dup(cf->pool, hd_conf_path(cf, args[0], true));
    return HD_OK;
}

static hd_rc_t set_metadata(hd_conf_t *cf, const hd_str_t *args, void *conf,
                            hd_err_t *err)
{
    block_t *b = conf;

    if (b->extra == NULL) {
        b->extra = hd_pool_new(cf->temp, hd_array_t);
        hd_array_init(b->extra, cf->temp, sizeof(hd_str_t), EXTRA_MAX);
    }
    for (int i = 0; i < 2; i++) {
        hd_str_t *to = hd_array_add(b->extra);

        if (to == NULL)
            return hd_err_set(err, HD_E_CONF, "more than %d of them", EXTRA_MAX / 2);
        *to = args[i];
    }
    return HD_OK;
}

static const hd_conf_enum_t protocols[] = {
    {"delta", HD_XDS_DELTA}, {"sotw", HD_XDS_SOTW}, {0}};

/* --- the whole --- */

static hd_rc_t read_file(hd_conf_t *cf, hd_str_t path, hd_str_t *text, hd_err_t *err)
{
    const char *name = hd_str_to_c(cf->temp, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t n = -1;
    char *to;

    if (fd < 0)
        return hd_err_set_sys(err, errno, "open() \"%s\" failed", name);
    if (fstat(fd, &st) == 0 && st.st_size <= NODE_FILE_MAX) {
        to = hd_pool_alloc_unaligned(cf->temp, (size_t)st.st_size + 1);
        n = read(fd, to, (size_t)st.st_size);
        *text = hd_str_n(to, n > 0 ? (size_t)n : 0);
    }
    hd_ignore(close(fd)); /* was only read */
    return n >= 0 ? HD_OK
                  : hd_err_set(err, HD_E_CONF, "\"%s\" can't be read, or is over 1 MB",
                               name);
}

static hd_rc_t build_node(hd_conf_t *cf, block_t *b, hd_err_t *err)
{
    hd_xds_node_t node = {.id = b->node_id,
                          .cluster = b->node_cluster,
                          .locality = b->node_locality};
    hd_xds_node_out_t out;

    if (b->node_path.len > 0 && read_file(cf, b->node_path, &node.json, err) != HD_OK)
        return HD_ERROR;
    if (b->extra != NULL) {
        node.extra = b->extra->items;
        node.extra_n = (uint32_t)b->extra->n;
    }
    if (hd_xds_node_build(&node, cf->pool, &out, err) != HD_OK)
        return b->node_path.len > 0
                   ? hd_err_prefix(err, "%.*s: ", HD_STR_ARG(b->node_path))
                   : HD_ERROR;
    b->xds.node = out.bytes;
    b->xds.node_id = out.id;
    b->xds.region = out.region;
    b->xds.zone = out.zone;
    b->xds.subzone = out.subzone;
    b->xds.cluster_id = out.cluster_id;
    if (b->xds.identity.len == 0 && out.namespace_.len > 0 && out.service_account.len > 0)
        b->xds.identity =
            hd_str_printf(cf->pool, "spiffe://%.*s/ns/%.*s/sa/%.*s",
                          HD_STR_ARG(b->trust_domain.len > 0 ? b->trust_domain
                                                             : HD_STR("cluster.local")),
                          HD_STR_ARG(out.namespace_), HD_STR_ARG(out.service_account));
    return HD_OK;
}

static hd_rc_t check(hd_conf_t *cf, block_t *b, hd_err_t *err)
{
    hd_conf_secret_t files = {.trust = b->root_path};

    if (b->xds.server.cluster == NULL)
        return hd_err_set(err, HD_E_CONF,
                          "xds has no server: \"server HOST:PORT [tls];\"");
    if (build_node(cf, b, err) != HD_OK)
        return HD_ERROR;
    if (b->xds.local_cluster.len > 0 &&
        b->xds.region.len + b->xds.zone.len + b->xds.subzone.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "local_cluster: where we are must be known, too: "
                          "\"node_locality REGION/ZONE/SUBZONE;\"");
    if ((b->xds.server.tls || b->xds.ca.tls) && b->root_path.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "a server with tls needs \"root_cert FILE;\" to verify it by");
    if (b->xds.ca.cluster != NULL && b->xds.identity.len == 0)
        return hd_err_set(err, HD_E_CONF,
                          "ca needs an identity: \"identity spiffe://…;\", or NAMESPACE "
                          "and SERVICE_ACCOUNT in the node's metadata");
    if (b->xds.identity.len > 0 &&
        !hd_str_has_prefix(b->xds.identity, HD_STR("spiffe://")))
        return hd_err_set(err, HD_E_CONF, "identity \"%.*s\": spiffe://… is right",
                          HD_STR_ARG(b->xds.identity));
    return b->root_path.len == 0 ? HD_OK
                                 : hd_conf_secret_slot(cf, &files, &b->xds.roots, err);
}

static uint64_t mix(uint64_t h, hd_str_t s)
{
    return hd_hash64(s.data, s.len, h ^ (s.len * 0x9e3779b97f4a7c15u));
}

static uint64_t hash_server(uint64_t h, const hd_xds_server_t *s)
{
    h = mix(h, s->cluster != NULL ? s->cluster->name : HD_STR_NONE);
    return mix(h, s->tls ? HD_STR("tls") : HD_STR("plain"));
}

static uint64_t hash_of(const hd_xds_conf_t *x)
{
    uint64_t h = hash_server(hash_server(1, &x->server), &x->ca);

    h = mix(mix(mix(h, x->server_name), x->node), x->identity);
    h = mix(h, x->local_cluster);
    h = mix(mix(h, x->token_path), x->snapshot_path);
    h = mix(h, x->roots != NULL ? x->roots->name : HD_STR_NONE);
    h = mix(h, hd_str_n((const char *)&x->cert_ttl_ms, sizeof(x->cert_ttl_ms)));
    h = mix(h, x->protocol == HD_XDS_SOTW ? HD_STR("sotw") : HD_STR("delta"));
    return h != 0 ? h : 1;
}

static hd_rc_t enter_xds(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    block_t *b;
    void **confs;

    (void)args;
    if (hd_conf_enter(cf, cf->node, HD_IN_XDS, &confs, err) != HD_OK)
        return HD_ERROR;
    b = confs[hd_module_number(&hd_xds_module)];
    if (check(cf, b, err) != HD_OK)
        return HD_ERROR;
    if (b->xds.cert_ttl_ms == 0)
        b->xds.cert_ttl_ms = CERT_TTL_MS;
    if (b->xds.ready_timeout_ms == 0)
        b->xds.ready_timeout_ms = READY_TIMEOUT_MS;
    b->xds.hash = hash_of(&b->xds);
    ((block_t *)conf)->xds = b->xds;
    if (cf->build->settings != NULL)
        cf->build->settings->has_agent = true;
    return HD_OK;
}

#define AT(field) offsetof(block_t, field)

static const hd_directive_t directives[] = {
    {.name = "xds",
     .scope = HD_IN_MAIN,
     .block = enter_xds,
     .help = "{ … }: a control plane from which an agent takes listeners, routes, "
             "clusters, endpoints and secrets"},
    {.name = "server",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .args_max = 2,
     .set = set_server,
     .help = "HOST[:PORT] [tls]: the control plane's ADS over gRPC; port 15010, with tls "
             "15012"},
    {.name = "xds_protocol",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_enum,
     .post = protocols,
     .offset = AT(xds.protocol),
     .help = "delta | sotw: incremental, or state of the world; delta if not given"},
    {.name = "node",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(node_path),
     .help = "FILE: who we are, as JSON: id, cluster, metadata, locality"},
    {.name = "node_id",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(node_id),
     .help = "ID: sidecar~IP~POD.NAMESPACE~DOMAIN, or router~…"},
    {.name = "node_cluster",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(node_cluster),
     .help = "NAME: the node's cluster"},
    {.name = "node_locality",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(node_locality),
     .help = "REGION[/ZONE[/SUBZONE]]: where we are"},
    {.name = "local_cluster",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(xds.local_cluster),
     .help = "NAME: the cluster of the control plane's that we belong to; then requests "
             "to other clusters stay in our locality as far as shares allow (Envoy's "
             "zone-aware routing). Nothing, if not given"},
    {.name = "node_metadata",
     .scope = HD_IN_XDS,
     .args_n = 2,
     .repeats = true,
     .set = set_metadata,
     .help = "NAME VALUE: one string of the node's metadata, such as NAMESPACE"},
    {.name = "server_name",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(xds.server_name),
     .help = "NAME: what the servers' certificates must be for; the host if not given"},
    {.name = "root_cert",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(root_path),
     .help = "FILE: roots to verify server and ca by"},
    {.name = "token",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(xds.token_path),
     .help = "FILE: sent as a bearer token; read anew for each call, since it rotates"},
    {.name = "ca",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .args_max = 2,
     .set = set_ca,
     .help = "HOST[:PORT] [tls]: where the workload's certificate comes from (Istio's "
             "CreateCertificate); the key is made here and never leaves"},
    {.name = "identity",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(xds.identity),
     .help = "SPIFFE_ID: asked for in the certificate; else made of trust_domain and the "
             "node's metadata"},
    {.name = "trust_domain",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_str,
     .offset = AT(trust_domain),
     .help = "NAME: of the identity; cluster.local if not given"},
    {.name = "cert_ttl",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(xds.cert_ttl_ms),
     .help = "TIME: how long a certificate is asked for; it is renewed at half of what "
             "was given; 24h"},
    {.name = "ready_timeout",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = hd_set_msec,
     .offset = AT(xds.ready_timeout_ms),
     .help = "TIME: how long the new processes of a reload wait for the control plane's "
             "first complete configuration before they take over without; default 30s"},
    {.name = "snapshot",
     .scope = HD_IN_XDS,
     .args_n = 1,
     .set = set_path,
     .offset = AT(xds.snapshot_path),
     .help =
         "FILE: what was accepted last, to begin with when the control plane is away; "
         "without private keys"},
    {0},
};

/* For modules that tell who we are. */
static hd_str_t node_bytes(hd_member_t *m)
{
    const block_t *b = hd_conf_main_of(m, &hd_xds_module);

    return b != NULL ? b->xds.node : HD_STR_NONE;
}

static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    (void)m;
    (void)loop;
    (void)err;
    hd_node_bytes = node_bytes;
    return HD_OK;
}

const hd_module_t hd_xds_module = {
    .abi = HD_MODULE_ABI,
    .name = "xds",
    .directives = directives,
    .conf_size = sizeof(block_t),
    .on_process_start = on_process_start,
};
