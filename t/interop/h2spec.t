#!/usr/bin/perl
# h2spec in strict mode, without one failure: over TLS and without, for answers of our own and for
# those of upstreams that speak HTTP/1 and HTTP/2. Needs: auto/h2spec --install, which needs Go.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;

chomp(my $h2spec = `$Heddle::top/auto/h2spec --install 2>&1`);
plan skip_all => "h2spec $h2spec" if $? != 0;

my $hd = Heddle->new;
my $cert = $hd->make_ca('root')->make_cert('server', dns => 'localhost', rsa => 1);
$hd->conf(<<"EOC")->start;
http {
    http2 on;
    access_log off;
    ssl_certificate $cert->{cert};
    ssl_certificate_key $cert->{key};
    proxy_request_buffering off;

    server {
        listen 127.0.0.1:%%PORT_1%%;
        listen 127.0.0.1:%%PORT_2%% ssl;
        location / { return 200 "an answer of our own, longer than h2spec's windows\\n"; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%%;
        listen 127.0.0.1:%%PORT_4%% ssl;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_5%%;
        listen 127.0.0.1:%%PORT_6%% ssl;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 2; }
    }
}
EOC

my @runs = (
    ['own answer', 1], ['own answer, TLS', 2, '-t', '-k'],
    ['upstream HTTP/1', 3], ['upstream HTTP/1, TLS', 4, '-t', '-k'],
    ['upstream HTTP/2', 5], ['upstream HTTP/2, TLS', 6, '-t', '-k'],
);
# -o: seconds of silence that count as an answer of "nothing", which some cases ask for
for my $run (@runs) {
    my ($name, $n, @more) = @$run;
    my $port = $hd->port($n);
    my $text = `$h2spec -S -h 127.0.0.1 -p $port -o 5 @more 2>&1`;
    my ($all, $passed, $skipped, $failed) =
        $text =~ /^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/m;
    ok defined $all && $all >= 140 && $failed == 0 && $skipped == 0, "$name: all of h2spec"
        or diag $text =~ /^(Failures:.*)/ms ? $1 : $text;
}
done_testing;
