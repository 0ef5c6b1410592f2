#!/usr/bin/perl
# stream: where a connection goes by its ClientHello, which stays unopened (nginx:
# ngx_stream_ssl_preread_module, proxy_pass with variables, server_name of stream).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my %cert = map { $_ => $ca->make_cert($_, dns => $_) } 'a.example', 'b.example', 'x.b.example', 'd7.example';
my $ssl = sub { my $c = $cert{$_[0]}; "ssl_certificate $c->{cert}; ssl_certificate_key $c->{key};" };

my $preread = <<'EOC';
    upstream a.example { server 127.0.0.1:%%PORT_1%%; }
    upstream b.example { server 127.0.0.1:%%PORT_2%%; }
    upstream h2,http/1.1 { server 127.0.0.1:%%PORT_2%%; }
    upstream v_TLSv1.2 { server 127.0.0.1:%%PORT_1%%; }
    upstream v_TLSv1.3 { server 127.0.0.1:%%PORT_2%%; }
    ssl_preread on;
EOC
my @by = map { "proxy_pass $_; }\n" } '$ssl_preread_server_name', '$ssl_preread_alpn_protocols',
    'v_$ssl_preread_protocol';

$hd->conf(<<"EOC");
http {
    server { listen 127.0.0.1:%%PORT_1%% ssl; ${\$ssl->('a.example')} return 200 "one \$ssl_server_name"; }
    server { listen 127.0.0.1:%%PORT_2%% ssl; ${\$ssl->('b.example')} return 200 "two \$ssl_server_name"; }
}
stream {
    $preread
    server { listen 127.0.0.1:%%PORT_0%%; $by[0]
    server { listen 127.0.0.1:%%PORT_3%%; $by[1]
    server { listen 127.0.0.1:%%PORT_4%%; $by[2]
    server { listen 127.0.0.1:%%PORT_5%%; server_name a.example; proxy_pass a.example; }
    server { listen 127.0.0.1:%%PORT_5%%; server_name .b.example ~^d[0-9]; proxy_pass b.example; }
    server { listen 127.0.0.1:%%PORT_5%% default_server; proxy_pass 127.0.0.1:%%PORT_6%%; preread_timeout 200ms; }
    server { listen 127.0.0.1:%%PORT_7%% ssl; ${\$ssl->('a.example')} ssl_preread off; proxy_pass 127.0.0.1:%%PORT_6%%; }
    server { listen 127.0.0.1:%%PORT_7%% ssl; ${\$ssl->('b.example')} server_name b.example; proxy_pass 127.0.0.1:%%PORT_8%%; }
    server { listen 127.0.0.1:%%PORT_9%%; ssl_preread off; proxy_pass 127.0.0.1:%%PORT_6%%; }
    server { listen 127.0.0.1:%%PORT_9%%; server_name a.example; proxy_pass a.example; }
}
EOC
for my $n (6, 8) {
    $hd->tcp_backend($n, sub { my ($sock) = @_; sysread $sock, my $in, 100; syswrite $sock, "plain $n\n" });
}
$hd->start;

sub ask {
    my ($c) = @_;
    $c->send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    return $c->read_all =~ s/.*\r\n\r\n//sr;
}
sub ask_tls {
    my ($n, %tls) = @_;
    return ask($hd->connect($n, tls => \%tls));
}

is ask_tls(0, sni => 'a.example'), 'one a.example', 'by its name: the TLS of one server';
is ask_tls(0, sni => 'B.example'), 'two b.example', 'whatever the case';
is ask_tls(0, sni => 'c.example'), '', 'no upstream of that name: closed';
$hd->wait_log(qr/no port in upstream "c\.example"/);
is ask($hd->connect(0)), '', 'no TLS: closed';
$hd->wait_log(qr/the variables of proxy_pass name no upstream/);
is ask_tls(3, sni => 'b.example', alpn => 'h2,http/1.1'), 'two b.example', 'by what it offers';
is ask_tls(4, sni => 'a.example', args => ['-tls1_2']), 'one a.example', 'by its version';
is ask_tls(4, sni => 'b.example', args => ['-tls1_3']), 'two b.example', 'and another';

is ask_tls(5, sni => 'a.example'), 'one a.example', 'server_name';
is ask_tls(5, sni => 'b.example'), 'two b.example', '.x is x';
is ask_tls(5, sni => 'x.b.example'), 'two x.b.example', 'and *.x';
is ask_tls(5, sni => 'd7.example'), 'two d7.example', 'a regex';
is ask($hd->connect(5)), "plain 6\n", 'no TLS: the default server';
is $hd->connect(5)->read_all, '', 'nothing said for preread_timeout: closed';
is ask_tls(7, sni => 'b.example', ca => $ca->{cert}, args => ['-verify_hostname', 'b.example']), "plain 8\n",
    'ended here, with the certificate of its name';
is ask_tls(7, sni => 'a.example', ca => $ca->{cert}, args => ['-verify_hostname', 'a.example']), "plain 6\n", 'or the default one';
is ask($hd->connect(9)), "plain 6\n", 'the default server reads nothing ahead: it has them all';
done_testing;
