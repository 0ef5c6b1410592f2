#!/usr/bin/perl
# Clusters whose endpoints are names (STRICT_DNS, LOGICAL_DNS): resolved by the agent with the
# cluster's servers and in its rhythm; answers reach living workers; a cluster waits for the first
# answer or failure, and one that can't be resolved has no endpoints (503), rather than holding up the rest.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Dns;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
my $dns = Heddle::Dns->new($hd, 'dns');
my $server = {socket_address => {address => '127.0.0.1', port_value => 0 + $dns->port}};
my $typed = sub {
    return (typed_dns_resolver_config => {name => 'envoy.network.dns_resolver.cares', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig',
        resolvers => [$server], dns_resolver_options => {no_default_search_domain => JSON::XS::true, @_}}});
};
my (@clusters, @routes);
my $named = sub {
    my ($name, $type, $host, %more) = @_;
    push @routes, ["/$name" => $name];
    push @clusters, {name => $name, type => $type, connect_timeout => '2s', dns_lookup_family => 'V4_ONLY',
        load_assignment => {cluster_name => $name, endpoints => [{lb_endpoints => [{endpoint => {address =>
            {socket_address => {address => $host, port_value => 0 + $hd->port('back')}}}}]}]}, %more};
};
my $true = JSON::XS::true;
for my $addr ('127.0.0.1', '127.0.0.2') {
    my $listener = Heddle::Backend::listener($hd->port('back'), $addr);
    Heddle::Backend::spawn(sub { Heddle::Backend::http($listener, $hd->dir . "/back-$addr", sub { $addr }) });
}

$dns->set(
    'ttl.test' => {ttl => 1, A => ['127.0.0.1'], AAAA => ['::1']},
    'long.test' => {ttl => 3600, A => ['127.0.0.1']},
    'rate.test' => {ttl => 3600, A => ['127.0.0.1']},
    'down.test' => {ttl => 1, A => ['127.0.0.1']},
    'late.test' => 'SERVFAIL',
    'tcp.test' => {ttl => 1, A => ['127.0.0.1']},
    'old.test' => {ttl => 1, A => ['127.0.0.2']},
    'both.test' => {ttl => 1, A => ['127.0.0.1'], AAAA => ['::1']},
    'pair.test' => {ttl => 1, A => ['127.0.0.2', '127.0.0.1']},
    'four.test' => {ttl => 1, A => ['127.0.0.2']},
);
$named->('strict', 'STRICT_DNS', 'localhost');
$named->('logical', 'LOGICAL_DNS', 'localhost');
$named->('unknown', 'STRICT_DNS', 'nohost.test', $typed->(), dns_refresh_rate => '0.1s');
$named->('ttl', 'STRICT_DNS', 'ttl.test', $typed->(), respect_dns_ttl => $true, dns_refresh_rate => '600s');
$named->('long', 'STRICT_DNS', 'long.test', $typed->(), respect_dns_ttl => $true, dns_refresh_rate => '0.1s');
$named->('rate', 'LOGICAL_DNS', 'rate.test', $typed->(), dns_refresh_rate => '0.1s', dns_jitter => '0.02s');
$named->('down', 'STRICT_DNS', 'down.test', $typed->(), dns_refresh_rate => '0.1s');
$named->('late', 'STRICT_DNS', 'late.test', $typed->(), dns_refresh_rate => '600s',
    dns_failure_refresh_rate => {base_interval => '0.1s', max_interval => '0.2s'});
$named->('one', 'LOGICAL_DNS', 'pair.test', $typed->(), dns_refresh_rate => '0.1s');
$named->('tcp', 'STRICT_DNS', 'tcp.test', $typed->(use_tcp_for_dns_lookups => $true));
$named->('old', 'STRICT_DNS', 'old.test', dns_resolution_config => {resolvers => [$server],
    dns_resolver_options => {no_default_search_domain => $true}});
$named->('older', 'STRICT_DNS', 'old.test', dns_resolvers => [$server], use_tcp_for_dns_lookups => $true);
$named->('prefers', 'STRICT_DNS', 'both.test', $typed->(), dns_lookup_family => 'V4_PREFERRED');
$named->('auto', 'STRICT_DNS', 'four.test', $typed->(), dns_lookup_family => 'AUTO');
$named->('all', 'STRICT_DNS', 'both.test', $typed->(), dns_lookup_family => 'ALL');
my $front = Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in', @routes));
$xds->serve(CDS => \@clusters, LDS => [$front])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
my $gives = sub {
    my ($name, $what, $why) = @_;
    ok $hd->wait_for(sub { my $r = $hd->get("/$name"); $r->status == 200 && $r->body eq $what }, $why), $why;
};
my $workers = join ' ', sort $hd->workers;

