#!/usr/bin/perl
# The same clusters in real Envoy and, by xDS, in Heddle: the same keys go to the same endpoints.
# Needs: Envoy (auto/envoy), python3-grpcio.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::XS;
use Test::More;
use Heddle;
use Heddle::Envoy;
use Heddle::Port;
use Heddle::Xds;

plan skip_all => $Heddle::Envoy::missing if !Heddle::Envoy::program();
plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new;
$hd->port("s$_") for 0 .. 5;
sub type { "type.googleapis.com/envoy.$_[0]" }

sub address { {socket_address => {address => '127.0.0.1', port_value => 0 + $hd->port($_[0])}} }

# Endpoints s0..s5 with these weights; a weight may be [weight, more of the lb_endpoint].
sub cluster {
    my ($name, $weights, %settings) = @_;
    my @eps = map {
        my ($w, %more) = ref $weights->[$_] ? @{$weights->[$_]} : $weights->[$_];
        {endpoint => {address => address("s$_")}, load_balancing_weight => $w, %more};
    } 0 .. $#$weights;
    return {name => $name, type => 'STATIC', connect_timeout => '5s',
        load_assignment => {cluster_name => $name, endpoints => [{lb_endpoints => \@eps}]}, %settings};
}

my $typed = sub {
    my ($url, %settings) = @_;
    return (load_balancing_policy => {policies => [{typed_extension_config => {name => 'lb',
        typed_config => {'@type' => type("extensions.load_balancing_policies.$url"), %settings}}}]});
};
my $named = sub { (metadata => {filter_metadata => {'envoy.lb' => {hash_key => $_[0]}}}) };
my @clusters = (
    cluster('ring', [1, 1, 1, 1], lb_policy => 'RING_HASH'),
    cluster('ring-weights', [3, 1, 2, 1, 5], lb_policy => 'RING_HASH', ring_hash_lb_config => {minimum_ring_size => 100}),
    cluster('ring-small', [1, 2, 3], lb_policy => 'RING_HASH',
        ring_hash_lb_config => {minimum_ring_size => 3, maximum_ring_size => 17}),
    cluster('ring-murmur', [1, 2, 1, 1], $typed->('ring_hash.v3.RingHash', hash_function => 'MURMUR_HASH_2')),
    cluster('ring-named', [[1, $named->('a')], [2, $named->('b')], [1, $named->('c')]], lb_policy => 'RING_HASH'),
    # a point each, whoever is well: Envoy makes its ring of the healthy, and gives them more points each
    cluster('ring-unhealthy', [1, [1, health_status => 'UNHEALTHY'], 1, 1], lb_policy => 'RING_HASH',
        ring_hash_lb_config => {minimum_ring_size => 1}),
    cluster('maglev', [1, 1, 1, 1, 1, 1], lb_policy => 'MAGLEV'),
    cluster('maglev-weights', [3, 1, 2, 7], lb_policy => 'MAGLEV', maglev_lb_config => {table_size => 1009}),
);

sub hcm {
    my %policies = (
        header => {header => {header_name => 'x-key'}},
        query => {query_parameter => {name => 'key'}},
        cookie => {cookie => {name => 'key'}},
        address => {connection_properties => {source_ip => JSON::XS::true}},
    );
    my @routes = map {
        my $c = $_->{name};
        map { {match => {prefix => "/$c/$_/"}, route => {cluster => $c, hash_policy => [$policies{$_}]}} } sort keys %policies;
    } @clusters;
    push @routes, {match => {prefix => '/stacked/'}, route => {cluster => 'maglev',
        hash_policy => [@policies{'header', 'query', 'address'}]}};
    return {
        '@type' => type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
        stat_prefix => 'test', route_config => {name => 'r', virtual_hosts => [{name => 'all', domains => ['*'], routes => \@routes}]},
        http_filters => [{name => 'router', typed_config => {'@type' => type('extensions.filters.http.router.v3.Router')}}],
    };
}

sub listener {
    my ($port) = @_;
    return {name => "l-$port", address => address($port),
        filter_chains => [{filters => [{name => 'hcm', typed_config => hcm()}]}]};
}

my $envoy = Heddle::Envoy->new($hd, 'peer', control => '127.0.0.1:1', node => {id => 'e', cluster => 'e'}, token => '-',
    admin => $hd->port('envoy_admin'));
$hd->write('envoy-peer.json', JSON::XS->new->canonical->encode({
    node => {id => 'e', cluster => 'e'}, admin => {address => address('envoy_admin')},
    static_resources => {clusters => \@clusters, listeners => [listener('envoy')]},
}));
$envoy->start;

my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(CDS => \@clusters, LDS => [listener('heddle')])->start;
$hd->conf("xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }\n");
for my $n (0 .. 5) {
    $hd->backend("s$n", sub { [200, [], $n] });
}
$hd->start;
for my $port ('heddle', 'envoy') {
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($port)) || !$envoy->is_running }, "$port listens");
}
ok $envoy->is_running, 'Envoy runs' or diag $envoy->log;

# Which endpoints answer these requests: [uri, headers...].
sub answers {
    my ($port, @requests) = @_;
    return join '', map { my ($uri, @headers) = @$_; $hd->get($uri, {port => $port}, @headers)->body } @requests;
}

sub same {
    my ($what, @requests) = @_;
    my $envoys = answers('envoy', @requests);
    my %seen = map { $_ => 1 } split //, $envoys;
    is answers('heddle', @requests), $envoys, $what;
    # a ring of three points may lead them all to one
    cmp_ok scalar(keys %seen), '>', 1, "$what: more than one" if @requests > 1 && $what !~ /^ring-unhealthy/;
}

for my $c (map { $_->{name} } @clusters) {
    same("$c: 60 keys", map { ["/$c/header/", 'X-Key' => "key $_"] } 1 .. 60);
}
same('by query', map { ["/ring/query/?a=1&key=$_"] } 1 .. 20);
same('by cookie', map { ['/ring/cookie/', Cookie => "other=1; key=v$_"] } 1 .. 20);
same("by the client's address", ['/ring/address/']);
same('several, combined', map { ["/stacked/?key=$_", 'X-Key' => $_ % 3] } 1 .. 30);
$envoy->stop;
$hd->stop;
$xds->stop;
done_testing;
