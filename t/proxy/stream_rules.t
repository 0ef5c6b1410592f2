#!/usr/bin/perl
# stream: variables that configuration makes (map, geo, split_clients, set), return, and who
# may: allow and deny, limit_conn, set_real_ip_from (nginx's modules of these names), each
# with its status in the log; for TCP and UDP.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Select;
use IO::Socket::IP;
use Heddle;

my $hd = Heddle->new(modules => ['access_log', 'access', 'limit_conn', 'realip']);
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.example', dns => 'a.example');
$hd->conf(<<"EOC");
stream {
    log_format main '\$server_port \$protocol \$status \$remote_addr \$bytes_sent';
    access_log %%DIR%%/log main;
    proxy_half_close on;
    map \$server_port \$by_port { %%PORT_0%% first; ~^(?<all>(\\d)\\d+)\$ "re-\$2-\$all"; }
    map \$ssl_preread_server_name \$where { hostnames; .a.example one; b.* two; default none; }
    geo \$kind { default other; 127.0.0.0/8 local; 192.0.2.0/24 doc; }
    geo \$server_addr \$at { 127.0.0.0/8 here; }
    split_clients "\$remote_addr" \$share { 100% all; }
    upstream one { server 127.0.0.1:%%PORT_1%%; }
    upstream two { server 127.0.0.1:%%PORT_2%%; }
    limit_conn_zone \$remote_addr zone=addr:1m;
    limit_conn_zone \$kind zone=kind:1m;
    set \$x "x-\$kind";
    set \$y "y-\$x";
    server { listen 127.0.0.1:%%PORT_0%%; return "\$by_port \$kind \$at \$share \$y \$protocol\\n"; }
    server { listen 127.0.0.1:%%PORT_3%%; set \$x "mine"; return "\$by_port \$x"; }
    server { listen 127.0.0.1:%%PORT_4%%; ssl_preread on; proxy_pass \$where; }
    server { listen 127.0.0.1:%%PORT_5%%; allow 127.0.0.2; deny all; return "may\\n"; }
    server { listen 127.0.0.1:%%PORT_6%%; limit_conn addr 1; proxy_pass one; }
    server { listen 127.0.0.1:%%PORT_7%% proxy_protocol; set_real_ip_from 127.0.0.2; deny 192.0.2.0/24; return "\$remote_addr \$proxy_protocol_addr \$kind\\n"; }
    server { listen 127.0.0.1:%%PORT_8%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; return "\$ssl_protocol \$ssl_server_name\\n"; }
    server { listen 127.0.0.1:%%PORT_9%%; limit_conn kind 1; limit_conn_dry_run on; limit_conn_log_level warn; proxy_pass one; }
    server { listen 127.0.0.1:%%PORT_u%% udp; return "\$by_port \$protocol \$kind"; }
    server { listen 127.0.0.1:%%PORT_v%% udp; deny 127.0.0.1; return "never"; }
}
EOC
for my $n (1, 2) {
    $hd->tcp_backend($n, sub { my ($sock) = @_; sysread $sock, my $in, 4096; syswrite $sock, "server $n\n"; sysread $sock, $in, 1 });
}
$hd->start;
sub logged {
    my ($n, $rest, $what) = @_;
    my $port = $hd->port($n);
    ok eval { $hd->wait_for(sub { $hd->file('log') =~ /^$port $rest$/m }, $what) }, $what or diag $hd->file('log');
}

is $hd->connect(0)->read_all, "first local here all y-x-local TCP\n", 'map, geo, split_clients, set, return';
logged(0, 'TCP 200 127\.0\.0\.1 35', 'and what was sent');
my $p3 = $hd->port(3);
is $hd->connect(3)->read_all, "re-" . substr($p3, 0, 1) . "-$p3 mine", 'groups of a regex; a server’s own set';
sub preread {
    my ($name) = @_;
    # ClientHellos end up with a server that speaks no TLS: its bytes are an alert's worth.
    my $c = $hd->connect(4);
    $c->send(hello($name));
    return $c->read_until(qr/\n/) // '';
}
sub hello { # RFC 8446 §4.1.2, with a name alone
    my ($name) = @_;
    my $sni = pack('n/a', pack('C n/a', 0, $name));
    my $ext = pack('n n/a', 0, $sni);
    my $body = pack('n a32 C n n C C', 0x0303, 'r' x 32, 0, 2, 0x1301, 1, 0) . pack('n/a', $ext);
    return pack 'C n n/a', 22, 0x0301, pack('C C n', 1, 0, length $body) . $body;
}
is preread('x.a.example'), "server 1\n", 'hostnames: *.a.example by the ClientHello';
is preread('b.test'), "server 2\n", 'b.*';
is preread('c.test'), '', 'default: no such upstream';
logged(4, 'TCP 500 127\.0\.0\.1 0', 'which is 500');

