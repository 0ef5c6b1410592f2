#!/usr/bin/perl
# Many requests at once on one connection: all are answered in their order, none is begun for a client that doesn't
# take its answers, and others on the same worker are served meanwhile.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $part = 'x' x 4000;
my $answer = $part x 3;
my $hd = Heddle->new->conf(<<"EOC")->start;
http {
    log_format uri '\$uri';
    server {
        listen 127.0.0.1:%%PORT_0%%;
        keepalive_requests 1000000;
        access_log %%DIR%%/asked.log uri;
        location / { set \$part $part; return 200 "\$arg_n \$part\$part\$part"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        access_log off;
        location / { return 200 other; }
    }
}
EOC
sub asked { return scalar(() = $hd->file('asked.log') =~ /\n/g) }

# Far more answers than sockets hold.
my $n = 5000;
my $c = $hd->connect(0);
my $writer = fork // die "fork: $!";
if ($writer == 0) {
    Heddle::Watch::die_with_parent(getppid);
    $c->send(join '', map { "GET /?n=$_ HTTP/1.1\r\nHost: a\r\n\r\n" } 1 .. $n);
    POSIX::_exit(0);
}
my $before = -1;
$hd->wait_for(sub { # until nothing more is begun
    my $now = asked();
    my $is_still = $now > 0 && $now == $before;
    $before = $now;
    is_served() for 1 .. 5;
    return $is_still;
}, 'the worker to have had enough');
sub is_served { $hd->get('/', {port => 1})->body eq 'other' or die "not served\n" }
cmp_ok $before, '<', $n, 'a client that does not take its answers: the rest waits';
is asked(), $before, 'and goes on waiting while others are served';

my ($got, $wrong) = (0, 0);
while ($got < $n) {
    my $r = $c->response or last;
    $got++;
    $wrong++ if $r->body ne "$got $answer";
    is_served() if $got % 500 == 0;
}
is $got, $n, 'when it does, all are answered';
is $wrong, 0, 'each in its place';
waitpid $writer, 0;
$hd->wait_for(sub { asked() == $n }, 'all to be logged');
done_testing;
