#!/usr/bin/perl
# A kernel that gives and takes little, says "not now" and tells its events late, apart and in any order: every way
# that bytes take still comes to its end, and each byte with it. HD_FAULTS_SEED=N repeats one seed.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Faults;

plan skip_all => $Heddle::Faults::missing if $Heddle::Faults::missing;
plan skip_all => 'no curl with HTTP/2' if (qx{curl --version 2>/dev/null} // '') !~ /\bHTTP2\b/;

sub sum { my ($s) = @_; return length($s) . '-' . unpack '%32C*', $s }
sub bytes { my ($n) = @_; return substr join('', map { pack 'N', $_ * 2654435761 % 4294967296 } 0 .. $n / 4), 0, $n }

my $ca = Heddle->new->make_ca('root');
my $server = $ca->make_cert('server', dns => ['back.test']);
my $client = $ca->make_cert('one', spiffe => 'spiffe://test/ns/a/sa/one');
my $big = bytes(400_003);
my $conf = <<"EOC";
events { worker_connections 256; }
http {
    access_log off;
    client_max_body_size 0;
    client_body_temp_path %%DIR%%/bodies;
    proxy_temp_path %%DIR%%/answers;
    proxy_next_upstream error timeout http_503 non_idempotent;
    proxy_ssl_name back.test;
    proxy_ssl_trusted_certificate $ca->{cert};
    proxy_ssl_verify on;
    upstream back { server 127.0.0.1:%%PORT_1%%; keepalive 8; }
    upstream pair { server 127.0.0.1:%%PORT_3%% max_fails=0; server 127.0.0.1:%%PORT_1%% backup; keepalive 8; }
    upstream tls { server 127.0.0.1:%%PORT_4%%; keepalive 8; }
    upstream h2 { server 127.0.0.1:%%PORT_5%%; keepalive 8; }
    server { # for clients
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        listen 127.0.0.1:%%PORT_6%% ssl http2;
        ssl_certificate $server->{cert};
        ssl_certificate_key $server->{key};
        location / { proxy_pass http://back; }
        location /as_it_comes/ { proxy_pass http://back/; proxy_request_buffering off; proxy_buffering off; }
        location /pair/ { proxy_pass http://pair/; client_body_in_file_only clean; }
        location /pair_kept/ { proxy_pass http://pair/; client_body_buffer_size 1m; }
        location /tls/ { proxy_pass https://tls/; }
        location /weft/ { proxy_pass https://tls/; proxy_ssl_certificate $client->{cert}; proxy_ssl_certificate_key $client->{key}; }
        location /h2/ { grpc_pass grpc://h2; rewrite ^/h2(/.*)\$ \$1 break; }
        location /up/ {
            proxy_pass http://127.0.0.1:%%PORT_7%%/;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
        }
        location /files/ { alias %%DIR%%/files/; sendfile on; gzip on; gzip_types *; gzip_min_length 1; }
    }
    server { # for the one above
        listen 127.0.0.1:%%PORT_4%% ssl;
        listen 127.0.0.1:%%PORT_5%% http2;
        ssl_certificate $server->{cert};
        ssl_certificate_key $server->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client optional;
        location / { proxy_pass http://back; proxy_request_buffering off; }
    }
}
stream {
    server { listen 127.0.0.1:%%PORT_8%%; proxy_pass 127.0.0.1:%%PORT_7%%; }
    server {
        listen 127.0.0.1:%%PORT_9%%;
        proxy_pass 127.0.0.1:%%PORT_10%%;
        proxy_protocol on;
        proxy_ssl on; proxy_ssl_verify on; proxy_ssl_name back.test; proxy_ssl_trusted_certificate $ca->{cert};
    }
    server {
        listen 127.0.0.1:%%PORT_10%% ssl proxy_protocol;
        ssl_certificate $server->{cert};
        ssl_certificate_key $server->{key};
        proxy_pass 127.0.0.1:%%PORT_7%%;
    }
}
EOC

# Speaks any protocol that is asked for: takes what was announced, gives as much back.
sub echo {
    my ($sock) = @_;
    my $c = Heddle::Http->adopt($sock);
    my $head = $c->read_until(qr/\r\n\r\n/) // return;
    $c->send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n") if $head =~ /^Upgrade:/m;
    my ($n) = ($c->read_until(qr/\n/) // '') =~ /(\d+)/ or return;
    my $got = $c->read_bytes($n);
    $c->send(sum($got) . "\n$got");
    $c->read_all;
}

sub new_heddle {
    my ($seed) = @_;
    my $hd = Heddle->new(Heddle::Faults::env($seed), workers => 2);
    mkdir $hd->dir . '/files';
    $hd->write('files/big', $big);
    $hd->write('files/small', 'small');
    $hd->backend(1, sub {
        my ($req) = @_;
        my ($n, $chunked) = $req->{uri} =~ m{/give/(\d+)(/chunks)?};
        return sum($req->{body}) unless defined $n;
        return [200, {$chunked ? ('Transfer-Encoding' => 'chunked') : ()}, bytes($n)];
    });
    $hd->backend(3, sub { [503, {}, 'no'] });
    $hd->tcp_backend(7, \&echo);
    return $hd->conf($conf)->start;
}

sub by {
    my ($hd, $how, $uri, @more) = @_;
    my %how = (
        'HTTP/1' => ['--http1.1', 'http://127.0.0.1:%%PORT_0%%'],
        'HTTP/2' => ['--http2-prior-knowledge', 'http://127.0.0.1:%%PORT_2%%'],
        'TLS' => ['--http1.1', '-k', 'https://127.0.0.1:%%PORT_6%%'],
        'HTTP/2 over TLS' => ['--http2', '-k', 'https://127.0.0.1:%%PORT_6%%'],
    );
    my @args = @{$how{$how}};
    my $url = pop(@args) . $uri;
    return $hd->curl(@args, '-H', 'Expect:', @more, $url);
}

sub is_echoed {
    my ($hd, $n, $head, $what) = @_;
    my $c = $hd->connect($n);
    $c->send($head);
    if ($head =~ /Upgrade:/) {
        like $c->read_until(qr/\r\n\r\n/) // 'nothing', qr/^HTTP\/1.1 101 /, "$what: it begins";
    }
    $c->send(length($big) . "\n$big");
    my $want = sum($big) . "\n$big";
    ok $c->read_bytes(length $want) eq $want, "$what: there and back";
    $c->shutdown_write;
    is $c->read_all, '', "$what: and its end";
}

for my $seed (Heddle::Faults::seeds(1)) {
    my $hd = new_heddle($seed);
    my $upload = $hd->write('upload', '');
    my @ways = ('/', '/as_it_comes/', '/pair/', '/pair_kept/', '/tls/', '/weft/', '/h2/');

    for my $n (20_000, 150_001) {
        my $body = bytes($n);
        open my $f, '>:raw', $upload or die $!;
        print $f $body;
        close $f or die $!;
        for my $how ('HTTP/1', 'HTTP/2', 'TLS', 'HTTP/2 over TLS') {
            my @wrong = grep { by($hd, $how, "${_}x", '--data-binary', "\@$upload") ne sum($body) } @ways;
            is "@wrong", '', "seed $seed: $n bytes up by $how";
            @wrong = grep { by($hd, $how, "${_}x", '--data-binary', "\@$upload", '-H', 'Transfer-Encoding: chunked') ne sum($body) } @ways
                if $how !~ /2/;
            is "@wrong", '', "seed $seed: $n bytes in chunks" if $how !~ /2/;
            @wrong = grep { my $uri = $_; grep { by($hd, $how, "${uri}give/$n$_") ne $body } '', '/chunks' } @ways;
            is "@wrong", '', "seed $seed: $n bytes down by $how";
            ok by($hd, $how, '/files/big') eq $big, "seed $seed: a file by $how";
            ok by($hd, $how, '/files/big', '--compressed') eq $big, "seed $seed: and compressed";
        }
    }
    is_echoed($hd, 0, "GET /up/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", "seed $seed: an upgrade");
    is_echoed($hd, 8, "head\r\n\r\n", "seed $seed: a stream");
    is_echoed($hd, 9, "head\r\n\r\n", "seed $seed: a stream over TLS and PROXY protocol");

    my $c = $hd->connect(0);
    $c->send("GET /files/small HTTP/1.1\r\nHost: a\r\n\r\n" x 40 . "GET /files/small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    is scalar(() = $c->read_all =~ /small/g), 41, "seed $seed: pipelined requests";
    ok $hd->reload, "seed $seed: a reload";
    is by($hd, 'HTTP/2 over TLS', '/weft/x', '-d', 'y'), sum('y'), "seed $seed: and after it";
    $hd->stop;
    cmp_ok Heddle::Faults::done($hd), '>', 1000, "seed $seed: all that in spite of many odd calls";
}
done_testing;
