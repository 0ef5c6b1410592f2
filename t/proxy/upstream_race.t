#!/usr/bin/perl
# The race for a kept-alive upstream connection, for requests that must not be done twice: the
# upstream closes what idles, at about the time when it is used again. A POST is repeated only if
# the upstream's kernel had received no byte of it when it closed, so nothing is done twice, and no
# answer is lost but of those that the upstream had received, and didn't answer (RFC 9110 §9.2.2,
# RFC 9112 §9.3.1): it counts them. What upstreams let idle is learnt. By file and by xDS.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use IO::Select;
use Time::HiRes qw(time);

# h2load's word on <n> requests by <clients>, each client <rps> a second.
sub load {
    my ($hd, $n, $clients, @args) = @_;
    my $out = `h2load --h1 -n $n -c $clients @args http://127.0.0.1:@{[$hd->port(0)]}/load 2>&1`;
    my ($failed) = $out =~ /(\d+) failed/ or return "no result: $out";
    my ($good, $bad) = $out =~ /status codes: (\d+) 2xx, \d+ 3xx, \d+ 4xx, (\d+) 5xx/;
    return ($good, $bad) if wantarray;
    return "$good good, $failed failed";
}

our ($count, $cut);

# <n> POSTs: each is answered, and done once; or it came, and the upstream closed on it.
sub posts_are_safe {
    my ($hd, $what, $n, $clients, @args) = @_;
    my ($good, $bad) = load($hd, $n, $clients, @args);
    my $ignored = -s $cut // 0;

    is $good + $bad, $n, "POST, $what: each is answered or refused";
    cmp_ok $bad, '<=', $ignored, "refused: those that the upstream ignored ($bad of $ignored)";
    cmp_ok $good, '>', $n / 2, 'most are answered';
    is -s $count, $good, 'none done twice';
}

# A back end that ends each connection when it has idled for <ms>->(): HTTP/1, counts POSTs, and
# those that it receives and ignores.
sub fickle {
    my ($ms) = @_;
    return sub {
        my ($first) = @_; # tcp_backend forks for each connection: this one serves alone
        my ($buf, $posts) = ('', 0);
        my $select = IO::Select->new($first);
        my $until;
        while (1) {
            my $wait = defined $until ? $until - time : 60;
            if ($wait <= 0 || !$select->can_read($wait)) {
                next if defined $until && $until > time;
                last;
            }
            sysread $first, $buf, 65536, length $buf or last;
            while ($buf =~ /\r\n\r\n/) {
                my ($head, $rest) = ($`, $');
                my $len = $head =~ /^content-length: (\d+)/mi ? $1 : 0;
                last if length $rest < $len;
                $buf = substr $rest, $len;
                if ($head =~ /^POST/) {
                    open my $f, '>>', $main::count or die $!;
                    syswrite $f, "x";
                }
                syswrite $first, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                $until = time + $ms->() / 1000;
            }
        }
        shutdown $first, 1;
        my $ignored = length $buf;
        while (sysread $first, my $more, 65536) { $ignored += length $more }
        if ($ignored) {
            open my $f, '>>', $main::cut or die $!;
            syswrite $f, 'x';
        }
        close $first;
    };
}

my $conf = <<'EOC';
http {
    client_body_buffer_size 16k;
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 64; }
    server {
        listen 127.0.0.1:%%PORT_0%%; keepalive_requests 100000;
        location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
EOC

# A heddle in front of port 1, started; by xDS there is no retry policy, and the budget is what istiod says.
sub front {
    my ($way, $workers, $back_end) = @_;
    my $hd = Heddle->new(workers => $workers)->conf($way eq 'file' ? $conf
        : 'xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }');
    ($count, $cut) = map { $hd->dir . "/$_" } 'posts', 'ignored';
    $hd->tcp_backend(1, $back_end);
    $hd->{xds_server} = Heddle::Xds->new($hd, 'xds')->serve(
        CDS => [Heddle::Xds::cluster('u', $hd->port(1), circuit_breakers => {thresholds => [{max_retries => 4294967295}]})],
        LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('r', ['/' => 'u']))])->start if $way eq 'xds';
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    return $hd;
}

for my $way ('file', 'xds') {
    next if $way eq 'xds' && $Heddle::Xds::missing;
    my $hd = front($way, 2, fickle(sub { 5 + rand 45 }));
    my $body = $hd->write('body', 'y' x 3000);
    is load($hd, 1200, 30, '--rps 60'), '1200 good, 0 failed', "$way: GET, closed after 5 to 50 ms: all answered";
    posts_are_safe($hd, "$way, closed after 5 to 50 ms", 1200, 30, '--rps 60', "-d $body");
    $hd->stop;

    # ---- a connection that is closed at once

    $hd = front($way, 1, fickle(sub { 0 }));
    is load($hd, 500, 10), '500 good, 0 failed', "$way: GET, closed with each answer: all answered";
    posts_are_safe($hd, "$way, closed with each answer", 1000, 10, "-d " . $hd->write('body', 'y' x 3000));
    $hd->stop;
}

# ---- a genuine peer

my ($nginx) = grep { -x } '/usr/sbin/nginx', '/usr/local/sbin/nginx';
SKIP: {
    skip 'needs nginx', 8 unless $nginx;
    for my $case (['1ms', 3000, 40], ['1s', 90, 30, '--rps 1']) {
        my ($timeout, $n, $clients, @args) = @$case;
        my $up = Heddle->new(program => $nginx)->conf(<<"EOC");
http {
    log_format method '\$request_method';
    access_log %%DIR%%/access.log method; client_body_temp_path %%DIR%%/t1; proxy_temp_path %%DIR%%/t2;
    fastcgi_temp_path %%DIR%%/t3; uwsgi_temp_path %%DIR%%/t4; scgi_temp_path %%DIR%%/t5;
    keepalive_timeout $timeout;
    server { listen 127.0.0.1:%%PORT_1%%; location / { return 200 "ok"; } }
}
EOC
        $up->start;
        my $front = Heddle->new(workers => 2, ports => $up->{ports})->conf($conf);
        my $posted = $front->write('body', 'y' x 3000);
        $front->start;
        is load($front, $n, $clients, @args), "$n good, 0 failed", "nginx closes after $timeout: GET";
        my ($good, $bad) = load($front, $n, $clients, @args, "-d $posted");
        is $good + $bad, $n, "POST: each is answered or refused ($bad)";
        # How many those are is nginx's and the scheduler's matter: it closes without reading what
        # came in the meantime, and TCP had told us that it came.
        cmp_ok $good, '>', $n / 2, 'most are answered';
        $front->stop;
        $up->stop; # what it logs is complete
        is scalar(grep { /POST/ } split /\n/, $up->file('access.log')), $good, 'none done twice, by its own log';
    }
}

# ---- what the upstream says of itself (Keep-Alive: timeout=N)

my $hd = Heddle->new->conf($conf);
$hd->tcp_backend(1, sub {
    my ($sock) = @_;
    while (sysread $sock, my $buf, 65536) {
        syswrite $sock, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=100\r\nContent-Length: 2\r\n\r\nok";
    }
    open my $f, '>', $hd->dir . '/closed' or die $!;
});
$hd->start;
is $hd->get('/')->body, 'ok', 'an upstream that lets a connection idle for 1 s';
ok $hd->wait_for(sub { -e $hd->dir . '/closed' }, 'its end'), 'is not held to it: we close first';

done_testing;
