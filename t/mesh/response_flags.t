#!/usr/bin/perl
# Why a request failed, by its access log: status, Envoy's response flags and response code details, for every
# kind of failure, by file and by xDS (ALOG-2); and by the error log: which side, after how long, on which connection.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Http;
use Heddle::Xds;
use JSON::XS ();

my ($true, $type) = (JSON::XS::true(), 'type.googleapis.com/');
sub percent { {numerator => 100, denominator => 'HUNDRED'} }
sub fault { (typed_per_filter_config => {'envoy.filters.http.fault' =>
    {'@type' => "${type}envoy.extensions.filters.http.fault.v3.HTTPFault", @_}}) }

# By name, which is the path: what the back end does with the request, what stands in the location and its
# upstream, in the route and its cluster; what the log says. <ask>: how the client behaves.
my $get = sub { my ($hd, $uri) = @_; eval { $hd->get($uri) } };
my $leave = sub { my ($hd, $uri) = @_;
    my $c = $hd->connect(0);
    $c->send("GET $uri HTTP/1.1\r\nHost: a\r\n\r\n");
    $hd->wait_for(sub { grep { $_->{uri} eq $uri } $hd->requests(1) }, "$uri upstream");
    $c->close;
};
my $half_post = sub { my ($hd, $uri) = @_;
    my $c = $hd->connect(0);
    $c->send("POST $uri HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    eval { $c->response };
};
my $reset = sub { my ($error) = @_; return sub { my ($hd, $uri) = @_;
    my $c = Heddle::H2->new($hd->port(0));
    $c->request(1, $uri, end => 1);
    $hd->wait_for(sub { grep { $_->{uri} eq $uri } $hd->requests(1) }, "$uri upstream");
    $c->frame('RST_STREAM', 0, 1, pack 'N', $error);
    $c->frame('PING', 0, 0, 'whatever');
    $c->until(sub { $_->{type} eq 'PING' });
    $c->close;
} };
# A frame that ends an HTTP/2 connection, whoever gets it.
my $stray = Heddle::H2->head('DATA', 0, 0, 'of no stream');
my $break = sub { my ($hd, $uri) = @_;
    my $c = Heddle::H2->new($hd->port(0));
    $c->request(1, $uri, end => 1);
    $hd->wait_for(sub { grep { $_->{uri} eq $uri } $hd->requests(1) }, "$uri upstream");
    $c->send($stray);
    $c->calmed;
};
# What ends a request that lasts too long, by file and by xDS.
my @lasting = (file_upstream => 'max_stream_duration 100ms;', cluster => {typed_extension_protocol_options => {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions' => {
        '@type' => "${type}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options => {max_stream_duration => '0.1s'}, explicit_http_config => {http_protocol_options => {}}}}});
my $before = 'upstream_reset_before_response_started';
my @rows = (
    {name => 'fine', log => '200 - via_upstream'},
    {name => 'status', does => [503, [], 'no'], log => '503 - via_upstream'},
    {name => 'left', does => {hang => 1}, ask => $leave,
        log => '499 DC downstream_remote_disconnect', xds => '0 DC downstream_remote_disconnect', error => 'client closed the connection'},
    {name => 'h2_reset', does => {hang => 1}, ask => $reset->(8), log => '499 DR http2.remote_reset', xds => '0 DR http2.remote_reset',
        error => 'client reset the stream'},
    {name => 'h2_refused', does => {hang => 1}, ask => $reset->(7), log => '499 DR http2.remote_refuse', xds => '0 DR http2.remote_refuse'},
    {name => 'h2_broken', does => {hang => 1}, ask => $break, log => '400 DPE codec_error', xds => '0 DPE codec_error',
        error => 'client sent invalid request: HTTP/2: PROTOCOL_ERROR'},
    {name => 'h2_garbage', port => 3, file => 'proxy_http_version 2;', log => "502 UPE $before\{protocol_error}",
        cluster => {typed_extension_protocol_options => {'envoy.extensions.upstreams.http.v3.HttpProtocolOptions' => {
            '@type' => "${type}envoy.extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config => {http2_protocol_options => {}}}}},
        error => 'upstream sent an invalid response: HTTP/2: PROTOCOL_ERROR: .* ms after it was sent on a new connection'},
    {name => 'lasting', does => {hang => 1}, @lasting, log => '504 UMSDR upstream_max_stream_duration_reached',
        error => 'longer than max_stream_duration allows, \d+ ms after it was sent on a new connection'},
    {name => 'lasting_body', does => {raw => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"}, @lasting,
        log => '200 UMSDR upstream_max_stream_duration_reached', error => 'longer than max_stream_duration allows'},
    {name => 'lasting_client', @lasting, ask => $half_post, file => 'proxy_request_buffering off;',
        log => '408 UMSDR upstream_max_stream_duration_reached'},
    {name => 'lasting_twice', does => {hang => 1}, @lasting, file => 'retry reset attempts=1 backoff=1ms;',
        route => {retry_policy => {num_retries => 1, retry_on => 'reset', retry_back_off => {base_interval => '0.001s'}}},
        log => '504 URX,UMSDR upstream_max_stream_duration_reached'},
    {name => 'refused', port => 9, log => "502 UF $before\{remote_connection_failure}",
        xds => "503 UF $before\{remote_connection_failure}", error => 'Connection refused\) while connecting to upstream'},
    {name => 'closed', does => {close => 1}, log => "502 UC $before\{connection_termination}",
        xds => "503 UC $before\{connection_termination}", error => 'upstream closed the connection.* ms after it was sent on a new connection'},
    {name => 'reset', does => {reset => 1}, log => "502 UC $before\{connection_termination}",
        xds => "503 UC $before\{connection_termination}", error => 'upstream reset the connection.* ms after it was sent on a new connection'},
    {name => 'garbage', does => {raw => "what is this?\r\n\r\n", close => 1}, log => "502 UPE $before\{protocol_error}",
        xds => "502 UPE $before\{protocol_error}"},
    {name => 'cut', does => {raw => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", close => 1},
        log => '200 UC upstream_reset_after_response_started{connection_termination}', error => 'upstream closed the connection.* ms after it was sent'},
    {name => 'slow', does => {hang => 1}, file => 'proxy_read_timeout 100ms;', route => {timeout => '0.1s'},
        log => '504 UT response_timeout', error => '(timed out|time)'},
    {name => 'per_try', does => {hang => 1}, only => 'xds',
        route => {retry_policy => {num_retries => 0, retry_on => 'reset', per_try_timeout => '0.1s'}},
        log => '504 UT upstream_per_try_timeout'},
    {name => 'idle', does => {hang => 1}, only => 'xds', route => {idle_timeout => '0.1s'}, log => '504 SI stream_idle_timeout'},
    {name => 'duration', does => {hang => 1}, only => 'xds', listener => 'duration', log => '504 DT max_duration_timeout'},
    {name => 'tired', port => 9, file => 'retry connect-failure attempts=2 backoff=1ms;',
        route => {retry_policy => {num_retries => 2, retry_on => 'connect-failure', retry_back_off => {base_interval => '0.001s'}}},
        log => "502 UF,URX $before\{remote_connection_failure}", xds => "503 UF,URX $before\{remote_connection_failure}"},
    {name => 'no_cluster', cluster_name => 'nobody', file_pass => 'proxy_pass http://$nobody;',
        log => '502 NC cluster_not_found', xds => '503 NC cluster_not_found'},
    {name => 'no_healthy', upstream => 'server 127.0.0.1:1 down;', endpoints => [],
        log => '502 UH no_healthy_upstream', xds => '503 UH no_healthy_upstream'},
    {name => 'overflow', file_upstream => 'circuit_breaker requests=0;',
        cluster => {circuit_breakers => {thresholds => [{max_requests => 0}]}}, log => "503 UO $before\{overflow}"},
    {name => 'no_route', only => 'xds', no_route => 1, log => '404 NR route_not_found'},
    {name => 'faulty', file => 'fault abort=418;', more => {fault(abort => {http_status => 418, percentage => percent()})},
        log => '418 FI fault_filter_abort'},
    {name => 'delayed', file => 'fault delay=10ms;', more => {fault(delay => {fixed_delay => '0.010s', percentage => percent()})},
        log => '200 DI via_upstream'},
    {name => 'denied', file => 'authz deny policy=p path=/denied;', log => '403 - rbac_access_denied_matched_policy\[[^\]]*\]'},
    {name => 'limited', only => 'file', file => 'limit_req zone=once;', ask => sub { $get->(@_) for 1, 2 }, log => '503 RL limit_req'},
    {name => 'crowded', only => 'file', file => 'limit_conn none 1; limit_conn_status 429;', does => {after => 0.05, body => ''},
        ask => sub { my ($hd, $uri) = @_; my $c = $hd->connect(0); $c->send("GET $uri HTTP/1.1\r\nHost: a\r\n\r\n");
            $hd->wait_for(sub { grep { $_->{uri} eq $uri } $hd->requests(1) }, 'a request under way'); $get->($hd, $uri); $c->response },
        log => '429 RL limit_conn'},
    {name => 'asked', only => 'file', file => 'auth_request /no;', log => '403 UAEX auth_request_denied'},
    {name => 'too_large', file => 'client_max_body_size 1;', only => 'file',
        ask => sub { eval { $_[0]->request('POST', $_[1], {body => 'xx'}) } }, log => '413 - request_payload_too_large'},
    {name => '-', ask => sub { eval { $_[0]->raw("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 0) } }, path => qr/\S*/,
        log => '400 DPE http1.codec_error'},
);

sub back_end {
    my ($hd) = @_;
    my %does = map { ("/$_->{name}" => $_->{does}) } @rows;
    $hd->backend(1, sub { my ($req) = @_; return $does{$req->{uri}} // 'fine' });
    $hd->tcp_backend(3, sub { my ($socket) = @_; # of HTTP/2, which it breaks
        sysread $socket, my $preface, 4096;
        syswrite $socket, Heddle::H2->head('SETTINGS', 0, 0, '') . $stray;
        1 while sysread $socket, $preface, 4096;
    });
    return;
}

sub check {
    my ($hd, $way, $log) = @_;
    my @mine = grep { ($_->{only} // $way) eq $way } @rows;
    ($_->{ask} // $get)->($hd, "/$_->{name}", $way) for @mine; # by xDS lines are written once a second
    for my $r (@mine) {
        my $what = $way eq 'xds' && $r->{xds} || $r->{log};
        $what = quotemeta $what if $what !~ /\\/;
        my $path = $r->{path} // "/$r->{name}";
        my $good = eval { $hd->wait_for(sub { $hd->file($log) =~ /^$path $what$/m }, 'its line') };
        ok $good, "$way: $r->{name}: " . ($way eq 'xds' && $r->{xds} || $r->{log})
            or diag join "\n", grep { /^$path / } split /\n/, $hd->file($log);
        next if !$r->{error};
        ok eval { $hd->wait_log(qr/$r->{error}.*client: 127\.0\.0\.1, server: .*request: "GET \/$r->{name} .*, after \d+ ms/) },
            "$way: $r->{name}: the error log says $r->{error}";
    }
}

# ---- by file

sub by_file {
    my $hd = Heddle->new(modules => [qw(access_log fault authz retry limit_req limit_conn auth_request)]);
    my $upstreams = '';
    my $locations = '';
    for my $r (grep { ($_->{only} // 'file') eq 'file' } @rows) {
        next if $r->{name} eq '-';
        my $servers = $r->{upstream} // 'server 127.0.0.1:%%PORT_' . ($r->{port} // 1) . '%% max_fails=0;';
        $upstreams .= "upstream $r->{name} { $servers " . ($r->{file_upstream} // '') . " }\n";
        $locations .= "location = /$r->{name} { " . ($r->{file} // '') . ' ' . ($r->{file_pass} // "proxy_pass http://$r->{name};") . " }\n";
    }
    $hd->conf(<<"EOC");
http {
    log_format flags '\$uri \$status \$response_flags \$response_code_details';
    access_log %%DIR%%/flags.log flags;
    limit_req_zone same zone=once:1m rate=1r/m;
    limit_conn_zone same zone=none:1m;
    proxy_next_upstream off;
    $upstreams
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2 on;
        set \$nobody "nobody.invalid";
        $locations
        location = /no { internal; return 403; }
    }
}
EOC
    back_end($hd);
    $hd->start;
    check($hd, 'file', 'flags.log');
    $hd->stop;
}

# ---- by xDS

sub address { {socket_address => {address => '127.0.0.1', port_value => $_[0] + 0}} }

sub cluster {
    my ($hd, $r) = @_;
    my $endpoints = $r->{endpoints} // [{endpoint => {address => address($hd->port($r->{port} // 1))}}];
    return {name => $r->{name}, type => 'STATIC', connect_timeout => '5s',
        load_assignment => {cluster_name => $r->{name}, endpoints => [{lb_endpoints => $endpoints}]},
        %{$r->{cluster} // {}}};
}

sub route {
    my ($r) = @_;
    return {name => $r->{name}, match => {path => "/$r->{name}"},
        route => {cluster => $r->{cluster_name} // $r->{name}, %{$r->{route} // {}}}, %{$r->{more} // {}}};
}

sub listener {
    my ($hd, $name, $port, $routes, $common) = @_;
    my $filter = sub { my ($filter, $message, @more) = @_;
        {name => "envoy.filters.http.$filter", typed_config => {'@type' => "${type}envoy.extensions.filters.http.$filter.v3.$message", @more}} };
    my @denied = (rules => {action => 'DENY', policies => {p => {
        permissions => [{url_path => {path => {exact => '/denied'}}}], principals => [{any => $true}]}}});
    return {name => $name, address => address($port), filter_chains => [{filters => [{
        name => 'envoy.filters.network.http_connection_manager',
        typed_config => {
            '@type' => "${type}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix => $name,
            %$common,
            route_config => {name => $name, virtual_hosts => [{name => 'all', domains => ['*'], routes => $routes}]},
            http_filters => [$filter->('fault', 'HTTPFault'), $filter->('rbac', 'RBAC', @denied), $filter->('router', 'Router')],
            access_log => [{name => 'envoy.access_loggers.file', typed_config => {
                '@type' => "${type}envoy.extensions.access_loggers.file.v3.FileAccessLog",
                path => '/dev/stdout',
                log_format => {text_format_source => {inline_string => "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}}],
        }}]}]};
}

sub by_xds {
    if ($Heddle::Xds::missing) {
        fail "xds: $Heddle::Xds::missing";
        return;
    }
    my $hd = Heddle->new(modules => [qw(access_log fault authz retry)]);
    my $xds = Heddle::Xds->new($hd, 'xds');
    my @mine = grep { ($_->{only} // 'xds') eq 'xds' && $_->{name} ne '-' } @rows;
    for my $r (grep { $_->{listener} } @mine) { # a listener with settings of its own
        $r->{ask} = sub { eval { $_[0]->get($_[1], {port => 2}) } };
    }
    $xds->serve(
        CDS => [map { cluster($hd, $_) } grep { !$_->{no_route} && !$_->{cluster_name} } @mine],
        LDS => [listener($hd, 'main', $hd->port(0), [map { route($_) } grep { !$_->{no_route} && !$_->{listener} } @mine], {}),
            listener($hd, 'duration', $hd->port(2), [map { route($_) } grep { $_->{listener} } @mine],
                {common_http_protocol_options => {max_stream_duration => '0.1s'}})],
    )->start;
    $hd->conf(<<'EOC');
xds {
    server 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;
}
EOC
    back_end($hd);
    $hd->start;
    $hd->wait_for(sub { $xds->acks('LDS') || $xds->nacks('LDS') || $xds->nacks('CDS') }, 'listeners by xDS');
    diag("refused: $_->{error}") for $xds->nacks('LDS'), $xds->nacks('CDS');
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "port $_") for 0, 2;
    check($hd, 'xds', 'output');
    $hd->stop;
    $xds->stop;
}

by_file();
by_xds();
done_testing;
