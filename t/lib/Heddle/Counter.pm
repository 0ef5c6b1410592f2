package Heddle::Counter;

# A back end that counts: how many connections and requests it has at once, at most. It is the
# one that a limit protects, so what it sees is what counts.
#
#   my $up = Heddle::Counter->new($hd, 1);        # on port 1 of $hd
#   $up->max                # {conns, active, retries, requests, now, busy}: since the last reset, but for now: how many
#                           # connections, and busy: with a request; retries: those whose X-Request-Id came before
#   $up->reset;
#   (limit => n): connections; the n+1st is looked at more closely, see below
#   $up->set(status => 503, hold => 0.05, tcp => 1);    # answers so, after this time; tcp: no HTTP, bytes
#                                                       # are sent back; hold_retries: theirs
#   $up->answer_all(hold => 0.05);                      # those held, at once; later ones after this time
#
# A connection beyond the limit is counted only after those that the client has closed are seen as closed: on
# loopback a close that came before a connect may be read after it.

use strict;
use warnings;
use Heddle::Backend;
use IO::Select;
use IO::Socket::UNIX;
use JSON::XS;
use Time::HiRes qw(time);

my $json = JSON::XS->new;
my $settle_s = 0.25; # for the end of a closed connection to arrive

sub new {
    my ($class, $hd, $n, %how) = @_;
    my $self = bless {hd => $hd, path => $hd->dir . "/counter-$n"}, $class;
    my $listener = Heddle::Backend::listener($hd->port($n));
    my $control = IO::Socket::UNIX->new(Local => $self->{path}, Listen => 5) or die "$self->{path}: $!";
    $self->{pid} = Heddle::Backend::spawn(sub { serve($listener, $control, {hold => 0.004, status => 200, limit => 1e9, %how}) });
    close $listener;
    return $self;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!);
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
}

sub ask {
    my ($self, $what) = @_;
    my $s = IO::Socket::UNIX->new(Peer => $self->{path}) or die "$self->{path}: $!";
    print $s $json->encode($what), "\n";
    return $json->decode(scalar <$s>);
}

sub max   { $_[0]->ask({}) }
sub reset { $_[0]->ask({reset => 1}) }
sub set   { my ($self, %how) = @_; return $self->ask({set => \%how}) }

sub answer_all {
    my ($self, %how) = @_;
    my $hold = $how{hold} // 0;
    return $self->ask({answer_all => 1, set => {hold => $hold, hold_retries => $hold}});
}

# ---- in its process

sub serve {
    my ($listener, $control, $how) = @_;
    my %c = (conns => {}, later => [], how => $how, max => nothing(), seen => {});
    my $select = IO::Select->new($listener, $control);
    while (1) {
        my $wait = @{$c{later}} ? $c{later}[0][0] - time : undef;
        my @ready = $select->can_read(defined $wait && $wait < 0 ? 0 : $wait);
        read_conns(\%c, $select, grep { $_ != $listener && $_ != $control } @ready);
        answer_due(\%c, $select);
        accept_one(\%c, $select, $listener) if grep { $_ == $listener } @ready;
        control(\%c, $control) if grep { $_ == $control } @ready;
    }
}

sub accept_one {
    my ($c, $select, $listener) = @_;
    my $sock = $listener->accept or return;
    my $until = time + $settle_s;
    my $conns = IO::Select->new(map { $_->{sock} } values %{$c->{conns}});
    # more than allowed: is one of them just not known to be closed?
    while (keys(%{$c->{conns}}) + 1 > $c->{how}{limit}) {
        my @ready = $conns->can_read($until - time > 0 ? $until - time : 0) or last;
        my $before = keys %{$c->{conns}};
        read_conns($c, $select, @ready);
        $conns->remove($_) for @ready;
        last if keys(%{$c->{conns}}) < $before;
    }
    $c->{conns}{fileno $sock} = {sock => $sock, buf => ''};
    $select->add($sock);
    note($c);
}

sub nothing { return {conns => 0, active => 0, retries => 0, requests => 0} }

sub note {
    my ($c) = @_;
    my @active = grep { $_->{active} } values %{$c->{conns}};
    my %now = (conns => scalar keys %{$c->{conns}}, active => scalar @active, retries => scalar grep { $_->{is_retry} } @active);
    for (keys %now) {
        $c->{max}{$_} = $now{$_} if $now{$_} > $c->{max}{$_};
    }
}

sub read_conns {
    my ($c, $select, @socks) = @_;
    for my $sock (@socks) {
        my $conn = $c->{conns}{fileno $sock} or next;
        my $n = sysread $sock, $conn->{buf}, 65536, length $conn->{buf};
        if (!$n) {
            $select->remove($sock);
            delete $c->{conns}{fileno $sock};
            close $sock;
        } elsif ($c->{how}{tcp}) {
            syswrite $sock, $conn->{buf};
            $conn->{buf} = '';
        } elsif (!$conn->{active} && $conn->{buf} =~ s/^(.*?)\r\n\r\n//s) {
            my ($id) = $1 =~ /^x-request-id:\s*(\S+)/mi;
            $conn->{active} = 1;
            $conn->{is_retry} = defined $id && $c->{seen}{$id}++;
            $c->{max}{requests}++;
            note($c);
            my $hold = $conn->{is_retry} ? $c->{how}{hold_retries} // $c->{how}{hold} : $c->{how}{hold};
            $c->{later} = [sort { $a->[0] <=> $b->[0] } @{$c->{later}}, [time + $hold, $conn]];
        }
    }
}

sub answer_due {
    my ($c) = @_;
    while (@{$c->{later}} && $c->{later}[0][0] <= time) {
        my $conn = (shift @{$c->{later}})->[1];
        $conn->{active} = 0;
        syswrite $conn->{sock}, "HTTP/1.1 $c->{how}{status} X\r\nContent-Length: 2\r\n\r\nok"
            if fileno $conn->{sock};
    }
}

sub control {
    my ($c, $control) = @_;
    my $sock = $control->accept or return;
    my $ask = $json->decode(scalar <$sock>);
    my %now = (%{$c->{max}}, now => scalar keys %{$c->{conns}}, busy => scalar grep { $_->{active} } values %{$c->{conns}});
    $c->{how}{$_} = $ask->{set}{$_} for keys %{$ask->{set} // {}};
    if ($ask->{reset}) {
        $c->{max} = nothing();
        note($c);
    }
    $_->[0] = 0 for $ask->{answer_all} ? @{$c->{later}} : ();
    print $sock $json->encode(\%now), "\n";
}

1;
