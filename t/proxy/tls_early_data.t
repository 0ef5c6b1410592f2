#!/usr/bin/perl
# ssl_early_data: requests sent along with the hello, over HTTP/1.1 and HTTP/2; $ssl_early_data tells which;
# a ticket is good once, whatever worker gets it; who is refused goes on as if it had sent none; no tunnel
# is opened (RFC 8446 §2.3, §8.1, RFC 8470).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Select;
use IO::Socket::INET;
use Heddle;

my $hd = Heddle->new(workers => 2);
my $ca = $hd->make_ca('root');
my $server = $ca->make_cert('server', dns => 'a.test');
my $client = $ca->make_cert('client', cn => 'ann');
my $dir = $hd->dir;

sub server {
    my ($n, $more, $rest) = @_;
    $rest //= <<'EOC';
location / { return 200 "early [$ssl_early_data] $ssl_session_reused\n"; }
        location /proxied {
            proxy_pass http://127.0.0.1:%%PORT_9%%;
            proxy_set_header Early-Data $ssl_early_data;
        }
EOC
    return <<"EOC";
    server {
        listen 127.0.0.1:%%PORT_$n%% ssl http2 reuseport;
        ssl_certificate $server->{cert};
        ssl_certificate_key $server->{key};
        ssl_early_data on;
        access_log $dir/$n.log which;
        $more
        $rest
    }
EOC
}
my $shared = 'ssl_session_cache shared:S:1m;';
$hd->conf("http {\nlog_format which '\$uri [\$ssl_early_data] \$status';\n" . join('',
    server('shared', $shared),
    server('ids', "$shared ssl_session_tickets off;"),
    server('builtin', 'ssl_session_cache builtin;'),
    server('tunnel', $shared, 'tunnel_pass;'),
    server('none', ''),
    server('verify', "$shared ssl_verify_client optional; ssl_client_certificate $ca->{cert};"),
) . '}');
$hd->echo_server(9);
my (undef, $warned) = $hd->run('-t');
is +(() = $warned =~ /"ssl_early_data" has no effect without "ssl_session_cache/g), 1, 'without a cache: a warning';
like $warned, qr/"ssl_early_data" has no effect with "ssl_verify_client"/, 'who verifies clients: likewise';
$hd->start;

# Asks with a session (a file), with early data (text) and more behind the handshake; what s_client says.
my $files = 0;
sub s_client {
    my ($n, $early, $later, @args) = @_;
    my $port = $hd->port($n);
    my $file = 'early' . $files++;
    if (defined $early) { $hd->write($file, $early); push @args, '-early_data', "$dir/$file" }
    $hd->write("$file.in", $later);
    return `timeout 30 openssl s_client -connect 127.0.0.1:$port -servername a.test -ign_eof @args <$dir/$file.in 2>/dev/null`;
}
sub request { my ($path, @fields) = @_; return join "\r\n", "GET $path HTTP/1.1", 'Host: a.test', @fields, '', '' }
my $last = request('/last', 'Connection: close');
sub session { my ($n, @args) = @_; my $file = "$dir/session" . $files++; s_client($n, undef, $last, '-sess_out', $file, @args); return $file }
sub early { my ($n, $early, $later, @args) = @_; return s_client($n, $early, $later, '-sess_in', session($n, @args), @args) }
sub logged { my ($n, $path) = @_; my @all = grep { /^\Q$path\E / } split /\n/, $hd->file("$n.log"); return @all }

# --- between client and server
# The complete records of some bytes, each its type and itself.
sub records {
    my ($bytes) = @_;
    my @all;
    while (length $bytes >= 5 && length $bytes >= 5 + (my $n = unpack 'x3n', $bytes)) {
        push @all, [ord $bytes, substr($bytes, 0, 5 + $n, '')];
    }
    return @all;
}
sub sealed { return scalar grep { $_->[0] == 23 } records($_[0]) }
# s_client with early data, to a port of ours: the connection, and how to get its output.
sub intercept {
    my ($session, $early, @args) = @_;
    my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die $@;
    my $port = $listener->sockport;
    my ($in, $out) = map { "$_" . $files++ } qw(early out);
    $hd->write($in, $early);
    my $pid = fork // die $!;
    exec "timeout 30 openssl s_client -connect 127.0.0.1:$port -servername a.test -sess_in $session -early_data $dir/$in -ign_eof @args </dev/null >$dir/$out 2>&1"
        or die $! if $pid == 0;
    return (scalar $listener->accept, sub { waitpid $pid, 0; return $hd->file($out) });
}
sub to_server { my ($n) = @_; return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $hd->port($n)) // die $@ }
# Reads until so many sealed records are there; what comes the other way is passed on meanwhile.
sub read_sealed {
    my ($n, $from, $to) = @_;
    my $bytes = '';
    sysread $from, $bytes, 65536, length $bytes or die 'ended early' while sealed($bytes) < $n && !$to;
    my $both = IO::Select->new($from, $to // ());
    while (sealed($bytes) < $n) {
        for my $ready ($both->can_read) {
            if ($ready == $from) { sysread $from, $bytes, 65536, length $bytes or die 'ended early' }
            else { sysread $to, my $other, 65536 or die 'ended early'; syswrite $from, $other }
        }
    }
    return $bytes;
}
sub pass_on {
    my ($client, $server) = @_;
    my $both = IO::Select->new($client, $server);
    while (1) {
        for my $ready ($both->can_read) {
            my $n = sysread $ready, my $bytes, 65536;
            if (!$n) { close $_ for $client, $server; return }
            syswrite $ready == $client ? $server : $client, $bytes;
        }
    }
}

# The client's Finished is held back until the answer is there: what is early is that for sure.
sub held {
    my ($n, $early, @args) = @_;
    my ($conn, $output) = intercept(session($n, @args), $early, @args);
    my $up = to_server($n);
    syswrite $up, read_sealed(1, $conn);
    syswrite $conn, read_sealed(3, $up);    # EncryptedExtensions, Finished, the response
    pass_on($conn, $up);
    return $output->();
}

for my $n ('shared', 'ids') {
    my $text = held($n, request('/one', 'Connection: close'));
    like $text, qr/Early data was accepted/, "$n: accepted";
    like $text, qr/^early \[1\] r$/m, 'answered before the handshake is over';
    like $text, qr/^closed$/m, 'closed, with close_notify, behind it';
    $text = early($n, request('/one'), $last);
    is +(() = $text =~ /^early \[1?\] r$/mg), 2, 'one request early, one behind the handshake';
    like $text, qr/^early \[\] r$/m, 'which is told apart';
}
my $text = held('shared', request('/a') . request('/b', 'Connection: close'));
is +(() = $text =~ /^early \[1\] r$/mg), 2, 'two of them';
$text = held('shared', request('/proxied', 'Connection: close'));
like $text, qr/^Early-Data: 1\r?$/mi, 'proxy_set_header Early-Data $ssl_early_data';
my $whole = request('/parted', 'Connection: close');
$text = early('shared', substr($whole, 0, 20), substr($whole, 20));
like $text, qr/^early \[\] r$/m, 'half of a request: no longer early when it is whole';
my $body = "POST /body HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\n\r\n" . 'x' x 12000;
$text = early('shared', $body, 'x' x 8000 . $last);
like join(' ', logged('shared', '/body')), qr{^/body \[.\] 200$}, 'a body that goes on behind it';

# Early data, its end and Finished come together: then it was no copy.
my ($conn, $output) = intercept(session('shared'), request('/together', 'Connection: close'));
my $up = to_server('shared');
my $first = read_sealed(1, $conn);
syswrite $up, join '', map { $_->[1] } grep { $_->[0] != 23 } records($first);
my $rest = read_sealed(2, $conn, $up);    # EndOfEarlyData, Finished
syswrite $up, join '', (map { $_->[1] } grep { $_->[0] == 23 } records($first)), $rest;
pass_on($conn, $up);
like $output->(), qr/^early \[1?\] r$/m, 'together with Finished';

# The same by HTTP/2: preface, SETTINGS, HEADERS (RFC 9113 §3.4, §6; RFC 7541 A).
sub frame { my ($type, $flags, $stream, $payload) = @_; return substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $stream) . $payload }
sub h2_get { my ($stream, $path) = @_; return frame(1, 5, $stream, "\x82\x87\x41" . chr(6) . 'a.test' . "\x44" . chr(length $path) . $path) }
my $preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, '');
my $goaway = frame(7, 0, 0, pack('NN', 0, 0));
$text = early('shared', $preface . h2_get(1, '/h2'), h2_get(3, '/h2-later') . $goaway, '-alpn h2');
like $text, qr/Early data was accepted/, 'HTTP/2: accepted';
$hd->wait_for(sub { logged('shared', '/h2-later') }, 'both to be logged');
like join(' ', logged('shared', '/h2'), logged('shared', '/h2-later')), qr{^/h2 \[[1-]\] 200 /h2-later \[-\] 200$}, 'one early, one behind it';
held('shared', $preface . h2_get(1, '/h2-held') . $goaway, '-alpn h2');
$hd->wait_for(sub { logged('shared', '/h2-held') }, 'it to be logged');
is_deeply [logged('shared', '/h2-held')], ['/h2-held [1] 200'], 'answered before the handshake is over';

