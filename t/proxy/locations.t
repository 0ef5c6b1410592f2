#!/usr/bin/perl
# Which location answers (nginx: ngx_http_core_module, "location"): exact; else the longest prefix,
# unless it says ^~ the first regular expression that matches; nested ones inside.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /          { return 200 root; }
        location = /        { return 200 "exact root"; }
        location /a         { return 200 a; }
        location /a/b       { return 200 ab; }
        location = /a/b     { return 200 "exact ab"; }
        location ^~ /a/stop { return 200 stop; }
        location ^~ /a/stop/deeper/x { return 200 "stop deeper"; }
        location ~ \.jpg$   { return 200 jpg; }
        location ~* \.GIF$  { return 200 gif; }
        location ~ ^/first  { return 200 first; }
        location ~ ^/fir    { return 200 second; }
        location ~ ^/x(\d+)/(?:y)(z)? { return 200 "groups <$1> <$2> <$3>"; }
        location "/sp ace"  { return 200 space; }
        location =/oneword  { return 200 oneword; }
        location ~*\.One$   { return 200 "one word regex"; }

        location /outer/ {
            return 200 outer;
            location /outer/in/  { return 200 inner; }
            location = /outer/eq { return 200 "inner exact"; }
            location ~ \.css$    { return 200 "inner regex"; }
        }
        location ~ ^/rx/ {
            return 200 "outer regex";
            location ~ \.txt$    { return 200 "regex in regex"; }
        }
        location /redirected/ { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /exactly/  { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /inside { internal; return 200 inside; }
    }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        merge_slashes off;
        location /a/b { return 200 ab; }
        location //a/b { return 200 "two slashes"; }
    }
    server { listen 127.0.0.1:%%PORT_3%%; location /only { return 200 only; } }
    server {
        listen 127.0.0.1:%%PORT_4%%;
        return 403;
        location / { return 200 never; }
    }
}
EOC
$hd->echo_server(1);
$hd->start;

my @rows = (
    ['/', 'exact root', '= wins'],
    ['/?q', 'exact root', 'the query is no part of the path'],
    ['/nothing', 'root', '/ takes the rest'],
    ['/a', 'a', 'a prefix'],
    ['/apple', 'a', 'need not end at a slash'],
    ['/a/b/c', 'ab', 'the longest prefix'],
    ['/a/b', 'exact ab', 'exactly'],
    ['/a/bc', 'ab', 'more than exactly'],
    ['/a/x.jpg', 'jpg', 'a regular expression wins over a prefix'],
    ['/a/stop/x.jpg', 'stop', 'unless ^~ says no'],
    ['/a/stop/deeper/x.jpg', 'stop deeper', 'the longest prefix says'],
    ['/a/stop/deeper.jpg', 'stop', 'which is this one'],
    ['/x.JPG', 'root', '~ minds case'],
    ['/x.gif', 'gif', '~* does not'],
    ['/first', 'first', 'the first of two that match'],
    ['/fir', 'second', 'the second, where only it matches'],
    ['/x12/y', 'groups <12> <> <>', 'groups'],
    ['/x1/yz', 'groups <1> <z> <>', 'groups that take part'],
    ['/sp%20ace/x', 'space', 'paths are compared decoded'],
    ['/oneword', 'oneword', '=/x in one word'],
    ['/b.one', 'one word regex', '~*x in one word'],
    ['/a/../a/b/./c', 'ab', 'dot segments are resolved first'],
    ['/a%2Fb/c', 'ab', 'an escaped slash is a slash'],
    ['//a///b/c', 'ab', 'slashes are merged'],
    ['/outer/x', 'outer', 'the outer one of nested ones'],
    ['/outer/in/x', 'inner', 'the inner one'],
    ['/outer/eq', 'inner exact', 'an exact one inside'],
    ['/outer/x.css', 'inner regex', 'a regular expression inside'],
    ['/outer/x.jpg', 'jpg', 'one outside wins over an inner prefix'],
    ['/outer/in/x.css', 'inner regex', 'inner regular expressions come first'],
    ['/rx/a', 'outer regex', 'a regular expression with inner ones'],
    ['/rx/a.txt', 'regex in regex', 'inside it'],
);
is $hd->get($_->[0])->body, $_->[1], "$_->[2] ($_->[0])" for @rows;

my $r = $hd->get('/redirected?a=b');
is $r->status . ' ' . $r->header('location'),
    '301 http://localhost:' . $hd->port(0) . '/redirected/?a=b', 'a proxied /x/ redirects /x';
is $hd->get('/redirected/')->status, 200, 'and takes /x/';
is $hd->get('/exactly')->body, 'root', '= /x/ does not redirect in front of it' if $hd->is_heddle;
is $hd->get('/inside')->status, 404, 'internal is not for clients';
is $hd->get('/a/b', {port => 2})->body, 'ab', 'merge_slashes off';
is $hd->get('//a/b', {port => 2})->body, 'two slashes', 'leaves them apart';
is $hd->get('/other', {port => 3})->status, 404, 'no location fits';
is $hd->get('/any', {port => 4})->status, 403, 'return of the server comes before locations';
is $hd->get($_)->status, 400, "refused: $_" for '/../x', '/a/../../x', '/%00', '/%zz';
done_testing;
