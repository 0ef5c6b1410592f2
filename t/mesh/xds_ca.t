#!/usr/bin/perl
# The workload's certificate: made of a key of the agent's own by Istio's
# CreateCertificate (hbone §11), as the secrets "default" and "ROOTCA". A listener that
# names them doesn't open before (warming, xds-transport §4).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $id = 'spiffe://cluster.local/ns/shop/sa/page';
my $hd = Heddle->new->conf(<<'EOC');
xds {
    server 127.0.0.1:%%PORT_xds%%;
    ca 127.0.0.1:%%PORT_xds%%;
    token %%DIR%%/token;
    node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;
    node_metadata NAMESPACE shop;
    node_metadata SERVICE_ACCOUNT page;
}
EOC
$hd->write('token', "abc\n");
my $xds = Heddle::Xds->new($hd, 'xds');
my $ca = $hd->make_ca('mesh');
my $dir = $hd->dir . '/xds-xds';
system('cp', $ca->{cert}, "$dir/ca.pem") == 0 && system('cp', $ca->{key}, "$dir/ca.key") == 0
    or die "the CA's files\n";

my $any = 'type.googleapis.com/';
my $sds = sub { +{name => $_[0], sds_config => {initial_fetch_timeout => '0s', api_config_source => {
    api_type => 'GRPC', transport_api_version => 'V3',
    grpc_services => [{envoy_grpc => {cluster_name => 'sds-grpc'}}]}}} };
my $tls = {name => 'tls', typed_config => {'@type' => $any . 'envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
    require_client_certificate => JSON::XS::true,
    common_tls_context => {
        tls_certificate_sds_secret_configs => [$sds->('default')],
        combined_validation_context => {
            default_validation_context => {match_subject_alt_names => [{prefix => 'spiffe://cluster.local/'}]},
            validation_context_sds_secret_config => $sds->('ROOTCA')}}}};
my %world = (
    CDS => [Heddle::Xds::cluster('a', $hd->port(1))],
    LDS => [
        Heddle::Xds::listener('plain', $hd->port(0), route_config => Heddle::Xds::routes('in', ['/' => 'a'])),
        Heddle::Xds::listener('mtls', $hd->port(2), chain => {transport_socket => $tls},
            route_config => Heddle::Xds::routes('in', ['/' => 'a']))],
);
$hd->backend(1, sub { (200, [], 'from a') });
$xds->serve(%world, ca_down => JSON::XS::true)->start;
$hd->start;

$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the plain listener');
$xds->wait_ack('LDS');
ok !Heddle::Port::is_listening($hd->port(2)), 'a listener waits for its secrets';
$hd->wait_log(qr/no certificate from 127\.0\.0\.1: Unavailable: no certificates today/);

$xds->serve(%world);
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(2)) }, 'the listener with its secrets');
my ($asked) = $xds->events(rpc => 'ca');
is $asked->{authorization}, 'Bearer abc', 'with the token';
is $asked->{ttl}, 86400, 'for a day';
open my $csr, '|-', "openssl req -noout -text -verify > $dir/csr.txt 2>&1" or die;
print $csr $asked->{csr};
close $csr;
my $text = $hd->file('xds-xds/csr.txt');
like $text, qr/URI:\Q$id\E/, 'the request names the identity';
like $text, qr/P-256/, 'and has an EC key';

# ---- what the secrets are good for

my $client = $ca->make_cert("client", spiffe => 'spiffe://cluster.local/ns/shop/sa/client');
my $stranger = $hd->make_ca('other')->make_cert("stranger", spiffe => 'spiffe://cluster.local/ns/shop/sa/client');
my @curl = ('-s', '--cacert', $ca->{cert}, '--connect-to', '::127.0.0.1:' . $hd->port(2), '-k');
is $hd->curl(@curl, '--cert', $client->{cert}, '--key', $client->{key}, 'https://page/'), 'from a',
    'mTLS with the certificate that was issued';
my $shown = `echo | openssl s_client -connect 127.0.0.1:${\ $hd->port(2)} -cert ${\ $client->{cert}} -key ${\ $client->{key}} -CAfile ${\ $ca->{cert}} 2>&1 | openssl x509 -noout -ext subjectAltName`;
like $shown, qr/URI:\Q$id\E/, 'whose identity is ours';
unlike $hd->curl(@curl, 'https://page/'), qr/from a/, 'nobody without a certificate';
unlike $hd->curl(@curl, '--cert', $stranger->{cert}, '--key', $stranger->{key}, 'https://page/'), qr/from a/,
    'nobody of another root';
unlike $hd->log, qr/PRIVATE KEY/, 'no key in the log';

done_testing;
