# Rules of translation that the recordings of istiod don't show, each as a mesh of a few lines: delegates
# (VS-DEL-*), policies of a port (DR-11), retry budgets (DR-CP-15), Sidecar (SC-*), tokens nobody checked.
use strict;
use warnings;
use JSON::XS;
use Test::More;

my $build = $ENV{HD_BUILD} || 'objs';
my $json = JSON::XS->new->canonical->allow_nonref;
my $dir = "/tmp/heddle-translate-rules-$$";
mkdir $dir or die "$dir: $!";
END { unlink glob "$dir/*"; rmdir $dir if $dir }

sub spew { my ($f, $text) = @_; open my $h, '>', $f or die "$f: $!"; print $h $text; close $h or die "$f: $!" }

# Two namespaces, a service a, b, c each, with two ports; the proxy is a workload of shop.
my $base = join "---\n", map {
    my $ns = $_;
    map { <<"EOY" } 'a', 'b', 'c';
apiVersion: v1
kind: Service
metadata: {name: $_, namespace: $ns}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: http-more, port: 8080}]}
EOY
} 'shop', 'bank';

sub object {
    my ($kind, $name, $ns, $spec) = @_;
    my $group = $kind =~ /Policy|Authentication/ ? 'security' : 'networking';
    return "---\napiVersion: $group.istio.io/v1\nkind: $kind\nmetadata: {name: $name, namespace: $ns}\nspec:\n$spec";
}

our $node_kind = 'sidecar';
our %metadata;

