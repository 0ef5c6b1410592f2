#!/usr/bin/perl
# An access log by xDS that we can't write (a file, a filter of a kind that isn't known) is left out, and told of: the listener is in force.
# One that is no access log at all refuses it.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $type = 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog';
sub file_log { my ($path, %more) = @_; {name => 'log', typed_config => {'@type' => $type, path => $path, %more}} }
sub text { log_format => {text_format_source => {inline_string => "$_[0] %RESPONSE_CODE%\n"}} }

my %logs = (
    file => [file_log('/var/log/access.log', text('file'))],
    filter => [{%{file_log('/dev/stdout', text('filtered'))}, filter => {metadata_filter => {}}}],
    both => [file_log('/tmp/access.log', text('elsewhere')), file_log('/dev/stdout', text('beside'))],
);
my $hd = Heddle->new(modules => ['access_log']);
my $xds = Heddle::Xds->new($hd, 'xds');
$xds->serve(CDS => [Heddle::Xds::cluster('app', $hd->port(1))], LDS => [map {
    Heddle::Xds::listener($_, $hd->port($_), route_config => Heddle::Xds::routes('r', ['/' => 'app']), access_log => $logs{$_})
} sort keys %logs])->start;
$hd->backend(1, sub { [200, {}, 'app'] });
$hd->conf(<<'EOC')->start;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local; }
EOC
for my $kind (sort keys %logs) {
    ok eval { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($kind)) }, $kind); 1 }, "$kind: the listener is in force";
    is eval { $hd->get('/', {port => $kind})->body }, 'app', 'and serves';
}
is scalar($xds->nacks('LDS')), 0, 'none was refused';
ok eval { $hd->wait_log(qr/\[warn\].*an access log by xDS isn't written: $_/) }, "told of: $_"
    for '/dev/stdout and /dev/stderr can be written to, no other file', "its filter is of a kind that isn't known here";
ok eval { $hd->wait_for(sub { $hd->file('output') =~ /^beside 200$/m }, 'the line'); 1 }, 'one beside it is written';
unlike $hd->file('output'), qr/^(?:file|filtered|elsewhere) /m, 'and no other';

my $port = $hd->port('none');
$xds->serve(CDS => [Heddle::Xds::cluster('app', $hd->port(1))], LDS => [
    Heddle::Xds::listener('none', $port, route_config => Heddle::Xds::routes('r', ['/' => 'app']),
        access_log => [{name => 'log', typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router'}}])]);
ok $xds->wait_nack('LDS', qr/only FileAccessLog, StdoutAccessLog and StderrAccessLog are known/), 'what is no access log is refused';
$hd->stop;
$xds->stop;
done_testing;
