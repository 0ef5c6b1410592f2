#!/usr/bin/perl
# Connections to upstreams ahead of requests: per_upstream_preconnect_ratio, and by a file `preconnect`: in proportion to the requests
# under way, never more than may idle or than a limit allows; those who come next find them open.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $rows = 0;
my $t = Heddle::TwoWays->new;
sub established { open my $f, '<', '/proc/net/tcp' or die $!; return <$f> }
# <asked> requests at once, then <then> one after the other: <conns> are open in the end, <used> of them have carried one.
sub row {
    my ($name, $conns, $used, %row) = @_;
    my $n = $rows++;
    my ($asked, $then) = (delete $row{asked} // 1, delete $row{then} // 0);
    $t->row($name, backend => sub { my ($req) = @_; return {body => $req->{conn}, $req->{uri} eq '/slow' ? (after => 0.3) : ()} }, %row,
        ask => [['GET', '/', {check => sub {
            my ($res, $hd, $way) = @_;
            my @c = map { my $c = $hd->connect("r$n"); $c->send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"); $c } 2 .. $asked;
            my %seen = map { $_->response->body => 1 } @c;
            $seen{$hd->get('/', {port => "r$n"})->body} = 1 for 1 .. $then;
            $seen{$res->body} = 1;
            my $open = sub { return scalar grep { /^ *\d+: \S+ 0100007F:${\sprintf '%04X', $hd->port("b$n")} 01 / } established() };
            eval { $hd->wait_for(sub { $open->() == $conns }, "$name: $conns connections") } or diag($open->() . ' are open');
            diag join ' ', 'used:', sort keys %seen if keys %seen != $used;
            return $open->() == $conns && keys %seen == $used;
        }}]]);
}
my $ratio = sub { return (cluster => {preconnect_policy => {per_upstream_preconnect_ratio => $_[0]}}, upstream => 'preconnect ' . 100 * $_[0] . '%;') };
row('none', 1, 1, then => 2);
row('a ratio of 1', 1, 1, $ratio->(1));
row('of 2', 2, 1, $ratio->(2));
row('of 1.01', 2, 1, $ratio->(1.01));
row('of 3', 3, 1, $ratio->(3), then => 2);
row('of 2, at a limit of 1', 1, 1, cluster => {preconnect_policy => {per_upstream_preconnect_ratio => 2}, circuit_breakers => {thresholds => [{max_connections => 1}]}},
    upstream => 'preconnect 200%; circuit_breaker connections=1;');
row('of 2, at a limit of 2', 2, 1, cluster => {preconnect_policy => {per_upstream_preconnect_ratio => 3}, circuit_breakers => {thresholds => [{max_connections => 2}]}},
    upstream => 'preconnect 300%; circuit_breaker connections=2;');
row('of 2, two at once', 4, 2, $ratio->(2), asked => 3);
$t->run;

for ('99%', '301%', '1.5', '%', '""') {
    my ($status, $out) = Heddle->new->conf("error_log stderr; http { upstream u { server 127.0.0.1:1; preconnect $_; } }")->run('-t');
    like $out, qr/from 100% to 300%/, "refused: $_";
}
done_testing;
