#!/usr/bin/perl
# map and set (nginx: ngx_http_map_module, ngx_http_rewrite_module "set").
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    map $arg_a $simple { default other; one 1; "two words" 2; "" none; ONCE upper; \default escaped; }
    map $http_x_host $site {
        hostnames;
        default unknown;
        exact.example exact;
        *.example suffix;
        *.long.example longer;
        www.* prefix;
        .both.test both;
    }
    map $uri $kind { ~^/img/ image; ~*\.CSS$ style; ~^/user/(?<who>\w+)/(\d+) "user $who number $2"; }
    map $simple$kind $combined { 1image "one image"; default "<$simple,$kind>"; }
    map $arg_up $pool { default first; b second; }
    upstream first { server 127.0.0.1:%%PORT_1%%; }
    upstream second { server 127.0.0.1:%%PORT_2%%; }
    map $http_upgrade $connection_upgrade { default upgrade; "" close; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        set $level server;
        set $kept "$arg_a!";
        location /simple   { return 200 $simple; }
        location /site     { return 200 $site; }
        location /kind     { return 200 "[$kind]"; }
        location /img/     { return 200 "$kind $combined"; }
        location /user/    { return 200 $kind; }
        location /x.css    { return 200 $kind; }
        location /combined { return 200 $combined; }
        location /set      { set $level location; set $more "$level-$kept"; return 200 "$level $more"; location /set/inner { return 200 "$level <$more>"; } }
        location /unset    { return 200 "$level $kept"; }
        location ~ ^/re/(.*) { set $first $1; return 200 "$first"; }
        location /pass     { proxy_pass http://$pool; proxy_set_header Connection $connection_upgrade; }
    }
}
EOC
$hd->backend($_, do { my $n = $_; sub { "back end $n" } }) for 1, 2;
$hd->start;

my @rows = (
    ['/simple?a=one', '1', 'a value'],
    ['/simple?a=ONE', '1', 'in any case'],
    ['/simple?a=once', 'upper', 'either way'],
    ['/simple?a=x', 'other', 'default'],
    ['/simple', 'none', 'the empty one'],
    ['/simple?a=default', 'escaped', 'a word that is no default'],
    ['/kind', '[]', 'nothing fits, no default: empty'],
    ['/img/a', 'image <other,image>' =~ s/other/none/r, 'a regular expression'],
    ['/img/a?a=one', 'image one image', 'maps of maps'],
    ['/x.css', 'style', 'a regular expression in any case'],
    ['/user/ann/12', 'user ann number 12', 'groups in values'],
    ['/combined?a=z', '<other,>', 'variables in values'],
    ['/unset?a=1', 'server 1!', 'set by the server'],
    ['/set?a=1', 'location location-1!', "a location's come behind the server's"],
    ['/set/inner', 'server <>', 'and are not inherited'],
    ['/re/abc', 'abc', 'a group kept by set'],
    ['/pass', 'back end 1', 'an upstream chosen by map'],
    ['/pass?up=b', 'back end 2', 'the other one'],
);
is $hd->get($_->[0])->body, $_->[1], "$_->[2] ($_->[0])" for @rows;
is $hd->get('/site', 'X-Host' => $_->[0])->body, $_->[1], "hostnames: $_->[0]" for
    ['exact.example', 'exact'], ['a.example', 'suffix'], ['a.long.example', 'longer'], ['www.test', 'prefix'],
    ['both.test', 'both'], ['x.both.test', 'both'], ['', 'unknown'], ['example', 'unknown'];
done_testing;
