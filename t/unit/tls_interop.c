/* hd_tls against others: curl and openssl s_client as clients, openssl s_server as
 * server, over TCP on loopback. */
#include "tls_pair.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BODY_BYTES = 3000000, TURNS_MAX = 4000 };

static char dir[] = "/tmp/hd_tls_XXXXXX";
static cert_t root, other_root, server_ec, server_rsa, client_cert;
static const hd_slot_t *certs[2], *trust;
static hd_tls_conf_t sc;
static char *body;

/* --- files and programs --- */

static void write_file(const char *name, const char *text)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if ((f = fopen(path, "w")) == NULL || fputs(text, f) < 0 || fclose(f) != 0)
        abort();
}

typedef struct {
    pid_t pid;
    int out; /* what it prints, errors too */
    char *text;
    size_t len;
    bool gone;
    int status;
} program_t;

/* By the shell, in <dir>, with an empty input. */
static program_t program_start(const char *fmt, ...) HD_PRINTF(1, 2);
static program_t program_start(const char *fmt, ...)
{
    program_t p = {.text = calloc(1, BODY_BYTES + 100000)};
    char line[1000];
    va_list args;
    int fds[2];

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (pipe(fds) != 0)
        abort();
    p.pid = fork();
    if (p.pid == 0) {
        int null = open("/dev/null", O_RDONLY);

        dup2(null, 0);
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        if (chdir(dir) == 0)
            execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    p.out = fds[0];
    return p;
}

static void program_read(program_t *p)
{
    ssize_t n;

    while (p->len < BODY_BYTES + 99999 &&
           (n = read(p->out, p->text + p->len, BODY_BYTES + 99999 - p->len)) > 0)
        p->len += (size_t)n;
    if (!p->gone && waitpid(p->pid, &p->status, WNOHANG) == p->pid) {
        p->gone = true;
        program_read(p);
    }
}

static void program_stop(program_t *p)
{
    if (!p->gone) {
        kill(p->pid, SIGTERM);
        waitpid(p->pid, &p->status, 0);
    }
    close(p->out);
    free(p->text);
}

/* --- our server: answers each request with the same body --- */

static int listen_fd;
static int served_n, resumed_n, failed_n;
static char last_error[HD_ERR_TEXT_MAX], last_sni[64], last_alpn[32], last_principal[128];

typedef struct {
    size_t left; /* of the body, not sent yet */
    bool answered;
} served_t;

static void send_more(hd_conn_t *c)
{
    served_t *s = c->owner;

    while (s->left > 0 && !hd_conn_is_high(c)) {
        size_t n = hd_min(s->left, (size_t)16384);

        if (!hd_conn_try_send_copy(c, body + BODY_BYTES - s->left, n))
            abort();
        s->left -= n;
    }
    if (s->left > 0) {
        hd_conn_want_writable(c);
        return;
    }
    free(s);
    hd_conn_close(c, 5000);
}

static void on_request(hd_conn_t *c)
{
    served_t *s = c->owner;
    char buf[4096], head[200];
    ssize_t n = hd_conn_read(c, buf, sizeof(buf));
    bool big = n > 9 && memmem(buf, (size_t)n, "GET /big", 8) != NULL;

    if (n == HD_IO_AGAIN || s->answered)
        return;
    if (n <= 0) {
        free(s);
        hd_conn_close(c, 0);
        return;
    }
    s->answered = true;
    s->left = big ? BODY_BYTES : 5;
    n = snprintf(head, sizeof(head),
                 "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                 s->left);
    if (!hd_conn_try_send_copy(c, head, (size_t)n))
        abort();
    send_more(c);
}

static void on_served_open(hd_conn_t *c)
{
    served_n++;
    resumed_n += hd_tls_peer(c)->resumed;
    snprintf(last_sni, sizeof(last_sni), "%.*s", HD_STR_ARG(c->facts->sni));
    snprintf(last_alpn, sizeof(last_alpn), "%.*s", HD_STR_ARG(c->facts->alpn));
    snprintf(last_principal, sizeof(last_principal), "%.*s",
             HD_STR_ARG(c->facts->peer_principal));
}

static void on_served_closed(hd_conn_t *c)
{
    failed_n++;
    snprintf(last_error, sizeof(last_error), "%s",
             c->err != NULL ? c->err->text : "(none)");
    free(c->owner);
    hd_conn_close(c, 0);
}

static const hd_conn_handler_t served_handler = {.on_open = on_served_open,
                                                 .on_readable = on_request,
                                                 .on_writable = send_more,
                                                 .on_closed = on_served_closed};

static uint16_t listen_start(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);

    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&sin, len) != 0 ||
        listen(listen_fd, 64) != 0 ||
        getsockname(listen_fd, (struct sockaddr *)&sin, &len) != 0)
        abort();
    return ntohs(sin.sin_port);
}

