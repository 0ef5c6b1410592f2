#!/usr/bin/perl
# A reload while connections are on their way: one that was accepted ends its handshake and has its first request
# answered by the listener that accepted it, whatever became of that, of its certificates or of what it asks of clients;
# the next request is the new configuration's affair.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use IPC::Open2;

plan skip_all => 'no python3' if system 'python3 -c "import ssl, socket" 2>/dev/null';

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my @certs = map { $ca->make_cert("server$_", dns => 'localhost') } 0 .. 2;

sub conf_with {
    my ($n, $more, $plain) = @_;
    my $cert = $certs[$n];
    $plain = $plain ? 'server { listen 127.0.0.1:%%PORT_2%%; location / { return 200 "plain $request_uri"; } }' : '';
    return <<"EOC";
http {
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        listen 127.0.0.1:%%PORT_1%%;
        http2 on;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        $more
        location / { return 200 "server$n \$ssl_client_verify"; }
    }
    $plain
}
EOC
}

# A client that connects at once, and waits for a line before each next step: "tls" (with ALPN, if given), "get PATH".
my $client = $hd->write('client.py', <<'EOP');
import socket, ssl, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.settimeout(100)
print('connected', flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        if words[0] == 'tls':
            ctx = ssl.create_default_context(cafile=sys.argv[2])
            s = ctx.wrap_socket(s, server_hostname='localhost')
            print('cert ' + dict(x[0] for x in s.getpeercert()['subject'])['commonName'], flush=True)
        else:
            s.sendall(('GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n' % words[1]).encode())
            got = b''
            while b'\r\n\r\n' not in got or len(got.split(b'\r\n\r\n', 1)[1]) < int(got.lower().split(b'content-length: ')[1].split(b'\r\n')[0]):
                part = s.recv(4096)
                if not part:
                    break
                got += part
            print(got.decode().replace('\r\n', '|') or 'closed', flush=True)
    except Exception as e:
        print('failed: %r' % e, flush=True)
EOP
sub client {
    my ($n) = @_;
    my $pid = open2(my $out, my $in, 'python3', $client, $hd->port($n), $ca->{cert});
    $in->autoflush(1);
    my $c = {in => $in, out => $out, pid => $pid};
    is answer($c), 'connected';
    $hd->get('/', {port => 1}); # accepted behind it: so it was, too
    return $c;
}
sub answer { my ($c) = @_; my $line = readline $c->{out}; chomp $line if defined $line; return $line // 'gone' }
sub say_to { my ($c, $what) = @_; print {$c->{in}} "$what\n"; return answer($c) }
sub done { my ($c) = @_; close $c->{in}; waitpid $c->{pid}, 0 }

$hd->conf(conf_with(0, '', 1))->start;

my $early = client(0);                                  # hasn't said a word when the reload comes
my $asked = client(0);                                  # its handshake is over, no request yet
my $known = client(0);                                  # has had an answer
my $plain = client(2);
is say_to($_, 'tls'), 'cert server0', 'a handshake before' for $asked, $known;
like say_to($known, 'get /'), qr/^HTTP\/1.1 200 .*server0 NONE$/, 'an answer before';

my $more = "ssl_client_certificate $ca->{cert}; ssl_verify_client on;";
$hd->conf(conf_with(1, $more, 0));
ok $hd->reload, 'another certificate, clients are to show theirs, a listener less';

is say_to($early, 'tls'), 'cert server0', 'the handshake that had not begun: by the certificate of then';
my $first = say_to($early, 'get /');
like $first, qr/^HTTP\/1.1 200 /, 'its first request is answered';
like $first, qr/\|Connection: close\|/i, 'and its last';
$first = say_to($asked, 'get /');
like $first, qr/^HTTP\/1.1 200 .*\|Connection: close\|/i, 'a first request after the handshake: likewise';
$first = say_to($plain, 'get /x');
like $first, qr/^HTTP\/1.1 200 .*\|Connection: close\|.*plain \/x$/i, 'a first request to a listener that has gone: likewise';
like say_to($known, 'get /'), qr/^closed|failed/, 'who had an answer before is asked anew who it is';
done($_) for $early, $asked, $known, $plain;
like $hd->get('/', {tls => {ca => $ca->{cert}, sni => 'localhost'}}), qr/^HTTP\/1.1 400 /m, 'new connections: by the new settings';

# only our own certificate changes: connections stay
my $mine = $ca->make_cert('client', uri => 'spiffe://td/ns/a/sa/b');
$hd->conf(conf_with(1, '', 0));
ok $hd->reload;
my $stays = client(0);
is say_to($stays, 'tls'), 'cert server1';
like say_to($stays, 'get /'), qr/server1/;
$hd->conf(conf_with(2, '', 0));
ok $hd->reload, 'another certificate alone';
my $next = say_to($stays, 'get /');
like $next, qr/server2/, 'the connection goes on, with the new configuration';
unlike $next, qr/Connection: close/i, 'and stays';
done($stays);

# what a connection holds for its first request goes with the process
my @waiting = map { client($_) } 0, 1;
is say_to($waiting[0], 'tls'), 'cert server2';
$hd->stop('TERM');
done($_) for @waiting;
done_testing;
