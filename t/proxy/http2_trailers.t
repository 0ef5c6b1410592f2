#!/usr/bin/perl
# Trailers where one side or both speak HTTP/2, in both directions, and TE, by which a client says that it
# takes them (RFC 9110 §6.5, RFC 9113 §8.1).
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
http {
    http2 on;
    access_log off;
    proxy_request_buffering off;
    proxy_buffering off;
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:%%PORT_9%%; } }
    server { listen 127.0.0.1:%%PORT_1%%; location / { proxy_pass http://127.0.0.1:%%PORT_0%%; proxy_http_version 2; } }
}
EOC
# Answers in chunks, with trailers, and tells in its body what came.
$hd->tcp_backend(9, sub {
    my ($sock) = @_;
    my $got = '';
    while ($got !~ /\r\n\r\n/ || ($got =~ /^Transfer-Encoding: chunked/mi && $got !~ /\r\n0\r\n(?:[^\r]+\r\n)*\r\n\z/)) {
        sysread($sock, $got, 4096, length $got) or return;
    }
    syswrite $sock, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n"
        . sprintf("%x\r\n%s\r\n0\r\nx-sum: 42\r\nx-more: yes\r\n\r\n", length $got, $got);
});
$hd->start;

for my $port (0, 1) {
    my $to = $port ? 'HTTP/2, HTTP/2, HTTP/1' : 'HTTP/2, HTTP/1';
    my $c = Heddle::H2->new($hd->port($port));
    $c->request(1, '/', method => 'POST', end => 0, fields => ['te', 'trailers']);
    $c->frame('DATA', 0, 1, 'a body');
    $c->frame('HEADERS', 5, 1, Heddle::H2::fields('x-check', 'good'));
    my $r = $c->response(1);
    is $r->{status}, 200, "$to: answered";
    like $r->{body}, qr/\r\n6\r\na body\r\n0\r\nx-check: good\r\n\r\n/, "$to: the request's trailers";
    ok length($r->{trailers} // ''), "$to: the response has trailers";
    $c->request(3, '/');
    $r = $c->response(3);
    unlike $r->{body}, qr/^te: (?!trailers)/mi, "$to: TE says nothing else";
    is $r->{status}, 200, "$to: without a body";

    my $bad = Heddle::H2->new($hd->port($port));
    $bad->request(1, '/', fields => ['te', 'gzip']);
    is $bad->response(1)->{reset}, 'PROTOCOL_ERROR', "$to: TE of anything but trailers is malformed";
}

my $h1 = $hd->connect(1);
$h1->send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n"
    . "6\r\na body\r\n0\r\nx-check: good\r\n\r\n");
my $r = $h1->response;
like $r->{body}, qr/\r\n6\r\na body\r\n0\r\nx-check: good\r\n\r\n/, "HTTP/1, HTTP/2, HTTP/1: the request's trailers";
like $r->{trailers}, qr/^x-sum: 42\r\nx-more: yes/mi, "and the response's";
done_testing;
