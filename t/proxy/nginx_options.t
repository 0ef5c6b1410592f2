#!/usr/bin/perl
# Options of nginx's that a user may miss: TCP keep-alive, trailers, early hints, lists of directories, links in the
# trusted part of a path, and what is taken with a warning.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    proxy_http_version 1.1;
    map $http_sec_fetch_mode $hints { navigate 1; none 0; default ""; }
    server {
        listen 127.0.0.1:%%PORT_0%% fastopen=16 so_keepalive=on deferred;
        location /probed { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_socket_keepalive on; }
        location /plain { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /trailers { proxy_pass http://127.0.0.1:%%PORT_2%%; }
        location /trailers/off { proxy_pass_trailers off; add_trailer X-Up $upstream_trailer_x_sum; proxy_pass http://127.0.0.1:%%PORT_2%%; }
        location /trailers/none { proxy_pass_trailers off; proxy_pass http://127.0.0.1:%%PORT_2%%; }
        location /hints { proxy_pass http://127.0.0.1:%%PORT_3%%; }
        location /hints/if { early_hints $hints; proxy_pass http://127.0.0.1:%%PORT_3%%; }
        location /hints/two { early_hints $arg_a $hints; proxy_pass http://127.0.0.1:%%PORT_3%%; }
        location /list/ { alias %%DIR%%/www/; autoindex on;
            location /list/xml/ { alias %%DIR%%/www/; autoindex_format xml; }
            location /list/jsonp/ { alias %%DIR%%/www/; autoindex_format jsonp; } }
        location /links/ { alias %%DIR%%/link/; disable_symlinks on from=%%DIR%%/link; }
        location /slash/ { alias %%DIR%%/link/; disable_symlinks on from=%%DIR%%/link/; }
        location /var/ { alias %%DIR%%/link/; disable_symlinks on from=$arg_from; }
        location /whole/ { alias %%DIR%%/link/; disable_symlinks on; }
        location /other/ { alias %%DIR%%/link/; disable_symlinks on from=%%DIR%%/www; }
        location /half/ { alias %%DIR%%/link/; disable_symlinks on from=%%DIR%%/li; }
    }
}
EOC
my $dir = $hd->dir;
mkdir "$dir/www";
mkdir "$dir/www/sub & co";
$hd->write('www/a<b>.txt', 'abc');
$hd->write('www/x.txt', 'x');
utime 1_700_000_000, 1_700_000_000, "$dir/www/$_" or die $! for 'a<b>.txt', 'x.txt', 'sub & co';
symlink "$dir/www", "$dir/link" or die $!;
symlink "$dir/www/x.txt", "$dir/www/linked" or die $!;

# The local ports of connections to <port> whose kernel timer is keep-alive's (proc(5): /proc/net/tcp).
sub probed {
    my ($port) = @_;
    open my $in, '<', '/proc/net/tcp' or die $!;
    my $n = 0;
    while (my $line = <$in>) {
        my @f = split ' ', $line;
        $n++ if $f[2] eq sprintf('0100007F:%04X', $port) && $f[3] eq '01' && $f[5] =~ /^02:/;
    }
    return $n;
}
$hd->backend(1, sub { return {body => 'ok'} });
$hd->backend(2, sub { return {raw => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n"} });
$hd->backend(3, sub { return {raw => "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"} });
$hd->start;

# ---- proxy_socket_keepalive: connections of their own
is $hd->get('/plain')->body, 'ok', 'without TCP keep-alive';
is probed($hd->port(1)), 0, '... none is probed';
is $hd->get('/probed')->body, 'ok', 'with it';
cmp_ok probed($hd->port(1)), '>=', 1, '... its idle connection is probed';

# ---- proxy_pass_trailers
my $r = $hd->get('/trailers');
like $r->trailers, qr/^X-Sum: 42/mi, 'trailers are passed on';
$r = $hd->get('/trailers/off');
unlike $r->trailers // '', qr/X-Sum/i, 'proxy_pass_trailers off';
like $r->trailers, qr/^X-Up: 42/mi, '... $upstream_trailer_… tells of them all the same';
$r = $hd->get('/trailers/none');
is $r->trailers // '', '', '... and an end without any is whole';
is $r->body, 'ok', '... body and all';

# ---- early_hints
sub hinted {
    my ($uri, @fields) = @_;
    my $conn = $hd->connect(0);
    $conn->send("GET $uri HTTP/1.1\r\nHost: x\r\n" . join('', map { "$_\r\n" } @fields) . "\r\n");
    my $n = 0;
    my $r = $conn->response;
    while ($r->status == 103) { $n++; $r = $conn->response }
    is $r->body, 'ok', "$uri: the answer";
    return $n;
}
is hinted('/hints'), 1, '103 is passed on';
is hinted('/hints/if', 'Sec-Fetch-Mode: navigate'), 1, '... on condition';
is hinted('/hints/if', 'Sec-Fetch-Mode: cors'), 0, '... that is empty';
is hinted('/hints/if', 'Sec-Fetch-Mode: none'), 0, '... that is 0';
is hinted('/hints/two?a=0', 'Sec-Fetch-Mode: navigate'), 1, 'one of two is enough';

# ---- autoindex_format
$r = $hd->get('/list/xml/');
is $r->header('content-type'), 'text/xml; charset=utf-8', 'XML';
is $r->body, join("\r\n", '<?xml version="1.0"?>', '<list>', '<directory mtime="2023-11-14T22:13:20Z">sub &amp; co</directory>',
    '<file mtime="2023-11-14T22:13:20Z" size="3">a&lt;b&gt;.txt</file>', '<file mtime="2023-11-14T22:13:20Z" size="1">linked</file>',
    '<file mtime="2023-11-14T22:13:20Z" size="1">x.txt</file>', '</list>', ''), '... each entry, its name escaped';
$r = $hd->get('/list/jsonp/?callback=my.lists_0');
is $r->header('content-type'), 'application/javascript', 'JSONP';
like $r->body, qr{\A/\* callback \*/\r\nmy\.lists_0\(\[\r\n\{ "name":"sub & co", "type":"directory".*\]\);\z}s, '... a call of the function named';
for ('/list/jsonp/', '/list/jsonp/?callback=') {
    $r = $hd->get($_);
    is $r->header('content-type'), 'application/json', "$_: nobody named one";
    like $r->body, qr/\A\[/, '... JSON';
}
is $hd->get("/list/jsonp/?callback=$_")->status, 400, "callback=$_ is no name" for 'alert(1)', 'a%61', 'a<script', 'a[0]', "a\xc3\xa4", 'a-b';

# ---- disable_symlinks from=
my %want = ('/links/x.txt' => 200, '/slash/x.txt' => 200, '/links/linked' => 403, '/slash/linked' => 403, '/whole/x.txt' => 404,
    '/other/x.txt' => 404, '/half/x.txt' => 404, "/var/x.txt?from=$dir/link" => 200, "/var/linked?from=$dir/link" => 403,
    '/var/x.txt' => 404, "/var/linked?from=$dir/link/linked" => 200, "/var/x.txt?from=/" => 404);
is $hd->get($_)->status, $want{$_}, "$_: $want{$_}" for sort keys %want;

# ---- taken with a warning
my ($status, $text) = Heddle->new->conf(<<'EOC')->run('-t');
load_module modules/ngx_http_image_filter_module.so;
lock_file logs/nginx.lock;
timer_resolution 100ms;
thread_pool default threads=32 max_queue=65536;
debug_points stop;
events { worker_aio_requests 32; debug_connection 127.0.0.1; debug_connection 10.0.0.0/8; use epoll; }
http { aio threads; aio_write on; directio 4m; server { listen 127.0.0.1:%%PORT_0%%; location / { aio on; } location /off { aio off; directio off; } } }
EOC
is $status, 0, 'what tunes something that isn\'t here is taken' or diag $text;
like $text, qr/heddle.conf:\d+: \Q$_\E/, "... with a warning: $_"
    for '"modules/ngx_http_image_filter_module.so" is a module of nginx: not loaded', map({ "\"$_\" has no effect" } qw(lock_file timer_resolution
        thread_pool debug_points worker_aio_requests debug_connection)), '"aio threads" has no effect', '"aio_write on" has no effect',
    '"directio 4m" has no effect', '"aio on" has no effect';
unlike $text, qr/"(aio|directio) off"/, '... but for what is off';
my @warnings = $text =~ /"aio threads" has/g;
is scalar(@warnings), 1, '... once each';

# ---- what is wrong
for (['listen 127.0.0.1:1 fastopen=0;', 'invalid fastopen "0": 1 to 65535'], ['listen 127.0.0.1:1 fastopen=x;', 'invalid fastopen "x"'],
    ['location / { autoindex_format yaml; }', '"yaml"'], ['disable_symlinks on from=;', 'invalid parameter "from=": from=PART, behind on or if_not_owner'],
    ['disable_symlinks off from=/x;', 'invalid parameter "from=/x"'], ['disable_symlinks on to=/x;', 'invalid parameter "to=/x"'],
    ['disable_symlinks on from=$nobody;', 'unknown "nobody" variable'], ['early_hints $nobody;', 'unknown "nobody" variable'],
    ['proxy_socket_keepalive maybe;', '"maybe"'], ['proxy_pass_trailers maybe;', '"maybe"'], ['grpc_socket_keepalive maybe;', '"maybe"']) {
    my ($line, $why) = @$_;
    ($status, $text) = Heddle->new->conf("http { server { $line } }")->run('-t');
    like $text, qr/heddle.conf:\d+: .*\Q$why\E/, $line;
    isnt $status, 0, '... is an error';
}
done_testing;
