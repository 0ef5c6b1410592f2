#!/usr/bin/perl
# Upstreams: which server is asked next, and when; kept-open connections; time-outs; TLS and HTTP/2
# towards them (nginx: ngx_http_upstream_module, proxy_next_upstream, proxy_ssl_…).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('up.example', dns => 'up.example');
my $client = $ca->make_cert('proxy', cn => 'proxy');

$hd->conf(<<"EOC");
http {
    upstream two { server 127.0.0.1:%%PORT_1%% max_fails=0; server 127.0.0.1:%%PORT_2%% max_fails=0; }
    upstream dead { server 127.0.0.1:%%PORT_8%% max_fails=0; server 127.0.0.1:%%PORT_9%% max_fails=0; }
    upstream weighted { server 127.0.0.1:%%PORT_1%% weight=3; server 127.0.0.1:%%PORT_2%%; }
    upstream spare { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_2%% backup; }
    upstream offline { server 127.0.0.1:%%PORT_1%% down; server 127.0.0.1:%%PORT_2%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        add_header X-Tried \$upstream_addr always;
        location /two/     { proxy_pass http://two/; }
        location /errors/  { proxy_pass http://two/; proxy_next_upstream http_503 error timeout; }
        location /once/    { proxy_pass http://two/; proxy_next_upstream http_503 error timeout; proxy_next_upstream_tries 1; }
        location /never/   { proxy_pass http://two/; proxy_next_upstream off; }
        location /turned/  { proxy_pass http://two/; proxy_method POST; }
        location /dead/    { proxy_pass http://dead/; }
        location /weighted/ { proxy_pass http://weighted/; }
        location /spare/   { proxy_pass http://spare/; }
        location /offline/ { proxy_pass http://offline/; }
        location /slow/    { proxy_pass http://127.0.0.1:%%PORT_1%%/; proxy_read_timeout 200ms; }
        location /tls/     { proxy_pass https://127.0.0.1:%%PORT_3%%/; }
        location /tls-verified/ {
            proxy_pass https://127.0.0.1:%%PORT_3%%/;
            proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert};
            proxy_ssl_name up.example; proxy_ssl_server_name on;
        }
        location /tls-wrong/ {
            proxy_pass https://127.0.0.1:%%PORT_3%%/;
            proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert}; proxy_ssl_name other.example;
        }
        location /tls-client/ { proxy_pass https://127.0.0.1:%%PORT_5%%/; proxy_ssl_certificate $client->{cert}; proxy_ssl_certificate_key $client->{key}; }
        location /tls-nobody/ { proxy_pass https://127.0.0.1:%%PORT_5%%/; }
        location /h2/      { proxy_pass http://127.0.0.1:%%PORT_4%%/; proxy_http_version 2; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%% ssl;
        ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key};
        return 200 "tls \$ssl_server_name";
    }
    server {
        listen 127.0.0.1:%%PORT_5%% ssl;
        ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key};
        ssl_verify_client on; ssl_client_certificate $ca->{cert};
        return 200 "\$ssl_client_s_dn";
    }
    server { listen 127.0.0.1:%%PORT_4%%; http2 on; return 200 "\$server_protocol \$uri"; }
}
EOC
# /503 answers so from the first server, /close closes, /hang never answers.
for my $n (1, 2) {
    $hd->backend($n, sub {
        my ($req) = @_;
        return [503, [], "$n busy"] if $req->{uri} eq '/503' && $n == 1;
        return {close => 1} if $req->{uri} =~ '^/close' && $n == 1;
        return {hang => 1} if $req->{uri} eq '/hang';
        return [200, [], "$n conn $req->{conn} $req->{method} $req->{body}"];
    });
}
$hd->start;

sub who { my ($uri) = @_; my $r = $hd->get($uri); return $r->status . ' ' . ($r->body =~ /^(\d)/)[0] }
sub tried { scalar split /, /, $_[0]->header('x-tried') }

is_deeply [sort map { who('/two/x') } 1 .. 4], ['200 1', '200 1', '200 2', '200 2'], 'in turn';
is_deeply [map { who('/two/close')} 1 .. 4], [('200 2') x 4], 'an error: the next one';
like join('', map { tried($hd->get('/two/close')) } 1 .. 8), qr/^(?:12){4}$|^(?:21){4}$/, 'each has its turns: every second request begins with the one that fails';
is_deeply [sort map { who('/two/503') } 1 .. 4], ['200 2', '200 2', '503 1', '503 1'], 'a status is none, by default';
is_deeply [map { who('/errors/503') } 1 .. 4], [('200 2') x 4], 'unless it says so';
is_deeply [sort map { who('/once/503') } 1 .. 4], ['200 2', '200 2', '503 1', '503 1'], 'at most so many tries';
is_deeply [sort map { $hd->get('/never/close')->status } 1 .. 4], [200, 200, 502, 502], 'off';
is_deeply [sort map { $hd->post('/two/close', 'body')->status } 1 .. 4], [200, 200, 502, 502],
    'a POST that was sent is not sent twice (RFC 9110 §9.2.2)';
is_deeply [sort map { $hd->get('/turned/close')->status } 1 .. 4], [200, 200, 502, 502],
    'nor one that proxy_method made of a GET';
my $r = $hd->get('/dead/x');
is $r->status . ' ' . tried($r), '502 2', 'all are down: each was asked once';
is join('', sort map { (split / /, who('/weighted/x'))[1] } 1 .. 8), '11111122', 'weights';
is who('/spare/x'), '200 2', 'a backup when there is nothing else';
is_deeply [map { who('/offline/x') } 1 .. 3], [('200 2') x 3], 'down is never asked';

$r = $hd->get('/slow/hang');
is $r->status, 504, 'proxy_read_timeout';
my %conns = map { $_ => 1 } map { $hd->get('/offline/x')->body =~ /conn (\d+)/ } 1 .. 10;
is scalar(keys %conns), 1, 'connections are kept';

is $hd->get('/tls/x')->body, 'tls ', 'TLS, no name is sent';
is $hd->get('/tls-verified/x')->body, 'tls up.example', 'verified, and the name is sent';
is $hd->get('/tls-wrong/x')->status, 502, 'a certificate for another name is refused';
like $hd->get('/tls-client/x')->body, qr/^CN=proxy/, 'our own certificate';
isnt $hd->get('/tls-nobody/x')->status, 200, 'and a connection with it is not lent to who has none';
is $hd->get('/h2/path')->body, 'HTTP/2.0 /path', 'HTTP/2';
is $hd->post('/h2/path', 'x' x 100000)->body, 'HTTP/2.0 /path', 'HTTP/2 with a body';
done_testing;
