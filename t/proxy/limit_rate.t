#!/usr/bin/perl
# limit_rate, limit_rate_after, $limit_rate, X-Accel-Limit-Rate, proxy_limit_rate: a response takes at least the
# time that its rate gives it, a second's worth of bytes and the head aside, as in nginx; over HTTP/1, TLS and HTTP/2,
# from upstreams, files and our own answers; others aren't held up. Holds for nginx, too.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use POSIX ();
use Time::HiRes qw(time);
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
$ca->make_cert('localhost', dns => 'localhost');
$hd->conf(<<'EOC');
events { worker_connections 256; }
http {
    log_format rate '$uri $status $body_bytes_sent $limit_rate';
    access_log %%DIR%%/rate.log rate;
    map $arg_rate $rate { default $arg_rate; none 0; }
    proxy_http_version 1.1;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_1%% ssl http2;
        listen 127.0.0.1:%%PORT_2%% http2;
        ssl_certificate certs/localhost.crt;
        ssl_certificate_key certs/localhost.key;
        location / { proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /slow { limit_rate 100k; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /slowfile { limit_rate 100k; sendfile on; alias %%DIR%%/www/file; }
        location /slowread { limit_rate 100k; alias %%DIR%%/www/file; }
        location /slowtext { limit_rate 20k; return 200 "$arg_x$arg_x$arg_x$arg_x$arg_x$arg_x$arg_x$arg_x$arg_x$arg_x"; }
        location /after { limit_rate 100k; limit_rate_after 1m; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /by_map { limit_rate $rate; limit_rate_after $arg_after; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /set { set $limit_rate 100k; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /set/bad { set $limit_rate much; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /if { if ($arg_slow) { set $limit_rate 100k; } proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /deaf { proxy_ignore_headers X-Accel-Limit-Rate; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /fetch { proxy_limit_rate 100k; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /streamed { proxy_limit_rate 100k; proxy_buffering off; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /off { limit_rate 0; proxy_pass http://127.0.0.1:%%PORT_9%%; }
    }
}
EOC
mkdir $hd->dir . '/www';
my $text = pack 'N*', 0 .. 49_999; # 200,000 bytes
open my $f, '>:raw', $hd->dir . '/www/file' or die $!;
print $f $text;
close $f or die $!;
$hd->backend(9, sub {
    my ($req) = @_;
    my $rate = $req->{uri} =~ /accel=(\w+)/ ? $1 : undef;
    return [200, {defined $rate ? ('X-Accel-Limit-Rate' => $rate) : ()}, 'quick'] if $req->{uri} =~ /quick/;
    return [200, {defined $rate ? ('X-Accel-Limit-Rate' => $rate) : ()}, $text];
});
$hd->start;
$hd->expect_log(qr/invalid \$limit_rate "much"/) if !$hd->is_heddle;

# Asks for all at once, each on its own; then how long each took: [name, uri, seconds at least, port, body].
my @rows = (
    ['a proxied answer', '/slow', 0.9],
    ['pushed over HTTP/2', '/slow', 0.9, 2],
    ['over TLS', '/slow', 0.9, 1],
    ['a file', '/slowread', 0.9],
    ['a file by sendfile', '/slowfile', 0.9],
    ['a file over HTTP/2', '/slowfile', 0.9, 2],
    ['a text of ours', '/slowtext?x=' . 'y' x 4000, 0.8, 0, 'y' x 40_000],
    ['limit_rate_after beyond it', '/after', 0],
    ['of a map', '/by_map?rate=100k', 0.9],
    ['of a map, none', '/by_map?rate=none', 0],
    ['of a map, after', '/by_map?rate=50k&after=50k', 1.8],
    ['of a map, no size', '/by_map?rate=fast', 0],
    ['set', '/set', 0.9],
    ['set, no size', '/set/bad', 0],
    ['in an if', '/if?slow=1', 0.9],
    ['not in it', '/if', 0],
    ['X-Accel-Limit-Rate', '/x?accel=100000', 0.9],
    ['before limit_rate', '/slow?accel=1000000', 0],
    ['0: none', '/slow?accel=0', 0],
    ['ignored', '/deaf?accel=1000', 0],
    ['read slowly from the upstream', '/fetch', 0.6], # a read at a time: the last one may come early
    ['not when it streams', '/streamed', 0],
    ['off', '/off', 0],
);
my $expected = 0;
my @got;
for my $n (0 .. $#rows) {
    my ($name, $uri, $s, $port) = @{$rows[$n]};
    pipe my $r, my $w or die $!;
    my $pid = fork // die $!;
    if (!$pid) {
        close $r;
        my $from = time;
        my $body;
        if ($port) {
            my $file = $hd->dir . "/got$n";
            $hd->curl('-s', '-k', '-o', $file, $port == 1 ? ('--http1.1', "https://127.0.0.1:" . $hd->port(1) . $uri)
                : ('--http2-prior-knowledge', "http://127.0.0.1:" . $hd->port(2) . $uri));
            open my $f, '<:raw', $file or die $!;
            local $/;
            $body = <$f>;
        } else {
            $body = $hd->get($uri)->body;
        }
        printf $w "%.3f %d\n", time - $from, $body eq ($rows[$n][4] // $text);
        close $w;
        POSIX::_exit(0);
    }
    close $w;
    push @got, [$r, $pid];
}
my $from = time;
is $hd->get('/quick')->body, 'quick', 'others are served meanwhile';
for my $n (0 .. $#rows) {
    my ($name, $uri, $s) = @{$rows[$n]};
    my $line = readline($got[$n][0]) // '0 0';
    waitpid $got[$n][1], 0;
    my ($took, $whole) = split ' ', $line;
    ok $whole, "$name: whole";
    $s *= 0.6 if !$hd->is_heddle; # which counts whole seconds
    cmp_ok $took, '>=', $s, "$name: not too soon" if $s;
}
$hd->wait_for(sub { my $n = () = $hd->file('rate.log') =~ /\n/g; $n > @rows }, 'all is logged');
my $log = $hd->file('rate.log');
like $log, qr{^/slow 200 200000 102400$}m, '$limit_rate';
like $log, qr{^/x 200 200000 100000$}m, 'of the upstream';
like $log, qr{^/set 200 200000 102400$}m, 'set';
like $log, qr{^/off 200 200000 0$}m, 'none';

# a client that leaves while its answer waits
my $c = $hd->connect(0);
$c->send("GET /by_map?rate=1k HTTP/1.1\r\nHost: a\r\n\r\n");
$c->read_bytes(500);
undef $c;
is $hd->get('/quick')->body, 'quick', 'a client may leave';
$hd->wait_for(sub { $hd->file('rate.log') =~ m{^/by_map (?:200|499) [1-9]\d{0,5} 1024$}m }, 'its request ends');
# pipelined behind it, and another answer on the same connection
$c = $hd->connect(0);
$c->send("GET /by_map?rate=150k HTTP/1.1\r\nHost: a\r\n\r\nGET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
is $c->response->body eq $text, 1, 'pipelined: whole';
is $c->response->body, 'quick', 'and the next, unlimited';
done_testing;
