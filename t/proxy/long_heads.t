#!/usr/bin/perl
# Response heads that are longer than a block of 16 KB: proxy_buffer_size, max_response_headers_kb; by HTTP/1,
# HTTP/2 and a weft, whole and in pieces, with what follows them. And a request's head that is too long
# for a weft goes over a connection of its own, beside the link's requests.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('one', dns => ['one.mesh']);
my $pair = "proxy_ssl_certificate $cert->{cert}; proxy_ssl_certificate_key $cert->{key}; proxy_ssl_name one.mesh;"
    . " proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert};";
$hd->conf(<<"EOC");
http {
    http2 on;
    large_client_header_buffers 4 64k;
    log_format f '\$uri \$ssl_alpn_protocol';
    access_log %%DIR%%/access.log f;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /32k/ { proxy_pass http://127.0.0.1:%%PORT_9%%/; proxy_buffer_size 32k; }
        location /h2/ { proxy_pass http://127.0.0.1:%%PORT_1%%/; proxy_http_version 2; }
        location /h2_32k/ { proxy_pass http://127.0.0.1:%%PORT_1%%/; proxy_http_version 2; proxy_buffer_size 32k; }
        location /pieces { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location /pair/ { proxy_pass https://127.0.0.1:%%PORT_2%%/; $pair }
    }
    server { listen 127.0.0.1:%%PORT_1%%; location / { proxy_pass http://127.0.0.1:%%PORT_9%%; proxy_buffer_size 120k; } }
    server {
        listen 127.0.0.1:%%PORT_2%% ssl;
        ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key};
        ssl_client_certificate $ca->{cert}; ssl_verify_client on;
        location / { proxy_pass http://127.0.0.1:%%PORT_9%%; proxy_buffer_size 120k; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%%; large_client_header_buffers 2 16k;
        location / { proxy_pass https://127.0.0.1:%%PORT_2%%; $pair }
    }
}
EOC
sub head { my ($n) = @_; my $x = "X-Long: \r\n\r\n"; return 'X-Long: ' . 'x' x ($n - length("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n$x")) . "\r\n\r\n" }
$hd->backend(9, sub {
    my ($req) = @_;
    my $start = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n";
    return [200, {}, join ' ', map { "X-$_=" . length($req->header("X-$_") // '') } 1 .. 4] if $req->{uri} =~ /request/;
    return {raw => $start . head($1) . 'hello'} if $req->{uri} =~ m{/head/(\d+)$};
    return {raw => "HTTP/1.1 103 Early\r\nLink: " . 'a' x 20000 . "\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" . head(30000)
            . "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"} if $req->{uri} =~ /chunked/;
    return {raw => "HTTP/1.1 304 Not Modified\r\n" . head(30000)} if $req->{uri} =~ /empty/;
    return {raw => $start . substr(head(30000), 0, 20000), close => 1} if $req->{uri} =~ /cut/;
    return {raw => "HTTP/1.1 200 OK\r\n" . head(30000) . 'until the end', close => 1} if $req->{uri} =~ /end/;
    return [404, {}, 'what?'];
});
$hd->tcp_backend(8, sub { # in pieces, and a second one behind it on the same connection
    my ($sock) = @_;
    my $in = '';
    for my $n (40000, 20000) {
        while ($in !~ s/^.*?\r\n\r\n//s) { sysread($sock, $in, 65536, length $in) or return }
        my $out = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" . head($n) . 'hello';
        while (length $out) { syswrite $sock, substr $out, 0, 997, ''; select undef, undef, undef, 0.001 }
    }
});
$hd->start;

my $k80 = 80 * 1024;
for my $way ('', '/pair', '/h2') {
    for my $n (16383, 16384, 16385, 17000, 65000, $way ? () : $k80) {
        my $r = $hd->get("$way/head/$n");
        is $r->status . ' ' . $r->body, '200 hello', "$way/head/$n";
        cmp_ok length($r->header('X-Long')), '>', $n - 100, 'with all of it';
    }
    my $r = $hd->get("$way/chunked");
    is $r->body, 'hello', "$way/chunked: behind a long interim head, and in chunks";
    cmp_ok length($r->header('X-Long')), '>', 29000, 'the head';
    is $hd->get("$way/empty")->status, 304, "$way/empty: no body";
    is $hd->get("$way/end")->body, 'until the end', "$way/end";
    is $hd->get("$way/cut")->status, 502, "$way/cut: one that ends in the middle";
    is $hd->get("$way/head/20000")->body, 'hello', 'and the next one';
}
for my $row (['/head/' . ($k80 + 1), $k80], ['/32k/head/32769', 32768], ['/h2_32k/head/33000', 32768]) {
    my ($uri, $max) = @$row;
    is $hd->get($uri)->status, 502, "$uri: too long";
    ok $hd->wait_log(qr/upstream sent too big header while reading .*more than $max bytes \(proxy_buffer_size\).*the longest is "x-long".*"GET \Q$uri\E/i),
        'the log says what and why';
}
is $hd->get('/pieces')->body, 'hello', "in pieces, $_" for 'on a new connection', 'on the same';
is $hd->get('/32k/head/32768')->status, 200, 'as long as it may be';
my $c = Heddle::H2->new($hd->port(0));
$c->request(1, '/head/60000');
is $c->response(1)->{body}, 'hello', 'to a client of HTTP/2';

# ---- requests' heads over a link

sub alpn { my ($uri) = @_; return $hd->wait_for(sub { ($hd->file('access.log') =~ m{^\Q$uri\E (\S+)}m)[0] }, 'the log line') }
is $hd->get('/request/short', {port => 3})->status, 200, 'a server whose heads a link takes';
is alpn('/request/short'), 'heddle-weft/1', 'uses one';
my $r = $hd->get('/pair/request/long', map { ("X-$_" => 'x' x 50000) } 1 .. 4);
is $r->body, join(' ', map { "X-$_=50000" } 1 .. 4), 'heads of 200 KB go through';
isnt alpn('/request/long'), 'heddle-weft/1', 'over a connection of their own';

my ($status, $said) = Heddle->new->conf('http { server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:1; proxy_buffer_size 256k; } } }')
    ->run('-t');
is $status, 0, 'more may be said';
like $said, qr/\[warn\] \S*heddle\.conf:\d+: heads of responses have at most 120k/, 'with a warning';

# ---- by xDS

SKIP: {
    skip $Heddle::Xds::missing if $Heddle::Xds::missing;
    my $x = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $xds = Heddle::Xds->new($x, 'xds');
    my $cluster = sub {
        my ($name, %common) = @_;
        return Heddle::Xds::cluster($name, $hd->port(9), typed_extension_protocol_options => {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions' => {
                '@type' => 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
                common_http_protocol_options => \%common, explicit_http_config => {http_protocol_options => {}}}});
    };
    my $lds = Heddle::Xds::listener('front', $x->port(0), route_config =>
        Heddle::Xds::routes('in', ['/' => 'plain'], ['/s' => 'small']));
    $lds->{filter_chains}[0]{filters}[0]{typed_config}{route_config}{virtual_hosts}[0]{routes} = [
        {match => {prefix => '/small/'}, route => {cluster => 'small', prefix_rewrite => '/'}}, {match => {prefix => '/'}, route => {cluster => 'plain'}}];
    $xds->serve(CDS => [$cluster->('plain'), $cluster->('small', max_response_headers_kb => 20)], LDS => [$lds])->start;
    $x->start;
    $x->wait_for(sub { Heddle::Port::is_listening($x->port(0)) }, 'the listener');
    is $x->get("/head/$k80")->status, 200, 'by xDS: 80 KB';
    is $x->get('/head/' . ($k80 + 1))->status, 502, 'and no more';
    is $x->get('/small/head/20480')->status, 200, 'max_response_headers_kb';
    is $x->get('/small/head/20481')->status, 502, 'and no more';
    $xds->serve(CDS => [$cluster->('plain', max_response_headers_kb => 8193)], LDS => [$lds]);
    ok $xds->wait_nack('CDS', qr/max_response_headers_kb 8193: 1 to 8192/), 'a limit beyond all';
    $x->stop;
}
$hd->stop;
done_testing;
