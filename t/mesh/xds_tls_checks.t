#!/usr/bin/perl
# What a server by xDS asks of its clients, and shows them: names of kinds that an OID tells, max_verify_depth (the root counts, as
# Envoy's documentation has it), an intermediate certificate as a root, ACCEPT_UNTRUSTED with names; of several certificates one that the
# client can verify; algorithms; names with a dot in front; and what is refused. (t/mesh/xds_validation.t: the rest.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Ocsp;
use Heddle::Xds;
use MIME::Base64;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info', workers => 2);
my $dir = $hd->dir;
my $ca = $hd->make_ca('root');
my $between = $ca->make_ca('between');
my $deeper = $between->make_ca('deeper');
my %server = (ec => $ca->make_cert('ec', dns => 'a.test'), rsa => $ca->make_cert('rsa', dns => 'r.test', rsa => 1));
system("cd $dir && openssl req -x509 -newkey rsa:1024 -nodes -keyout short.key -subj /CN=short -days 3 -out short.pem >/dev/null 2>&1") == 0 or die 'openssl';
$server{short} = {chain => "$dir/short.pem", key => "$dir/short.key"};
my %client = (root => $ca->make_cert('c0'), between => $between->make_cert('c1'), deeper => $deeper->make_cert('c2'));
{   # a name of another kind
    $hd->write('other.cnf', "[req]\ndistinguished_name=dn\n[dn]\n[x]\nsubjectAltName=otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice\n");
    system("cd $dir && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout alice.key -subj /CN=alice -config other.cnf -out alice.csr 2>/dev/null"
        . " && openssl x509 -req -in alice.csr -CA $ca->{cert} -CAkey $ca->{key} -CAcreateserial -days 3 -extfile other.cnf -extensions x -out alice.pem 2>/dev/null") == 0 or die 'openssl';
    $client{alice} = {cert => "$dir/alice.pem", chain => "$dir/alice.pem", key => "$dir/alice.key"};
}

