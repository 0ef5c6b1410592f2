package Interop;

# What t/interop needs beside Heddle.pm: the reading of cases (a folder with nginx.conf and
# requests) and of the table of differences, and upstreams that record every byte they get.
use strict;
use warnings;
use Fcntl qw(:seek);
use Exporter 'import';
use Heddle::Backend;
our @EXPORT_OK = qw(slurp read_requests read_differences);

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!";
    local $/;
    return scalar <$file> // '';
}

# ---- cases

# The requests of a case, each {name, want, port, same, tls, tls_args, raw}. A file is a
# row of
#     ### NAME -> STATUS        ("none": no answer; TCP_1, "refused": raw lines for TCP)
#     # same, port N, tls SNI ARGS...     (optional; SNI "-" sends none)
#     the request, with LF for CRLF
sub read_requests {
    my ($path) = @_;
    my @requests;
    for my $text (split /^### /m, slurp($path)) {
        next if $text eq '';
        my ($name, $want) = $text =~ s/^(.*) -> (\S+)\n// ? ($1, $2) : die "$path: $text";
        my %request = (name => $name, want => $want, port => 1, same => 0);
        if ($text =~ s/^# (.*)\n//) {
            for my $option (split /, /, $1) {
                if ($option eq 'same') { $request{same} = 1 }
                elsif ($option =~ /^port (\d+)$/) { $request{port} = $1 }
                elsif ($option =~ /^tls (\S+) (.*)$/) {
                    $request{tls} = $1;
                    $request{tls_args} = [split ' ', $2];
                }
                else { die "$path: unknown option: $option" }
            }
        }
        if ($want =~ /^(\d+|none)$/) {
            my ($head, $body) = split /^\n/m, $text, 2;
            $body //= '';    # the file's last one
            $head =~ s/\n/\r\n/g;
            if ($head =~ /^transfer-encoding: chunked/mi) { $body =~ s/\n/\r\n/g }
            else { $body =~ s/\n\z// }
            $text = "$head\r\n$body";
        }
        push @requests, {%request, raw => $text};
    }
    return @requests;
}

# Rows of the committed table of differences: {case, request, what, which, reason}.
sub read_differences {
    my ($path) = @_;
    my @rows;
    for my $line (split /\n/, slurp($path)) {
        next if $line =~ /^(#|\s*$)/;
        my ($case, $request, $what, $which, $reason) = map { s/^\s+|\s+$//gr } split /\|/, $line, 5;
        length($reason // '') or die "$path: no reason: $line";
        $what =~ /^(answer|upstream|answer-header|answer-token|error-page|upstream-line|upstream-version|upstream-repeat|log-line)$/
            or die "$path: unknown: $what";
        push @rows, {case => glob_regex($case), request => glob_regex($request),
            what => $what, which => $which, reason => $reason};
    }
    return @rows;
}

sub glob_regex {
    my $glob = quotemeta shift;
    $glob =~ s/\\\*/.*/g;
    return qr/^$glob$/;
}

# ---- upstreams

# Starts the upstreams of a test: start_upstreams($dir, HTTP_1 => port, TCP_1 => port...).
# What they receive is appended to $dir/received, before anything is answered.
sub start_upstreams {
    my ($class, $dir, %port) = @_;
    my $file = "$dir/received";
    open my $out, '>>:raw', $file or die "$file: $!";
    my @pids;
    for my $name (sort keys %port) {
        my $listener = Heddle::Backend::listener($port{$name});
        my $serve = $name =~ /^TCP/ ? \&serve_tcp : \&serve_http;
        push @pids, Heddle::Backend::spawn(sub {
            Heddle::Backend::tcp($listener, sub { $serve->($_[0], $name, $out) });
        });
    }
    return bless {pids => \@pids, file => $file, at => 0}, $class;
}

# What the upstreams received since the last call: ["HTTP_1", bytes]...
sub received {
    my ($self) = @_;
    open my $in, '<:raw', $self->{file} or die $!;
    seek $in, $self->{at}, SEEK_SET;
    my @requests;
    while (my $head = <$in>) {
        my ($name, $length) = $head =~ /^(\w+) (\d+)$/ or die "record: $head";
        read($in, my $bytes, $length) == $length or die 'a record is cut short';
        push @requests, [$name, $bytes];
    }
    $self->{at} = tell $in;
    return @requests;
}

sub stop {
    my ($self) = @_;
    for my $pid (splice @{$self->{pids}}) {
        kill 'TERM', $pid;
        waitpid $pid, 0;
    }
    return;
}

sub DESTROY {
    local ($?, $!);
    $_[0]->stop;
    return;
}

sub record {
    my ($out, $name, $bytes) = @_;
    syswrite $out, "$name " . length($bytes) . "\n$bytes";    # one write: atomic
    return;
}

# A line for a line; the line "bye" ends it.
sub serve_tcp {
    my ($conn, $name, $out) = @_;
    my $all = '';
    while (defined(my $line = <$conn>)) {
        $all .= $line;
        last if $line eq "bye\n";
        print $conn "$name: $line";
        $conn->flush;
    }
    record($out, $name, $all) if $all ne '';
    return;
}

sub serve_http {
    my ($conn, $name, $out) = @_;
    while (1) {
        my ($head, $body) = ('', '');
        while (defined(my $line = <$conn>)) {
            $head .= $line;
            last if $line eq "\r\n";
        }
        return if $head !~ /\r\n\r\n\z/;
        if ($head =~ /^transfer-encoding:\s*chunked/mi) {
            while (defined(my $line = <$conn>)) {
                $body .= $line;
                last if $line eq "\r\n" && $body =~ /(^|\r\n)0\r\n(.*\r\n)*\r\n\z/;
            }
        }
        elsif ($head =~ /^content-length:\s*(\d+)/mi) {
            read $conn, $body, $1;
        }
        record($out, $name, $head . $body);
        my ($method, $target, $minor) = $head =~ m{^(\S+) (\S+) HTTP/1\.(\d)} or return;
        my $keep = $minor == 1 ? $head !~ /^connection:.*\bclose\b/mi
            : $head =~ /^connection:.*\bkeep-alive\b/mi;
        my $answer = http_answer($name, $head, $method, $target, $minor, \$keep) // return;
        print $conn $answer;
        $conn->flush;
        return if !$keep;
    }
}

# By the path: /status/N, /chunked, /redirect/own, /redirect/other, /hidden, /close; else 200.
sub http_answer {
    my ($name, $head, $method, $target, $minor, $keep) = @_;
    my ($host) = $head =~ /^host:\s*(\S+)/mi;
    my @headers = ("X-Upstream: $name", 'Content-Type: text/plain', 'ETag: "v1"',
        'Set-Cookie: a=1; Path=/', 'Set-Cookie: b=2', 'Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT');
    my $status = '200 OK';
    my $body = "$name has $method $target\n";
    return if $target =~ m{/close};
    $status = "$1 As Asked" if $target =~ m{/status/(\d+)};
    push @headers, 'X-Accel-Redirect: ' . $1, 'Content-Disposition: inline', 'Cache-Control: no-store'
        if $target =~ m{/to((?:/(?:inside|again|nowhere)|@).*)};
    push @headers, 'Set-Cookie: one=1; Domain=upstream.example; Path=/a', 'Set-Cookie: two=2; domain=.upstream.example; path=/; Secure; HttpOnly',
        'Set-Cookie: three=3; Domain=books.internal; Path=/x/y; Max-Age=5; Secure', 'Set-Cookie: four=a=b'
        if $target =~ m{/set-cookies};
    if ($target =~ m{/redirect/(own|other)}) {
        $status = '302 Found';
        push @headers, 'Location: http://' . ($1 eq 'own' ? $host : 'other.example') . '/new/place?x=1';
    }
    push @headers, 'Server: upstream/1', 'Date: Sun, 01 Nov 2026 00:00:00 GMT', 'X-Pad: x',
        'X-Accel-Expires: 5', 'Keep-Alive: timeout=5', 'X-Powered-By: perl'
        if $target =~ m{/hidden};
    push @headers, 'Connection: ' . ($$keep ? 'keep-alive' : 'close') if $minor == 0 || !$$keep;
    push @headers, 'WWW-Authenticate: Basic realm="upstream"' if $status =~ /^401/;
    if ($status =~ /^(204|304)/) { $body = '' }
    elsif ($target =~ m{/chunked} && $minor == 1) {
        push @headers, 'Transfer-Encoding: chunked';
        $body = join '', map { sprintf "%x\r\n%s\r\n", length, $_ } $body, "and more\n", '';
    }
    elsif ($target =~ m{/chunked}) {
        $body .= "and more\n";
        $$keep = 0;
    }
    else { push @headers, 'Content-Length: ' . length $body }
    return join("\r\n", "HTTP/1.1 $status", @headers, '', '') . ($method eq 'HEAD' ? '' : $body);
}

1;
