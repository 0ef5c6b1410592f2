#!/usr/bin/perl
# Active health checks by file and by xDS: the agent alone asks, all workers know; thresholds,
# statuses, payloads, gRPC, TCP; endpoints that are unwell get nothing, and all of it shows.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

my @hex = (unpack('H*', "PING\r\n"), unpack('H*', 'PONG'));

sub file_way {
    return Heddle->new(workers => 3)->conf(<<'EOC');
http {
    upstream web {
        server 127.0.0.1:%%PORT_1%% max_fails=0; server 127.0.0.1:%%PORT_2%% max_fails=0;
        health_check interval=50ms uri=/health?x=1 host=check.example status=204,200-201 fails=2 passes=2 mandatory;
    }
    upstream words { server 127.0.0.1:%%PORT_1%%; health_check interval=50ms uri=/words expect=well mandatory; }
    upstream other { server 127.0.0.1:%%PORT_1%%; health_check interval=50ms port=%%PORT_8%% type=tcp; }
    upstream rpc   { server 127.0.0.1:%%PORT_4%%; health_check interval=50ms type=grpc grpc_service=shop mandatory; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /web { proxy_pass http://web; }
        location /words { proxy_pass http://words; }
        location /other { proxy_pass http://other; }
        location /rpc { proxy_pass http://rpc; proxy_http_version 2; }
    }
    server {
        listen 127.0.0.1:%%PORT_4%%;
        http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_5%%; }
    }
}
stream {
    upstream tcp { server 127.0.0.1:%%PORT_3%%; health_check interval=50ms send=PING expect=PONG mandatory; }
    server { listen 127.0.0.1:%%PORT_6%%; proxy_pass tcp; }
}
admin %%ADMIN%%;
EOC
}

sub xds_way {
    my $hd = Heddle->new(workers => 3)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
http {
    server {
        listen 127.0.0.1:%%PORT_4%%;
        http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_5%%; }
    }
}
admin %%ADMIN%%;
EOC
    my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
    my $cluster = sub {
        my ($name, $ports, $check, %more) = @_;
        return Heddle::Xds::cluster($name, 1, %more,
            load_assignment => Heddle::Xds::assignment($name, map { $hd->port($_) } @$ports),
            common_lb_config => {healthy_panic_threshold => {value => 0}},
            health_checks => [{interval => '0.05s', timeout => '5s', no_traffic_interval => '0.05s',
                unhealthy_threshold => 1, healthy_threshold => 1, %$check}]);
    };
    $xds->serve(
        CDS => [
            $cluster->('web', [1, 2], {unhealthy_threshold => 2, healthy_threshold => 2, reuse_connection => JSON::XS::false(),
                http_health_check => {path => '/health?x=1', host => 'check.example',
                    expected_statuses => [{start => 204, end => 205}, {start => 200, end => 202}],
                    retriable_statuses => [{start => 500, end => 600}],
                    request_headers_to_add => [{header => {key => 'x-check', value => 'yes'}}]}}),
            # what isn't as expected needs no others (Envoy)
            $cluster->('words', [1], {unhealthy_threshold => 100000, http_health_check => {path => '/words', receive => [{text => unpack 'H*', 'well'}]}}),
            $cluster->('other', [1], {alt_port => 0 + $hd->port(8), tcp_health_check => {}}),
            $cluster->('rpc', [4], {unhealthy_threshold => 100000, grpc_health_check => {service_name => 'shop'}}, http2_protocol_options => {}),
            $cluster->('tcp', [3], {tcp_health_check => {send => {text => unpack 'H*', 'PING'},
                receive => [{text => unpack 'H*', 'PONG'}]}}),
        ],
        LDS => [
            Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in',
                map { ["/$_" => $_] } qw(web words other rpc))),
            {name => 'tcp', address => Heddle::Xds::address($hd->port(6)), filter_chains => [{filters => [
                {name => 'tcp', typed_config => {cluster => 'tcp', stat_prefix => 'tcp',
                    '@type' => 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy'}}]}]},
        ],
    )->start;
    return $hd;
}

for my $way ('file', 'xds') {
    next if $way eq 'xds' && $Heddle::Xds::missing;
    my $hd = $way eq 'file' ? file_way() : xds_way();
    my $none = $way eq 'file' ? 502 : 503;
    my $dir = $hd->dir;
    my $ill = sub { my ($n, $is) = @_; $is ? $hd->write("ill-$n", 'x') : unlink "$dir/ill-$n" };
    for my $n (1, 2) {
        $hd->backend($n, sub {
            my ($req) = @_;
            return [-e "$dir/ill-$n" ? 500 : 204, {}, ''] if $req->{uri} eq '/health?x=1';
            return -e "$dir/ill-words" ? 'unwell, that is ill' =~ s/well//r : 'I am well' if $req->{uri} eq '/words';
            return "at $n";
        });
    }
    $hd->tcp_backend(3, sub {
        my ($sock) = @_;
        while (sysread $sock, my $bytes, 4096) {
            syswrite $sock, $bytes =~ /^PING/ ? (-e "$dir/ill-3" ? 'NO' : 'PONG') : $bytes;
        }
    });
    $hd->backend(5, sub {
        my ($req) = @_;
        return 'rpc' unless $req->{uri} eq '/grpc.health.v1.Health/Check';
        return [415, [], ''] unless $req->header('content-type') eq 'application/grpc'; # as gRPC's servers do
        my $serving = $req->{body} eq "\0\0\0\0\6\n\4shop" && !-e "$dir/ill-5";
        return [200, ['Content-Type' => 'application/grpc', 'grpc-status' => 0], "\0\0\0\0\2\x08" . ($serving ? "\1" : "\2")];
    });
    $ill->(2, 1);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) && Heddle::Port::is_listening($hd->port(6)) }, 'listeners');

    my $port = sub { $hd->port($_[0]) };
    my $shows = sub {
        my ($name, $n, $failed) = @_;
        my $line = ($hd->admin('/clusters')->body =~ /^\Q$name\E::127\.0\.0\.1:@{[$port->($n)]}::health::(.*)$/m)[0] // return 0;
        return !$failed == !($line =~ /failed_active_hc/);
    };
    my $stream = $way eq 'file' ? 'tcp' : 'tcp';
    $hd->wait_for(sub { $hd->get('/web')->status == 200 }, 'the first good answer');
    $hd->wait_for(sub { $shows->('web', 2, 1) }, 'the bad one to be found');
    is join(' ', map { $hd->get('/web')->body } 1 .. 8), join(' ', ('at 1') x 8), "$way: the one that is ill gets nothing";
    my ($asked) = grep { $_->{uri} =~ /health/ } $hd->requests(1);
    is $asked->header('host'), 'check.example', "$way: the check's own host";
    is $asked->header('x-check'), 'yes', "$way: and headers" if $way eq 'xds';

    $ill->(2, 0);
    $hd->wait_for(sub { $hd->get('/web')->body eq 'at 2' }, 'it to be well');
    $ill->($_, 1) for 1, 2;
    $hd->wait_for(sub { $hd->get('/web')->status == $none }, 'both to be ill');
    pass "$way: all are ill";
    $hd->wait_log(qr/upstream "web": server 127\.0\.0\.1:@{[$port->(1)]} is unhealthy: status 500/);
    $ill->($_, 0) for 1, 2;
    $hd->wait_for(sub { $hd->get('/web')->status == 200 }, 'them to be well again');

    # who asks: one process, whatever the number of workers
    my $n = () = grep { $_->{uri} =~ /health/ } $hd->requests(2);
    my ($counted) = $hd->admin('/metrics')->body =~ /^heddle_health_checks_total\{cluster="web",outcome="success"\} (\d+)/m;
    cmp_ok $counted, '>', 0, "$way: counted";

    $hd->wait_for(sub { $hd->get('/words')->body eq 'I am well' }, 'the words');
    $ill->('words', 1);
    $hd->wait_for(sub { $hd->get('/words')->status == $none }, 'other words');
    pass "$way: what the answer says counts";
    $hd->wait_for(sub { $hd->get('/other')->status == $none }, 'a closed port');
    pass "$way: a port of its own, TCP";
    $hd->wait_for(sub { $hd->get('/rpc')->status == 200 }, 'gRPC to serve');
    $ill->(5, 1);
    $hd->wait_for(sub { $hd->get('/rpc')->status == $none }, 'gRPC not to serve');
    pass "$way: grpc.health.v1";

    my $talk = sub { my $c = $hd->connect(6); $c->send('hello'); return $c->read_until(qr/hello/) };
    $hd->wait_for(sub { defined $talk->() }, 'TCP');
    $ill->(3, 1);
    $hd->wait_for(sub { !defined $talk->() }, 'TCP to be ill');
    $ill->(3, 0);
    $hd->wait_for(sub { defined $talk->() }, 'TCP to be well');
    pass "$way: send and expect";
    $hd->stop;
}
done_testing;
