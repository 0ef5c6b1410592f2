#!/usr/bin/perl
# HTTP/1, HTTP/2, gRPC, TLS, WebSockets and TCP at once, while workers, the agent and the control plane are killed, the
# configuration reloads with another certificate, that by xDS changes, its secret too, and an upstream comes and goes.
# Every request has its answer or a correct error; only one under way while a worker was killed may end in a closed
# connection. No count is lost: /metrics has what each client saw, requests, connections and bytes, but for what a killed
# worker held. Afterwards nothing is left: gauges are 0, all that the upstream saw was asked for, and no worker has grown.
# With Heddle's own control plane: chaos_control.t.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Time::HiRes qw(time);
use Heddle;
use Heddle::Chaos;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;
plan skip_all => 'no curl with HTTP/2' if (qx{curl --version 2>/dev/null} // '') !~ /\bHTTP2\b/;

my $rounds = Heddle::is_sanitized() ? 3 : 5; # workers are killed in them
my $more_rounds = 2;                         # all else happens in these, too

# The upstream that stays is a Heddle, for it speaks HTTP/2; what it was asked stands in its log.
my $back = Heddle->new->conf(<<'EOC')->start;
http {
    log_format uri "$request_uri";
    access_log %%DIR%%/asked.log uri;
    server { listen 127.0.0.1:%%PORT_0%%; http2 on; location / { default_type application/grpc; add_header grpc-status 0; return 200 "answer $request_uri"; } }
}
EOC
my $hd = Heddle->new(workers => 2, modules => ['metrics']);
my $back_port = $back->port(0);
my $ca = $hd->make_ca('root');
my @certs = map { $ca->make_cert("server$_", dns => 'localhost') } 0, 1;

sub conf_with {
    my ($cert) = @_;
    return <<"EOC";
admin %%ADMIN%%;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
http {
    access_log off;
    metrics on reporter=source;
    upstream steady { server 127.0.0.1:$back_port; keepalive 8; }
    upstream flaps { server 127.0.0.1:%%PORT_5%% max_fails=0; server 127.0.0.1:$back_port max_fails=0; keepalive 8; }
    upstream alone { server 127.0.0.1:%%PORT_5%% max_fails=0; }
    upstream sockets { server 127.0.0.1:%%PORT_6%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_1%% ssl;
        http2 on;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        location / { proxy_pass http://steady; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /flaps { proxy_pass http://flaps; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /alone { proxy_pass http://alone; }
        location /grpc { grpc_pass grpc://steady; }
        location /ws {
            proxy_pass http://sockets;
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
}
stream {
    metrics on reporter=source;
    upstream lines { server 127.0.0.1:%%PORT_7%%; }
    server { listen 127.0.0.1:%%PORT_2%%; proxy_pass lines; }
}
EOC
}

sub flapping { $hd->backend(5, sub { [200, {}, "answer $_[0]{uri}"] }) }
flapping();
$hd->tcp_backend(7, \&Heddle::Chaos::echo);
$hd->tcp_backend(6, \&Heddle::Chaos::upgraded_echo);
$hd->conf(conf_with($certs[0]));
my $xds = Heddle::Xds->new($hd, 'xds');
my %tls = (name => 'tls', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
    common_tls_context => {tls_certificate_sds_secret_configs => [{name => 'cert', sds_config => {ads => {}}}]}});
my $stats = {name => 'istio.stats', typed_config => {'@type' => 'type.googleapis.com/stats.PluginConfig'}};

# What the control plane says in round <i>, which responses show: a cluster and a certificate of its own.
sub say_round {
    my ($i) = @_;
    my ($chain, $key) = map { +{inline_string => Heddle::Cert::slurp($certs[$i % 2]{$_})} } 'chain', 'key';
    my %front = (http_filters => [$stats], listener => {traffic_direction => 'OUTBOUND'},
        route_config => Heddle::Xds::routes('in',
            ['/' => "meshed$i", response_headers_to_add => [{header => {key => 'x-round', value => "$i"}}]]));
    $xds->serve(
        CDS => [Heddle::Xds::cluster("meshed$i", $back_port)],
        SDS => [{name => 'cert', tls_certificate => {certificate_chain => $chain, private_key => $key}}],
        LDS => [Heddle::Xds::listener('front', $hd->port(3), %front),
            Heddle::Xds::listener('secure', $hd->port(4), %front, chain => {transport_socket => \%tls})],
    )->start;
}
say_round(0);
$hd->start;
for my $n (3, 4) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($n)) }, 'the listeners by xDS') }

# ---- the load

my ($port, $tls_port, $tcp_port, undef, $secure_port) = map { $hd->port($_) } 0 .. 4;

sub host { my ($uri) = @_; return ($uri =~ m{^/(\w+)/})[0] . '.chaos.svc.cluster.local' } # in the labels of metrics

