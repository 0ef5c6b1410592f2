#!/usr/bin/perl
# Connections that end for a reason of their own: what a pool keeps to an endpoint that active checks give up, and TCP
# sessions with it (close_connections_on_host_health_failure).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(workers => 2, modules => ['access_log'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $xds = Heddle::Xds->new($hd, 'xds');
my $true = JSON::XS::true;
for my $name ('closes', 'keeps') {
    $hd->tcp_backend($name, sub { # HTTP/1; notes down when a connection that carried requests of ours has ended
        my ($sock) = @_;
        my ($buf, $served) = ('', 0);
        while (sysread $sock, $buf, 65536, length $buf) {
            while ($buf =~ s/^GET (\S+) .*?\r\n\r\n//s) {
                my $is_check = $1 eq '/health';
                $served += !$is_check;
                my $status = $is_check && -e $hd->dir . '/ill' ? 500 : 200;
                syswrite $sock, "HTTP/1.1 $status X\r\nContent-Length: 2\r\n\r\nok";
            }
        }
        return unless $served;
        open my $f, '>', $hd->dir . "/ended-$name" or die $!;
        close $f;
    });
}
my $cluster = sub {
    my ($name, %more) = @_;
    return {name => $name, type => 'STATIC', connect_timeout => '2s', load_assignment => {cluster_name => $name,
        endpoints => [{lb_endpoints => [{endpoint => {address => {socket_address => {address => '127.0.0.1', port_value => 0 + $hd->port($name)}}}}]}]}, %more};
};
my %checked = (health_checks => [{timeout => '5s', interval => '0.1s', no_traffic_interval => '0.1s', unhealthy_threshold => 1,
    healthy_threshold => 1, http_health_check => {path => '/health'}}]);
my $log = {name => 'log', typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog',
    path => '/dev/stdout', log_format => {text_format_source => {inline_string => "%UPSTREAM_CLUSTER% %BYTES_SENT% %RESPONSE_FLAGS%\n"}}}};
$xds->serve(CDS => [$cluster->('keeps', %checked),
    $cluster->('closes', %checked, close_connections_on_host_health_failure => $true)],
    LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in', ['/closes' => 'closes'], ['/keeps' => 'keeps'])),
        map { {name => "tcp $_", address => Heddle::Xds::address($hd->port("tcp_$_")), filter_chains => [{filters => [{name => 'tcp', typed_config => {
            '@type' => 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy', stat_prefix => $_, cluster => $_, access_log => [$log]}}]}]} } 'keeps', 'closes'])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 0, 'tcp_keeps', 'tcp_closes';

is $hd->get("/$_")->status, 200, $_ for 'keeps', 'closes';
my %session = map { my $name = $_; $name => [map { $hd->connect("tcp_$name") } 1 .. 4] } 'keeps', 'closes';
sub ask { my ($c) = @_; $c->send("GET /health HTTP/1.1\r\n\r\n"); return $c->response->body }
is join(' ', map { ask($_) } @{$session{$_}}), 'ok ok ok ok', "TCP: $_" for 'keeps', 'closes';
open my $f, '>', $hd->dir . '/ill' or die $!;
close $f;
ok $hd->wait_for(sub { -e $hd->dir . '/ended-closes' }, 'an end'), 'a check fails: kept connections are closed';
$hd->wait_log(qr/upstream "keeps": server \S+ is unhealthy/);
ok !-e $hd->dir . '/ended-keeps', 'not where nothing says so';
is scalar(grep { $_->read_all eq '' && $_->is_eof } @{$session{closes}}), 4, 'TCP: sessions end';
ok $hd->wait_for(sub { 4 == (() = $hd->file('output') =~ /^closes 39 UC$/mg) }, 'their lines in the log'), 'and the log says so';
unlink $hd->dir . '/ill';
is join(' ', map { ask($_) } @{$session{keeps}}), 'ok ok ok ok', 'others go on';
$_->close for @{$session{keeps}};
$hd->wait_for(sub { ($hd->log =~ /upstream "closes": server \S+ is (healthy|unhealthy)/g)[-1] eq 'healthy' }, 'it to be well again');
is $hd->get('/closes')->status, 200, 'well again: new ones are made';
$hd->stop;
done_testing;
