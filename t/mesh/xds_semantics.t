#!/usr/bin/perl
# What a route and its connection manager mean, where a real Envoy was asked with the same resources: who the
# client and its scheme are said to be, what comes of repeated fields, what header changes reach, redirects'
# hosts, types of answers, retries by header. Over HTTP/1 and, where it may differ, HTTP/2; two workers.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS ();

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(modules => ['retry', 'authz', 'fault', 'gzip'])->conf(<<'EOC');
worker_processes 2;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my %asked;
for my $name ('a', 'b', 'c') {
    $hd->backend($name, sub {
        my ($req) = @_;
        my @more = map { /^([^:]+):(.*)$/ ? ($1, $2) : () } split /,/, $req->header('x-answer') // '';
        my ($status, $times) = split /\*/, $req->header('x-fail') // '';
        my $n = ++$asked{$req->header('x-case') // ''};
        return [defined $status && $status ne '' && $n <= ($times // 99) ? $status : 200,
            ['Content-Type' => 'text/plain', 'X-By' => $name, @more], "$name\n"];
    });
}
$hd->backend('slow', sub { return {body => "late\n", after => 0.5} });
$hd->backend('never', sub { return {hang => 1} });
my $xds = Heddle::Xds->new($hd, 'xds');
my ($true, $false) = (JSON::XS::true, JSON::XS::false);
my $any = 'type.googleapis.com/';
my @listeners;
my $case = 0;

# A listener of these routes; %more: of the connection manager, and vhost => {…}.
sub listener {
    my ($name, $routes, %more) = @_;
    my $vhost = delete $more{vhost} // {};
    $hd->port($name);
    push @listeners, Heddle::Xds::listener($name, $hd->port($name), %more, route_config => {name => $name,
        virtual_hosts => [{name => 'v', domains => ['*'], routes => $routes, %$vhost}]});
}

# The answer to it, over HTTP/1.
sub ask {
    my ($at, $line, @fields) = @_;
    my $c = $hd->connect($at);
    my $fields = join '', map { "$_\r\n" } (grep { /^host:/i } @fields) ? () : 'Host: a.example', @fields, 'X-Case: ' . ++$case;
    $c->send("$line HTTP/1.1\r\n$fields\r\n");
    return $c->response($line =~ /^(\S+)/);
}

my $seen = 0;
# Heads that back end <name> received since it was asked before.
sub heads {
    my ($name) = @_;
    our %seen;
    my @all = $hd->requests($name);
    my @new = map { $_->{head} } @all[($seen{$name} // 0) .. $#all];
    $seen{$name} = @all;
    return @new;
}
sub head { return join '', heads(@_) }

my $to = sub { my ($cluster, %more) = @_; return (route => {cluster => $cluster, %more}) };
my $add = sub { my ($key, $value, %more) = @_; return {header => {key => $key, value => $value}, %more} };
my $set = sub { return $add->(@_, append_action => 'OVERWRITE_IF_EXISTS_OR_ADD') };

my $said = [{match => {prefix => '/move'}, redirect => {path_redirect => '/z'}},
    {match => {prefix => '/s', headers => [{name => ':scheme', string_match => {exact => 'https'}}]}, $to->('b')},
    {match => {prefix => '/'}, $to->('a'), request_headers_to_add => [
        $add->('x-who', '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'), $add->('x-scheme', '%REQ(:scheme)%')]}];
listener('plain', $said);
listener('edge', $said, use_remote_address => $true);
listener('hops', $said, use_remote_address => $true, xff_num_trusted_hops => 1);
listener('tls_only', [{match => {prefix => '/'}, $to->('a')}], vhost => {require_tls => 'ALL'});
listener('tls_only_edge', [{match => {prefix => '/'}, $to->('a')}], use_remote_address => $true, vhost => {require_tls => 'ALL'});
listener('twice', [{match => {prefix => '/', headers => [{name => 'x-role', string_match => {exact => 'admin'}}]}, $to->('b')},
    {match => {prefix => '/', headers => [{name => 'x-not', string_match => {exact => 'z'}, invert_match => $true}]}, $to->('b')},
    {match => {prefix => '/', headers => [{name => 'x-both', string_match => {exact => '1,2'}}]}, $to->('b')},
    {match => {prefix => '/', headers => [{name => 'host', string_match => {exact => 'localhost'}}]}, $to->('b')},
    {match => {prefix => '/'}, $to->('a')}]);
sub rbac {
    my ($action, %header) = @_;
    return {name => 'rbac', typed_config => {'@type' => $any . 'envoy.extensions.filters.http.rbac.v3.RBAC', rules => {action => $action,
        policies => {p => {permissions => [{header => {name => 'x-role', string_match => {exact => 'admin'}, %header}}], principals => [{any => $true}]}}}}};
}
my $all_a = [{match => {prefix => '/'}, $to->('a')}];
listener('deny', $all_a, http_filters => [rbac('DENY')]);
listener('deny_other', $all_a, http_filters => [rbac('DENY', invert_match => $true)]);
listener('allow', $all_a, http_filters => [rbac('ALLOW')]);
listener('allow_other', $all_a, http_filters => [rbac('ALLOW', invert_match => $true)]);
listener('deny_host', $all_a, http_filters => [rbac('DENY', name => 'host', string_match => {exact => 'localhost'})]);
listener('nowhere', [{match => {prefix => '/here'}, $to->('a')}], http_filters => [rbac('DENY')]);
listener('moved', [{match => {prefix => '/port'}, redirect => {host_redirect => 'new', port_redirect => 77}},
    {match => {prefix => '/'}, redirect => {host_redirect => 'new'}}]);
my $pattern = sub { my ($regex, $by) = @_; return {pattern => {regex => $regex}, substitution => $by} };
listener('by_path', [{match => {prefix => '/moved'}, redirect => {regex_rewrite => $pattern->('^/moved/(\\w+)', '/to/\\1')}},
    {match => {prefix => '/header'}, $to->('a', host_rewrite_header => 'x-host')},
    {match => {prefix => '/host'}, $to->('a', host_rewrite_path_regex => $pattern->('^/host/(\\w+).*$', '\\1.example'))},
    {match => {prefix => '/told'}, $to->('a', host_rewrite_literal => 'new', append_x_forwarded_host => $true)}]);
for my $wins ($false, $true) {
    my $name = $wins ? 'route_wins' : 'table_wins';
    listener($name, [{match => {prefix => '/'}, $to->('a'), request_headers_to_add => [$set->('x-by', 'route'), $add->('x-all', 'route')]}],
        vhost => {request_headers_to_add => [$set->('x-by', 'vhost'), $add->('x-all', 'vhost')]});
    my $table = $listeners[-1]{filter_chains}[0]{filters}[0]{typed_config}{route_config};
    $table->{request_headers_to_add} = [$set->('x-by', 'table'), $add->('x-all', 'table')];
    $table->{most_specific_header_mutations_wins} = $true if $wins;
}
listener('own_port', [{match => {prefix => '/'}, $to->('a')}], strip_matching_host_port => $true);
listener('answers', [{match => {prefix => '/json'}, direct_response => {status => 200, body => {inline_string => '{}'}},
        response_headers_to_add => [$add->('content-type', 'application/json')]},
    {match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => 'x'}}, response_headers_to_remove => ['content-type']}]);
listener('formats', [{match => {prefix => '/'}, $to->('a'), request_headers_to_add => [$add->('x-f', '%REQ(x-none?x-some):3%|%REQ(x-some?x-none)%|%REQ(x-none?x-no)%|%PROTOCOL:4%')],
    response_headers_to_add => [$add->('x-f', '%RESPONSE_FLAGS%|%RESPONSE_CODE_DETAILS%|%ROUTE_NAME%|%REQUEST_HEADER(x-some)%')], name => 'the-route'}]);
listener('changes', [{match => {prefix => '/'}, $to->('a'), response_headers_to_remove => ['x-envoy-upstream-service-time']}]);
listener('quiet', [{match => {prefix => '/x'}, $to->('a', prefix_rewrite => '/y', host_rewrite_literal => 'h')}]);
$listeners[-1]{filter_chains}[0]{filters}[0]{typed_config}{http_filters}[-1]{typed_config}{suppress_envoy_headers} = $true;
listener('auto', [{match => {prefix => '/'}, $to->('named', auto_host_rewrite => $true)}]);
sub retry { my ($on, %more) = @_; return retry_policy => {retry_on => $on, num_retries => 2, retry_back_off => {base_interval => '0.001s'}, %more} }
listener('retries', [
    {match => {prefix => '/header'}, $to->('a', retry('retriable-headers', retriable_headers => [{name => 'x-again', string_match => {exact => 'yes'}}]))},
    {match => {prefix => '/get'}, $to->('a', retry('5xx', retriable_request_headers => [{name => ':method', string_match => {exact => 'GET'}}]))},
    {match => {prefix => '/many'}, $to->('a', retry('retriable-status-codes', retriable_status_codes => [400 .. 500]))},
    {match => {prefix => '/limited'}, $to->('a', retry('envoy-ratelimited'))}],
    vhost => {include_request_attempt_count => $true, include_attempt_count_in_response => $true, include_is_timeout_retry_header => $true});

listener('times', [
    {match => {prefix => '/both'}, $to->('slow', timeout => '0.05s', max_stream_duration => {max_stream_duration => '5s'})},
    {match => {prefix => '/own'}, $to->('slow', max_stream_duration => {max_stream_duration => '5s'})},
    {match => {prefix => '/short'}, $to->('never', max_stream_duration => {max_stream_duration => '0.2s'})},
    {match => {prefix => '/'}, $to->('never')}], common_http_protocol_options => {max_stream_duration => '0.3s'});
listener('expected', [{match => {prefix => '/'}, $to->('never', timeout => '0.4s', retry('5xx', per_try_timeout => '0.25s', num_retries => 1))}]);
listener('patient', [{match => {prefix => '/'}, $to->('slow', timeout => '0.05s', max_stream_duration => {grpc_timeout_header_max => '0s'})}]);
listener('copies', [{match => {prefix => '/own'}, $to->('a', request_mirror_policies => [{cluster => 'c'}])}, {match => {prefix => '/'}, $to->('a')}],
    vhost => {request_mirror_policies => [{cluster => 'b'}]});
listener('copies_all', $all_a);
$listeners[-1]{filter_chains}[0]{filters}[0]{typed_config}{route_config}{request_mirror_policies} = [{cluster => 'b'}];
my $all = {numerator => 100};
listener('faults', $all_a, http_filters => [{name => 'fault', typed_config => {'@type' => $any . 'envoy.extensions.filters.http.fault.v3.HTTPFault',
    abort => {header_abort => {}, percentage => $all}}}]);
listener('packed', $all_a, http_filters => [{name => 'gzip', typed_config => {'@type' => $any . 'envoy.extensions.filters.http.compressor.v3.Compressor',
    response_direction_config => {common_config => {min_content_length => 1, content_type => ['text/plain']}},
    compressor_library => {name => 'gzip', typed_config => {'@type' => $any . 'envoy.extensions.compression.gzip.compressor.v3.Gzip'}}}}]);

my @clusters = (map({ Heddle::Xds::cluster($_, $hd->port($_)) } 'a', 'b', 'c', 'slow', 'never'), {name => 'named', type => 'STATIC', connect_timeout => '2s',
    load_assignment => {cluster_name => 'named', endpoints => [{lb_endpoints => [{endpoint => {hostname => 'ep.example', address => Heddle::Xds::address($hd->port('a'))}}]}]}});
$xds->serve(CDS => \@clusters, LDS => \@listeners)->start;
$hd->start;
for my $l (@listeners) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($l->{name})) }, "the listener $l->{name}") }

