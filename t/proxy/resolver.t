#!/usr/bin/perl
# `resolver`: servers of an upstream that are names (`resolve`, `service=`), looked up again and again by the
# agent, whose answers reach living workers; hosts that variables make, looked up while the request waits.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Dns;
use IO::Socket::IP;

my $hd = Heddle->new(workers => 2)->conf(<<'EOC');
http {
    resolver 127.0.0.1:%%PORT_dns%% ipv6=off;
    resolver_timeout 5s;
    upstream one   { zone one 64k; server one.test:%%PORT_back%% resolve; }
    upstream both  { least_conn; server both.test:%%PORT_back%% resolve max_fails=0;
                     server 127.0.0.3:%%PORT_back%% backup; }
    upstream even  { hash $arg_key consistent; server both.test:%%PORT_back%% resolve; }
    upstream srv   { server srv.test service=http resolve; }
    upstream own   { server srv.test service=_x._udp resolve; }
    upstream stale { server stale.test:%%PORT_back%% resolve; }
    upstream gone  { server gone.test:%%PORT_back%% resolve; }
    upstream valid { resolver 127.0.0.1:%%PORT_dns%% valid=1s ipv6=off; server valid.test:%%PORT_back%% resolve; }
    upstream big   { server big.test:%%PORT_back%% resolve; }
    upstream alias { server alias.test:%%PORT_back%% resolve; }
    upstream six   { resolver 127.0.0.1:%%PORT_dns%% ipv4=off; server six.test:%%PORT_back%% resolve; }
    upstream fixed { server 127.0.0.1:%%PORT_back%%; }
    log_format up '$uri $upstream_addr $proxy_host';
    access_log %%DIR%%/access.log up;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_next_upstream off;
        location /one   { proxy_pass http://one; }
        location /both  { proxy_pass http://both; }
        location /even  { proxy_pass http://even; }
        location /srv   { proxy_pass http://srv; }
        location /own   { proxy_pass http://own; }
        location /stale { proxy_pass http://stale; }
        location /gone  { proxy_pass http://gone; }
        location /valid { proxy_pass http://valid; }
        location /big   { proxy_pass http://big; }
        location /alias { proxy_pass http://alias; }
        location /six   { proxy_pass http://six; }
        location /var   { proxy_pass http://$arg_host:%%PORT_back%%; }
        location /all   { proxy_next_upstream error timeout; proxy_pass http://$arg_host:%%PORT_half%%; }
        location /whole { proxy_pass $arg_url; }
        location /short { resolver_timeout 1s; proxy_pass http://$arg_host:%%PORT_back%%; }
        location /body  { client_max_body_size 10m; proxy_pass http://$arg_host:%%PORT_back%%; }
        location /none  { resolver 127.0.0.1:%%PORT_void%%; resolver_timeout 1s; proxy_pass http://$arg_host:%%PORT_back%%; }
    }
}
EOC
my $dns = Heddle::Dns->new($hd, 'dns');
for my $addr ('127.0.0.1', '127.0.0.2', '127.0.0.3', '::1') {
    my $listener = IO::Socket::IP->new(LocalHost => $addr, LocalPort => $hd->port('back'), Listen => 128, ReuseAddr => 1)
        or die "$addr: $@";
    Heddle::Backend::spawn(sub { Heddle::Backend::http($listener, $hd->dir . "/back-$addr",
        sub { my ($r) = @_; "$addr " . length($r->{body} // '') }) });
}
my $half = Heddle::Backend::listener($hd->port('half'), '127.0.0.2');
Heddle::Backend::spawn(sub { Heddle::Backend::http($half, $hd->dir . '/half', sub { 'half' }) });
my $back = $hd->port('back');
$dns->set(
    'one.test' => {ttl => 1, A => ['127.0.0.1'], AAAA => ['::1']},
    'both.test' => {ttl => 60, A => ['127.0.0.1', '127.0.0.2']},
    'valid.test' => {ttl => 3600, A => ['127.0.0.1']},
    'stale.test' => {ttl => 1, A => ['127.0.0.1']},
    'gone.test' => {ttl => 1, A => ['127.0.0.1']},
    'six.test' => {ttl => 60, A => ['127.0.0.1'], AAAA => ['::1']},
    'big.test' => {ttl => 60, A => [map { "127.0.1.$_" } 1 .. 60], truncated => 1},
    'alias.test' => {ttl => 60, CNAME => 'both.test'},
    '_http._tcp.srv.test' => {ttl => 1, SRV => [[10, 3, $back, 'a.test'], [10, 1, $back, 'b.test'], [20, 1, $back, 'c.test']]},
    '_x._udp.srv.test' => {ttl => 60, SRV => [[1, 0, $back, 'b.test']]},
    'a.test' => {ttl => 60, A => ['127.0.0.1']},
    'b.test' => {ttl => 60, A => ['127.0.0.2']},
    'c.test' => {ttl => 60, A => ['127.0.0.3']},
    'var.test' => {ttl => 1, A => ['127.0.0.2']},
    'two.test' => {ttl => 60, A => ['127.0.0.1', '127.0.0.2']},
    'fresh.test' => {ttl => 60, A => ['127.0.0.1']},
    'keep.test' => {ttl => 1, A => ['127.0.0.1']},
    'slow.test' => 'SILENT',
    'ill.test' => 'SERVFAIL',
);
$hd->start;
my $body = sub { my $r = $hd->get($_[0]); $r->status == 200 ? ($r->body =~ /^(\S+)/)[0] : $r->status };
my $seen = sub { my ($uri, $n) = @_; my %n; $n{$body->($uri)}++ for 1 .. $n; return \%n };
my $becomes = sub {
    my ($uri, $what, $name) = @_;
    is eval { $hd->wait_for(sub { $body->($uri) eq $what }, $name); $what } // $@, $what, $name;
};

# servers that are names: until the first answer there is nobody but the backup
for my $uri (map { "/$_" } qw(one srv own even six alias stale gone valid)) {
    $hd->wait_for(sub { $body->($uri) ne 502 }, "the names of $uri");
}
is $body->('/one'), '127.0.0.1', 'a server by its name';
$hd->wait_for(sub { $body->('/both') ne '127.0.0.3' }, 'the names of both');
is_deeply [sort keys %{$seen->('/both', 12)}], ['127.0.0.1', '127.0.0.2'], 'all addresses of a name; the backup waits';
is_deeply [map { my $k = $_; scalar keys %{$seen->("/even?key=$k", 3)} } 1 .. 4], [1, 1, 1, 1], 'a hash over them';
is $body->('/six'), '::1', 'ipv4=off: IPv6';
ok !$dns->asked('one.test', 'AAAA'), 'ipv6=off: not asked for';
like $body->('/alias'), qr/^127\.0\.0\.[12]$/, 'an alias leads on';
ok $hd->wait_for(sub { $dns->asked('big.test', 'A', 'tcp') }), 'a long answer comes over TCP';

# SRV
my $srv = $seen->('/srv', 40);
is_deeply [sort keys %$srv], ['127.0.0.1', '127.0.0.2'], 'service=http: ports are DNS\'s, the next priority stands by';
cmp_ok $srv->{'127.0.0.1'}, '>', $srv->{'127.0.0.2'}, 'and weights';
is $body->('/own'), '127.0.0.2', 'service=_x._udp: a weight of 0 is 1';
is $body->("/$_"), '127.0.0.1', "$_, before" for 'stale', 'gone', 'valid';

# changes reach living workers when the TTL is over
$dns->set(
    'one.test' => {ttl => 1, A => ['127.0.0.2']},
    '_http._tcp.srv.test' => {ttl => 1, SRV => [[5, 1, $back, 'd.test'], [20, 1, $back, 'c.test']]},
    'stale.test' => 'SERVFAIL',
    'gone.test' => 'NXDOMAIN',
    'valid.test' => {ttl => 3600, A => ['127.0.0.2']},
);
$becomes->('/one', '127.0.0.2', 'another answer');
$becomes->('/valid', '127.0.0.2', 'valid=1s comes before the TTL');
$becomes->('/gone', 502, 'no such name any more: no server');
$becomes->('/srv', '127.0.0.3', 'SRV: the first have no address: the next priority serves');
$hd->wait_log(qr/dns: "stale\.test": .*the last answer stays/);
is $body->('/stale'), '127.0.0.1', 'DNS fails: the last answer stays';
$dns->set('gone.test' => {ttl => 1, A => ['127.0.0.3']});
$becomes->('/gone', '127.0.0.3', 'the name is there again');

# hosts that variables make
is $body->('/var?host=var.test'), '127.0.0.2', 'a name is looked up while the request waits';
is $body->('/var?host=VAR.test'), '127.0.0.2', 'in any case';
cmp_ok $dns->asked('var.test', 'A'), '<=', 2, 'once for both workers while it counts';
is $body->('/var?host=127.0.0.3'), '127.0.0.3', 'an address needs nobody';
is $body->('/whole?url=http://127.0.0.1:' . $back . '/x'), '127.0.0.1', 'a whole URL';
is $body->('/whole?url=http://fixed/x'), '127.0.0.1', 'that names an upstream';
is $body->('/whole?url=http://one/x'), '127.0.0.2', 'whose servers are names';
is $body->('/whole?url=ftp://fixed/x'), 502, 'no scheme of ours';
$hd->wait_log(qr/invalid URL prefix in "ftp:/);
is $body->('/var?host=none.test'), 502, 'no such name';
$hd->wait_log(qr/none\.test could not be resolved \(3: Host not found\), client:/);
is $body->('/var?host=ill.test'), 502, 'a server that fails';
$hd->wait_log(qr/ill\.test could not be resolved \(2: Server failure\)/);
is $body->('/short?host=slow.test'), 502, 'a server that is silent';
$hd->wait_log(qr/slow\.test could not be resolved \(110: Operation timed out\)/);
is $body->('/none?host=var.test'), 502, 'no server there';
is $body->('/var?host=a..b'), 502, 'no name at all';
$hd->wait_log(qr/invalid host in upstream "a\.\.b:\d+"/);
is $body->("/all?host=two.test"), 'half', 'the next address, where one doesn\'t answer' for 1 .. 2;
$dns->set('var.test' => {ttl => 1, A => ['127.0.0.3']});
$becomes->('/var?host=var.test', '127.0.0.3', 'asked anew when the TTL is over');
is $body->('/var?host=keep.test'), '127.0.0.1', 'before';
$dns->set('keep.test' => 'SILENT');
my $asked = $dns->asked('keep.test', 'A');
ok $hd->wait_for(sub { $body->('/var?host=keep.test') eq '127.0.0.1' && $dns->asked('keep.test', 'A') > $asked }, 'asked again'),
    'DNS is silent: the old answer serves';
my $long = 'x' x 300_000;
like $hd->post('/body?host=fresh.test', $long)->body, qr/^127\.0\.0\.1 300000$/, 'a body waits, too';
is $hd->get('/one')->status, 200, 'all goes on';
like $hd->file('access.log'), qr/^\/var 127\.0\.0\.2:$back var\.test:$back$/m, 'the log says where, and $proxy_host' or diag $hd->file('access.log');

# reload: other servers, and no more names
$dns->set('one.test' => {ttl => 3600, A => ['127.0.0.1']}, 'late.test' => {ttl => 1, A => ['127.0.0.3']});
(my $text = do { open my $f, '<', $hd->conf_path or die; local $/; <$f> }) =~ s/server one\.test:(\d+) resolve/server late.test:$1 resolve/;
$text =~ s/server stale\.test:(\d+) resolve/server 127.0.0.2:$1/;
open my $f, '>', $hd->conf_path or die; print $f $text; close $f;
ok $hd->reload, 'reload';
$becomes->('/one', '127.0.0.3', 'a reload names another server');
$becomes->('/stale', '127.0.0.2', 'and none by name');
ok $hd->wait_for(sub { # a question that was under way is asked more than once
    my ($stale, $late) = map { $dns->asked("$_.test") } 'stale', 'late';
    $hd->wait_for(sub { $dns->asked('late.test') > $late + 1 }, 'the other one to be asked for');
    $dns->asked('stale.test') == $stale;
}), 'which is asked for no more, and the other one is';

# the agent dies: another one asks, and what is in force stays meanwhile
kill 'KILL', $hd->processes('agent');
is $body->('/both') =~ /^127/, 1, 'without an agent';
$dns->set('late.test' => {ttl => 1, A => ['127.0.0.1']});
$becomes->('/one', '127.0.0.1', 'the next agent goes on');
is $body->('/var?host=c.test'), '127.0.0.3', 'and answers';
$hd->expect_log(qr/agent process \d+ exited on signal 9/);
$hd->stop;
done_testing;
