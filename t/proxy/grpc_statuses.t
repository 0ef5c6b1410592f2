#!/usr/bin/perl
# Every error of our own is a gRPC status to a gRPC client, wherever it comes from: return, if, no location, files,
# limits, denials, a head that can't be read, another Heddle. By file and by xDS, seen by a genuine client (grpcio).
# What a request within a request is told stays HTTP's: no one is let in by 200.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::Grpc;
use Heddle::H2;
use Heddle::Xds;

plan skip_all => $Heddle::Grpc::missing if !Heddle::Grpc::usable();

my $hd = Heddle->new(modules => [qw(access auth_request limit_req)]);
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('server', dns => 'localhost', spiffe => 'spiffe://test/ns/a/sa/one');
my $links = "proxy_ssl_certificate $cert->{cert}; proxy_ssl_certificate_key $cert->{key}; proxy_ssl_name localhost;"
    . " proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert};";
my $server = Heddle::Grpc->serve($hd->port(1));
$hd->write('404.html', 'no such page');
$hd->conf(<<"EOC")->start;
http {
    http2 on;
    limit_req_zone all zone=none:1m rate=1r/m;
    log_format g '\$uri \$status \$sent_http_grpc_status';
    access_log %%DIR%%/access.log g;
    large_client_header_buffers 2 1k;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        root %%DIR%%/none;
        location /t.T/Echo { grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location /t.T/Return { return 503 busy; }
        location /t.T/If { if (\$http_x_a) { return 403; } grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location /t.T/Moved { add_header X-Always yes always; return 301 https://a/; }
        location /t.T/Denied { deny all; grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location /t.T/Limited { limit_req zone=none; limit_req_status 429; grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location /t.T/Sum { client_max_body_size 10; grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location /t.T/Dead { proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /t.T/Link { proxy_pass https://127.0.0.1:%%PORT_2%%; $links }
        location /t.T/Own { add_header grpc-status 8 always; add_header grpc-message mine always; return 503; }
        location /t.T/Page { error_page 503 = \@page; return 503; }
        location /t.T/File { error_page 404 /404.html; return 404; }
        location /t.T/Asked { auth_request /asked; grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location /t.T/Unsure { auth_request /unsure; grpc_pass grpc://127.0.0.1:%%PORT_1%%; }
        location = /asked { return 401; }
        location = /unsure { grpc_pass grpc://127.0.0.1:%%PORT_9%%; }
        location = /404.html { root %%DIR%%; }
        location \@page { default_type application/grpc; add_header grpc-status 10; add_header grpc-message aside; return 204; }
    }
    server { # another Heddle
        listen 127.0.0.1:%%PORT_2%% ssl;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client on;
        location / { return 403; }
    }
}
EOC

my $client = Heddle::Grpc->client($hd->port(0));
sub call { my ($c, @what) = @_; my $r = $c->call(@what, timeout => Heddle::deadline_s()); return "$r->{code}: " . ($r->{details} // '') }

is call($client, 'Echo'), 'OK: ', 'it works';
call($client, 'Limited');
for my $row (
    ['Return', 'UNAVAILABLE: Service Temporarily Unavailable', 'return'],
    ['If', 'PERMISSION_DENIED: Forbidden', 'return of if', metadata => {'x-a' => 'yes'}],
    ['Moved', 'UNKNOWN: Moved Permanently', 'a redirection'],
    ['Nowhere', 'UNIMPLEMENTED: Not Found', 'no location'],
    ['Denied', 'PERMISSION_DENIED: Forbidden', 'a denial'],
    ['Limited', 'UNAVAILABLE: Too Many Requests', 'a limit of requests'],
    ['Sum', 'UNKNOWN: Request Entity Too Large', 'a body beyond the limit', messages => ['a message']],
    ['Dead', 'UNAVAILABLE: Bad Gateway', 'proxy_pass to nobody'],
    ['Link', 'PERMISSION_DENIED: Forbidden', "another Heddle's"],
    ['Echo', 'UNKNOWN: Request Header Fields Too Large', 'a head beyond the limit', metadata => {'x-large' => 'x' x 3000}],
    ['%zz', 'INTERNAL: Bad Request', "a path that can't be read"],
    ['Own', 'RESOURCE_EXHAUSTED: mine', "add_header's word comes first"],
    ['Page', 'ABORTED: aside', "error_page's, too"],
    ['File', 'UNIMPLEMENTED: Not Found', "a page isn't gRPC's"],
    ['Asked', 'UNAUTHENTICATED: Unauthorized', 'auth_request'],
    ['Unsure', 'UNKNOWN: Internal Server Error', 'auth_request to nobody'],
) {
    my ($method, $want, $name, @how) = @$row;
    is call($client, $method, @how), $want, $name;
}
is call($client, 'Echo'), 'OK: ', 'it works still';
ok $hd->wait_log(qr/auth request unexpected status: 502/), 'the log says why';
$hd->wait_for(sub { $hd->file('access.log') =~ m{^/t\.T/Return 200 14$}m }, 'its line');
like $hd->file('access.log'), qr{^/t\.T/Own 200 8$}m, 'the access log has the status';

# One frame of a head, without a body: gRPC's "trailers-only".
my $c = Heddle::H2->new($hd->port(0));
$c->request(1, '/404.html', method => 'POST', fields => ['content-type', 'application/grpc+proto', 'te', 'trailers']);
my $r = $c->response(1);
is "$r->{status} $r->{frames} " . ($r->{trailers} // 'none'), '200 0 none', 'a page is no body';
for (['text/plain', 503], ['application/grpc-web', 503], ['application/grpcx', 503], ['application/grpc', 200], ['application/grpc;a=b', 200]) {
    my ($type, $status) = @$_;
    is $hd->get('/t.T/Return', 'Content-Type' => $type)->status, $status, "HTTP/1, $type: $status";
}
my $h1 = $hd->connect(0);
$r = $h1->request('GET', '/t.T/Moved', 'Content-Type' => 'application/grpc');
like $r->head, qr/^$_\r$/m, "HTTP/1: $_" for 'grpc-status: 2', 'Location: https://a/', 'X-Always: yes', 'content-type: application/grpc';
is $h1->request('GET', '/t.T/Return', 'Content-Type' => 'application/grpc')->header('grpc-status'), 14, 'on a connection that stays';
$hd->stop;

# ---- by xDS

SKIP: {
    skip $Heddle::Xds::missing if $Heddle::Xds::missing;
    my $hx = Heddle->new->conf("xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }");
    my $answer = sub {
        my ($method, $status, $text, @fields) = @_;
        return {match => {prefix => "/t.T/$method"},
            direct_response => {status => $status, ($text ? (body => {inline_string => $text}) : ())},
            response_headers_to_add => [map { {header => {key => $_->[0], value => $_->[1]}} } @fields]};
    };
    my $xds = Heddle::Xds->new($hx, 'xds')->serve(
        CDS => [Heddle::Xds::cluster('up', $hd->port(1)), Heddle::Xds::cluster('dead', $hx->port(9))],
        LDS => [Heddle::Xds::listener('front', $hx->port(0), max_request_headers_kb => 2, route_config => {name => 'in',
            virtual_hosts => [{name => 'all', domains => ['*'], routes => [
                {match => {prefix => '/t.T/Echo'}, route => {cluster => 'up'}},
                {match => {prefix => '/t.T/Dead'}, route => {cluster => 'dead'}},
                {match => {prefix => '/t.T/Moved'}, redirect => {host_redirect => 'a'}},
                $answer->('Return', 503, 'busy'),
                $answer->('Fine', 200, 'fine'),
                $answer->('Own', 503, undef, ['grpc-status', '8'], ['grpc-message', 'mine']),
            ]}]})],
    )->start;
    $hx->start;
    $hx->wait_for(sub { Heddle::Port::is_listening($hx->port(0)) }, 'the listener');
    $client = Heddle::Grpc->client($hx->port(0));
    for my $row (
        ['Return', 'UNAVAILABLE: busy', 'a direct response'],
        ['Fine', 'UNKNOWN: fine', 'one of 200: no success'],
        ['Own', 'RESOURCE_EXHAUSTED: mine', "the route's word comes first"],
        ['Moved', 'UNKNOWN: ', 'a redirection'],
        ['Nowhere', 'UNIMPLEMENTED: ', 'no route'],
        ['Dead', qr/^UNAVAILABLE: upstream connect error/, 'to nobody'],
        ['Echo', 'UNKNOWN: ', 'a head beyond the limit', metadata => {'x-large' => 'x' x 3000}],
    ) {
        my ($method, $want, $name, @how) = @$row;
        my $got = call($client, $method, @how);
        ref $want ? like $got, $want, "xds: $name" : is $got, $want, "xds: $name";
    }
    is $hx->get('/t.T/Own')->header('grpc-status'), 8, 'xds: not for gRPC: as the route says';
    $hx->stop;
    $xds->stop;
}
done_testing;
