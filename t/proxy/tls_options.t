#!/usr/bin/perl
# What else ssl_* and proxy_ssl_* say: names that choose a certificate, keys with passphrases and in the
# text, refused handshakes, DH, OpenSSL's own commands, record sizes, stapling, ALPN of stream; and what is
# wrong with them, by place.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my %cert = map { $_ => $ca->make_cert($_, dns => $_) } qw(a.test b.test up.test);
my %wild = map { $_ => $ca->make_cert($_, dns => "$_.test") } qw(start end regex);
my $rsa = $ca->make_cert('rsa', dns => 'rsa.test', rsa => 1);
my $client = $ca->make_cert('client', cn => 'ann');
my $dir = $hd->dir;

sub command { system("@_ >$dir/command.log 2>&1") == 0 or die "@_: " . $hd->file('command.log') }
sub text { my ($path) = @_; open my $f, '<', $path or die "$path: $!"; local $/; return scalar <$f> }
command("openssl pkey -in $_->{key} -aes128 -passout pass:second -out $_->{key}.locked") for $cert{'b.test'}, $client;
command('openssl ocsp -index', "$dir/certs/a.test.db/index", '-CA', $ca->{cert}, '-rsigner', $ca->{cert}, '-rkey', $ca->{key},
    '-issuer', $ca->{cert}, '-cert', $cert{'a.test'}{cert}, '-ndays 3 -respout', "$dir/a.ocsp");
$hd->write('words', "first\nsecond\n");
# RFC 7919's, by name: making others takes long.
command("openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out $dir/dh.pem");

sub cert { my ($c) = @_; "ssl_certificate $c->{cert}; ssl_certificate_key $c->{key};" }

