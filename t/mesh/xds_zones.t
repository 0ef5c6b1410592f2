#!/usr/bin/perl
# Zone-aware routing: with local_cluster and a locality, requests stay in our zone as far as shares allow; by Envoy's
# rules, which look at both clusters' healthy endpoints. And what stays as it is: small clusters, a local cluster in panic.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Backend;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds {
    server 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local;
    node_locality r/a;
    local_cluster us;
}
EOC
for my $zone ('a', 'b') { # all addresses, so that one back end is many endpoints
    my $listener = Heddle::Backend::listener($hd->port($zone), '0.0.0.0');
    Heddle::Backend::spawn(sub { Heddle::Backend::http($listener, $hd->dir . "/back-$zone", sub { $zone }) });
}

# A locality: so many endpoints of a zone, the others' members over each one's.
sub zone {
    my ($zone, $n, %more) = @_;
    return {locality => {region => 'r', zone => $zone}, lb_endpoints => [map { +{endpoint => {address => {socket_address =>
        {address => "127.0.0.$_", port_value => 0 + $hd->port($zone)}}}, %more} } 1 .. $n]};
}
my $typed = sub {
    return (load_balancing_policy => {policies => [{typed_extension_config => {name => 'rr', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin',
        locality_lb_config => {zone_aware_lb_config => {@_}}}}}]});
};
my $common = sub { (common_lb_config => {zone_aware_lb_config => {@_}}) };
my $ill = sub { (health_status => 'UNHEALTHY') };

# v1 is the only endpoint of our zone and one of two in the other; both weigh the same.
my $labelled = sub { my ($version, $weight, $of) = @_;
    return {%$of, load_balancing_weight => $weight, lb_endpoints => [map { +{%$_, metadata => {filter_metadata => {'envoy.lb' =>
        {version => ref $version ? shift @$version : $version}}}} } @{$of->{lb_endpoints}}]} };
my @versions = ($labelled->('v1', 50, zone('a', 1)), $labelled->(['v1', 'v2'], 50, zone('b', 2)));
my $subsets = sub { (common_lb_config => {locality_weighted_lb_config => {}},
    lb_subset_config => {subset_selectors => [{keys => ['version']}], locality_weight_aware => JSON::XS::true(), @_}) };

# Name, localities, settings; how many of 120 requests go to our zone: where chance decides, five deviations to each side.
my @rows = (
    ['even', [zone('a', 3), zone('b', 3)], [], 120, 120, 'as many in our zone as everywhere: all of it'],
    ['more', [zone('a', 4), zone('b', 2)], [], 120, 120, 'more of them: all of it, too'],
    ['short', [zone('a', 1), zone('b', 5)], [], 14, 66, 'a sixth of them in our zone: a third of what half of us send'],
    ['small', [zone('a', 1), zone('b', 2)], [], 40, 40, 'three endpoints: in turn'],
    ['enough', [zone('a', 1), zone('b', 1)], [$common->(min_cluster_size => 2)], 120, 120, 'min_cluster_size'],
    ['off', [zone('a', 3), zone('b', 3)], [$common->(routing_enabled => {value => 0})], 60, 60, 'routing_enabled 0'],
    ['ill', [zone('a', 3, $ill->()), zone('b', 6)], [], 0, 0, 'nobody is well in our zone'],
    ['sick', [zone('a', 2), zone('a', 1, $ill->()), zone('b', 6)], [], 32, 88, 'who is ill does not count: half of our share'],
    ['force', [zone('a', 1), zone('b', 5)], [$typed->(force_local_zone => {min_size => 1})], 120, 120, 'force_local_zone'],
    ['too_few', [zone('a', 1), zone('b', 5)], [$typed->(force_local_zone => {min_size => 2})], 14, 66, 'with too few of them'],
    ['direct', [zone('a', 1), zone('b', 5)], [$typed->(force_locality_direct_routing => JSON::XS::true())], 120, 120, 'its old name'],
    ['heavy', [zone('a', 1, load_balancing_weight => 5), zone('b', 5)], [$typed->(locality_basis => 'HEALTHY_HOSTS_WEIGHT')],
        120, 120, 'by weights'],
    ['fail', [zone('a', 3, $ill->()), zone('b', 3, $ill->())], [$common->(fail_traffic_on_panic => JSON::XS::true())],
        undef, undef, 'fail_traffic_on_panic'],
    ['panic', [zone('a', 3, $ill->()), zone('b', 3, $ill->())], [], 60, 60, 'panic: zones do not count'],
    ['plain', \@versions, [$subsets->()], 60, 60, 'localities of a subset by their weights'],
    ['scaled', \@versions, [$subsets->(scale_locality_weight => JSON::XS::true())], 80, 80, 'scale_locality_weight'],
    ['ring', [zone('a', 3), zone('b', 3)], [lb_policy => 'RING_HASH'], 1, 119, 'nor do they for hashes'],
);
sub cluster { my ($name, $zones, @more) = @_;
    return Heddle::Xds::cluster($name, 1, load_assignment => {cluster_name => $name, endpoints => $zones}, @more) }
