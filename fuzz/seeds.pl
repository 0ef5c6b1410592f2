#!/usr/bin/perl
# fuzz/seeds.pl DIR: what the fuzz targets begin with beside their corpora: inputs that the tests have
# anyway, as DIR/seeds/TARGET/*, and words that a target's inputs are made of, as DIR/dict/TARGET.
use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use File::Path qw(make_path);
use FindBin;

chdir "$FindBin::Bin/.." or die "chdir: $!\n";
use lib "$FindBin::Bin/../t/lib";
use OddRequests;

my $dir = shift // die "usage: fuzz/seeds.pl DIR\n";
my %seen;

sub load { my $file = shift; local $/; open my $f, '<:raw', $file or die "$file: $!\n"; return scalar <$f> }

sub store {
    my ($path, $bytes) = @_;
    make_path($path =~ s{/[^/]+$}{}r);
    open my $f, '>:raw', $path or die "$path: $!\n";
    print $f $bytes;
    close $f or die "$path: $!\n";
}

sub seed {
    my ($target, $bytes) = @_;
    my $name = md5_hex($bytes);
    store("$dir/seeds/$target/$name", $bytes) if length $bytes <= 16384 && !$seen{$target}{$name}++;
}

sub dict {
    my ($target, @words) = @_;
    my %is = map { $_ => 1 } @words;
    store("$dir/dict/$target", join '', map { '"' . s/([^\w .:\/=-])/sprintf '\\x%02X', ord $1/ger . "\"\n" } sort keys %is);
}

# The blocks of configuration that a text holds, each to the brace that ends it.
sub blocks {
    my ($text) = @_;
    my @found;
    push @found, "$1\n" while $text =~ /^[ \t]*((?:http|stream) (\{(?:[^{}]++|(?2))*+\}))/gm;
    return @found;
}

