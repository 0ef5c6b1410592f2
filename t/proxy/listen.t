#!/usr/bin/perl
# listen: wildcard and specific addresses of a port, unix sockets, PROXY protocol, keep-alive
# (nginx: ngx_http_core_module "listen").
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $conf = <<'EOC';
http {
    server { listen %%PORT_0%%; listen [::1]:%%PORT_0%%; return 200 any; }
    server { listen 127.0.0.1:%%PORT_0%%; return 200 "specific $server_addr:$server_port"; }
    server { listen 127.0.0.2:%%PORT_0%%; return 200 two; }
    server { listen localhost:%%PORT_1%% backlog=16 rcvbuf=64k sndbuf=64k so_keepalive=30s:5s:3; return 200 "by name"; }
    server { listen unix:%%DIR%%/http.sock; return 200 "unix"; }
    server {
        listen 127.0.0.1:%%PORT_2%% proxy_protocol;
        location / { return 200 "$remote_addr:$remote_port $server_addr $realip_remote_addr"; }
        location /up/ { proxy_pass http://127.0.0.1:%%PORT_3%%/; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }
    }
}
EOC
my $hd = Heddle->new->conf($conf);
$hd->echo_server(3);
$hd->start;

is $hd->get('/', {addr => '127.0.0.3'})->body, 'any', 'a wildcard address';
is $hd->get('/')->body, 'specific 127.0.0.1:' . $hd->port(0), 'a specific one of the same port';
is $hd->get('/', {addr => '127.0.0.2'})->body, 'two', 'another';
is $hd->curl('http://[::1]:%%PORT_0%%/'), 'any', 'IPv6';
is $hd->get('/', {port => 1})->body, 'by name', 'a name';
is $hd->curl('--unix-socket', '%%DIR%%/http.sock', 'http://a/'), 'unix', 'a unix socket';

sub proxied { $hd->raw("$_[0]GET $_[1] HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 2) }
like proxied("PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n", '/'),
    qr/\r\n\r\n192\.0\.2\.1:1111 127\.0\.0\.1 127\.0\.0\.1$/, 'PROXY protocol: who the client is';
like proxied("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\xc0\0\2\x08\x11\x11\0\x50", '/'),
    qr/\r\n\r\n192\.0\.2\.7:4369 /, 'its binary form';
like proxied("PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n", '/up/'), qr/^X-Forwarded-For: 192\.0\.2\.1\r$/m,
    'and the upstream hears of it';
is proxied('', '/'), '', 'without it the connection is closed';
is proxied("PROXY TCP4 192.0.2.1 192.0.2.2 x 80\r\n", '/'), '', 'a broken one, too';

# Options of a socket that is there, by reload.
SKIP: {
    skip 'no ss', 5 if !grep { -x "$_/ss" } split /:/, $ENV{PATH};
    my $backlog = sub { return (split ' ', `ss -Hltn 'sport = :${\$hd->port(1)}'`)[2] };
    my $alive = sub { my $c = $hd->connect(1); $hd->wait_for(sub { `ss -Htno state established 'sport = :${\$hd->port(1)}'` =~ /:${\$c->{sock}->sockport}\b(.*)/ }); return `ss -Htno state established 'sport = :${\$hd->port(1)}'` =~ /keepalive/ ? 'alive' : 'quiet' };
    is $backlog->() . ' ' . $alive->(), '16 alive', 'backlog and so_keepalive';
    $hd->conf($conf =~ s/backlog=16 (.*) so_keepalive=\S+;/backlog=40 $1;/r);
    ok $hd->reload, 'a reload with others';
    is $backlog->() . ' ' . $alive->(), '40 quiet', 'changes them';
    $hd->conf($conf =~ s/ backlog=16//r);
    ok $hd->reload, 'back';
    is $backlog->() . ' ' . $alive->(), '511 alive', 'to what is usual';
}

# The same ports again: another heddle can't have them.
my $second = Heddle->new(ports => $hd->{ports});
$second->conf('http { server { listen 127.0.0.1:%%PORT_1%%; return 200 x; } }');
my ($status, $out) = $second->run;
ok $status == 1 && $out =~ /bind\(\) to 127\.0\.0\.1:${\$hd->port(1)} failed: Address already in use/,
    'a port in use is told' or diag $out;
done_testing;
