#!/usr/bin/perl
# Ten thousand idle connections and what one costs; running out of descriptors or of
# worker_connections: who was there goes on, who waits is served as soon as there is room.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $server = <<'EOC';
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 "here"; }
        location /up { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
EOC
my $request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

sub private_kb { # of a process, shared pages left out
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/smaps_rollup" or return;
    my $kb = 0;
    while (my $line = <$f>) { $kb += $1 if $line =~ /^Private_\w+:\s+(\d+)/ }
    return $kb;
}

# ---- idle

my ($limit) = `sh -c 'ulimit -Hn'` =~ /(\d+)/;
$limit //= 1 << 20;
my $n = $limit > 10500 ? 10000 : $limit - 500;
my $hd = Heddle->new(log_level => 'info')->conf("worker_rlimit_nofile $limit;\nevents { worker_connections 12000; }\n$server");
$hd->start;
my ($worker) = $hd->workers;
$hd->get('/') for 1 .. 20;
my $before = private_kb($worker);
my @conns = map { $hd->connect } 1 .. $n;
my $good = 0;
for my $c (@conns) { $c->send($request) }
for my $c (@conns) { $good++ if $c->response->body eq 'here' }
is $good, $n, "$n connections at once, each served";
$hd->get('/') for 1 .. 20; # the last of them is idle, too
my $each = (private_kb($worker) - $before) * 1024 / $n;
note sprintf 'an idle connection: %.0f bytes', $each;
cmp_ok $each, '<', 1500, 'an idle one costs little' unless Heddle::is_sanitized();
for my $c (@conns[map { $_ * 97 % $n } 1 .. 500]) { $c->send($request) }
is scalar(grep { $_->response->body eq 'here' } @conns[map { $_ * 97 % $n } 1 .. 500]), 500, 'any of them may speak again';
is $hd->get('/')->body, 'here', 'and a new one';
$_->reset for @conns;
@conns = map { $hd->connect } 1 .. $n;
$_->send($request) for @conns;
$_->response for @conns;
my $again = (private_kb($worker) - $before) * 1024 / $n;
cmp_ok $again, '<', $each * 2 + 1024, 'the memory of those that went is used again' unless Heddle::is_sanitized();
$_->reset for @conns;
$hd->stop;

# ---- no room, and none idles: the same twice, by descriptors and by worker_connections

for my $how (['worker_rlimit_nofile 100;', '', qr/Too many open files/],
    ['', 'events { worker_connections 60; }', qr/all connections are in use: raise worker_connections/]) {
    my ($main, $events, $why) = @$how;
    my $hd = Heddle->new->conf("$main\n$events\n$server");
    $hd->backend(1, sub { 'up' });
    $hd->expect_log(qr/\[crit\].*accept is paused.*$why/);
    $hd->start;
    my @conns = map { my $c = $hd->connect; $c->send($_ == 1 ? "GET /up HTTP/1.1\r\n" : "GET / HTTP/1.1\r\n"); $c } 1 .. 150;
    $hd->wait_log(qr/accept is paused/);
    is scalar(grep { $_->is_ready } @conns), 0, 'no room: who has begun is not closed';
    my $first = shift @conns;
    $first->send("Host: a\r\n\r\n");
    like $first->response->status, qr/^(?:200|50[023])$/, 'an upstream has no room, either: answered all the same';
    $_->send("Host: a\r\n\r\n") for @conns;
    my @waiting = @conns;
    my $good = 0;
    for my $c (@waiting) {
        $good++ if $c->response->body eq 'here';
        $c->close;
    }
    is $good, scalar(@waiting), 'those who waited are served when others are done';
    is $hd->get('/up')->body, 'up', 'and all is well again';
    my $pauses = () = $hd->log =~ /accept is paused/g;
    cmp_ok $pauses, '<', 20, 'told once a shortage, not for each connection';
    $hd->stop;
}

done_testing;
