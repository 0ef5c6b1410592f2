package Heddle::Streams;

# Back ends and clients that stay while processes change: t/lib/streams.py, whose head is the manual.
#
#   Heddle::Streams->backend($hd, 1, 2);       # HTTP on port 1, gRPC on port 2
#   my $s = Heddle::Streams->clients($hd, http => 0, grpc => 3, ws => 2, talks => 2, load => 1);
#   $s->state->{ws}{n}; $s->quiet; $s->end;    # each the state: {KIND => {n failed conns ports}}
#   $s->wait_for_more(qw(ws talks));           # until each of these kinds has gone on since
#   is $s->failures($state), '', '...';        # all reasons, in one text
# Needs python3-grpcio: $Heddle::Streams::missing says why it can't run; undef: it can.

use strict;
use warnings;
use Heddle;
use Heddle::Watch;
use IPC::Open2;
use JSON::XS;

my $python = '/usr/bin/python3';
our $missing = system("$python -c 'import grpc.aio' >/dev/null 2>&1") == 0 ? undef : 'no python3-grpcio';

sub _start {
    my ($class, $hd, @args) = @_;
    my $test = $$;
    my $pid = open2(my $out, my $in, '-') // die "fork: $!";
    if ($pid == 0) {
        Heddle::Watch::die_with_parent($test);
        open STDERR, '>>', $hd->dir . '/streams.err';
        exec $python, "$Heddle::top/t/lib/streams.py", @args or POSIX::_exit(127);
    }
    $in->autoflush(1);
    return bless {hd => $hd, pid => $pid, in => $in, out => $out, test => $test}, $class;
}

sub backend {
    my ($class, $hd, $http, $grpc) = @_;
    my $self = $class->_start($hd, 'backend', $hd->port($http), $hd->port($grpc));
    $self->_line eq "ready\n" or die "the back end didn't start\n";
    return $self;
}

sub clients {
    my ($class, $hd, %conf) = @_;
    $conf{$_} = $hd->port($conf{$_}) for grep { defined $conf{$_} } 'http', 'tls', 'grpc';
    my $self = $class->_start($hd, 'clients', JSON::XS->new->encode({map { $_ => $conf{$_} + 0 } keys %conf}));
    $self->{kinds} = [grep { $conf{$_} } 'ws', 'talks', 'load', 'tls_load', 'calls'];
    $self->wait_for_more(@{$self->{kinds}});
    return $self;
}

sub _line {
    my ($self) = @_;
    my $line = readline $self->{out};
    return $line // die "streams.py ended: " . $self->{hd}->file('streams.err') . "\n";
}

sub _ask {
    my ($self, $word) = @_;
    print {$self->{in}} "$word\n";
    return decode_json($self->_line);
}

sub state { $_[0]->_ask('state') }
sub quiet { $_[0]->_ask('quiet') }

sub end {
    my ($self) = @_;
    my $state = $self->_ask('end');
    waitpid $self->{pid}, 0;
    delete $self->{pid};
    return $state;
}

sub wait_for_more {
    my ($self, @kinds) = @_;
    my $before = $self->state;
    my $now;
    $self->{hd}->wait_for(sub {
        $now = $self->state;
        die $self->failures($now) if $self->failures($now);
        return !grep { $now->{$_}{n} <= $before->{$_}{n} } @kinds;
    }, "@kinds to go on");
    return $now;
}

sub failures {
    my ($self, $state) = @_;
    return join '', map { my $k = $_; map { "$k: $_\n" } @{$state->{$k}{failed}} } sort keys %$state;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!, $@);
    return unless $self->{pid} && $$ == $self->{test};
    kill 'TERM', $self->{pid};
    waitpid $self->{pid}, 0;
}

1;
