#!/usr/bin/perl
# Attacks by way of regular expressions: a match that takes exponential time (ReDoS, CVE-2019-14993) is
# given up after a bounded number of steps, and the request fails, as in nginx: who knows a slow
# pattern would otherwise get around what its location, route or condition forbids. Captures that
# were taken for one expression don't outlive the next (CVE-2026-42945, CVE-2026-9256).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

my $hd = Heddle->new(log_level => 'warn')->conf(<<'EOC');
http {
    map $arg_m $mapped { ~^(?<word>\w+)-(?<more>.*)$ "$word.$more"; ~^(b+)+$ slow; default none; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 open; }
        location ~ ^/admin/(a+)+$ { return 403; }
        location /rewrite { rewrite ^/rewrite/(a+)+$ /denied last; return 200 open; }
        location /denied { return 403; }
        location /if { if ($arg_x ~ "^(a+)+$") { return 403; } return 200 open; }
        location /ifnot { if ($arg_x !~ "^(a+)+$") { return 403; } return 200 open; }
        location /map { return 200 "$mapped"; }
        location ~ ^/captures/(?<first>[^/]+)/(.*)$ {
            set $kept "$1 $2";
            if ($arg_y ~ "^(.)(.*)$") { set $kept "$kept, $1 $2"; }
            if ($arg_y ~ nothing) { return 500; }
            return 200 "$kept, $first, [$1]";
        }
    }
    server { listen 127.0.0.1:%%PORT_0%%; server_name ~^(h+)+\.example$; return 200 named; }
}
EOC
$hd->start;

my $slow = ('a' x 40) . '!';
sub status { return $hd->get($_[0])->status }

subtest 'ReDoS (CVE-2019-14993): what was given up lets nobody in' => sub {
    is status('/admin/aaaa'), 403, 'a location by an expression';
    is status("/admin/$slow"), 500, 'one that can\'t be told refuses';
    is status('/rewrite/aaa'), 403, 'rewrite';
    is status("/rewrite/$slow"), 500, 'refuses';
    is status('/if?x=aaa'), 403, 'if';
    is status("/if?x=$slow"), 500, 'refuses';
    is status("/ifnot?x=$slow"), 500, 'its opposite, too';
    is $hd->get('/map?m=' . 'b' x 40 . '!')->body, 'none', 'a map: the default';
    is $hd->get('/', Host => 'h' x 40 . '!.example')->body =~ /named/ ? 1 : 0, 0, 'a server name: not that server';
    ok $hd->wait_log(qr/regular expression "\^\/admin\/\(a\+\)\+\$" on \d+ bytes: match limit exceeded/), 'it is told';
    is status('/'), 200, 'and others are served';
};

subtest 'captures: of the expression that matched last (CVE-2026-42945, CVE-2026-9256)' => sub {
    is $hd->get('/captures/one/two?y=xyz')->body, 'one two, x yz, one, []', 'copied when they are used';
    my $long = 'z' x 5000;
    is $hd->get("/captures/$long/s?y=x$long")->body, "$long s, x $long, $long, []", 'lengths are counted anew';
    is $hd->get('/captures/%41%2f%2e/s?y=')->body =~ /^A/ ? 1 : 0, 1, 'of the path as it is matched';
    is $hd->get('/map?m=some-thing')->body, 'some.thing', 'named groups of a map';
    is $hd->get("/map?m=$long-$long")->body, "$long.$long", 'however long';
};
$hd->stop;

SKIP: {
    skip $Heddle::Xds::missing, 1 if $Heddle::Xds::missing;
    subtest 'ReDoS: routes of a control plane' => sub {
        my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
        my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
        my $refuse = {direct_response => {status => 403}};
        my $pass = {direct_response => {status => 200}};
        $xds->serve(LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => {name => 'in',
            virtual_hosts => [{name => 'all', domains => ['*'], routes => [
                {match => {safe_regex => {regex => '/admin/(a+)+'}}, %$refuse},
                {match => {prefix => '/h', headers => [{name => 'x', string_match => {safe_regex => {regex => '(a+)+'}}}]}, %$refuse},
                {match => {prefix => '/'}, %$pass},
            ]}]})])->start;
        $hd->start;
        $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
        is $hd->get('/admin/aaa')->status, 403, 'by path';
        is $hd->get("/admin/$slow")->status, 500, 'refused';
        is $hd->get('/h', X => 'aaa')->status, 403, 'by a field';
        is $hd->get('/h', X => $slow)->status, 500, 'refused';
        is $hd->get('/')->status, 200, 'others are served';
        $hd->stop;
    };
}
done_testing;
