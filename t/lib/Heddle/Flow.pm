package Heddle::Flow;

# Many large bodies at once, by HTTP/1 (a connection each) or HTTP/2 (streams of one), whose client stops and goes on.
# Body number i is one letter over and over, so that bytes of another's are seen.
#
#   my $f = Heddle::Flow->new($port, n => 30, bytes => 3 << 20, h2 => 1);
#   $f->get('/from/*');         # asks for /from/a, /from/b …; of the bodies nothing is read, or a window's worth
#   $f->post('/to/*');          # sends bodies until nothing more is taken
#   $f->sent                    # bytes of bodies so far
#   $f->finish                  # all of it: a line for each, "STATUS BYTES LETTER" of what was got
#   Heddle::Flow::sink($path, $go)       # on a unix socket: reads no body before the file $go is there; its answer is
#                                        # "BYTES LETTER". (Of a TCP connection's the kernel takes 4 MB by itself.)

use strict;
use warnings;
use Errno qw(EAGAIN EWOULDBLOCK);
use Heddle;
use Heddle::Backend;
use Heddle::H2;
use IO::Socket::UNIX;
use Socket qw(:DEFAULT inet_aton pack_sockaddr_in);
use Time::HiRes qw(time);

my $piece = 16384;       # what is sent at once: a frame of HTTP/2
my $kernel_bytes = 65536; # of a socket's buffers: few, for what is there isn't in a program
my $silent_s = 0.5;      # nothing came or went for so long: it has stopped
my $letters_n = 26;

sub letter { return chr(ord('a') + $_[0] % $letters_n) }

my %run; # letter => a piece of it
$run{letter($_)} = letter($_) x 65536 for 0 .. $letters_n - 1;

sub is_all { my ($letter, $bytes) = @_; return $bytes eq substr $run{$letter}, 0, length $bytes }

sub new {
    my ($class, $port, %opt) = @_;
    my $self = bless {port => $port, sent => 0, %opt}, $opt{h2} ? 'Heddle::Flow::H2' : 'Heddle::Flow::H1';
    $self->{streams} = [map { +{letter => letter($_), got => 0, text => '', left => 0} } 0 .. $self->{n} - 1];
    $self->open;
    return $self;
}

sub sent { $_[0]{sent} }

sub get {
    my ($self, $path) = @_;
    $self->{gets} = 1;
    $self->begin($_, 'GET', $path =~ s/\*/$_->{letter}/r) for @{$self->{streams}};
    $self->stop_reading;
}

sub post {
    my ($self, $path) = @_;
    $_->{left} = $self->{bytes}, $self->begin($_, 'POST', $path =~ s/\*/$_->{letter}/r) for @{$self->{streams}};
    1 while $self->turn(0);
}

sub finish {
    my ($self) = @_;
    my $until = time + Heddle::deadline_s();
    $self->go_on;
    while (grep { !$_->{over} } @{$self->{streams}}) {
        if ($self->turn(1)) { $until = time + Heddle::deadline_s() }
        elsif (time > $until) { last }
    }
    return map {
        my $s = $_;
        my $what = $self->{gets} ? "$s->{got} " . ($s->{wrong} ? 'and others' : $s->{letter}) : $s->{text};
        ($s->{over} ? '' : 'without end: ') . ($s->{status} // 'no status') . " $what";
    } @{$self->{streams}};
}

# Bytes of <s>'s body came.
sub take {
    my ($self, $s, $bytes) = @_;
    $s->{got} += length $bytes;
    if ($self->{gets}) { $s->{wrong} ||= !is_all($s->{letter}, $bytes) }
    else { $s->{text} .= $bytes }
}

sub sink {
    my ($path, $go) = @_;
    my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 512) or die "$path: $!";
    chmod 0777, $path;
    Heddle::Backend::spawn(sub {
        my %conns;
        while (1) {
            my $in = '';
            my $goes = -e $go;
            vec($in, fileno $listener, 1) = 1;
            vec($in, $_, 1) = 1 for $goes ? keys %conns : ();
            select($in, undef, undef, $goes ? undef : 0.02) > 0 or next;
            if (vec $in, fileno $listener, 1) {
                my $sock = $listener->accept or next;
                $conns{fileno $sock} = {sock => $sock, head => ''};
            }
            for my $fd ($goes ? grep { vec $in, $_, 1 } keys %conns : ()) {
                delete $conns{$fd} unless take_in($conns{$fd});
            }
        }
    });
    close $listener;
}

# In the sink's process: false when the connection is over.
sub take_in {
    my ($c) = @_;
    my $n = sysread $c->{sock}, my $bytes, 65536;
    return 0 if !$n;
    if (!exists $c->{left}) {
        $c->{head} .= $bytes;
        $c->{head} =~ s/^(.*?\r\n)\r\n//s or return 1;
        ($c->{bytes}) = $1 =~ /^content-length: (\d+)\r$/mi;
        $c->{left} = $c->{bytes};
        $bytes = $c->{head};
        $c->{head} = '';
    }
    return 1 if $bytes eq '' && $c->{left};
    $c->{letter} //= substr $bytes, 0, 1;
    $c->{wrong} ||= !is_all($c->{letter}, $bytes);
    $c->{left} -= length $bytes;
    return 1 if $c->{left} > 0;
    my $text = "$c->{bytes} " . ($c->{wrong} || $c->{left} ? 'and others' : $c->{letter});
    syswrite $c->{sock}, sprintf "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length $text, $text;
    delete @$c{'left', 'bytes', 'letter', 'wrong'};
    return 1;
}

# ---- HTTP/1

package Heddle::Flow::H1;

use Socket qw(:DEFAULT inet_aton pack_sockaddr_in);

our @ISA = 'Heddle::Flow';

