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
        location /post { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_request_buffering off; }
    }
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
for my $old ('http2_recv_timeout 10s', 'http2_idle_timeout 10s', 'http2_max_requests 10', 'http2_max_field_size 4k',
    'http2_max_header_size 4k') {
    my $warned = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $old; } }");
    my ($status, $text) = $warned->run('-t');
    ok $status == 0 && $text =~ /directive is obsolete, use the "\w+" directive instead/, "obsolete: $old" or diag $text;
}
done_testing;