static void accept_all(void)
{
    hd_addr_t remote = {.family = AF_INET, .v4 = {127, 0, 0, 1}};
    hd_err_t err = {0};
    hd_conn_t *c;
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if ((c = hd_conn_create(loop, fd, &remote, &err)) == NULL)
            abort();
        hd_conn_set_handler(c, &served_handler, calloc(1, sizeof(served_t)));
        if (hd_tls_push_server(c, &sc, &err) != HD_OK)
            abort();
        hd_conn_set_handshake_timeout(c, 20000);
    }
}

/* Serves until <p> has ended; its exit status. */
static int serve(program_t *p)
{
    for (int i = 0; i < TURNS_MAX && !p->gone; i++) {
        hd_loop_turn(loop, 10);
        hd_turn_begin(member);
        accept_all();
        program_read(p);
    }
    return p->gone && WIFEXITED(p->status) ? WEXITSTATUS(p->status) : -1;
}

static void test_curl(uint16_t port)
{
    static const struct {
        const char *args, *url, *alpn;
        int status;      /* curl's; 0: good */
        const char *why; /* what our side says */
    } rows[] = {
        {"--tlsv1.3", "localhost", "http/1.1", 0, NULL},
        {"--tls-max 1.2", "localhost", "http/1.1", 0, NULL},
        {"--tls-max 1.2 --ciphers ECDHE-RSA-CHACHA20-POLY1305", "localhost", "http/1.1",
         0, NULL},
        {"--curves P-384", "localhost", "http/1.1", 0, NULL},
        {"--no-alpn", "localhost", "", 0, NULL},
        {"--cacert other.pem", "localhost", "", 60, "unknown CA"},
        {"", "other.example", "", 60, NULL},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        program_t p = program_start(
            "curl -sS --http1.1 --cacert root.pem --noproxy '*' "
            "--resolve localhost:%u:127.0.0.1 --resolve other.example:%u:127.0.0.1 %s "
            "https://%s:%u/big | cmp - body",
            port, port, rows[i].args, rows[i].url, port);
        int status = serve(&p);

        if (rows[i].status == 0) {
            ok(status == 0 && p.len == 0, "curl %s: 3 MB arrive (%d %.200s)",
               rows[i].args, status, p.text);
            is_str(last_alpn, rows[i].alpn, "... ALPN");
            is_str(last_sni, "localhost", "... SNI");
        } else {
            ok(strstr(p.text, "curl: (60)") != NULL, "curl %s %s refuses us: %.200s",
               rows[i].args, rows[i].url, p.text);
            if (rows[i].why != NULL)
                ok(strstr(last_error, rows[i].why) != NULL, "... and we know why: %s",
                   last_error);
        }
        program_stop(&p);
    }
}

static void test_curl_mtls(uint16_t port)
{
    program_t p;
    int status;

    sc.verify = HD_TLS_VERIFY_REQUIRED;
    p = program_start(
        "curl -sS --http1.1 --cacert root.pem --cert client.pem --key client.key "
        "--noproxy '*' --resolve localhost:%u:127.0.0.1 "
        "https://localhost:%u/",
        port, port);
    status = serve(&p);
    is_int(status, 0, "curl with a certificate: %.200s", p.text);
    is_str(last_principal, "spiffe://td/ns/shop/sa/page", "... who it is");
    program_stop(&p);
    for (int version = 2; version <= 3; version++) {
        p = program_start("curl -sS --cacert root.pem --tls-max 1.%d --noproxy '*' "
                          "--resolve localhost:%u:127.0.0.1 https://localhost:%u/",
                          version, port, port);
        status = serve(&p);
        ok(status > 0 && strstr(last_error, "one is required") != NULL,
           "curl without, TLS 1.%d: %.200s", version, p.text);
        program_stop(&p);
    }
    sc.verify = HD_TLS_VERIFY_NONE;
}

