#!/usr/bin/perl
# Mutual TLS between a real Envoy and Heddle, in both directions, both driven by Heddle's control
# plane: a sidecar of each kind, each before an application. STRICT, and policies by principal.
#
#   client → Envoy's proxy port → mTLS → Heddle's inbound listener → application "weaver"
#   client → Heddle's proxy port → mTLS → Envoy's inbound listener → application "spinner"
#
# Envoy has its certificate from an SDS server, signed by the root that the control plane's CA
# signs Heddle's with. Who called is known by nothing but the handshake: "spinner" is Envoy's
# identity, "weaver" Heddle's. Needs: auto/envoy --install, python3-grpcio.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::XS;
use Test::More;
use Heddle;
use Heddle::Cert;
use Heddle::Envoy;
use Heddle::Xds;
use Heddle::Mesh qw(private);

plan skip_all => $Heddle::Envoy::missing if !Heddle::Envoy::program();
plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $net = sprintf '127.%d.%d', 100 + ($$ >> 8) % 100, $$ % 256;
my %sidecar = (spinner => "$net.1", weaver => "$net.2"); # Envoy's, Heddle's
my %app = (spinner => "$net.11", weaver => "$net.12");
sub text_of { Heddle::Cert::slurp($_[0]) }
sub spiffe { "spiffe://cluster.local/ns/shop/sa/$_[0]" }

my $control = Heddle->new;
$control->port('proxy');

# ---- the control plane, whose root we make, so that Envoy's certificate is of it, too

my $ca = $control->make_ca('root');
mkdir $control->dir . "/$_" for 'mesh', 'ca';
chmod 0755, $control->dir . '/mesh';
$control->write('ca/root-cert.pem', text_of($ca->{cert}));
$control->write('ca/root-key.pem', text_of($ca->{key}));
$control->write('tokens', join '', map { "the-token-of-$_ shop $_\n" } sort keys %sidecar);
private($control, 'ca', 'ca/root-cert.pem', 'ca/root-key.pem', 'tokens');

sub workload {
    my ($name, $ip) = @_;
    return <<"EOY";
---
apiVersion: v1
kind: Service
metadata: {name: $name, namespace: shop, labels: {app: $name}}
spec:
  clusterIP: $ip
  selector: {app: $name}
  ports:
  - {name: http, port: 8000, targetPort: %%PORT_$name%%, protocol: TCP}
  - {name: tcp-raw, port: 8001, targetPort: %%PORT_raw_$name%%, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $name, namespace: shop, labels: {kubernetes.io/service-name: $name}}
addressType: IPv4
ports: [{name: http, port: %%PORT_$name%%, protocol: TCP}]
endpoints: [{addresses: [$sidecar{$name}], targetRef: {kind: Pod, namespace: shop, name: $name}}]
---
apiVersion: v1
kind: Pod
metadata: {name: $name, namespace: shop, labels: {app: $name, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: $name, containers: [{name: $name, image: any}]}
status: {phase: Running, podIP: $sidecar{$name}, podIPs: [{ip: $sidecar{$name}}]}
EOY
}

# Each lets its peer do GET /open*, and somebody else, whom nobody is, anything.
sub policy {
    my ($name, $peer) = @_;
    return <<"EOY";
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: $name, namespace: shop}
spec:
  selector: {matchLabels: {app: $name}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/$peer]}}]
    to: [{operation: {paths: ["/open*"], methods: [GET]}}]
  - from: [{source: {principals: [cluster.local/ns/shop/sa/stranger]}}]
EOY
}

$control->write('mesh/mesh.yaml', <<'EOY' . workload('spinner', "$net.101") . workload('weaver', "$net.102")
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
EOY
    . policy('spinner', 'weaver') . policy('weaver', 'spinner'));
$control->conf(<<'EOC');
control {
    listen      127.0.0.1:%%PORT_control%%;
    config_dir  %%DIR%%/mesh;
    ca_dir      %%DIR%%/ca;
    tokens      %%DIR%%/tokens;
}
EOC

