#!/usr/bin/perl
# Everyday nginx configurations, run in real nginx and in Heddle: t/interop/nginx/NN-name.
# Compared are answers (status, headers, body, whether the connection stays open), the
# requests as the upstreams received them, byte for byte, and access logs. What may differ
# stands in t/interop/nginx/differences, each with its reason.
# Needs: nginx (with its stream module), openssl. While heddle cannot start at all, only nginx
# runs, and what each case says of it is checked.
# INTEROP_CANDIDATE=nginx compares nginx with itself, which shows that cases are steady;
# INTEROP_CASE=NN-name runs one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use File::Basename qw(basename);
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use IO::Socket::INET;
use Test::More;
use Heddle;
use Interop qw(slurp read_requests read_differences);

my $nginx = (grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
plan skip_all => 'no nginx' if !$nginx;

my @rows = read_differences("$FindBin::Bin/nginx/differences");
my $stream_module = nginx_stream_module();

# The line that loads nginx's stream module; "" if it is built in, undef if there is none.
sub nginx_stream_module {
    my $flags = `$nginx -V 2>&1`;
    return '' if $flags !~ /--with-stream=dynamic/;
    my ($path) = map { "$_/ngx_stream_module.so" } $flags =~ /--modules-path=(\S+)/;
    return -e $path ? "load_module $path;\n" : undef;
}

# <which> with a fragment of configuration, not started yet.
sub prepare {
    my ($which, $text) = @_;
    return Heddle->new->conf($text) if $which eq 'heddle';
    my $load = $text =~ /^stream/m ? $stream_module : '';
    return Heddle->new(program => $nginx)->conf("${load}events {}\n$text");
}

# Can Heddle start at all? With the least there is: from then on nothing is skipped.
my $candidate = $ENV{INTEROP_CANDIDATE} // 'heddle';
my $skip;
if ($candidate eq 'heddle') {
    my $least = 'http { server { listen 127.0.0.1:%%PORT_0%%; location / { return 200 ok; } } }';
    $skip = 'heddle is not built' if !-x "$Heddle::build/heddle";
    $skip //= eval { prepare('heddle', $least)->start->stop; 1 } ? undef : "heddle cannot start: $@";
    diag("only nginx runs: $skip") if $skip;
}

# The outcome of a case under one program: [{answer, upstream}...] and its logs.
sub run_case {
    my ($which, $text, $ports, $requests, $logs, $files) = @_;
    my $hd = prepare($which, $text);
    copy_files($files, $hd->dir . '/www') if -d $files;
    if ($text =~ /\.crt/) {
        my $ca = $hd->make_ca('root');
        $ca->make_cert($_, dns => $_) for qw(shop.example books.example);
    }
    my $upstreams = Interop->start_upstreams($hd->dir,
        map { $_ => $ports->{$_} } grep { /^(HTTP|TCP)/ } keys %$ports);
    $hd->start;
    my ($conn, @outcomes);
    for my $request (@$requests) {
        $conn = connect_client($request, $ports->{"PORT_$request->{port}"})
            if !$request->{same} || !$conn;
        my $answer = eval { exchange($request, $conn) } // {status => "failed: $@"};
        hide_what_is_chosen($answer, $hd->dir);
        push @outcomes, {answer => $answer, upstream => [$upstreams->received]};
    }
    undef $conn;
    $hd->stop;
    my %log = map { $_ => $hd->file($_) =~ s/\Q${\$hd->dir}\E/DIR/gr } @$logs;
    return {outcomes => \@outcomes, logs => \%log};
}

# The files of a case, all of one age; what ends with .symlink becomes a link to what it says.
sub copy_files {
    my ($from, $to) = @_;
    mkdir $to or die "$to: $!";
    for my $path (glob "$from/* $from/.[a-z]*") {
        my $name = basename($path);
        if (-d $path) { copy_files($path, "$to/$name"); next }
        if ($name =~ s/\.symlink$//) { symlink slurp($path) =~ s/\n//r, "$to/$name" or die $!; next }
        open my $out, '>:raw', "$to/$name" or die $!;
        print $out slurp($path);
        close $out or die $!;
        utime 1_700_000_000, 1_700_000_000, "$to/$name" or die $!;
    }
    utime 1_700_000_000, 1_700_000_000, $to or die $!;
    return;
}

# Directories and the boundaries of multipart bodies are anybody's choice.
sub hide_what_is_chosen {
    my ($answer, $dir) = @_;
    $answer->{body} =~ s/\Q$dir\E/DIR/g if defined $answer->{body};
    $_->[1] =~ s/\Q$dir\E/DIR/g for @{$answer->{headers} // []};
    for my $header (@{$answer->{headers} // []}) {
        next if $header->[1] !~ s/(boundary=)(\d{20})$/$1B/;
        my $boundary = $2;
        $answer->{body} =~ s/$boundary/B/g;
    }
    return;
}

sub connect_client {
    my ($request, $port) = @_;
    my $name = $request->{tls} // return Heddle::Http->connect($port);
    return Heddle::Http->connect($port, tls => {args => $request->{tls_args},
        $name eq '-' ? () : (sni => $name)});
}

# Sends a request; {version, status, headers => [[name, value]...], body, closed}.
sub exchange {
    my ($request, $conn) = @_;
    $conn->send($request->{raw});
    return {status => 'tcp', body => $conn->read_all} if $request->{raw} =~ /^bye$/m;
    my ($method) = $request->{raw} =~ /^(\S+)/;
    my $response = $conn->response($method) // return {status => 'none'};
    my @headers;
    for my $line (split /\r\n/, $response->head) {
        push @headers, [$1, $2] if $line =~ /^([^:\s]+):[ \t]*(.*?)[ \t]*$/;
    }
    # Who says that it closes must do so; who says nothing must not.
    my $says_close = grep { lc "$_->[0]: $_->[1]" eq 'connection: close' } @headers;
    my $closed = $says_close || $conn->{eof} ? $conn->is_eof : 0;
    my $body = $response->body;
    # How well a body is compressed is anybody's choice, what it holds is not.
    if ((grep { lc "$_->[0]: $_->[1]" eq 'content-encoding: gzip' } @headers) && $body =~ /^\x1f\x8b/) {
        my $unpacked;
        gunzip(\$body => \$unpacked, MultiStream => 1) or $unpacked = "not gzip: $GunzipError";
        $body = "unpacked: $unpacked";
    }
    return {version => $response->version, status => $response->status, headers => \@headers,
        body => $body . ($response->is_cut ? '(cut)' : ''), closed => $closed};
}

# What of an answer is compared, as text.
sub answer_text {
    my ($answer, $rows, $error_page) = @_;
    my @headers = @{$answer->{headers} // []};
    for my $row (@$rows) {
        @headers = grep { lc $_->[0] ne lc $row->{which} } @headers
            if $row->{what} eq 'answer-header';
        @headers = grep { lc "$_->[0]: $_->[1]" ne lc $row->{which} } @headers
            if $row->{what} eq 'answer-token';
    }
    @headers = grep { lc $_->[0] ne 'content-length' } @headers if $error_page;
    # Between different names order has no meaning (RFC 9110 §5.3); sort keeps that of equals.
    my @sorted = sort { lc $a->[0] cmp lc $b->[0] } @headers;
    return join "\n", ($answer->{version} // '') . " $answer->{status}",
        (map { "$_->[0]: $_->[1]" } @sorted), '', $error_page ? '(error page)' : $answer->{body} // '',
        $answer->{closed} ? '(closed)' : '(kept open)';
}

# Between different names order has no meaning, here neither.
sub sort_head {
    my ($head, $body) = split /^\r\n/m, $_[0], 2;
    return $_[0] if !defined $body;
    my ($first, @fields) = split /(?<=\n)/, $head;
    return join '', $first, (sort { lc(($a =~ /^([^:]*)/)[0]) cmp lc(($b =~ /^([^:]*)/)[0]) } @fields),
        "\r\n", $body;
}

sub upstream_text {
    my ($upstream, $rows) = @_;
    my $text = join '', map { "to $_->[0]:\n" . sort_head($_->[1]) . "\n" } @$upstream;
    if (grep { $_->{what} eq 'upstream-version' } @$rows) {
        $text =~ s/^[A-Z]+ \S+ HTTP\/1\.\K0\r$/1\r/gm;
        $text =~ s/^Connection: close\r\n//gm;
    }
    $text =~ s/((?:^|\n)to \S+:\n.*\n)\1+/$1/s
        if grep { $_->{what} eq 'upstream-repeat' } @$rows;
    for my $row (grep { $_->{what} eq 'upstream-line' } @$rows) {
        $text =~ s/^[^\n]*\n/$& =~ m{$row->{which}} ? '' : $&/gme;
    }
    return $text =~ s/\r/\\r/gr;
}

# The differences between two outcomes that no row allows, as a list of [what, a, b].
sub differences {
    my ($case, $name, $a, $b) = @_;
    my @rows = grep { $case =~ $_->{case} && $name =~ $_->{request} } @rows;
    my $error_page = (grep { $_->{what} eq 'error-page' } @rows)
        && ($a->{answer}{body} // '') =~ m{<hr><center>nginx} && ($b->{answer}{body} // '') =~ /<html>/i;
    my @found;
    for (['answer', \&answer_text, $error_page], ['upstream', \&upstream_text]) {
        my ($part, $text, @more) = @$_;
        next if grep { $_->{what} eq $part } @rows;
        my ($text_a, $text_b) = map { $text->($_->{$part}, \@rows, @more) } $a, $b;
        push @found, [$part, $text_a, $text_b] if $text_a ne $text_b;
    }
    return @found;
}

subtest 'the comparison finds what it should' => sub {
    my $make = sub {
        my ($change) = @_;
        my %outcome = (answer => {version => 'HTTP/1.1', status => 200, body => 'b', closed => 0,
                headers => [['X-A', 1], ['Server', 'nginx']]},
            upstream => [['HTTP_1', "GET / HTTP/1.1\r\nHost: a\r\n\r\n"]]);
        $change->(\%outcome) if $change;
        return \%outcome;
    };
    my %change = (
        status => sub { $_[0]{answer}{status} = 201 },
        header => sub { $_[0]{answer}{headers}[0][1] = 2 },
        'a header more' => sub { push @{$_[0]{answer}{headers}}, ['X-B', 1] },
        body => sub { $_[0]{answer}{body} = 'c' },
        closed => sub { $_[0]{answer}{closed} = 1 },
        'upstream byte' => sub { $_[0]{upstream}[0][1] =~ s/Host/host/ },
        'another upstream' => sub { $_[0]{upstream}[0][0] = 'HTTP_2' },
        'asked twice' => sub { push @{$_[0]{upstream}}, ['HTTP_1', "GET /\r\n\r\n"] },
    );
    is scalar(differences('x', 'x', $make->(), $make->($change{$_}))), 1, $_ for sort keys %change;
    is scalar(differences('x', 'x', $make->(), $make->())), 0, 'equal';
    is scalar(differences('x', 'x', $make->(),
        $make->(sub { $_[0]{answer}{headers}[1][1] = 'heddle' }))), 0, 'an allowed one';
};

for my $folder (sort glob "$FindBin::Bin/nginx/[0-9]*") {
    my $case = basename($folder);
    next if ($ENV{INTEROP_CASE} // $case) ne $case;
    subtest $case => sub { test_case($folder, $case) };
}

sub test_case {
    my ($folder, $case) = @_;
    my $fragment = slurp("$folder/nginx.conf");
    plan skip_all => 'nginx has no stream module: libnginx-mod-stream'
        if $fragment =~ /^stream/m && !defined $stream_module;
    my @requests = read_requests("$folder/requests");
    my @logs = map { split /, / } $fragment =~ /^# Compared: (.*)$/m;
    my %ports = map { $_ => Heddle::Port::reserve() } $fragment =~ /%%((?:PORT|HTTP|TCP|DEAD)_\d+)%%/g;
    # Bound and not listening: a connection there is refused, and nobody else can get it.
    my @dead = map { IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ports{$_},
            Proto => 'tcp', ReuseAddr => 1) // die $@ } grep { /^DEAD/ } keys %ports;
    my $text = $fragment =~ s/%%((?:PORT|HTTP|TCP|DEAD)_\d+)%%/$ports{$1}/gr;

    my ($ours, $theirs) = map { run_case($_, $text, \%ports, \@requests, \@logs, "$folder/files") }
        'nginx', $skip ? () : $candidate;
    for my $i (0 .. $#requests) {
        my $name = $requests[$i]{name};
        my $outcome = $ours->{outcomes}[$i];
        is want_of($outcome), $requests[$i]{want}, "nginx: $name" or diag($outcome->{answer}{body});
        diag("---- $name\n", answer_text($outcome->{answer}, []), "\n",
            upstream_text($outcome->{upstream}, [])) if $ENV{INTEROP_VERBOSE};
        next if $skip;
        my @found = differences($case, $name, $outcome, $theirs->{outcomes}[$i]);
        ok !@found, "the same: $name";
        diag("$_->[0] of nginx:\n$_->[1]\n$_->[0] of $candidate:\n$_->[2]") for @found;
    }
    for my $log (@logs) {
        like $ours->{logs}{$log}, qr/\n/, "nginx: $log is written";
        next if $skip;
        is log_text($theirs->{logs}{$log}, $case), log_text($ours->{logs}{$log}, $case),
            "the same: $log";
    }
    return;
}

# A log without the lines that may differ.
sub log_text {
    my ($text, $case) = @_;
    for my $row (grep { $_->{what} eq 'log-line' && $case =~ $_->{case} } @rows) {
        $text =~ s/^[^\n]*\n/$& =~ m{$row->{which}} ? '' : $&/gme;
    }
    return $text;
}

# An outcome in one word, as a case states it: the status, "none", or for TCP the upstream.
sub want_of {
    my ($outcome) = @_;
    return $outcome->{answer}{status} if $outcome->{answer}{status} ne 'tcp';
    return @{$outcome->{upstream}} ? $outcome->{upstream}[0][0] : 'refused';
}

done_testing;
