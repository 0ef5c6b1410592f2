#!/usr/bin/perl
# Reload of http and stream: routes, listeners, upstreams and certificates change under connections
# that stay open; workers live on; what is wrong leaves all as it was.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my %cert = map { $_ => $ca->make_cert("cert$_", dns => 'a.example', cn => "number $_") } 1, 2;

# One configuration in which everything depends on <n>.
sub text {
    my ($n) = @_;
    my $upstream = $n % 2 ? 1 : 2;
    my $extra = $n % 2 ? '' : "server { listen 127.0.0.1:%%PORT_4%%; return 200 extra; }";
    my $c = $cert{$upstream};
    return <<"EOC";
http {
    upstream app { server 127.0.0.1:%%PORT_$upstream%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        add_header X-Version $n;
        location / { return 200 "version $n"; }
        location /app/ { proxy_pass http://app/; }
        location /$n { return 200 "only in $n"; }
    }
    server { listen 127.0.0.1:%%PORT_3%% ssl; ssl_certificate $c->{cert}; ssl_certificate_key $c->{key}; return 200 tls; }
    $extra
}
stream { server { listen 127.0.0.1:%%PORT_5%%; proxy_pass 127.0.0.1:%%PORT_6%%; } }
EOC
}
for my $n (1, 2) {
    $hd->backend($n, sub { "app $n" });
}
$hd->tcp_backend(6, sub {
    my ($sock) = @_;
    while (sysread $sock, my $bytes, 100) { syswrite $sock, $bytes }
});
$hd->conf(text(1))->start;
my @workers = $hd->workers;

my $kept = $hd->connect(0);
my $tcp = $hd->connect(5);
sub ask { my ($uri) = @_; return $kept->request('GET', $uri)->body }
sub echo { $tcp->send("$_[0]\n"); return $tcp->read_until(qr/\n/) }
sub subject {
    my $port = $hd->port(3);
    my $text = `openssl s_client -connect 127.0.0.1:$port </dev/null 2>/dev/null | openssl x509 -noout -subject`;
    return $text =~ /number (\d)/ ? $1 : $text;
}

is ask('/'), 'version 1', 'before';
is ask('/app/'), 'app 1', 'its upstream';
is subject(), 1, 'its certificate';
like echo('a'), qr/^a$/, 'a stream';

for my $n (2 .. 5) {
    $hd->conf(text($n));
    ok $hd->reload, "reload $n";
    is ask('/'), "version $n", 'the same connection, the new routes';
    is ask("/$n"), "only in $n", 'a new location';
    is ask('/app/'), 'app ' . ($n % 2 ? 1 : 2), 'the new upstream';
    is subject(), $n % 2 ? 1 : 2, 'the new certificate';
    my $extra = eval { $hd->get('/', {port => 4})->body } // 'none';
    is $extra, $n % 2 ? 'none' : 'extra', 'a listener ' . ($n % 2 ? 'less' : 'more');
    like echo("after $n"), qr/^after $n$/, 'the stream goes on';
}

$hd->conf(text(6) =~ s/return 200 tls/return 200 tls; nonsense on/r);
$hd->expect_log(qr/\[emerg\].*unknown directive "nonsense"/);
ok !$hd->reload, 'a broken configuration is refused';
is ask('/'), 'version 5', 'what was in force stays';
my ($key, $wrong_key) = map { $cert{$_}{key} } 2, 1;
$hd->conf(text(6) =~ s/\Q$key\E/$wrong_key/r);
$hd->expect_log(qr/\[emerg\].*certificate "/);
ok !$hd->reload, 'a key of another certificate, too';
is ask('/'), 'version 5', 'and nothing of it is in force';
is_deeply [$hd->workers], \@workers, 'the worker is the same';
$tcp->close; # or QUIT would wait for it
done_testing;
