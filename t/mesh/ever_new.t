#!/usr/bin/perl
# What comes and goes for ever leaves nothing behind: ever-new endpoints, then ever-new clusters,
# endpoints, routes and listeners by xDS, then ever-new upstreams, locations and listeners by reloads.
# Meanwhile a tunnel lasts over a cluster that goes and comes back, and the connection to an upstream
# that stays is the same.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::PP;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $is_slow = Heddle::is_sanitized();
my $hd;

sub memory { decode_json($hd->admin('/memory')->body) }

# Nothing waits to be given back any more: as many names as there were, twice the same.
sub at_rest {
    my ($arena, $slots, $what) = @_;
    my $memory;
    eval {
        $hd->wait_for(sub {
            $memory = memory();
            my $a = $memory->{arenas}{$arena};
            return $a->{regions_retired} == 0 && (!defined $slots || $a->{slots} == $slots);
        }, $what);
        1;
    } or diag "$what: $@", explain $memory;
    return $memory;
}

sub is_same_memory {
    my ($arena, $was, $is, $what) = @_;
    my ($a, $b) = map { $_->{arenas}{$arena} } $was, $is;
    is $b->{$_}, $a->{$_}, "$what: $_" for qw(slots regions_live);
    # the index of names has a size that is a power of two, as many as there were at its last growth
    cmp_ok $b->{bytes_live}, '<=', $a->{bytes_live} * 1.01 + 16384, "$what: bytes live ($a->{bytes_live} before)";
    cmp_ok $b->{bytes_reserved}, '<=', $a->{bytes_reserved} * 1.5 + 262144, "$what: bytes reserved";
    # cells of endpoints that are gone are looked for when many are new
    cmp_ok $is->{state_bytes}, '<=', $was->{state_bytes} * 1.01 + 262144, "$what: shared state ($was->{state_bytes} before)";
}

# ---- endpoints of one cluster

sub endpoint {
    my ($n) = @_;
    my $ip = join '.', 10, $n >> 16 & 255, $n >> 8 & 255, $n & 255;
    return {endpoint => {address => {socket_address => {address => $ip, port_value => 80}}}};
}

sub endpoints_by_xds {
    my ($each, $rounds) = $is_slow ? (200, 10) : (500, 20);
    $hd = Heddle->new(workers => 2)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
admin %%ADMIN%%;
EOC
    my $xds = Heddle::Xds->new($hd, 'xds');
    my $serve = sub {
        my ($round) = @_;
        my @eps = map { endpoint($round * $each + $_) } 0 .. $each - 1;
        $xds->serve(
            CDS => [{name => 'c', type => 'EDS', eds_cluster_config => {eds_config => {ads => {}}}, connect_timeout => '1s'}],
            EDS => [{cluster_name => 'c', endpoints => [{lb_endpoints => \@eps}]}]);
    };
    $serve->(0);
    $xds->start;
    $hd->start;
    my $early;
    for my $round (0 .. $rounds - 1) {
        $serve->($round) if $round > 0;
        my $last = endpoint(($round + 1) * $each - 1)->{endpoint}{address}{socket_address}{address};
        $hd->wait_for(sub { $hd->admin('/clusters')->body =~ /\Q$last\E:80/ }, "round $round");
        # what it replaced is freed by a timer; what that leaves goes with it
        $hd->wait_for(sub { memory()->{arenas}{dynamic}{regions_retired} == 0 }, "round $round is alone");
        $early = memory()->{state_bytes} if $round == 5;
    }
    my $late = memory()->{state_bytes};
    cmp_ok $late, '<=', $early + 600 * $each, "after @{[$rounds * $each]} endpoints $late bytes, after the first @{[6 * $each]} $early";
    $hd->stop;
}

# ---- names by xDS

# A tunnel by Upgrade: what is said comes back.
sub tunnel_backend {
    my ($name) = @_;
    $hd->tcp_backend($name, sub {
        my ($sock) = @_;
        my $head = '';
        $head .= $_ while $head !~ /\r\n\r\n/ && sysread $sock, $_, 4096;
        syswrite $sock, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        while (sysread $sock, my $bytes, 4096) {
            syswrite $sock, $bytes;
        }
    });
}

