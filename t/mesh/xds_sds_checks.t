#!/usr/bin/perl
# Roots by SDS that bring along what else is asked of a peer: SANs, hashes, max_verify_depth, expired certificates, lists for leaves alone,
# ACCEPT_UNTRUSTED; alone, and combined with what the listener or cluster says. They change, and with them who is let in: new
# connections, sessions, and connections that are open.
use strict;
use warnings;
use lib 't/lib';
use Digest::SHA qw(sha256_hex);
use MIME::Base64;
use Test::More;
use Heddle;
use Heddle::TlsFront;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info', workers => 2);
my $dir = $hd->dir;
my ($ca, $other) = map { $hd->make_ca($_) } 'root', 'other';
my $between = $ca->make_ca('between');
my $server = $ca->make_cert('server', dns => ['a.test', 'b.test']);
my %client = (one => $ca->make_cert('one', spiffe => 'spiffe://td/one'), two => $ca->make_cert('two', spiffe => 'spiffe://td/two'),
    expired => $ca->make_cert('expired', spiffe => 'spiffe://td/one', expired => 1), between => $between->make_cert('c1', spiffe => 'spiffe://td/one'),
    other => $other->make_cert('foreign', spiffe => 'spiffe://td/one'));
my @who = sort keys %client;
$hd->echo_server('up');
my $front = Heddle::TlsFront->start($hd, tls => 'up', cert => $server);

sub text { return {inline_string => Heddle::Cert::slurp($_[0])} }
sub san { return (match_typed_subject_alt_names => [map { +{san_type => 'URI', matcher => $_} } @_]) }
sub one { return san({exact => 'spiffe://td/one'}) }
sub hash { my ($c) = @_; my ($pem) = Heddle::Cert::slurp($c->{cert}) =~ /-----BEGIN CERTIFICATE-----(.*?)-----END/s; return sha256_hex(decode_base64($pem)) }
sub by_sds { return {name => $_[0], sds_config => {ads => {}}} }
my $true = JSON::XS::true;
# name: what stands in the secret, what in the listener (undef: it has the secret alone), who is let in
my @rows = (
    [roots => {}, undef, qw(between one two)], [sans => {one()}, undef, qw(between one)], [regex => {san({safe_regex => {regex => '.*/t[a-z]+'}})}, undef, 'two'],
    [hash => {verify_certificate_hash => [hash($client{two})]}, undef, 'two'], [depth => {max_verify_depth => 1}, undef, qw(one two)],
    [expired => {allow_expired_certificate => $true, one()}, undef, qw(between expired one)],
    [leaves => {crl => text($ca->make_crl('list', $client{two})), only_verify_leaf_cert_crl => $true}, undef, 'one'],
    [untrusted => {trust_chain_verification => 'ACCEPT_UNTRUSTED', one()}, undef, @who],
    [both => {one()}, {san({exact => 'spiffe://td/two'})}, qw(between one two)], [settings => {}, {one()}, qw(between one)],
    [hash_of_both => {verify_certificate_hash => [hash($client{one})]}, {verify_certificate_hash => [hash($client{two})]}, qw(one two)],
    [depth_over => {max_verify_depth => 2}, {max_verify_depth => 1}, qw(between one two)],
);
sub secret { my ($name, $checks) = @_; return {name => $name, validation_context => {trusted_ca => text($ca->{cert}), %$checks}} }
my (@secrets, @listeners);
for (@rows) {
    my ($name, $in, $beside) = @$_;
    push @secrets, secret($name, $in);
    my $routes = Heddle::Xds::routes($name);
    $routes->{virtual_hosts}[0]{routes} = [{match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => $name}}}];
    push @listeners, Heddle::Xds::listener($name, $hd->port($name), route_config => $routes, chain => {transport_socket => {name => 'tls', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', require_client_certificate => $true,
        common_tls_context => {tls_certificates => [{certificate_chain => text($server->{chain}), private_key => text($server->{key})}],
            !$beside ? (validation_context_sds_secret_config => by_sds($name))
                : (combined_validation_context => {default_validation_context => $beside, validation_context_sds_secret_config => by_sds($name)})}}}});
}
my $cluster = Heddle::Xds::cluster('up', $hd->port('tls'), transport_socket => {name => 'tls', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext', sni => 'a.test',
    common_tls_context => {validation_context_sds_secret_config => by_sds('upstream')}}});
