#!/usr/bin/perl
# Clients that send or read too slowly: client_header_timeout, client_body_timeout, send_timeout,
# keepalive_timeout (slowloris, slow body, slow read), by file and by xDS; and those that are slow but steady, whom no time-out may meet.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use Time::HiRes qw(time);

sub by_file {
    return Heddle->new->conf(<<'EOC');
http {
    client_header_timeout 300ms;
    client_body_timeout 300ms;
    send_timeout 300ms;
    keepalive_timeout 300ms;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; }
        location /late { client_body_timeout 60s; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /tick { proxy_pass http://127.0.0.1:%%PORT_3%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_4%%;
        client_header_timeout 1s;
        client_body_timeout 1s;
        send_timeout 1s;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; }
        location /stream { proxy_request_buffering off; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /quick { proxy_request_buffering off; client_body_timeout 60s; proxy_send_timeout 300ms; proxy_read_timeout 300ms; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
    server { listen 127.0.0.1:%%PORT_5%%; keepalive_timeout 1h; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; } }
    server { listen 127.0.0.1:%%PORT_2%%; http2 on; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
}
EOC
}

# By xDS it is the head's time, and the stream's: its idle time-out is the body's, the reader's and the upstream's alike.
sub by_xds {
    my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $listener = sub {
        my ($port, $time, @routes) = @_;
        my $idle = $port == 5 ? '3600s' : $time;
        return Heddle::Xds::listener("l$port", $hd->port($port), route_config => Heddle::Xds::routes("r$port", @routes),
            request_headers_timeout => $time, stream_idle_timeout => $time, common_http_protocol_options => {idle_timeout => $idle});
    };
    my @late = map { ["/$_" => 'up', action => {idle_timeout => '60s'}] } 'late', 'answer';
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(
        CDS => [Heddle::Xds::cluster('up', $hd->port(1)), Heddle::Xds::cluster('clock', $hd->port(3))],
        LDS => [$listener->(0, '0.3s', @late, ['/tick' => 'clock', action => {idle_timeout => '60s'}], ['/' => 'up']),
            $listener->(2, '0.3s', ['/' => 'up']), $listener->(5, '0.3s', ['/' => 'up']), $listener->(4, '1s', ['/' => 'up'])])->start;
    return $hd;
}

my ($hd, $way);
my $big = '#' x 20_000_000;
sub status_of { my $r = $_[0]->response; return $r ? $r->status : 'closed' }

# ---- time-outs

sub time_outs {
    for my $port (0, 2) {
        my $c = $hd->connect($port);
        ok $c->is_eof, "port $port: a client that says nothing is closed";
        $c = $hd->connect($port);
        $c->send('GET / HT');
        is status_of($c), 408, 'half a head: 408';
        $hd->wait_log(qr/while sending its request head.* after (?:[3-9]\d\d|\d{4,}) ms/); # and not 0
        ok $c->is_eof, 'and closed';
        $c = $hd->connect($port);
        $c->send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
        is status_of($c), 408, 'half a body: 408';
        ok $c->is_eof, 'and closed';
        $c = $hd->connect($port);
        $c->send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha");
        is status_of($c), 408, 'half a chunk: 408';
        $c = $hd->connect($port);
        is $c->request('GET', '/')->status, 200, 'after an answer';
        ok $c->is_eof, 'an idle client is closed, too';
        $c = $hd->connect($port);
        is $c->request('GET', '/')->status, 200, 'after an answer';
        $c->send("GET / HTTP/1.1\r\nHost:");
        is status_of($c), 408, 'half a second head';
    }
    for my $before (0, 1) { # slowloris: a byte now and then is no reason to wait on; nor is a connection that may idle for long
        my $c = $hd->connect(5);
        is $c->request('GET', '/')->status, 200, 'after an answer' if $before;
        $c->send("GET / HTTP/1.1\r\nX: ");
        while (!$c->is_ready) { $hd->get('/tick'); $c->send('x') }
        is status_of($c), 408, 'a head that never ends, byte by byte' . ($before ? ', the second one' : '');
        ok $c->is_eof, 'and closed';
    }
    my $c = $hd->connect;
    $c->send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    $c->read_bytes(1000);
    $hd->wait_log(qr/client (?:timed out|doesn't read)/);
    pass 'a client that doesn\'t read is given up';
    is $c->read_all =~ tr/#// < length $big, 1, 'and gets no more';
}

# ---- slow but steady: each step well within the time-out, all together far beyond

# A tenth of a second, by the upstream's clock. How long the longest one took in truth is known: if
# that was half the time-out, the machine was at fault, and all is done again.
my ($last, $longest);

sub step {
    my $now = time;
    $longest = $now - $last if defined $last && $now - $last > $longest;
    $last = $now;
    $hd->get('/tick');
}

sub steadily {
    my ($steps, @clients) = @_; # each: a connection, what to do in a step, what to say of its end
    ($last, $longest) = (undef, 0);
    my @at_work = map { [$_->[0]->(), @$_[1, 2]] } @clients;
    for my $n (0 .. $steps - 1) {
        step();
        $_->[1]->($_->[0], $n) for @at_work;
    }
    step();
    return map { $_->[2]->($_->[0]) } @at_work;
}

# Sends <head>, then one of <pieces> a step.
sub in_pieces {
    my ($head, @pieces) = @_;
    return [sub { my $c = $hd->connect(4); $c->send($head); $c },
        sub { $_[0]->send($pieces[$_[1]]) if defined $pieces[$_[1]] }, \&status_of];
}

sub slow_but_steady {
    my $read = 0;
    my @clients = (
        in_pieces("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n", ('x') x 15),
        in_pieces("POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 
        $way eq 'file' ? split //, "2\r\nab\r\n0;x=y\r\n\r\n" : (("1\r\n#\r\n") x 15, "0\r\n\r\n")), # by xDS it is content that counts
        [sub { $read = 0; my $c = $hd->connect(4); $c->send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); $c },
            sub { $read += $_[0]->read_bytes(1_300_000) =~ tr/#// },
            sub { $read + ($_[0]->read_all =~ tr/#//) }],
    );
    my @got;
    for (1 .. 20) {
        @got = steadily(17, @clients);
        last if $longest < 0.5;
    }
    is $got[0], 200, 'a body in pieces';
    is $got[1], 200, 'chunks, byte by byte';
    is $got[2], length $big, 'a long answer, read slowly, whole';

    is $hd->get('/answer')->body, 'late', 'a late answer is the upstream\'s matter';
    my $c = $hd->connect;
    $c->send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha");
    step() for 1 .. 6;
    $c->send('lf');
    is status_of($c), 200, 'a location\'s own client_body_timeout';
}

# What a client lets an upstream wait for is none of the upstream's time-outs, nor a failure of it.
sub waiting_upstream {
    my @clients = map { $hd->connect(4) } 1, 2;
    $clients[0]->send("POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nha");
    $clients[1]->send("POST /quick HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r\n");
    is $hd->get('/quick/answer', {port => 4})->status, 504, 'an upstream that has all and says nothing: 504';
    $clients[0]->send('lflflf');
    $clients[1]->send("6\r\nlflflf\r\n0\r\n\r\n");
    is $_->response->body, 8, 'one that waits for a client for longer: not' for @clients;
    unlike $hd->log, qr/timed out while sending request/, 'nobody says that it was the upstream';
}

for (by_file(), by_xds()) {
    ($hd, $way) = ($_, $_->{xds} ? 'xds' : 'file');
    $hd->backend(1, sub {
        my ($req) = @_;
        return {status => 200, body => 'late', after => 1} if $req->{uri} =~ /answer/;
        return [200, {}, $req->{uri} =~ /big/ ? $big : length $req->{body}];
    });
    $hd->backend(3, sub { {status => 200, body => '', after => 0.1} });
    $hd->start;
    for my $port (0, 2, 4, 5) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($port)) }, "port $port") }
    subtest "by $way: time-outs" => \&time_outs;
    subtest "by $way: slow but steady" => \&slow_but_steady;
    subtest "by $way: an upstream that waits" => \&waiting_upstream if $way eq 'file';
    $hd->stop;
}
done_testing;
