# core/loom's stress test under TSan, from a plain build: its threads race on nothing.

use strict;
use warnings;
use Test::More;

my $build = $ENV{HD_BUILD} || 'objs';
plan skip_all => 'the plain run has it' if $build =~ /san$/;
my $program = "$build/t/unit/loom_stress_tsan";
plan skip_all => 'the compiler has no TSan' if `cat $build/Makefile` !~ /^HD_TSAN := yes$/m;

# TSan of gcc 12 knows no addresses as random as newer kernels make them.
my @fixed = system('setarch -R true 2>/dev/null') == 0 ? ('setarch', '-R') : ();
open my $out, '-|', 'sh', '-c', 'exec "$@" 2>&1', '-', @fixed, $program or die "$program: $!";
my ($good, $said) = (0, '');
while (my $line = <$out>) {
    $said .= $line;
    $good++ if $line =~ /^ok \d+ - threads: /;
}
close $out;
is $?, 0, 'all is well' or diag $said;
unlike $said, qr/ThreadSanitizer/, 'no race';
cmp_ok $good, '>=', 9, 'threads, one and all';
like $said, qr/^ok \d+ - processes: /m, 'processes, some of them killed';
like $said, qr/^ok \d+ - one thread: /m, 'and members that take turns in one';
like `nm $program`, qr/ T __tsan_init\b| U __tsan_init\b/, 'it is a program that TSan watches';
done_testing;