sub curl {
    my ($uri, @args) = @_;
    my ($scheme, $p) = $uri =~ /^\/tls/ ? ('https', $tls_port) : $uri =~ /^\/secure/ ? ('https', $secure_port) : ('http', $port);
    return Heddle::Chaos::curl($uri, $scheme, 'localhost', $p, '127.0.0.1', '--cacert', $ca->{cert}, '-H', 'Host: ' . host($uri), @args);
}

sub http1 { my ($uri, $to) = @_; return Heddle::Chaos::http1($uri, $to // $port, host => host($uri)) }

my @grpc = ('--http2-prior-knowledge', '-H', 'Content-Type: application/grpc', '-H', 'TE: trailers', '-d', 'x');
my $upgrade = "GET /ws HTTP/1.1\r\nHost: @{[host('/ws/')]}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
my $load = Heddle::Chaos->new($hd,
    http1 => sub { http1("/http1/$_[0]") },
    mesh => sub { http1("/mesh/$_[0]", $hd->port(3)) },
    flaps => sub { http1("/flaps/$_[0]") },
    alone => sub { http1("/alone/$_[0]") },
    http2 => sub { curl("/http2/$_[0]", '--http2-prior-knowledge') },
    tls => sub { curl("/tls/$_[0]") },
    secure => sub { curl("/secure/$_[0]") },
    grpc => sub { curl("/grpc/$_[0]", @grpc) },
    ws => sub { Heddle::Chaos::echoes($_[0], $port, head => $upgrade) },
    tcp => sub { Heddle::Chaos::echoes($_[0], $tcp_port) },
);
my %how = (bytes => ['tcp'], upgraded => ['ws']);

# By Host, which is the kind's; sessions of bytes are of one kind.
sub counted {
    return Heddle::Chaos::counted($hd, 'source', sub {
        my ($label) = @_;
        return $label->{request_protocol} eq 'tcp' ? 'tcp' : ($label->{destination_service} =~ /^(\w+)\.chaos\./)[0];
    });
}

# ---- the chaos

my $agent_since = time;
$hd->expect_log(qr/worker process \d+ exited on signal 9/, qr/agent process \d+ exited on signal 9/);

# The control plane is away while the agent dies; then all there is to change changes.
sub change_all {
    my ($i) = @_;
    $xds->stop;
    my ($agent) = $hd->wait_for(sub { ($hd->processes('agent'))[0] }, 'an agent');
    $load->go_on(1) while time - $agent_since < 1.5; # one that ends within a second is restarted later, with an alert
    kill 'KILL', $agent;
    $hd->wait_for(sub { grep { $_ != $agent } $hd->processes('agent') }, 'another agent');
    $agent_since = time;
    $hd->stop_backend(5);
    $load->go_on(1);
    $hd->conf(conf_with($certs[$i % 2]));
    ok $hd->reload, "round $i: reloaded with another certificate";
    flapping();
    say_round($i);
    $load->go_on(1);
}

# The serial of the certificate that is shown at <p>.
sub shown_at {
    my ($p) = @_;
    return qx{openssl s_client -connect 127.0.0.1:$p -servername localhost </dev/null 2>/dev/null | openssl x509 -noout -serial 2>/dev/null};
}

$load->go_on(3);
for my $i (1 .. $rounds) {
    $load->kill_worker($hd);
    $load->go_on(1);
    change_all($i);
}
$load->quiet;
my %lost = $load->compare('with kills', \&counted, \%how, $load->may_differ(%how));
$load->resume;
change_all($rounds + $_) for 1 .. $more_rounds;
my $last = $rounds + $more_rounds;
my $serial = qx{openssl x509 -noout -serial -in $certs[$last % 2]{cert}};
ok eval { $hd->wait_for(sub { ($hd->get('/', {port => 3})->header('x-round') // '') eq $last }, 'its last word') },
    'what the control plane said last is in force';
for ([$tls_port, 'of the file'], [$secure_port, 'by xDS']) {
    my ($p, $which) = @$_;
    ok eval { $hd->wait_for(sub { shown_at($p) eq $serial }, 'the last certificate') }, "the last certificate $which is shown";
}
my $growth = $load->watch_growth($hd);
$load->quiet;
$load->compare('without', \&counted, \%how, %lost);
$load->stop;

# ---- the judgement

$load->judge(alone => qr/^50[234]$/); # its only upstream was away; all others had one
my @gauges;
ok eval { $hd->wait_for(sub { !(@gauges = Heddle::Chaos::gauges($hd, '127.0.0.1:' . $hd->port('xds'))) }, 'gauges') },
    'gauges are 0' or diag @gauges;
$load->judge_upstream(sub { split /\n/, $back->file('asked.log') }, qw(http1 http2 tls grpc mesh secure));
$growth->();
is scalar(grep { /\[alert\]/ && !/exited on signal 9/ } split /\n/, $hd->log), 0, 'no alert but those of the kills';
done_testing;
