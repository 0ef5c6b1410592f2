#!/usr/bin/perl
# error_log at each level (nginx: core and ngx_http_core_module): an inner one replaces the outer ones for what
# happens in its place; several of one block; levels; stderr; syslog; reopening and reloading.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket qw(SOCK_DGRAM);
use Heddle;

my $udp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') // die $@;
my $stream = 1;
my $hd = Heddle->new(log_level => 'info');
$stream = 0 if !$hd->is_heddle && !-e '/usr/lib/nginx/modules/ngx_stream_module.so';
my $unix = IO::Socket::UNIX->new(Local => $hd->dir . '/syslog.sock', Type => SOCK_DGRAM) // die $!;
chmod 0777, $hd->dir . '/syslog.sock';
my $load = $hd->is_heddle || !$stream ? '' : "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n";
my $stream_block = $stream ? <<'EOC' : '';
stream {
    error_log %%DIR%%/stream.log;
    server { listen 127.0.0.1:%%PORT_2%%; proxy_pass 127.0.0.1:%%PORT_9%%; }
    server { listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%PORT_9%%; error_log %%DIR%%/stream3.log; }
}
EOC

sub conf_text {
    my ($of_server) = @_;
    return <<"EOC" . $stream_block;
${load}error_log %%DIR%%/error.log info;
error_log %%DIR%%/main2.log notice;
error_log syslog:server=unix:%%DIR%%/syslog.sock,facility=local0,tag=main_tag notice;
events {}
http {
    error_log %%DIR%%/http.log;
    error_log %%DIR%%/http-info.log info;
    access_log off;
    proxy_next_upstream off;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name shop.example;
        root %%DIR%%/www;
        location /http/ { }
        location /location/ { error_log %%DIR%%/location.log; }
        location /crit/ { error_log %%DIR%%/crit.log crit; }
        location /stderr/ { error_log stderr; }
        location /syslog/ { error_log syslog:server=127.0.0.1:@{[$udp->sockport]},facility=user,tag=shop,nohostname info; }
        location /rewrite/ { error_log %%DIR%%/rewrite.log notice; rewrite_log on; rewrite ^/rewrite/x /rewrite/y; return 204; }
        location /outer/ { error_log %%DIR%%/outer.log; location /outer/inner/ { } }
        location /refused { error_log %%DIR%%/refused.log; proxy_pass http://127.0.0.1:%%PORT_9%%; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; $of_server root %%DIR%%/www; }
}
EOC
}
$hd->conf(conf_text('error_log %%DIR%%/server.log;'));
mkdir $hd->dir . '/www' or die $!;
$hd->start;

sub wait_line {
    my ($file, $what) = @_;
    return $hd->wait_for(sub { $hd->file($file) =~ $what }, "$what in $file");
}
sub datagram {
    my ($socket, $what) = @_;
    while (IO::Select->new($socket)->can_read(Heddle::deadline_s())) {
        $socket->recv(my $text, 65536) // die $!;
        return $text if $text =~ $what;
    }
    return '(none)';
}

# ---- places

my $failed = sub { my ($uri, $server) = @_;
    qr{\[error\] \d+#\d+: \*\d+ open\(\) "[^"]*\Q$uri\E" failed \(2: No such file or directory\), client: 127\.0\.0\.1, server: \Q$server\E, request: "GET \Q$uri\E HTTP/1\.1", host: "[^"]+"} };
$hd->get('/http/a');
wait_line('http.log', $failed->('/http/a', 'shop.example'));
wait_line('http-info.log', $failed->('/http/a', 'shop.example'));
pass 'two of one level: both are written, in the same form';
$hd->get('/location/a');
wait_line('location.log', $failed->('/location/a', 'shop.example'));
$hd->get('/a', {port => 1});
wait_line('server.log', $failed->('/a', ''));
$hd->get('/outer/inner/a');
wait_line('outer.log', $failed->('/outer/inner/a', 'shop.example'));
pass 'of a server, of a location, of the location around';
unlike $hd->file('http.log') . $hd->file('http-info.log') . $hd->log . $hd->file('main2.log'),
    qr{/location/a|GET /a |/outer/inner/a}, 'an inner one replaces the outer ones';

$hd->get('/refused');
wait_line('refused.log', qr{\[error\] .*connect\(\) .*failed \(111: Connection refused\) while connecting to upstream, client: 127\.0\.0\.1, server: shop\.example, request: "GET /refused HTTP/1\.1", upstream: "http://127\.0\.0\.1:\d+/refused", host: "});
pass 'an upstream that refuses';

# ---- levels

$hd->get('/crit/a');
$hd->get('/rewrite/x');
wait_line('rewrite.log', qr{\[notice\] .*"\^/rewrite/x" matches "/rewrite/x", client: 127\.0\.0\.1, server: shop\.example, request: "GET /rewrite/x HTTP/1\.1"});
is $hd->file('crit.log'), '', 'what is below the level is not written';
my $c = $hd->connect(0);
$c->send("GET /refused HTTP/1.1\r\n\x01\r\n\r\n");
$c->read_all;
wait_line('http-info.log', qr{\[info\] .*client: 127\.0\.0\.1, server: shop\.example});
unlike $hd->file('http.log'), qr/\[info\]/, 'two of one level, each by its own level';

# ---- stderr and syslog

$hd->get('/stderr/a');
$hd->wait_for(sub { $hd->file('output') =~ $failed->('/stderr/a', 'shop.example') || $hd->log =~ m{/stderr/a} }, 'a line on stderr');
$hd->get('/syslog/a');
my $text = datagram($udp, qr{/syslog/a});
like $text, qr{^<11>\w{3} [ \d]\d \d\d:\d\d:\d\d shop: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] \d+#\d+: \*\d+ open\(\) "},
    'syslog: facility user, severity of the line, no host name';
like $text, qr{host: "[^"]+"(, flags.*)?\z}, 'and no line end';
my $me = datagram($unix, qr/./);
like $me, qr{^<133>\w{3} [ \d]\d \d\d:\d\d:\d\d \S* main_tag: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[notice\] }, 'the main one, over a unix socket, with a host name';

# ---- stream

if ($stream) {
    for my $n (2, 3) {
        my $s = $hd->connect($n);
        $s->read_all;
    }
    wait_line('stream.log', qr{\[error\] .*connect\(\) .*failed.*Connection refused.* while connecting to upstream});
    wait_line('stream3.log', qr{\[error\] .*connect\(\) .*failed.*Connection refused.* while connecting to upstream});
    is scalar(() = $hd->file('stream.log') =~ /while connecting/g), 1, 'stream: a server with one of its own';
}

# ---- other files

rename $hd->dir . "/$_", $hd->dir . "/$_.old" for 'location.log', 'main2.log';
$hd->signal('USR1');
$hd->wait_for(sub { -e $hd->dir . "/location.log" && -e $hd->dir . '/main2.log' }, 'new files');
$hd->wait_for(sub { $hd->get('/location/again'); $hd->file('location.log') =~ m{/location/again} }, 'a line in the new one');
pass 'USR1 opens all of them anew';
$hd->conf(conf_text('error_log %%DIR%%/other.log;'));
ok $hd->reload, 'a reload';
wait_line('main2.log', qr/\[notice\]/);
$hd->wait_for(sub { $hd->get('/b', {port => 1}); $hd->file('other.log') =~ m{/b" failed} }, 'a line in the file that the reload named');
$hd->conf(conf_text(''));
ok $hd->reload, 'another';
$hd->wait_for(sub { $hd->get('/c', {port => 1}); $hd->file('http.log') =~ m{/c" failed} }, 'a line in the outer one');
unlike $hd->file('other.log'), qr{/c" failed}, 'not in the one that is gone';
close $udp;
$hd->get('/syslog/b') for 1 .. 3;
is $hd->get('/rewrite/')->status, 204, 'a syslog server that is gone harms nobody';
$hd->stop;
done_testing;
