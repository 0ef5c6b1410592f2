#!/usr/bin/perl
# add_header_inherit and add_trailer_inherit (nginx 1.29.3), and variables whose values can't be compared.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    add_header X-Http 1;
    add_trailer X-T http;
    map_hash_max_size 4k;
    map_hash_bucket_size 128;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        add_header X-Server 2;
        add_header_inherit merge;
        location /merge { add_header X-Loc 3; return 200 x; }
        location /deeper/ { add_header X-A 4; location /deeper/on { add_header_inherit on; add_header X-B 5; return 200 x; } }
        location /off { add_header_inherit off; add_trailer_inherit off; return 200 x; }
        location /none { return 200 x; }
        location /trailers { add_trailer X-U loc; add_trailer_inherit merge; return 200 x; }
        location /tcp { return 200 "$tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space"; }
        location /version { return 200 "$nginx_version $realip_remote_port"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% proxy_protocol;
        return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port";
    }
}
EOC
$hd->start;
sub own { my ($path) = @_; return join ' ', sort map { lc } $hd->get($path)->head =~ /^(X-\w+)/mg }
is own('/merge'), 'x-http x-loc x-server', 'merge: all of them';
is own('/deeper/on'), 'x-b', 'on: what is here takes the place';
is own('/off'), '', 'off: none';
is own('/none'), 'x-http x-server', 'nothing here: those around';
like $hd->get('/trailers')->trailers, qr/^X-T: http\r\nX-U: loc\r$/m, 'trailers, merged';
is $hd->get('/off')->header('content-length'), 1, 'without trailers the length is told';
like $hd->get('/tcp')->body, qr/^\d+ \d+ [1-9]\d* [1-9]\d*$/, '$tcpinfo_...';
my $c = $hd->connect(0);
my $port = $c->{sock}->sockport;
like $c->request('GET', '/version')->body, qr/^\d+\.\d+\.\d+ $port$/, '$nginx_version, $realip_remote_port';
like $hd->raw("PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r\nGET / HTTP/1.0\r\n\r\n", 1), qr/^1\.2\.3\.4 11 5\.6\.7\.8 22$/m,
    '$proxy_protocol_...';
done_testing;
