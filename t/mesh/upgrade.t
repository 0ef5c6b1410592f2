#!/usr/bin/perl
# A new binary on the fly (USR2, WINCH, QUIT) that takes its listeners from a control plane, or from the last-good
# snapshot when that is away: it has the old one's sockets, and no request is lost.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Daemon;
use Heddle::Streams;
use Heddle::Watch;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;
my $hd = Heddle->new(log_level => 'notice');
my $backend = Heddle::Streams->backend($hd, 1, 2);
$hd->conf(<<'EOC');
daemon on;
worker_processes 2;
worker_shutdown_timeout 60s;
admin %%ADMIN%%;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; snapshot %%DIR%%/snapshot; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds')->serve(
    CDS => [Heddle::Xds::cluster('meshed', $hd->port(1))],
    LDS => [Heddle::Xds::listener('front', $hd->port(0), upgrade_configs => [{upgrade_type => 'websocket'}],
        route_config => Heddle::Xds::routes('all', ['/' => 'meshed', action => {timeout => '0s'}]))],
)->start;
my $first = start_daemon($hd);
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener by xDS');

sub take_over {
    my ($old, $name) = @_;
    my $clients = Heddle::Streams->clients($hd, http => 0, ws => 2, load => 3);
    my $new = start_new_binary($hd, $old);
    send_to(WINCH => $old);
    $hd->wait_for(sub { serving($old) == 0 }, 'the old workers to wind down');
    is $clients->failures($clients->wait_for_more(qw(ws load))), '', "$name: nothing was lost";
    send_to(QUIT => $old);
    is serving($new), 2, 'the new workers serve';
    is $clients->failures($clients->end), '', 'up to the end of what was open in the old';
    $hd->wait_for(sub { is_gone($old) }, 'the old master to end');
    return $new;
}

my $second = take_over($first, 'by the control plane');
$hd->wait_for(sub { -s $hd->dir . '/snapshot' }, 'the snapshot');
$xds->stop;
my $third = take_over($second, 'by the snapshot');
is pid_in($hd, 'heddle.pid'), $third, 'the third stays';
send_to(QUIT => $third);
$hd->wait_for(sub { is_gone($third) }, 'the end');
Heddle::Watch::check($hd);
done_testing;
