#!/usr/bin/perl
# What the upstream is asked for (nginx: ngx_http_proxy_module, "proxy_pass"): a URI replaces what
# the location matched, in the normalised path; without one the client's own bytes pass.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    upstream app { server 127.0.0.1:%%PORT_1%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /                { proxy_pass http://app; }
        location /slash/          { proxy_pass http://app/; }
        location /name/           { proxy_pass http://app/remote/; }
        location /noslash         { proxy_pass http://app/to; }
        location /cut/            { proxy_pass http://app/glued; }
        location = /exact         { proxy_pass http://app/there; }
        location /query/          { proxy_pass http://app/x?fixed=1; }
        location ~ ^/re/(.*)      { proxy_pass http://app; }
        location ~ ^/var/(\w+)    { proxy_pass http://app/v/$1; }
        location /wholevar/       { proxy_pass http://$arg_to/w; }
        location /varuri/         { proxy_pass http://app$request_uri; }
    }
}
EOC
$hd->echo_server(1);
$hd->start;

my @rows = (
    ['/plain', '/plain', 'as it came'],
    ['/a%20b/%7e/../c//d?e=%2F&f', '/a%20b/%7e/../c//d?e=%2F&f', 'byte by byte'],
    ['/slash/', '/', 'the prefix alone'],
    ['/slash/x/y', '/x/y', 'the prefix goes'],
    ['/slash/x?q=1', '/x?q=1', 'the query stays'],
    ['/name/x', '/remote/x', 'another in its place'],
    ['/noslash', '/to', 'without slashes'],
    ['/noslash/x', '/to/x', 'and more behind'],
    ['/noslashed', '/toed', 'a prefix is a prefix'],
    ['/cut/x', '/gluedx', 'nothing is put between'],
    ['/exact', '/there', 'exactly'],
    ['/exact?a', '/there?a', 'with a query'],
    ['/query/x', '/x?fixed=1x', 'a query in proxy_pass is text like any other'],
    ['/slash/a%20b', '/a%20b', 'a space is escaped again'],
    ['/slash/%7Euser', '/~user', 'what needs no escape loses it'],
    ['/slash/a%2Fb', '/a/b', 'an escaped slash is one'],
    ['/slash/a%3Fb', '/a%3Fb', 'an escaped question mark stays'],
    ['/slash/%25', '/%25', 'a percent sign, too'],
    ['/slash/./a/../b', '/b', 'dots are gone'],
    ['/slash//b', '/b', 'slashes merged'],
    ['/slash/%C3%A4', '/%C3%A4', 'UTF-8'],
    ['/re/a%20b', '/re/a%20b', 'a regular expression passes it on as it came'],
    ['/var/abc/d?x=1', '/v/abc', 'with variables it is what they say'],
    ['/varuri/a%20b?c', '/varuri/a%20b?c', '$request_uri'],
    ['/wholevar/x?to=app', '/w', 'even the host; the upstream block is found by name'],
);
for my $row (@rows) {
    my ($uri, $want, $name) = @$row;
    my ($line) = $hd->get($uri)->body =~ /^\S+ (.*) HTTP/;
    is $line, $want, "$name ($uri)";
}
is $hd->get('/wholevar/x?to=nosuch')->status, 502, 'no upstream of that name' if $hd->is_heddle;
done_testing;
