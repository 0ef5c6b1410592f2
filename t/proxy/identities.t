# One heddle serves two workloads, a listener and a certificate each, to one upstream. However they take turns, no
# upstream connection ever carries both: over HTTP/1.1, over HTTP/2, over what two Heddles speak (docs/weft.md), over TCP.
# Each side's connections are used again, so there was something to mix up.

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TlsFront;

my %versions = ('HTTP/1.1' => 'proxy_http_version 1.1; proxy_multiplex off;',
    'HTTP/2' => 'proxy_http_version 2; proxy_multiplex off;', 'heddle-weft/1' => '');
my @who = qw(page shop); # as long as each other
my $hd = Heddle->new(workers => 1);
my $ca = $hd->make_ca('root');
my $server = $ca->make_cert('server', dns => ['backend.test']);
my %cert = map { $_ => $ca->make_cert($_, cn => $_, spiffe => "spiffe://test/ns/shop/sa/$_") } @who;
my $front = Heddle::TlsFront->start($hd, 12 => 11, cert => $server, client_ca => $ca, verify => 'on', alpn_h2 => 1);

# A listener for each workload and kind; heddle is the server for weft, nginx for the others.
my ($n, %port, $servers) = (0);
for my $kind (sort keys %versions) {
    for my $who (@who) {
        $port{$kind}{$who} = $n;
        my $to = $kind =~ /weft/ ? 'heddle' : 'nginx';
        $servers .= <<"EOC";
    server {
        listen 127.0.0.1:%%PORT_@{[$n++]}%%;
        proxy_ssl_certificate $cert{$who}{cert};
        proxy_ssl_certificate_key $cert{$who}{key};
        $versions{$kind}
        location / { proxy_pass https://$to; }
    }
EOC
    }
}
my $tcp = join '', map { <<"EOC" } @who;
    server {
        listen 127.0.0.1:%%PORT_tcp_$_%%;
        proxy_ssl on;
        proxy_ssl_certificate $cert{$_}{cert};
        proxy_ssl_certificate_key $cert{$_}{key};
        proxy_pass 127.0.0.1:%%PORT_12%%;
    }
EOC
$hd->conf(<<"EOC");
http {
    upstream nginx { server 127.0.0.1:%%PORT_12%%; keepalive 8; }
    upstream heddle { server 127.0.0.1:%%PORT_13%%; keepalive 8; }
    proxy_ssl_name backend.test;
    proxy_ssl_trusted_certificate $ca->{cert};
    proxy_ssl_verify on;
$servers
    server {
        listen 127.0.0.1:%%PORT_13%% ssl;
        ssl_certificate $server->{cert};
        ssl_certificate_key $server->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client on;
        location / {
            proxy_pass http://127.0.0.1:%%PORT_11%%;
            proxy_ssl_certificate $server->{cert};
            proxy_ssl_certificate_key $server->{key};
            proxy_set_header X-Tls-Conn \$connection;
            proxy_set_header X-Tls-Client \$ssl_client_escaped_cert;
            proxy_set_header X-Tls-Alpn \$ssl_alpn_protocol;
        }
    }
}
stream {
$tcp
}
EOC
$hd->echo_server(11);
$hd->start;

my %of; # certificates as they arrive, by workload
for my $who (@who) {
    open my $f, '<', $cert{$who}{cert} or die $!;
    ($of{$who}) = do { local $/; <$f> } =~ /-----BEGIN CERTIFICATE-----\n(.*?)-----END/s;
    $of{$who} =~ s/\s//g;
}

sub seen {
    my ($res) = @_;
    my %x = map { lc, ($res->body =~ /^X-Tls-$_: ?(.*?)\r?$/mi)[0] // '' } qw(Conn Client Alpn);
    my $pem = $x{client} =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ger =~ s/-----(BEGIN|END) CERTIFICATE-----|\s//gr;
    ($x{who}) = grep { $of{$_} eq $pem } @who;
    return \%x;
}

for my $kind (sort keys %versions) {
    my (%carried, %times, @wrong);
    my @turns = map { ('page', 'shop', 'page', 'page', 'shop', 'shop') } 1 .. 10;
    for my $who (@turns) {
        my $x = seen($hd->get('/', {port => $port{$kind}{$who}}));
        push @wrong, "$who was seen as " . ($x->{who} // 'nobody') if ($x->{who} // '') ne $who;
        $carried{$x->{conn}}{$x->{who} // ''}++;
        $times{$who}{$x->{conn}}++;
        push @wrong, "it spoke $x->{alpn}"
            if $x->{alpn} ne ({'HTTP/1.1' => '', 'HTTP/2' => 'h2'}->{$kind} // $kind) && $x->{alpn} ne lc $kind;
    }
    is "@wrong", '', "$kind: each workload is seen as itself";
    is_deeply [grep { keys %{$carried{$_}} > 1 } sort keys %carried], [], "$kind: no connection carries both";
    is_deeply {map { $_ => scalar keys %{$times{$_}} } @who}, {page => 1, shop => 1}, "$kind: each has one, used again";

    # And both at once: more than one connection each, where a connection carries one request at a time.
    my @both = map { my $c = $hd->connect($port{$kind}{$_}); $c->send("GET /$_ HTTP/1.1\r\nHost: a\r\n\r\n"); [$_, $c] } (@who) x 8;
    for (@both) {
        my ($who, $c) = @$_;
        my $x = seen($c->response);
        push @wrong, "$who was seen as " . ($x->{who} // 'nobody') if ($x->{who} // '') ne $who;
        $carried{$x->{conn}}{$x->{who} // ''}++;
    }
    is "@wrong", '', "$kind: at once, too";
    is_deeply [grep { keys %{$carried{$_}} > 1 } sort keys %carried], [], "$kind: and on no connection both";
}

for my $who (@who, @who) {
    is seen($hd->get('/', {port => "tcp_$who"}))->{who}, $who, "TCP: $who is seen as itself";
}
$hd->stop;
$front->stop;
done_testing;
