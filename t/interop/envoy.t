#!/usr/bin/perl
# A real Envoy and Heddle, both driven by Heddle's control plane: a gateway and a sidecar without
# interception of each kind, with the same metadata. Envoy must accept all that it is sent; then
# t/interop/envoy/requests go through both, and the answer, the chosen version and the
# head that it received are compared. What may differ stands in t/interop/envoy-differences.
# The mesh (t/interop/envoy/mesh.yaml) has mTLS off: identities are t/mesh's matter.
# Needs: auto/envoy --install. INTEROP_CASE=REGEX runs some of the requests.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::XS;
use Test::More;
use Heddle;
use Heddle::Envoy;
use Interop qw(slurp);

my $program = Heddle::Envoy::program();
plan skip_all => $Heddle::Envoy::missing if !$program;

my $net = sprintf '127.%d.%d', 100 + ($$ >> 8) % 100, $$ % 256;
my $here = "$FindBin::Bin/envoy";
my $user = $> == 0 ? (getpwnam 'nobody')[2] : $>; # whom heddle's processes become
my %token = (gateway => 'token-of-the-gateway', inner => 'token-of-the-application');

# ---- the control plane

my $control = Heddle->new;
$control->port($_) for 'gate', 'proxy', 'inner';
my %address = (v1 => "$net.11", v2 => "$net.12", v3 => "$net.13", books => "$net.14", inner => "$net.31");

sub secret {
    my ($hd, $name, $text) = @_;
    my $path = $hd->write($name, $text);
    chmod 0600, $path;
    chown $user, -1, $path;
    return $path;
}

# The EndpointSlice and the Pod of a workload.
sub pod {
    my ($name, $app, $ip, $port, $version) = @_;
    return <<"EOY";
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $name, namespace: shop, labels: {kubernetes.io/service-name: $app}}
addressType: IPv4
ports: [{name: http, port: $port, protocol: TCP}]
endpoints:
- addresses: [$ip]
  conditions: {ready: true, serving: true, terminating: false}
  targetRef: {kind: Pod, namespace: shop, name: $name}
---
apiVersion: v1
kind: Pod
metadata: {name: $name, namespace: shop, labels: {app: $app, version: $version}}
spec:
  serviceAccountName: $app
  containers: [{name: $app, image: any, ports: [{name: http, containerPort: $port}]}]
status:
  phase: Running
  podIP: $ip
  podIPs: [{ip: $ip}]
  conditions: [{type: Ready, status: "True"}]
EOY
}

my $mesh = slurp("$here/mesh.yaml");
my $pods = join '', (map { pod("app-$_", 'app', $address{$_}, "%%PORT_$_%%", $_) } 'v1', 'v2', 'v3'),
    pod('books-1', 'books', $address{books}, '%%PORT_books%%', 'v1'),
    map { pod("inner-$_", 'inner', "$net.$_", '%%PORT_inner%%', 'v1') } 3, 4;
$mesh =~ s/%%APP_PODS%%\n/$pods/;
$mesh =~ s/%%NET%%/$net/g;
mkdir $control->dir . '/mesh';
chmod 0755, $control->dir . '/mesh';
$control->write('mesh/mesh.yaml', $mesh);
secret($control, 'tokens', "$token{gateway} shop gateway\n$token{inner} shop inner\n");
$control->conf(<<'EOC');
control {
    listen      127.0.0.1:%%PORT_control%%;
    config_dir  %%DIR%%/mesh;
    tokens      %%DIR%%/tokens;
}
EOC

# ---- what is behind: answers as x-fail, x-status, x-hang of the request say

my %failed;
for my $name (sort keys %address) {
    $control->backend($name, sub {
        my ($req) = @_;
        my $fail = $req->header('x-fail') // 0;
        my $status = $req->header('x-status') // 200;
        return {hang => 1} if $req->header('x-hang');
        $status = 503 if $fail && $failed{$req->header('x-case')}++ < $fail;
        return [$status, ['Content-Type' => 'text/plain', 'X-Secret' => 'inner', 'X-Version' => $name,
            'Server' => 'app', 'Location' => 'http://shop.example/x'], "$name\n"];
    }, addr => $address{$name});
}