# ---- who the client is

for my $row (['plain', '1.2.3.4', '1.2.3.4'], ['plain', '1.2.3.4, 5.6.7.8', '5.6.7.8'], ['edge', '1.2.3.4', '127.0.0.1'],
    ['hops', '1.2.3.4, 5.6.7.8', '5.6.7.8'], ['plain', 'bogus', '127.0.0.1']) {
    my ($at, $xff, $who) = @$row;
    ask($at, 'GET /', "X-Forwarded-For: $xff");
    like head('a'), qr/^x-who: \Q$who\E\r$/m, "$at, X-Forwarded-For $xff: the client is $who";
}
ask('edge', 'GET /', 'X-Forwarded-For:');
like head('a'), qr/^x-forwarded-for: 127\.0\.0\.1\r$/mi, 'an empty X-Forwarded-For is none';

# ---- the scheme: of who isn't first, what the proxy before says

for my $row (['plain', 'https', 'https'], ['plain', 'http', 'http'], ['plain', 'HTTPS', 'https'], ['plain', 'gopher', 'http'],
    ['edge', 'https', 'http'], ['hops', 'https', 'https']) {
    my ($at, $proto, $scheme) = @$row;
    ask($at, 'GET /', "X-Forwarded-Proto: $proto");
    like head('a'), qr/^x-scheme: $scheme\r$/m, "$at: $proto is $scheme";
    is ask($at, 'GET /move', "X-Forwarded-Proto: $proto")->header('location'), "$scheme://a.example/z", 'redirects keep it';
    is ask($at, 'GET /s', "X-Forwarded-Proto: $proto")->header('x-by'), $scheme eq 'https' ? 'b' : 'a', 'so do matches';
    heads($_) for 'a', 'b';
}
is ask('tls_only', 'GET /', 'X-Forwarded-Proto: https')->status, 200, 'require_tls: the client came by TLS, no loop of redirects';
is ask('tls_only', 'GET /', 'X-Forwarded-Proto: http')->status, 301, 'this one did not';
is ask('tls_only', 'GET /')->status, 301, 'nor one of whom nothing is said';
is ask('tls_only_edge', 'GET /', 'X-Forwarded-Proto: https')->status, 301, "an edge doesn't believe it";

