#!/usr/bin/perl
# A fast sender and a slow reader over HTTP/2, in each direction, with HTTP/2 or HTTP/1 upstream: what waits
# is bounded by windows and marks, and the slow stream never stalls the others of its connection.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;

my $MB = 1 << 20;
my $hd = Heddle->new(workers => 1)->conf(<<'EOC');
http {
    http2 on;
    access_log off;
    client_max_body_size 0;
    proxy_buffering off;
    proxy_request_buffering off;
    server { # to HTTP/1
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location /quick { proxy_pass http://127.0.0.1:%%PORT_9%%; }
    }
    server { # to HTTP/2: all of it over one connection
        listen 127.0.0.1:%%PORT_1%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_0%%; proxy_http_version 2; }
    }
}
EOC
# Sends 64 MB, or takes a head and nothing more.
$hd->tcp_backend(8, sub {
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread($sock, $head, 1, length $head) or return }
    if ($head =~ m{^GET }) {
        syswrite $sock, "HTTP/1.1 200 OK\r\nContent-Length: " . 64 * $MB . "\r\n\r\n";
        my $piece = 'x' x 65536;
        for (1 .. 1024) { (syswrite($sock, $piece) // 0) == 65536 or return }
        return;
    }
    # what comes is left where it is, until the connection is reset
    1 while select(undef, undef, undef, 0.1) == 0 && defined getpeername $sock;
});
$hd->backend(9, sub { {body => 'quick'} });
$hd->start;

my ($worker) = $hd->workers;
sub rss { open my $f, '<', "/proc/$worker/status"; return join('', <$f>) =~ /^VmRSS:\s+(\d+)/m ? $1 * 1024 : 0 }

# The others of the connection: each a round trip through all that the slow one passes.
sub others {
    my ($c, $next) = @_;
    my $good = 0;
    for (1 .. 20) {
        $c->request($$next, '/quick');
        my $r = $c->response($$next);
        $good++ if $r->{body} eq 'quick';
        $$next += 2;
    }
    return $good;
}

my $room = 12 * $MB * (Heddle::is_sanitized() ? 4 : 1); # 64 MB wait to be sent
for my $port (0, 1) {
    my $to = $port ? 'HTTP/2' : 'HTTP/1';
    my $c = Heddle::H2->new($hd->port($port));
    my $next = 1;
    is others($c, \$next), 20, "$to: warm";
    $c->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x7fff0000); # the connection has room
    my $before = rss();

    my @slow = map { $next + 2 * $_ } 0 .. 3; # nobody opens their windows
    $next += 8;
    $c->request($_, '/big') for @slow;
    while (length($c->{streams}{$slow[3]}{body} // '') < 65535) { $c->next or last }
    is others($c, \$next), 20, "$to: slow readers don't stall the others";
    cmp_ok rss() - $before, '<', $room, "$to: nor is what they don't read kept";
    $c->frame('RST_STREAM', 0, $_, pack 'N', 8) for @slow;

    my $up = $next;
    $next += 2;
    $c->request($up, '/sink', method => 'POST', end => 0);
    my ($window, $sent, $still) = (65535, 0, 0);
    my $piece = 'y' x 16384;
    while ($still < 3 && $sent < 64 * $MB) { # until nothing more is let in for three round trips
        while ($window >= 16384) {
            $c->frame('DATA', 0, $up, $piece);
            $sent += 16384;
            $window -= 16384;
        }
        $c->frame('PING', 0, 0, 'roundtri');
        my $opened = 0;
        $c->until(sub {
            $opened += unpack 'N', $_->{payload} if $_->{type} eq 'WINDOW_UPDATE' && $_->{id} == $up;
            return $_->{type} eq 'PING';
        });
        $window += $opened;
        $still = $opened ? 0 : $still + 1;
        $still && others($c, \$next);
    }
    cmp_ok $sent, '<', 16 * $MB, "$to: a server that doesn't read stops its client";
    is others($c, \$next), 20, "$to: but none of the others";
    cmp_ok rss() - $before, '<', $room, "$to: and what waits is bounded";
    $c->frame('RST_STREAM', 0, $up, pack 'N', 8);
    is others($c, \$next), 20, "$to: afterwards";
    $c->close;
}
done_testing;
