#!/usr/bin/perl
# ssl_ocsp: between handshake and request the responders of a client's certificate, and of its issuers, are asked;
# nobody else waits for that; answers that count are shared by workers; without one the certificate isn't taken, and
# HTTP says so in nginx's words (RFC 6960; ngx_http_ssl_module).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Ocsp;

my $hd = Heddle->new(workers => 2);
my $dir = $hd->dir;
my $url = 'http://127.0.0.1:' . $hd->port(8);
my $ca = $hd->make_ca('root');
my $mid = $ca->make_ca('mid', ocsp => "$url/mid");
my $site = $ca->make_cert('site', dns => 'site.test');
my $ann = $ca->make_cert('ann', ocsp => "$url/ann");
my $bob = $mid->make_cert('bob', ocsp => "$url/bob");
my $eve = $hd->make_ca('stranger')->make_cert('eve', ocsp => "$url/eve");
my $ocsp = Heddle::Ocsp->start($hd, 8, $ca);
$ocsp->set('/bob' => {signer => $mid});

my $ssl = "ssl_certificate $site->{cert}; ssl_certificate_key $site->{key}; ssl_client_certificate $ca->{cert};";
$hd->conf(<<"EOC");
http {
    log_format verify '\$server_port \$status \$ssl_client_verify';
    access_log %%DIR%%/access.log verify;
    $ssl
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_ocsp on;
    server { listen 127.0.0.1:%%PORT_0%% ssl; ssl_ocsp_cache shared:answers:64k; return 200 "\$ssl_client_verify \$server_port"; }
    server { listen 127.0.0.1:%%PORT_1%% ssl; listen 127.0.0.1:%%PORT_5%% ssl http2; return 200 "\$ssl_client_verify \$ssl_session_reused"; }
    server { listen 127.0.0.1:%%PORT_2%% ssl; ssl_ocsp leaf; return 200 "\$ssl_client_verify"; }
    server { listen 127.0.0.1:%%PORT_3%% ssl; ssl_verify_client optional; ssl_ocsp_responder $url/all; return 200 "\$ssl_client_verify"; }
    server { listen 127.0.0.1:%%PORT_4%%; return 200 "plain"; }
    server { listen 127.0.0.1:%%PORT_6%% ssl; ssl_ocsp off; return 200 "\$ssl_client_verify"; }
}
stream {
    server { listen 127.0.0.1:%%PORT_7%% ssl; $ssl ssl_verify_client on; ssl_ocsp leaf; return "stream\\n"; }
}
EOC
$hd->start;

