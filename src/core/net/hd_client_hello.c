/* hd_client_hello: reads server name, protocols and versions out of a ClientHello that
 * lies, in whole or in part, in a conn's first bytes. Every number in it is a stranger's:
 * each length is held against what is left of its parent before it is used. */
#include "core/net/hd_tls.h"

enum {
    RECORD_HEAD_BYTES = 5,
    RECORD_HANDSHAKE = 22,
    RECORD_BYTES_MAX = 16384, /* RFC 8446 §5.1 */
    HELLO_BYTES_MAX = 65536,  /* the largest we look at; a PQ hello has some 2 KB */
    MESSAGE_CLIENT_HELLO = 1,
    EXT_SERVER_NAME = 0,         /* RFC 6066 §3 */
    EXT_ALPN = 16,               /* RFC 7301 §3.1 */
    EXT_SUPPORTED_VERSIONS = 43, /* RFC 8446 §4.2.1 */
};

/* The handshake message, read across record borders: it may be cut into records at any
 * byte (RFC 8446 §5.1), and some clients do so. */
typedef struct {
    const uint8_t *at, *end; /* of the bytes that came */
    size_t record_left;      /* payload bytes of the current record not read yet */
    char *copy;              /* where a text goes that a record border cuts */
    size_t copy_left;
} reader_t;

/* One vector of the message: bytes of it not read yet. */
typedef struct {
    reader_t *r;
    size_t left;
} part_t;

static hd_rc_t open_record(reader_t *r)
{
    size_t here = (size_t)(r->end - r->at);

    if (here > 0 && r->at[0] != RECORD_HANDSHAKE)
        return HD_ERROR; /* RFC 8446 §5.1: nothing may come in between */
    if (here > 1 && r->at[1] != 3)
        return HD_ERROR;
    if (here < RECORD_HEAD_BYTES)
        return HD_AGAIN;
    r->record_left = (size_t)r->at[3] << 8 | r->at[4];
    if (r->record_left == 0 || r->record_left > RECORD_BYTES_MAX)
        return HD_ERROR;
    r->at += RECORD_HEAD_BYTES;
    return HD_OK;
}

/* Lends the next <n> bytes of <p>, in one piece: where they lie, or, if a record border
 * cuts them, in <copy>, which has <room>. <copy> NULL: they are passed over. */
static hd_rc_t take_bytes(part_t *p, size_t n, char *copy, size_t room,
                          const uint8_t **out)
{
    reader_t *r = p->r;
    hd_rc_t rc;

    if (n > p->left)
        return HD_ERROR;
    p->left -= n;
    if (n > 0 && r->record_left == 0 && (rc = open_record(r)) != HD_OK)
        return rc;
    if (out != NULL)
        *out = r->at;
    if (n > r->record_left && copy != NULL) {
        if (n > room)
            return HD_ERROR;
        if (out != NULL)
            *out = (const uint8_t *)copy;
    } else if (n <= r->record_left) {
        copy = NULL;
    }
    while (n > 0) {
        size_t piece = hd_min(n, r->record_left);

        if (piece == 0) {
            if ((rc = open_record(r)) != HD_OK)
                return rc;
            continue;
        }
        if ((size_t)(r->end - r->at) < piece)
            return HD_AGAIN;
        if (copy != NULL) {
            memcpy(copy, r->at, piece);
            copy += piece;
        }
        r->at += piece;
        r->record_left -= piece;
        n -= piece;
    }
    return HD_OK;
}

static hd_rc_t skip_bytes(part_t *p, size_t n)
{
    return take_bytes(p, n, NULL, 0, NULL);
}

static hd_rc_t take_number(part_t *p, size_t bytes, size_t *n)
{
    char copy[3];
    const uint8_t *at;
    hd_rc_t rc = take_bytes(p, bytes, copy, sizeof(copy), &at);

    if (rc != HD_OK)
        return rc;
    *n = 0;
    for (size_t i = 0; i < bytes; i++)
        *n = *n << 8 | at[i];
    return HD_OK;
}

/* A vector whose length stands in front in <bytes> bytes; it becomes a part of its own,
 * and <p> goes on behind it. */
static hd_rc_t take_part(part_t *p, size_t bytes, part_t *inner)
{
    size_t n;
    hd_rc_t rc = take_number(p, bytes, &n);

    if (rc != HD_OK)
        return rc;
    if (n > p->left)
        return HD_ERROR;
    p->left -= n;
    *inner = (part_t){p->r, n};
    return HD_OK;
}

static hd_rc_t skip_part(part_t *p, size_t bytes)
{
    part_t inner;
    hd_rc_t rc = take_part(p, bytes, &inner);

    return rc != HD_OK ? rc : skip_bytes(&inner, inner.left);
}

/* All the rest of <p> as a string that the caller of the parser gets to see. */
static hd_rc_t take_text(part_t *p, hd_str_t *text)
{
    reader_t *r = p->r;
    size_t n = p->left;
    const uint8_t *at;
    hd_rc_t rc = take_bytes(p, n, r->copy, r->copy_left, &at);

    if (rc != HD_OK)
        return rc;
    *text = hd_str_n((const char *)at, n);
    if (text->data == r->copy) {
        r->copy += n;
        r->copy_left -= n;
    }
    return HD_OK;
}

static bool is_host_name(hd_str_t name)
{
    if (name.len == 0 || name.len > 255)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];

        if (c <= ' ' || c >= 0x7f)
            return false; /* a NUL or a space is a try to fool whoever compares names */
    }
    return true;
}

