#!/usr/bin/perl
# Runs the fuzz targets that `make fuzz` has built in objs-fuzz/fuzz (HD_BUILD names another
# directory): first all that lies in corpus/, corpus.tgz (keep.pl) and regression/ and what seeds.pl makes of
# the tests, then new inputs, FUZZ_SECONDS (60) in all, which are kept in objs-fuzz/corpus. FUZZ names targets:
# all of them if it is empty. A finding is left in objs-fuzz/found.
use strict;
use warnings;
use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use Test::More;

chdir dirname(__FILE__) . '/..' or die "chdir: $!\n";
my $build = $ENV{HD_BUILD} // 'objs-fuzz';
my @targets = split ' ', $ENV{FUZZ} // '';
@targets = map { basename(dirname($_)) } sort glob 'fuzz/*/*.c' unless @targets;
# At least one second each; 0 is for ever to libFuzzer.
system($^X, 'fuzz/seeds.pl', $build) == 0 or die "seeds.pl failed\n";
my $each = int(($ENV{FUZZ_SECONDS} // 60) / @targets) || 1;

for my $target (@targets) {
    make_path("$build/corpus/$target", "$build/found");
    my $kept = "$build/kept/$target";
    make_path($kept);
    system("tar -xzf fuzz/$target/corpus.tgz -C $kept") == 0 or die "tar failed\n" if -f "fuzz/$target/corpus.tgz";
    my @dirs = grep { -d } "fuzz/$target/corpus", "fuzz/$target/regression", "$build/seeds/$target", $kept;
    my @dict = map { "-dict=$_" } grep { -f } "$build/dict/$target";
    my $log = `$build/fuzz/$target -max_total_time=$each -timeout=120 -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix=$build/found/$target- @dict $build/corpus/$target @dirs 2>&1`;
    my $status = $?;
    my ($n) = $log =~ /^stat::number_of_executed_units:\s*(\d+)/m;
    # Whoever counts inputs knows that the target ran at all.
    ok $status == 0 && $n, "$target: " . ($n // 0) . ' inputs' or diag substr($log, -8000);
}
done_testing;
