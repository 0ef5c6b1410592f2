#!/usr/bin/perl
# A peer was verified once, and its connection lives on: by xDS it ends when SDS withdraws the root that it stood on, a client's as
# an upstream's, over HTTP/1, HTTP/2 and what two Heddles speak; whoever stands on another root keeps the same connection.
# And an upstream's connection never outlives the identity that it was opened with. (t/proxy/tls_revalidate.t: by file.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info', workers => 1);
my ($ca, $other) = map { $hd->make_ca($_) } 'root', 'other';
my %server = (ca => $ca->make_cert('server', dns => 'backend.test'), other => $other->make_cert('strange', dns => 'backend.test'));
my %client = (ca => $ca->make_cert('own', cn => 'own'), other => $other->make_cert('theirs', cn => 'theirs'));
# nginx speaks HTTP/1 and HTTP/2, with either certificate; heddle, below, its own.
my %front = map { $_ => Heddle::TlsFront->start($hd, "nginx_$_" => 'up', cert => $server{$_}, client_ca => $ca, alpn_h2 => 1) } keys %server;
$hd->echo_server('up');

sub file { return {inline_string => Heddle::Cert::slurp($_[0])} }
sub secret { return {name => $_[0], sds_config => {ads => {}}} }
sub typed { my ($side, %tls) = @_; return {name => 'tls', typed_config => {
    '@type' => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${side}TlsContext", %tls}} }
my (@clusters, @routes);
for my $row (['h1', 'nginx'], ['h2', 'nginx', http2_protocol_options => {}], ['weft', 'heddle']) {
    my ($kind, $peer, %more) = @$row;
    for my $theirs ('ca', 'other') {      # whose certificate the server has; heddle's clients, too
        push @clusters, Heddle::Xds::cluster("$kind-$theirs", $hd->port("${peer}_$theirs"), %more, transport_socket => typed('Upstream',
            sni => 'backend.test', common_tls_context => {tls_certificate_sds_secret_configs => [secret($kind eq 'weft' ? "own-$theirs" : 'own-ca')],
            validation_context_sds_secret_config => secret('servers')}));
        push @routes, ["/$kind-$theirs" => "$kind-$theirs"];
    }
}
sub server_of {
    my ($whose) = @_;
    return Heddle::Xds::listener("heddle_$whose", $hd->port("heddle_$whose"), route_config => Heddle::Xds::routes('in', ['/' => 'plain']),
        chain => {transport_socket => typed('Downstream', require_client_certificate => JSON::XS::true, common_tls_context => {
            tls_certificate_sds_secret_configs => [secret("server-$whose")],
            validation_context_sds_secret_config => secret('clients')})});
}
my @listeners = ((map { server_of($_) } 'ca', 'other'),
    Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('front', @routes)));
my $xds = Heddle::Xds->new($hd, 'xds');
my %sds = (clients => [$ca, $other], servers => [$ca, $other], 'own-ca' => $client{ca}, 'own-other' => $client{other},
    'server-ca' => $server{ca}, 'server-other' => $server{other});
my $is_started;
sub serve {
    my $acks = () = $xds->acks('SDS');
    $xds->serve(LDS => \@listeners, CDS => [@clusters, Heddle::Xds::cluster('plain', $hd->port('up'))], SDS => [map {
        my $s = $sds{$_};
        {name => $_, ref $s eq 'ARRAY' ? (validation_context => {trusted_ca => {inline_string => join '', map { Heddle::Cert::slurp($_->{cert}) } @$s}})
            : (tls_certificate => {certificate_chain => file($s->{chain}), private_key => file($s->{key})})}
    } sort keys %sds]);
    return $xds->start if !$is_started++;
    $hd->wait_for(sub { (() = $xds->acks('SDS')) > $acks }, 'the secrets to be accepted');
}
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }');
serve();
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 0, 'heddle_ca', 'heddle_other';

sub conn_of { my ($path) = @_; my $r = $hd->get("/$path"); return $r->status == 200 ? ($r->body =~ /^X-Tls-Conn: ?(\d+)/mi)[0] // 'plain' : $r->status }
sub links { my ($name) = @_; my $port = $hd->port($name); return join ',', sort map { (split)[3] } `ss -Htn state established sport = :$port` }

# ---- servers' root

my %conn = map { my $p = $_->[0] =~ s{/}{}r; ($p => conn_of($p)) } @routes;
is_deeply [grep { !/^(?:\d{1,2}|plain)$/ } values %conn], [], 'all are served' or diag explain \%conn;
is conn_of($_), $conn{$_}, "$_: over the same connection" for grep { !/weft/ } sort keys %conn;
$sds{servers} = [$ca];
serve();
for my $kind ('h1', 'h2', 'weft') {
    $hd->wait_for(sub { conn_of("$kind-other") eq '503' }, "$kind-other to be refused");
    is conn_of("$kind-ca"), $conn{"$kind-ca"}, "$kind: a server of the withdrawn root is refused, the other has its connection still";
}
$sds{servers} = [$ca, $other];
serve();
$hd->wait_for(sub { conn_of($_) ne '503' }, "$_ to be served again") for 'h1-other', 'h2-other', 'weft-other';

# ---- clients' root

my %stays = map { $_ => $hd->connect('heddle_ca', tls => {sni => 'backend.test', ca => $ca->{cert}, cert => $client{$_}{cert}, key => $client{$_}{key}}) } keys %client;
is $stays{$_}->request('GET', '/')->status, 200, "a client of $_" for sort keys %stays;
my $before = links('heddle_ca');
$sds{clients} = [$ca];
serve();
ok $stays{other}->is_eof, 'its root is withdrawn: its connection is closed';
$hd->wait_for(sub { conn_of('weft-other') eq '503' }, 'the link of such a client to be closed, and its next one refused');
is conn_of('weft-ca'), 'plain', 'the other one is served';
is $stays{ca}->request('GET', '/')->status, 200, 'on the same connection where it is HTTP/1';

# ---- our own identity

$sds{'own-ca'} = $ca->make_cert('renewed', cn => 'renewed');
serve();
for my $path ('h1-ca', 'h2-ca') {
    my $body = $hd->get("/$path")->body;
    like $body, qr/^X-Tls-Subject: ?CN=renewed|^X-Tls-Subject:.*CN = ?renewed|^X-Tls-Subject:.*CN=renewed/mi, "$path: a new certificate: shown by the next request";
    isnt conn_of($path), $conn{$path}, '... over another connection';
}
$hd->stop;
$_->stop for values %front;
$xds->stop;
done_testing;