is $hd->connect(5)->read_all, '', 'denied';
logged(5, 'TCP 403 127\.0\.0\.1 0', 'status 403');
is $hd->connect(5, bind => '127.0.0.2')->read_all, "may\n", 'allowed';

my $first = $hd->connect(6);
$first->send("a");
is $first->read_until(qr/\n/), "server 1\n", 'the first connection';
is $hd->connect(6)->read_all, '', 'limit_conn: the second is one too many';
logged(6, 'TCP 503 127\.0\.0\.1 0', 'status 503');
$hd->wait_log(qr/limiting connections by zone "addr", client: 127\.0\.0\.1/);
$first->close;
$hd->wait_for(sub { my $c = $hd->connect(6); $c->send("a"); ($c->read_until(qr/\n/) // '') eq "server 1\n" }, 'its place to be free again');
pass 'and its place is free when it is closed';
my @two = map { my $c = $hd->connect(9); $c->send('a'); $c } 1, 2;
is $_->read_until(qr/\n/), "server 1\n", 'limit_conn_dry_run' for @two;
$hd->wait_log(qr/limiting connections, dry run, by zone "kind"/); # the key is a geo's variable
pass 'says so only';
$_->close for @two;

my $head = "PROXY TCP4 198.51.100.7 127.0.0.1 5000 80\r\n";
my $c = $hd->connect(7, bind => '127.0.0.2');
$c->send($head);
is $c->read_all, "198.51.100.7 198.51.100.7 other\n", 'a trusted proxy is believed';
$c = $hd->connect(7);
$c->send($head);
is $c->read_all, "127.0.0.1 198.51.100.7 local\n", 'another isn’t';
$c = $hd->connect(7, bind => '127.0.0.2');
$c->send($head =~ s/198\.51\.100/192.0.2/r);
is $c->read_all, '', 'rules mean that address';
logged(7, 'TCP 403 192\.0\.2\.7 0', 'and the log');
$c = $hd->connect(7);
$c->send("no head\r\n");
is $c->read_all, '', 'no PROXY head';
logged(7, 'TCP 400 127\.0\.0\.1 0', 'status 400');

my $tls = $hd->connect(8, tls => {sni => 'a.example', args => ['-tls1_3']});
is $tls->read_all, "TLSv1.3 a.example\n", 'over TLS';
$c = $hd->connect(8);
$c->send("no TLS\r\n");
$c->read_all;
logged(8, 'TCP 500 127\.0\.0\.1 0', 'a handshake that failed: 500');

my $udp = IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $hd->port('u'), Proto => 'udp') or die $@;
$udp->send('?');
$udp->recv(my $got, 1000);
like $got, qr/^re-\d-\d+ UDP local$/, 'UDP: return is one datagram';
logged('u', 'UDP 200 127\.0\.0\.1 \d+', 'a session of its own');
my $denied = IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $hd->port('v'), Proto => 'udp') or die $@;
$denied->send('?');
logged('v', 'UDP 403 127\.0\.0\.1 0', 'UDP: denied');

for (
    ['server { listen 127.0.0.1:1; return x; proxy_pass 127.0.0.1:1; }', qr/"proxy_pass" and "return" in one server/],
    ['map $request_uri $m { default x; } server { listen 127.0.0.1:1; return $m; }', qr/unknown "request_uri" variable: it is of HTTP/],
    ['server { listen 127.0.0.1:1; set x y; return x; }', qr/invalid variable name "x"/],
    ['server { listen 127.0.0.1:1; set $remote_addr y; return x; }', qr/it is built in/],
    ['server { listen 127.0.0.1:1; limit_conn none 1; return x; }', qr/there is no limit_conn_zone "none"/],
) {
    my ($text, $why) = @$_;
    my $bad = Heddle->new(modules => ['limit_conn'])->conf("stream { $text }");
    my ($status, $out) = $bad->run('-t');
    ok $status != 0 && $out =~ $why, "refused: $text" or diag $out;
}
done_testing;
