package OddRequests;

# About a thousand odd HTTP/1 requests: tables times mutations, in families named after what they
# tease. all() returns [name, bytes] pairs; each contains the word %ID%, to be replaced, so that what
# comes out of a proxy can be told apart: in a target, a field or a body. Behind most of them stands
# one more request, /%ID%/after: whoever reads the first one as longer or shorter loses it.

use strict;
use warnings;

my $after = "GET /%ID%/after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
my $inner = "GET /%ID%/inner HTTP/1.1\r\nHost: a\r\n\r\n";
my $chunked = "5\r\nhello\r\n0\r\n\r\n";

# A value in words, for a name.
sub word {
    my ($text) = @_;
    $text =~ s/\r/\\r/g;
    $text =~ s/\n/\\n/g;
    $text =~ s/\t/\\t/g;
    $text =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ge;
    return length $text > 60 ? substr($text, 0, 57) . '...' : $text;
}

sub post {
    my ($fields, $body, $version) = @_;
    $version //= '1.1';
    return "POST /%ID%/p HTTP/$version\r\nHost: a\r\n$fields\r\n$body$after";
}

# RFC 9112 §6.2, §6.3: which length counts
sub lengths {
    my @out;
    my @values = ('5', '05', '005', '0', '4', '6', '+5', '-5', '-0', '5 ', ' 5', "5\t", "\t5", '5,5', '5, 5',
        '5,6', '5,', ',5', '5;5', '5.0', '5e0', '0x5', '0X5', '5_', '5a', 'a5', '5 5', '"5"', '٥', '',
        ' ', "5\x0b", "\x0b5", "5\0", "\xa05", '18446744073709551621', '4294967301',
        '9223372036854775808', '99999999999999999999999', '00000000000000000000000000000005');
    my %place = (
        alone => sub { post("Content-Length: $_[0]\r\n", 'hello') },
        'after 5' => sub { post("Content-Length: 5\r\nContent-Length: $_[0]\r\n", 'hello') },
        'before 5' => sub { post("Content-Length: $_[0]\r\nX: y\r\nContent-Length: 5\r\n", 'hello') },
        'in a GET with a request as body' => sub {
            "GET /%ID%/g HTTP/1.1\r\nHost: a\r\nContent-Length: $_[0]\r\n\r\n$inner$after" },
        'with chunks' => sub { post("Content-Length: $_[0]\r\nTransfer-Encoding: chunked\r\n", $chunked) },
    );
    for my $place (sort keys %place) {
        push @out, ["length $place: " . word($_), $place{$place}->($_)] for @values;
    }
    my @names = ('content-length', 'CONTENT-LENGTH', 'Content_Length', 'Content-Length ', "Content-Length\t",
        ' Content-Length', "Content-Length\0", "Content\0-Length", "Content-Length\x0b", 'Content-Length:',
        "X\r\nContent-Length", "X: y\nContent-Length", "X: y\rContent-Length", "Content-\r\n Length", 'ContentLength',
        "\x{c3}\x{a7}ontent-Length", 'Content-Length"', '"Content-Length"', 'Content-Length;a', "\x00Content-Length");
    push @out, ['length named ' . word($_), post("$_: 5\r\n", 'hello')] for @names;
    push @out, ['length and fold ' . word($_), post("Content-Length:$_\r\n", 'hello')]
        for "\r\n 5", " 5\r\n 5", "\n 5", "\r\n\t5", " 5\r\n ", " 4\r\n\t";
    push @out, ["length in HTTP/1.0: " . word($_), post("Content-Length: $_\r\n", 'hello', '1.0')] for @values[0 .. 14];
    return @out;
}

