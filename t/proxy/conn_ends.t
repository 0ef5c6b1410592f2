#!/usr/bin/perl
# How a client's connection ends: not older than keepalive_time (by xDS max_connection_duration), and with what the client
# still sends read for a while, so that the response isn't lost: lingering_close, lingering_time, lingering_timeout
# (ngx_http_core_module; RFC 9112 §9.6).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use Time::HiRes qw(time sleep);

my $hd = Heddle->new(log_level => 'info')->conf(<<'EOC');
http {
    client_max_body_size 1;
    lingering_time 1h;
    lingering_timeout 1h;
    server { listen 127.0.0.1:%%PORT_0%%; http2 on; keepalive_time 300ms; location / { return 200 ok; } location /long { keepalive_time 1h; return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_1%%; lingering_close off; location / { return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_2%%; lingering_close always; lingering_time 300ms; location / { return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_3%%; lingering_timeout 1s; location / { return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_4%%; location / { stub_status; } }
    server { listen 127.0.0.1:%%PORT_7%%; http2 on; keepalive_requests 1; lingering_timeout 2s; location / { return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_8%%; http2 on; keepalive_requests 1; lingering_close off; location / { return 200 ok; } }
}
xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $routes = Heddle::Xds::routes('in');
$routes->{virtual_hosts}[0]{routes} = [{match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => 'ok'}}}];
my %young = (common_http_protocol_options => {max_connection_duration => '0.3s'});
my $xds = Heddle::Xds->new($hd, 'xds')->serve(LDS => [Heddle::Xds::listener('front', $hd->port(5), route_config => $routes, %young),
    Heddle::Xds::listener('idle', $hd->port(6), route_config => $routes, %young, drain_timeout => '0.1s')])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "the listener $_ by xDS") for 5, 6;

# ---- age

sub opened { my ($port) = @_; return {conn => $hd->connect($port), at => time} }
sub grow_old { my ($c) = @_; my $left = $c->{at} + 0.4 - time; sleep $left if $left > 0 }
for my $port (0, 5) {
    my $c = opened($port);
    is $c->{conn}->request('GET', '/')->status, 200, "port $port: a young one";
    grow_old($c);
    SKIP: {
        skip 'the first request came late', 2 if $c->{conn}{eof};
        my $r = $c->{conn}->request('GET', '/');
        is $r->status . ' ' . lc($r->header('connection') // ''), '200 close', 'an old one: this response is the last';
        ok $c->{conn}->is_eof, 'and it ends';
    }
}
{
    my $c = opened(0);
    grow_old($c);
    is lc($c->{conn}->request('GET', '/long')->header('connection') // ''), '', 'the location says how old';
    my $h2 = Heddle::H2->new($hd->port(0));
    $c = {at => time};
    $h2->until(sub { $_->{type} eq 'SETTINGS' });
    grow_old($c);
    $h2->request(1, '/');
    is $h2->response(1)->{status}, 200, 'HTTP/2: answered';
    ok $h2->until(sub { $_->{type} eq 'GOAWAY' }), 'and told to go';
}

# By xDS one that idles ends, too, as Envoy's: of HTTP/1 once the time for draining is over.
{
    my $c = opened(6);
    is $c->{conn}->request('GET', '/')->status, 200, 'by xDS: a request';
    ok $c->{conn}->is_eof, 'without another one it ends';
    cmp_ok time - $c->{at}, '>=', 0.39, '... not before its time';
    my $h2 = Heddle::H2->new($hd->port(6));
    $h2->request(1, '/');
    is $h2->response(1)->{status}, 200, 'HTTP/2 by xDS: a request';
    ok $h2->until(sub { $_->{type} eq 'GOAWAY' }), 'without another one it is told to go';
    ok !$h2->until(sub { 0 }) && $h2->{conn}{eof}, '... and it ends';
}

# ---- what is still sent

# A request that is refused, whose body goes on, a byte each 50 ms, at most <most> times; for how long the server took it, and
# the longest pause of ours.
sub go_on {
    my ($port, $most) = @_;
    my $c = $hd->connect($port);
    $c->send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    is $c->response->status, 413, "port $port: refused";
    my ($from, $last, $longest) = (time, time, 0);
    for (1 .. $most) {
        last if $c->send('x') == 0;
        sleep 0.05;
        my $now = time;
        $longest = $now - $last if $now - $last > $longest;
        $last = $now;
    }
    return ($c, time - $from, $longest);
}
my ($c, $s) = go_on(1, 100_000);
pass 'lingering_close off: closed, though the client goes on';
($c, $s) = go_on(2, 100_000);
cmp_ok $s, '>=', 0.29, 'lingering_time: read for so long, then closed';
my $longest;
for (1 .. 20) {
    ($c, $s, $longest) = go_on(3, 40); # two seconds
    last if $longest < 0.8; # else it was the machine that paused
}
cmp_ok $s, '>=', 1.9, 'lingering_timeout: who sends isn\'t cut off';
# HTTP/2: a connection that had its only request, on which a client sends on.
sub go_on_h2 {
    my ($port, $most_s) = @_;
    my $h2 = Heddle::H2->new($hd->port($port));
    $h2->request(1, '/');
    is $h2->response(1)->{status}, 200, "port $port: HTTP/2";
    ok !$h2->until(sub { 0 }) && $h2->{conn}{eof}, 'and its half ends';
    my ($from, $last, $longest) = (time, time, 0);
    while (time < $from + $most_s) {
        $h2->try_send("\0") or last;
        sleep 0.05;
        $longest = time - $last if time - $last > $longest;
        $last = time;
    }
    return (time - $from, $longest);
}
go_on_h2(8, 1e9);
pass 'lingering_close off: closed, though the client goes on';
for (1 .. 20) {
    ($s, $longest) = go_on_h2(7, 5.5);
    last if $longest < 1.8; # else it was the machine that paused
}
cmp_ok $s, '>=', 5.5, 'lingering_timeout: who sends isn\'t cut off, over HTTP/2 either';
sub active { my ($n) = $hd->get('/', {port => 4})->body =~ /Active connections: (\d+)/; return $n }
$hd->wait_for(sub { active() == 1 }, 'who is silent to be cut off');
pass 'who is silent is';

for (['lingering_close never;', qr/heddle\.conf:\d+: .*never.*off.*on.*always/], ['keepalive_time soon;', qr/heddle\.conf:\d+: .*soon/]) {
    my ($status, $text) = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $_->[0] } }")->run('-t');
    ok $status != 0 && $text =~ $_->[1], "refused: $_->[0]" or diag $text;
}
$hd->stop;
$xds->stop;
done_testing;
