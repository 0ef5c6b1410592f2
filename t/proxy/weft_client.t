#!/usr/bin/perl
# The client's side of a link against servers of every kind: one that takes few streams at once, heads longer than a
# frame may be, streams that it resets, GOAWAY that crosses a request, interim responses without
# end (over HTTP/2, too), heads beyond proxy_buffer_size, PING.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(workers => 1);
my $ca = $hd->make_ca('root');
my $server = $ca->make_cert('server', dns => 'backend.test');
my $own = $ca->make_cert('own', spiffe => 'spiffe://test/ns/a/sa/own');
my $tls = "ssl_certificate $server->{cert}; ssl_certificate_key $server->{key};"
    . " ssl_client_certificate $ca->{cert}; ssl_verify_client on;";
$hd->conf(<<"EOC");
worker_shutdown_timeout 1s; # the stream session waits for a link that waits for it
http {
    proxy_ssl_name backend.test;
    proxy_ssl_trusted_certificate $ca->{cert};
    proxy_ssl_verify on;
    proxy_ssl_certificate $own->{cert};
    proxy_ssl_certificate_key $own->{key};
    proxy_next_upstream off;
    large_client_header_buffers 4 20k;
    upstream cold { server 127.0.0.1:%%PORT_few%%; circuit_breaker retries=1; }
    upstream ping { server 127.0.0.1:%%PORT_ping_tls%%; keepalive_ping 20ms timeout=5s; }
    upstream dead { server 127.0.0.1:%%PORT_ping_tls%%; keepalive_ping 20ms timeout=100ms; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /dead/ { proxy_pass https://dead; }
        location /few_h2/ { proxy_pass https://127.0.0.1:%%PORT_few%%/; proxy_multiplex off; proxy_http_version 2; }
        location /cold/ { proxy_pass https://cold/; proxy_multiplex off; proxy_http_version 2; }
        location /few/ { proxy_pass https://127.0.0.1:%%PORT_few%%/; }
        location /long/ { proxy_pass https://127.0.0.1:%%PORT_few%%/;
            set \$ten "\$http_x_0\$http_x_0\$http_x_0\$http_x_0\$http_x_0\$http_x_0\$http_x_0\$http_x_0\$http_x_0\$http_x_0";
            proxy_set_header X-More "\$ten\$ten\$ten\$ten\$ten\$ten\$ten";
        }
        location /h2/ { proxy_pass http://127.0.0.1:%%PORT_h2%%; proxy_http_version 2; }
        location /ping/ { proxy_pass https://ping; }
        location /raw/ { proxy_pass https://127.0.0.1:%%PORT_tls%%; proxy_buffer_size 4k; }
    }
    server {
        listen 127.0.0.1:%%PORT_few%% ssl;
        $tls
        http2 on;
        http2_max_concurrent_streams 4;
        access_log %%DIR%%/few.log;
        large_client_header_buffers 4 8k;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /drop { return 444; }
        location /link { return 200 "\$connection \$ssl_alpn_protocol"; }
    }
}
stream {
    server { listen 127.0.0.1:%%PORT_tls%% ssl; ssl_alpn heddle-weft/1; $tls proxy_pass 127.0.0.1:%%PORT_weft%%; }
    server { listen 127.0.0.1:%%PORT_ping_tls%% ssl; ssl_alpn heddle-weft/1; $tls proxy_pass 127.0.0.1:%%PORT_ping%%; }
}
EOC
$hd->backend(1, sub { {status => 200, headers => {}, body => length $_[0]{head}, after => $_[0]{uri} eq '/late' ? 0.1 : 0} });

sub frame { my ($type, $id, $payload) = @_; return pack('N N', length($payload) << 8 | $type, $id) . $payload }
my ($HEAD, $DATA, $GOAWAY, $PING, $END) = (2, 3, 7, 8, 0x80);

# What comes from <sock>, frame by frame: (type, id, payload), until <take> says that it is over.
sub each_frame {
    my ($sock, $take) = @_;
    my $in = '';
    while (sysread $sock, $in, 65536, length $in) {
        while (length $in >= 8) {
            my ($word, $id) = unpack 'N N', $in;
            my ($len, $type) = ($word >> 8, $word & 0x3f);
            last if length $in < 8 + $len;
            my $payload = substr substr($in, 0, 8 + $len, ''), 8;
            return if ($take->($type, $id, $payload) // '') eq 'over';
        }
    }
}

# A server by hand: what it does is in the path of the request.
$hd->tcp_backend('weft', sub {
    my ($sock) = @_;
    my $first = !-e $hd->dir . '/second';
    my $n = 0;
    syswrite $sock, frame(1, 0, pack 'C x3 N N', 1, 100, 65536);
    each_frame($sock, sub {
        my ($type, $id, $payload) = @_;
        return if $type != $HEAD;
        my ($path) = $payload =~ m{^\w+ /raw/(\w+)};
        $n++;
        if ($path eq 'crossed' && $first) { # it was on its way when we said GOAWAY and closed
            open my $f, '>', $hd->dir . '/second' or die "second: $!";
            syswrite $sock, frame($GOAWAY, 0, pack 'N', $n - 1);
            return 'over';
        }
        my $interims = $path eq 'endless' ? 1001 : $path eq 'many' ? 1000 : 0;
        syswrite $sock, frame($HEAD, $id, "HTTP/1.1 102 Processing\r\n\r\n") for 1 .. $interims;
        my $field = $path eq 'long' ? 'X-Long: ' . 'x' x 5000 . "\r\n" : '';
        syswrite $sock, frame($HEAD | $END, $id, "HTTP/1.1 200 OK\r\n$field\r\n");
        return;
    });
});
# Answers PINGs, but for one that is silent from its request for /silent on; tells of how many at the request's path.
$hd->tcp_backend('ping', sub {
    my ($sock) = @_;
    my ($pings, $waiting, $is_silent) = (0, 0, 0);
    syswrite $sock, frame(1, 0, pack 'C C x2 N N', 1, 1, 100, 65536);
    each_frame($sock, sub {
        my ($type, $id, $payload) = @_;
        $is_silent = 1 if $type == $HEAD && $payload =~ m{/silent};
        return if $is_silent;
        $waiting = $id if $type == $HEAD;
        return if $type != $PING;
        $pings++;
        syswrite $sock, frame($PING | $END, 0, '');
        syswrite $sock, frame($HEAD, $waiting, "HTTP/1.1 200 OK\r\n\r\n") . frame($DATA | $END, $waiting, 'five') if $pings == 5;
        return;
    });
});
# The same of HTTP/2, by a server that knows no more of it than this.
$hd->tcp_backend('h2', sub {
    my ($sock) = @_;
    my $in = '';
    my $send = sub { my ($type, $flags, $id, $payload) = @_; syswrite $sock, substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $id) . $payload };
    $send->(4, 0, 0, '');
    while (sysread $sock, $in, 65536, length $in) {
        substr $in, 0, 24, '' if $in =~ /^PRI /;
        while (length $in >= 9 && length $in >= 9 + (my $len = unpack 'N', "\0" . substr $in, 0, 3)) {
            my ($type, undef, $id) = unpack 'CCN', substr substr($in, 0, 9 + $len, ''), 3;
            next if $type != 1;
            $send->(1, 4, $id, "\x08\x03102") for 1 .. ($id == 1 ? 1000 : 1001);
            $send->(1, 5, $id, "\x88");
        }
    }
});
$hd->start;

my $first = $hd->get('/few/link')->body;
like $first, qr{heddle-weft/1$}, 'a link';
$hd->reload; # nothing changed: it is the same
my @conns = map { my $c = $hd->connect(0); $c->send("POST /few/late HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"); $c } 1 .. 60;
is scalar(grep { $_->response->status == 200 } @conns), 60, '60 at once to a server that takes 4 over a link';

@conns = map { my $c = $hd->connect(0); $c->send("POST /cold/late HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"); $c } 1 .. 60;
is scalar(grep { $_->response->status == 200 } @conns), 60, 'over HTTP/2, which no one has spoken to it yet: refused ones are no retries';

sub long { return $hd->get("/$_[0]/a", map { ("X-$_" => 'x' x 16000) } 0 .. $_[1] - 1) }
$first = $hd->get('/few/link')->body;
is long('few', 0)->status, 200, 'a short head';
is long('few', 4)->status, 431, 'one of 64 KB is answered by the server, whose limit it is';
$hd->wait_for(sub { $hd->file('few.log') =~ m{"GET /a HTTP/1\.1" 431 } }, 'its line in the log, from a head that is kept as long as its request');
is $hd->get('/few/link')->body, $first, 'the link goes on';
is long('long', 1)->status, 502, 'one that we made longer than a frame';
is $hd->get('/few/link')->body, $first, 'the link goes on';

# A stream that the server resets on a connection that goes on: no race explains it.
for my $way ('few', 'few_h2') {
    is $hd->get("/$way/link")->status, 200, "$way: a connection";
    is $hd->get("/$way/drop?$way")->status, 502, 'a stream that is reset';
    $hd->wait_log(qr{\d upstream reset the stream: internal.error, .* a reused connection .*"GET /$way/drop\?.* flags: "UR"}i);
    unlike $hd->log, qr/reset the connection: upstream reset the stream/, 'not the connection';
    is scalar(my @asked = $hd->file('few.log') =~ m{/drop\?$way }g), 1, 'was asked for once';
}

is $hd->post('/raw/crossed', 'x')->status, 200, 'a request that GOAWAY did not count is repeated, whatever its method';
is scalar(my @lines = $hd->log =~ /upstream (?:closed|reset) the connection/g), 0, 'without a word';
$_->close for @conns;

# The status after all that are interim.
sub last_status {
    my ($path) = @_;
    my $c = $hd->connect(0);
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n");
    my $status = 102;
    $status = $c->response->status while $status == 102;
    return $status;
}
is last_status('/raw/many'), 200, '1000 interim responses';
is last_status('/raw/endless'), 502, 'but not without end';
is last_status('/h2/'), 200, 'HTTP/2: 1000';
is last_status('/h2/'), 502, 'HTTP/2: not without end';
$hd->wait_log(qr/interim responses without end/);
is $hd->get('/raw/long')->status, 502, 'a head beyond proxy_buffer_size';
$hd->wait_log(qr/upstream sent too big header .* 4096 bytes \(proxy_buffer_size\)/);
is $hd->get('/raw/good')->status, 200, 'the next one';

# PING: a server that answers it is waited for, one that doesn't is dead.
is $hd->get('/ping/')->body, 'five', 'keepalive_ping: one after the other';
is $hd->get('/dead/silent')->status, 502, 'one that is silent';
$hd->wait_log(qr{weft: PING isn't answered, .*"GET /dead/silent .*flags: "UC"});
$hd->stop;
done_testing;
