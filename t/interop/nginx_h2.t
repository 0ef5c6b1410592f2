#!/usr/bin/perl
# Cases of t/interop/nginx over HTTP/2, in clear text and over TLS: the same requests by curl to real nginx and to Heddle.
# Compared are answers and access logs; what may differ stands in t/interop/nginx/differences, under "h2 CASE".
# Left out are requests that HTTP/2 can't carry, and those that only one of the two answers: a host that is none (Heddle:
# RST_STREAM, RFC 9113 §8.1.1), heads beyond limits (nginx ends the connection). Needs: nginx, curl with HTTP/2, openssl.
# INTEROP_CASE=NN-name runs one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Interop qw(slurp read_requests read_differences);

my $nginx = (grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
plan skip_all => 'no nginx' if !$nginx;
plan skip_all => 'no curl with HTTP/2' if `curl -V 2>/dev/null` !~ /^Features:.*\bHTTP2\b/m;
my @rows = read_differences("$FindBin::Bin/nginx/differences");

# What curl is to send, or none.
sub curl_args {
    my ($request, $port) = @_;
    return if $request->{name} =~ /^(a bad host|too long)/;
    my ($line, @fields) = split /\r\n/, ($request->{raw} =~ /^(.*?)\r\n\r\n/s)[0];
    my ($body) = $request->{raw} =~ /\r\n\r\n(.*)$/s;
    my ($method, $target) = $line =~ m{^([A-Z]+) (/\S*) HTTP/1\.1$} or return;
    my @tls = $request->{tls} ? @{$request->{tls_args}} : ();
    return if "@fields" =~ /\b(Connection|Upgrade|Transfer-Encoding|Expect|TE|Keep-Alive|Proxy-Connection|HTTP2-Settings):/i || @tls;
    my ($host) = map { /^Host: ?(.*)$/i ? $1 : () } @fields;
    return if !defined $host || $host eq '' || (grep { /^Host:/i } @fields) != 1 || grep { !/^[\w-]+: ?\S/ } @fields;
    my $name = $request->{tls} // '127.0.0.1';
    return if $name eq '-';
    return ('--path-as-is', '-i', '-A', '', '-H', 'Accept:', $request->{tls} ? ('--http2', '-k', '--tls-max', '1.2', '--resolve', "$name:$port:127.0.0.1") : '--http2-prior-knowledge',
        $method eq 'HEAD' ? '-I' : ('-X', $method), (map { ('-H', $_ =~ s/: ?/: /r) } grep { !/^Content-Length:/i } @fields),
        length $body ? ('--data-binary', $body, grep({ /^Content-Type:/i } @fields) ? () : ('-H', 'Content-Type:')) : (),
        ($request->{tls} ? 'https' : 'http') . "://$name:$port$target");
}

sub run_case {
    my ($which, $text, $ports, $requests, $logs, $files) = @_;
    my $hd = $which eq 'heddle' ? Heddle->new->conf($text) : Heddle->new(program => $nginx)->conf("events {}\n$text");
    if (-d $files) {
        system('cp', '-rL', $files, $hd->dir . '/www') == 0 or die "cp: $files";
        system('find', $hd->dir . '/www', '-exec', 'touch', '-d', '@1700000000', '{}', '+');
    }
    if ($text =~ /\.crt/) {
        my $ca = $hd->make_ca('root');
        $ca->make_cert($_, dns => $_) for qw(shop.example books.example);
    }
    my $upstreams = Interop->start_upstreams($hd->dir, map { $_ => $ports->{$_} } grep { /^HTTP/ } keys %$ports);
    $hd->start;
    my @answers;
    for my $request (@$requests) {
        my $answer = $hd->curl(curl_args($request, $ports->{"PORT_$request->{port}"}));
        $answer =~ s/\Q${\$hd->dir}\E/DIR/g;
        $answer =~ s/(boundary=)(\d{20})/$1B/ and $answer =~ s/\Q$2\E/B/g;
        push @answers, $answer;
    }
    $hd->stop;
    return {answers => \@answers, logs => {map { $_ => $hd->file($_) =~ s/\Q${\$hd->dir}\E/DIR/gr } @$logs}};
}

# Without the fields that may differ, in the order of their names.
sub answer_text {
    my ($answer, $rows) = @_;
    my ($head, $body) = split /\r\n\r\n/, $answer, 2;
    my ($line, @fields) = split /\r\n/, $head // '';
    for my $row (@$rows) {
        @fields = grep { !/^\Q$row->{which}\E:/i } @fields if $row->{what} eq 'answer-header';
    }
    if ((grep { $_->{what} eq 'error-page' } @$rows) && ($body // '') =~ m{<hr><center>(nginx|heddle)}) {
        $body = '(error page)';
        @fields = grep { !/^content-length:/i } @fields;
    }
    return join "\n", $line // '(no answer)', sort(@fields), '', $body // '';
}

sub log_text {
    my ($text, $case) = @_;
    for my $row (grep { $_->{what} eq 'log-line' && ($case =~ $_->{case} || "h2 $case" =~ $_->{case}) } @rows) {
        $text =~ s/^[^\n]*\n/$& =~ m{$row->{which}} ? '' : $&/gme;
    }
    return $text;
}

for my $case (qw(03-prefix 04-locations 05-hosts 07-headers 08-failover 09-logs 10-tls 12-rewrite 15-auth-request 15-proxy 17-access
    19-limit-req 20-limit-except 21-referer 22-sub-filter 23-charset 24-secure-link 25-ranges 28-try-files 30-realip-location
    31-all-variables 34-small-modules 36-addition 37-accel 38-rejected 41-edges 42-accel-types)) {
    next if ($ENV{INTEROP_CASE} // $case) ne $case;
    my $folder = "$FindBin::Bin/nginx/$case";
    subtest $case => sub {
        my $text = slurp("$folder/nginx.conf");
        my %ports = map { $_ => Heddle::Port::reserve() } $text =~ /%%((?:PORT|HTTP|DEAD)_\d+)%%/g;
        my @requests = grep { curl_args($_, 1) } read_requests("$folder/requests");
        my @logs = map { split /, / } $text =~ /^# Compared: (.*)$/m;
        my %asked = map { $_->{port} => 1 } @requests;
        $text =~ s/(listen 127\.0\.0\.1:%%PORT_(\d+)%%[^;]*);/$asked{$2} ? "$1 http2;" : "$1;"/ge;
        $text =~ s/%%((?:PORT|HTTP|DEAD)_\d+)%%/$ports{$1}/g;
        my ($theirs, $ours) = map { run_case($_, $text, \%ports, \@requests, \@logs, "$folder/files") } 'nginx', 'heddle';
        for my $i (0 .. $#requests) {
            my $name = $requests[$i]{name};
            my @allowed = grep { ($case =~ $_->{case} || "h2 $case" =~ $_->{case}) && $name =~ $_->{request} } @rows;
            next if grep { $_->{what} eq 'answer' } @allowed;
            is answer_text($ours->{answers}[$i], \@allowed), answer_text($theirs->{answers}[$i], \@allowed), $name;
        }
        is log_text($ours->{logs}{$_}, $case), log_text($theirs->{logs}{$_}, $case), $_ for @logs;
    };
}
done_testing;
