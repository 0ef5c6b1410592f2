#!/usr/bin/perl
# A listener of several addresses (LDS additional_addresses): each is served; what an update takes away is closed, what it adds
# is opened, the rest keeps its connections; and one that can't be had changes nothing. A cluster's source address for each
# family (CDS extra_source_addresses), over HTTP and TCP.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use IO::Socket::IP;
use IO::Socket::UNIX;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(workers => 2, log_level => 'info');
my $path = $hd->dir . '/listener.sock';
my %at = (first => ['127.0.0.1', $hd->port('first')], second => ['127.0.0.1', $hd->port('second')], six => ['::1', $hd->port('first')],
    busy => ['127.0.0.1', $hd->port('busy')]);
sub address { my ($n) = @_; return $n eq 'path' ? {pipe => {path => $path}} : {socket_address => {address => $at{$n}[0], port_value => 0 + $at{$n}[1]}} }
sub listener {
    my ($says, @more) = @_;
    return Heddle::Xds::listener('web', $hd->port('first'), listener => {additional_addresses => [map { {address => address($_)} } @more]},
        route_config => {name => 'r', virtual_hosts => [{name => 'v', domains => ['*'], routes => [
            {match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => $says}}}]}]});
}
sub dial {
    my ($n) = @_;
    return IO::Socket::UNIX->new(Peer => $path) if $n eq 'path';
    return IO::Socket::IP->new(PeerHost => $at{$n}[0], PeerPort => $at{$n}[1]);
}
sub ask {
    my ($c) = @_;
    return 'refused' unless $c;
    syswrite $c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    my $got = '';
    while ($got !~ /\r\n\r\n\w+\.$/) { sysread $c, $got, 4096, length $got or last }
    return $got =~ /\r\n\r\n(\w+)\.$/ ? $1 : "<$got>";
}
sub asked { return join ' ', map { "$_:" . ask(dial($_)) } @_ }

my $xds = Heddle::Xds->new($hd, 'xds')->serve(LDS => [listener('one.', 'second', 'six', 'path')])->start;
$hd->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }
admin %%ADMIN%%;
EOC
$hd->start;
$xds->wait_ack('LDS');
is asked(qw(first second six path)), 'first:one second:one six:one path:one', 'each address is served';
like $hd->admin('/listeners')->body, qr/^web::127\.0\.0\.1:$at{first}[1]\nweb::127\.0\.0\.1:$at{second}[1]\nweb::\[::1\]:$at{six}[1]\nweb::unix:\Q$path\E$/m,
    'and listed';

my %kept = map { $_ => dial($_) } qw(second six);
is ask($kept{$_}), 'one', "a connection to $_" for sort keys %kept;
$xds->serve(LDS => [listener('two.', 'six')]);
$xds->wait_ack('LDS', 2);
is asked(qw(first six)), 'first:two six:two', 'an update without two of them: the others are served';
$hd->wait_for(sub { !dial('second') && !dial('path') }, 'their sockets to be closed');
is ask($kept{$_}), 'two', "the connection to $_ goes on" for sort keys %kept;

$hd->expect_log(qr/bind\(\) to 127\.0\.0\.1:$at{busy}[1] failed/);
my $busy = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $at{busy}[1], Listen => 1) or die $!;
$xds->serve(LDS => [listener('three.', 'second', 'busy')]);
$xds->wait_nack('LDS', qr/web|listen|in use/i);
is asked(qw(first six second)), 'first:two six:two second:refused', 'an address that is taken: all stays as it was';
my @before = $hd->workers;
$hd->expect_log(qr/worker process $_ exited on signal 9/) for @before;
kill 'KILL', @before;
$hd->wait_for(sub { my @now = $hd->workers; @now == 2 && !grep { my $p = $_; grep { $_ == $p } @before } @now }, 'other workers');
is asked(qw(first six)), 'first:two six:two', 'also in workers that began later';
close $busy;
$xds->serve(LDS => [listener('four.', 'second', 'busy')]);
$hd->wait_for(sub { asked('first') eq 'first:four' }, 'the next update');
is asked(qw(first second busy)), 'first:four second:four busy:four', 'it is free again: taken';
$hd->wait_for(sub { !dial('six') }, 'the socket of what is gone to be closed');

