#!/usr/bin/perl
# Whom an upstream must be, and what it is asked for, by xDS: auto_sni, auto_host_sni, auto_san_validation, auto_sni_san_validation, SANs;
# ALPN of the protocol where nobody says one; max_verify_depth, an intermediate certificate as a root, signature_algorithms. What is
# expected here a real Envoy did with the same resources (but for max_verify_depth of an upstream, where it isn't what its documentation says).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(log_level => 'info');
my $ca = $hd->make_ca('root');
my $between = $ca->make_ca('between');
my $server = $between->make_cert('server', dns => ['a.test', 'b.test'], ip => ['127.0.0.1'], rsa => 1);
$hd->echo_server('up');
my %front = (up => Heddle::TlsFront->start($hd, tls => 'up', cert => $server), h2 => Heddle::TlsFront->start($hd, tls_h2 => 'up', cert => $server, alpn_h2 => 1));

sub text { return {inline_string => Heddle::Cert::slurp($_[0])} }
sub san { return (match_typed_subject_alt_names => [{san_type => 'DNS', matcher => {exact => $_[0]}}]) }
my $true = JSON::XS::true;
my $http = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
my (@clusters, @routes, @tests);
# name, host asked for, what the server is told: SNI or '' for none; undef: it isn't let in
sub upstream {
    my ($name, $host, $want, %opt) = @_;
    my $cluster = Heddle::Xds::cluster($name, $hd->port($opt{to} // 'tls'), transport_socket => {name => 'tls', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext', %{$opt{tls} // {}},
        common_tls_context => {validation_context => {trusted_ca => text($ca->{cert}), %{$opt{checks} // {}}}, %{$opt{common} // {}}}}});
    $cluster->{load_assignment}{endpoints}[0]{lb_endpoints}[0]{endpoint}{hostname} = $opt{hostname} if $opt{hostname};
    $cluster->{typed_extension_protocol_options}{$http} = {'@type' => "type.googleapis.com/$http",
        %{$opt{protocol} // {explicit_http_config => {http_protocol_options => {}}}}, upstream_http_protocol_options => $opt{auto} // {}};
    push @clusters, $cluster;
    push @routes, ["/$name" => $name];
    push @tests, [$name, $host, $want, $opt{alpn} // 'http/1.1'];
}
my %auto = (auto => {auto_sni => $true, auto_san_validation => $true});

upstream('plain', 'q.test', '');
upstream('auto_sni', 'q.test', 'q.test', auto => {auto_sni => $true});
upstream('auto', 'a.test', 'a.test', %auto);
upstream('auto_port', 'b.test:8443', 'b.test', %auto);
upstream('auto_other', 'q.test', undef, %auto);
upstream('auto_address', '127.0.0.1', '', %auto);
upstream('auto_other_address', '127.0.0.9', undef, %auto);
upstream('auto_other_v6', '[::2]:80', undef, %auto);
upstream('auto_and_sans', 'q.test', undef, %auto, checks => {san('a.test')});
upstream('sans_and_auto', 'a.test', undef, %auto, checks => {san('q.test')});
upstream('auto_san', 'a.test', 'q.test', auto => {auto_san_validation => $true}, tls => {sni => 'q.test'});
upstream('auto_san_other', 'q.test', undef, auto => {auto_san_validation => $true}, tls => {sni => 'a.test'});

my %by_sni = (auto_sni_san_validation => $true);
upstream('sni', 'q.test', 'a.test', tls => {%by_sni, sni => 'a.test'});
upstream('sni_other', 'a.test', undef, tls => {%by_sni, sni => 'q.test'});
upstream('sni_not_sans', 'q.test', 'a.test', tls => {%by_sni, sni => 'a.test'}, checks => {san('q.test')});
upstream('sni_though_sans', 'a.test', undef, tls => {%by_sni, sni => 'q.test'}, checks => {san('a.test')});
upstream('sni_none', 'q.test', '', tls => {%by_sni});
upstream('sni_that_is_sent', 'q.test', undef, tls => {%by_sni, sni => 'a.test'}, auto => {auto_sni => $true});
upstream('host_sni', 'q.test', 'b.test', tls => {auto_host_sni => $true, sni => 'q.test'}, hostname => 'b.test');
upstream('host_sni_auto', 'a.test', 'a.test', tls => {auto_host_sni => $true}, hostname => 'b.test', auto => {auto_sni => $true});
upstream('host_sni_none', 'q.test', 'q.test', tls => {auto_host_sni => $true, sni => 'q.test'});
upstream('host_sni_san', 'q.test', 'b.test', tls => {%by_sni, auto_host_sni => $true}, hostname => 'b.test');
upstream('host_sni_san_other', 'a.test', undef, tls => {%by_sni, auto_host_sni => $true}, hostname => 'q.test');

my $h2 = {explicit_http_config => {http2_protocol_options => {}}};
upstream('h2', 'q.test', '', to => 'tls_h2', protocol => $h2, alpn => 'h2');
upstream('by_alpn', 'q.test', '', to => 'tls_h2', protocol => {auto_config => {}}, alpn => 'h2');
upstream('by_alpn_1', 'q.test', '', protocol => {auto_config => {}});
upstream('alpn_said', 'q.test', '', common => {alpn_protocols => ['http/1.0']}, alpn => 'http/1.0');

upstream('root_alone', 'q.test', undef, checks => {max_verify_depth => 1});
upstream('one_between', 'q.test', '', checks => {max_verify_depth => 2});
upstream('root_between', 'q.test', '', checks => {trusted_ca => text($between->{cert})});
upstream('untrusted_name', 'q.test', '', checks => {trust_chain_verification => 'ACCEPT_UNTRUSTED', san('q.test')});
upstream('algorithms', 'q.test', '', common => {tls_params => {signature_algorithms => ['rsa_pss_rsae_sha256']}});
upstream('algorithms_other', 'q.test', undef, common => {tls_params => {signature_algorithms => ['ecdsa_secp256r1_sha256']}});

my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(CDS => \@clusters, LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('r',
    sort { length $b->[0] <=> length $a->[0] } @routes))])->start;
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }')->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
is join('', map { $_->{error} } $xds->nacks('CDS')), '', 'nothing is refused';
for (@tests) {
    my ($name, $host, $want, $alpn) = @$_;
    my $r = $hd->get("/$name", Host => $host);
    my ($sni, $agreed) = map { ($r->body =~ /^\Q$_\E:[ ]*(\S*)/mi)[0] // '' } 'X-Tls-Sni', 'X-Tls-Alpn';
    is $r->status == 200 ? "$sni $agreed" : $r->status, defined $want ? "$want $alpn" : 503, "$name, asked for $host";
}

# ---- what can't be meant

my $refused = sub {
    my ($why, $cluster) = @_;
    my $n = () = $xds->nacks('CDS');
    $xds->serve(CDS => [@clusters, $cluster], LDS => $xds->{what}{LDS});
    $hd->wait_for(sub { (() = $xds->nacks('CDS')) > $n }, "a NACK: $why");
    like +($xds->nacks('CDS'))[-1]{error}, qr/$why/, "refused: $why";
};
upstream('bad', 'q.test', undef, tls => {%by_sni, sni => 'a.test'});
my $bad = pop @clusters;
delete $bad->{transport_socket}{typed_config}{common_tls_context}{validation_context};
$refused->('auto_sni_san_validation, but there are no roots', $bad);
upstream('bad', 'q.test', undef, common => {tls_params => {signature_algorithms => ['nonsense']}});
$refused->('SignatureAlgorithms nonsense', pop @clusters);
upstream('bad', 'q.test', undef, common => {tls_params => {cipher_suites => ['ECDHE-RSA-AES128-GCM-SHA256', 'NONSENSE']}});
$refused->('cipher_suites: "NONSENSE"', pop @clusters);

$hd->stop;
$_->stop for values %front;
$xds->stop;
done_testing;
