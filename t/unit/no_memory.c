/* Blocks run out at each place of a whole exchange, one after another: a request with a
 * body, over HTTP/1, HTTP/2 or a weft, proxied to an upstream of any of them. The n-th
 * block isn't there, or none from the n-th on. Whatever n: the client gets its answer, a
 * correct error or the end of its connection, nobody waits in vain, and all is given
 * back. */
#include "http_test.h"
#include "http/hd_weft.h"

#define BODY 40000u    /* several blocks, and within HTTP/2's first window */
#define WAIT_S_MAX 50u /* less than any time-out of the exchange itself */

static hd_addr_t up_addr;

/* --- one end of a connection, ours to write and read by hand --- */

typedef enum { H1, H2, WEFT } kind_t;

typedef struct {
    int fd; /* -1: none, or closed */
    kind_t kind;
    bool is_upstream;
    unsigned char in[400000], out[100000];
    size_t in_n, at, out_n, sent;
    bool is_acked;   /* HTTP/2: their settings */
    unsigned status; /* 0: no head so far */
    size_t body_n;   /* bytes of the body */
    bool is_whole;   /* the message ended as it should */
    bool is_reset;   /* HTTP/2: RST_STREAM or GOAWAY */
    uint32_t stream;
} end_t;

static end_t client_end, up_end;

static void put(end_t *e, const void *data, size_t len)
{
    hd_bug_on(len > sizeof(e->out) - e->out_n);
    if (len > 0)
        memcpy(e->out + e->out_n, data, len);
    e->out_n += len;
}

static void put_frame(end_t *e, unsigned type, unsigned flags, uint32_t id,
                      const void *payload, size_t len)
{
    unsigned char head[9] = {(unsigned char)(len >> 16),
                             (unsigned char)(len >> 8),
                             (unsigned char)len,
                             (unsigned char)type,
                             (unsigned char)flags,
                             0,
                             0,
                             (unsigned char)(id >> 8),
                             (unsigned char)id};

    put(e, head, sizeof(head));
    put(e, payload, len);
}

enum { H2_DATA, H2_HEADERS, H2_RST = 3, H2_SETTINGS, H2_GOAWAY = 7 };
enum { END_STREAM = 1, END_HEADERS = 4 };

/* hd_weft.h: length and type, then the stream. */
static void put_weft(end_t *e, unsigned type, uint32_t id, const void *payload,
                     size_t len)
{
    unsigned char head[8] = {(unsigned char)(len >> 16), (unsigned char)(len >> 8),
                             (unsigned char)len,         (unsigned char)type,
                             (unsigned char)(id >> 24),  (unsigned char)(id >> 16),
                             (unsigned char)(id >> 8),   (unsigned char)id};

    put(e, head, sizeof(head));
    put(e, payload, len);
}

enum { WEFT_HELLO = 1, WEFT_HEAD, WEFT_DATA, WEFT_RESET = 6 };

static void put_body(end_t *e)
{
    static const char text[BODY];

    if (e->kind == WEFT) {
        for (size_t at = 0; at < BODY; at += 16384) {
            size_t len = hd_min((size_t)16384, BODY - at);

            put_weft(e, WEFT_DATA | (at + len == BODY ? HD_WEFT_END : 0), e->stream, text,
                     len);
        }
        return;
    }
    if (e->kind == H1) {
        put(e, text, BODY);
        return;
    }
    for (size_t at = 0; at < BODY; at += 16384) {
        size_t len = hd_min((size_t)16384, BODY - at);

        put_frame(e, H2_DATA, at + len == BODY ? END_STREAM : 0, e->stream, text, len);
    }
}

/* Version 1, 8 streams, 256 KB each. */
static void put_hello(end_t *e)
{
    put_weft(e, WEFT_HELLO, 0, "\1\0\0\0\0\0\0\10\0\4\0\0", 12);
}

