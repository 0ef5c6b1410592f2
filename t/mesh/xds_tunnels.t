#!/usr/bin/perl
# upgrade_configs by xDS, of the connection manager and of a route: WebSocket and others by HTTP/1 and by
# HTTP/2's extended CONNECT, CONNECT that ends here (connect_config); and windows and PING of
# Http2ProtocolOptions.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }
EOC
$hd->tcp_backend(1, sub { # agrees to any Upgrade, then echoes; without one it echoes at once
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread($sock, $head, 1, length $head) or return }
    my ($type) = $head =~ /^Upgrade: (\S+)/mi;
    syswrite $sock, defined $type
        ? "HTTP/1.1 101 Switching Protocols\r\nUpgrade: $type\r\nConnection: Upgrade\r\n\r\n"
        : "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
    while (sysread $sock, my $bytes, 65536) { syswrite $sock, $bytes }
});
$hd->tcp_backend(2, sub { # raw: what a CONNECT leads to
    my ($sock) = @_;
    while (sysread $sock, my $bytes, 65536) { syswrite $sock, uc $bytes }
});

sub up { my ($type, %more) = @_; return {upgrade_type => $type, %more} }

my %table = (name => 'table', virtual_hosts => [{name => 'all', domains => ['*'], routes => [
    {match => {connect_matcher => {}}, route => {cluster => 'raw',
        upgrade_configs => [up('CONNECT', connect_config => {})]}},
    {match => {prefix => '/config'}, route => {cluster => 'web', upgrade_configs => [up('CONNECT', connect_config => {})]}},
    {match => {prefix => '/none'}, route => {cluster => 'web', upgrade_configs => [up('websocket', enabled => JSON::XS::false)]}},
    {match => {prefix => '/spdy'}, route => {cluster => 'web', upgrade_configs => [up('spdy/3.1')]}},
    {match => {prefix => '/'}, route => {cluster => 'web'}},
]}]);
my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(
    CDS => [Heddle::Xds::cluster('web', $hd->port(1)), Heddle::Xds::cluster('raw', $hd->port(2))],
    LDS => [Heddle::Xds::listener('front', $hd->port(0), Heddle::Xds::rds('table'),
        upgrade_configs => [up('websocket')],
        http2_protocol_options => {initial_stream_window_size => 70_000, max_concurrent_streams => 7,
            connection_keepalive => {interval => '0.2s', timeout => '0.2s'}})],
    RDS => [\%table],
)->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');

sub upgrade {
    my ($path, $type) = @_;
    my $c = $hd->connect(0);
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: $type\r\n\r\n");
    my ($status) = ($c->read_until(qr/\r\n\r\n/) // '') =~ m{^HTTP/1.1 (\d+)};
    return $status if $status != 101;
    $c->send('hello');
    return $c->read_bytes(5) eq 'hello' ? 101 : 'no echo';
}

sub upgrade_h2 {
    my ($path, $type) = @_;
    my $c = Heddle::H2->new($hd->port(0));
    $c->frame('HEADERS', 4, 1, Heddle::H2::fields(':method', 'CONNECT', ':protocol', $type, ':scheme', 'http',
        ':path', $path, ':authority', 'a'));
    $c->until(sub { $_->{type} eq 'HEADERS' }) or return 'closed';
    return $c->{streams}{1}{status} if $c->{streams}{1}{status} != 200;
    $c->frame('DATA', 0, 1, 'hello');
    $c->until(sub { $_->{type} eq 'DATA' });
    return $c->{streams}{1}{body} eq 'hello' ? 200 : 'no echo';
}

for my $row (['/', 'websocket', 1], ['/', 'spdy/3.1', 0], ['/spdy', 'SPDY/3.1', 1], ['/spdy', 'websocket', 1], ['/none', 'websocket', 0]) {
    my ($path, $type, $may) = @$row;
    my $what = $may ? 'is let through' : 'is refused';
    is upgrade($path, $type), $may ? 101 : 403, "HTTP/1: $type at $path $what";
    is upgrade_h2($path, $type), $may ? 200 : 403, "HTTP/2: $type at $path $what";
}

# ---- CONNECT ends here

my $c = $hd->connect(0);
$c->send("CONNECT back:80 HTTP/1.1\r\nHost: back:80\r\n\r\n");
like $c->read_until(qr/\r\n\r\n/), qr{^HTTP/1.1 200 }, 'HTTP/1: CONNECT';
$c->send('bytes');
is $c->read_bytes(5), 'BYTES', 'and its bytes';
is $hd->get('/config')->body, 'plain', 'connect_config in a route that no CONNECT gets: other requests go on as ever';
my $h = Heddle::H2->new($hd->port(0));
my $s = {unpack '(nN)*', $h->until(sub { $_->{type} eq 'SETTINGS' })->{payload}};
is $s->{4}, 70_000, 'initial_stream_window_size';
is $s->{3}, 7, 'max_concurrent_streams';
$h->frame('HEADERS', 4, 1, Heddle::H2::fields(':method', 'CONNECT', ':authority', 'back:80'));
$h->frame('DATA', 0, 1, 'bytes');
$h->until(sub { $_->{type} eq 'DATA' });
is $h->{streams}{1}{body}, 'BYTES', 'HTTP/2: CONNECT and its bytes';
$h->frame('DATA', 1, 1, 'end');
is $h->response(1)->{body}, 'BYTESEND', 'to the end';

# ---- connection_keepalive

my $ping = $h->until(sub { $_->{type} eq 'PING' });
ok $ping, 'PING comes by itself';
$h->frame('PING', 1, 0, $ping->{payload});
ok $h->until(sub { $_->{type} eq 'PING' }), 'and again when it was answered';
1 while $h->next;
pass 'the connection of who answers no more is ended';
done_testing;