sub open_tunnel {
    my ($port) = @_;
    my $tunnel = $hd->connect($port);
    my $sock = $tunnel->{sock};
    syswrite $sock, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    my $head = '';
    $head .= $_ while $head !~ /\r\n\r\n/ && sysread $sock, $_, 4096;
    like $head, qr/^HTTP\/1.1 101/, 'a tunnel is open';
    return $tunnel;
}

sub talks {
    my ($tunnel, $word, $what) = @_;
    my $sock = $tunnel->{sock};
    syswrite $sock, $word;
    my $back = '';
    while (length $back < length $word) {
        sysread $sock, my $bytes, 4096 or last;
        $back .= $bytes;
    }
    is $back, $word, $what;
}

sub conns_of {
    my %ids = map { $_->{conn} => 1 } $hd->requests($_[0]);
    return scalar keys %ids;
}

sub names_by_xds {
    my ($each, $rounds) = $is_slow ? (40, 6) : (100, 6);
    $hd = Heddle->new(workers => 1)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
admin %%ADMIN%%;
EOC
    my $xds = Heddle::Xds->new($hd, 'xds');
    tunnel_backend('ws');
    $hd->echo_server("app");
    my $serve = sub {
        my ($round, $has_ws) = @_;
        my $tag = sprintf '%05d', $round;
        my @names = map { sprintf 'svc-%05d-%s', $_, $tag } 1 .. $each;
        my @clusters = map { {Heddle::Xds::eds_cluster($_)->%*} } @names;
        my @lists = map { Heddle::Xds::assignment($_, 9) } @names;
        push @clusters, Heddle::Xds::cluster('app', $hd->port('app'));
        push @clusters, Heddle::Xds::cluster('tunnel', $hd->port('ws')) if $has_ws;
        my @listeners = (
            Heddle::Xds::listener('main', $hd->port('in'), Heddle::Xds::rds('main'), upgrade_configs => [{upgrade_type => 'websocket'}]),
            map {
                my $l = Heddle::Xds::listener("in-$_-$tag", $hd->port('in'), Heddle::Xds::rds("routes-$_-$tag"));
                $l->{address}{socket_address}{address} = sprintf '127.%d.%d.%d', 1 + $round, $_ >> 8, 1 + ($_ & 255);
                $l;
            } 1 .. $each / 20);
        my @routes = (
            Heddle::Xds::routes('main', ($has_ws ? ['/ws' => 'tunnel'] : ()), ["/round-$tag" => 'app'], ['/app' => 'app']),
            map { Heddle::Xds::routes("routes-$_-$tag", map { ["/$_" => $_] } @names[0 .. 9]) } 1 .. $each / 20);
        $xds->serve(CDS => \@clusters, EDS => \@lists, LDS => \@listeners, RDS => \@routes);
        $hd->wait_for(sub { eval { $hd->get("/round-$tag", {port => 'in'})->status == 200 } }, "round $round");
        my $last = $each / 20;
        $hd->wait_for(sub { $hd->admin('/listeners')->body =~ /in-$last-$tag/ }, "its listeners");
    };
    $xds->serve(CDS => [Heddle::Xds::cluster('app', $hd->port('app'))]);
    $xds->start;
    $hd->start;
    $serve->(0, 1);
    my $tunnel = open_tunnel('in');
    for my $round (1 .. $rounds) {
        $serve->($round, $round % 4 < 2);
        talks($tunnel, "round $round", "the tunnel lasts: round $round");
    }
    undef $tunnel;
    $serve->($rounds + 1, 1);
    # the tunnel is over, and so is what it held
    my $settled;
    $hd->wait_for(sub {
        my $now = memory();
        my $same = $settled && $now->{arenas}{dynamic}{slots} == $settled->{arenas}{dynamic}{slots};
        $settled = $now;
        return $same && $now->{arenas}{dynamic}{regions_retired} == 0 && $now->{arenas}{dynamic}{slots} < 3.2 * $each;
    }, 'names that are gone to go');
    my $slots = $settled->{arenas}{dynamic}{slots};
    my $first = $settled;
    for my $round ($rounds + 2 .. 2 * $rounds) {
        $serve->($round, 1);
        at_rest('dynamic', $slots, "round $round: $slots names");
    }
    is_same_memory('dynamic', $first, at_rest('dynamic', $slots, 'the end'),
        2 * $rounds * $each * 2 . ' clusters and lists by xDS');
    is conns_of('app'), 1, 'an upstream that stayed has the connection that it had';
    $hd->stop;
}

