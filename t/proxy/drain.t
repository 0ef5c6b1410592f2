#!/usr/bin/perl
# A gentle end. QUIT: readiness fails first, while all goes on for worker_shutdown_delay; then listeners close, and clients
# are told one after another within worker_drain_time: GOAWAY in its two steps, Connection: close, GOAWAY of a weft link.
# What is open stays until it ends; worker_shutdown_timeout bounds all. None is lost.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Port;
use Heddle::Streams;

my $forever = '600s'; # longer than the test waits for anything

sub heddle {
    my ($main, $more) = @_;
    my $hd = Heddle->new(log_level => 'notice');
    $hd->conf(<<"EOC");
$main
admin %%ADMIN%%;
http {
    access_log off;
    server { listen 127.0.0.1:%%PORT_0%%; http2 on; location / { return 200 answer; } @{[$more // '']} }
}
EOC
    $hd->start;
    $hd->wait_log(qr/all processes are ready/) if $main !~ /master_process off/; # before it, QUIT is TERM
    return $hd;
}

sub ready { my ($hd) = @_; return $hd->admin('/ready') }
sub is_closed { my ($hd, $n) = @_; return !Heddle::Port::is_listening($hd->port($n // 0)) }
sub ended { my ($hd) = @_; $hd->wait_for(sub { $hd->_has_ended }, 'the end'); return $hd->{exit_expected} = 0 }
sub get { my ($c) = @_; return $c->request('GET', '/', {keep => 1}, Host => 'a') }

# ---- not ready, but serving; told twice, it goes on

{
    my $hd = heddle("worker_shutdown_delay $forever;");
    is ready($hd)->status, 200, 'ready';
    my $c = $hd->connect(0);
    is get($c)->body, 'answer', 'a connection';
    $hd->signal('QUIT');
    $hd->wait_for(sub { ready($hd)->status == 503 }, 'readiness to fail');
    is ready($hd)->body, "DRAINING: the program is about to end\n", 'QUIT: readiness fails first';
    is $hd->get('/')->body, 'answer', 'new connections are served';
    is get($c)->header('connection') // '', '', 'open ones are told nothing yet';
    my ($worker) = $hd->workers;
    $hd->expect_log(qr/worker process $worker exited on signal 9/);
    kill KILL => $worker;
    $hd->wait_for(sub { my ($now) = $hd->workers; $now && $now != $worker }, 'another worker');
    is $hd->get('/')->body, 'answer', 'a worker that dies is replaced';
    $hd->signal('HUP');
    $hd->wait_log(qr/nothing is read any more: the program is ending/);
    $c = $hd->connect(0);
    is get($c)->body, 'answer', 'no reload, but service';
    $hd->signal('QUIT');
    $hd->wait_for(sub { is_closed($hd) }, 'the listener to close');
    ended($hd);
    ok 1, 'told twice it ends at once';
    ok $c->is_eof || get($c) // 1, 'with its idle connections';
}

# ---- a delay that ends

for my $master ('on', 'off') {
    my $hd = heddle("master_process $master;\nworker_shutdown_delay 1s;");
    my $from = time;
    $hd->signal('QUIT');
    $hd->wait_for(sub { ready($hd)->status == 503 }, 'readiness to fail');
    is $hd->get('/')->body, 'answer', "master_process $master: new connections are served";
    ended($hd);
    ok time - $from >= 1, 'up to the end of worker_shutdown_delay';
}

# ---- worker_shutdown_timeout bounds all of it

{
    my $hd = heddle("worker_shutdown_delay $forever;\nworker_drain_time $forever;\nworker_shutdown_timeout 1s;");
    my $c = $hd->connect(0);
    $c->send("GET / HTTP/1.1\r\n"); # half a request, which nothing ends
    $hd->signal('QUIT');
    ended($hd);
    like $hd->log, qr/1 connections are still open after worker_shutdown_timeout/, 'worker_shutdown_timeout bounds delay and drain time';
}

# ---- one after another

{
    my $hd = heddle("worker_drain_time 60s;");
    my @c = map { $hd->connect(0) } 1 .. 30;
    my @h2 = map { Heddle::H2->new($hd->port(0)) } 1 .. 30;
    is join(' ', map { get($_)->body } @c), join(' ', ('answer') x 30), '30 connections of HTTP/1';
    for my $c (@h2) {
        $c->request(1, '/', end => 1);
        $c->response(1);
    }
    $hd->signal('QUIT');
    $hd->wait_for(sub { is_closed($hd) }, 'the listener to close');
    my $told = sub {
        my ($n, @open) = (0);
        for my $c (@c) {
            my $r = get($c) // die "a connection was closed without a word\n";
            is $r->body, 'answer', 'served' if $r->status != 200;
            ($r->header('connection') // '') eq 'close' ? $n++ : push @open, $c;
        }
        @c = @open;
        return $n;
    };
    my $n = 0;
    $hd->wait_for(sub { $n += $told->() }, 'one to be told');
    cmp_ok $n, '<', 30, "Connection: close to some ($n of 30) while others go on";
    my @told_h2;
    $hd->wait_for(sub { @told_h2 = grep { $_->{conn}->is_ready && $_->until(sub { $_->{type} eq 'GOAWAY' }) } @h2 }, 'a GOAWAY');
    cmp_ok scalar(@told_h2), '<', 30, 'GOAWAY to some of 30 while others go on';
    $hd->signal('TERM');
    ended($hd);
}

# ---- HTTP/1 within a short time: each that is used is told; none is closed without a word

{
    my $hd = heddle("worker_drain_time 2s;");
    my @c = map { $hd->connect(0) } 1 .. 20;
    get($_) for @c;
    my $idle = $hd->connect(0);
    get($idle);
    $hd->signal('QUIT');
    my $silent = 0;
    $hd->wait_for(sub {
        my @open;
        for my $c (@c) {
            my $r = get($c);
            $silent++ if !defined $r;
            push @open, $c if defined $r && ($r->header('connection') // '') ne 'close';
        }
        @c = @open;
        return !@c;
    }, 'all to be told');
    is $silent, 0, 'each connection in use got Connection: close with a response';
    is $idle->read_all, '', 'an idle one is closed';
    $idle->close;
    ended($hd);
}

# ---- HTTP/2: what crosses the first GOAWAY on its way is served

{
    my $hd = heddle('');
    my $c = Heddle::H2->new($hd->port(0));
    $c->request(1, '/', end => 1);
    is $c->response(1)->{body}, 'answer', 'a stream';
    $hd->signal('QUIT');
    my $first = $c->until(sub { $_->{type} eq 'GOAWAY' });
    is unpack('N', $first->{payload}) & 0x7fffffff, 0x7fffffff, 'the first GOAWAY names no stream';
    my $ping = $c->until(sub { $_->{type} eq 'PING' });
    $c->request(3, '/', end => 1);
    is $c->response(3)->{body}, 'answer', 'a stream behind it is served';
    $c->frame('PING', 1, 0, $ping->{payload});
    my $last = $c->until(sub { $_->{type} eq 'GOAWAY' });
    is unpack('N', $last->{payload}) & 0x7fffffff, 3, 'the second names the last that was begun';
    ok !defined $c->next, 'and the connection ends';
    $c->close;
    ended($hd);
}

# ---- under load

SKIP: {
    skip $Heddle::Streams::missing if $Heddle::Streams::missing;
    my $hd = Heddle->new(log_level => 'notice');
    my $backend = Heddle::Streams->backend($hd, 1, 2);
    my $ca = $hd->make_ca('root');
    my $cert = $ca->make_cert('server', dns => 'localhost');
    my $client = $ca->make_cert('client', spiffe => 'spiffe://test/ns/a/sa/one');
    my $conf = sub {
        my ($workers) = @_;
        $hd->conf(<<"EOC");
worker_processes $workers;
worker_drain_time 2s;
admin %%ADMIN%%;
http {
    log_format main '\$ssl_alpn_protocol';
    access_log off;
    ssl_certificate $cert->{cert};
    ssl_certificate_key $cert->{key};
    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        listen 127.0.0.1:%%PORT_3%%;
        listen 127.0.0.1:%%PORT_4%% ssl;
        http2 on;
        # by way of a second Heddle, here itself: a weft link
        location / {
            proxy_pass https://127.0.0.1:%%PORT_5%%;
            proxy_ssl_certificate $client->{cert};
            proxy_ssl_certificate_key $client->{key};
            proxy_ssl_name localhost;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate $ca->{cert};
        }
        location /up { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /ws { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; proxy_read_timeout 600s;
                       proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; }
        location /t.Echo/ { grpc_pass grpc://127.0.0.1:%%PORT_2%%; grpc_read_timeout 600s; }
    }
    server {
        listen 127.0.0.1:%%PORT_5%% ssl;
        ssl_client_certificate $ca->{cert};
        ssl_verify_client on;
        access_log %%DIR%%/links.log main;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; }
    }
}
EOC
    };
    $conf->(2);
    $hd->start;
    $hd->wait_log(qr/all processes are ready/);
    my %old = map { $_ => 1 } $hd->workers;
    my $clients = Heddle::Streams->clients($hd, http => 0, grpc => 3, tls => 4, ws => 3, talks => 3, uploads => 1, load => 4,
        tls_load => 2, calls => 2, strict => 1);
    $conf->(3);
    ok $hd->reload, 'a new generation';
    # Streams go on in the old workers. All others are told, within the drain time.
    my $before = $clients->state;
    $hd->wait_for(sub {
        my $now = $clients->state;
        die $clients->failures($now) if $clients->failures($now);
        return $now->{load}{conns} >= $before->{load}{conns} && $now->{tls_load}{conns} > 2;
    }, 'connections to be told and made anew');
    is $clients->failures($clients->wait_for_more(qw(ws talks load tls_load calls))), '', 'nothing is lost';
    ok scalar(grep { $old{$_} } $hd->workers), 'streams stay with their old worker';
    like substr($hd->file('links.log'), 0, 20), qr/^heddle-weft/, 'requests came over weft links';

    # and the end of all: streams go on, and nobody is listening any more
    is $clients->failures($clients->quiet), '', 'the rest ends';
    $hd->signal('QUIT');
    $hd->wait_for(sub { is_closed($hd) && is_closed($hd, 3) && is_closed($hd, 4) }, 'listeners to close');
    is $clients->failures($clients->wait_for_more(qw(ws talks))), '', 'QUIT: streams go on, of both generations';
    is ready($hd)->status, 503, 'not ready any more, to the end';
    is $clients->failures($clients->end), '', 'up to their own end';
    ended($hd);
}

done_testing;