# No tunnel, no waiting either.
$text = held('shared', request('/ws', 'Connection: Upgrade, close', 'Upgrade: websocket'));
like $text, qr{^HTTP/1\.1 425 Too Early}m, 'an upgrade: 425';
my $connect = join "\r\n", map { s/PORT/$hd->port(9)/er } 'CONNECT 127.0.0.1:PORT HTTP/1.1', 'Host: 127.0.0.1:PORT', '', '';
$text = held('tunnel', $connect =~ s/\r\n\z/Connection: close\r\n\r\n/r);
like $text, qr{^HTTP/1\.1 425 Too Early}m, 'CONNECT: 425';
$text = s_client('tunnel', undef, $connect . request('/within', 'Connection: close'));
like $text, qr{^HTTP/1\.1 200 .*/within}ms, 'but behind the handshake';

# A ticket is good once.
my $file = session('shared');
like s_client('shared', request('/again'), $last, '-sess_in', $file), qr/Early data was accepted/, 'the first time';
$text = s_client('shared', request('/again'), $last, '-sess_in', $file);
like $text, qr/Early data was rejected/, 'the second time: refused';
like $text, qr/^early \[\] \.$/m, 'and served as after any handshake';
is scalar(logged('shared', '/again')), 1, 'seen once';
$file = session('shared');
like s_client('shared', undef, $last, '-sess_in', $file), qr/^early \[\] r$/m, 'without early data it is resumed';

