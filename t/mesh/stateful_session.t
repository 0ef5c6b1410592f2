#!/usr/bin/perl
# stateful_session by xDS: a cookie or a header keeps a session at the endpoint that began it, in Envoy's
# encoding; strict; off and otherwise on a route; which states of health count (override_host_status).
use strict;
use warnings;
use lib 't/lib';
use MIME::Base64;
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(modules => ['stateful_session'], workers => 2)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
my $true = JSON::XS::true;
my $type = 'type.googleapis.com/envoy.extensions';
sub session {
    my ($state, %more) = @_;
    my ($kind, $what) = %$state;
    return ('@type' => "$type.filters.http.stateful_session.v3.StatefulSession", session_state => {name => 'x', typed_config => {
        '@type' => "$type.http.stateful_session.$kind", %$what}}, %more);
}
sub cookie { (session({'cookie.v3.CookieBasedSessionState' => {cookie => {name => 'srv', @_}}})) }
sub route_of { ('@type' => "$type.filters.http.stateful_session.v3.StatefulSessionPerRoute", @_) }

for my $n (1 .. 3) {
    $hd->backend($n, sub { $n });
}
my $endpoint = sub {
    my ($port, $health) = @_;
    return {health_status => $health // 'UNKNOWN', endpoint => {address => {socket_address => {address => '127.0.0.1', port_value => 0 + $hd->port($port)}}}};
};
my $cluster = sub {
    my ($name, $endpoints, %more) = @_;
    return {name => $name, type => 'STATIC', connect_timeout => '1s',
        load_assignment => {cluster_name => $name, endpoints => [{lb_endpoints => $endpoints}]}, %more};
};
my @all = map { $endpoint->($_) } 1 .. 3;
my @mixed = ($endpoint->(1, 'DRAINING'), $endpoint->(2, 'UNHEALTHY'), $endpoint->(3));
my @clusters = ($cluster->('all', \@all), $cluster->('mixed', \@mixed, common_lb_config => {healthy_panic_threshold => {value => 0}}),
    $cluster->('kept', \@mixed, common_lb_config => {healthy_panic_threshold => {value => 0}, override_host_status => {statuses => ['DRAINING', 'HEALTHY']}}));
my $listener = sub {
    my ($name, $port, %config) = @_;
    my @override = ('all', 'mixed', 'kept');
    my $routes = Heddle::Xds::routes('in', ['/off' => 'all'], ['/other' => 'all'], map { ["/$_" => $_] } @override);
    for my $r (@{$routes->{virtual_hosts}[0]{routes}}) {
        my $prefix = $r->{match}{prefix} // '';
        $r->{typed_per_filter_config}{s} = {route_of(disabled => $true)} if $prefix eq '/off';
        $r->{typed_per_filter_config}{s} = {route_of(stateful_session => {session({'header.v3.HeaderBasedSessionState' => {name => 'x-other'}})})}
            if $prefix eq '/other';
        delete $r->{typed_per_filter_config}{s}{stateful_session}{'@type'} if $prefix eq '/other';
    }
    return Heddle::Xds::listener($name, $hd->port($port), route_config => $routes,
        http_filters => [{name => 's', typed_config => {%config}}]);
};
my @listeners = (
    $listener->('cookie', 0, cookie(ttl => '120s', path => '/', attributes => [{name => 'SameSite', value => 'Lax'}])),
    $listener->('header', 'h', session({'header.v3.HeaderBasedSessionState' => {name => 'X-Session'}})),
    $listener->('strict', 's', session({'cookie.v3.CookieBasedSessionState' => {cookie => {name => 'srv'}}}, strict => $true)),
    $listener->('path', 'p', cookie(path => '/all')),
);
$xds->serve(CDS => \@clusters, LDS => \@listeners)->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port('p')) }, 'the listeners');

my $address = sub { '127.0.0.1:' . $hd->port($_[0]) };
my $proto = sub { my ($a, $expires) = @_; encode_base64("\x0a" . chr(length $a) . $a . ($expires ? "\x10" . pack('w', 0) : ''), '') };
my $get = sub {
    my ($port, $uri, @h) = @_;
    return $hd->get($uri, {port => $port}, @h);
};
my $seen = sub { my ($n, @ask) = @_; my %n; for (1 .. $n) { my $r = $get->(@ask); $n{$r->status == 200 ? $r->body : $r->status}++ } join ' ', sort keys %n };