# ---- repeated fields (CVE-2026-26308)

for my $row ([[('X-Role: admin')], 'b'], [['X-Role: user', 'X-Role: admin'], 'b'], [['X-Role: admin', 'X-Role: user'], 'b'],
    [['X-Role: user'], 'a'], [['X-Role: admin,user'], 'a'], [['X-Not: z', 'X-Not: y'], 'a'], [['X-Not: x', 'X-Not: y'], 'b'],
    [['X-Not: z'], 'a'], [['X-Both: 1', 'X-Both: 2'], 'b'], [['Host: localhost'], 'b'], [['Host: other'], 'a']) {
    my ($fields, $by) = @$row;
    is ask('twice', 'GET /', @$fields)->header('x-by'), $by, "route: @$fields";
}
my $h2 = Heddle::H2->new($hd->port('twice'));
$h2->request(1, '/');
like $h2->response(1)->{body}, qr/^b/, 'host matches over HTTP/2, too';
my @twice = ('X-Role: user', 'X-Role: admin');
for my $row (['deny', [@twice], 403], ['deny', [reverse @twice], 403], ['deny', ['X-Role: user', 'X-Role: guest'], 200], ['deny', ['X-Role: admin'], 403], ['deny', [], 200],
    ['allow', ['X-Role: admin'], 200], ['allow', [@twice], 403], ['allow', [], 403],
    ['allow_other', ['X-Role: user'], 200], ['allow_other', [@twice], 403], ['allow_other', [], 403],
    ['deny_other', ['X-Role: admin'], 200], ['deny_other', [@twice], 403],
    ['deny_host', ['Host: localhost'], 403], ['deny_host', ['Host: yes.example'], 200]) {
    my ($at, $fields, $status) = @$row;
    is ask($at, 'GET /', @$fields)->status, $status, "access, $at: @$fields";
}
$h2 = Heddle::H2->new($hd->port('deny_host'));
$h2->request(1, '/');
is $h2->response(1)->{status}, 403, 'a rule about host counts over HTTP/2';

