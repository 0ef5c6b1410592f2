#!/usr/bin/perl
# Attacks on proxies over HTTP/1, each class by its name and the numbers under which it was published
# elsewhere, by file and by xDS. Framing tricks in bulk: t/interop/smuggling.t; refusals one by one: bad_requests.t,
# upstream_faults.t; slow clients: slow_clients.t.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::XS ();

sub by_file {
    return Heddle->new->conf(<<'EOC');
http {
    client_max_body_size 10k;
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 10; }
    proxy_http_version 1.1;
    server {
        listen 127.0.0.1:%%PORT_0%% default_server;
        server_name open.example;
        location / { proxy_pass http://u; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header Connection ""; }
        location /admin { return 403; }
        location /up { proxy_pass http://u; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }
        location = /seen { return 200 "$http_x_many"; }
    }
    server { listen 127.0.0.1:%%PORT_0%%; server_name secret.example; return 403; }
}
EOC
}

# The same by xDS, as far as there are words for it.
sub by_xds {
    my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $true = JSON::XS::true();
    my $deny = {match => {prefix => '/admin'}, direct_response => {status => 403}};
    my $routes = Heddle::Xds::routes('in', ['/up' => 'u', action => {upgrade_configs => [{upgrade_type => 'foo'}, {upgrade_type => 'h2c'}]}],
        ['/' => 'u']);
    unshift @{$routes->{virtual_hosts}[0]{routes}}, $deny;
    push @{$routes->{virtual_hosts}}, {name => 'secret', domains => ['secret.example'], routes => [{match => {prefix => '/'}, direct_response => {status => 403}}]};
    $routes->{request_headers_to_add} = [{header => {key => 'X-Real-IP', value => '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'},
        append_action => 'OVERWRITE_IF_EXISTS_OR_ADD'}];
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('u', $hd->port(1))], LDS => [
        Heddle::Xds::listener('front', $hd->port(0), route_config => $routes, normalize_path => $true, merge_slashes => $true,
            path_with_escaped_slashes_action => 'UNESCAPE_AND_FORWARD', strip_any_host_port => $true)])->start;
    return $hd;
}

my ($hd, $way);

