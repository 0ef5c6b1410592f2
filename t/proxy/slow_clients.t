#!/usr/bin/perl
# Clients that send or read too slowly: client_header_timeout, client_body_timeout, send_timeout,
# keepalive_timeout (slowloris, slow body, slow read); and those that are slow but steady, whom no time-out may meet.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    client_header_timeout 300ms;
    client_body_timeout 300ms;
    send_timeout 300ms;
    keepalive_timeout 300ms;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; }
        location /late { client_body_timeout 60s; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /tick { proxy_pass http://127.0.0.1:%%PORT_3%%; }
        location /stream { proxy_request_buffering off; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
    server { listen 127.0.0.1:%%PORT_2%%; http2 on; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
}
EOC
my $big = 'x' x 20_000_000;
$hd->backend(1, sub {
    my ($req) = @_;
    return {status => 200, body => 'late', after => 1} if $req->{uri} =~ /answer/;
    return [200, {}, $req->{uri} =~ /big/ ? $big : length $req->{body}];
});
$hd->backend(3, sub { {status => 200, body => '', after => 0.1} });
$hd->start;

sub status_of { my $r = $_[0]->response; return $r ? $r->status : 'closed' }

# ---- time-outs

for my $port (0, 2) {
    my $c = $hd->connect($port);
    ok $c->is_eof, "port $port: a client that says nothing is closed";
    $c = $hd->connect($port);
    $c->send('GET / HT');
    is status_of($c), 408, 'half a head: 408';
    ok $c->is_eof, 'and closed';
    $c = $hd->connect($port);
    $c->send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    is status_of($c), 408, 'half a body: 408';
    ok $c->is_eof, 'and closed';
    $c = $hd->connect($port);
    $c->send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha");
    is status_of($c), 408, 'half a chunk: 408';
    $c = $hd->connect($port);
    is $c->request('GET', '/')->status, 200, 'after an answer';
    ok $c->is_eof, 'an idle client is closed, too';
    $c = $hd->connect($port);
    is $c->request('GET', '/')->status, 200, 'after an answer';
    $c->send("GET / HTTP/1.1\r\nHost:");
    is status_of($c), 408, 'half a second head';
}
my $c = $hd->connect;
$c->send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
$c->read_bytes(1000);
$hd->wait_log(qr/client (?:timed out|doesn't read)/);
pass 'a client that doesn\'t read is given up';
is $c->read_all =~ tr/x// < length $big, 1, 'and gets no more';

# ---- slow but steady: each step well within the time-out, all together far beyond

sub step { $hd->get('/tick') } # a tenth of a second, by the upstream's clock

my $steady = sub {
    my ($name, $head, @pieces) = @_;
    my $c = $hd->connect;
    $c->send($head);
    for (@pieces) { step(); $c->send($_) }
    my $r = $c->response;
    is $r ? $r->status : 'closed', 200, $name;
};
$steady->('a body in ten pieces', "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", ('x') x 10);
$steady->('chunks, byte by byte', "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    split //, "2\r\nab\r\n0\r\n\r\n");
is $hd->get('/answer')->body, 'late', 'a late answer is the upstream\'s matter';
$c = $hd->connect;
$c->send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha");
step() for 1 .. 6;
$c->send('lf');
is status_of($c), 200, 'a location\'s own client_body_timeout';
$c = $hd->connect;
$c->send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
my $n = 0;
for (1 .. 10) { step(); $n += $c->read_bytes(2_000_000) =~ tr/x// }
$n += $c->read_all =~ tr/x//;
is $n, length $big, 'a long answer, read slowly, whole';

done_testing;
