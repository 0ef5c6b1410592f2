#!/usr/bin/perl
# The directives of HTTP/2 towards clients, by the frames they make.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
http {
    http2 on;
    http2_recv_buffer_size 128k;
    http2_glitches 5000;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2_max_concurrent_streams 3;
        http2_body_preread_size 10k;
        location / { return 200 "0123456789abcdefghij"; }
        location /cut { http2_chunk_size 7; return 200 "0123456789abcdefghij"; }
        location /scheme { return 200 $scheme; }
        location /post { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_request_buffering off; }
    }
    server { listen 127.0.0.1:%%PORT_2%%; keepalive_requests 2; location / { return 200 ok; } }
    server { listen 127.0.0.1:%%PORT_3%%; keepalive_timeout 300ms; location / { return 200 ok; } }
}
EOC
$hd->backend(1, sub { {body => "ok"} });
$hd->start;

# SETTINGS as {id => value} of a connection.
sub settings {
    my ($c) = @_;
    my $f = $c->until(sub { $_->{type} eq 'SETTINGS' && !($_->{flags} & 1) });
    return {unpack '(nN)*', $f->{payload}};
}

my $c = Heddle::H2->new($hd->port(0));
my $s = settings($c);
is $s->{3}, 3, 'http2_max_concurrent_streams';
is $s->{4}, 10240, 'http2_body_preread_size';

$c->request(1, '/');
is $c->response(1)->{frames}, 1, 'a body in one frame';
$c->request(3, '/cut');
my $r = $c->response(3);
is $r->{body}, '0123456789abcdefghij', 'http2_chunk_size: all of it';
cmp_ok $r->{frames}, '>=', 3, 'in frames of at most 7 bytes';

my $plain = Heddle::H2->new($hd->port(0));
$plain->request(1, '/scheme', scheme => 'https');
is $plain->response(1)->{body}, 'http', '$scheme is the connection\'s, not what :scheme says';

$c->request(5, '/post', method => 'POST', end => 0);
my ($left, $sent) = (10240, 0);
while ($sent < 100_000) { # as the window opens
    if ($left == 0) {
        my $f = $c->until(sub { $_->{type} eq 'WINDOW_UPDATE' && $_->{id} == 5 }) or last;
        $left += unpack 'N', $f->{payload};
    }
    my $n = $left < 16000 ? $left : 16000;
    $n = 100_000 - $sent if $sent + $n > 100_000;
    $sent += $n;
    $left -= $n;
    $c->frame('DATA', $sent == 100_000 ? 1 : 0, 5, 'x' x $n);
}
is $c->response(5)->{status}, 200, 'more than the window is let in as it is taken';
is length(($hd->requests(1))[-1]{body}), 100_000, 'and arrives';

# ---- the end of a connection, in two steps (RFC 9113 §6.8)

sub last_goaway { ($_[0]{goaways} || [])->[-1] || {last => -1, error => ''} }

# From the first GOAWAY to the end: what has begun before its PING is answered is served.
sub check_end {
    my ($c, $next_id, $name) = @_;
    my $ping = $c->until(sub { $_->{type} eq 'PING' });
    is_deeply last_goaway($c), {last => 0x7fffffff, error => 'NO_ERROR'}, "$name: first step: nothing new, please";
    $c->request($next_id, '/');
    $c->frame('PING', 1, 0, $ping->{payload});
    is $c->response($next_id)->{status}, 200, "$name: what was under way is served";
    1 while $c->next;
    is_deeply last_goaway($c), {last => $next_id, error => 'NO_ERROR'}, "$name: second step: this was the last";
}

my $worn = Heddle::H2->new($hd->port(2));
$worn->request($_, '/') for 1, 3;
check_end($worn, 5, 'keepalive_requests');
check_end(Heddle::H2->new($hd->port(3)), 1, 'keepalive_timeout');
my $open = Heddle::H2->new($hd->port(0));
$open->request(1, '/');
$open->response(1);
$hd->signal('QUIT');
check_end($open, 3, 'a worker that ends');

# ---- what is wrong

for my $row (
    ['http2_max_concurrent_streams 0;', qr/http2_max_concurrent_streams|"0"/],
    ['http2_chunk_size 20k;', qr/http2_chunk_size|20k/],
    ['http2_glitches 3;', qr/invalid number "3": 10 to/],
    ['http2_client_glitches x;', qr/invalid number "x"/],
) {
    my ($line, $why) = @$row;
    my $bad = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $line } }");
    my ($status, $text) = $bad->run('-t');
    ok $status != 0 && $text =~ /heddle.conf:\d+: / && $text =~ $why, "refused: $line" or diag $text;
}
# Heads beyond nine frames, both ways over HTTP/2: in and, with what fits no less, out.
{
    my $large = Heddle->new->conf(<<'EOC')->start;
http {
    http2 on;
    large_client_header_buffers 16 32k;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_http_version 2; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; location / { return 200 "$http_x1-$request_length"; } }
}
EOC
    my $c = Heddle::H2->new($large->port(0));
    $c->request(1, '/', fields => [map { ("x$_", "$_" x 30_000) } 1 .. 9]);
    my $r = $c->response(1);
    is $r->{status}, 200, 'a head of 270 KB';
    ok $r->{body} =~ /^1{30000}-(\d+)$/ && $1 > 9 * 16384, 'arrives behind a proxy, too, in more than nine frames';
}

for my $old ('http2_recv_timeout 10s', 'http2_idle_timeout 10s', 'http2_max_requests 10', 'http2_max_field_size 4k',
    'http2_max_header_size 4k') {
    my $warned = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $old; } }");
    my ($status, $text) = $warned->run('-t');
    ok $status == 0 && $text =~ /directive is obsolete, use the "\w+" directive instead/, "obsolete: $old" or diag $text;
}
done_testing;
