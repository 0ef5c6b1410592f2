package Heddle::Backend;

# Back ends for tests: child processes, plain sockets. Used through Heddle.pm.
#
# http($listener, $file, $sub): HTTP/1 with keep-alive, one process, one select loop, so that a
# closure's variables count over all connections. $sub->($req) is called when a request is
# complete; $req: method uri version head body conn (which connection, from 1) n (which request
# on it, from 1) and header('name'). It returns
#     'text'                                        200 with this body
#     [503, {'Retry-After' => 1}, 'text']           headers may also be [name => value, ...]
#     {status, headers, body, after => SECONDS}     answered so much later; others go on
#     {raw => BYTES, close => 1}                    these very bytes
#     {close => 1}  {reset => 1}  {hang => 1}       no answer
#     {..., close => 1}                             answer, then close
# Each request is recorded in $file, one JSON line.
#
# tcp($listener, $sub): a process for each connection; $sub->($socket, $n) does what it likes.

use strict;
use warnings;
use IO::Socket::INET;
use JSON::XS;
use POSIX ();
use Heddle::Watch;
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

my $json = JSON::XS->new->latin1->canonical;

sub listener {
    my ($port, $addr) = @_;
    return IO::Socket::INET->new(
        LocalAddr => $addr // '127.0.0.1', LocalPort => $port, Proto => 'tcp',
        Listen => 512, ReuseAddr => 1,
    ) || die "listen on port $port: $!\n";
}

# Runs $code in a child that ends with the test. Returns its pid.
sub spawn {
    my ($code) = @_;
    my $parent = $$;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    $SIG{$_} = 'DEFAULT' for 'INT', 'TERM', 'CHLD';
    $SIG{PIPE} = 'IGNORE';
    Heddle::Watch::die_with_parent($parent);
    eval { $code->(); 1 } or print STDERR "# back end: $@";
    POSIX::_exit(0);
}

sub tcp {
    my ($listener, $sub) = @_;
    my $n = 0;
    $SIG{CHLD} = 'IGNORE';
    while (my $sock = $listener->accept || $!{EINTR}) {
        next unless ref $sock;
        $n++;
        spawn(sub {
            close $listener;
            $sock->autoflush(1);
            $sub->($sock, $n);
        });
        close $sock;
    }
}

sub http {
    my ($listener, $file, $sub) = @_;
    my (%conns, $conn_n, @later);

    open my $record, '>>', $file or die "$file: $!";
    $record->autoflush(1);
    while (1) {
        my $in = '';
        vec($in, fileno $listener, 1) = 1;
        vec($in, $_, 1) = 1 for keys %conns;
        my $wait = @later ? $later[0][0] - time : undef;
        $wait = 0 if defined $wait && $wait < 0;
        my $ready = select $in, undef, undef, $wait;
        while (@later && $later[0][0] <= time) {
            my (undef, $c, $answer) = @{shift @later};
            $c->{waits} = 0;
            answer($c, $c->{req}, $answer);
            serve($c, $record, $sub, \@later) if $c->{sock};
            delete $conns{$c->{fd}} unless $c->{sock};
        }
        next if $ready <= 0;
        if (vec $in, fileno $listener, 1) {
            my $sock = $listener->accept or next;
            $sock->autoflush(1);
            $conns{fileno $sock} =
                {sock => $sock, fd => fileno $sock, buf => '', id => ++$conn_n, n => 0};
        }
        for my $fd (keys %conns) {
            next unless vec $in, $fd, 1;
            my $c = $conns{$fd};
            my $n = sysread $c->{sock}, $c->{buf}, 65536, length $c->{buf};
            if ($n) {
                serve($c, $record, $sub, \@later);
            } else {
                drop($c);
            }
            delete $conns{$fd} unless $c->{sock};
        }
        @later = grep { $_->[1]{sock} } @later;
    }
}

# Answers the complete requests in a connection's buffer.
sub serve {
    my ($c, $record, $sub, $later) = @_;
    while ($c->{sock} && !$c->{waits}) {
        my $req = take_request($c) or return;
        $c->{n}++;
        @$req{'conn', 'n'} = ($c->{id}, $c->{n});
        print $record $json->encode({%$req}), "\n";
        my $answer = eval { $sub->($req) };
        if (my $e = $@) {
            print STDERR "# back end's sub died: $e";
            $answer = [500, {}, "back end: $e"];
        }
        if (ref $answer eq 'HASH' && ($answer->{after} || $answer->{hang})) {
            $c->{waits} = 1;
            $c->{req} = $req;
            next if $answer->{hang};
            @$later = sort { $a->[0] <=> $b->[0] } @$later,
                [time + $answer->{after}, $c, $answer];
        } else {
            answer($c, $req, $answer);
        }
    }
}

