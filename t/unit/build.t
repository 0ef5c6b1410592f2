# configure tells its errors with the remedy; a module outside the tree is built; make install
# lays out everything that building a module needs.

use strict;
use warnings;
use Test::More;
use Cwd qw(getcwd);
use File::Path qw(make_path);
use File::Temp qw(tempdir);

my $top = getcwd;
my $dir = tempdir(CLEANUP => 1);

plan skip_all => 'the plain run has it' if ($ENV{HD_BUILD} || '') =~ /san$/;
# Set by the make that runs us.
delete @ENV{'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS', 'MAKEOVERRIDES', 'BUILD', 'T', 'CC', 'PKG_CONFIG'};

sub sh {
    my ($cmd) = @_;
    my $text = `$cmd 2>&1`;
    return ($? >> 8, $text);
}

sub spew {
    my ($path, $text) = @_;
    open my $f, '>', $path or die "$path: $!";
    print $f $text;
    close $f;
}

my ($status, $out);

# ---- options
for (
    ['--module-path=/x', qr/did you mean --modules-path=/],
    ['--with-sanitizer=thread', qr/did you mean --with-sanitizers=/],
    ['--sanitizers=thread', qr/did you mean --with-sanitizers=/],
    ['--with-pref=/x', qr/--help lists/],
    ['--prefix', qr/needs a value/],
    ['--with-debug=yes', qr/takes no value/],
    ['--with-sanitizers=address,thread', qr/goes with no other/],
    ['--with-sanitizers=memory', qr/address,undefined or thread/],
    ['--prefix=relative', qr/absolute/],
    ["--prefix='/with space'", qr/space/],
    ['--add-dynamic-module=/nowhere', qr/no such directory/],
    ["--add-dynamic-module=$dir", qr/no \.c file/],
) {
    my ($option, $want) = @$_;
    ($status, $out) = sh("./configure --builddir=$dir/x $option");
    like $out, qr/^configure: .*$want/ms, "$option: $out" =~ s/\n.*//sr;
    isnt $status, 0, "and it fails";
}
($status, $out) = sh('./configure --help');
is $status, 0, '--help';
for my $o (qw(prefix sbin-path modules-path conf-path error-log-path pid-path add-dynamic-module
    with-debug with-sanitizers with-cc with-cc-opt with-ld-opt builddir)) {
    like $out, qr/^  --$o\b/m, "--help tells of --$o";
}

# ---- missing libraries, by a pkg-config that doesn't know them
spew("$dir/pkg-config", <<'EOS');
#!/bin/sh
case "$*" in *jansson* | *nghttp2*) exit 1 ;; *) exec pkg-config "$@" ;; esac
EOS
chmod 0755, "$dir/pkg-config";
($status, $out) = sh("PKG_CONFIG=$dir/pkg-config ./configure --builddir=$dir/x");
isnt $status, 0, 'missing libraries are an error';
like $out, qr/jansson \(Debian package: libjansson-dev\)/, 'one is named';
like $out, qr/nghttp2 \S+ \S+ \(Debian package: libnghttp2-dev\)/, 'the other, too';
like $out, qr/^ *apt-get install libjansson-dev libnghttp2-dev$/m, 'and one command for both';

($status, $out) = sh("PROTOC_C=no-protoc ./configure --builddir=$dir/x");
like $out, qr/apt-get install protobuf-c-compiler$/m, 'the message compiler';
($status, $out) = sh("PKG_CONFIG=$dir/none ./configure --builddir=$dir/x");
like $out, qr/apt-get install pkg-config libc-ares-dev /m, 'pkg-config itself';
($status, $out) = sh("./configure --with-cc=$dir/none --builddir=$dir/x");
like $out, qr/compiler ".*none" doesn't work, see/, 'a compiler that is none';

# Whatever configure may ask for, ./check installs.
my ($asked, $known) = ('', '');
$asked .= do { local (@ARGV, $/) = $_; <> } for glob 'auto/lib/*';
$known .= do { local (@ARGV, $/) = 'auto/packages'; <> };
for my $p (sort $asked =~ /\b(lib[\w.-]+-dev|zlib1g-dev|protobuf-c-compiler)\b/g) {
    like $known, qr/^build \Q$p\E$/m, "auto/packages has $p";
}
($status, $out) = sh('ASSUME_MISSING=1 auto/install build');
like $out, qr/apt-get install -y .* libssl-dev /, 'without rights the command is shown';
isnt $status, 0, 'and nothing goes on';

