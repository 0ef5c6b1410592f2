#!/usr/bin/perl
# access_log and log_format (nginx: ngx_http_log_module): formats, escaping, inheritance, conditions,
# reopening.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    log_format short '$request_method $uri $status';
    log_format quoted '<$http_x>';
    log_format json escape=json '{"x":"$http_x","none":"$http_none"}';
    log_format raw escape=none '<$http_x>$http_none';
    log_format parts "$scheme"
        ' ' '$server_port';
    log_format counts '$status $body_bytes_sent $bytes_sent $request_length';
    access_log %%DIR%%/all.log short;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /          { return 200 ok; }
        location /off       { access_log off; return 200 ok; }
        location /own       { access_log %%DIR%%/own.log; return 200 ok; }
        location /two       { access_log %%DIR%%/a.log short; access_log %%DIR%%/b.log parts; return 200 ok; }
        location /quoted    { access_log %%DIR%%/quoted.log quoted; return 200 ok; }
        location /json      { access_log %%DIR%%/json.log json; return 200 ok; }
        location /raw       { access_log %%DIR%%/raw.log raw; return 200 ok; }
        location /if        { access_log %%DIR%%/if.log short if=$arg_log; return 200 ok; }
        location /buffered  { access_log %%DIR%%/buffered.log short buffer=64k flush=1h; return 200 ok; }
        location /counts    { access_log %%DIR%%/counts.log counts; return 200 four; }
        location /inner     { location /inner/x { return 200 ok; } return 204; }
    }
}
EOC
$hd->start;

sub lines { [split /\n/, $hd->file($_[0])] }
sub wait_lines { my ($file, $n) = @_; $hd->wait_for(sub { @{lines($file)} >= $n }, "$n lines in $file") }

$hd->get($_) for '/', '/off', '/x?y', '/inner/x';
$hd->raw("BAD\r\n\r\n");
wait_lines('all.log', 4);
is_deeply [grep { / 2/ } @{lines('all.log')}], ['GET / 200', 'GET /x 200', 'GET /inner/x 200'],
    'a line a request; off is off; the query is no part of $uri';
like join('', grep { !/ 2/ } @{lines('all.log')}), qr/^\S+ - 400$/, 'what is no request is logged, too';

$hd->get('/own', 'User-Agent' => 'ua', Referer => 'here');
wait_lines('own.log', 1);
like lines('own.log')->[0], qr{^127\.0\.0\.1 - - \[\d\d/\w\w\w/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /own HTTP/1\.1" 200 2 "here" "ua"$},
    'combined is the default format';
is scalar(grep { m{/own} } @{lines('all.log')}), 0, 'a block with access_log inherits none';

$hd->get('/two');
wait_lines('b.log', 1);
is_deeply [lines('a.log'), lines('b.log')], [['GET /two 200'], ['http ' . $hd->port(0)]],
    'two logs, a format of several strings';

my $x = qq{a"b\\c\td\xe9};
$hd->get("/$_", 'X' => $x) for 'quoted', 'json', 'raw';
wait_lines('raw.log', 1);
is lines('quoted.log')->[0], '<a\x22b\x5Cc\x09d\xE9>', 'escaped as \xHH';
is lines('json.log')->[0], qq<{"x":"a\\"b\\\\c\\td\xe9","none":""}>, 'as in JSON';
is lines('raw.log')->[0], "<$x>", 'not at all';
$hd->get('/quoted');
wait_lines('quoted.log', 2);
is lines('quoted.log')->[1], '<->', 'no value is a dash';

$hd->get("/if?log=$_") for '', 0, 1, 'yes';
wait_lines('if.log', 2);
is scalar(@{lines('if.log')}), 2, 'if: neither empty nor 0';

$hd->raw("GET /counts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
wait_lines('counts.log', 1);
like lines('counts.log')->[0], qr/^200 4 (\d+) 52$/, 'bytes';

rename $hd->dir . '/all.log', $hd->dir . '/all.old';
$hd->signal('USR1');
$hd->wait_for(sub { -e $hd->dir . '/all.log' }, 'the new file');
$hd->wait_for(sub { $hd->get('/again'); @{lines('all.log')} }, 'a line in the new file');
like lines('all.log')->[0], qr{/again}, 'USR1: another file';

$hd->get('/buffered');
$hd->stop('QUIT');
is_deeply lines('buffered.log'), ['GET /buffered 200'], 'what is buffered is written at the end';
done_testing;
