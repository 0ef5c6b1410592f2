#!/usr/bin/perl
# The demo: all of it is so; with a feature taken out of the mesh it is not, in that feature's
# step; nothing is left behind. Needs: python3.
use strict;
use warnings;
use File::Temp;
use FindBin;
use Test::More;

my $top = "$FindBin::Bin/../..";
my $build = $ENV{HD_BUILD} || 'objs';
my $at_once = 3;

my @runs = (
    ['', qr/All of it was so\./],
    [authz => qr/NOT SO gateway +-> page \/admin/],
    [mtls => qr/NOT SO without a certificate/],
    [fault => qr/NOT SO details, for end-user: patient/],
    [retry => qr/NOT SO ratings fails twice/],
    -f "$top/$build/modules/hd_lua_module.so" ? [lua => qr/NOT SO user-agent: SomeBot/] : (),
    [canary => qr/NOT SO the shares follow the weights/],
    [metrics => qr/NOT SO gateway, all answered/],
    [kill => qr/NOT SO the other 0 connections/],
);

# Each in a directory for temporary files of its own, so that what it leaves there is seen.
sub start {
    my ($run) = @_;
    $run->{tmp} = File::Temp->newdir;
    my $pid = open $run->{out}, '-|';
    die "fork: $!" unless defined $pid;
    return if $pid;
    $ENV{TMPDIR} = "$run->{tmp}";
    $ENV{DEMO_WITHOUT} = $run->{without};
    $ENV{DEMO_BUILT} = 1;
    $ENV{HD_BUILD} = $build;
    $ENV{PYTHONIOENCODING} = 'ascii';
    chmod 0755, "$run->{tmp}";
    open STDERR, '>&', \*STDOUT;
    exec "$top/demo", '--once';
    die "exec: $!";
}

my @queue = map { {without => $_->[0], want => $_->[1]} } @runs;
my @running;
while (@queue || @running) {
    while (@queue && @running < $at_once) {
        push @running, shift @queue;
        start($running[-1]);
    }
    my $run = shift @running;
    my $text = do { local $/; readline $run->{out} };
    close $run->{out}; # waits for it
    my $status = $? >> 8;
    my $name = $run->{without} ? "without $run->{without}" : 'whole';
    is $status, ($run->{without} ? 1 : 0), "$name: status" or diag $text;
    like $text, $run->{want}, "$name: told so";
    unlike $text, qr/Traceback/, "$name: no error of the demo's own";
    my @left = glob "$run->{tmp}/*";
    is "@left", '', "$name: no file is left";
    my @processes = qx{ps -eo pid,args};
    is join('', grep { index($_, "$run->{tmp}/") >= 0 } @processes), '', "$name: no process is left";
}

# ---- a user's run, ended by Ctrl-C (and by what else ends one), in the show and after it

for (['INT', 'after the show', qr/Ctrl-C ends it all.*reviews\.yaml\n/s], ['INT', 'in the show', qr/^ 2 /m],
    ['TERM', 'in the show', qr/^ 1 /m], ['HUP', 'in the show', qr/^ 1 /m]) {
    my ($signal, $when, $until) = @$_;
    my $tmp = File::Temp->newdir;
    chmod 0755, "$tmp";
    my $pid = open my $out, '-|';
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        setpgrp; # as a terminal's foreground job: Ctrl-C goes to all of it
        $SIG{$_} = 'DEFAULT' for 'INT', 'TERM', 'HUP';
        @ENV{qw(TMPDIR DEMO_BUILT HD_BUILD PYTHONIOENCODING PYTHONUNBUFFERED)} = ("$tmp", 1, $build, 'ascii', 1);
        open STDERR, '>&', \*STDOUT;
        exec "$top/demo";
        die "exec: $!";
    }
    my $text = '';
    while ($text !~ $until) {
        sysread $out, $text, 65536, length $text or last;
    }
    like $text, $until, "SIG$signal $when: it runs";
    kill $signal, -$pid;
    1 while sysread $out, $text, 65536, length $text;
    close $out;
    is $?, 0, "SIG$signal $when: status" or diag $text;
    unlike $text, qr/Traceback/, "SIG$signal $when: no error of the demo's own";
    is join(' ', glob "$tmp/*"), '', "SIG$signal $when: no file is left";
    is join('', grep { index($_, "$tmp/") >= 0 } qx{ps -eo pid,args}), '', "SIG$signal $when: no process is left";
}
done_testing;
