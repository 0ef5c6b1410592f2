#!/usr/bin/perl
# splice: a large plain transfer goes from socket to socket (heddle_spliced_bytes_total), what is
# small, goes over TLS or is held to a rate is copied, and all arrives as it was sent.
use strict;
use warnings;
use lib 't/lib';
use Digest::SHA qw(sha1_hex);
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.example', dns => 'a.example');
$hd->conf(<<"EOC");
admin %%ADMIN%%;
stream {
    proxy_half_close on;
    server { listen 127.0.0.1:%%PORT_0%%; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_2%% ssl; ssl_certificate $cert->{cert}; ssl_certificate_key $cert->{key}; proxy_pass 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_3%%; proxy_pass 127.0.0.1:%%PORT_1%%; proxy_download_rate 1g; proxy_upload_rate 1g; }
    server { listen 127.0.0.1:%%PORT_4%%; proxy_pass 127.0.0.1:%%PORT_2%%; proxy_ssl on; }
}
EOC
my $chunk = join '', map { chr int rand 256 } 1 .. 1 << 16;
my $chunks = 400; # 26 MB
$hd->tcp_backend(1, sub { # "N\n" is answered with N chunks; anything else by its digest
    my ($sock) = @_;
    my $sha = Digest::SHA->new(1);
    sysread $sock, my $got, 65536;
    if ($got =~ /^(\d+)\n/) {
        for (1 .. $1) {
            my $at = 0;
            $at += syswrite $sock, $chunk, length($chunk) - $at, $at while $at < length $chunk;
        }
        return;
    }
    $sha->add($got);
    while (sysread $sock, $got, 1 << 20) { $sha->add($got) }
    syswrite $sock, $sha->hexdigest;
});
$hd->start;

sub spliced { my ($n) = $hd->admin('/metrics')->body =~ /^heddle_spliced_bytes_total (\d+)/m; return $n // 0 }

my $want = $chunk x $chunks;
sub download {
    my ($n, %opt) = @_;
    my $c = $hd->connect($n, %opt);
    $c->send("$chunks\n");
    return $c->read_all eq $want;
}
sub upload {
    my ($n) = @_;
    my $c = $hd->connect($n);
    $c->send($want);
    $c->shutdown_write;
    return $c->read_all eq sha1_hex($want);
}

my $c = $hd->connect(0);
$c->send('small');
$c->shutdown_write;
is $c->read_all, sha1_hex('small'), 'a small one';
is spliced(), 0, 'is copied';
ok download(0), 'a large one, down';
my $down = spliced();
cmp_ok $down, '>', length($want) / 2, 'is spliced, most of it';
ok upload(0), 'and up';
my $both = spliced();
cmp_ok $both - $down, '>', length($want) / 2, 'as well';

ok download(2, tls => {ca => $ca->{cert}}), 'over TLS';
ok download(4), 'TLS towards the upstream and away from it';
ok download(3), 'with a rate';
ok upload(3), 'both ways';
is spliced(), $both, 'none of these is';
done_testing;