# ---- the proxies: envoy at .1 and .3, heddle at .2 and .4

sub node {
    my ($kind, $account, $ip) = @_;
    return {
        id => "$kind~$ip~$account-1.shop~shop.svc.cluster.local", cluster => "$account.shop",
        metadata => {NAMESPACE => 'shop', SERVICE_ACCOUNT => $account, NAME => "$account-1", CLUSTER_ID => 'Kubernetes',
            INSTANCE_IPS => $ip, INTERCEPTION_MODE => 'NONE',
            $kind eq 'router' ? (LABELS => {app => 'gateway', istio => 'ingressgateway'})
            : (LABELS => {app => $account, version => 'v1'}, HTTP_PROXY_PORT => '' . $control->port('proxy'),
                APP_ADDRESS => $address{inner})},
    };
}

sub envoy {
    my ($kind, $account, $ip) = @_;
    return Heddle::Envoy->new($control, $account, control => '127.0.0.1:' . $control->port('control'),
        node => node($kind, $account, $ip), token => $token{$account}, admin => $control->port("admin_$account"));
}

sub heddle {
    my ($kind, $account, $ip) = @_;
    my $hd = Heddle->new;
    $hd->write('node.json', JSON::XS->new->canonical->encode(node($kind, $account, $ip)));
    secret($hd, 'token', "$token{$account}\n");
    my $port = $control->port('control');
    return $hd->conf("xds { server 127.0.0.1:$port; node %%DIR%%/node.json; token %%DIR%%/token; }\n");
}

my %envoy = (router => envoy('router', 'gateway', "$net.1"), sidecar => envoy('sidecar', 'inner', "$net.3"));
my %heddle = (router => heddle('router', 'gateway', "$net.2"), sidecar => heddle('sidecar', 'inner', "$net.4"));
my %at = ( # where: port, last number of envoy's and heddle's address
    gateway => ['gate', 1, 2], proxy => ['proxy', 3, 4], inbound => ['inner', 3, 4]);

$control->start;
$_->start for values %envoy, values %heddle;

my $ready = eval {
    for my $where (sort keys %at) {
        my ($port, @ips) = @{$at{$where}};
        for my $ip (@ips) {
            $control->wait_for(sub {
                my $sock = IO::Socket::INET->new(PeerAddr => "$net.$ip", PeerPort => $control->port($port));
                die "Envoy ended\n" if grep { !$_->is_running } values %envoy;
                return $sock;
            }, "the $where listener of $net.$ip");
        }
    }
    1;
};
diag $@ if !$ready;
ok $ready, 'both have their listeners';

# ---- Envoy accepts all of it

for my $kind (sort keys %envoy) {
    my $rejected = $envoy{$kind}->stats(qr/(update_rejected|update_failure)$/);
    is_deeply {map { $_ => $rejected->{$_} } grep { $rejected->{$_} } keys %$rejected}, {}, "$kind: Envoy rejects nothing"
        or diag $envoy{$kind}->log;
    for my $type ('cluster_manager.cds', 'listener_manager.lds') {
        cmp_ok $envoy{$kind}->stat("$type.update_success"), '>', 0, "$kind: Envoy took $type";
    }
    is $envoy{$kind}->stat('listener_manager.total_listeners_warming'), 0, "$kind: no listener waits for anything";
    is $envoy{$kind}->stat('cluster_manager.warming_clusters'), 0, "$kind: no cluster waits for anything";
}
unlike $control->log, qr/xds: \S+ refused/, 'the control plane was told of no error';
if (!$ready) {
    diag $_->log for values %envoy, values %heddle;
    $_->stop for values %envoy, values %heddle;
    done_testing;
    exit;
}

# ---- the requests

