#!/usr/bin/perl
# Messages between client and upstream: framing both ways, trailers, HEAD, HTTP/1.0, keep-alive,
# pipelining, 100-continue, half-close (RFC 9112 §6-§9, RFC 9110 §10.1.1).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    keepalive_requests 20;
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        client_max_body_size 100;
        location / { proxy_pass http://u; proxy_http_version 1.1; }
        location /deny { return 403 "no"; }
        location /half { proxy_pass http://u; proxy_http_version 1.1; proxy_ignore_client_abort on; }
    }
}
EOC
$hd->backend(1, sub {
    my ($req) = @_;
    my ($how) = $req->{uri} =~ m{^/(\w+)};
    return {raw => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            . "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 77\r\n\r\n"} if $how eq 'chunked';
    return {raw => "HTTP/1.1 200 OK\r\n\r\nuntil close", close => 1} if $how eq 'close';
    return {raw => "HTTP/1.0 200 OK\r\n\r\nold", close => 1} if $how eq 'old';
    return {raw => "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"}
        if $how eq 'hints';
    return {raw => "HTTP/1.1 204 No Content\r\n\r\n"} if $how eq 'none';
    return {raw => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n"} if $how eq 'same';
    return {raw => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"} if $req->{method} eq 'HEAD';
    return {hang => 1} if $how eq 'hang';
    return [200, {}, "$req->{method} $req->{uri} [$req->{body}]" . ($req->{trailers} // '')];
});
$hd->start;

sub sent { [$hd->requests(1)]->[-1] }
my $r;

# ---- framing of responses

my $c = $hd->connect;
$r = $c->request('GET', '/chunked');
is $r->body, 'abcde', 'a chunked response';
like $r->trailers, qr/^X-Sum: 5\r$/m, 'with its trailer';
unlike $r->trailers, qr/Content-Length/i, 'a framing field among the trailers is dropped (RFC 9110 §6.5.1)';
$r = $c->request('GET', '/close');
is $r->body, 'until close', 'a body that ends with the connection';
is $r->header('transfer-encoding'), 'chunked', 'is chunked to an HTTP/1.1 client';
$r = $c->request('GET', '/old');
is $r->body, 'old', 'from an HTTP/1.0 upstream, too';
$r = $c->request('HEAD', '/x');
is $r->header('content-length'), 9, 'HEAD: the length a GET would have had, and no body';
$r = $c->request('GET', '/none');
is $r->status . ($r->header('content-length') // '-') . ($r->header('transfer-encoding') // '-'), '204--', '204 has no framing';
$r = $c->request('GET', '/same');
is $r->status, 304, '304 has no body, whatever it says';
$c->send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n");
is $c->response->status, 103, 'an interim response is passed on';
is $c->response->body, 'ok', 'before the final one';
$r = $c->request('GET', '/chunked', {version => '1.0'});
is $r->body . ($r->header('transfer-encoding') // '-'), 'abcde-', 'to HTTP/1.0 the body ends with the connection';
ok $c->is_eof, 'which ends';

# ---- framing of requests

$c = $hd->connect;
$r = $c->request('POST', '/x', {body => "3\r\nabc\r\n2;a=\"b\"\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"},
    'Transfer-Encoding' => 'Chunked', Trailer => 'X-Sum');
is $r->body, "POST /x [abcde]X-Sum: 5\r\n", 'a chunked request with trailers';
$r = $c->request('POST', '/x', {body => "3\r\nabc\r\n0\r\n\r\n"}, 'Transfer-Encoding' => 'chunked');
is $r->body, 'POST /x [abc]', 'one without';
$r = $c->request('POST', '/x', {body => ''});
is sent()->header('content-length'), 0, 'an empty body stays one';
$r = $c->request('GET', '/x', Connection => 'close, X-Hop', 'X-Hop' => 'secret', 'Keep-Alive' => '9', TE => 'gzip');
unlike sent()->{head}, qr/x-hop|keep-alive|^te:|close/mi, 'hop-by-hop fields end here (RFC 9110 §7.6.1)';
ok $c->is_eof, 'Connection: close closes';
unlike $r->head, qr/keep-alive/i, 'and the answer says so';

# ---- HTTP/1.0

$c = $hd->connect;
for my $i (1, 2) {
    $r = $c->request('GET', "/k$i", {version => '1.0'}, Connection => 'keep-alive');
    is $r->body . $r->header('connection'), "GET /k$i []keep-alive", "HTTP/1.0 keep-alive, request $i";
}
$r = $c->request('GET', '/k3', {version => '1.0'}, Host => undef);
is $r->header('connection'), 'close', 'without the field it is over';
ok $c->is_eof, 'and closed';

# ---- pipelining

$c = $hd->connect;
$c->send(join '', "\r\n", map { "POST /p$_ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n" . sprintf '%02d', $_ } 1 .. 15);
my @got = map { $c->response->body } 1 .. 15;
is_deeply \@got, [map { sprintf 'POST /p%d [%02d]', $_, $_ } 1 .. 15], 'fifteen requests in one packet, answered in their order';
my $bytes = join '', map { "GET /s$_ HTTP/1.1\r\nHost: a\r\n\r\n" } 1 .. 10;
$c->send($_) for $bytes =~ /(.{1,7})/gs;
@got = map { my $r = $c->response; $r ? $r->body . ($r->header('connection') // '') : () } 1 .. 10;
is_deeply \@got, [(map { "GET /s$_ []" } 1 .. 4), 'GET /s5 []close'],
    'in small pieces; keepalive_requests ends the connection at the twentieth';

# ---- 100-continue

$c = $hd->connect;
$c->send("POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
is $c->response->status, 100, '100 when the body is wanted';
$c->send('hi');
is $c->response->body, 'POST /e [hi]', 'then the answer';
$c->send("POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nho");
is $c->response->body, 'POST /e [ho]', 'no 100 where the body is there already';
for my $uri ('/deny', '/e') {
    my $len = $uri eq '/e' ? 101 : 50;
    $c = $hd->connect;
    $c->send("POST $uri HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: $len\r\n\r\n");
    $r = $c->response;
    is $r->status . $r->header('connection'), ($uri eq '/e' ? '413' : '403') . 'close',
        "refused without having asked for the body ($uri), and closed: what follows can't be told from a body";
    ok $c->is_eof, 'closed';
}
$r = $hd->request('POST', '/e', {body => 'x', version => '1.0'}, Expect => '100-continue');
is $r->body, 'POST /e [x]', 'not to HTTP/1.0';

# ---- half-close

$c = $hd->connect;
$c->send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
$c->shutdown_write;
is $c->response->body, 'GET /half []', 'proxy_ignore_client_abort: who only reads gets its answer';
ok $c->is_eof && !$c->was_reset, 'and an end without a reset';
$c = $hd->connect;
$c->send("GET /half1 HTTP/1.1\r\nHost: a\r\n\r\nGET /half2 HTTP/1.1\r\nHost: a\r\n\r\n");
$c->shutdown_write;
is $c->response->body . $c->response->body, 'GET /half1 []GET /half2 []', 'also to pipelined requests';
ok $c->is_eof && !$c->was_reset, 'and an end';
$c = $hd->connect;
$c->send("POST /half3 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
$c->shutdown_write;
is $c->read_all, '', 'an end within a request is no request';
$c = $hd->connect;
$c->send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
$hd->wait_for(sub { sent()->{uri} eq '/hang' }, 'a request upstream');
$c->close;
$hd->wait_log(qr/client closed the connection.*"GET \/hang HTTP/);
pass 'a client that closes while it waits is let go of, and its request with it';

done_testing;
