/* An upstream's answer through a whole configuration with nearly every module, built as
 * the loader does: what filters make of hostile heads and bodies is still one well-framed
 * response, its conn is as good as before, and nothing is left. Input: how the peers
 * behave, the location, the length of the client's fields, these ('|' ends a line), the
 * upstream's bytes. What it finds goes to regression/ with its fix. */
#include "../lib/program.h"
#include "../../t/lib/nettest.h"
#include "core/os/hd_clock.h"
#include "core/proc/hd_process_int.h"
#include "core/proc/hd_settings.h"
#include "http/hd_upool.h"

static hd_err_t err;
static hd_loop_t *loop;
static hd_slot_t *listener_slot;
static const hd_filter_chain_t *filter_chain;
static int up_listen_fd;
static uint64_t now_ns = 1000000000;

static uint64_t our_clock(void)
{
    return now_ns;
}

static void tick(uint64_t ms)
{
    now_ns += ms * 1000000;
    turn_some(loop);
}

#include "../lib/relay.h"

static const char *const locations[] = {
    "plain",  "sub",      "gunzip", "gzip",    "charset", "recode",
    "ssi",    "addition", "errors", "cookies", "auth",    "secure",
    "mirror", "rewrite",  "gone",   "limits",  "basic",   "refs",
};

static const char conf_text[] =
    "http {\n"
    "    map $http_x $mapped { default a; ~^(?<word>.)b $word; }\n"
    "    charset_map koi8-r utf-8 { C0 D18E; C1 D0B0; C2 D0B1; }\n"
    "    limit_req_zone $http_x zone=r:64k rate=1000r/s;\n"
    "    log_format odd escape=json '$request $mapped $upstream_http_x $sent_http_x';\n"
    "    upstream u { server 127.0.0.1:%u max_fails=0; keepalive 32; }\n"
    "    server {\n"
    "        listen 127.0.0.1:1;\n"
    "        root /nonexistent;\n"
    "        sub_filter_types *; gzip_types *; charset_types *; ssi_types *;\n"
    "        addition_types *; gzip_min_length 0; gzip_proxied any; sub_filter_once "
    "off;\n"
    "        location / { proxy_pass http://u; }\n"
    "        location /sub { sub_filter abc '<$uri>'; sub_filter aab ''; sub_filter "
    "$http_x y;\n"
    "            proxy_pass http://u; }\n"
    "        location /gunzip { gunzip on; proxy_pass http://u; }\n"
    "        location /gzip { gzip on; proxy_pass http://u; }\n"
    "        location /charset { charset utf-8; proxy_pass http://u; }\n"
    "        location /recode { source_charset koi8-r; charset utf-8; override_charset "
    "on;\n"
    "            proxy_pass http://u; }\n"
    "        location /ssi { ssi on; proxy_pass http://u; }\n"
    "        location /addition { add_before_body /plain; add_after_body /sub;\n"
    "            proxy_pass http://u; }\n"
    "        location /cookies { userid on; proxy_cookie_path ~^/(.*) /x/$1;\n"
    "            proxy_cookie_domain a b; proxy_cookie_flags ~. secure samesite=lax;\n"
    "            proxy_redirect ~^http://a/(.*) /b/$1; add_header X-Y $upstream_http_x;\n"
    "            proxy_pass http://u; }\n"
    "        location /errors { proxy_intercept_errors on; error_page 404 500 = @named;\n"
    "            error_page 403 /plain; proxy_next_upstream error timeout http_500;\n"
    "            proxy_pass http://u; }\n"
    "        location @named { add_trailer X-T $status; proxy_pass http://u; }\n"
    "        location /auth { auth_request /check; auth_request_set $who "
    "$upstream_http_x;\n"
    "            proxy_set_header X-Who $who; proxy_pass http://u; }\n"
    "        location /check { proxy_pass http://u; }\n"
    "        location /secure { secure_link $arg_md5,$arg_e; secure_link_md5 '$uri x';\n"
    "            if ($secure_link = '') { return 403 $http_x; }\n"
    "            proxy_pass http://u; }\n"
    "        location /mirror { mirror /check; proxy_pass http://u; }\n"
    "        location /rewrite { rewrite ^/rewrite(.*)$ /$mapped$1?$http_x break;\n"
    "            proxy_pass http://u; }\n"
    "        location /limits { limit_req zone=r burst=3; limit_rate "
    "1m;\n"
    "            proxy_buffering off; proxy_pass http://u; }\n"
    "        location /gone { return 302 /$http_x; }\n"
    "        location /basic { satisfy any; deny all; auth_basic x;\n"
    "            auth_basic_user_file /nonexistent; proxy_pass http://u; }\n"
    "        location /refs { valid_referers none blocked *.a.b ~x; set_real_ip_from "
    "0.0.0.0/0;\n"
    "            real_ip_header X-Forwarded-For; real_ip_recursive on;\n"
    "            if ($invalid_referer) { set $y $http_referer; }\n"
    "            add_header X-Y $y$remote_addr; proxy_pass http://u; }\n"
    "    }\n"
    "}\n";

