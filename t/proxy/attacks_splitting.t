#!/usr/bin/perl
# Attacks by way of line ends that configuration decodes (CRLF injection, CWE-93, CWE-113): whatever variables, captures,
# scripts and a control plane's formats make of a client's bytes, the upstream gets one request with the fields that it
# was meant to have, the client one response. By file and by xDS.
use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

my $all = '((?:.|\s)*)$'; # a dot is no line end, and who writes a path's expression means all of it
my $evil = 'a%20b%0d%0aX-Evil:%20yes%0d%0a%0d%0aGET%20/evil%20HTTP/1.1%0d%0aHost:%20a%0d%0a%0d%0a';
my ($hd, $way);

# All that came back, and the requests that the upstream got.
sub ask {
    my ($path, @fields) = @_;
    my $before = () = $hd->requests(1);
    my $text = $hd->raw(join("\r\n", "GET $path HTTP/1.1", 'Host: a', @fields, 'Connection: close', '', ''), 0);
    my @seen = $hd->requests(1);
    splice @seen, 0, $before;
    return ($text, @seen);
}

sub whole {
    my ($what, $path, @fields) = @_;
    my ($text, @seen) = ask($path, @fields);
    my @heads = $text =~ m{^HTTP/1\.1 }mg;
    my ($head) = $text =~ /\A(.*?\r\n)\r\n/s;
    is scalar(@heads), 1, "$what: one response (" . substr($text, 9, 3) . ')';
    unlike $head // '', qr/^X-Evil:/mi, "$what: with its own fields";
    cmp_ok scalar(@seen), '<=', 1, "$what: one request at most";
    for (@seen) {
        like $_->{head}, qr{\AGET [^\s#]+ HTTP/1\.1\r\n}, "$what: whose line is one";
        unlike $_->{head}, qr/^X-Evil:/mi, "$what: with no other fields";
    }
    return ($text, @seen);
}

sub start {
    $hd->echo_server(1);
    $hd->backend(2, sub { return [302, ['Location' => 'http://a/q', 'Set-Cookie' => 'a=b; path=/'], ''] });
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
}

subtest 'by file' => sub {
    my $to = 'proxy_pass http://127.0.0.1:%%PORT_1%%;';
    my $from = 'proxy_pass http://127.0.0.1:%%PORT_2%%;';
    my %locations = (
        host => "proxy_set_header Host \$1; $to",
        field => "proxy_set_header X-A \$1; $to",
        uri => 'proxy_pass http://127.0.0.1:%%PORT_1%%/$1;',
        method => "proxy_method \$1; $to",
        rewrite => "rewrite ^/rewrite/$all /\$1 break; $to",
        rewritten => "rewrite ^/rewritten/$all /t?x=\$1 break; $to",
        args => "set \$args x=\$1; $to",
        try => 'try_files /none /index?q=$1;',
        uri_try => 'try_files /none /index?q=$uri;',
        page => 'error_page 404 = /index?q=$1; root /nowhere;',
        page_redirect => 'error_page 404 =302 http://x/$1; root /nowhere;',
        return => 'return 302 /$1;',
        redirect => "rewrite ^/redirect/$all http://x/\$1 redirect;",
        added => 'add_header X-A $1; return 200 ok;',
        trailer => 'add_trailer X-A $1; return 200 ok;',
        type => 'default_type $1; return 200 ok;',
        location => "proxy_redirect http://a/ http://b/\$1; $from",
        cookie => "proxy_cookie_path / /\$1; proxy_cookie_domain ~a \$1; $from",
        realm => 'auth_basic "$1"; auth_basic_user_file %%DIR%%/users;',
        auth => "auth_request /ok; auth_request_set \$x \$1; proxy_set_header X-A \$x; $to",
        grpc => 'grpc_set_header Host $1; grpc_set_header X-A $1; grpc_pass grpc://127.0.0.1:%%PORT_1%%;',
        script => "access_by_lua_block { hd.req.set_header('Host', hd.var.uri) } $to",
        script_path => "access_by_lua_block { hd.req.set_path(hd.var.uri) } $to",
    );
    my $text = join '', map { "        location ~ ^/$_/$all { $locations{$_} }\n" } sort keys %locations;
    $hd = Heddle->new(modules => ['lua', 'auth_basic', 'auth_request'])->conf(<<"EOC");
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location = /ok { return 204; }
        location /index { $to }
$text
    }
}
EOC
    $hd->write('users', 'a:b');
    $way = 'file';
    start();
    whole($_, "/$_/$evil") for sort keys %locations;
    # and where there is nothing evil, what was meant arrives
    my %want = (uri => '/a%20b', rewrite => '/a%20b', rewritten => '/t?x=a%20b', try => '/index?q=a%20b', uri_try => '/index?q=/uri_try/a%20b',
        page => '/index?q=a%20b');
    for (sort keys %want) {
        my (undef, $seen) = ask("/$_/a%20b");
        is $seen && $seen->{uri}, $want{$_}, "$_: $want{$_}";
    }
    like +(ask('/uri_try/a%23b'))[1]{uri}, qr{^/index\?q=/uri_try/a%23b$}, 'a # begins no fragment';
    $hd->stop;
};

