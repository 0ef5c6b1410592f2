#!/usr/bin/perl
# A request's body is read whole before a server is asked (proxy_request_buffering on): in memory up to
# client_body_buffer_size, then in a file without a name. Holds for nginx, too.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
events { worker_connections 256; }
http {
    access_log off;
    client_max_body_size 4m;
    client_body_buffer_size 32k;
    client_body_temp_path %%DIR%%/body 1 2;
    proxy_http_version 1.1;
    upstream pair { server 127.0.0.1:%%PORT_3%%; server 127.0.0.1:%%PORT_1%% backup; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /again { proxy_next_upstream error timeout http_503 non_idempotent; proxy_pass http://pair; }
    }
    server { listen 127.0.0.1:%%PORT_2%% http2; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
}
EOC
sub sum { my ($body) = @_; return length($body) . ' ' . unpack('%32C*', $body) }
$hd->backend(1, sub { [200, {}, sum($_[0]{body})] });
$hd->backend(3, sub { [503, {}, 'no'] });
$hd->start;
my $is_nginx = !$hd->is_heddle;

sub bytes { my ($n) = @_; my $s = ''; $s .= pack 'N', $_ for 0 .. $n / 4 + 1; return substr $s, 0, $n }

sub temp_files {
    my $n = 0;
    for my $pid ($hd->workers) {
        $n += grep { (readlink($_) // '') =~ m{\Q@{[$hd->dir]}\E/body/.*\(deleted\)$} } glob "/proc/$pid/fd/*";
    }
    return $n;
}

# ---- sizes around the limit; by both protocols

for my $n (1, 32767, 32768, 32769, 49152, 65536, 200_001) {
    my $body = bytes($n);
    like $hd->post('/', $body)->body, qr/^\Q@{[sum($body)]}\E$/, "$n bytes arrive";
    my $c = $hd->connect(0);
    $c->send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    $c->send(sprintf("%x\r\n%s\r\n0\r\n\r\n", $n, $body));
    like $c->response->body, qr/^\Q@{[sum($body)]}\E$/, 'chunked, too';
    like $hd->post('/again', $body)->body, qr/^\Q@{[sum($body)]}\E$/, 'and once more, to the next server';
    my $file = $hd->write('upload', $body);
    like $hd->curl('-s', '--http2-prior-knowledge', '--data-binary', "\@$file", 'http://127.0.0.1:' . $hd->port(2) . '/'),
        qr/^\Q@{[sum($body)]}\E$/, 'over HTTP/2';
}
is $hd->post('/', bytes(4 * 1024 * 1024 + 1))->status, 413, 'client_max_body_size holds';

# ---- a slow client

my $body = bytes(200_000);
my $slow = $hd->connect(0);
$slow->send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" . substr $body, 0, 150_000);
is $hd->get('/')->status, 200, 'others are served meanwhile';
SKIP: {
    skip 'nginx keeps the name until the request ends', 2 if $is_nginx;
    my $tries = 0;
    select undef, undef, undef, 0.05 until temp_files() || $tries++ > 200;
    is temp_files(), 1, 'what came lies in a file';
    is_deeply [glob $hd->dir . '/body/*'], [], 'that has no name';
}
$slow->send(substr $body, 150_000);
like $slow->response->body, qr/^\Q@{[sum($body)]}\E$/, 'the whole arrives';
$slow = undef;
SKIP: {
    skip 'not of nginx', 3 if $is_nginx;
    is temp_files(), 0, 'the file is gone';
    my $left = $hd->connect(0);
    $left->send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" . substr $body, 0, 150_000);
    my $tries = 0;
    select undef, undef, undef, 0.05 until temp_files() || $tries++ > 200;
    is temp_files(), 1, 'another';
    undef $left;
    $tries = 0;
    select undef, undef, undef, 0.05 while temp_files() && $tries++ < 200;
    is temp_files(), 0, 'gone with its client';
}

# ---- a folder that can't be used

SKIP: {
    skip 'not of nginx: it makes the folder at its start', 2 if $is_nginx;
    $hd->write('body_file', 'x');
    my $bad = Heddle->new->conf(<<"EOC");
http {
    client_body_buffer_size 16k;
    client_body_temp_path @{[$hd->dir]}/body_file/x;
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:@{[$hd->port(1)]}; } }
}
EOC
    $bad->start;
    is $bad->post('/', $body)->status, 500, 'no file: 500';
    like $bad->post('/', 'small')->body, qr/^5 /, 'and the worker goes on';
}
done_testing;
