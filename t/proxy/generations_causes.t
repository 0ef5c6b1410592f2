#!/usr/bin/perl
# Which changes start new processes, and which don't.
use strict;
use warnings;
use lib 't/lib';
use File::Copy ();
use Test::More;
use Heddle;
use Heddle::Echo;

my $hd = Heddle->new(log_level => 'notice');
my $generation = 1;
my %conf = (load => 'load_module %%DIR%%/echo.so;', text => 'one', events => '');
my @main = qw(workers nofile timeout loom user more); # each a line, if it is set

# A new file under the same name, as a package manager puts it there.
sub put_module {
    File::Copy::copy(Heddle::Echo::path(), $hd->dir . '/echo.so.new') or die "copy: $!";
    rename $hd->dir . '/echo.so.new', $hd->dir . '/echo.so' or die "rename: $!";
}

sub write_conf {
    %conf = (%conf, @_);
    $hd->conf(join "\n", $conf{load}, (map { $conf{$_} // '' } @main), "events { $conf{events} }",
        "echo_listen 127.0.0.1:%%PORT_0%% $conf{text};\n");
}

sub new_processes {
    my ($name, $what, @change) = @_;
    my %old = map { $_ => 1 } $hd->workers;
    my $from = length $hd->log;
    write_conf(@change);
    $hd->signal('HUP');
    $generation++;
    $hd->wait_log(qr/reload done: generation $generation is in force/);
    like substr($hd->log, $from), qr/$what changed: new processes are started/, $name;
    $hd->wait_for(sub { my @now = $hd->workers; @now && !grep { $old{$_} } @now }, 'the old worker to end');
}

sub same_processes {
    my ($name, @change) = @_;
    my @old = $hd->workers;
    write_conf(@change);
    ok $hd->reload && "@{[$hd->workers]}" eq "@old", $name;
}

put_module();
write_conf();
$hd->start;
same_processes('nothing: the same workers');
same_processes('a resource: the same workers', text => 'two');
new_processes('worker_processes', '"worker_processes"', workers => 'worker_processes 2;');
new_processes('and back', '"worker_processes"', workers => '');
new_processes('worker_connections', '"worker_connections"', events => 'worker_connections 77;');
new_processes('worker_rlimit_nofile', '"worker_rlimit_nofile"', nofile => 'worker_rlimit_nofile 4096;');
my ($worker) = $hd->workers;
open my $limits, '<', "/proc/$worker/limits" or die;
ok scalar(grep { /^Max open files\s+4096\s/ } <$limits>), 'which the new worker has';
new_processes('worker_shutdown_timeout', '"worker_shutdown_timeout"', timeout => 'worker_shutdown_timeout 5s;');
new_processes('loom_size', '"loom_size"', loom => 'loom_size 64m;');
SKIP: {
    skip 'not started by root', 2 if $> != 0;
    my ($name, $uid) = (getpwnam 'daemon')[0, 2];
    skip 'no user daemon', 2 if !$name;
    new_processes('user', '"user"', user => "user $name;");
    is +(stat '/proc/' . ($hd->workers)[0])[4], $uid, 'whom the new worker runs as';
}
my $more = "load_module $Heddle::build/modules/hd_fault_module.so;";
new_processes('a module more', '"\S+/hd_fault_module\.so"', more => $more);
new_processes('a module less', '"load_module"', more => '');
same_processes('a resource again: the same workers', text => 'three');
put_module();
new_processes("a module's file was replaced", '"\S+/echo\.so"');
new_processes('and another number of workers at once', '"worker_processes"', workers => do { put_module(); 'worker_processes 3;' });
is +(Heddle::Echo::greeting($hd, 0))[1], 'three', 'all of which serve';
is scalar($hd->workers), 3, 'as many as there should be';

done_testing;
