#!/usr/bin/perl
# Tunnels by tunnel_pass stay: through reloads that take their server away, through a new set of workers, through QUIT;
# what is on its way arrives, and the processes end with the last one.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new(modules => ['access_log'], log_level => 'notice');
sub conf {
    my ($workers, $what) = @_;
    $hd->conf(<<"EOC");
worker_processes $workers;
worker_shutdown_timeout 600s;
http {
    log_format line '\$host \$status \$upstream_bytes_sent \$upstream_bytes_received';
    access_log %%DIR%%/access.log line;
    server { listen 127.0.0.1:%%PORT_0%%; http2 on; $what }
}
EOC
}
conf(2, 'tunnel_pass; tunnel_read_timeout 600s;');
$hd->tcp_backend(1, sub { my ($sock) = @_; while (sysread $sock, my $bytes, 65536) { syswrite $sock, uc $bytes } syswrite $sock, 'END' });
$hd->start;
$hd->wait_log(qr/all processes are ready/);
my $to = '127.0.0.1:' . $hd->port(1);

my @tunnels;
sub open_some {
    for (1 .. 4) {
        my $c = $hd->connect(0);
        $c->send("CONNECT $to HTTP/1.1\r\nHost: $to\r\n\r\n");
        push @tunnels, {c => $c, said => '', say => sub { $c->send($_[0]) }, hear => sub { $c->read_bytes($_[0]) },
            end => sub { $c->shutdown_write; $c->read_all }};
        $c->read_until(qr/^HTTP\/1.1 200 .*\r\n\r\n/s) or die 'no tunnel';
    }
    my $h = Heddle::H2->new($hd->port(0));
    for my $id (1, 3) {
        $h->frame('HEADERS', 4, $id, Heddle::H2::fields(':method', 'CONNECT', ':authority', $to));
        my $read = 0;
        my $body = sub { $h->{streams}{$id}{body} // '' };
        push @tunnels, {said => '', say => sub { $h->frame('DATA', 0, $id, $_[0]) },
            hear => sub { my ($n) = @_; $h->until(sub { length $body->() >= $read + $n }) if length $body->() < $read + $n;
                my $got = substr $body->(), $read, $n; $read += $n; return $got },
            end => sub { $h->frame('DATA', 1, $id, ''); return substr $h->response($id)->{body}, $read }};
    }
}

my $words = 0;
sub all_talk {
    my ($when) = @_;
    my $lost = 0;
    for my $t (@tunnels) {
        my $word = sprintf 'word-%d.', ++$words;
        $t->{say}->($word);
        $t->{said} .= $word;
        $lost++ if ($t->{hear}->(length $word) // '') ne uc $word;
    }
    is $lost, 0, "$when: " . @tunnels . ' tunnels go on';
}

sub refused {
    my $c = $hd->connect(0);
    $c->send("CONNECT $to HTTP/1.1\r\nHost: $to\r\n\r\n");
    return ($c->read_until(qr/\r\n\r\n/) =~ m{^HTTP/1.1 (\d+)})[0];
}

open_some();
all_talk('at first');
conf(2, 'tunnel_pass; tunnel_read_timeout 500s;');
ok $hd->reload, 'a reload into the same workers';
all_talk('after it');
open_some();
conf(2, 'return 200 "no proxy any more";');
ok $hd->reload, 'one that takes the tunnels away';
is refused(), 405, 'there are no new ones';
all_talk('after it');
conf(3, 'tunnel_pass; tunnel_read_timeout 600s;');
my @before = $hd->workers;
ok $hd->reload, 'one that starts new workers';
$hd->wait_log(qr/ $_#$_: gracefully shutting down/) for @before; # until then they accept, too
open_some();
all_talk('in old and new processes');
cmp_ok scalar(grep { kill 0, $_ } @before), '>', 0, 'which are there still';

$hd->signal('QUIT');
$hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the listener to close');
all_talk('after QUIT');
is scalar(grep { $_->{end}->() ne 'END' } @tunnels), 0, 'each to its end';
$hd->wait_for(sub { $hd->_has_ended }, 'the end of all processes');
$hd->{exit_expected} = 0;
is join("\n", sort grep { length } split /\n/, $hd->file('access.log')),
    join("\n", sort "127.0.0.1 405 - -", map { my $n = length $_->{said} // 1; "127.0.0.1 200 $n " . ($n + 3) } @tunnels),
    'the log tells of each, to the byte';
done_testing;
