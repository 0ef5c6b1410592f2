#!/usr/bin/perl
# The same stream block in real nginx and in Heddle: TCP and UDP, what ends a session, what its
# log line says, and DNS over both. Needs: nginx with its stream module.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use IO::Select;
use IO::Socket::IP;
use Test::More;
use Heddle;
use Heddle::Dns;

my $nginx = (grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
plan skip_all => 'no nginx' if !$nginx;
my $flags = `$nginx -V 2>&1`;
my ($load) = map { "load_module $_/ngx_stream_module.so;" } grep { -e "$_/ngx_stream_module.so" } $flags =~ /--modules-path=(\S+)/;
plan skip_all => 'nginx has no stream module' if !$load && $flags !~ /--with-stream(?!\S)/;

my $text = <<'EOC';
events {}
stream {
    log_format main '$server_port $protocol $status in=$bytes_received out=$bytes_sent up=$upstream_addr upin=$upstream_bytes_received upout=$upstream_bytes_sent $kind $port_kind';
    access_log %%DIR%%/session.log main;
    geo $kind { default far; 127.0.0.0/8 near; }
    map $server_port $port_kind { default other; %%PORT_t0%% first; ~^(\d)(?<rest>.*) "$rest-$1"; }
    upstream dns { server 127.0.0.1:%%PORT_dns%%; }
    server { listen 127.0.0.1:%%PORT_t0%%; proxy_pass 127.0.0.1:%%PORT_tcp%%; }
    server { listen 127.0.0.1:%%PORT_t1%%; proxy_pass 127.0.0.1:%%PORT_tcp%%; proxy_half_close on; }
    server { listen 127.0.0.1:%%PORT_t2%%; proxy_pass 127.0.0.1:%%PORT_nobody%%; }
    server { listen 127.0.0.1:%%PORT_t3%%; return "$protocol $kind $port_kind\n"; }
    server { listen 127.0.0.1:%%PORT_t4%%; deny 127.0.0.1; return never; }
    server { listen 127.0.0.1:%%PORT_t5%% proxy_protocol; set_real_ip_from 127.0.0.0/8; return "$remote_addr $proxy_protocol_port\n"; }
    server { listen 127.0.0.1:%%PORT_t6%%; proxy_pass 127.0.0.1:%%PORT_tcp%%; proxy_protocol on; proxy_half_close on; }
    server { listen 127.0.0.1:%%PORT_d%%; listen 127.0.0.1:%%PORT_d%% udp; proxy_pass dns; proxy_responses 1; proxy_half_close on; }
    server { listen 127.0.0.1:%%PORT_u0%% udp; proxy_pass 127.0.0.1:%%PORT_echo%%; proxy_requests 2; proxy_responses 1; proxy_timeout 300ms; }
    server { listen 127.0.0.1:%%PORT_u1%% udp; proxy_pass 127.0.0.1:%%PORT_echo%%; proxy_responses 2; proxy_timeout 300ms; }
    server { listen 127.0.0.1:%%PORT_u2%% udp; proxy_pass 127.0.0.1:%%PORT_echo%%; proxy_responses 0; }
    server { listen 127.0.0.1:%%PORT_u4%% udp; return "$protocol $kind"; }
    server { listen 127.0.0.1:%%PORT_u5%% udp; proxy_pass 127.0.0.1:%%PORT_echo%%; proxy_timeout 200ms; }
}
EOC

# A query (RFC 1035 §4.1) and the address in the answer.
sub query {
    my ($name) = @_;
    return pack('n6', 0x1234, 0x0100, 1, 0, 0, 0) . join('', map { pack 'C/a*', $_ } split /\./, $name) . pack 'C n n', 0, 1, 1;
}
sub address { my ($answer) = @_; return length $answer > 12 ? join '.', unpack 'C4', substr $answer, -4 : 'none' }

sub hear {
    my ($sock) = @_;
    my $got = '';
    return 'silence' unless IO::Select->new($sock)->can_read(Heddle::deadline_s());
    return defined $sock->recv($got, 65536) ? $got : 'error';
}

# What is seen from outside, as text.
sub seen {
    my ($hd) = @_;
    my @seen;
    my $tcp = sub {
        my ($n, $bytes) = @_;
        my $c = $hd->connect($n);
        $c->send($bytes) if length $bytes;
        $c->shutdown_write;
        my $got = $c->read_all;
        $got =~ s/PROXY TCP4 \S+ \S+ \d+ \d+/PROXY line/;
        push @seen, "$n: $got";
    };
    $tcp->('t0', 'hello');
    $tcp->('t1', 'hello');
    $tcp->('t2', '');
    $tcp->('t3', '');
    $tcp->('t4', '');
    $tcp->('t5', "PROXY TCP4 192.0.2.9 192.0.2.1 999 80\r\n");
    $tcp->('t6', 'proxied');
    my $udp = sub {
        my ($n, @say) = @_;
        my $sock = IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $hd->port($n), Proto => 'udp') or die $@;
        for (@say) {
            my ($what, $answers) = @$_;
            $sock->send($what);
            push @seen, "$n: " . hear($sock) for 1 .. $answers;
        }
    };
    for my $name ('a.test', 'b.test') {
        my $sock = IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $hd->port('d'), Proto => 'udp') or die $@;
        $sock->send(query($name));
        push @seen, "DNS, UDP, $name: " . address(hear($sock));
        my $c = $hd->connect('d');
        $c->send(pack 'n/a*', query($name));
        push @seen, "DNS, TCP, $name: " . address($c->read_bytes(unpack 'n', $c->read_bytes(2)));
        $c->close;
    }
    $udp->('u0', ['one', 1], ['two', 1], ['three', 1]);
    $udp->('u1', ['say 1', 1]);
    $udp->('u2', ['mute', 0]);
    $udp->('u4', ['x', 1]);
    $udp->('u5', ['', 1], ['y' x 10000, 1]);
    return @seen;
}

# The servers behind, for both.
my $place = Heddle->new;
my $dns = Heddle::Dns->new($place, 'dns');
$dns->set('a.test' => {A => ['192.0.2.1']}, 'b.test' => {A => ['192.0.2.2']});
$place->tcp_backend('tcp', sub {
    my ($sock) = @_;
    my $all = '';
    while (sysread $sock, my $got, 65536) { $all .= $got }
    syswrite $sock, "got $all\n";
});
my $echo = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $place->port('echo'), Proto => 'udp') or die $@;
Heddle::Backend::spawn(sub {
    while (defined(my $from = recv $echo, my $got, 65536, 0)) { send $echo, $got, 0, $from if $got ne 'mute' }
});
close $echo;

my (%said, %lines);
for my $which ('nginx', 'heddle') {
    my $hd = Heddle->new($which eq 'nginx' ? (program => $nginx) : (modules => ['access_log', 'access', 'realip']));
    $hd->{ports} = $place->{ports};
    $hd->conf($which eq 'nginx' ? ($load ? "$load\n" : '') . $text : $text);
    $hd->start;
    $said{$which} = [seen($hd)];
    $hd->wait_for(sub { 17 <= (() = (-e $hd->dir . '/session.log' ? $hd->file('session.log') : '') =~ /\n/g) }, 'all sessions to be logged');
    $lines{$which} = [sort split /\n/, $hd->file('session.log')];
    $hd->stop;
}
is_deeply $said{heddle}, $said{nginx}, 'seen from outside' or diag explain \%said;
is_deeply $lines{heddle}, $lines{nginx}, 'the session log' or diag explain \%lines;
cmp_ok scalar @{$said{nginx}}, '>=', 17, 'there was something to see';
done_testing;
