#!/usr/bin/perl
# L4 by xDS: a chain chosen by the name of a ClientHello that is passed on unread, however it comes; clusters by weight; both
# halves of a session; PROXY heads, good ones and hostile ones (proxy-protocol.txt §2); and what the log tells of each.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::XS ();

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $hd = Heddle->new(workers => 2, log_level => 'info', modules => ['access_log']);
my $any = 'type.googleapis.com/';
my $ca = $hd->make_ca('root');
my %cert = map { $_ => $ca->make_cert($_, dns => "$_.example") } 'a', 'b';

my $log = {name => 'log', typed_config => {'@type' => "${any}envoy.extensions.access_loggers.file.v3.FileAccessLog", path => '/dev/stdout',
    log_format => {text_format_source => {inline_string => "%UPSTREAM_CLUSTER% %BYTES_RECEIVED% %BYTES_SENT% <%REQUESTED_SERVER_NAME%> "
        . "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS%\n"}}}};
sub tcp { return {name => 'tcp', typed_config => {'@type' => "${any}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    stat_prefix => 'x', access_log => [$log], @_}} }
sub to { my ($cluster, @names) = @_; return {filters => [tcp(cluster => $cluster)], @names ? (filter_chain_match => {server_names => [@names]}) : ()} }
sub listener {
    my ($n, $filters, @chains) = @_;
    return {name => "l$n", address => Heddle::Xds::address($hd->port($n)), filter_chains => \@chains, listener_filters_timeout => '20s',
        listener_filters => [map { {name => $_, typed_config => {'@type' => "${any}envoy.extensions.filters.listener.$_"}} } @$filters]};
}
my ($tls, $proxy) = ('tls_inspector.v3.TlsInspector', 'proxy_protocol.v3.ProxyProtocol');
my $web = Heddle::Xds::listener('web', $hd->port('web'), use_remote_address => JSON::XS::true(),
    route_config => Heddle::Xds::routes('web', ['/' => 'http', request_headers_to_add => [
        {header => {key => 'x-direct', value => '%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%'}}]]));
$web->{listener_filters} = listener('x', [$proxy])->{listener_filters};
my $xds = Heddle::Xds->new($hd, 'xds')->serve(
    CDS => [map { Heddle::Xds::cluster($_, $hd->port($_)) } qw(one two say ended tls_a tls_b http)],
    LDS => [listener('sni', [$tls], to('tls_a', 'a.example'), to('tls_b', '*.b.example', 'b.example')),
        listener('both', [$proxy, $tls], to('tls_a', 'a.example'), to('say')),
        listener('weights', [], {filters => [tcp(weighted_clusters => {clusters => [{name => 'one', weight => 30}, {name => 'two', weight => 10}]})]}),
        listener('proxied', [$proxy], to('say')),
        listener('half', [], to('ended')), $web])->start;
$hd->conf(<<"EOC");
xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }
http {
    server { listen 127.0.0.1:%%PORT_tls_a%% ssl; ssl_certificate $cert{a}{cert}; ssl_certificate_key $cert{a}{key}; return 200 "for a"; }
    server { listen 127.0.0.1:%%PORT_tls_b%% ssl; ssl_certificate $cert{b}{cert}; ssl_certificate_key $cert{b}{key}; return 200 "for b"; }
}
EOC
for my $n ('one', 'two') { $hd->tcp_backend($n, sub { my ($s) = @_; syswrite $s, $n }) }
$hd->tcp_backend(say => sub { # what came, once the client has ended
    my ($s) = @_;
    my $all = '';
    while (sysread $s, my $bytes, 65536) { $all .= $bytes }
    syswrite $s, "<$all>";
});
$hd->tcp_backend(ended => sub { # ends first, and goes on reading
    my ($s) = @_;
    syswrite $s, 'hello';
    shutdown $s, 1;
    my $n = 0;
    while (my $got = sysread $s, my $bytes, 65536) { $n += $got }
    $hd->write('read', $n);
});
$hd->echo_server('http');
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for qw(sni both weights proxied half web);
sub logged { my ($re, $what) = @_; ok eval { $hd->wait_for(sub { $hd->file('output') =~ $re }, $what) }, $what or diag $hd->file('output') }

# ---- names

sub served {
    my ($name, $port) = @_;
    my $c = eval { $hd->connect($port // 'sni', tls => {sni => $name}) } or return 'nobody';
    $c->send("GET / HTTP/1.0\r\n\r\n");
    my $r = eval { $c->response };
    return $r ? $r->body : 'nobody';
}
is served('a.example'), 'for a', 'a name';
is served('A.Example'), 'for a', 'in any case';
is served('x.b.example'), 'for b', 'a wildcard';
is served('y.x.b.example'), 'for b', 'of any depth';
is served('b.example'), 'for b', 'another name of the same chain';
is served($_), 'nobody', ($_ // 'none') . ': no chain' for 'x.a.example', 'c.example', undef;
logged(qr/^tls_a \d+ \d+ <a\.example> 127/m, 'the log names what was asked for');
logged(qr/^tls_b \d+ \d+ <y\.x\.b\.example> 127/m, 'though it was only passed on');

# A ClientHello in pieces, as recorded from openssl.
my $hello = do {
    my $listen = Heddle::Backend::listener($hd->port('record'));
    my $pid = fork // die;
    if (!$pid) { exec 'sh', '-c', "openssl s_client -connect 127.0.0.1:${\$hd->port('record')} -servername b.example </dev/null >/dev/null 2>&1" }
    my $s = $listen->accept;
    sysread $s, my $bytes, 65536;
    close $s;
    waitpid $pid, 0;
    $bytes;
};
sub pieces { my ($bytes, @cuts) = @_; my $at = 0; return grep { length } map { my $p = substr $bytes, $at, $_ - $at; $at = $_; $p } @cuts, length $bytes }
for my $how (['a byte each', 1 .. length($hello) - 1], ['after its length', 3, 5], ['within the name', index($hello, 'b.example') + 3]) {
    my ($what, @cuts) = @$how;
    my $c = $hd->connect('sni');
    for my $piece (pieces($hello, @cuts)) { $c->send($piece); select undef, undef, undef, 0.001 }
    like $c->read_bytes(5), qr/^\x16\x03/, "a ClientHello in pieces, $what: the server behind answers it";
}
# In two records (RFC 8446 §5.1).
my $body = substr $hello, 5;
my $two = join '', map { substr($hello, 0, 3) . pack('n/a*', $_) } substr($body, 0, 40), substr $body, 40;
my $c = $hd->connect('sni');
$c->send($two);
like $c->read_bytes(5), qr/^[\x15\x16]\x03/, 'in two records';
for my $bad ("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "\x16\x03\x01\xff\xff" . 'x' x 70000, substr($hello, 0, 5) . "\x02" . substr($hello, 6), "\x80\x2e\x01\x03\x01") {
    $c = $hd->connect('sni');
    $c->send($bad);
    $c->shutdown_write;
    is $c->read_all, '', sprintf 'no ClientHello: %s…: closed', unpack 'H*', substr $bad, 0, 8;
}

# ---- weights: 3 to 1; of 400 a deviation of 60 is one in some 10^11

my %n = (one => 0, two => 0);
$n{$hd->connect('weights')->read_all}++ for 1 .. 400;
cmp_ok abs($n{one} - 300), '<', 60, "clusters by weight: $n{one} and $n{two}";
is $n{one} + $n{two}, 400, 'none is lost';

# ---- halves

$c = $hd->connect('half');
is $c->read_bytes(5), 'hello', 'what the server said';
ok $c->is_eof, 'it has ended';
$c->send('x' x 100_000) for 1 .. 3;
$c->shutdown_write;
is eval { $hd->wait_for(sub { -e $hd->dir . '/read' && $hd->file('read') }) }, 300_000, 'and still hears all';
logged(qr/^ended 300000 5 <-> /m, 'the log counts both');

# ---- PROXY

my $sig = "\r\n\r\n\0\r\nQUIT\n";
sub v2 { my ($command, $family, $body) = @_; return $sig . pack 'CCn/a*', $command, $family, $body }
my $ip = pack 'C4C4nn', 10, 0, 0, 1, 10, 0, 0, 2, 1234, 80;
sub said { my ($port, $bytes) = @_; my $c = $hd->connect($port); $c->send($bytes); $c->shutdown_write; return $c->read_all }
my %good = (
    'version 1' => ["PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n", '10\.0\.0\.1:1234'],
    'IPv6' => ["PROXY TCP6 2001:db8::1 ::2 1234 80\r\n", '\[2001:db8::1\]:1234'],
    'unknown' => ["PROXY UNKNOWN\r\n", '127\.0\.0\.1:\d+'],
    'unknown with words' => ["PROXY UNKNOWN ffff:f...f:ffff 65535\r\n", '127\.0\.0\.1:\d+'],
    'version 2' => [v2(0x21, 0x11, $ip), '10\.0\.0\.1:1234'],
    'version 2 with a TLV' => [v2(0x21, 0x11, $ip . pack 'Cn/a*', 0xea, 'x' x 300), '10\.0\.0\.1:1234'],
    'LOCAL' => [v2(0x20, 0, ''), '127\.0\.0\.1:\d+'],
    'LOCAL with addresses' => [v2(0x20, 0x11, $ip), '127\.0\.0\.1:\d+'],
    'a unix socket' => [v2(0x21, 0x31, join '', map { $_ . "\0" x (108 - length) } '/x', '/y'), 'unix:/x'],
    'no family' => [v2(0x21, 0, 'whatever'), '127\.0\.0\.1:\d+'],
);
is said('proxied', "$good{$_}[0]body of $_"), "<body of $_>", "PROXY: $_" for sort keys %good;
for my $what (sort keys %good) {
    my ($n, $who) = (length "body of $what", $good{$what}[1]);
    logged(qr/^say $n ${\(2 + $n)} <-> $who 127\.0\.0\.1:\d+$/m, "$what: the log tells who it was");
}
for my $head ("PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n", v2(0x21, 0x11, $ip)) {
    $c = $hd->connect('proxied');
    for my $byte (split //, $head . 'slow') { $c->send($byte); select undef, undef, undef, 0.001 }
    $c->shutdown_write;
    is $c->read_all, '<slow>', 'a byte each';
}
my %bad = (
    'none' => 'hello', 'a bare line end' => "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\nx", 'lower case' => "proxy TCP4 10.0.0.1 10.0.0.2 1 2\r\nx",
    'two spaces' => "PROXY  TCP4 10.0.0.1 10.0.0.2 1 2\r\nx", 'a zero in front' => "PROXY TCP4 10.0.0.1 10.0.0.2 01 2\r\nx",
    'an octal address' => "PROXY TCP4 010.0.0.1 10.0.0.2 1 2\r\nx", 'a zero byte' => "PROXY TCP4 10.0.0.1\0 10.0.0.2 1 2\r\nx",
    'a port beyond' => "PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\nx", 'two families' => "PROXY TCP4 10.0.0.1 ::1 1 2\r\nx",
    'a scope' => "PROXY TCP6 fe80::1%lo ::2 1 2\r\nx", 'too long' => 'PROXY UNKNOWN ' . 'x' x 200 . "\r\nx", 'more words' => "PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\nx",
    'a length below its addresses' => v2(0x21, 0x11, substr $ip, 0, 4) . 'x', 'a length beyond what comes' => $sig . pack('CCn', 0x21, 0x11, 0xffff) . $ip,
    'version 3' => v2(0x31, 0x11, $ip), 'an unknown command' => v2(0x22, 0x11, $ip), 'an unknown family' => v2(0x21, 0x41, $ip),
    'a TLV beyond the end' => v2(0x21, 0x11, $ip . "\x04\xff\xffx"), 'half a TLV' => v2(0x21, 0x11, $ip . "\x04\0"),
    'a wrong checksum' => v2(0x21, 0x11, $ip . pack 'Cn/a*', 3, 'abcd'),
);
is said('proxied', $bad{$_}), '', "PROXY: $_: closed" for sort keys %bad;
is said('proxied', "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" x 2), "<PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n>", 'a second head is the client\'s bytes';
is said('both', "PROXY TCP4 10.9.9.9 10.0.0.2 7 2\r\nplain"), '<plain>', 'a head before the look at TLS: no TLS';
$c = $hd->connect('both');
$c->send("PROXY TCP4 10.9.9.9 10.0.0.2 7 2\r\n" . $hello =~ s/b\.example/a.example/r);
like $c->read_bytes(5), qr/^\x16\x03/, 'TLS';
$c->close;
logged(qr/^tls_a \d+ \d+ <a\.example> 10\.9\.9\.9:7 127/m, 'both are known');
my $head = $hd->raw("PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 'web');
like $head, qr/^x-forwarded-for: 10\.0\.0\.1\r$/m, 'HTTP: the client';
like $head, qr/^x-direct: 127\.0\.0\.1\r$/m, 'and who told of it';
$hd->stop;
$xds->stop;
done_testing;
