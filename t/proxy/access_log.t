#!/usr/bin/perl
# access_log and log_format (nginx: ngx_http_log_module): formats, escaping, inheritance, conditions,
# reopening.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Select;
use IO::Socket::INET;
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use Heddle;

my $udp = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') // die $@;
my $syslog = 'syslog:server=127.0.0.1:' . $udp->sockport;
my $conf = <<'EOC';
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
        location /gzip      { access_log %%DIR%%/gzip.log short gzip=9 flush=1h; return 200 ok; }
        location /flush     { access_log %%DIR%%/flush.log short buffer=64k flush=10ms; return 200 ok; }
        location /small     { access_log %%DIR%%/small.log short buffer=40; return 200 ok; }
        location /syslog    { access_log SYSLOG,severity=notice,facility=local3,tag=shop,nohostname short; return 200 ok; }
        location /default   { access_log SYSLOG short if=$arg_log; return 200 ok; }
        location /named     { root %%DIR%%/www; access_log %%DIR%%/vars/$arg_name.log short; return 200 ok; }
        location /kept      { root %%DIR%%/www; access_log %%DIR%%/vars/$arg_name.log short; return 200 ok;
                              open_log_file_cache max=2 inactive=1h min_uses=2 valid=1h; }
        location /checked   { root %%DIR%%/www; access_log %%DIR%%/vars/$arg_name.log short; return 200 ok;
                              open_log_file_cache max=2 inactive=1h valid=1s; }
        location /a-file    { alias %%DIR%%/heddle.conf; access_log %%DIR%%/vars/$arg_name.log short; return 200 ok; }
        location /rootless  { root %%DIR%%/nowhere; access_log %%DIR%%/vars/$arg_name.log short; return 200 ok; }
        location /inner     { location /inner/x { return 200 ok; } return 204; }
    }
}
EOC
my $hd = Heddle->new->conf($conf =~ s/SYSLOG/$syslog/gr);
mkdir $hd->dir . "/$_" or die $! for 'www', 'vars';
chmod 0777, $hd->dir . '/vars';
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

# ---- gathered

$hd->get('/flush');
wait_lines('flush.log', 1);
is_deeply lines('flush.log'), ['GET /flush 200'], 'flush: after a time';
$hd->get('/small') for 1 .. 3;
wait_lines('small.log', 2);
is_deeply lines('small.log'), [('GET /small 200') x 2], 'a full buffer is written whole, what comes then is not';

# ---- syslog

sub datagram {
    IO::Select->new($udp)->can_read(Heddle::deadline_s()) or return '(none)';
    $udp->recv(my $text, 65536) // die $!;
    return $text;
}
$hd->get('/syslog');
like datagram(), qr{^<157>\w{3} [ \d]\d \d\d:\d\d:\d\d shop: GET /syslog 200$}, 'syslog: facility, severity, tag, no host name';
$hd->get("/default?log=$_") for 0, 1;
like datagram(), qr{^<190>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ (nginx|heddle): GET /default 200$}, 'the defaults, and if=';

# ---- variables in the name

sub named { $hd->file("vars/$_[0].log") }
sub wait_named { my ($name, $lines) = @_; $hd->wait_for(sub { named($name) eq join '', map { "GET $_ 200\n" } @$lines }, "@$lines in $name") }
$hd->get("/named?name=$_") for 'a', 'b', 'a';
wait_named('a', ['/named', '/named']);
wait_named('b', ['/named']);
pass 'a file of its own for each name';
$hd->get('/kept?name=k') for 1 .. 2;
wait_named('k', ['/kept', '/kept']);
rename $hd->dir . '/vars/k.log', $hd->dir . '/vars/k.old' or die $!;
$hd->get('/kept?name=k');
$hd->wait_for(sub { $hd->file('vars/k.old') =~ /(kept.*){3}/s }, 'a third line');
ok !-e $hd->dir . '/vars/k.log', 'open_log_file_cache: a file used twice is kept open';
$hd->get('/kept?name=once');
rename $hd->dir . '/vars/once.log', $hd->dir . '/vars/once.old' or die $! if $hd->wait_for(sub { named('once') }, 'a line');
$hd->get('/kept?name=once');
wait_named('once', ['/kept']);
pass 'min_uses: one used once is not';
$hd->get("/kept?name=$_") for 'x', 'x', 'y', 'y', 'k';
$hd->wait_for(sub { named('k') }, 'k made anew');
pass 'max: the least recently used one was closed';
$hd->get('/checked?name=c');
wait_named('c', ['/checked']);
$hd->expect_log(qr{stat\(\) "[^"]*/c.log" failed \(2:}) if !$hd->is_heddle;
rename $hd->dir . '/vars/c.log', $hd->dir . '/vars/c.old' or die $!;
$hd->wait_for(sub { $hd->get('/checked?name=c'); named('c') }, 'c made anew');
pass 'valid: a file that was renamed is opened anew';
$hd->get('/rootless?name=n');
$hd->get('/named?name=n');
wait_named('n', ['/named']);
pass 'no file where the root is not there';
like $hd->log, qr{no access log is written: "[^"]*/nowhere"}, '... which the error log says';
$hd->get('/a-file?name=f');
wait_named('f', ['/a-file']);

$hd->get('/buffered');
$hd->get('/gzip') for 1 .. 2;
$hd->stop('QUIT');
is_deeply lines('buffered.log'), ['GET /buffered 200'], 'what is buffered is written at the end';
is_deeply lines('small.log'), [('GET /small 200') x 3], 'wherever it was';
my $packed = $hd->file('gzip.log');
gunzip(\$packed => \my $text, MultiStream => 1) or fail $GunzipError;
is $text, "GET /gzip 200\n" x 2, 'gzip';

# ---- a full disk

SKIP: {
    skip 'no /dev/full', 2 if !-c '/dev/full';
    my $full = Heddle->new->conf(<<'EOC');
http {
    log_format short '$uri';
    access_log /dev/full short;
    access_log %%DIR%%/beside.log short;
    server { listen 127.0.0.1:%%PORT_0%%; return 200 ok; }
}
EOC
    $full->start;
    $full->expect_log(qr{write\(\) to "/dev/full" failed \(28: No space left on device\)});
    is $full->get('/1')->body . $full->get('/2')->body, 'okok', 'a full disk harms nobody';
    $full->wait_for(sub { $full->file('beside.log') eq "/1\n/2\n" }, 'both lines beside it');
    $full->stop;
    is scalar(() = $full->log =~ /No space left/g), 1, 'and is told of once a minute';
}
done_testing;