# What one connection gets for <bytes>, as statuses; what reached the upstream of it.
sub attack {
    my ($bytes) = @_;
    my $before = $hd->requests(1);
    my $all = $hd->raw($bytes, 0);
    my @seen = $hd->requests(1);
    return (join(' ', $all =~ m{^HTTP/1\.1 (\d+)}mg), map { "$_->{method} $_->{uri}" } @seen[$before .. $#seen]);
}

my $next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

sub all_attacks {
    subtest 'smuggling: CL.TE, TE.CL, TE.TE' => sub {
        for my $how (
            ["Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG"],
            ["Transfer-Encoding: chunked\r\nContent-Length: 3", "8\r\nSMUGGLED\r\n0\r\n\r\n"],
            ["Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "0\r\n\r\n"],
            ["Transfer-Encoding: xchunked", "0\r\n\r\n"]) {
            my ($status, @seen) = attack("POST / HTTP/1.1\r\nHost: a\r\n$how->[0]\r\n\r\n$how->[1]$next");
            like $status, qr/^(?:400|501)$/, "$how->[0]: refused once, then closed";
            is_deeply \@seen, [], 'nothing passes';
        }
    };

    subtest 'smuggling: a name beyond a length counter (CVE-2021-40346)' => sub {
        for my $n (255, 256, 257, 270, 1000) {
            my $name = 'Content-Length0' . 'a' x ($n - 15);
            my ($status, @seen) = attack("POST / HTTP/1.1\r\nHost: a\r\n$name:\r\nContent-Length: 60\r\n\r\n"
                . "GET /admin HTTP/1.1\r\nHost: a\r\nX: " . 'y' x 27 . $next);
            is_deeply \@seen, ['POST /', 'GET /next'], "a name of $n bytes is but a name";
        }
    };

    subtest 'smuggling: an empty name (CVE-2023-25725), an empty length (CVE-2023-40225)' => sub {
        for my $field (':', ': x', ' : x', 'Content-Length:', "Content-Length: \t") {
            my ($status, @seen) = attack("POST / HTTP/1.1\r\nHost: a\r\n$field\r\nContent-Length: 5\r\n\r\nhello$next");
            is $status, 400, "\"$field\": 400";
            is_deeply \@seen, [], 'nothing passes';
        }
    };

    subtest 'buffer arithmetic: chunk sizes (CVE-2013-2028)' => sub {
        for my $size ('ffffffffffffffff', '8000000000000000', '7fffffffffffffff', '-1', 'fffffffff0000000', '1' . '0' x 16) {
            my ($status, @seen) = attack("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n$size\r\n" . 'x' x 100);
            like $status, qr/^4(?:00|13)$/, "$size: refused";
            is_deeply \@seen, [], 'nothing passes';
        }
        is +(attack("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            . "1;" . 'e' x 5000 . "\r\nx\r\n0\r\n\r\n"))[0], 400, 'an extension without end';
        return if $way eq 'xds'; # which has no limit of bodies here
        is +(attack("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            . "1\r\nx\r\n" x 20000))[0], 413, 'many small ones: the limit is on what they hold';
    };

    subtest 'generic Upgrade: a pooled connection is poisoned (CVE-2026-73548), h2c' => sub {
        my ($status, @seen) = attack("GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n$next");
        is $status, '200 200', 'an upgrade that the upstream ignores is a request like others';
        my @requests = $hd->requests(1);
        like $requests[-2]{head}, qr/^Upgrade: foo\r$/mi, 'the upstream was asked';
        isnt $requests[-1]{conn}, $requests[-2]{conn}, 'its connection carries no other request';
        attack("GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            . "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n$next");
        @requests = $hd->requests(1);
        unlike $requests[-2]{head}, qr/^(?:Upgrade|HTTP2-Settings|Connection: upgrade)/mi, 'h2c is never passed on';
        attack("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n$next");
        unlike +($hd->requests(1))[-2]{head}, qr/^(?:Upgrade|Connection: upgrade)/mi, 'nothing where it is not configured';
    };

    subtest 'CONNECT: bytes sent early (CVE-2025-64763)' => sub {
        my ($status, @seen) = attack("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n$next");
        is $status, $way eq 'file' ? 405 : 404, 'refused, and what follows is not a request';
        is_deeply \@seen, [], 'nothing passes';
    };

    subtest 'paths: //, %2f, dots, fragments, parameters (CVE-2021-31920, CVE-2021-39156, CVE-2026-73511)' => sub {
        for my $path ('/admin', '//admin', '/./admin', '/x/../admin', '/x/..//admin', '/%61dmin', '/admin/', '/admin?x', '/x%2f..%2fadmin',
            '/%2e/admin', '/x/%2e%2e/admin', '/x/.%2e/admin', '/admin;a=b', '/admin%00', '/admin%23', 'http://a/admin', '/admin#f') {
            my ($status, @seen) = attack("GET $path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            like $status, qr/^40[03]$/, "$path: denied";
            is_deeply \@seen, [], 'nothing passes';
        }
        my (undef, @seen) = attack("GET /%2561dmin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        is_deeply \@seen, ['GET /%2561dmin'], 'nothing is decoded twice: the same bytes go on';
    };

    subtest 'hosts: case, port, dot (CVE-2021-39155); target and Host' => sub {
        for my $host ('secret.example', 'SECRET.example', 'secret.example:80', 'secret.EXAMPLE.', 'secret.example.:8080') {
            my ($status, @seen) = attack("GET / HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n");
            is $status, 403, "$host: the server that denies";
        }
        is +(attack("GET http://secret.example/ HTTP/1.1\r\nHost: open.example\r\nConnection: close\r\n\r\n"))[0], 403,
            'the target\'s host is chosen by';
        attack("GET http://open.example/ HTTP/1.1\r\nHost: secret.example\r\nConnection: close\r\n\r\n");
        like +($hd->requests(1))[-1]{head}, qr/^Host: open\.example\r$/m, 'and is all that the upstream sees';
    };

    subtest 'fields with several values (CVE-2020-25017, CVE-2021-32777)' => sub {
        if ($way eq 'file') { # by xDS: t/mesh/authz.t
            my $c = $hd->connect;
            $c->send("GET /seen HTTP/1.1\r\nHost: a\r\nX-Many: one\r\nx-many: two\r\nX-MANY: three\r\n\r\n");
            is $c->response->body, 'one, two, three', 'a policy sees all of them';
        }
        for my $field ('Host: a', 'Content-Length: 0', 'Transfer-Encoding: chunked') {
            my ($status) = attack("POST / HTTP/1.1\r\n" . ($field =~ /^Host/ ? '' : "Host: a\r\n") . "$field\r\n$field\r\n\r\n0\r\n\r\n");
            is $status, 400, "$field, twice: refused";
        }
    };

    subtest 'Connection names a field that a policy adds' => sub {
        attack("GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 6.6.6.6\r\nConnection: close, X-Real-IP, Host, Content-Length\r\n\r\n");
        my $head = ($hd->requests(1))[-1]{head};
        like $head, qr/^X-Real-IP: 127\.0\.0\.1\r$/m, 'ours stays, the client\'s is gone';
        unlike $head, qr/6\.6\.6\.6/, 'the forged value is nowhere';
        like $head, qr/^Host: a\r$/m, 'Host stays';
    };
    is $hd->get('/')->status, 200, 'and all is well';
}

for (by_file(), by_xds()) {
    ($hd, $way) = ($_, $_->{xds} ? 'xds' : 'file');
    $hd->echo_server(1);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    subtest "by $way" => \&all_attacks;
    $hd->stop;
}
done_testing;
