#!/usr/bin/perl
# Routing priority HIGH: a cluster that says no thresholds for it has Envoy's defaults, of its own, from the moment
# that a route with that priority leads to it, also where the cluster was there before.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use IO::Select;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
$hd->tcp_backend(1, sub { # answers once the file is there
    my ($sock) = @_;
    sysread $sock, my $in, 65536;
    open my $f, '>>', $hd->dir . '/came' or die $!;
    syswrite $f, 'x';
    select undef, undef, undef, 0.01 until -e $hd->dir . '/go';
    syswrite $sock, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
});
my $cluster = sub {
    my ($name, @thresholds) = @_;
    return {name => $name, type => 'STATIC', connect_timeout => '2s', circuit_breakers => {thresholds => \@thresholds},
        load_assignment => {cluster_name => $name, endpoints => [{lb_endpoints => [{endpoint => {address =>
            {socket_address => {address => '127.0.0.1', port_value => 0 + $hd->port(1)}}}}]}]}};
};
my @one = (max_requests => 1, max_connections => 10, max_pending_requests => 10);
my @clusters = ($cluster->('a', {priority => 'DEFAULT', @one}), $cluster->('b', {priority => 'DEFAULT', @one}),
    $cluster->('own', {priority => 'DEFAULT', @one}, {priority => 'HIGH', @one}));
my $listener = sub {
    my (@high) = @_;
    my $routes = Heddle::Xds::routes('in', (map { ["/high/$_" => $_] } @high), map { ["/$_" => $_] } 'a', 'b', 'own');
    for my $r (@{$routes->{virtual_hosts}[0]{routes}}) {
        $r->{route}{priority} = 'HIGH' if ($r->{match}{prefix} // $r->{match}{path} // '') =~ /^\/high/;
    }
    return Heddle::Xds::listener('front', $hd->port(0), route_config => $routes);
};
# Three at once: how each ends.
my $three = sub {
    my ($uri) = @_;
    unlink map { $hd->dir . "/$_" } 'go', 'came';
    my @conns = map { my $c = $hd->connect(0); $c->send("GET $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); $c } 1 .. 3;
    my $select = IO::Select->new(map { $_->{sock} } @conns);
    $hd->wait_for(sub { my @refused = $select->can_read(0); @refused + ((-s $hd->dir . '/came') // 0) == 3 }, 'each to be refused or upstream');
    open my $f, '>', $hd->dir . '/go' or die; close $f;
    return join ' ', sort map { $_->read_all =~ /^HTTP\/1.1 (\d+)/ ? $1 : 'none' } @conns;
};
$xds->serve(CDS => \@clusters, LDS => [$listener->('a', 'own')])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');

is $three->('/a'), '200 503 503', 'DEFAULT: one request at a time';
is $three->('/high/a'), '200 200 200', 'HIGH: 1024, though the cluster says nothing of it';
is $three->('/high/own'), '200 503 503', 'where it says so, that counts';
$xds->serve(CDS => \@clusters, LDS => [$listener->('a', 'own', 'b')]);
ok $hd->wait_for(sub { open my $f, '>', $hd->dir . '/go'; $hd->get('/high/b')->status == 200 }, 'the route'), 'a route of priority HIGH comes later';
is $three->('/high/b'), '200 200 200', 'its cluster gets limits of its own';
is $three->('/b'), '200 503 503', 'DEFAULT\'s are as they were';
$hd->stop;
done_testing;
