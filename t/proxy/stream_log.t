#!/usr/bin/perl
# stream's access_log and its variables (nginx: ngx_stream_log_module, ngx_stream_core_module,
# ngx_stream_upstream_module): a line a session, with what it was and how it ended.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(modules => ['access_log']);
$hd->conf(<<'EOC');
stream {
    log_format main '$remote_addr:$remote_port $protocol $status in=$bytes_received out=$bytes_sent up=$upstream_addr'
        ' upin=$upstream_bytes_received upout=$upstream_bytes_sent conn=$connection end';
    log_format times '$msec $session_time $upstream_connect_time $upstream_first_byte_time $upstream_session_time';
    log_format js escape=json '{"time":"$time_iso8601","flags":"$response_flags","cluster":"$upstream_cluster","sni":"$ssl_preread_server_name"}';
    access_log %%DIR%%/main.log main;
    proxy_half_close on;
    upstream pair { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_1%%; }
    upstream gone { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_8%%; }
    server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_2%%; proxy_pass pair; }
    server { listen 127.0.0.1:%%PORT_3%%; proxy_pass gone; access_log %%DIR%%/main.log main; access_log %%DIR%%/js.log js buffer=4k flush=100ms; }
    server { listen 127.0.0.1:%%PORT_4%%; proxy_pass 127.0.0.1:%%PORT_1%%; access_log off; }
    server { listen 127.0.0.1:%%PORT_5%%; proxy_pass 127.0.0.1:%%PORT_1%%; access_log %%DIR%%/times.log times if=$bytes_received; }
    server { listen 127.0.0.1:%%PORT_6%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_protocol on; proxy_timeout 100ms; }
    server { listen 127.0.0.1:%%PORT_7%%; proxy_pass 127.0.0.1:%%PORT_7%%; proxy_connect_timeout 5s; access_log off; }
}
EOC
$hd->tcp_backend(1, sub {
    my ($sock) = @_;
    my $n = 0;
    while (sysread $sock, my $bytes, 65536) { $n += length $bytes }
    syswrite $sock, "got $n\n";
});
$hd->start;

sub session {
    my ($n, $bytes) = @_;
    my $c = $hd->connect($n);
    my $from = $c->{sock}->sockhost . ':' . $c->{sock}->sockport;
    $c->send($bytes) if length $bytes;
    $c->shutdown_write;
    return ($c->read_all, $from);
}
sub line { # the next one of the file
    my ($file) = @_;
    our %seen;
    my $n = $seen{$file}++;
    return $hd->wait_for(sub { (split /\n/, -e $hd->dir . "/$file" ? $hd->file($file) : '')[$n] }, "line $n of $file");
}

my $up = '127.0.0.1:' . $hd->port(1);
my $down = '127.0.0.1:' . $hd->port(9);
my $down2 = '127.0.0.1:' . $hd->port(8);
my ($text, $from) = session(0, 'x' x 1000);
is $text, "got 1000\n", 'a session';
like line('main.log'), qr/^\Q$from\E TCP 200 in=1000 out=9 up=\Q$up\E upin=9 upout=1000 conn=\d+ end$/, 'and its line';

# The balancer begins with the first server, which is down.
($text, $from) = session(2, 'ab');
like line('main.log'), qr/^\Q$from\E TCP 200 in=2 out=6 up=\Q$down, $up\E upin=0, 6 upout=0, 2 conn=/, 'each try has its value';

($text, $from) = session(3, '');
is $text, '', 'no server can be reached';
like line('main.log'), qr/^\Q$from\E TCP 502 in=0 out=0 up=(?:\Q$down, $down2\E|\Q$down2, $down\E) upin=0, 0 /, 'none: 502';
like line('js.log'), qr/^\{"time":"\d{4}-.*T.*","flags":"UF,URX","cluster":"gone","sni":""\}$/, 'a second log, buffered, as JSON';

session(4, 'off');
session(5, '');      # 0 bytes: not logged
session(5, 'hello');
my $t = line('times.log');
like $t, qr/^\d+\.\d{3} \d+\.\d{3} \d+\.\d{3} \d+\.\d{3} \d+\.\d{3}$/, 'times';
my ($msec, $session, $connect, $first, $whole) = split / /, $t;
cmp_ok abs($msec - time), '<', 3600, 'wall clock';
cmp_ok $connect, '<=', $first, 'connected before the first byte';
cmp_ok $first, '<=', $whole, 'and that before the end';
cmp_ok $whole, '<=', $session, 'the upstream’s time within the session’s';
is $hd->file('times.log') =~ tr/\n//, 1, 'if=: only where it is true';

my $c = $hd->connect(6);
$c->send('idle');
$from = $c->{sock}->sockhost . ':' . $c->{sock}->sockport;
is $c->read_all, '', 'idle';
my $head = length "PROXY TCP4 127.0.0.1 127.0.0.1 ${\$c->{sock}->sockport} ${\$hd->port(6)}\r\n";
like line('main.log'), qr/^\Q$from\E TCP 200 in=4 out=0 up=\Q$up\E upin=0 upout=${\($head + 4)} /,
    'ended by proxy_timeout; what went upstream has the PROXY head in it, as in nginx';
is $hd->file('main.log') =~ tr/\n//, 4, 'access_log off: no line';

for (
    ['access_log logs/a.log;', qr/log format is not specified/],
    ['access_log logs/a.log combined;', qr/unknown log format "combined"/],
    ['log_format x $request;', qr/unknown "request" variable: it is of HTTP/],
    ['proxy_pass 127.0.0.1:1; proxy_upload_rate x;', qr/"?x"?/],
    ['proxy_protocol_version 3;', qr/proxy_protocol_version/],
) {
    my ($text, $why) = @$_;
    my $bad = Heddle->new(modules => ['access_log'])->conf("stream { $text server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:1; } }");
    my ($status, $out) = $bad->run('-t');
    ok $status != 0 && $out =~ $why, "refused: $text" or diag $out;
}
done_testing;
