#!/usr/bin/perl
# Reload: new resources to living workers, each configuration wholly or not at all.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Socket::INET;
use Heddle;
use Heddle::Echo;

my $hd = Heddle::Echo::heddle(workers => 2, conf => <<'EOC')->start;
echo_listen 127.0.0.1:%%PORT_0%% one;
echo_listen 127.0.0.1:%%PORT_1%% other;
EOC
$hd->wait_for(sub { $hd->workers == 2 }, 'both workers');
my @workers = sort $hd->workers;
my $c = $hd->connect(0);
Heddle::Echo::greeted($c);

# ---- good

$hd->conf(Heddle::Echo::conf_text(<<'EOC'));
echo_listen 127.0.0.1:%%PORT_0%% two;
echo_listen 127.0.0.1:%%PORT_2%% new;
EOC
ok $hd->reload, 'a good one';
is +(Heddle::Echo::greeting($hd, 0))[1], 'two', 'a listener changed';
is +(Heddle::Echo::greeting($hd, 2))[1], 'new', 'one came';
$hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(1)) }, 'the one that went to close');
is_deeply [sort $hd->workers], \@workers, 'by the same workers';
ok Heddle::Echo::echoes($c), 'with the connections they had';

my ($status, $out) = $hd->run('-s', 'reload');
is $status, 0, '-s reload' or diag $out;
$hd->wait_log(qr/reload done/, 2);

# ---- broken: file and line, and the old one stays

sub refused {
    my ($text, $why, $name) = @_;
    $hd->conf($text);
    my $from = length $hd->log;
    ok !$hd->reload, "$name: refused";
    $hd->wait_for(sub { substr($hd->log, $from) =~ /reload failed/ }, 'the reason');
    like substr($hd->log, $from), qr/\[emerg\].* reload failed: $why/, 'with the reason';
    is +(Heddle::Echo::greeting($hd, 0))[1], 'two', 'and the old one in force';
}
$hd->expect_log(qr/reload failed/);
my $conf = quotemeta $hd->conf_path;
my $load = Heddle::Echo::conf_text('');
refused("${load}echo_listen 127.0.0.1:%%PORT_0%% three;\necho_lisen x;\n",
    qr/$conf:\d+: unknown directive "echo_lisen": did you mean "echo_listen"\?/, 'a typo');
refused("${load}echo_listen 127.0.0.1:%%PORT_0%% three;\nevents {\n", qr/$conf:\d+: unexpected end/, 'a cut file');
refused("${load}echo_listen 127.0.0.1:%%PORT_0%% three;\ninclude none.conf;\n",
    qr/$conf:\d+: open "\S+none.conf": No such file/, 'an include that is not there');
refused("${load}echo_listen 127.0.0.1:%%PORT_0%% die-at-reload;\n",
    qr/the loader exited on signal 9/, 'a loader that dies');
$hd->expect_log(qr/loader process \d+ exited on signal 9/);

my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
my $port = $taken->sockport;
refused("${load}echo_listen 127.0.0.1:%%PORT_0%% three;\necho_listen 127.0.0.1:$port x;\n",
    qr/still could not bind\(\): bind\(\) to 127\.0\.0\.1:$port failed: Address already in use/,
    'a port in use');
$hd->expect_log(qr/bind\(\) to 127\.0\.0\.1:$port failed/);

($status, $out) = $hd->run('-s', 'reload');
is $status, 0, '-s reload is not told what the master finds out';
$hd->expect_log(qr/\[emerg\] \S+ $conf:\d+: unknown directive "nonsense"/);
$hd->conf("${load}nonsense;\n");
($status, $out) = $hd->run('-s', 'reload');
is $status, 1, '-s reload fails on a broken file';
like $out, qr/heddle: \[emerg\] $conf:\d+: unknown directive "nonsense"/, 'and says why';
ok Heddle::Echo::echoes($c), 'the first connection is still there';

# ---- many, some while another is at work

$hd->wait_for(sub { !$hd->processes('loader process') }, 'loaders to end');
for my $i (1 .. 30) {
    $hd->conf(Heddle::Echo::conf_text("echo_listen 127.0.0.1:%%PORT_0%% many$i;\n"));
    $hd->signal('HUP');
}
$hd->wait_for(sub { (Heddle::Echo::greeting($hd, 0))[1] eq 'many30' }, 'the last to be in force');
is_deeply [sort $hd->workers], \@workers, 'the workers are the same';
ok Heddle::Echo::echoes($c), 'so is the connection';
$c->close;
$hd->stop;

# ---- SO_REUSEPORT: a socket for each worker

$hd = Heddle::Echo::heddle(workers => 2, conf => "echo_listen 127.0.0.1:%%PORT_0%% own1;\n")->start;
$hd->conf(Heddle::Echo::conf_text("echo_listen 127.0.0.1:%%PORT_0%% own2;\necho_listen 127.0.0.1:%%PORT_1%% own3;\n"));
ok $hd->reload, 'listeners with a socket for each worker';
my %seen;
$hd->wait_for(sub { $seen{(Heddle::Echo::greeting($hd, 1))[0]}++; keys %seen == 2 }, 'both workers to accept');
is +(Heddle::Echo::greeting($hd, 0))[1], 'own2', 'are reloaded alike';

done_testing;