subtest 'by xDS' => sub {
    my $add = sub { return {header => {key => $_[0], value => "%REQ($_[1])%"}, append_action => 'OVERWRITE_IF_EXISTS_OR_ADD'} };
    my $lua = 'function envoy_on_request(h)
        local to, what = h:headers():get("x-to"), "b\r\nX-Evil: yes"
        if to then h:headers():replace(to, what) end
        if h:headers():get("x-respond") then h:respond({[":status"] = "200", ["x-a"] = what}, "") end
    end
    function envoy_on_response(h)
        if h:headers():get("x-up") then h:headers():add("x-a", "b\r\nX-Evil: yes") end
    end';
    $hd = Heddle->new(modules => ['lua'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $routes = Heddle::Xds::routes('in',
        ['/path' => 'up', request_headers_to_add => [$add->(':path', 'X-A')]],
        ['/host' => 'up', request_headers_to_add => [$add->('Host', 'X-A')]],
        ['/authority' => 'up', request_headers_to_add => [$add->(':authority', 'X-A')]],
        ['/field' => 'up', request_headers_to_add => [$add->('X-B', ':PATH')], response_headers_to_add => [$add->('X-B', 'X-A')]],
        ['/prefix/' => 'up', action => {prefix_rewrite => '/'}],
        ['/regex/' => 'up', action => {regex_rewrite => {pattern => {regex => "/regex/$all" =~ s/\$$//r}, substitution => '/t?x=\1'}}],
        ['/' => 'up']);
    unshift @{$routes->{virtual_hosts}[0]{routes}}, {match => {prefix => '/redirect/'}, redirect => {prefix_rewrite => '/'}};
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(1))], LDS => [
        Heddle::Xds::listener('front', $hd->port(0), route_config => $routes, normalize_path => JSON::XS::true(), http_filters => [
            {name => 'envoy.filters.http.lua', typed_config => {'@type' => 'type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua',
                default_source_code => {inline_string => $lua}}}])])->start;
    $way = 'xds';
    start();
    for my $value ('/x HTTP/1.1', "/x\tHTTP/1.1", '/x y', '#', '/x#y') {
        whole("$_: \"$value\"", "/$_", "X-A: $value") for 'path', 'host', 'authority', 'field';
    }
    whole($_, "/$_/$evil") for 'path', 'field', 'prefix', 'regex', 'redirect', 'x';
    whole("a script's $_", '/x', "X-To: $_") for ':path', ':authority', 'Host', 'X-A';
    whole('a script\'s answer', '/x', 'X-Respond: 1');
    is +(ask('/path', 'X-A: /other?q'))[1]{uri}, '/other?q', 'a path that is one is set';
    like +(ask('/host', 'X-A: other.example:80'))[1]{head}, qr/^host: other\.example:80\r$/mi, 'and a Host';
    $hd->stop;
};
done_testing;
