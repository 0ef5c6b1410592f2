#!/usr/bin/perl
# Upgrade and CONNECT where one side or both speak HTTP/2: WebSocket's handshake in its two forms (RFC
# 6455, RFC 8441), bytes and ends both ways, a reset, a peer that can't.
use strict;
use warnings;
use Digest::SHA qw(sha1_base64);
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
http {
    http2 on;
    access_log %%DIR%%/access.log;
    proxy_set_header Upgrade $http_upgrade;
    server { # HTTP/1 upstream
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_9%%; }
    }
    server { # HTTP/2 upstream: the server above
        listen 127.0.0.1:%%PORT_1%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_0%%; proxy_http_version 2; }
    }
    server { # of a server that knows no extended CONNECT
        listen 127.0.0.1:%%PORT_2%%;
        location / { proxy_pass http://127.0.0.1:%%PORT_8%%; proxy_http_version 2; }
    }
}
EOC
# A WebSocket server as far as bytes go: echoes, "bye" ends, "cut" resets.
$hd->tcp_backend(9, sub {
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread($sock, $head, 1, length $head) or return }
    my ($key) = $head =~ /^Sec-WebSocket-Key: *(\S+)/mi;
    if ($head !~ /^Upgrade: websocket\r/mi) {
        syswrite $sock, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
        return;
    }
    my $accept = defined $key ? sha1_base64($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11') . '=' : 'none';
    syswrite $sock, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Accept: $accept\r\n\r\nhello ";
    while (sysread $sock, my $bytes, 65536) {
        return if $bytes =~ /cut/;
        syswrite $sock, $bytes;
        last if $bytes =~ /bye/;
    }
});
$hd->tcp_backend(8, sub { # HTTP/2 that offers no extended CONNECT
    my ($sock) = @_;
    syswrite $sock, Heddle::H2::head(undef, 'SETTINGS', 0, 0, '');
    1 while sysread $sock, my $bytes, 65536;
});
$hd->start;


# Pseudo-fields come first.
sub open_ws {
    my ($c, $id) = @_;
    $c->frame('HEADERS', 4, $id, Heddle::H2::fields(':method', 'CONNECT', ':protocol', 'websocket', ':scheme', 'http',
        ':path', '/chat', ':authority', 'localhost', 'sec-websocket-version', 13));
}

sub body_of { $_[0]{streams}{$_[1]}{body} // '' }

sub read_to {
    my ($c, $id, $re) = @_;
    while (body_of($c, $id) !~ $re) { $c->next or last }
    return body_of($c, $id);
}

for my $port (0, 1) {
    my $name = $port ? 'HTTP/2 to HTTP/2 to HTTP/1' : 'HTTP/2 to HTTP/1';
    my $c = Heddle::H2->new($hd->port($port));
    my $s = $c->until(sub { $_->{type} eq 'SETTINGS' });
    is {unpack '(nN)*', $s->{payload}}->{8}, 1, "$name: extended CONNECT is offered";
    open_ws($c, 1);
    $c->frame('DATA', 0, 1, 'early '); # must wait for the answer
    is read_to($c, 1, qr/early/), 'hello early ', "$name: bytes both ways, early ones too";
    is $c->{streams}{1}{status}, 200, "$name: the answer is 200";
    $c->request(3, '/plain');
    is $c->response(3)->{body}, 'plain', "$name: beside it another request";
    $c->frame('DATA', 0, 1, 'x' x 16000) for 1 .. 10; # within the stream's window
    cmp_ok length read_to($c, 1, qr/x{20000}/), '>=', 20000, "$name: many bytes";
    my $end = Heddle::H2->new($hd->port($port));
    open_ws($end, 1);
    $end->frame('DATA', 0, 1, 'bye');
    my $r = $end->response(1);
    is $r->{body}, 'hello bye', "$name: the upstream's end";
    ok !$r->{reset}, "$name: in order";
    open_ws($end, 3);
    read_to($end, 3, qr/hello/);
    $end->frame('DATA', 1, 3, 'last');
    is $end->response(3)->{body}, 'hello last', "$name: the client's end";
    open_ws($end, 5);
    read_to($end, 5, qr/hello/);
    $end->frame('RST_STREAM', 0, 5, pack 'N', 8);
    $end->request(7, '/plain');
    is $end->response(7)->{status}, 200, "$name: after a reset the connection goes on";
    open_ws($end, 9);
    read_to($end, 9, qr/hello/);
    $end->close; # with a tunnel open
}

{
    my $key = 'dGhlIHNhbXBsZSBub25jZQ==';
    my $c = $hd->connect(1);
    $c->send("GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        . "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: $key\r\n\r\n");
    my $head = $c->read_until(qr/\r\n\r\n/);
    like $head, qr{^HTTP/1.1 101 }, 'HTTP/1 to HTTP/2 to HTTP/1: 101';
    like $head, qr/^Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r/mi, 'with the right answer to the key';
    like $head, qr/^Upgrade: websocket\r/mi, 'Upgrade';
    is $c->read_bytes(6), 'hello ', 'bytes down';
    $c->send('bye');
    is $c->read_all, 'bye', 'and up, and the end';
}
is $hd->get('/chat', {port => 2}, Upgrade => 'websocket', Connection => 'Upgrade', 'Sec-WebSocket-Key' => 'a',
    'Sec-WebSocket-Version' => 13)->{status}, 502, 'an upstream without extended CONNECT: 502';

{
    my $c = Heddle::H2->new($hd->port(0));
    $c->frame('HEADERS', 4, 1, Heddle::H2::fields(':method', 'CONNECT', ':authority', 'localhost:80'));
    is $c->response(1)->{status}, 405, 'CONNECT itself: as in HTTP/1';
    $c->frame('HEADERS', 4, 3, Heddle::H2::fields(':method', 'CONNECT', ':authority', 'localhost'));
    is $c->response(3)->{status}, 400, 'CONNECT without a port';
}
{
    my $c = Heddle::H2->new($hd->port(0));
    for my $protocol ('websocket, h2c', 'h2c', 'web socket') {
        my $id = $c->{last_id} = ($c->{last_id} // -1) + 2;
        $c->frame('HEADERS', 4, $id, Heddle::H2::fields(':method', 'CONNECT', ':protocol', $protocol, ':scheme', 'http',
            ':path', '/', ':authority', 'localhost'));
        is $c->response($id)->{status}, 400, "no protocol: $protocol";
    }
}
done_testing;