/* --- the configuration --- */

static void build(hd_batch_t *batch, hd_pool_t *pool, unsigned port)
{
    static hd_settings_t settings;
    hd_build_t how_to = {.settings = &settings,
                         .prefix = HD_STR("/nonexistent/"),
                         .conf_dir = HD_STR("/nonexistent/")};
    hd_str_t text = hd_str_printf(pool, conf_text, port);
    hd_node_t *root;

    hd_settings_init(&settings);
    hd_proc.settings = &settings;
    root = hd_parse_text(pool, HD_STR("site"), text, &err);
    if (root == NULL ||
        hd_conf_build(root, arena, member, batch, pool, &how_to, &err) != HD_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    hd_batch_publish(batch, hd_clock_mono_ns());
}

static void start_site(void)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_addr_t addr;
    const hd_listener_t *l;

    start_world(HD_ARENA_FILES, HD_MEMBER_WORKER);
    loop = hd_loop_create(member, 256, &err);
    hd_bug_on(loop == NULL);
    hd_loop_set_clock(loop, our_clock);
    hd_proc.kind = HD_PROC_WORKER;
    hd_proc.loop = loop;
    hd_proc.member = member;
    hd_proc.state = state;
    hd_proc.arenas[HD_ARENA_FILES] = arena;
    hd_turn_begin(member);
    up_listen_fd = tcp_listen(&addr);
    build(hd_batch_begin(arena), pool, addr.port);
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_module_t *m = hd_module_get(i);

        hd_bug_on(m->on_process_start != NULL &&
                  m->on_process_start(member, loop, &err) != HD_OK);
    }
    listener_slot =
        hd_slot_find_or_add(arena, HD_RES_LISTENER, HD_STR("127.0.0.1:1"), &err);
    l = hd_slot_get(member, listener_slot)->root;
    filter_chain = l->default_chain;
    hd_pool_destroy(pool);
}

/* --- an input --- */

static void make_request(char *to, size_t room, const uint8_t *data, size_t n)
{
    size_t at = (size_t)snprintf(to, room, "%s /%s HTTP/1.1\r\nHost: a\r\n",
                                 how & BY_HEAD ? "HEAD" : "GET",
                                 locations[data[0] % hd_countof(locations)]);
    size_t fields = hd_min((size_t)data[1], n - 2);

    for (size_t i = 0; i < fields; i++) {
        char c = (char)data[2 + i];

        if (c == '|' && to[at - 1] == '\n')
            continue;
        if (c == '|')
            to[at++] = '\r';
        to[at++] = c == '|' ? '\n' : c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
    }
    (void)snprintf(to + at, room - at, "%s\r\n", to[at - 1] != '\n' ? "\r\n" : "");
    bytes_n = 0;
    put(data + 2 + fields, n - 2 - fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char request[2048];
    hd_pool_t *pool;
    hd_conn_t *c;
    response_t r;

    if (n < 3)
        return 0;
    if (loop == NULL)
        start_site();
    pool = hd_pool_create(0);
    how = data[0] & (BY_HEAD | LATE | ENDS);
    make_request(request, sizeof(request), data + 1, n - 1);
    c = connect_client(0, hd_h1_serve);
    if (ask(c, request, pool, &r) &&
        ask(c, "GET /second HTTP/1.1\r\nHost: a\r\n\r\n", pool, &r))
        check_second(&r, data[2] > 0 ? 400 : 500); /* they may have said a length */
    if (!peer_closed)
        hd_conn_reset(c);
    close_upstreams();
    check_nothing_left();
    hd_pool_destroy(pool);
    return 0;
}
