#!/usr/bin/perl
# stream's proxy_* words (nginx: ngx_stream_proxy_module): whose end ends what, rates, where
# connections come from, the PROXY protocol's versions and time, limits on trying.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Time::HiRes qw(time);
use Heddle;

my $hd = Heddle->new;
$hd->conf(<<'EOC');
stream {
    upstream downs { server 127.0.0.1:%%PORT_90%%; server 127.0.0.1:%%PORT_91%%; server 127.0.0.1:%%PORT_92%%; }
    server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_half_close on; }
    server { listen 127.0.0.1:%%PORT_4%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_half_close on; proxy_download_rate 1000; }
    server { listen 127.0.0.1:%%PORT_5%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_half_close on; proxy_upload_rate 1k; }
    server { listen 127.0.0.1:%%PORT_6%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_half_close on; proxy_protocol on; proxy_protocol_version 2; }
    server { listen 127.0.0.1:%%PORT_7%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_half_close on; proxy_bind 127.0.0.7; proxy_socket_keepalive on; tcp_nodelay off; }
    server { listen 127.0.0.1:%%PORT_8%% proxy_protocol; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_protocol_timeout 200ms; }
    server { listen 127.0.0.1:%%PORT_9%%; proxy_pass downs; proxy_half_close on; proxy_next_upstream_tries 2; proxy_next_upstream_timeout 1m; }
    server { listen 127.0.0.1:%%PORT_10%%; proxy_pass 127.0.0.1:%%PORT_11%%; }
}
EOC
# Says where from, how many bytes, and when the first and last came; in hex what came first.
$hd->tcp_backend(1, sub {
    my ($sock) = @_;
    my ($n, $first, $t0) = (0, '');
    while (sysread $sock, my $bytes, 65536) {
        $t0 //= time;
        $first .= $bytes if $n < 100;
        $n += length $bytes;
    }
    my $answer = sprintf "%s %d %.2f %s\n", $sock->peerhost, $n, time - ($t0 // time), unpack 'H*', substr $first, 0, 40;
    syswrite $sock, $first =~ /want (\d+)/ ? 'x' x $1 : $answer;
});
$hd->tcp_backend(11, sub { # talks first, and ends first
    my ($sock) = @_;
    syswrite $sock, 'y' x 300000;
});
$hd->start;

sub ask {
    my ($n, $bytes) = @_;
    my $c = $hd->connect($n);
    $c->send($bytes);
    $c->shutdown_write;
    return ($c->read_all, $c->{sock}->sockport);
}

is +(ask(0, 'hello'))[0], '', 'off: the client’s end is the session’s, as in nginx';
like +(ask(3, 'hello'))[0], qr/^127\.0\.0\.1 5 /, 'on: the answer still comes';
my $from_server = $hd->connect(10)->read_all;
is length $from_server, 300000, 'off: the server’s end comes behind all of its bytes';

my $t = time;
is length +(ask(4, 'want 1500'))[0], 1500, 'proxy_download_rate: all comes';
cmp_ok time - $t, '>', 0.5, 'but what is beyond the first second’s share waits for the next';
my ($told) = ask(5, 'x' x 1500);
like $told, qr/^127\.0\.0\.1 1500 /, 'proxy_upload_rate: all goes';
cmp_ok +(split / /, $told)[2], '>', 0.3, 'in two parts';

my ($v2, $port) = ask(6, 'hi');
like $v2, qr/^127\.0\.0\.1 30 \S+ 0d0a0d0a000d0a515549540a2111000c7f0000017f000001${\unpack 'H*', pack 'nn', $port, $hd->port(6)}6869$/,
    'PROXY protocol, version 2 (proxy-protocol.txt §2.2)';
like +(ask(7, 'hi'))[0], qr/^127\.0\.0\.7 2 /, 'proxy_bind';
is $hd->connect(8)->read_all, '', 'proxy_protocol_timeout: closed without the head';
is +(ask(9, 'hi'))[0], '', 'no server is there';
$hd->wait_log(qr/connect.* failed.*, client: /); # behind the last try
is scalar(() = $hd->log =~ /while connecting to upstream/g), 2, 'proxy_next_upstream_tries: two of three were asked';
done_testing;
