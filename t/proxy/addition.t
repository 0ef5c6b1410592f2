#!/usr/bin/perl
# add_before_body, add_after_body: what is added comes as it is read, whatever its length; what breaks off breaks the
# answer off; who leaves takes the subrequests along. (t/interop/nginx/36-addition has what nginx does with them.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $MB = 1 << 20;
my $hd = Heddle->new(workers => 1)->conf(<<'EOC');
http {
    access_log off;
    proxy_buffering off;
    types { text/html html; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        root %%DIR%%;
        location / { add_before_body /head; add_after_body /foot; }
        location /proxied { add_before_body /head; add_after_body /foot; addition_types *; proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /cut { root %%DIR%%; add_after_body /broken; }
        location /slow { add_before_body /never; }
        location /gzip/ { alias %%DIR%%/; gzip on; add_before_body /head; }
        location /limited/ { alias %%DIR%%/; add_before_body /middle; limit_rate 500k; limit_rate_after 200k; }
        location = /head { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location = /foot { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location = /middle { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location = /broken { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location = /never { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location /quick { return 200 quick; }
    }
    server { listen 127.0.0.1:%%PORT_1%% http2; root %%DIR%%; location / { add_before_body /head; add_after_body /foot; }
        location /quick { return 200 quick; }
        location = /head { proxy_pass http://127.0.0.1:%%PORT_8%%; } location = /foot { proxy_pass http://127.0.0.1:%%PORT_8%%; } }
}
EOC
my %letter = ('/head' => 'h', '/foot' => 'f', '/middle' => 'm', '/broken' => 'b');
my %length = ('/head' => 24 * $MB, '/foot' => 3 * $MB, '/middle' => $MB / 2, '/broken' => 1000);
$hd->tcp_backend(8, sub {
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread($sock, $head, 1, length $head) or return }
    my ($uri) = $head =~ /^GET (\S+)/;
    if ($uri eq '/never') {
        open my $told, '>', $hd->dir . '/asked';
        sysread $sock, $head, 1; # until it is let go of
        open $told, '>', $hd->dir . '/left';
        return;
    }
    my $n = $length{$uri};
    my $said = $uri eq '/broken' ? $n + 1 : $n;
    syswrite $sock, "HTTP/1.0 200 OK\r\nContent-Length: $said\r\n\r\n";
    while ($n > 0) {
        my $piece = $n > 65536 ? 65536 : $n;
        (syswrite($sock, $letter{$uri} x $piece) // 0) == $piece or return;
        $n -= $piece;
    }
});
$hd->backend(9, sub { {raw => "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npro\r\n4\r\nxied\r\n0\r\n\r\n"} });
my $page = 'p' x (2 * $MB);
$hd->write("$_.html", $page) for 'page', 'cut', 'slow';
$hd->start;

# Long bodies one after another, without a byte of one lost or out of its place.
sub is_whole {
    my ($body, $middle, $name) = @_;
    is length $body, $length{'/head'} + length($middle) + $length{'/foot'}, "$name: all of it";
    is(($body =~ s/^h+//r) =~ s/f+$//r, $middle, "$name: in its order");
}
is_whole($hd->get('/page.html')->body, $page, 'a file');
is_whole($hd->get('/proxied')->body, 'proxied', 'chunks');
is length $hd->get('/limited/page.html')->body, $length{'/middle'} + length $page, 'as fast as limit_rate lets it';
my $h2 = Heddle::H2->new($hd->port(1));
$h2->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x7fff0000);
$h2->request(1, '/page.html');
$h2->frame('WINDOW_UPDATE', 0, 1, pack 'N', 0x7fff0000);
is_whole($h2->response(1)->{body}, $page, 'HTTP/2');

# What a client doesn't read isn't read for it either.
{
    my ($worker) = $hd->workers;
    my $rss = sub { open my $f, '<', "/proc/$worker/status"; return join('', <$f>) =~ /^VmRSS:\s+(\d+)/m ? $1 * 1024 : 0 };
    $hd->get('/quick') for 1 .. 5;
    my $before = $rss->();
    my $c = $hd->connect(0);
    $c->send("GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n");
    $c->read_bytes(1000);
    is_whole($hd->get('/proxied')->body, 'proxied', 'another one beside it');
    cmp_ok $rss->() - $before, '<', 8 * $MB * (Heddle::is_sanitized() ? 3 : 1), 'a client that stops: little is kept for it';
}

my $cut = $hd->get('/cut.html');
is $cut->status, 200, 'one that breaks off: the head was out';
ok $cut->is_cut, '... and the body is seen to be cut';
{
    my $c = $hd->connect(0);
    $c->send("GET /slow.html HTTP/1.1\r\nHost: a\r\n\r\n");
    $hd->wait_for(sub { -e $hd->dir . '/asked' }, 'the subrequest');
    $c->reset;
    ok $hd->wait_for(sub { -e $hd->dir . '/left' }, 'its end'), 'who leaves takes the subrequest along';
}
is $hd->get('/quick')->body, 'quick', 'and the worker serves';

for (['add_before_body;', qr/arguments/], ['add_before_body /a; add_before_body /b;', qr/duplicate/], ['addition_types;', qr/arguments/]) {
    my ($line, $want) = @$_;
    my ($status, $text) = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $line } }")->run('-t');
    like $text, $want, $line;
}
done_testing;
