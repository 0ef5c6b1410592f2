#!/usr/bin/perl
# proxy_buffering: a response is read ahead of a client that takes it slowly, into proxy_buffers, then into a
# file of at most proxy_max_temp_file_size, so that the upstream is free early; who is fast gets each byte at
# once. By X-Accel-Buffering, not for gRPC; upstreams that die, clients that leave, files that can't be had.
# Holds for nginx, too, but for what it says of Heddle: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use IO::Uncompress::Gunzip qw(gunzip);
use Socket qw(SOL_SOCKET SO_RCVBUF SO_SNDBUF);

my $is_nginx = ($ENV{HD_PROGRAM} // '') =~ /nginx/;
my $MB = 1 << 20;
my $BIG = 6 * $MB; # more than the sockets to the client hold: they are kept small
my $hd = Heddle->new(modules => $is_nginx ? [] : ['gzip']);
my $ca = $hd->make_ca('root');
$ca->make_cert('localhost', dns => 'localhost');
my $conf = <<'EOC';
events { worker_connections 256; }
http {
    access_log off;
    keepalive_requests 100000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_temp_path %%DIR%%/temp 1 2;
    proxy_buffers 8 8k;
    proxy_buffer_size 8k;
    proxy_busy_buffers_size 16k;
    upstream up { server 127.0.0.1:%%PORT_9%%; keepalive 32; }
    server {
        listen 127.0.0.1:%%PORT_0%% sndbuf=64k;
        location / { proxy_pass http://up; }
        location /off/ { proxy_buffering off; proxy_pass http://up/; }
        location /deaf/ { proxy_ignore_headers X-Accel-Buffering; proxy_pass http://up/; }
        location /memory/ { proxy_max_temp_file_size 0; proxy_pass http://up/; }
        location /small/ { proxy_max_temp_file_size 1m; proxy_temp_file_write_size 64k; proxy_pass http://up/; }
        location /sendfile/ { sendfile on; sendfile_max_chunk 512k; proxy_pass http://up/; }
        location /sendfile1m/ { sendfile on; proxy_max_temp_file_size 1m; proxy_pass http://up/; }
        location /gzip/ { gzip on; gzip_types *; gzip_comp_level 1; proxy_pass http://up/; }
        location /nowhere/ { proxy_temp_path %%DIR%%/file/x; proxy_pass http://up/; }
        location /http10/ { proxy_http_version 1.0; proxy_pass http://up/; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl http2 sndbuf=64k;
        ssl_certificate certs/localhost.crt;
        ssl_certificate_key certs/localhost.key;
        location / { proxy_pass http://up; }
    }
    server { listen 127.0.0.1:%%PORT_2%% http2 sndbuf=64k; location / { proxy_pass http://up; } }
}
EOC
$conf =~ s/.*nowhere.*\n// if $is_nginx; # it makes the folders at its start
$hd->conf($conf);
sub text { my ($n) = @_; return substr join('', map { pack 'N1023', $_ .. $_ + 1022 } 0 .. $n / 4092), 0, $n }
my $big = text($BIG);
my $huge = $big x 4; # more than the upstream's sockets hold, too: heddle's receive buffer grows

# One answer: /big?NAME=..., and when the sockets have taken all of it, a file NAME in the directory. Its connection
# ends unless keep=1: the window of one that was used may hold the next answer whole.
sub answer {
    my ($sock, $uri, $conn) = @_;
    my %q = $uri =~ /[?&](\w+)=([^&]*)/g;
    my $body = $q{huge} ? $huge : substr $big, 0, $q{n} // $BIG;
    my $head = "HTTP/1.1 200 OK\r\nX-Conn: $conn\r\nContent-Type: " . ($q{type} // 'text/x') . "\r\n";
    $head .= "X-Accel-Buffering: $q{accel}\r\n" if $q{accel};
    if ($uri =~ m{^/quick}) { print $sock $head . "Content-Length: 5\r\n\r\nquick"; return 1 }
    if ($uri =~ m{^/events}) {
        print $sock $head . "Transfer-Encoding: chunked\r\n\r\n";
        for my $n (1 .. 5) {
            printf $sock "%x\r\n%s\r\n", 8, "event: $n";
            select undef, undef, undef, 0.01 until -e $hd->dir . "/event$n";
        }
        print $sock "0\r\n\r\n";
        return 1;
    }
    $head .= "Connection: close\r\n" if !$q{keep};
    my $whole = length $body;
    $body = substr $body, 0, $q{dies} if $q{dies};
    if ($uri =~ m{^/chunked}) {
        print $sock $head . "Transfer-Encoding: chunked\r\n\r\n";
        my $at = 0;
        for (my $size = 1; $at < length $body; $at += $size, $size = $size * 3 % 70_001) {
            my $piece = substr $body, $at, $size;
            printf $sock "%x\r\n%s\r\n", length $piece, $piece or return 0;
        }
        print $sock "0\r\n\r\n" or return 0 if !$q{dies};
    } elsif ($uri =~ m{^/close}) {
        print $sock "$head\r\n$body" or return 0;
    } else {
        print $sock $head . "Content-Length: $whole\r\n\r\n" . $body or return 0;
    }
    if ($q{name}) { open my $f, '>', $hd->dir . "/$q{name}" or die $!; close $f }
    return $q{keep};
}
$hd->tcp_backend(9, sub {
    my ($sock, $n) = @_;
    my $in = '';
    setsockopt $sock, SOL_SOCKET, SO_SNDBUF, 65536 or die $!;
    while (1) {
        while ($in !~ /\r\n\r\n/) { sysread($sock, $in, 4096, length $in) or return }
        $in =~ s/^\S+ (\S+).*?\r\n\r\n//s;
        answer($sock, $1, $n) or return;
    }
});
$hd->start;
$hd->write('file', 'x');

my $names = 0;
sub ask { # on a connection that then reads no more than the head
    my ($uri, %opt) = @_;
    my $c = $hd->connect($opt{port} // 0, $opt{tls} ? (tls => {ca => $ca->{cert}, sni => 'localhost'}) : ());
    setsockopt $c->{sock}, SOL_SOCKET, SO_RCVBUF, 65536 or die $!;
    $c->send("GET $uri HTTP/1.1\r\nHost: localhost\r\n" . ($opt{fields} // '') . "\r\n");
    return $c;
}
sub is_sent { my ($name) = @_; return -e $hd->dir . "/$name" }
sub temp_files {
    my @f = grep { (readlink($_) // '') =~ m{\Q@{[$hd->dir]}\E/temp/} } map { glob "/proc/$_/fd/*" } $hd->workers;
    return wantarray ? @f : scalar @f;
}
sub quick { $hd->get('/quick')->body }
sub is_whole { my ($r, $what) = @_; ok $r && !$r->is_cut && $r->body eq $big, $what }

# ---- a slow client, whatever the framing: the upstream is free before it reads on

for my $uri ('/big', '/chunked', '/close', '/sendfile/big', '/http10/close', '/gzip/big') {
    my $name = 'a' . ++$names;
    my $c = ask("$uri?name=$name", fields => $uri =~ /gzip/ ? "Accept-Encoding: gzip\r\n" : '');
    $hd->wait_for(sub { is_sent($name) }, "$uri: all is taken from the upstream");
    $hd->wait_for(sub { temp_files() == 1 }, "$uri: what memory doesn't hold lies in a file");
    is quick(), 'quick', 'others are served';
    my $r = $c->response;
    if ($uri =~ /gzip/) {
        my $packed = $r->body;
        gunzip(\$packed => \my $body) or die;
        is $r->header('content-encoding'), 'gzip', 'compressed behind it';
        ok $body eq $big, 'and whole';
    } else {
        is_whole($r, "$uri: the client gets all of it");
    }
    $hd->wait_for(sub { temp_files() == 0 }, 'the file is gone');
}
SKIP: {
    skip 'nginx keeps names', 1 if $is_nginx;
    is_deeply [glob $hd->dir . '/temp/*'], [], 'files have no names';
}
{
    my $c = ask('/big?keep=1&name=reuse');
    $hd->wait_for(sub { is_sent('reuse') }, 'sent');
    my ($conn) = $c->read_until(qr/\r\n\r\n/) =~ /X-Conn: (\d+)/;
    my $ask = sub { my $c = $hd->connect; $c->send("GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); return $c };
    my $n = 2;
    $hd->wait_for(sub { # more and more at once: so few might take the same other connections, used later, each time
        my @quick = map { $ask->() } 1 .. ++$n;
        return grep { $_->response->header('x-conn') == $conn } @quick;
    }, 'its connection serves others meanwhile');
    pass 'its connection serves others meanwhile';
}

# ---- TLS, HTTP/2

{
    my $c = ask('/big?name=tls', port => 1, tls => 1);
    $hd->wait_for(sub { is_sent('tls') }, 'by TLS, too');
    is_whole($c->response, 'whole');
    my $h2 = Heddle::H2->new($hd->port(2));
    $h2->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x7f000000); # the connection has room, its stream hasn't
    $h2->request(1, '/big?name=h2');
    $hd->wait_for(sub { is_sent('h2') }, 'by HTTP/2');
    $h2->request(3, '/quick');
    is $h2->response(3)->{body}, 'quick', 'other streams go on';
    $h2->frame('WINDOW_UPDATE', 0, 1, pack 'N', 0x7f000000);
    ok $h2->response(1)->{body} eq $big, 'whole';
    $hd->wait_for(sub { temp_files() == 0 }, 'no file is left');
}

# ---- what isn't read ahead

for my $uri ('/off/big?', '/big?accel=no&', '/memory/big?', '/big?type=grpc&') {
    next if $is_nginx && $uri =~ /grpc/;
    my $name = 'b' . ++$names;
    my $c = ask("${uri}huge=1&name=$name", fields => $uri =~ /grpc/ ? "Content-Type: application/grpc\r\n" : '');
    $c->read_bytes(1000);
    quick() for 1 .. 5;
    select undef, undef, undef, 0.6; # far longer than a client is waited for
    ok !is_sent($name), "$uri: the upstream waits for the client";
    is temp_files(), 0, 'there is no file';
    ok $hd->get("${uri}huge=1&name=$name")->body eq $huge, 'and who reads gets all';
}
for my $uri ('/off/big?accel=yes&', '/deaf/big?accel=no&') {
    my $name = 'c' . ++$names;
    my $c = ask("${uri}name=$name");
    $hd->wait_for(sub { is_sent($name) }, "$uri: read ahead");
    is_whole($c->response, 'whole');
}

# ---- the file's ceiling: the upstream is held back, the room is used again

for my $uri ('/small/big', '/sendfile1m/big', '/small/chunked') {
    my $name = 'd' . ++$names;
    my $c = ask("$uri?huge=1&name=$name");
    $hd->wait_for(sub { my @f = temp_files(); @f == 1 && -s $f[0] > 1_000_000 - 70_000 }, 'the file fills');
    quick() for 1 .. 5;
    ok !is_sent($name), "$uri: then the upstream waits";
    cmp_ok -s (temp_files())[0], '<=', $MB + ($is_nginx ? 65536 : 0), 'the file is not too large'; # nginx: a write more
    ok $c->response->body eq $huge, 'all arrives, in order';
}

# ---- an upstream that dies, a client that leaves

for my $uri ('/big', '/chunked') {
    my $name = 'e' . ++$names;
    my $c = ask("$uri?name=$name&dies=4000000");
    $hd->wait_for(sub { is_sent($name) }, 'the upstream has died');
    $hd->wait_for(sub { temp_files() == 1 }, 'what it sent is kept');
    my $r = $c->response;
    ok $r->is_cut, "$uri: the client is told";
    ok $r->body eq substr($big, 0, 4_000_000), 'after all that was sent';
}
SKIP: {
    skip 'of Heddle', 1 if $is_nginx;
    $hd->wait_log(qr/upstream closed the connection within its response/, 2);
    pass 'the log says why';
}
{
    my $c = ask('/small/big?name=left');
    $hd->wait_for(sub { temp_files() == 1 }, 'a file');
    undef $c;
    $hd->wait_for(sub { temp_files() == 0 }, 'the file goes with its client');
    ok !is_sent('left'), 'and the upstream is let go of';
}

# ---- fast clients: each event at once

for my $uri ('/events', '/off/events') {
    my $c = ask($uri);
    for my $n (1 .. 5) {
        like $c->read_until(qr/event: $n/), qr/event: $n/, "$uri: event $n comes before the next is made";
        open my $f, '>', $hd->dir . "/event$n" or die $!;
    }
    like $c->read_until(qr/\r\n0\r\n\r\n/), qr/\r\n0\r\n/, 'and the end';
    unlink map { $hd->dir . "/event$_" } 1 .. 5;
}
is $hd->request('HEAD', '/big')->header('content-length'), $BIG, 'HEAD';

# ---- a file that can't be had: the log tells, the upstream waits for the client as without one (t/unit/ahead.c:
# of one that is full)

SKIP: {
    skip 'of Heddle: nginx ends the response', 2 if $is_nginx;
    my $c = ask('/nowhere/big?name=nowhere');
    $hd->wait_log(qr/\[error\].*a temp file in .*file\/x: .*no longer read ahead/);
    quick();
    ok !is_sent('nowhere'), 'a folder that is none: the upstream waits';
    is_whole($c->response, 'whole');
}
done_testing;
