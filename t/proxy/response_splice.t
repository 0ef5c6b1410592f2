#!/usr/bin/perl
# splice: a large body of known length goes from the upstream's socket to the client's, both plain HTTP/1
# (heddle_spliced_bytes_total); over TLS or HTTP/2, in chunks, at a rate or through a filter it is copied. All arrives as
# it was sent, also at clients that read slowly; what lies behind a body is seen; pipes are used again, or closed.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Socket qw(SOL_SOCKET SO_RCVBUF);

my $hd = Heddle->new(modules => ['gzip', 'access_log']);
my $ca = $hd->make_ca('root');
$ca->make_cert('localhost', dns => 'localhost');
$hd->conf(<<'EOC');
admin %%ADMIN%%;
events { worker_connections 256; }
http {
    log_format sizes '$uri $status $body_bytes_sent $upstream_response_length';
    access_log %%DIR%%/sizes.log sizes;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream up { server 127.0.0.1:%%PORT_9%%; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://up; }
        location /rate/ { limit_rate 100m; proxy_pass http://up/; }
        location /paced/ { proxy_limit_rate 100m; proxy_pass http://up/; }
        location /gzip/ { gzip on; gzip_types *; gzip_comp_level 1; proxy_pass http://up/; }
        location /trailer/ { add_trailer X-End yes; proxy_pass http://up/; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl;
        ssl_certificate certs/localhost.crt;
        ssl_certificate_key certs/localhost.key;
        location / { proxy_pass http://up; }
    }
    server { listen 127.0.0.1:%%PORT_2%% sndbuf=64k; location / { proxy_pass http://up; } }
}
EOC
my $MB = 1 << 20;
my $big = substr join('', map { pack 'N1024', $_ * 1024 .. $_ * 1024 + 1023 } 0 .. 8 * $MB / 4096), 0, 8 * $MB;
$hd->tcp_backend(9, sub { # /N.KIND: N bytes
    my ($sock, $conn) = @_;
    my $in = '';
    while (1) {
        while ($in !~ /\r\n\r\n/) { sysread($sock, $in, 4096, length $in) or return }
        $in =~ s/^\S+ \/(\d+)\.?(\w*).*?\r\n\r\n//s;
        my ($n, $kind, $head) = ($1, $2, "HTTP/1.1 200 OK\r\nX-Conn: $conn\r\nContent-Type: text/x\r\n");
        my $body = substr $big, 0, $n;
        if ($kind eq 'chunked') {
            printf $sock "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", $head, $n, $body;
            next;
        }
        $head .= "Content-Length: $n\r\n\r\n";
        if ($kind eq 'dies') { print $sock $head . substr $body, 0, $n / 2; return }
        if ($kind eq 'drips') {
            print $sock $head;
            for (my $at = 0; $at < $n; $at += 20_000) { syswrite $sock, substr $body, $at, 20_000; select undef, undef, undef, 0.001 }
            next;
        }
        print $sock $head . $body . ($kind eq 'more' ? "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" : '') or return;
    }
});
$hd->start;

sub spliced { my ($n) = $hd->admin('/metrics')->body =~ /^heddle_spliced_bytes_total (\d+)/m; return $n // 0 }
sub pipes { return scalar grep { (readlink($_) // '') =~ /^pipe:/ } map { glob "/proc/$_/fd/*" } $hd->workers }
sub is_big { my ($r, $n, $what) = @_; ok $r && !$r->is_cut && $r->body eq substr($big, 0, $n), $what }
sub ask { # a client that reads little
    my ($n, $uri) = @_;
    my $c = $hd->connect($n);
    setsockopt $c->{sock}, SOL_SOCKET, SO_RCVBUF, 65536 or die $!;
    $c->send("GET $uri HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return $c;
}

my $pipes = pipes();
is_big($hd->get('/30000'), 30_000, 'a small one');
is spliced(), 0, 'is copied';
is_big($hd->get('/8388000'), 8_388_000, 'a large one');
my $n = spliced();
cmp_ok $n, '>', 4 * $MB, 'is spliced, most of it';
is_big($hd->get('/3000000'), 3_000_000, "another one, $_") for 1 .. 3;
cmp_ok pipes(), '<', $pipes + 16, 'by the few pipes of the first';
$hd->wait_for(sub { 3 == (() = $hd->file('sizes.log') =~ /^\/3000000 200 3000000 3000000$/mg) }, 'sizes are logged');
pass 'the log has their sizes';
is_big($hd->get('/8000000.drips'), 8_000_000, 'one that comes in drips');
$n = spliced();
is_big($hd->get('/trailer/8000000'), 8_000_000, 'one that goes out in chunks, for its trailer');
cmp_ok spliced() - $n, '>', 4 * $MB, 'is spliced, too';

# ---- what is copied

$n = spliced();
is_big($hd->get('/8000000.chunked'), 8_000_000, 'in chunks');
is_big($hd->get("/$_/8000000"), 8_000_000, $_) for 'rate', 'paced';
{
    my $c = $hd->connect(1, tls => {ca => $ca->{cert}, sni => 'localhost'});
    $c->send("GET /8000000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    is_big($c->response, 8_000_000, 'over TLS');
}
is $hd->get('/gzip/8000000', 'Accept-Encoding' => 'gzip')->header('content-encoding'), 'gzip', 'through a filter';
is $hd->request('HEAD', '/8000000')->header('content-length'), 8_000_000, 'HEAD';
is spliced(), $n, 'none of these is spliced';

# ---- slow clients, several at once; those that leave; an upstream that dies

{
    my @c = map { ask(2, '/8000000') } 1 .. 3;
    my $left = ask(2, '/8000000');
    $left->read_bytes(200_000);
    undef $left;
    is_big($_->response, 8_000_000, 'a client that reads late') for @c;
}
{
    my $r = ask(0, '/8000000.dies')->response;
    ok $r->is_cut, 'the upstream dies: the client is told';
    ok $r->body eq substr($big, 0, 4_000_000), 'after all that was sent';
    $hd->wait_log(qr/upstream closed the connection within its response/);
}
is_big($hd->get('/8000000'), 8_000_000, 'all goes on');
$hd->wait_for(sub { pipes() <= $pipes + 16 }, 'what is left in pipes goes with them');

# ---- the end of a body is read: what lies behind it is nobody's answer

is_big($hd->get('/8000000.more'), 8_000_000, 'more than was announced');
is_big($hd->get('/10'), 10, 'the next request gets an answer of its own');
done_testing;
