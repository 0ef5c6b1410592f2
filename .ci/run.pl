#!/usr/bin/perl
# What continuous integration runs: the tests plain, the tests sanitized, clang's warnings, the fuzz
# targets for a minute, the demo. Stops at the first run that fails. Its last line sums what the runs
# themselves reported.

use strict;
use warnings;
use File::Basename qw(dirname);

chdir dirname(__FILE__) . '/..' or die "chdir: $!\n";
$| = 1;
my ($passed, $failed) = (0, 0);
my @again; # the test files that failed beside others and passed by themselves

# Runs a command, passes on its output and counts prove's tests in it.
sub run {
    my (@cmd) = @_;
    my ($tests, $bad, $status) = count(@cmd);
    # What failed without a test that did (a build, a crash, the demo) counts as one.
    $bad = 1 if $status && !$bad;
    $passed += $tests - $bad > 0 ? $tests - $bad : 0;
    $failed += $bad;
    finish(1) if $status || $bad;
}

sub count {
    my (@cmd) = @_;
    my ($tests, $bad, $is_again) = (0, 0, 0);
    print "== @cmd\n";
    open my $out, '-|', "@cmd 2>&1" or die "@cmd: $!\n";
    while (my $line = <$out>) {
        print $line;
        # prove, of each file that isn't all well, and at its end
        if ($line =~ /\(Wstat: (\d+).*Tests: \d+ Failed: (\d+)\)/) {
            $bad += $2 || ($1 ? 1 : 0);
        } elsif ($line =~ /^Files=\d+, Tests=(\d+)/) {
            $tests += $1 if !$is_again; # they are among the first run's
        } elsif ($line =~ /^Once more, one by one/) {
            ($bad, $is_again) = (0, 1);
        } elsif ($is_again && $line =~ /^(\S+)\s\.+\sok$/) {
            push @again, $1;
        }
    }
    close $out;
    return ($tests, $bad, $?);
}

sub finish {
    print "passed in a second run only: @again\n" if @again;
    print "$passed passed, $failed failed\n";
    exit $_[0];
}

run('./check');
run('./check', '--sanitize');
run('./check', '--clang');
run('./check', '--fuzz');
if (-x 'demo' && -f 'demo') {
    run('./demo', '--once');
    $passed++;
}
finish(0);