sub of_upstream { return secret('upstream', {match_typed_subject_alt_names => [{san_type => 'DNS', matcher => {exact => $_[0]}}]}) }
push @secrets, of_upstream('b.test');
push @listeners, Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('r', ['/' => 'up']));

my $xds = Heddle::Xds->new($hd, 'xds');
sub serve { $xds->serve(CDS => [$cluster], LDS => \@listeners, SDS => [@secrets, @_]) }
serve()->start;
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }')->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 0, map { $_->[0] } @rows;
is join('', map { $_->{error} } $xds->nacks('SDS')), '', 'nothing is refused';

sub ask {
    my ($name, $client, @args) = @_;
    my $c = $client{$client};
    my $text = `printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | timeout 60 openssl s_client -connect 127.0.0.1:${\ $hd->port($name)} -ign_eof -tls1_2 -cert $c->{cert} -key $c->{key} -cert_chain $c->{chain} @args 2>/dev/null`;
    return $text =~ m{^HTTP/1\.1 200}m ? ($text =~ /^(New|Reused), TLS/m)[0] : '';
}
sub let_in { my ($name) = @_; return join ' ', grep { ask($name, $_) } @who }
for (@rows) {
    my ($name, $in, $beside, @in) = @$_;
    is let_in($name), "@in", "$name: who is let in";
}
is $hd->get('/')->status, 200, 'an upstream that has the name';

# ---- the secret says something else

is ask('sans', 'one', '-sess_out', "$dir/session"), 'New', 'a session';
is ask('sans', 'one', '-sess_in', "$dir/session"), 'Reused', '... that is resumed';
my %tls = (sni => 'a.test', ca => $ca->{cert});
my $open = $hd->connect('sans', tls => {%tls, cert => $client{one}{cert}, key => $client{one}{key}});
is $open->request('GET', '/', {}, Host => 'a')->status, 200, 'a connection that stays open';
@secrets = map { $_->{name} eq 'sans' ? secret('sans', {san({exact => 'spiffe://td/two'})}) : $_->{name} eq 'upstream' ? of_upstream('q.test') : $_ } @secrets;
serve();
$hd->wait_for(sub { let_in('sans') eq 'two' }, 'the new names to count');
pass 'other names: others are let in';
is ask('sans', 'one', '-sess_in', "$dir/session"), '', '... and no session is';
is $open->read_all, '', 'the connection that was open is ended';
$hd->wait_for(sub { $hd->get('/')->status == 503 }, 'the upstream to be nobody');
pass 'the upstream of another name is not spoken to, nor is its open connection';

# ---- what can't be meant

my $nacks = 0;
for (['no roots \(trusted_ca\) in it', {name => 'bad', validation_context => {one()}}], ['"zz" is no SHA-256', secret('bad', {verify_certificate_hash => ['zz']})],
    ['OTHER_NAME needs one', secret('bad', {match_typed_subject_alt_names => [{san_type => 'OTHER_NAME', matcher => {exact => 'x'}}]})],
    ['\(\[', secret('bad', {san({safe_regex => {regex => '(['}})})]) {
    my ($why, $bad) = @$_;
    my ($first) = grep { $_->{name} eq 'roots' } @listeners;
    my @more = (@listeners, {%$first, name => 'bad', address => Heddle::Xds::address($hd->port('bad')), filter_chains => [{%{$first->{filter_chains}[0]},
        transport_socket => JSON::XS::decode_json(JSON::XS->new->utf8->encode($first->{filter_chains}[0]{transport_socket}) =~ s/"name":"roots"/"name":"bad"/r)}]});
    $xds->serve(CDS => [$cluster], LDS => \@more, SDS => [@secrets, $bad]);
    $hd->wait_for(sub { (() = $xds->nacks('SDS')) > $nacks }, "a NACK: $why");
    like +($xds->nacks('SDS'))[-1]{error}, qr/SDS "bad": .*$why/, "refused: $why";
    $nacks = () = $xds->nacks('SDS');
}
$hd->stop;
$front->stop;
$xds->stop;
done_testing;