$gives->('strict', '127.0.0.1', 'STRICT_DNS, by the system: /etc/hosts');
$gives->('logical', '127.0.0.1', 'LOGICAL_DNS, by the system');
$hd->wait_for(sub { $dns->asked('nohost.test') }, 'the unknown name to be asked for');
is $hd->get('/unknown')->status, 503, 'a name without addresses';
$gives->('tcp', '127.0.0.1', 'use_tcp_for_dns_lookups');
is $dns->asked('tcp.test', 'A', 'udp'), 0, '... not by UDP';
cmp_ok $dns->asked('tcp.test', 'A', 'tcp'), '>', 0, '... but by TCP';
$gives->('old', '127.0.0.2', 'dns_resolution_config names the server');
$gives->('older', '127.0.0.2', 'so does dns_resolvers');
cmp_ok $dns->asked('old.test', 'A', 'tcp'), '>', 0, '... with its own use_tcp_for_dns_lookups';
cmp_ok $dns->asked('old.test', 'A', 'udp'), '>', 0, '... which the other cluster of that name has not';
$gives->('prefers', '127.0.0.1', 'V4_PREFERRED: IPv6 is left out where IPv4 is');
$gives->('auto', '127.0.0.2', 'AUTO: IPv4 where there is no IPv6');
is $dns->asked('ttl.test', 'AAAA'), 0, 'V4_ONLY: IPv6 is not even asked for';
cmp_ok $dns->asked('both.test', 'AAAA'), '>', 0, 'ALL: both are';

# the answers change
$gives->($_, '127.0.0.1', "$_: as first answered") for 'ttl', 'long', 'rate', 'down';
$dns->set('ttl.test' => {ttl => 1, A => ['127.0.0.2']}, 'long.test' => {ttl => 1, A => ['127.0.0.2']},
    'rate.test' => {ttl => 3600, A => ['127.0.0.2']}, 'nohost.test' => {ttl => 1, A => ['127.0.0.2']});
$gives->('rate', '127.0.0.2', 'dns_refresh_rate, whatever the TTL');
$gives->('ttl', '127.0.0.2', 'respect_dns_ttl: after the TTL, whatever the rate');
$gives->('unknown', '127.0.0.2', 'a name that came up later');
is $hd->get('/long')->body, '127.0.0.1', 'a long TTL is honoured';
is $dns->asked('long.test', 'A'), 1, '... and the name not asked for again';

# NXDOMAIN is an answer
$dns->set('rate.test' => undef, 'ttl.test' => undef);
ok $hd->wait_for(sub { $hd->get('/ttl')->status == 503 }, 'no endpoints'), 'a name that is no more has no addresses';
my $rates = $dns->asked('rate.test');
$hd->wait_for(sub { $dns->asked('rate.test') > $rates + 1 }, 'two more questions');
is $hd->get('/rate')->body, '127.0.0.2', 'LOGICAL_DNS: an empty answer takes nothing away';

# LOGICAL_DNS: one address at a time, the first of the answer
my $ten = sub { my %n; $n{$hd->get('/one')->body}++ for 1 .. 10; return \%n };
is_deeply $ten->(), {'127.0.0.2' => 10}, 'LOGICAL_DNS: the first of two addresses';
$dns->set('pair.test' => {ttl => 1, A => ['127.0.0.1', '127.0.0.2']});
$gives->('one', '127.0.0.1', 'the same two in another order');
is_deeply $ten->(), {'127.0.0.1' => 10}, '... and nobody goes to the other';

# DNS is down
is $hd->get('/late')->status, 503, 'SERVFAIL from the start: no endpoints';
$dns->set('down.test' => 'SERVFAIL');
$hd->wait_log(qr/"down\.test": .*; the last answer stays/, 2);
is $hd->get('/down')->body, '127.0.0.1', 'SERVFAIL: the last answer stays';
$dns->set('down.test' => 'REFUSED');
my $seen = $dns->asked('down.test');
$hd->wait_for(sub { $dns->asked('down.test') > $seen + 6 }, 'more questions');
is $hd->get('/down')->body, '127.0.0.1', 'REFUSED: so it does';
$dns->down;
$seen = $dns->asked('down.test');
$hd->wait_for(sub { $dns->asked('down.test') > $seen }, 'a question without answer');
is $hd->get('/down')->body, '127.0.0.1', 'silence: so it does';
$dns->set('down.test' => {ttl => 1, A => ['127.0.0.2']}, 'late.test' => {ttl => 1, A => ['127.0.0.2']})->up;
$gives->('down', '127.0.0.2', 'and the new answer counts when DNS is back');
$gives->('late', '127.0.0.2', 'dns_failure_refresh_rate, not dns_refresh_rate, after a failure');
is join(' ', sort $hd->workers), $workers, 'all that in the workers of the beginning';

# a cluster is taken away: nobody asks for its name any more
@clusters = grep { $_->{name} ne 'down' } @clusters;
$xds->serve(CDS => \@clusters, LDS => [$front]);
$hd->wait_for(sub { $hd->get('/down')->status == 503 }, 'the cluster to go');
my ($down, $others) = ($dns->asked('down.test'), $dns->asked('pair.test'));
$hd->wait_for(sub { $dns->asked('pair.test') > $others + 3 }, 'others are asked for');
is $dns->asked('down.test'), $down, 'the name of a cluster that is gone is asked for no more';

# refused
for my $bad ([dns_refresh_rate => '0.001s', qr/dns_refresh_rate: more than 1ms/],
    [dns_failure_refresh_rate => {base_interval => '2s', max_interval => '1s'}, qr/dns_failure_refresh_rate: base_interval/],
    [dns_resolvers => [{socket_address => {address => 'dns.test', port_value => 53}}], qr/DNS server: /],
    [dns_resolvers => [($server) x 9], qr/more than 8 DNS servers/]) {
    my ($field, $value, $why) = @$bad;
    pop @clusters if $clusters[-1]{name} eq 'bad';
    $named->('bad', 'STRICT_DNS', 'ttl.test', $field => $value);
    $xds->serve(CDS => \@clusters, LDS => []);
    ok $xds->wait_nack('CDS', $why), "refused: $field";
}

done_testing;
