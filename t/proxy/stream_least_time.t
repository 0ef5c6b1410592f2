#!/usr/bin/perl
# stream: least_time: by the time until a server is connected (with TLS: until that is up), until its first byte, until its last.
use strict;
use warnings;
use lib 't/lib';
use IO::Select;
use IO::Socket::INET;
use Test::More;
use Heddle;

my $hd = Heddle->new(workers => 2);
my $cert = $hd->make_ca('root')->make_cert('a', dns => 'a.example');
my %late = (connect => 'slow_connect', first_byte => 'slow_first', last_byte => 'slow_last');
my $servers = join '', map { <<"EOC" } sort keys %late;
    upstream $_ { least_time $_ inflight; server 127.0.0.1:%%PORT_$late{$_}%%; server 127.0.0.1:%%PORT_fast_$_%%; }
    server { listen 127.0.0.1:%%PORT_$_%%; proxy_pass $_; proxy_half_close on; ${\($_ eq 'connect' ? 'proxy_ssl on;' : '')} }
EOC
$hd->conf(<<"EOC");
stream {
$servers
    server { listen 127.0.0.1:%%PORT_tls%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; return slow; }
    server { listen 127.0.0.1:%%PORT_fast_connect%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; return fast; }
}
EOC
sub nap { select undef, undef, undef, 0.2 }
$hd->tcp_backend(slow_connect => sub { # passes TLS on, late
    my ($s) = @_;
    nap();
    my $tls = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $hd->port('tls')) or return;
    my %to = (fileno $s => $tls, fileno $tls => $s);
    my $select = IO::Select->new($s, $tls);
    while (my @ready = $select->can_read) {
        for my $from (@ready) {
            sysread $from, my $bytes, 65536 or return;
            syswrite $to{fileno $from}, $bytes;
        }
    }
});
$hd->tcp_backend(slow_first => sub { my ($s) = @_; nap(); syswrite $s, 'slow' });
$hd->tcp_backend(slow_last => sub { my ($s) = @_; syswrite $s, 'slo'; nap(); syswrite $s, 'w' });
$hd->tcp_backend(fast_first_byte => sub { my ($s) = @_; syswrite $s, 'fas'; nap() for 1, 2; syswrite $s, 't' }); # ends later than the slow one
$hd->tcp_backend(fast_last_byte => sub { my ($s) = @_; syswrite $s, 'fast' });
$hd->start;

for my $how (sort keys %late) {
    my %n;
    $n{$hd->connect($how)->read_all}++ for 1 .. 12;
    cmp_ok $n{slow} // 0, '<=', 2, "$how: the slow one is asked once, or twice";
    is(($n{slow} // 0) + $n{fast}, 12, 'all are served');
}
for my $row (['header', '"connect", "first_byte" or "last_byte"'], ['connect always', '"inflight" is allowed here']) {
    my ($status, $out) = Heddle->new->conf("error_log stderr; stream { upstream u { server 127.0.0.1:1; least_time $row->[0]; } }")->run('-t');
    like $out, qr/\Q$row->[1]/, "refused: $row->[0]";
}
done_testing;