# An HTTP/1 request as HTTP/2's frames: fields as literals, a body as it is.
sub frames {
    my ($head, $body) = split /\r\n\r\n/, shift, 2;
    my ($line, @fields) = split /\r?\n/, $head;
    my ($method, $path) = split ' ', $line // '';
    my $frame = sub { my ($type, $flags, $bytes) = @_; return substr(pack('N', length $bytes), 1) . pack('CCN', $type, $flags, 1) . $bytes };
    my $block = join '', map { pack 'C C/a* C/a*', 0, @$_ } [':method', $method // ''], [':scheme', 'http'], [':path', $path // ''],
        map { my ($name, $value) = /^([^:]*):\s*(.*)/s; $name = lc($name // ''); [$name eq 'host' ? ':authority' : $name, $value // ''] }
        sort { $b =~ /^host:/i <=> $a =~ /^host:/i } @fields;
    return $frame->(1, 4, $block) . $frame->(0, 1, $body // '');
}

# --- requests ---

for my $case (OddRequests::all()) {
    my $request = $case->[1] =~ s{/i\w{3}z/}{/up/}gr;
    seed('h1', $request);
    seed('h1_engine', "\x00$request");
    seed('h1_engine', "\x80" . frames($request)) if $request !~ /[^\r\n]{127}/;
    # the same oddities of an upstream
    seed('relay', "\x00$request") if $request =~ s{^[A-Z]+ \S+ HTTP/1\.(\d)\r\n}{HTTP/1.$1 200 OK\r\n}mg;
}
dict($_, "\r\n", "\r\n\r\n", 'HTTP/1.1', 'HTTP/1.0', 'chunked', "0\r\n\r\n", 'GET ', 'POST ', 'HEAD ', 'CONNECT ', 'OPTIONS *',
    '100-continue', 'trailers', 'close', 'keep-alive', 'websocket', 'application/grpc', '100 Continue', '101 Switching Protocols',
    map { "$_: " } 'Host', 'Content-Length', 'Transfer-Encoding', 'Connection', 'Upgrade', 'TE', 'Trailer', 'Expect', 'Range',
    'Keep-Alive', 'Cookie', 'X-Forwarded-For', 'Sec-WebSocket-Key', 'grpc-timeout', 'Location') for 'h1', 'h1_engine', 'relay', 'site';

for my $file (glob 'fuzz/h2/corpus/*') {
    my ($how, $frames) = unpack 'C a*', load($file);
    seed($how & 1 ? 'relay' : 'h1_engine', chr(0x80 | $how & 2) . $frames);
}

# weft: HELLO, a response to the stream that comes first, and what may follow
seed('relay', "\x10" . join '', map { pack 'C4 a*', @$_[0 .. 2], length $_->[3], $_->[3] } [1, 0, 0, ''], @$_)
    for [[0x82, 1, 0, '']], [[2, 1, 0, ''], [0x83, 1, 0, 'a body ok']], [[2, 1, 0, "HTTP/1.1 100 Continue\r\n\r\n"], [0x82, 1, 0, '']],
        [[2, 1, 0, "HTTP/1.1 200 OK\r\n\r\n"], [3, 1, 0, 'abc'], [0x84, 1, 0, "X: 1\r\n\r\n"]], [[6, 1, 0, "\0\0\0\1"]], [[7, 0, 0, '']];

# each location of fuzz/site, with bodies for its filters
{
    use IO::Compress::Gzip qw(gzip);
    my $zipped = '';
    gzip \'abc aab <!--#echo var="uri" -->' => \$zipped;
    my @answers = (['X: 1', 'abc aabc'], ["Content-Type: text/html; charset=koi8-r\r\nSet-Cookie: a=b; Path=/; Domain=a", "\xc0\xc1abc\xc2"],
        ["Content-Encoding: gzip\r\nContent-Type: text/html", $zipped], ["Location: http://a/x\r\nX-Accel-Redirect: /sub", 'ab'],
        ["X-Accel-Charset: koi8-r\r\nX-Accel-Limit-Rate: 1\r\nX-Accel-Buffering: no\r\nETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT", 'aab'],
        ['Content-Type: text/html', '<!--# if expr="$http_x = /a(?P<b>.)/" --><!--# include virtual="/sub?x" stub="s" wait="yes" set="v" --><!--# else -->'
                . '<!--# set var="a" value="$b$v" --><!--# endif --><!--# block name="s" -->x<!--# endblock --><!--# echo var="a" encoding="url" default="d" -->']);
    my $fields = 'X: ab|Accept-Encoding: gzip|Range: bytes=1-2|Cookie: uid=a|If-None-Match: "a"|X-Forwarded-For: 1.2.3.4, 5|Referer: http://x.a.b/';
    for my $at (0 .. 17) {
        for my $answer (@answers) {
            my ($head, $body) = @$answer;
            for my $status (200, 404, 206) {
                seed('site', pack('CC C/a*', 64, $at, $fields) . "HTTP/1.1 $status OK\r\n$head\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
                seed('site', pack('CC C/a*', 32, $at, '') . "HTTP/1.1 $status OK\r\n$head\r\nTransfer-Encoding: chunked\r\n\r\n" . sprintf('%x', length $body) . "\r\n$body\r\n0\r\n\r\n");
            }
        }
    }
}

# --- configurations ---

my @files = (glob('conf/*.conf t/interop/nginx/*/nginx.conf bench/conf/ngx-*.in bench/conf/heddle.in examples/*/*.conf'));
my @texts = map { s/%%\w+%%|\@\w+\@/8080/gr } map { load($_) } @files;
# the tests' own, where they stand in Perl: what it would put in is a number or left
push @texts, map { s/\$\{?\w*port\w*\}?(?:\[\d\])?|\@\{\[[^\]]*\]\}/8080/gr } map { blocks(load($_)) } glob('t/proxy/*.t t/mesh/*.t');
for (@texts) {
    seed('directives', $_);
    seed('conf', $_);
}
my @sources = map { load($_) } glob('src/*/*.c src/*/*/*.c');
dict('directives', grep { !/^heddle_/ } map { /(?|\{(?:\.name = )?"([a-z]\w+)"|HD_STR_INIT\("([a-z]\w+)"\))/g } @sources);

# --- what a control plane sends, and is given ---

seed('yaml', load($_)) for glob('t/fixtures/istiod/*/mesh.yaml examples/*/*.yaml');

# A protobuf message's fields: number => bytes or number, in turn.
sub varint {
    my ($bytes, $at) = @_;
    my ($n, $shift) = (0, 0);
    while (1) {
        my $byte = ord substr $$bytes, $$at++, 1;
        $n |= ($byte & 0x7f) << $shift;
        return $n if $byte < 0x80;
        $shift += 7;
    }
}

sub fields {
    my ($bytes) = @_;
    my ($at, @fields) = (0);
    while ($at < length $bytes) {
        my $tag = varint(\$bytes, \$at);
        my $len = $tag % 8 == 2 ? varint(\$bytes, \$at) : $tag % 8 == 0 ? (varint(\$bytes, \$at), 0)[1] : $tag % 8 == 1 ? 8 : 4;
        push @fields, [$tag >> 3, substr $bytes, $at, $len];
        $at += $len;
    }
    return @fields;
}

# Field <n> of each message.
sub each_field { my ($n, @messages) = @_; return map { $_->[1] } grep { $_->[0] == $n } map { fields($_) } @messages }

my %kind = ('cluster.v3.Cluster' => 0, 'ClusterLoadAssignment' => 1, 'Listener' => 2, 'RouteConfiguration' => 3, 'Secret' => 4);
for my $file (glob 't/fixtures/istiod/*/*-delta.pb') {
    my ($bytes, $at) = (load($file), 0);
    while ($at < length $bytes) { # DeltaDiscoveryResponse after DeltaDiscoveryResponse
        my $len = varint(\$bytes, \$at);
        my $response = substr $bytes, $at, $len;
        $at += $len;
        for my $any (each_field(2, each_field(2, $response))) { # resources[].resource
            my ($type) = each_field(1, $any);
            my ($value) = each_field(2, $any);
            my ($kind) = grep { $type =~ /\Q$_\E$/ } keys %kind;
            seed('xds', chr($kind{$kind}) . $value) if defined $kind && defined $value;
        }
    }
}
