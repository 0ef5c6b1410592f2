/* Variables of the client's TLS: what was agreed on, and the client's certificate
 * ($ssl_…). Stream has them, too. */
#include "http/hd_http_attrs_int.h"
#include "core/net/hd_tls.h"
#include "http/hd_request_int.h"
#include "http/hd_uri.h"

static const hd_tls_peer_t *tls_of(of_t *of)
{
    return of->conn != NULL ? hd_tls_peer(of->conn) : NULL;
}

GET(https)
{
    UNUSED_REST;
    hd_val_set_str(out, of->conn != NULL && hd_tls_is_on(of->conn) ? HD_STR("on")
                                                                   : HD_STR(""));
}

GET(ssl_protocol)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        hd_val_set_if_any(out, tls_of(of)->version);
}

GET(ssl_cipher)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        hd_val_set_if_any(out, tls_of(of)->cipher);
}

GET(ssl_server_name)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_if_any(out, hd_tls_server_name(of->conn));
}

/* Envoy's %REQUESTED_SERVER_NAME%. */
GET(requested_server_name)
{
    UNUSED_REST;
    if (of->conn != NULL && of->conn->facts != NULL)
        hd_val_set_if_any(out, of->conn->facts->sni);
}

GET(ssl_alpn_protocol)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        hd_val_set_if_any(out, of->conn->facts->alpn);
}

GET(ssl_session_reused)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        hd_val_set_str(out, tls_of(of)->resumed ? HD_STR("r") : HD_STR("."));
}

GET(ssl_client_s_dn)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        hd_val_set_if_any(out, tls_of(of)->subject);
}

GET(ssl_client_i_dn)
{
    UNUSED_REST;
    if (tls_of(of) != NULL)
        hd_val_set_if_any(out, tls_of(of)->issuer);
}

/* Upper case, as in nginx. */
GET(ssl_client_serial)
{
    const hd_tls_peer_t *tls = tls_of(of);
    char *text;

    UNUSED_REST;
    if (tls == NULL || tls->serial.len == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, tls->serial.len);
    for (size_t i = 0; i < tls->serial.len; i++)
        text[i] = tls->serial.data[i] >= 'a' ? (char)(tls->serial.data[i] - 'a' + 'A')
                                             : tls->serial.data[i];
    hd_val_set_str(out, hd_str_n(text, tls->serial.len));
}

static void set_fact(of_t *of, hd_tls_fact_t what, hd_val_t *out)
{
    if (of->conn != NULL)
        hd_val_set_if_any(out, hd_tls_fact(of->conn, what, of->pool));
}

#define FACT(name, what)                                                                 \
    GET(name)                                                                            \
    {                                                                                    \
        (void)rest;                                                                      \
        set_fact(of, what, out);                                                         \
    }

FACT(ssl_ciphers, HD_TLS_CIPHERS)
FACT(ssl_curve, HD_TLS_CURVE)
FACT(ssl_curves, HD_TLS_CURVES)
FACT(ssl_session_id, HD_TLS_SESSION_ID)
FACT(ssl_sigalg, HD_TLS_SIGALG)
FACT(ssl_sigalgs, HD_TLS_SIGALGS)
FACT(ssl_client_sigalg, HD_TLS_PEER_SIGALG)
FACT(ssl_client_fingerprint, HD_TLS_PEER_FINGERPRINT)
FACT(ssl_client_s_dn_legacy, HD_TLS_PEER_SUBJECT_LEGACY)
FACT(ssl_client_i_dn_legacy, HD_TLS_PEER_ISSUER_LEGACY)
FACT(ssl_client_v_start, HD_TLS_PEER_START)
FACT(ssl_client_v_end, HD_TLS_PEER_END)
FACT(ssl_client_v_remain, HD_TLS_PEER_REMAIN)

/* Asked once a request: then it stays what it was, as in nginx. */
GET(ssl_early_data)
{
    UNUSED_REST;
    if (of->conn != NULL && hd_tls_is_early(of->conn))
        hd_val_set_str(out, HD_STR("1"));
}

GET(ssl_client_raw_cert)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_if_any(out, hd_tls_peer_pem(of->conn));
}

/* nginx: without the last line end, each further line begun by a tab, so that it is a
 * field value continued (which HTTP no longer has). */
