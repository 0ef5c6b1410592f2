#!/usr/bin/perl
# Requests that can't be read with one meaning, or that are beyond a limit: the right 4xx or
# 5xx, once, a closed connection, and nothing of them reaches an upstream.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::XS ();

my $by_file = Heddle->new->conf(<<'EOC');
http {
    client_max_body_size 1000;
    large_client_header_buffers 4 8k;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /small { client_max_body_size 10; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
EOC

# The same by xDS, which has no limit of bodies.
my $by_xds = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($by_xds, 'xds')->serve(
    CDS => [Heddle::Xds::cluster('up', $by_xds->port(1))],
    LDS => [Heddle::Xds::listener('front', $by_xds->port(0), route_config => Heddle::Xds::routes('all', ['/' => 'up']),
        normalize_path => JSON::XS::true(), max_request_headers_kb => 32)],
);

my $get = "GET /bad HTTP/1.1\r\n";
my $post = "POST /bad HTTP/1.1\r\nHost: a\r\n";
my $chunked = "${post}Transfer-Encoding: chunked\r\n\r\n";
my @bad = (
    # RFC 9112 §2.2, §3: the request line and where lines end
    [400, 'bare LF', "GET /bad HTTP/1.1\nHost: a\n\n"],
    [400, 'LF within the head', "${get}Host: a\nX: y\r\n\r\n"],
    [400, 'bare CR in a value', "${get}Host: a\r\nX: a\rb\r\n\r\n"],
    [400, 'bare CR at a line\'s end', "${get}Host: a\r\r\n\r\n"],
    [400, 'no version', "GET /bad\r\n\r\n"],
    [400, 'two spaces', "GET  /bad HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'a space in the target', "GET /bad x HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'a leading space', " GET /bad HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'no token as method', "GE[T /bad HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'a target without a slash', "GET bad HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'a NUL in the target', "GET /bad\0 HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'a bad escape', "GET /bad%zz HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'an escaped NUL', "GET /bad%00 HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'above the root', "GET /../bad HTTP/1.1\r\nHost: a\r\n\r\n"],
    [400, 'a lower-case version', "GET /bad http/1.1\r\nHost: a\r\n\r\n"],
    [400, 'TLS to a plain port', "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"],
    [505, 'HTTP/2.0', "GET /bad HTTP/2.0\r\nHost: a\r\n\r\n"],
    [505, 'HTTP/0.9 by name', "GET /bad HTTP/0.9\r\nHost: a\r\n\r\n"],
    # §3.2: the host
    [400, 'no Host', "$get\r\n"],
    [400, 'two Hosts', "${get}Host: a\r\nHost: a\r\n\r\n"],
    [400, 'Host with a path', "${get}Host: a/b\r\n\r\n"],
    [400, 'Host with user info', "${get}Host: u\@a\r\n\r\n"],
    [400, 'CONNECT without a port', "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"],
    # §5: fields
    [400, 'obs-fold', "${get}Host: a\r\nX: a\r\n b\r\n\r\n"],
    [400, 'a fold as first line', "$get Host: a\r\n\r\n"],
    [400, 'a space before the colon', "${get}Host : a\r\n\r\n"],
    [400, 'a field without a colon', "${get}Host: a\r\nnonsense\r\n\r\n"],
    [400, 'a field without a name', "${get}Host: a\r\n: x\r\n\r\n"],
    [400, 'a NUL in a value', "${get}Host: a\r\nX: \0\r\n\r\n"],
    # §6: framing, where smuggling lives
    [400, 'CL and TE', "${post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    [400, 'two different CLs', "${post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"],
    [400, 'two equal CLs', "${post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"],
    [400, 'a CL list', "${post}Content-Length: 5, 5\r\n\r\nabcde"],
    (map { [400, "CL \"$_\"", "${post}Content-Length: $_\r\n\r\nabcde"] }
        '+5', '-5', '5 5', '0x5', '5.', '', '99999999999999999999'),
    [400, 'two TEs', "${post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    [400, 'TE in HTTP/1.0', "POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    [400, 'TE chunked twice', "${post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"],
    [400, 'TE with a control character', "${post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"],
    [501, 'an unknown coding', "${post}Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"],
    [501, 'a coding like chunked', "${post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"],
    # §7.1: chunks
    (map { [400, "chunk size \"$_->[0]\"", "$chunked$_->[1]"] }
        ['x', "x\r\n"], ['-1', "-1\r\n"], ['+5', "+5\r\nabcde\r\n0\r\n\r\n"], ['0x5', "0x5\r\n"],
        [' 5', " 5\r\nabcde\r\n"], ['5 ', "5 \r\nabcde\r\n0\r\n\r\n"], ['empty', "\r\n"],
        ['of 17 digits', "11111111111111111\r\n"], ['64 bits', "ffffffffffffffff\r\n"],
        ['line of bare LF', "5\nabcde\r\n0\r\n\r\n"], ['too small', "4\r\nabcde\r\n0\r\n\r\n"],
        ['too large', "6\r\nabcde\r\n0\r\n\r\n"], ['LF after it', "5\r\nabcde\n0\r\n\r\n"],
        ['bare CR in an extension', "5;a\rb\r\nabcde\r\n0\r\n\r\n"],
        ['extension without an end', '5;' . 'a' x 5000]),
    [400, 'a bad trailer', "${chunked}0\r\nno colon\r\n\r\n"],
    [400, 'a trailer with bare LF', "${chunked}0\r\nA: b\n\r\n"],
    # limits
    [413, 'a declared body', "${post}Content-Length: 1001\r\n\r\n"],
    [413, 'a huge declared body', "${post}Content-Length: 9223372036854775807\r\n\r\n"],
    [413, 'a declared body for the location', "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"],
    [413, 'a chunked body', $chunked . "64\r\n" . 'x' x 100 . "\r\n" . ("64\r\n" . 'x' x 100 . "\r\n") x 10 . "0\r\n\r\n"],
    [414, 'a long target', 'GET /' . 'a' x 40000 . " HTTP/1.1\r\nHost: a\r\n\r\n"],
    [414, 'a target without end', 'GET /' . 'a' x 40000],
    [431, 'a long field', "${get}Host: a\r\nX: " . 'a' x 40000 . "\r\n\r\n"],
    [431, 'a field without end', "${get}Host: a\r\nX: " . 'a' x 40000],
    [431, 'many fields', "${get}Host: a\r\n" . join('', map { "X$_: y\r\n" } 1 .. 1000) . "\r\n"],
    [431, 'much altogether', "${get}Host: a\r\n" . join('', map { "X$_: " . 'y' x 900 . "\r\n" } 1 .. 60) . "\r\n"],
);

sub check_all {
    my ($hd, $way, @rows) = @_;
    $hd->echo_server(1);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    for (@rows) {
        my ($status, $name, $bytes) = @$_;
        my $got = $hd->raw($bytes);
        my @heads = $got =~ m{^HTTP/1.1 (\d+)}mg;
        is "@heads", $status, "$way: $name";
        # what stands behind it was never looked at, split or not
        my $c = $hd->connect;
        my $half = int(length($bytes) / 2);
        $c->send(substr $bytes, 0, $half);
        $c->send(substr($bytes, $half) . ($bytes =~ /\r\n$/ ? "GET /second HTTP/1.1\r\nHost: a\r\n\r\n" : ''));
        @heads = $c->read_all =~ m{^HTTP/1.1 (\d+)}mg;
        is "@heads", $status, "$way: $name: in two pieces, with a second one behind";
    }
    is scalar(grep { $_->{head} =~ /bad|second|small/ } $hd->requests(1)), 0, "$way: none of them reached the upstream";
    is $hd->get('/good')->status, 200, "$way: a good one does";
    $hd->stop;
}

check_all($by_file, 'file', @bad);
SKIP: {
    skip $Heddle::Xds::missing if $Heddle::Xds::missing;
    $xds->start;
    check_all($by_xds, 'xds', grep { $_->[0] != 413 } @bad);
    $xds->stop;
}

# ---- limits: the log names the field and the directive

my $limits = Heddle->new->conf(<<'EOC');
http {
    large_client_header_buffers 2 1k;
    max_headers 10;
    server { listen 127.0.0.1:%%PORT_0%%; location / { return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_1%%; client_header_buffer_size 2k; location / { return 200 ok; } }
}
EOC
$limits->start;
is $limits->get('/', map { ("X-$_" => 1) } 1 .. 7)->status, 200, 'below the limits';
is $limits->get('/', map { ("X-$_" => 1) } 1 .. 20)->status, 431, 'too many fields';
ok $limits->wait_log(qr/client sent too many header lines: more than 10 \(max_headers\)/), 'and which limit that was';
is $limits->get('/', 'X-Small' => 1, 'X-Large' => 'x' x 1010, 'X-More' => 'x' x 1000)->status, 431, 'long fields';
ok $limits->wait_log(qr/client sent too long header line: "X-Large" in a head of more than 2048 bytes \(large_client_header_buffers\)/),
    'and which was the longest';
is $limits->get('/', 'X-Huge' => 'x' x 3000)->status, 431, 'a field beyond all';
$limits->raw("GET /endless HTTP/1.1\r\nhost: of.it \r\n" . "X: @{['x' x 900]}\r\n" x 4);
$limits->wait_log(qr{"GET /endless HTTP/1\.1", host: "of\.it"});
ok $limits->wait_log(qr/client sent too long header line: "X-Huge" of more than 1024 bytes \(large_client_header_buffers\)/), 'and which it was';

# A line has at most SIZE bytes with its CRLF; what is pipelined behind the head is none of it.
for my $n (1024, 1025) {
    my $is_long = $n > 1024;
    my $field = 'X-Line: ' . 'x' x ($n - 10) . "\r\n";
    my $line = 'GET /' . 'x' x ($n - 16) . " HTTP/1.1\r\n";
    my $next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Behind: " . 'x' x 900 . "\r\n\r\n";
    my $from = length $limits->log;
    is_deeply [$limits->raw("GET / HTTP/1.1\r\nHost: a\r\n$field\r\n$next") =~ m{HTTP/1.1 (\d+)}g], $is_long ? [431] : [200, 200], "a field of $n bytes";
    ok $limits->wait_for(sub { substr($limits->log, $from) =~ /too long header line: "X-Line" of more than 1024 bytes/ }, 'the log'), 'named'
        if $is_long;
    is_deeply [$limits->raw("${line}Host: a\r\n\r\n$next") =~ m{HTTP/1.1 (\d+)}g], $is_long ? [414] : [200, 200], "a request line of $n bytes";
}
ok $limits->wait_log(qr/client sent too long URI: a head of more than 1024 bytes \(large_client_header_buffers\)/), 'and which limit';
is $limits->request('GET', '/', {port => 1}, 'X-Line' => 'x' x 1500)->status, 200, 'client_header_buffer_size takes a longer line';

done_testing;