# Type (Cluster …) to name to resource.
sub translate {
    my ($objects, %node) = @_;
    spew("$dir/mesh.yaml", $base . $objects);
    spew("$dir/node.json", $json->encode({id => "$node_kind~10.1.1.1~w.shop~shop.svc.cluster.local",
        metadata => {NAMESPACE => 'shop', INSTANCE_IPS => '10.1.1.1', LABELS => {app => 'a', %node},
            INTERCEPTION_MODE => 'REDIRECT', %metadata}}));
    mkdir "$dir/mesh";
    rename "$dir/mesh.yaml", "$dir/mesh/mesh.yaml" or die;
    my $out = `$build/tools/translate $dir/mesh $dir/node.json 2>$dir/err`;
    is $?, 0, 'translated' or diag `cat $dir/err`;
    our @findings = map { s/^mesh.yaml:\d+: //r } split /\n/, `cat $dir/err`;
    unlink "$dir/mesh/mesh.yaml";
    rmdir "$dir/mesh";
    my $all = decode_json($out);
    return {map { my $t = $_; (($t =~ /(\w+)$/)[0] => {map { ($_->{name} => $_->{resource}) } @{$all->{$t}}}) } keys %$all};
}

sub vhost {
    my ($r, $port, $name) = @_;
    return (grep { $_->{name} eq $name } @{$r->{RouteConfiguration}{$port}{virtual_hosts}})[0];
}

# "what it matches -> cluster", a route a line.
sub routes {
    my ($r, $host) = @_;
    return [map {
        my $m = $_->{match};
        my $path = exists $m->{path} ? "=$m->{path}" : exists $m->{prefix} ? "$m->{prefix}*" : '~';
        my @h = map { my $v = $_->{string_match}; "$_->{name}:" . ($v->{exact} // "$v->{prefix}*") } @{$m->{headers} || []};
        join(' ', $path, @h) . ' -> ' . ($_->{route}{cluster} =~ s/^outbound\|(\d+)\|\|(\w+)\..*/$2:$1/r);
    } @{vhost($r, 80, "$host.shop.svc.cluster.local:80")->{routes}}];
}

# ---- delegates

my $root = object('VirtualService', 'root', 'shop', <<'EOY');
  hosts: [a]
  http:
  - name: first
    match: [{uri: {prefix: /x}, headers: {k: {exact: v}}}, {uri: {prefix: /y}}]
    delegate: {name: part, namespace: bank}
    timeout: 3s
    headers: {request: {set: {by: root}}}
  - delegate: {name: nowhere}
  - route: [{destination: {host: c, port: {number: 80}}}]
EOY
my $part = sub {
    my ($export) = @_;
    return object('VirtualService', 'part', 'bank', <<"EOY");
$export  http:
  - name: one
    match: [{uri: {exact: /x/1}}, {uri: {prefix: /y/}}]
    route: [{destination: {host: b.shop.svc.cluster.local, port: {number: 80}}}]
  - match: [{uri: {prefix: /z}}]
    route: [{destination: {host: a.bank.svc.cluster.local, port: {number: 80}}}]
  - match: [{headers: {k: {exact: other}}}]
    timeout: 7s
    route: [{destination: {host: b.bank.svc.cluster.local, port: {number: 80}}}]
  - route: [{destination: {host: c.bank.svc.cluster.local, port: {number: 80}}}]
EOY
};
my $r = translate($root . $part->(''));
is_deeply routes($r, 'a'), [
    '=/x/1 k:v -> b:80', '/y/* -> b:80',      # VS-DEL-6: what fits both
                                              # /z fits neither: gone (VS-DEL-7)
    '/y* k:other -> b:80',                    # of the root's first block, k is v
    '/x* k:v -> c:80', '/y* -> c:80',         # no matches of its own: the root's
    '/* -> c:80'], 'a delegate\'s routes, in place and within the root\'s' or diag explain routes($r, 'a');
my $first = vhost($r, 80, 'a.shop.svc.cluster.local:80')->{routes};
is $first->[0]{name}, 'first-one', 'its name has both (VS-DEL-5)';
is_deeply [map { $_->{route}{timeout} } @$first], ['3s', '3s', '7s', '3s', '3s', '0s'], 'time-outs: its own, else the root\'s';
is_deeply [map { scalar @{$_->{request_headers_to_add} || []} } @$first], [1, 1, 1, 1, 1, 0], 'header edits: the root\'s';
is_deeply routes(translate($root . $part->("  exportTo: ['.']\n")), 'a'), ['/* -> c:80'],
    'one that isn\'t exported here is left out, with its route alone (VS-DEL-3)';
is_deeply routes(translate($root), 'a'), ['/* -> c:80'], 'so is one that isn\'t there';

# ---- DestinationRules

$r = translate(object('DestinationRule', 'a', 'shop', <<'EOY'));
  host: a
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 5}}
    outlierDetection: {consecutive5xxErrors: 3}
    retryBudget: {percent: 12.5, minRetryConcurrency: 4}
    portLevelSettings:
    - port: {number: 8080}
      connectionPool: {tcp: {maxConnections: 6}}
EOY
my %c = map { $_ => $r->{Cluster}{"outbound|$_||a.shop.svc.cluster.local"} } 80, 8080;
is $c{$_->[0]}{circuit_breakers}{thresholds}[0]{max_connections}, $_->[1], "port $_->[0]: its pool" for [80, 5], [8080, 6];
ok $c{80}{outlier_detection}, 'port 80 has the rule\'s outlier detection';
ok !$c{8080}{outlier_detection}, 'port 8080, which has settings of its own, has not (DR-11)';
is_deeply $c{$_}{circuit_breakers}{thresholds}[0]{retry_budget},
    {budget_percent => {value => 12.5}, min_retry_concurrency => 4}, "port $_: the retry budget, which is inherited"
    for 80, 8080;
ok !$r->{Cluster}{'outbound|80||b.shop.svc.cluster.local'}{circuit_breakers}{thresholds}[0]{retry_budget}, 'b has none';

# ---- Sidecar

sub sidecar { object('Sidecar', $_[0], $_[1], $_[2]) }
sub seen {
    my ($r) = @_;
    return join ' ', map { /^outbound\|80\|\|(\w+\.\w+)/ ? $1 : () } sort keys %{$r->{Cluster}};
}
my $all = 'a.bank a.shop b.bank b.shop c.bank c.shop';
is seen(translate('')), $all, 'without one, all that is exported is seen (SC-7)';
is seen(translate(sidecar('x', 'shop', "  egress: [{hosts: ['./*', 'bank/a.bank.svc.cluster.local']}]\n"))),
    'a.bank a.shop b.shop c.shop', 'what is imported is seen';
is seen(translate(sidecar('x', 'shop', "  egress: [{hosts: ['*/*', '~bank/b.bank.svc.cluster.local']}]\n"))),
    'a.bank a.shop b.shop c.bank c.shop', 'an exclusion beats it (SC-8)';
is seen(translate(sidecar('x', 'shop', "  egress: [{hosts: ['~/*']}]\n"))), '', 'nothing, if it says so';
is seen(translate(sidecar('x', 'istio-system', "  egress: [{hosts: ['./*']}]\n"))), '', 'the root namespace\'s holds for all';
is seen(translate(sidecar('x', 'istio-system', "  egress: [{hosts: ['./*']}]\n")
    . sidecar('y', 'shop', "  egress: [{hosts: ['bank/*']}]\n"))), 'a.bank b.bank c.bank', 'the namespace\'s goes before it';
is seen(translate(sidecar('y', 'shop', "  egress: [{hosts: ['bank/*']}]\n")
    . sidecar('z', 'shop', "  workloadSelector: {labels: {app: a}}\n  egress: [{hosts: ['./a.shop.svc.cluster.local']}]\n"))),
    'a.shop', 'and the workload\'s before that (SC-6)';
is seen(translate(sidecar('x', 'shop', "  egress: [{hosts: ['./a.shop.svc.cluster.local']}]\n")
    . object('VirtualService', 'v', 'shop', "  hosts: [a]\n  http: [{route: [{destination: {host: c.bank.svc.cluster.local}}]}]\n"))),
    'a.shop c.bank', 'a VirtualService that is imported brings along what it routes to (SC-9)';
$r = translate(sidecar('x', 'shop', "  egress: [{hosts: ['./*']}]\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"));
is vhost($r, 80, 'block_all')->{routes}[0]{direct_response}{status}, 502, 'REGISTRY_ONLY: other hosts answer 502 (SC-16)';
is $r->{Listener}{virtualOutbound}{filter_chains}[1]{filters}[0]{typed_config}{cluster}, 'BlackHoleCluster',
    'REGISTRY_ONLY: other connections end';

# ---- gateways

$node_kind = 'router';
sub vs { object('VirtualService', $_[0], 'shop', "  hosts: [$_[1]]\n  gateways: [g]\n$_[2]") }
sub to { "[{destination: {host: $_[0].shop.svc.cluster.local, port: {number: 80}}}]" }
my $gateway = object('Gateway', 'g', 'shop', <<'EOY') . <<'EOY';
  selector: {app: a}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [one.example, two.example]}
  - {port: {number: 81, name: http-sent-on, protocol: HTTP}, hosts: [old.example], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["*.pass.example"], tls: {mode: PASSTHROUGH}}
  - {port: {number: 900, name: tcp, protocol: TCP}, hosts: ["*"]}
