#!/usr/bin/perl
# Attacks on who asks another server whether a request may pass (auth_request; the kind of CVE-2023-27488, a field that
# isn't UTF-8, and of CVE-2026-73547, a request without a path): whatever keeps that server from saying yes, nobody
# passes, and what it judges is what goes on.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;

my $hd = Heddle->new(modules => ['auth_request'])->conf(<<'EOC');
http {
    http2 on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_connect_timeout 1s;
        location / { auth_request /ask; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /quick/ { auth_request /ask-quick; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /nobody/ { auth_request /ask-nobody; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /ask { internal; proxy_pass http://127.0.0.1:%%PORT_2%%; proxy_set_header X-Target $request_uri; }
        location = /ask-quick { internal; proxy_read_timeout 200ms; proxy_pass http://127.0.0.1:%%PORT_2%%; proxy_set_header X-Target $request_uri; }
        location = /ask-nobody { internal; proxy_pass http://127.0.0.1:%%PORT_3%%; }
    }
}
EOC
$hd->echo_server(1);
# Yes only to who shows the password; else as the target says.
$hd->backend(2, sub {
    my ($req) = @_;
    my $target = $req->header('x-target') // '';
    return {hang => 1} if $target =~ /hang/;
    return {close => 1} if $target =~ /close/;
    return {raw => "HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n", close => 1} if $target =~ /broken/;
    return {raw => "rubbish\r\n\r\n", close => 1} if $target =~ /rubbish/;
    return [$1, {}, ''] if $target =~ /status(\d+)/;
    return [($req->header('x-password') // '') eq "caf\xc3\xa9\xff" ? 200 : 403, {}, ''];
});
$hd->start;

sub stopped {
    my ($what, $status, $uri, @fields) = @_;
    my $before = () = $hd->requests(1);
    is $hd->get($uri, @fields)->status, $status, "$what: $status";
    is scalar(() = $hd->requests(1)), $before, "$what: nothing passes";
}

stopped('no password', 403, '/x');
stopped('another one', 403, '/x', 'X-Password' => 'cafe');
is $hd->get('/x', 'X-Password' => "caf\xc3\xa9\xff")->status, 200, 'bytes that are no UTF-8 are judged as they are';
like +($hd->requests(1))[-1]{head}, qr/^X-Password: caf\xc3\xa9\xff\r$/m, 'and go on so';
stopped('two of them', 403, '/x', 'X-Password' => 'no', 'X-Password' => "caf\xc3\xa9\xff");
stopped('it closes', 500, '/close');
stopped('it is down', 500, '/nobody/x', 'X-Password' => "caf\xc3\xa9\xff");
stopped('it says nothing', 500, '/quick/hang', 'X-Password' => "caf\xc3\xa9\xff");
stopped('it says rubbish', 500, '/rubbish');
stopped('it breaks off', 500, '/broken');
stopped("it says $_", 500, "/status$_") for 302, 404, 429, 500, 503;
stopped('it says 401', 401, '/status401');
stopped('asked for by its own name', 404, '/ask', 'X-Password' => "caf\xc3\xa9\xff");

my $before = () = $hd->requests(1);
my $c = Heddle::H2->new($hd->port(0));
$c->frame('HEADERS', 5, 1, Heddle::H2::fields(':method', 'GET', ':scheme', 'http', ':authority', 'a', 'x-password', "caf\xc3\xa9\xff"));
my $r = $c->response(1);
ok $r->{reset} || $r->{status} == 400 || $r->{closed}, 'no :path: refused';
is scalar(() = $hd->requests(1)), $before, 'and nobody was asked for it';
done_testing;
