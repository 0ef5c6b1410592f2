#!/usr/bin/perl
# stream: UDP (nginx: listen … udp, proxy_requests, proxy_responses, proxy_timeout): whose
# datagrams are a session, how it ends, servers that refuse, sizes, limits, reload, a killed
# worker, the end of the program.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Select;
use IO::Socket::IP;
use Socket qw(:DEFAULT);
use Heddle;

my $hd = Heddle->new(modules => ['access_log']);
my @servers = map { udp_server($_) } 1 .. 4;
my $conf = <<'EOC';
worker_processes 2;
worker_shutdown_timeout 20s;
events { worker_connections 200; }
stream {
    log_format main '$protocol $status in=$bytes_received out=$bytes_sent up=$upstream_addr $remote_port end';
    access_log %%DIR%%/log main;
    proxy_timeout 1m;
    upstream pair { server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; }
    upstream one_down { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_1%%; }
    upstream by_addr { hash $remote_port; server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; }
    server { listen 127.0.0.1:%%PORT_u0%% udp; listen 127.0.0.1:%%PORT_u0%%; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_u1%% udp reuseport; proxy_pass pair; proxy_responses 1; proxy_requests 1; }
    server { listen 127.0.0.1:%%PORT_u2%% udp; proxy_pass one_down; }
    server { listen 127.0.0.1:%%PORT_u3%% udp; proxy_pass 127.0.0.1:%%PORT_3%%; proxy_responses 1; proxy_timeout 300ms; }
    server { listen %%PORT_u4%% udp; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen [::1]:%%PORT_u5%% udp; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_u6%% udp; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_responses 0; }
    server { listen 127.0.0.1:%%PORT_u10%% udp; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_sessions_max 1; }
    server { listen 127.0.0.1:%%PORT_u8%% udp; proxy_pass by_addr; }
    server { listen 127.0.0.1:%%PORT_u9%% udp; proxy_pass 127.0.0.1:%%PORT_4%%; proxy_timeout 1m; }
}
EOC
$hd->conf($conf);
$hd->start;

# A server in a process of its own. Answers a datagram with its number, where it came from, and
# the datagram; "say N" gets N answers, "later N" after a while, "mute" none. Server 3 never answers.
sub udp_server {
    my ($n) = @_;
    my $sock = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $hd->port($n), Proto => 'udp') or die "udp $n: $@";
    $sock->setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20);
    my $pid = fork // die;
    return $pid if $pid;
    $SIG{TERM} = 'DEFAULT';
    while (defined(my $from = recv $sock, my $got, 65536, 0)) {
        my ($port) = unpack_sockaddr_in $from;
        next if $n == 3 || $got eq 'mute';
        my $times = $got =~ /^(?:say|later) (\d+)/ ? $1 : 1;
        select undef, undef, undef, 0.5 if $got =~ /^later/;
        send $sock, length $got > 1000 ? $got : "$n:$port:$got", 0, $from for 1 .. $times;
    }
    POSIX::_exit(0);
}
END { kill TERM => @servers if $hd }

