#!/usr/bin/perl
# xds { … }: what is wrong is told by place and remedy, before anything runs.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $id = 'node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local;';
my @rows = (
    ['no server', "xds { $id }", qr/xds has no server: "server HOST:PORT \[tls\];"/],
    ['no node', 'xds { server 127.0.0.1:1; }', qr/no node id: "node_id /],
    ['tls without roots', "xds { server 127.0.0.1:1 tls; $id }", qr/needs "root_cert FILE;"/],
    ['an unknown parameter', "xds { server 127.0.0.1:1 tsl; $id }", qr/unknown parameter "tsl": "tls" is known/],
    ['a protocol that there isn\'t', "xds { server 127.0.0.1:1; xds_protocol rest; $id }", qr/rest/],
    ['a CA and no identity', "xds { server 127.0.0.1:1; ca 127.0.0.1:1; $id }", qr/ca needs an identity/],
    ['an identity of another kind', "xds { server 127.0.0.1:1; identity https://x; $id }", qr/spiffe:\/\/… is right/],
    ['no such node file', 'xds { server 127.0.0.1:1; node %%DIR%%/none.json; }', qr/none\.json" failed/],
    ['a node file that is no JSON', 'xds { server 127.0.0.1:1; node %%DIR%%/bad.json; }', qr/bad\.json: line 2/],
    ['a node file with a wrong member', 'xds { server 127.0.0.1:1; node %%DIR%%/id.json; }', qr/"id" of the node is no string/],
    ['a misspelt directive', "xds { sever 127.0.0.1:1; $id }", qr/unknown directive "sever": did you mean "server"\?/],
    ['admin without a port', 'admin 127.0.0.1;', qr/no port in "127\.0\.0\.1"/],
);
for my $row (@rows) {
    my ($what, $text, $want) = @$row;
    my $hd = Heddle->new->conf("$text\n");
    $hd->write('bad.json', "{\n\"id\": }\n");
    $hd->write('id.json', '{"id": 7}');
    my ($status, $said) = $hd->run('-t');
    ok $status != 0 && $said =~ $want && $said =~ /heddle\.conf:\d+/, $what or diag $said;
}

my $hd = Heddle->new->conf("xds { server 127.0.0.1:1; node %%DIR%%/node.json; node_metadata X y; snapshot %%DIR%%/s; }\n");
$hd->write('node.json', '{"id": "a~b~c~d", "metadata": {"LABELS": {"app": "page"}}, "locality": "r/z/s"}');
my ($status, $said) = $hd->run('-t');
is $status, 0, 'a node file' or diag $said;

done_testing;