for my $name (sort keys %app) {
    $control->backend($name, sub {
        my ($req) = @_;
        return [200, ['X-Caller' => $req->header('x-forwarded-client-cert') // 'nobody'], "$name\n"];
    }, addr => $app{$name});
    $control->backend("raw_$name", sub { [200, [], "$name, raw\n"] }, addr => $app{$name});
}

# ---- the sidecars

sub node {
    my ($name) = @_;
    return {
        id => "sidecar~$sidecar{$name}~$name.shop~shop.svc.cluster.local", cluster => "$name.shop",
        metadata => {NAMESPACE => 'shop', SERVICE_ACCOUNT => $name, NAME => $name, CLUSTER_ID => 'Kubernetes',
            INSTANCE_IPS => $sidecar{$name}, INTERCEPTION_MODE => 'NONE', LABELS => {app => $name},
            HTTP_PROXY_PORT => '' . $control->port('proxy'), APP_ADDRESS => $app{$name}},
    };
}

my $cert = $ca->make_cert('envoy', spiffe => spiffe('spinner'));
my $sds = Heddle::Xds->new($control, 'sds')->serve(SDS => [
    {name => 'default', tls_certificate => {certificate_chain => {inline_string => text_of($cert->{cert})},
        private_key => {inline_string => text_of($cert->{key})}}},
    {name => 'ROOTCA', validation_context => {trusted_ca => {inline_string => text_of($ca->{cert})}}}]);
$sds->start;
my $envoy = Heddle::Envoy->new($control, 'spinner', control => '127.0.0.1:' . $control->port('control'),
    sds => '127.0.0.1:' . $control->port('sds'), node => node('spinner'), token => 'the-token-of-spinner',
    admin => $control->port('admin'));

my $heddle = Heddle->new;
$heddle->write('node.json', JSON::XS->new->canonical->encode(node('weaver')));
$heddle->write('token', "the-token-of-weaver\n");
private($heddle, 'token');
my $port = $control->port('control');
$heddle->conf(<<"EOC");
xds {
    server   127.0.0.1:$port;
    ca       127.0.0.1:$port;
    identity ${\ spiffe('weaver')};
    node     %%DIR%%/node.json;
    token    %%DIR%%/token;
}
EOC

$control->start;
$envoy->start;
$heddle->start;

sub ask {
    my ($through, $method, $uri, $host) = @_;
    my $c = eval { Heddle::Http->connect($control->port('proxy'), addr => $sidecar{$through}) } or return;
    return eval { $c->request($method, $uri, {}, Host => $host, Connection => 'close') };
}

my %other = (spinner => 'weaver', weaver => 'spinner');
my %speaks = (spinner => 'Envoy', weaver => 'Heddle');
for my $client ('spinner', 'weaver') {
    my $server = $other{$client};
    my $how = "$speaks{$client} → $speaks{$server}";
    my $answer;
    ok eval {
        $control->wait_for(sub {
            die "Envoy ended\n" if !$envoy->is_running;
            $answer = ask($client, 'GET', '/open/1', "$server:8000");
            return $answer && $answer->status == 200;
        }, $how);
    }, "$how: a request comes through" or diag($@, $answer ? $answer->head : 'no answer', $envoy->log);
    next if !$answer;
    is $answer->body, "$server\n", "$how: to the application";
    like $answer->header('x-caller'), qr/URI=\Q${\ spiffe($client)}\E(;|$)/, "$how: with the caller's identity";
    like $answer->header('x-caller'), qr/By=\Q${\ spiffe($server)}\E(;|$)/, "$how: and the server's own";
    is ask($client, 'GET', '/open/2', "$server:8000")->status, 200, "$how: again";

    my $before = $control->requests($server);
    for (['GET', '/closed', 'a path that is another principal\'s'], ['POST', '/open/1', 'another method']) {
        my ($method, $uri, $what) = @$_;
        my $denied = ask($client, $method, $uri, "$server:8000");
        is $denied && $denied->status, 403, "$how: $what is refused";
        is $denied && $denied->body, 'RBAC: access denied', "$how: by authorization";
    }
    is $control->requests($server), $before, "$how: and didn't reach the application";

    # STRICT: who comes without a certificate isn't heard
    my $plain = eval {
        Heddle::Http->connect($control->port($server), addr => $sidecar{$server})
            ->request('GET', '/open/1', {}, Host => "$server:8000");
    };
    ok !$plain, "$how: plain text gets no answer";
    is $control->requests($server), $before, "$how: nor to the application";
}

# ---- a port of bytes: rules that ask for paths allow nobody there (AP-TCP-2), so only the stranger may

my $stranger = $ca->make_cert('stranger', spiffe => spiffe('stranger'));
for my $server ('weaver', 'spinner') {
    my $url = "https://$sidecar{$server}:" . $control->port("raw_$server") . '/';
    my $get = sub { my ($c) = @_; $control->curl('-s', '-k', '--http1.1', '--cert', $c->{cert}, '--key', $c->{key}, $url) };
    is $get->($stranger), "$server, raw\n", "$speaks{$server}, TCP: whom a rule without paths names may connect";
    is $get->($cert), '', "$speaks{$server}, TCP: whom only a rule with paths names may not";
    is $control->requests("raw_$server"), 1, "$speaks{$server}, TCP: nor did a byte come through";
}

cmp_ok $envoy->stat('listener_manager.lds.update_success'), '>', 0, 'Envoy took its listeners';
is_deeply [grep { $envoy->stat("$_.update_rejected") } 'listener_manager.lds', 'cluster_manager.cds'], [],
    'and refused nothing';
my $handshakes = $envoy->stats(qr/ssl\.handshake$/);
cmp_ok scalar(grep { $_ > 0 } values %$handshakes), '>=', 2, 'it shook hands as a client and as a server';
unlike $control->log, qr/xds: \S+ refused/, 'the control plane was told of no error';

# ---- Envoy gets a certificate of another root: as a client and as a server, Heddle doesn't trust it

my $evil = $control->make_ca('other')->make_cert('stranger', spiffe => spiffe('spinner'));
my %sent = map { $_ => scalar $control->requests($_) } keys %app;
$envoy->stop; # connections that were made before would go on
$sds->serve(SDS => [
    {name => 'default', tls_certificate => {certificate_chain => {inline_string => text_of($evil->{cert})},
        private_key => {inline_string => text_of($evil->{key})}}},
    {name => 'ROOTCA', validation_context => {trusted_ca => {inline_string => text_of($ca->{cert})}}}]);
$envoy->start;
for my $client ('spinner', 'weaver') {
    my $answer;
    ok eval {
        $control->wait_for(sub {
            my $is_up = IO::Socket::INET->new(PeerAddr => $sidecar{spinner}, PeerPort => $control->port('spinner'));
            $answer = $is_up && ask($client, 'GET', '/open/3', "$other{$client}:8000");
        }, 'an answer');
    }, "$speaks{$client} → $speaks{$other{$client}}: there is an answer";
    is $answer && $answer->status, 503, 'a certificate of another root is refused';
}
is $control->requests($_), $sent{$_}, "nothing came to $_" for sort keys %app;

$heddle->stop;
$control->stop;
$envoy->stop;
$sds->stop;
done_testing;
