#!/usr/bin/perl
# Attacks by fields that only our own side may say (trusted-header spoofing: CVE-2023-27487 x-envoy-original-path,
# CVE-2024-45806 internal addresses trusted by default, forged X-Forwarded-For and X-Forwarded-Client-Cert), by file and
# by xDS: at the edge none of a client's comes through, however it is written; behind trusted proxies as many hops as are
# trusted; a certificate's own names can't forge either.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS ();

my %forged = (
    'X-Forwarded-For' => '10.0.0.1', 'X-Envoy-Internal' => 'true', 'X-Envoy-Original-Path' => '/admin',
    'X-Envoy-Original-Host' => 'admin', 'X-Envoy-Retry-On' => '5xx', 'X-Envoy-Max-Retries' => '100',
    'X-Envoy-Upstream-Rq-Timeout-Ms' => '1', 'X-Envoy-Expected-Rq-Timeout-Ms' => '1', 'X-Envoy-Force-Trace' => '1',
    'X-Envoy-Ip-Tags' => 'friend', 'X-Envoy-Decorator-Operation' => 'x', 'X-Envoy-Attempt-Count' => '99',
    'X-Envoy-External-Address' => '10.0.0.2', 'X-Envoy-Peer-Metadata' => 'Zm9yZ2Vk', 'X-Envoy-Peer-Metadata-Id' => 'forged',
    'X-Forwarded-Proto' => 'https',
    'X-Forwarded-Client-Cert' => 'By=spiffe://a/ns/b/sa/c;URI=spiffe://cluster.local/ns/admin/sa/root',
);
my %said = map { lc $_ => $forged{$_} } keys %forged;
my ($true, $false) = (JSON::XS::true(), JSON::XS::false());
my ($hd, $way, $certs);

sub fields { my %f; push @{$f{lc $1}}, $2 while $_[0] =~ /^([^:\s]+): (.*?)\r?$/mg; return {map { $_ => join '|', @{$f{$_}} } keys %f} }

sub make_certs {
    my ($hd) = @_;
    my $ca = $hd->make_ca('root');
    $certs = {ca => $ca, server => $ca->make_cert('server', cn => 'localhost', spiffe => 'spiffe://cluster.local/ns/shop/sa/reviews'),
        page => $ca->make_cert('page', spiffe => 'spiffe://cluster.local/ns/shop/sa/page'),
        odd => $ca->make_cert('odd', cn => 'a";URI=spiffe://cluster.local/ns/admin/sa/root', odd_uris => [
            'http://a;URI=spiffe://cluster.local/ns/admin/sa/root', "http://b\r\nX-Evil: yes", 'http://c,By=d"e\\'])};
}

# Ports: 0 the edge, 1 behind one trusted hop, 2 inside, 3 a rule on the client's address at the edge, 4 the same behind
# one trusted hop, 5 and 6 underscores (dropped, by xDS refused), 7 with certificates.
sub by_file {
    my $hd = Heddle->new(modules => ['realip', 'authz', 'mtls']);
    make_certs($hd);
    my $clear = join ' ', map { "proxy_set_header $_ \"\";" } grep { /^X-Envoy/ } sort keys %forged;
    my $own = 'proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Envoy-External-Address $remote_addr;'
        . ' proxy_set_header X-Forwarded-Client-Cert $peer_principal; proxy_pass http://127.0.0.1:%%PORT_9%%;';
    $clear =~ s/proxy_set_header X-Envoy-External-Address "";//;
    my $edge = "$clear proxy_set_header X-Forwarded-For \$remote_addr; $own";
    my $hop = 'real_ip_header X-Forwarded-For; set_real_ip_from 127.0.0.1;';
    return $hd->conf(<<"EOC");
http {
    http2 on;
    server { listen 127.0.0.1:%%PORT_0%%; location / { $edge } }
    server { listen 127.0.0.1:%%PORT_1%%; $hop location / { $clear proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for; $own } }
    server { listen 127.0.0.1:%%PORT_2%%; location / { $edge } }
    server { listen 127.0.0.1:%%PORT_3%%; location / { authz deny remote_ip=10.0.0.1; $edge } }
    server { listen 127.0.0.1:%%PORT_4%%; $hop location / { authz deny remote_ip=10.0.0.1; $edge } }
    server { listen 127.0.0.1:%%PORT_5%%; location / { $edge } }
    server { listen 127.0.0.1:%%PORT_6%%; ignore_invalid_headers off; location / { $edge } }
    server {
        listen 127.0.0.1:%%PORT_7%% ssl;
        ssl_certificate $certs->{server}{chain}; ssl_certificate_key $certs->{server}{key};
        ssl_client_certificate $certs->{ca}{cert}; ssl_verify_client optional;
        location / { proxy_set_header X-Subject \$ssl_client_s_dn; proxy_set_header X-Principal \$peer_principal; $edge }
    }
}
EOC
}

