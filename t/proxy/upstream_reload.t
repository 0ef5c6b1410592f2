#!/usr/bin/perl
# A reload that changes nothing but a parameter of a server: it comes into force, and goes again.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new; # turns are each worker's own
sub conf {
    my ($first) = @_;
    $hd->conf(<<"EOC");
http {
    upstream two { sticky cookie to; server 127.0.0.1:%%PORT_1%%$first; server 127.0.0.1:%%PORT_2%%; }
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://two; } }
}
EOC
}
conf('');
for my $n (1, 2) { $hd->backend($n, sub { $n }) }
$hd->start;
sub spread { my %n; $n{$hd->get('/', @_)->body}++ for 1 .. 8; return join ' ', map { "$_:$n{$_}" } sort keys %n }
sub cookie_of { my ($n) = @_; for (1 .. 8) { my $r = $hd->get('/'); return $r->header('set-cookie') =~ s/;.*//r if $r->body eq $n } die }

is spread(), '1:4 2:4', 'both';
my @stay = (Cookie => cookie_of(1));
is spread(@stay), '1:8', 'a session';
for my $row (['drain', '2:8', '1:8'], ['down', '2:8', '2:8'], ['backup', '2:8', '1:8'], ['weight=3', '1:6 2:2', '1:8'], ['route=x', '1:4 2:4', '1:4 2:4']) {
    my ($parameter, $all, $session) = @$row;
    conf(" $parameter");
    ok $hd->reload, $parameter;
    is spread(), $all, "$parameter: others";
    is spread(@stay), $session, "$parameter: a session";
    conf('');
    ok $hd->reload, "without $parameter";
    is spread(), '1:4 2:4', 'as before';
}
done_testing;