sub client {
    my ($n, $host) = @_;
    my $sock = IO::Socket::IP->new(PeerHost => $host // '127.0.0.1', PeerPort => $hd->port($n), Proto => 'udp') or die $@;
    $sock->setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20);
    return $sock;
}
sub hear {
    my ($sock, $s) = @_;
    my $got;
    return undef unless IO::Select->new($sock)->can_read($s // Heddle::deadline_s());
    return defined $sock->recv($got, 65536) ? $got : undef;
}
sub ask { my ($sock, $what) = @_; $sock->send($what); return hear($sock) }

# Sessions.
my ($a, $b) = (client('u0'), client('u0'));
my ($port_a) = ask($a, 'hello') =~ /^1:(\d+):hello$/ or fail 'no answer';
ok $port_a, 'there and back';
is ask($a, 'again'), "1:$port_a:again", 'the same session: the same socket towards the server';
my ($port_b) = ask($b, 'b') =~ /^1:(\d+):b$/;
isnt $port_b, $port_a, 'another client has another';
is ask($a, ''), "1:$port_a:", 'a datagram of no bytes';
my $big = join '', map { chr($_ % 251) } 1 .. 60000;
ok ask($a, $big) eq $big, 'a big one, whole';
$a->send('say 40');
is scalar(grep { hear($a) eq "1:$port_a:say 40" } 1 .. 40), 40, 'forty answers to one';
{ # They wait when the workers come back.
    my @workers = $hd->workers;
    $a->send('later 150');
    select undef, undef, undef, 0.2;
    kill STOP => @workers;
    select undef, undef, undef, 0.8;
    kill CONT => @workers;
    my $n = 0;
    $n++ while $n < 150 && (hear($a) // '') eq "1:$port_a:later 150";
    is $n, 150, 'more than a turn has time for, at once';
}
$a->send("n$_") for 1 .. 40;
is join(' ', sort map { hear($a) =~ s/.*://r } 1 .. 40), join(' ', sort map { "n$_" } 1 .. 40), 'forty in a row, each answered';
ok ask(client('u5', '::1'), 'six') =~ /^1:\d+:six$/, 'IPv6 in front, IPv4 behind';

# Which of our addresses was asked is the one that answers.
for my $host ('127.0.0.1', '127.0.0.2') {
    like ask(client('u4', $host), 'w'), qr/^1:\d+:w$/, "a wildcard answers from $host"; # a connected socket hears nobody else
}

# proxy_requests, proxy_responses.
my $c = client('u1');
my @got = map { ask($c, "q$_") } 1 .. 4;
like join(' ', map { /^(\d)/ } @got), qr/^(?:1 2 1 2|2 1 2 1)$/, 'proxy_requests 1: each is a session, balanced';
is scalar(keys %{{map { (/^\d:(\d+)/)[0] => 1 } @got}}), 4, 'of its own socket';
my $line = qr/^UDP 200 in=2 out=\d+ up=127\.0\.0\.1:\d+ ${\$c->sockport} end$/m;
$hd->wait_for(sub { 4 == (() = $hd->file('log') =~ /$line/g) }, 'a line each');
pass 'proxy_responses 1: ended with the answer';

# A server that refuses (ICMP): the next one gets what was said.
my ($d, @heard);
my $refused = qr/Connection refused while connecting to upstream "127\.0\.0\.1:${\$hd->port(9)}"/;
$hd->wait_for(sub { # whose turn it is, each worker knows for itself
    push @heard, ask($d = client('u2'), 'one');
    $hd->log =~ $refused;
}, 'the first server to be asked');
is scalar(grep { !/^1:\d+:one$/ } @heard), 0, 'refused by the first: the second is asked';
like ask($d, 'two'), qr/^1:\d+:two$/, 'and keeps the session';

# One that doesn't answer.
client('u3')->send('anyone?');
$hd->wait_for(sub { $hd->file('log') =~ /^UDP 502 in=7 out=0 up=127\.0\.0\.1:${\$hd->port(3)} /m }, 'a line with 502');
pass 'no answer within proxy_timeout: the server failed';

# Limits. The kernel chooses the worker by the client's port: some of many clients share one.
my @many = map { client('u6') } 1 .. 8;
$_->send('mute') for @many; # proxy_responses 0: ends at once, so that each has its turn
$hd->wait_for(sub { (() = $hd->file('log') =~ /^UDP 200 in=4 out=0 /mg) >= 8 }, 'eight sessions of a datagram each');
pass 'proxy_responses 0: over once it was passed on';

my @some = map { client('u10') } 1 .. 8;
$hd->expect_log(qr/datagrams of new clients are dropped: all sessions of the server are in use: raise proxy_sessions_max/);
$_->send('room?') for @some;
$hd->wait_log(qr/raise proxy_sessions_max/);
my $served = grep { defined hear($_, 0.1) } @some;
ok $served >= 1 && $served <= 2, "proxy_sessions_max 1, two workers: $served of eight are served";

# hash
my %by;
for my $round (1, 2) {
    for my $i (0 .. 5) {
        my $s = $by{$i}{sock} //= client('u8');
        my ($who) = ask($s, 'h') =~ /^(\d)/;
        $by{$i}{who} //= $who;
        is $who, $by{$i}{who}, "client $i stays" if $round == 2;
    }
}

# Reload: the session goes on, with its socket, whether its server changed or not.
$hd->conf($conf =~ s/(PORT_u0%%; proxy_pass 127\.0\.0\.1:%%PORT_)1%%/${1}2%%/r =~ s/^.*PORT_u9.*\n//mr);
my $e = client('u9');
my ($port_e) = ask($e, 'before') =~ /^4:(\d+):/;
ok $hd->reload, 'a reload';
is ask($a, 'after'), "1:$port_a:after", 'a session survives it';
like ask(client('u0'), 'new'), qr/^2:\d+:new$/, 'a new one goes where it says now';
my $gone_on;
$hd->wait_for(sub { # what comes while its own socket is made may be lost
    $e->send('after');
    $gone_on = hear($e, 0.3);
}, 'an answer of a server that is gone');
is $gone_on, "4:$port_e:after", 'a session of a server that is gone goes on';
1 while defined hear($e, 0.01);
is ask($e, 'more'), "4:$port_e:more", 'as long as it likes';
my $f = client('u9');
$f->send('nobody');
is hear($f, 0.2), undef, 'but nobody takes new ones there';

# A killed worker: the sockets are inherited.
$hd->expect_log(qr/worker process \d+ exited on signal 9/);
my @old = $hd->workers;
kill KILL => @old;
$hd->wait_for(sub { my %old = map { $_ => 1 } @old; 2 == grep { !$old{$_} } $hd->workers }, 'other workers');
my $answer;
$hd->wait_for(sub { $a->send('alive?'); $answer = hear($a, 0.3) }, 'an answer');
like $answer, qr/^2:\d+:alive\?$/, 'its clients have new sessions';

# A reload that living workers can't follow: the session goes on in the old one.
my ($port_now) = ask($a, 'x') =~ /^2:(\d+):/;
1 while defined hear($a, 0.01);
$hd->conf($conf =~ s/worker_connections 200/worker_connections 201/r);
ok $hd->reload, 'a reload with other limits';
my $seen;
$hd->wait_for(sub { $a->send('old'); ($seen = hear($a, 0.3)) && $seen eq "2:$port_now:old" }, 'the old worker');
is $seen, "2:$port_now:old", 'an open session is served by its old worker';
like ask(client('u9'), 'new'), qr/^4:\d+:new$/, 'new ones by the new';
1 while defined hear($a, 0.01);

# The end: those that go on are served.
$hd->signal('QUIT');
$hd->wait_log(qr/gracefully shutting down/, 3);
my $late;
$hd->wait_for(sub { $a->send('late'); $late = hear($a, 0.3) }, 'an answer after QUIT');
# what came during the switch may have begun a session with the new worker, too: then that one is younger
like $late, qr/^(?:2:$port_now|1:\d+):late$/, 'QUIT: an open session is served, by its own socket';
$hd->expect_exit(0) if $hd->can('expect_exit');
$hd->signal('TERM');

for (
    ['listen 127.0.0.1:1 udp ssl;', qr/"ssl" is for connections, not for udp/],
    ['listen unix:%%DIR%%/x udp;', qr/udp is for IP addresses/],
    ['listen 127.0.0.1:1 udp; proxy_protocol on;', qr/"proxy_protocol" has no meaning for "listen … udp"/],
) {
    my ($text, $why) = @$_;
    my $bad = Heddle->new->conf("stream { server { $text proxy_pass 127.0.0.1:1; } }");
    my ($status, $out) = $bad->run('-t');
    ok $status != 0 && $out =~ $why, "refused: $text" or diag $out;
}
done_testing;
