#!/usr/bin/perl
# What an idle keep-alive connection costs in user memory, plain and over TLS 1.3 without a
# client certificate (OpenSSL's own share of the latter is 14.1 KiB): what the worker's
# private pages grow by.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use IPC::Open2;

plan skip_all => 'a sanitizer takes memory of its own' if Heddle::is_sanitized();

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $own = $ca->make_cert('server', cn => 'a.example', san => ['DNS:a.example']);
chmod 0644, $own->{key};    # a worker reads it
$hd->conf(<<"EOC")->start;
worker_rlimit_nofile 8192;
events { worker_connections 4000; }
http {
    server { listen 127.0.0.1:%%PORT_0%%; return 200 here; }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl;
        ssl_certificate $own->{cert}; ssl_certificate_key $own->{key};
        return 200 here;
    }
    server {
        listen 127.0.0.1:%%PORT_2%% ssl;
        ssl_certificate @{[$own->{cert} =~ s/server/\$of/r]}; ssl_certificate_key @{[$own->{key} =~ s/server/\$of/r]};
        ssl_early_data on; ssl_session_cache shared:S:1m;
        return 200 here;
    }
    map \$ssl_server_name \$of { a.example server; }
}
EOC

# Opens so many connections to a port, one after the other, each with one request, prints a
# line and goes on with the next line of its input.
my $client = $hd->dir . '/client.py';
Heddle::Cert::spew($client, <<'EOC');
import socket, ssl, sys
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.minimum_version = ssl.TLSVersion.TLSv1_3
kept = []
for line in sys.stdin:
    port, n = map(int, line.split())
    for _ in range(n):
        conn = socket.create_connection(("127.0.0.1", port))
        if str(port) in sys.argv[1:]:
            conn = tls.wrap_socket(conn, server_hostname="a.example")
        conn.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        got = b""
        while not got.endswith(b"here"):
            got += conn.recv(4096) or sys.exit("closed")
        kept.append(conn)
    print(n, flush=True)
EOC

my ($worker) = $hd->workers;
my $pid = open2(my $out, my $in, 'python3', $client, $hd->port(1), $hd->port(2));

sub private_bytes { # written to, and no one else's
    open my $f, '<', "/proc/$worker/smaps_rollup" or die "smaps_rollup: $!";
    my ($kb) = join('', <$f>) =~ /^Private_Dirty:\s+(\d+)/m;
    return $kb * 1024;
}

sub cost_of { # one of $n more connections to $port, once $first of them have warmed up all
    my ($port, $first, $n) = @_;
    my $before;
    for my $count ($first, $n) {
        $before = private_bytes();
        print $in "$port $count\n";
        is scalar(<$out>), "$count\n", "$count connections, each served";
    }
    return (private_bytes() - $before) / $n;
}
$in->autoflush;
my $plain = cost_of($hd->port(0), 300, 1600);
cmp_ok $plain, '<=', 400, sprintf 'an idle plain one: %.0f bytes', $plain;
my $tls = cost_of($hd->port(1), 100, 600);
cmp_ok $tls, '<=', 15 * 1024, sprintf 'an idle one over TLS: %.0f bytes', $tls;
my $more = cost_of($hd->port(2), 100, 600);
cmp_ok $more, '<=', 15 * 1024, sprintf 'one whose certificate was named by variables, of a server that takes early data: %.0f bytes', $more;
close $in;
waitpid $pid, 0;
is $?, 0, 'none was closed';
$hd->stop;
done_testing;