# ---- filters come before the router: who may not come in doesn't learn what isn't there

is ask('nowhere', 'GET /there', 'X-Role: admin')->status, 403, 'no route, and denied';
is ask('nowhere', 'GET /there', 'X-Role: user')->status, 404, 'no route, and let in';
is ask('nowhere', 'POST /there', 'X-Role: user', 'Content-Length: 0')->status, 404, 'whatever the method';

# ---- redirects, answers

is ask('moved', 'GET /x', "Host: old:$_")->header('location'), 'http://new/x', "a redirect to a host leaves port $_ behind" for 80, 8080;
is ask('moved', 'GET /port', 'Host: old:8080')->header('location'), 'http://new:77/port', 'but for its own';
my $r = ask('answers', 'GET /json');
is join('|', $r->head =~ /^content-type: *(.*?)\r$/mig), 'application/json', 'an answer has one type: the one that was added';
is ask('answers', 'GET /')->header('content-type'), 'text/plain', 'and is text if there is none';

# ---- paths and hosts by pattern, in which order, which port

is ask('by_path', 'GET /moved/a/b?c')->header('location'), 'http://a.example/to/a/b?c', "a redirect's path by pattern";
heads('a');
for my $row (['/header', ['X-Host: there'], 'there'], ['/header', [], 'a.example'], ['/host/one/two?q', [], 'one.example'], ['/told', ['X-Forwarded-Host: z'], 'new']) {
    my ($path, $fields, $host) = @$row;
    ask('by_path', "GET $path", @$fields);
    like my $head = head('a'), qr/^host: \Q$host\E\r$/mi, "$path: the host is $host";
    is $host eq 'a.example' ? 0 : 1, scalar($head =~ /^x-envoy-original-host: a\.example\r$/m) ? 1 : 0, 'what it was is told where it changed';
    like $head, qr/^x-forwarded-host: z,a\.example\r$/mi, 'and so for others' if $path eq '/told';
}
is ask('by_path', 'GET /header', 'X-Host: a b')->status, 500, 'a host that is none goes nowhere';
for my $row (['table_wins', 'table', 'route vhost table'], ['route_wins', 'route', 'table vhost route']) {
    my ($at, $by, $all) = @$row;
    ask($at, 'GET /');
    my $head = head('a');
    like $head, qr/^x-by: $by\r$/m, "$at: $by";
    is join(' ', $head =~ /^x-all: (\w+)/mg), $all, 'in this order';
}
for my $port ($hd->port('own_port'), 80) {
    ask('own_port', 'GET /', "Host: a:$port");
    like head('a'), $port == 80 ? qr/^host: a:80\r$/mi : qr/^host: a\r$/mi, "strip_matching_host_port: $port";
}

