#!/usr/bin/perl
# max_downstream_connection_duration of tcp_proxy: a connection ends when its time is over, whatever
# moves on it, with what was sent before (DT in the log); others go on. A time of 0 is refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Time::HiRes ();
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $any = 'type.googleapis.com/';
my $hd = Heddle->new(modules => ['access_log'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }
EOC
$hd->tcp_backend(1, sub { # gives back what it gets
    my ($sock) = @_;
    while (sysread $sock, my $bytes, 65536) { syswrite $sock, $bytes }
});
my $log = {name => 'log', typed_config => {'@type' => "${any}envoy.extensions.access_loggers.file.v3.FileAccessLog",
    path => '/dev/stdout', log_format => {text_format_source => {inline_string => "flags=%RESPONSE_FLAGS% of %UPSTREAM_CLUSTER%\n"}}}};
sub tcp {
    my ($n, %more) = @_;
    return {name => "tcp$n", address => Heddle::Xds::address($hd->port("l$n")), filter_chains => [{filters => [{
        name => 'tcp', typed_config => {'@type' => "${any}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix => 'x', cluster => "c$n", access_log => [$log], %more}}]}]};
}
my @clusters = map { Heddle::Xds::cluster("c$_", $hd->port(1)) } 1 .. 3;
my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(CDS => \@clusters, LDS => [tcp(1, max_downstream_connection_duration => '2s'), tcp(2)])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port("l$_")) }, "listener $_", 60) for 1, 2;

my $other = $hd->connect('l2');
my $from = Time::HiRes::time();
my $c = $hd->connect('l1');
$c->send('first ');
is $c->read_bytes(6), 'first ', 'it carries bytes';
is $c->read_all, '', 'and ends by itself';
my $took = Time::HiRes::time() - $from;
cmp_ok $took, '>=', 1.99, "after its time: $took s";
$hd->wait_for(sub { $hd->file('output') =~ /^flags=DT of c1$/m }, 'its flag in the log');
pass 'its flag in the log';
$other->send('still');
is $other->read_bytes(5), 'still', 'another listener\'s goes on';

$xds->serve(CDS => \@clusters, LDS => [tcp(2), tcp(3, max_downstream_connection_duration => '0s')]);
my ($nack) = $xds->wait_nack('LDS', qr/max_downstream_connection_duration: 1 ms at least/);
ok $nack, 'a time of 0 is refused';
done_testing;
