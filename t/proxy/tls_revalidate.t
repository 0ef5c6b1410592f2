#!/usr/bin/perl
# A peer was verified once, and its connection lives on: it is ended, gently, when the certificate ends or its
# root is withdrawn; the request under way is answered, and who is verified still isn't touched.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use IPC::Open2;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $other = $hd->make_ca('other');
my $server = $ca->make_cert('server', dns => 'localhost');
my $roots = $hd->dir . '/roots.pem';

sub trust { open my $f, '>', "$roots.new" or die; print $f Heddle::Cert::slurp($_->{cert}) for @_; close $f; rename "$roots.new", $roots or die }
trust($ca, $other);
my $tls = "ssl_certificate $server->{cert}; ssl_certificate_key $server->{key}; ssl_client_certificate $roots;";
$hd->conf(<<"EOC");
http {
    keepalive_timeout 1h;
    server {
        listen 127.0.0.1:%%PORT_0%% ssl http2;
        $tls
        ssl_verify_client optional;
        location / { return 200 "\$ssl_client_verify\\n"; }
        location /slow { proxy_pass http://127.0.0.1:%%PORT_2%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl;
        $tls
        ssl_verify_client on;
        ssl_revalidate off;
        return 200 "\$ssl_client_verify\\n";
    }
}
EOC
my ($go_r, $go_w);
pipe $go_r, $go_w;
$hd->backend(2, sub { sysread $go_r, my $byte, 1; {status => 200, body => "slow\n"} });
$hd->start;

# A connection that stays, by s_client.
sub open_conn {
    my ($n, $cert, @args) = @_;
    my $pid = open2(my $out, my $in, 'openssl', 's_client', '-quiet', '-ign_eof', '-connect', '127.0.0.1:' . $hd->port($n),
        ($cert ? ('-cert', $cert->{cert}, '-key', $cert->{key}) : ()), @args);
    $in->autoflush(1);
    return {in => $in, out => $out, pid => $pid, got => ''};
}
sub send_request { my ($c, $path) = @_; print {$c->{in}} "GET $path HTTP/1.1\r\nHost: localhost\r\n\r\n" }
# Until it matches, or until the end.
sub await {
    my ($c, $re) = @_;
    local $SIG{ALRM} = sub { die "waited in vain for $re, got: $c->{got}\n" };
    alarm Heddle::deadline_s();
    while ($c->{got} !~ $re) { sysread($c->{out}, $c->{got}, 4096, length $c->{got}) or last }
    alarm 0;
    my $is_there = $c->{got} =~ $re;
    $c->{got} = '' if $is_there;
    return $is_there;
}
sub ends { my ($c) = @_; my $had = $c->{got}; await($c, qr/\0never\0/); return 1 }

open STDERR, '>>', $hd->dir . '/s_client.log';
my $brief = $ca->make_cert('brief', cn => 'ann', lives_s => 15);
my $long = $ca->make_cert('long', cn => 'bob');
my $theirs = $other->make_cert('theirs', cn => 'eve');
my %c = (brief => open_conn(0, $brief), long => open_conn(0, $long), theirs => open_conn(0, $theirs), nobody => open_conn(0),
    brief_off => open_conn(1, $brief), busy => open_conn(0, $brief));
for (sort keys %c) { send_request($c{$_}, '/'); ok await($c{$_}, $_ eq 'nobody' ? qr/NONE/ : qr/SUCCESS/), "$_: is served" }
my $h2 = open_conn(0, $brief, '-alpn', 'h2');
print {$h2->{in}} "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\4\0\0\0\0\0";
ok await($h2, qr/\x00\x00\x00\x04\x01\x00\x00\x00\x00/), 'HTTP/2 is served: settings are acknowledged';
send_request($c{busy}, '/slow');
$hd->wait_for(sub { scalar $hd->requests(2) }, 'the request to be under way');

# The certificate ends.
ok ends($c{brief}), 'its certificate has ended: closed';
ok await($h2, qr/\x00\x00.\x07\x00\x00\x00\x00\x00/s), 'HTTP/2: GOAWAY' or diag unpack 'H*', $h2->{got};
ok ends($h2), 'and closed';
syswrite $go_w, 'x';
ok await($c{busy}, qr/Connection: close.*slow/is), 'the request under way is answered';
ok ends($c{busy}), 'then it is closed';
for ('long', 'theirs', 'nobody', 'brief_off') {
    send_request($c{$_}, '/');
    ok await($c{$_}, $_ eq 'nobody' ? qr/NONE/ : qr/SUCCESS/), "$_: served still";
}

# A root is withdrawn.
trust($ca);
ok $hd->reload, 'without one root';
ok ends($c{theirs}), 'its peers are closed';
for ('long', 'nobody') {
    send_request($c{$_}, '/');
    ok await($c{$_}, $_ eq 'nobody' ? qr/NONE/ : qr/SUCCESS/), "$_: served on the same connection";
}
kill 'TERM', $c{$_}{pid} for keys %c;
kill 'TERM', $h2->{pid};
$hd->stop;
done_testing;
