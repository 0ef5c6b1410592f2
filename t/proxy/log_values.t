#!/usr/bin/perl
# Variables that logs ask of conns and upstreams, and the error log's line about a request
# that failed. Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    log_format up '$uri addr=$upstream_addr status=$upstream_status len=$upstream_response_length'
        ' sent=$upstream_bytes_sent received=$upstream_bytes_received'
        ' sid=$upstream_cookie_sid theme=$upstream_cookie_theme none=$upstream_cookie_none';
    access_log off;
    upstream both { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_1%% backup; }
    upstream none { server 127.0.0.1:1 down; server 127.0.0.1:2 down; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name shop.example;
        access_log %%DIR%%/up.log up;
        location /up { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /both { proxy_pass http://both; }
        location /refused { proxy_pass http://127.0.0.1:%%PORT_9%%/there; }
        location /none { proxy_pass http://none; }
        location /pipe { return 200 "$pipe$connection_requests"; }
        location /time { return 200 "$connection_time"; }
        location /file { return 200 "[$request_body_file]"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        add_header Set-Cookie "sid=s1; Path=/";
        add_header Set-Cookie "theme=dark";
        return 200 hello;
    }
}
EOC
$hd->start;
my ($up, $nobody) = map { $hd->port($_) } 1, 9;

sub logged {
    my ($path) = @_;
    $hd->wait_for(sub { $hd->file('up.log') =~ m{^$path .*\n}m }, "a line of $path");
    my ($line) = $hd->file('up.log') =~ m{^($path .*)$}m;
    return $line;
}

is $hd->get('/up')->body, 'hello', 'an answer';
my $line = logged('/up');
like $line, qr/ sid=s1 theme=dark none=-$/, '$upstream_cookie_NAME';
my ($sent, $received) = $line =~ /sent=(\d+) received=(\d+)/;
cmp_ok $sent, '>', length("GET /up HTTP/1.0\r\n"), '$upstream_bytes_sent has the head';
cmp_ok $received, '>', length("HTTP/1.1 200 OK\r\nSet-Cookie: sid=s1; Path=/\r\n\r\nhello"), '$upstream_bytes_received, too';
$hd->get('/both');
like logged('/both'),
    qr/addr=127\.0\.0\.1:$nobody, 127\.0\.0\.1:$up status=502, 200 len=0, 5 sent=0, [1-9]\d* received=0, [1-9]\d* /,
    'each try has its own';

my $c = $hd->connect(0);
my $get = "GET /pipe HTTP/1.1\r\nHost: shop.example\r\n\r\n";
$c->send($get . $get);
is $c->response->body, '.1', '$pipe of the first';
is $c->response->body, 'p2', '$pipe of one that came along with it';
$c->send($get);
is $c->response->body, '.3', '$pipe of one that came later';
like $hd->get('/time')->body, qr/^\d+\.\d\d\d$/, '$connection_time';
is $hd->get('/file')->body, '[]', '$request_body_file: bodies are in memory';

my $who = qr/client: 127\.0\.0\.1, server: shop\.example, request: /;
$c->send("GET /refused/x?y=1 HTTP/1.1\r\nHost: shop.example\r\nReferer: http://a/b\r\n\r\n");
is $c->response->status, 502, 'refused';
ok $hd->wait_log(qr{Connection refused\) while connecting to upstream, ${who}"GET /refused/x\?y=1 HTTP/1\.1", upstream: "http://127\.0\.0\.1:$nobody/there/x\?y=1", host: "shop\.example", referrer: "http://a/b"}),
    'the whole line' or diag $hd->log;
$c->send("GET /none/x HTTP/1.1\r\nHost: shop.example\r\n\r\n");
is $c->response->status, 502, 'no live upstreams';
ok $hd->wait_log(qr{no live upstreams while connecting to upstream, ${who}"GET /none/x HTTP/1\.1", upstream: "http://none/none/x", host: "shop\.example"}),
    'the whole line' or diag $hd->log;
$hd->stop;
done_testing;
