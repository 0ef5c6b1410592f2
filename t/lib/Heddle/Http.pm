package Heddle::Http;

# A plain HTTP/1 client for tests: it sends exactly what it is told and hides nothing.
#
#   my $c = Heddle::Http->connect($port);                  also addr =>, tls => {...}
#   $c->send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");         raw bytes
#   my $r = $c->response;                                  the next response; undef at EOF
#   my $r = $c->request('GET', '/', {body => 'x'}, Name => 'value', ...);
#   my $r = $c->response_head;                             its head alone, the body is yours
#   $c->read_until(qr/.../)  $c->read_all  $c->is_eof  $c->shutdown_write  $c->reset  $c->close
#   $c->is_ready                                           something to be read is there
#   $c->{total}                                            bytes received so far
#   my $c = Heddle::Http->adopt($socket);                  to read from a back end's side
#
# A response has status, reason, version, head (text), body (decoded), trailers (text), raw,
# header('name') (all values, joined by ", "); as a string it is head and body.
#
# tls => {ca => FILE, cert => FILE, key => FILE, sni => NAME, alpn => 'h2,http/1.1',
#         args => ['-tls1_2']} goes through openssl s_client.

use strict;
use warnings;
use IO::Socket::INET;
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC SOL_SOCKET SO_LINGER);

our $deadline_s = 30;

sub connect {
    my ($class, $port, %opt) = @_;
    my $addr = $opt{addr} // '127.0.0.1';
    my $self = bless {buf => '', eof => 0}, $class;

    if ($opt{tls}) {
        $self->{sock} = $self->_open_tls("$addr:$port", $opt{tls});
    } else {
        $self->{sock} = IO::Socket::INET->new(
            PeerAddr => $addr, PeerPort => $port, Proto => 'tcp',
            ($opt{bind} ? (LocalAddr => $opt{bind}) : ()),
        ) or die "connect to $addr:$port: $!\n";
        $self->{sock}->autoflush(1);
    }
    return $self;
}

sub adopt {
    my ($class, $sock) = @_;
    return bless {buf => '', eof => 0, sock => $sock}, $class;
}

sub _open_tls {
    my ($self, $to, $tls) = @_;
    my @cmd = ('openssl', 's_client', '-quiet', '-connect', $to, '-verify_quiet');

    push @cmd, '-servername', $tls->{sni} if defined $tls->{sni};
    push @cmd, '-noservername' unless defined $tls->{sni};
    push @cmd, '-CAfile', $tls->{ca}, '-verify_return_error' if $tls->{ca};
    push @cmd, '-cert', $tls->{cert}, '-cert_chain', $tls->{cert}, '-key', $tls->{key} if $tls->{cert};
    push @cmd, '-alpn', $tls->{alpn} if $tls->{alpn};
    push @cmd, @{$tls->{args} || []};

    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!";
    pipe my $err_r, my $err_w or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDIN, '<&', $theirs;
        open STDOUT, '>&', $theirs;
        open STDERR, '>&', $err_w;
        exec @cmd or POSIX::_exit(127);
    }
    close $theirs;
    close $err_w;
    $self->{tls_pid} = $pid;
    $self->{tls_err} = $err_r;
    $ours->autoflush(1);
    return $ours;
}

# What openssl complained about ("" if nothing); waits for it to end.
sub tls_error {
    my ($self) = @_;
    return '' unless $self->{tls_err};
    $self->{sock}->close if $self->{sock};
    local $/;
    my $text = readline $self->{tls_err};
    return $text // '';
}

sub send {
    my ($self, $bytes) = @_;
    local $SIG{PIPE} = 'IGNORE'; # a server may well close early
    my $off = 0;
    while ($off < length $bytes) {
        my $n = syswrite $self->{sock}, $bytes, length($bytes) - $off, $off;
        return $off unless defined $n;
        $off += $n;
    }
    return $off;
}

# Reads once more; false at the end of the stream. Dies when nothing comes for a long time.
sub _fill {
    my ($self) = @_;
    return 0 if $self->{eof};
    my $in = '';
    vec($in, fileno $self->{sock}, 1) = 1;
    my $n = select $in, undef, undef, $deadline_s;
    die "no answer within $deadline_s s; so far: \"$self->{buf}\"\n" unless $n > 0;
    $n = sysread $self->{sock}, $self->{buf}, 65536, length $self->{buf};
    $self->{reset} = 1 if !defined $n && $!{ECONNRESET};
    $self->{total} += $n if $n;
    return 1 if $n;
    $self->{eof} = 1;
    return 0;
}

# What came up to and with the match; undef if the stream ended before.
sub read_until {
    my ($self, $re) = @_;
    while (1) {
        return substr $self->{buf}, 0, $+[0], '' if $self->{buf} =~ $re;
        return undef unless $self->_fill;
    }
}

sub read_bytes {
    my ($self, $n) = @_;
    while (length $self->{buf} < $n) {
        $self->_fill or last;
    }
    return substr $self->{buf}, 0, $n, '';
}

sub read_all {
    my ($self) = @_;
    1 while $self->_fill;
    return substr $self->{buf}, 0, length $self->{buf}, '';
}

# Whether the peer has closed and everything was read. Waits for either.
sub is_eof {
    my ($self) = @_;
    return 0 if length $self->{buf};
    return !$self->_fill;
}