/* RFC 7541 §6: indexed POST, http; :path and :authority as literals. */
static void put_request(end_t *e)
{
    static const char h1[] = "POST /up HTTP/1.1\r\nHost: example.org\r\n"
                             "Content-Length: 40000\r\n\r\n";
    static const char h2[] = "\x83\x86\x04\x03/up\x01\x0b"
                             "example.org";

    if (e->kind == H2) {
        e->stream = 1;
        put(e, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
        put_frame(e, H2_SETTINGS, 0, 0, NULL, 0);
        put_frame(e, H2_HEADERS, END_HEADERS, 1, h2, sizeof(h2) - 1);
    } else if (e->kind == WEFT) {
        e->stream = 1 << 16;
        put_hello(e);
        put_weft(e, WEFT_HEAD, e->stream, h1, sizeof(h1) - 1);
    } else {
        put(e, h1, sizeof(h1) - 1);
    }
    put_body(e);
}

static void put_response(end_t *e)
{
    static const char h1[] = "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n";

    if (e->kind == H2)
        put_frame(e, H2_HEADERS, END_HEADERS, e->stream, "\x88", 1);
    else if (e->kind == WEFT)
        put_weft(e, WEFT_HEAD, e->stream, h1, sizeof(h1) - 1);
    else
        put(e, h1, sizeof(h1) - 1);
    put_body(e);
}

/* Chunks, of which none has a size of more than 8 digits. */
static void look_chunks(end_t *e, const char *at)
{
    const char *end = (const char *)e->in + e->in_n;

    e->body_n = 0;
    while (at < end) {
        char *rest;
        size_t n = strtoul(at, &rest, 16);

        if (rest + 2 > end || n > (size_t)(end - rest - 2))
            return;
        e->body_n += n;
        at = rest + 2 + n + 2;
        e->is_whole |= n == 0 && at <= end;
    }
}

/* What an HTTP/1 end has read. */
static void look_h1(end_t *e)
{
    const char *head = (const char *)e->in, *end, *length;
    size_t head_n;

    e->in[e->in_n] = '\0';
    end = strstr(head, "\r\n\r\n");
    if (end == NULL)
        return;
    head_n = (size_t)(end + 4 - head);
    length = strcasestr(head, "content-length: ");
    e->status = e->is_upstream ? 1 : (unsigned)atoi(head + 9);
    e->body_n = e->in_n - head_n;
    if (length != NULL && length < end)
        e->is_whole = e->body_n == (size_t)atoi(length + 16);
    else if (strcasestr(head, "transfer-encoding: chunked") != NULL)
        look_chunks(e, end + 4);
}

/* :status as nghttp2 writes it: one of the static table's, or a literal. */
static unsigned h2_status(const unsigned char *block, size_t len)
{
    static const unsigned of_table[] = {200, 204, 206, 304, 400, 404, 500};

    for (size_t i = 0; i < len; i++) {
        if (block[i] >= 0x88 && block[i] <= 0x8e)
            return of_table[block[i] - 0x88];
        if ((block[i] & 0xc0) == 0x40 || (block[i] & 0xf0) == 0)
            return 500; /* another error: its digits may be Huffman's */
    }
    return 0;
}

static void take_frame(end_t *e, const unsigned char *f, size_t len)
{
    unsigned type = f[3], flags = f[4];
    uint32_t id = (uint32_t)f[7] << 8 | f[8];

    if (type == H2_SETTINGS && (flags & 1) == 0) {
        if (e->is_upstream && !e->is_acked)
            put_frame(e, H2_SETTINGS, 0, 0, NULL, 0);
        put_frame(e, H2_SETTINGS, 1, 0, NULL, 0);
        e->is_acked = true;
    } else if (type == H2_HEADERS) {
        e->stream = id;
        e->status = e->is_upstream ? 1 : h2_status(f + 9, len);
        e->is_whole |= (flags & END_STREAM) != 0;
    } else if (type == H2_DATA) {
        e->body_n += len;
        e->is_whole |= (flags & END_STREAM) != 0;
    } else if (type == H2_RST || type == H2_GOAWAY) {
        e->is_reset = true;
    }
}

static void look_h2(end_t *e)
{
    if (e->is_upstream && e->at == 0) {
        if (e->in_n < 24)
            return;
        e->at = 24;
    }
    while (e->in_n - e->at >= 9) {
        const unsigned char *f = e->in + e->at;
        size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];

        if (e->in_n - e->at - 9 < len)
            break;
        take_frame(e, f, len);
        e->at += 9 + len;
    }
}

