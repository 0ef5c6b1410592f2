package Heddle::Watch;

# Looks at processes, logs and reports. Used by Heddle.pm.

use strict;
use warnings;
use POSIX ();

# Has the calling process ended when the process $parent does. Not a must: END is the rule.
sub die_with_parent {
    my ($parent) = @_;
    my %prctl = (x86_64 => 157, aarch64 => 167);
    my $nr = $prctl{(POSIX::uname())[4]} or return;
    syscall $nr, 1, 15, 0, 0, 0;
    POSIX::_exit(1) if getppid() != $parent;
}

# The living processes of a process group.
sub group {
    my ($pgrp) = @_;
    my @pids;
    opendir my $d, '/proc' or die "/proc: $!";
    for my $p (grep { /^\d+$/ } readdir $d) {
        open my $f, '<', "/proc/$p/stat" or next;
        my ($state, undef, $of) = (<$f> // '') =~ /\) (\S) (\d+) (\d+)/ or next;
        push @pids, $p if $of == $pgrp && $state ne 'Z' && $state ne 'X';
    }
    return sort { $a <=> $b } @pids;
}

# What must be true once heddle has ended; what isn't is given to $hd->problem.
sub check {
    my ($self) = @_;
    my @bad;
    for my $line (split /\n/, $self->log) {
        next unless $line =~ /\[(?:alert|crit|emerg)\]|\bprocess \d+ (?:exited on signal|died)/;
        next if grep { $line =~ $_ } @{$self->{expect}}, $self->{log_ignored} // ();
        push @bad, $line;
    }
    $self->problem("in the log: $_") for @bad > 20 ? (@bad[0 .. 19], '...') : @bad;
    for my $re (@{$self->{expect}}) {
        $self->problem("expected in the log, but it never came: $re") if $self->log !~ $re;
    }
    for my $report (glob "$self->{dir}/sanitizer.*") {
        open my $f, '<', $report or next;
        my $text = do { local $/; <$f> } // '';
        # A long one says it all in its first lines and its summary.
        my ($summary) = $text =~ /^(SUMMARY.*)/m;
        $text = substr($text, 0, 6000) . "...\n" . ($summary // '') if length $text > 6000;
        $self->problem("a sanitizer reports:\n$text") if $text =~ /\S/;
        rename $report, "$self->{dir}/seen." . (split m{/}, $report)[-1];
    }
    my $out = $self->file('output');
    $self->problem("printed: $1") if $out =~ /^(.*(?:runtime error:|Sanitizer:).*)/m;
}

1;
