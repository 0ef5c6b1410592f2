#!/usr/bin/perl
# The race for a kept-alive upstream connection: it may be closed by the upstream in the moment it
# is used again. Nothing of it reaches clients (RFC 9112 §9.3.1), and connections are used again.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

sub load { # by h2load: what of it failed
    my ($port, $n, $clients, @args) = @_;
    my $out = `h2load --h1 -n $n -c $clients @args http://127.0.0.1:$port/load 2>&1`;
    my ($done, $failed) = $out =~ /(\d+) succeeded, (\d+) failed/ or return "no result: $out";
    my ($good) = $out =~ /status codes: (\d+) 2xx/;
    return "$good good, $failed failed";
}

# ---- an upstream that closes after each k-th request, without a word

for my $k (1, 3, 10) {
    my $hd = Heddle->new->conf(<<'EOC');
http {
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 20; }
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
EOC
    $hd->backend(1, sub {
        my ($req) = @_;
        return {raw => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", close => $req->{n} % $k == 0};
    });
    $hd->start;
    is load($hd->port(0), 3000, 10), '3000 good, 0 failed', "closed after $k each: 3000 of 3000 answered";
    my %conns;
    $conns{$_->{conn}}++ for $hd->requests(1);
    # An upstream that is slow to close after its last answer looks like one that lets connections
    # idle for so long, and others that idle as long aren't used again (hd_peer_idle.h): then more
    # are made, each used less.
    cmp_ok scalar(keys %conns), '<=', 2 * 3000 / $k, scalar(keys %conns) . ' connections: they are used again';
    is((grep { $_ > $k } values %conns), 0, 'none used after its end');
    $hd->stop;
}

# ---- an upstream that closes what idles for a few milliseconds

my ($nginx) = grep { -x } '/usr/sbin/nginx', '/usr/local/sbin/nginx';
SKIP: {
    skip 'needs nginx', 1 unless $nginx;
    my $up = Heddle->new(program => $nginx)->conf(<<'EOC');
http {
    access_log off; client_body_temp_path %%DIR%%/t1; proxy_temp_path %%DIR%%/t2;
    fastcgi_temp_path %%DIR%%/t3; uwsgi_temp_path %%DIR%%/t4; scgi_temp_path %%DIR%%/t5;
    keepalive_timeout 1ms;
    server { listen 127.0.0.1:%%PORT_1%%; location / { return 200 "ok"; } }
}
EOC
    $up->start;
    my $hd = Heddle->new(workers => 2, ports => $up->{ports})->conf(<<'EOC');
http {
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 64; }
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
EOC
    $hd->start;
    is load($hd->port(0), 4000, $_), '4000 good, 0 failed', "closed after 1 ms, $_ clients: all answered" for 1, 3, 40;
}

done_testing;
