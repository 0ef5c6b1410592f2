#!/usr/bin/perl
# What clients offer, in their order: $ssl_ciphers, $ssl_curves, $ssl_sigalgs (RFC 8446 §4.2.3).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $site = $hd->make_ca('root')->make_cert('site', dns => 'site.test');
$hd->conf(<<"EOC")->start;
http {
    access_log off;
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        ssl_certificate $site->{cert};
        ssl_certificate_key $site->{key};
        return 200 "\$ssl_ciphers \$ssl_curves \$ssl_sigalgs";
    }
    server { listen 127.0.0.1:%%PORT_1%%; return 200 "[\$ssl_sigalgs]"; }
}
EOC

sub offered {
    my $port = $hd->port(0);
    my $text = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 60 openssl s_client -connect 127.0.0.1:$port -quiet @_ 2>/dev/null`;
    return [split ' ', $text =~ s/.*\r\n\r\n//sr];
}
is_deeply offered('-tls1_3', '-ciphersuites', 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256', '-groups', 'P-384:X25519',
    '-sigalgs', 'ECDSA+SHA256:RSA-PSS+SHA512:ed25519'),
    ['TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_EMPTY_RENEGOTIATION_INFO_SCSV', 'secp384r1:X25519', 'ecdsa_secp256r1_sha256:rsa_pss_rsae_sha512:ed25519'], 'TLS 1.3';
is offered('-tls1_2', '-sigalgs', 'ECDSA+SHA384:ECDSA+SHA256')->[2], 'ecdsa_secp384r1_sha384:ecdsa_secp256r1_sha256', 'TLS 1.2';
is $hd->get('/', {port => 1})->body, '[]', 'without TLS';
done_testing;
