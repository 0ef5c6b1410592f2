#!/usr/bin/perl
# ssl_key_log, proxy_ssl_key_log, grpc_ssl_key_log: the secrets of sessions in NSS's form, opened by the master, in
# workers of another user, too.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(workers => 2);
my $ca = $hd->make_ca('root');
my $site = $ca->make_cert('site', dns => 'site.test', ip => '127.0.0.1');
mkdir $hd->dir . '/secret', 0700; # workers can't open a file there
$hd->conf(<<"EOC")->start;
http {
    access_log off;
    ssl_certificate $site->{cert};
    ssl_certificate_key $site->{key};
    server { listen 127.0.0.1:%%PORT_0%% ssl; ssl_key_log %%DIR%%/secret/clients; return 200 "logged"; }
    server { listen 127.0.0.1:%%PORT_1%% ssl http2; return 200 "unlogged"; }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        location /logged { proxy_ssl_key_log %%DIR%%/secret/upstreams; proxy_pass https://127.0.0.1:%%PORT_1%%; }
        location /silent { proxy_pass https://127.0.0.1:%%PORT_1%%; }
        location /grpc { grpc_ssl_key_log %%DIR%%/secret/grpc; grpc_pass grpcs://127.0.0.1:%%PORT_1%%; }
    }
}
EOC

sub lines { my ($name) = @_; return split /\n/, $hd->file("secret/$name") }
sub secrets { my ($name) = @_; return map { /^(\S+) [0-9a-f]{64} [0-9a-f]{64,}$/ ? $1 : "odd: $_" } lines($name) }
my $url = 'https://127.0.0.1:' . $hd->port(0) . '/';
my @tls_1_3 = sort qw(CLIENT_HANDSHAKE_TRAFFIC_SECRET SERVER_HANDSHAKE_TRAFFIC_SECRET CLIENT_TRAFFIC_SECRET_0
    SERVER_TRAFFIC_SECRET_0 EXPORTER_SECRET);
is $hd->file('secret/clients'), '', 'nothing yet';
$hd->curl('-k', $url);
is_deeply [sort {$a cmp $b} secrets('clients')], \@tls_1_3, 'TLS 1.3';
$hd->curl('-k', '--tls-max', '1.2', $url);
is_deeply [(secrets('clients'))[5 .. 9]], ['CLIENT_RANDOM', (undef) x 4], 'TLS 1.2';

# The secrets are those that the client knows.
system("openssl s_client -connect 127.0.0.1:@{[$hd->port(0)]} -keylogfile $hd->{dir}/own </dev/null >/dev/null 2>&1");
my %ours = map { $_ => 1 } lines('clients');
is scalar(grep { !$ours{$_} } grep { /^[A-Z]/ } split /\n/, $hd->file('own')), 0, "the client's own key log says the same";
cmp_ok length $hd->file('own'), '>', 100, 'and something at all';

is $hd->get('/silent', {port => 2})->body, 'unlogged', 'an upstream without';
is $hd->file('secret/upstreams'), '', 'nothing is logged of it';
is $hd->get('/logged', {port => 2})->body, 'unlogged', 'an upstream with';
is_deeply [sort {$a cmp $b} secrets('upstreams')], \@tls_1_3, 'proxy_ssl_key_log';
$hd->get('/grpc', {port => 2});
is_deeply [sort {$a cmp $b} secrets('grpc')], \@tls_1_3, 'grpc_ssl_key_log';

# --- reopened
rename $hd->dir . '/secret/clients', $hd->dir . '/secret/old' or die;
$hd->signal('USR1');
$hd->wait_for(sub { -e $hd->dir . '/secret/clients' }, 'a new file');
$hd->wait_for(sub { $hd->curl('-k', $url); lines('clients') }, 'lines in it');
pass 'reopened';

$hd->stop;

for my $bad (['ssl_key_log /x/$host;', qr/without variables/], ['ssl_key_log /nowhere/at/all;', qr/No such file/]) {
    my $t = Heddle->new(ports => $hd->{ports})->conf("http {\nserver {\nlisten 127.0.0.1:%%PORT_9%% ssl;\n"
        . "ssl_certificate $site->{cert}; ssl_certificate_key $site->{key};\n$bad->[0]\n}\n}\n");
    my ($status, $text) = $t->run('-t');
    like "$status $text", qr/^1 .*$bad->[1]/s, $bad->[0];
}
done_testing;
