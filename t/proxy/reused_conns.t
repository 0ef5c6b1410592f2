#!/usr/bin/perl
# Where worker_connections are nearly used up, connections that idle make room for new ones, as in
# nginx: who has idled for longest goes first, whatever the protocol, a server's as a client's; a
# request under way is never ended.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new->conf(<<'EOC');
events { worker_connections 64; }
admin %%ADMIN%%;
http {
    upstream up { server 127.0.0.1:%%PORT_1%%; keepalive 8; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2 on;
        location / { return 200 "here"; }
        location /up { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
EOC
$hd->backend(1, sub { 'up' });
$hd->start;

sub counted { my ($n) = $hd->admin('/metrics')->body =~ /^heddle_connections_reused_total (\d+)/m; return $n // 0 }
sub speak {
    my ($c) = @_;
    my $r = $c->request('GET', '/');
    return $r && $r->body eq 'here';
}

# The oldest: a server's conn that is kept, a client of HTTP/2, one that never said a word.
is $hd->get('/up')->body, 'up', 'a server\'s connection is kept';
my $h2 = Heddle::H2->new($hd->port(0));
$h2->request(1, '/');
is $h2->response(1)->{status}, 200, 'HTTP/2 speaks, and idles';
my $silent = $hd->connect;
my $busy = $hd->connect;
$busy->send("GET / HTTP/1.1\r\n");

my $good = 0;
my @conns;
for (1 .. 40) {
    push @conns, $hd->connect;
    $good++ if speak($conns[-1]);
}
is $good, 40, 'forty more fit';
is counted(), 0, 'nobody had to go';
ok !$_->is_ready, 'none was closed' for $silent, $conns[0];

for (1 .. 160) {
    push @conns, $hd->connect;
    $good++ if speak($conns[-1]);
}
is $good, 200, 'and each of 160 beyond that: nobody waits';
my $goaway = $h2->until(sub { $_->{type} eq 'GOAWAY' });
ok $goaway, 'HTTP/2 was told (GOAWAY)';
is unpack('x4 N', $goaway->{payload}), 0, 'for no fault of its own';
# One that is new has a moment to speak: it is older by and by.
$hd->wait_for(sub {
    push @conns, $hd->connect;
    $good = 0 unless speak($conns[-1]);
    return $silent->is_ready;
}, 'the silent one to be closed');
ok $silent->is_eof, 'who never spoke was closed, too';
is $good, 200, 'and nobody waited for it';
my $open = 0;
$open++ while $open < @conns && !$conns[-1 - $open]->is_ready;
my @closed = @conns[0 .. $#conns - $open];
is scalar(grep { $_->is_eof } @closed), scalar(@closed), scalar(@closed) . ' closed ones are those that idled for longest';
cmp_ok $open, '<=', 64, "$open are open";
cmp_ok $open, '>=', 20, 'no more are closed than need be';
is scalar(grep { speak($_) } @conns[-$open .. -1]), $open, 'these speak again';
$busy->send("Host: a\r\n\r\n");
is $busy->response->body, 'here', 'a request whose head had begun goes on';

# Everything that idled and is gone: the server's conn, HTTP/2's, the silent one, the closed ones.
is counted(), @closed + 3, 'all of them are counted, the server\'s connection, too';
like $hd->log, qr/\[warn\].* worker_connections are not enough: idle connections are closed for new ones/, 'and told';
unlike $hd->log, qr/accept is paused/, 'accept never was paused';
is $hd->get('/up')->body, 'up', 'the server is connected to anew';
$hd->stop;
done_testing;
