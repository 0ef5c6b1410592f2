#!/usr/bin/perl
# Tests of t/proxy that hold for nginx, too, run in real nginx: what they ask of Heddle is what nginx does.
# Needs: nginx.
use strict;
use warnings;
use Test::More;

my $nginx = (grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
plan skip_all => 'no nginx' if !$nginx;
$ENV{HD_PROGRAM} = $nginx;
for my $test ('response_buffering', 'sendfile', 'limit_rate', 'buffering', 'body_files') {
    my $out = `$^X t/proxy/$test.t 2>&1`;
    is $?, 0, $test or diag $out;
    my $done = () = $out =~ /^ok (?!.*# skip)/mg;
    cmp_ok $done, '>', 10, "$done of them";
}
done_testing;
