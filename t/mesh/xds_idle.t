#!/usr/bin/perl
# How long neither side may say a word, by xDS: the listener's stream_idle_timeout, the route's idle_timeout in its place
# (0: for ever), for answers and for what an upgrade made of the connection (VS-ROUTE-8; Envoy's timeouts).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info')->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my @routes = (['/never' => 'up', action => {timeout => '0s', idle_timeout => '0s'}],
    ['/long' => 'up', action => {timeout => '0s', idle_timeout => '30s'}], ['/' => 'up', action => {timeout => '0s'}]);
my $listener = sub {
    my ($n, %hcm) = @_;
    return Heddle::Xds::listener("l$n", $hd->port($n), upgrade_configs => [{upgrade_type => 'websocket'}], %hcm,
        route_config => Heddle::Xds::routes("r$n", @routes));
};
my $xds = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(9))],
    LDS => [$listener->(0, stream_idle_timeout => '0.5s'), $listener->(1, stream_idle_timeout => '0s')])->start;
# Answers what it is told to, a second late; upgraded, it echoes.
$hd->tcp_backend(9, sub {
    my ($sock) = @_;
    my $in = Heddle::Http->adopt($sock);
    while (my $head = $in->read_until(qr/\r\n\r\n/)) {
        if ($head =~ /^Upgrade:/mi) {
            print $sock "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            while (defined(my $word = $in->read_until(qr/;/))) { print $sock $word }
            return;
        }
        select undef, undef, undef, 1;
        print $sock "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
    }
});
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 0, 1;

is $hd->get('/')->status, 504, 'the listener\'s time';
is $hd->get('/long')->body, 'late', 'the route\'s is longer';
is $hd->get('/never')->body, 'late', 'the route has none';
is $hd->get('/', {port => 1})->body, 'late', 'nobody has';

sub upgraded {
    my ($uri, $port) = @_;
    my $c = $hd->connect($port // 0);
    $c->send("GET $uri HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    is $c->response->status, 101, "$uri: upgraded";
    return $c;
}
sub echoes { my ($c) = @_; $c->send('word;'); return $c->read_until(qr/;/) // 'closed' }
my @stay = (upgraded('/long'), upgraded('/never'), upgraded('/', 1));
my $idle = upgraded('/');
is echoes($idle), 'word;', 'it goes on as long as somebody speaks';
ok $idle->is_eof, 'nobody does: closed after the listener\'s time';
is echoes($_), 'word;', 'whom the route or nobody sets a time: open' for @stay;
$_->close for @stay;
$hd->stop;
$xds->stop;
done_testing;
