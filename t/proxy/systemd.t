#!/usr/bin/perl
# Under systemd: what the program says of itself (sd_notify), sockets that it is lent (LISTEN_FDS), and the units in deploy/.
use strict;
use warnings;
use lib 't/lib';
use Fcntl;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket;
use Test::More;
use Heddle;
use Heddle::Daemon;
use Heddle::Port;

# ---- a manager that listens

package Manager {
    use Socket;

    # At a path, or "\0name".
    sub new {
        my ($class, $hd, $at) = @_;
        socket my $sock, AF_UNIX, SOCK_DGRAM, 0 or die "socket: $!";
        bind $sock, Socket::pack_sockaddr_un($at) or die "bind: $!";
        chmod 0777, $at if $at !~ /^\0/;
        $hd->{env}{NOTIFY_SOCKET} = $at =~ s/^\0/@/r;
        return bless {hd => $hd, sock => $sock, heard => [], at => 0}, $class;
    }

    sub hear {
        my ($self) = @_;
        while (defined recv $self->{sock}, my $text, 4096, MSG_DONTWAIT) {
            push @{$self->{heard}}, {map { /^(\w+)=(.*)/ ? ($1 => $2) : ('?' => $_) } split /\n/, $text};
        }
        return @{$self->{heard}};
    }

    # The next message that says this, behind the last that was asked for.
    sub wait_for {
        my ($self, $name) = @_;
        return $self->{hd}->wait_for(sub {
            my @all = $self->hear;
            while ($self->{at} < @all) {
                my $m = $all[$self->{at}++];
                return $m if defined $m->{$name};
            }
            return undef;
        }, "$name from the program");
    }

    sub said { my ($self, $name) = @_; return scalar grep { defined $_->{$name} } $self->hear }
}

package main;