# ---- what header changes reach, and what the router adds

heads('a');
is ask('changes', 'GET /')->header('x-envoy-upstream-service-time'), undef, 'x-envoy-upstream-service-time can be taken off';
like ask('plain', 'GET /')->header('x-envoy-upstream-service-time'), qr/^\d+$/, 'where it is not, it is there';
heads('a');
unlike ask('quiet', 'GET /x')->head, qr/x-envoy/i, 'suppress_envoy_headers: none in the answer';
my $head = head('a');
unlike $head, qr/x-envoy/i, 'nor in the request';
like $head, qr{^GET /y HTTP/1\.1\r\n}, 'which was rewritten';
is ask('formats', 'GET /', 'X-Some: value')->header('x-f'), '-|via_upstream|the-route|value', 'operators of responses';
like head('a'), qr/^x-f: val\|value\|\|HTTP\r$/m, 'of requests, one instead of another, cut';
ask('auto', 'GET /');
$head = head('a');
like $head, qr/^host: ep\.example\r$/mi, 'auto_host_rewrite';
like $head, qr/^x-envoy-original-host: a\.example\r$/m, 'and what the client asked for';
for my $method ('POST', 'PUT', 'PATCH', 'GET', 'DELETE') {
    ask('plain', "$method /");
    my $is_told = $method =~ /^P/ ? 'is' : 'is not';
    is scalar(head('a') =~ /^content-length: 0\r$/mi) ? 'is' : 'is not', $is_told, "that $method has no body $is_told told";
}

# ---- retries

$r = ask('retries', 'GET /header', 'X-Answer: x-again:yes');
is scalar(heads('a')), 3, 'retriable_headers: tried again';
is $r->header('x-envoy-attempt-count'), 3, 'include_attempt_count_in_response';
ask('retries', 'GET /header', 'X-Answer: x-again:no');
my @heads = heads('a');
is scalar(@heads), 1, 'of another value: not';
unlike $heads[0], qr/is-timeout-retry/, 'the first try is no retry';
is ask('retries', 'GET /get', 'X-Fail: 503*1')->status, 200, 'retriable_request_headers: a GET is tried again';
@heads = heads('a');
is scalar(@heads), 2, 'once';
like $heads[1], qr/^x-envoy-is-timeout-retry: false\r$/m, 'and no time-out was the cause';
is ask('retries', 'POST /get', 'X-Fail: 503*1', 'Content-Length: 0')->status, 503, 'a POST is not';
is scalar(heads('a')), 1, 'not once';
for my $row ([399, 399], [400, 200], [463, 200], [464, 200], [500, 200], [501, 501]) {
    is ask('retries', 'GET /many', "X-Fail: $row->[0]*1")->status, $row->[1], "of a hundred statuses: $row->[0]";
}
heads('a');
is ask('retries', 'GET /limited', 'X-Fail: 429', 'X-Answer: x-envoy-ratelimited:true')->status, 429, 'envoy-ratelimited';
is scalar(heads('a')), 3, 'is tried again';
ask('retries', 'GET /limited', 'X-Fail: 429');
is scalar(heads('a')), 1, 'another 429 is not';

