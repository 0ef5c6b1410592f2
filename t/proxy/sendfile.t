#!/usr/bin/perl
# sendfile, sendfile_max_chunk: large files and parts of them go to the socket without being read, and arrive
# as they do otherwise: whole, in ranges, pipelined, to clients that are slow or leave; over TLS, HTTP/2 and
# through filters they are read. Holds for nginx, too, but for what it says of Heddle.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(modules => ($ENV{HD_PROGRAM} // '') =~ /nginx/ ? [] : ['gzip']);
my $ca = $hd->make_ca('root');
$ca->make_cert('localhost', dns => 'localhost');
$hd->conf(<<'EOC');
events { worker_connections 256; }
http {
    sendfile on;
    sendfile_max_chunk 300k;
    gzip_types application/octet-stream;
    default_type application/octet-stream;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        root %%DIR%%/www;
        location /all/ { sendfile_max_chunk 0; alias %%DIR%%/www/; }
        location /read/ { sendfile off; alias %%DIR%%/www/; }
        location /gzip/ { gzip on; alias %%DIR%%/www/; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl http2;
        ssl_certificate certs/localhost.crt;
        ssl_certificate_key certs/localhost.key;
        root %%DIR%%/www;
    }
}
EOC
mkdir $hd->dir . '/www';
my $big = pack 'N*', 0 .. 1_500_000;
sub put { my ($name, $text) = @_; $hd->write("www/$name", ''); open my $f, '>:raw', $hd->dir . "/www/$name" or die $!; print $f $text; close $f or die $! }
put('big', $big);
put('small', substr $big, 0, 5000);
put('shrinks', $big);
$hd->start;

sub open_files { my ($name) = @_; return scalar grep { (readlink($_) // '') =~ m{/www/\Q$name\E} } map { glob "/proc/$_/fd/*" } $hd->workers }

for my $where ('', '/all', '/read') {
    is $hd->get("$where/$_->[0]")->body eq $_->[1], 1, "$where/$_->[0]" for ['big', $big], ['small', substr $big, 0, 5000];
    my $r = $hd->get("$where/big", Range => 'bytes=1000000-4999999');
    ok $r->status == 206 && $r->body eq substr($big, 1_000_000, 4_000_000), 'a range';
    $r = $hd->get("$where/big", Range => 'bytes=0-99999,200000-399999,-50000');
    my @parts = split /\r\n--\d{20}(?:--)?\r\n/, $r->body;
    s/^.*?\r\n\r\n//s for @parts;
    is_deeply [map { length } grep { length } @parts], [100_000, 200_000, 50_000], 'ranges';
    ok $parts[2] eq substr($big, 200_000, 200_000), 'the bytes of one';
    my $c = $hd->connect(0);
    $c->send("GET $where/big HTTP/1.1\r\nHost: a\r\n\r\nGET $where/small HTTP/1.1\r\nHost: a\r\n\r\n");
    is $c->response->body eq $big, 1, 'pipelined: the first';
    is $c->response->body eq substr($big, 0, 5000), 1, 'and the next';
}
is $hd->request('HEAD', '/big')->header('content-length'), length $big, 'HEAD';
is $hd->curl('-s', '-k', $_, '-o', $hd->dir . '/got', '-w', '%{size_download}', 'https://127.0.0.1:' . $hd->port(1) . '/big'),
    length $big, "by TLS, $_" for '--http1.1', '--http2';
is $hd->file('got') eq $big, 1, 'the same bytes';
is $hd->get('/gzip/small', 'Accept-Encoding' => 'gzip')->header('content-encoding'), 'gzip', 'filters see bytes';

# a slow client, and one that leaves
my $slow = $hd->connect(0);
$slow->send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
my $got = $slow->read_bytes(1000);
is $hd->get('/small')->status, 200, 'others are served meanwhile';
$got .= $slow->read_all;
is substr($got, -length $big) eq $big, 1, 'a slow client gets all of it';
$slow = $hd->connect(0);
$slow->send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
$slow->read_bytes(1000);
$hd->wait_for(sub { open_files('big') == 1 }, 'the file is open');
undef $slow;
$hd->wait_for(sub { open_files('big') == 0 }, 'the file is closed with its client');
pass 'and is closed when its client leaves';

# a file that becomes shorter while it is sent
$slow = $hd->connect(0);
$slow->send("GET /shrinks HTTP/1.1\r\nHost: a\r\n\r\n");
$slow->read_bytes(1000);
truncate $hd->dir . '/www/shrinks', 1000 or die $!;
ok length($slow->read_all) < length $big, 'its answer is cut';
is $hd->get('/small')->status, 200, 'and the worker goes on';

$hd->expect_log(qr/sendfile\(\) reported that .* was truncated/) if !$hd->is_heddle;

# what the kernel was asked for
SKIP: {
    my ($strace) = grep { -x } '/usr/bin/strace';
    skip 'no strace', 3 if !$strace;
    my ($pid) = $hd->workers;
    my $out = $hd->dir . '/strace';
    my $tracer = fork // die;
    if (!$tracer) { exec $strace, '-qq', '-e', 'trace=sendfile,pread64', '-o', $out, '-p', $pid or POSIX::_exit(1) }
    my $tries = 0;
    select undef, undef, undef, 0.02 until $tries++ > 500 || slurp("/proc/$pid/status") =~ /TracerPid:\t[1-9]/;
    skip 'strace may not look', 3 if slurp("/proc/$pid/status") !~ /TracerPid:\t[1-9]/;
    $hd->get($_) for '/big', '/small', '/read/big';
    kill 'INT', $tracer;
    waitpid $tracer, 0;
    my $calls = slurp($out);
    my @asked = $calls =~ /^sendfile\(.*, (\d+)\)/mg;
    cmp_ok scalar(@asked), '>=', length($big) / 307200, 'sendfile is called';
    is scalar(grep { $_ > 307200 } @asked), 0, 'for at most sendfile_max_chunk' if $hd->is_heddle; # nginx: some more
    my $read = () = $calls =~ /^pread64/mg;
    cmp_ok $read, '>', 5_000_000 / 16384, 'and without it, and for what is small, files are read' if $hd->is_heddle;
}
sub slurp { my ($p) = @_; open my $f, '<:raw', $p or return ''; local $/; return scalar <$f> }
done_testing;
