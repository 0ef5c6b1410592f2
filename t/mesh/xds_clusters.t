#!/usr/bin/perl
# What clusters and endpoints mean, where a real Envoy was asked with the same resources: whom panic takes,
# endpoints that discovery says twice, how many fields a response may have, what is refused.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
worker_processes 2;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
for my $name ('a', 'b', 'c') {
    $hd->backend($name, sub { my ($req) = @_; return [200, [map { ("X-$_" => 1) } 1 .. $req->header('x-fields') // 1], $name] });
}
my $xds = Heddle::Xds->new($hd, 'xds');
my $any = 'type.googleapis.com/';

sub endpoint {
    my ($name, %more) = @_;
    return {endpoint => {address => {socket_address => {address => '127.0.0.1', port_value => 0 + $hd->port($name)}}}, %more};
}
sub endpoints { my ($name, @localities) = @_; return {cluster_name => $name, endpoints => [@localities]} }
sub static {
    my ($name, $endpoints, %more) = @_;
    return {name => $name, type => 'STATIC', connect_timeout => '2s', load_assignment => endpoints($name, {lb_endpoints => $endpoints}), %more};
}
my @ill = map { {health_status => $_} } 'UNHEALTHY', 'DRAINING', 'TIMEOUT';
my @three = map { endpoint(('a', 'b', 'c')[$_], %{$ill[$_]}) } 0 .. 2;
my $options = sub {
    return (typed_extension_protocol_options => {'envoy.extensions.upstreams.http.v3.HttpProtocolOptions' => {
        '@type' => "${any}envoy.extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config => {http_protocol_options => {}},
        common_http_protocol_options => {@_}}});
};
my @clusters = (static('panic', \@three), static('panic_hash', \@three, lb_policy => 'RING_HASH'),
    static('draining', [endpoint('b', health_status => 'DRAINING'), endpoint('c', health_status => 'DRAINING')]),
    static('no_panic', \@three, common_lb_config => {healthy_panic_threshold => {value => 0.4}}),
    static('some_panic', [endpoint('a', health_status => 'UNHEALTHY')], common_lb_config => {healthy_panic_threshold => {value => 0.6}}),
    static('fields', [endpoint('a')], $options->(max_headers_count => 12)), static('any_fields', [endpoint('a')], $options->()),
    (map { Heddle::Xds::eds_cluster($_) } 'twice', 'places', 'ranks'));
my @eds = (endpoints('twice', {lb_endpoints => [endpoint('a'), endpoint('b'), endpoint('a', load_balancing_weight => 7)]}),
    endpoints('places', {lb_endpoints => [endpoint('a')], locality => {zone => 'x'}}, {lb_endpoints => [endpoint('b'), endpoint('a')], locality => {zone => 'y'}}),
    endpoints('ranks', {lb_endpoints => [endpoint('a', health_status => 'UNHEALTHY')]}, {lb_endpoints => [endpoint('b'), endpoint('a')], priority => 1}));
my $routes = Heddle::Xds::routes('in', map { ["/$_->{name}" => $_->{name}] } @clusters);
my $listener = Heddle::Xds::listener('front', $hd->port(0), route_config => $routes);
$xds->serve(CDS => \@clusters, EDS => \@eds, LDS => [$listener])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');

# Who answered how many of <n> requests over one connection.
sub spread {
    my ($uri, $n) = @_;
    my %n;
    my $c = $hd->connect(0);
    for (1 .. $n) {
        $c->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n");
        my $r = $c->response('GET');
        $n{$r->status == 200 ? $r->body : $r->status}++;
    }
    return join ' ', map { "$_:$n{$_}" } sort keys %n;
}

is spread('/panic', 9), 'a:3 b:3 c:3', 'panic takes all, draining ones, too';
like spread('/panic_hash', 90), qr/^a:\d+ b:\d+ c:\d+$/, 'so it does by hashes';
is spread('/draining', 4), 'b:2 c:2', 'where all drain, they serve';
is spread('/no_panic', 2), '503:2', 'a threshold is a whole number: 0.4 is 0';
is spread('/some_panic', 2), 'a:2', '0.6 is 1';
is spread('/twice', 8), 'a:4 b:4', 'said twice, it counts once, as it was said first';
is spread('/places', 8), 'a:4 b:4', 'so it does in two localities';
is spread('/ranks', 8), 'a:4 b:4', 'not in two priorities';

my $status = sub { return $hd->get("/$_[0]", {port => 0}, 'X-Fields' => $_[1])->status };
my ($few) = grep { $status->('fields', $_) != 200 } 1 .. 12;
my $others = $few - 1;
ok $others > 0 && $others < 12, "max_headers_count: $others and what the server adds";
is $status->('fields', $others), 200, 'so many are good';
is $status->('fields', $few), 502, 'one more is not';
is $status->('any_fields', 60), 200, 'as many as go without it';

# What would have no effect, or break a message, is refused with its reason.
my $http = sub { return (timeout => '1s', interval => '1s', unhealthy_threshold => 1, healthy_threshold => 1, http_health_check => {path => '/', @_}) };
my $check = sub { return (health_checks => [{$http->(@_)}]) };
my $add = sub { return $check->(request_headers_to_add => [{header => {key => $_[0], value => $_[1]}}]) };
my $h2 = sub { return (http2_protocol_options => {@_}) };
my $keys = sub { my (@keys) = @_; return (lb_subset_config => {subset_selectors => [{keys => ['v', 's'], fallback_policy => 'KEYS_SUBSET', fallback_keys_subset => \@keys}]}) };
my @refused = (
    [{circuit_breakers => {per_host_thresholds => [{max_connections => 1}]}}, qr/per_host_thresholds isn't supported/],
    [{$add->('x', "1\r\nY: 2")}, qr/is no header field/], [{$add->('x y', '1')}, qr/is no header field/],
    [{$check->(path => "/\r\nX: 1")}, qr/what a request line may have/], [{$check->(path => '/a b')}, qr/what a request line may have/],
    [{$check->(host => "a\nX: 1")}, qr/host .*what a field may have/s],
    [{outlier_detection => {max_ejection_percent => 101}}, qr/max_ejection_percent 101: at most 100/],
    [{outlier_detection => {enforcing_failure_percentage => 200}}, qr/enforcing_failure_percentage 200: at most 100/],
    [{outlier_detection => {base_ejection_time => '20s', max_ejection_time => '10s'}}, qr/max_ejection_time below base_ejection_time/],
    [{common_lb_config => {healthy_panic_threshold => {value => 101}}}, qr/healthy_panic_threshold 101: 0 to 100/],
    [{common_lb_config => {locality_weighted_lb_config => {}}, load_balancing_policy => {policies => [{typed_extension_config => {name => 'r', typed_config => {
        '@type' => "${any}envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"}}}]}}, qr/beside load_balancing_policy/],
    [{$h2->(max_concurrent_streams => 0)}, qr/max_concurrent_streams 0: 1 to/],
    [{$h2->(initial_stream_window_size => 65534)}, qr/initial_stream_window_size 65534: 65535 to/],
    [{$options->(max_headers_count => 0)}, qr/max_headers_count 0: 1 or more/],
    [{$keys->('x')}, qr/fallback_keys_subset/], [{$keys->('s', 'v')}, qr/fallback_keys_subset/]);
my $first = sub { return {lb_endpoints => [endpoint('a')], @_} };
$xds->serve(LDS => [$listener], CDS => [@clusters, (map { static("bad$_", [endpoint('a')], %{$refused[$_][0]}) } 0 .. $#refused),
    static('good', [endpoint('a')], $keys->('s'), $add->('x-y', 'a b'), outlier_detection => {max_ejection_percent => 100})],
    EDS => [$eds[2], {%{endpoints('twice', $first->())}, policy => {overprovisioning_factor => 0}}, endpoints('places', $first->(load_balancing_weight => 0))]);
$xds->wait_nack('CDS', qr/bad0/);
for my $n (0 .. $#refused) {
    my $why = qr/CDS "bad$n": [^;]*$refused[$n][1]/;
    ok((grep { $_->{error} =~ $why } $xds->nacks('CDS')), "refused: $refused[$n][1]") or diag map { "$_->{error}\n" } $xds->nacks('CDS');
}
ok !(grep { $_->{error} =~ /"good"/ } $xds->nacks('CDS')), 'taken: what is right';
for my $reason (qr/overprovisioning_factor 0: above 0/, qr/load_balancing_weight 0: above 0/) {
    like $xds->wait_nack('EDS', $reason)->{error}, $reason, 'refused: a factor or a weight of 0';
}
is spread('/twice', 8), 'a:4 b:4', 'what was before is in force';
$hd->stop;
done_testing;
