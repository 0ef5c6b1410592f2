# proxy_pass https://: the location's proxy_ssl_* decide how the upstream is spoken to, and
# locations that differ never share a connection.

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TlsFront;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $other = $hd->make_ca('other');
my $server = $ca->make_cert('server', dns => ['backend.test']);
my $bare = $ca->make_cert('bare', cn => 'bare.test'); # without a name but the subject's
my $client = $ca->make_cert('client', spiffe => 'spiffe://test/ns/a/sa/client');
$hd->conf(<<"EOC");
http {
    upstream tls { server 127.0.0.1:%%PORT_2%%; keepalive 8; }
    proxy_ssl_name backend.test;
    proxy_ssl_server_name on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass https://tls; }
        location /mutual {
            proxy_pass https://tls;
            proxy_ssl_certificate $client->{cert};
            proxy_ssl_certificate_key $client->{key};
            proxy_ssl_trusted_certificate $ca->{cert};
            proxy_ssl_verify on;
        }
        location /stranger {
            proxy_pass https://tls;
            proxy_ssl_trusted_certificate $other->{cert};
            proxy_ssl_verify on;
        }
        location /name {
            proxy_pass https://tls;
            proxy_ssl_name elsewhere.test;
            proxy_ssl_trusted_certificate $ca->{cert};
            proxy_ssl_verify on;
        }
        location /plain { proxy_pass http://tls; }
        proxy_ssl_trusted_certificate $ca->{cert};
        location /bare {
            proxy_pass https://127.0.0.1:%%PORT_3%%;
            proxy_ssl_name bare.test;
            proxy_ssl_verify on;
        }
        location /bare_other {
            proxy_pass https://127.0.0.1:%%PORT_3%%;
            proxy_ssl_name elsewhere.test;
            proxy_ssl_verify on;
        }
        location /subject {
            proxy_pass https://tls;
            proxy_ssl_name server;
            proxy_ssl_verify on;
        }
    }
}
EOC
$hd->echo_server(1);
my $front = Heddle::TlsFront->start($hd, 2 => 1, cert => $server, client_ca => $ca);
my $front_bare = Heddle::TlsFront->start($hd, 3 => 1, cert => $bare);
$hd->expect_log(qr/certificate|verify/);
$hd->start;

my $r = $hd->get('/');
is $r->status, 200, 'over TLS';
like $r->body, qr/^X-Tls-Verify: NONE/mi, 'without a certificate of ours';
like $r->body, qr/^X-Tls-Sni: backend\.test/mi, 'proxy_ssl_server_name';
my ($conn) = $r->body =~ /^X-Tls-Conn: (\d+)/mi;
is +($hd->get('/')->body =~ /^X-Tls-Conn: (\d+)/mi)[0], $conn, 'its connection is used again';

is $hd->get('/bare')->status, 200, 'a certificate without names: the subject has one';
is $hd->get('/bare_other')->status, 502, '... no other';
is $hd->get('/subject')->status, 502, 'where there are names the subject does not count';

$r = $hd->get('/mutual');
like $r->body, qr/^X-Tls-Verify: SUCCESS/mi, 'proxy_ssl_certificate is shown';
isnt +($r->body =~ /^X-Tls-Conn: (\d+)/mi)[0], $conn, 'on a connection of its own';
$r = $hd->get('/');
like $r->body, qr/^X-Tls-Verify: NONE/mi, 'and never to others';
is +($r->body =~ /^X-Tls-Conn: (\d+)/mi)[0], $conn, 'who still have theirs';

is $hd->get('/stranger')->status, 502, 'another root: not trusted';
is $hd->get('/name')->status, 502, "another name: not trusted";
is $hd->get('/plain')->status, 400, 'http: to the same server speaks no TLS';
$hd->stop;
$_->stop for $front, $front_bare;
done_testing;
