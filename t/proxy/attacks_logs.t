#!/usr/bin/perl
# Attacks on who reads the logs (log injection, CWE-117), by file and by xDS: whatever a client, its certificate or an
# upstream sends, a request is one line of the access log, one of the error log, without control bytes, and JSON stays JSON.
use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS;

my ($hd, $way);

sub by_file {
    return Heddle->new(modules => ['access_log', 'lua'], log_level => 'info')->conf(<<'EOC');
http {
    http2 on;
    log_format line 'LINE "$request" "$http_x" "$arg_a" "$remote_user" "$upstream_http_x_up" "$decoded"';
    log_format json escape=json '{"request":"$request","x":"$http_x","uri":"$uri","decoded":"$decoded"}';
    map $uri $decoded { ~^/.*/(.*)$ $1; default $uri; }
    access_log %%DIR%%/line.log line;
    access_log %%DIR%%/json.log json;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /dead { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location /lua { access_by_lua_block { hd.log("warn", "path " .. hd.req.path) hd.exit(204) } }
    }
}
EOC
}

sub by_xds {
    my $hd = Heddle->new(modules => ['access_log', 'lua'], log_level => 'info')->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $any = 'type.googleapis.com/envoy.extensions.';
    my $log = sub { {name => 'envoy.access_loggers.file', typed_config => {
        '@type' => $any . 'access_loggers.file.v3.FileAccessLog', path => '/dev/stdout', log_format => {@_}}} };
    my $lua = 'function envoy_on_request(h)
        if string.find(h:headers():get(":path"), "^/lua") then
            h:logWarn("path " .. string.gsub(h:headers():get(":path"), "%%0a", "\n")) h:respond({[":status"] = "204"}, "")
        end
    end';
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(
        CDS => [Heddle::Xds::cluster('up', $hd->port(1)), Heddle::Xds::cluster('dead', $hd->port(8))],
        LDS => [Heddle::Xds::listener('front', $hd->port(0),
            route_config => Heddle::Xds::routes('in', ['/dead' => 'dead'], ['/' => 'up']),
            http_filters => [{name => 'envoy.filters.http.lua', typed_config => {
                '@type' => $any . 'filters.http.lua.v3.Lua', default_source_code => {inline_string => $lua}}}],
            access_log => [
                $log->(text_format_source => {inline_string => 'LINE "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" "%REQ(X)%" "%REQ(HOST)%"'
                    . " \"%REQ(AUTHORIZATION)%\" \"%RESP(X-UP)%\" %UPSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_CODE_DETAILS%\n"}),
                $log->(json_format => {request => '%REQ(:PATH)%', x => '%REQ(X)%', uri => '%REQ(:METHOD)% %REQ(:PATH)%', decoded => '%RESP(X-UP)%'}),
            ])])->start;
    return $hd;
}

