#!/usr/bin/perl
# Which endpoint a request goes to, as nginx's upstream {} and xDS's cluster say it.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['retry'], main => "admin %%ADMIN%%;\n");

# <n> more requests after the first; how many each server got of them all.
sub spread {
    my ($row, $n, $uri, @headers) = @_;
    return sub {
        my ($res, $hd, $way) = @_;
        my %got = ($res->body => 1);
        $got{$hd->get($uri, {port => "r$row"}, @headers)->body}++ for 1 .. $n;
        return join ' ', map { "$_:$got{$_}" } sort keys %got;
    };
}

my $rows = 0;
sub spread_row {
    my ($name, $want, $n, %row) = @_;
    my $row = $rows++;
    my $spread = spread($row, $n - 1, $row{uri} // '/', @{$row{headers} // []});
    $t->row($name, %row, ask => [['GET', $row{uri} // '/', {check => sub {
        my $got = $spread->(@_);
        return 1 if ref $want ? $want->($got) : $got eq $want;
        diag("$name: $got");
        return 0;
    }}, @{$row{headers} // []}]]);
}

my $typed = sub {
    my ($name, $url, %settings) = @_;
    return (load_balancing_policy => {policies => [{typed_extension_config => {
        name => $name, typed_config => {'@type' => "type.googleapis.com/envoy.extensions.load_balancing_policies.$url", %settings}}}]});
};

spread_row('round robin (DR-LB-1)', '0:4 1:4 2:4', 12, servers => [{}, {}, {}]);
spread_row('round robin by weight (DR-LB-3)', '0:10 1:2 2:2', 14,
    servers => [{file => 'weight=5', xds => {load_balancing_weight => 5}}, {}, {}]);
spread_row('least request at rest, by weight (DR-LB-2)', '0:9 1:3 2:3', 15, upstream => 'least_conn;',
    cluster => {lb_policy => 'LEAST_REQUEST'},
    servers => [{file => 'weight=3', xds => {load_balancing_weight => 3}}, {}, {}]);
spread_row('random: all of them', sub { $_[0] =~ /^0:\d+ 1:\d+ 2:\d+$/ }, 60, upstream => 'random;',
    cluster => {lb_policy => 'RANDOM'}, servers => [{}, {}, {}]);
spread_row('a key: one server (DR-LB-5)', sub { $_[0] =~ /^\d:10$/ }, 10, upstream => 'hash $http_x_key consistent;',
    headers => ['X-Key' => 'a'], cluster => {lb_policy => 'RING_HASH'},
    route => {route => {hash_policy => [{header => {header_name => 'x-key'}}]}}, servers => [{}, {}, {}]);
spread_row('a key, Maglev (DR-LB-7)', sub { $_[0] =~ /^\d:10$/ }, 10, upstream => 'hash $arg_key;', uri => '/?key=7',
    cluster => {lb_policy => 'MAGLEV', maglev_lb_config => {table_size => 251}},
    route => {route => {hash_policy => [{query_parameter => {name => 'key'}}]}}, servers => [{}, {}, {}]);
spread_row('by the client\'s address', sub { $_[0] =~ /^\d:10$/ }, 10, upstream => 'ip_hash;',
    cluster => {$typed->('ring', 'ring_hash.v3.RingHash', hash_function => 'MURMUR_HASH_2')},
    route => {route => {hash_policy => [{connection_properties => {source_ip => JSON::XS::true()}}]}}, servers => [{}, {}, {}]);
spread_row('a terminal policy that found something is the last', sub { $_[0] =~ /^\d:10$/ }, 10,
    upstream => 'hash $http_x_key;', headers => ['X-Key' => 'a', 'X-Other' => rand()], cluster => {lb_policy => 'RING_HASH'},
    route => {route => {hash_policy => [{header => {header_name => 'x-key',
        regex_rewrite => {pattern => {regex => 'a'}, substitution => 'b'}}, terminal => JSON::XS::true()},
        {header => {header_name => 'x-other'}}]}}, servers => [{}, {}, {}]);
# 0 is slow: once that is known the other has it all.
my $n_least = $rows++;
$t->row('the least time', upstream => 'least_time header;',
    cluster => {$typed->('ewma', 'peak_ewma.v3alpha.PeakEwma', decay_time => '1000s')},
    servers => [{backend => sub { select undef, undef, undef, 0.4; [200, [], 0] }}, {}],
    ask => [['GET', '/', {check => sub {
        my ($res, $hd) = @_;
        my @got = ($res->body, map { $hd->get('/', {port => "r$n_least"})->body } 1 .. 9);
        my $slow = grep { $_ eq '0' } @got;
        diag("the slow one has $slow of 10") if $slow > 1;
        return $slow <= 1;
    }}]]);
spread_row('the second priority waits, as a backup does', '0:6', 6,
    servers => [{}, {file => 'backup', locality => {priority => 1}}]);
spread_row('unhealthy, or down: the rest', '1:6', 6,
    servers => [{file => 'down', xds => {health_status => 'UNHEALTHY'}}, {}]);
spread_row('slow start is nothing where all are new', '0:6 1:6', 12,
    cluster => {lb_policy => 'ROUND_ROBIN', round_robin_lb_config => {slow_start_config => {slow_start_window => '600s'}}},
    servers => [{file => 'slow_start=600s'}, {file => 'slow_start=600s'}]);

$t->{after} = sub {
    my ($hd, $way) = @_;
    my $text = $hd->admin('/clusters');
    my $p = $hd->port('b1s0');
    like $text, qr/^row1::127\.0\.0\.1:${p}::weight::5$/m, "$way: /clusters: weights";
    like $text, qr/^row1::127\.0\.0\.1:${p}::health_flags::healthy$/m, "$way: /clusters: health";
    like $text, qr/^row1::127\.0\.0\.1:${p}::rq_active::0$/m, "$way: /clusters: load";
    like $text, qr/^row9::127\.0\.0\.1:@{[$hd->port('b9s1')]}::priority::1$/m, "$way: /clusters: priorities"
        if $way eq 'xds';
};
$t->run;

# --- what xDS alone says
my $x = Heddle::TwoWays->new(modules => ['retry']);
$rows = 0;
my $place = sub { (locality => {locality => {region => 'r', zone => $_[0]}, load_balancing_weight => $_[1], %{$_[2] // {}}}) };
spread_row_of($x, 'localities by weight (DR-LOC-3)', '0:9 1:3', 12,
    cluster => {common_lb_config => {locality_weighted_lb_config => {}}},
    servers => [{$place->('a', 75)}, {$place->('b', 25)}]);
spread_row_of($x, 'the same by WrrLocality', '0:9 1:3', 12,
    cluster => {$typed->('wrr', 'wrr_locality.v3.WrrLocality', endpoint_picking_policy => {policies => [
        {typed_extension_config => {name => 'rr', typed_config => {
            '@type' => 'type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin'}}}]})},
    servers => [{$place->('a', 75)}, {$place->('b', 25)}]);
spread_row_of($x, 'failover: nobody well in the first priority (DR-LOC-9)', '1:6', 6,
    servers => [{xds => {health_status => 'UNHEALTHY'}}, {$place->('b', 1, {priority => 1})}]);
spread_row_of($x, 'all unhealthy: panic', '0:3 1:3', 6,
    servers => [({xds => {health_status => 'UNHEALTHY'}}) x 2]);
spread_row_of($x, 'degraded where nobody is well', '1:6', 6,
    servers => [{xds => {health_status => 'UNHEALTHY'}}, {xds => {health_status => 'DEGRADED'}}]);
my $n = $rows++;
{
    my $to = $n;
    $x->row('original destination by header', cluster => {type => 'ORIGINAL_DST', lb_policy => 'CLUSTER_PROVIDED',
        original_dst_lb_config => {use_http_header => JSON::XS::true()}, load_assignment => undef},
        ask => [['GET', '/', {check => sub {
            my ($res, $hd) = @_;
            my $there = $hd->get('/over', {port => "r$to"}, 'x-envoy-original-dst-host' => '127.0.0.1:' . $hd->port("b$to"));
            return $there->status == 200 && $there->body =~ m{GET /over};
        }}]]);
}
$n = $rows++;
$x->row('no panic threshold: 503 UH', cluster => {common_lb_config => {healthy_panic_threshold => {value => 0}}},
    servers => [({xds => {health_status => 'UNHEALTHY'}}) x 2], ask => [['GET', '/', {status => 503, body => qr/no healthy upstream/}]]);
$n = $rows++;
$x->row('a cookie is made, and leads back (DR-LB-6)', cluster => {lb_policy => 'RING_HASH'},
    route => {route => {hash_policy => [{cookie => {name => 'who', ttl => '60s', path => '/',
        attributes => [{name => 'SameSite', value => 'Lax'}, {name => 'Secure'}]}}]}},
    servers => [{}, {}, {}], ask => [
        ['GET', '/', {head => qr/^set-cookie: who="[0-9a-f]{16}"; Max-Age=60; Path=\/; SameSite=Lax; Secure; HttpOnly\r?$/mi,
            check => sub {
                my ($res, $hd) = @_;
                my ($cookie) = $res->head =~ /who="([0-9a-f]+)"/;
                my @again = map { $hd->get('/', {port => "r$n"}, Cookie => "who=$cookie") } 1 .. 5;
                return !grep { $_->body ne $res->body || $_->head =~ /set-cookie/i } @again;
            }}],
    ]);
$rows++;
$x->row('without a ttl none is made', cluster => {lb_policy => 'RING_HASH'},
    route => {route => {hash_policy => [{cookie => {name => 'who'}}]}}, servers => [{}, {}],
    ask => [['GET', '/', {status => 200, no_head => qr/set-cookie/i}]]);
$rows++;
$x->row('nor for a cluster that does not choose by it', cluster => {lb_policy => 'ROUND_ROBIN'},
    route => {route => {hash_policy => [{cookie => {name => 'who', ttl => '60s'}}]}}, servers => [{}, {}],
    ask => [['GET', '/', {status => 200, no_head => qr/set-cookie/i}]]);
my $busy = sub { [503, [], 'busy'] };
my $policy = sub { (route => {route => {retry_policy => {retry_on => '5xx', num_retries => 1, @_}}}) };
$rows++;
$x->row('a retry avoids the endpoint that was tried (previous_hosts)',
    $policy->(retry_host_predicate => [{name => 'envoy.retry_host_predicates.previous_hosts', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate'}}]),
    servers => [{backend => $busy, xds => {load_balancing_weight => 100}}, {}],
    ask => [map { ['GET', '/', {status => 200, body => qr/^1$/}] } 1 .. 5]);
$rows++;
$x->row('or the priority (previous_priorities)',
    $policy->(retry_priority => {name => 'envoy.retry_priorities.previous_priorities', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig',
        update_frequency => 1}}),
    servers => [{backend => $busy}, {backend => $busy}, {locality => {priority => 1}}],
    ask => [map { ['GET', '/', {status => 200, body => qr/^2$/, tries => 2}] } 1 .. 5]);
# Subsets: servers 0 and 1 are v1, 2 is v2, 3 is v2 and canary.
my $labels = sub { (xds => {metadata => {filter_metadata => {'envoy.lb' => {@_}}}}) };
my @versions = ({$labels->(version => 'v1')}, {$labels->(version => 'v1')}, {$labels->(version => 'v2')},
    {$labels->(version => 'v2', stage => ['canary', 'night'])});
my $want = sub { (route => {route => {metadata_match => {filter_metadata => {'envoy.lb' => {@_}}}}}) };
my $subsets = sub { (cluster => {lb_subset_config => {subset_selectors => [{keys => ['version']}], @_}}, servers => \@versions) };
spread_row_of($x, 'a subset', '0:3 1:3', 6, $subsets->(), $want->(version => 'v1'));
spread_row_of($x, 'two keys, one of them a list', '3:4', 4, $want->(version => 'v2', stage => 'night'),
    $subsets->(list_as_any => JSON::XS::true(), subset_selectors => [{keys => ['stage', 'version']}]));
spread_row_of($x, 'nobody is in it: ANY_ENDPOINT', '0:2 1:2 2:2 3:2', 8, $want->(version => 'v3'),
    $subsets->(fallback_policy => 'ANY_ENDPOINT'));
spread_row_of($x, 'no labels: DEFAULT_SUBSET', '2:3 3:3', 6,
    $subsets->(fallback_policy => 'DEFAULT_SUBSET', default_subset => {version => 'v2'}));
spread_row_of($x, 'fewer keys: KEYS_SUBSET', '2:3 3:3', 6, $want->(version => 'v2', stage => 'none'),
    $subsets->(subset_selectors => [{keys => ['version']}, {keys => ['version', 'stage'],
        fallback_policy => 'KEYS_SUBSET', fallback_keys_subset => ['version']}]));
my @list = (version => 'v3', fallback_list => [{stage => 'none'}, {version => 'v2'}, {}]);
spread_row_of($x, 'the first of fallback_list that anybody is in', '2:3 3:3', 6, $want->(@list),
    $subsets->(metadata_fallback_policy => 'FALLBACK_LIST', subset_selectors => [{keys => ['version']}, {keys => ['version', 'stage']}]));
spread_row_of($x, 'nor is one asked for by METADATA_NO_FALLBACK', '0:2 1:2 2:2 3:2', 8, $want->(@list),
    $subsets->(fallback_policy => 'ANY_ENDPOINT'));
$rows++;
$x->row('nobody is in it: NO_FALLBACK', $want->(version => 'v3'), $subsets->(), ask => [['GET', '/', {status => 503}]]);
$x->{after} = sub { };
$x->run_xds;

sub spread_row_of {
    my ($on, @args) = @_;
    my $was = $t;
    $t = $on;
    spread_row(@args);
    $t = $was;
}
done_testing;