sub conf {
    my ($hd, $answer, $more) = @_;
    $hd->conf(<<"EOC");
@{[$more // '']}
http {
    access_log off;
    server { listen 127.0.0.1:%%PORT_0%%; location / { return 200 $answer; } }
}
EOC
}

my $name = "\0heddle-test-$$";

for my $at ('path', 'abstract', 'single') {
    my $hd = Heddle->new(log_level => 'notice');
    my $m = Manager->new($hd, $at eq 'path' ? $hd->dir . '/notify' : "$name-$at");
    my $master = $at eq 'single' ? 'off' : 'on';
    conf($hd, 'one', "master_process $master;");
    $hd->start;
    my $ready = $m->wait_for('READY');
    is $ready->{READY}, 1, "$at: READY=1";
    is $ready->{MAINPID}, $hd->pid, 'MAINPID';
    like $ready->{STATUS}, $at eq 'single' ? qr/^Serving$/ : qr/^Serving: 1 worker, generation 1$/, 'STATUS';

    conf($hd, 'two', "master_process $master;");
    ok $hd->reload, 'a reload';
    my $reloading = $m->wait_for('RELOADING');
    like $reloading->{MONOTONIC_USEC}, qr/^\d+$/, 'RELOADING=1, with the time';
    my ($uptime) = do { open my $f, '<', '/proc/uptime' or die; readline $f } =~ /^(\d+)/;
    cmp_ok $reloading->{MONOTONIC_USEC} / 1e6, '<=', $uptime + 1, 'of the monotonic clock';
    is $m->wait_for('READY')->{READY}, 1, 'then READY=1';

    $hd->expect_log(qr/\[emerg\].*unknown directive "nonsense"/);
    conf($hd, 'three', "master_process $master;\nnonsense;");
    ok !$hd->reload, 'a reload that fails';
    $m->wait_for('RELOADING');
    like $m->wait_for('READY')->{STATUS}, qr/unknown directive "nonsense"/, 'is READY=1, and the status says why';

    is $m->said('STOPPING'), 0, 'so far it hasn\'t said that it ends';
    $hd->signal($at eq 'path' ? 'QUIT' : 'TERM');
    is $m->wait_for('STOPPING')->{STOPPING}, 1, 'STOPPING=1';
    $hd->wait_for(sub { $hd->_has_ended }, 'the end');
    $hd->{exit_expected} = 0;
    is scalar(grep { exists $_->{'?'} } $m->hear), 0, 'all that was said are NAME=VALUE lines';
}

# ---- new processes, the watchdog

{
    my $hd = Heddle->new(log_level => 'notice');
    my $m = Manager->new($hd, $hd->dir . '/notify');
    $hd->{env}{WATCHDOG_USEC} = 200_000;
    conf($hd, 'one');
    $hd->start;
    $m->wait_for('READY');
    $m->wait_for('WATCHDOG') for 1 .. 3;
    ok 1, 'WATCHDOG=1, again and again';
    conf($hd, 'two', 'worker_processes 3;');
    ok $hd->reload, 'a reload with new processes';
    $m->wait_for('RELOADING');
    is $m->wait_for('READY')->{STATUS}, 'Serving: 3 workers, generation 2', 'is told, too';
}

{
    my $hd = Heddle->new(log_level => 'notice');
    my $m = Manager->new($hd, $hd->dir . '/notify');
    @{$hd->{env}}{'WATCHDOG_USEC', 'WATCHDOG_PID'} = (1000, 1);
    conf($hd, 'one');
    $hd->start;
    $m->wait_for('READY');
    $hd->reload;
    $m->wait_for('READY');
    is $m->said('WATCHDOG'), 0, 'a watchdog for another process is not ours';
}

# ---- what is no address

for my $bad ('relative', 'vsock:2:1234', '/' . 'x' x 200, '@') {
    my $hd = Heddle->new(log_level => 'notice', env => {NOTIFY_SOCKET => $bad});
    conf($hd, 'one');
    $hd->start;
    is $hd->get('/')->body, 'one', 'it serves';
    like $hd->log, qr/\[warn\].*NOTIFY_SOCKET "\Q$bad\E": a path or "\@NAME"/, "NOTIFY_SOCKET=" . substr $bad, 0, 20;
}
{
    my $hd = Heddle->new(log_level => 'notice', env => {NOTIFY_SOCKET => '/nowhere/notify'});
    conf($hd, 'one');
    $hd->start;
    $hd->wait_log(qr/\[warn\].*the service manager isn't told "READY=1.*No such file/s);
    is $hd->get('/')->body, 'one', 'nobody there: said, and it serves';
}

# ---- a new binary

{
    my $hd = Heddle->new(log_level => 'notice');
    my $m = Manager->new($hd, $hd->dir . '/notify');
    $hd->{env}{WATCHDOG_USEC} = 200_000;
    conf($hd, 'one', 'daemon on;');
    my $old = start_daemon($hd);
    is $m->wait_for('READY')->{MAINPID}, $old, 'in the background: MAINPID is the master';
    conf($hd, 'two', 'daemon on;');
    my $new = start_new_binary($hd, $old);
    my $ready = $m->said('READY');
    is $ready, 1, 'USR2: the new one says nothing yet';
    send_to(QUIT => $old);
    is $m->wait_for('MAINPID')->{MAINPID}, $new, 'the old one, told to end, names it';
    $hd->wait_for(sub { is_gone($old) }, 'the old master to end');
    is $m->said('STOPPING'), 0, 'and doesn\'t say that the service ends';
    my $status = $m->wait_for('READY');
    is $status->{MAINPID}, $new, 'then the new one says at once how it is';
    like $status->{STATUS}, qr/^Serving: \d+ worker/, '... serving';
    $m->wait_for('WATCHDOG') for 1 .. 2;
    send_to(HUP => $new);
    is $m->wait_for('READY')->{MAINPID}, $new, 'and after its next reload';
    send_to(QUIT => $new);
    is $m->wait_for('STOPPING')->{STOPPING}, 1, 'to the end';
    $hd->wait_for(sub { is_gone($new) }, 'the end');
}

# ---- sockets that are lent

# Makes <@socks> descriptors 3… of the program that comes, as systemd does.
sub lend {
    my ($hd, @socks) = @_;
    $hd->{on_spawn} = sub {
        my @high = map { fcntl($_, F_DUPFD, 100) // die "dup: $!" } @socks;
        POSIX::dup2($high[$_], 3 + $_) // die "dup2: $!" for 0 .. $#high;
        POSIX::close($_) for @high;
        @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($$, scalar @socks, join ':', ('x') x @socks);
    };
}

sub inode { (stat $_[0])[1] }
sub has_inode { my ($pid, $inode) = @_; return scalar grep { (readlink($_) // '') eq "socket:[$inode]" } glob "/proc/$pid/fd/*" }

sub by_unix {
    my ($path) = @_;
    local $SIG{ALRM} = sub { die "no answer at $path\n" };
    alarm Heddle::deadline_s();
    my $s = IO::Socket::UNIX->new(Peer => $path) or return "connect: $!";
    print $s "GET / HTTP/1.0\r\n\r\n";
    local $/;
    my $answer = readline($s) // '';
    alarm 0;
    return (split /\r\n\r\n/, $answer)[1];
}

for my $master ('on', 'off') {
    my $hd = Heddle->new(log_level => 'notice');
    my $path = $hd->dir . '/lent';
    my $tcp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $hd->port(0), Listen => 50, ReuseAddr => 1) or die "tcp: $!";
    my $unix = IO::Socket::UNIX->new(Local => $path, Listen => 50) or die "unix: $!";
    chmod 0777, $path;
    my $unused = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $hd->port(5), Listen => 5) or die "tcp: $!";
    pipe my $no_socket, my $other_end or die "pipe: $!";
    $hd->expect_log(qr/\[alert\] .*LISTEN_FDS: 6 is no listening socket/);
    lend($hd, $tcp, $unix, $unused, $no_socket);
    my $conf = sub {
        my ($answer) = @_;
        $hd->conf(<<"EOC");
master_process $master;
http {
    access_log off;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_1%%;
        listen unix:$path;
        location / { return 200 $answer; }
    }
}
EOC
    };
    $conf->('one');
    $hd->start;
    is $hd->get('/')->body, 'one', "master_process $master: a lent TCP socket";
    is by_unix($path), 'one', 'a lent unix socket';
    is $hd->get('/', {port => 1})->body, 'one', 'beside one of its own';
    my $pid = $master eq 'on' ? ($hd->workers)[0] : $hd->pid;
    ok has_inode($pid, inode($_)), 'the very socket' for $tcp, $unix;
    $hd->wait_log(qr/\[warn\].*the service manager's socket 127\.0\.0\.1:@{[$hd->port(5)]} isn't used: no "listen" has exactly this address/);
    $hd->wait_for(sub { !has_inode($hd->pid, inode($unused)) }, 'one that nobody wants to be closed');
    $conf->('two');
    ok $hd->reload, 'a reload';
    is by_unix($path), 'two', 'keeps them';
    $hd->signal('QUIT');
    $hd->wait_for(sub { $hd->_has_ended }, 'the end');
    $hd->{exit_expected} = 0;
    $hd->stop;
    ok -S $path, 'the unix socket is left where it was';
    my $waiting = $hd->connect(0); # in the queue of the manager's socket
    delete $hd->{status};
    $hd->start;
    is $waiting->request('GET', '/', {}, Host => 'a')->body, 'two', 'who came meanwhile is served by the next one';
}

# Of another process: LISTEN_PID isn't ours.
{
    my $hd = Heddle->new(log_level => 'notice', env => {LISTEN_PID => 1, LISTEN_FDS => 3});
    conf($hd, 'one');
    $hd->start;
    is $hd->get('/')->body, 'one', 'sockets lent to another process are not looked at';
}

# A new binary goes on with them.
{
    my $hd = Heddle->new(log_level => 'notice');
    my $path = $hd->dir . '/lent';
    my $unix = IO::Socket::UNIX->new(Local => $path, Listen => 50) or die "unix: $!";
    chmod 0777, $path;
    lend($hd, $unix);
    $hd->conf("daemon on;\nhttp { access_log off; server { listen unix:$path; location / { return 200 one; } } }\n");
    my $old = start_daemon($hd);
    is by_unix($path), 'one', 'in the background';
    my $new = start_new_binary($hd, $old);
    send_to(QUIT => $old);
    $hd->wait_for(sub { is_gone($old) }, 'the old one to end');
    is by_unix($path), 'one', 'the new binary has the lent socket';
    send_to(QUIT => $new);
    $hd->wait_for(sub { is_gone($new) }, 'the end');
    ok -S $path, 'and leaves it, too';
}

# ---- the units

SKIP: {
    skip 'no systemd-analyze', 2 if system('systemd-analyze --version >/dev/null 2>&1') != 0;
    my $hd = Heddle->new;
    for my $unit ('heddle.service', 'heddle.socket') {
        open my $f, '<', "$Heddle::top/deploy/systemd/$unit" or die "$unit: $!";
        my $text = do { local $/; <$f> };
        $text =~ s{/opt/heddle/sbin/heddle}{$hd->program}ge;
        $hd->write($unit, $text);
    }
    for my $unit ('heddle.service', 'heddle.socket') {
        my $out = `systemd-analyze verify --man=no --recursive-errors=no @{[$hd->dir]}/$unit 2>&1`;
        skip "systemd-analyze can't run here: $out", 1 if $out =~ /Failed to (?:create|initialize|connect)/;
        unlike $out, qr/\Q$unit\E/, "systemd-analyze has nothing to say of $unit";
    }
}

done_testing;
