#!/usr/bin/perl
# Attacks by way of a path's other names, on policies and on files, by file and by xDS: CVE-2021-31920 (//, %2f, %5c),
# CVE-2021-39156 (#fragment), CVE-2026-73511 and -73553 (;parameters), nginx's alias traversal
# and CVE-2026-27654, double decoding. What the policy judged is what goes upstream.
use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS ();

my ($hd, $way);

# Each port has its own kind of policy on /admin: port 0 authz (RBAC by url_path), 2 a script, 3 a route, 4 what only
# one way has: a rule on a field ":path" by xDS.
sub by_file {
    my $hd = Heddle->new(modules => ['authz', 'lua'])->conf(<<'EOC');
http {
    http2 on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        root %%DIR%%/root;
        authz deny path=/admin*;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%/; }
        location /asis { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /files { root %%DIR%%/root; }
        location /alias { alias %%DIR%%/root/public/; }
        location /strict/ { alias %%DIR%%/root/public/; }
        location ~ ^/pages(.*)$ { alias %%DIR%%/root/public/$1; }
        location ~ ^/roots(.*)/end$ { root %%DIR%%/root/public/$1; }
    }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        access_by_lua_block { if string.find(hd.req.path, "^/admin") then hd.exit(403) end }
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%/; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%/; }
        location /admin { return 403; }
    }
}
EOC
    mkdir $hd->dir . "/$_" or die $! for 'root', 'root/public', 'root/files';
    $hd->write($_, $_) for 'root/public/page', 'root/secret', 'root/files/file', 'outside';
    return $hd;
}

my ($true, $any) = (JSON::XS::true(), 'type.googleapis.com/envoy.extensions.filters.');
my @strict = (normalize_path => $true, merge_slashes => $true, path_with_escaped_slashes_action => 'UNESCAPE_AND_FORWARD');

sub rbac {
    my ($permission) = @_;
    return [{name => 'envoy.filters.http.rbac', typed_config => {'@type' => $any . 'http.rbac.v3.RBAC',
        rules => {action => 'DENY', policies => {p => {permissions => [$permission], principals => [{any => $true}]}}}}}];
}
sub lua { return [{name => 'envoy.filters.http.lua', typed_config => {'@type' => $any . 'http.lua.v3.Lua',
    default_source_code => {inline_string => $_[0]}}}] }

sub by_xds {
    my $hd = Heddle->new(modules => ['authz', 'lua'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $url_path = rbac({url_path => {path => {prefix => '/admin'}}});
    my $listener = sub {
        my ($port, %hcm) = @_;
        my $routes = Heddle::Xds::routes("in-$port", ['/' => 'up']);
        unshift @{$routes->{virtual_hosts}[0]{routes}}, @{delete $hcm{before} // []};
        return Heddle::Xds::listener("front-$port", $hd->port($port), route_config => $routes, %hcm);
    };
    my $deny = {direct_response => {status => 403}};
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(1))], LDS => [
        $listener->(0, @strict, http_filters => $url_path),
        $listener->(2, @strict, http_filters => lua(
            'function envoy_on_request(h) if string.find(h:headers():get(":path"), "^/admin") then h:respond({[":status"] = "403"}, "no") end end')),
        $listener->(3, @strict, before => [{match => {prefix => '/admin'}, %$deny}]),
        $listener->(4, @strict, http_filters => rbac({header => {name => ':path', string_match => {prefix => '/admin'}}})),
        $listener->(5, @strict, before => [{match => {prefix => '/', headers => [{name => ':path', string_match => {prefix => '/admin'}}]}, %$deny}]),
        # one setting each
        $listener->(6),
        $listener->(7, path_with_escaped_slashes_action => 'REJECT_REQUEST'),
        $listener->(8, path_with_escaped_slashes_action => 'UNESCAPE_AND_REDIRECT', normalize_path => $true),
        $listener->(9, path_with_escaped_slashes_action => 'UNESCAPE_AND_FORWARD'),
        $listener->(10, merge_slashes => $true),
        $listener->(11, normalize_path => $true),
    ])->start;
    return $hd;
}

