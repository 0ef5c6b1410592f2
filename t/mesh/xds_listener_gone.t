#!/usr/bin/perl
# A listener that goes: what it has accepted is served by the routes that it had, though nobody needs these any more, and
# told to go elsewhere; new connections find nobody. Back again, it serves as before.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(workers => 2)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
my %world = (CDS => [Heddle::Xds::cluster('up', $hd->port(1))], RDS => [Heddle::Xds::routes('table', ['/' => 'up'])]);
my @front = (Heddle::Xds::listener('front', $hd->port(0), Heddle::Xds::rds('table')));
$hd->backend(1, sub { 'well' });
$xds->serve(%world, LDS => \@front)->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
$hd->wait_for(sub { my $r = $hd->get('/'); $r && $r->status == 200 }, 'its routes');

my ($unused, $half) = map { $hd->connect(0) } 1, 2;
$half->send('GET /half HT');
$hd->get('/') for 1 .. 4; # the two were accepted before
$xds->serve(%world, LDS => []);
$hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the listener to go');
$unused->send("GET /unused HTTP/1.1\r\nHost: a\r\n\r\n");
$half->send("TP/1.1\r\nHost: a\r\n\r\n");
for (['a connection that was not used yet', $unused], ['half a head', $half]) {
    my ($what, $conn) = @$_;
    my $r = $conn->response;
    ok $r && $r->status == 200 && $r->body eq 'well', "$what: served" or diag $r && $r->status;
    is $r && lc($r->header('connection') // ''), 'close', '... for the last time';
}
$xds->serve(%world, LDS => \@front);
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener again');
$hd->wait_for(sub { my $r = eval { $hd->get('/') }; $r && $r->status == 200 }, 'its routes');
pass 'back again';
$hd->stop;
$xds->stop;
done_testing;
