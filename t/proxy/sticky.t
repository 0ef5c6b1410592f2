#!/usr/bin/perl
# `sticky`: requests of a session go to one server: by a cookie of ours, by a route in a variable, by what the
# server set itself. All workers know all sessions. Where that server can't serve, another one does.
use strict;
use warnings;
use lib 't/lib';
use Digest::MD5 'md5_hex';
use Test::More;
use Heddle;
use Heddle::Dns;

my $hd = Heddle->new(workers => 2)->conf(<<'EOC');
http {
    map $cookie_jsid $jsid_route { ~\.(?<r>\w+)$ $r; }
    upstream cookie { sticky cookie srv; server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; server 127.0.0.1:%%PORT_3%%; }
    upstream full   { sticky cookie srv expires=1h domain=.$host httponly samesite=$arg_site secure path=/; server 127.0.0.1:%%PORT_1%% route=one; }
    upstream max    { sticky cookie srv expires=max samesite=lax; server 127.0.0.1:%%PORT_1%% route=one; }
    upstream route  { sticky route $jsid_route $arg_route; server 127.0.0.1:%%PORT_1%% route=a; server 127.0.0.1:%%PORT_2%% route=b; }
    upstream learn  { sticky learn create=$upstream_cookie_sid lookup=$cookie_sid zone=z:64k;
                      server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; server 127.0.0.1:%%PORT_3%%; }
    upstream head   { sticky learn create=$upstream_cookie_sid lookup=$cookie_sid zone=h:64k header timeout=1h;
                      server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; server 127.0.0.1:%%PORT_3%%; }
    upstream short  { sticky learn create=$upstream_cookie_sid lookup=$cookie_sid zone=s:64k timeout=1ms; server 127.0.0.1:%%PORT_1%% route=x; server 127.0.0.1:%%PORT_2%% route=y; }
    upstream drain  { sticky route $arg_route; server 127.0.0.1:%%PORT_1%% route=a drain; server 127.0.0.1:%%PORT_2%% route=b; server 127.0.0.1:%%PORT_3%% route=c down; }
    upstream void   { sticky cookie srv; server 127.0.0.1:%%PORT_void%% route=gone max_fails=0; server 127.0.0.1:%%PORT_2%% route=b backup; }
    upstream names  { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; sticky cookie srv; server two.test:%%PORT_2%% resolve; server 127.0.0.1:%%PORT_3%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location ~ ^/(?<to>\w+) { proxy_pass http://$to; }
    }
}
EOC
for my $n (1 .. 3) {
    $hd->backend($n, sub {
        my ($r) = @_;
        my ($sid) = $r->{uri} =~ /login=(\w+)/;
        return {status => 200, body => $n, headers => {$sid ? ('Set-Cookie' => "sid=$sid; Path=/") : ()}};
    });
}
my $dns = Heddle::Dns->new($hd, 'dns');
$dns->set('two.test' => {ttl => 60, A => ['127.0.0.1']});
$hd->start;
my $get = sub { my ($uri, $cookie) = @_; my $r = $hd->get($uri, $cookie ? (Cookie => $cookie) : ()); ($r->body, $r->header('set-cookie') // '') };
my $body = sub { (&$get)[0] };
my $seen = sub { my ($n, @ask) = @_; my %n; $n{$body->(@ask)}++ for 1 .. $n; return join ' ', sort keys %n };
my %md5 = map { $_ => md5_hex('127.0.0.1:' . $hd->port($_)) } 1 .. 3;

# a cookie of ours
my ($first, $cookie) = $get->('/cookie');
is $cookie, "srv=$md5{$first}", 'the cookie is the MD5 of the server\'s address';
for my $n (1 .. 3) {
    is $seen->(6, '/cookie', "a=b; srv=$md5{$n}"), $n, "server $n by its cookie";
}
is +($get->('/cookie', "srv=$md5{2}"))[1], "srv=$md5{2}", 'it is set at each answer';
cmp_ok length $seen->(30, '/cookie', 'srv=nonsense'), '>', 1, 'another value: any server';
my ($n, $now) = $get->('/void', 'srv=gone');
is "$n $now", '2 srv=b', 'the server is gone: another one, and its cookie';
my $full = qr/^srv=one; expires=\w{3}, \d\d[- ]\w{3}[- ]\d{4} [\d:]{8} GMT; max-age=3600; domain=\.localhost; httponly; secure; samesite=/;
like +($get->('/full?site=Strict'))[1], qr/${full}Strict; path=\/$/, 'all attributes';
like +($get->('/full?site=what'))[1], qr/${full}strict; path=\/$/, 'samesite of no known value is strict';
is +($get->('/max'))[1], 'srv=one; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000; samesite=lax', 'expires=max';

# a route in a variable
is $seen->(6, '/route?route=b'), 2, 'the route of an argument';
is $seen->(6, '/route?route=b', 'jsid=1234.a'), 1, 'the first variable that says one counts';
is $seen->(6, '/route', 'jsid=1234.b'), 2, '... of a cookie';
is $seen->(20, '/route?route=z'), '1 2', 'no such route: any server';
is +($get->('/route?route=b'))[1], '', 'no cookie of ours';
is $seen->(6, '/drain'), 2, 'drain: nobody new';
is $seen->(4, '/drain?route=a'), 1, '... but those that belong there';
is $seen->(4, '/drain?route=c'), 2, 'down: nobody';

# learnt
for my $upstream ('learn', 'head') {
    for my $sid ('s1' .. 's4') {
        my $server = $body->("/$upstream?login=$sid$upstream");
        is $seen->(6, "/$upstream", "sid=$sid$upstream"), $server, "$upstream: $sid stays with the server that made it";
    }
    isnt $seen->(30, "/$upstream", 'sid=unknown'), 1, "$upstream: an unknown session goes anywhere";
}
$body->('/short?login=old');
ok $hd->wait_for(sub { $seen->(8, '/short', 'sid=old') eq '1 2' }, 'the session to end'), 'timeout=: a session that is too old';
my $moved = $body->('/learn?login=s1learn');
is $seen->(6, '/learn', 'sid=s1learn'), $moved, 'a session that is made anew elsewhere moves';

# servers that are names
is $seen->(4, '/names', "srv=$md5{2}"), 2, 'a server by its name';
is $seen->(4, '/names', "srv=$md5{3}"), 3, 'beside one by its address';

# a reload and a dead worker leave sessions as they are
my $before = $body->('/learn?login=kept');
ok $hd->reload, 'reload';
is $seen->(4, '/learn', 'sid=kept'), $before, 'sessions outlive a reload';
kill 'KILL', my $dead = ($hd->workers)[0];
$hd->wait_for(sub { $hd->workers == 2 && !grep { $_ == $dead } $hd->workers }, 'a new worker');
is $seen->(4, '/learn', 'sid=kept'), $before, 'and a worker';
$hd->expect_log(qr/worker process $dead exited on signal 9/);
$hd->stop;
done_testing;