static void look_weft(end_t *e)
{
    while (e->in_n - e->at >= 8) {
        const unsigned char *f = e->in + e->at;
        size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];

        if (e->in_n - e->at - 8 < len)
            break;
        if ((f[3] & 0x3f) == WEFT_HEAD) {
            e->stream =
                (uint32_t)f[4] << 24 | (uint32_t)f[5] << 16 | (uint32_t)f[6] << 8 | f[7];
            e->status = e->is_upstream ? 1 : (unsigned)atoi((const char *)f + 8 + 9);
        } else if ((f[3] & 0x3f) == WEFT_DATA)
            e->body_n += len;
        e->is_whole |= (f[3] & HD_WEFT_END) != 0;
        e->is_reset |= (f[3] & 0x3f) == WEFT_RESET;
        e->at += 8 + len;
    }
}

static void drop_end(end_t *e)
{
    if (e->fd >= 0)
        close(e->fd);
    e->fd = -1;
}

/* Sends and reads what it can; whether anything moved. */
static bool move_end(end_t *e)
{
    ssize_t n;
    bool moved = false;

    if (e->fd < 0)
        return false;
    if (e->sent < e->out_n) {
        n = send(e->fd, e->out + e->sent, e->out_n - e->sent, MSG_NOSIGNAL);
        if (n > 0) {
            e->sent += (size_t)n;
            moved = true;
        }
    }
    n = recv(e->fd, e->in + e->in_n, sizeof(e->in) - 1 - e->in_n, 0);
    if (n > 0) {
        e->in_n += (size_t)n;
        moved = true;
        if (e->kind == H2)
            look_h2(e);
        else if (e->kind == WEFT)
            look_weft(e);
        else
            look_h1(e);
    } else if (n == 0 || errno != EAGAIN) {
        drop_end(e);
        moved = true;
    }
    return moved;
}

/* --- an exchange --- */

static unsigned waited_s; /* until its end, by the bench's clock */

static void open_client(kind_t kind)
{
    hd_addr_t none = {.family = AF_UNSPEC};
    hd_http_entry_t entry;
    hd_conn_t *c;
    int ends[2];

    hd_bug_on(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0);
    memset(&client_end, 0, sizeof(client_end));
    client_end.fd = ends[0];
    client_end.kind = kind;
    c = hd_conn_create(loop, ends[1], &none, &err);
    hd_bug_on(c == NULL);
    hd_http_entry_init(&entry, c, &(hd_entrance_t){listener_slot, NULL, filter_chain});
    if (kind == H2)
        hd_h2_serve(c, &entry);
    else if (kind == WEFT)
        hd_weft_serve(c, &entry);
    else
        hd_h1_serve(c, &entry);
    put_request(&client_end);
}

static kind_t up_kind;

/* The linker's: weft is agreed upon by TLS, which isn't here. */
hd_rc_t __real_hd_h1_client_open(hd_upconn_t *u, hd_err_t *e);
hd_rc_t __wrap_hd_h1_client_open(hd_upconn_t *u, hd_err_t *e);
hd_rc_t __wrap_hd_h1_client_open(hd_upconn_t *u, hd_err_t *e)
{
    return up_kind == WEFT ? hd_weft_client_open(u, e) : __real_hd_h1_client_open(u, e);
}

static bool serve_up(void)
{
    bool moved = false;

    if (up_end.fd < 0) {
        int fd = accept(up_listen_fd, NULL, NULL);

        if (fd < 0)
            return false;
        fcntl(fd, F_SETFL, O_NONBLOCK);
        memset(&up_end, 0, sizeof(up_end));
        up_end.fd = fd;
        up_end.kind = up_kind;
        up_end.is_upstream = moved = true;
        if (up_kind == WEFT)
            put_hello(&up_end);
    }
    moved |= move_end(&up_end);
    if (up_end.is_whole) {
        put_response(&up_end);
        up_end.is_whole = false;
        if (up_kind == H1)
            up_end.at = up_end.in_n = 0;
    }
    return moved;
}

