#!/usr/bin/perl
# fuzz/keep.pl [TARGET...]: keeps what long runs found: of objs-fuzz/corpus/TARGET (HD_BUILD names another
# directory) the small inputs that reach code which neither the tests' inputs nor corpus/ reach, as
# fuzz/TARGET/corpus.tgz, which run.t unpacks.
use strict;
use warnings;
use File::Basename qw(basename dirname);
use File::Copy qw(cp);
use File::Temp qw(tempdir);

use constant BYTES_MAX => 2048; # of an input

chdir dirname(__FILE__) . '/..' or die "chdir: $!\n";
my $build = $ENV{HD_BUILD} // 'objs-fuzz';
my @targets = @ARGV ? @ARGV : map { basename(dirname($_)) } sort glob 'fuzz/*/*.c';

sub copy_small { my ($to, @from) = @_; cp($_, $to) for grep { -f && -s _ <= BYTES_MAX } @from }

system($^X, 'fuzz/seeds.pl', $build) == 0 or die "seeds.pl failed\n";
for my $target (@targets) {
    my ($known, $new) = (tempdir(CLEANUP => 1), tempdir(CLEANUP => 1));
    copy_small($new, glob "$build/corpus/$target/* $build/kept/$target/*");
    copy_small($known, glob "fuzz/$target/corpus/* fuzz/$target/regression/* $build/seeds/$target/*");
    my %is_known = map { basename($_) => 1 } glob "$known/*";
    my $log = `$build/fuzz/$target -merge=1 -rss_limit_mb=4096 $known $new 2>&1`;
    die "$target: $log" if $?;
    my @found = sort grep { !$is_known{$_} } map { basename($_) } glob "$known/*";
    printf "%-16s %d\n", $target, scalar @found;
    next if !@found;
    system("tar -C $known --sort=name --mtime=\@0 --owner=0 --group=0 --numeric-owner -c @found | gzip -9n >fuzz/$target/corpus.tgz") == 0
        or die "tar: $?\n";
}
