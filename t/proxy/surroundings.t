#!/usr/bin/perl
# worker_priority, worker_cpu_affinity, worker_rlimit_core, working_directory, env: what the system says of the processes.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

my $hd = Heddle->new(log_level => 'notice', env => {TZ => 'UTC-3', HD_KEPT => 'kept', HD_LOST => 'lost', HD_SET => 'before'});
my $top_dir = $hd->dir;
mkdir "$top_dir/cores";
chmod 0755, $top_dir;
my ($mine) = status_of($$) =~ /^Cpus_allowed:\s+(\S+)/m;
my @cpus = cpus_of($mine); # what this test may use
my $mask = sub { '1' . '0' x $_[0] };

sub status_of { proc($_[0], 'status') }

sub proc {
    my ($pid, $name) = @_;
    open my $f, '<', "/proc/$pid/$name" or return '';
    local $/;
    return readline($f) // '';
}

# Numbers of the bits in "3,ffffffff".
sub cpus_of {
    my ($hex) = @_;
    my @digits = reverse split //, $hex =~ s/,//gr;
    return grep { hex($digits[$_ / 4] // 0) >> $_ % 4 & 1 } 0 .. 4 * @digits - 1;
}

sub cpus { my ($pid) = @_; return join ' ', cpus_of(status_of($pid) =~ /^Cpus_allowed:\s+(\S+)/m) }

# Of the CPU time of ps: the 19th field of stat.
sub nice { my ($pid) = @_; return (split ' ', proc($pid, 'stat') =~ s/^.*\) //r)[16] }
sub core_limit { my ($pid) = @_; return join ' ', proc($pid, 'limits') =~ /^Max core file size\s+(\S+)\s+(\S+)/m }

sub conf {
    my ($workers, $more) = @_;
    $hd->conf(Heddle::Echo::conf_text(<<"EOC"));
worker_processes $workers;
admin %%ADMIN%%;
$more
echo_listen 127.0.0.1:%%PORT_0%% text;
EOC
}

sub environment {
    my ($name) = @_;
    my $c = $hd->connect(0);
    Heddle::Echo::greeted($c);
    $c->send("env $name\n");
    my $value = $c->read_until(qr/\n/);
    chomp $value;
    return $value;
}

sub reloads {
    my ($what) = @_;
    my $from = length $hd->log;
    my %old = map { $_ => 1 } $hd->workers, $hd->processes('agent');
    ok $hd->reload, "a reload with another $what";
    like substr($hd->log, $from), qr/"$what" changed: new processes are started/, 'starts new processes';
    $hd->wait_for(sub { my @now = ($hd->workers, $hd->processes('agent')); @now > 1 && !grep { $old{$_} } @now }, 'the new ones alone');
}

# ---- nothing set: as it was; but of the environment TZ alone

conf(1, '');
$hd->start;
my ($worker) = $hd->workers;
my ($agent) = $hd->processes('agent');
my $master_nice = nice($hd->pid);
is nice($worker), $master_nice, 'the priority of the master';
is cpus($worker), "@cpus", 'all CPUs';
is readlink("/proc/$worker/cwd"), readlink("/proc/@{[$hd->pid]}/cwd"), 'the directory of the master';
is environment('TZ'), 'UTC-3', 'TZ is kept';
is environment($_), '(none)', "$_ isn't" for 'HD_KEPT', 'HD_LOST', 'HD_SET', 'PATH';

# ---- all set

my $first = $cpus[0];
my $last = $cpus[-1];
my $priority = $master_nice + 3 > 19 ? 19 : $master_nice + 3;
conf(3, <<"EOC");
worker_priority $priority;
worker_cpu_affinity @{[$mask->($first)]} @{[$mask->($last)]};
worker_rlimit_core 64k;
working_directory cores;
env HD_KEPT;
env HD_SET=before;
env HD_SET=after=all;
env HD_NOT_THERE;
env HD_EMPTY=;
EOC
reloads('worker_processes');
my @workers = sort { $a <=> $b } $hd->workers;
($agent) = $hd->processes('agent');
is nice($_), $priority, 'worker_priority' for @workers;
is nice($agent), $master_nice, 'of workers alone';
is join(', ', map { cpus($_) } @workers), "$first, $last, $last", 'worker_cpu_affinity: the last mask is that of all others';
is cpus($agent), "@cpus", 'of workers alone';
is core_limit($_), '65536 65536', 'worker_rlimit_core' for @workers, $agent;
is readlink("/proc/$_/cwd"), "$top_dir/cores", 'working_directory' for @workers, $agent;
is environment('HD_KEPT'), 'kept', 'env NAME';
is environment('HD_SET'), 'after=all', 'env NAME=VALUE; the last line counts';
is environment('HD_EMPTY'), '', 'which may be empty';
is environment('TZ'), 'UTC-3', 'TZ is kept without a line';
is environment($_), '(none)', "$_ isn't there" for 'HD_LOST', 'HD_NOT_THERE', 'PATH';

# ---- changed, one by one

my %set = (worker_priority => $priority, worker_cpu_affinity => 'auto', worker_rlimit_core => '64k', working_directory => 'cores',
    env => 'TZ=UTC-5');
my $set = sub { join '', map { "$_ $set{$_};\n" } sort keys %set };
conf(3, $set->());
reloads('env');
is environment('TZ'), 'UTC-5', 'TZ=VALUE';
@workers = sort { $a <=> $b } $hd->workers;
is join(', ', map { cpus($_) } @workers), join(', ', map { $cpus[$_ % @cpus] } 0 .. 2), 'auto: a CPU for each, in turn';
for (['worker_cpu_affinity', "auto @{[$mask->($last)]}"], ['worker_rlimit_core', '32k'], ['working_directory', "$top_dir/logs"], ['worker_priority', 19]) {
    my ($name, $value) = @$_;
    $set{$name} = $value;
    conf(3, $set->());
    reloads($name);
}
@workers = $hd->workers;
is join(' ', map { cpus($_) } @workers), "$last $last $last", 'auto MASK: of these alone';
is core_limit($workers[0]), '32768 32768', 'another size';
is readlink("/proc/$workers[0]/cwd"), "$top_dir/logs", 'another directory';
is nice($workers[0]), 19, 'another priority';

# ---- what the system refuses is told, and goes on

$set{worker_cpu_affinity} = $mask->(1023);
conf(3, $set->());
$hd->expect_log(qr/\[alert\] .*worker_cpu_affinity: sched_setaffinity\(\) failed: .*: are there these CPUs\?/);
reloads('worker_cpu_affinity');
is environment('TZ'), 'UTC-5', 'a mask of CPUs that are not there: workers run where they can';

done_testing;