sub open {
    my ($self) = @_;
    for my $s (@{$self->{streams}}) {
        socket my $sock, PF_INET, SOCK_STREAM, 0 or die "socket: $!";
        setsockopt $sock, SOL_SOCKET, $_, $kernel_bytes for SO_RCVBUF, SO_SNDBUF;
        connect $sock, pack_sockaddr_in($self->{port}, inet_aton('127.0.0.1')) or die "connect to port $self->{port}: $!\n";
        $sock->blocking(0);
        $s->{sock} = $sock;
    }
}

sub begin {
    my ($self, $s, $method, $path) = @_;
    syswrite $s->{sock}, "$method $path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        . ($s->{left} ? "Content-Length: $s->{left}\r\n" : '') . "\r\n";
    $s->{head} = '';
}

sub stop_reading {}
sub go_on {}

# Sends what may be sent, reads what came; false if nothing moved for a while.
sub turn {
    my ($self, $reads) = @_;
    my ($in, $out) = ('', '');
    for my $s (grep { !$_->{over} } @{$self->{streams}}) {
        vec($in, fileno $s->{sock}, 1) = 1 if $reads;
        vec($out, fileno $s->{sock}, 1) = 1 if $s->{left};
    }
    select($in, $out, undef, $silent_s) > 0 or return 0;
    for my $s (grep { !$_->{over} } @{$self->{streams}}) {
        my $fd = fileno $s->{sock};
        if ($s->{left} && vec $out, $fd, 1) {
            my $n = syswrite $s->{sock}, $run{$s->{letter}}, $s->{left} < $piece ? $s->{left} : $piece;
            $s->{left} -= $n // 0;
            $self->{sent} += $n // 0;
        }
        $self->read_some($s) if $reads && vec $in, $fd, 1;
    }
    return 1;
}

sub read_some {
    my ($self, $s) = @_;
    my $n = sysread $s->{sock}, my $bytes, 65536;
    return if !defined $n && ($!{EAGAIN} || $!{EWOULDBLOCK});
    return $s->{over} = 1 if !$n;
    if (defined $s->{head}) {
        $s->{head} .= $bytes;
        ($s->{status}) = $s->{head} =~ s{^HTTP/1\.1 (\d+) .*?\r\n\r\n}{}s ? $1 : return;
        $bytes = delete $s->{head};
    }
    $self->take($s, $bytes);
}

# ---- HTTP/2

package Heddle::Flow::H2;

our @ISA = 'Heddle::Flow';

sub open {
    my ($self) = @_;
    my $c = $self->{conn} = Heddle::H2->new($self->{port});
    my $id = -1;
    $_->{id} = $id += 2 for @{$self->{streams}};
    $self->{by_id} = {map { $_->{id} => $_ } @{$self->{streams}}};
    @$self{'window', 'initial'} = (65535, 65535);
    $c->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x7fff0000);
    $c->until(sub { $self->heed($_); $_->{type} eq 'SETTINGS' && !($_->{flags} & 1) });
}

sub begin {
    my ($self, $s, $method, $path) = @_;
    $s->{window} = $self->{initial};
    $self->{conn}->request($s->{id}, $path, method => $method, end => !$s->{left},
        fields => [$s->{left} ? ('content-length', $s->{left}) : ()]);
}

# A window's worth of each has come.
sub stop_reading {
    my ($self) = @_;
    while (grep { $_->{got} < 65535 && !$_->{over} } @{$self->{streams}}) { $self->heed($self->{conn}->next // last) }
}

sub go_on {
    my ($self) = @_;
    $self->{conn}->frame('WINDOW_UPDATE', 0, $_->{id}, pack 'N', $self->{bytes}) for grep { !$_->{over} } @{$self->{streams}};
}

# What a frame means to us; false: nothing.
sub heed {
    my ($self, $f) = @_;
    my $s = $self->{by_id}{$f->{id}};
    my $seen = $self->{conn}{streams}{$f->{id}};
    if ($f->{type} eq 'SETTINGS' && !($f->{flags} & 1)) {
        my %set = unpack '(nN)*', $f->{payload};
        return 0 unless exists $set{4};
        $_->{window} += $set{4} - $self->{initial} for grep { defined $_->{window} } @{$self->{streams}};
        $self->{initial} = $set{4};
    } elsif ($f->{type} eq 'WINDOW_UPDATE') {
        my $more = unpack 'N', $f->{payload};
        if ($s) { $s->{window} += $more } else { $self->{window} += $more }
    } elsif ($s) {
        $self->take($s, $f->{payload}) if $f->{type} eq 'DATA';
        $seen->{body} = ''; # it was taken
        @$s{'status', 'over'} = @$seen{'status', 'over'};
    } else {
        return 0;
    }
    return 1;
}

sub turn {
    my ($self) = @_;
    my $moved = 0;
    for my $s (@{$self->{streams}}) {
        my $n = (sort { $a <=> $b } $piece, $s->{left}, $self->{window}, $s->{window})[0];
        next if $n <= 0 || $s->{over};
        $s->{left} -= $n;
        $_->{window} -= $n for $self, $s;
        $self->{sent} += $n;
        $self->{conn}->frame('DATA', $s->{left} ? 0 : 1, $s->{id}, substr $run{$s->{letter}}, 0, $n);
        $moved++;
    }
    my $in = '';
    vec($in, fileno $self->{conn}{conn}{sock}, 1) = 1;
    select $in, undef, undef, $silent_s if !$moved && !$self->{conn}{conn}->is_ready;
    while ($self->{conn}{conn}->is_ready) {
        my $f = $self->{conn}->next or die "the connection was closed\n";
        $moved += $self->heed($f);
    }
    return $moved;
}

1;
