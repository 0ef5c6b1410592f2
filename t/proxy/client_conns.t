#!/usr/bin/perl
# What ends a client's connection, and what tells of it: keepalive_disable, keepalive_timeout's second time,
# keepalive_min_timeout, reset_timedout_connection, auth_delay (nginx: ngx_http_core_module).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Time::HiRes qw(time);
use MIME::Base64 qw(encode_base64);
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
events { worker_connections 64; }
http {
    access_log %%DIR%%/access.log;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2 on;
        location / { return 200 "ok"; }
        location /none { keepalive_disable none; return 200 "ok"; }
        location /safari { keepalive_disable msie6 safari; return 200 "ok"; }
        location /field { keepalive_timeout 60s 45s; return 200 "ok"; }
        location /off { keepalive_timeout 0 45s; return 200 "ok"; }
        location /444 { return 444; }
        location /444/off { reset_timedout_connection off; return 444; }
        location /444/on { reset_timedout_connection on; return 444; }
        location /delay { auth_delay 700ms; auth_basic "x"; auth_basic_user_file %%DIR%%/users; error_page 401 /page; return 200 "ok";
            location /delay/403 { deny all; }
            location /delay/any { satisfy any; deny all; proxy_pass http://127.0.0.1:%%PORT_1%%; }
            location /delay/in { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
        location /page { internal; return 401 "the page"; }
        location /sub { auth_delay 700ms; auth_request /asked; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /asked { internal; return 401; }
        location /big { send_timeout 500ms; root %%DIR%%; }
        location /big/off { send_timeout 500ms; reset_timedout_connection off; root %%DIR%%; }
        location /big/until { send_timeout 500ms; reset_timedout_connection off; chunked_transfer_encoding off; proxy_pass http://127.0.0.1:%%PORT_2%%; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; return 200 "in"; }
}
EOC
$hd->write('users', "me:{PLAIN}secret\n");
mkdir $hd->dir . $_ for '/big', '/big/off';
my $big = "some of a file\n" x 2_000_000;
$hd->write($_, $big) for 'big/f', 'big/off/f';
$hd->tcp_backend(2, sub {
    my ($sock) = @_;
    while (my $line = <$sock>) { last if $line eq "\r\n" }
    print $sock "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", $big;
});
$hd->start;

# Whether the connection is there after the answer, and says so.
sub stays {
    my ($method, $uri, $agent) = @_;
    my $conn = $hd->connect(0);
    my $body = $method eq 'POST' ? 'abc' : '';
    $conn->send("$method $uri HTTP/1.1\r\nHost: x\r\nUser-Agent: $agent\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
    my $r = $conn->response($method);
    my $closes = lc($r->header('connection') // '') eq 'close';
    is $conn->is_eof ? 1 : 0, 1, "... and does" if $closes;
    return $closes ? 0 : 1;
}

# ---- keepalive_disable
my %agents = (
    msie6 => 'Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)', msie5 => 'Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)',
    sp2 => 'Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)', msie7 => 'Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0)',
    opera => 'Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; en) Opera 8.0', cut => 'MSIE 6.', none => 'curl/8',
    safari => 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_6) AppleWebKit/533.20 (KHTML, like Gecko) Version/5.0.4 Safari/533.20.27',
    chrome => 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36',
);
for (['POST', '/', 'msie6', 0], ['POST', '/', 'msie5', 0], ['GET', '/', 'msie6', 1], ['POST', '/', 'sp2', 1], ['POST', '/', 'msie7', 1],
    ['POST', '/', 'opera', 1], ['POST', '/', 'cut', 1], ['POST', '/', 'none', 1], ['POST', '/none', 'msie6', 1], ['GET', '/', 'safari', 1],
    ['GET', '/safari', 'safari', 0], ['GET', '/safari', 'chrome', 1], ['POST', '/safari', 'msie6', 0]) {
    my ($method, $uri, $agent, $want) = @$_;
    is stays($method, $uri, $agents{$agent}), $want, "$method $uri by $agent: " . ($want ? 'stays' : 'ends');
}

# ---- Keep-Alive
my $r = $hd->get('/field', {keep => 1});
is $r->header('keep-alive'), 'timeout=45', 'the second time is told';
is lc $r->header('connection'), 'keep-alive', '... with Connection, which it needs (RFC 9112 C.2.2)';
is $hd->get('/field')->header('keep-alive'), undef, 'not where the connection ends';
is $hd->get('/off', {keep => 1})->header('keep-alive'), undef, '... as it does with keepalive_timeout 0';
is $hd->get('/', {keep => 1})->header('keep-alive'), undef, 'not without the second time';

# ---- 444, and who doesn't read
sub ask_and_wait {
    my ($uri) = @_;
    my $conn = $hd->connect(0);
    $conn->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n");
    return $conn;
}
for (['/444', 0], ['/444/off', 0], ['/444/on', 1]) {
    my $conn = ask_and_wait($_->[0]);
    is $conn->read_all, '', "$_->[0]: no answer";
    is $conn->was_reset, $_->[1], '... ' . ($_->[1] ? 'a reset' : 'closed');
}
my $gone = 0;
for (['/big/f', 1, 'reset if nothing is said'], ['/big/off/f', 0, 'closed with reset_timedout_connection off'],
    ['/big/until', 1, 'reset all the same where only that tells of the end']) {
    my ($uri, $is_reset, $what) = @$_;
    my $conn = ask_and_wait($uri);
    $hd->wait_log(qr/client doesn't read its response.* flags: "SI", details: "stream_idle_timeout"/, ++$gone);
    my $all = $conn->read_all;
    cmp_ok length $all, '<', length $big, "$uri: cut off";
    is $conn->was_reset, $is_reset, $what;
}
# Of HTTP/2 the whole connection, if not even frames are taken.
my $gone_h2 = 0;
for (['/big/f', 1, 'reset if nothing is said'], ['/big/off/f', 0, 'closed with reset_timedout_connection off']) {
    my ($uri, $is_reset, $what) = @$_;
    my $h2 = Heddle::H2->new($hd->port(0));
    $h2->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x7fff0000);
    $h2->request(1, $uri);
    $h2->frame('WINDOW_UPDATE', 0, 1, pack 'N', 0x7fff0000);
    $hd->wait_log(qr/client timed out while reading the response.* flags: "SI"/, ++$gone_h2);
    cmp_ok length $h2->{conn}->read_all, '<', length $big, "$uri over HTTP/2: cut off";
    is $h2->{conn}->was_reset, $is_reset, "HTTP/2: $what";
}

# ---- auth_delay
sub timed { my (@ask) = @_; my $from = time; my $r = $hd->get(@ask); return ($r, time - $from) }
sub basic { return (Authorization => 'Basic ' . encode_base64("me:$_[0]", '')) }
for (['/delay/in', 'no password'], ['/delay/in', 'a wrong one', basic('no')], ['/delay/any', 'satisfy any', basic('no')],
    ['/sub', 'auth_request']) {
    my ($uri, $what, @fields) = @$_;
    my ($r, $s) = timed($uri, @fields);
    is $r->status, 401, $what;
    cmp_ok $s, '>=', 0.69, '... takes its time';
}
is $hd->get('/delay/in')->body, 'the page', 'an error page comes behind it';
my $conn = $hd->connect(0);
my $seen = () = $hd->log =~ /no user\/password was provided/g;
$conn->send("GET /delay/in HTTP/1.1\r\nHost: x\r\n\r\n");
$hd->wait_log(qr/no user\/password was provided/, $seen + 1);
$conn->close;
$hd->wait_for(sub { $hd->file('access.log') =~ m{GET /delay/in HTTP/1.1" 499} }, 'who leaves meanwhile isn\'t waited for');
is $hd->get('/delay/in', basic('secret'))->body, 'in', 'who may isn\'t held back';
is $hd->get('/delay/403', basic('secret'))->status, 403, 'nor is a 403 anything to hide';

# ---- what is wrong
for (['keepalive_disable opera;', qr/heddle.conf:\d+: invalid value "opera": none by itself, or any of msie6 and safari/],
    ['keepalive_disable none msie6;', qr/invalid value "none"/], ['auth_delay soon;', qr/heddle.conf:\d+: .*soon/],
    ['keepalive_min_timeout x;', qr/heddle.conf:\d+: /], ['reset_timedout_connection maybe;', qr/heddle.conf:\d+: .*maybe/],
    ['keepalive_timeout 1s x;', qr/heddle.conf:\d+: /]) {
    my ($status, $text) = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $_->[0] } }")->run('-t');
    like $text, $_->[1], $_->[0];
    isnt $status, 0, '... is an error';
}
$hd->stop;

# ---- keepalive_min_timeout: the program's gentle end leaves an idle connection its time
my $kept = Heddle->new->conf(<<'EOC');
http {
    keepalive_min_timeout 1h;
    server { listen 127.0.0.1:%%PORT_0%%; location / { return 200 "ok"; } location /two { keepalive_min_timeout 2s; return 200 "ok"; }
        location /none { keepalive_min_timeout 0; return 200 "ok"; } }
}
EOC
$kept->start;
my @conns = map { my $c = $kept->connect(0); $c->send("GET $_ HTTP/1.1\r\nHost: x\r\n\r\n"); is $c->response->status, 200, $_; $c } '/', '/none', '/two';
$kept->signal('QUIT');
ok $conns[1]->is_eof, 'without it an idle connection ends with the program';
$conns[0]->send("GET /again HTTP/1.1\r\nHost: x\r\n\r\n");
$r = $conns[0]->response;
is $r->status, 200, 'with it another request is answered';
is lc $r->header('connection'), 'close', '... the last one';
ok $conns[2]->is_eof, 'and one that stays idle ends after its time';
$kept->stop;
done_testing;
