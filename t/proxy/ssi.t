#!/usr/bin/perl
# ssi: commands wherever a page is cut in pieces; what is included comes as it is read, whatever its length, while others are
# asked for; pages that include themselves end; who leaves takes what was asked for along.
# (t/interop/nginx/40-ssi has what nginx makes of each command.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $MB = 1 << 20;
my $hd = Heddle->new(workers => 1)->conf(<<'EOC');
http {
    access_log off;
    proxy_buffering off;
    types { text/html html; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        ssi on;
        root %%DIR%%;
        location / { }
        location /pieces { proxy_pass http://127.0.0.1:%%PORT_9%%; }
        location /from/ { proxy_pass http://127.0.0.1:%%PORT_8%%; }
        location /say { default_type text/html; return 200 "[$args]"; }
        location /quick { return 200 quick; }
        location /silent { ssi_silent_errors on; root %%DIR%%; }
    }
    server { listen 127.0.0.1:%%PORT_1%% http2; ssi on; root %%DIR%%; location / { } location /from/ { proxy_pass http://127.0.0.1:%%PORT_8%%; } location /quick { return 200 quick; } }
}
EOC
# /from/N/x: N bytes of x; /from/cut: some, and an end before its time; /from/never: nothing; /from/pair-N: once the other one is asked for, too
$hd->tcp_backend(8, sub {
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread($sock, $head, 1, length $head) or return }
    my ($what) = $head =~ m{^GET /from/(\S+)};
    my $touch = sub { open my $f, '>', $hd->dir . "/$_[0]" };
    if ($what eq 'never') {
        $touch->('asked');
        sysread $sock, $head, 1; # until it is let go of
        $touch->('left');
        return;
    }
    if ($what =~ /^pair-(\d)/) {
        $touch->("pair-$1");
        my $other = $hd->dir . '/pair-' . (3 - $1);
        for (1 .. 400) { last if -e $other; select undef, undef, undef, 0.1 }
        print $sock "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n$1" if -e $other;
        return;
    }
    if ($what eq 'cut') { print $sock "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nabc"; return }
    my ($n, $letter) = split m{/}, $what;
    syswrite $sock, "HTTP/1.0 200 OK\r\nContent-Length: $n\r\n\r\n";
    for (; $n > 0; $n -= 65536) {
        my $piece = $letter x ($n > 65536 ? 65536 : $n);
        (syswrite($sock, $piece) // 0) == length $piece or return;
    }
});
# The page in pieces of so many bytes, a chunk each.
my $page = 'a<!--#set var="v" value="-->" -->b<!--#echo var="v" encoding="none" -->c<!--#include virtual="/say?x" -->d<<!-<!--'
    . '#if expr="$v" -->e<!--#include virtual="/say?y" -->f<!--#else -->g<!--#endif --><!--#block name="n" -->h<!--#endblock -->i';
$hd->backend(9, sub {
    my ($r) = @_;
    my ($n, $seed) = $r->{uri} =~ /(\d+)(?:\?(\d+))?$/;
    my @pieces = unpack "(a$n)*", defined $seed ? odd_page($seed) : $page;
    return {raw => join '', "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
        (map { sprintf "%x\r\n%s\r\n", length, $_ } @pieces), "0\r\n\r\n"};
});
# Parts of commands in any order.
sub odd_page {
    srand $_[0];
    my @parts = ('<', '!', '-', '<!--', '<!--#', '-->', ' -->', '"', "'", '\\', '=', ' ', "\n", '$', '${', '}', '/', '%', '%2e', 'x', 'echo', ' var="v"',
        'set var="v" value="', '<!--#include virtual="/say?', '<!--#if expr="$v', '<!--#else -->', '<!--#endif -->', '<!--#block name="b" -->', '<!--#endblock -->',
        '<!--#include virtual="/say" stub="b" -->', ' = /(', ')/" -->', '" -->', '" set="v" -->', '" wait="yes" -->', '<!--#config errmsg="', '<!--#echo var="1" -->');
    return join '', map { $parts[rand @parts] } 1 .. 60;
}
sub page { my ($name, $text) = @_; $hd->write("$name.html", $text); return "/$name.html" }
page(large => 'A<!--#include virtual="/from/' . 24 * $MB . '/x" -->B<!--#include virtual="/from/' . 3 * $MB . '/y" -->C' . 'p' x (2 * $MB));
page(itself => 'x<!--#include virtual="/itself.html" -->');
page(twice => 'x<!--#include virtual="/twice.html" --><!--#include virtual="/twice.html" -->');
page(many => join '', map { qq{<!--#include virtual="/say?$_" -->} } 1 .. 900);
page(cut => 'A<!--#include virtual="/from/cut" -->B');
page(never => 'A<!--#include virtual="/from/never" -->B');
page(pair => 'A<!--#include virtual="/from/pair-1" -->B<!--#include virtual="/from/pair-2" -->C');
page(big => 'A<!--#include virtual="/from/9000/x" set="v" -->[<!--#echo var="v" -->]');
page(fits => 'A<!--#include virtual="/from/8000/x" set="v" -->[<!--#echo var="v" -->]');
page(long => 'A<!--#echo var="' . 'v' x 300 . '" -->B<!--#echo ' . 'x' x 10_000 . ' -->C');
$hd->expect_log(qr/subrequests cycle|too big|too long|invalid|broke off/);
$hd->start;

for my $n (1 .. 12, 50, 1000) {
    is $hd->get("/pieces/$n")->body, 'ab-->c[x]d<<!-e[y]fi', "in pieces of $n bytes";
}
my @odd = grep {
    my $whole = $hd->get("/pieces/5000?$_");
    $whole->is_cut || grep { $hd->get("/pieces/$_->[1]?$_->[0]")->body ne $whole->body } [$_, 1], [$_, 7];
} 1 .. 100;
is "@odd", '', 'odd pages are the same in pieces';
is $hd->get('/pair.html')->body, 'A1B2C', 'what is included is asked for at once';
is $hd->get('/many.html')->body, join('', map { "[$_]" } 1 .. 900), 'many';
is $hd->get('/fits.html')->body, 'A[' . 'x' x 8000 . ']', 'an answer becomes a variable';
is $hd->get('/big.html')->body, 'A[(none)]', 'one that is too big does not';
my $error = '[an error occurred while processing the directive]';
is $hd->get('/long.html')->body, "A${error}B${error}C", 'too long: of a parameter, of a command';

sub is_large {
    my ($body, $name) = @_;
    is length $body, 29 * $MB + 3, "$name: all of it";
    ok $body =~ s/^A// && $body =~ s/^x{30000}//, "$name: begins" or return;
    is(($body =~ s/^x+//r) =~ s/p+$//r =~ s/y+/y/r, 'ByC', "$name: in its order");
}
is_large($hd->get('/large.html')->body, 'large');
my $h2 = Heddle::H2->new($hd->port(1));
$h2->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x7fff0000);
$h2->request(1, '/large.html');
$h2->frame('WINDOW_UPDATE', 0, 1, pack 'N', 0x7fff0000);
is_large($h2->response(1)->{body}, 'HTTP/2');
my ($worker) = $hd->workers;
sub rss { open my $f, '<', "/proc/$worker/status"; return join('', <$f>) =~ /^VmRSS:\s+(\d+)/m ? $1 * 1024 : 0 }
my $before = rss();
my $c = $hd->connect(0);
$c->send("GET /large.html HTTP/1.1\r\nHost: a\r\n\r\n");
$c->read_bytes(1000);
is_large($hd->get('/large.html')->body, 'another one beside it');
cmp_ok rss() - $before, '<', 8 * $MB * (Heddle::is_sanitized() ? 3 : 1), 'a client that stops: little is kept for it';
$c->close;

my $r = $hd->get('/itself.html');
is $r->body, 'x' x 51 . $error, 'a page that includes itself ends';
$r = $hd->get('/twice.html');
cmp_ok +($r->body =~ tr/x//), '<=', 1001, 'one that does so twice ends soon, too';
ok $hd->get('/cut.html')->is_cut, 'what breaks off is seen to be cut';
$c = $hd->connect(0);
$c->send("GET /never.html HTTP/1.1\r\nHost: a\r\n\r\n");
$hd->wait_for(sub { -e $hd->dir . '/asked' }, 'the subrequest');
$c->reset;
ok $hd->wait_for(sub { -e $hd->dir . '/left' }, 'its end'), 'who leaves takes the subrequest along';
is $hd->get('/quick')->body, 'quick', 'and the worker serves';

for (['ssi maybe;', qr/maybe/], ['ssi_value_length;', qr/arguments/], ['ssi_value_length x;', qr/"x"/], ['ssi on; ssi off;', qr/duplicate/]) {
    my ($status, $text) = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $_->[0] } }")->run('-t');
    like $text, $_->[1], $_->[0];
}
$hd->stop;
done_testing;
