#!/usr/bin/perl
# Bytes both ways: WebSocket-like upgrades, bodies far larger than any buffer with a slow
# reader on either side, answers that come before the request has ended.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Digest::MD5 qw(md5_hex);
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    client_max_body_size 0;
    # the back end closes each connection: one that was kept would be closing under a POST
    upstream fresh { server 127.0.0.1:%%PORT_1%%; keepalive 0; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; proxy_request_buffering off; }
        location /ws { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1;
                       proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }
        location /both { proxy_pass http://fresh; proxy_http_version 1.1; proxy_request_buffering off; }
        location /early { proxy_pass http://fresh; proxy_http_version 1.1; proxy_request_buffering off; }
        location /plain { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
EOC
my $mb = 10;
my $block = join '', map { chr(97 + $_ % 23) } 1 .. 65536;
my $big = $block x ($mb * 16);
# Each connection speaks as its request's path says.
$hd->tcp_backend(1, sub {
    my ($sock, $n) = @_;
    my $in = Heddle::Http->adopt($sock);
    my $head = $in->read_until(qr/\r\n\r\n/) // return;
    my ($how) = $head =~ m{^\w+ /(\w+)};
    my ($len) = $head =~ /^Content-Length: (\d+)/mi;
    if ($how eq 'ws' && $head =~ /^Upgrade: (\w+)/mi) {
        print $sock "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: $1\r\n\r\nfirst;";
        while (defined(my $line = $in->read_until(qr/;/))) {
            print $sock "echo $line";
            last if $line eq 'bye;';
        }
        shutdown $sock, 1;
        $in->read_all;
    } elsif ($how eq 'download') {
        print $sock "HTTP/1.1 200 OK\r\nContent-Length: " . length($big) . "\r\n\r\n", $big;
    } elsif ($how eq 'upload') {
        my $body = $in->read_bytes($len);
        my $sum = md5_hex($body);
        print $sock "HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n$sum";
    } elsif ($how eq 'early') { # answers at once, reads nothing of the body
        print $sock "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno";
        $in->is_eof;
    } elsif ($how eq 'both') { # each chunk back as it comes
        print $sock "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        while (my $line = $in->read_until(qr/\r\n/)) {
            my $len = hex(($line =~ /^(\w+)/)[0]);
            print $sock $line, $in->read_bytes(2 + $len);
            last if $len == 0;
        }
    } else {
        print $sock "HTTP/1.1 200 OK\r\nContent-Length: " . length($head) . "\r\n\r\n$head";
    }
});
$hd->start;

# ---- Upgrade

my @upgrade = (Connection => 'Upgrade', Upgrade => 'websocket');
my $c = $hd->connect;
my $r = $c->request('GET', '/ws', @upgrade);
is $r->status . $r->header('upgrade'), '101websocket', 'upgraded';
is $c->read_until(qr/;/), 'first;', 'bytes that came with the 101';
for my $text ('one;', 'two;') {
    $c->send($text);
    is $c->read_until(qr/;/), "echo $text", 'both ways';
}
$c->send($block . ';');
is length($c->read_until(qr/;/)), 65536 + 6, 'more than a buffer';
$c->send('bye;');
is $c->read_until(qr/;/), 'echo bye;', 'the last words';
ok $c->is_eof, 'the upstream\'s end is passed on';
$c->close;
$c = $hd->connect;
$c->send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly;");
is $c->response->status, 101, 'bytes sent along with the request';
is $c->read_until(qr/early;/), 'first;echo early;', 'reach the new protocol';
$c->shutdown_write;
ok $c->is_eof, 'the client\'s end is passed on, too';
is $hd->get('/ws/not')->status, 200, 'without the fields it is an ordinary request';
$r = $hd->post('/ws/body', 'x', @upgrade);
unlike $r->body, qr/^upgrade/mi, 'a request with a body is not upgraded';
$r = $hd->get('/ws/c', Connection => 'upgrade, HTTP2-Settings', Upgrade => 'h2c', 'HTTP2-Settings' => 'AAMAAABk');
unlike $r->body, qr/h2c/i, 'never to h2c, which would be a way around every rule';

# ---- big bodies

$c = $hd->connect;
$c->send("GET /download HTTP/1.1\r\nHost: a\r\n\r\n");
$r = $c->response;
is md5_hex($r->body), md5_hex($big), "$mb MB down";
is $hd->post('/upload', $big)->body, md5_hex($big), "$mb MB up";

# a reader that waits: what is under way is bounded by windows, not by the body
sub rss_kb { my ($pid) = @_; open my $f, '<', "/proc/$pid/status"; return join('', <$f>) =~ /^VmRSS:\s+(\d+)/m ? $1 : 0 }
my ($worker) = $hd->workers;
my $before = rss_kb($worker);
my @slow = map { my $c = $hd->connect; $c->send("GET /download HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); $c } 1 .. 8;
$_->read_bytes(65536) for @slow;
$hd->get('/plain') for 1 .. 20;
cmp_ok rss_kb($worker) - $before, '<', 8 * 1024 * (Heddle::is_sanitized() ? 4 : 1),
    'eight that hardly read cost less than a tenth of what they asked for';
my $all = 0;
for my $c (@slow) {
    $c->read_all;
    $all++ if $c->{total} >= length($big);
}
is $all, 8, 'and get it all in the end, though the connection is to be closed';

# ---- early answers

$c = $hd->connect;
$c->send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" . $block);
is $c->response->body, 'no', 'an answer before the request has ended';
$c->send($block) for 1 .. 4;
ok $c->is_eof, 'ends the connection: the rest is not wanted';
$c = $hd->connect;
$c->send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" . 'x' x 10);
is $c->response->body, 'no', 'a short rest';
$c->send('x' x 990 . "GET /ws/after HTTP/1.1\r\nHost: a\r\n\r\n");
is $c->response->status, 200, 'is read and dropped, and the connection goes on';
$c = $hd->connect;
$c->send("POST /both HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
is $c->response_head->{status}, 200, 'an answer that begins before the body';
for my $i (1 .. 3) {
    $c->send("4\r\npin$i\r\n");
    is $c->read_until(qr/\r\n.*\r\n/), "4\r\npin$i\r\n", "chunk $i there and back";
}
$c->send("0\r\n\r\n");
is $c->read_until(qr/\r\n\r\n/), "0\r\n\r\n", 'the end';
is $c->request('GET', '/plain')->status, 200, 'and the connection goes on';

done_testing;
