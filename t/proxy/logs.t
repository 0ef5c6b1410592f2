#!/usr/bin/perl
# Log files: levels, USR1 opens them anew in every process, a port in use at start.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Socket::INET;
use Heddle;
use Heddle::Echo;

my $hd = Heddle::Echo::heddle(workers => 2, conf => <<'EOC')->start;
echo_listen 127.0.0.1:%%PORT_0%% first %%DIR%%/echo.log;
EOC
my ($pid) = Heddle::Echo::greeting($hd);
$hd->wait_for(sub { $hd->file('echo.log') eq "$pid first\n" }, 'a line in the log');
pass 'a log that a module asked for is written by a worker without rights';

rename $hd->dir . "/$_", $hd->dir . "/$_.1" for 'echo.log', 'error.log';
$hd->signal('USR1');
$hd->wait_for(sub { -e $hd->dir . '/echo.log' }, 'a new log');
my ($old, $new) = (0, 0);
$hd->wait_for(sub {
    my $c = $hd->connect;
    ($pid) = Heddle::Echo::greeted($c);
    $c->close;
    $hd->file('echo.log') =~ /^\d+ first$/m;
}, 'a line in the new log');
pass 'USR1: workers write to the new file';
$hd->signal('HUP');
$hd->wait_log(qr/reload done/);
like $hd->file('error.log.1'), qr/reopening logs/, 'the old error log ends with it';
like $hd->log, qr/reconfiguring/, 'the new one goes on';
$hd->stop;
like $hd->log, qr/\[notice\] (\d+)#\1: gracefully shutting down/, 'for the workers, too';

# At a reload: another error log, another level.
$hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:%%PORT_0%% x;\n")->start;
$hd->conf(Heddle::Echo::conf_text("error_log %%DIR%%/other.log error;\necho_listen 127.0.0.1:%%PORT_0%% y;\n"));
$hd->signal('HUP');
$hd->wait_for(sub { (Heddle::Echo::greeting($hd))[1] eq 'y' }, 'the reload');
$hd->wait_for(sub { -e $hd->dir . '/other.log' }, 'the other log');
$hd->conf(Heddle::Echo::conf_text("error_log %%DIR%%/other.log info;\necho_listen 127.0.0.1:%%PORT_0%% z;\n"));
$hd->signal('HUP');
$hd->wait_for(sub { $hd->file('other.log') =~ /reload done/ }, 'its line');
unlike $hd->file('other.log'), qr/reconfiguring/, 'the level holds';
$hd->stop;

# A port in use, at start.
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
my $port = $taken->sockport;
$hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:$port x;\n");
my ($status, $out) = $hd->run;
is $status, 1, 'a port in use';
my @tries = $out =~ /^heddle: \[emerg\] bind\(\) to 127\.0\.0\.1:$port failed: Address already in use$/mg;
is @tries, 5, 'is tried five times';
like $out, qr/^heddle: \[emerg\] still could not bind\(\)/m, 'and then it is told';
ok !-e $hd->dir . '/heddle.pid', 'no pid file is left';

# One that becomes free meanwhile.
$hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:$port x;\n");
$hd->expect_log(qr/bind\(\) to 127\.0\.0\.1:$port failed/);
$hd->{ports}{0} = $port;
$hd->{pid} = $hd->_spawn($hd->dir . '/output');
$hd->wait_log(qr/bind\(\) to 127\.0\.0\.1:$port failed/);
close $taken;
$hd->wait_log(qr/all processes are ready/);
is +(Heddle::Echo::greeting($hd))[1], 'x', 'a port that becomes free in time is taken';
$hd->stop;

done_testing;
