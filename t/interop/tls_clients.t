#!/usr/bin/perl
# Client certificates and all that $ssl_* tells of them: one configuration, in real nginx and in
# Heddle, the same answers (ngx_http_ssl_module). What Debian's nginx hasn't is asked of Heddle alone.
use strict;
use warnings;
use Test::More;
use Heddle;

my ($nginx) = grep { -x } '/usr/sbin/nginx', '/usr/local/sbin/nginx';
plan skip_all => 'needs nginx' unless $nginx;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $int = $ca->make_ca('middle');
my $lower = $int->make_ca('lower');
my $other = $hd->make_ca('other');
my $server = $ca->make_cert('server', dns => [qw(on.test optional.test no-ca.test default.test page.test)]);
my %who = (
    good => $ca->make_cert('good', cn => 'ann'),
    middle => $int->make_cert('middle1', cn => 'mary'),
    deep => $lower->make_cert('deep', cn => 'dora'),
    stranger => $other->make_cert('stranger', cn => 'eve'),
    expired => $ca->make_cert('expired', cn => 'old', expired => 1),
    nobody => undef,
);
my @vars = qw(client_verify client_s_dn client_i_dn client_s_dn_legacy client_i_dn_legacy client_serial
    client_fingerprint client_v_start client_v_end client_v_remain client_escaped_cert
    protocol cipher ciphers curve curves server_name session_reused alpn_protocol early_data);
my $text = join '', map { "$_=\$ssl_$_ " } @vars;

sub server {
    my ($name, $more) = @_;
    return <<"EOC";
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name $name;
        ssl_client_certificate $ca->{cert};
        $more
        location / { add_header X-Who \$ssl_client_verify always; return 200 "$name $text"; }
    }
EOC
}
my $conf = <<"EOC";
http {
    access_log off;
    ssl_certificate $server->{chain};
    ssl_certificate_key $server->{key};
    ssl_protocols TLSv1.2 TLSv1.3;
    @{[server('default.test', '')]}
    @{[server('on.test', 'ssl_verify_client on;')]}
    @{[server('deep.test', 'ssl_verify_client on; ssl_verify_depth 2;')]}
    @{[server('optional.test', 'ssl_verify_client optional;')]}
    @{[server('no-ca.test', 'ssl_verify_client optional_no_ca;')]}
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name page.test;
        ssl_client_certificate $ca->{cert};
        ssl_verify_client on;
        error_page 495 496 =403 /sorry;
        error_page 497 https://\$host\$request_uri;
        location / { return 200 "in"; }
        location = /sorry { internal; return 403 "sorry \$ssl_client_verify"; }
    }
}
EOC
my $ngx = Heddle->new(program => $nginx);
my %temp = map { $_ => "$_ %%DIR%%/$_;" } map { "${_}_temp_path" } qw(client_body proxy fastcgi uwsgi scgi);
$ngx->conf($conf =~ s/http \{/"http { " . join ' ', values %temp/er)->start;
$hd->conf($conf)->start;

# Status, then the body. {sni} other than the Host: the Host is asked for on a connection to another name.
sub ask {
    my ($at, $host, $cert, %opt) = @_;
    my $sni = $opt{sni} // $host;
    my $port = $at->port(0);
    my @cert = $cert ? ('--cert', $cert->{chain}, '--key', $cert->{key}) : ();
    my $scheme = $opt{plain} ? 'http' : 'https';
    open my $out, '-|', 'curl', '-sik', '--http1.1', '--noproxy', '*', '-m', 30, '--resolve', "$sni:$port:127.0.0.1", @cert,
        '-H', "Host: $host", @{$opt{args} // []}, "$scheme://$sni:$port/x" or die "curl: $!";
    local $/;
    my $all = <$out> // '';
    my ($status) = $all =~ m{^HTTP/1.1 (\d+)};
    my ($head, $body) = split /\r\n\r\n/, $all, 2;
    my ($location) = $head =~ /^Location: (.*?)\r?$/m;
    $body = ($body // '') =~ s/<hr>.*?<\/center>//r;
    $body = '' if $status == 302; # newer ones say "Found" otherwise
    return join ' ', $status // 'none', $location // '', $body;
}

sub same {
    my ($what, @args) = @_;
    my ($ours, $theirs) = map { ask($_, @args) } $hd, $ngx;
    is $ours, $theirs, $what;
    return $ours;
}

for my $host (qw(default.test on.test deep.test optional.test no-ca.test page.test)) {
    same("$host: $_", $host, $who{$_}) for sort keys %who;
}
like ask($hd, 'on.test', $who{nobody}), qr/^400 .*No required SSL certificate was sent/s, 'required: nobody';
like ask($hd, 'on.test', $who{stranger}), qr/^400 .*The SSL certificate error/s, 'required: a stranger';
like ask($hd, 'page.test', $who{stranger}), qr/^403 .*sorry FAILED:/, 'error_page 495';
like ask($hd, 'no-ca.test', $who{stranger}), qr/^200 .*client_verify=FAILED:.* client_s_dn=CN=eve/, 'optional_no_ca';
like ask($hd, 'on.test', $who{middle}), qr/^200/, 'an issuer between: depth 1 allows it';
like ask($hd, 'on.test', $who{deep}), qr/^400/, 'another one is too many';
like ask($hd, 'deep.test', $who{deep}), qr/^200/, 'depth 2 allows it';

like same('TLS 1.2', 'on.test', $who{good}, args => ['--tls-max', '1.2', '--ciphers', 'ECDHE-ECDSA-AES128-GCM-SHA256']),
    qr/protocol=TLSv1.2/, 'is spoken';

# Host and server name differ: who verifies clients isn't reached by another's handshake.
same("Host: $_ on a connection to default.test", $_, $who{good}, sni => 'default.test') for qw(on.test optional.test page.test);
like ask($hd, 'on.test', $who{good}, sni => 'default.test'), qr/^421/, 'misdirected';
same("Host: default.test on a connection to on.test: $_", 'default.test', $who{$_}, sni => 'on.test') for sort keys %who;

# Who names no server at all (curl does so for addresses).
for my $host (qw(default.test on.test deep.test optional.test no-ca.test page.test)) {
    same("$host without SNI: $_", $host, $who{$_}, sni => '127.0.0.1') for 'good', 'nobody';
}

like same('plain HTTP', 'on.test', undef, plain => 1), qr/^400 .*plain HTTP request was sent to HTTPS port/s, 'to plain HTTP';
like same('plain HTTP with a page', 'page.test', undef, plain => 1), qr{^302 https://page.test/x}, 'error_page 497';

$ngx->stop;

# What newer ones have.
my $hd2 = Heddle->new;
$hd2->conf(<<"EOC")->start;
http {
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        ssl_certificate $server->{chain};
        ssl_certificate_key $server->{key};
        ssl_verify_client optional;
        ssl_client_certificate $ca->{cert};
        return 200 "\$ssl_sigalg \$ssl_client_sigalg [\$ssl_early_data] id=\$ssl_session_id\\n\$ssl_client_raw_cert";
    }
}
EOC
my $got = ask($hd2, 'x.test', $who{good});
like $got, qr/^200 +ecdsa_secp256r1_sha256 ecdsa_secp256r1_sha256 \[\] id=[0-9a-f]*\n/, 'signature algorithms';
my $pem = do { open my $f, '<', $who{good}{cert} or die; local $/; <$f> };
like $got, qr/\n\Q$pem\E$/, '$ssl_client_raw_cert';
done_testing;