EOY
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {clusterIP: 10.0.0.9, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8000}]}
EOY
$r = translate($gateway . vs('v1', '"*"', "  http: [{route: ${\ to('a')}}]\n")
    . vs('v2', 'two.example', "  http: [{match: [{uri: {prefix: /b}}], route: ${\ to('b')}}]\n")
    . vs('v3', 'x.pass.example', "  tls: [{match: [{sniHosts: [x.pass.example]}], route: [{destination: {host: b, port: {number: 80}}, weight: 3},"
        . " {destination: {host: c, port: {number: 80}}, weight: 1}]}]\n")
    . vs('v4', '"*"', "  tcp: [{match: [{port: 900}], route: ${\ to('c')}}]\n"));
is join(' ', sort keys %{$r->{Listener}}), '0.0.0.0_443 0.0.0.0_8000 0.0.0.0_81 0.0.0.0_900',
    'listeners at the ports that the Service before it names (GW-2)';
my %vh = map { $_->{name} => [map { "$_->{match}{prefix} $_->{route}{cluster}" =~ s/outbound\|80\|\|(\w).*/$1/r } @{$_->{routes}}] }
    @{$r->{RouteConfiguration}{'http.8000'}{virtual_hosts}};
is_deeply \%vh, {'one.example:80' => ['/ a'], 'two.example:80' => ['/b b', '/ a']},
    'a VirtualService for all is at each of the server\'s hosts (GW-9), behind what is more exact (VS-12)' or diag explain \%vh;
