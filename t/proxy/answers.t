#!/usr/bin/perl
# return, error_page, add_header, types: answers made here (nginx: ngx_http_rewrite_module "return",
# ngx_http_core_module "error_page", ngx_http_headers_module "add_header").
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    add_header X-Level http;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        default_type text/x-default;
        types { text/x-one one uno; text/x-two two; }
        error_page 404 /missing;
        error_page 403 =200 /fine;
        error_page 500 502 504 @fallback;
        error_page 409 = /own;
        error_page 410 https://else.test/gone$uri;
        error_page 411 =307 https://else.test/length;
        location /           { return 404; }
        location = /missing  { internal; return 200 "nothing at $request_uri, $uri, $request_method"; }
        location = /fine     { return 500 "not used"; add_header X-Level inner; }
        location = /own      { return 418 "teapot"; }
        location = /looped   { error_page 404 /looped2; return 404; }
        location = /looped2  { error_page 404 /looped; return 404; }
        location @fallback   { return 200 "fallback for $uri"; }
        location = /bad      { return 500; }
        location = /dead     { proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location = /denied   { return 403; }
        location = /conflict { return 409; }
        location = /gone     { return 410; }
        location = /length   { return 411; }
        location = /said     { return 404 "with a text"; }
        location = /passed   { proxy_pass http://127.0.0.1:%%PORT_1%%/status/404; }
        location = /caught   { proxy_pass http://127.0.0.1:%%PORT_1%%/status/404; proxy_intercept_errors on; }
        location /type/      { return 200 x; }
        location = /headers  { add_header X-A 1; add_header X-A 2; add_header X-All yes always; add_header X-Empty ""; return 200 ok; }
        location = /headers4 { add_header X-A 1; add_header X-All yes always; return 402; }
        location = /first    { return 200 one; return 200 two; }
        location = /var      { return 200 "$request_method $host $scheme $server_protocol $arg_a"; }
        location = /closed   { return 444; }
        location = /small    { client_max_body_size 4; error_page 413 /fine413; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /fine413  { return 200 "too much"; }
    }
}
EOC
$hd->backend(1, sub { [$1 // 200, [], 'upstream'] if $_[0]{uri} =~ m{(\d+)$} or 1 });
$hd->start;

my @rows = (
    ['/x?y', 404, 'nothing at /x?y, /missing, GET', 'an error page keeps the status'],
    ['/missing', 404, 'nothing at /missing, /missing, GET', 'an internal location'],
    ['/said', 404, 'with a text', 'an answer with its own text is no error'],
    ['/conflict', 418, 'teapot', '= takes the status of the page'],
    ['/bad', 500, 'fallback for /bad', 'a named location keeps the path'],
    ['/dead', 502, 'fallback for /dead', 'for an upstream that is down'],
    ['/passed', 404, 'upstream', "an upstream's error passes"],
    ['/caught', 404, 'nothing at /caught, /missing, GET', 'unless it is intercepted'],
    ['/first', 200, 'one', 'the first return counts'],
    ['/var?a=1', 200, 'GET localhost http HTTP/1.1 1', 'variables'],
);
for my $row (@rows) {
    my ($uri, $status, $body, $name) = @$row;
    my $r = $hd->get($uri);
    is $r->status . ' ' . $r->body, "$status $body", "$name ($uri)";
}
is $hd->get('/denied')->status, 200, '=200 replaces the status';
is $hd->get('/gone')->status . ' ' . $hd->get('/gone')->header('location'),
    '302 https://else.test/gone/gone', 'a URL is a redirect';
is $hd->get('/length')->status, 307, 'of the kind that is asked for';
is $hd->get('/looped')->status, 404, 'an error page of an error page is not looked for';
is $hd->raw("GET /closed HTTP/1.1\r\nHost: a\r\n\r\n"), '', '444 just closes';
is $hd->post('/small', 'four')->status, 200, 'a body within the limit';
like $hd->post('/small', 'fifth')->body, qr/too much/, 'one beyond it has its page';
like $hd->request('POST', '/x', {body => 'abc'})->body, qr/, GET$/, 'the page is asked for by GET';
like $hd->raw("HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), qr/^HTTP\/1.1 404 .*\r\n\r\n$/s,
    'or HEAD';

is $hd->get("/type/$_->[0]")->header('content-type'), $_->[1], "type of $_->[0]"
    for ['a.one', 'text/x-one'], ['a.UNO', 'text/x-one'], ['a.b.two', 'text/x-two'],
    ['a.three', 'text/x-default'], ['two', 'text/x-default'], ['a.two/', 'text/x-default'];

my $r = $hd->get('/headers');
is $r->header('x-a'), '1, 2', 'fields are added';
is $r->header('x-level'), undef, 'a block with add_header inherits none';
is $r->header('x-all'), 'yes', 'always is for good answers, too';
is $r->header('x-empty'), undef, 'an empty value is none';
$r = $hd->get('/headers4');
is $r->header('x-a'), undef, 'not to errors';
is $r->header('x-all'), 'yes', 'unless always';
is $hd->get('/first')->header('x-level'), 'http', 'inherited';
done_testing;
