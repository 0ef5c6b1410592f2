#!/usr/bin/perl
# How peers are verified by xDS (CertificateValidationContext): SANs of each kind, hashes, revocation,
# times, roots by trust domain (envoy.tls.cert_validator.spiffe); for clients and for upstreams alike. Each row
# names who is let in; all others are refused.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;
use JSON::XS ();
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $ca2 = $hd->make_ca('root2');
my $int = $ca->make_ca('middle');
my $td = 'spiffe://cluster.local/ns/shop/sa';
my %who = (
    page => $ca->make_cert('page', spiffe => "$td/page", dns => 'page.shop.svc', ip => '10.0.0.7', email => 'page@shop.test'),
    other => $ca->make_cert('other', spiffe => "$td/other", dns => 'other.test'),
    dns_uri => $ca->make_cert('dns_uri', dns => 'page.shop.svc.evil', email => "$td/page"),
    two => $ca->make_cert('two', spiffe => ["$td/page", "$td/other"]),
    none => $ca->make_cert('none', cn => 'nobody'),
    expired => $ca->make_cert('expired', spiffe => "$td/page", expired => 1),
    root2 => $ca2->make_cert('root2page', spiffe => "$td/page"),
    foreign => $ca2->make_cert('foreign', spiffe => 'spiffe://other.org/ns/a/sa/b'),
    deep => $int->make_cert('deep', spiffe => "$td/deep"),
);
my $crl = $ca->make_crl('crl', $who{other});
my $server = $ca->make_cert('server', dns => 'localhost', spiffe => "$td/reviews");
my ($yes, $no) = (JSON::XS::true(), JSON::XS::false());
sub text { {inline_string => Heddle::Cert::slurp($_[0])} }
sub type { "type.googleapis.com/$_[0]" }
sub san { my ($type, %m) = @_; {match_typed_subject_alt_names => [{san_type => $type, matcher => {%m}}]} }
sub sha256 { `openssl x509 -in $_[0]{cert} -noout -fingerprint -sha256` =~ /=(\S+)/; $1 }
sub spki {
    return `openssl x509 -in $_[0]{cert} -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64` =~ s/\s//gr;
}
sub domains {
    my (%d) = @_;
    return {trusted_ca => undef, custom_validator_config => {name => 'envoy.tls.cert_validator.spiffe', typed_config => {
        '@type' => type('envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig'),
        trust_domains => [map { {name => $_, trust_bundle => text($d{$_}{cert})} } sort keys %d]}}};
}
my @all = qw(page other dns_uri none deep); # whom the root alone lets in; two are refused where one is required