GET(ssl_client_cert)
{
    hd_str_t pem = of->conn != NULL ? hd_tls_peer_pem(of->conn) : HD_STR_NONE;
    char *text;
    size_t n = 0;

    UNUSED_REST;
    if (pem.len == 0)
        return;
    text = hd_pool_alloc_unaligned(of->pool, 2 * pem.len);
    for (size_t i = 0; i + 1 < pem.len; i++) {
        text[n++] = pem.data[i];
        if (pem.data[i] == '\n')
            text[n++] = '\t';
    }
    hd_val_set_str(out, hd_str_n(text, n));
}

static bool is_reserved(unsigned char c)
{
    return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '.' || c == '_' || c == '~');
}

GET(ssl_client_escaped_cert)
{
    UNUSED_REST;
    if (of->conn != NULL)
        hd_val_set_if_any(
            out, hd_uri_escape_where(of->pool, hd_tls_peer_pem(of->conn), is_reserved));
}

GET(ssl_client_verify)
{
    const hd_tls_peer_t *tls = tls_of(of);

    UNUSED_REST;
    if (tls == NULL)
        return;
    if (tls->verified)
        hd_val_set_str(out, HD_STR("SUCCESS"));
    else if (tls->subject.len == 0)
        hd_val_set_str(out, HD_STR("NONE"));
    else
        hd_val_set_str(
            out, hd_str_printf(of->pool, "FAILED:%.*s", HD_STR_ARG(tls->verify_error)));
}

const hd_attr_def_t hd_http_attrs_tls[] = {
    A("https", https, HD_VAL_STR, C, "\"on\" over TLS"),
    A("ssl_protocol", ssl_protocol, HD_VAL_STR, C, "TLSv1.3, …"),
    A("ssl_cipher", ssl_cipher, HD_VAL_STR, C, "cipher suite"),
    A("ssl_server_name", ssl_server_name, HD_VAL_STR, C, "server name of the handshake"),
    A("requested_server_name", requested_server_name, HD_VAL_STR, C,
      "that of the ClientHello, whether TLS ends here or not"),
    A("ssl_alpn_protocol", ssl_alpn_protocol, HD_VAL_STR, C, "protocol agreed on"),
    A("ssl_session_reused", ssl_session_reused, HD_VAL_STR, C, "\"r\" if resumed, \".\""),
    A("ssl_client_s_dn", ssl_client_s_dn, HD_VAL_STR, C, "subject of the client's"),
    A("ssl_client_i_dn", ssl_client_i_dn, HD_VAL_STR, C, "issuer of the client's"),
    A("ssl_client_serial", ssl_client_serial, HD_VAL_STR, C, "serial number of it"),
    A("ssl_ciphers", ssl_ciphers, HD_VAL_STR, C, "cipher suites that the client offers"),
    A("ssl_curve", ssl_curve, HD_VAL_STR, C, "group of the key exchange"),
    A("ssl_curves", ssl_curves, HD_VAL_STR, C, "groups that the client offers"),
    A("ssl_session_id", ssl_session_id, HD_VAL_STR, C, "session id, hex"),
    A("ssl_sigalg", ssl_sigalg, HD_VAL_STR, C, "by which the server signed"),
    A("ssl_sigalgs", ssl_sigalgs, HD_VAL_STR, C, "by which the client lets it sign"),
    A("ssl_client_sigalg", ssl_client_sigalg, HD_VAL_STR, C, "by which the client did"),
    A("ssl_early_data", ssl_early_data, HD_VAL_STR, 0,
      "\"1\" while the handshake isn't over"),
    A("ssl_client_cert", ssl_client_cert, HD_VAL_STR, C, "the client's, PEM with tabs"),
    A("ssl_client_raw_cert", ssl_client_raw_cert, HD_VAL_STR, C, "the client's, PEM"),
    A("ssl_client_escaped_cert", ssl_client_escaped_cert, HD_VAL_STR, C, "URL-encoded"),
    A("ssl_client_fingerprint", ssl_client_fingerprint, HD_VAL_STR, C, "its SHA-1, hex"),
    A("ssl_client_s_dn_legacy", ssl_client_s_dn_legacy, HD_VAL_STR, C, "as /O=…/CN=…"),
    A("ssl_client_i_dn_legacy", ssl_client_i_dn_legacy, HD_VAL_STR, C, "as /O=…/CN=…"),
    A("ssl_client_v_start", ssl_client_v_start, HD_VAL_STR, C, "from when it is valid"),
    A("ssl_client_v_end", ssl_client_v_end, HD_VAL_STR, C, "until when it is valid"),
    A("ssl_client_v_remain", ssl_client_v_remain, HD_VAL_STR, C, "days until then"),
    A("ssl_client_verify", ssl_client_verify, HD_VAL_STR, C, "SUCCESS, FAILED:…, NONE"),
    {0},
};
