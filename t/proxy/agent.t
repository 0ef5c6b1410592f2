#!/usr/bin/perl
# The agent: sockets of its listeners are put in place in all workers before it publishes;
# privileged sockets come from the master; its death and a worker's cost nothing.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Socket::INET;
use Heddle;
use Heddle::Echo;

my $hd = Heddle::Echo::heddle(workers => 2, conf => <<'EOC')->start;
echo_listen 127.0.0.1:%%PORT_0%% file;
echo_agent 127.0.0.1:%%PORT_1%% dynamic;
echo_low_port 127.0.0.77:1;
EOC
$hd->wait_log(qr/the agent has published/);
my ($pid, $text) = Heddle::Echo::greeting($hd, 1);
is $text, 'dynamic', "the agent's listener answers";
ok scalar(grep { $_ == $pid } $hd->workers), 'in a worker';
my ($agent) = $hd->processes('agent');
SKIP: {
    skip 'not started by root', 2 if $> != 0;
    open my $f, '<', "/proc/$agent/status" or die;
    my ($uid) = map { /^Uid:\s+(\d+)/ ? $1 : () } <$f>;
    isnt $uid, 0, "the agent isn't root";
    $hd->wait_log(qr/the broker gave /);
    like $hd->log, qr/the broker gave a socket/, 'a port below 1024 comes from the master';
}
SKIP: {
    skip 'the leak checker wants to trace it', 1 if Heddle::feature('HD_SANITIZE_ADDRESS');
    ok !-o "/proc/$agent/mem" || $> == 0 && (stat "/proc/$agent/mem")[4] == 0, 'and can be traced by root alone';
}

my $c = $hd->connect(1);
my ($mine) = Heddle::Echo::greeted($c);

# A worker's replacement has the agent's socket, too.
my $victim = $hd->wait_for(sub { (grep { $_ != $mine } $hd->workers)[0] }, 'the other worker');
$hd->expect_log(qr/(?:worker|agent) process \d+ exited on signal 9/);
kill 'KILL', $victim;
my $heir = $hd->wait_for(sub { (grep { $_ != $mine && $_ != $victim } $hd->workers)[0] }, 'its replacement');
$hd->freeze($mine);
is +(Heddle::Echo::greeting($hd, 1))[0], $heir, "a worker's replacement accepts on it";
kill 'CONT', $mine;

# The agent's: it publishes anew, over the same socket.
kill 'KILL', $agent;
$hd->wait_log(qr/the agent has published/, 2);
is +(Heddle::Echo::greeting($hd, 1))[1], 'dynamic', "the agent's replacement goes on";
ok Heddle::Echo::echoes($c), 'and nobody noticed';

# A reload leaves what is the agent's alone; its block may go and come.
ok $hd->reload, 'a reload';
is +(Heddle::Echo::greeting($hd, 1))[1], 'dynamic', "doesn't touch the agent's listeners";
$hd->conf(Heddle::Echo::conf_text("echo_listen 127.0.0.1:%%PORT_0%% alone;\n"));
ok $hd->reload, 'a reload without the block';
$hd->wait_for(sub { !$hd->processes('agent') }, 'the agent to end');
is +(Heddle::Echo::greeting($hd, 0))[1], 'alone', 'the rest goes on';
$c->close;
$hd->stop;

# A port in use: the agent hears of it, the rest runs.
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
my $port = $taken->sockport;
$hd = Heddle::Echo::heddle(conf => <<"EOC")->start;
echo_listen 127.0.0.1:%%PORT_0%% file;
echo_agent 127.0.0.1:$port dynamic;
EOC
$hd->expect_log(qr/bind\(\) to 127\.0\.0\.1:$port failed/);
$hd->wait_log(qr/the agent was refused: still could not bind\(\)/);
is +(Heddle::Echo::greeting($hd, 0))[1], 'file', "what can't be bound is the agent's to know";
$hd->stop;

# In one process.
$hd = Heddle::Echo::heddle(conf => <<'EOC')->start;
master_process off;
echo_listen 127.0.0.1:%%PORT_0%% file;
echo_agent 127.0.0.1:%%PORT_1%% dynamic;
EOC
is +(Heddle::Echo::greeting($hd, 1))[1], 'dynamic', 'master_process off: the same';

done_testing;
