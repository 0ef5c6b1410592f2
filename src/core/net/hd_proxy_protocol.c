#include "core/net/hd_proxy_protocol.h"
#include <stdio.h>

#define V1_MAX 107 /* with CR LF: proxy-protocol.txt §2.1 */
#define V2_HEAD 16
#define TLV_HEAD 3
#define SSL_HEAD 5 /* before the TLVs inside the SSL TLV */

static const char v1_start[] = "PROXY ";
static const char v2_start[] = "\r\n\r\n\0\r\nQUIT\n";

enum { SIG_BYTES = 12 };
enum { FAMILY_UNSPEC = 0x00, TCP4 = 0x11, TCP6 = 0x21, UNIX_STREAM = 0x31 };
enum { UNIX_PATH_BYTES = 108 };

static unsigned get16(const char *p)
{
    return (unsigned)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

static uint32_t get32(const char *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* Version 1 */

/* No sign, no leading zero (§2.1); 0 itself is a port. */
static bool parse_port(hd_str_t s, uint16_t *port)
{
    uint64_t n;

    if (!hd_str_to_u64(s, 65535, &n) || (s.len > 1 && s.data[0] == '0'))
        return false;
    *port = (uint16_t)n;
    return true;
}

static bool parse_v1_addresses(hd_str_t line, hd_proxy_head_t *head)
{
    hd_str_t family, remote, local, remote_port, local_port;
    int want;

    if (!hd_str_split(&line, ' ', &family) || !hd_str_split(&line, ' ', &remote) ||
        !hd_str_split(&line, ' ', &local) || !hd_str_split(&line, ' ', &remote_port))
        return false;
    local_port = line;
    want = hd_str_eq(family, HD_STR("TCP4"))   ? AF_INET
           : hd_str_eq(family, HD_STR("TCP6")) ? AF_INET6
                                               : AF_UNSPEC;
    return want != AF_UNSPEC && hd_addr_parse_ip(remote, &head->remote) &&
           hd_addr_parse_ip(local, &head->local) && head->remote.family == want &&
           head->local.family == want && head->remote.scope == 0 &&
           head->local.scope == 0 && parse_port(remote_port, &head->remote.port) &&
           parse_port(local_port, &head->local.port);
}

static hd_rc_t parse_v1(hd_str_t bytes, hd_proxy_head_t *head, hd_err_t *err)
{
    ssize_t end = hd_str_find(hd_str_sub(bytes, 0, V1_MAX), HD_STR("\r\n"));
    hd_str_t line;

    if (end < 0 && bytes.len < V1_MAX)
        return HD_AGAIN;
    if (end < 0)
        return hd_err_set(err, HD_E_PROTOCOL, "PROXY line longer than %d bytes", V1_MAX);
    head->version = 1;
    head->len = (size_t)end + 2;
    line = hd_str_sub(bytes, 6, (size_t)end - 6);
    if (hd_str_eq(line, HD_STR("UNKNOWN")) ||
        hd_str_has_prefix(line, HD_STR("UNKNOWN "))) {
        head->is_local = true;
        return HD_OK;
    }
    if (!parse_v1_addresses(line, head))
        return hd_err_set(err, HD_E_PROTOCOL,
                          "PROXY line without two addresses and ports");
    return HD_OK;
}

/* Version 2 */

/* CRC-32C (RFC 3720 §B.4), four bits a step: heads are short and rare. */
static uint32_t crc32c(uint32_t crc, const char *data, size_t len)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                       0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

/* §2.2.4: over the whole head, its own four bytes as zeros. */
static bool is_crc_good(hd_str_t head, hd_str_t value)
{
    size_t at = (size_t)(value.data - head.data);
    uint32_t crc = UINT32_MAX;

    if (value.len != 4)
        return false;
    crc = crc32c(crc, head.data, at);
    crc = crc32c(crc, "\0\0\0\0", 4);
    crc = crc32c(crc, head.data + at + 4, head.len - at - 4);
    return (crc ^ UINT32_MAX) == get32(value.data);
}

bool hd_proxy_next_tlv(hd_str_t *rest, uint8_t *type, hd_str_t *value)
{
    size_t len;

    if (rest->len < TLV_HEAD)
        return false;
    len = get16(rest->data + 1);
    if (len > rest->len - TLV_HEAD)
        return false;
    *type = (uint8_t)rest->data[0];
    *value = hd_str_sub(*rest, TLV_HEAD, len);
    *rest = hd_str_sub(*rest, TLV_HEAD + len, rest->len);
    return true;
}

typedef struct {
    const char *name;
    uint8_t type;
} tlv_name_t;

static const tlv_name_t tlv_names[] = {
    {"alpn", HD_PROXY_TLV_ALPN}, {"authority", HD_PROXY_TLV_AUTHORITY},
    {"unique_id", HD_PROXY_TLV_UNIQUE_ID}, {"ssl", HD_PROXY_TLV_SSL},
    {"netns", HD_PROXY_TLV_NETNS}, {NULL, 0}};

/* Inside the SSL TLV. */
static const tlv_name_t ssl_names[] = {{"version", 0x21}, {"cn", 0x22},
                                       {"cipher", 0x23},  {"sig_alg", 0x24},
                                       {"key_alg", 0x25}, {NULL, 0}};

static bool find_type(hd_str_t tlvs, uint8_t wanted, hd_str_t *value)
{
    uint8_t type;

    while (hd_proxy_next_tlv(&tlvs, &type, value)) {
        if (type == wanted)
            return true;
    }
    return false;
}

static bool find_name(const tlv_name_t *n, hd_str_t tlvs, hd_str_t name, hd_str_t *value)
{
    while (n->name != NULL && !hd_str_eq(name, hd_str_c(n->name)))
        n++;
    return n->name != NULL && find_type(tlvs, n->type, value);
}

/* 0xNN */
static bool parse_type(hd_str_t name, uint8_t *type)
{
    unsigned n = 0;

    if (!hd_str_has_prefix(name, HD_STR("0x")) || name.len < 3 || name.len > 4)
        return false;
    for (size_t i = 2; i < name.len; i++) {
        char c = hd_ascii_lower(name.data[i]);

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        n = n << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *type = (uint8_t)n;
    return true;
}

bool hd_proxy_find_tlv(hd_str_t tlvs, hd_str_t name, hd_pool_t *pool, hd_str_t *value)
{
    hd_str_t ssl;
    uint8_t type;

    if (parse_type(name, &type))
        return find_type(tlvs, type, value);
    if (!hd_str_has_prefix(name, HD_STR("ssl_")))
        return find_name(tlv_names, tlvs, name, value);
    if (!find_type(tlvs, HD_PROXY_TLV_SSL, &ssl) || ssl.len < SSL_HEAD)
        return false;
    name = hd_str_sub(name, 4, name.len);
    if (!hd_str_eq(name, HD_STR("verify")))
        return find_name(ssl_names, hd_str_sub(ssl, SSL_HEAD, ssl.len), name, value);
    *value = hd_str_printf(pool, "%u", get32(ssl.data + 1));
    return true;
}

static hd_rc_t check_tlvs(hd_str_t whole, hd_str_t tlvs, hd_err_t *err)
{
    hd_str_t value;
    uint8_t type;

    while (hd_proxy_next_tlv(&tlvs, &type, &value)) {
        if (type == HD_PROXY_TLV_CRC32C && !is_crc_good(whole, value))
            return hd_err_set(err, HD_E_PROTOCOL, "PROXY head with a wrong checksum");
    }
    if (tlvs.len != 0)
        return hd_err_set(err, HD_E_PROTOCOL, "PROXY head with a broken TLV");
    return HD_OK;
}

static void set_ip(hd_addr_t *a, uint16_t family, const char *ip, const char *port)
{
    a->family = family;
    a->port = (uint16_t)get16(port);
    memcpy(a->v6, ip, family == AF_INET ? 4 : 16);
}

static void set_path(hd_addr_t *a, const char *path)
{
    a->family = AF_UNIX;
    a->path = hd_str_n(path, strnlen(path, UNIX_PATH_BYTES));
}

/* Bytes of the addresses, SIZE_MAX: no such family. */
static size_t set_addresses(hd_proxy_head_t *head, unsigned family, hd_str_t body)
{
    size_t want = family == TCP4          ? 12
                  : family == TCP6        ? 36
                  : family == UNIX_STREAM ? 2 * UNIX_PATH_BYTES
                                          : 0;
    const char *p = body.data;

    if ((want == 0 && family != FAMILY_UNSPEC) || body.len < want)
        return SIZE_MAX;
    switch (family) {
    case TCP4:
        set_ip(&head->remote, AF_INET, p, p + 8);
        set_ip(&head->local, AF_INET, p + 4, p + 10);
        break;
    case TCP6:
        set_ip(&head->remote, AF_INET6, p, p + 32);
        set_ip(&head->local, AF_INET6, p + 16, p + 34);
        break;
    case UNIX_STREAM:
        set_path(&head->remote, p);
        set_path(&head->local, p + UNIX_PATH_BYTES);
        break;
    default: /* §2.2: skip the addresses, whatever they are */
        head->is_local = true;
        return body.len;
    }
    return want;
}

static hd_rc_t parse_v2(hd_str_t bytes, hd_proxy_head_t *head, hd_err_t *err)
{
    unsigned command, family;
    size_t len, used;
    hd_str_t body;

    if (bytes.len < V2_HEAD)
        return HD_AGAIN;
    command = (unsigned char)bytes.data[12];
    family = (unsigned char)bytes.data[13];
    len = get16(bytes.data + 14);
    if (command != 0x20 && command != 0x21)
        return hd_err_set(err, HD_E_PROTOCOL, "PROXY head of version or command 0x%02x",
                          command);
    if (V2_HEAD + len > HD_PROXY_HEAD_MAX)
        return hd_err_set(err, HD_E_LIMIT, "PROXY head of %zu bytes: %d at most",
                          V2_HEAD + len, HD_PROXY_HEAD_MAX);
    if (bytes.len < V2_HEAD + len)
        return HD_AGAIN;
    head->version = 2;
    head->len = V2_HEAD + len;
    body = hd_str_sub(bytes, V2_HEAD, len);
    if (command == 0x20) { /* LOCAL: what follows means nothing */
        head->is_local = true;
        return HD_OK;
    }
    used = set_addresses(head, family, body);
    if (used == SIZE_MAX)
        return hd_err_set(err, HD_E_PROTOCOL,
                          "PROXY head of family 0x%02x with %zu bytes of addresses",
                          family, len);
    head->tlvs = hd_str_sub(body, used, len);
    return check_tlvs(hd_str_sub(bytes, 0, head->len), head->tlvs, err);
}

static bool may_be(hd_str_t bytes, const char *start, size_t len)
{
    return bytes.len == 0 || memcmp(bytes.data, start, hd_min(bytes.len, len)) == 0;
}

hd_rc_t hd_proxy_parse(hd_str_t bytes, hd_proxy_head_t *head, hd_err_t *err)
{
    *head = (hd_proxy_head_t){.len = 0};
    if (may_be(bytes, v2_start, SIG_BYTES))
        return bytes.len < SIG_BYTES ? HD_AGAIN : parse_v2(bytes, head, err);
    if (may_be(bytes, v1_start, sizeof(v1_start) - 1))
        return bytes.len < sizeof(v1_start) - 1 ? HD_AGAIN : parse_v1(bytes, head, err);
    return HD_DECLINED;
}

/* Writing */

static bool is_ip_pair(const hd_addr_t *a, const hd_addr_t *b)
{
    return a->family == b->family && (a->family == AF_INET || a->family == AF_INET6);
}

static size_t print_v1(const hd_addr_t *remote, const hd_addr_t *local, char *out,
                       size_t room)
{
    char from[HD_ADDR_TEXT_MAX], to[HD_ADDR_TEXT_MAX];
    hd_addr_t a = *remote, b = *local;
    int n;

    a.scope = b.scope = 0;
    if (is_ip_pair(remote, local))
        n = snprintf(out, room, "PROXY TCP%c %.*s %.*s %u %u\r\n",
                     remote->family == AF_INET ? '4' : '6',
                     HD_STR_ARG(hd_addr_print_ip(&a, from)),
                     HD_STR_ARG(hd_addr_print_ip(&b, to)), a.port, b.port);
    else
        n = snprintf(out, room, "PROXY UNKNOWN\r\n");
    return n < 0 || (size_t)n >= room ? 0 : (size_t)n;
}

static void put16(char *to, unsigned n)
{
    to[0] = (char)(n >> 8);
    to[1] = (char)n;
}

static size_t print_v2(const hd_addr_t *remote, const hd_addr_t *local, hd_str_t tlvs,
                       char *out, size_t room)
{
    bool is_ip = is_ip_pair(remote, local);
    size_t ip = !is_ip ? 0 : remote->family == AF_INET ? 4 : 16;
    size_t body = is_ip ? 2 * ip + 4 + tlvs.len : 0;

    if (V2_HEAD + body > room || V2_HEAD + body > HD_PROXY_HEAD_MAX)
        return 0;
    memcpy(out, v2_start, SIG_BYTES);
    out[12] = is_ip ? 0x21 : 0x20;
    out[13] = (char)(!is_ip ? FAMILY_UNSPEC : ip == 4 ? TCP4 : TCP6);
    put16(out + 14, (unsigned)body);
    if (!is_ip)
        return V2_HEAD;
    memcpy(out + V2_HEAD, remote->v6, ip);
    memcpy(out + V2_HEAD + ip, local->v6, ip);
    put16(out + V2_HEAD + 2 * ip, remote->port);
    put16(out + V2_HEAD + 2 * ip + 2, local->port);
    if (tlvs.len > 0)
        memcpy(out + V2_HEAD + 2 * ip + 4, tlvs.data, tlvs.len);
    return V2_HEAD + body;
}

size_t hd_proxy_print(uint8_t version, const hd_addr_t *remote, const hd_addr_t *local,
                      hd_str_t tlvs, char *out, size_t room)
{
    return version == 1 ? print_v1(remote, local, out, room)
                        : print_v2(remote, local, tlvs, out, room);
}
