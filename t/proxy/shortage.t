#!/usr/bin/perl
# No descriptor left for a connection to an upstream: that is no fault of the upstream's, and it isn't given up for it
# (max_fails), by HTTP and in stream.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(workers => 1)->conf(<<'EOC');
worker_rlimit_nofile 80;
http {
    upstream pair { server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; }
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://pair; } }
}
stream {
    upstream two { server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; }
    server { listen 127.0.0.1:%%PORT_3%%; proxy_pass two; }
}
EOC
$hd->backend($_, sub { $_[0]{uri} =~ /hang/ ? {hang => 1} : 'well' }) for 1, 2;
$hd->start;

$hd->expect_log(qr/\[crit\].*accept is paused.*Too many open files/);
for my $port (0, 3) {
    my @clients;
    for my $n (1 .. 120) {
        my $c = $hd->connect($port);
        $c->send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
        push @clients, $c;
    }
    $hd->wait_log(qr/Too many open files while connecting to upstream/, $port ? 2 : 1);
    if ($port == 0) {
        my $first;
        $hd->wait_for(sub { ($first) = grep { $_->is_ready } @clients }, 'the answer');
        is $first->response->status, 500, 'no descriptor: our own error';
    }
    $_->close for @clients;
    $hd->wait_for(sub { my $r = eval { $hd->get('/', {port => $port}) }; $r && $r->body eq 'well' }, 'an answer when there are some again');
    pass 'the upstream answers as before';
}
unlike $hd->log, qr/temporarily disabled/, 'no server was given up';
$hd->stop;
done_testing;
