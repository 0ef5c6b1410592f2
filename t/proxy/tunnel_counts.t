#!/usr/bin/perl
# What became a tunnel counts as a request of its cluster until the tunnel has ended, as a stream of Envoy's does: by a file's
# circuit_breaker and by xDS's max_requests; over HTTP/1 and HTTP/2.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
http {
    upstream up { server 127.0.0.1:%%PORT_9%%; circuit_breaker requests=1; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://up; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }
    }
}
xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds')->serve(
    CDS => [{%{Heddle::Xds::cluster('one', $hd->port(9))}, circuit_breakers => {thresholds => [{max_requests => 1}]}}],
    LDS => [Heddle::Xds::listener('front', $hd->port(1), upgrade_configs => [{upgrade_type => 'websocket'}],
        route_config => Heddle::Xds::routes('r', ['/' => 'one']))])->start;
$hd->tcp_backend(9, sub { # agrees to an upgrade, then echoes
    my ($sock) = @_;
    my $in = Heddle::Http->adopt($sock);
    while (my $head = $in->read_until(qr/\r\n\r\n/)) {
        if ($head =~ /^Upgrade: \S/mi) {
            print $sock "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            while (defined(my $word = $in->read_until(qr/;/))) { print $sock $word }
            return;
        }
        print $sock "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
    }
});
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(1)) }, 'the listener by xDS');

for my $port (0, 1) {
    my $way = $port ? 'xDS' : 'file';
    is $hd->get('/', {port => $port})->status, 200, "$way: a request";
    my $c = $hd->connect($port);
    $c->send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    is $c->response->status, 101, "$way: a tunnel";
    $c->send('word;');
    is $c->read_until(qr/;/), 'word;', "$way: it is open";
    is $hd->get('/', {port => $port})->status, 503, "$way: it counts";
    $c->close;
    ok $hd->wait_for(sub { $hd->get('/', {port => $port})->status == 200 }, 'room'), "$way: until its end";
}
$hd->stop;
$xds->stop;
done_testing;
