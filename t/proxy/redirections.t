#!/usr/bin/perl
# Internal redirections: what one location says towards its upstream is nothing to the next one,
# tries of both are told of, and a 401's page asks for a name (nginx: error_page, X-Accel-Redirect).
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    log_format up '$request_uri|$upstream_addr|$upstream_status|$status|$request_body';
    access_log %%DIR%%/a.log up;
    upstream two { server 127.0.0.1:%%PORT_1%% max_fails=0; server 127.0.0.1:%%PORT_1%% max_fails=0; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_http_version 1.1;
        location /to/ {
            proxy_set_header X-First $request_method;
            proxy_set_header Host first.example;
            proxy_set_header Connection "";
            proxy_pass http://127.0.0.1:%%PORT_1%%/first/;
            proxy_intercept_errors on;
            error_page 404 = @named;
            error_page 403 = /second/;
        }
        location @named { proxy_set_header X-Second 1; proxy_set_header Connection ""; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /second/ { proxy_set_header Connection ""; proxy_pass http://127.0.0.1:%%PORT_1%%/other/; }
        location /tries/ { proxy_pass http://two/first/; proxy_next_upstream http_404; error_page 404 = @named; proxy_intercept_errors on; }
        location /body/ { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /nobody/ { return 200 "[$request_body]"; }
        location /page/ { proxy_pass http://127.0.0.1:%%PORT_1%%/first/; proxy_intercept_errors on; error_page 405 /told; error_page 409 = /nothing/; }
        location /nothing/ { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
        location /accel/ { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /files/ { internal; alias %%DIR%%/; }
        location /status/ { error_page 404 /told; return 404; }
        location /told { return 200 "$status"; }
    }
}
EOC
$hd->backend(1, sub {
    my ($r) = @_;
    return [$1, {}, ''] if $r->{uri} =~ m{^/first/(\d+)};
    return [200, {'X-Accel-Redirect' => '/files/digits.txt', 'Content-Type' => 'a/b'}, ''] if $r->{uri} =~ m{^/accel/};
    return $r->{head};
});
$hd->write('digits.txt', '0123456789');
$hd->start;
my $port = $hd->port(1);

my $seen = $hd->get('/to/404/x')->body;
like $seen, qr{^GET /to/404/x HTTP}, 'named: the path is the request\'s';
like $seen, qr/^Host: 127\.0\.0\.1:$port\r$/m, '... the Host its own';
like $seen, qr/^X-Second: 1\r$/m, '... its own fields are there';
unlike $seen, qr/^X-First/m, '... and none of the first';
$seen = $hd->get('/to/403/x')->body;
like $seen, qr{^GET /other/ HTTP}, 'another location: its path';
unlike $seen, qr/^X-First/m, '... without the first one\'s fields';
is $hd->get('/status/')->body, 404, '$status on an error page';
is $hd->get("/tries/404")->status, 200, 'two tries, and another group';
$hd->post('/body/', 'a=1&b="2"');
$hd->post('/body/', 'x' x 40_000);
$hd->get('/nobody/');
is $hd->post('/page/405', 'p=405')->status, 405, 'a page in the place of an upstream\'s error';
is $hd->post('/page/409', 'p=409')->status, 200, '... and another upstream, without the body';
is $hd->post('/accel/', 'p=x')->body, '0123456789', 'X-Accel-Redirect to a file';
my $parts = $hd->get('/accel/', Range => 'bytes=0-1,4-5');
like $parts->header('Content-Type'), qr{^multipart/byteranges; boundary=}, 'several ranges of it are a multipart';
like $parts->body, qr{\r\nContent-Type: a/b\r\nContent-Range: bytes 4-5/10\r\n\r\n45\r\n}, '... whose parts have the type that the upstream gave';
is $hd->get('/accel/', Range => 'bytes=0-1')->header('Content-Type'), 'a/b', 'one range has it itself';
$hd->wait_for(sub { ($hd->file('a.log') =~ tr/\n//) >= 12 }, 'the log');
my $log = $hd->file('a.log');
like $log, qr{^/to/404/x\|127\.0\.0\.1:$port : 127\.0\.0\.1:$port\|404 : 200\|200\|-$}m, 'groups stand behind a colon';
like $log, qr{^/tries/404\|127\.0\.0\.1:$port, 127\.0\.0\.1:$port : 127\.0\.0\.1:$port\|404, 404 : 200\|}m, 'tries behind a comma'
;
like $log, qr{^/body/\|[^|]*\|200\|200\|a=1&b=\\x222\\x22$}m, '$request_body in a log';
like $log, qr{^/$_\n?}m, "... behind a redirection: $_" for 'page/405\|[^|]*\|405\|405\|p=405', 'page/409\|[^|]*\|409 : 200\|200\|p=409', 'accel/\|[^|]*\|200\|200\|p=x';
like $log, qr{^/body/\|[^|]*\|200\|200\|-$}m, '... not that of a long one';
done_testing;
