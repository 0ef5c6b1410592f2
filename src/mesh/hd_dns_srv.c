#include "mesh/hd_dns_srv.h"
#include <string.h>

#define HEAD_LEN 12
#define LABEL_MAX 63
#define TYPE_CNAME 5
#define TYPE_SRV 33
#define CLASS_IN 1
#define TTL_MAX 0x7fffffffu /* RFC 2181 8: beyond it, zero is meant */

typedef struct {
    const uint8_t *data;
    size_t len, at;
} reader_t;

static bool has(const reader_t *r, size_t n)
{
    return r->len - r->at >= n;
}

static uint16_t get16(reader_t *r)
{
    uint16_t v = (uint16_t)(r->data[r->at] << 8 | r->data[r->at + 1]);

    r->at += 2;
    return v;
}

static uint32_t get32(reader_t *r)
{
    uint32_t high = get16(r);

    return high << 16 | get16(r);
}

static bool is_host_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Adds a label; false: no host's name. */
static bool add_label(char *out, size_t *len, const uint8_t *label, size_t n)
{
    if (*len > 0)
        out[(*len)++] = '.';
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)hd_ascii_lower((char)label[i]);

        if (!is_host_char(c))
            return false;
        out[(*len)++] = (char)c;
    }
    return true;
}

/* A name at r->at, which goes behind it. <out>: HD_DNS_NAME_MAX bytes; empty: the root,
 * or no host's name. False: malformed. */
static bool read_name(reader_t *r, char *out)
{
    size_t at = r->at, lowest = r->at, len = 0;
    bool jumped = false, is_host = true;
    uint8_t n;

    out[0] = '\0';
    for (;;) {
        if (at >= r->len)
            return false;
        n = r->data[at];
        if (n == 0)
            break;
        if (n >= 0xc0) {
            if (at + 1 >= r->len)
                return false;
            if (!jumped)
                r->at = at + 2;
            jumped = true;
            at = (size_t)(n & 0x3f) << 8 | r->data[at + 1];
            if (at >= lowest || at < HEAD_LEN)
                return false;
            lowest = at;
            continue;
        }
        if (n > LABEL_MAX || at + 1 + n > r->len || len + 1 + n >= HD_DNS_NAME_MAX)
            return false;
        if (is_host)
            is_host = add_label(out, &len, r->data + at + 1, n);
        at += 1u + n;
    }
    if (!jumped)
        r->at = at + 1;
    out[is_host ? len : 0] = '\0';
    return true;
}

/* The data of one SRV record, <len> bytes. */
static bool read_srv(reader_t *r, size_t len, hd_srv_t *srv)
{
    size_t end = r->at + len;

    if (len < 7)
        return false;
    srv->priority = get16(r);
    srv->weight = get16(r);
    srv->port = get16(r);
    return read_name(r, srv->target) && r->at == end;
}

/* One record. <least>: the TTL of the CNAMEs so far. */
static bool read_record(reader_t *r, uint32_t *least, hd_srv_t *srv, bool *is_srv)
{
    char name[HD_DNS_NAME_MAX];
    uint16_t type, class, len;
    uint32_t ttl;

    *is_srv = false;
    if (!read_name(r, name) || !has(r, 10))
        return false;
    type = get16(r);
    class = get16(r);
    ttl = get32(r);
    ttl = ttl > TTL_MAX ? 0 : ttl;
    len = get16(r);
    if (!has(r, len))
        return false;
    if (class == CLASS_IN && type == TYPE_SRV) {
        *is_srv = true;
        srv->ttl = hd_min(ttl, *least);
        return read_srv(r, len, srv);
    }
    if (class == CLASS_IN && type == TYPE_CNAME)
        *least = hd_min(*least, ttl);
    r->at += len;
    return true;
}

static bool skip_questions(reader_t *r, uint16_t n)
{
    char name[HD_DNS_NAME_MAX];

    for (uint16_t i = 0; i < n; i++) {
        if (!read_name(r, name) || !has(r, 4))
            return false;
        r->at += 4;
    }
    return true;
}

hd_rc_t hd_dns_read_srv(hd_str_t answer, hd_srv_t *out, uint32_t *n, hd_err_t *err)
{
    reader_t r = {(const uint8_t *)answer.data, answer.len, 2};
    uint16_t flags, questions, answers;
    uint32_t least = TTL_MAX;

    *n = 0;
    if (answer.len < HEAD_LEN)
        return hd_err_set(err, HD_E_PROTOCOL, "a DNS answer of %zu bytes", answer.len);
    flags = get16(&r);
    questions = get16(&r);
    answers = get16(&r);
    r.at = HEAD_LEN;
    if ((flags & 0x8000) == 0 || (flags & 0x0200) != 0 || (flags & 0x000f) != 0)
        return hd_err_set(err, HD_E_PROTOCOL, "no whole DNS answer: flags %04x", flags);
    if (!skip_questions(&r, questions))
        return hd_err_set(err, HD_E_PROTOCOL, "a malformed question");
    for (uint16_t i = 0; i < answers; i++) {
        hd_srv_t srv;
        bool is_srv;

        if (!read_record(&r, &least, &srv, &is_srv))
            return hd_err_set(err, HD_E_PROTOCOL, "malformed answer %u", i);
        if (!is_srv || srv.target[0] == '\0')
            continue;
        if (*n == HD_SRV_MAX)
            return hd_err_set(err, HD_E_LIMIT, "more than %d SRV records", HD_SRV_MAX);
        out[(*n)++] = srv;
    }
    return HD_OK;
}
