#!/usr/bin/perl
# Circuit breakers are exact over all workers: with four of them under full load the upstream
# never has more connections, requests or retries than allowed, and has just as many; as many wait. Idle connections of
# one worker make room for another's; a worker's death gives its places back. The same by file and
# by xDS (DR-CP-1, 6, 7, 9), for HTTP and TCP; nginx's max_conns.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Counter;
use Heddle::Xds;

plan skip_all => 'no h2load' unless grep { -x "$_/h2load" } split /:/, $ENV{PATH};

my ($conns, $requests, $pending, $retries) = (6, 4, 3, 2);

sub file_way {
    my $hd = Heddle->new(workers => 4, modules => ['retry'])->conf(<<"EOC");
http {
    upstream both    { server 127.0.0.1:%%PORT_10%%; circuit_breaker connections=$conns requests=$requests; }
    upstream conns   { server 127.0.0.1:%%PORT_11%%; circuit_breaker connections=$conns; }
    upstream pending { server 127.0.0.1:%%PORT_12%%; circuit_breaker connections=$conns pending=$pending; }
    upstream prio    { server 127.0.0.1:%%PORT_13%%; circuit_breaker requests=1; circuit_breaker requests=2 priority=high; }
    upstream server  { server 127.0.0.1:%%PORT_16%% max_conns=$conns; }
    upstream retries { server 127.0.0.1:%%PORT_14%% max_fails=0; circuit_breaker retries=$retries; }
    upstream budget  { server 127.0.0.1:%%PORT_15%% max_fails=0; circuit_breaker retry_budget=1% retry_budget_min=$retries; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        access_log off;
        location /both { proxy_pass http://both; }
        location /conns { proxy_pass http://conns; }
        location /pending { proxy_pass http://pending; }
        location /prio { proxy_pass http://prio; }
        location /prio/high { proxy_pass http://prio; proxy_priority high; }
        location /server { proxy_pass http://server; proxy_read_timeout 30s; }
        location /retries { retry 5xx attempts=1 backoff=1ms; proxy_pass http://retries; proxy_set_header X-Request-Id \$request_id; }
        location /budget { retry 5xx attempts=1 backoff=1ms; proxy_pass http://budget; proxy_set_header X-Request-Id \$request_id; }
    }
}
stream {
    upstream tcp { server 127.0.0.1:%%PORT_17%%; circuit_breaker connections=$conns; }
    upstream tcp_server { server 127.0.0.1:%%PORT_18%% max_conns=$conns; }
    server { listen 127.0.0.1:%%PORT_1%%; proxy_pass tcp; }
    server { listen 127.0.0.1:%%PORT_2%%; proxy_pass tcp_server; }
}
admin %%ADMIN%%;
EOC
    return $hd;
}

sub xds_way {
    my $hd = Heddle->new(workers => 4)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
admin %%ADMIN%%;
EOC
    my $xds = Heddle::Xds->new($hd, 'xds');
    my $all = 1000000;
    my $cluster = sub {
        my ($name, $port, %max) = @_;
        return Heddle::Xds::cluster($name, $hd->port($port), connect_timeout => '60s', circuit_breakers => {thresholds => [
            {max_connections => $all, max_pending_requests => $all, max_requests => $all, %max},
            ($name eq 'prio' ? {priority => 'HIGH', max_requests => 2} : ())]});
    };
    $xds->serve(
        CDS => [
            $cluster->('both', 10, max_connections => $conns, max_requests => $requests),
            $cluster->('conns', 11, max_connections => $conns),
            $cluster->('pending', 12, max_connections => $conns, max_pending_requests => $pending),
            $cluster->('prio', 13, max_requests => 1),
            $cluster->('tcp', 17, max_connections => $conns),
            $cluster->('retries', 14, max_retries => $retries),
            $cluster->('budget', 15, retry_budget => {budget_percent => {value => 1}, min_retry_concurrency => $retries}),
        ],
        LDS => [
            Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in',
                ['/prio/high' => 'prio', action => {priority => 'HIGH'}],
                (map { ["/$_" => $_, action => {timeout => '0s', retry_policy => {retry_on => '5xx', num_retries => 1,
                    retry_back_off => {base_interval => '0.001s'}}}] } qw(retries budget)),
                map { ["/$_" => $_, action => {timeout => '0s'}] } qw(both conns pending prio))),
            {name => 'tcp', address => Heddle::Xds::address($hd->port(1)), filter_chains => [{filters => [
                {name => 'tcp', typed_config => {cluster => 'tcp', stat_prefix => 'tcp',
                    '@type' => 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy'}}]}]},
        ],
    )->start;
    $hd->{xds_server} = $xds;
    return $hd;
}

# Codes of <n> requests over 48 connections. What <up> has to have at once, it waits for before it answers: a slow
# machine might never bring that together.
sub load {
    my ($hd, $uri, $n, $up, $what, $at_once) = @_;
    $up->set(($what eq 'retries' ? 'hold_retries' : 'hold') => 3600) if $up;
    open my $h2load, '-|', "h2load --h1 -t 1 -c 48 -n $n http://127.0.0.1:@{[$hd->port(0)]}$uri 2>&1" or die "h2load: $!";
    if ($up) {
        $hd->wait_for(sub { $up->max->{$what} >= $at_once }, "$at_once $what");
        $up->answer_all(hold => 0.004);
    }
    my $out = do { local $/; <$h2load> };
    my ($ok, $errors) = $out =~ /status codes: (\d+) 2xx, \d+ 3xx, \d+ 4xx, (\d+) 5xx/ or die $out;
    return ($ok, $errors);
}

sub count { my ($hd, $what) = @_; return ($hd->admin('/clusters')->body =~ /^\Q$what\E::(\d+)$/m)[0] }

sub tcp_at_once {
    my ($hd, $port, $n) = @_;
    my @socks = map { $hd->connect($port) } 1 .. $n;
    $_->send('hello') for @socks;
    my @open = grep { defined $_->read_until(qr/hello/) } @socks;
    return (scalar @open, \@socks);
}

# <n> requests at once, each on a connection of its own.
sub at_once {
    my ($hd, $uri, $n) = @_;
    my @conns = map { $hd->connect(0) } 1 .. $n;
    $_->send("GET $uri HTTP/1.1\r\nHost: a\r\n\r\n") for @conns;
    return @conns;
}

sub answered { return scalar grep { $_->is_ready } @_ }

sub good { return scalar grep { $_->response->status == 200 } @_ }

# How many of 42 wait for a connection while all of them are held; all but these are refused.
sub who_waits {
    my ($hd, $up) = @_;
    $up->set(hold => 3600);
    my @held;
    for my $n (1 .. $conns) { # one after another: who waits for a connection to open waits, too
        push @held, at_once($hd, '/pending', 1);
        $hd->wait_for(sub { $up->max->{busy} == $n }, "request $n upstream");
    }
    my @more = at_once($hd, '/pending', 42);
    my $waiting;
    $hd->wait_for(sub { my $n = answered(@more); ($waiting = count($hd, 'pending::active_pending')) + $n == @more },
        'all to be refused or to wait');
    $up->answer_all;
    my ($served, $waited) = (good(@held), good(@more));
    return $served == $conns && $waited == $waiting ? $waiting : "$waiting; served are $served and $waited";
}

# Of 48 that are all answered 503: how many are tried again, as the upstream and as Heddle see it.
sub who_retries {
    my ($hd, $up, $name) = @_;
    $up->set(hold => 0, hold_retries => 3600);
    $up->reset;
    my @all = at_once($hd, "/$name", 48);
    my $retries;
    $hd->wait_for(sub { my $n = answered(@all); ($retries = $up->max->{busy}) + $n == @all }, 'all to be answered or tried again');
    my $counted = count($hd, "${name}::active_retries");
    $up->answer_all;
    good(@all); # to the end
    return $up->max->{requests} == @all + $retries ? "$retries of $counted" : "$retries of $counted, and more later";
}

for my $way ('file', 'xds') {
    next if $way eq 'xds' && $Heddle::Xds::missing;
    my $hd = $way eq 'file' ? file_way() : xds_way();
    my %up = map { $_ => Heddle::Counter->new($hd, $_, ($_ == 13 ? () : (limit => $conns))) } 10 .. 13, 16;
    $up{$_} = Heddle::Counter->new($hd, $_, status => 503) for 14, 15;
    $up{$_} = Heddle::Counter->new($hd, $_, tcp => 1, limit => $conns) for 17, 18;
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) && Heddle::Port::is_listening($hd->port(1)) },
        'listeners');

    my ($ok, $bad) = load($hd, '/both', 4000, $up{10}, active => $requests);
    my $max = $up{10}->max;
    is $max->{active}, $requests, "$way: as many requests at once as allowed, and not one more";
    cmp_ok $max->{conns}, '<=', $conns, "$way: nor connections";
    is $ok, $max->{requests}, "$way: $ok were answered, each by the upstream";
    cmp_ok $bad, '>', 0, "$way: $bad are refused beyond";
    my $refused = qx{h2load --h1 -v -t 1 -c 40 -n 200 http://127.0.0.1:@{[$hd->port(0)]}/both 2>&1};
    like $refused, qr/x-envoy-overloaded: true/, "$way: and told why" if $way eq 'xds';

    ($ok, $bad) = load($hd, '/conns', 600, $up{11}, active => $conns);
    $max = $up{11}->max;
    is $max->{conns}, $conns, "$way: as many connections as allowed, and not one more";
    is "$ok $bad", '600 0', "$way: the others wait, whichever worker has them, and all are served";

    ($ok, $bad) = load($hd, '/pending', 600, $up{12}, active => $conns);
    $max = $up{12}->max;
    is $max->{conns}, $conns, "$way: connections, where few may wait";
    cmp_ok $bad, '>', 0, "$way: $bad found no place to wait";
    for my $round (1 .. 5) { # nobody is answered before all have come
        is who_waits($hd, $up{12}), $pending, "$way: round $round: as many wait as may, and not one more";
    }

    for (['retries', 14], ['budget', 15]) {
        my ($name, $port) = @$_;
        load($hd, "/$name", 1000, $up{$port}, retries => $retries);
        $max = $up{$port}->max;
        is $max->{retries}, $retries, "$way: $name: as many retries at once as allowed, and not one more";
        cmp_ok $max->{requests}, '>', 1000 + $retries, "$way: $name: the first tries go on beside them";
        for my $round (1 .. 5) {
            is who_retries($hd, $up{$port}, $name), "$retries of $retries", "$way: $name, round $round: also if all want to at once";
        }
    }

    # HIGH has limits of its own
    load($hd, '/prio/high', 48, $up{13}, active => 2);
    is $up{13}->max->{active}, 2, "$way: priority HIGH";
    $up{13}->reset;
    load($hd, '/prio', 48, $up{13}, active => 1);
    is $up{13}->max->{active}, 1, "$way: beside the others";

    my ($open, $socks) = tcp_at_once($hd, 1, 30);
    is $open, $conns, "$way: TCP: as many as allowed";
    is $up{17}->max->{conns}, $conns, "$way: and not one more";
    undef $socks;
    $hd->wait_for(sub { !count($hd, ($way eq 'file' ? 'tcp' : 'tcp') . '::active_connections') }, 'sessions to end');
    # a place counts as free a moment after its session, which another worker may see in between
    my $again = $hd->wait_for(sub { ($open, $socks) = tcp_at_once($hd, 1, 30); $open >= $conns ? $open : undef $socks },
        'all places to be free');
    is $again, $conns, "$way: all places are free again";
    undef $socks;

    if ($way eq 'file') { # nginx's own limit
        load($hd, '/server', 600, $up{16}, active => $conns);
        $max = $up{16}->max;
        is "$max->{active} $max->{conns}", "$conns $conns", 'max_conns: requests and connections';
        ($open, $socks) = tcp_at_once($hd, 2, 30);
        is "$open " . $up{18}->max->{conns}, "$conns $conns", 'max_conns: TCP';
        undef $socks;
    }

    # a worker dies with all it holds
    $up{10}->set(hold => 0.02);
    my $load = fork // die;
    if (!$load) {
        load($hd, '/both', 2000);
        POSIX::_exit(0);
    }
    $up{10}->reset;
    $hd->wait_for(sub { $up{10}->max->{active} == $requests }, 'full use');
    $hd->expect_log(qr/exited on signal 9/);
    kill 'KILL', ($hd->workers)[0];
    $hd->wait_log(qr/exited on signal 9/);
    waitpid $load, 0;
    $hd->wait_for(sub { !count($hd, 'both::active_requests') && !count($hd, 'both::active_pending') },
        'counts of the dead one to be taken back');
    $hd->wait_for(sub { $up{10}->max->{now} == count($hd, 'both::active_connections') },
        'as many connections as the upstream has');
    $up{10}->reset;
    load($hd, '/both', 1000, $up{10}, active => $requests);
    $max = $up{10}->max;
    is $max->{active}, $requests, "$way: after a worker's death all places are there";
    cmp_ok $max->{conns}, '<=', $conns, "$way: and none too many";
    $hd->stop;
}
done_testing;