# RFC 9112 §6.1: who is chunked
sub codings {
    my @out;
    my @values = ('chunked', 'Chunked', 'CHUNKED', 'chunked ', "chunked\t", "\tchunked", 'chunked,', ',chunked',
        'chunked, chunked', 'identity', 'identity, chunked', 'chunked, identity', 'gzip, chunked', 'chunked, gzip',
        'chunked;q=1', 'chunked;a', '"chunked"', "'chunked'", 'xchunked', 'x chunked', 'chunkedx', "chunked\x0b",
        "\x0bchunked", "chunked\0", "\0chunked", 'chun ked', "chunked\x85", "\xa0chunked", 'trailers, chunked', '',
        ' ', 'gzip', 'deflate', 'cow', 'chunked cow', "chunked\r\n ", "\r\n chunked", "\n chunked", "chunked\n",
        "chunked\r", 'chunke', 'unchunked', "chunk\x{c3}\x{a9}d", 'chunked/1.0');
    my %place = (
        alone => sub { post("Transfer-Encoding: $_[0]\r\n", $chunked) },
        'after a length' => sub { post("Content-Length: 15\r\nTransfer-Encoding: $_[0]\r\n", $chunked) },
        'before a short length' => sub { post("Transfer-Encoding: $_[0]\r\nContent-Length: 3\r\n", $chunked) },
        'after chunked' => sub { post("Transfer-Encoding: chunked\r\nTransfer-Encoding: $_[0]\r\n", $chunked) },
        'before chunked' => sub { post("Transfer-Encoding: $_[0]\r\nTransfer-Encoding: chunked\r\n", $chunked) },
        'in HTTP/1.0' => sub { post("Transfer-Encoding: $_[0]\r\n", $chunked, '1.0') },
    );
    for my $place (sort keys %place) {
        push @out, ["coding $place: " . word($_), $place{$place}->($_)] for @values;
    }
    my @names = ('transfer-encoding', 'TRANSFER-ENCODING', 'Transfer_Encoding', 'Transfer-Encoding ',
        "Transfer-Encoding\t", ' Transfer-Encoding', "Transfer-Encoding\0", "Transfer\0-Encoding",
        "Transfer-Encoding\x0b", 'Transfer-Encoding:', "X: y\nTransfer-Encoding", "X: y\rTransfer-Encoding",
        "Transfer-\r\n Encoding", 'TransferEncoding', 'Transfer-Encoding"', 'TE', 'Content-Encoding',
        "X\nTransfer-Encoding", "\x0bTransfer-Encoding", 'Trailer');
    for my $name (@names) {
        push @out, ['coding named ' . word($name), post("$name: chunked\r\n", $chunked)];
        push @out, ['coding and a length, named ' . word($name),
            post("Content-Length: 15\r\n$name: chunked\r\n", $chunked)];
    }
    return @out;
}

# RFC 9112 §7.1: chunks
sub chunks {
    my @out;
    my $te = "Transfer-Encoding: chunked\r\n";
    my @sizes = ('5', '05', '0005', '0x5', '0X5', '+5', '-5', ' 5', "\t5", '5 ', "5\t", '5;', '5;a', '5;a=b',
        '5 ;a=b', '5; a=b', '5;a="b"', '5;a="', "5;\n", "5;a\nb", "5;\r", "5;a\rb", "5;\0", '5,', '5.', '5_', '5h',
        '5' . ';a' x 40, '5;' . 'a' x 2000, '0' x 20 . '5', '10000000000000005', 'FFFFFFFFFFFFFFFF',
        '100000005', '5\\', "5\x0b", "5\x85", '4', '6', '00', 'a');
    push @out, ['chunk size ' . word($_), post($te, "$_\r\nhello\r\n0\r\n\r\n")] for @sizes;
    for my $size ('5', '5;a', '5 ') {
        push @out, ["chunk size \"$size\" ends with " . word($_), post($te, "$size${_}hello\r\n0\r\n\r\n")]
            for "\n", "\r", "\r\r\n", "\n\r\n", "\0\r\n", '';
    }
    push @out, ['chunk ends with ' . word($_), post($te, "5\r\nhello${_}0\r\n\r\n")]
        for "\n", "\r", '', "\r\r\n", "\n\r", "x\r\n", " \r\n", "\r\n\r\n";
    push @out, ['last chunk ' . word($_), post($te, "5\r\nhello\r\n$_")]
        for "00\r\n\r\n", "000\r\n\r\n", "0;a\r\n\r\n", "0;a=\"b\"\r\n\r\n", "-0\r\n\r\n", "+0\r\n\r\n", "0x0\r\n\r\n",
        "0 \r\n\r\n", " 0\r\n\r\n", "\r\n\r\n", "0\n\n", "0\r\n\n", "0\n\r\n", "0\r\r\n\r\n", "0\r\n\r\r\n", "0\r\n \r\n",
        "0\r\n", "0;\n\r\n\r\n", "0\r\nX\r\n\r\n", "0_\r\n\r\n";
    push @out, ['trailer ' . word($_), post($te, "5\r\nhello\r\n0\r\n$_\r\n\r\n")]
        for 'X: y', 'Content-Length: 5', 'Transfer-Encoding: chunked', 'Host: b', 'X : y', ': y', 'X', " X: y", "X: y\r\n z",
        "X: y\nZ: z", "X: \0", "X\0: y", 'Authorization: x', 'Content-Length: 50', "X: y\rZ: z", 'Trailer: X',
        'Connection: close', "GET /%ID%/inner HTTP/1.1", "X: y\n", "X:" . 'y' x 3000;
    push @out, ['trailers many', post($te, "5\r\nhello\r\n0\r\n" . "X: y\r\n" x 200 . "\r\n")];
    return @out;
}