# Takes one whole request off the buffer; undef while it is incomplete.
sub take_request {
    my ($c) = @_;
    $c->{buf} =~ /\r?\n\r?\n/ or return undef;
    my $head = substr $c->{buf}, 0, $+[0];
    my $rest = substr $c->{buf}, $+[0];
    my $req = bless {head => $head, body => ''}, 'Heddle::Request';
    @$req{'method', 'uri', 'version'} = $head =~ m{^(\S+) (\S+) HTTP/(\S+)};

    if (($req->header('expect') // '') =~ /100-continue/i && !$c->{continued}) {
        $c->{continued} = 1;
        print {$c->{sock}} "HTTP/1.1 100 Continue\r\n\r\n";
    }
    if (($req->header('transfer-encoding') // '') =~ /chunked/i) {
        my $so_far = $c->{chunks} //= {at => 0, body => ''}; # of what came after the head
        pos($rest) = $so_far->{at};
        while (1) {
            $rest =~ /\G([0-9a-fA-F]+)[^\r\n]*\r\n/gc or return undef;
            my ($len, $at) = (hex $1, pos $rest);
            last if $len == 0;
            return undef if length $rest < $at + $len + 2;
            $so_far->{body} .= substr $rest, $at, $len;
            $so_far->{at} = pos($rest) = $at + $len + 2;
        }
        $rest =~ /\G((?:[^\r\n]+\r\n)*)\r\n/gc or return undef;
        @$req{'trailers', 'body'} = ($1, $so_far->{body});
        $rest = substr $rest, pos $rest;
        delete $c->{chunks};
    } elsif (my $len = $req->header('content-length')) {
        return undef if length $rest < $len;
        $req->{body} = substr $rest, 0, $len, '';
    }
    $c->{buf} = $rest;
    $c->{continued} = 0;
    return $req;
}

sub answer {
    my ($c, $req, $answer) = @_;
    return drop($c) unless defined $answer;
    $answer = {body => $answer} unless ref $answer;
    $answer = {status => $answer->[0], headers => $answer->[1], body => $answer->[2]}
        if ref $answer eq 'ARRAY';
    return drop($c, 1) if $answer->{reset};

    my $close = $answer->{close}
        || ($req->{version} // '') eq '1.0'
        || ($req->header('connection') // '') =~ /\bclose\b/i;
    my $out = $answer->{raw};
    if (!defined $out && (defined $answer->{body} || defined $answer->{status})) {
        my $status = $answer->{status} // 200;
        my $body = $answer->{body} // '';
        my $h = $answer->{headers} || {};
        my @h = ref $h eq 'HASH' ? map { $_ => $h->{$_} } sort keys %$h : @$h;
        my $names = '';
        $out = "HTTP/1.1 $status " . ($answer->{reason} // 'Status') . "\r\n";
        while (my ($name, $value) = splice @h, 0, 2) {
            $out .= "$name: $value\r\n";
            $names .= lc "|$name|";
        }
        my $chunked = $names =~ /\|transfer-encoding\|/;
        $out .= 'Content-Length: ' . length($body) . "\r\n"
            unless $names =~ /\|content-length\|/ || $chunked || $status =~ /^(1\d\d|204)$/;
        $out .= "Connection: close\r\n" if $close && $names !~ /\|connection\|/;
        $body = sprintf "%x\r\n%s\r\n0\r\n\r\n", length $body, $body if $chunked && length $body;
        $out .= "\r\n" . ($req->{method} eq 'HEAD' ? '' : $body);
    }
    print {$c->{sock}} $out if defined $out;
    drop($c) if $close;
}

sub drop {
    my ($c, $reset) = @_;
    my $sock = delete $c->{sock} or return;
    setsockopt $sock, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if $reset;
    close $sock;
}

# The requests recorded so far.
sub recorded {
    my ($file) = @_;
    open my $f, '<', $file or return;
    return map { bless $json->decode($_), 'Heddle::Request' } grep { /\n$/ } <$f>;
}

package Heddle::Request;

sub header {
    my ($self, $name) = @_;
    my @v = $self->{head} =~ /^\Q$name\E:[ \t]*(.*?)[ \t]*\r?$/mig;
    return @v ? join ', ', @v : undef;
}

1;
