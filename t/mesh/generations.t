#!/usr/bin/perl
# A generation that takes its listeners from a control plane comes into force when it has them: from the control plane,
# or from the last-good snapshot when that is away, or without them when it waited for too long.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Streams;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;
my $hd = Heddle->new(log_level => 'notice');
my $backend = Heddle::Streams->backend($hd, 1, 2);
my $xds = Heddle::Xds->new($hd, 'xds');

sub resources {
    my ($answer) = @_;
    return (
        CDS => [Heddle::Xds::eds_cluster('meshed')],
        EDS => [Heddle::Xds::assignment('meshed', $hd->port(1))],
        LDS => [Heddle::Xds::listener('front', $hd->port(0), Heddle::Xds::rds('routes'),
            upgrade_configs => [{upgrade_type => 'websocket'}])],
        RDS => [{name => 'routes', virtual_hosts => [{name => 'all', domains => ['*'], routes => [
            {match => {path => '/answer'}, direct_response => {status => 200, body => {inline_string => $answer}}},
            {match => {prefix => '/'}, route => {cluster => 'meshed', timeout => '0s'}}]}]}],
    );
}

sub conf {
    my ($workers, $timeout, $snapshot) = @_;
    $hd->conf(<<"EOC");
worker_processes $workers;
worker_shutdown_timeout 60s;
admin %%ADMIN%%;
xds {
    server 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local;
    ready_timeout $timeout;
    @{[$snapshot ? 'snapshot %%DIR%%/snapshot;' : '']}
}
EOC
}

# Returns when the control plane has read it.
sub serve {
    my (@what) = @_;
    my $loaded = () = grep { $_->{loaded} } $xds->events(rpc => 'server');
    $xds->serve(@what);
    $hd->wait_for(sub { grep({ $_->{loaded} } $xds->events(rpc => 'server')) > $loaded }, 'the control plane');
}

sub answer { $hd->get('/answer')->body }

# In force, and what it replaced has handed over.
sub in_force {
    my ($n) = @_;
    $hd->wait_log(qr/reload done: generation $n is in force/);
    $hd->wait_for(sub { $hd->processes('agent') == 1 }, 'one agent');
}

$xds->serve(resources('first'))->start;
conf(1, '60s', 0);
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener by xDS');
my $clients = Heddle::Streams->clients($hd, http => 0, ws => 2, load => 3);

# ---- the control plane answers, but not all of it at once

for my $late ('LDS', 'RDS', 'EDS') {
    my $n = {LDS => 2, RDS => 3, EDS => 4}->{$late};
    serve(resources("without $late"), silent => [$late]);
    my $asked = () = $xds->events(type => $late, nonce => '');
    conf($n, '60s', 0);
    $hd->signal('HUP');
    $hd->wait_for(sub { $xds->events(type => $late, nonce => '') > $asked && $hd->processes('agent') == 2 }, "it to ask for $late");
    is $clients->failures($clients->wait_for_more(qw(ws load))), '', "while $late isn't there, the old one serves";
    unlike $hd->log, qr/generation $n is in force/, 'and the new one waits';
    $xds->serve(resources("with $late"));
    in_force($n);
    is $clients->failures($clients->wait_for_more(qw(ws load))), '', "with $late it takes over, and no request is lost";
    is answer(), "with $late", 'by what the control plane says now';
    is $hd->admin('/ready')->status, 200, 'it is ready';
}

# ---- the control plane is away: the snapshot

conf(2, '60s', 1);
$hd->signal('HUP');
in_force(5);
$hd->wait_for(sub { $hd->file('snapshot') =~ /with EDS/ }, 'the snapshot to be written');
$xds->stop;
conf(1, '60s', 1);
$hd->signal('HUP');
in_force(6);
is $clients->failures($clients->wait_for_more(qw(ws load))), '', 'the control plane is away: by the snapshot';
is answer(), 'with EDS', 'which says what was last';
is $clients->failures($clients->end), '', 'in six generations nothing was lost';

# ---- neither: as a fresh start would

conf(3, '200ms', 0);
$hd->signal('HUP');
in_force(7);
like $hd->log, qr/xds: no complete configuration after \d+ ms \(ready_timeout\): going on without/, 'neither: too late';
$hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the listener to be gone');
$xds->serve(resources('again'))->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener to come back');
is answer(), 'again', 'and comes to what the control plane says';

done_testing;