$hd->conf(<<"EOC");
http {
    access_log off;
    ssl_certificate_cache max=10;
    ssl_ocsp off;
    ssl_certificate_compression on;
    upstream big { server 127.0.0.1:%%PORT_9%%; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl default_server;
        server_name _;
        ssl_reject_handshake on;
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name a.test;
        @{[cert($cert{'a.test'})]}
        ssl_stapling on;
        ssl_stapling_file $dir/a.ocsp;
        ssl_stapling_verify off;
        ssl_stapling_responder http://ocsp.test/;
        ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;
        ssl_conf_command MinProtocol TLSv1.3;
        ssl_early_data on;
        return 200 "a \$ssl_cipher [\$ssl_early_data]";
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name b.test;
        ssl_certificate $cert{'b.test'}{cert};
        ssl_certificate_key $cert{'b.test'}{key}.locked;
        ssl_password_file $dir/words;
        ssl_buffer_size 4k;
        location / { proxy_pass http://big; }
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name start.*;
        ssl_certificate "data:@{[text($wild{start}{cert})]}";
        ssl_certificate_key "data:@{[text($wild{start}{key})]}";
        return 200 "start";
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name ~^r[0-9]+\\.;
        @{[cert($wild{regex})]}
        return 200 "regex";
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name *.start.test;
        @{[cert($wild{end})]}
        return 200 "end";
    }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name rsa.test;
        @{[cert($rsa)]}
        ssl_protocols TLSv1.2;
        ssl_ciphers DHE-RSA-AES128-GCM-SHA256;
        ssl_dhparam $dir/dh.pem;
        ssl_prefer_server_ciphers on;
        return 200 "rsa";
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        proxy_ssl_certificate $client->{cert};
        proxy_ssl_certificate_key $client->{key}.locked;
        proxy_ssl_password_file $dir/words;
        proxy_ssl_certificate_cache off;
        location / { proxy_pass https://127.0.0.1:%%PORT_2%%; }
        location /old {
            proxy_ssl_conf_command MaxProtocol TLSv1.2;
            proxy_pass https://127.0.0.1:%%PORT_2%%;
        }
    }
}
stream {
    server {
        listen 127.0.0.1:%%PORT_4%% ssl;
        @{[cert($cert{'a.test'})]}
        ssl_alpn one two;
        ssl_handshake_timeout 10s;
        proxy_pass 127.0.0.1:%%PORT_9%%;
    }
}
EOC
$hd->backend(9, sub { {status => 200, body => 'x' x 50000} });
$hd->echo_server(3);
my $front = Heddle::TlsFront->start($hd, 2 => 3, cert => $cert{'up.test'}, client_ca => $ca);
$hd->start;
like +($hd->run('-t'))[1], qr/:\d+: "ssl_certificate_compression" ignored, not supported/, 'certificates are sent as they are';

sub s_client {
    my ($n, @args) = @_;
    my $port = $hd->port($n);
    return `printf 'GET / HTTP/1.0\\r\\nHost: b.test\\r\\n\\r\\n' | timeout 30 openssl s_client -connect 127.0.0.1:$port -ign_eof @args 2>&1`;
}
sub served_by { return s_client(0, '-servername', @_) =~ /subject=.*CN = (\S+)/ ? $1 : 'nobody' }

is served_by('a.test'), 'a.test', 'by name';
is served_by('start.elsewhere'), 'start', 'start.*, its certificate in the text';
is served_by('x.start.test'), 'end', '*.start.test';
is served_by('r12.any'), 'regex', 'a regular expression';
is served_by('R12.any'), 'regex', 'in any case';
is served_by('b.test'), 'b.test', 'a key with a passphrase';
like s_client(0, '-servername unknown.test'), qr/unrecognized name/, 'ssl_reject_handshake: a name that nobody has';
like s_client(0, '-noservername'), qr/unrecognized name/, 'and none';

like s_client(0, '-servername a.test -status'), qr/OCSP Response Status: successful.*Cert Status: good/s, 'stapled';
unlike s_client(0, '-servername b.test -status'), qr/OCSP Response Status/, 'not to others';
like s_client(0, '-servername a.test'), qr/Cipher is TLS_CHACHA20_POLY1305_SHA256/, 'ssl_conf_command Ciphersuites';
unlike s_client(0, '-servername a.test -tls1_2'), qr/Cipher is [A-Z]+-/, 'ssl_conf_command MinProtocol';
like s_client(0, '-servername rsa.test'), qr/Cipher is DHE-RSA-AES128-GCM-SHA256.*/s, 'ssl_dhparam';
like s_client(0, '-servername rsa.test'), qr/Server Temp Key: DH, 2048 bits/, 'of the file';

my $trace = s_client(0, '-servername b.test -tls1_3 -msg');
my @records = map { hex(s/ //r) } $trace =~ /<<< .*\n\s+17 03 03 (\S\S \S\S)/gm;
cmp_ok scalar(@records), '>', 12, 'ssl_buffer_size: small records';
is +(grep { $_ > 4096 + 17 } @records), 0, 'none larger';

like $hd->get('/', {port => 1})->body, qr/^X-Tls-Verify: SUCCESS/m, 'proxy_ssl_password_file';
like $hd->get('/', {port => 1})->body, qr/^X-Tls-Protocol: TLSv1.3/m, 'TLS 1.3 upstream';
like $hd->get('/old', {port => 1})->body, qr/^X-Tls-Protocol: TLSv1.2/m, 'proxy_ssl_conf_command';

like s_client(4, '-alpn two,one'), qr/ALPN protocol: one/, 'ssl_alpn: in our order';
like s_client(4, '-alpn three'), qr/no application protocol/, 'none in common';
$front->stop;
$hd->stop;

# --- bad input
sub refused {
    my ($line, $why, $what) = @_;
    my $bad = Heddle->new(ports => $hd->{ports})->conf("http {\nserver {\nlisten 127.0.0.1:%%PORT_5%% ssl;\n"
        . cert($cert{'a.test'}) . "\n$line\nreturn 200;\n}\n}\n");
    my ($status, $text) = $bad->run('-t');
    like $text, $why, $what;
    isnt $status, 0, "$what: refused";
}
refused('ssl_conf_command Nonsense x;', qr/command "Nonsense x" can't be used/, 'a command that there is not');
refused("ssl_conf_command Certificate $cert{'a.test'}{cert};", qr/files are not read this way/, 'a command that reads files');
system("cd $dir && openssl req -x509 -newkey rsa:1024 -nodes -keyout short.key -subj /CN=short -days 3 -out short.pem >/dev/null 2>&1"
    . ' && openssl genpkey -genparam -algorithm DHX -pkeyopt dh_rfc5114:2 -out x942.pem 2>/dev/null') == 0 or die 'openssl';
refused("ssl_certificate $dir/short.pem; ssl_certificate_key $dir/short.key;", qr/"\S*short\.pem": certificate 1 of the chain can't be used: ee key too small/, 'a key that no handshake would do with');
refused("proxy_ssl_certificate $dir/short.pem; proxy_ssl_certificate_key $dir/short.key; location /s { proxy_pass https://127.0.0.1; }",
    qr/short\.pem": certificate 1 of the chain can't be used/, '... nor with upstreams');
for ("ssl_ciphers DEFAULT\@SECLEVEL=0; ssl_certificate $dir/short.pem; ssl_certificate_key $dir/short.key;", "ssl_dhparam $dir/x942.pem;") {
    my $good = Heddle->new(ports => $hd->{ports})->conf("http {\nserver {\nlisten 127.0.0.1:%%PORT_5%% ssl;\n" . cert($cert{'a.test'}) . "\n$_\nreturn 200;\n}\n}\n");
    my ($status, $text) = $good->run('-t');
    is $status, 0, s/ .*//r . ': taken' or diag $text;
}
refused("ssl_dhparam $cert{'a.test'}{cert};", qr/DH parameters/, 'no DH parameters');
refused("ssl_stapling on; ssl_stapling_file $cert{'a.test'}{cert};", qr/OCSP response is damaged/, 'no OCSP response');
refused('ssl_certificate_compression br;', qr/invalid value "br": on or off/, 'a kind of compression');
refused('ssl_buffer_size 0;', qr/must be greater than 0/, 'no record');
refused("ssl_certificate $cert{'b.test'}{cert}; ssl_certificate_key $cert{'b.test'}{key}.locked;", qr/ssl_password_file/, 'a passphrase that is not given');
refused("ssl_password_file $cert{'a.test'}{cert}; ssl_certificate $cert{'b.test'}{cert}; ssl_certificate_key $cert{'b.test'}{key}.locked;",
    qr/none of the \d+ passphrases opens/, 'a wrong passphrase');
refused('ssl_certificate /x/$host.pem; ssl_certificate_key y;', qr/"\$host" in the name of a certificate/, 'variables of requests');
refused("ssl_certificate $cert{'b.test'}{cert}; ssl_certificate_key $cert{'b.test'}{key}; ssl_stapling on; ssl_stapling_file $dir/a.ocsp;",
    qr/one certificate/, 'a response for two certificates');
refused('ssl_verify_depth 70000;', qr/invalid number "70000": 0 to 65534/, 'too deep');
refused("ssl_verify_client on;", qr/no "ssl_client_certificate"/, 'nobody to verify by');
done_testing;