# Whether something can be read now, without waiting.
sub is_ready {
    my ($self) = @_;
    return 1 if length $self->{buf} || $self->{eof};
    my $in = '';
    vec($in, fileno $self->{sock}, 1) = 1;
    return select($in, undef, undef, 0) > 0;
}

sub was_reset { $_[0]{reset} ? 1 : 0 }

sub shutdown_write { CORE::shutdown $_[0]{sock}, 1 }

# Closes with RST.
sub reset {
    my ($self) = @_;
    setsockopt $self->{sock}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $self->close;
}

sub close {
    my ($self) = @_;
    CORE::close $self->{sock} if $self->{sock};
    if (my $pid = delete $self->{tls_pid}) {
        kill 'TERM', $pid;
        waitpid $pid, 0;
    }
    undef $self->{sock};
}

sub DESTROY {
    local ($?, $!, $@);
    $_[0]->close;
}

sub response_head {
    my ($self) = @_;
    my $raw = $self->read_until(qr/\r?\n\r?\n/);
    unless (defined $raw) {
        return undef if $self->{buf} eq '';
        die "no complete response: \"" . $self->read_all . "\"\n";
    }
    my $r = bless {head => $raw, raw => $raw, body => '', trailers => ''}, 'Heddle::Response';
    ($r->{version}, $r->{status}, $r->{reason}) =
        $raw =~ m{^(HTTP/\d\.\d) (\d{3})(?: ([^\r\n]*))?} or die "not a response: \"$raw\"\n";
    return $r;
}

# The next response. $method eq 'HEAD': it has no body, whatever it says.
sub response {
    my ($self, $method) = @_;
    $method //= 'GET';
    my $r = $self->response_head // return undef;
    return $r if $method eq 'HEAD' || $r->{status} =~ /^(1\d\d|204|304)$/;
    return $r if $method eq 'CONNECT' && $r->{status} =~ /^2/;
    if (($r->header('transfer-encoding') // '') =~ /chunked/i) {
        while (1) {
            my $line = $self->read_until(qr/\r\n/) // return $r->_cut;
            $r->{raw} .= $line;
            my ($len) = $line =~ /^([0-9a-fA-F]+)/ or die "bad chunk size \"$line\"\n";
            last if hex $len == 0;
            my $chunk = $self->read_bytes(2 + hex $len);
            $r->{raw} .= $chunk;
            return $r->_cut if length $chunk < 2 + hex $len;
            $r->{body} .= substr $chunk, 0, -2;
        }
        while (1) {
            my $line = $self->read_until(qr/\r\n/) // return $r->_cut;
            $r->{raw} .= $line;
            last if $line eq "\r\n";
            $r->{trailers} .= $line;
        }
    } elsif (defined(my $len = $r->header('content-length'))) {
        $r->{body} = $self->read_bytes($len);
        $r->{raw} .= $r->{body};
        return $r->_cut if length $r->{body} < $len;
    } else {
        $r->{body} = $self->read_all;
        $r->{raw} .= $r->{body};
    }
    return $r;
}

# Builds a request's bytes. Host, and Content-Length where there is a body, are added unless
# given; a header given as undef is left out; an array is a field several times.
sub request_bytes {
    my ($method, $uri, $opt, @headers) = @_;
    my $version = $opt->{version} // '1.1';
    my %given;
    my $out = "$method $uri HTTP/$version\r\n";
    my $fields = '';

    while (my ($name, $value) = splice @headers, 0, 2) {
        $given{lc $name} = 1;
        for my $v (ref $value ? @$value : $value) {
            $fields .= "$name: $v\r\n" if defined $v;
        }
    }
    $out .= "Host: localhost\r\n" unless $given{host};
    $out .= $fields;
    if (defined $opt->{body} && !$given{'content-length'} && !$given{'transfer-encoding'}) {
        $out .= 'Content-Length: ' . length($opt->{body}) . "\r\n";
    }
    return "$out\r\n" . ($opt->{body} // '');
}

sub request {
    my ($self, $method, $uri, @rest) = @_;
    my $opt = ref $rest[0] eq 'HASH' ? shift @rest : {};
    $self->send(request_bytes($method, $uri, $opt, @rest));
    my $r = $self->response($method);
    # 1xx are not the answer (RFC 9110 §15.2), 101 is.
    $r = $self->response($method) while $r && $r->{status} =~ /^1/ && $r->{status} != 101;
    return $r;
}

package Heddle::Response;

use overload '""' => sub { $_[0]{head} . $_[0]{body} }, 'bool' => sub { 1 }, fallback => 1;

sub status   { $_[0]{status} }
sub reason   { $_[0]{reason} }
sub version  { $_[0]{version} }
sub head     { $_[0]{head} }
sub body     { $_[0]{body} }
sub trailers { $_[0]{trailers} }
sub raw      { $_[0]{raw} }
sub is_cut   { $_[0]{cut} ? 1 : 0 } # the stream ended before the body did

sub _cut {
    $_[0]{cut} = 1;
    return $_[0];
}

sub header {
    my ($self, $name) = @_;
    my @v = $self->{head} =~ /^\Q$name\E:[ \t]*(.*?)[ \t]*\r?$/mig;
    return @v ? join ', ', @v : undef;
}

1;