# ---- names by files

sub text {
    my ($round, $each) = @_;
    my $tag = sprintf '%05d', $round;
    my @names = map { sprintf 'up-%05d-%s', $_, $tag } 1 .. $each;
    my $ws = $round % 3 == 1 ? '' : 'location /ws { proxy_pass http://tunnel; proxy_http_version 1.1; proxy_read_timeout 600s;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }';
    my $ws_upstream = $round % 3 == 1 ? '' : 'upstream tunnel { server 127.0.0.1:%%PORT_ws%%; }';
    return join "\n", 'admin %%ADMIN%%;', 'http { access_log off; keepalive_requests 1000000;',
        'upstream app { server 127.0.0.1:%%PORT_app%%; keepalive 4; keepalive_timeout 3600s; }', $ws_upstream,
        (map { "upstream $_ { server 127.0.0.1:9; server 127.0.0.2:9; }" } @names),
        'server { listen 127.0.0.1:%%PORT_in%%;', $ws,
        "location /round-$tag { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; }",
        (map { "location /$_ { proxy_pass http://$_; }" } @names), '}',
        (map { "server { listen 127.@{[1 + $round]}.1.$_:%%PORT_in%%; return 204; }" } 1 .. $each / 20), '}';
}

sub names_by_files {
    my ($each, $rounds) = $is_slow ? (40, 7) : (60, 10);
    $hd = Heddle->new(workers => 1, log_level => 'notice');
    tunnel_backend('ws');
    $hd->echo_server("app");
    $hd->conf(text(0, $each))->start;
    my $tunnel = open_tunnel('in');
    my ($first, $slots);
    for my $round (1 .. $rounds) {
        $hd->conf(text($round, $each));
        $hd->reload or die 'reload failed';
        is $hd->get(sprintf('/round-%05d', $round), {port => 'in'})->status, 200, "reload $round";
        talks($tunnel, "round $round", "the tunnel lasts: reload $round") if $round < 4;
        undef $tunnel if $round == 4;
        next if $round % 3 != 0 || $round < 6;
        my $now = at_rest('files', $slots, "reload $round");
        if (!$first) {
            my $last;
            $hd->wait_for(sub {
                $last = $first;
                $first = memory();
                return $last && $last->{arenas}{files}{slots} == $first->{arenas}{files}{slots} &&
                    $first->{arenas}{files}{slots} < 3 * $each && $first->{arenas}{files}{regions_retired} == 0;
            }, 'names that are gone to go');
            $slots = $first->{arenas}{files}{slots};
        }
    }
    my $end = $rounds - $rounds % 3;
    is_same_memory('files', $first, at_rest('files', undef, 'the end'), $rounds * $each . ' upstreams by files')
        if $rounds == $end;
    if ($rounds != $end) {
        $hd->conf(text($end + 3, $each));
        $hd->reload or die 'reload failed';
        is_same_memory('files', $first, at_rest('files', $slots, 'the end'), $rounds * $each . ' upstreams by files');
    }
    is conns_of('app'), 1, 'an upstream that stayed has the connection that it had';
    $hd->stop;
}

subtest 'endpoints by xDS' => \&endpoints_by_xds;
subtest 'names by xDS' => \&names_by_xds;
subtest 'names by files' => \&names_by_files;
done_testing;
