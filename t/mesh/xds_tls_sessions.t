#!/usr/bin/perl
# TLS sessions by xDS: resumed in whichever worker, and never by a filter chain that verifies clients in another way, by other roots,
# or for other names than the one that made them; an upstream's by its own cluster alone, not after its certificate or ours has changed,
# and not where max_session_keys is 0. (t/proxy/tls_sessions.t: by file.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info', workers => 2);
my $dir = $hd->dir;
my ($ca, $other) = map { $hd->make_ca($_) } 'root', 'other';
my $server = $ca->make_cert('server', dns => ['localhost', 'a.test', 'b.test', 'backend.test']);
my %client = (own => $ca->make_cert('own', cn => 'own', spiffe => 'spiffe://td/own'), second => $ca->make_cert('second', cn => 'second'));
$hd->echo_server('up');
my $front = Heddle::TlsFront->start($hd, nginx => 'up', cert => $server, client_ca => $ca);

sub file { return {inline_string => Heddle::Cert::slurp($_[0])} }
sub cert { return {certificate_chain => file($_[0]{chain}), private_key => file($_[0]{key})} }
sub typed { my ($side, %tls) = @_; return {transport_socket => {name => 'tls', typed_config => {
    '@type' => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${side}TlsContext", %tls}}} }
sub serves { # a filter chain
    my ($name, %tls) = @_;
    my %common = (tls_certificates => [cert($server)], %{delete $tls{common_tls_context} // {}});
    return typed('Downstream', common_tls_context => \%common, %tls);
}
sub routes { my ($name) = @_; my $r = Heddle::Xds::routes($name);
    $r->{virtual_hosts}[0]{routes} = [{match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => $name}}}]; return $r }
sub listener { my ($name, $chain) = @_; return Heddle::Xds::listener($name, $hd->port($name), route_config => routes($name), chain => $chain) }

my $true = JSON::XS::true;
my %roots = map { my ($n, $c) = @$_; ($n => {validation_context => {trusted_ca => file($c->{cert})}}) } [ca => $ca], [other => $other];
my $by_sni = listener('sni', {filter_chain_match => {server_names => ['a.test']}, %{serves('a')}});
$by_sni->{listener_filters} = [{name => 'tls_inspector', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector'}}];
push @{$by_sni->{filter_chains}}, listener('sni', {filter_chain_match => {server_names => ['b.test']},
    %{serves('b', require_client_certificate => $true, common_tls_context => $roots{ca})}})->{filter_chains}[0];
my @listeners = (listener('nobody', serves('nobody')), listener('nobody2', serves('nobody2')),
    listener('asks', serves('asks', common_tls_context => $roots{ca})),
    listener('demands', serves('demands', require_client_certificate => $true, common_tls_context => $roots{ca})),
    listener('others', serves('others', common_tls_context => $roots{other})),
    listener('names', serves('names', require_client_certificate => $true, common_tls_context => {validation_context => {
        %{$roots{ca}{validation_context}}, match_typed_subject_alt_names => [{san_type => 'URI', matcher => {exact => 'spiffe://td/else'}}]}})),
    listener('stateless', serves('stateless', disable_stateless_session_resumption => $true, disable_stateful_session_resumption => $true)),
    $by_sni);

my %up = (one => {}, two => {}, never => {max_session_keys => 0});
my %certs = map { $_ => $client{own} } keys %up;
sub clusters {
    return map {
        Heddle::Xds::cluster($_, $hd->port('nginx'), common_http_protocol_options => {max_requests_per_connection => 1}, %{typed('Upstream', sni => 'backend.test',
            %{$up{$_}}, common_tls_context => {tls_certificates => [cert($certs{$_})], %{$roots{ca}}})})
    } sort keys %up;
}
my $xds = Heddle::Xds->new($hd, 'xds');
sub serve { $xds->serve(CDS => [clusters()], LDS => [@listeners, Heddle::Xds::listener('front', $hd->port(0),
    route_config => Heddle::Xds::routes('r', map { ["/$_" => $_] } sort keys %up))]) }
serve()->start;
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }')->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 0, map { $_->{name} } @listeners;

# ---- clients' sessions

my @own = ('-cert', $client{own}{cert}, '-key', $client{own}{key});
# New or Reused, and what was answered.
sub ask {
    my ($name, @args) = @_;
    my $port = $hd->port($name);
    my $text = `printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | timeout 60 openssl s_client -connect 127.0.0.1:$port -ign_eof @args 2>/dev/null`;
    my ($how) = $text =~ /^(New|Reused), TLS/m;
    return ($how // 'none') . ' ' . ($text =~ m{HTTP/1\.1 (\d+)} ? $1 : '-');
}
my $saved = 0;
sub save { my ($name, @args) = @_; my $file = "$dir/session" . $saved++; is ask($name, '-sess_out', $file, @args), 'New 200', "$name: a session (@args)" =~ s{/\S+/}{}gr; return ('-sess_in', $file) }

for my $v ('-tls1_2', '-tls1_3') {
    my @plain = save('nobody', $v);
    is join(' ', map { ask('nobody', @plain, $v) } 1 .. 6), join(' ', ('Reused 200') x 6), "$v: in whichever worker";
    for (['asks'], ['others'], ['demands', @own], ['sni', @own, '-servername', 'b.test']) {
        my ($name, @args) = @$_;
        is ask($name, @plain, $v, @args), 'New 200', "$v: where clients are asked ($name) it is none";
    }
    is ask('demands', @plain, $v), 'New -', "$v: and lets in nobody without a certificate";
    my @known = save('demands', $v, @own);
    is ask('demands', @known, $v, @own), 'Reused 200', "$v: of a client that showed its certificate";
    is ask('names', @known, $v, @own), 'New -', "$v: not where it must have another name";
    is ask('others', @known, $v), 'New 200', "$v: nor by other roots";
    is ask('sni', @known, $v, '-servername', 'a.test'), 'New 200', "$v: nor where nobody asks";
    my @of_a = save('sni', $v, '-servername', 'a.test');
    is ask('sni', @of_a, $v, '-servername', 'b.test'), 'New -', "$v: two filter chains of one listener: not from one to the other";
}
for ('-tls1_2', '-tls1_3') {
    my (undef, $file) = save('stateless', $_);
    ok !-s $file, "$_: neither by ticket nor by id, where both are off";
}

# ---- with upstreams

sub reused { my ($path) = @_; my $body = $hd->get("/$path")->body; return ($body =~ /^X-Tls-Reused: ?(\S*)/mi)[0] . ' ' . (($body =~ /^X-Tls-Subject:.*CN ?= ?(\w+)/mi)[0] // '') }
# It is made in the worker that needs one: asked until that one has it.
sub resumes { my ($path, $who) = @_; return $hd->wait_for(sub { reused($path) eq "r $who" }, "$path to resume as $who") }
is reused('one'), '. own', 'upstream: a new session';
ok resumes('one', 'own'), 'then it is resumed';
ok resumes('two', 'own'), 'another cluster of the same identity';
is join(' ', map { reused('never') } 1 .. 4), join(' ', ('. own') x 4), 'max_session_keys 0: never';
$certs{one} = $client{second};
my $acks = () = $xds->acks('CDS');
serve();
$hd->wait_for(sub { (() = $xds->acks('CDS')) > $acks }, 'the cluster to be accepted');
my @after = map { reused('one') } 1 .. 8;
is_deeply [grep { !/second$/ } @after], [], 'another certificate of ours: the server sees it, not the session\'s' or diag explain \@after;
like $after[0], qr/^\./, '... by a new session first';
$hd->stop;
$front->stop;
$xds->stop;
done_testing;
