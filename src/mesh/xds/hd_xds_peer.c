#include "mesh/xds/hd_xds_peer.h"
#include "core/hd_grpc.h"
#include "http/hd_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <string.h>
#include <unistd.h>

#define FIRST_MS 100u
#define BACKOFF_MS 500u
#define BACKOFF_MAX_MS 30000u
#define TOKEN_MAX 16384

void hd_xds_peer_init(hd_xds_peer_t *peer, const hd_xds_server_t *server,
                      const hd_xds_conf_t *conf, hd_pool_t *pool)
{
    hd_str_t name = conf->server_name.len > 0 ? conf->server_name : server->host;
    hd_tls_conf_t *tls;
    hd_addr_t ip;

    *peer = (hd_xds_peer_t){.host = hd_str_dup(pool, name),
                            .cluster = server->cluster,
                            .token_path = hd_str_dup(pool, conf->token_path),
                            .cluster_id = hd_str_dup(pool, conf->cluster_id)};
    if (!server->tls)
        return;
    tls = hd_pool_new(pool, hd_tls_conf_t);
    *tls = (hd_tls_conf_t){.trust = conf->roots,
                           .version_min = 0x0303,
                           .version_max = 0x0304,
                           .session_cache = true,
                           .session_tickets = true,
                           .alpn = HD_STR("\002h2"),
                           .verify_host = peer->host};
    if (!hd_addr_parse_ip(peer->host, &ip)) /* RFC 6066 §3: no literal addresses */
        tls->sni = peer->host;
    hd_tls_conf_seal(tls);
    peer->tls = tls;
}

/* Kubernetes rotates it; whoever can't read it learns of that by the server's refusal. */
static hd_str_t read_token(const hd_xds_peer_t *peer, char *to, size_t room)
{
    int fd;
    ssize_t n;

    if (peer->token_path.len == 0)
        return HD_STR_NONE;
    fd = open(peer->token_path.data, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        hd_log(HD_LOG_ERROR, "xds: token \"%.*s\" can't be read: %s%s",
               HD_STR_ARG(peer->token_path), strerror(errno),
               errno == EACCES ? ": it must belong to the user that heddle runs as" : "");
        return HD_STR_NONE;
    }
    n = read(fd, to, room);
    hd_ignore(close(fd)); /* was only read */
    while (n > 0 && (to[n - 1] == '\n' || to[n - 1] == '\r' || to[n - 1] == ' '))
        n--;
    return hd_str_n(to, n > 0 ? (size_t)n : 0);
}

hd_call_t *hd_xds_peer_call(const hd_xds_peer_t *peer, hd_loop_t *loop, hd_member_t *m,
                            const char *path, uint64_t timeout_ms,
                            const hd_call_user_t *user, void *arg, hd_err_t *err)
{
    static const char bearer[] = "Bearer ";
    char authorization[sizeof(bearer) + TOKEN_MAX];
    hd_kv_t headers[6] = {{HD_STR_INIT("content-type"), HD_STR_INIT("application/grpc")},
                          {HD_STR_INIT("te"), HD_STR_INIT("trailers")},
                          {HD_STR_INIT("grpc-accept-encoding"), HD_STR_INIT("identity")}};
    hd_call_spec_t spec = {.cluster = peer->cluster,
                           .method = HD_STR("POST"),
                           .authority = peer->host,
                           .path = hd_str_c(path),
                           .scheme = peer->tls != NULL ? HD_STR("https") : HD_STR("http"),
                           .headers = headers,
                           .headers_n = 3,
                           .timeout_ms = timeout_ms,
                           .protocol = HD_UP_HTTP2,
                           .tls = peer->tls};
    hd_str_t token = read_token(peer, authorization + sizeof(bearer) - 1, TOKEN_MAX);

    if (token.len > 0) {
        memcpy(authorization, bearer, sizeof(bearer) - 1);
        headers[spec.headers_n++] =
            (hd_kv_t){HD_STR("authorization"),
                      hd_str_n(authorization, token.len + sizeof(bearer) - 1)};
    }
    if (peer->cluster_id.len > 0)
        headers[spec.headers_n++] = (hd_kv_t){HD_STR("clusterid"), peer->cluster_id};
    return hd_call_start(loop, m, &spec, user, arg, err);
}

unsigned hd_xds_peer_status(const hd_headers_t *trailers, hd_str_t *message)
{
    hd_field_t *f = trailers != NULL
                        ? hd_headers_find((hd_headers_t *)trailers, HD_STR("grpc-status"))
                        : NULL;
    uint64_t status;

    *message = HD_STR_NONE;
    if (f == NULL || !hd_str_to_u64(f->value, 1000, &status))
        return HD_GRPC_NO_STATUS;
    f = hd_headers_find((hd_headers_t *)trailers, HD_STR("grpc-message"));
    if (f != NULL)
        *message = f->value;
    return (unsigned)status;
}

uint64_t hd_xds_backoff_ms(hd_xds_backoff_t *b)
{
    /* at once at first: most often it is a control plane that starts beside us */
    uint32_t bound =
        b->failures == 0 ? FIRST_MS : BACKOFF_MS << hd_min(b->failures - 1, 10u);
    uint32_t random = 0;

    b->failures++;
    hd_ignore(RAND_bytes((unsigned char *)&random, sizeof(random)) == 1);
    return random % hd_min(bound, BACKOFF_MAX_MS) + 1;
}
