#!/usr/bin/perl
# charset_map (nginx: ngx_http_charset_module): an upstream's text is converted wherever it is cut in pieces.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Encode qw(encode decode);
use Test::More;
use Heddle;

my $letters = join '', map { chr } 0x410 .. 0x44f;
my $map = join ' ', map { sprintf '%02X %s;', ord encode('koi8-r', $_), uc unpack 'H*', encode('UTF-8', $_) } split //, $letters;
my $hd = Heddle->new->conf(<<"EOC");
http {
    charset_map koi8-r utf-8 { $map }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /to_koi/ { charset koi8-r; override_charset on; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /to_utf/ { charset utf-8; override_charset on; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /as_it_is/ { charset koi8-r; source_charset utf-8; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
EOC
my $text = "abc $letters " x 40 . "\x{20ac}\x{1d11e}";
my $pieces = sub { my ($charset, $bytes) = @_; return {charset => $charset, pieces => [$bytes =~ /.{1,$_[2]}/sg]} };
my %answer = (
    utf_1 => $pieces->('UTF-8', encode('UTF-8', $text), 1),
    utf_7 => $pieces->('utf-8', encode('UTF-8', $text), 7),
    utf_5000 => $pieces->('utf-8', encode('UTF-8', $text), 5000),
    koi_7 => $pieces->('koi8-r', encode('koi8-r', $letters x 100), 7),
    koi_5000 => $pieces->($hd->is_heddle ? '"koi8-r"; x=y' : 'koi8-r', encode('koi8-r', $letters x 100), 5000),
    other => $pieces->('x-other', "\xff\xfe", 1),
);
$hd->backend(1, sub {
    my ($r) = @_;
    my $answer = $answer{($r->{uri} =~ m{(\w+)$})[0]};
    my $head = "HTTP/1.1 200 OK\r\nContent-Type: text/any; charset=$answer->{charset}\r\nTransfer-Encoding: chunked\r\n\r\n";
    return {raw => $head . join '', map { sprintf "%x\r\n%s\r\n", length, $_ } @{$answer->{pieces}}, ''};
});
$hd->start;

(my $koi = encode('koi8-r', "abc $letters " x 40)) .= '&#8364;&#119070;';
for my $name (qw(utf_1 utf_7 utf_5000)) {
    my $r = $hd->get("/to_koi/$name");
    is $r->header('content-type'), 'text/any; charset=koi8-r', "$name: the charset";
    ok $r->body eq $koi, '... and the text';
}
is $hd->get("/to_utf/$_")->body, encode('UTF-8', $letters x 100), $_ for qw(koi_7 koi_5000);
is $hd->get('/to_utf/koi_7')->header('content-type'), 'text/any; charset=utf-8', '... and its charset';
is $hd->get('/to_utf/utf_7')->body, encode('UTF-8', $text), 'what is in it already stays';
my $r = $hd->get('/to_utf/other');
is $r->body, "\xff\xfe", 'what no map knows stays, too';
is $r->header('content-type'), 'text/any; charset=x-other', '... under its name';
like $hd->log, qr{no "charset_map" between the charsets "x-other" and "utf-8"}, '... and is told of';
$r = $hd->get('/as_it_is/utf_7');
is $r->header('content-type'), 'text/any; charset=utf-8', 'without override_charset: its own';
is $r->body, encode('UTF-8', $text), '... and its text';
$hd->expect_log(qr{no "charset_map" between});
$hd->stop;
done_testing;
