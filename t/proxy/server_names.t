#!/usr/bin/perl
# Which server answers: by address, then by name (nginx: "How nginx processes a request", server
# names: exact, longest *.x, longest x.*, first regular expression, default server).
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    server { listen 127.0.0.1:%%PORT_0%%; server_name exact.example; return 200 exact; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name *.example; return 200 suffix; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name *.long.example; return 200 longer; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name www.*; return 200 prefix; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name www.long.*; return 200 longer-prefix; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name ~^re(\d+)\.; return 200 regex$1; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name ~^(?<user>\w+)\.(?<site>\w+)\.home$ ~^(?<user>\w+)\.away$; location ~ ^/(?<page>\w+) { return 200 "$user at $site on $page"; } }
    server { listen 127.0.0.1:%%PORT_0%%; server_name ~^re; return 200 later; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name .both.test; return 200 both; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name ""; return 200 nameless; }
    server { listen 127.0.0.1:%%PORT_0%% default_server; server_name _; return 200 default; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name MiXed.Example.Test; return 200 mixed; }

    server { listen 127.0.0.1:%%PORT_1%%; server_name first; return 200 first; }
    server { listen 127.0.0.1:%%PORT_1%%; server_name exact.example; return 200 other; }

    server { listen 127.0.0.1:%%PORT_2%%; listen 127.0.0.1:%%PORT_3%%; return 200 "$server_port"; }
}
EOC
$hd->start;

my @rows = (
    [0, 'exact.example', 'exact', 'an exact name'],
    [0, 'EXACT.Example', 'exact', 'in any case'],
    [0, 'exact.example:8080', 'exact', 'whatever the port'],
    [0, 'exact.example.', 'exact', 'an absolute name'],
    [0, 'a.example', 'suffix', 'a star in front'],
    [0, 'a.b.example', 'suffix', 'stands for several labels'],
    [0, 'example', 'default', 'but for one at least'],
    [0, 'a.long.example', 'longer', 'the longest suffix wins'],
    [0, 'www.example', 'suffix', 'a suffix wins over a prefix'],
    [0, 'www.test', 'prefix', 'a star behind'],
    [0, 'www.long.test', 'longer-prefix', 'the longest prefix wins'],
    [0, 're12.test', 'regex12', 'a regular expression, with its group'],
    [0, 'ann.shop.home', 'ann at shop on x', 'named groups'],
    [0, 'bob.away', 'bob at  on x', 'of the expression that matched'],
    [0, 're.test', 'later', 'the next one'],
    [0, 're1.example', 'suffix', 'wildcards come before them'],
    [0, 'both.test', 'both', '.x is x'],
    [0, 'a.both.test', 'both', 'and *.x'],
    [0, 'aboth.test', 'default', 'with a dot between'],
    [0, 'mixed.example.test', 'mixed', 'names are lower case everywhere'],
    [0, 'unknown.test', 'default', 'default_server, wherever it stands'],
    [0, '127.0.0.1', 'default', 'an address'],
    [0, '[::1]:80', 'default', 'an IPv6 address'],
    [1, 'exact.example', 'other', 'another port has its own servers'],
    [1, 'a.example', 'first', 'without default_server it is the first'],
);
for my $row (@rows) {
    my ($port, $host, $want, $name) = @$row;
    is $hd->get('/x', {port => $port}, Host => $host)->body, $want, "$name ($host)";
}
like $hd->raw("GET / HTTP/1.0\r\n\r\n"), qr/\r\n\r\nnameless$/, 'no Host: the server named ""';
like $hd->raw("GET / HTTP/1.1\r\nHost: unknown.test\r\nConnection: close\r\n\r\n", 1), qr/first$/, 'raw';
is $hd->get('/', {port => $_})->body, $hd->port($_), 'one server, two addresses' for 2, 3;
done_testing;
