#!/usr/bin/perl
# Limits of heads over HTTP/2 and between two Heddles are those of HTTP/1: the log names the field and what sets
# the limit. Trailers that are too large end the request. Fields with an underscore don't pass where they mustn't.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('server', dns => 'localhost', spiffe => 'spiffe://test/ns/a/sa/one');
my $links = "proxy_ssl_certificate $cert->{cert}; proxy_ssl_certificate_key $cert->{key}; proxy_ssl_name localhost;"
    . " proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert};";
$hd->conf(<<"EOC");
http {
    http2 on;
    access_log off;
    large_client_header_buffers 2 1k;
    max_headers 10;
    proxy_request_buffering off;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /large { proxy_pass http://127.0.0.1:%%PORT_8%%; proxy_http_version 2; proxy_buffer_size 2k; }
        location /link { proxy_pass https://127.0.0.1:%%PORT_7%%; $links }
    }
    server { listen 127.0.0.1:%%PORT_1%%; underscores_in_headers on; location / { proxy_pass http://127.0.0.1:%%PORT_9%%; } }
    server { listen 127.0.0.1:%%PORT_2%%; ignore_invalid_headers off; location / { proxy_pass http://127.0.0.1:%%PORT_9%%; } }
    server { listen 127.0.0.1:%%PORT_8%%; location / { add_header X-Short a; add_header X-Wide @{['w' x 3000]}; return 200; } }
    server {
        listen 127.0.0.1:%%PORT_3%%;
        underscores_in_headers on;
        large_client_header_buffers 4 8k;
        max_headers 100;
        location / { proxy_pass https://127.0.0.1:%%PORT_7%%; $links }
    }
    server {
        listen 127.0.0.1:%%PORT_7%% ssl;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client on;
        location / { proxy_pass http://127.0.0.1:%%PORT_9%%; }
    }
}
EOC
$hd->echo_server(9);
$hd->start;

# Asks once, on a connection of its own.
sub ask {
    my ($port, $path, @fields) = @_;
    my $c = Heddle::H2->new($hd->port($port));
    $c->request(1, $path, fields => \@fields);
    return $c->response(1);
}

sub refused {
    my ($status, $why, $name, @ask) = @_;
    my $from = length $hd->log;
    is ask(@ask)->{status}, $status, $name;
    ok eval { $hd->wait_for(sub { substr($hd->log, $from) =~ $why }, $why) }, "$name: the log says what and why"
        or diag substr $hd->log, $from;
}

is ask(0, '/', 'x-a', 'x' x 500)->{status}, 200, 'below the limits';
refused 431, qr/client sent too long header line: "x-huge" of more than 1024 bytes \(large_client_header_buffers\)/,
    'a long field', 0, '/', 'x-a', 'small', 'x-huge', 'x' x 1900, 'x-b', 'small';
refused 431, qr/client sent too long header line: "x-large" in a head of more than 2048 bytes \(large_client_header_buffers\)/,
    'a long head', 0, '/', 'x-large', 'x' x 1000, 'x-a', 'small', 'x-more', 'x' x 900;
is ask(0, '/', 'x-line', 'x' x 1014)->{status}, 200, 'a line of 1024 bytes';
refused 431, qr/too long header line: "x-line" of more than 1024 bytes/, 'of 1025', 0, '/', 'x-line', 'x' x 1015;
refused 414, qr/client sent too long URI: a head of more than 1024 bytes \(large_client_header_buffers\)/,
    'a long target', 0, '/' . 'x' x 3000;
refused 431, qr/client sent too many header lines: more than 10 \(max_headers\)/, 'many fields', 0, '/', map { ("x-$_", 1) } 1 .. 20;
refused 502, qr/upstream sent too big header.*more than 2048 bytes \(proxy_buffer_size\).*the longest is "x-wide"/,
    'of a server that speaks HTTP/2', 0, '/large';

# Between two Heddles: what the first lets in, the second may not.
is ask(3, '/', 'x-a', 'x' x 500)->{status}, 200, 'weft: below the limits';
refused 431, qr/client sent too long header line: "x-huge" of more than 1024 bytes \(large_client_header_buffers\)/,
    'weft: a long field', 3, '/', 'x-a', 'small', 'x-huge', 'x' x 2500;
refused 431, qr/client sent too many header lines: more than 10 \(max_headers\)/, 'weft: many fields', 3, '/', map { ("x-$_", 1) } 1 .. 20;

# Trailers
{
    my $c = Heddle::H2->new($hd->port(0));
    my $from = length $hd->log;
    $c->request(1, '/', method => 'POST', end => 0);
    $c->frame('DATA', 0, 1, 'a body');
    $hd->wait_for(sub { $c->frame('PING', 0, 0, 'roundtri'); $c->until(sub { $_->{type} eq 'PING' }) }, 'it to be under way');
    $c->frame('HEADERS', 5, 1, Heddle::H2::fields('x-sum', 'x' x 2500));
    my $r = $c->response(1);
    is $r->{status}, 431, 'trailers that are too large end the request';
    ok $hd->wait_for(sub { substr($hd->log, $from) =~ /too long header line: "x-sum"/ }, 'a line'), 'and it is told';
    is scalar(grep { $_->{body} eq 'a body' } $hd->requests(9)), 0, 'nothing of it was a request upstream';
}

# Fields with an underscore
for my $row ([0, 'HTTP/2'], [3, 'weft']) {
    my ($port, $over) = @$row;
    my $r = ask($port, '/', 'x_user', 'root', 'x-user', 'me');
    like $r->{body}, qr/^x-user: me/mi, "$over: fields pass";
    unlike $r->{body}, qr/x_user/i, "$over: one with an underscore doesn't";
}
like ask(1, '/', 'x_user', 'root')->{body}, qr/^x_user: root/mi, 'underscores_in_headers on: it does';
is ask(2, '/', 'x_user', 'root')->{status}, 200, 'ignore_invalid_headers off:';
like +($hd->requests(9))[-1]{head}, qr/^x_user: root\r$/m, 'it passes';
is ask(2, '/', 'x-user', 'me')->{status}, 200, 'others are not';
done_testing;
