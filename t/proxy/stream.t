#!/usr/bin/perl
# stream {}: TCP passed both ways (nginx: ngx_stream_proxy_module): half-close, large streams, the
# next server, PROXY protocol, TLS on either side, limits of time.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.example', dns => 'a.example');

$hd->conf(<<"EOC");
stream {
    upstream pair { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_1%%; }
    upstream busy { server 127.0.0.1:%%PORT_1%% max_conns=1; }
    proxy_connect_timeout 5s;
    proxy_half_close on;
    server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_2%%; proxy_pass pair; }
    server { listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_protocol on; }
    server { listen 127.0.0.1:%%PORT_4%% ssl; proxy_pass 127.0.0.1:%%PORT_1%%; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; }
    server { listen 127.0.0.1:%%PORT_5%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_timeout 200ms; }
    server { listen 127.0.0.1:%%PORT_6%%; proxy_pass 127.0.0.1:%%PORT_9%%; }
    server { listen 127.0.0.1:%%PORT_7%%; proxy_pass 127.0.0.1:%%PORT_4%%; proxy_ssl on; proxy_ssl_verify on; proxy_ssl_name a.example; proxy_ssl_trusted_certificate $ca->{cert}; }
    server { listen 127.0.0.1:%%PORT_8%% proxy_protocol; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_protocol on; }
    server { listen 127.0.0.1:%%PORT_10%%; proxy_pass 127.0.0.1:%%PORT_4%%; proxy_ssl on; proxy_ssl_verify on; proxy_ssl_name b.example; proxy_ssl_trusted_certificate $ca->{cert}; }
    server { listen unix:%%DIR%%/sock; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_11%%; proxy_pass unix:%%DIR%%/sock; }
}
EOC
# Says how many bytes it got, and the first line, once the client's half has ended.
$hd->tcp_backend(1, sub {
    my ($sock) = @_;
    my ($n, $first) = (0, '');
    while (sysread $sock, my $bytes, 65536) {
        $first .= $bytes if $n < 200;
        $n += length $bytes;
    }
    my ($line) = $first =~ /^(.*?)\r?\n/;
    syswrite $sock, "$n <" . ($line // '') . ">\n";
});
$hd->start;

sub ask {
    my ($n, $bytes, %opt) = @_;
    my $c = $hd->connect($n, %opt);
    $c->send($bytes);
    $c->shutdown_write;
    return $c->read_all;
}

is ask(0, "hello\n"), "6 <hello>\n", 'both ways, each with its own end';
is ask(0, ''), "0 <>\n", 'nothing but an end';
my $large = "x" x (8 << 20);
is ask(0, $large), length($large) . " <>\n", '8 MB';
is ask(2, "a\n"), "2 <a>\n", 'a server that is down: the next one' for 1 .. 3;
is ask(6, "a\n"), '', 'none left: closed';

my $c = $hd->connect(3);
my ($addr, $port) = ($c->{sock}->sockhost, $c->{sock}->sockport);
$c->send("x\n");
$c->shutdown_write;
like $c->read_all, qr/^\d+ <PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 $port ${\$hd->port(3)}>$/,
    'the upstream is told of the client';
like ask(8, "PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\nx\n"), qr/<PROXY TCP4 192\.0\.2\.1 192\.0\.2\.2 1111 2222>/,
    'what was told to us is passed on';
is ask(8, "no such line\n"), '', 'who has to tell and does not is closed';

is ask(7, "secret\n"), "7 <secret>\n", 'TLS to the upstream, which has TLS, too';
is ask(10, "secret\n"), '', 'an upstream of another name is not spoken to';
my $over_tls = $hd->connect(4, tls => {ca => $ca->{cert}});
$over_tls->send("tls\n");
my $quitting = $hd->connect(0);
$quitting->send("still ");

my $idle = $hd->connect(5);
$idle->send("one");
is $idle->read_all, '', 'nothing said for proxy_timeout: closed';
is ask(11, "unix\n"), "5 <unix>\n", 'unix sockets on both sides';

# Sessions outlive a graceful end of the program.
$hd->expect_exit(0);
$hd->signal('QUIT');
$hd->wait_log(qr/gracefully shutting down/, 2);
$quitting->send("here\n");
$quitting->shutdown_write;
is $quitting->read_all, "11 <still here>\n", 'QUIT waits for what is open';
$over_tls->close;
$hd->wait_for(sub { !$hd->workers }, 'the worker to end');
pass 'and ends with the last one';
done_testing;
