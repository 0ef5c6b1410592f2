# No file includes what its floor may not see (STYLE: layout), and the check would notice.

use strict;
use warnings;
use Test::More;
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use File::Basename qw(dirname);

my $out = `$^X tools/layers`;
is $?, 0, 'every #include is allowed' or diag $out;
like $out, qr/^[1-9]\d* files, [1-9]\d* includes, 0 against/m, 'and there were some';

# One wrong file in a small tree; the table is the real one.
sub complaint {
    my ($path, $text) = @_;
    my $dir = tempdir(CLEANUP => 1);
    for (['src/core/base/hd_a.h', ''], ['src/core/net/hd_n.h', ''], ['src/http/hd_h.h', ''],
        ['src/http/hd_h_int.h', ''], ['src/mesh/hd_m.h', ''], ['src/core/hd_module.h', ''],
        ['src/proto/p.proto', ''], ['modules/x/x_own.h', ''], [$path, $text]) {
        make_path("$dir/" . dirname($_->[0]));
        open my $f, '>', "$dir/$_->[0]" or die $!;
        print $f $_->[1];
        close $f;
    }
    my $got = `$^X tools/layers $dir`;
    return $? ? $got : '';
}

my @wrong = (
    ['src/core/base/hd_b.c', '#include "core/net/hd_n.h"', 'base knows no net'],
    ['src/core/base/hd_b.c', '#include "http/hd_h.h"', 'base knows no http'],
    ['src/core/net/hd_b.c', "\n#include  \"proto/p.pb-c.h\"", 'net knows no messages'],
    ['src/http/hd_b.c', '#include "mesh/hd_m.h"', 'http knows no mesh'],
    ['src/http/hd_b.c', '#include "p.pb-c.h"', 'nor messages'],
    ['src/stream/hd_b.c', '#include "http/hd_h.h"', 'stream knows no http'],
    ['src/mesh/hd_b.c', '#include "http/hd_h_int.h"', 'what is for a folder stays there'],
    ['src/mesh/hd_b.c', '#include "../http/hd_h.h"', 'no ..'],
    ['src/new/hd_b.c', '#include "core/base/hd_a.h"', 'a folder nobody named'],
    ['modules/x/x.c', '#include "core/base/hd_a.h"', 'a module sees hd_module.h only'],
    ['modules/x/x.c', '#include "http/hd_h.h"', 'and no http'],
    ['src/core/os/hd_b.c', '#include <openssl/ssl.h>', 'os is libc'],
    ['src/http/hd_b.c', '#if defined(__linux__)', 'platforms are for os'],
);
for (@wrong) {
    my ($path, $text, $name) = @$_;
    like complaint($path, "$text\n"), qr/^\Q$path\E:\d+: /m, $name;
}

my @right = (
    ['src/http/hd_b.c', '#include "core/net/hd_n.h"', 'http uses core'],
    ['src/http/hd_b.c', '#include "http/hd_h_int.h"', 'its own inner header'],
    ['src/http/hd_b.c', '#include "hd_auto_config.h"', 'what configure found'],
    ['src/mesh/hd_b.c', '#include "p.pb-c.h"', 'mesh uses messages'],
    ['src/heddle.c', '#include "mesh/hd_m.h"', 'heddle.c uses all'],
    ['modules/x/x.c', "#include \"hd_module.h\"\n#include \"x_own.h\"\n#include \"p.pb-c.h\"",
        'a module its own, hd_module.h and messages'],
    ['src/core/os/hd_b.c', '#ifdef __linux__', 'os has platforms'],
);
for (@right) {
    my ($path, $text, $name) = @$_;
    is complaint($path, "$text\n"), '', $name;
}

done_testing;
