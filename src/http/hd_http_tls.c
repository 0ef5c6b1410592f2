/* What a TLS conn still owes the server that its request asks for, answered as by nginx:
 * plain HTTP (497), a client's certificate that is bad (495) or missing (496), a Host
 * whose server verifies clients in another way than the handshake did (421), and tunnels
 * in early data (425). */
#include "core/net/hd_tls.h"
#include "http/hd_request_int.h"

const char *hd_http_tls_words(unsigned local_code)
{
    switch (local_code) {
    case 495:
        return "The SSL certificate error";
    case 496:
        return "No required SSL certificate was sent";
    case 497:
        return "The plain HTTP request was sent to HTTPS port";
    default:
        return NULL;
    }
}

static hd_rc_t refuse(hd_req_t *req, unsigned code, const char *why, const char *more)
{
    req->local_code = (uint16_t)code;
    return hd_req_fail(req, 400, HD_E_TLS, "%s%s", why, more);
}

static hd_rc_t check_client(hd_req_t *req)
{
    uint64_t wanted = req->vhost->tls_client_hash;
    const char *why;

    if (wanted == 0) /* whoever the handshake was with */
        return HD_OK;
    if (hd_tls_client_hash(req->conn) != wanted) {
        bool is_nobody = hd_tls_peer(req->conn)->subject.len == 0;

        /* a client without SNI asks for all servers alike */
        if (req->conn->facts->sni.len == 0 && is_nobody)
            return req->vhost->needs_client_cert
                       ? refuse(req, 496, "client sent no required SSL certificate", "")
                       : HD_OK;
        return hd_req_fail(req, 421, HD_E_TLS,
                           "client attempted to request the server name different from "
                           "the one that was negotiated");
    }
    switch (hd_tls_judge_client(req->conn, &why)) {
    case HD_TLS_CLIENT_BAD:
        return refuse(req, 495, "client SSL certificate verify error: ", why);
    case HD_TLS_CLIENT_NO_CERT:
        return refuse(req, 496, "client sent no required SSL certificate", "");
    default:
        return HD_OK;
    }
}

/* Nobody can tell what goes through it, nor do it once more in vain. */
static bool opens_tunnel(const hd_req_t *req)
{
    return req->head.method_id == HD_M_CONNECT || req->head.is_upgrade;
}

hd_rc_t hd_http_tls_check(hd_req_t *req)
{
    uint8_t checks = req->http->tls_checks;

    if (checks == 0 || req->conn == NULL || req->vhost == NULL || req->local_code != 0)
        return HD_OK; /* or it was answered already: this is the way to its page */
    if ((checks & HD_HTTP_TLS_MISSING) != 0 && !hd_tls_is_on(req->conn))
        return refuse(req, 497, "client sent plain HTTP request to HTTPS port", "");
    if ((checks & HD_HTTP_TLS_EARLY) != 0 && opens_tunnel(req) &&
        hd_tls_is_early(req->conn)) /* RFC 8470 §5.2 */
        return hd_req_fail(req, 425, HD_E_TLS,
                           "client asked for a tunnel before the handshake's end");
    if ((checks & HD_HTTP_TLS_CLIENT) != 0 && hd_tls_is_on(req->conn))
        return check_client(req);
    return HD_OK;
}
