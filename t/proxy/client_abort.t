#!/usr/bin/perl
# proxy_ignore_client_abort: the upstream of a client that is gone before its answer is heard to the end (on), or
# let go of (off), whatever the client's way to go: RST_STREAM, a closed or a reset connection, over HTTP/1 and HTTP/2.
# An answer that begins when nobody is there is cut: it may be without end.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
http {
    log_format l '$request_uri $status [$upstream_status]';
    access_log %%DIR%%/a.log l;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_read_timeout 50s; }
        location /on/ { proxy_ignore_client_abort on; proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_read_timeout 50s; }
    }
}
EOC
my $dir = $hd->dir;
my $go = "$dir/go";
$hd->tcp_backend(1, sub { # each waits for the file
    my ($sock) = @_;
    my $head = '';
    $head .= <$sock> // return until $head =~ /\r\n\r\n\z/;
    my ($uri) = $head =~ m{^GET (\S+)};
    open my $f, '>>', "$dir/asked" or die $!;
    syswrite $f, "$uri\n";
    select undef, undef, undef, 0.01 until -e $go;
    print $sock "HTTP/1.1 200 OK\r\nContent-Length: " . ($uri =~ /endless/ ? 1000 : 2) . "\r\n\r\nok";
    <$sock>; # to its end
});
$hd->start;

sub asked { my ($uri) = @_; $hd->wait_for(sub { -e "$dir/asked" && $hd->file('asked') =~ /^\Q$uri\E$/m }, "$uri upstream") }
sub logged { my ($line) = @_; $hd->wait_for(sub { $hd->file('a.log') =~ /^\Q$line\E$/m }, $line); ok 1, $line }

my %ways = (
    'h1-close' => sub { my $c = $hd->connect; $c->send("GET $_[0] HTTP/1.1\r\nHost: a\r\n\r\n"); asked($_[0]); $c->close },
    'h1-reset' => sub { my $c = $hd->connect; $c->send("GET $_[0] HTTP/1.1\r\nHost: a\r\n\r\n"); asked($_[0]); $c->reset },
    'h2-stream' => sub { my $c = Heddle::H2->new($hd->port(0)); $c->request(1, $_[0]); asked($_[0]); $c->frame('RST_STREAM', 0, 1, pack 'N', 8); $c },
    'h2-close' => sub { my $c = Heddle::H2->new($hd->port(0)); $c->request(1, $_[0]); asked($_[0]); $c->close },
    'h2-reset' => sub { my $c = Heddle::H2->new($hd->port(0)); $c->request(1, $_[0]); asked($_[0]); $c->{conn}->reset },
);
my @kept;
for my $way (sort keys %ways) {
    push @kept, $ways{$way}->("/on/$way"), $ways{$way}->("/on/endless-$way"), $ways{$way}->("/off/$way");
    logged("/off/$way 499 [-]");
}
unlike $hd->file('a.log'), qr{/on/}, 'on: they are waited for';
open my $f, '>', $go or die $!;
for my $way (sort keys %ways) {
    logged("/on/$way 200 [200]");
    logged("/on/endless-$way 200 [200]");
}
is $hd->get('/on/next')->body, 'ok', 'and on it goes';
done_testing;
