#!/usr/bin/perl
# Attacks by way of regular expressions: a match that takes exponential time (ReDoS, CVE-2019-14993) is
# given up after a bounded number of steps, and the request fails, as in nginx: who knows a slow
# pattern would otherwise get around what its location, route or condition forbids. Captures that
# were taken for one expression don't outlive the next (CVE-2026-42945, CVE-2026-9256). By file and by xDS, each with what
# it matches by.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::XS ();

my $hd = Heddle->new(log_level => 'warn')->conf(<<'EOC');
http {
    large_client_header_buffers 4 16k;
    map $arg_m $mapped { ~^(?<word>\w+)-(?<more>.*)$ "$word.$more"; ~^(b+)+$ slow; default none; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 open; }
        location ~ ^/admin/(a+)+$ { return 403; }
        location /rewrite { rewrite ^/rewrite/(a+)+$ /denied last; return 200 open; }
        location /denied { return 403; }
        location /if { if ($arg_x ~ "^(a+)+$") { return 403; } return 200 open; }
        location /ifnot { if ($arg_x !~ "^(a+)+$") { return 403; } return 200 open; }
        location /map { return 200 "$mapped"; }
        location ~ ^/captures/(?<first>[^/]+)/(.*)$ {
            set $kept "$1 $2";
            if ($arg_y ~ "^(.)(.*)$") { set $kept "$kept, $1 $2"; }
            if ($arg_y ~ nothing) { return 500; }
            return 200 "$kept, $first, [$1]";
        }
    }
    server { listen 127.0.0.1:%%PORT_0%%; server_name ~^(h+)+\.example$; return 200 named; }
}
EOC
$hd->start;

my $slow = ('a' x 40) . '!';
sub status { return $hd->get($_[0])->status }

subtest 'ReDoS (CVE-2019-14993): what was given up lets nobody in' => sub {
    is status('/admin/aaaa'), 403, 'a location by an expression';
    is status("/admin/$slow"), 500, 'one that can\'t be told refuses';
    is status('/rewrite/aaa'), 403, 'rewrite';
    is status("/rewrite/$slow"), 500, 'refuses';
    is status('/if?x=aaa'), 403, 'if';
    is status("/if?x=$slow"), 500, 'refuses';
    is status("/ifnot?x=$slow"), 500, 'its opposite, too';
    is $hd->get('/map?m=' . 'b' x 40 . '!')->body, 'none', 'a map: the default';
    is $hd->get('/', Host => 'h' x 40 . '!.example')->body =~ /named/ ? 1 : 0, 0, 'a server name: not that server';
    ok $hd->wait_log(qr/regular expression "\^\/admin\/\(a\+\)\+\$" on \d+ bytes: match limit exceeded/), 'it is told';
    is status('/'), 200, 'and others are served';
};

subtest 'captures: of the expression that matched last (CVE-2026-42945, CVE-2026-9256)' => sub {
    is $hd->get('/captures/one/two?y=xyz')->body, 'one two, x yz, one, []', 'copied when they are used';
    my $long = 'z' x 5000;
    is $hd->get("/captures/$long/s?y=x$long")->body, "$long s, x $long, $long, []", 'lengths are counted anew';
    is $hd->get('/captures/%41%2f%2e/s?y=')->body =~ /^A/ ? 1 : 0, 1, 'of the path as it is matched';
    is $hd->get('/map?m=some-thing')->body, 'some.thing', 'named groups of a map';
    is $hd->get("/map?m=$long-$long")->body, "$long.$long", 'however long';
};
$hd->stop;

