#!/usr/bin/perl
# Attacks over HTTP/2 on what is spoken behind it (downgrade; CVE-2023-27491 and its kind): fields that would be two
# lines of HTTP/1, rubbish in pseudo fields, fields of the connection, lengths that lie, a Host beside another
# :authority; by file and by xDS. And a body of the configuration's making towards an HTTP/2 upstream (CVE-2026-42926).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;

sub by_file {
    return Heddle->new->conf(<<'EOC');
http {
    http2 on;
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 4; }
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://u; proxy_request_buffering off; proxy_set_header Host $host; } }
}
EOC
}

sub by_xds {
    my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('u', $hd->port(1))],
        LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in', ['/' => 'u']))])->start;
    return $hd;
}

my ($hd, $n);

# What the first stream of a connection gets for <block>, and <data> if there is any: "status", "reset …" or "closed".
sub outcome {
    my ($block, @data) = @_;
    my $c = Heddle::H2->new($hd->port(0));
    $c->frame('HEADERS', @data ? 4 : 5, 1, $block);
    $c->frame('DATA', $_ < $#data ? 0 : 1, 1, $data[$_]) for 0 .. $#data;
    my $r = $c->response(1);
    return $r->{reset} ? "reset $r->{reset}" : $r->{status} || 'closed';
}

my %pseudo = (':method' => 'GET', ':scheme' => 'http', ':path' => '/', ':authority' => 'localhost');

# A block with these pseudo fields in place of others (undef: left out), and further fields.
sub block {
    my ($instead, @fields) = @_;
    my %p = (%pseudo, %$instead);
    return Heddle::H2::fields((map { defined $p{$_} ? ($_ => $p{$_}) : () } ':method', ':scheme', ':path', ':authority'), @fields);
}

sub refused {
    my ($what, $block, @data) = @_;
    my $before = $hd->requests(1);
    my $got = outcome($block, @data);
    like $got, qr/^(?:400|431|501|reset (?:PROTOCOL|INTERNAL)_ERROR|closed)$/, "$what: refused" or diag $got;
    is scalar($hd->requests(1)), $before, "$what: nothing reached the upstream";
}

# Passes, and the upstream's request, head and body, is as <like> and not as <unlike>.
sub passes {
    my ($what, $block, $like, $unlike, @data) = @_;
    is outcome($block, @data), 200, "$what: passes";
    my $seen = ($hd->requests(1))[-1];
    like "$seen->{head}$seen->{body}", $like, "$what: as it must" if $like;
    unlike "$seen->{head}$seen->{body}", $unlike, "$what: without it" if $unlike;
}

sub shown { my ($s) = @_; return $s =~ s/([^!-~])/sprintf '\\x%02x', ord $1/ger }

sub all_attacks {
    subtest 'names and values that would be more than a field' => sub {
        refused('name "' . shown($_) . '"', block({}, $_, 'v'))
            for '', 'a b', 'a:b', "a\r\nb", "a\nb", "a\0b", "a\x7f", 'Upper', "\xc3\xa4", 'a ', ' a', "x: 1\r\ntransfer-encoding";
        refused('value "' . shown($_) . '"', block({}, 'x-v', $_))
            for "a\r\nInjected: 1", "a\nb", "a\rb", "a\0b", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a";
    };
    subtest 'pseudo fields (CVE-2023-27491)' => sub {
        refused(":path \"" . shown($_) . '"', block({':path' => $_}))
            for '', 'nowhere', '/a b', "/a\r\nX: y", "/ HTTP/1.1\r\nX: y", "/a\0", '*', "/\t";
        refused(":authority \"" . shown($_) . '"', block({':authority' => $_})) for 'a b', 'a/b', 'user@a', "a\r\nX: y", 'a:b:c', "a\0";
        refused(":method \"" . shown($_) . '"', block({':method' => $_})) for '', 'G ET', "GET / HTTP/1.1\r\nX: y", "GET\0", 'GET/';
        refused("no $_", block({$_ => undef})) for ':method', ':scheme', ':path';
        refused('two of :path', block({}, ':path', '/other'));
        refused(':path behind a field', Heddle::H2::fields(':method', 'GET', ':scheme', 'http', ':authority', 'a', 'x', 'y', ':path', '/'));
        refused('an unknown one', block({':other' => undef}, ':other', 'x'));
        refused(':status in a request', block({}, ':status', '200'));
    };
    subtest 'fields of the connection' => sub {
        refused("$_->[0]: $_->[1]", block({}, @$_)) for ['connection', 'close'], ['connection', 'x'], ['transfer-encoding', 'chunked'],
            ['upgrade', 'h2c'], ['keep-alive', '1'], ['proxy-connection', 'close'], ['te', 'gzip'], ['te', 'trailers, deflate'];
        passes('te: trailers', block({}, 'te', 'trailers'), undef, qr/^Transfer-Encoding:/mi);
    };
    subtest 'lengths that lie' => sub {
        my $post = sub { block({':method' => 'POST'}, map { ('content-length', $_) } @_) };
        for (['less than comes', [5], 'abcdef'], ['two', [5, 6], 'abcde'], ['a sign', ['+5'], 'abcde'], ['a list', ['5, 5'], 'abcde'],
            ['empty', [''], 'abcde'], ['hexadecimal', ['0x5'], 'abcde'], ['beyond 64 bits', ['18446744073709551621'], 'abcde']) {
            my ($what, $lengths, @data) = @$_;
            my $before = () = $hd->requests(1);
            like outcome($post->(@$lengths), @data), qr/^(?:4\d\d|reset|closed)/, "$what: refused";
            my @seen = $hd->requests(1);
            is scalar(grep { $_->{body} =~ /abcdef|smuggled/ } @seen[$before .. $#seen]), 0, "$what: nothing of it is a request's";
        }
        like outcome($post->(5)), qr/^(?:400|reset)/, 'a length without a body: refused';
        like outcome($post->(50), 'abc'), qr/^(?:400|reset)/, 'more than comes: refused';
        passes('no length', block({':method' => 'POST'}), qr/^(?:Transfer-Encoding: chunked|Content-Length: \d\d)\r\n.*GET \/smuggled/ms, undef,
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        is scalar(grep { $_->{uri} =~ /smuggled/ } $hd->requests(1)), 0, 'no body was ever a request';
    };
    subtest ':authority and Host' => sub {
        refused('another Host', block({}, 'host', 'other.example'));
        passes('the same Host', block({}, 'host', 'localhost'), qr/^Host: localhost\r$/m, qr/\nHost:.*\nHost:/si);
        passes('Host alone', block({':authority' => undef}, 'host', 'localhost'), qr/^Host: localhost\r$/m, undef);
    };
    subtest 'what is split by rule is joined by rule' => sub {
        passes('cookies', block({}, 'cookie', 'a=1', 'cookie', 'b=2'), qr/^cookie: a=1; b=2\r$/mi, qr/\ncookie:.*\ncookie:/si);
    };
    my $c = Heddle::H2->new($hd->port(0));
    $c->request(1, '/');
    is $c->response(1)->{status}, 200, 'and all is well';
}

for my $way ('file', 'xds') {
    $hd = $way eq 'file' ? by_file() : by_xds();
    $hd->echo_server(1);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    subtest "by $way" => \&all_attacks;
    $hd->stop;
}

subtest 'a body made by proxy_set_body, towards HTTP/2 (CVE-2026-42926)' => sub {
    my $hd = Heddle->new->conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_set_body "<$request_body>"; proxy_http_version 2; proxy_pass http://127.0.0.1:%%PORT_2%%; }
    }
    server { listen 127.0.0.1:%%PORT_2%%; http2 on; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; } }
}
EOC
    $hd->echo_server(1);
    $hd->start;
    my $frame = Heddle::H2::head(undef, 'HEADERS', 5, 3, Heddle::H2::fields(':method', 'GET', ':scheme', 'http', ':path', '/smuggled'));
    for my $b ('plain', "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", $frame, $frame x 100, 'x' x 16_000) {
        is $hd->post('/', $b)->status, 200, 'from ' . length($b) . ' bytes of the client\'s';
        is +($hd->requests(1))[-1]{body}, "<$b>", 'they are the body, and no more';
    }
    is scalar(grep { $_->{uri} =~ /smuggled/ } $hd->requests(1)), 0, 'nothing else was a request';
    $hd->stop;
};
done_testing;
