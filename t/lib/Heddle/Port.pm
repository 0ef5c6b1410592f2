package Heddle::Port;

# Ports that no other test running at the same time uses. They lie below the range from which
# the kernel takes ports for connect(), so that no client socket sits on one by chance. A port
# is held by a lock on a file, which ends with the process; before it is handed out, binding it
# is tried.

use strict;
use warnings;
use Fcntl qw(LOCK_EX LOCK_NB O_CREAT O_RDWR);
use IO::Socket::INET;

my $dir = "/tmp/heddle-ports-$<";
my (@held, $next);

sub range {
    my ($low) = (32768);
    if (open my $f, '<', '/proc/sys/net/ipv4/ip_local_port_range') {
        ($low) = split ' ', <$f>;
    }
    # A kernel that hands out nearly all ports leaves us no room below: take what is usual.
    $low = 32768 if $low < 12000;
    return (10000, $low - 1);
}

sub may_bind {
    my ($port) = @_;
    for my $proto ('tcp', 'udp') {
        IO::Socket::INET->new(
            LocalAddr => '0.0.0.0', LocalPort => $port, Proto => $proto,
            ($proto eq 'tcp' ? (Listen => 1, ReuseAddr => 1) : ()),
        ) or return 0;
    }
    return 1;
}

# A port that is ours until the process ends.
sub reserve {
    my ($from, $to) = range();
    my $n = $to - $from + 1;

    mkdir $dir, 0700;
    $next //= ($$ * 37) % $n; # tests started one after the other begin apart
    for (1 .. $n) {
        my $port = $from + $next++ % $n;
        sysopen my $lock, "$dir/$port", O_CREAT | O_RDWR, 0600 or die "$dir/$port: $!";
        next unless flock $lock, LOCK_EX | LOCK_NB;
        next unless may_bind($port);
        push @held, $lock;
        return $port;
    }
    die "no free port between $from and $to\n";
}

# Whether somebody listens on a TCP port; asks the kernel, so that no connection is made.
sub is_listening {
    my ($port) = @_;
    my $hex = sprintf ':%04X', $port;
    for my $table ('/proc/net/tcp', '/proc/net/tcp6') {
        open my $f, '<', $table or next;
        while (my $line = <$f>) {
            my (undef, $local, undef, $state) = split ' ', $line;
            return 1 if $state eq '0A' && substr($local, -5) eq $hex;
        }
    }
    return 0;
}

1;
