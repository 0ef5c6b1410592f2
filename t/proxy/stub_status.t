#!/usr/bin/perl
# stub_status and $connections_… (nginx: ngx_http_stub_status_module), over two workers.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(workers => 2)->conf(<<'EOC');
http {
    access_log off;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location = /status { stub_status; }
        location = /closed { stub_status; deny all; }
        location = /now { return 200 "$connections_active $connections_reading $connections_writing $connections_waiting"; }
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_read_timeout 1h; }
    }
}
EOC
$hd->backend(1, sub { $_[0]{uri} eq '/hang' ? {hang => 1} : 'hello' });
$hd->start;

my @names = qw(active accepts handled requests reading writing waiting);
sub status {
    my $r = $hd->get('/status');
    my %s;
    @s{@names} = $r->body =~ /\AActive connections: (\d+) \nserver accepts handled requests\n (\d+) (\d+) (\d+) \nReading: (\d+) Writing: (\d+) Waiting: (\d+) \n\z/
        or die "not a status: " . $r->body;
    return \%s;
}
sub wait_status {
    my (%want) = @_;
    my $s;
    my $good = eval { $hd->wait_for(sub { $s = status(); !grep { $s->{$_} != $want{$_} } keys %want }, 'a status') };
    return $good || !diag(join ' ', map { "$_=$s->{$_}" } @names);
}

my $r = $hd->get('/status');
is $r->status . $r->header('content-type'), '200text/plain', 'an answer in plain text';
is $hd->post('/status', 'x')->status, 405, 'not to POST';
is $hd->get('/closed')->status, 403, 'access rules hold';
ok wait_status(active => 1, reading => 0, writing => 1, waiting => 0), 'alone';
my $before = status();
my @idle = map { $hd->connect } 1 .. 3;
$_->request('GET', '/') for @idle;
my @hung = map { $hd->connect } 1 .. 2;
$_->send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n") for @hung;
my $reading = $hd->connect;
$reading->send("GET / HTTP/1.1\r\nHo");
ok wait_status(active => 7, reading => 1, writing => 3, waiting => 3), 'idle, answered and read ones, in whichever worker';
my $now = status();
cmp_ok $now->{accepts} - $before->{accepts}, '>=', 6 + 1, 'accepts';
is $now->{handled}, $now->{accepts}, 'handled as many';
cmp_ok $now->{requests} - $before->{requests}, '>=', 5 + 1, 'requests';
my @now = split / /, $hd->get('/now')->body;
is_deeply \@now, [7, 1, 3, 3], '$connections_…';
$reading->send("st: a\r\n\r\n");
is $reading->response->status, 200, 'the head is whole';
$_->close for @idle, @hung, $reading;
ok wait_status(active => 1, reading => 0, writing => 1, waiting => 0), 'alone again';
if ($hd->is_heddle) {
    my ($victim) = $hd->workers;
    my @more = map { $hd->connect } 1 .. 8;
    $_->request('GET', '/') for @more;
    $hd->expect_log(qr/exited on signal 9/);
    kill 9, $_ for $hd->workers;
    ok wait_status(active => 1, reading => 0, writing => 1, waiting => 0), 'what killed workers had is no more';
    cmp_ok status()->{requests}, '>', $now->{requests}, 'what they counted stays';
}
$hd->stop;
done_testing;