sub ask {
    my ($n, $who, @args) = @_;
    return $hd->curl('-k', ($who ? ('--cert', $who->{chain}, '--key', $who->{key}) : ()), @args, "https://127.0.0.1:" . $hd->port($n) . '/');
}
sub logged { return (split /\n/, $hd->file('access.log'))[-1] =~ s/^\d+ //r }
sub refused {
    my ($n, $who, $why, $what) = @_;
    like ask($n, $who), qr/400 .*The SSL certificate error/s, $what;
    is logged(), "400 FAILED:$why", "$what: \$ssl_client_verify";
}

# --- good, and answers that workers share
is ask(0, $ann), 'SUCCESS ' . $hd->port(0), 'good';
is $ocsp->asked('/ann'), 1, 'its responder was asked';
ask(0, $ann) for 1 .. 8;
is $ocsp->asked('/ann'), 1, 'once for all workers';
like ask(0, $bob), qr/^SUCCESS/, 'good, with an issuer between';
is $ocsp->asked('/bob') . $ocsp->asked('/mid'), '11', 'the issuer is asked about, too';
is ask(2, $bob), 'SUCCESS', 'leaf';
is $ocsp->asked('/bob') . $ocsp->asked('/mid'), '21', 'the leaf alone';
is ask(3, undef), 'NONE', 'optional: no certificate';
is ask(3, $ann), 'SUCCESS', 'ssl_ocsp_responder';
is $ocsp->asked('/all') . $ocsp->asked('/ann'), '11', 'it is asked instead';
like ask(3, $eve), qr/The SSL certificate error/, 'one that is not verified';
like logged(), qr/^400 FAILED:unable to /, 'says so';
is $ocsp->asked('/eve') . $ocsp->asked('/all'), '01', 'nobody is asked about it';
is ask(6, $ann), 'SUCCESS', 'off';
is $ocsp->asked('/ann'), 1, 'nobody is asked';

# --- revoked
$ocsp->set('/ann' => {status => 'revoked'}, '/mid' => {status => 'revoked'});
refused(1, $ann, 'certificate revoked', 'revoked');
refused(1, $bob, 'certificate revoked', 'its issuer is');
is ask(2, $bob), 'SUCCESS', 'leaf: what of its issuer';
like ask(5, $ann, '--http2'), qr/The SSL certificate error/, 'HTTP/2';
like ask(0, $ann), qr/^SUCCESS/, 'an answer is good until there is a newer one';

# --- no answer that counts
my $failed = 'certificate status request failed';
$ocsp->set('/ann' => {status => 'unknown'});
refused(1, $ann, 'certificate status unknown', 'unknown');
my %odd = (
    garbage => {garbage => 'x' x 100}, huge => {garbage => 'x' x 100_000}, stranger => {signer => $eve},
    itself => {signer => $ann}, over => {this => -7200, next => -3600}, other => {serial => 1},
    moved => {raw => [302, {Location => "$url/all"}, '']}, gone => {raw => {reset => 1}});
for (sort keys %odd) {
    $ocsp->set('/ann' => $odd{$_});
    refused(1, $ann, $failed, $_);
}
refused(1, $site, $failed, 'no responder in the certificate');
is ask(3, $site), 'SUCCESS', 'unless one is configured';

# --- others don't wait
$ocsp->set('/ann' => {raw => {hang => 1}});
ok $hd->wait_for(sub {
    my $asked = $ocsp->asked('/ann');
    my $over = () = $hd->log =~ /OCSP responder timed out/g;
    my @waiting = map { open my $f, '-|', "curl -sk --cert $ann->{chain} --key $ann->{key} https://127.0.0.1:" . $hd->port(1) . '/'; $f } 1 .. 4;
    $hd->wait_for(sub { $ocsp->asked('/ann') >= $asked + 4 }, 'questions');
    my $good = grep { $hd->get('/', {port => 4})->body eq 'plain' } 1 .. 4;
    my $still = () = $hd->log =~ /OCSP responder timed out/g;
    local $/;
    my @said = map { readline($_) // '' } @waiting;
    return $good == 4 && $still == $over && 4 == grep { /The SSL certificate error/ } @said;
}, 'plain requests to be answered while others wait'), 'plain requests are answered while four handshakes wait';
my $asked = $ocsp->asked('/ann'); # one that doesn't wait for its answer
my $leaves = Heddle::Backend::spawn(sub { exec 'curl', '-sk', '-o', '/dev/null', '--cert', $ann->{chain}, '--key', $ann->{key}, 'https://127.0.0.1:' . $hd->port(1) });
$hd->wait_for(sub { $ocsp->asked('/ann') > $asked }, 'its question');
kill 'KILL', $leaves;
waitpid $leaves, 0;
$ocsp->set('/ann' => {});
is ask(1, $ann), 'SUCCESS .', 'good again';

# --- sessions: what is resumed is asked about again
sub s_client {
    my ($who, @args) = @_;
    my $port = $hd->port(1);
    my $text = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 60 openssl s_client -connect 127.0.0.1:$port -quiet -cert $who->{cert} -cert_chain $who->{chain} -key $who->{key} @args 2>&1`;
    return $text =~ m{^HTTP/1.1 200.*\r\n\r\nSUCCESS ([r.])}ms ? "200 $1" : $text =~ m{^HTTP/1.1 (\d+)}m ? $1 : "none: $text";
}
for my $version ('-tls1_2', '-tls1_3') {
    $ocsp->set('/ann' => {}, '/bob' => {signer => $mid}, '/mid' => {});
    is s_client($ann, $version, "-sess_out $dir/session"), '200 .', "a session: $version";
    is s_client($ann, $version, "-sess_in $dir/session", "-sess_out $dir/session"), '200 r', 'resumed';
    $ocsp->set('/ann' => {status => 'revoked'});
    is s_client($ann, $version, "-sess_in $dir/session"), 400, 'resumed, revoked meanwhile';
    is s_client($bob, $version, "-sess_out $dir/session"), '200 .', 'with an issuer between';
    is s_client($bob, $version, "-sess_in $dir/session"), '200 .', 'and again: that one is not in a session';
}

# --- stream
sub stream {
    my ($who) = @_;
    return `timeout 60 openssl s_client -connect 127.0.0.1:@{[$hd->port(7)]} -quiet -cert $who->{cert} -key $who->{key} </dev/null 2>/dev/null`;
}
$ocsp->set('/ann' => {});
is stream($ann), "stream\n", 'stream: good';
$ocsp->set('/ann' => {status => 'revoked'});
is stream($ann), '', 'stream: revoked';
$hd->wait_log(qr/peer certificate revoked/);
$hd->stop;

# --- configuration
sub tried {
    my ($line) = @_;
    my $t = Heddle->new(ports => $hd->{ports})->conf("http {\nserver {\nlisten 127.0.0.1:%%PORT_9%% ssl; $ssl\n$line\n}\n}\n");
    return join ' ', $t->run('-t');
}
like tried('ssl_verify_client optional_no_ca; ssl_ocsp on;'), qr/^1 .*"ssl_ocsp" is incompatible with "ssl_verify_client optional_no_ca"/s, 'by whom?';
like tried('ssl_ocsp perhaps;'), qr/^1 .*:\d+: .*"perhaps".*leaf/s, 'neither on nor off';
like tried('ssl_ocsp_responder https://x/;'), qr/^1 .*:\d+: .*invalid URL prefix/s, 'https';
like tried('ssl_ocsp_cache none;'), qr/^1 .*:\d+: .*invalid OCSP cache "none": off or shared:NAME:SIZE/s, 'no cache';
like tried('ssl_ocsp_cache shared:x:1k;'), qr/^1 .*:\d+: .*OCSP cache "shared:x:1k" is too small: 32k/s, 'a small one';
like tried('ssl_ocsp on; ssl_ocsp_cache off;'), qr/^0 /, 'without ssl_verify_client: nobody is asked about';
done_testing;
