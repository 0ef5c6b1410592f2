#!/usr/bin/perl
# While a generation is being made: whatever fails or is killed leaves the old one in force, with the cause in the log;
# signals that come meanwhile are heeded. An agent that isn't warm before there is a file holds each step still.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

sub conf_text {
    my ($workers, $text, $more) = @_;
    return "worker_processes $workers;\n" . Heddle::Echo::conf_text(<<"EOC");
echo_listen 127.0.0.1:%%PORT_0%% own-$text %%DIR%%/echo.log;
echo_agent 127.0.0.1:%%PORT_1%% $text;
echo_cold %%DIR%%/warm-$text;
@{[$more // '']}
EOC
}

sub new_heddle { return Heddle->new(log_level => 'notice')->conf(conf_text(2, 'first'))->start }

my $hd = new_heddle();
$hd->wait_log(qr/the agent has published/);
my @workers = sort $hd->workers;
my ($agent) = $hd->processes('agent');
my $c = $hd->connect;
Heddle::Echo::greeted($c);

sub warm { $hd->write("warm-$_[0]", '') }

# Begins a generation; returns when its agent, by then the second one, is there.
sub begin {
    $hd->conf(conf_text(@_));
    my $from = length $hd->log;
    $hd->signal('HUP');
    $hd->wait_for(sub { substr($hd->log, $from) =~ /the agent has published/ }, 'its agent');
    return grep { $_ != $agent } $hd->processes('agent');
}

sub stays {
    my ($why, $name, $from) = @_;
    $hd->wait_for(sub { substr($hd->log, $from) =~ /reload failed/ }, 'the reason');
    like substr($hd->log, $from), qr/\[emerg\].* reload failed: $why; the configuration in force before stays so/, $name;
    $hd->wait_for(sub { $hd->processes('agent') == 1 && $hd->workers == 2 }, 'the new ones to end');
    is_deeply [sort($hd->workers), $hd->processes('agent')], [@workers, $agent], 'by the same processes';
    is_deeply [map { (Heddle::Echo::greeting($hd, 0))[1] } 1 .. 6], [('own-first') x 6], 'which answer all';
    is +(Heddle::Echo::greeting($hd, 1))[1], 'first', "by the agent's listener, too";
    ok Heddle::Echo::echoes($c), 'with the connections they had';
}

$hd->expect_log(qr/reload failed/, qr/exited on signal 9/);

# ---- killed

my $from = length $hd->log;
my ($new) = begin(3, 'killed-agent');
is scalar($hd->workers), 2, 'no new worker before the agent is warm';
kill 'KILL', $new;
stays(qr/the new agent process exited on signal 9/, 'its agent killed', $from);

$from = length $hd->log;
$hd->conf(conf_text(3, 'killed-worker', 'echo_worker die;'));
warm('killed-worker');
$hd->signal('HUP');
stays(qr/the new worker process exited on signal 9/, 'its worker killed', $from);

$from = length $hd->log;
$hd->expect_log(qr/worker process: module echo: as told/, qr/worker process \d+ exited with code 2/);
$hd->conf(conf_text(3, 'refused', 'echo_worker refuse;'));
warm('refused');
$hd->signal('HUP');
stays(qr/the new worker process exited with code 2/, "its worker can't start", $from);

$from = length $hd->log;
$hd->conf(conf_text(3, 'x', "echo_listen 127.0.0.1:%%PORT_5%% die-at-reload;"));
$hd->signal('HUP');
stays(qr/the loader exited on signal 9 while it was at work/, 'its loader killed', $from);

# ---- broken

my $conf = quotemeta $hd->conf_path;
$from = length $hd->log;
$hd->conf(conf_text(3, 'x', 'echo_lisen x;'));
$hd->signal('HUP');
stays(qr/$conf:\d+: unknown directive "echo_lisen".*/, 'broken text', $from);

for (['daemon on;', 'daemon'], ['daemon off; master_process off;', 'master_process']) {
    my ($text, $name) = @$_;
    $from = length $hd->log;
    $hd->conf("$text\n" . conf_text(3, 'x'));
    $hd->signal('HUP');
    stays(qr/$conf:\d+: "$name" can't be changed in running processes: stop and start heddle, or put it back/,
        "$name is settled at the start", $from);
}

# ---- signals

($new) = begin(4, 'second');
rename $hd->dir . '/echo.log', $hd->dir . '/echo.log.1';
$hd->signal('USR1');
$hd->wait_for(sub { -e $hd->dir . '/echo.log' }, 'the log to be opened anew');
Heddle::Echo::greeting($hd, 0);
$hd->wait_for(sub { $hd->file('echo.log') =~ /own-first/ }, 'USR1: the old workers write to it');
pass 'USR1 while a generation is being made';

$hd->conf(conf_text(1, 'third')); # HUP again: after this one
$hd->signal('HUP');
warm('second');
$hd->wait_log(qr/reload done: generation \d+ is in force/);
warm('third');
$hd->wait_log(qr/reload done: generation \d+ is in force/, 2);
is +(Heddle::Echo::greeting($hd, 0))[1], 'own-third', 'HUP: another reload follows';
$hd->wait_for(sub { (Heddle::Echo::greeting($hd, 1))[1] eq 'third' }, "the agent's listener");
$hd->wait_for(sub { $hd->processes('agent') == 1 }, 'the old agents to end');
ok Heddle::Echo::echoes($c), 'what was open in the first still is';
$hd->wait_for(sub { $hd->file('echo.log') =~ /own-third/ }, 'the log that was opened anew to be in use');
$c->close;
$hd->wait_for(sub { $hd->workers == 1 }, 'all that drained to end');
$hd->stop;

for my $signal ('QUIT', 'TERM') {
    $hd = new_heddle();
    $hd->wait_log(qr/the agent has published/);
    ($agent) = $hd->processes('agent');
    begin(3, 'second');
    $hd->stop($signal);
    pass "$signal while a generation is being made ends all";
}

done_testing;
