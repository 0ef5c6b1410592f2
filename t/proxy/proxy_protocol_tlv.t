#!/usr/bin/perl
# $proxy_protocol_tlv_NAME (nginx: ngx_http_core_module, ngx_stream_core_module; HAProxy's proxy-protocol.txt §2.2):
# what a balancer tells of the client beside its addresses, in http and in stream.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my @names = qw(alpn authority unique_id ssl netns ssl_version ssl_cn ssl_cipher ssl_sig_alg ssl_key_alg ssl_verify
    0x01 0xEA 0xea 0x5 nothing 0x 0x123 0xzz ssl_nothing ssl_);
my $values = join '|', map { "\${proxy_protocol_tlv_$_}" } @names;
my $hd = Heddle->new->conf(<<"EOC");
http { server { listen 127.0.0.1:%%PORT_0%% proxy_protocol; return 200 "$values"; } }
stream {
    server { listen 127.0.0.1:%%PORT_1%% proxy_protocol; return "$values"; }
    map \$proxy_protocol_tlv_authority \$to { books.example one; default other; }
    server { listen 127.0.0.1:%%PORT_2%% proxy_protocol; return \$to; }
}
EOC
$hd->start;

sub tlv { my ($type, $value) = @_; return pack 'Cn/a*', $type, $value }
sub head { return "\r\n\r\n\0\r\nQUIT\n" . pack('CCn/a*', 0x21, 0x11, pack('C4C4nn', 192, 0, 2, 1, 192, 0, 2, 2, 1000, 443) . join '', @_) }
sub ask {
    my (@tlvs) = @_;
    my ($http) = $hd->raw(head(@tlvs) . "GET / HTTP/1.0\r\n\r\n", 0) =~ /\r\n\r\n(.*)/s;
    my $stream = $hd->raw(head(@tlvs), 1);
    is $stream, $http, 'stream says the same';
    my %got;
    @got{@names} = split /\|/, $http // '', -1;
    return {map { $_ => $got{$_} } grep { defined $got{$_} && $got{$_} ne '' } @names};
}
is_deeply ask(), {}, 'a head without any';
my $ssl = pack('CN', 7, 0) . tlv(0x21, 'TLSv1.3') . tlv(0x22, 'client.example') . tlv(0x23, 'TLS_AES_128_GCM_SHA256') . tlv(0x24, 'SHA256') . tlv(0x25, 'RSA2048');
is_deeply ask(tlv(1, 'h2'), tlv(2, 'books.example'), tlv(5, 'id-1'), tlv(0x20, $ssl), tlv(0x30, 'blue'), tlv(0xea, 'private')), {
    alpn => 'h2', '0x01' => 'h2', authority => 'books.example', unique_id => 'id-1', '0x5' => 'id-1', ssl => $ssl, netns => 'blue', '0xEA' => 'private', '0xea' => 'private',
    ssl_version => 'TLSv1.3', ssl_cn => 'client.example', ssl_cipher => 'TLS_AES_128_GCM_SHA256', ssl_sig_alg => 'SHA256', ssl_key_alg => 'RSA2048', ssl_verify => 0,
}, 'all of them';
is_deeply ask(tlv(2, 'first'), tlv(2, 'second')), {authority => 'first'}, 'the first of two';
is_deeply ask(tlv(0x20, pack 'CN', 1, 19)), {ssl => pack('CN', 1, 19), ssl_verify => 19}, 'a client whose certificate is not good';
is_deeply ask(tlv(0x20, 'abcd')), {ssl => 'abcd'}, 'one that is too short tells nothing more';
is_deeply ask(tlv(0x20, pack('CN', 1, 0) . "\x21\xff\xffx")), {ssl => pack('CN', 1, 0) . "\x21\xff\xffx", ssl_verify => 0}, 'nor does one that is broken inside';
is $hd->raw(head(tlv(2, 'books.example')), 2), 'one', 'a map over one';
is $hd->raw(head(), 2), 'other', '... or without it';
is $hd->raw("PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n", 2), 'other', 'version 1 has none';
done_testing;