subtest 'ReDoS: what a control plane matches by' => sub {
    my $any = 'type.googleapis.com/envoy.extensions.filters.';
    my $hd = Heddle->new(modules => ['authz', 'access_log'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $refuse = {direct_response => {status => 403}};
    my $pass = {direct_response => {status => 200}};
    my $regex = {safe_regex => {regex => '(a+)+'}};
    # Port 0: routes. The others: rules of RBAC, which refuse what matches (deny) or lets in what does (allow).
    my $rbac = sub {
        my ($action, $permission, $principal) = @_;
        return [{name => 'envoy.filters.http.rbac', typed_config => {'@type' => $any . 'http.rbac.v3.RBAC', rules => {action => $action,
            policies => {p => {permissions => [$permission // {any => JSON::XS::true()}], principals => [$principal // {any => JSON::XS::true()}]}}}}}];
    };
    my $field = {header => {name => 'x', string_match => $regex}};
    my $path = {url_path => {path => {safe_regex => {regex => '/(a+)+'}}}};
    my %rules = (1 => $rbac->(DENY => $field), 2 => $rbac->(ALLOW => $field), 3 => $rbac->(DENY => $path), 4 => $rbac->(ALLOW => $path),
        5 => $rbac->(DENY => {not_rule => $field}), 6 => $rbac->(ALLOW => {not_rule => $field}), 7 => $rbac->(DENY => undef, $field),
        8 => $rbac->(ALLOW => {or_rules => {rules => [$field, {any => JSON::XS::true()}]}}));
    my $all = {name => 'in', virtual_hosts => [{name => 'all', domains => ['*'], routes => [{match => {prefix => '/'}, route => {cluster => 'up'}}]}]};
    my $log = {name => 'envoy.access_loggers.file', filter => {header_filter => {header => {name => 'x', string_match => $regex}}},
        typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog', path => '/dev/stdout',
            log_format => {text_format_source => {inline_string => "MATCHED %REQ(:PATH)%\n"}}}};
    my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
    $xds->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(99))], LDS => [
        Heddle::Xds::listener('front', $hd->port(0), access_log => [$log], route_config => {name => 'in',
            virtual_hosts => [{name => 'all', domains => ['*'], routes => [
                {match => {safe_regex => {regex => '/admin/(a+)+'}}, %$refuse},
                {match => {prefix => '/h', headers => [{name => 'x', string_match => $regex}]}, %$refuse},
                {match => {prefix => '/not', headers => [{name => 'x', string_match => $regex, invert_match => JSON::XS::true()}]}, %$refuse},
                {match => {prefix => '/query', query_parameters => [{name => 'x', string_match => $regex}]}, %$refuse},
                {match => {prefix => '/rewrite'}, route => {cluster => 'up', regex_rewrite => {pattern => {regex => '/rewrite/(a+)+[!?]'}, substitution => '/\1'}}},
                {match => {prefix => '/'}, %$pass},
            ]}]}),
        map { Heddle::Xds::listener("front-$_", $hd->port($_), route_config => $all, http_filters => $rules{$_}) } sort keys %rules])->start;
    $hd->echo_server(99);
    $hd->start;
    for my $port (0, sort keys %rules) {
        $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($port)) }, "the listener $port");
    }
    is $hd->get('/admin/aaa')->status, 403, 'by path';
    is $hd->get("/admin/$slow")->status, 500, 'refused';
    is $hd->get('/h', X => 'aaa')->status, 403, 'by a field';
    is $hd->get('/h', X => $slow)->status, 500, 'refused';
    is $hd->get('/not', X => $slow)->status, 500, 'its opposite, too';
    is $hd->get('/query?x=aaa')->status, 403, 'by an argument';
    is $hd->get("/query?x=$slow")->status, 500, 'refused';
    is $hd->get('/rewrite/aaa!')->status, 200, 'a path is rewritten';
    is $hd->get('/rewrite/' . 'a' x 40)->status, 500, 'refused';
    is $hd->get('/', X => 'aaa')->status, 200, 'others are served';
    is $hd->get('/slow', X => $slow)->status, 200, 'and logs don\'t decide';
    my %what = (1 => 'deny by a field', 2 => 'allow by a field', 3 => 'deny by path', 4 => 'allow by path', 5 => 'deny but a field', 6 => 'allow but a field',
        7 => 'deny who has a field', 8 => 'allow by a field or else');
    for my $port (sort keys %rules) {
        my $ask = $port == 3 || $port == 4 ? ["/$slow", {port => $port}] : ['/', {port => $port}, X => $slow];
        my $before = () = $hd->requests(99);
        is $hd->get(@$ask)->status, 403, "$what{$port}: what was given up lets nobody in";
        is scalar(() = $hd->requests(99)), $before, 'nothing passes';
    }
    $hd->wait_for(sub { $hd->file('output') =~ m{^MATCHED /$}m }, 'the log');
    unlike $hd->file('output'), qr{MATCHED /slow}, 'what was given up is no match';
    $hd->stop;
};

subtest 'captures of a control plane\'s rewriting' => sub {
    my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $routes = Heddle::Xds::routes('in', ['/twice/' => 'up', action => {regex_rewrite => {
            pattern => {regex => '(x+)'}, substitution => '<\1\1>'}}],
        ['/swap/' => 'up', action => {regex_rewrite => {pattern => {regex => '^/swap/([^/]*)/(.*)$'}, substitution => '/\2/\1/\0'}}],
        ['/none/' => 'up', action => {regex_rewrite => {pattern => {regex => '/(a)|/(none)/'}, substitution => '/[\1]\2/'}}]);
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(99))], LDS => [
        Heddle::Xds::listener('front', $hd->port(0), route_config => $routes)])->start;
    $hd->echo_server(99);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    my $uri = sub { $hd->get($_[0]); return ($hd->requests(99))[-1]{uri} };
    is $uri->('/twice/xx/y/x'), '/twice/<xxxx>/y/<xx>', 'each match has its own';
    my $long = 'z' x 5000;
    is $uri->("/swap/$long/b?q"), "/b/$long//swap/$long/b?q", 'of any length';
    is $uri->('/none/x'), '/[]none/x', 'a group that took no part is empty';
    $hd->stop;
};
done_testing;
