#!/usr/bin/perl
# The admin port: served by the agent alone; /metrics is what promtool takes, /config_dump
# is Envoy's JSON without secrets, /ready says when.
use strict;
use warnings;
use lib 't/lib';
use JSON::XS;
use Test::More;
use Heddle;
use Heddle::Xds;

sub promtool_says {
    my ($hd, $text) = @_;
    $hd->write('metrics.txt', $text);
    return `promtool check metrics < ${\ $hd->dir}/metrics.txt 2>&1`;
}

# ---- without a control plane

my $hd = Heddle->new(workers => 2)->conf(<<'EOC')->start;
admin %%ADMIN%%;
http { server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } } }
EOC
is $hd->admin('/ready')->status, 200, 'ready';
my $metrics = $hd->admin('/metrics');
is $metrics->header('content-type'), 'text/plain; version=0.0.4; charset=utf-8', 'the type of /metrics';
like $metrics->body, qr/^heddle_workers 2$/m, 'figures of the program';
like $metrics->body, qr/^heddle_loom_regions_live\{arena="files"\} [1-9]/m, 'and of the loom';
is $hd->admin('/stats/prometheus')->status, 200, 'where Envoy has it';
SKIP: {
    skip 'no promtool', 1 if system('promtool --version >/dev/null 2>&1') != 0;
    is promtool_says($hd, $metrics->body), '', 'promtool finds nothing wrong';
}
my $memory = decode_json($hd->admin('/memory')->body);
cmp_ok $memory->{arenas}{files}{bytes_live}, '>', 0, '/memory is JSON';
like $hd->admin('/listeners')->body, qr/127\.0\.0\.1:${\ $hd->port(0)}$/m, '/listeners';
like $hd->admin('/clusters')->body, qr/^127\.0\.0\.1:${\ $hd->port(1)}\S*::127\.0\.0\.1:${\ $hd->port(1)}::health::/m, '/clusters';
like $hd->admin('/help')->body, qr{^/metrics }m, '/help';
is $hd->admin('/nothing')->status, 404, 'no such page';
is $hd->request('POST', '/metrics', {port => 'admin'})->status, 405, 'it is read only';
is_deeply decode_json($hd->admin('/config_dump')->body)->{configs}[0]{dynamic_active_clusters}, [], 'an empty dump';
is scalar($hd->processes('agent')), 1, 'an agent serves it';
$hd->stop;

# ---- with one

SKIP: {
    skip $Heddle::Xds::missing, 9 if $Heddle::Xds::missing;
    $hd = Heddle->new->conf(<<'EOC');
admin %%ADMIN%%;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $xds = Heddle::Xds->new($hd, 'xds');
    $hd->start;
    my $early = $hd->admin('/ready');
    is $early->status, 503, 'not ready without a control plane';
    like $early->body, qr/no listeners/, 'and it says why';
    my $ca = $hd->make_ca('mesh');
    my $cert = $ca->make_cert('page', spiffe => 'spiffe://cluster.local/ns/b/sa/a');
    my $read = sub { open my $f, '<', $_[0] or die; local $/; <$f> };
    my $tls = {name => 'tls', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
        common_tls_context => {tls_certificate_sds_secret_configs => [
            {name => 'kubernetes://page', sds_config => {ads => {}}}]}}};
    my @clusters = map { Heddle::Xds::cluster("cluster-$_", $hd->port(1), cleanup_interval => '5s') } 1 .. 300;
    $xds->serve(
        CDS => [@clusters, {name => 'bad', type => 'EDS'}],
        LDS => [Heddle::Xds::listener('front', $hd->port(0), chain => {transport_socket => $tls},
            route_config => Heddle::Xds::routes('in', ['/' => 'cluster-1']))],
        SDS => [{name => 'kubernetes://page', tls_certificate => {
            certificate_chain => {inline_string => $read->($cert->{cert})},
            private_key => {inline_string => $read->($cert->{key})}}}],
    )->start;
    $hd->wait_for(sub { $hd->admin('/ready')->status == 200 }, 'to be ready');
    my $text = $hd->admin('/config_dump')->body;
    my $dump = decode_json($text);
    my %by = map { (split /\./, $_->{'@type'})[-1] => $_ } @{$dump->{configs}};
    is scalar(grep { $_->{cluster} } @{$by{ClustersConfigDump}{dynamic_active_clusters}}), 300, 'all clusters';
    my ($one) = grep { $_->{cluster} && $_->{cluster}{name} eq 'cluster-7' }
        @{$by{ClustersConfigDump}{dynamic_active_clusters}};
    is $one->{cluster}{connect_timeout}, '2s', "in protobuf's JSON";
    like "@{$one->{heddle}{no_effect}}", qr/Cluster\.cleanup_interval: no effect/, 'with what has no effect';
    my ($bad) = grep { $_->{error_state} } @{$by{ClustersConfigDump}{dynamic_active_clusters}};
    like $bad->{error_state}{details}, qr/without eds_config/, 'and what was refused';
    unlike $text, qr/PRIVATE KEY/, 'no key';
    like $text, qr/\[redacted\]/, 'it is redacted';
    $metrics = $hd->admin('/metrics')->body;
    like $metrics, qr/^heddle_xds_resources\{type="CDS",state="live"\} 300$/m, 'resources by state';
    like $metrics, qr/^heddle_xds_nacks_total\{type="CDS"\} 1$/m, 'and refusals';
    my $says = system('promtool --version >/dev/null 2>&1') == 0 ? promtool_says($hd, $metrics) : '';
    is $says, '', 'promtool finds nothing wrong';
}

done_testing;
