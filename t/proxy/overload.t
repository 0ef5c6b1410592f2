#!/usr/bin/perl
# A worker that has more to do than it can refuses new work with 503 and stays alive, and takes all
# again when it can. Memory: first connections aren't kept, then requests and sessions are refused;
# those under way go on. Lag: a share is refused while events wait for too long.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Time::HiRes qw(time);

# What is freed is to be given back in time.
$ENV{ASAN_OPTIONS} = 'quarantine_size_mb=1:thread_local_quarantine_size_kb=64:allocator_release_to_os_interval_ms=100';

my $rest = <<'EOC';
admin %%ADMIN%%;
events { worker_connections 512; }
http {
    lua_max_instructions 1000000000;
    log_format flags '$uri $status $response_flags';
    access_log %%DIR%%/access.log flags;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        http2 on;
        client_max_body_size 16m;
        client_body_buffer_size 8m;
        client_body_timeout 600s;
        location / { return 200 "here"; }
        location = /healthz { overload_exempt on; return 200 "well"; }
        location = /page { error_page 503 = @busy; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location @busy { return 200 "come later"; }
        location /up { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /slow { access_by_lua_block { for i = 1, hd.var.arg_n do end hd.exit(200, "slow") } }
    }
}
stream { server { listen 127.0.0.1:%%PORT_2%%; return "hello"; } }
EOC
my $hd = Heddle->new(modules => ['lua']);
$hd->backend(1, sub { 'up' });

sub metric {
    my ($name) = @_;
    my ($value) = $hd->admin('/metrics')->body =~ /^heddle_overload_\Q$name\E (\d+)/m;
    return $value // 0;
}

sub private_bytes {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/statm" or die "statm: $!";
    my (undef, $resident, $shared) = split ' ', <$f>;
    return ($resident - $shared) * 4096;
}

sub fresh { my $c = $hd->connect; my $r = $c->request(@_); return wantarray ? ($r, $c) : $r }
sub hello { my $c = $hd->connect(2); return $c->read_all }
sub lines { my ($re) = @_; my @l = $hd->log =~ /$re/g; return scalar @l }

# ---- memory

my $mb = 1 << 20;
my $body = 'x' x (4 * $mb);
my @uploads;

# A request that never ends holds its body: 4 MB.
sub hold {
    my $c = $hd->connect;
    $c->send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: " . (length($body) + 4) . "\r\n\r\n$body");
    push @uploads, $c;
}

$hd->conf($rest)->start;
my ($worker) = $hd->workers;
$hd->get('/') for 1 .. 10;
is $hd->get('/up')->body, 'up', 'without limits';
my $base = private_bytes($worker);
my $limit = $base + 64 * $mb;
my ($save, $refuse) = map { int(($base + $_ * $mb) * 100 / $limit) + 1 } 24, 44;
$hd->conf("overload_memory $limit save=$save% refuse=$refuse%;\n$rest");
ok $hd->reload, 'limits come by reload';
is +($hd->workers)[0], $worker, 'into the same worker';

my $idle = $hd->connect;
is $idle->request('GET', '/')->body, 'here', 'a connection that idles';
my $h2 = Heddle::H2->new($hd->port(0));
$h2->request(1, '/');
is $h2->response(1)->{status}, 200, 'one of HTTP/2';

my $under_way = $hd->connect;
$under_way->send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
my $r;
while (@uploads < 20) {
    hold();
    $r = fresh('GET', '/');
    last if $r->status != 200 || ($r->header('connection') // '') eq 'close';
}
is $r->status, 200, "some memory is used (@{[scalar @uploads]} uploads): served";
is $r->header('connection'), 'close', 'but the connection isn\'t kept';
ok $idle->is_eof, 'who idles is closed';
ok $h2->until(sub { $_->{type} eq 'GOAWAY' }), 'and HTTP/2 told';
is metric('shedding{reason="memory"}'), 0, 'nobody is refused yet';
is metric('shed_total{reason="memory"}'), 0, 'nor was';
cmp_ok metric('closed_total'), '>=', 2, 'idle ones that were closed are counted';
cmp_ok metric('pressure_percent{resource="memory",worker="0"}'), '>=', $save - 5, 'the pressure is told';

while (@uploads < 40) {
    hold();
    $r = fresh('GET', '/');
    last if $r->status != 200;
}
is $r->status, 503, "more is used (@{[scalar @uploads]} uploads): refused";
is $r->header('retry-after'), 1, 'until later';
is $r->header('connection'), 'close', 'the connection is closed';
like $r->body, qr/503 Service Temporarily Unavailable/, 'with a page';
is fresh('GET', '/healthz')->body, 'well', 'overload_exempt: served';
is fresh('GET', '/page')->body, 'come later', 'error_page is served';
$r = fresh('POST', '/up', {body => ''}, 'Content-Type' => 'application/grpc');
is $r->status . ' ' . $r->header('grpc-status'), '200 14', 'gRPC: UNAVAILABLE';
$h2 = Heddle::H2->new($hd->port(0));
$h2->request(1, '/up');
is $h2->response(1)->{status}, 503, 'HTTP/2: refused';
is hello(), '', 'stream: refused';
is $hd->admin('/ready')->status, 200, '/ready isn\'t touched';
is metric('shedding{reason="memory"}'), 1, 'a worker refuses';
cmp_ok metric('shed_total{reason="memory"}'), '>=', 5, 'what was refused is counted';
$under_way->send('done');
is $under_way->response->body, 'up', 'a request under way goes on';

$_->reset for splice @uploads;
$hd->wait_for(sub { fresh('GET', '/')->status == 200 }, 'new work to be taken again');
pass 'memory is back: served';
$hd->wait_for(sub { (fresh('GET', '/')->header('connection') // '') ne 'close' }, 'connections to be kept again');
pass 'and kept';
is hello(), 'hello', 'stream, too';
is metric('shedding{reason="memory"}'), 0, 'no worker refuses';
is +($hd->workers)[0], $worker, 'it was the same worker all the time';
is lines(qr/\[warn\].* overload: \d+ MB of memory, of \d+ MB: connections aren't kept/), 1, 'told once: saving';
is lines(qr/\[warn\].* overload: \d+ MB of memory, of \d+ MB: new work is refused/), 1, 'refusing';
is lines(qr/\[notice\].* new work is taken again, after \d+ that were refused/), 1, 'its end';
is lines(qr/\[notice\].* overload: \d+ MB of memory, of \d+ MB: connections are kept/), 1, 'and the end of it all';
unlike $hd->log, qr/\[error\]/, 'no line a request';
my $log = $hd->wait_for(sub { my $t = $hd->file('access.log'); $t =~ m{^/up 503 OM$}m ? $t : undef }, 'the access log');
like $log, qr{^/ 503 OM$}m, 'the access log says why: OM';
like $log, qr{^/healthz 200 -$}m, 'and nothing of who was served';

# ---- lag

# A script that holds the worker up for 100 ms at least, however fast this machine is.
my $n = 1000000;
while (1) {
    my ($fastest) = sort { $a <=> $b } map { my $from = time; fresh('GET', "/slow?n=$n"); time - $from } 1 .. 3;
    last if $fastest > 0.1;
    $n *= 2;
}
note "$n turns of a loop";

$hd->conf("overload_lag 20ms;\n$rest");
ok $hd->reload, 'another limit by reload';
my %seen;
$hd->wait_for(sub {
    my ($r, $c) = fresh('GET', "/slow?n=$n");
    $seen{$r->status}++;
    return $seen{503};
}, 'slow requests to be refused');
ok $seen{200}, "first slow ones are served ($seen{200})";
is fresh('GET', '/healthz')->body, 'well', 'overload_exempt: served';
cmp_ok metric('shed_total{reason="lag"}'), '>=', 1, 'counted';
like $hd->file('access.log'), qr{^/slow 503 OM$}m, 'OM again';
like $hd->log, qr/\[warn\].* overload: events wait for \d+ ms, of 20 ms: new work is refused in part/, 'told';
$hd->wait_log(qr/\[notice\].* overload: events wait for \d+ ms: all is taken again, after \d+ that were refused/);
$hd->wait_for(sub { fresh('GET', '/')->status == 200 }, 'the worker to serve again');
pass 'its load is gone: served';

$hd->conf($rest);
ok $hd->reload, 'no limits any more';
is join(' ', map { fresh('GET', "/slow?n=$n")->status } 1 .. 8), join(' ', (200) x 8), 'nothing is refused';
$hd->stop;

# ---- what is wrong in a configuration is told

for (['overload_memory 0', qr/"overload_memory 0" is out of range: from 1048576 to \d+ bytes/],
    ['overload_memory 64m save=0%', qr/invalid parameter "save=0%": save=1% to 100%/],
    ['overload_memory 64m refuse=101%', qr/invalid parameter "refuse=101%": refuse=1% to 100%/],
    ['overload_memory 64m save=80', qr/invalid parameter "save=80": save=1% to 100%/],
    ['overload_memory 64m half', qr/invalid parameter "half": save=PERCENT, refuse=PERCENT/],
    ['overload_memory 64m save=99%', qr/save=99% is above refuse=95%/],
    ['overload_lag 0', qr/"overload_lag 0" is out of range: from 1 to \d+ ms/],
    ['overload_lag soon', qr/"soon" is not a time/]) {
    my ($line, $why) = @$_;
    my ($rc, $out) = Heddle->new->conf("$line;\nevents {}\n")->run('-t');
    ok $rc != 0 && $out =~ /heddle\.conf:\d+/ && $out =~ $why, "\"$line\" is refused" or diag $out;
}

done_testing;
