#!/usr/bin/perl
# The workload's certificate is renewed at half of its life, by a key of its own each time, and no connection is
# lost for it: the CA of this test gives certificates of a few seconds.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use IPC::Open2;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds {
    server 127.0.0.1:%%PORT_xds%%;
    ca 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;
    node_metadata NAMESPACE shop;
    node_metadata SERVICE_ACCOUNT page;
}
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
my $ca = $hd->make_ca('mesh');
my $dir = $hd->dir . '/xds-xds';
system('cp', $ca->{cert}, "$dir/ca.pem") == 0 && system('cp', $ca->{key}, "$dir/ca.key") == 0 or die "the CA's files\n";
my $sds = sub { +{name => $_[0], sds_config => {initial_fetch_timeout => '0s', api_config_source => {
    api_type => 'GRPC', transport_api_version => 'V3', grpc_services => [{envoy_grpc => {cluster_name => 'sds-grpc'}}]}}} };
my $tls = {name => 'tls', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
    require_client_certificate => JSON::XS::true,
    common_tls_context => {tls_certificate_sds_secret_configs => [$sds->('default')],
        validation_context_sds_secret_config => $sds->('ROOTCA')}}};
$hd->backend(1, sub { (200, [], "from a\n") });
$xds->serve(ca_seconds => 8, CDS => [Heddle::Xds::cluster('a', $hd->port(1))],
    LDS => [Heddle::Xds::listener('mtls', $hd->port(2), chain => {transport_socket => $tls},
        route_config => Heddle::Xds::routes('in', ['/' => 'a']))])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(2)) }, 'the listener with its secrets');

my $client = $ca->make_cert('client', spiffe => 'spiffe://cluster.local/ns/shop/sa/client');
my @as_client = ('-connect', '127.0.0.1:' . $hd->port(2), '-cert', $client->{cert}, '-key', $client->{key});
sub serial { return `openssl s_client @as_client </dev/null 2>/dev/null | openssl x509 -noout -serial` =~ s/\s+\z//r }
my $first = serial();
like $first, qr/^serial=\w+$/, 'the first certificate is shown';

open STDERR, '>>', $hd->dir . '/s_client.log';
my $pid = open2(my $out, my $in, 'openssl', 's_client', '-quiet', '-ign_eof', @as_client);
$in->autoflush(1);
sub ask {
    my $got = '';
    print $in "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    local $SIG{ALRM} = sub { die "no answer: $got\n" };
    alarm Heddle::deadline_s();
    while ($got !~ /from a\n/) { sysread($out, $got, 4096, length $got) or last }
    alarm 0;
    return $got =~ m{^HTTP/1.1 200 .*from a\n$}s;
}
ok ask(), 'a connection of that time';

my @seen = ($first);
for my $n (2, 3) {
    $hd->wait_for(sub { (my @asked = $xds->events(rpc => 'ca')) >= $n }, "certificate $n");
    $hd->wait_for(sub { my $s = serial(); push @seen, $s if $s ne $seen[-1]; @seen >= $n }, "certificate $n to be shown");
    ok ask(), "the connection is served with certificate $n in force";
}
my @keys = map {
    my $pem = $_->{csr};
    my $p = open2(my $o, my $i, 'openssl', 'req', '-noout', '-pubkey');
    print $i $pem;
    close $i;
    local $/;
    my $key = <$o>;
    waitpid $p, 0;
    $key;
} $xds->events(rpc => 'ca');
my %keys = map { $_ => 1 } @keys;
is scalar keys %keys, scalar @keys, 'each has a key of its own';
kill 'TERM', $pid;
$hd->stop;
$xds->stop;
done_testing;
