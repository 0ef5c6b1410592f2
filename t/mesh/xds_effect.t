#!/usr/bin/perl
# What isn't understood is never silently dropped: every field path of the recorded istiod
# answers either has an effect (its change changes the built resource, or is refused), or
# stands in xds-no-effect.txt with a reason.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $list = "$Heddle::top/t/mesh/xds-no-effect.txt";
my %reason;
open my $f, '<', $list or die "$list: $!";
while (my $line = <$f>) {
    next if $line =~ /^#/;
    my ($path, $why) = $line =~ /^(\S+)\t(\S.*)$/ or die "$list:$.: not PATH, tab, reason\n";
    ok !exists $reason{$path}, "$path stands there once" if exists $reason{$path};
    $reason{$path} = $why;
}
cmp_ok scalar(keys %reason), '>', 100, 'a list with a reason a line';

my @files = sort glob "$Heddle::top/t/fixtures/istiod/*/*-delta.pb";
is scalar(@files), 33, 'all recordings';
my @found = split /\n/, qx{$Heddle::build/tools/xds-effect $Heddle::build/modules @files};
is $?, 0, 'the tool ran';
cmp_ok scalar(@found), '>', 50, 'and found some';

my @new = grep { my ($path) = split /\t/; !$reason{$path} } @found;
is_deeply \@new, [], 'none of them is new';

my %found = map { (split /\t/)[0] => 1 } @found;
is_deeply [grep { !$found{$_} } sort keys %reason], [], 'none has an effect by now: take it off the list';

# The tool can tell: fields that certainly have an effect aren't found, one that has none is.
ok !$found{"envoy.config.cluster.v3.Cluster.$_"}, "$_ has an effect"
    for qw(name connect_timeout lb_policy circuit_breakers.thresholds.max_connections);
ok !$found{'envoy.config.route.v3.RouteConfiguration.virtual_hosts.routes.route.weighted_clusters.clusters.weight'},
    'a weight has an effect';
ok $found{'envoy.config.cluster.v3.Cluster.dns_jitter'}, 'dns_jitter has none';

done_testing;
