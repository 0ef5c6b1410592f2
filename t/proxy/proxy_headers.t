#!/usr/bin/perl
# Fields towards the upstream and back (nginx: ngx_http_proxy_module, proxy_set_header,
# proxy_hide_header, proxy_pass_header, proxy_redirect).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    proxy_set_header X-Level http;
    upstream app { server 127.0.0.1:%%PORT_1%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_hide_header X-Hidden;
        location /           { proxy_pass http://app; }
        location /own/       { proxy_pass http://app; proxy_set_header Host "$host:99"; proxy_set_header X-Own $remote_addr; }
        location /empty/     { proxy_pass http://app; proxy_set_header Accept ""; proxy_set_header X-None $arg_none; }
        location /literal/   { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /passed/    { proxy_pass http://app; proxy_pass_header Server; proxy_pass_header Date; }
        location /redirect/  { proxy_pass http://app/under/; }
        location /redirect-off/  { proxy_pass http://app/under/; proxy_redirect off; }
        location /redirect-own/  { proxy_pass http://app/under/; proxy_redirect ~^http://app/(\w+)/(.*)$ https://out.test/$2/$1; proxy_redirect http://old.test/ /new/; }
        location /upgrade/   { proxy_pass http://app; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }
    }
}
EOC
$hd->backend(1, sub {
    my ($req) = @_;
    my ($to) = $req->{uri} =~ /to=(.*)/;
    return [302, [Location => $to, Refresh => "3; url=$to"], ''] if $to;
    return [200, ['X-Hidden' => 1, 'X-Shown' => 1, Server => 'its own', Date => 'its own',
        'X-Accel-Expires' => 1, 'Keep-Alive' => 'timeout=5'], $req->{head}];
});
$hd->start;

sub seen { $hd->get(@_)->body }

like seen('/'), qr/^Host: app\r$/m, 'Host is what proxy_pass names';
like seen('/'), qr/^X-Level: http\r$/m, 'inherited';
like seen('/literal/'), qr/^Host: 127\.0\.0\.1:${\$hd->port(1)}\r$/m, 'with its port';
like seen('/own/'), qr/^Host: localhost:99\r$/m, 'Host set';
like seen('/own/'), qr/^X-Own: 127\.0\.0\.1\r$/m, 'a field set';
unlike seen('/own/'), qr/X-Level/, 'a block with one inherits none';
like seen('/', 'X-Mine' => 'a b'), qr/^X-Mine: a b\r$/m, "the client's pass";
unlike seen('/empty/', Accept => '*/*'), qr/^Accept:/m, 'an empty value takes one away';
unlike seen('/empty/'), qr/X-None/, 'or adds none';
unlike seen('/', Connection => 'close, X-Hop', 'X-Hop' => 1, TE => 'trailers', 'Keep-Alive' => 'x',
    'Proxy-Connection' => 'x'), qr/X-Hop|^TE|Keep-Alive|Proxy-Connection/mi,
    'hop-by-hop fields stay on their hop (RFC 9110 §7.6.1)';
like seen('/', 'X_Under' => 1, 'X-Fine' => 1), qr/\A(?!.*X_Under).*X-Fine/s,
    'names with underscores are dropped';
unlike seen('/', Upgrade => 'websocket', Connection => 'Upgrade, close'), qr/Upgrade/i,
    'no upgrade where none is configured';
like seen('/upgrade/', Upgrade => 'websocket', Connection => 'Upgrade'), qr/^Upgrade: websocket\r$/m,
    'an upgrade where it is';
unlike seen('/upgrade/'), qr/^Upgrade/mi, 'if the client asks';

my $r = $hd->get('/');
is $r->header('x-hidden'), undef, 'hidden';
is $r->header('x-shown'), 1, 'passed';
is $r->header('x-accel-expires'), undef, 'X-Accel-… are for the proxy';
is $r->header('keep-alive'), undef, 'hop-by-hop ones, too';
like $r->header('server'), qr/^heddle/, 'Server is ours';
like $r->header('date'), qr/ GMT$/, 'Date, too';
is $hd->get('/passed/')->header($_), 'its own', "unless passed: $_" for 'Server', 'Date';

my $here = 'http://localhost:' . $hd->port(0);
for (
    ['/redirect/', 'http://app/under/x', "$here/redirect/x", 'what proxy_pass names is the location'],
    ['/redirect/', 'http://app/elsewhere', 'http://app/elsewhere', 'what it does not name stays'],
    ['/redirect/', '/under/x', '/under/x', 'a path stays'],
    ['/', 'http://app/x', "$here/x", 'without a URI the root is meant'],
    ['/redirect-off/', 'http://app/under/x', 'http://app/under/x', 'off'],
    ['/redirect-own/', 'http://app/one/two', 'https://out.test/two/one', 'a regular expression'],
    ['/redirect-own/', 'http://old.test/x', "$here/new/x", 'text'],
    ['/redirect-own/', 'http://app', 'http://app', 'none fits'],
) {
    my ($location, $to, $want, $name) = @$_;
    my $r = $hd->get("$location?to=$to");
    is $r->header('location'), $want, "Location: $name";
    my $path = $want =~ s/^\Q$here\E//r;
    is $r->header('refresh'), "3; url=$path", "Refresh: $name";
}
for my $location ('/', '/passed/') { # these answers have neither
    my $r = $hd->get("$location?to=http://app/x");
    my $own = $location eq '/' ? 1 : 0;
    is defined $r->header($_) ? 1 : 0, $own, "$location: " . ($own ? 'our' : 'no') . " $_" for 'server', 'date';
}
done_testing;
