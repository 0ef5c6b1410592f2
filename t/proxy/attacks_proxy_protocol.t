#!/usr/bin/perl
# Attacks by way of the PROXY protocol: a forged head on a port that doesn't ask for one, none where one
# is asked for, a second one, one that never ends, lengths that lie, and addresses in it that only a
# trusted proxy may say.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(log_level => 'info', modules => ['access'])->conf(<<'EOC');
http {
    client_header_timeout 1s;
    server { listen 127.0.0.1:%%PORT_0%%; return 200 "plain $remote_addr"; }
    server {
        listen 127.0.0.1:%%PORT_1%% proxy_protocol;
        location / { return 200 "proxied $remote_addr $proxy_protocol_addr"; }
        location /inner { deny 10.0.0.0/8; allow 127.0.0.1; deny all; return 200 "in"; }
    }
}
EOC
$hd->start;

my $get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
my $sig = "\r\n\r\n\0\r\nQUIT\n";
my $v2 = $sig . "\x21\x11\0\x0c" . pack('C4C4nn', 10, 0, 0, 1, 10, 0, 0, 2, 1234, 80);

is $hd->raw("PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n$get", 0) =~ /200 OK/ ? 1 : 0, 0, 'a head where none is asked for is a bad request';
is $hd->raw("$v2$get", 0) =~ /200 OK/ ? 1 : 0, 0, 'in version 2, too';
like $hd->raw("PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n$get", 1), qr/10\.0\.0\.1$/, 'one where it is asked for';
like $hd->raw("$v2$get", 1), qr/10\.0\.0\.1$/, 'in version 2';
my %bad = (
    'none' => $get,
    'a second one' => "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nPROXY TCP4 127.0.0.1 10.0.0.2 1 2\r\n$get",
    'one behind one of version 2' => "${v2}PROXY TCP4 127.0.0.1 10.0.0.2 1 2\r\n$get",
    'a name for an address' => "PROXY TCP4 localhost 10.0.0.2 1 2\r\n$get",
    'a port beyond' => "PROXY TCP4 10.0.0.1 10.0.0.2 65536 2\r\n$get",
    'another family' => "PROXY TCP4 ::1 10.0.0.2 1 2\r\n$get",
    'too long a line' => 'PROXY TCP4 ' . '1' x 200 . "\r\n$get",
    'a bare line end' => "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n$get",
    'lower case' => "proxy TCP4 10.0.0.1 10.0.0.2 1 2\r\n$get",
    'a length below its addresses' => "$sig\x21\x11\0\x04" . pack('C4', 10, 0, 0, 1) . $get,
    'a length that takes the request along' => "$sig\x21\x11\xff\xff" . ('x' x 100) . $get,
    'an unknown version' => "$sig\x31\x11\0\x0c" . ('x' x 12) . $get,
    'an unknown command' => "$sig\x2f\x11\0\x0c" . ('x' x 12) . $get,
    'a TLV beyond its end' => "$sig\x21\x11\0\x10" . ("\1" x 12) . "\x04\xff\xff\x01$get",
);
for my $what (sort keys %bad) {
    my $said = $hd->raw($bad{$what}, 1);
    unlike $said, qr/200 OK/, "$what: nothing is served";
}
# slow ones, and ones that never end
for my $part ('PROXY TCP4 10.0.0.1', substr($v2, 0, 14), $sig) {
    my $c = $hd->connect(1);
    $c->send($part);
    ok $c->is_eof, 'half a head: closed in the end';
}
# what the head says is not what decides who is let in, unless configuration says so
like $hd->raw("PROXY TCP4 127.0.0.1 10.0.0.2 1 2\r\n" . $get =~ s{GET /}{GET /inner}r, 1), qr/200 OK.*in$/s, 'who connected is from here';
my $said = $hd->raw("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" . $get =~ s{GET /}{GET /inner}r, 1);
like $said, qr/^HTTP\/1\.1 (?:200|403)/, 'a head can but lower a client\'s rights' or diag $said;
like $hd->get('/')->body, qr/^plain 127\.0\.0\.1$/, 'others are served';
done_testing;
