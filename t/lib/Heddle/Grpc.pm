package Heddle::Grpc;

# A genuine gRPC client and server (python3-grpcio, t/lib/grpc_peer.py).
#
#   plan skip_all => $Heddle::Grpc::missing if !Heddle::Grpc::usable();
#   my $server = Heddle::Grpc->serve($port, [cert, key]);    # until it goes out of scope
#   my $client = Heddle::Grpc->client($port);
#   my $r = $client->call('Echo', messages => ['a'], timeout => 5);   # {code details messages trailing}

use strict;
use warnings;
use Heddle;
use IPC::Open2;
use JSON::XS;

our $missing = 'python3-grpcio is not installed';
my $program = "$Heddle::top/t/lib/grpc_peer.py";

sub usable { return system("/usr/bin/python3 -c 'import grpc' >/dev/null 2>&1") == 0 }

sub start {
    my ($class, @args) = @_;
    my $pid = open2(my $out, my $in, $program, @args);
    $in->autoflush(1);
    return bless {pid => $pid, in => $in, out => $out, owner => $$}, $class;
}

sub serve {
    my ($class, $port, @more) = @_;
    my $self = $class->start('serve', $port, @more);
    my $line = readline $self->{out};
    die "no gRPC server on port $port\n" unless defined $line && $line eq "ready\n";
    return $self;
}

sub client { my ($class, $port) = @_; return $class->start('call', "127.0.0.1:$port") }

sub begin { my ($self, $method, %opt) = @_; print {$self->{in}} encode_json({method => $method, %opt}), "\n" }

sub end {
    my ($self) = @_;
    my $line = readline($self->{out}) // die "the gRPC client ended\n";
    return decode_json($line);
}

sub call { my ($self, @what) = @_; $self->begin(@what); return $self->end }

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    close $self->{in};
    kill 'TERM', $pid;
    waitpid $pid, 0;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!, $@);
    $self->stop if $self->{owner} == $$;
}

1;
