package Heddle::Daemon;

# Masters in the background (`daemon on`), which the harness doesn't look after: for tests of binary upgrades.
#
#   my $old = start_daemon($hd);              # the master's pid
#   my $new = start_new_binary($hd, $old);    # USR2; the new master's, once its processes are ready
#   send_to(WINCH => $old); is_gone($pid); pid_in($hd, 'heddle.pid');
#   serving($pid) draining($pid)              # how many workers of a master do either
#   children($pid, 'agent')                   # by title
# Masters that are left when the test ends are killed.

use strict;
use warnings;
use Exporter 'import';
use Heddle;

our @EXPORT = qw(start_daemon start_new_binary send_to is_gone pid_in serving draining children);

my %masters;
my $test = $$;

END {
    if ($$ == $test) {
        my $status = $?;
        kill 'KILL', grep { title($_) =~ /master process/ } keys %masters; # only where something went wrong
        $? = $status;
    }
}

sub title {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/cmdline" or return '';
    local $/;
    return readline($f) // '';
}

sub children {
    my ($master, $role) = @_;
    my @found;
    for my $dir (glob '/proc/[0-9]*') {
        open my $f, '<', "$dir/stat" or next;
        my ($pid, $parent) = (readline($f) // '') =~ /^(\d+) \(.*\) \S (\d+)/ or next;
        push @found, $pid if $parent == $master && title($pid) =~ /: \Q$role\E/;
    }
    return @found;
}

sub serving  { children($_[0], 'worker process') - children($_[0], 'worker process is shutting down') }
sub draining { scalar children($_[0], 'worker process is shutting down') }
sub is_gone  { title($_[0]) eq '' } # a zombie has none

sub send_to { my ($signal, $pid) = @_; kill $signal, $pid or die "kill $signal $pid: $!\n" }

sub pid_in {
    my ($hd, $name) = @_;
    my ($pid) = $hd->file($name) =~ /^(\d+)\n/ or return 0;
    $masters{$pid} = 1;
    return $pid;
}

sub start_daemon {
    my ($hd) = @_;
    my ($status, $out) = $hd->run;
    die "it ended with $status: $out\n" if $status;
    return pid_in($hd, 'heddle.pid');
}

sub start_new_binary {
    my ($hd, $old) = @_;
    my $ready = () = $hd->log =~ /all processes are ready/g;
    send_to(USR2 => $old);
    $hd->wait_log(qr/all processes are ready/, $ready + 1);
    return pid_in($hd, 'heddle.pid');
}

1;