my @rows = (
    ['roots alone', {}, @all],
    ['an exact URI', san(URI => exact => "$td/page"), qw(page)],
    ['a prefix of a URI', san(URI => prefix => "$td/"), qw(page other deep)],
    ['a suffix of a URI', san(URI => suffix => '/page'), qw(page)],
    ['a URI by regex', san(URI => safe_regex => {regex => 'spiffe://.*/sa/(page|deep)'}), qw(page deep)],
    ['an exact DNS name', san(DNS => exact => 'page.shop.svc'), qw(page)],
    ['a prefix of a DNS name', san(DNS => prefix => 'page.shop'), qw(page dns_uri)],
    ['a suffix of a DNS name', san(DNS => suffix => '.svc'), qw(page)],
    ['a DNS name by regex', san(DNS => safe_regex => {regex => '[a-z]+\.test'}), qw(other)],
    ['an address', san(IP_ADDRESS => exact => '10.0.0.7'), qw(page)],
    ['an e-mail address', san(EMAIL => suffix => '@shop.test'), qw(page)],
    ['a URI is none of an e-mail address', san(EMAIL => exact => "$td/page"), qw(dns_uri)],
    ['names of any kind', {match_subject_alt_names => [{exact => 'other.test'}, {exact => "$td/deep"}]}, qw(other deep)],
    ['a hash', {verify_certificate_hash => [sha256($who{page}), lc sha256($who{none}) =~ s/://gr]}, qw(page none)],
    ['a hash of the key', {verify_certificate_spki => [spki($who{other})]}, qw(other)],
    ['one of both hashes', {verify_certificate_hash => [sha256($who{page})], verify_certificate_spki => [spki($who{other})]},
        qw(page other)],
    ['a hash without roots', {trusted_ca => undef, verify_certificate_hash => [sha256($who{foreign})]}, qw(foreign)],
    ['a revoked one', {crl => text($crl), only_verify_leaf_cert_crl => $yes}, qw(page dns_uri none)],
    ['lists for all issuers', {crl => text($crl)}, qw(page dns_uri none)],
    ['expired ones, too', {allow_expired_certificate => $yes}, @all, 'expired'],
    ['no issuer between', {max_verify_depth => 0}, qw(page other dns_uri none)],
    ['whoever it is', {trust_chain_verification => 'ACCEPT_UNTRUSTED'}, @all, qw(expired root2 foreign two)],
    ['whoever it is, names or not', {trust_chain_verification => 'ACCEPT_UNTRUSTED', %{san(URI => exact => "$td/page")}}, @all, qw(expired root2 foreign two)],
    ['trust domains', domains('cluster.local' => $ca, 'other.org' => $ca2), qw(page other deep foreign)],
    ['each its own roots', domains('cluster.local' => $ca2, 'other.org' => $ca2), qw(root2 foreign)],
    ['a trust domain and a name', {%{domains('cluster.local' => $ca)}, %{san(URI => suffix => '/other')}}, qw(other)],
);

sub context {
    my ($over) = @_;
    my %c = (trusted_ca => text($ca->{cert}), %$over);
    delete $c{$_} for grep { !defined $c{$_} } keys %c;
    return \%c;
}
my $hcm = sub {
    my ($n) = @_;
    return {name => 'hcm', typed_config => {
        '@type' => type('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
        stat_prefix => 't', http_filters => [{name => 'envoy.filters.http.router',
            typed_config => {'@type' => type('envoy.extensions.filters.http.router.v3.Router')}}],
        route_config => {name => "r$n", virtual_hosts => [{name => 'v', domains => ['*'], routes => [
            {match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => 'in'}}}]}]}}};
};
sub address { {socket_address => {address => '127.0.0.1', port_value => $_[0] + 0}} }
sub listener {
    my ($n, $over, %more) = @_;
    return {name => "row$n", address => address($hd->port("r$n")), filter_chains => [{filters => [$hcm->($n)], transport_socket => {
        name => 'tls', typed_config => {'@type' => type('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
            require_client_certificate => $yes, %more, common_tls_context => {
                tls_certificates => [{certificate_chain => text($server->{chain}), private_key => text($server->{key})}],
                validation_context => context($over)}}}}]};
}

# Upstream: one front for each certificate that there is, and a route to it for each row of names.
my @up = grep { $_->[0] =~ /URI|DNS|hash|trust domain/ } @rows;
my @upstreams = qw(page other foreign);
my %port = map { $_ => $hd->port("up_$_") } @upstreams;
sub cluster {
    my ($n, $who, $over) = @_;
    return {name => "up$n-$who", type => 'STATIC', connect_timeout => '5s',
        load_assignment => {cluster_name => "up$n-$who", endpoints => [{lb_endpoints => [{endpoint => {address => address($port{$who})}}]}]},
        transport_socket => {name => 'tls', typed_config => {'@type' => type('envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
            common_tls_context => {validation_context => context($over)}}}};
}
my (@clusters, @routes);
for my $n (0 .. $#up) {
    for my $who (@upstreams) {
        push @clusters, cluster($n, $who, $up[$n][1]);
        push @routes, {match => {path => "/$n/$who"}, route => {cluster => "up$n-$who", prefix_rewrite => '/'}};
    }
}
my $front = {name => 'front', address => address($hd->port('front')), filter_chains => [{filters => [$hcm->('front')]}]};
$front->{filter_chains}[0]{filters}[0]{typed_config}{route_config}{virtual_hosts}[0]{routes} = \@routes;

my $xds = Heddle::Xds->new($hd, 'xds');
my $bad = listener('bad', {match_typed_subject_alt_names => [{san_type => 'OTHER_NAME', matcher => {exact => 'x'}}]});
my $bad2 = listener('bad2', {verify_certificate_hash => ['12:34']});
my $bad3 = listener('bad3', domains('Not_A/Domain' => $ca));
my $bad4 = listener('bad4', {}, session_ticket_keys => {keys => [{inline_string => 'short'}]});
$xds->serve(CDS => \@clusters, LDS => [(map { listener($_, $rows[$_][1]) } 0 .. $#rows), $front, $bad, $bad2, $bad3, $bad4])->start;
$hd->conf("xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }");
$hd->echo_server('echo');
my @fronts = map { Heddle::TlsFront->start($hd, "up_$_" => 'echo', cert => $who{$_}) } @upstreams;
$hd->expect_log(qr/certificate/);
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port('front')) && Heddle::Port::is_listening($hd->port("r$#rows")) }, 'listeners');

for my $n (0 .. $#rows) {
    my ($what, undef, @in) = @{$rows[$n]};
    my @got;
    for my $w (sort keys %who) {
        my $r = eval { $hd->get('/', {port => "r$n", tls => {cert => $who{$w}{chain}, key => $who{$w}{key}}}) };
        push @got, $w if $r && eval { $r->status == 200 };
    }
    is "@got", join(' ', sort @in), "clients: $what";
}
for my $n (0 .. $#up) {
    my ($what, undef, @in) = @{$up[$n]};
    my %in = map { $_ => 1 } @in;
    for my $w (@upstreams) {
        my $status = $hd->get("/$n/$w", {port => 'front'})->status;
        is $status, $in{$w} ? 200 : 503, "upstreams: $what: $w";
    }
}
my ($nack) = map { $_->{error} } $xds->wait_nack('LDS', qr/row/);
like $nack, qr/OTHER_NAME needs one/, 'refused: a kind of name';
like $nack, qr/is no SHA-256 in hex/, 'a hash';
like $nack, qr/is no trust domain/, 'a trust domain';
like $nack, qr/a key has 80 bytes/, 'a key of tickets';
$_->stop for @fronts;
$hd->stop;
$xds->stop;
done_testing;
