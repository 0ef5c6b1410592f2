#!/usr/bin/perl
# Whom requests are led to changes without a loss, in whatever order the control plane tells it: routes and listeners in
# force stay while new clusters are warmed, and a cluster that is taken away stays for those that still lead to it.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

sub tcp_listener {
    my ($port, $cluster) = @_;
    return {name => 'tcp', address => Heddle::Xds::address($port), filter_chains => [{filters => [{name => 'tcp', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
        stat_prefix => 'tcp', cluster => $cluster}}]}]};
}

for my $protocol ('delta', 'sotw') {
    my $hd = Heddle->new(workers => 2)->conf("xds { server 127.0.0.1:%%PORT_xds%%; xds_protocol $protocol; node_id a; }\n");
    my $xds = Heddle::Xds->new($hd, 'xds');
    my %port = (a => 1, b => 2, c => 3);
    for my $name (sort keys %port) { $hd->backend($port{$name}, sub { (200, [], "from $name") }) }
    my ($http, $tcp) = map { $hd->port($_) } 4, 5;
    my $serve = sub {
        my ($to, $exist, %more) = @_;
        $xds->serve(CDS => [map { Heddle::Xds::eds_cluster($_) } @$exist],
            EDS => [map { Heddle::Xds::assignment($_, $hd->port($port{$_})) } @$exist],
            LDS => [Heddle::Xds::listener('http', $http, Heddle::Xds::rds('in')), tcp_listener($tcp, $to)],
            RDS => [Heddle::Xds::routes('in', ['/' => $to])], %more);
    };
    my $answer = sub {
        my $r = eval { Heddle::Http->connect($_[0])->request('GET', '/', Host => 'any', Connection => 'close') };
        return $r ? $r->body =~ /^from (\w)/ ? $1 : $r->status : 503; # by TCP: closed
    };
    my %seen;
    my $until = sub { # all see <to>; %seen has what was seen on the way
        my ($to, $what) = @_;
        %seen = ();
        $hd->wait_for(sub { 2 == grep { my $got = $answer->($_); $seen{$got}++; $got eq $to } $http, $tcp }, $what);
        return join ' ', sort keys %seen;
    };

    $serve->('a', ['a']);
    $xds->start;
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($_) }, 'a listener') for $http, $tcp;
    is $until->('a', 'the first'), 'a', "$protocol: led to a";

    my %acks = map { $_ => scalar $xds->acks($_) } 'CDS', 'RDS', 'LDS';
    $serve->('b', ['b'], silent => ['EDS']);
    $xds->wait_ack($_, $acks{$_} + 1) for sort keys %acks;
    is join(' ', map { $answer->($_) } $http, $tcp), 'a a', 'a serves while b has no endpoints, though it was taken away';
    $serve->('b', ['b']);
    like $until->('b', 'b'), qr/^(?:a )?b$/, 'then b does, and nobody else between';

    $serve->('c', ['b'], silent => ['EDS']); # c isn't there
    like $until->('503', 'no c'), qr/^503(?: b)?$/, 'nobody waits for a cluster that nobody told of';
    $serve->('b', ['b']);
    $until->('b', 'b again');
    $serve->('c', ['c'], silent => ['EDS']);
    like $until->('503', 'no c'), qr/^503 b$/, 'nor for ever for one without endpoints';
    $serve->('b', []);
    $until->('503', 'b to be gone');
    $serve->('b', ['b']);
    like $until->('b', 'b once more'), qr/^(?:503 )?b$/, 'one that is back serves again';

    # Endpoints that weren't subscribed to for a while may be others when their cluster is back.
    $serve->('a', ['a', 'b']);
    $until->('a', 'a');
    my $before = () = $xds->events(type => 'EDS');
    $serve->('b', ['b']);
    $hd->wait_for(sub {
        my @new = $xds->events(type => 'EDS');
        return grep { $_->{unsubscribe} ? "@{$_->{unsubscribe}}" eq 'a' : "@{$_->{names}}" eq 'b' } @new[$before .. $#new];
    }, 'a to be left');
    %acks = map { $_ => scalar $xds->acks($_) } 'CDS', 'RDS';
    $port{a} = 3; # where c was
    $serve->('a', ['a', 'b'], silent => ['EDS']);
    $xds->wait_ack($_, $acks{$_} + 1) for sort keys %acks;
    is $answer->($http), 'b', 'a waits for its new endpoints';
    $serve->('a', ['a', 'b']);
    like $until->('c', 'what is a now'), qr/^(?:b )?c$|^c(?: b)?$/, 'nobody was sent to those it had';

    # So it is for an agent that begins anew.
    my ($agent) = $hd->processes('agent process');
    %acks = map { $_ => scalar $xds->acks($_) } 'CDS', 'RDS', 'LDS';
    $hd->expect_log(qr/agent process \d+ exited on signal 9/);
    kill 'KILL', $agent;
    $port{d} = 2; # a cluster that no agent has seen, where b is
    $serve->('d', ['d'], silent => ['EDS']);
    $xds->wait_ack($_, $acks{$_} + 1) for sort keys %acks;
    is join(' ', map { $answer->($_) } $http, $tcp), 'c c', 'an agent that begins anew lets a serve while d has no endpoints';
    $serve->('d', ['d']);
    like $until->('b', 'd of the new agent'), qr/^b(?: c)?$/, 'then d does';
    $serve->('a', ['a', 'b']);
    $until->('c', 'a again');

    # What is in force keeps what it needs, however long the next version waits.
    my @lds = map { my $rds = $_; [Heddle::Xds::listener('http', $http, Heddle::Xds::rds($rds)), tcp_listener($tcp, 'a')] } 'in', 'other';
    $serve->('a', ['a', 'b'], LDS => $lds[1], silent => ['RDS']);
    my $asked;
    $hd->wait_for(sub {
        ($asked) = grep { grep { $_ eq 'other' } @{$_->{subscribe} // $_->{names}} } $xds->events(type => 'RDS');
    }, 'other routes to be asked for');
    is_deeply $asked->{unsubscribe} // [sort @{$asked->{names}}], $protocol eq 'delta' ? [] : ['in', 'other'], 'those in force are still asked for';
    my $routes = sub { Heddle::Xds::routes($_[0], ['/' => $_[1]]) };
    $serve->('a', ['a', 'b'], LDS => $lds[1], RDS => [$routes->('in', 'a'), $routes->('other', 'b')]);
    $hd->wait_for(sub { $answer->($http) eq 'b' }, 'the other routes');
    $hd->wait_for(sub {
        my $last = ($xds->events(type => 'RDS'))[-1];
        return $protocol eq 'sotw' ? "@{$last->{names}}" eq 'other' : grep { "@{$_->{unsubscribe}}" eq 'in' } $xds->events(type => 'RDS');
    }, 'the former ones to be left');
    pass 'and left then';
    $hd->expect_log(qr/there is no cluster/);
    $hd->stop;
    $xds->stop;
}
done_testing;
