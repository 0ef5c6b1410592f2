#!/usr/bin/perl
# $upstream_last_server_name: the name by which `server` has the one that was asked last, in logs, and as the name that is
# asked for and looked at over TLS (nginx: ngx_http_upstream_module, proxy_ssl_name).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('server', dns => ['localhost']);
$hd->conf(<<"EOC");
http {
    log_format names '\$uri [\$upstream_last_server_name] [\$upstream_last_addr]';
    access_log %%DIR%%/names.log names;
    upstream one { server localhost:%%PORT_1%%; }
    upstream next { server 127.0.0.1:%%PORT_9%%; server localhost:%%PORT_1%% backup; }
    upstream tls { server localhost:%%PORT_2%%; }
    upstream address { server 127.0.0.1:%%PORT_2%%; }
    proxy_ssl_trusted_certificate $ca->{cert};
    proxy_ssl_verify on;
    proxy_ssl_server_name on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /nobody { return 200 ok; }
        location /one { proxy_pass http://one; }
        location /next { proxy_pass http://next; }
        location /plain { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /tls { proxy_pass https://tls; proxy_ssl_name \$upstream_last_server_name; }
        location /tls/group { proxy_pass https://tls; }
        location /tls/address { proxy_pass https://address; proxy_ssl_name \$upstream_last_server_name; }
    }
}
EOC
$hd->echo_server(1);
my $front = Heddle::TlsFront->start($hd, 2 => 1, cert => $cert);
$hd->expect_log(qr/certificate|verify|refused/i);
$hd->start;

is $hd->get("/$_")->status, 200, $_ for qw(nobody one next plain);
my $r = $hd->get('/tls');
is $r->status, 200, 'its certificate is its name\'s';
like $r->body, qr/^X-Tls-Sni: localhost\r?$/m, 'which is sent, without a port';
is $hd->get('/tls')->status, 200, 'again';
is $hd->get('/tls/group')->status, 502, 'the group\'s name isn\'t in its certificate';
is $hd->get('/tls/address')->status, 502, 'nor is an address';
$hd->wait_for(sub { (() = $hd->file('names.log') =~ /\n/g) == 8 }, 'the log');
my $log = $hd->file('names.log') =~ s/(:)(\d+)/$1 . (grep({ $hd->port($_) == $2 } 1, 2, 9))[0]/ger;
is $log, <<'EOL', 'the log';
/nobody [-] [-]
/one [localhost:1] [127.0.0.1:1]
/next [localhost:1] [127.0.0.1:1]
/plain [127.0.0.1:1] [127.0.0.1:1]
/tls [localhost:2] [127.0.0.1:2]
/tls [localhost:2] [127.0.0.1:2]
/tls/group [localhost:2] [127.0.0.1:2]
/tls/address [127.0.0.1:2] [127.0.0.1:2]
EOL
for (['http { server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_ssl_name $nothing; proxy_pass https://127.0.0.1:1; } } }', qr/heddle\.conf:\d+: .*unknown "nothing" variable/],
    ['stream { server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:1; proxy_ssl on; proxy_ssl_name $upstream_last_server_name; } }', qr/\$upstream_last_server_name.*http/]) {
    my ($status, $text) = Heddle->new->conf($_->[0])->run('-t');
    like $text, $_->[1], substr $_->[0], 0, 60;
}
$hd->stop;
$front->stop;
done_testing;
