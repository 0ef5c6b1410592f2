#!/usr/bin/perl
# mirror: what the copies are like, and that nobody waits for them; a request that ends while its
# auth_request is still out. Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
$hd->{modules} = ['auth_request', 'mirror', 'access_log'] if $hd->is_heddle;
$hd->conf(<<'EOC');
http {
    log_format uri "$uri";
    access_log %%DIR%%/access.log uri;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / {
            mirror /copy;
            proxy_pass http://127.0.0.1:%%PORT_1%%;
        }
        location = /copy {
            internal;
            proxy_pass http://127.0.0.1:%%PORT_2%%/copied$request_uri;
            proxy_set_header X-Method $request_method;
            proxy_connect_timeout 1s;
        }
        location /logged/ { mirror /log-me; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /log-me { internal; log_subrequest on; proxy_pass http://127.0.0.1:%%PORT_2%%; }
        location /off/ { mirror off; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /twice/ { mirror /copy; mirror /bare; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /nobody/ { mirror /bare; mirror_request_body off; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /bare {
            internal;
            proxy_pass http://127.0.0.1:%%PORT_2%%/bare$request_uri;
            proxy_set_header Content-Length "";
        }
        location /slow/ { mirror /hang; return 200 done; }
        location /hang/ { mirror /to-hang; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /to-hang { internal; proxy_pass http://127.0.0.1:%%PORT_3%%; proxy_read_timeout 1s; }
        location /dead/ { mirror /to-dead; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location = /to-dead { internal; proxy_pass http://127.0.0.1:%%PORT_4%%; }
        location /auth/ { auth_request /to-hang; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
EOC
$hd->backend(1, sub { 'main' });
$hd->backend(2, sub { 'copy' });
$hd->backend(3, sub { {hang => 1} });
$hd->start;

# Waits for the <n>th request on back end 2.
sub copy {
    my ($n) = @_;
    return $hd->wait_for(sub { my @r = $hd->requests(2); @r >= $n ? $r[$n - 1] : undef }, "copy $n");
}

is $hd->get('/a?b=c', 'X-Test' => 'yes')->body, 'main', 'the answer is the main one\'s';
my $copy = copy(1);
is "$copy->{method} $copy->{uri}", 'GET /copied/a?b=c', 'a copy of the request';
is $copy->{headers}{'x-test'} // join('', map { lc $_->[0] eq 'x-test' ? $_->[1] : () } @{$copy->{fields} // []}),
    'yes', 'with its fields' if ref $copy->{headers} eq 'HASH';

my $body = join '', map { "line $_\n" } 1 .. 9000;
is $hd->post('/post', $body)->body, 'main', 'a POST';
$copy = copy(2);
is $copy->{method}, 'POST', 'is copied as a POST';
ok $copy->{body} eq $body, 'with its body';
ok +($hd->requests(1))[1]{body} eq $body, 'and so the main one';

is $hd->get('/off/x')->body, 'main', 'mirror off';
is $hd->post('/nobody/x', 'some body')->body, 'main', 'mirror_request_body off';
$copy = copy(3);
is "$copy->{uri} <$copy->{body}>", '/bare/nobody/x <>', 'no body, and none of the location before';
is $hd->get('/twice/x')->body, 'main', 'two mirrors';
copy(5);
is join(' ', sort map { $_->{uri} } ($hd->requests(2))[3, 4]), '/bare/twice/x /copied/twice/x', 'both got it';

is $hd->get('/hang/x')->body, 'main', 'nobody waits for a mirror that hangs';
is $hd->get('/dead/x')->body, 'main', 'nor for one that is down';
is $hd->get('/slow/x')->body, 'done', 'return comes before';

$hd->get('/logged/x');
$hd->wait_for(sub { $hd->file('access.log') =~ m{^/log-me$}m }, 'log_subrequest on');
unlike $hd->file('access.log'), qr{^/copy$}m, 'others are not logged';

my $c = $hd->connect(0);
$c->send("GET /auth/x HTTP/1.1\r\nHost: a\r\n\r\n");
$hd->wait_for(sub { $hd->requests(3) >= 2 }, 'the question is out');
$c->close;
is $hd->get('/off/y')->body, 'main', 'a client that left while its auth_request was out harms nobody';
ok !(grep { $_->{uri} eq '/auth/x' } $hd->requests(1)), 'and its request did not pass';
done_testing;