my @clusters = map { cluster($_->[0], $_->[1], @{$_->[2]}) } @rows;
my $routes = Heddle::Xds::routes('in', map { ["/$_->[0]" => $_->[0]] } @rows);
for my $route (@{$routes->{virtual_hosts}[0]{routes}}) {
    $route->{route}{metadata_match} = {filter_metadata => {'envoy.lb' => {version => 'v1'}}};
}
my @lds = (LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => $routes)]);
my $xds = Heddle::Xds->new($hd, 'xds');
my $us = sub { cluster('us', [@_]) };
$xds->serve(CDS => [@clusters, $us->(zone('a', 2), zone('b', 2))], @lds)->start;
$hd->start;
$xds->wait_ack('LDS');
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');

sub count { my ($name, $n) = @_;
    return scalar grep { $_ eq 'a' } map { $hd->get("/$name")->body } 1 .. $n }
for my $r (@rows) {
    my ($name, undef, undef, $least, $most, $why) = @$r;
    if (!defined $least) {
        is $hd->get("/$name")->status, 503, "$name: $why";
        next;
    }
    my $got = count($name, 120);
    ok $got >= $least && $got <= $most, "$name: $why" or diag "$got of 120, from $least to $most are right";
}

# What is known of ourselves changes in a living worker.
my $acks = $xds->acks('CDS');
$xds->serve(CDS => [@clusters, $us->(zone('a', 1), zone('a', 1, $ill->()), zone('b', 2, $ill->()))], @lds);
$hd->wait_for(sub { count('even', 6) < 6 }, 'three of four of us are ill');
is count('even', 60), 30, 'the local cluster is in panic: all zones in turn';
$xds->serve(CDS => [@clusters, $us->(zone('b', 4))], @lds);
$hd->wait_for(sub { count('force', 6) < 6 }, 'we are in one zone only, and not in ours');
is count('force', 60), 10, 'then zones do not count';
$xds->serve(CDS => [@clusters, $us->(zone('a', 2), zone('b', 2))], @lds);
$hd->wait_for(sub { count('force', 6) == 6 }, 'all of us again');
$xds->serve(CDS => [@clusters], @lds);
$hd->wait_for(sub { count('force', 6) < 6 }, 'there is no such cluster any more');
is count('force', 60), 10, 'without it all are alike';
$hd->stop;

my ($status, $output) = Heddle->new->conf('xds { server 127.0.0.1:1; node_id a; local_cluster us; }')->run('-t');
is $status, 1, 'local_cluster alone is refused';
like $output, qr{heddle\.conf:\d+: .*node_locality REGION/ZONE/SUBZONE}, 'and the reason says what is missing';
done_testing;
