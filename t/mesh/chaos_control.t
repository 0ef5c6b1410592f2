#!/usr/bin/perl
# A mesh of Heddles alone under all kinds of traffic: a gateway and a sidecar, driven by Heddle's own control plane, which
# gives them their configuration and, for a minute at a time, their certificates. Killed are: workers and agents of both,
# the control plane's process, all of the control plane at once; meanwhile its YAML changes, endpoints come and go, and
# certificates are renewed. Between the two runs weft. What must hold is what chaos.t says: every request has its answer
# or a correct error, no count is lost (connections and bytes of TCP, too), nothing is left, nobody grows.
#
#   client → gateway → mutual TLS (HTTP: weft) → sidecar → application
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);
use Heddle;
use Heddle::Cert;
use Heddle::Chaos;
use Heddle::Mesh qw(private pod);

plan skip_all => 'no curl with HTTP/2' if (qx{curl --version 2>/dev/null} // '') !~ /\bHTTP2\b/;

my $rounds = Heddle::is_sanitized() ? 2 : 4;
my @http = qw(http1 http2 grpc flaps large ws); # kinds, each a service of its own
my %protocol = (http2 => 'http2', grpc => 'grpc');
my $net = sprintf '127.%d.%d', 100 + ($$ >> 8) % 100, $$ % 256;
my ($gate_ip, $back_ip, $nobody_ip, $app_ip) = map { "$net.$_" } 1, 2, 3, 12;

my $control = Heddle->new(log_level => 'notice');
my $ports = $control; # all of the mesh's are reserved by it
sub port { $ports->port($_[0]) }

# ---- the application: a Heddle, whose log has what it was asked, and two that echo

my $big = join '', map { "$_\n" } 1 .. 50_000;
my $app = Heddle->new(log_level => 'notice');
$app->write('large', $big);
chmod 0644, $app->dir . '/large';
my $listens = join "\n", map { "listen $app_ip:" . port($_) . ';' } grep { $_ ne 'ws' } @http;
$app->conf(<<"EOC")->start;
http {
    log_format uri "\$request_uri";
    access_log %%DIR%%/asked.log uri;
    server {
        $listens
        http2 on;
        location / { default_type application/grpc; add_header grpc-status 0; return 200 "answer \$request_uri"; }
        location /large/ { root %%DIR%%; rewrite ^ /large break; }
    }
}
EOC
$control->backend('held', sub { {hang => 1} }, addr => $app_ip);
$control->tcp_backend('ws', \&Heddle::Chaos::upgraded_echo, addr => $app_ip);
$control->tcp_backend('tcp', \&Heddle::Chaos::echo, addr => $app_ip);

# ---- the mesh's resources in round <i>, which the gateway tells

sub service {
    my ($name, @addresses) = @_;
    my $port = port($name);
    my $protocol = $name eq 'tcp' ? 'tcp' : $protocol{$name} // 'http';
    my $endpoints = join ', ', map { "{addresses: [$_], conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: back}}" } @addresses;
    return <<"EOY";
---
apiVersion: v1
kind: Service
metadata: {name: $name, namespace: shop}
spec: {clusterIP: None, selector: {app: back}, ports: [{name: $protocol, port: $port, targetPort: $port, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $name, namespace: shop, labels: {kubernetes.io/service-name: $name}}
addressType: IPv4
ports: [{name: $protocol, port: $port, protocol: TCP}]
endpoints: [$endpoints]
EOY
}

# Of kind <name>; another name each round, so that routes change.
sub route {
    my ($name, $i) = @_;
    my $retries = $name eq 'flaps' ? 'retries: {attempts: 3, retryOn: "connect-failure,refused-stream"}' : 'timeout: 60s';
    return <<"EOY";
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: $name, namespace: shop}
spec:
  hosts: [$name.chaos.example]
  gateways: [gate]
  http:
  - name: round$i
    $retries
    route: [{destination: {host: $name, port: {number: ${\ port($name)}}}}]
EOY
}

sub say_round {
    my ($i) = @_;
    my @more = $i % 2 ? ($nobody_ip) : ();
    my $requests = 100 + $i;
    $control->write('mesh/mesh.yaml', <<"EOY"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec:
  selector: {istio: gate}
  servers:
  - {port: {number: ${\ port('gate')}, name: http, protocol: HTTP}, hosts: ["*.chaos.example"]}
  - {port: {number: ${\ port('gate_tcp')}, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: shop}
spec:
  clusterIP: None
  selector: {istio: gate}
  ports:
  - {name: http, port: ${\ port('gate')}, targetPort: ${\ port('gate')}, protocol: TCP}
  - {name: tcp, port: ${\ port('gate_tcp')}, targetPort: ${\ port('gate_tcp')}, protocol: TCP}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp, namespace: shop}
spec:
  hosts: ["*"]
  gateways: [gate]
  tcp: [{route: [{destination: {host: tcp, port: {number: ${\ port('tcp')}}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: round, namespace: shop}
spec:
  hosts: [round.chaos.example]
  gateways: [gate]
  http: [{directResponse: {status: 200, body: {string: "$i"}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: round$i, namespace: shop}
spec:
  hosts: [round$i.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: http1, namespace: shop}
spec: {host: http1, trafficPolicy: {connectionPool: {http: {http2MaxRequests: $requests}}}}
EOY
        . pod('gate', $gate_ip, 'istio: gate') . pod('back', $back_ip, 'app: back')
        . join('', map { service($_, $back_ip, $_ eq 'flaps' ? @more : ()) } @http, 'held', 'tcp')
        . join('', map { route($_, $i) } @http, 'held'));
}

my $ca = $control->make_ca('root');
mkdir $control->dir . "/$_" for 'mesh', 'ca';
chmod 0755, $control->dir . '/mesh';
$control->write('ca/root-cert.pem', Heddle::Cert::slurp($ca->{cert}));
$control->write('ca/root-key.pem', Heddle::Cert::slurp($ca->{key}));
$control->write('tokens', "the-token-of-gate shop gate\nthe-token-of-back shop back\n");
private($control, 'ca', 'ca/root-cert.pem', 'ca/root-key.pem', 'tokens');
say_round(0);
$control->conf(<<'EOC')->start;
control {
    listen      127.0.0.1:%%PORT_control%%;
    config_dir  %%DIR%%/mesh;
    ca_dir      %%DIR%%/ca;
    tokens      %%DIR%%/tokens;
}
EOC

sub proxy {
    my ($name, $kind, $ip, $labels, %more) = @_;
    my $hd = Heddle->new(workers => 2, log_level => 'notice');
    $hd->write('node.json', encode_json({id => "$kind~$ip~$name.shop~shop.svc.cluster.local", cluster => "$name.shop",
        metadata => {NAMESPACE => 'shop', SERVICE_ACCOUNT => $name, NAME => $name, CLUSTER_ID => 'Kubernetes',
            INSTANCE_IPS => $ip, INTERCEPTION_MODE => 'NONE', LABELS => $labels, %more}}));
    $hd->write('token', "the-token-of-$name\n");
    private($hd, 'token');
    my $at = '127.0.0.1:' . port('control');
    $hd->expect_log(qr/worker process \d+ exited on signal 9/, qr/agent process \d+ exited on signal 9/);
    return $hd->conf("admin %%ADMIN%%;\nxds { server $at; ca $at; cert_ttl 60s; node %%DIR%%/node.json; token %%DIR%%/token; }\n")->start;
}

my $back = proxy('back', 'sidecar', $back_ip, {app => 'back'}, APP_ADDRESS => $app_ip);
my $gate = proxy('gate', 'router', $gate_ip, {istio => 'gate'});
my %by_name = (gate => $gate, back => $back);

sub host { "$_[0].chaos.example" }

sub answer {
    my ($kind) = @_;
    my $c = eval { Heddle::Http->connect(port('gate'), addr => $gate_ip) } or return '';
    my $r = $c->request('GET', "/$kind/", Connection => 'close', Host => host($kind));
    return $r && $r->status == 200 ? $r->body : '';
}

sub round_in_force { my ($i) = @_; $control->wait_for(sub { answer('round') eq $i }, "round $i") }

round_in_force(0);
$control->wait_for(sub { eval { Heddle::Http->connect(port($_->[1]), addr => $_->[0]) } }, "port $_->[1]")
    for [$gate_ip, 'gate_tcp'], map { [$back_ip, $_] } @http, 'held', 'tcp';

# Connections at <ip>:<port>, by /proc/net/tcp.
sub connections_at {
    my ($ip, $port) = @_;
    my $at = sprintf '%08X:%04X', unpack('V', pack 'C4', split /\./, $ip), $port;
    open my $f, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    return grep { /^\s*\d+: \Q$at\E \S+ 01 / } <$f>;
}

my @held;
for my $n (1 .. 8) { # one after another: several at once may each open one before it is known what the peer speaks
    push @held, Heddle::Http->connect(port('gate'), addr => $gate_ip);
    $held[-1]->send("GET /held/$n HTTP/1.1\r\nHost: @{[host('held')]}\r\n\r\n");
    $control->wait_for(sub { $control->requests('held') == $n }, "request $n to be held");
}
cmp_ok scalar(() = connections_at($back_ip, port('held'))), '<=', 2, 'eight requests under way share a connection a worker: they run weft';
$_->close for @held;

# ---- the load

my $upgrade = "GET /ws HTTP/1.1\r\nHost: @{[host('ws')]}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

sub http1 {
    my ($kind, $id, %opt) = @_;
    return Heddle::Chaos::http1("/$kind/$id", port('gate'), addr => $gate_ip, host => host($kind), %opt);
}

sub h2 {
    my ($kind, $id, @args) = @_;
    return Heddle::Chaos::curl("/$kind/$id", 'http', host($kind), port('gate'), $gate_ip, '--http2-prior-knowledge', @args);
}

my $load = Heddle::Chaos->new($control,
    http1 => sub { http1('http1', $_[0]) },
    flaps => sub { http1('flaps', $_[0]) },
    large => sub { http1('large', $_[0], want => $big) },
    http2 => sub { h2('http2', $_[0]) },
    grpc => sub { h2('grpc', $_[0], '-H', 'Content-Type: application/grpc', '-H', 'TE: trailers', '-d', 'x') },
    ws => sub { Heddle::Chaos::echoes($_[0], port('gate'), addr => $gate_ip, head => $upgrade) },
    tcp => sub { Heddle::Chaos::echoes($_[0], port('gate_tcp'), addr => $gate_ip) },
);
my %how = (bytes => ['tcp'], upgraded => ['ws']);

sub counted {
    return Heddle::Chaos::counted($gate, 'source', sub { ($_[0]{destination_service} =~ /^(\w+)\.shop\./)[0] });
}

# ---- the chaos

my %agent_since = map { $_ => time } keys %by_name;
my $control_since = time;
$control->expect_log(qr/control process \d+ exited on signal 9/);

# One that ends within a second is restarted later, with an alert.
sub let_live { my ($since) = @_; $load->go_on(1) while time - $since < 1.5 }

sub kill_role {
    my ($hd, $role, $since) = @_;
    let_live($$since);
    my ($victim) = $hd->wait_for(sub { ($hd->processes($role))[0] }, $role);
    kill 'KILL', $victim;
    $hd->wait_for(sub { grep { $_ != $victim } $hd->processes($role) }, "another $role");
    $$since = time;
}

sub certificates { my ($hd) = @_; my @all = $hd->log =~ /xds: certificate for \S+, good for/g; return scalar @all }

# Odd rounds kill the control plane's process, even ones all of it; what it shall say changes before it is back.
sub change_all {
    my ($i) = @_;
    if ($i % 2) {
        say_round($i);
        kill_role($control, 'control process', \$control_since);
    } else {
        $control->crash;
        say_round($i);
        $load->go_on(1);
        $control->start;
        $control_since = time;
    }
    my $name = $i % 2 ? 'gate' : 'back';
    kill_role($by_name{$name}, 'agent', \$agent_since{$name});
    round_in_force($i);
    $load->go_on(1);
}

$load->go_on(3);
my %issued = map { $_ => certificates($by_name{$_}) } keys %by_name;
for my $i (1 .. $rounds) {
    $load->kill_worker($gate);
    $load->go_on(1);
    $load->kill_worker($back, qr/^(?:503|200\/14)$/);
    $load->go_on(1);
    change_all($i);
}
$load->quiet;
my %lost = $load->compare('with kills', \&counted, \%how, $load->may_differ(%how));
$load->resume;
change_all($rounds + 1);
my $growth = $load->watch_growth($gate, $back);
for my $name (sort keys %by_name) {
    my $agents = $rounds + 1 - int(($rounds + 1) / 2); # each new one asks for a certificate, too
    $agents = $rounds + 1 - $agents if $name eq 'back';
    ok eval { $control->wait_for(sub { certificates($by_name{$name}) > $issued{$name} + $agents }, 'a certificate', 150) },
        "$name: its certificate was renewed while all went on";
}
$load->go_on(3);
$load->quiet;
$load->compare('without', \&counted, \%how, %lost);
$load->stop;

# ---- the judgement

$load->judge;
my $own = '127.0.0.1:' . port('control');
for my $name (sort keys %by_name) {
    my $hd = $by_name{$name};
    my @gauges;
    ok eval { $hd->wait_for(sub { !(@gauges = Heddle::Chaos::gauges($hd, $own)) }, 'gauges') }, "$name: gauges are 0" or diag @gauges;
    is scalar(grep { /\[alert\]/ && !/exited on signal 9/ } split /\n/, $hd->log), 0, "$name: no alert but those of the kills";
}
$load->judge_upstream(sub { split /\n/, $app->file('asked.log') }, grep { $_ ne 'ws' } @http);
$growth->();
done_testing;
