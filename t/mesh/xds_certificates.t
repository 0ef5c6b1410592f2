#!/usr/bin/perl
# Servers of TLS by xDS (DownstreamTlsContext): which of several certificates is shown, by name and by what the client can
# verify; versions, ciphers, groups, ALPN; tickets by keys of SDS that are rotated, in four workers; a certificate by SDS that is
# replaced, and a bad one that isn't.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(workers => 4, log_level => 'info');
my $ca = $hd->make_ca('root');
my %cert = (rsa_a => $ca->make_cert('rsa_a', rsa => 1, dns => 'a.example'), ec_a => $ca->make_cert('ec_a', dns => 'a.example'),
    ec_b => $ca->make_cert('ec_b', dns => 'b.example'), wild => $ca->make_cert('wild', dns => '*.w.example'),
    new => $ca->make_cert('new', dns => 'a.example'));
sub text { return {inline_string => Heddle::Cert::slurp($_[0])} }
sub cert { return {certificate_chain => text($cert{$_[0]}{chain}), private_key => text($cert{$_[0]}{key})} }
sub by_sds { return {name => $_[0], sds_config => {ads => {}}} }
sub common { my ($certs, %m) = @_; return (common_tls_context => {tls_certificates => [map { cert($_) } @$certs], %m}) }
my @listeners;
sub listener {
    my ($name, %tls) = @_;
    my $routes = Heddle::Xds::routes($name);
    $routes->{virtual_hosts}[0]{routes} = [{match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => $name}}}];
    push @listeners, Heddle::Xds::listener($name, $hd->port($name), route_config => $routes, chain => {transport_socket => {name => 'tls',
        typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', %tls}}});
}
listener('types', common(['rsa_a', 'ec_a']));
listener('names', common(['ec_a', 'ec_b', 'wild']));
listener('alpn', common(['ec_a'], alpn_protocols => ['h2', 'http/1.1']));
listener('h2', common(['ec_a'], alpn_protocols => ['h2']));
listener('old', common(['ec_a'], tls_params => {tls_minimum_protocol_version => 'TLSv1_2', tls_maximum_protocol_version => 'TLSv1_2',
    cipher_suites => ['ECDHE-ECDSA-AES256-GCM-SHA384'], ecdh_curves => ['P-384']}));
listener('ticket', common(['ec_a']), session_ticket_keys_sds_secret_config => by_sds('keys'));
listener('sds', common_tls_context => {tls_certificate_sds_secret_configs => [by_sds('mine')]});

my @key = map { my $n = $_; {inline_string => join '', map { chr(97 + ($_ * 7 + $n * 5) % 26) } 1 .. 80} } 0 .. 2;
my $xds = Heddle::Xds->new($hd, 'xds');
my $changes = 0;
# Waits until it was taken, or refused.
sub serve {
    my ($cert, @keys) = @_;
    my $before = () = ($xds->acks('SDS'), $xds->nacks('SDS'));
    $xds->serve(LDS => \@listeners, SDS => [{name => 'mine', tls_certificate => $cert}, {name => 'keys', session_ticket_keys => {keys => [@keys]}}]);
    $xds->start, return if !$changes++;
    $hd->wait_for(sub { my $n = () = ($xds->acks('SDS'), $xds->nacks('SDS')); $n > $before }, 'the secrets to be read');
}
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }');
serve(cert('ec_a'), $key[0]);
$hd->start;
for my $l (@listeners) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($l->{name})) }, "listener $l->{name}") }

