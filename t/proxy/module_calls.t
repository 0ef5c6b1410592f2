#!/usr/bin/perl
# What a module may do beyond filters, shown by t/lib/modules/caller: calls to a cluster by HTTP and
# gRPC, whose answer decides on a request; the choice of an endpoint; functions for policy scripts.
use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

my $module = Heddle::Echo::path('caller');

# ---- who answers gRPC: a Heddle with a script, so that nothing else is needed

my $grpc = Heddle->new(modules => ['lua'])->conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:%%PORT_5%%; http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_6%%; proxy_http_version 1.1; }
    }
}
EOC
$grpc->backend(6, sub {
    my ($req) = @_;
    my $n = unpack 'N', substr $req->{body}, 1, 4;
    my $asked = substr $req->{body}, 5, $n;
    my $said = "you asked for $asked";
    my $message = "\0" . pack('N', length $said) . $said;
    my $status = $asked =~ /bad/ ? 7 : 0;
    return {raw => "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n"
        . sprintf('%x', length $message) . "\r\n$message\r\n0\r\ngrpc-status: $status\r\n\r\n"};
});
$grpc->start;

my $hd = Heddle->new(ports => $grpc->{ports}, workers => 2)->conf("load_module $module;\n" . <<'EOC');
http {
    upstream judge { server 127.0.0.1:%%PORT_2%%; }
    upstream grpc_judge { server 127.0.0.1:%%PORT_5%%; }
    upstream nobody { server 127.0.0.1:%%PORT_8%%; }
    upstream two { server 127.0.0.1:%%PORT_3%%; server 127.0.0.1:%%PORT_4%%; }
    upstream down { server 127.0.0.1:%%PORT_3%%; server 127.0.0.1:%%PORT_4%% down; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /asked { ask judge /judge?of=me; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /grpc { ask_grpc grpc_judge /judge.Judge/Ask; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /nobody { ask nobody /; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /fourth { choose 127.0.0.1:%%PORT_4%%; proxy_pass http://two; }
        location /stranger { choose 127.0.0.1:%%PORT_1%%; proxy_pass http://two; }
        location /only { choose 127.0.0.1:%%PORT_1%% only; proxy_pass http://two; }
        location /down { choose 127.0.0.1:%%PORT_4%%; proxy_pass http://down; }
        location /down_only { choose 127.0.0.1:%%PORT_4%% only; proxy_pass http://down; }
        location /least { choose least; proxy_pass http://two; }
        location /script {
            access_by_lua_block { hd.req.set_header("X-Sum", hd.caller.add(2, 3) .. " " .. hd.caller.path()) }
            proxy_pass http://127.0.0.1:%%PORT_1%%;
        }
        location /wrong { access_by_lua_block { hd.caller.add("two", "three") } return 204; }
        location /failing { access_by_lua_block { hd.caller.fail("a reason") } return 204; }
        location /none { access_by_lua_block { hd.caller.nothing() } return 204; }
        location /closed { access_by_lua_block { hd.caller.add = nil } return 204; }
    }
}
EOC
$hd->echo_server(1);
my $verdict = 200;
$hd->backend(2, sub {
    my ($req) = @_;
    return {status => 200, body => 'late', after => 30} if -e $hd->dir . '/slow';
    return [-e $hd->dir . '/deny' ? 418 : 200, {'X-Who' => "asked for $req->{uri}"}, "no, says the judge\n"];
});
$hd->backend($_, eval "sub { 'at $_' }") for 3, 4;
$hd->start;

like $hd->get('/asked')->body, qr{^x-who: asked for /judge\?of=me\r?$}mi, 'HTTP: what the answer says goes upstream';
is_deeply [map { "$_->{method} $_->{uri}" } $hd->requests(2)], ['GET /judge?of=me'], 'one call was made';
$hd->write('deny', '');
my $r = $hd->get('/asked');
is $r->status . ' ' . $r->body, "403 no, says the judge\n", 'an answer that refuses';
is scalar($hd->requests(1)), 1, 'and nothing passes';
is $hd->get('/nobody')->body, "nobody to ask\n", 'nobody answers: the module decides';
like $hd->get('/grpc/good')->body, qr{^x-said: you asked for /grpc/good\r?$}mi, 'gRPC: message and status';
is $hd->get('/grpc/bad')->body, '7', 'a status that refuses';

# a client that goes away takes its call along
$hd->write('slow', '');
my $c = $hd->connect;
$c->send("GET /asked HTTP/1.1\r\nHost: a\r\n\r\n");
$hd->wait_for(sub { $hd->requests(2) >= 3 }, 'the call');
$c->reset;
$hd->wait_log(qr{call cancelled.*judge}i);
pass 'a client that leaves meanwhile';

is join(' ', map { $hd->get('/fourth')->body } 1 .. 4), join(' ', ('at 4') x 4), 'the endpoint that is wanted';
like join(' ', map { $hd->get('/stranger')->body } 1 .. 8), qr/^(?=.*at 3)(?=.*at 4)/, 'who is no endpoint: any other';
is $hd->get('/only')->status, 502, 'or nobody';
is $hd->get('/down')->body, 'at 3', 'one that may not serve: another';
is $hd->get('/down_only')->status, 502, 'or nobody';
like $hd->get('/least')->body, qr/^at [34]$/, 'by its load';

like $hd->get('/script/x')->body, qr{^x-sum: 5 /script/x\r?$}mi, 'scripts call it';
for (['/wrong', qr/add: two numbers are wanted/], ['/failing', qr/fail: failed as told: a reason/],
    ['/none', qr/attempt to call field 'nothing'/], ['/closed', qr/"add" can't be set/]) {
    my ($path, $why) = @$_;
    is $hd->get($path)->status, 500, "$path: an error of the script";
    ok $hd->wait_log($why), 'with the reason';
}
done_testing;
