#!/usr/bin/perl
# The root of the mesh's CA is followed by another while requests go on: first all trust both, then the new one signs, then
# the old one is taken out. Proxies, whose certificates are good for a day, are told at once each time, and no request fails.
#
#   client → gateway → mutual TLS → sidecar → application
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Heddle;
use Heddle::Cert;
use Heddle::Mesh qw(private pod);

my $net = sprintf '127.%d.%d', 100 + ($$ >> 8) % 100, $$ % 256;
my ($gate_ip, $back_ip, $app_ip) = map { "$net.$_" } 1, 2, 12;

my $control = Heddle->new(log_level => 'notice');
my ($gate_port, $app_port) = map { $control->port($_) } 'gate', 'app';
$control->backend('app', sub { (200, [], "answer\n") }, addr => $app_ip);

sub service {
    my ($name, $label, $ip, $port) = @_;
    return <<"EOY";
---
apiVersion: v1
kind: Service
metadata: {name: $name, namespace: shop}
spec: {clusterIP: None, selector: {$label}, ports: [{name: http, port: $port, targetPort: $port, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $name, namespace: shop, labels: {kubernetes.io/service-name: $name}}
addressType: IPv4
ports: [{name: http, port: $port, protocol: TCP}]
endpoints: [{addresses: [$ip], conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: $name}}]
EOY
}

my %ca = map { $_ => $control->make_ca($_) } 'old', 'new';
my %pem = map { $_ => Heddle::Cert::slurp($ca{$_}{cert}) } keys %ca;
mkdir $control->dir . "/$_" for 'mesh', 'ca';
chmod 0755, $control->dir . '/mesh';
$control->write('mesh/mesh.yaml', <<"EOY" . pod('gate', $gate_ip, 'istio: gate') . pod('back', $back_ip, 'app: back')
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec: {selector: {istio: gate}, servers: [{port: {number: $gate_port, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back, namespace: shop}
spec: {hosts: ["*"], gateways: [gate], http: [{route: [{destination: {host: back, port: {number: $app_port}}}]}]}
EOY
    . service('gate', 'istio: gate', $gate_ip, $gate_port) . service('back', 'app: back', $back_ip, $app_port));

sub put { # as an editor does: a file of another name that is renamed
    my ($name, $text) = @_;
    $control->write("ca/$name.new", $text);
    private($control, "ca/$name.new");
    my $path = $control->dir . "/ca/$name";
    rename "$path.new", $path or die "$path: $!";
}

put('root-cert.pem', $pem{old});
put('root-key.pem', Heddle::Cert::slurp($ca{old}{key}));
$control->write('tokens', "the-token-of-gate shop gate\nthe-token-of-back shop back\n");
private($control, 'ca', 'tokens');
$control->conf(<<'EOC')->start;
control {
    listen      127.0.0.1:%%PORT_control%%;
    config_dir  %%DIR%%/mesh;
    ca_dir      %%DIR%%/ca;
    tokens      %%DIR%%/tokens;
}
EOC

sub proxy {
    my ($name, $kind, $ip, $protocol, $labels, %more) = @_;
    my $hd = Heddle->new(workers => 2, log_level => 'notice');
    $hd->write('node.json', encode_json({id => "$kind~$ip~$name.shop~shop.svc.cluster.local", cluster => "$name.shop",
        metadata => {NAMESPACE => 'shop', SERVICE_ACCOUNT => $name, NAME => $name, CLUSTER_ID => 'Kubernetes',
            INSTANCE_IPS => $ip, INTERCEPTION_MODE => 'NONE', LABELS => $labels, %more}}));
    $hd->write('token', "the-token-of-$name\n");
    private($hd, 'token');
    my $at = '127.0.0.1:' . $control->port('control');
    return $hd->conf("xds { server $at; ca $at; xds_protocol $protocol; node %%DIR%%/node.json; token %%DIR%%/token; }\n")->start;
}

my @proxies = (proxy('back', 'sidecar', $back_ip, 'delta', {app => 'back'}, APP_ADDRESS => $app_ip),
    proxy('gate', 'router', $gate_ip, 'sotw', {istio => 'gate'}));

my %answers;
my $kept;
sub ask { # on a kept connection and on a new one
    for my $keep (1, 0) {
        my $c = $keep && $kept ? $kept : eval { Heddle::Http->connect($gate_port, addr => $gate_ip) };
        my $r = $c && $c->request('GET', '/', Host => 'any', $keep ? () : (Connection => 'close'));
        $answers{$r ? $r->status : 'none'}++;
        $kept = $c if $keep;
    }
}
$control->wait_for(sub { ask(); $answers{200} }, 'the first answer');
%answers = ();

sub certificates { my ($hd) = @_; my @all = $hd->log =~ /xds: certificate for \S+, good for/g; return scalar @all }

my $n = 1;
sub until_all_have {
    my ($what) = @_;
    $n++;
    ok eval { $control->wait_for(sub { ask(); 2 == grep { certificates($_) >= $n } @proxies }, $what) },
        "$what: all have asked for it";
    ask() for 1 .. 20;
}

sub issuer { # of the certificate that the sidecar shows
    my $client = $ca{$_[0]}->make_cert("client-$n", spiffe => 'spiffe://cluster.local/ns/shop/sa/client');
    my $got = `openssl s_client -connect $back_ip:$app_port -alpn istio -cert $client->{cert} -key $client->{key} </dev/null 2>/dev/null`;
    my ($leaf) = $got =~ /(-----BEGIN CERT.*?END CERTIFICATE-----\n)/s or return 'no certificate';
    my $path = $control->dir . '/leaf.pem';
    $control->write('leaf.pem', $leaf);
    return join ' ', grep { system("openssl verify -CAfile $ca{$_}{cert} $path >/dev/null 2>&1") == 0 } sort keys %ca;
}

put('root-cert.pem', $pem{old} . $pem{new});
until_all_have('two roots');
is issuer('old'), 'old', 'the old one signs';
$control->write('ca/root-cert.pem', $pem{old} . substr $pem{new}, 0, 200);
$control->expect_log(qr/root-cert\.pem.*the last good roots stay in force/);
$control->wait_for(sub { $control->log =~ /the last good roots stay in force/ }, 'a file cut short to be refused');
put('root-key.pem', Heddle::Cert::slurp($ca{new}{key}));
put('root-cert.pem', $pem{new} . $pem{old});
until_all_have('the new one first');
is issuer('old'), 'new', 'the new one signs';
put('root-cert.pem', $pem{new});
until_all_have('the new one alone');
is issuer('new'), 'new', 'and is trusted';
is_deeply [keys %answers], [200], 'each request had its answer' or diag explain \%answers;
$_->stop for @proxies, $control;
done_testing;
