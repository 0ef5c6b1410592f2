#!/usr/bin/perl
# Connections that end for a reason of their own: what a pool keeps to an endpoint that active checks give up
# (close_connections_on_host_health_failure).
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
$xds->serve(CDS => [$cluster->('keeps', %checked),
    $cluster->('closes', %checked, close_connections_on_host_health_failure => $true)],
    LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in', ['/closes' => 'closes'], ['/keeps' => 'keeps']))])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');

is $hd->get("/$_")->status, 200, $_ for 'keeps', 'closes';
open my $f, '>', $hd->dir . '/ill' or die $!;
close $f;
ok $hd->wait_for(sub { -e $hd->dir . '/ended-closes' }, 'an end'), 'a check fails: kept connections are closed';
$hd->wait_log(qr/upstream "keeps": server \S+ is unhealthy/);
ok !-e $hd->dir . '/ended-keeps', 'not where nothing says so';
unlink $hd->dir . '/ill';
$hd->wait_for(sub { ($hd->log =~ /upstream "closes": server \S+ is (healthy|unhealthy)/g)[-1] eq 'healthy' }, 'it to be well again');
is $hd->get('/closes')->status, 200, 'well again: new ones are made';
$hd->stop;
done_testing;