static void test_s_client(uint16_t port)
{
    program_t p;
    int before = resumed_n;

    p = program_start("openssl s_client -connect 127.0.0.1:%u -CAfile root.pem -tls1_2 "
                      "-servername localhost -reconnect -verify_return_error",
                      port);
    is_int(serve(&p), 0, "s_client -reconnect");
    is_int(resumed_n - before, 5, "TLS 1.2: five resumed");
    program_stop(&p);

    before = resumed_n;
    p = program_start(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect "
        "127.0.0.1:%u -CAfile root.pem -servername localhost -sess_out s.pem && "
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect "
        "127.0.0.1:%u -CAfile root.pem -servername localhost -sess_in s.pem",
        port, port);
    is_int(serve(&p), 0);
    is_int(resumed_n - before, 1, "TLS 1.3: the ticket resumes");
    program_stop(&p);

    p = program_start("printf 'Q\\n' | openssl s_client -connect 127.0.0.1:%u -tls1_1 "
                      "-cipher 'ALL:@SECLEVEL=0'",
                      port);
    serve(&p);
    ok(strstr(last_error, "no TLS version") != NULL, "TLS 1.1 is refused: %s",
       last_error);
    program_stop(&p);
}

/* --- our client against s_server -rev, which answers each line reversed --- */

static uint16_t wait_for_port(program_t *p)
{
    unsigned port = 0;
    char *at;

    for (int i = 0; i < TURNS_MAX && !p->gone; i++) {
        hd_loop_turn(loop, 10);
        program_read(p);
        if ((at = strstr(p->text, "ACCEPT ")) != NULL && strchr(at, '\n') != NULL &&
            (at = strrchr(at, ':')) != NULL) {
            sscanf(at + 1, "%u", &port);
            break;
        }
    }
    hd_turn_begin(member);
    return (uint16_t)port;
}

static void ask(uint16_t port, const hd_tls_conf_t *conf, const hd_tls_client_t *wish)
{
    hd_addr_t to = {.family = AF_INET, .port = port, .v4 = {127, 0, 0, 1}};
    hd_err_t err = {0};
    bool sent = false;

    memset(&client, 0, sizeof(client));
    client.keeps_in = true;
    hd_turn_begin(member);
    client.c = hd_conn_connect(loop, &to, NULL, 20000, &side_handler, &client, &err);
    if (client.c == NULL || hd_tls_push_client(client.c, conf, wish, &err) != HD_OK) {
        snprintf(client.error, sizeof(client.error), "%s", err.text);
        return;
    }
    for (int i = 0; i < TURNS_MAX && !client.closed && !client.ended; i++) {
        hd_loop_turn(loop, 10);
        if (client.opened && !sent && (sent = true))
            side_send(&client, "heddle\n");
        if (client.in.len >= 7)
            break;
    }
    hd_turn_begin(member);
}

static void ask_end(void)
{
    side_close(&client);
    hd_loop_turn(loop, 0);
    hd_turn_begin(member);
    free((void *)(uintptr_t)client.in.data);
}

