#!/usr/bin/perl
# When a link between two Heddles ends: it idles for too long, is too old, serves a single request where there is no
# keep-alive, carries an identity that is none any more, or says nothing; and peers that let it wait are given up alone.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use IO::Select;
use IO::Socket::INET;

my $hd = Heddle->new(log_level => 'info', workers => 1);
my $ca = $hd->make_ca('root');
my $other = $hd->make_ca('other');
my $server = $ca->make_cert('server', dns => 'backend.test');
my $strange = $other->make_cert('strange', dns => 'backend.test');
my $own = $ca->make_cert('own', spiffe => 'spiffe://test/ns/a/sa/own');
my $theirs = $other->make_cert('theirs', spiffe => 'spiffe://test/ns/a/sa/theirs');

sub trust {
    my ($file, @cas) = @_;
    open my $f, '>', $hd->dir . "/$file.new" or die "$file: $!";
    print $f Heddle::Cert::slurp($_->{cert}) for @cas;
    close $f;
    rename $hd->dir . "/$file.new", $hd->dir . "/$file" or die "$file: $!";
}
trust('clients.pem', $ca, $other);
trust('servers.pem', $ca, $other);

my %listeners = (idle => 'keepalive_timeout 1s;', single => 'keepalive_timeout 0;', old => 'keepalive_time 1s;', three => 'keepalive_requests 3;',
    patience => 'client_body_timeout 1s; send_timeout 1s;', plain => '');
sub server {
    my ($name, $cert, $more) = @_;
    return <<"EOC";
    server {
        listen 127.0.0.1:%%PORT_$name%% ssl;
        ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key};
        ssl_client_certificate %%DIR%%/clients.pem; ssl_verify_client on;
        $more
        proxy_request_buffering off; proxy_buffering off;
        location / { return 200 "\$connection \$ssl_alpn_protocol"; }
        location /up/ { proxy_pass http://127.0.0.1:%%PORT_up%%/; }
    }
EOC
}
sub location {
    my ($path, $port, $cert, $more) = @_;
    my $to = $port eq 'upstream' ? $path : "127.0.0.1:%%PORT_$port%%";
    return "location /$path/ { proxy_pass https://$to/; proxy_ssl_certificate $cert->{cert};"
        . " proxy_ssl_certificate_key $cert->{key}; " . ($more // '') . " }\n";
}
my $conf = 'http { upstream two { server 127.0.0.1:%%PORT_plain%%; keepalive 8; keepalive_requests 2; } proxy_ssl_name backend.test; proxy_ssl_trusted_certificate %%DIR%%/servers.pem; proxy_ssl_verify on;'
    . ' proxy_ssl_session_reuse off; proxy_request_buffering off; proxy_buffering off; client_max_body_size 0; server { listen 127.0.0.1:%%PORT_0%%;'
    . join('', map { location($_, $_, $own) } sort keys %listeners)
    . location('theirs', 'plain', $theirs) . location('strange', 'strange', $own)
    . location('two', 'upstream', $own) . location('silent', 'tap', $own, 'proxy_read_timeout 1s;') . '}'
    . join('', map { server($_, $server, $listeners{$_}) } sort keys %listeners) . server('strange', $strange, '') . '}';
$hd->conf($conf);
$hd->backend('up', sub { [200, {'X-Length' => length $_[0]{body}}, 'x' x (32 << 20)] });

# Passes bytes on, but for its first connection, which falls silent once the file "mute" is there.
$hd->tcp_backend('tap', sub {
    my ($client) = @_;
    my $is_first = mkdir $hd->dir . '/first';
    my $up = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $hd->port('plain')) or die "plain: $!";
    my %to = ($client => $up, $up => $client);
    my $all = IO::Select->new($client, $up);
    while (my @ready = $all->can_read) {
        for my $from (@ready) {
            sysread $from, my $bytes, 65536 or return;
            syswrite $to{$from}, $bytes unless $is_first && -e $hd->dir . '/mute';
        }
    }
});
$hd->start;

# Which link it came by.
sub link_of {
    my ($path) = @_;
    my $r = $hd->get("/$path/");
    is $r->status, 200, "$path: is answered";
    like $r->body, qr{^\d+ heddle-weft/1$}, 'over a link';
    return $r->body;
}

my $first = link_of('idle');
is link_of('idle'), $first, 'two in a row share one';
$hd->wait_for(sub { qx(ss -Htn state established dport = :${\$hd->port('idle')}) eq '' }, 'the idle link to end');
isnt link_of('idle'), $first, 'keepalive_timeout: a new one';

$first = link_of('single');
isnt link_of('single'), $first, 'no keep-alive: one request a link';

$first = link_of('three');
is link_of('three'), $first, 'keepalive_requests 3: the second' for 2, 3;
isnt link_of('three'), $first, 'the fourth has a new one';
$first = link_of('two');
is link_of('two'), $first, "an upstream's keepalive_requests 2: the second";
isnt link_of('two'), $first, 'the third has a new one';
$first = link_of('plain');
my @served = map { $hd->get('/plain/')->body } 1 .. 1100;
is scalar(grep { $_ ne $first } @served), 0, 'the default of 1000 is not for what many clients share';

$first = link_of('old');
select undef, undef, undef, 1.1;
is link_of('old'), $first, 'keepalive_time: the one that finds it too old is its last';
isnt link_of('old'), $first, 'then a new one';

# Who lets a link wait.
$first = link_of('patience');
my $slow = $hd->connect(0);
$slow->send("GET /patience/up/ HTTP/1.1\r\nHost: a\r\n\r\n");
my $stuck = $hd->connect(0);
$stuck->send("POST /patience/up/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
is $stuck->response->status, 408, 'half a body: client_body_timeout';
$hd->wait_log(qr/client timed out while reading the response/);
is $slow->response_head =~ /^HTTP\/1\.1 (\d+)/ && $1, 200, 'who does not read has a head';
ok length($slow->read_bytes(32 << 20) // '') < 32 << 20, 'and not all of the body: send_timeout';
is link_of('patience'), $first, 'the link goes on';

# Whose word is good no longer.
$first = link_of('plain');
link_of($_) for 'theirs', 'strange';
trust('clients.pem', $ca);
ok $hd->reload, 'a root of the clients is withdrawn';
$hd->wait_for(sub { $hd->get('/theirs/')->status != 200 }, 'its client to be refused');
is link_of('plain'), $first, 'others keep their link';
link_of('strange');
trust('servers.pem', $ca);
ok $hd->reload, 'and one of the servers';
$hd->wait_for(sub { $hd->get('/strange/')->status == 502 }, 'its server to be refused');

# A peer that went without a word.
$first = link_of('silent');
open my $f, '>', $hd->dir . '/mute' or die "mute: $!";
close $f;
is $hd->get('/silent/')->status, 504, 'nothing comes back';
isnt link_of('silent'), $first, 'the next request does not wait for the same silence';
$hd->stop;
done_testing;