# Bytes of a client, sent by others: many times at once, to both workers.
for my $round (1 .. 3) {
    ($conn, $output) = intercept(session('shared'), request('/replayed'));
    my $bytes = read_sealed(1, $conn);
    close $conn;
    $output->();
    my @conns = map { to_server('shared') } 1 .. 16;
    syswrite $_, $bytes for @conns;
    sysread $_, my $hello, 1 or die 'no answer' for @conns;    # their hellos were looked at
    $hd->wait_for(sub { logged('shared', '/replayed') }, 'one to be served');
    s_client('shared', undef, $last) for 1 .. 4;    # a turn of each worker
    is scalar(logged('shared', '/replayed')), $round, "of 16 copies one is served, round $round";
}

# Where a ticket can't be used up, none is taken; clients go on.
for my $n ('none', 'verify') {
    $text = early($n, request('/not'), $last);
    unlike $text, qr/Early data was accepted/, "$n: not taken";
    like $text, qr/^early \[\] r$/m, 'resumed all the same';
    is scalar(logged($n, '/not')), 0, 'and never seen';
}
# In a cache of its own a worker knows its sessions: none is taken twice.
my $taken = 0;
for (1 .. 4) {
    $file = session('builtin');
    $taken += grep { s_client('builtin', request('/own'), $last, '-sess_in', $file) =~ /Early data was accepted/ } 1 .. 4;
}
is scalar(logged('builtin', '/own')), $taken, 'builtin: what was accepted was served';
cmp_ok $taken, '<=', 4, 'none of them twice';
$hd->stop;
done_testing;
