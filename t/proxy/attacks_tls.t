#!/usr/bin/perl
# Attacks on TLS: plain text injected before or in the middle of an upstream's handshake
# (CVE-2026-1642), a session of one virtual server resumed at another that asks for certificates
# (CVE-2025-23419), garbage and half-said hellos, clients that renegotiate; by file and by xDS. Names with a NUL in
# certificates (CVE-2025-66220): t/unit/tls_secret.c.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::XS ();

# Certificates are made anew for each way; the configuration names them.
sub make_certs {
    my ($hd) = @_;
    my ($ca, $other) = map { $hd->make_ca($_) } 'root', 'other';
    $hd->{certs} = {ca => $ca, server => $ca->make_cert('server', dns => ['open.example', 'secret.example']),
        client => $ca->make_cert('client', cn => 'client'), stranger => $other->make_cert('stranger', cn => 'stranger')};
    return @{$hd->{certs}}{'ca', 'server'};
}

sub by_file {
    my $hd = Heddle->new(log_level => 'info');
    my ($ca, $cert) = make_certs($hd);
    return $hd->conf(<<"EOC");
http {
    ssl_certificate $cert->{cert};
    ssl_certificate_key $cert->{key};
    ssl_session_cache shared:s:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
    client_header_timeout 1s;
    server { listen 127.0.0.1:%%PORT_0%% ssl; server_name open.example; return 200 open; }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl; server_name secret.example;
        ssl_verify_client on; ssl_client_certificate $ca->{cert}; return 200 secret;
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        location /eager { proxy_pass https://127.0.0.1:%%PORT_2%%; }
        location /late { proxy_pass https://127.0.0.1:%%PORT_3%%; }
        location /after { proxy_pass https://127.0.0.1:%%PORT_4%%; proxy_ssl_session_reuse off; }
    }
}
EOC
}

# The same: a filter chain for each name, with hosts of its own.
sub by_xds {
    my $hd = Heddle->new(log_level => 'info')->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my ($ca, $cert) = make_certs($hd);
    my $text = sub { +{inline_string => Heddle::Cert::slurp($_[0])} };
    my $tls = sub {
        my ($side, $common, %more) = @_;
        return {name => 'tls', typed_config => {'@type' => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${side}TlsContext",
            common_tls_context => $common, %more}};
    };
    my $certificate = {tls_certificates => [{certificate_chain => $text->($cert->{chain}), private_key => $text->($cert->{key})}]};
    my $chain = sub {
        my ($name, $socket) = @_;
        my $routes = {name => $name, virtual_hosts => [{name => $name, domains => ["$name.example"],
            routes => [{match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => $name}}}]}]};
        return Heddle::Xds::listener($name, $hd->port(0), route_config => $routes, chain => {transport_socket => $socket,
            filter_chain_match => {server_names => ["$name.example"]}, transport_socket_connect_timeout => '1s'});
    };
    my $names = $chain->('open', $tls->('Downstream', $certificate));
    my $secret = $chain->('secret', $tls->('Downstream', {%$certificate, validation_context => {trusted_ca => $text->($ca->{cert})}},
        require_client_certificate => JSON::XS::true()));
    push @{$names->{filter_chains}}, @{$secret->{filter_chains}};
    $names->{listener_filters} = [{name => 'tls', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector'}}];
    my %to = (eager => 2, late => 3, after => 4);
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(
        CDS => [map { Heddle::Xds::cluster($_, $hd->port($to{$_}), transport_socket => $tls->('Upstream', {})) } sort keys %to],
        LDS => [$names, Heddle::Xds::listener('plain', $hd->port(1), route_config =>
            Heddle::Xds::routes('plain', map { ["/$_" => $_] } sort keys %to))])->start;
    return $hd;
}

my ($hd, $way, $ca, $client, $stranger);
my $forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";

sub over_tls {
    my (%tls) = @_;
    my $host = delete $tls{host} // $tls{sni};
    my $c = eval { $hd->connect(0, tls => {ca => $ca->{cert}, %tls}) } or return 'refused';
    $c->send("GET / HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n");
    my $r = eval { $c->response } or return 'refused';
    return $r->status . ' ' . $r->body;
}

sub all_attacks {
    subtest 'plain text in place of a handshake (CVE-2026-1642)' => sub {
        for my $path ('/eager', '/late', '/after') {
            my $r = $hd->get($path, {port => 1});
            is $r->status, $way eq 'file' ? 502 : 503, "$path: no answer of that upstream's";
            unlike $r->body, qr/forged/, 'nothing of it passes';
        }
    };

    my $elsewhere = $way eq 'file' ? qr/^(?:400|421|496)/ : qr/^404/; # a chain by xDS has hosts of its own
    subtest 'sessions belong to who asked for certificates (CVE-2025-23419)' => sub {
        for my $version ('-tls1_2', '-tls1_3') {
            my $file = $hd->dir . "/session$version";
            is over_tls(sni => 'open.example', args => [$version, '-sess_out', $file]), '200 open', "$version: a session at the open server";
            # TLS 1.3's tickets come with the answer
            like over_tls(sni => 'secret.example', args => [$version, '-sess_in', $file]), qr/^(?:400|421|496|refused)/,
                'used at the other one without a certificate';
            like over_tls(sni => 'open.example', host => 'secret.example', args => [$version, '-sess_in', $file]), $elsewhere, 'or by its Host alone';
            like over_tls(sni => 'open.example', host => 'secret.example', args => [$version], cert => $client->{cert}, key => $client->{key}),
                $elsewhere, 'a certificate that nobody asked for';
            is over_tls(sni => 'secret.example', args => [$version], cert => $client->{cert}, key => $client->{key}), '200 secret', 'with one';
            like over_tls(sni => 'secret.example', args => [$version], cert => $stranger->{cert}, key => $stranger->{key}),
                qr/^(?:400|495|refused)/, 'with a stranger\'s';
        }
    };

    subtest 'what is no hello, or half of one' => sub {
        for my $bytes ("\x16\x03\x01", "\x16\x03\x01\x40\x00\x01", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "\x80\x2e\x01\x00\x02",
            "\x16\x03\x01\xff\xff" . "\x01" x 70000, "\x15\x03\x01\x00\x02\x02\x28", "\x17\x03\x03\x00\x10" . 'x' x 16, "\0" x 5000) {
            my $c = $hd->connect(0);
            $c->send($bytes);
            $c->shutdown_write;
            my $said = $c->read_all;
            unlike $said, qr/HTTP\/1\.1 200/, sprintf 'after %s…: nothing is served', unpack 'H*', substr $bytes, 0, 6;
        }
        is over_tls(sni => 'open.example'), '200 open', 'others are served';
    };

    subtest 'renegotiation (CVE-2009-3555, CVE-2011-1473): a client asks in vain' => sub {
        my $port = $hd->port(0);
        my $out = `(printf 'R\\n'; sleep 0.2; printf 'R\\n') | openssl s_client -connect 127.0.0.1:$port -servername open.example -tls1_2 -no_ign_eof 2>&1`;
        like $out, qr/RENEGOTIATING/, 'it was tried';
        unlike $out, qr/RENEGOTIATING.*?(?:read finished|Verify return code: 0 \(ok\)\n---\nRENEGOTIATING)/s, 'and not done';
        is over_tls(sni => 'open.example'), '200 open', 'others are served';
    };
}

for (by_file(), by_xds()) {
    ($hd, $way) = ($_, $_->{xds} ? 'xds' : 'file');
    ($ca, $client, $stranger) = @{$hd->{certs}}{'ca', 'client', 'stranger'};
    $hd->tcp_backend(2, sub { my ($s) = @_; syswrite $s, $forged; 1 while sysread $s, my $b, 4096 });
    $hd->tcp_backend(3, sub { my ($s) = @_; sysread $s, my $b, 4096; syswrite $s, $forged; 1 while sysread $s, $b, 4096 });
    # a handshake record that announces more than comes, then plain text
    $hd->tcp_backend(4, sub { my ($s) = @_; sysread $s, my $b, 4096; syswrite $s, "\x16\x03\x03\x00\x04\x02\x00\x00\x00$forged"; 1 while sysread $s, $b, 4096 });
    $hd->start;
    for my $port (0, 1) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($port)) }, "port $port") }
    subtest "by $way" => \&all_attacks;
    $hd->stop;
}
done_testing;