static void test_s_server(void)
{
    const hd_slot_t *mine = secret_cert("mine", &client_cert);
    hd_tls_conf_t cc = conf_of(&mine, 1, trust);
    static const struct {
        const char *args, *says; /* NULL: good */
    } rows[] = {
        {"-cert ec.pem -key ec.key", NULL},
        {"-cert ec.pem -key ec.key -tls1_2", NULL},
        {"-cert rsa.pem -key rsa.key", NULL},
        {"-cert ec.pem -key ec.key -Verify 3 -CAfile root.pem -verify_return_error",
         NULL},
        {"-cert ec.pem -key ec.key -Verify 3 -CAfile other.pem -verify_return_error",
         "unknown CA"},
        {"-cert ec.pem -key ec.key -tls1_1 -cipher ALL:@SECLEVEL=0", "protocol version"},
        {"-cert foreign.pem -key foreign.key", "unknown issuer CN=Other Root"},
    };

    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_tls_client_t wish = {.sni = HD_STR("localhost"),
                                .verify_host = HD_STR("localhost")};
        program_t p = program_start("exec openssl s_server -rev -accept 127.0.0.1:0 %s",
                                    rows[i].args);
        uint16_t port = wait_for_port(&p);
        char key[32];

        snprintf(key, sizeof(key), "row %zu", i);
        wish.session_key = hd_str_c(key);
        ask(port, &cc, &wish);
        if (rows[i].says == NULL) {
            ok(hd_str_eq(client.in, HD_STR("elddeh\n")), "s_server %s: answers %s",
               rows[i].args, client.error);
            ok(client.opened && !hd_tls_peer(client.c)->resumed);
            ask_end();
            ask(port, &cc, &wish);
            ok(hd_str_eq(client.in, HD_STR("elddeh\n")) && hd_tls_peer(client.c)->resumed,
               "... and resumes %s", client.error);
        } else {
            ok(client.in.len == 0 && strstr(client.error, rows[i].says) != NULL,
               "s_server %s: %s", rows[i].args, client.error);
        }
        ask_end();
        program_stop(&p);
    }
}

int main(void)
{
    cert_t foreign;
    uint16_t port;

    signal(SIGPIPE, SIG_IGN);
    if (mkdtemp(dir) == NULL)
        abort();
    loom_start();
    (void)pair_start;
    root = cert_root("Root");
    other_root = cert_root("Other Root");
    server_ec = cert_make(&(cert_spec_t){.by = &root, .dns = {"localhost"}});
    server_rsa =
        cert_make(&(cert_spec_t){.by = &root, .dns = {"localhost"}, .type = "RSA"});
    foreign = cert_make(&(cert_spec_t){.by = &other_root, .dns = {"localhost"}});
    client_cert =
        cert_make(&(cert_spec_t){.by = &root, .uris = {"spiffe://td/ns/shop/sa/page"}});
    certs[0] = secret_cert("ec", &server_ec);
    certs[1] = secret_cert("rsa", &server_rsa);
    trust = secret_trust("root", &root);
    write_file("root.pem", root.chain_pem);
    write_file("other.pem", other_root.chain_pem);
    write_file("client.pem", client_cert.chain_pem);
    write_file("client.key", client_cert.key_pem);
    write_file("ec.pem", server_ec.chain_pem);
    write_file("ec.key", server_ec.key_pem);
    write_file("rsa.pem", server_rsa.chain_pem);
    write_file("rsa.key", server_rsa.key_pem);
    write_file("foreign.pem", foreign.chain_pem);
    write_file("foreign.key", foreign.key_pem);
    body = malloc(BODY_BYTES + 1);
    for (size_t i = 0; i < BODY_BYTES; i++)
        body[i] = (char)('a' + i * 7 % 26);
    body[BODY_BYTES] = '\0';
    write_file("body", body);

    sc = conf_of(certs, 2, trust);
    sc.alpn = HD_STR("\x02h2\x08http/1.1");
    port = listen_start();
    test_curl(port);
    test_curl_mtls(port);
    test_s_client(port);
    test_s_server();

    close(listen_fd);
    loom_stop();
    free(body);
    cert_free(&root);
    cert_free(&other_root);
    cert_free(&server_ec);
    cert_free(&server_rsa);
    cert_free(&foreign);
    cert_free(&client_cert);
    {
        char line[300];
        program_t p;

        snprintf(line, sizeof(line), "cd / && rm -r '%s'", dir);
        p = program_start("%s", line);
        waitpid(p.pid, &p.status, 0);
        p.gone = true;
        program_stop(&p);
    }
    return done_testing();
}
