#!/usr/bin/perl
# ssl_stapling: the agent asks the certificate's responder once for all workers, checks what it says, asks again in
# time; answers that lie, that are about others or over, or that never end, are never stapled (RFC 6066 §8, RFC 6960).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Dns;
use Heddle::Ocsp;

my $hd = Heddle->new(workers => 2);
my $url = 'http://127.0.0.1:' . $hd->port(8);
my $ca = $hd->make_ca('root');
my $stranger = $hd->make_ca('stranger');
my $mid = $ca->make_ca('mid');
my $delegate = $mid->make_cert('delegate', signs_ocsp => 1);

# Each server is a name, and its responder's path. Certificates are dear to make: most servers have the same one.
my @kinds = qw(good real own deep named system delegated rooted elsewhere garbage empty huge other foreign
    leaf unasked over early revoked unknown later moved gone typed slow drip brief back);
my $site = $ca->make_cert('site', dns => 'site.test');
my $below = $mid->make_cert('below', dns => 'below.test');
my %cert = map { $_ => $site } @kinds;
$cert{good} = $ca->make_cert('good', dns => 'good.test', ocsp => "$url/good");
$cert{real} = $ca->make_cert('real', dns => 'real.test', ocsp => 'http://127.0.0.1:' . $hd->port(7) . '/');
$cert{$_} = $below for qw(delegated rooted elsewhere);
my %more = (
    good => '', real => '',
    deep => "ssl_stapling_responder $url/" . 'p' x 1000 . '/;',
    named => 'resolver 127.0.0.1:%%PORT_dns%% ipv6=off; ssl_stapling_responder http://ocsp.test:%%PORT_8%%/named;',
    system => 'ssl_stapling_responder http://localhost:%%PORT_8%%/system;',
    drip => 'ssl_stapling_responder http://127.0.0.1:%%PORT_6%%/;',
    rooted => "ssl_stapling_responder $url/rooted; ssl_stapling_verify on; ssl_trusted_certificate $ca->{cert};",
    elsewhere => "ssl_stapling_responder $url/elsewhere; ssl_stapling_verify on; ssl_trusted_certificate $stranger->{cert};",
);
sub why { my ($name, $re) = @_; return qr{stapling: no answer about "[^"]+" from \Q$url\E/$name: [^\n]*$re} }

my $ocsp = Heddle::Ocsp->start($hd, 8, $ca);
Heddle::Ocsp::genuine($hd, 7, $ca, [$cert{real}]);
$hd->tcp_backend(6, sub { # a byte at a time, for ever
    my ($sock) = @_;
    sysread $sock, my $question, 4096;
    print $sock "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: 9000\r\n\r\n";
    while (print $sock "\x30") { select undef, undef, undef, 0.3 }
});
my $dns = Heddle::Dns->new($hd, 'dns');
$dns->set('ocsp.test' => {ttl => 60, A => ['127.0.0.1']});
$ocsp->set(
    '/delegated' => {signer => $delegate},
    '/rooted' => {signer => $delegate},
    '/elsewhere' => {signer => $delegate},
    '/garbage' => {garbage => "\x30\x82\xff\xff" . 'z' x 200},
    '/empty' => {garbage => ''},
    '/huge' => {garbage => "\x30\x83\x10\x00\x00" . 'z' x (1 << 20)},
    '/other' => {serial => 1},
    '/foreign' => {signer => $stranger},
    '/leaf' => {signer => $site},
    '/over' => {this => -7200, next => -3600},
    '/early' => {this => 3600, next => 7200},
    '/revoked' => {status => 'revoked'},
    '/unknown' => {status => 'unknown'},
    '/later' => {garbage => "\x30\x03\x0a\x01\x03"},
    '/moved' => {raw => [302, {Location => "$url/good"}, '']},
    '/gone' => {raw => {reset => 1}},
    '/typed' => {type => 'text/html', garbage => 'x'},
    '/slow' => {raw => {hang => 1}},
    '/brief' => {next => 4},
    '/back' => {raw => [503, {}, 'not now']},
);

sub server {
    my ($name) = @_;
    return "server { listen 127.0.0.1:%%PORT_0%% ssl; server_name $name.test; ssl_certificate $cert{$name}{chain};\n"
        . "ssl_certificate_key $cert{$name}{key}; " . ($more{$name} // "ssl_stapling_responder $url/$name;")
        . ($name eq 'unasked' ? '' : ' ssl_stapling on;') . " return 200 $name; }\n";
}
sub conf {
    my ($extra) = @_;
    # A chain as it is sent: the leaf and what is between; roots that sign themselves come from ssl_trusted_certificate.
    return "http {\naccess_log off;\nssl_trusted_certificate $ca->{cert};\n" . join('', map { server($_) } @kinds) . "$extra}\n";
}
$hd->conf(conf(''))->start;

# The status that a client of this name is sent.
sub status {
    my ($name) = @_;
    my $port = $hd->port(0);
    my $text = `timeout 60 openssl s_client -connect 127.0.0.1:$port -servername $name.test -status </dev/null 2>&1`;
    return $text =~ /Cert Status: (\w+)/ ? $1 : $text =~ /OCSP response: no response sent/ ? 'none' : "odd: $text";
}
sub comes { my ($name) = @_; return $hd->wait_for(sub { status($name) eq 'good' }, "a staple of $name") }

for my $name (qw(good real own deep named system delegated rooted)) {
    ok comes($name), "stapled: $name";
}
is $ocsp->asked('/good'), 1, 'asked once for both workers';
my ($request) = grep { $_->{uri} =~ m{^/good/} } $hd->requests(8);
is $request->{method}, 'GET', 'a GET';
is $request->header('host'), '127.0.0.1:' . $hd->port(8), 'its Host';
is status('unasked'), 'none', 'ssl_stapling off';
is $ocsp->asked('/unasked'), 0, 'nobody was asked';

$hd->wait_log(why('back', 'status 503; asked again in \d+ s'), 2);
$ocsp->set('/back' => {});
ok comes('back'), 'after failures: stapled once the responder answers';

my %why = (
    elsewhere => qr/isn't signed by the certificate's issuer/,
    garbage => qr/the OCSP response is damaged/,
    empty => qr/an OCSP response of 0 bytes/,
    huge => qr/more than 16 KB/,
    other => qr/about another certificate/,
    foreign => qr/isn't signed by the certificate's issuer/,
    leaf => qr/isn't signed by the certificate's issuer/,
    over => qr/the OCSP response ended \d+ s ago/,
    early => qr/not valid before/,
    revoked => qr/the certificate is revoked/,
    unknown => qr/doesn't know the certificate/,
    later => qr/tells of a failure \(3: trylater\)/,
    moved => qr/answered with status 302/,
    gone => qr/asked again/,
    typed => qr/invalid "Content-Type"/,
    slow => qr/timed out/,
);
for my $name (sort keys %why) {
    ok $hd->wait_log(why($name, $why{$name})), "refused: $name";
    is status($name), 'none', "nothing is stapled: $name";
}
$hd->wait_log(qr{from http://127.0.0.1:\d+/: OCSP responder timed out});
is status('drip'), 'none', 'nor from one that never comes to an end';
is scalar(grep { $_->{uri} =~ m{^/good} } $hd->requests(8)), 1, 'a redirect is not followed';

# --- again and again
$hd->wait_for(sub { $ocsp->asked('/brief') >= 3 }, 'a question before the answer ends');
pass 'asked again before an answer ends';
$ocsp->set('/brief' => {status => 'revoked'});
$hd->wait_log(why('brief', 'the certificate is revoked'));
is status('brief'), 'none', 'what was good, and is revoked now, is stapled no longer';

# --- reload, and the agent's death
my $asked = $ocsp->asked('/good');
ok $hd->conf(conf("server { listen 127.0.0.1:%%PORT_0%% ssl; server_name new.test; ssl_certificate $cert{good}{cert}; "
    . "ssl_certificate_key $cert{good}{key}; }\n"))->reload, 'reload';
is status('good'), 'good', 'still stapled';
$more{own} = "ssl_stapling_responder $url/elsewhere_now;";
ok $hd->conf(conf(''))->reload, 'another responder';
ok comes('own'), 'it is stapled';
ok $hd->wait_for(sub { $ocsp->asked('/elsewhere_now') }, 'the other responder to be asked'), 'the other one is asked';
my ($agent) = $hd->processes('agent');
my $revoked = $ocsp->asked('/revoked');
$hd->expect_log(qr/agent.*(?:died|exited|signal)/i);
kill 'KILL', $agent;
is status('good'), 'good', 'without an agent';
$hd->wait_for(sub { my ($new) = $hd->processes('agent'); $new && $new != $agent }, 'another agent');
is status('good'), 'good', 'with another';
$hd->wait_for(sub { $ocsp->asked('/revoked') > $revoked }, 'the new agent to ask');
is $ocsp->asked('/good'), $asked, 'nobody was asked again meanwhile: reloads and agents keep what is good';

# --- the certificate changes under its name
Heddle::Ocsp::spew($cert{good}{$_}, Heddle::Ocsp::slurp($site->{$_})) for 'chain', 'key';
ok $hd->reload, 'another certificate in the same file';
is status('good'), 'none', "the old one's answer is not stapled to it";
$hd->stop;

# --- configuration
sub tried {
    my ($lines, $c) = @_;
    my $t = Heddle->new(ports => $hd->{ports})->conf("http {\nserver {\nlisten 127.0.0.1:%%PORT_5%% ssl;\n"
        . "ssl_certificate $c->{cert}; ssl_certificate_key $c->{key};\n$lines\n}\n}\n");
    my ($status, $text) = $t->run('-t');
    return "$status $text";
}
like tried('ssl_stapling on;', $site), qr/^0 .*"ssl_stapling" ignored, issuer certificate not found for certificate/s, 'no issuer';
like tried("ssl_stapling on; ssl_trusted_certificate $stranger->{cert};", $site), qr/^0 .*issuer certificate not found/s,
    'not its issuer';
like tried("ssl_stapling on; ssl_trusted_certificate $ca->{cert};", $site), qr/^0 .*"ssl_stapling" ignored, no OCSP responder URL/s,
    'no responder';
like tried('ssl_stapling_responder https://x/;', $site), qr/^1 .*:\d+: .*invalid URL prefix in OCSP responder "https/s, 'https';
like tried('ssl_stapling_responder http://x y/;', $site), qr/^1 /s, 'two words';
like tried('ssl_stapling_responder "http://x\ty/";', $site), qr/^1 .*invalid host/s, 'a tab';
like tried('ssl_stapling_responder http://u:1:2/;', $site), qr/^1 .*invalid host/s, 'an odd port';
like tried("ssl_stapling on; ssl_trusted_certificate $site->{key};", $site), qr/^1 .*no "-----BEGIN CERTIFICATE/s, 'no roots';
done_testing;
