#!/usr/bin/perl
# A client that resets or closes its connection right behind its request: what it asked for is given up at once, whoever
# answers, and nothing of it stays. The worker finds request and end together, being stopped meanwhile.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    log_format short "$request_uri $status";
    access_log %%DIR%%/access.log short;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        client_max_body_size 0;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /large { root %%DIR%%; sendfile off; }
        location /body { proxy_request_buffering off; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /ok { return 200 ok; }
        location /delay { limit_rate 1; return 200 "some bytes"; }
    }
}
EOC
$hd->write('large', 'x' x 3_000_000);
$hd->backend(1, sub { {hang => 1} });
$hd->start;
my ($worker) = $hd->workers;

my %requests = (
    '/hang' => "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n",
    '/large' => "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
    '/body' => "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    '/delay' => "GET /delay HTTP/1.1\r\nHost: a\r\n\r\n",
);
sub logged { my ($uri) = @_; return scalar(() = $hd->file('access.log') =~ /^\Q$uri\E /mg) }

for my $uri (sort keys %requests) {
    for my $end ('reset', 'close') {
        for my $is_used (0, 1) { # by a request before
            my $c = $hd->connect;
            is $c->request('GET', '/ok')->status, 200, "$uri: a request before it" if $is_used;
            my $before = logged($uri);
            $hd->freeze($worker);
            $c->send($requests{$uri});
            $c->$end;
            kill 'CONT', $worker;
            ok eval { $hd->wait_for(sub { logged($uri) > $before }, "$uri in the log") }, "$uri, $end: it is over";
        }
    }
}
$hd->signal('QUIT');
ok eval { $hd->wait_for(sub { $hd->_has_ended }, 'the end') }, 'nobody is waited for';
done_testing;