# What a log has: its lines, none of them with a control byte in it. By xDS both logs are standard output.
sub lines_of {
    my ($file) = @_;
    return split /\n/, $hd->file($file) if $way eq 'file' || $file eq 'error.log';
    return grep { $file eq 'json.log' ? /^\{/ : !/^\{/ } split /\n/, $hd->file('output');
}

my @evil = (
    ['a line end, encoded, in the path', "GET /x/%0a127.0.0.1%20-%20-%20%22GET%20/forged HTTP/1.1\r\nHost: a\r\n"],
    ['and CR', "GET /x/%0d%0aLINE%20forged HTTP/1.1\r\nHost: a\r\n"],
    ['an escape sequence in a field', "GET /x HTTP/1.1\r\nHost: a\r\nX: a\t\x80\xff\"quoted\\\r\n"],
    ['quotes and backslashes', "GET /\"\\ HTTP/1.1\r\nHost: a\r\nX: \"} , {\"forged\":\"1\r\n"],
    ['an argument', "GET /?a=%0aforged HTTP/1.1\r\nHost: a\r\n"],
    ['a user', "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic " . 'Zm9vCkxJTkUgZm9yZ2VkOnB3' . "\r\n"],
    ['an upstream', "GET /strange HTTP/1.1\r\nHost: a\r\n"],
    ['one that folds its fields', "GET /folded HTTP/1.1\r\nHost: a\r\n"],
    ['a dead upstream', "GET /dead/%0aforged HTTP/1.1\r\nHost: a\r\nReferer: \x80\"forged\r\n"],
    ['a script', "GET /lua/%0a2026/01/01%20[emerg]%20forged HTTP/1.1\r\nHost: a\r\n"],
    ['a bad request', "GET /\x01forged HTTP/1.1\r\nHost: a\r\n"],
    ['a bad host', "GET / HTTP/1.1\r\nHost: a\x0bb\"forged\r\n"],
    ['a method', "G\$%'*+-.^_`|~ET / HTTP/1.1\r\nHost: a\r\n"],
);
# Over HTTP/2: fields that HTTP/1 has no way to carry.
my @evil_h2 = (
    ['a line end in a field', x => "a\nLINE forged"], ['in the path', ':path' => "/\nforged"], ['an escape sequence', ':path' => "/\e[31m"],
    ['in the authority', ':authority' => "a\nforged"], ['in the method', ':method' => "GET\nforged"], ['in a name', "x\nforged" => 'a'],
    ['DEL and 8 bits', x => "\x7f\xff"],
);

sub log_injection {
    $hd->tcp_backend(1, sub {
        my ($sock) = @_;
        sysread $sock, my $head, 65536;
        syswrite $sock, $head =~ /strange/ ? "HTTP/1.1 200 O\x1bK\r\nX-Up: a\x1b[31mred\r\nContent-Length: 0\r\n\r\n"
            : $head =~ /folded/ ? "HTTP/1.1 200 OK\r\nX-Up: a\r\n LINE forged\r\nContent-Length: 0\r\n\r\n"
            : "HTTP/1.1 200 OK\r\nX-Up: a\t\"b\\\x80\r\nContent-Length: 0\r\n\r\n";
    });
    $hd->expect_log(qr/lua: path .*forged/); # as it should: one line, under its own level
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    my $n = 0;
    for my $case (@evil) {
        my ($what, $head) = @$case;
        $hd->raw("${head}Connection: close\r\n\r\n", 0);
        $n++;
    }
    for my $case (@evil_h2) {
        my ($what, $name, $value) = @$case;
        my %pseudo = (':method' => 'GET', ':scheme' => 'http', ':authority' => 'a', ':path' => '/');
        $pseudo{$name} = $value if exists $pseudo{$name};
        my $c = Heddle::H2->new($hd->port(0));
        $c->frame('HEADERS', 5, 1, Heddle::H2::fields((map { $_ => $pseudo{$_} } sort keys %pseudo), exists $pseudo{$name} ? () : ($name, $value)));
        $c->response(1);
        $n++;
    }
    $hd->wait_for(sub { lines_of('json.log') >= $n && lines_of('line.log') >= $n }, 'all to be logged');
    $hd->stop;

    for my $file ('line.log', 'json.log', 'error.log') {
        my $text = join "\n", lines_of($file);
        unlike $text, qr/[\x00-\x09\x0b-\x1f\x7f]/, "$file: no control bytes";
        unlike $text, qr/^(?!LINE "|\{"|\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d \[\w+\] \d+#\d+: )/m, "$file: no line that isn't ours";
        unlike $text, qr/^2026\/01\/01 \[emerg\]/m, "$file: none is forged";
    }
    is scalar(lines_of('line.log')), $n, 'a request, a line';
    my @objects = map { eval { JSON::XS->new->latin1->decode($_) } || diag $_ } lines_of('json.log');
    is scalar(grep { ref eq 'HASH' && !exists $_->{forged} && keys %$_ == 4 } @objects), $n, 'JSON is JSON, with the keys it was given';
}

for my $make (\&by_file, \&by_xds) {
    $hd = $make->();
    $way = $hd->{xds} ? 'xds' : 'file';
    subtest "by $way" => \&log_injection;
}
done_testing;
