package Heddle::H2;

# A client of HTTP/2 that writes frames by hand, good ones and bad ones.
#
#   my $c = Heddle::H2->new($hd->port(0));         # preface and SETTINGS are sent
#       settings => {4 => 0}  quiet => 1 (SETTINGS aren't acknowledged)  raw => 1 (nothing is sent)  tls => {...} as in Heddle/Http.pm
#   $c->request(1, '/', end => 1, method => 'POST', fields => [name => value, ...]);
#   $c->frame($type, $flags, $stream, $payload);   # types by name: 'DATA', 'RST_STREAM' …
#   $c->send($bytes);  head($type, $flags, $stream, $payload) is a frame's bytes
#   $c->next         the next frame {type flags id payload}; undef at the end of the connection.
#       SETTINGS are acknowledged by itself
#   $c->until(sub { ... $_ ... })   reads until it is true of a frame; that frame, or undef at the end
#   $c->response(1)  {status, body, reset (error code), fields} when the stream is over
#   $c->calmed       reads to the end: the name of GOAWAY's error; 'closed' if there was none
#   $c->try_send($bytes)  false when the peer has closed
# Fields are written as literals without compression; of what comes, :status is read and fields of
# plain literals.

use strict;
use warnings;
use Heddle::Http;
use IO::Socket::INET;
use Time::HiRes qw(time);

my @types = qw(DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE CONTINUATION);
my %type = map { $types[$_] => $_ } 0 .. $#types;
my @errors = qw(NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED
    FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM);
our $preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

sub new {
    my ($class, $port, %opt) = @_;
    my $conn = Heddle::Http->connect($port, %{$opt{conn} || {}}, $opt{tls} ? (tls => $opt{tls}) : ());
    my $self = bless {conn => $conn, streams => {}, quiet => $opt{quiet}}, $class;
    unless ($opt{raw}) {
        my %s = %{$opt{settings} || {}};
        $self->send($preface . $self->head('SETTINGS', 0, 0, join '', map { pack 'nN', $_, $s{$_} } sort keys %s));
    }
    return $self;
}

sub error_name { $errors[$_[0]] // $_[0] }

sub head {
    my ($self, $type, $flags, $id, $payload) = @_;
    $payload //= '';
    return substr(pack('N', length $payload), 1) . pack('CCN', $type{$type} // $type, $flags, $id) . $payload;
}

sub send { my ($self, $bytes) = @_; return $self->{conn}->send($bytes) }

sub try_send { my ($self, $bytes) = @_; return $self->send($bytes) == length $bytes }

sub frame { my $self = shift; return $self->send($self->head(@_)) }

# An HPACK literal without indexing (RFC 7541 §6.2.2).
sub field {
    my ($name, $value) = @_;
    return "\0" . integer(length $name) . $name . integer(length $value) . $value;
}

sub integer {
    my ($n) = @_;
    return chr $n if $n < 127;
    my $out = chr 127;
    $n -= 127;
    while ($n > 127) { $out .= chr($n % 128 + 128); $n = int $n / 128 }
    return $out . chr $n;
}

sub fields { my $out = ''; while (my ($n, $v) = splice @_, 0, 2) { $out .= field($n, $v) } return $out }

sub request_block {
    my ($self, $path, %opt) = @_;
    return fields(':method', $opt{method} // 'GET', ':scheme', $opt{scheme} // 'http', ':path', $path, ':authority', 'localhost',
        @{$opt{fields} || []});
}

sub request {
    my ($self, $id, $path, %opt) = @_;
    my @pieces = unpack '(a16384)*', $self->request_block($path, %opt);
    my $end = $opt{end} // 1 ? 1 : 0;
    for my $i (0 .. $#pieces) {
        $self->frame($i == 0 ? 'HEADERS' : 'CONTINUATION', ($i == $#pieces ? 4 : 0) | ($i == 0 ? $end : 0), $id, $pieces[$i]);
    }
}

sub next {
    my ($self) = @_;
    my $c = $self->{conn};
    my $head = $c->read_bytes(9);
    return undef if length $head < 9;
    my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $head;
    my $len = $high << 16 | $low;
    my $payload = $len ? $c->read_bytes($len) : '';
    return undef if length $payload < $len;
    my $f = {type => $types[$type] // $type, flags => $flags, id => $id & 0x7fffffff, payload => $payload};
    $self->frame('SETTINGS', 1, 0) if $f->{type} eq 'SETTINGS' && !($flags & 1) && !$self->{quiet};
    $self->note($f);
    return $f;
}

my %static = (8 => 200, 9 => 204, 10 => 206, 11 => 304, 12 => 400, 13 => 404, 14 => 500);
my %digits = map { $_ => $_ } 0 .. 9;

# :status of a head: an index, or a literal of three digits, often in Huffman's code.
sub status_of {
    my ($block) = @_;
    $block = substr $block, 1 while length $block && (ord($block) & 0xe0) == 0x20; # table size
    my $first = ord $block;
    return $static{$first & 0x7f} // 0 if $first & 0x80;
    my $len = ord substr $block, 1, 1;
    my $value = substr $block, 2, $len & 0x7f;
    return $value unless $len & 0x80;
    my $bits = unpack 'B*', $value; # RFC 7541 appendix B: 0-2 have 5 bits, 3-9 six
    my $status = '';
    while (length $status < 3) {
        if ($bits =~ s/^000(00|01|10)//) { $status .= oct "0b$1" }
        elsif ($bits =~ s/^(0110(?:01|10|11)|0111(?:00|01|10|11))//) { $status .= oct("0b$1") - 22 }
        else { return 0 }
    }
    return $status;
}

sub note {
    my ($self, $f) = @_;
    my $s = $self->{streams}{$f->{id}} //= {body => '', status => 0, frames => 0};
    if ($f->{type} eq 'HEADERS') {
        my $status = $s->{status} && $s->{status} >= 200 ? undef : status_of($f->{payload});
        if (defined $status) { $s->{status} = $status } else { $s->{trailers} = $f->{payload} }
        $s->{block} //= $f->{payload};
    }
    elsif ($f->{type} eq 'DATA') { $s->{body} .= $f->{payload}; $s->{frames}++ }
    elsif ($f->{type} eq 'RST_STREAM') { $s->{reset} = error_name(unpack 'N', $f->{payload}); $s->{over} = 1 }
    elsif ($f->{type} eq 'GOAWAY') {
        my ($last, $error) = unpack 'NN', $f->{payload};
        push @{$self->{goaways}}, {last => $last, error => error_name($error)};
    }
    $s->{over} = 1 if ($f->{type} eq 'HEADERS' || $f->{type} eq 'DATA') && $f->{flags} & 1;
}

sub until {
    my ($self, $what) = @_;
    while (my $f = $self->next) {
        local $_ = $f;
        return $f if $what->($f);
    }
    return undef;
}

sub response {
    my ($self, $id) = @_;
    while (!($self->{streams}{$id} && $self->{streams}{$id}{over})) {
        $self->next or last;
    }
    return $self->{streams}{$id} // {body => '', status => 0, closed => 1};
}

sub calmed {
    my ($self) = @_;
    1 while $self->next;
    return $self->{goaways} ? $self->{goaways}[-1]{error} : 'closed';
}

sub close { $_[0]{conn}->close }

1;