sub text { return {inline_string => Heddle::Cert::slurp($_[0])} }
sub tls { return {transport_socket => {name => 'tls', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', @_}}} }
sub certs { return (tls_certificates => [map { +{certificate_chain => text($server{$_}{chain}), private_key => text($server{$_}{key})} } @_]) }
my (@listeners, %bad);
sub listener {
    my ($name, @chains) = @_;
    my @made = map { my $n = $_->{name} //= $name; my $r = Heddle::Xds::routes($n);
        $r->{virtual_hosts}[0]{routes} = [{match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => $n}}}];
        Heddle::Xds::listener($name, $hd->port($name), route_config => $r, chain => $_) } @chains;
    $made[0]{filter_chains} = [map { $_->{filter_chains}[0] } @made];
    $made[0]{listener_filters} = [{name => 'tls_inspector', typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector'}}];
    return $made[0];
}
# The certificate ec with a response that is good for so long.
sub stapled {
    my ($next_s) = @_;
    system("openssl ocsp -issuer $ca->{cert} -cert $server{ec}{cert} -reqout $dir/req -no_nonce >/dev/null 2>&1") == 0 or die 'openssl ocsp';
    my $der = Heddle::Ocsp::make_response($dir, Heddle::Ocsp::slurp("$dir/req"), {this => -9000, next => $next_s}, $ca);
    my ($cert) = (certs('ec'))[1];
    return {%{$cert->[0]}, ocsp_staple => {inline_bytes => {base64 => encode_base64($der, '')}}};
}
sub staples { my ($policy, @certs) = @_; return tls(ocsp_staple_policy => $policy, common_tls_context => {tls_certificates => \@certs}) }
my $true = JSON::XS::true;
sub asks { my (%checks) = @_; return tls(require_client_certificate => $true,
    common_tls_context => {certs('ec'), validation_context => {trusted_ca => text($ca->{cert}), %checks}}) }
sub other { return (match_typed_subject_alt_names => [{san_type => 'OTHER_NAME', matcher => {exact => $_[1]}, oid => $_[0]}]) }

push @listeners, listener('alice', asks(other('1.3.6.1.4.1.311.20.2.3', 'alice'))), listener('bob', asks(other('1.3.6.1.4.1.311.20.2.3', 'bob'))),
    listener('other_oid', asks(other('1.3.6.1.4.1.311.20.2.4', 'alice'))),
    (map { listener("depth$_", asks(max_verify_depth => $_)) } 0 .. 3), listener('root_between', asks(trusted_ca => text($between->{cert}))),
    listener('untrusted', asks(trust_chain_verification => 'ACCEPT_UNTRUSTED', match_typed_subject_alt_names => [{san_type => 'DNS', matcher => {exact => 'q.test'}}])),
    listener('certs', tls(common_tls_context => {certs('rsa', 'ec')})),
    listener('algorithms', tls(common_tls_context => {certs('ec'), tls_params => {signature_algorithms => ['ecdsa_secp256r1_sha256']}})),
    listener('algorithms_other', tls(common_tls_context => {certs('ec'), tls_params => {signature_algorithms => ['rsa_pss_rsae_sha256']}})),
    (map { my $policy = $_; map { listener("$policy->[1]_$_", staples($policy->[0], stapled($_ eq 'good' ? 3600 : -3600))) } 'good', 'over' }
        ['LENIENT_STAPLING', 'lenient'], ['STRICT_STAPLING', 'strict'], ['MUST_STAPLE', 'must']),
    listener('strict_none', staples('STRICT_STAPLING', (certs('ec'))[1][0])), listener('strict_other', staples('STRICT_STAPLING', stapled(-3600), (certs('rsa'))[1][0])),
    listener('dot', {name => 'suffix', filter_chain_match => {server_names => ['.test']}, %{tls(common_tls_context => {certs('ec')})}},
        {name => 'rest', %{tls(common_tls_context => {certs('ec')})}});
my $both = asks();
delete $both->{transport_socket}{typed_config}{common_tls_context}{validation_context};
$both->{transport_socket}{typed_config}{common_tls_context}{combined_validation_context} = {
    validation_context_sds_secret_config => {name => 'roots', sds_config => {ads => {}}},
    default_validation_context => {custom_validator_config => {name => 'spiffe', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig',
        trust_domains => [{name => 'td', trust_bundle => text($ca->{cert})}]}}}};
my %refused = (
    'cipher_suites: "NONSENSE" is no cipher' => tls(common_tls_context => {certs('ec'), tls_params => {cipher_suites => ['[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-ECDSA-AES128-GCM-SHA256]', 'NONSENSE']}}),
    'cipher_suites: "TLS_AES_128_GCM_SHA256" is no cipher' => tls(common_tls_context => {certs('ec'), tls_params => {cipher_suites => ['TLS_AES_128_GCM_SHA256']}}),
    'oid "": OTHER_NAME needs one' => asks(other('', 'alice')), 'oid "1.x": OTHER_NAME needs one' => asks(other('1.x', 'alice')),
    'MUST_STAPLE, but a certificate has no ocsp_staple' => staples('MUST_STAPLE', stapled(3600), (certs('rsa'))[1][0]),
    "certificate 1 of the chain can't be used: ee key too small" => tls(common_tls_context => {certs('short')}),
    'custom_validator_config is taken from the secret' => $both);
my $n = 0;
my @refused = map { listener('bad' . $n++, $refused{$_}) } sort keys %refused;

my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(CDS => [], LDS => [@listeners, @refused])->start;
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }')->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for map { $_->{name} } @listeners;
my $why = $xds->wait_nack('LDS', qr/bad0/)->{error};
$n = 0;
like $why, qr/"bad${\ $n++}": [^;]*\Q$_\E/, "refused: $_" for sort keys %refused;
is scalar(() = $why =~ /LDS "/g), keys %refused, 'and nothing else';

# The certificate that was shown, and the answer.
sub ask {
    my ($name, $client, @args) = @_;
    push @args, '-cert', $client{$client}{cert}, '-key', $client{$client}{key}, '-cert_chain', $client{$client}{chain} if $client;
    my $text = `printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | timeout 60 openssl s_client -connect 127.0.0.1:${\ $hd->port($name)} -ign_eof -tls1_2 @args 2>/dev/null`;
    return (($text =~ /^subject=.*CN = (\w+)/m)[0] // 'nobody') . ' ' . (($text =~ m{^HTTP/1\.1 200.*\r\n\r\n(\w+?)(?:closed)?$}ms)[0] // '-');
}
is ask('alice', 'alice'), 'ec alice', 'OTHER_NAME: by its OID and value';
is ask('alice', 'root'), 'ec -', '... nobody without one';
is ask('bob', 'alice'), 'ec -', '... of another value';
is ask('other_oid', 'alice'), 'ec -', '... of another kind';
my @chain = qw(root between deeper);
for my $depth (0 .. 3) {
    for my $between (0 .. 2) {
        is ask("depth$depth", $chain[$between]), $depth > $between || $between == 0 ? "ec depth$depth" : 'ec -', "max_verify_depth $depth, $between certificates between";
    }
}
is ask('root_between', 'between'), 'ec root_between', 'an intermediate certificate is a root where it is said to be one';
is ask('root_between', 'root'), 'ec -', '... alone';
is ask('untrusted', 'root'), 'ec untrusted', 'ACCEPT_UNTRUSTED: names, too';

is ask('certs', undef, qw(-servername a.test)), 'ec certs', 'the certificate of the name';
is ask('certs', undef, qw(-servername r.test)), 'rsa certs', '... of the other';
is ask('certs', undef, qw(-servername a.test -sigalgs RSA-PSS+SHA256:RSA+SHA256)), 'rsa certs', 'a client of RSA alone gets that of RSA';
is ask('certs', undef, qw(-servername a.test -cipher ECDHE-RSA-AES128-GCM-SHA256)), 'rsa certs', '... and who says so by ciphers';
is ask('certs', undef, qw(-servername r.test -cipher ECDHE-ECDSA-AES128-GCM-SHA256)), 'ec certs', '... and of ECDSA alone that one';
is ask('algorithms'), 'ec algorithms', 'signature_algorithms';
is ask('algorithms_other'), 'nobody -', '... that no certificate of ours can do';

my $is_stapled = sub { `timeout 60 openssl s_client -connect 127.0.0.1:${\ $hd->port($_[0])} -status </dev/null 2>/dev/null` =~ /OCSP Response Status: successful/ ? 'stapled' : '' };
for ([lenient_good => 'stapled', 'ec', 'ec'], [lenient_over => '', 'ec', 'ec'], [strict_good => 'stapled', 'ec', 'ec'], [strict_over => '', 'nobody', 'ec'],
    [strict_none => '', 'ec', 'ec'], [strict_other => '', 'rsa', 'ec'], [must_good => 'stapled', 'ec', 'ec'], [must_over => '', 'nobody', 'ec']) {
    my ($name, $stapled, $asked, $not) = @$_;
    is $is_stapled->($name), $stapled, "ocsp_staple_policy, $name: what is stapled";
    is ask($name, undef, '-status') =~ s/ .*//r, $asked, '... and shown to who asks for it';
    is ask($name) =~ s/ .*//r, $not, '... and to who doesn\'t';
}

is ask('dot', undef, '-servername', 'a.test'), 'ec suffix', 'server_names .test: what ends so';
is ask('dot', undef, '-servername', 'test'), 'ec rest', '... and not that alone';
$hd->stop;
$xds->stop;
done_testing;
