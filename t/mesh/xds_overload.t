#!/usr/bin/perl
# Overload by xDS: requests of listeners that the control plane sent are refused as those of files,
# with Envoy's flag and in its form, but for a listener with bypass_overload_manager.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::PP ();

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(modules => ['access_log']);
my $xds = Heddle::Xds->new($hd, 'xds');
my $log = {name => 'envoy.access_loggers.file', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog', path => '/dev/stdout',
    log_format => {text_format_source => {inline_string => "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}};
my @common = (route_config => Heddle::Xds::routes('all', ['/' => 'back']), access_log => [$log]);
$xds->serve(
    CDS => [Heddle::Xds::cluster('back', $hd->port(1))],
    LDS => [Heddle::Xds::listener('bound', $hd->port(0), @common),
        Heddle::Xds::listener('free', $hd->port(2), @common, listener => {bypass_overload_manager => JSON::PP::true()})],
)->start;
$hd->backend(1, sub { 'back' });
# So little that any worker has more.
$hd->conf(<<'EOC');
overload_memory 1m save=1% refuse=1%;
admin %%ADMIN%%;
xds {
    server 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;
}
EOC
$hd->start;
$xds->wait_ack('LDS');
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) && Heddle::Port::is_listening($hd->port(2)) }, 'listeners');

my $r = $hd->get('/plain');
is $r->status, 503, 'refused';
is $r->body, 'overloaded', 'in plain words';
is $r->header('retry-after'), 1, 'until later';
$r = $hd->post('/grpc', {body => ''}, 'Content-Type' => 'application/grpc');
is join(' ', $r->status, $r->header('grpc-status'), $r->header('grpc-message')), '200 14 overloaded', 'gRPC: UNAVAILABLE';
is $hd->get('/free', {port => 2})->body, 'back', 'bypass_overload_manager: served';
is $hd->admin('/ready')->status, 200, 'ready, for all that';
for ('/plain 503 OM overload', '/grpc 200 OM overload', '/free 200 - via_upstream') {
    ok eval { $hd->wait_for(sub { $hd->file('output') =~ /^\Q$_\E$/m }, 'its line') }, "the access log: $_" or diag $hd->file('output');
}
$hd->stop;
done_testing;