# a cookie
my $r = $get->(0, '/all');
my $first = $r->body;
like $r->header('set-cookie'), qr{^srv="([\w+/=]+)"; Max-Age=120; Path=/; SameSite=Lax; HttpOnly$}, 'the first answer sets a cookie';
my ($value) = $r->header('set-cookie') =~ /^srv="([^"]+)"/;
like decode_base64($value), qr/^\x0a.\Q${\$address->($first)}\E\x10/s, 'with the endpoint\'s address, and when it ends';
is $seen->(8, 0, '/all', Cookie => "a=b; srv=\"$value\""), $first, 'which leads there';
is $get->(0, '/all', Cookie => "srv=\"$value\"")->header('set-cookie'), undef, 'and isn\'t set again';
is $seen->(6, 0, '/all', Cookie => 'srv=' . $proto->($address->(2))), 2, 'another\'s';
is $seen->(6, 0, '/all', Cookie => 'srv=' . encode_base64($address->(3), '')), 3, 'the older form: a bare address';
is $seen->(30, 0, '/all', Cookie => 'srv=' . $proto->('127.0.0.1:9')), '1 2 3', 'no endpoint of ours: any, never that address';
is $seen->(30, 0, '/all', Cookie => 'srv=%%%'), '1 2 3', 'nonsense: any';
is $seen->(30, 0, '/all', Cookie => 'srv=' . encode_base64("\x0a" . chr(length $address->(2)) . $address->(2) . "\x10\x05", '')), '1 2 3', 'one that has ended: any';

# a header
$r = $get->('h', '/all');
is decode_base64($r->header('x-session')), $address->($r->body), 'a header with the address';
is $seen->(6, 'h', '/all', 'X-Session' => encode_base64($address->(2), '')), 2, 'which leads there';
is $get->('h', '/all', 'X-Session' => encode_base64($address->(2), ''))->header('x-session'), undef, 'and isn\'t sent again';

# routes and paths
is $seen->(30, 0, '/off', Cookie => "srv=\"$value\""), '1 2 3', 'off on a route';
is $get->(0, '/off')->header('set-cookie'), undef, '... no cookie there';
is $seen->(6, 0, '/other', 'X-Other' => encode_base64($address->(3), '')), 3, 'otherwise on a route';
is $seen->(6, 'p', '/all', Cookie => 'srv=' . $proto->($address->(1))), 1, 'the cookie\'s path';
is $seen->(6, 'p', '/all/x', Cookie => 'srv=' . $proto->($address->(1))), 1, 'and below';
is $seen->(6, 'p', '/mixed', Cookie => 'srv=' . $proto->($address->(1))), 3, 'no other';
is $get->('p', '/mixed')->header('set-cookie'), undef, '... and no cookie there';

# health
is $seen->(4, 0, '/mixed', Cookie => 'srv=' . $proto->($address->($_))), 3, "an endpoint that doesn't serve: another one ($_)" for 1, 2;
isnt $get->(0, '/mixed', Cookie => 'srv=' . $proto->($address->(1)))->header('set-cookie'), undef, 'and the client is told';
is $seen->(4, 0, '/kept', Cookie => 'srv=' . $proto->($address->(1))), 1, 'override_host_status: DRAINING serves those who are there';
is $seen->(4, 0, '/kept', Cookie => 'srv=' . $proto->($address->(2))), 3, '... UNHEALTHY doesn\'t';
is $seen->(4, 's', '/mixed', Cookie => 'srv=' . $proto->($address->(1))), 503, 'strict: that endpoint or none';
is $seen->(4, 's', '/all', Cookie => 'srv=' . $proto->('127.0.0.1:9')), 503, 'strict: nor any other address';
is $seen->(12, 's', '/all') =~ tr/0-9//, 3, 'strict: who brings nothing goes anywhere';

# refused
for my $bad ([session({'cookie.v3.CookieBasedSessionState' => {cookie => {name => ''}}}), qr/a cookie wants a name/],
    [session({'header.v3.HeaderBasedSessionState' => {name => 'a b'}}), qr/"a b" is no field name/],
    [cookie(path => "/\n"), qr/path or attributes no cookie can have/],
    [session({'header.v3.HeaderBasedSessionState' => {name => 'a'}}, status_on_strict_destination_not_found => 404), qr/503 alone/]) {
    my $why = pop @$bad;
    $xds->serve(CDS => \@clusters, LDS => [@listeners, $listener->('bad', 'bad', @$bad)]);
    ok $xds->wait_nack('LDS', $why), "refused: $why";
}
$hd->stop;
done_testing;
