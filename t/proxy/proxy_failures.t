#!/usr/bin/perl
# Why a request failed is in its log line: which side ended it, after how long, on a connection used
# before or not, with Envoy's response flags. And what of responses is refused: proxy_buffer_size,
# proxy_next_upstream invalid_header.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 10; }
    upstream pair { server 127.0.0.1:%%PORT_1%% weight=100 max_fails=0; server 127.0.0.1:%%PORT_2%%; }
    proxy_http_version 1.1; proxy_set_header Connection "";
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://u; proxy_read_timeout 200ms; }
        location /refused { proxy_pass http://127.0.0.1:%%PORT_none%%; }
        location /small { proxy_pass http://u; proxy_buffer_size 1k; }
        location /next { proxy_pass http://pair; proxy_next_upstream error invalid_header; }
        location /stay { proxy_pass http://pair; proxy_next_upstream error; }
        location /bind { proxy_pass http://u; proxy_bind 192.0.2.1; }
        location /nowhere { proxy_pass http://u; proxy_bind $arg_from; }
    }
}
EOC
$hd->backend(1, sub {
    my ($req) = @_;
    return {close => 1} if $req->{uri} =~ /closed/;
    return {reset => 1} if $req->{uri} =~ /reset/;
    return {hang => 1} if $req->{uri} =~ /hang/;
    return {raw => "nonsense\r\n\r\n", close => 1} if $req->{uri} =~ /nonsense/;
    return {raw => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", close => 1} if $req->{uri} =~ /half/;
    return {raw => "HTTP/1.1 200 OK\r\nX-Small: 1\r\nX-Huge: " . 'x' x 3000 . "\r\nContent-Length: 2\r\n\r\nok"} if $req->{uri} =~ /huge/;
    return [200, {}, 'well'];
});
$hd->backend(2, sub { [200, {}, 'second'] });
$hd->start;

my $conn = qr/\d+ ms after it was sent on a new connection/;
for my $case (
    ['/closed', 502, qr/upstream closed the connection before its response, $conn, .*flags: "UC"/],
    ['/reset', 502, qr/upstream reset the connection: recv\(\) failed: .*, $conn, .*flags: "UC"/],
    ['/hang', 504, qr/upstream timed out while reading response header from upstream, 2\d\d ms after .*flags: "UT"/],
    ['/nonsense', 502, qr/upstream sent an invalid response: .*, $conn, .*flags: "UPE"/],
    ['/refused', 502, qr/connect\(\) .*Connection refused.* while connecting to upstream, .*flags: "UF"/],
    ['/half', 200, qr/upstream closed the connection within its response, $conn, .*flags: "UC"/],
    ['/small/huge', 502,
        qr/upstream sent too big header while reading .*more than 1024 bytes \(proxy_buffer_size\).* the longest is "X-Huge", .*flags: "UPE"/],
    ['/bind', 502, qr/bind\(\).* while connecting to upstream/],
    ['/nowhere?from=nonsense', 500, qr/proxy_bind: "nonsense" is no address/],
) {
    my ($uri, $status, $line) = @$case;
    my $c = $hd->connect; # of its own: on a kept one of the upstream's it would be tried twice
    $c->send("POST $uri HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    is $c->response->status, $status, "$uri: $status";
    ok $hd->wait_log(qr/$line/), 'and why' or diag $hd->log;
    my ($path) = $uri =~ /^([^?]*)/;
    $hd->wait_log(qr/request: "POST \Q$path\E.*(?:, upstream: "https?:[^"]+")?, host: "a", flags:/);
}
is $hd->get('/')->body, 'well', 'one that is kept';
is $hd->request('POST', '/reset')->status, 502, 'then reset';
ok $hd->wait_log(qr/on a reused connection \(idle \d+ ms\)/), 'the log says that it was used before';
is $hd->get('/huge')->body, 'ok', 'a large head without proxy_buffer_size';
is $hd->get('/next/nonsense')->body, 'second', 'invalid_header: the next server is asked';
is $hd->get('/stay/nonsense')->status, 502, 'else not';

my $bad = sub {
    my ($line, $why) = @_;
    my ($status, $out) = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:1; $line; } } }")->run('-t');
    isnt $status, 0, $line;
    like $out, $why, 'with the reason';
};
$bad->('proxy_method "G T"', qr/"G T" is not a method/);
$bad->('proxy_bind nowhere', qr/heddle\.conf:\d+.*nowhere/);
$bad->('proxy_bind 127.0.0.1 opaque', qr/invalid parameter "opaque": transparent/);
$bad->('proxy_ignore_headers X-Any', qr/invalid value "X-Any"; allowed are/);
$bad->('proxy_cookie_flags a fresh', qr/invalid flag "fresh"; allowed are secure/);
$bad->('proxy_cookie_path on', qr/invalid parameter "on": off, or FROM TO/);
$bad->('proxy_http_version 3', qr/1\.0|allowed/);

done_testing;
