#!/usr/bin/perl
# The number by which a module is known to fit (HD_MODULE_ABI) is made of where every public
# struct's fields lie: a swap of two of one size changes it, a comment doesn't.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

my $top = abs_path(dirname(__FILE__) . '/../..');
my $build = $ENV{HD_BUILD} // 'objs';
$build = "$top/$build" unless $build =~ m{^/};
my $dir = tempdir(CLEANUP => 1);

sub slurp { local (@ARGV, $/) = $_[0]; return scalar <> }
sub spew { my ($file, $text) = @_; open my $f, '>', $file or die "$file: $!"; print $f $text; close $f }

system("cd $top && find src/core src/hd_version.h -name '*.h' | cpio -pdm --quiet $dir 2>/dev/null") == 0
    or system("mkdir -p $dir/src && cp -r $top/src/core $dir/src/ && cp $top/src/*.h $dir/src/") == 0 or die 'cp';
spew("$dir/print.c", "#include \"core/hd_module.h\"\n#include <stdio.h>\nint main(void) { printf(\"%08x\", HD_MODULE_ABI); return 0; }\n");

# The number, as headers and generator are now in <dir>; <flags> for the compiler of who asks.
sub number {
    my ($flags) = @_;
    my $includes = "-std=gnu11 -D_GNU_SOURCE -Isrc -I$build -I$build/proto -I$top/src/proto";
    # what the build has made is not to be found before ours
    system("cd $dir && mkdir -p gen && perl $top/auto/abi 'cc $includes' core/hd_module.h >gen/hd_abi.h"
        . " && cc -Igen $flags $includes print.c -o print") == 0 or die 'the headers don\'t compile';
    return `$dir/print`;
}

my $header = "$dir/src/core/hd_module.h";
my $cluster = "$dir/src/core/net/hd_cluster.h";
my ($text, $cluster_text) = (slurp($header), slurp($cluster));
my $is = number('');
like $is, qr/^[0-9a-f]{8}$/, 'a number';
is number(''), $is, 'always the same';

sub changed {
    my ($what, $file, $from, $to) = @_;
    my $old = slurp($file);
    (my $new = $old) =~ s/$from/$to/ or die "$what: nothing to change";
    spew($file, $new);
    my $number = number('');
    spew($file, $old);
    return $number;
}

my $swap = sub {
    my ($what, $file, $a, $b) = @_;
    my $old = slurp($file);
    (my $new = $old) =~ s/\b$a\b/\0/ or die "no $a";
    $new =~ s/\b$b\b/$a/ or die "no $b";
    $new =~ s/\0/$b/;
    spew($file, $new);
    my $number = number('');
    spew($file, $old);
    isnt $number, $is, $what;
};
$swap->('two callbacks of one type swapped', $header, 'on_request_headers', 'on_request_trailers');
$swap->('two numbers of one declaration swapped', $cluster, 'tcp_keepalive_idle_s', 'tcp_keepalive_interval_s');
$swap->('two flags swapped', $cluster, 'auto_sni', 'auto_san');
isnt changed('type', $cluster, qr/uint8_t proxy_version;/, 'int8_t proxy_versions;'), $is, 'another name';
isnt changed('size', $cluster, qr/uint32_t requests_per_conn;/, 'uint64_t requests_per_conn;'), $is, 'another size';
is changed('comment', $cluster, qr/\A/, "/* a comment */\n"), $is, 'a comment is none of it';
isnt number('-fpack-struct=4'), $is, 'a compiler that lays out otherwise';
done_testing;
