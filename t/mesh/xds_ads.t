#!/usr/bin/perl
# The agent and a control plane: subscriptions in their order, ACK and NACK, warming,
# removal, a control plane that dies, comes back with nothing or sends garbage
# (xds-transport §2, §3, §4, §9). Delta and state of the world say the same.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

sub conf {
    my ($protocol, $more) = @_;
    return "xds { server 127.0.0.1:%%PORT_xds%%; xds_protocol $protocol;\n"
        . "node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;\n"
        . "node_metadata NAMESPACE shop; $more }\n";
}

for my $protocol ('delta', 'sotw') {
    my $hd = Heddle->new->conf(conf($protocol, 'snapshot %%DIR%%/snapshot;'));
    my $port = $hd->port(0);
    my $xds = Heddle::Xds->new($hd, 'xds');
    my %world = (
        CDS => [Heddle::Xds::eds_cluster('a'), Heddle::Xds::eds_cluster('b')],
        EDS => [Heddle::Xds::assignment('a', $hd->port(1)), Heddle::Xds::assignment('b', $hd->port(2))],
        LDS => [Heddle::Xds::listener('front', $port, Heddle::Xds::rds('table'))],
        RDS => [Heddle::Xds::routes('table', ['/b' => 'b'], ['/' => 'a'])],
    );
    $hd->backend(1, sub { (200, [], 'from a') });
    $hd->backend(2, sub { (200, [], 'from b') });
    $xds->serve(%world)->start;
    $hd->start;

    # ---- the way in

    $hd->wait_for(sub { Heddle::Port::is_listening($port) }, 'the listener that came by xDS');
    is $hd->get('/')->body, 'from a', "$protocol: listener, routes, cluster, endpoint are in force";
    is $hd->get('/b')->body, 'from b', 'the other route, too';
    $xds->wait_ack('RDS');
    my @asked = map { $_->{type} } grep { !$_->{nonce} } $xds->events(rpc => $protocol);
    is "@asked", 'CDS EDS LDS RDS', 'asked for in the order of needs';
    my ($first) = $xds->events(rpc => $protocol);
    is $first->{node}, 'sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local', 'the node says who we are';
    my ($eds) = $xds->events(type => 'EDS');
    is_deeply [sort @{$eds->{subscribe} // $eds->{names}}], ['a', 'b'], 'endpoints are asked for by name';

    # ---- changes

    my $acks = $xds->acks('RDS');
    $xds->serve(%world, RDS => [Heddle::Xds::routes('table', ['/' => 'b'])]);
    $xds->wait_ack('RDS', $acks + 1);
    is $hd->get('/')->body, 'from b', 'a change of routes is in force once it is accepted';

    # ---- a bad one beside a good one

    $xds->serve(%world, CDS => [@{$world{CDS}}, {name => 'bad', type => 'EDS'}, Heddle::Xds::cluster('c', $hd->port(2))],
        RDS => [Heddle::Xds::routes('table', ['/' => 'c'])]);
    my $nack = $xds->wait_nack('CDS', qr/CDS "bad": an EDS cluster without eds_config/);
    ok $nack, 'a bad cluster is refused with the reason';
    $hd->wait_for(sub { $hd->get('/')->body eq 'from b' }, 'the good one beside it');

    # ---- removal

    my $lds = $xds->acks('LDS');
    $xds->serve(%world, LDS => [@{$world{LDS}}, Heddle::Xds::listener('second', $hd->port(3), Heddle::Xds::rds('table'))]);
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(3)) }, 'a second listener');
    $xds->serve(%world);
    $hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(3)) }, 'the second listener to go');
    ok Heddle::Port::is_listening($port), 'the first one stays';
    $hd->wait_for(sub { $hd->get('/')->body eq 'from a' }, 'the first routes again');

    # ---- the control plane dies, and comes back with nothing

    $xds->stop;
    $hd->wait_log(qr/the stream to 127\.0\.0\.1 has ended/);
    is $hd->get('/')->body, 'from a', 'without a control plane all stays';
    $xds->serve;
    $xds->start;
    $hd->wait_log(qr/came back without any LDS/);
    is $hd->get('/')->body, 'from a', 'one that comes back with nothing takes nothing away';
    $xds->stop;

    # ---- and with garbage

    $xds->serve(%world, garbage => JSON::XS::true);
    $xds->start;
    $hd->wait_log(qr/an answer that can't be read/);
    is $hd->get('/')->body, 'from a', 'garbage changes nothing';
    $xds->serve(%world, RDS => [Heddle::Xds::routes('table', ['/' => 'b'])]);
    $hd->wait_for(sub { $hd->get('/')->body eq 'from b' }, 'good answers after garbage');

    # ---- a start without a control plane

    $hd->wait_for(sub { -s $hd->dir . '/snapshot' }, 'the snapshot');
    $xds->stop;
    $hd->stop;
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($port) }, 'the listener of the snapshot');
    is $hd->get('/')->body, 'from b', 'a start without a control plane begins with the snapshot';
    $hd->stop;
}

done_testing;