# The status of a target, and what reached the upstream.
sub ask {
    my ($target, $port, @fields) = @_;
    my $before = $hd->requests(1);
    my $all = $hd->raw(join("\r\n", "GET $target HTTP/1.1", "Host: a", @fields, "Connection: close", '', ''), $port // 0);
    my @seen = $hd->requests(1);
    return ($all =~ m{^HTTP/1\.1 (\d+)} ? $1 : 'closed', map { $_->{uri} } @seen[$before .. $#seen]);
}

# The same over HTTP/2.
sub ask_h2 {
    my ($target, $port) = @_;
    my $before = $hd->requests(1);
    my $c = Heddle::H2->new($hd->port($port // 0));
    $c->frame('HEADERS', 5, 1, Heddle::H2::fields(':method', 'GET', ':scheme', 'http', ':authority', 'a', ':path', $target));
    my $r = $c->response(1);
    my @seen = $hd->requests(1);
    return ($r->{status} || 400, map { $_->{uri} } @seen[$before .. $#seen]);
}

sub policies {
    for my $port (0, 2, 3, $way eq 'xds' ? (4, 5) : ()) {
        subtest "a policy on /admin has no back door (port $port)" => sub {
            for my $target ('/admin', '/admin/', '/admin/x', '//admin', '/./admin', '/x/../admin', '/x/%2e%2e/admin', '/%61dmin',
                '/%61%64%6d%69%6e/x', '/x/..//admin', '/x/..%2fadmin', '/admin%2fx', '/admin?x', '/admin;a=b', '/%2fadmin',
                '/.%2fadmin', '/x/y/../../admin', 'http://a/admin', 'http://a/x/../admin', '/admin%00', '/x/..%5cadmin', '/%5cadmin',
                '/\\admin', '/x/..\\admin',
                ($way eq 'file' ? '/x//..//admin' : ())) { # to Envoy, for whom dots come first, /x/admin
                my @ways = $target =~ /^http/ ? ['', ask($target, $port)] : (['', ask($target, $port)], [' over HTTP/2', ask_h2($target, $port)]);
                for (@ways) {
                    my ($how, $status, @seen) = @$_;
                    # to nginx a backslash is a letter like others, and no server behind it reads it otherwise
                    next if $way eq 'file' && $target =~ /\\|%5c/ && @seen;
                    like $status, qr/^(?:403|400)$/, "$target$how: refused";
                    is_deeply \@seen, [], 'nothing passes';
                }
            }
        };
        subtest "what passes isn't /admin to anybody behind (port $port)" => sub {
            for my $target ('/%2561dmin', '/%252e%252e/admin', '/x/%252e%252e/admin', '/Admin', '/adm%69', '/;/admin', '/x;/../y') {
                my ($status, @seen) = ask($target, $port);
                next if $status ne 200;
                my ($path) = ($seen[0] // '') =~ /^([^?]*)/;
                $path =~ s/%([0-9a-fA-F]{2})/chr hex $1/ge; # decoded once, as any server does
                unlike $path, qr{^/+admin}, "$target: upstream sees $seen[0]";
                unlike $path, qr{(?:^|/)\.\.(?:/|$)}, 'without dot segments';
            }
        };
        subtest "a fragment is no part of a request (CVE-2021-39156, port $port)" => sub {
            for my $target ('/admin#x', '/x#/../admin', '/#') {
                my ($status, @seen) = ask($target, $port);
                ok $status =~ /^40[03]$/ || ($seen[0] // '') !~ /#/, "$target: refused or cut ($status)";
            }
        };
    }
    subtest 'NUL, which ends a name to the kernel and to nobody else' => sub {
        for my $target ('/x%00', '/%00', '/files/file%00.html', '/alias/page%00', '/alias/../page%00/', "/files/file\0", '/x%2500%00') {
            my ($status, @seen) = ask($target);
            is $status, 400, ($target =~ s/\0/\\0/r) . ': refused';
            is_deeply \@seen, [], 'nothing passes';
        }
    };
}

sub files {
    subtest 'files: nothing above the root, nothing beside an alias' => sub {
        is((ask('/files/file'))[0], 200, 'a file');
        is((ask('/strict/page'))[0], 200, 'through an alias');
        is((ask('/pages/page'))[0], 200, 'through an expression');
        for my $target ('/pages../secret', '/pages../../outside', '/roots../../x/end', '/files/../../outside', '/files/..%2f..%2foutside', '/files/%2e%2e/%2e%2e/outside', '/files/..\\..\\outside',
            '/alias../secret', '/alias..%2fsecret', '/strict/../secret', '/strict/..%2f..%2fsecret', '/files/%00', '/files/file%00.txt',
            '/../outside', '/files/....//outside') {
            my $all = $hd->raw("GET $target HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0);
            unlike $all, qr{^(?:root/secret|outside)}m, "$target: " . substr $all, 9, 3;
        }
    };

    subtest 'ranges: arithmetic (CVE-2017-7529), and many of them (CVE-2011-3192)' => sub {
        my $size = length 'root/public/page';
        for my $range ('bytes=-9223372036854775608,-9223372036854774200', 'bytes=-18446744073709551615', 'bytes=0-18446744073709551615',
            'bytes=9223372036854775807-', 'bytes=18446744073709551616-18446744073709551617', 'bytes=5-2', 'bytes=-0', 'bytes=--1', 'bytes=1-2-3',
            'bytes=0-9223372036854775807,-9223372036854775807', 'bytes=' . join(',', ('0-') x 1000), 'bytes=' . join(',', map { "$_-" } 0 .. 300)) {
            my $r = $hd->get('/alias/page', Range => $range);
            my $what = substr $range, 0, 60;
            like $r->status, qr/^(?:200|206|416|400)$/, "$what: answered";
            my @parts = $r->body =~ /^Content-Range: bytes (\d+-\d+\/\d+)/mg;
            push @parts, $r->header('content-range') if $r->status == 206 && !@parts;
            is_deeply [grep { !m{^(\d+)-(\d+)/$size$} || $1 > $2 || $2 >= $size } @parts], [], "$what: within the file";
            cmp_ok scalar(@parts), '<=', $size, "$what: no more parts than bytes";
        }
    };
}

# Envoy's settings, each by itself: what it is about it does without the others.
sub settings {
    my $try = sub {
        my ($port, $what, @cases) = @_;
        subtest $what => sub {
            for (@cases) {
                my ($target, $status, @want) = @$_;
                my ($got, @seen) = ask($target, $port);
                is $got, $status, "$target: $status";
                is_deeply \@seen, \@want, @want ? "goes on as @want" : 'nothing passes';
            }
        };
    };
    $try->(6, 'no setting: as it came', ['/x/../admin', 200, '/x/../admin'], ['//a', 200, '//a'], ['/a%2fb', 200, '/a%2fb'], ['/%zz', 200, '/%zz']);
    $try->(7, 'REJECT_REQUEST', ['/a%2fb', 400], ['/a%5Cb', 400], ['/a%2Fb?c', 400], ['/a?b=%2f', 200, '/a?b=%2f'], ['/a%252fb', 200, '/a%252fb'],
        ['/x/../y', 200, '/x/../y'], ['//a', 200, '//a']);
    $try->(8, 'UNESCAPE_AND_REDIRECT', ['/a%2fb', 307], ['/x/..%2fadmin?q=%2f', 307], ['/x/../y', 200, '/y'], ['/a?b=%2f', 200, '/a?b=%2f']);
    my $r = $hd->get('/x/..%2fadmin?q=%2f', {port => 8});
    is $r->header('location'), '/admin?q=%2f', 'to the path that it means';
    is $hd->get("/$_", {port => 8}, Host => 'a')->header('location'), 'http://a//evil.example/', "/$_: to no other host"
        for '%2fevil.example/', '%5Cevil.example/';
    $r = $hd->post('/x/..%2fadmin', '', {port => 8}, 'Content-Type' => 'application/grpc');
    ok $r->header('grpc-status'), 'gRPC\'s clients follow nobody';
    is $r->header('location'), undef, 'nor are told to';
    is_deeply [grep { $_->{method} eq 'POST' } $hd->requests(1)], [], 'nothing passes';
    $try->(9, 'UNESCAPE_AND_FORWARD', ['/a%2fb', 200, '/a/b'], ['/a%5cb', 200, '/a\\b'], ['/x/..%2fy', 200, '/x/../y'], ['/%61', 200, '/%61']);
    $try->(10, 'merge_slashes', ['//a///b/', 200, '/a/b/'], ['/a?b=//c', 200, '/a?b=//c'], ['/x/..//y', 200, '/x/../y'], ['/a%2f%2fb', 200, '/a%2f%2fb']);
    $try->(11, 'normalize_path', ['/x/../a', 200, '/a'], ['//a', 200, '//a'], ['/a%2fb', 200, '/a%2Fb'], ['/\\a', 200, '//a'], ['/%41%7e', 200, '/A~']);
}

for (by_file(), by_xds()) {
    ($hd, $way) = ($_, $_->{xds} ? 'xds' : 'file');
    $hd->echo_server(1);
    $hd->start;
    for my $port (0, 2, 3, $way eq 'xds' ? (4 .. 11) : ()) {
        $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($port)) }, "the listener $port");
    }
    subtest "by $way" => sub { policies(); $way eq 'file' ? files() : settings() };
    $hd->stop;
}
done_testing;
