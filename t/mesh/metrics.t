# metrics: Istio's standard metrics, with labels of both sides, from a file and by xDS
# (METRIC-1 to METRIC-17, MLABEL-1 to MLABEL-21).

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['metrics'], tls => 1,
    http => '',
    tail => "admin %%ADMIN%%;\n"
        . "metrics_workload workload=reviews-v1 namespace=shop app=reviews version=v1 cluster=east;\n");

sub stats {
    return {name => 'istio.stats', typed_config => {'@type' => 'type.googleapis.com/stats.PluginConfig', @_}};
}

my $inbound = {filter_metadata => {istio => {services => [
    {host => 'reviews.shop.svc.cluster.local', name => 'reviews', namespace => 'shop'}]}}};

# The samples of a family: [labels, value].
sub samples {
    my ($text, $name) = @_;
    my @found;
    while ($text =~ /^\Q$name\E\{(.*)\} (\S+)$/mg) {
        my ($labels, $value) = ($1, $2);
        my %l;
        $l{$1} = $2 while $labels =~ /(\w+)="((?:[^"\\]|\\.)*)"/g;
        push @found, [\%l, $value];
    }
    return @found;
}

# Those with all these labels, their sum. Counts are there once the log phase has run, which may be a moment after the
# answer.
sub sum {
    my ($hd, $name, %want) = @_;
    my $sum = 0;
    for (samples($hd->admin('/metrics')->body, $name)) {
        my ($l, $value) = @$_;
        $sum += $value unless grep { ($l->{$_} // '') ne $want{$_} } keys %want;
    }
    return $sum;
}

sub counts {
    my ($hd, $want, $what, $name, %labels) = @_;
    ok eval { $hd->wait_for(sub { sum($hd, $name, %labels) == $want }, $what); 1 }, $what
        or diag "there are: " . join "\n", grep { /^$name/ } split /\n/, $hd->admin('/metrics')->body;
}

my %self = (destination_workload => 'reviews-v1', destination_workload_namespace => 'shop',
    destination_app => 'reviews', destination_version => 'v1', destination_canonical_service => 'reviews',
    destination_canonical_revision => 'v1', destination_cluster => 'east');

$t->row('inbound',
    file => 'metrics on reporter=destination;',
    xds => [stats(disable_host_header_fallback => JSON::XS::true())],
    listener => {traffic_direction => 'INBOUND'},
    ask => [
        ['GET', '/', {status => 200, client => 'page'}],
        ['GET', '/', {status => 200, client => 'page'}],
        ['GET', '/', {status => 200, client => 'nobody'}],
        ['POST', '/', {status => 200, client => 'page'}, 'Content-Type' => 'application/grpc'],
    ]);
$t->row('an answer that is an error',
    file => 'metrics on reporter=destination;', xds => [stats()],
    listener => {traffic_direction => 'INBOUND'},
    backend => sub { [503, [], 'no'] },
    ask => [['GET', '/', {status => 503, client => 'admin'}]]);
$t->row('outbound', plain => 1,
    file => 'metrics on reporter=source;', xds => [stats()],
    listener => {traffic_direction => 'OUTBOUND'},
    ask => [['GET', '/', {status => 200}, Host => 'ratings.shop.svc.cluster.local:9080']]);
$t->{after} = sub {
    my ($hd, $way) = @_;
    my %page = (source_principal => 'spiffe://cluster.local/ns/shop/sa/page', source_workload_namespace => 'shop',
        destination_principal => 'spiffe://cluster.local/ns/shop/sa/reviews');
    my %http = (reporter => 'destination', request_protocol => 'http', response_flags => '-', %self);

    counts($hd, 2, "$way: two of page's", 'istio_requests_total', %http, %page, response_code => 200,
        connection_security_policy => 'mutual_tls', source_workload => 'unknown');
    counts($hd, 1, "$way: one of nobody's", 'istio_requests_total', %http, response_code => 200,
        connection_security_policy => 'none', source_principal => 'unknown', source_workload_namespace => 'unknown');
    counts($hd, 1, "$way: gRPC (MLABEL-12)", 'istio_requests_total', %self, %page, request_protocol => 'grpc');
    counts($hd, 1, "$way: an error", 'istio_requests_total', %http, response_code => 503,
        source_principal => 'spiffe://other.org/ns/ops/sa/admin', source_workload_namespace => 'ops');
    counts($hd, 1, "$way: outbound, by Host (MLABEL-9)", 'istio_requests_total', reporter => 'source',
        source_workload => 'reviews-v1', source_cluster => 'east', connection_security_policy => 'unknown',
        destination_service => 'ratings.shop.svc.cluster.local', destination_service_name => 'ratings',
        destination_service_namespace => 'shop', destination_workload => 'unknown');
    counts($hd, 5, "$way: durations (METRIC-2)", 'istio_request_duration_milliseconds_count', reporter => 'destination');
    counts($hd, 5, "$way: sizes (METRIC-3)", 'istio_request_bytes_count', reporter => 'destination');
    counts($hd, 5, "$way: sizes (METRIC-4)", 'istio_response_bytes_bucket', reporter => 'destination', le => '+Inf');
    my ($one) = samples($hd->admin('/metrics')->body, 'istio_requests_total');
    is scalar(keys %{$one->[0]}), 25, "$way: all labels" or diag explain $one->[0];
};
$t->run;
done_testing;
