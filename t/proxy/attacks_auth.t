#!/usr/bin/perl
# Attacks on who says whether a request may pass (the kind of CVE-2023-27488, a field that isn't UTF-8, and of
# CVE-2026-73547, a request without a path), by file and by xDS. By file another server is asked (auth_request): whatever
# keeps it from saying yes, nobody passes, and what it judges is what goes on. By xDS a control plane has rules (RBAC); what
# it asks for that isn't known here (ext_authz, jwt_authn, matchers), optional or not in its own words, lets nobody in.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS ();

my $password = "caf\xc3\xa9";
my $hd = Heddle->new(modules => ['auth_request'])->conf(<<'EOC');
http {
    http2 on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_connect_timeout 1s;
        location / { auth_request /ask; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /quick/ { auth_request /ask-quick; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /nobody/ { auth_request /ask-nobody; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /ask { internal; proxy_pass http://127.0.0.1:%%PORT_2%%; proxy_set_header X-Target $request_uri; }
        location = /ask-quick { internal; proxy_read_timeout 200ms; proxy_pass http://127.0.0.1:%%PORT_2%%; proxy_set_header X-Target $request_uri; }
        location = /ask-nobody { internal; proxy_pass http://127.0.0.1:%%PORT_3%%; }
    }
}
EOC
$hd->echo_server(1);
# Yes only to who shows the password; else as the target says.
$hd->backend(2, sub {
    my ($req) = @_;
    my $target = $req->header('x-target') // '';
    return {hang => 1} if $target =~ /hang/;
    return {close => 1} if $target =~ /close/;
    return {raw => "HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n", close => 1} if $target =~ /broken/;
    return {raw => "rubbish\r\n\r\n", close => 1} if $target =~ /rubbish/;
    return [$1, {}, ''] if $target =~ /status(\d+)/;
    return [($req->header('x-password') // '') eq "caf\xc3\xa9\xff" ? 200 : 403, {}, ''];
});
$hd->start;

sub stopped {
    my ($what, $status, $uri, @fields) = @_;
    my $before = () = $hd->requests(1);
    is $hd->get($uri, @fields)->status, $status, "$what: $status";
    is scalar(() = $hd->requests(1)), $before, "$what: nothing passes";
}

stopped('no password', 403, '/x');
stopped('another one', 403, '/x', 'X-Password' => 'cafe');
is $hd->get('/x', 'X-Password' => "$password\xff")->status, 200, 'bytes that are no UTF-8 are judged as they are';
like +($hd->requests(1))[-1]{head}, qr/^X-Password: caf\xc3\xa9\xff\r$/m, 'and go on so';
stopped('two of them', 403, '/x', 'X-Password' => 'no', 'X-Password' => "caf\xc3\xa9\xff");
stopped('two of Authorization, of which it would read one and we the other', 400, '/x', 'Authorization' => 'a', 'authorization' => 'b', 'X-Password' => "$password\xff");
stopped('it closes', 500, '/close');
stopped('it is down', 500, '/nobody/x', 'X-Password' => "caf\xc3\xa9\xff");
stopped('it says nothing', 500, '/quick/hang', 'X-Password' => "caf\xc3\xa9\xff");
stopped('it says rubbish', 500, '/rubbish');
stopped('it breaks off', 500, '/broken');
stopped("it says $_", 500, "/status$_") for 302, 404, 429, 500, 503;
stopped('it says 401', 401, '/status401');
stopped('asked for by its own name', 404, '/ask', 'X-Password' => "caf\xc3\xa9\xff");

sub without_path {
    my ($word) = @_;
    my $before = () = $hd->requests(1);
    my $c = Heddle::H2->new($hd->port(0));
    $c->frame('HEADERS', 5, 1, Heddle::H2::fields(':method', 'GET', ':scheme', 'http', ':authority', 'a', 'x-password', $word));
    my $r = $c->response(1);
    ok $r->{reset} || $r->{status} == 400 || $r->{closed}, 'no :path: refused';
    is scalar(() = $hd->requests(1)), $before, 'and nobody was asked for it';
}
without_path("$password\xff");
$hd->stop;

subtest 'by xDS' => sub {
    my ($true, $any) = (JSON::XS::true(), 'type.googleapis.com/envoy.extensions.filters.');
    $hd = Heddle->new(modules => ['authz'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $typed = sub { my ($type, %more) = @_; return {name => $type, typed_config => {'@type' => $any . $type, %more}} };
    my $rbac = sub { $typed->('http.rbac.v3.RBAC', @_) };
    my $said = {header => {name => 'x-password', string_match => {exact => $password}}};
    my $rules = {action => 'ALLOW', policies => {p => {permissions => [$said], principals => [{any => $true}]}}};
    my $listener = sub {
        my ($name, $filters, %route) = @_;
        return Heddle::Xds::listener($name, $hd->port($name), http_filters => $filters,
            route_config => Heddle::Xds::routes("in-$name", ['/' => 'up', %route]));
    };
    my $ask = {grpc_service => {envoy_grpc => {cluster_name => 'up'}}, failure_mode_allow => $true};
    my $good = $listener->(0, [$rbac->(rules => $rules)]);
    my %unknown = (
        ext_authz => [[$typed->('http.ext_authz.v3.ExtAuthz', %$ask)]],
        ext_authz_http => [[$typed->('http.ext_authz.v3.ExtAuthz', http_service => {server_uri => {uri => 'a', cluster => 'up', timeout => '1s'}})]],
        jwt_authn => [[$typed->('http.jwt_authn.v3.JwtAuthentication', rules => [{match => {prefix => '/'}, requires => {provider_name => 'a'}}])]],
        matcher => [[$rbac->(matcher => {})]],
        metadata => [[$rbac->(rules => {action => 'DENY', policies => {p => {permissions => [{metadata => {filter => 'a', path => [{key => 'b'}], value => {present_match => $true}}}],
            principals => [{any => $true}]}}})]],
        condition => [[$rbac->(rules => {action => 'DENY', policies => {p => {permissions => [{any => $true}], principals => [{any => $true}],
            condition => {}}}})]],
        route => [[$rbac->(rules => $rules)], typed_per_filter_config => {'envoy.filters.http.ext_authz' => {
            '@type' => $any . 'http.ext_authz.v3.ExtAuthzPerRoute', disabled => $true}}],
    );
    $hd->echo_server(1);
    my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
    my @clusters = (CDS => [Heddle::Xds::cluster('up', $hd->port(1))]);
    $xds->serve(@clusters, LDS => [$good, map { $listener->($_, @{$unknown{$_}}) } sort keys %unknown])->start;
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    stopped('no password', 403, '/x');
    stopped('another one', 403, '/x', 'X-Password' => 'cafe');
    stopped('bytes that are no UTF-8', 403, '/x', 'X-Password' => "$password\xff");
    stopped('two of them', 403, '/x', 'X-Password' => 'no', 'X-Password' => $password);
    stopped('the other way round', 403, '/x', 'X-Password' => $password, 'X-Password' => 'no');
    stopped('twice the same', 403, '/x', 'X-Password' => $password, 'X-Password' => $password);
    stopped('an empty one beside it', 403, '/x', 'X-Password' => $password, 'X-Password' => '');
    is $hd->get('/x', 'X-Password' => $password)->status, 200, 'the password';
    like +($hd->requests(1))[-1]{head}, qr/^X-Password: $password\r$/mi, 'goes on as it was judged';
    without_path($password);
    my @refused;
    $hd->wait_for(sub { @refused = $xds->nacks('LDS') }, 'a refusal');
    for my $name (sort keys %unknown) {
        ok !Heddle::Port::is_listening($hd->port($name)), "$name: refused, nobody gets in";
        like $hd->log, qr/refused: LDS "$name"/, 'and the log says so';
    }
    # One that is in force, and a newer one that nobody here can judge by: the old one stays.
    $good = $listener->(0, [$rbac->(rules => $rules), $typed->('http.ext_authz.v3.ExtAuthz', %$ask)]);
    $xds->serve(@clusters, LDS => [$good]);
    $hd->wait_log(qr/refused: LDS "0"/);
    stopped('after a refused update', 403, '/x');
    is $hd->get('/x', 'X-Password' => $password)->status, 200, 'the old rules stay';
    $hd->stop;
};
done_testing;
