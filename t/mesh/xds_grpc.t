#!/usr/bin/perl
# gRPC by xDS between genuine peers (grpcio): streams in both directions, plain and over TLS by ALPN, statuses of the server's and of
# our own, deadlines (VS-ROUTE timeouts, max_stream_duration), retries by gRPC's statuses (VS-RETRY). (t/proxy/grpc.t: by file.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::Grpc;
use Heddle::Xds;

plan skip_all => $Heddle::Grpc::missing if !Heddle::Grpc::usable();
plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info');
my $root = $hd->make_ca('root');
my $cert = $root->make_cert('back', dns => 'back.test', rsa => 1);
my $server = Heddle::Grpc->serve($hd->port('plain'));
my $secure = Heddle::Grpc->serve($hd->port('tls'), $cert->{cert}, $cert->{key});
my $any = 'type.googleapis.com/';
my %h2 = (typed_extension_protocol_options => {'envoy.extensions.upstreams.http.v3.HttpProtocolOptions' => {
    '@type' => "${any}envoy.extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config => {http2_protocol_options => {}}}});
my $tls = {name => 'tls', typed_config => {'@type' => "${any}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", sni => 'back.test',
    common_tls_context => {alpn_protocols => ['h2'], validation_context => {trusted_ca => {inline_string => Heddle::Cert::slurp($root->{cert})}}}}};
my $two = Heddle::Xds::cluster('two', $hd->port('nobody'), %h2);
push @{$two->{load_assignment}{endpoints}[0]{lb_endpoints}}, {endpoint => {address => Heddle::Xds::address($hd->port('plain'))}};
my $xds = Heddle::Xds->new($hd, 'xds')->serve(
    CDS => [Heddle::Xds::cluster('plain', $hd->port('plain'), %h2), Heddle::Xds::cluster('tls', $hd->port('tls'), %h2, transport_socket => $tls),
        Heddle::Xds::cluster('dead', $hd->port('nobody'), %h2), $two],
    LDS => [
        Heddle::Xds::listener('in', $hd->port('in'), route_config => Heddle::Xds::routes('in',
            ['/t.T/Wait' => 'plain', action => {timeout => '0s', max_stream_duration => {grpc_timeout_header_max => '0.3s'}}],
            ['/' => 'plain', action => {timeout => '0s'}, request_headers_to_add => [{header => {key => 'x-added', value => 'by-proxy'}}]])),
        Heddle::Xds::listener('over', $hd->port('over'), route_config => Heddle::Xds::routes('over', ['/' => 'tls', action => {timeout => '0s'}])),
        Heddle::Xds::listener('fails', $hd->port('fails'), route_config => Heddle::Xds::routes('fails',
            ['/t.T/Sum' => 'dead'],
            ['/t.T/Wait' => 'plain', action => {timeout => '0.2s'}],
            ['/t.T/Fail' => 'plain', action => {retry_policy => {retry_on => 'unavailable,cancelled', num_retries => 2}}],
            ['/' => 'two', action => {retry_policy => {retry_on => 'connect-failure,unavailable', num_retries => 3}}])),
    ])->start;
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }')->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 'in', 'over', 'fails';

for (['in', 'plain'], ['over', 'TLS']) {
    my ($port, $what) = @$_;
    my $c = Heddle::Grpc->client($hd->port($port));
    my $r = $c->call('Echo', messages => ['hello'], metadata => {'x-mine' => 'me'});
    is_deeply [@$r{'code', 'messages'}], ['OK', [[5, 'hello']]], "$what: one to one";
    is $r->{trailing}{'t-end'}, 'yes', 'trailers';
    is $r->{trailing}{'t-got'}, 'x-added=by-proxy', 'metadata: the last of it' if $port eq 'in';
    $r = $c->call('Sum', messages => [map { "m$_" } 1 .. 50], size => 30_000);
    is_deeply [@$r{'code', 'messages'}], ['OK', [[10, '50 1500000']]], 'many to one: 1.5 MB';
    $r = $c->call('Count', messages => ['300 5000']);
    is "$r->{code} " . @{$r->{messages}}, 'OK 300', 'one to many: 1.5 MB';
    $r = $c->call('Chat', messages => ['a' .. 'j'], chat => 1);
    is join('', map { $_->[1] } @{$r->{messages}}), 'abcdefghij', 'each message is answered before the next is sent';
    $r = $c->call('Fail', messages => ['']);
    is_deeply [@$r{'code', 'details'}], ['NOT_FOUND', 'none such: 50%'], "the server's status";
    is $c->call('Nothing', messages => [''])->{code}, 'UNIMPLEMENTED', 'of a method that it lacks';
}

my $r = Heddle::Grpc->client($hd->port('in'))->call('Wait', messages => [''], timeout => 60);
is $r->{code}, 'DEADLINE_EXCEEDED', 'grpc_timeout_header_max: the deadline is kept here' or diag explain $r;

my $c = Heddle::Grpc->client($hd->port('fails'));
is $c->call('Echo', messages => ['again'])->{code}, 'OK', 'connect-failure: another endpoint' for 1 .. 4;
is $c->call('Sum', messages => [''])->{code}, 'UNAVAILABLE', 'no server: UNAVAILABLE';
$r = $c->call('Wait', messages => ['']);
is $r->{code}, 'UNAVAILABLE', 'the route\'s timeout, 504: UNAVAILABLE as Envoy\'s' or diag explain $r;
is $c->call('Fail', messages => [''])->{code}, 'NOT_FOUND', 'a status that is not retried comes through';
$hd->stop;
$xds->stop;
done_testing;
