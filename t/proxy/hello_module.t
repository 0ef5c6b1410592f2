#!/usr/bin/perl
# examples/hello_module: a C module built outside the tree, with nothing but what `make install` gives.
use strict;
use warnings;
use lib 't/lib';
use File::Temp 'tempdir';
use Test::More;
use Heddle;

my $build = $Heddle::build;
my $root = tempdir(CLEANUP => 1);
chmod 0755, $root;
is system("make -s BUILD=$build DESTDIR=$root install >$root/log 2>&1"), 0, 'installed' or diag `cat $root/log`;
my ($pc) = split /\n/, `find $root -name heddle.pc`;
ok $pc, 'with a pkg-config file';
(my $dir = $pc) =~ s{/[^/]+$}{};
my $flags = `PKG_CONFIG_PATH=$dir pkg-config --define-prefix --cflags heddle`;
chomp $flags;
my $asan = $build =~ /asan/ ? '-fsanitize=address,undefined' : '';
is system("cc -shared -fPIC -Wall -Wextra -Werror $asan $flags -o $root/hello_module.so examples/hello_module/hello.c 2>$root/log"),
    0, 'built with the installed header alone' or diag `cat $root/log`;
chmod 0755, "$root/hello_module.so";
my $lines = () = do { local (@ARGV) = 'examples/hello_module/hello.c'; <> };
cmp_ok $lines, '<=', 120, 'in at most 120 lines';

my $hd = Heddle->new->conf(<<"EOC");
load_module $root/hello_module.so;
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 204; }
        location /hello { hello "good day from \$host"; }
    }
}
EOC
$hd->start;
my $r = $hd->get('/hello');
is $r->status, 200, 'it answers';
is $r->body, "good day from localhost, stranger\n", 'with its greeting';
is $hd->get('/')->status, 204, 'where it is not used it is not called';
$hd->stop;

done_testing();