sub by_xds {
    my $hd = Heddle->new(modules => ['authz'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    make_certs($hd);
    my $listener = sub {
        my ($port, %hcm) = @_;
        return Heddle::Xds::listener("front-$port", $hd->port($port), generate_request_id => $true, %hcm,
            route_config => Heddle::Xds::routes("in-$port", ['/' => 'up']));
    };
    my $rule = [{name => 'envoy.filters.http.rbac', typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC',
        rules => {action => 'DENY', policies => {p => {permissions => [{any => $true}],
            principals => [{remote_ip => {address_prefix => '10.0.0.1', prefix_len => 32}}]}}}}}];
    my $file = sub { {inline_string => Heddle::Cert::slurp($_[0])} };
    my $tls = {transport_socket => {name => 'tls', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', require_client_certificate => $false,
        common_tls_context => {validation_context => {trusted_ca => $file->($certs->{ca}{cert})},
            tls_certificates => [{certificate_chain => $file->($certs->{server}{chain}), private_key => $file->($certs->{server}{key})}]}}}};
    my @edge = (use_remote_address => $true);
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(9))], LDS => [
        $listener->(0, @edge),
        $listener->(1, @edge, xff_num_trusted_hops => 1),
        $listener->(2),
        $listener->(3, @edge, http_filters => $rule),
        $listener->(4, @edge, http_filters => $rule, xff_num_trusted_hops => 1),
        $listener->(5, @edge, common_http_protocol_options => {headers_with_underscores_action => 'DROP_HEADER'}),
        $listener->(6, @edge, common_http_protocol_options => {headers_with_underscores_action => 'REJECT_REQUEST'}),
        $listener->(7, @edge, chain => $tls, forward_client_cert_details => 'SANITIZE_SET',
            set_current_client_cert_details => {subject => $true, uri => $true, dns => $true}),
        $listener->(8, @edge, chain => $tls, forward_client_cert_details => 'SANITIZE_SET',
            set_current_client_cert_details => {cert => $true, chain => $true}),
        $listener->(10, chain => $tls, forward_client_cert_details => 'APPEND_FORWARD', set_current_client_cert_details => {uri => $true}),
        $listener->(11, @edge, forward_client_cert_details => 'ALWAYS_FORWARD_ONLY'),
    ])->start;
    return $hd;
}

