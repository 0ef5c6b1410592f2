#!/usr/bin/perl
# HTTP/1.0 by xDS as in Envoy: 426 where accept_http_10 isn't set, whatever the request; where it is, a request
# without Host is default_host_for_http_10's, or 400. HTTP/1.1 and HTTP/2 don't care.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS ();

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
$hd->echo_server(9);
my $xds = Heddle::Xds->new($hd, 'xds');
my $true = JSON::XS::true;
my @options = ({}, {accept_http_10 => $true}, {accept_http_10 => $true, default_host_for_http_10 => 'Old.example'});
my $routes = Heddle::Xds::routes('in', ['/' => 'web']);
sub resources {
    my (@of) = @_;
    return (CDS => [Heddle::Xds::cluster('web', $hd->port(9))],
        LDS => [map { Heddle::Xds::listener("front-$_", $hd->port($_), route_config => $routes, http_protocol_options => $of[$_]) } 0 .. $#of]);
}
$xds->serve(resources(@options))->start;
$hd->start;
for my $n (0 .. $#options) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($n)) }, 'the listener') }

# Status line and fields, and whether the connection ended.
sub ask {
    my ($n, $text) = @_;
    my $c = $hd->connect($n);
    $c->send($text);
    return $c->response;
}

for my $row (['a GET', "GET / HTTP/1.0\r\nHost: a\r\n\r\n"], ['without Host', "GET / HTTP/1.0\r\n\r\n"],
    ['that would stay', "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"],
    ['with a body', "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"]) {
    my $r = ask(0, $row->[1]);
    is $r->status, 426, "not accepted: $row->[0]";
    is $r->header('Upgrade'), 'HTTP/1.1', 'what would be';
    is $r->header('Connection'), 'close, upgrade', 'and the connection ends';
}
$hd->wait_log(qr/client sent invalid request: HTTP\/1\.0, and accept_http_10 isn't set.*details: "low_version"/);
is $hd->requests(9), 0, 'nothing of it went upstream';
is ask(0, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")->status, 200, 'HTTP/1.1';
my $c = Heddle::H2->new($hd->port(0));
$c->request(1, '/');
is $c->response(1)->{status}, 200, 'HTTP/2';

is ask(1, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")->status, 200, 'accepted';
is ask(1, "GET / HTTP/1.0\r\n\r\n")->status, 400, 'but not without Host';
like ask(2, "GET / HTTP/1.0\r\n\r\n")->body, qr/^Host: old\.example\r?$/mi, 'which may be set';
like ask(2, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")->body, qr/^Host: a\r?$/mi, 'for who has none';
is ask(2, "GET / HTTP/1.1\r\n\r\n")->status, 400, 'HTTP/1.1 without Host is none';

$xds->serve(resources(@options[0, 1], {accept_http_10 => $true, default_host_for_http_10 => 'a b'}));
ok $xds->wait_nack('LDS', qr/default_host_for_http_10 "a b" is no host/), 'a default that is no host';
$hd->stop;
done_testing;
