#!/usr/bin/perl
# Attacks by way of a path's other names, on a policy and on files: CVE-2021-31920 (//, %2f, %5c),
# CVE-2021-39156 (#fragment), CVE-2026-73511 and -73553 (;parameters), nginx's alias traversal
# and CVE-2026-27654, double decoding. What the policy judged is what goes upstream.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(modules => ['authz'])->conf(<<'EOC');
http {
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
}
EOC
mkdir $hd->dir . "/$_" or die $! for 'root', 'root/public', 'root/files';
$hd->write($_, $_) for 'root/public/page', 'root/secret', 'root/files/file', 'outside';
$hd->echo_server(1);
$hd->start;

# The status of a target, and what reached the upstream.
sub ask {
    my ($target) = @_;
    my $before = $hd->requests(1);
    my $all = $hd->raw("GET $target HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0);
    my @seen = $hd->requests(1);
    return ($all =~ m{^HTTP/1\.1 (\d+)} ? $1 : 'closed', map { $_->{uri} } @seen[$before .. $#seen]);
}

subtest 'a policy on /admin has no back door' => sub {
    for my $target ('/admin', '/admin/', '/admin/x', '//admin', '/./admin', '/x/../admin', '/x/%2e%2e/admin', '/%61dmin',
        '/%61%64%6d%69%6e/x', '/x//..//admin', '/x/..%2fadmin', '/admin%2fx', '/admin?x', '/admin;a=b', '/%2fadmin',
        '/.%2fadmin', '/x/y/../../admin', 'http://a/admin', 'http://a/x/../admin', '/admin%00') {
        my ($status, @seen) = ask($target);
        like $status, qr/^(?:403|400)$/, "$target: refused";
        is_deeply \@seen, [], 'nothing passes';
    }
};

subtest 'what passes isn\'t /admin to anybody behind' => sub {
    for my $target ('/%2561dmin', '/%252e%252e/admin', '/x/%252e%252e/admin', '/Admin', '/adm%69', '/;/admin', '/x;/../y') {
        my ($status, @seen) = ask($target);
        next if $status ne 200;
        my ($path) = ($seen[0] // '') =~ /^([^?]*)/;
        $path =~ s/%([0-9a-fA-F]{2})/chr hex $1/ge; # decoded once, as any server does
        unlike $path, qr{^/+admin}, "$target: upstream sees $seen[0]";
        unlike $path, qr{(?:^|/)\.\.(?:/|$)}, 'without dot segments';
    }
};

subtest 'a fragment is no part of a request (CVE-2021-39156)' => sub {
    for my $target ('/admin#x', '/x#/../admin', '/#') {
        my ($status, @seen) = ask($target);
        ok $status =~ /^40[03]$/ || ($seen[0] // '') !~ /#/, "$target: refused or cut ($status)";
    }
};

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
subtest 'NUL, which ends a name to the kernel and to nobody else' => sub {
    for my $target ('/x%00', '/%00', '/files/file%00.html', '/alias/page%00', '/alias/../page%00/', "/files/file\0", '/x%2500%00') {
        my ($status, @seen) = ask($target);
        is $status, 400, ($target =~ s/\0/\\0/r) . ': refused';
        is_deeply \@seen, [], 'nothing passes';
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
done_testing;
