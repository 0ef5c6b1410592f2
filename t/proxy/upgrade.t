#!/usr/bin/perl
# A new binary on the fly, as nginx does it: USR2, WINCH, QUIT; and back by HUP and QUIT. Under load, with what stays open:
# WebSockets, gRPC streams over HTTP/2, TLS.
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::UNIX;
use Test::More;
use Heddle;
use Heddle::Daemon;
use Heddle::Streams;
use Heddle::Watch;

plan skip_all => $Heddle::Streams::missing if $Heddle::Streams::missing;
my $hd = Heddle->new(log_level => 'notice');
my $backend = Heddle::Streams->backend($hd, 1, 2);
my $cert = $hd->make_ca('root')->make_cert('server', dns => 'localhost');

sub conf {
    my ($answer, $more) = @_;
    $hd->conf(<<"EOC");
daemon on;
worker_processes 2;
worker_shutdown_timeout 60s;
admin %%ADMIN%%;
@{[$more // '']}
http {
    access_log off;
    metrics on reporter=destination;
    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        listen 127.0.0.1:%%PORT_3%%;
        listen 127.0.0.1:%%PORT_4%% ssl;
        listen unix:%%DIR%%/socket;
        http2 on;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; }
        location /ws { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; proxy_read_timeout 600s;
                       proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; }
        location /t.Echo/ { grpc_pass grpc://127.0.0.1:%%PORT_2%%; grpc_read_timeout 600s; }
        location = /answer { return 200 $answer; }
    }
}
EOC
}

sub upgrade {
    my ($old) = @_;
    my $new = start_new_binary($hd, $old);
    is pid_in($hd, 'heddle.pid.oldbin'), $old, "USR2: the old master's pid file stepped aside";
    isnt $new, $old, 'the new one has its own';
    is serving($old), 2, 'the old workers go on';
    return $new;
}

sub answers {
    my %seen = map { $hd->get('/answer', {port => $_ % 2 ? 0 : 3})->body => 1 } 1 .. 16;
    return join ' ', sort keys %seen;
}

# Requests by the figures of whichever agent answers.
sub counted {
    my $body = $hd->admin('/metrics')->body;
    my $n = 0;
    $n += $1 while $body =~ /^istio_requests_total\{.*\} (\d+)$/mg;
    return $n;
}

sub by_unix {
    my $s = IO::Socket::UNIX->new(Peer => $hd->dir . '/socket') or return "connect: $!";
    print $s "GET /answer HTTP/1.0\r\n\r\n";
    local $/;
    return (split /\r\n\r\n/, readline($s) // '')[1];
}

conf('one');
my $old = start_daemon($hd);
my $clients = Heddle::Streams->clients($hd, http => 0, grpc => 3, tls => 4, ws => 2, talks => 2, load => 2, tls_load => 1, calls => 2);

sub nothing_lost {
    my ($name) = @_;
    is $clients->failures($clients->wait_for_more(qw(ws talks load tls_load calls))), '', "$name: nothing was lost";
}

# ---- forward: to what the new binary reads

conf('two');
my $new = upgrade($old);
nothing_lost('both serve');
send_to(USR2 => $old);
$hd->wait_log(qr/no new binary is started: one was started already/);
send_to(USR2 => $new);
$hd->wait_log(qr/no new binary is started: the old binary's master is still there/);
send_to(WINCH => $old);
$hd->wait_for(sub { serving($old) == 0 && !children($old, 'agent') }, 'the old processes to wind down');
nothing_lost('WINCH');
ok draining($old) > 0, 'old workers serve what is open';
is answers(), 'two', 'the new ones all that is new';

# ---- and back

send_to(HUP => $old);
$hd->wait_for(sub { serving($old) == 2 && children($old, 'agent') }, 'the old processes to start again');
send_to(QUIT => $new);
$hd->wait_for(sub { serving($new) == 0 }, 'the new workers to go');
nothing_lost('HUP to the old, QUIT to the new');
is answers(), 'one', 'by what it had: nothing was read';
is by_unix(), 'one', 'on its unix socket, too';
$clients->quiet; # connections that the new workers had
$hd->wait_for(sub { pid_in($hd, 'heddle.pid') == $old && !-e $hd->dir . '/heddle.pid.oldbin' }, 'the pid file to be back');
ok is_gone($new), 'the new master has ended';

# ---- forward again, to the end

my $counted = counted(); # all that has ended, by the old one
cmp_ok $counted, '>', 0, 'figures of the old';
conf('three');
$new = upgrade($old);
send_to(WINCH => $old);
$hd->wait_for(sub { serving($old) == 0 && !children($old, 'agent') }, 'the old processes to wind down');
cmp_ok counted(), '>=', $counted, 'go on with the new';
send_to(QUIT => $old);
is $clients->failures($clients->wait_for_more(qw(ws talks))), '', 'QUIT: what is open since the very beginning goes on';
ok !is_gone($old), 'the old master waits for it';
is $clients->failures($clients->end), '', 'up to its end';
$hd->wait_for(sub { is_gone($old) }, 'the old master to end');
ok !-e $hd->dir . '/heddle.pid.oldbin', 'its pid file, too';
is pid_in($hd, 'heddle.pid'), $new, "the new one's stays";
$hd->wait_log(qr/the old binary has ended; what it counted goes on here/);
$counted = counted();
is answers(), 'three', 'the new one serves alone';
$hd->wait_for(sub { counted() >= $counted + 16 }, 'requests to be counted');
is counted(), $counted + 16, 'and counts on from where the old one was';
is by_unix(), 'three', 'on the unix socket, too';

# ---- a new binary that can't start, or dies

$hd->expect_log(qr/unknown directive "nonsense"/, qr/new binary process \d+ exited on signal 9/);
conf('four', 'nonsense;');
my $at = length $hd->log;
send_to(USR2 => $new);
$hd->wait_for(sub { substr($hd->log, $at) =~ /new binary process \d+ exited with code 1/ }, 'its end');
like substr($hd->log, $at), qr/heddle\.conf:\d+: unknown directive "nonsense"/, 'one that fails says why';
$hd->wait_for(sub { pid_in($hd, 'heddle.pid') == $new }, 'the pid file to be back');
is answers(), 'three', 'and the old one serves';

conf('five');
my $third = upgrade($new);
send_to(WINCH => $new);
$hd->wait_for(sub { serving($new) == 0 }, 'the old workers to wind down');
is answers(), 'five', 'one that serves';
send_to(KILL => $third);
$hd->wait_log(qr/new binary process $third exited on signal 9/);
$hd->wait_for(sub { serving($new) == 2 }, 'the old processes to start again by themselves');
$hd->wait_for(sub { answers() eq 'three' }, 'them to serve alone');
is pid_in($hd, 'heddle.pid'), $new, 'under its old pid file';
is $hd->admin('/ready')->status, 200, 'with its admin port';

send_to(QUIT => $new);
$hd->wait_for(sub { is_gone($new) }, 'the end');
ok !-e $hd->dir . '/socket', 'the last one takes the unix socket away';
unlike $hd->log, qr/\[(?:alert|crit)\]/, 'no alert';
Heddle::Watch::check($hd);
done_testing;
