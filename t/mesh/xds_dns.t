#!/usr/bin/perl
# Clusters whose endpoints are names (STRICT_DNS, LOGICAL_DNS): resolved by the agent; a
# cluster waits for the first answer or failure, and one that can't be resolved has no
# endpoints (503), rather than holding up the rest.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
my $named = sub {
    my ($name, $type, $host) = @_;
    return {name => $name, type => $type, connect_timeout => '2s', load_assignment => {cluster_name => $name,
        endpoints => [{lb_endpoints => [{endpoint => {address => {socket_address => {
            address => $host, port_value => 0 + $hd->port(1)}}}}]}]}};
};
$hd->backend(1, sub { (200, [], 'from a name') });
$xds->serve(
    CDS => [$named->('strict', 'STRICT_DNS', 'localhost'), $named->('logical', 'LOGICAL_DNS', 'localhost'),
        $named->('unknown', 'STRICT_DNS', 'no-such-host.invalid')],
    LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in',
        ['/logical' => 'logical'], ['/unknown' => 'unknown'], ['/' => 'strict']))],
)->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
$hd->wait_for(sub { $hd->get('/')->status == 200 }, 'the name to be resolved');
is $hd->get('/')->body, 'from a name', 'STRICT_DNS';
$hd->wait_for(sub { $hd->get('/logical')->status == 200 }, 'the other one');
is $hd->get('/logical')->body, 'from a name', 'LOGICAL_DNS';
is $hd->get('/unknown')->status, 503, 'a name without addresses';

done_testing;
