#!/usr/bin/perl
# ssl_… and proxy_ssl_… in real nginx and in Heddle: each directive in a server or a location of its own,
# the same handshakes and requests to both, the same outcome: protocol, cipher, group, certificate, ALPN,
# what is resumed, alerts, and what the variables say. Upstreams over TLS are servers of another nginx.
# What may differ stands below, with its reason; directives that this nginx hasn't got are named.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;

my $nginx = (grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
plan skip_all => 'no nginx' if !$nginx;
my ($modules) = `$nginx -V 2>&1` =~ /--modules-path=(\S+)/;
my $stream = $modules && -e "$modules/ngx_stream_module.so" ? "load_module $modules/ngx_stream_module.so;\n" : undef;
$stream = '' if `$nginx -V 2>&1` =~ /--with-stream(?!=dynamic|_)/;

# Not in nginx 1.22, or held by another test beside real peers.
my %elsewhere = (
    ssl_certificate_cache => 'since 1.27.4', proxy_ssl_certificate_cache => 'since 1.27.4',
    ssl_certificate_compression => 'since 1.29.1', ssl_key_log => 'commercial before 1.31', proxy_ssl_key_log => 'since 1.27.2',
    ssl_ocsp => 't/proxy/ssl_ocsp.t', ssl_ocsp_cache => 't/proxy/ssl_ocsp.t', ssl_ocsp_responder => 't/proxy/ssl_ocsp.t',
    ssl_stapling_responder => 't/proxy/ssl_stapling.t', ssl_revalidate => 'not nginx\'s', proxy_ssl_revalidate => 'not nginx\'s',
    ssl_preread => 't/interop/nginx_stream.t',
);

# --- certificates, for all
my $store = Heddle->new;
my $dir = $store->dir;
my $ca = $store->make_ca('root');
my $int = $ca->make_ca('int');
my $other = $store->make_ca('other');
my %c = (
    (map { $_ => $ca->make_cert($_, dns => $_) } qw(a.test b.test up.test gone.test)),
    rsa => $ca->make_cert('rsa', dns => 'rsa.test', rsa => 1),
    ann => $ca->make_cert('ann', cn => 'ann'), revoked => $ca->make_cert('revoked', cn => 'revoked'),
    eve => $other->make_cert('eve', cn => 'eve'), deep => $int->make_cert('deep', cn => 'deep', dns => 'up.test'),
);
my $crl = $ca->make_crl('list', $c{revoked}, $c{'gone.test'});
sub run { system("@_ >$dir/command.log 2>&1") == 0 or die "@_: " . $store->file('command.log') }
run("openssl pkey -in $c{ann}{key} -aes128 -passout pass:word -out $dir/locked.key");
run("openssl rand -out $dir/ticket.key 80");
run("openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out $dir/dh.pem");
run('openssl ocsp -index', "$dir/certs/a.test.db/index", '-CA', $ca->{cert}, '-rsigner', $ca->{cert}, '-rkey', $ca->{key},
    '-issuer', $ca->{cert}, '-cert', $c{'a.test'}{cert}, '-ndays 3 -respout', "$dir/a.ocsp");
$store->write('words', "other\nword\n");
$store->write('early', "GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n");
chmod 0755, $dir, "$dir/certs";
chmod 0644, glob "$dir/certs/* $dir/*.key";
sub cert { return join ' ', map { "ssl_certificate $_->{chain}; ssl_certificate_key $_->{key};" } @_ }
sub with { my ($who) = @_; return "-cert $c{$who}{cert} -key $c{$who}{key} -cert_chain $c{$who}{chain}" }
my $verify = "ssl_client_certificate $ca->{cert};";

# --- servers: [name, directives, [arguments of s_client, what real nginx's outcome holds]...]
my @clients = (['', qr/./], [with('ann'), qr/./], [with('eve'), qr/./], [with('revoked'), qr/./], [with('deep'), qr/./]);
my @twice = (['TWICE -tls1_2', qr/./], ['TWICE -tls1_3', qr/./]);
my $a = cert($c{'a.test'});
my @servers = (
    ['plain', $a, ['-tls1_2', qr/TLSv1\.2/], ['-tls1_3', qr/TLSv1\.3/], ['-alpn http/1.1', qr/alpn http/], ['-alpn nonsense', qr/no application protocol/],
        ['-noservername', qr/cn a\.test/], ['-servername unknown.test', qr/cn a\.test/]],
    ['v12', "$a ssl_protocols TLSv1.2;", ['', qr/TLSv1\.2/], ['-tls1_3', qr/alert/]],
    ['v13', "$a ssl_protocols TLSv1.3;", ['', qr/TLSv1\.3/], ['-tls1_2', qr/alert/]],
    (map { my ($name, $how) = @$_;
        [$name, "$a ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256; ssl_prefer_server_ciphers $how;",
            ['-cipher ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384', qr/AES/], ['-cipher ECDHE-ECDSA-CHACHA20-POLY1305', qr/handshake failure/]]
    } ['ciphers', 'on'], ['ciphers_client', 'off']),
    ['curve', "$a ssl_ecdh_curve secp384r1;", ['-tls1_3', qr/secp384r1/], ['-tls1_2', qr/P-384|secp384r1/], ['-groups X25519', qr/alert/]],
    ['kinds', cert($c{'a.test'}, $c{rsa}), ['-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256', qr/cn rsa/], ['-sigalgs ECDSA+SHA256', qr/cn a\.test/],
        ['-tls1_3 -sigalgs RSA-PSS+SHA256', qr/cn rsa/]],
    ['dh', cert($c{rsa}) . " ssl_protocols TLSv1.2; ssl_ciphers DHE-RSA-AES128-GCM-SHA256; ssl_dhparam $dir/dh.pem;", ['', qr/DH, 2048/]],
    ['password', "ssl_certificate $c{ann}{cert}; ssl_certificate_key $dir/locked.key; ssl_password_file $dir/words;", ['', qr/cn ann/]],
    ['on', "$a $verify ssl_verify_client on;", @clients],
    ['optional', "$a $verify ssl_verify_client optional;", @clients],
    ['no_ca', "$a $verify ssl_verify_client optional_no_ca;", @clients],
    ['depth', "$a $verify ssl_verify_client on; ssl_verify_depth 2;", @clients],
    ['depth1', "$a $verify ssl_verify_client on; ssl_verify_depth 1;", @clients],
    ['depth0', "$a $verify ssl_verify_client on; ssl_verify_depth 0;", @clients],
    ['crl', "$a $verify ssl_verify_client on; ssl_crl $crl;", @clients],
    ['trusted', "$a $verify ssl_trusted_certificate $other->{cert}; ssl_verify_client on;", @clients],
    ['command', "$a ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256; ssl_conf_command MinProtocol TLSv1.3;", ['', qr/CHACHA20/], ['-tls1_2', qr/alert/]],
    ['buffer', "$a ssl_buffer_size 1k; root $dir; location = /words { }", ['-tls1_3', qr/200/]],
    ['none', "$a ssl_session_cache none; ssl_session_tickets off;", @twice],
    ['off', "$a ssl_session_cache off; ssl_session_tickets off;", @twice],
    ['tickets', "$a ssl_session_tickets on; ssl_session_timeout 123;", @twice],
    ['builtin', "$a ssl_session_cache builtin; ssl_session_tickets off;", @twice],
    ['shared', "$a ssl_session_cache shared:S:1m; ssl_session_tickets off;", @twice],
    ['key', "$a ssl_session_ticket_key $dir/ticket.key;", @twice],
    ['verified', "$a $verify ssl_verify_client on; ssl_session_cache shared:S:1m;", map { ["TWICE $_ " . with('ann'), qr/SUCCESS/] } '-tls1_2', '-tls1_3'],
    ['staple', "$a ssl_stapling on; ssl_stapling_file $dir/a.ocsp; ssl_stapling_verify off;", ['-status', qr/good/], ['', qr/./]],
    ['early', "$a ssl_early_data on; ssl_session_cache shared:S:1m;", ["TWICE -tls1_3 -early_data $dir/early", qr/early accepted/]],
    ['late', "$a ssl_early_data off; ssl_session_cache shared:S:1m;", ["TWICE -tls1_3 -early_data $dir/early", qr/early not/]],
    ['by_name', "ssl_certificate $dir/certs/\$ssl_server_name.crt; ssl_certificate_key $dir/certs/\$ssl_server_name.key;",
        ['-servername a.test', qr/cn a\.test/], ['-servername b.test', qr/cn b\.test/], ['-servername none.test', qr/internal error/],
        ['TWICE -tls1_3 -servername a.test', qr/reused/], ['TWICE -tls1_2 -servername a.test', qr/reused/]],
    ['reject', 'ssl_reject_handshake on;', ['-servername x.test', qr/unrecognized name/], ['-noservername', qr/unrecognized name/]],
);

# --- locations that go upstream: [name, upstream, directives, status]
my $me = "proxy_ssl_certificate $c{ann}{cert}; proxy_ssl_certificate_key $c{ann}{key};";
my $trust = "proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert}; proxy_ssl_name up.test;";
my @locations = (
    ['bare', 'up', '', 200], ['me', 'up', $me, 200], ['locked', 'up', "proxy_ssl_certificate $c{ann}{cert}; proxy_ssl_certificate_key $dir/locked.key; proxy_ssl_password_file $dir/words;", 200],
    ['mine', 'up', "proxy_ssl_certificate $dir/certs/\$arg_who.crt; proxy_ssl_certificate_key $dir/certs/\$arg_who.key;", 500],
    ['v12', 'up', 'proxy_ssl_protocols TLSv1.2;', 200], ['v13', 'up', 'proxy_ssl_protocols TLSv1.3;', 200],
    ['cipher', 'up', 'proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;', 200],
    ['no_cipher', 'up', 'proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-RSA-AES256-GCM-SHA384;', 502],
    ['command', 'up', 'proxy_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;', 200],
    ['name', 'up', 'proxy_ssl_name other.test; proxy_ssl_server_name on;', 200], ['unnamed', 'up', 'proxy_ssl_name other.test; proxy_ssl_server_name off;', 200],
    ['names', 'up', 'proxy_ssl_name $server_name.test; proxy_ssl_server_name on;', 200],
    ['verify', 'up', $trust, 200], ['wrong_name', 'up', "$trust proxy_ssl_name other.test;", 502],
    ['wrong_root', 'up', "$trust proxy_ssl_trusted_certificate $other->{cert};", 502],
    ['depth', 'deep', "$trust proxy_ssl_verify_depth 2;", 200], ['depth1', 'deep', "$trust proxy_ssl_verify_depth 1;", 200], ['depth0', 'deep', "$trust proxy_ssl_verify_depth 0;", 502],
    ['crl', 'up', "$trust proxy_ssl_crl $crl;", 200], ['crl_gone', 'gone', "$trust proxy_ssl_name gone.test; proxy_ssl_crl $crl;", 502],
    ['needs', 'needs', $me, 200], ['needs_none', 'needs', '', 400],
    ['reuse', 'up', '', 200], ['no_reuse', 'up', 'proxy_ssl_session_reuse off;', 200],
);

# What may differ: outcomes by name, and why.
my $nothing_kept = 'nginx sends sessions that it does not keep, Heddle none: neither resumes';
my %differs = map { $_ => $nothing_kept } 'none TWICE -tls1_2', 'none TWICE -tls1_3', 'off TWICE -tls1_3';

my %port = map { $_ => Heddle::Port::reserve() } (map { "S_$_->[0]" } @servers), qw(UP_up UP_deep UP_gone UP_needs LOCATIONS STREAM TCP);
my $facts = '$ssl_protocol $ssl_cipher $ssl_curve verify=[$ssl_client_verify] dn=[$ssl_client_s_dn] name=[$ssl_server_name] reused=$ssl_session_reused early=[$ssl_early_data]';
# A later directive of one name takes the place of an earlier one, which nginx calls a duplicate.
sub once { my %last; my @all = split /(?<=;)\s*/, $_[0]; my $i = 0; $last{(split)[0]} = $i++ for @all; $i = 0; return join ' ', grep { my $n = (split)[0]; $last{$n} == $i++ || $n =~ /command|^ssl_certificate/ } @all }

my $text = "http {\n    access_log off; ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n"
    . join('', map { "    server { listen 127.0.0.1:$port{\"S_$_->[0]\"} ssl; $_->[1] location / { return 200 \"$facts\\n\"; } }\n" } @servers)
    . join('', map { "    upstream u_$_->[0] { server 127.0.0.1:$port{\"UP_$_->[1]\"}; }\n" } @locations) # nginx 1.22 shares sessions in a group
    . "    server {\n        listen 127.0.0.1:$port{LOCATIONS}; server_name us;\n        proxy_http_version 1.0;\n"
    . join('', map { "        location /$_->[0] { proxy_pass https://u_$_->[0]; " . once($_->[2]) . " }\n" } @locations) . "    }\n}\n";
$text .= "stream {\n    ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n    server { listen 127.0.0.1:$port{STREAM} ssl; $a ssl_alpn one two; ssl_handshake_timeout 30s;\n"
    . "        proxy_pass 127.0.0.1:$port{UP_up}; proxy_ssl on; proxy_ssl_name up.test; proxy_ssl_server_name on; $me }\n}\n" if defined $stream;
my $upstreams = "events {}\nhttp {\n    access_log off; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:U:1m;\n" . join('', map {
    my ($name, $cert, $more) = @$_;
    "    server { listen 127.0.0.1:$port{\"UP_$name\"} ssl; " . cert($cert) . " ssl_client_certificate $ca->{cert}; ssl_verify_client $more; return 200 \"up $facts\\n\"; }\n"
} ['up', $c{'up.test'}, 'optional'], ['deep', $c{deep}, 'off'], ['gone', $c{'gone.test'}, 'off'], ['needs', $c{'up.test'}, 'on']) . "}\n";

# --- outcomes
sub s_client {
    my ($port, $args, $path) = @_;
    return `printf 'GET $path HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n' | timeout 30 openssl s_client -connect 127.0.0.1:$port -ign_eof $args 2>&1`;
}
# In a few words what came of it.
sub outcome {
    my ($port, $args) = @_;
    my $path = $args =~ s/^PATH (\S+) // ? $1 : '/';
    if ($args =~ s/^TWICE //) {
        unlink "$dir/session";
        s_client($port, ($args =~ s/-early_data \S+//r) . " -sess_out $dir/session", $path);
        return 'no session' if !-s "$dir/session";
        $args .= " -sess_in $dir/session";
    }
    my $text = s_client($port, $args, $path);
    my @is;
    push @is, lc $1 if $text =~ /^(New|Reused), /m;
    push @is, "cn $1" if $text =~ /^subject=.*?CN = (\S+)/m;
    push @is, "group $1" if $text =~ /^Server Temp Key: (.*)/m;
    push @is, "alpn $1" if $text =~ /^ALPN protocol: (\S+)/m;
    push @is, "staple $1" if $text =~ /Cert Status: (\S+)/;
    push @is, "early $1" if $text =~ /^Early data was (\w+)/m;
    push @is, "lifetime $1" if $text =~ /lifetime hint: (\d+)/;
    push @is, "roots $1" if $text =~ /^Acceptable client certificate CA names\n((?:.*CN = .*\n)+)/m;
    push @is, "alert $1" if $text =~ /alert ((?!number)[a-z ]+)|(unrecognized name)/ && ($1 // $2) =~ /(.*)/;
    push @is, "status $1" if $text =~ m{^HTTP/1\.[01] (\d+)}m;
    push @is, "page $1" if $text =~ m{<title>(.*)</title>};
    push @is, $1 if $text =~ /^((?:up )?TLSv1\.\d .*early=.*)/m;
    return join("\n", grep { defined } @is) =~ s/\n+/; /gr;
}

# Of a client, ours prefers AES-128 if nothing is said.
sub without_cipher { return $_[0] =~ s/(up TLSv1\.\d) \S+/$1/r }
sub get { return Heddle::Http->connect($port{LOCATIONS})->request('GET', $_[0]) // die "no answer to $_[0]" }
sub collect {
    my ($program) = @_;
    my %is;
    $program->start;
    for my $s (@servers) {
        my ($name, undef, @asks) = @$s;
        $is{"$name $_->[0]" =~ s/\Q$dir\E\S*\/|-cert \S+ -key \S+ -cert_chain \S+\/(\w+)\.\S+/$1 ? "by $1" : ''/ger} = [outcome($port{"S_$name"}, $_->[0]), $_->[1]] for @asks;
    }
    for my $l (@locations) {
        for my $time (1, 2) {
            my $r = get("/$l->[0]" . ($l->[0] eq 'mine' ? '?who=ann' : ''));
            my $body = $r->body =~ /^(up .*)/m ? $1 : $r->body =~ m{<title>(.*)</title>} ? $1 : '';
            $body = without_cipher($body) if $l->[2] !~ /cipher/i;
            $body =~ s/ reused=.// if $time == 1;    # may be of another group with the same address and settings
            $is{"location $l->[0] $time"} = [$r->status . " $body", $l->[0] eq 'mine' ? qr/^200 .*ann/ : qr/^$l->[3] /];
        }
    }
    my $r = get('/mine?who=nobody');
    $is{'location mine: no such file'} = [$r->status, qr/500/];
    $is{"stream $_"} = [without_cipher(outcome($port{STREAM}, $_)), qr/./] for defined $stream ? ('-alpn two,one', '-alpn three', '') : ();
    $program->stop;
    return %is;
}
my $up = Heddle->new(program => $nginx)->conf($upstreams)->start;
my @run;
for ($nginx, undef) {
    my $program = Heddle->new($_ ? (program => $_) : ())->conf(($_ ? ($stream // '') . "events {}\n" : '') . $text);
    $program->expect_log(qr/certificate|SSL|TLS|handshake/);
    push @run, {collect($program)};
}
my %real = %{$run[0]};
my %ours = %{$run[1]};
$up->stop;
for my $name (sort keys %real) {
    my ($is, $want) = @{$real{$name}};
    like $is, $want, "nginx: $name";
    if (my $why = $differs{$name}) { isnt $ours{$name}[0], $is, "differs: $name: $why" }
    else { is $ours{$name}[0], $is, "the same: $name" }
}

# --- each directive is here, or said to be elsewhere
my @known = map { my ($file) = $_; open my $f, '<', "$FindBin::Bin/../../src/core/conf/$file" or die $!; local $/; <$f> =~ /\.name = "((?:proxy_)?ssl\w*)"/g }
    'hd_conf_ssl.c', 'hd_conf_proxy_ssl.c';
cmp_ok scalar(@known), '>', 40, 'directives are found in the source';
ok $text =~ /\b$_\s/ || $elsewhere{$_}, "$_ is tried" for grep { !/^(?:proxy_)?ssl$/ } @known;
done_testing;