# What s_client says of a handshake: the certificate's name, the cipher, the protocol by ALPN, New or Reused.
sub shake {
    my ($name, @args) = @_;
    my $port = $hd->port($name);
    my $said = `(printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n') | openssl s_client -ign_eof -connect 127.0.0.1:$port @args 2>&1`;
    my %got = (text => $said, served => $said =~ / 200 OK/ ? 1 : 0);
    @got{qw(cn cipher alpn reused)} = map { ($said =~ $_)[0] // '' }
        qr/^subject=.*CN ?= ?(\w+)/m, qr/Cipher is (\S+)/, qr/ALPN protocol: (\S+)/, qr/^(Reused|New),/m;
    $got{cn} ||= 'nobody';
    return \%got;
}
sub shows { my ($name, $args, $cn, $what) = @_; my $s = shake($name, $args); is $s->{cn}, $cn, "$name: $what" or diag $s->{text}; return $s }

shows('types', '-servername a.example -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256', 'rsa_a', 'who can RSA only');
shows('types', '-servername a.example -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256', 'ec_a', 'who can ECDSA only');
shows('types', '-servername a.example -tls1_3 -sigalgs RSA-PSS+SHA256', 'rsa_a', 'TLS 1.3: RSA only');
shows('types', '-servername a.example -tls1_3 -sigalgs ECDSA+SHA256', 'ec_a', 'TLS 1.3: ECDSA only');
shows('types', '-noservername -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256', 'rsa_a', 'without a name');
shows('names', "-servername $_->[0]", $_->[1], $_->[0])
    for ['a.example', 'ec_a'], ['b.example', 'ec_b'], ['B.Example', 'ec_b'], ['x.w.example', 'wild'], ['y.x.w.example', 'ec_a'], ['w.example', 'ec_a'], ['other', 'ec_a'];
shows('names', '-noservername', 'ec_a', 'none: the first');

for (['h2', 'h2'], ['http/1.1', 'http/1.1'], ['http/1.1,h2', 'h2'], ['acme-tls/1', ''], ['acme-tls/1,http/1.1', 'http/1.1']) {
    my $s = shows('alpn', "-alpn $_->[0]", 'ec_a', "offers $_->[0]");
    is $s->{alpn}, $_->[1], '... ' . ($_->[1] || 'none of ours: none is agreed on');
}
is shake('alpn', '-alpn acme-tls/1')->{served}, 1, 'and HTTP/1 is spoken';
is shake('h2', '-alpn http/1.1')->{served}, 1, 'also where only h2 is offered';
is shake('alpn')->{served}, 1, 'who offers nothing as well';

is shake('old')->{cipher}, 'ECDHE-ECDSA-AES256-GCM-SHA384', 'cipher_suites';
is shake('old', '-tls1_3')->{cn}, 'nobody', 'tls_maximum_protocol_version';
is shake('old', '-curves P-256')->{cn}, 'nobody', 'ecdh_curves';
is shake('old', '-cipher ECDHE-ECDSA-AES128-GCM-SHA256')->{cn}, 'nobody', 'another cipher';

# ---- tickets

my $file = $hd->dir . '/session';
sub again { return join ' ', map { shake('ticket', @_, "-sess_in $file")->{reused} } 1 .. 6 }
for my $v ('-tls1_2', '-tls1_3') {
    serve(cert('ec_a'), $key[0]) if $v eq '-tls1_3';
    is shake('ticket', $v, "-sess_out $file")->{reused}, 'New', "$v: a ticket";
    is again($v), join(' ', ('Reused') x 6), 'is good in whichever worker';
    serve(cert('ec_a'), @key[1, 0]);
    is again($v), join(' ', ('Reused') x 6), 'a new key in front: still';
    serve(cert('ec_a'), @key[2, 1]);
    is again($v), join(' ', ('New') x 6), 'its key is gone: no more';
}

# ---- another certificate

my $stays = $hd->connect('sds', tls => {sni => 'a.example'});
is $stays->request('GET', '/')->body, 'sds', 'a connection';
serve(cert('new'), $key[2]);
is shake('sds', '-servername a.example')->{cn}, 'new', 'SDS: another certificate, in force when it is accepted';
is $stays->request('GET', '/')->body, 'sds', 'the connection stays';
my $bad = cert('ec_b');
$bad->{private_key} = text($cert{ec_a}{key});
serve($bad, $key[2]);
like +($xds->nacks('SDS'))[-1]{error} // '', qr/SDS "mine": .*key/, 'a key of another certificate: refused, and why';
is shake('sds', '-servername a.example')->{cn}, 'new', 'the last good one is in force';
is $stays->request('GET', '/')->body, 'sds', 'and the connection stays';
$hd->stop;
$xds->stop;
done_testing;
