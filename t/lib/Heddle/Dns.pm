package Heddle::Dns;

# A DNS server (UDP and TCP) on 127.0.0.1 that answers what a test says, also while it runs.
#
#   my $dns = Heddle::Dns->new($hd, 'dns');        # on port dns of $hd
#   $dns->set('a.test' => {ttl => 1, A => ['127.0.0.1'], AAAA => ['::1'], SRV => [[10, 5, 80, 'b.test']]});
#   $dns->set('c.test' => {CNAME => 'a.test'}, 'd.test' => {A => [...], truncated => 1}); # by UDP: TC, no records
#   $dns->set('b.test' => 'SERVFAIL');             # or NXDOMAIN, REFUSED, SILENT; undef: NXDOMAIN again
#   $dns->down; $dns->up;                          # nothing is answered in between
#   $dns->asked('a.test', 'A')                     # how often it was asked so far; without a type: all
# set() counts for questions that come after it returned; names that were not set: NXDOMAIN. A name without
# records of the type: an empty answer.

use strict;
use warnings;
use Heddle;
use Heddle::Backend;
use IO::Select;
use IO::Socket::INET;
use JSON::XS;
use Socket qw(inet_aton inet_pton AF_INET6);

my %TYPE = (A => 1, CNAME => 5, AAAA => 28, SRV => 33);
my %NAME = reverse %TYPE;
my %RCODE = (SERVFAIL => 2, NXDOMAIN => 3, REFUSED => 5);
my $json = JSON::XS->new->canonical;

sub new {
    my ($class, $hd, $port) = @_;
    my $n = $hd->port($port);
    my $self = bless {port => $n, zone => {}, file => $hd->dir . "/dns-$port", pid => $$}, $class;
    my $udp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $n, Proto => 'udp')
        or die "UDP port $n: $!\n";
    my $tcp = Heddle::Backend::listener($n);
    $self->write_zone;
    open my $log, '>', "$self->{file}.log" or die "$self->{file}.log: $!";
    close $log;
    Heddle::Backend::spawn(sub { $self->run($udp, $tcp) });
    return $self;
}

sub port { $_[0]{port} }

sub write_zone {
    my ($self) = @_;
    open my $f, '>', "$self->{file}.tmp" or die "$self->{file}: $!";
    print $f $json->encode($self->{zone});
    close $f or die "$self->{file}: $!";
    rename "$self->{file}.tmp", $self->{file} or die "$self->{file}: $!";
    return $self;
}

sub set {
    my ($self, %names) = @_;
    $self->{zone}{$_} = $names{$_} for keys %names;
    return $self->write_zone;
}

sub down { my ($self) = @_; $self->{zone}{''} = 'SILENT'; return $self->write_zone }
sub up   { my ($self) = @_; delete $self->{zone}{''}; return $self->write_zone }

sub asked {
    my ($self, $name, $type, $proto) = @_;
    open my $f, '<', "$self->{file}.log" or die "$self->{file}.log: $!";
    my @lines = map { [split] } <$f>;
    return scalar grep { $_->[1] eq $name && (!$type || $_->[2] eq $type) && (!$proto || $_->[0] eq $proto) } @lines;
}

# --- the server's process ---

sub run {
    my ($self, $udp, $tcp) = @_;
    my $select = IO::Select->new($udp, $tcp);
    my %buf;
    open my $log, '>>', "$self->{file}.log" or die "$self->{file}.log: $!";
    $log->autoflush(1);
    while (1) {
        for my $s ($select->can_read) {
            if ($s == $udp) {
                my $from = $udp->recv(my $query, 4096) // next;
                my $answer = $self->answer($query, 'udp', $log) // next;
                send $udp, $answer, 0, $from;
            } elsif ($s == $tcp) {
                my $c = $tcp->accept or next;
                $buf{fileno $c} = '';
                $select->add($c);
            } elsif (sysread $s, $buf{fileno $s}, 4096, length $buf{fileno $s}) {
                my $b = \$buf{fileno $s};
                while (length $$b >= 2 && length $$b >= 2 + unpack 'n', $$b) {
                    my ($query) = unpack 'n/a', $$b;
                    substr $$b, 0, 2 + length $query, '';
                    my $answer = $self->answer($query, 'tcp', $log) // next;
                    syswrite $s, pack 'n/a*', $answer;
                }
            } else {
                $select->remove($s);
                close $s;
            }
        }
    }
}

sub wire_name { join('', map { pack 'C/a*', $_ } split /\./, $_[0]) . "\0" }

sub data_of {
    my ($type, $r) = @_;
    return inet_aton($r) if $type eq 'A';
    return inet_pton(AF_INET6, $r) if $type eq 'AAAA';
    return pack('nnn', @$r[0 .. 2]) . wire_name($r->[3]);
}

# undef: silence
sub answer {
    my ($self, $query, $proto, $log) = @_;
    my ($id, $flags) = unpack 'nn', $query;
    my ($at, @labels) = (12);
    while (my $len = unpack 'C', substr $query, $at, 1) {
        push @labels, substr $query, $at + 1, $len;
        $at += 1 + $len;
    }
    my $question = substr $query, 12, $at + 5 - 12;
    my $number = unpack 'n', substr $query, $at + 1, 2;
    my $type = $NAME{$number} // "TYPE$number";
    my $name = lc join '.', @labels;
    open my $f, '<', $self->{file} or die "$self->{file}: $!";
    my $zone = $json->decode(join '', <$f>);
    print $log "$proto $name $type\n";
    my $is = $zone->{''} // $zone->{$name} // 'NXDOMAIN';
    return undef if $is eq 'SILENT';
    my $rcode = ref $is ? 0 : $RCODE{$is} // die "what is $is?";
    return pack('nnnnnn', $id, 0x8380, 1, 0, 0, 0) . $question if ref $is && $is->{truncated} && $proto eq 'udp';
    my @rr;
    my $owner = pack 'n', 0xc00c;
    while (ref $is && $is->{CNAME}) {
        push @rr, $owner . pack 'nnNn/a*', 5, 1, $is->{ttl} // 0, wire_name($is->{CNAME});
        $owner = wire_name($is->{CNAME});
        $is = $zone->{$is->{CNAME}};
    }
    push @rr, map { $owner . pack 'nnNn/a*', $number, 1, $is->{ttl} // 0, data_of($type, $_) } @{$is->{$type} // []}
        if ref $is;
    return pack('nnnnnn', $id, 0x8180 | $rcode, 1, scalar @rr, 0, 0) . $question . join '', @rr;
}

1;
