#!/usr/bin/perl
# Sessions of stream as Istio counts and logs them, from a file and by xDS: istio_tcp_* at the
# opening, while it goes on and at the end (METRIC-7 to METRIC-10, METRIC-12, MLABEL-18), and
# Envoy's access log of tcp_proxy with its response flags (ALOG-3, ALOG-10, RFLAG-4, RFLAG-5).
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $any = 'type.googleapis.com/';
my $self = 'metrics_workload workload=page namespace=shop app=page version=v1 cluster=east;';

sub sum {
    my ($hd, $name, %want) = @_;
    my $sum = 0;
    my $text = $hd->admin('/metrics')->body;
    while ($text =~ /^\Q$name\E\{(.*)\} (\S+)$/mg) {
        my ($labels, $value) = ($1, $2);
        my %l = $labels =~ /(\w+)="([^"]*)"/g;
        $sum += $value unless grep { ($l{$_} // '') ne $want{$_} } keys %want;
    }
    return $sum;
}
sub counts {
    my ($hd, $want, $what, $name, %labels) = @_;
    ok eval { $hd->wait_for(sub { sum($hd, $name, %labels) == $want }, $what); 1 }, $what
        or diag join "\n", grep { /^$name/ } split /\n/, $hd->admin('/metrics')->body;
}

sub by_file {
    my $hd = Heddle->new(modules => ['metrics', 'access_log']);
    $hd->conf(<<"EOC");
admin %%ADMIN%%;
$self
stream {
    log_format flags '\$response_flags \$upstream_cluster \$bytes_received \$bytes_sent';
    access_log %%DIR%%/log flags;
    metrics on reporter=source report=100ms;
    proxy_half_close on;
    upstream good { server 127.0.0.1:%%PORT_1%%; }
    upstream bad { server 127.0.0.1:%%PORT_9%%; }
    server { listen 127.0.0.1:%%PORT_l1%%; proxy_pass good; }
    server { listen 127.0.0.1:%%PORT_l2%%; proxy_pass bad; }
}
EOC
    return ($hd, sub { -e $hd->dir . '/log' ? $hd->file('log') : '' });
}

sub by_xds {
    my $hd = Heddle->new(modules => ['metrics', 'access_log']);
    $hd->conf(<<"EOC");
admin %%ADMIN%%;
$self
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }
EOC
    my $log = {name => 'log', typed_config => {'@type' => "${any}envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path => '/dev/stdout', log_format => {text_format_source => {inline_string =>
            '%RESPONSE_FLAGS% %UPSTREAM_CLUSTER% %BYTES_RECEIVED% %BYTES_SENT% "%REQ(:METHOD)% %PROTOCOL%" %RESPONSE_CODE%'
            . " %UPSTREAM_HOST% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %DURATION% %START_TIME%\n"}}}};
    my $tcp = sub {
        my ($n, $cluster) = @_;
        return {name => "tcp$n", address => Heddle::Xds::address($hd->port("l$n")), traffic_direction => 'OUTBOUND',
            filter_chains => [{filters => [
                {name => 'istio.stats', typed_config => {'@type' => "${any}stats.PluginConfig", tcp_reporting_duration => '0.1s'}},
                {name => 'tcp', typed_config => {'@type' => "${any}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    stat_prefix => 'x', cluster => $cluster, access_log => [$log]}}]}]};
    };
    my $xds = Heddle::Xds->new($hd, 'xds');
    $xds->serve(CDS => [Heddle::Xds::cluster('good', $hd->port(1)), Heddle::Xds::cluster('bad', $hd->port(9)),
            {name => 'none', type => 'STATIC', connect_timeout => '1s'}],
        LDS => [$tcp->(1, 'good'), $tcp->(2, 'bad'), $tcp->(3, 'none')])->start;
    return ($hd, sub { $hd->file('output') }, $xds);
}

for my $way ('file', 'xds') {
    my ($hd, $log, $xds) = $way eq 'file' ? by_file() : by_xds();
    $hd->tcp_backend(1, sub { # echoes
        my ($sock) = @_;
        while (sysread $sock, my $bytes, 65536) { syswrite $sock, $bytes x 2 }
    });
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port("l$_")) }, "listener $_") for 1, 2;
    my %all = (reporter => 'source', source_workload => 'page', request_protocol => 'tcp', connection_security_policy => 'unknown');

    my $c = $hd->connect('l1');
    $c->send('hello');
    is $c->read_bytes(10), 'hellohello', "$way: a session goes on";
    counts($hd, 1, "$way: opened", 'istio_tcp_connections_opened_total', %all, response_flags => '-');
    counts($hd, 5, "$way: its bytes, while it goes on", 'istio_tcp_received_bytes_total', %all);
    counts($hd, 10, "$way: both ways", 'istio_tcp_sent_bytes_total', %all);
    is sum($hd, 'istio_tcp_connections_closed_total'), 0, "$way: not closed";
    $c->send('bye');
    is $c->read_bytes(6), 'byebye', "$way: more";
    $c->shutdown_write;
    $c->read_all;
    counts($hd, 1, "$way: closed", 'istio_tcp_connections_closed_total', %all, response_flags => '-');
    counts($hd, 8, "$way: all of its bytes", 'istio_tcp_received_bytes_total', %all);
    counts($hd, 16, "$way: once each", 'istio_tcp_sent_bytes_total', %all);
    counts($hd, 1, "$way: opened once", 'istio_tcp_connections_opened_total', %all);
    $hd->wait_for(sub { $log->() =~ /^- good 8 16\b/m }, "$way: its line in the log");
    is $hd->connect('l2')->read_all, '', "$way: no upstream";
    counts($hd, 1, "$way: opened and closed all the same", 'istio_tcp_connections_closed_total', %all, response_flags => 'UF,URX');
    $hd->wait_for(sub { $log->() =~ /^UF,URX bad 0 0\b/m }, "$way: its flags");
    pass "$way: log";
    next if $way eq 'file';
    my ($up, $l1) = ($hd->port(1), $hd->port('l1'));
    like $log->(), qr/^- good 8 16 "- -" 0 127\.0\.0\.1:$up 127\.0\.0\.1:\d+ 127\.0\.0\.1:${\$c->{sock}->sockport} \d+ \d{4}-\d\d-\d\dT[\d:.]+Z$/m,
        'xds: Envoy’s words';
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port('l3')) }, 'listener 3');
    is $hd->connect('l3')->read_all, '', 'xds: a cluster without endpoints';
    $hd->wait_for(sub { $log->() =~ /^UH none 0 0\b/m }, 'xds: UH');
}
done_testing;
