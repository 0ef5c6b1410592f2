#!/usr/bin/perl
# The PROXY protocol towards upstreams by xDS (ProxyProtocolUpstreamTransport; Istio's proxyProtocol,
# DR-PP-1): before anything else, TLS too; with the client's addresses; for HTTP, a conn carries the
# requests of one client alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Socket ();
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.example', dns => 'a.example');
$hd->conf(<<"EOC");
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }
http {
    server {
        listen 127.0.0.1:%%PORT_3%% ssl proxy_protocol;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        return 200 "\$proxy_protocol_addr:\$proxy_protocol_port \$proxy_protocol_server_port";
    }
    server {
        listen 127.0.0.1:%%PORT_4%% proxy_protocol;
        return 200 "\$proxy_protocol_addr:\$proxy_protocol_port \$proxy_protocol_server_port \$connection \$connection_requests";
    }
}
EOC
$hd->tcp_backend(1, sub { # says in hex what came first
    my ($sock) = @_;
    my $all = '';
    while (sysread $sock, my $bytes, 65536) { $all .= $bytes }
    syswrite $sock, unpack('H*', $all);
});

my $any = 'type.googleapis.com/';
my $sockets = 'envoy.extensions.transport_sockets';
sub socket_of { my ($type, %m) = @_; return {name => 's', typed_config => {'@type' => "$any$sockets.$type", %m}} }
sub proxied {
    my ($version, $inner, %more) = @_;
    return (transport_socket => socket_of('proxy_protocol.v3.ProxyProtocolUpstreamTransport',
        config => {version => $version, %more}, $inner ? (transport_socket => $inner) : ()));
}
my $raw = socket_of('raw_buffer.v3.RawBuffer');
my $tls = socket_of('tls.v3.UpstreamTlsContext', sni => 'a.example', common_tls_context => {});
sub tcp {
    my ($n, $cluster) = @_;
    return {name => "tcp$n", address => Heddle::Xds::address($hd->port("l$n")), filter_chains => [{filters => [{
        name => 'tcp', typed_config => {'@type' => "${any}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix => 'x', cluster => $cluster}}]}]};
}
sub web {
    my ($n, $cluster) = @_;
    return Heddle::Xds::listener("web$n", $hd->port("l$n"), route_config => {name => "r$n", virtual_hosts => [
        {name => 'all', domains => ['*'], routes => [{match => {prefix => '/'}, route => {cluster => $cluster}}]}]});
}
my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(
    CDS => [
        Heddle::Xds::cluster('v1', $hd->port(1), proxied('V1', $raw)),
        Heddle::Xds::cluster('v2', $hd->port(1), proxied('V2', $raw)),
        Heddle::Xds::cluster('tls', $hd->port(3), proxied('V2', $tls)),
        Heddle::Xds::cluster('web', $hd->port(4), proxied('V1', $raw)),
    ],
    LDS => [tcp(1, 'v1'), tcp(2, 'v2'), web(3, 'tls'), web(4, 'web')])->start;
$hd->start;
for my $n (1 .. 4) {
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port("l$n")) }, "listener $n");
}

sub ask {
    my ($n) = @_;
    my $c = $hd->connect("l$n");
    my $port = $c->{sock}->sockport;
    $c->send('hello');
    $c->shutdown_write;
    return (pack('H*', $c->read_all), $port);
}
my ($got, $port) = ask(1);
is $got, "PROXY TCP4 127.0.0.1 127.0.0.1 $port ${\$hd->port('l1')}\r\nhello", 'TCP, version 1';
($got, $port) = ask(2);
is unpack('H*', $got), unpack('H*', "\r\n\r\n\0\r\nQUIT\n\x21\x11" . pack('n a4 a4 n n', 12, ("\x7f\0\0\1") x 2, $port, $hd->port('l2')) . 'hello'),
    'version 2 (proxy-protocol.txt §2.2)';

my $c = $hd->connect('l3');
is $c->request('GET', '/')->body, "127.0.0.1:${\$c->{sock}->sockport} ${\$hd->port('l3')}", 'HTTP, before TLS';
my @of = map { $hd->connect('l4') } 1, 2;
my @told;
for my $round (1, 2) {
    for my $c (@of) {
        my ($who, $server, $conn, $nth) = split ' ', $c->request('GET', '/')->body;
        is $who, "127.0.0.1:${\$c->{sock}->sockport}", "round $round: the client's own address";
        push @told, "$conn:$nth";
    }
}
is_deeply [map { s/.*://r } @told], [1, 1, 2, 2], 'a client has its conn again, and no other has';
done_testing;