# Each {name, status, version, where, raw}: see the top of t/interop/envoy/requests.
sub read_requests {
    my @requests;
    for my $text (split /^### /m, slurp("$here/requests")) {
        next if $text eq '' || $text =~ /^#/;
        my %r;
        @r{'name', 'status', 'version', 'where', 'from', 'raw'} =
            $text =~ /\A([^\n]*) -> (\d+) (\S+)\n# (\w+)(?: from (\d+))?\n(.*)\z/s or die "requests: $text";
        my ($head, $body) = split /^\n/m, $r{raw}, 2;
        $head =~ s/\n/\r\n/g;
        $body =~ s/\n+\z//;
        $body =~ s/\n/\r\n/g and $body .= "\r\n\r\n" if $head =~ /^transfer-encoding/mi;
        push @requests, {%r, raw => "$head\r\n$body"};
    }
    return @requests;
}

sub read_differences {
    my @rows;
    for my $line (split /\n/, slurp("$FindBin::Bin/envoy-differences")) {
        next if $line =~ /^(#|\s*$)/;
        my ($request, $what, $which, $reason) = map { s/^\s+|\s+$//gr } split /\|/, $line, 4;
        $what =~ /^(answer-header|upstream-header|upstream-loopback|body|version)$/ && length($reason // '') or die "envoy-differences: $line";
        push @rows, {line => $line, request => Interop::glob_regex($request), what => $what, which => lc $which};
    }
    return @rows;
}

my @own = split ' ', `hostname -I`; # addresses of this machine

# Header lines, sorted by name; names in small letters, what is made up for each request as its form.
sub fields {
    my ($head, $rows, $what, $ip) = @_;
    my @fields;
    my (undef, @lines) = split /\r\n/, $head;
    for (@lines) {
        my ($name, $value) = /^([^:]+):[ \t]*(.*?)[ \t]*$/ or next;
        $name = lc $name;
        next if $name eq 'x-case';
        next if grep { $_->{what} eq $what && $_->{which} eq $name && ++$_->{used} } @$rows;
        for my $row (grep { $_->{what} eq 'upstream-loopback' && $_->{which} eq $name } @$rows) {
            for my $own (@own) {
                $row->{used}++ if $what eq 'upstream-header' && $value =~ s/(^|,)\Q$own\E$/${1}127.0.0.1/;
            }
        }
        $value = 'UUID' if $value =~ /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
        $value = 'NUMBER' if $name eq 'x-envoy-upstream-service-time' && $value =~ /^\d+$/;
        $value = 'TIME' if $name eq 'date' && $value =~ / GMT$/;
        $value =~ s/\b\Q$ip\E\b/OWN/g;
        push @fields, [$name, $value];
    }
    return map { "$_->[0]: $_->[1]\n" } sort { $a->[0] cmp $b->[0] } @fields;
}

my $cases = 0;
my %seen; # requests of a back end that were looked at before
sub new_requests {
    my @new;
    for my $name (sort keys %address) {
        my @all = $control->requests($name);
        push @new, map { {%$_, to => $name} } @all[($seen{$name} // 0) .. $#all];
        $seen{$name} = @all;
    }
    return @new;
}

# What comes of a request: {status, version, answer (text), upstream (text)}.
sub outcome {
    my ($r, $ip, $port, $rows) = @_;
    my $c = Heddle::Http->connect($port, addr => $ip, $r->{from} ? (bind => "$net.$r->{from}") : ());
    my $case = ++$cases; # tells the tries of one request from those of another
    $c->send($r->{raw} =~ s/\r\n/\r\nX-Case: $case\r\n/r);
    my $answer = eval { $c->response($r->{raw} =~ /^(\S+)/) };
    $c->close;
    my @upstream = new_requests();
    my %got = (status => $answer ? $answer->status : 'none', version => join(',', map { $_->{to} } @upstream) || '-');
    if ($answer) {
        my $body = (grep { $_->{what} eq 'body' && ++$_->{used} } @$rows) ? '' : $answer->body;
        $got{answer} = join '', fields($answer->head, $rows, 'answer-header', $ip), "\n$body";
    }
    $got{upstream} = join "\n", map {
        join '', ($_->{head} =~ /^(.*)\r\n/)[0], "\n", fields($_->{head}, $rows, 'upstream-header', $ip),
            $_->{body} ne '' ? "\n$_->{body}\n" : ''
    } @upstream;
    return \%got;
}

my @rows = read_differences();
my $only = $ENV{INTEROP_CASE};
my ($n, $near) = (0, 0);
for my $r (read_requests()) {
    next if $only && $r->{name} !~ /$only/;
    my ($port, @ips) = @{$at{$r->{where}}};
    my @mine = grep { $r->{name} =~ $_->{request} } @rows;
    my ($envoy, $heddle) = map { outcome($r, "$net.$_", $control->port($port), \@mine) } @ips;
    $n++;
    $near++ if $r->{name} =~ s/^(proxy|inbound): //r =~ /[:,] /; # a variant of the one before it
    my $want = "$r->{status} $r->{version}";
    is "$heddle->{status} $heddle->{version}", $want, "$r->{name}: Heddle";
    if (grep { $_->{what} eq 'version' } @mine) {
        $_->{used}++ for grep { $_->{what} eq 'version' && "$envoy->{status} $envoy->{version}" ne $want } @mine;
        next;
    }
    is "$envoy->{status} $envoy->{version}", $want, "$r->{name}: Envoy";
    is $heddle->{upstream}, $envoy->{upstream}, "$r->{name}: what the back end received";
    is $heddle->{answer}, $envoy->{answer}, "$r->{name}: the answer";
}
if (!$only) {
    cmp_ok $n, '>=', 40, "$n requests";
    cmp_ok 2 * $near, '>=', $n, "$near of them near misses";
    is_deeply [map { $_->{line} } grep { !$_->{used} } @rows], [], 'each row of the table is needed';
}
$_->stop for values %heddle;

# ---- other meshes: those that t/mesh/translate.t compares with istiod's answers. Envoy takes all of them. With
# mTLS their clusters and listeners wait for secrets, of which nobody here has any.

for my $path (sort glob "$Heddle::top/t/fixtures/istiod/*/*.yaml") {
    my ($feature) = $path =~ m{([^/]+)/[^/]+$};
    my %before = map { $_ => $envoy{$_}->stat('cluster_manager.cds.update_success') } keys %envoy;
    # a service more, so that clusters do change
    $control->write('mesh/mesh.yaml', slurp($path) . <<"EOY");
---
apiVersion: v1
kind: Service
metadata: {name: only-$feature, namespace: shop}
spec: {type: ClusterIP, clusterIP: $net.200, clusterIPs: [$net.200], ports: [{name: http, port: 9000, protocol: TCP}]}
EOY
    for my $kind (sort keys %envoy) {
        ok eval {
            $control->wait_for(sub { $envoy{$kind}->stat('cluster_manager.cds.update_success') > $before{$kind} }, 'clusters');
        }, "$kind: Envoy took the mesh $feature";
    }
}
$control->write('mesh/mesh.yaml', $mesh); # and it all went through the stream in order: this one comes last
for (['gateway', 'shop.example', 1], ['proxy', 'app:8000', 3]) {
    my ($where, $host, $ip) = @$_;
    ok eval {
        $control->wait_for(sub {
            my $c = eval { Heddle::Http->connect($control->port($at{$where}[0]), addr => "$net.$ip") } or return 0;
            return $c->request('GET', '/exact', {}, Host => $host, Connection => 'close')->status == 200;
        }, "the first mesh at the $where");
    }, "$where: the first mesh is in force again";
}
for my $kind (sort keys %envoy) {
    my $rejected = $envoy{$kind}->stats(qr/update_rejected$/);
    is_deeply {map { $_ => $rejected->{$_} } grep { $rejected->{$_} } keys %$rejected}, {}, "$kind: Envoy rejected nothing";
}
unlike $control->log, qr/xds: \S+~\Q$net\E\.[13]~\S+ refused/, 'nor was the control plane told so';

$control->stop; # whose streams never end by themselves
$_->stop for values %envoy;
done_testing;