static bool is_over(void)
{
    return client_end.is_whole || client_end.is_reset || client_end.fd < 0;
}

static void exchange(kind_t kind)
{
    unsigned still = 0;

    waited_s = 0;
    open_client(kind);
    while (!is_over() && waited_s < WAIT_S_MAX) {
        bool moved = move_end(&client_end);

        moved = serve_up() || moved;
        hd_loop_turn(loop, 0);
        still = moved ? 0 : still + 1;
        if (still > 20) {
            now_ns += 1000000000;
            waited_s++;
            still = 0;
        }
    }
}

/* What the client may see; NULL: that is all right. */
static const char *wrong(bool is_spared)
{
    bool is_answer = client_end.is_whole && client_end.status == 200;

    if (waited_s >= WAIT_S_MAX)
        return "it waits in vain";
    if (is_answer && client_end.body_n != BODY)
        return "an answer that isn't whole, and says it is";
    if (client_end.is_whole && client_end.status != 200 && client_end.status < 400)
        return "neither an answer nor an error";
    return is_spared && !is_answer ? "no answer, though all memory was there" : NULL;
}

static unsigned left_over(void)
{
    unsigned sum = 0;

    for (unsigned i = HD_CG_PENDING; i < HD_CG_N; i++)
        sum += (unsigned)hd_gauge_sum(state, cluster_slot->gauges_first + i);
    return sum + (unsigned)hd_requests_active() + (lb.picks - lb.releases) +
           (unsigned)hd_conns_open(loop) + (unsigned)hd_blocks_in_use();
}

typedef struct {
    kind_t client, up;
    bool buffers, for_ever;
} way_t;

static void clean(void)
{
    drop_end(&client_end);
    turn_some(loop);
    hd_upool_close_all(loop);
    drop_end(&up_end);
    for (int i = 0; i < 10; i++) { /* what lingers */
        now_ns += 10000000000ull;
        turn_some(loop);
    }
}

static void test_way(const way_t *w)
{
    static const char *const names[] = {"HTTP/1", "HTTP/2", "weft"};
    unsigned n = 0, answers = 0, errors = 0, cut = 0, bad = 0;
    bool has_failed = true;

    reset_conf();
    set_upstream(&up_addr);
    proxy->buffer_request = w->buffers;
    proxy->read_timeout_ms = 60000;
    up_kind = w->up;
    cluster->protocol = w->up == H2 ? HD_UP_HTTP2 : HD_UP_HTTP1;
    while (has_failed && n < 200) {
        const char *why;

        hd_blocks_fail_at(++n, w->for_ever);
        exchange(w->client);
        has_failed = hd_blocks_have_failed();
        why = wrong(!has_failed);
        hd_blocks_fail_at(0, false);
        answers += client_end.is_whole && client_end.status == 200;
        errors += client_end.is_whole && client_end.status >= 400;
        cut += !client_end.is_whole;
        clean();
        if (why == NULL && left_over() > 0)
            why = "something is left over";
        if (why != NULL) {
            bad++;
            diag("without block %u%s: %s (status %u, %zu bytes, %u s)", n,
                 w->for_ever ? " and on" : "", why, client_end.status, client_end.body_n,
                 waited_s);
        }
    }
    ok(bad == 0 && !has_failed,
       "%s to %s%s, %s: %u blocks: %u answers, %u errors, %u closed", names[w->client],
       names[w->up], w->buffers ? ", buffered" : "",
       w->for_ever ? "from the n-th on" : "the n-th", n - 1, answers, errors, cut);
}

int main(void)
{
    start_bench();
    up_addr = lb.addrs[0];
    fcntl(up_listen_fd, F_SETFL, O_NONBLOCK);
    up_end.fd = client_end.fd = -1;
    for (unsigned i = 0; i < HD_CG_N; i++)
        hd_gauge_share(member, cluster_slot->gauges_first + i, true);
    for (unsigned i = 0; i < 36; i++)
        test_way(&(way_t){i % 3, i / 3 % 3, i / 9 % 2, i / 18});
    end_bench();
    return done_testing();
}