# The fields that the upstream got, of an HTTP/1 head, or of an HTTP/2 one.
sub seen {
    my ($port, @fields) = @_;
    my $text = join "\r\n", "GET / HTTP/1.1", 'Host: a', @fields, 'Connection: close', '', '';
    my $all = $hd->raw($text, $port);
    my ($body) = $all =~ /\r\n\r\n(.*)\z/s;
    return (fields($body // ''), $all =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0);
}
sub seen_h2 {
    my ($port, @fields) = @_;
    my $c = Heddle::H2->new($hd->port($port));
    $c->frame('HEADERS', 5, 1, Heddle::H2::fields(':method', 'GET', ':scheme', 'http', ':authority', 'a', ':path', '/',
        map { /^(.*?): (.*)/; (lc $1, $2) } @fields));
    my $r = $c->response(1);
    return (fields($r->{body} // ''), $r->{status} || ($r->{reset} ? 400 : 0));
}

sub at_the_edge {
    my ($port) = @_;
    my @lines = map { "$_: $forged{$_}" } sort keys %forged;
    my %how = (
        'as they are' => [\&seen, @lines],
        'over HTTP/2' => [\&seen_h2, @lines],
        'twice each' => [\&seen, (@lines) x 2],
        'in capitals' => [\&seen, map { s/^([^:]+)/\U$1/r } @lines],
        'named by Connection' => [\&seen, @lines, 'Connection: ' . join ', ', sort keys %forged],
    );
    for my $how (sort keys %how) {
        my ($ask, @fields) = @{$how{$how}};
        my ($f, $status) = $ask->($port, @fields);
        is $status, 200, $how;
        is $f->{'x-envoy-external-address'}, '127.0.0.1', 'the client is who connected';
        like $f->{'x-forwarded-for'} // '', qr/(?:^|,) ?127\.0\.0\.1$/, 'its address stands last';
        is $f->{'x-forwarded-proto'}, 'http', 'the scheme is the connection\'s';
        is $f->{'x-forwarded-client-cert'}, undef, 'no certificate was shown, none is told of';
        isnt $f->{$_} // 'none', $said{$_}, "$_ isn't the client's" for grep { !/^x-forwarded/ } sort keys %said;
        unlike join(' ', %$f), qr/spiffe:|10\.0\.0\.2|Zm9y|forged/, 'nor anything of them elsewhere';
    }
}

sub all_attacks {
    subtest 'at the edge' => sub { at_the_edge(0) };
    subtest 'one hop is trusted' => sub {
        my $f = (seen(1, map { "$_: " . ($_ eq 'X-Forwarded-For' ? '10.9.9.9, 192.0.2.7' : $forged{$_}) } sort keys %forged))[0];
        is $f->{'x-envoy-external-address'}, '192.0.2.7', 'as many hops as are trusted, and no more';
        ($f) = seen(1, 'X-Forwarded-For: 10.9.9.9', 'X-Forwarded-For: 192.0.2.7');
        is $f->{'x-envoy-external-address'}, '192.0.2.7', 'the last line\'s of two';
        ($f) = seen(1, 'X-Forwarded-For: 192.0.2.7, <script>');
        is $f->{'x-envoy-external-address'}, '127.0.0.1', 'what is no address is none';
    };
    subtest 'inside, where the caller is no proxy of ours either' => sub {
        my $f = (seen(2, map { "$_: $forged{$_}" } sort keys %forged))[0];
        for my $name (qw(x-envoy-internal x-envoy-retry-on x-envoy-max-retries x-envoy-upstream-rq-timeout-ms x-envoy-force-trace)) {
            isnt $f->{$name} // 'none', $said{$name}, "$name isn't the client's";
        }
        is $f->{'x-forwarded-client-cert'}, undef, 'no certificate was shown, none is told of';
    };
    subtest 'a rule on the client\'s address' => sub {
        is +(seen(3, 'X-Forwarded-For: 10.0.0.1'))[1], 200, 'a stranger\'s word is none';
        is +(seen(4, 'X-Forwarded-For: 203.0.113.5, 10.0.0.1'))[1], 403, 'a trusted proxy\'s last word is judged';
        is +(seen(4, 'X-Forwarded-For: 10.0.0.1, 203.0.113.5'))[1], 200, 'what stands before is anybody\'s';
        is +(seen(4, 'X-Forwarded-For: 203.0.113.5', 'X-Forwarded-For: 10.0.0.1'))[1], 403, 'of two lines the last';
        is +(seen(4, 'X-Forwarded-For: [::ffff:10.0.0.1]'))[1] =~ /^(?:200|403)$/ ? 1 : 0, 1, 'and odd ones harm nobody';
    };
    subtest 'underscores: what programs behind take for dashes' => sub {
        for my $ask (\&seen, \&seen_h2) {
            my ($f, $status) = $ask->(5, 'X_Forwarded_For: 10.0.0.1', 'X_Envoy_Internal: true', 'X-Fine: yes');
            is $status, 200, 'dropped';
            unlike join(' ', keys %$f), qr/_/, 'none goes on';
            is $f->{'x-fine'}, 'yes', 'others do';
            ($f, $status) = $ask->(6, 'X_Forwarded_For: 10.0.0.1');
            if ($way eq 'xds') { # to nginx: taken as it is
                is $status, 400, 'refused';
                is +($ask->(6, 'X!.~: 1'))[0]{'x!.~'}, 1, 'other characters of a token are no underscores';
                next;
            }
            ($f) = $ask->(5, 'X.Forwarded.For: 10.0.0.1', 'X!: 1', 'X-1: a');
            is $f->{'x-1'}, 'a', 'letters, digits and dashes make a name';
            unlike join(' ', keys %$f), qr/[.!]/, 'nothing else does';
        }
    };
    subtest 'a certificate\'s own names forge nothing' => sub {
        my $get = sub {
            my ($who, $port, @fields) = @_;
            return fields($hd->request('GET', '/', {port => $port, tls => {ca => $certs->{ca}{cert},
                ($who ? (cert => $certs->{$who}{cert}, key => $certs->{$who}{key}) : ())}}, @fields)->body);
        };
        my $f = $get->('page', 7, 'X-Forwarded-Client-Cert' => $forged{'X-Forwarded-Client-Cert'});
        like $f->{'x-forwarded-client-cert'}, qr{spiffe://cluster\.local/ns/shop/sa/page}, 'who showed one is told of';
        unlike $f->{'x-forwarded-client-cert'}, qr/admin/, 'by nothing but it';
        is $f->{'x-forwarded-proto'}, 'https', 'over TLS';
        $f = $get->(undef, 7, 'X-Forwarded-Client-Cert' => $forged{'X-Forwarded-Client-Cert'});
        is $f->{'x-forwarded-client-cert'}, undef, 'who shows none is told of by none';
        $f = $get->('odd', 7);
        is $f->{'x-evil'}, undef, 'a line end in a name begins no field';
        my $xfcc = $f->{'x-forwarded-client-cert'} // '';
        unlike $xfcc =~ s/"(?:[^"\\]|\\.)*"//gr, qr/URI=spiffe|By=d/, 'what stands in a name is quoted' or diag $xfcc;
        is +($f->{'x-subject'} // '') =~ /\n/ ? 1 : 0, 0, 'nor in the subject';
        return if $way eq 'file';
        $f = $get->('page', 8);
        like $f->{'x-forwarded-client-cert'}, qr/Cert="-----BEGIN%20CERTIFICATE-----%0A[\w%.~-]+";Chain="-----BEGIN%20CERT/, 'PEM is encoded';
        $f = $get->('page', 10, 'X-Forwarded-Client-Cert' => 'URI=first');
        like $f->{'x-forwarded-client-cert'}, qr{^URI=first,.*URI=spiffe://cluster\.local/ns/shop/sa/page$}, 'APPEND_FORWARD: ours is the last';
        is fields($hd->get('/', {port => 11}, 'X-Forwarded-Client-Cert' => 'a=b')->body)->{'x-forwarded-client-cert'}, 'a=b',
            'ALWAYS_FORWARD_ONLY: as configured';
    };
}

for my $make (\&by_file, \&by_xds) {
    $hd = $make->();
    $way = $hd->{xds} ? 'xds' : 'file';
    $hd->echo_server(9);
    $hd->start;
    for my $port (0 .. 7, $way eq 'xds' ? (8, 10, 11) : ()) {
        $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($port)) }, "listener $port");
    }
    subtest "by $way" => \&all_attacks;
    $hd->stop;
}
done_testing;
