#!/usr/bin/perl
# nginx's passive checks: max_fails and fail_timeout, what counts as a failure, one server alone.
# HD_PROGRAM=/usr/sbin/nginx runs it with nginx. Failures are told apart by who is asked.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    upstream out    { server 127.0.0.1:%%PORT_1%% max_fails=2 fail_timeout=60s; server 127.0.0.1:%%PORT_2%% max_fails=0; }
    upstream status { server 127.0.0.1:%%PORT_1%% max_fails=2 fail_timeout=60s; server 127.0.0.1:%%PORT_2%% max_fails=0; }
    upstream plain  { server 127.0.0.1:%%PORT_1%% max_fails=2 fail_timeout=60s; server 127.0.0.1:%%PORT_2%% max_fails=0; }
    upstream back   { server 127.0.0.1:%%PORT_1%% max_fails=1 fail_timeout=1s; server 127.0.0.1:%%PORT_2%% max_fails=0; }
    upstream alone  { server 127.0.0.1:%%PORT_1%% max_fails=1 fail_timeout=60s; }
    upstream none   { server 127.0.0.1:%%PORT_1%% fail_timeout=60s; server 127.0.0.1:%%PORT_3%% fail_timeout=60s; }
    upstream spare  { server 127.0.0.1:%%PORT_1%% fail_timeout=60s; server 127.0.0.1:%%PORT_2%% backup; }
    access_log off;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_http_version 1.1;
        location /out    { proxy_pass http://out; }
        location /status { proxy_pass http://status; proxy_next_upstream error timeout http_503; }
        location /plain  { proxy_pass http://plain; }
        location /back   { proxy_pass http://back; }
        location /alone  { proxy_pass http://alone; }
        location /none   { proxy_pass http://none; }
        location /spare  { proxy_pass http://spare; }
    }
}
EOC
my $good = $hd->dir . '/good';
for my $n (1 .. 3) {
    $hd->backend($n, sub {
        my ($req) = @_;
        return "$n" if $n == 2 || -e $good;
        return [503, {}, "busy $n"] if $req->{uri} =~ /503/;
        return {close => 1};
    });
}
$hd->start;

# Requests that came to back end 1 with this path.
sub asked { my ($uri) = @_; return scalar grep { $_->{uri} eq $uri } $hd->requests(1) }

is join(' ', map { $hd->get('/out')->body } 1 .. 10), join(' ', (2) x 10), 'the other one answers';
is asked('/out'), 2, 'max_fails: it was asked twice';
is join(' ', map { $hd->get('/status/503')->body } 1 .. 10), join(' ', (2) x 10), 'a status of proxy_next_upstream';
is asked('/status/503'), 2, 'is a failure';
$hd->get('/plain/503') for 1 .. 10;
is asked('/plain/503'), 5, 'another one is not';
is join(' ', map { $hd->get('/alone')->status } 1 .. 4), '502 502 502 502', 'a server alone';
is asked('/alone'), 4, 'is never given up';
is join(' ', map { $hd->get('/none')->status } 1 .. 3), '502 502 502', 'no server is left';
is asked('/none'), 1, 'then none is asked';
is join(' ', map { $hd->get('/spare')->body } 1 .. 4), '2 2 2 2', 'a backup';
is asked('/spare'), 1, 'instead of it';

is $hd->get('/back')->body, 2;
is $hd->get('/back')->body, 2;
is asked('/back'), 1, 'out for fail_timeout';
open my $f, '>', $good or die;
close $f;
$hd->wait_for(sub { $hd->get('/back')->body == 1 }, 'it to be tried again');
my %by;
$by{$hd->get('/back')->body}++ for 1 .. 10;
is $by{1}, 5, 'and to have its share again';
done_testing;