# ---- a module outside the tree, and installing
my $has_modules = -f 'src/core/hd_module.h';
make_path("$dir/my-module");
spew("$dir/my-module/one.c", ($has_modules ? qq(#include "hd_module.h"\n)
        . qq(HD_EXPORT const hd_module_t hd_module = {.abi = HD_MODULE_ABI, .name = "my"};\n) : '')
    . qq(int hd_my_answer(void);\nint hd_my_two(void);\n)
    . qq(__attribute__((visibility("default"))) int hd_my_answer(void)\n{\n    return 40 + hd_my_two();\n}\n));
spew("$dir/my-module/two.c", "int hd_my_two(void);\nint hd_my_two(void)\n{\n    return 2;\n}\n");
my $b = "$dir/b";
($status, $out) = sh("./configure --builddir=$b --prefix=/opt/heddle --sbin-path=bin/heddle"
    . " --conf-path=/etc/heddle/heddle.conf --with-systemd-unit-dir=/lib/systemd/system --with-cc-opt='-O0 -g0 -DHD_BY_TEST=1' --add-dynamic-module=$dir/my-module");
is $status, 0, 'configure' or diag $out;
($status, $out) = sh("make -j2 BUILD=$b");
is $status, 0, 'make' or diag $out;
ok -f "$b/modules/hd_my_module_module.so", 'the module is there, of both its files';
like `nm -D $b/modules/hd_my_module_module.so`, qr/ T hd_my_answer$/m, 'what it exports';
unlike `nm -D $b/modules/hd_my_module_module.so`, qr/hd_my_two/, 'and nothing else';
($status, $out) = sh("$b/heddle -V");
like $out, qr{configure arguments: .*--prefix=/opt/heddle .*'--with-cc-opt=-O0 -g0 -DHD_BY_TEST=1'},
    '-V tells how it was configured';
($status, $out) = sh("make BUILD=$b");
like $out, qr/Nothing to be done|up to date/i, 'a second make does nothing';

SKIP: {
    my ($src) = glob 'src/core/base/*.c';
    skip 'no header to touch', 2 unless -f 'src/core/base/hd_str.h';
    # -W: as if it had just been changed.
    ($status, $out) = sh("make -W src/core/base/hd_str.h BUILD=$b");
    like $out, qr{src/core/base/hd_str\.c}, 'a header rebuilds what includes it';
    unlike $out, qr{src/core/os/hd_clock\.c}, 'and nothing else';
}

my $dest = "$dir/dest";
($status, $out) = sh("make install BUILD=$b DESTDIR=$dest");
is $status, 0, 'make install' or diag $out;
ok -x "$dest/opt/heddle/bin/heddle", 'the program';
ok -f "$dest/opt/heddle/modules/hd_my_module_module.so", 'the module';
ok -d "$dest/etc/heddle", 'the configuration has its place';
for my $c (glob 'conf/*.conf') {
    ok -f "$dest/etc/heddle/" . $c =~ s{.*/}{}r, "$c";
}
my $units = "$dest/lib/systemd/system";
is join('', `grep ^ExecStart= $units/heddle.service`), qq{ExecStart=/opt/heddle/bin/heddle -g "daemon off;"\n},
    "systemd's unit, of this program";
ok -f "$units/heddle.socket", '... and its sockets';
my $pc = "$dest/opt/heddle/lib/pkgconfig/heddle.pc";
ok -f $pc, 'the pkg-config file';
my $pkg = "PKG_CONFIG_PATH=$dest/opt/heddle/lib/pkgconfig pkg-config"
    . " --define-variable=prefix=$dest/opt/heddle";
is `$pkg --variable=modulesdir heddle`, "/opt/heddle/modules\n", 'where modules go';
SKIP: {
    skip 'there is no hd_module.h yet', 2 unless $has_modules;
    my ($abi) = do { local (@ARGV, $/) = 'src/core/hd_module.h'; <> }
        =~ /^#define HD_MODULE_ABI_NUMBER\s+(\d+)/m;
    is `$pkg --variable=module_abi heddle`, "$abi\n", 'the ABI';
    ($status, $out) = sh("cd $dir && gcc \$($pkg --cflags heddle) -Wall -Wextra -Wshadow -Werror"
        . " -shared -o alone.so my-module/one.c my-module/two.c");
    is $status, 0, 'a module is built from what was installed alone' or diag $out;
}

($status, $out) = sh("make clean BUILD=$b");
is $status, 0, 'make clean' or diag $out;
ok !-e "$b/heddle", 'leaves nothing built';
ok -f 'Makefile', "and another build's Makefile alone";

done_testing;
