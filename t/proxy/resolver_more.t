#!/usr/bin/perl
# Hosts that variables make: in stream {}, for gRPC, over TLS (the host is the name that a certificate must
# have), without a resolver, and with master_process off, where one process asks itself.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Dns;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.test', dns => 'a.test');
my $ip = $ca->make_cert('ip', ip => '127.0.0.1');
my $common = <<"EOC";
http {
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate $ca->{cert};
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /none  { proxy_pass http://\$arg_host:%%PORT_back%%; }
        location /plain { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; proxy_pass http://\$arg_host:%%PORT_back%%; }
        location /tls   { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; proxy_ssl_server_name on; proxy_pass https://\$arg_host:%%PORT_tls%%; }
        location /quiet { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; proxy_pass https://\$arg_host:%%PORT_tls%%; }
        location /ip    { proxy_pass https://\$arg_host:%%PORT_iptls%%; }
        location /url   { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; proxy_pass \$arg_url; }
        location /grpc  { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; grpc_pass grpc://\$arg_host:%%PORT_h2%%; }
    }
    server { listen 127.0.0.1:%%PORT_tls%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; return 200 "tls <\$ssl_server_name>\\n"; }
    server { listen 127.0.0.1:%%PORT_iptls%% ssl; ssl_certificate $ip->{cert}; ssl_certificate_key $ip->{key}; return 200 "ip\\n"; }
    server { listen 127.0.0.1:%%PORT_h2%%; http2 on; return 200 "h2 \$server_protocol\\n"; }
}
stream {
    upstream group { resolver 127.0.0.1:%%PORT_dns%% ipv6=off; server a.test:%%PORT_back%% resolve; }
    server { listen 127.0.0.1:%%PORT_s0%%; proxy_pass group; }
    server { listen 127.0.0.1:%%PORT_s1%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key};
             resolver 127.0.0.1:%%PORT_dns%% ipv6=off; resolver_timeout 1s; proxy_pass \$ssl_server_name:%%PORT_back%%; }
    server { listen 127.0.0.1:%%PORT_s2%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; proxy_pass \$ssl_server_name:%%PORT_back%%; }
    server { listen 127.0.0.1:%%PORT_s3%%; proxy_pass \$server_addr:%%PORT_back%%; }
    server { listen 127.0.0.1:%%PORT_s4%%; proxy_pass \$server_addr; }
}
EOC
$hd->conf($common);
my $dns = Heddle::Dns->new($hd, 'dns');
$hd->backend('back', sub { 'back' });
$dns->set('a.test' => {ttl => 60, A => ['127.0.0.1']}, 'b.test' => {ttl => 60, A => ['127.0.0.1']}, 'slow.test' => 'SILENT');
my ($tls, $ask) = ($hd->port('tls'), sub { my $r = $hd->get($_[0]); $r->status . ' ' . ($r->status == 200 ? $r->body : '') });
my $tcp = sub {
    my ($port, @opt) = @_;
    my $c = eval { $hd->connect($port, @opt) } or return '';
    $c->send("GET / HTTP/1.0\r\n\r\n");
    return $c->read_all =~ /\r\n\r\n(.*)/s ? $1 : '';
};
my $as = sub { (tls => {sni => $_[0], ca => $ca->{cert}}) };

my $all = sub {
    is $ask->('/none?host=a.test'), '502 ', 'no resolver';
    $hd->wait_log(qr/no resolver defined to resolve a\.test, client: 127\.0\.0\.1.*request: "GET \/none/);
    is $ask->('/none?host=127.0.0.1'), '200 back', 'an address needs none';
    is $ask->('/plain?host=a.test'), '200 back', 'with one';
    is $ask->('/tls?host=a.test'), "200 tls <a.test>\n", 'TLS: the host is sent';
    is $ask->('/quiet?host=a.test'), "200 tls <>\n", 'not without proxy_ssl_server_name';
    is $ask->('/quiet?host=b.test'), '502 ', 'and it must be the certificate\'s';
    is $ask->('/tls?host=b.test'), '502 ', 'in either case';
    is $ask->('/quiet?host=127.0.0.1'), '502 ', 'also where it is an address';
    is $ask->('/ip?host=127.0.0.1'), "200 ip\n", 'that some certificate has';
    is $ask->("/url?url=https://a.test:$tls/x"), "200 tls <>\n", 'a URL from a variable: https';
    is $ask->('/url?url=http://a.test:' . $hd->port('back') . '/x'), '200 back', 'and http';
    is $ask->('/grpc?host=a.test'), "200 h2 HTTP/2.0\n", 'grpc_pass';
    is $tcp->('s0'), 'back', 'stream: a server by its name';
    is $tcp->('s1', $as->('a.test')), 'back', 'stream: a name from SNI';
    is $tcp->('s1', $as->('none.test')), '', 'that isn\'t there';
    $hd->wait_log(qr/none\.test could not be resolved \(3: Host not found\), client/);
    is $tcp->('s1', $as->('slow.test')), '', 'that nobody answers for';
    $hd->wait_log(qr/slow\.test could not be resolved \(110: Operation timed out\), client/);
    is $tcp->('s2', $as->('a.test')), '', 'stream: no resolver';
    $hd->wait_log(qr/no resolver defined to resolve a\.test, client/);
    is $tcp->('s3'), 'back', 'stream: an address';
    is $tcp->('s4'), '', 'without a port';
    $hd->wait_log(qr/no port in upstream "127\.0\.0\.1"/);
};
$hd->start;
$all->();
$hd->stop;

$hd->conf("master_process off;\n$common");
$hd->start;
subtest 'in one process' => $all;
$hd->stop;
done_testing;
