#!/usr/bin/perl
# What a cluster of 10 endpoints with its virtual server and mutual TLS takes, by file and by
# xDS: at most 4 KB in the arenas, and of shared state less than half a KB for each of four
# workers. (bench/cluster_memory shows more.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Cluster;

plan skip_all => 'a sanitizer takes memory of its own' if Heddle::is_sanitized();

my $n = 300;
my $page = 40 * 4096 / $n; # tables of the shared state grow by pages, some forty of them

for my $way ('file', 'xDS') {
    SKIP: {
        skip $Heddle::Xds::missing, 2 if $way eq 'xDS' && $Heddle::Xds::missing;
        my @few = Heddle::Cluster::measure($way, 1, 0);
        my @many = Heddle::Cluster::measure($way, $n, 0);
        my @each = map { ($many[$_] - $few[$_]) / ($n - 1) } 0 .. $#few;

        cmp_ok $each[0], '<=', 4096, "by $way: in the arenas";
        cmp_ok $each[2], '<=', 4 * 512 + $page, "by $way: of shared state";
    }
}
done_testing;