# RFC 9112 §2.2, §5: where lines and fields end
sub lines {
    my @out;
    my @parts = ('POST', ' ', '/%ID%/p', ' ', 'HTTP/1.1', "\r\n", 'Host', ':', ' ', 'a', "\r\n", 'X-A', ':', ' ',
        'b', "\r\n", 'Content-Length', ':', ' ', '5', "\r\n", "\r\n");
    my @names = ('start', 'method', 'sp', 'target', 'sp2', 'version', 'line', 'Host', 'Host:', 'Host: ', 'Host: a',
        'Host line', 'X-A', 'X-A:', 'X-A: ', 'X-A: b', 'X-A line', 'CL', 'CL:', 'CL: ', 'CL: 5', 'CL line', 'head');
    my @odd = ("\n", "\r", "\0", "\x0b", ' ', "\t", "\r\n", "\n ", "\x85", "\x7f");
    for my $at (0 .. $#parts) {
        for my $odd (@odd) {
            my $text = join('', @parts[0 .. $at - 1]) . $odd . join('', @parts[$at .. $#parts]);
            push @out, ['line: ' . word($odd) . " after $names[$at]", "${text}hello$after"];
        }
    }
    for my $at (grep { $parts[$_] eq "\r\n" } 0 .. $#parts) {
        for my $end ("\n", "\r", "\r\r\n", "\n\r", '') {
            my @copy = @parts;
            $copy[$at] = $end;
            push @out, ['line: ' . word($end) . " ends $names[$at]", join('', @copy) . "hello$after"];
        }
    }
    push @out, ['line: all of them by LF', join('', map { $_ eq "\r\n" ? "\n" : $_ } @parts) . "hello$after"];
    push @out, ['line: empty ones before: ' . word($_), $_ . join('', @parts) . "hello$after"]
        for "\r\n", "\r\n\r\n", "\n", "\n\n", "\r", " \r\n", "\r\n" x 20;
    push @out, ['line: fold in ' . $_->[0], post($_->[1] . "Content-Length: 5\r\n", 'hello')]
        for ['a field', "X: a\r\n b\r\n"], ['a field by tab', "X: a\r\n\tb\r\n"], ['an empty one', "X:\r\n b\r\n"],
        ['a field, empty', "X: a\r\n \r\n"], ['a hidden length', "X: a\r\n Content-Length: 7\r\n"],
        ['a hidden coding', "X: a\r\n Transfer-Encoding: chunked\r\n"];
    return @out;
}

# RFC 9112 §3, RFC 9110 §7.1
sub starts {
    my @out;
    my $tail = "Host: a\r\nX-Id: %ID%\r\n";
    push @out, ['method ' . word($_), "$_ /%ID%/m HTTP/1.1\r\n$tail\r\n$after"]
        for 'get', 'Get', 'GE T', "GE\0T", 'GE:T', 'G(T', "GET\t", '', 'TRACE', 'OPTIONS', 'M-SEARCH', 'PRI', 'DELETE', 'PATCH',
        'HEAD', 'A' x 100, '!#$%&', "G\xc3\x89T", '"GET"', 'LOCK', 'QUERY', '_', 'GET,POST';
    push @out, ["method $_ with a body", "$_ /%ID%/m HTTP/1.1\r\n${tail}Content-Length: 5\r\n\r\nhello$after"]
        for 'GET', 'HEAD', 'TRACE', 'OPTIONS', 'DELETE', 'CONNECT', 'get', 'QUERY';
    push @out, ['method CONNECT to ' . word($_), "CONNECT $_ HTTP/1.1\r\n$tail\r\n$after"]
        for 'a', 'a:80', '/%ID%', 'a:0', 'a:99999', 'http://a:80/', '*', '[::1]:80';
    push @out, ['target ' . word($_), "GET $_ HTTP/1.1\r\n$tail\r\n$after"]
        for '*', '/%ID%?', '/%ID%//x', '//%ID%', '/%ID%/../x', '/../%ID%', '/%ID%/./x', '/%ID%/%2e%2e/x', '/%ID%/%2E%2e%2fx',
        '/%ID%%2fx', '/%ID%%2Fx', '/%ID%%5cx', '/%ID%\\x', '/%ID%;a=b', '/%ID%;a=b/x', '/%ID%/..;/x', '/%ID%/..;a=b/x',
        '/%ID%/.;/x', '/%ID%#f', '/%ID%%23f', '/%ID%%00', '/%ID%%0', '/%ID%%zz', '/%ID%%', '/%ID%%252e%252e/x',
        '/%ID%%0d%0aX:%20y', '/%ID% x', "/%ID%\tx", "/%ID%\x0bx", "/%ID%\0x", "/%ID%\x7f", "/%ID%\xc3\xa9", '/%ID%"', '/%ID%<>',
        '/%ID%{}', '/%ID%|', '/%ID%^', '/%ID%`', 'http://a/%ID%', 'HTTP://a/%ID%', 'http://b/%ID%', 'http://u@a/%ID%',
        'http://a:80/%ID%', 'http://a?%ID%', 'http:///%ID%', 'http://a', 'https://a/%ID%', 'ftp://a/%ID%', 'http:/%ID%', 'a/%ID%',
        '%ID%', '?%ID%', '#%ID%', 'a:80', '/%ID%?a?b', '/%ID%?a#b', '/%ID%?' . 'a' x 5000, '/%ID%' . '/a' x 500,
        '/%ID%?a=%2e%2e%2f', '/%ID%/%c0%ae%c0%ae/', '/%ID%/...', '/%ID%/.%2e/', '/%ID%:80', '/%ID%@b';
    push @out, ['version ' . word($_), "GET /%ID%/v $_\r\n$tail\r\n$after"]
        for 'HTTP/1.0', 'HTTP/0.9', 'HTTP/1.2', 'HTTP/1.9', 'HTTP/2.0', 'HTTP/2', 'HTTP/1.10', 'HTTP/1.01', 'HTTP/01.1',
        'HTTP/11', 'http/1.1', 'HTTP/1,1', 'HTTP/1.1 ', 'HTTP /1.1', 'HTTP/ 1.1', 'HTTP/1.', 'HTTP/.1', 'HTTP/1', 'HTTPS/1.1',
        'HTTP/1.1x', "HTTP/1.1\0", 'HTTP', 'HTTP/3.0', 'HTTP/1.1 HTTP/1.1', 'HTTP/-1.1', 'HTTP/4294967297.1';
    push @out, ['no version', "GET /%ID%/v\r\n$tail\r\n$after"], ['no version, a space', "GET /%ID%/v \r\n$tail\r\n$after"];
    return @out;
}

# RFC 9112 §3.2
sub hosts {
    my @out;
    my @values = ('', ' ', 'a:80', 'a:', 'a:x', 'a:99999', 'A', 'a.', 'a b', 'a,b', 'a/b', 'a?b', 'a#b', 'u@a', "a\0", "a\tb",
        '[::1]', '[::1]:80', '[::1', '::1', '1.2.3.4', '0x7f.1', 'a_b', '-a', 'a..b', '%61', "\xc3\xa9", 'http://a', 'a:80:80',
        '*', 'a;b', '"a"', 'a\\b', 'a' x 300, "a\x0b");
    my @none = ([none => '']);
    push @out, ["host $_->[0]", "GET /%ID%/h HTTP/1.1\r\n$_->[1]X: y\r\n\r\n$after"] for @none,
        ['twice', "Host: a\r\nHost: b\r\n"], ['twice the same', "Host: a\r\nHost: a\r\n"], ['folded', "Host: a\r\n b\r\n"],
        ['with a space before its colon', "Host : a\r\n"], ['by another name', "host: a\r\nHOST: b\r\n"],
        ['behind a fold', "X: y\r\n Host: b\r\nHost: a\r\n"];
    push @out, ["host in HTTP/1.0 $_->[0]", "GET /%ID%/h HTTP/1.0\r\n$_->[1]\r\n$after"] for @none,
        ['twice', "Host: a\r\nHost: b\r\n"];
    for my $value (@values) {
        push @out, ['host ' . word($value), "GET /%ID%/h HTTP/1.1\r\nHost: $value\r\n\r\n$after"];
        push @out, ['host beside an absolute target: ' . word($value),
            "GET http://a/%ID%/h HTTP/1.1\r\nHost: $value\r\n\r\n$after"];
    }
    return @out;
}

# RFC 9110 §7.6.1, §7.8, §10.1.1
sub hops {
    my @out;
    push @out, ["Connection names $_", "POST /%ID%/c HTTP/1.1\r\nHost: a\r\nConnection: $_\r\nContent-Length: 5\r\n\r\nhello$after"]
        for 'Host', 'Content-Length', 'Transfer-Encoding', 'close, Content-Length', 'X', 'keep-alive, Host', 'Connection', 'TE',
        'Authorization', 'Cookie', ',', ',,close', 'close,', 'close close', 'cl ose', 'Close', 'keep-alive, close', 'Expect', 'Upgrade',
        'Keep-Alive', 'Trailer', '"close"', 'close;a', '';
    push @out, ["Connection names Transfer-Encoding, which is there",
        post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", $chunked)],
        ['Connection twice', post("Connection: keep-alive\r\nConnection: close\r\nContent-Length: 5\r\n", 'hello')],
        ['Proxy-Connection', post("Proxy-Connection: close\r\nContent-Length: 5\r\n", 'hello')],
        ['Keep-Alive', post("Keep-Alive: timeout=5\r\nContent-Length: 5\r\n", 'hello')];
    for my $token ('websocket', 'h2c', 'foo', 'TLS/1.0', 'HTTP/2.0', 'websocket, foo', '', 'WebSocket', "foo\0", 'foo bar') {
        my $upgrade = "Connection: Upgrade\r\nUpgrade: $token\r\n";
        push @out, ['upgrade to ' . word($token), "GET /%ID%/u HTTP/1.1\r\nHost: a\r\n$upgrade\r\n$inner$after"],
            ['upgrade with a body to ' . word($token), post("${upgrade}Content-Length: 5\r\n", 'hello')],
            ['upgrade with chunks to ' . word($token), post("${upgrade}Transfer-Encoding: chunked\r\n", $chunked)],
            ['upgrade unconnected to ' . word($token), "GET /%ID%/u HTTP/1.1\r\nHost: a\r\nUpgrade: $token\r\n\r\n$after"];
    }
    push @out, ['upgrade h2c with settings', "GET /%ID%/u HTTP/1.1\r\nHost: a\r\n"
        . "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n$inner$after"];
    push @out, ['preface of HTTP/2', "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n$inner$after"];
    push @out, ['expect ' . word($_), post("Expect: $_\r\nContent-Length: 5\r\n", 'hello')],
        ['expect without a body ' . word($_), "GET /%ID%/e HTTP/1.1\r\nHost: a\r\nExpect: $_\r\n\r\n$after"]
        for '100-continue', '100-Continue', '200-ok', '', '100-continue, x', "100-continue\0", ' 100-continue', '100-continue;a';
    return @out;
}

# Bodies that look like requests
sub pairs {
    my @out;
    for my $method ('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH') {
        my $head = "$method /%ID%/1 HTTP/1.1\r\nHost: a\r\n";
        my $len = length($inner) - 4 + 5; # %ID% becomes five bytes: see replace()
        push @out, ["pair: $method with a request as body", "${head}Content-Length: $len\r\n\r\n$inner$after"],
            ["pair: $method without its length", "$head\r\n$inner$after"],
            ["pair: $method of length 0", "${head}Content-Length: 0\r\n\r\n$inner$after"],
            ["pair: $method with a request in a chunk",
                sprintf "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n%s", $head, $len, $inner, $after],
            ["pair: $method by HTTP/1.0", "$method /%ID%/1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n$inner$after"],
            ["pair: $method and close", "${head}Connection: close\r\n\r\n$inner$after"];
    }
    return @out;
}

# [name, bytes, id], each id of five bytes.
sub all {
    my $n = 0;
    my @cases;
    for my $case (lengths(), codings(), chunks(), lines(), starts(), hosts(), hops(), pairs()) {
        my ($name, $bytes) = @$case;
        my $id = sprintf 'i%03dz', $n;
        $id = sprintf 'i%03xz', $n - 1000 + 0xa00 if $n >= 1000; # hexadecimal from here on
        $n++;
        push @cases, [$name, $bytes =~ s/%ID%/$id/gr, $id];
    }
    return @cases;
}

1;
