#!/usr/bin/perl
# Attacks on who reads the logs (log injection, CWE-117): whatever a client or an upstream sends, a request
# is one line of the access log, one of the error log, without control bytes, and JSON stays JSON.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use JSON::XS;

my $hd = Heddle->new(modules => ['access_log', 'lua'], log_level => 'info')->conf(<<'EOC');
http {
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
my $raw = '';
$hd->tcp_backend(1, sub {
    my ($sock) = @_;
    sysread $sock, my $head, 65536;
    syswrite $sock, $head =~ /strange/ ? "HTTP/1.1 200 O\x1bK\r\nX-Up: a\x1b[31mred\r\nContent-Length: 0\r\n\r\n"
        : "HTTP/1.1 200 OK\r\nX-Up: a\"b\\\x80\r\nContent-Length: 0\r\n\r\n";
});
$hd->expect_log(qr/lua: path .*forged/); # as it should: one line, under its own level
$hd->start;

# What a log has: its lines, none of them with a control byte in it.
sub lines_of {
    my ($file) = @_;
    return split /\n/, $hd->file($file);
}

my @evil = (
    ['a line end, encoded, in the path', "GET /x/%0a127.0.0.1%20-%20-%20%22GET%20/forged HTTP/1.1\r\nHost: a\r\n"],
    ['and CR', "GET /x/%0d%0aLINE%20forged HTTP/1.1\r\nHost: a\r\n"],
    ['an escape sequence in a field', "GET /x HTTP/1.1\r\nHost: a\r\nX: \t\x80\xff\"quoted\\\r\n"],
    ['quotes and backslashes', "GET /\"\\ HTTP/1.1\r\nHost: a\r\nX: \"} , {\"forged\":\"1\r\n"],
    ['an argument', "GET /?a=%0aforged HTTP/1.1\r\nHost: a\r\n"],
    ['a user', "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic " . 'Zm9vCkxJTkUgZm9yZ2VkOnB3' . "\r\n"],
    ['an upstream', "GET /strange HTTP/1.1\r\nHost: a\r\n"],
    ['a dead upstream', "GET /dead/%0aforged HTTP/1.1\r\nHost: a\r\nReferer: \x80\"forged\r\n"],
    ['a script', "GET /lua/%0a2026/01/01%20[emerg]%20forged HTTP/1.1\r\nHost: a\r\n"],
    ['a bad request', "GET /\x01forged HTTP/1.1\r\nHost: a\r\n"],
    ['a bad host', "GET / HTTP/1.1\r\nHost: a\x0bb\"forged\r\n"],
);
my $n = 0;
for my $case (@evil) {
    my ($what, $head) = @$case;
    $hd->raw("${head}Connection: close\r\n\r\n", 0);
    $n++;
}
$hd->wait_for(sub { lines_of('json.log') >= $n && lines_of('line.log') >= $n }, 'all to be logged');
$hd->stop;

for my $file ('line.log', 'json.log', 'error.log') {
    my $text = $hd->file($file);
    unlike $text, qr/[\x00-\x09\x0b-\x1f\x7f]/, "$file: no control bytes";
    unlike $text, qr/^(?!LINE "|\{"|\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d \[\w+\] \d+#\d+: )/m, "$file: no line that isn't ours";
    unlike $text, qr/^2026\/01\/01 \[emerg\]/m, "$file: none is forged";
}
is scalar(lines_of('line.log')), $n, 'a request, a line';
my @objects = map { eval { JSON::XS->new->latin1->decode($_) } || diag $_ } lines_of('json.log');
is scalar(grep { ref eq 'HASH' && !exists $_->{forged} && keys %$_ == 4 } @objects), $n, 'JSON is JSON, with the keys it was given';
done_testing;
