#!/usr/bin/perl
# How single endpoints are checked by xDS: Endpoint.health_check_config (port, address, host name, not at
# all), transport_socket_match_criteria, and whose name the Host field has when nothing says one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use JSON::PP;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(workers => 2);
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.example', dns => 'a.example');
$hd->conf(<<"EOC");
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
http {
    server { # answers checks over TLS only
        listen 127.0.0.1:%%PORT_5%% ssl;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        return 200 ok;
    }
}
admin %%ADMIN%%;
EOC
# 1: serves, and is ill; 2 is where it is checked instead, 3 notes who asked it
$hd->backend(1, sub { return {status => $_[0]{uri} eq '/check' ? 500 : 200, body => 'one'} });
$hd->backend(2, sub { return {body => 'two'} });
my $asked = $hd->dir . '/asked';
$hd->backend(3, sub {
    my ($req) = @_;
    if ($req->{uri} eq '/check') {
        open my $f, '>>', $asked or die;
        print $f $req->header('host'), "\n";
    }
    return {body => 'three'};
});

sub endpoint { my ($port, %check) = @_; return {lb_endpoints => [{endpoint => {
    address => Heddle::Xds::address($hd->port($port)), (%check ? (health_check_config => {%check}) : ())}}]} }
sub cluster {
    my ($name, $endpoint, %more) = @_;
    my $check = delete $more{check} // {};
    return Heddle::Xds::cluster($name, 1, load_assignment => {cluster_name => $name, endpoints => [$endpoint]},
        common_lb_config => {healthy_panic_threshold => {value => 0}},
        health_checks => [{interval => '0.05s', timeout => '5s', no_traffic_interval => '0.05s', unhealthy_threshold => 1,
            healthy_threshold => 1, http_health_check => {path => '/check'}, %$check}], %more);
}
my $any = 'type.googleapis.com/envoy.extensions.transport_sockets.';
my $matches = [
    {name => 'tls', match => {checked => 'by-tls'}, transport_socket => {name => 'tls', typed_config =>
        {'@type' => "${any}tls.v3.UpstreamTlsContext", common_tls_context => {}}}},
    {name => 'raw', match => {}, transport_socket => {name => 'raw', typed_config => {'@type' => "${any}raw_buffer.v3.RawBuffer"}}}];
my @names = qw(ill port addr off host named tls plain);
my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(
    CDS => [
        cluster('ill', endpoint(1)),
        cluster('port', endpoint(1, port_value => 0 + $hd->port(2)), check => {alt_port => 1}),
        cluster('addr', endpoint(1, address => Heddle::Xds::address($hd->port(2)))),
        cluster('off', endpoint(1, disable_active_health_check => JSON::PP::true())),
        cluster('host', endpoint(3, hostname => 'own.example'),
            check => {http_health_check => {path => '/check', host => 'all.example'}}),
        cluster('named', endpoint(3)),
        cluster('tls', endpoint(1, port_value => 0 + $hd->port(5)), transport_socket_matches => $matches,
            check => {transport_socket_match_criteria => {checked => 'by-tls'}}),
        cluster('plain', endpoint(1, port_value => 0 + $hd->port(5)), transport_socket_matches => $matches),
    ],
    LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in', map { ["/$_" => $_] } @names))],
)->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener', 60);

my %want = (port => 'one', addr => 'one', off => 'one', host => 'three', named => 'three', tls => 'one');
for my $name (grep { $want{$_} } @names) {
    ok eval { $hd->wait_for(sub { $hd->get("/$name")->body eq $want{$name} }, $name); 1 }, "$name serves";
}
for my $name ('ill', 'plain') {
    my $failed = sub { my $m = $hd->admin('/metrics')->body;
        return $m =~ /^heddle_health_checks_total\{(?=[^}]*cluster="$name")(?=[^}]*outcome="failure")/m };
    ok eval { $hd->wait_for($failed, "$name is checked"); 1 }, "$name is checked, and fails";
    is $hd->get("/$name")->status, 503, "$name serves nobody";
}
$hd->wait_for(sub { my $all = $hd->file('asked'); $all =~ /^own\.example$/m && $all =~ /^named$/m }, 'both were asked');
unlike $hd->file('asked'), qr/^(?!own\.example$|named$)/m, 'the endpoint\'s name goes before the check\'s; without any it is the cluster\'s';
my $off = $hd->admin('/metrics')->body;
unlike $off, qr/heddle_health_checks_total\{[^}]*cluster="off"/, 'who isn\'t to be checked isn\'t';
done_testing;
