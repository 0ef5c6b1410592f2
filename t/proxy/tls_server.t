#!/usr/bin/perl
# listen … ssl: certificates chosen by SNI, protocols by ALPN, client certificates, and what happens
# to names and plain HTTP (nginx: ngx_http_ssl_module; RFC 6066 §3, RFC 7301).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my %cert = map { $_ => $ca->make_cert($_, dns => $_) } 'a.example', 'b.example', 'c.example';
my $wild = $ca->make_cert('wild', dns => '*.w.example');
my $rsa = $ca->make_cert('rsa', dns => 'a.example', rsa => 1);
my $client = $ca->make_cert('client', cn => 'ann');
my $stranger = $hd->make_ca('other')->make_cert('stranger', cn => 'eve');

sub certs { join ' ', map { "ssl_certificate $_->{cert}; ssl_certificate_key $_->{key};" } @_ }

$hd->conf(<<"EOC")->start;
http {
    ssl_session_cache shared:SSL:1m;
    server {
        listen 127.0.0.1:%%PORT_0%% ssl http2;
        server_name a.example;
        @{[certs($cert{'a.example'}, $rsa)]}
        return 200 "a \$ssl_protocol \$ssl_server_name \$scheme \$server_protocol \$http2";
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name b.example;
        @{[certs($cert{'b.example'})]}
        ssl_protocols TLSv1.2;
        return 200 "b \$ssl_protocol";
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name *.w.example;
        @{[certs($wild)]}
        return 200 "w \$host";
    }
    server { listen 127.0.0.1:%%PORT_0%% ssl; server_name n.example; return 200 "no certificate of its own"; }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl;
        @{[certs($cert{'c.example'})]}
        ssl_verify_client on;
        ssl_client_certificate $ca->{cert};
        return 200 "\$ssl_client_verify \$ssl_client_s_dn";
    }
    server {
        listen 127.0.0.1:%%PORT_2%% ssl;
        @{[certs($cert{'c.example'})]}
        ssl_verify_client optional;
        ssl_client_certificate $ca->{cert};
        return 200 "\$ssl_client_verify";
    }
    server { listen 127.0.0.1:%%PORT_3%%; http2 on; return 200 "\$server_protocol \$http2"; }
}
EOC

sub curl {
    my ($name, @args) = @_;
    my $port = $hd->port(0);
    return $hd->curl('--cacert', $ca->{cert}, '--resolve', "$name:$port:127.0.0.1", @args,
        "https://$name:$port/");
}

# Name asked for and verified by curl: a wrong certificate would fail.
is curl('a.example', '--http1.1'), 'a TLSv1.3 a.example https HTTP/1.1 ', 'the first server';
is curl('a.example', '--http2'), 'a TLSv1.3 a.example https HTTP/2.0 h2', 'HTTP/2 by ALPN';
is curl('b.example'), 'b TLSv1.2', 'another name: its certificate and its versions';
is curl('x.w.example'), 'w x.w.example', 'a wildcard';
is curl('a.example', '--tls-max', '1.2', '--ciphers', 'ECDHE-RSA-AES128-GCM-SHA256', '--http1.1'),
    'a TLSv1.2 a.example https HTTP/1.1 ', 'two kinds of key: RSA for who needs it';
is curl('a.example', '-H', 'Host: n.example'), 'no certificate of its own', 'Host chooses among servers';
is curl('a.example', '-H', 'Host: unknown.example') =~ s/ .*//r, 'a', 'unknown: the default one';

sub served_by {
    my ($sni, @args) = @_;
    my $sni_args = defined $sni ? "-servername $sni" : '-noservername';
    my $port = $hd->port(0);
    my $text = `openssl s_client -connect 127.0.0.1:$port $sni_args @args </dev/null 2>&1 | openssl x509 -noout -ext subjectAltName 2>/dev/null`;
    return $text =~ /DNS:(\S+)/ ? $1 : 'nobody';
}
is served_by('b.example'), 'b.example', 'by SNI';
is served_by('B.Example'), 'b.example', 'in any case';
is served_by('unknown.example'), 'a.example', 'an unknown name gets the default certificate';
is served_by(undef), 'a.example', 'no name as well';
is served_by('n.example'), 'a.example', 'a server without a certificate, too';
is served_by('b.example', '-tls1_3'), 'nobody', "b doesn't speak TLS 1.3";

my $plain = $hd->raw("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
like $plain, qr{^HTTP/1.1 400 .*The plain HTTP request was sent to HTTPS port}s, 'plain HTTP is told so';
like $plain, qr/^Connection: close\r$/m, 'and closed';

sub verified {
    my ($n, $who) = @_;
    my $r = eval { $hd->get('/', {port => $n, tls => {$who ? (cert => $who->{cert}, key => $who->{key}) : ()}}) };
    return $r ? $r->status . ' ' . $r->body : 'refused';
}
is verified(1, $client), '200 SUCCESS CN=ann,O=heddle test', 'a client certificate is verified';
is verified(2, $client), '200 SUCCESS', 'optional: verified';
is verified(2), '200 NONE', 'optional: none';
unlike verified(1), qr/^200/, 'required: none is refused';
unlike verified($_, $stranger), qr/^200/, "of another root: refused ($_)" for 1, 2;

is $hd->curl('--http2-prior-knowledge', 'http://127.0.0.1:%%PORT_3%%/'), 'HTTP/2.0 h2c',
    'HTTP/2 without TLS, by its preface';
is $hd->curl('http://127.0.0.1:%%PORT_3%%/'), 'HTTP/1.1 ', 'HTTP/1.1 on the same port';

done_testing;