is $r->{RouteConfiguration}{'http.81'}{virtual_hosts}[0]{require_tls}, 'ALL', 'httpsRedirect, without a VirtualService (GW-TLS-1)';
my ($sni) = @{$r->{Listener}{'0.0.0.0_443'}{filter_chains}};
is_deeply $sni->{filter_chain_match}{server_names}, ['x.pass.example'], 'PASSTHROUGH: by SNI (GW-TLS-2)';
ok !$sni->{transport_socket}, 'and unopened';
is_deeply [map { "$_->{name} $_->{weight}" =~ s/outbound\|80\|\|(\w)\S*/$1/r } @{$sni->{filters}[0]{typed_config}{weighted_clusters}{clusters}}],
    ['b 3', 'c 1'], 'with weights';
is $r->{Listener}{'0.0.0.0_900'}{filter_chains}[0]{filters}[0]{typed_config}{cluster}, 'outbound|80||c.shop.svc.cluster.local', 'TCP';
$node_kind = 'sidecar';

# ---- tokens: none was checked, so nobody has shown one. An ALLOW that asks for one allows nobody, a DENY of
# all without one denies all; neither is left out, which would open what it guards.

sub principals {
    my ($action, $from) = @_;
    my $r = translate(object('AuthorizationPolicy', 'token', 'shop', "  action: $action\n  rules: [{from: [{source: {$from}}]}]\n"));
    my ($rbac) = grep { $_->{name} eq 'envoy.filters.http.rbac' }
        map { @{$_->{typed_config}{http_filters} || []} } map { @{$_->{filters}} } @{$r->{Listener}{virtualInbound}{filter_chains}};
    return $json->encode([map { $_->{principals} } values %{$rbac->{typed_config}{rules}{policies}}]);
}
is principals('DENY', 'notRequestPrincipals: ["*"]'), '[[{"and_ids":{"ids":[{"any":true}]}}]]',
    'DENY without a token: everybody';
is principals('ALLOW', 'requestPrincipals: ["*"]'), '[[{"and_ids":{"ids":[{"not_id":{"any":true}}]}}]]',
    'ALLOW with a token: nobody';

# ---- HTTP/1.0, as istiod has it: a proxy whose metadata says HTTP10 takes it

for my $http10 (undef, '0', '1') {
    local %metadata = defined $http10 ? (HTTP10 => $http10) : ();
    my $r = translate('');
    my @options = map { $_->{typed_config}{http_protocol_options} // {} }
        grep { $_->{name} eq 'envoy.filters.network.http_connection_manager' }
        map { @{$_->{filters}} } map { @{$_->{filter_chains} // []} } values %{$r->{Listener}};
    my $takes = ($http10 // '') eq '1';
    ok @options > 1 && !(grep { !!$_->{accept_http_10} != $takes } @options), 'HTTP10 ' . ($http10 // 'unset') or diag explain \@options;
}

# ---- what has no effect yet is said, never dropped in silence

our @findings;
translate(object('Gateway', 'g', 'shop', "  servers:\n  - {port: {number: 443, name: x, protocol: HTTPS}, hosts: ['*'],"
        . " tls: {mode: SIMPLE, credentialName: x}}\n")
    . sidecar('s', 'shop', "  egress: [{port: {number: 80, protocol: HTTP, name: x}, hosts: ['*/*']}]\n"
        . "  ingress: [{port: {number: 80, protocol: HTTP, name: x}, defaultEndpoint: '127.0.0.1:80'}]\n")
    . object('VirtualService', 'v', 'shop', "  hosts: [a]\n  tcp: [{route: [{destination: {host: a}}]}]\n"
        . "  http: [{corsPolicy: {allowMethods: [GET]}, route: [{destination: {host: a}}]}]\n")
    . object('AuthorizationPolicy', 'p', 'shop', "  action: CUSTOM\n  provider: {name: x}\n  rules: [{}]\n"));
for my $what (qr/^warning: .*a server that ends TLS: not supported yet/, qr/^warning: .*egress: port and bind/, qr/^warning: .*ingress: not/,
    qr/^warning: .*tcp, tls for the gateway "mesh"/, qr/^warning: .*corsPolicy/, qr/^warning: .*CUSTOM.* is denied/) {
    is scalar(grep { $_ =~ $what } @findings), 1, "$what" or diag explain \@findings;
}
done_testing;
