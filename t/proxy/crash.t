#!/usr/bin/perl
# A worker that dies is replaced at once, and only its own connections are lost: not even
# those that waited in the queue of its listening socket.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

for my $kind ('shared', 'own') {
    my $hd = Heddle::Echo::heddle(workers => 2, conf => "echo_listen 127.0.0.1:%%PORT_0%% $kind;\n")->start;
    my %by; # connections by worker, until both have some
    $hd->wait_for(sub {
        my $c = $hd->connect;
        push @{$by{(Heddle::Echo::greeted($c))[0]}}, $c;
        if ($kind eq 'shared' && keys %by == 1 && @{(values %by)[0]} > 3) {
            my ($busy) = keys %by; # one can serve them all: it has to be kept from it
            $hd->freeze($busy);
            my $other = $hd->connect;
            push @{$by{(Heddle::Echo::greeted($other))[0]}}, $other;
            kill 'CONT', $busy;
        }
        keys %by == 2;
    }, 'both workers to have connections');
    my ($victim, $other) = sort keys %by;

    $hd->expect_log(qr/worker process $victim exited on signal 9/);
    kill 'KILL', $victim;
    $hd->wait_for(sub { $hd->workers == 2 && !grep { $_ == $victim } $hd->workers }, 'its replacement');
    ok((!grep { !$_->is_eof } @{$by{$victim}}), "$kind: its connections are lost");
    ok((!grep { !Heddle::Echo::echoes($_) } @{$by{$other}}), "the other's are not");
    my @new = map { $hd->connect } 1 .. 20;
    ok((!grep { !Heddle::Echo::greeted($_) } @new), 'new ones are served');
    $_->close for @new, map { @$_ } values %by;
    $hd->stop;

    # Connections that wait while nobody accepts are the replacement's.
    $hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:%%PORT_0%% $kind;\n")->start;
    ($victim) = $hd->workers;
    $hd->freeze($victim);
    my @waiting = map { $hd->connect } 1 .. 5;
    $hd->expect_log(qr/worker process $victim exited on signal 9/);
    kill 'KILL', $victim;
    my @pids = map { (Heddle::Echo::greeted($_))[0] } @waiting;
    my ($heir) = $hd->workers;
    is_deeply \@pids, [($heir) x 5], "$kind: connections in the queue are the replacement's";
    $_->close for @waiting;
    $hd->stop;
}

# A crash on a request, again and again: each costs one connection, and the pause before the
# next worker grows.
my $hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:%%PORT_0%% x;\n",
    env => {ASAN_OPTIONS => 'handle_segv=0'})->start;
$hd->expect_log(qr/worker process \d+ exited on signal 11/,
    qr/ended \d+ times within a second of its start: the next starts in \d+ ms/);
for my $i (1 .. 3) {
    my $c = $hd->connect;
    Heddle::Echo::greeted($c);
    $c->send("segv\n");
    ok $c->is_eof, "crash $i costs its connection";
}
ok +(Heddle::Echo::greeting($hd))[0], 'and there is a worker again';

done_testing;
