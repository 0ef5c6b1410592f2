#!/usr/bin/perl
# Answers that have no body by HEAD or by 304 say no Content-Length that their upstream didn't (RFC 9110 §8.6: a cache
# would take it for the length of what it has), over HTTP/1 and over HTTP/2 to the upstream; those that end with their head, 0.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /one/ { proxy_pass http://127.0.0.1:%%PORT_1%%/; }
        location /two/ { proxy_http_version 2; proxy_pass http://127.0.0.1:%%PORT_2%%/; }
    }
    server { listen 127.0.0.1:%%PORT_2%%; http2 on; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
}
EOC
my %answers = (
    '/chunked' => "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    '/length' => "200 OK\r\nContent-Length: 7\r\n\r\n",
    '/same' => "304 Not Modified\r\nETag: \"e\"\r\n\r\n",
    '/same-length' => "304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 7\r\n\r\n",
    '/empty' => "200 OK\r\nContent-Length: 0\r\n\r\n",
);
$hd->backend(1, sub { {raw => "HTTP/1.1 $answers{$_[0]{uri}}"} });
$hd->start;
for my $way ('one', 'two') {
    for (['HEAD', '/chunked', undef], ['HEAD', '/length', 7], ['HEAD', '/empty', 0], ['HEAD', '/same', undef],
        ['GET', '/same', undef], ['GET', '/same-length', 7], ['GET', '/empty', 0]) {
        my ($method, $path, $length) = @$_;
        is $hd->request($method, "/$way$path")->header('content-length'), $length, "$way: $method $path";
    }
}
done_testing;