for my $row ([['second', 'second'], qr/additional_addresses\[1\]: it stands there twice/], [['first'], qr/additional_addresses\[0\]: it is the listener's address/]) {
    my ($more, $why) = @$row;
    $xds->serve(LDS => [listener('bad.', @$more)]);
    ok $xds->wait_nack('LDS', $why), "refused: @$more";
}
is asked(qw(first second busy)), 'first:four second:four busy:four', 'and all stays as it was';

# ---- where upstream connections come from

sub serve_on {
    my ($addr, $port) = @_;
    my $l = IO::Socket::IP->new(LocalAddr => $addr, LocalPort => $port, Listen => 64, ReuseAddr => 1) or die "$addr:$port: $!";
    Heddle::Backend::spawn(sub { Heddle::Backend::tcp($l, sub {
        my ($sock) = @_;
        my $from = $sock->peerhost;
        sysread $sock, my $got, 4096;
        syswrite $sock, $got =~ /^GET/ ? "HTTP/1.1 200 OK\r\nContent-Length: " . length($from) . "\r\nConnection: close\r\n\r\n$from" : $from;
    }) });
}
serve_on($_, $hd->port('up')) for '127.0.0.1', '::1';
sub source { my ($addr) = @_; return {address => $addr, port_value => 0} }
sub cluster {
    my ($name, $addr, %bind) = @_;
    return {name => $name, type => 'STATIC', connect_timeout => '2s', upstream_bind_config => {source_address => source('127.0.0.9'), %bind},
        load_assignment => {cluster_name => $name, endpoints => [{lb_endpoints => [{endpoint => {address =>
            {socket_address => {address => $addr, port_value => 0 + $hd->port('up')}}}}]}]}};
}
my %both = (extra_source_addresses => [{address => source('::1')}]);
my @l = map { my $n = $_; {name => "tcp_$n", address => Heddle::Xds::address($hd->port("tcp_$n")), filter_chains => [{filters => [{name => 'tcp', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy', stat_prefix => 'x', cluster => $n}}]}]} } qw(four six old);
push @l, Heddle::Xds::listener('from', $hd->port('from'), route_config => Heddle::Xds::routes('from', map { ["/$_" => $_] } qw(four six old)));
$xds->serve(CDS => [cluster('four', '127.0.0.1', %both), cluster('six', '::1', %both), cluster('old', '::1', additional_source_addresses => [source('::1')])], LDS => \@l);
$hd->wait_for(sub { eval { $hd->get('/four', {port => 'from'})->status == 200 } }, 'the clusters');
my %from = (four => '127.0.0.9', six => '::1', old => '::1');
for my $n (sort keys %from) {
    is $hd->get("/$n", {port => 'from'})->body, $from{$n}, "$n: HTTP comes from the address of the family";
    my $c = $hd->connect("tcp_$n");
    $c->send('hi');
    is $c->read_all, $from{$n}, "$n: TCP";
}
for my $row ([[extra_source_addresses => [{address => source('127.0.0.8')}]], qr/same family as source_address/],
    [[extra_source_addresses => [map { {address => source($_)} } '::1', '::2']], qr/one further source address is allowed/],
    [[source_address => undef, %both], qr/further source addresses without source_address/]) {
    my ($bind, $why) = @$row;
    my %bind = @$bind;
    my $c = cluster('four', '127.0.0.1', %bind);
    delete $c->{upstream_bind_config}{source_address} if exists $bind{source_address};
    $xds->serve(CDS => [$c]);
    ok $xds->wait_nack('CDS', $why), "refused: $why";
}
done_testing;
