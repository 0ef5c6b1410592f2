#!/usr/bin/perl
# sub_filter: strings in bodies, wherever a body is cut in pieces (nginx: ngx_http_sub_module).
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /all/ { sub_filter_once off; sub_filter_types *; sub_filter aab [AAB]; sub_filter $arg_s <$arg_s>; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /once/ { sub_filter_types *; sub_filter aab [AAB]; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /kept/ { sub_filter_types *; sub_filter aab x; sub_filter_last_modified on; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /plain/ { sub_filter aab x; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /plain/off { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
EOC
my %body = (
    pieces => ['xa', 'a', 'aab', 'aa', 'b', 'AAaB', 'aa'],
    bytes => [split //, 'aaab-aab-aaaaab-'],
    nothing => ['no', 'thing'],
    large => [map { ('a' x 20_000) . 'b' } 1 .. 5],
    end => ['x', 'aa'],
    coded => ['aab'],
);
# Each piece is a chunk.
$hd->backend(1, sub {
    my ($r) = @_;
    my ($what) = $r->{uri} =~ m{/(\w+)(?:\?|$)};
    my $head = join "\r\n", 'HTTP/1.1 200 OK', 'Content-Type: text/plain', 'ETag: "e"', 'Transfer-Encoding: chunked',
        'Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT', $r->{uri} =~ /coded/ ? 'Content-Encoding: br' : (), '', '';
    return {raw => $head . join '', map { sprintf "%x\r\n%s\r\n", length, $_ } @{$body{$what}}, ''};
});
$hd->start;

# What it should be: the strings one after another in the whole text.
sub replaced {
    my ($text, $once) = @_;
    my $n = 0;
    return $text =~ s/aab/$once && $n++ ? $& : '[AAB]'/gier;
}
for my $what (grep { $_ ne 'coded' } sort keys %body) {
    my $text = join '', @{$body{$what}};
    is $hd->get("/all/$what")->body, replaced($text), "all: $what";
    is $hd->get("/once/$what")->body, replaced($text, 1), "once: $what";
}
is $hd->get('/all/nothing?s=th')->body, 'no<th>ing', 'a string of the request';
is $hd->get('/all/bytes?s=b-')->body, 'a[AAB]-[AAB]-aaa[AAB]-', 'the first that fits';
my $long = 'x' x 5000;
is $hd->get("/all/nothing?s=$long")->body, 'nothing', 'one that is too long is not looked for';
my $r = $hd->get('/all/end');
is $r->header('etag') // '', '', 'no ETag';
is $r->header('last-modified') // '', '', 'no Last-Modified';
$r = $hd->get('/kept/end');
is $r->header('etag'), 'W/"e"', 'kept: a weak ETag';
is $r->header('last-modified'), 'Sun, 01 Nov 2026 00:00:00 GMT', 'kept: Last-Modified';
is $hd->get('/all/coded')->body, 'aab', 'a coded body: as it is';
is $hd->get('/plain/pieces')->body, join('', @{$body{pieces}}), 'another type: as it is';
is $hd->get('/plain/pieces')->header('etag'), '"e"', '... with its ETag';
unless (($ENV{HD_PROGRAM} // '') =~ /nginx/) {
    my @bad = (
        ['sub_filter "" x;', qr/empty search pattern/],
        ['sub_filter a;', qr/number of arguments|argument/],
        ['sub_filter_once maybe;', qr/on or off/],
        ['sub_filter $nowhere x;', qr/unknown.*variable/],
    );
    for my $case (@bad) {
        my $t = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; $case->[0] } }");
        my ($status, $text) = $t->run('-t');
        like $text, $case->[1], substr $case->[0], 0, 40;
    }
}
done_testing;
