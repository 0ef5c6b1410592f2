#!/usr/bin/perl
# Processes: start, what they are, and the ways to end: QUIT, TERM, a killed master, a
# time-out, the background, one process for all.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

sub status_of {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/status" or return {};
    return {map { /^(\w+):\s*(.*?)\s*$/ ? ($1 => $2) : () } <$f>};
}

sub is_gone { my ($pid) = @_; return sub { !kill 0, $pid } }

# ---- what runs

my $hd = Heddle::Echo::heddle(workers => 2, conf => "echo_listen 127.0.0.1:%%PORT_0%% hello;\n")->start;
my @workers = $hd->workers;
is @workers, 2, 'two workers';
my ($pid, $text) = Heddle::Echo::greeting($hd);
ok scalar(grep { $_ == $pid } @workers), 'one of them answers';
is $text, 'hello', 'with what the configuration says';
is $hd->file('heddle.pid'), $hd->pid . "\n", 'the pid file names the master';
my $of = status_of($workers[0]);
is $of->{NoNewPrivs}, 1, 'a worker gains no rights by exec';
SKIP: {
    skip 'not started by root', 2 if $> != 0;
    isnt((split ' ', $of->{Uid})[1], 0, "it isn't root");
    is $of->{CapEff}, '0' x 16, 'and has no capability';
}
unlike $hd->log, qr/\[(?:warn|error)\]/, 'nothing to complain of';

# ---- QUIT: what is open is served to its end

my $c = $hd->connect;
Heddle::Echo::greeted($c);
$hd->signal('QUIT');
$hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the port to close');
ok Heddle::Echo::echoes($c), 'QUIT: an open connection is served';
$hd->wait_for(sub { $hd->processes('worker process is shutting down') == 1 }, 'the idle one to end');
pass 'by a worker that says what it does';
$c->close;
$hd->stop; # it ends by itself now; QUIT again does no harm
ok !-e $hd->dir . '/heddle.pid', 'the pid file is gone';

# ---- TERM: at once

$hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:%%PORT_0%% hello;\n")->start;
$c = $hd->connect;
Heddle::Echo::greeted($c);
$hd->stop('TERM');
ok $c->is_eof, 'TERM closes what is open';

# ---- QUIT with a time-out

$hd = Heddle::Echo::heddle(conf => <<'EOC')->start;
worker_shutdown_timeout 50ms;
echo_listen 127.0.0.1:%%PORT_0%% hello;
EOC
$c = $hd->connect;
Heddle::Echo::greeted($c);
$hd->stop;
ok $c->is_eof, 'worker_shutdown_timeout ends a connection that stays open';
like $hd->log, qr/1 connections are still open/, 'and says so';

# ---- a master that is killed

$hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:%%PORT_0%% hello;\n")->start;
my ($worker) = $hd->workers;
kill 'KILL', $hd->pid;
$hd->wait_for(is_gone($worker), 'the worker to follow its master');
$hd->wait_for(sub { $hd->log =~ /the master is gone: gracefully/ }, 'its word');
$hd->expect_exit(0);
$hd->{expect_killed} = 1;
delete @$hd{'pid', 'status'};
pass 'workers end when the master was killed';

# ---- the background

$hd = Heddle::Echo::heddle(conf => <<'EOC');
daemon on;
echo_listen 127.0.0.1:%%PORT_0%% hello;
EOC
my ($status, $out) = $hd->run;
is $status, 0, 'daemon on: the foreground process ends';
is $out, '', 'silently';
($pid, $text) = Heddle::Echo::greeting($hd);
is $text, 'hello', 'when all is up';
my ($master) = $hd->file('heddle.pid') =~ /(\d+)/;
($status, $out) = $hd->run('-s', 'quit');
is $status, 0, '-s quit' or diag $out;
$hd->wait_for(is_gone($master), 'the master to end');
ok !-e $hd->dir . '/heddle.pid', 'its pid file, too';

$hd->conf(Heddle::Echo::conf_text("daemon on;\necho_listen 192.0.2.1:1 x;\n"));
($status, $out) = $hd->run;
is $status, 1, 'what fails before all is up is told in the foreground';
like $out, qr/heddle: \[emerg\] bind\(\) to 192\.0\.2\.1:1 failed: /, 'with the reason';

# ---- one process for all

$hd = Heddle::Echo::heddle(conf => <<'EOC')->start;
master_process off;
echo_listen 127.0.0.1:%%PORT_0%% one;
EOC
($pid, $text) = Heddle::Echo::greeting($hd);
is $pid, $hd->pid, 'master_process off: it answers itself';
$c = $hd->connect;
Heddle::Echo::greeted($c);
$hd->conf(Heddle::Echo::conf_text("master_process off;\necho_listen 127.0.0.1:%%PORT_0%% two;\n"));
ok $hd->reload, 'reload';
is +(Heddle::Echo::greeting($hd))[1], 'two', 'is in force';
ok Heddle::Echo::echoes($c), 'and lost no connection';
$c->close;
$hd->stop;

done_testing;
