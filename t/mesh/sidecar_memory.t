#!/usr/bin/perl
# What a whole idle sidecar costs: every process, one worker, every module, the largest answer
# of a real istiod loaded by xDS. The sum of its proportional set sizes; another Heddle that
# runs meanwhile can only make it smaller, by sharing the program's pages.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::XS;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;
plan skip_all => 'a sanitizer has memory of its own' if Heddle::is_sanitized();

my $limit_kb = 14 * 1024;
my ($fixture) = sort { -s $b <=> -s $a || $a cmp $b } glob "$Heddle::top/t/fixtures/istiod/*/*-delta.json";
my ($node) = $fixture =~ m{([^/]+)-delta\.json$};
(my $dir = $fixture) =~ s{/[^/]+$}{};
open my $f, '<', $fixture or die "$fixture: $!";
my $text = do { local $/; <$f> };

my @modules = map { m{hd_(\w+)_module\.so$} } glob "$Heddle::build/modules/*.so";
my $hd = Heddle->new(modules => [@modules]);
$hd->conf(<<"EOC");
xds { server 127.0.0.1:%%PORT_xds%%; ca 127.0.0.1:%%PORT_xds%%; node $dir/$node.node.json; }
EOC
# The ports that are really bound are ours, so that tests may run side by side.
for my $port (15001, 15006, 15021, 15090) {
    my $mine = $hd->port("of_$port");
    $text =~ s/("port_value"\s*:\s*)$port\b/$1$mine/g;
}
my $all = JSON::XS->new->utf8->decode($text);
my %kinds = ('cluster.v3.Cluster' => 'CDS', 'endpoint.v3.ClusterLoadAssignment' => 'EDS',
    'listener.v3.Listener' => 'LDS', 'route.v3.RouteConfiguration' => 'RDS');
my %world = map { ($kinds{$_} => [map { {%{$_->{resource}}} } @{$all->{"envoy.config.$_"}}]) } keys %kinds;
my $xds = Heddle::Xds->new($hd, 'xds');
my $ca = $hd->make_ca('mesh');
my $files = $hd->dir . '/xds-xds';
system('cp', $ca->{cert}, "$files/ca.pem") == 0 && system('cp', $ca->{key}, "$files/ca.key") == 0
    or die "the CA's files\n";
$xds->serve(%world)->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port('of_15001')) }, 'the outbound listener');
$xds->wait_ack('RDS');

my %pss;
for my $pid ($hd->pid, $hd->processes('')) {
    open my $smaps, '<', "/proc/$pid/smaps_rollup" or next;
    my ($kb) = join('', <$smaps>) =~ /^Pss:\s+(\d+)/m;
    open my $cmd, '<', "/proc/$pid/cmdline";
    my ($title) = <$cmd> =~ /^([^\0]*)/;
    $pss{$pid} = $kb;
    diag sprintf '%6d KB  %s', $kb, $title;
}
my $sum = 0;
$sum += $_ for values %pss;
cmp_ok scalar(keys %pss), '>=', 3, 'master, worker and agent are counted';
cmp_ok $sum, '<', $limit_kb, "a sidecar's processes together: $sum KB";
system 'sh', '-c', $ENV{PERF_HOOK} =~ s/PID/$hd->pid/er if $ENV{PERF_HOOK};
$hd->stop;
$xds->stop;
done_testing;