# ---- times

is ask('times', "GET $_")->status, 200, "max_stream_duration, $_: timeout and the listener's own don't count" for '/both', '/own';
is ask('patient', 'GET /')->status, 200, 'nor does timeout beside grpc_timeout_header_max';
for my $path ('/short', '/') {
    $r = ask('times', "GET $path");
    is $r->status, 504, "$path: it took too long";
    is $r->body, 'downstream duration timeout', 'as a whole';
}

heads('never');
is ask('expected', 'GET /')->status, 504, 'two tries within a time-out';
is join(' ', map { /^x-envoy-expected-rq-timeout-ms: (\d+)/m ? ($1 == 250 ? 'the try' : $1 <= 150 ? 'the rest' : $1) : 'none' } heads('never')),
    'the try the rest', 'how long each is waited for';

# ---- copies

ask('copies', 'GET /');
$hd->wait_for(sub { heads('b') }, "the virtual host's copy");
ask('copies', 'GET /own');
$hd->wait_for(sub { heads('c') }, "the route's copy");
ask('copies_all', 'GET /');
$hd->wait_for(sub { heads('b') }, "the whole table's copy");
is scalar(heads('c')), 0, 'each goes where the nearest policy says';

# ---- filters

is ask('faults', 'GET /', 'x-envoy-fault-abort-request: 429')->status, 429, 'a fault on demand';
is ask('faults', 'GET /', 'x-envoy-fault-abort-request: 429', 'x-envoy-fault-abort-request-percentage: 0')->status, 200, 'of no request';
is ask('faults', 'GET /', 'x-envoy-fault-abort-grpc-request: 5')->body, 'fault filter abort', "gRPC's";
is ask('faults', 'POST /', 'Content-Type: application/grpc', 'x-envoy-fault-abort-grpc-request: 5')->header('grpc-status'), 5, 'with its status';
is ask('packed', 'GET /')->header('vary'), 'Accept-Encoding', 'what others get compressed varies';
is ask('packed', 'GET /', 'Accept-Encoding: gzip')->header('content-encoding'), 'gzip', 'as here';

# ---- what would be ignored is refused

$xds->serve(CDS => \@clusters, LDS => [@listeners[0 .. $#listeners - 1], Heddle::Xds::listener('retries', $hd->port('retries'),
    route_config => Heddle::Xds::routes('r', ['/' => 'a', action => {retry('5xx', per_try_idle_timeout => '1s')}]))]);
ok $xds->wait_nack('LDS', qr/per_try_idle_timeout isn't supported/), 'per_try_idle_timeout';
for my $row (['a path', {match => {safe_regex => {regex => '/(a)\\1'}}, $to->('a')}, qr/a back-reference at byte 4/],
    ['a header', {match => {prefix => '/', headers => [{name => 'x', string_match => {safe_regex => {regex => '(?!a)'}}}]}, $to->('a')}, qr/look-around at byte 0/],
    ['a rewrite', {match => {prefix => '/'}, $to->('a', regex_rewrite => $pattern->('(?=/a)', 'x'))}, qr/look-around at byte 0/]) {
    my ($of, $route, $why) = @$row;
    $xds->serve(CDS => \@clusters, LDS => [@listeners[0 .. $#listeners - 1], Heddle::Xds::listener('retries', $hd->port('retries'),
        route_config => {name => 'r', virtual_hosts => [{name => 'v', domains => ['*'], routes => [$route]}]})]);
    ok $xds->wait_nack('LDS', $why), "a regular expression of $of that RE2 hasn't";
}
$xds->serve(CDS => \@clusters, LDS => [@listeners[0 .. $#listeners - 1], Heddle::Xds::listener('retries', $hd->port('retries'),
    http_filters => [rbac('DENY', string_match => {safe_regex => {regex => '(a)\\1'}})], route_config => Heddle::Xds::routes('r', ['/' => 'a']))]);
ok $xds->wait_nack('LDS', qr/"\(a\)\\1": a back-reference/), 'nor one of a rule';
$hd->stop;
done_testing;
