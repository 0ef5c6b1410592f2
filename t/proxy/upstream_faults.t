#!/usr/bin/perl
# Upstreams that refuse, reset, hang, answer garbage, close in the middle or send huge heads:
# the client gets the right 5xx, or learns that its answer was cut, and the next request is well.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
http {
    proxy_http_version 1.1;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_read_timeout 300ms; proxy_send_timeout 300ms; }
        location /refused { proxy_pass http://127.0.0.1:%%PORT_none%%; }
        location /full { proxy_pass http://127.0.0.1:%%PORT_full%%; proxy_connect_timeout 100ms; }
    }
}
EOC

# A listener whose queue is full: SYNs are dropped, connecting takes for ever.
my $full = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $hd->port('full'), Listen => 1, ReuseAddr => 1);
my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $hd->port('full'), Blocking => 0) } 1 .. 8;

my $ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
my %raw = ( # what the upstream sends, then it closes
    nothing => '',
    half_head => "HTTP/1.1 200 OK\r\nContent-Le",
    garbage => "\x16\x03\x01 garbage\r\n\r\n",
    bare_lf => "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    http2 => "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    status_four => "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    status_99 => "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    fold => "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    space_colon => "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    nul => "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok",
    two_lengths => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    cl_and_te => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    bad_length => "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    te_gzip => "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    unasked_101 => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    huge_head => "HTTP/1.1 200 OK\r\nX: " . 'a' x 90000 . "\r\nContent-Length: 2\r\n\r\nok",
    many_fields => "HTTP/1.1 200 OK\r\n" . join('', map { "X$_: y\r\n" } 1 .. 2000) . "Content-Length: 2\r\n\r\nok",
    long_interims => ("HTTP/1.1 103 Early Hints\r\nX: " . 'y' x 20000 . "\r\n\r\n") x 11 . $ok,
    interims => "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" x 5000 . $ok,
);
my %cut = ( # after the head it is too late for a 502
    short => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    short_chunk => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
    no_last_chunk => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    bad_chunk => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n",
    bad_trailer => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nno colon\r\n\r\n",
);
my %more = ( # the message is good, what stands behind it isn't its business
    excess => "${ok}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    after_204 => "HTTP/1.1 204 No Content\r\n\r\npoison",
    large_head => "HTTP/1.1 200 OK\r\nX: " . 'a' x 70000 . "\r\nContent-Length: 2\r\n\r\nok",
);
$hd->backend(1, sub {
    my ($req) = @_;
    my ($how) = $req->{uri} =~ m{^/(\w+)};
    return {raw => $raw{$how}, close => 1} if exists $raw{$how};
    return {raw => $cut{$how}, close => $req->{uri} !~ /stay/} if $cut{$how};
    return {raw => $more{$how}} if $more{$how};
    return {reset => 1} if $how eq 'reset';
    return {hang => 1} if $how eq 'hang';
    return {raw => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"} if $how eq 'stall';
    return {raw => "HTTP/1.1 200 OK\r\n\r\nall", close => 1} if $how eq 'until_close';
    return [200, {}, 'well'];
});
$hd->start;

my $c = $hd->connect;
my $statuses = sub { join ' ', map { $_ ? $_->status : 'closed' } @_ };
for my $how (sort keys %raw) {
    $c->send("GET /$how HTTP/1.1\r\nHost: a\r\n\r\n");
    my $r = $c->response;
    $r = $c->response while $r && $r->status == 103;
    is $statuses->($r), 502, "$how: 502";
    is $c->request('GET', '/well')->body, 'well', 'and the next on this connection is well';
}
is $c->request('GET', "/$_->[0]")->status, $_->[1], "$_->[0]: $_->[1]"
    for ['refused', 502], ['reset', 502], ['hang', 504], ['full', 504];
is $c->request('POST', '/hang', {body => 'x' x 100000})->status, 504, 'a hang with a body: 504';
is $c->request('GET', '/until_close')->body, 'all', 'an end that is one';

for my $how (sort keys %cut) {
    my $c = $hd->connect;
    $c->send("GET /$how HTTP/1.1\r\nHost: a\r\n\r\n");
    my $r = $c->response;
    ok $r->is_cut && $r->status == 200, "$how: the client sees that it was cut";
    like $r->body, qr/^(?:half)?$/, 'with nothing made up';
    $c = $hd->connect; # without chunks and without a length, only a reset tells
    $c->send("GET /$how HTTP/1.0\r\nHost: a\r\n\r\n");
    ok $c->response->is_cut || $c->was_reset, 'by HTTP/1.0, too';
    my $h2 = Heddle::H2->new($hd->port(0));
    $h2->request(1, "/$how");
    $r = $h2->response(1);
    is_deeply [@$r{'status', 'body', 'reset'}], [200, 'half', 'INTERNAL_ERROR'], 'by HTTP/2: what there was of it, then a reset';
}
$c = $hd->connect;
$c->send("GET /stall HTTP/1.1\r\nHost: a\r\n\r\n");
ok $c->response->is_cut, 'a stall within a body: cut after proxy_read_timeout';

$c = $hd->connect;
for my $how (sort keys %more) {
    my $r = $c->request('GET', "/$how");
    is $r->status . $r->body, $how eq 'after_204' ? '204' : '200ok', "$how: as it is";
    is $c->request('GET', '/well')->body, 'well', 'and nothing of the rest is taken for another\'s answer';
}

done_testing;
