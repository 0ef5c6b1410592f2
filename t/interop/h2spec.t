#!/usr/bin/perl
# h2spec in strict mode, without one failure: over TLS and without, for answers of our own and for
# those of upstreams that speak HTTP/1 and HTTP/2, by file and by xDS. Needs: auto/h2spec --install, which needs Go.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::TwoWays;
use Heddle::Xds;

chomp(my $h2spec = `$Heddle::top/auto/h2spec --install 2>&1`);
plan skip_all => "h2spec $h2spec" if $? != 0;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('server', dns => 'localhost', rsa => 1);
my $has_xds = !$Heddle::Xds::missing;
my $xds_block = !$has_xds ? '' : 'xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }';
$hd->conf(<<"EOC");
events { worker_connections 8192; } # h2spec opens all streams that it may, which are many by xDS
$xds_block
http {
    http2 on;
    access_log off;
    ssl_certificate $cert->{cert};
    ssl_certificate_key $cert->{key};
    proxy_request_buffering off;

    server {
        listen 127.0.0.1:%%PORT_file_own%%;
        listen 127.0.0.1:%%PORT_file_own_tls%% ssl;
        location / { return 200 "an answer of our own, longer than h2spec's windows\\n"; }
    }
    server {
        listen 127.0.0.1:%%PORT_file_http1%%;
        listen 127.0.0.1:%%PORT_file_http1_tls%% ssl;
        location / { proxy_pass http://127.0.0.1:%%PORT_file_own%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_file_http2%%;
        listen 127.0.0.1:%%PORT_file_http2_tls%% ssl;
        location / { proxy_pass http://127.0.0.1:%%PORT_file_own%%; proxy_http_version 2; }
    }
}
EOC

# The same by xDS: a listener plain and one over TLS for each of these routes.
sub listeners {
    my %route = (
        own => {direct_response => {status => 200, body => {inline_string => "an answer of our own, longer than h2spec's windows\n"}}},
        map { $_ => {route => {cluster => $_}} } 'http1', 'http2',
    );
    my $tls = Heddle::TwoWays::transport_socket({tls => {common_tls_context => {alpn_protocols => ['h2', 'http/1.1']}}},
        {server => $cert, ca => $ca});
    return map {
        my $name = $_;
        map {
            Heddle::Xds::listener("$name$_", $hd->port("xds_$name$_"), chain => {$_ ? (transport_socket => $tls) : ()},
                route_config => {name => $name, virtual_hosts => [{name => 'all', domains => ['*'],
                    routes => [{match => {prefix => '/'}, %{$route{$name}}}]}]})
        } '', '_tls';
    } sort keys %route;
}

my $xds;
if ($has_xds) {
    my $to = $hd->port('file_own');
    $xds = Heddle::Xds->new($hd, 'xds')->serve(LDS => [listeners()],
        CDS => [Heddle::Xds::cluster('http1', $to), Heddle::Xds::cluster('http2', $to, http2_protocol_options => {})])->start;
}
$hd->start;

# -o: seconds of silence that count as an answer of "nothing", which some cases ask for
sub run {
    my ($way, $what, @more) = @_;
    my $port = $hd->port("${way}_$what");
    $hd->wait_for(sub { Heddle::Port::is_listening($port) }, "$way: $what to listen");
    my $text = `$h2spec -S -h 127.0.0.1 -p $port -o 5 @more 2>&1`;
    my ($all, $passed, $skipped, $failed) =
        $text =~ /^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/m;
    ok defined $all && $all >= 140 && $failed == 0 && $skipped == 0, "$way: $what: all of h2spec"
        or diag $text =~ /^(Failures:.*)/ms ? $1 : $text;
}

for my $way ('file', 'xds') {
  SKIP: {
        skip $Heddle::Xds::missing, 6 if $way eq 'xds' && !$has_xds;
        run($way, $_), run($way, "${_}_tls", '-t', '-k') for 'own', 'http1', 'http2';
    }
}
$hd->stop;
$xds->stop if $has_xds;
done_testing;
