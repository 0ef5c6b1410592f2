#!/usr/bin/perl
# random_index: each file of a directory answers for it at some time, and what isn't one never does
# (nginx: ngx_http_random_index_module). Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    server { listen 127.0.0.1:%%PORT_0%%; root %%DIR%%/www; index index.html; location / { random_index on; } }
}
EOC
mkdir $hd->dir . "/www$_" or die $! for '', '/dir';
$hd->write("www/$_", $_) for qw(a b index.html .hidden dir/inner);
symlink 'a', $hd->dir . '/www/link' or die $!;
$hd->start;

# That one of three doesn't come in 300 tries is as good as impossible.
my (%seen, $n);
$seen{$hd->get('/')->body}++ until keys %seen >= 3 || $n++ == 300;
is_deeply [sort keys %seen], [qw(a b index.html)], 'each file';
$seen{$hd->get('/')->body}++ for 1 .. 60;
is_deeply [sort keys %seen], [qw(a b index.html)], '... and nothing else';
is $hd->get('/dir/')->body, 'dir/inner', 'of the directory that is asked for';
is $hd->get('/dir')->status, 301, 'a directory without its slash';
$hd->stop;
done_testing;