static hd_rc_t read_server_name(part_t *ext, hd_client_hello_t *hello)
{
    part_t list, name;
    size_t type;
    hd_rc_t rc;

    if ((rc = take_part(ext, 2, &list)) != HD_OK)
        return rc;
    if (list.left == 0 || ext->left != 0)
        return HD_ERROR;
    while (list.left > 0) {
        if ((rc = take_number(&list, 1, &type)) != HD_OK ||
            (rc = take_part(&list, 2, &name)) != HD_OK)
            return rc;
        if (type != 0) {
            if ((rc = skip_bytes(&name, name.left)) != HD_OK)
                return rc;
            continue;
        }
        if (hello->sni.len > 0)
            return HD_ERROR; /* RFC 6066 §3: one name of a type */
        if ((rc = take_text(&name, &hello->sni)) != HD_OK)
            return rc;
        if (!is_host_name(hello->sni))
            return HD_ERROR;
    }
    return HD_OK;
}

static hd_rc_t read_alpn(part_t *ext, hd_client_hello_t *hello)
{
    part_t list;
    hd_str_t names;
    hd_rc_t rc;

    if ((rc = take_part(ext, 2, &list)) != HD_OK)
        return rc;
    if (list.left == 0 || ext->left != 0)
        return HD_ERROR;
    if ((rc = take_text(&list, &names)) != HD_OK)
        return rc;
    for (size_t at = 0; at < names.len;) {
        size_t n = (uint8_t)names.data[at];

        if (n == 0 || n > names.len - at - 1)
            return HD_ERROR;
        at += 1 + n;
    }
    hello->alpn_wire = names;
    return HD_OK;
}

static hd_rc_t read_versions(part_t *ext, hd_client_hello_t *hello)
{
    part_t list;
    size_t version;
    hd_rc_t rc;

    if ((rc = take_part(ext, 1, &list)) != HD_OK)
        return rc;
    if (list.left == 0 || ext->left != 0)
        return HD_ERROR;
    hello->version_max = 0;
    while (list.left > 0) {
        if ((rc = take_number(&list, 2, &version)) != HD_OK)
            return rc;
        /* GREASE (RFC 8701) and drafts stand in the list too. */
        if (version >= 0x0300 && version <= 0x0304 && version > hello->version_max)
            hello->version_max = (uint16_t)version;
    }
    return HD_OK;
}

static hd_rc_t read_extensions(part_t *exts, hd_client_hello_t *hello)
{
    bool has_name = false, has_alpn = false, has_versions = false;
    size_t type;
    part_t ext;
    hd_rc_t rc;

    while (exts->left > 0) {
        bool *seen = NULL;
        hd_rc_t (*read)(part_t *, hd_client_hello_t *) = NULL;

        if ((rc = take_number(exts, 2, &type)) != HD_OK ||
            (rc = take_part(exts, 2, &ext)) != HD_OK)
            return rc;
        switch (type) {
        case EXT_SERVER_NAME:
            seen = &has_name;
            read = read_server_name;
            break;
        case EXT_ALPN:
            seen = &has_alpn;
            read = read_alpn;
            break;
        case EXT_SUPPORTED_VERSIONS:
            seen = &has_versions;
            read = read_versions;
            break;
        }
        if (read == NULL) {
            rc = skip_bytes(&ext, ext.left);
        } else {
            if (*seen)
                return HD_ERROR; /* RFC 8446 §4.2: one of a type */
            *seen = true;
            rc = read(&ext, hello);
        }
        if (rc != HD_OK)
            return rc;
    }
    return HD_OK;
}

/* RFC 8446 §4.1.2, RFC 5246 §7.4.1.2: the same frame since SSL 3. */
static hd_rc_t read_hello(part_t *msg, hd_client_hello_t *hello)
{
    size_t version;
    part_t exts;
    hd_rc_t rc;

    if ((rc = take_number(msg, 2, &version)) != HD_OK)
        return rc;
    if (version < 0x0300)
        return HD_ERROR;
    hello->version_max = (uint16_t)hd_min(version, 0x0303u);
    if ((rc = skip_bytes(msg, 32)) != HD_OK || /* random */
        (rc = skip_part(msg, 1)) != HD_OK ||   /* session id */
        (rc = skip_part(msg, 2)) != HD_OK ||   /* cipher suites */
        (rc = skip_part(msg, 1)) != HD_OK)     /* compression */
        return rc;
    if (msg->left == 0)
        return HD_OK; /* extensions may be left out before TLS 1.3 */
    if ((rc = take_part(msg, 2, &exts)) != HD_OK)
        return rc;
    if (msg->left != 0)
        return HD_ERROR;
    return read_extensions(&exts, hello);
}

hd_rc_t hd_tls_parse_client_hello(hd_str_t bytes, hd_client_hello_t *hello)
{
    const uint8_t *at = (const uint8_t *)bytes.data;
    reader_t r = {at, at + bytes.len, 0, hello->_copy, sizeof(hello->_copy)};
    part_t all = {&r, 4}, msg;
    size_t type;
    hd_rc_t rc;

    hello->sni = hello->alpn_wire = HD_STR_NONE;
    hello->version_max = 0;
    if (bytes.len == 0)
        return HD_AGAIN;
    if (at[0] != RECORD_HANDSHAKE || (bytes.len > 1 && at[1] != 3) ||
        (bytes.len > 2 && at[2] > 4))
        return HD_DECLINED;
    if ((rc = take_number(&all, 1, &type)) != HD_OK)
        return rc;
    if (type != MESSAGE_CLIENT_HELLO)
        return HD_ERROR;
    if ((rc = take_number(&all, 3, &msg.left)) != HD_OK)
        return rc;
    if (msg.left > HELLO_BYTES_MAX)
        return HD_ERROR;
    msg.r = &r;
    return read_hello(&msg, hello);
}
