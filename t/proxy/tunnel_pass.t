#!/usr/bin/perl
# tunnel_pass: CONNECT leads to a server, over HTTP/1 and HTTP/2: to whom the client names, to an upstream, to what
# variables name; who may and who may not; the next server; times; both halves; what a log tells of it.
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::INET;
use IO::Socket::UNIX;
use MIME::Base64;
use Test::More;
use Heddle;
use Heddle::Dns;
use Heddle::H2;

my $hd = Heddle->new(modules => ['access', 'access_log', 'auth_basic']);
my $cert = $hd->make_ca('root')->make_cert('server', dns => 'site.test');
$hd->conf(<<"EOC");
http {
    resolver 127.0.0.1:%%PORT_dns%% ipv6=off;
    log_format line '\$request \$status \$upstream_addr \$upstream_status \$upstream_bytes_sent \$upstream_bytes_received \$body_bytes_sent';
    access_log %%DIR%%/access.log line;
    tunnel_connect_timeout 5s;
    tunnel_buffer_size 8k;
    upstream two { server unix:%%DIR%%/nobody max_fails=0; server 127.0.0.1:%%PORT_echo%%; }
    upstream each { server 127.0.0.2:%%PORT_echo%% max_fails=0; server 127.0.0.1:%%PORT_echo%% max_fails=0; }
    upstream pair { server 127.0.0.2:%%PORT_15%% max_fails=0; server 127.0.0.1:%%PORT_15%% max_fails=0; }
    geo \$upstream_last_addr \$is_second { volatile; 127.0.0.1/32 1; default 0; }
    geo \$upstream_last_addr \$from { volatile; 127.0.0.1/32 127.0.0.5; default 127.0.0.4; }
    map \$upstream_last_addr \$first_word { default ""; ~^127 yes; }
    map \$request_port \$may_port { %%PORT_echo%% 1; %%PORT_tls%% 1; default ""; }
    server { # an open one
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_9%% ssl;
        http2 on;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        tunnel_pass;
        location /other { return 200 "no tunnel"; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; tunnel_pass two; tunnel_socket_keepalive on; tunnel_send_lowat 0; }
    server { listen 127.0.0.1:%%PORT_2%%; tunnel_pass two; tunnel_next_upstream off; }
    server { listen 127.0.0.1:%%PORT_3%%; tunnel_pass each; tunnel_allow_upstream \$first_word \$is_second; tunnel_next_upstream denied;
             tunnel_bind \$from; tunnel_bind_dynamic on; tunnel_next_upstream_tries 2; tunnel_next_upstream_timeout 5s; }
    server { listen 127.0.0.1:%%PORT_4%%; tunnel_pass 127.0.0.1:%%PORT_echo%%; tunnel_allow_upstream \$may_port; tunnel_bind 127.0.0.6; }
    server { listen 127.0.0.1:%%PORT_5%%; tunnel_pass \$http_x_to; }
    server { listen 127.0.0.1:%%PORT_6%%;
        location / { if (\$request_method != CONNECT) { return 403 "CONNECT only"; }
                     if (\$may_port != 1) { return 502; }
                     tunnel_pass; }
    }
    server { listen 127.0.0.1:%%PORT_7%%; error_page 401 403 405 502 /said; tunnel_pass; allow 127.0.0.1; deny all; auth_basic "a proxy";
             auth_basic_user_file %%DIR%%/users; location = /said { internal; return 200 "said by a page"; } }
    server { listen 127.0.0.1:%%PORT_8%%; tunnel_pass; tunnel_read_timeout 300ms; tunnel_send_timeout 60s; }
    server { listen 127.0.0.1:%%PORT_10%%; location / { proxy_pass http://127.0.0.1:%%PORT_11%%; } location /t { tunnel_pass; } }
    server { listen 127.0.0.1:%%PORT_14%%;
        location / { proxy_pass http://pair; proxy_allow_upstream \$is_second; proxy_next_upstream denied; proxy_bind \$from; proxy_bind_dynamic on; }
        location /no { proxy_pass http://127.0.0.1:%%PORT_15%%; proxy_allow_upstream 1 \$arg_may; }
        location /t.S/ { grpc_pass 127.0.0.1:%%PORT_15%%; grpc_allow_upstream 0; grpc_bind_dynamic on; }
    }
    server { listen 127.0.0.1:%%PORT_15%%; listen 127.0.0.2:%%PORT_15%%; return 200 "\$server_addr asked from \$remote_addr"; }
    server { listen 127.0.0.1:%%PORT_12%%; location / { return 200 "an ordinary one"; } }
    server { listen 127.0.0.1:%%PORT_13%%; satisfy any; deny all; auth_basic "any"; auth_basic_user_file %%DIR%%/users; tunnel_pass; }
    server { listen 127.0.0.1:%%PORT_tls%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key};
             return 200 "inside for \$host \$http_x"; }
}
EOC
# Says who is there, then what comes in capital letters; "quit" ends its half.
my $echo = sub {
    my ($sock) = @_;
    syswrite $sock, ($sock->can('peerhost') ? $sock->peerhost : 'unix') . "\n";
    while (sysread $sock, my $bytes, 65536) {
        syswrite $sock, uc $bytes;
        next unless $bytes =~ /quit/;
        shutdown $sock, 1;
        while (sysread $sock, $bytes, 65536) { }
        return;
    }
    syswrite $sock, 'END';
};
for my $addr ('127.0.0.1', '127.0.0.2') {
    my $listener = Heddle::Backend::listener($hd->port('echo'), $addr);
    Heddle::Backend::spawn(sub { Heddle::Backend::tcp($listener, $echo) });
}
my $unix = IO::Socket::UNIX->new(Local => $hd->dir . '/echo', Listen => 16) or die "unix: $!";
Heddle::Backend::spawn(sub { Heddle::Backend::tcp($unix, $echo) });
$hd->echo_server(11);
my $dns = Heddle::Dns->new($hd, 'dns');
$dns->set('site.test' => {A => ['127.0.0.1']});
$hd->write('users', "jane:{PLAIN}secret\n");
chmod 0777, $hd->dir . '/echo';
$hd->start;

my ($to, $nowhere) = map { '127.0.0.1:' . $hd->port($_) } 'echo', 'nowhere';

# A tunnel over HTTP/1, or the status that was answered in its place.
sub tunnel {
    my ($port, $target, @fields) = @_;
    my $c = $hd->connect($port);
    $c->send("CONNECT $target HTTP/1.1\r\nHost: $target\r\n" . join('', map { "$_\r\n" } @fields) . "\r\n");
    my $head = $c->read_until(qr/\r\n\r\n/);
    return ($c, $head) if wantarray;
    my ($status) = $head =~ m{^HTTP/1.1 (\d+)};
    return $status == 200 ? $c : $status;
}

# Who the server saw through it, or the status.
sub seen { my $c = tunnel(@_); return $c unless ref $c; return $c->read_until(qr/\n/) =~ s/\n//r }

sub logged { my ($re) = @_; return $hd->wait_for(sub { $hd->file('access.log') =~ $re && $& }, "$re in the access log") }

# ---- where to

{
    my ($c, $head) = tunnel(0, $to, 'X: y');
    like $head, qr{^HTTP/1.1 200 }, 'HTTP/1: a tunnel to whom the client names';
    unlike $head, qr/^(?:Content-Length|Transfer-Encoding|Connection):/mi, 'whose answer has no body';
    is $c->read_until(qr/\n/), "127.0.0.1\n", 'the server may speak first';
    $c->send('abc');
    is $c->read_bytes(3), 'ABC', 'bytes pass';
    my $much = join '', map { chr(97 + $_ % 26) } 1 .. 2_000_000;
    my $child = fork // die "fork: $!";
    if (!$child) { $c->send($much); POSIX::_exit(0) }
    is $c->read_bytes(length $much), uc $much, 'many of them, both ways at once';
    waitpid $child, 0;
    $c->shutdown_write;
    is $c->read_all, 'END', 'the client has closed its half, and gets the rest';
    my $n = 3 + length $much;
    my $back = $n + length("127.0.0.1\n") + 3;
    is logged(qr/^CONNECT \Q$to\E .* \d+$/m), "CONNECT $to HTTP/1.1 200 $to 200 $n $back $back", 'the log has bytes both ways';
}
{
    my $c = tunnel(0, $to);
    $c->read_until(qr/\n/);
    $c->send('quit');
    is $c->read_all, 'QUIT', 'the server has closed its half';
}
{
    my $c = $hd->connect(0);
    $c->send("CONNECT $to HTTP/1.1\r\nHost: $to\r\n\r\nearly");
    $c->shutdown_write;
    like $c->read_all, qr{^HTTP/1.1 200 .*\r\n\r\n127.0.0.1\nEARLYEND$}s, 'bytes and an end that come with the head';
}
{
    my $c = $hd->connect(0);
    $c->send("CONNECT $to HTTP/1.0\r\n\r\n");
    like $c->read_until(qr/\n127.0.0.1\n/), qr{^HTTP/1.1 200 }, 'HTTP/1.0, which many tools speak';
}
is seen(0, 'site.test:' . $hd->port('echo')), '127.0.0.1', 'a name, by the resolver';
is tunnel(0, 'gone.test:' . $hd->port('echo')), 502, 'an unknown name';
is tunnel(0, $nowhere), 502, 'nobody listens there';
is seen(1, 'ignored:1'), '127.0.0.1', 'an upstream, whose first server fails: the next one';
is join(' ', sort map { my $r = tunnel(2, 'ignored:1'); ref $r ? 'open' : $r } 1, 2), '502 open', 'tunnel_next_upstream off: who begins with the other one';
is seen(5, 'a:1', "X-To: $to"), '127.0.0.1', 'a variable: an address';
is seen(5, 'a:1', 'X-To: site.test:' . $hd->port('echo')), '127.0.0.1', '... a name';
is seen(5, 'a:1', 'X-To: unix:' . $hd->dir . '/echo'), 'unix', '... a unix socket';
is seen(5, 'a:1', 'X-To: two'), '127.0.0.1', "... an upstream's name";
for my $wrong ('', 'a', '127.0.0.1', '127.0.0.1:0', '127.0.0.1:70000', 'a b:1', 'http://a:1', 'unix:/nowhere/x') {
    is tunnel(5, 'a:1', "X-To: $wrong"), 502, "... \"$wrong\": 502";
}

# ---- who may

is seen(3, 'a:1'), '127.0.0.5', 'tunnel_allow_upstream is asked for each server, as is tunnel_bind_dynamic';
logged(qr/^CONNECT a:1 HTTP\S+ 200 127.0.0.2:\d+, 127.0.0.1:\d+ 403, 200 /m) for 1;
pass 'the log tells that one was denied';
is seen(4, $to), '127.0.0.6', 'tunnel_allow_upstream holds; tunnel_bind';
is tunnel(4, 'a:1'), 403, 'it does not: 403';
ok $hd->wait_log(qr/access to the upstream forbidden by "allow_upstream"/), 'which the error log tells';
is seen(6, $to), '127.0.0.1', 'if (…) { return 502; } lets by';
is tunnel(6, 'a:1'), 502, '... and refuses';
is $hd->get('/', {port => 6})->body, 'CONNECT only', 'other methods as the location says';
is $hd->get('/', {port => 0})->status, 405, 'by default they get 405';
is $hd->post('/', 'body', {port => 0})->status, 405, 'whatever they bring';
is $hd->get('/other', {port => 0})->body, 'no tunnel', 'other locations are not tunnels';
for my $port (10, 12) {
    my ($c, $head) = tunnel($port, $to);
    like $head, qr{^HTTP/1.1 405 }, "port $port: no tunnel in its location, or in its server";
    $c->read_all;
    ok $c->is_eof, 'and the connection is of no further use';
}
is_deeply [$hd->requests(11)], [], 'proxy_pass passes no CONNECT on';

is $hd->get('/', {port => 14})->body, '127.0.0.1 asked from 127.0.0.5', 'proxy_allow_upstream, proxy_bind_dynamic: the same';
is $hd->get('/no', {port => 14})->status, 403, '... a condition that fails';
is $hd->get('/no?may=1', {port => 14})->status, 200, '... all hold';
is $hd->post('/t.S/M', '', {port => 14}, 'Content-Type' => 'application/grpc')->header('grpc-status'), 7, 'grpc_allow_upstream: PERMISSION_DENIED';

{
    my ($c, $head) = tunnel(7, $to);
    like $head, qr{^HTTP/1.1 407 .*^Proxy-Authenticate: Basic realm="a proxy"\r$}ms, 'auth_basic asks as a proxy does';
    unlike $head, qr/^WWW-Authenticate/mi, 'not as a server does';
    is tunnel(7, $to, 'Authorization: Basic ' . encode_base64('jane:secret', '')), 407, "the server's credentials aren't the proxy's";
    is tunnel(7, $to, 'Proxy-Authorization: Basic ' . encode_base64('jane:wrong', '')), 407, 'a wrong password';
    is seen(7, $to, 'Proxy-Authorization: Basic ' . encode_base64('jane:secret', '')), '127.0.0.1', 'the right one';
    is $hd->get('/', {port => 7})->body, 'said by a page', 'other methods: 401, of which a page tells';
    ($c, $head) = tunnel(13, $to);
    like $head, qr{^HTTP/1.1 407 .*^Proxy-Authenticate: Basic realm="any"\r$}ms, 'satisfy any: who may try again is told so';
    is seen(13, $to, 'Proxy-Authorization: Basic ' . encode_base64('jane:secret', '')), '127.0.0.1', '... and one of both is enough';
}
for my $bad ('a', 'a:', 'a:0', 'a:65536', 'a:x', '[::1]', ':1', 'a:1:2', '/x', 'http://a:1/') {
    is tunnel(0, $bad), 400, "CONNECT $bad: 400";
}

# ---- HTTP/2

sub fields { Heddle::H2::fields(':method', 'CONNECT', ':authority', @_) }

for my $how ('plain', 'TLS') {
    my $h = Heddle::H2->new($hd->port($how eq 'TLS' ? 9 : 0), $how eq 'TLS' ? (tls => {alpn => 'h2'}) : ());
    $h->frame('HEADERS', 4, 1, fields($to));
    $h->frame('DATA', 0, 1, 'bytes');
    $h->until(sub { ($h->{streams}{1}{body} // '') eq "127.0.0.1\nBYTES" });
    is $h->{streams}{1}{status}, 200, "HTTP/2, $how: a tunnel";
    $h->frame('DATA', 1, 1, 'more');
    is $h->response(1)->{body}, "127.0.0.1\nBYTESMOREEND", 'to its end';
    $h->frame('HEADERS', 4, 3, fields($nowhere));
    is $h->response(3)->{status}, 502, 'beside one that fails';
    $h->frame('HEADERS', 4, 5, fields('a:'));
    is $h->response(5)->{status}, 400, 'and one without a port';
    $h->request(7, '/other', end => 1);
    is $h->response(7)->{body}, 'no tunnel', 'and a request';
}

# ---- as programs use it

my @curl = ('--cacert', $cert->{chain} // $cert->{cert}, '-sS', '--noproxy', '', '--max-time', 60);
my $url = 'https://site.test:' . $hd->port('tls') . '/';
my $ca = $hd->make_ca('root')->{cert};
is $hd->curl('-k', '-sS', '-x', 'http://127.0.0.1:' . $hd->port(0), $url), 'inside for site.test ', 'curl, TLS inside';
is $hd->curl('-k', '-sS', '-x', 'http://jane:secret@127.0.0.1:' . $hd->port(7), $url), 'inside for site.test ', '... with a password';
is $hd->curl('-k', '-sS', '--proxy-insecure', '-x', 'https://127.0.0.1:' . $hd->port(9), $url), 'inside for site.test ', '... TLS around it, too';
SKIP: {
    skip 'curl speaks no HTTP/2 to proxies', 1 unless `curl --help all` =~ /--proxy-http2/;
    is $hd->curl('-k', '-sS', '--proxy-insecure', '--proxy-http2', '-x', 'https://127.0.0.1:' . $hd->port(9), $url), 'inside for site.test ', '... by HTTP/2';
}

# ---- time

{
    my $c = tunnel(8, $to);
    like $c->read_all, qr{^(?:127.0.0.1\n)?\z}, 'tunnel_read_timeout: one in which nothing goes is ended';
    ok $hd->wait_log(qr/nothing was sent either way for too long/), 'which the error log tells';
}
done_testing;
