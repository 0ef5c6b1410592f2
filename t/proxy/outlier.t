#!/usr/bin/perl
# Outlier detection, by file and by xDS, over four workers: failures in a row are counted once for
# all of them; whoever asks after the last of them was seen isn't led there by any worker, even
# while that answer is still being read; the ejection ends and is told of in log and metrics
# (DR-OD-2, 4, 5, 6, 14).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

my $base_ms = 700;
# Each of them has a state of its own, and ejections that outlast the test.
my @again = map { "again$_" } 1 .. 12;
my %lasting = ((map { $_ => [1, 2, 3] } @again), long => [1, 5, 3]);

sub file_way { return Heddle->new(workers => 4)->conf(file_conf('outlier_detection consecutive_5xx=2 base_ejection_time=60s max_ejection_percent=100%;')) }
sub file_conf {
    my ($of_one) = @_;
    my $upstreams = join '', map { <<"EOC" } sort keys %lasting;
    upstream $_ {
        @{[map { "server 127.0.0.1:%%PORT_$_%% max_fails=0;" } @{$lasting{$_}}]}
        outlier_detection consecutive_5xx=3 base_ejection_time=600s interval=60s max_ejection_percent=50%;
    }
EOC
    my $locations = join '', map { "        location /$_/ { proxy_pass http://$_; }\n" } sort keys %lasting;
    return <<"EOC";
http {
$upstreams
    upstream three {
        server 127.0.0.1:%%PORT_1%% max_fails=0; server 127.0.0.1:%%PORT_2%% max_fails=0; server 127.0.0.1:%%PORT_3%% max_fails=0;
        outlier_detection consecutive_5xx=3 base_ejection_time=${base_ms}ms interval=60s max_ejection_percent=50%;
    }
    upstream one {
        server 127.0.0.1:%%PORT_4%%;
        $of_one
    }
    upstream dead {
        server 127.0.0.1:%%PORT_8%% max_fails=0; server 127.0.0.1:%%PORT_2%% max_fails=0;
        outlier_detection split consecutive_local=1 base_ejection_time=60s max_ejection_percent=50%;
    }
    server {
        listen 127.0.0.1:%%PORT_0%%;
$locations
        location /three/ { proxy_pass http://three; }
        location /one/ { proxy_pass http://one; }
        location /dead/ { proxy_pass http://dead; proxy_next_upstream off; }
    }
}
admin %%ADMIN%%;
EOC
}

sub xds_way {
    my $hd = Heddle->new(workers => 4)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
admin %%ADMIN%%;
EOC
    my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
    my $base = $base_ms / 1000 . 's';
    my $cluster = sub {
        my ($name, $ports, %od) = @_;
        return Heddle::Xds::cluster($name, 1, outlier_detection => {enforcing_success_rate => 0, %od},
            common_lb_config => {healthy_panic_threshold => {value => 0}},
            load_assignment => Heddle::Xds::assignment($name, map { $hd->port($_) } @$ports));
    };
    my %what = (
        CDS => [
            (map { $cluster->($_, $lasting{$_}, consecutive_5xx => 3, base_ejection_time => '600s', interval => '60s',
                max_ejection_percent => 50) } sort keys %lasting),
            $cluster->('three', [1, 2, 3], consecutive_5xx => 3, base_ejection_time => $base, interval => '60s',
                max_ejection_percent => 50),
            $cluster->('one', [4], consecutive_5xx => 2, base_ejection_time => '60s', max_ejection_percent => 100),
            $cluster->('dead', [8, 2], split_external_local_origin_errors => JSON::XS::true(),
                consecutive_local_origin_failure => 1, base_ejection_time => '60s', max_ejection_percent => 50),
        ],
        LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => Heddle::Xds::routes('in',
            map { ["/$_/" => $_] } qw(three one dead), sort keys %lasting))]);
    $xds->serve(%what)->start;
    $hd->{without} = sub {
        delete $_->{outlier_detection} for grep { $_->{name} eq 'one' } @{$what{CDS}};
        $xds->serve(%what);
    };
    return $hd;
}

for my $way ('file', 'xds') {
    next if $way eq 'xds' && $Heddle::Xds::missing;
    my $hd = $way eq 'file' ? file_way() : xds_way();
    for my $n (1 .. 4) {
        $hd->backend($n, sub { my ($req) = @_; [$req->{uri} =~ /bad$n|all/ ? 500 : 200, {}, "at $n"] });
    }
    $hd->tcp_backend(5, sub { # each connection has a process of its own
        my ($sock) = @_;
        sysread $sock, my $head, 65536;
        print $sock "HTTP/1.1 500 No\r\nContent-Length: 20000000\r\n\r\n", 'at length ' x 2e6;
    });
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');

    my (%times, %by);
    for my $name (@again) {
        $times{grep { $hd->get("/$name/bad2")->body eq 'at 2' } 1 .. 24}++;
    }
    is_deeply \%times, {3 => scalar @again}, "$way: three in a row over all workers, then no more";

    my @readers;
    for (1 .. 100) { # whoever gets the long answer reads its head alone
        my $c = $hd->connect(0);
        $c->send("GET /long/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        push @readers, $c if $c->response_head->{status} == 500;
        last if @readers == 3;
    }
    is scalar(grep { $hd->get('/long/')->status == 500 } 1 .. 24), 0,
        "$way: ejected as soon as the third failure's head is there";
    undef @readers;

    $hd->get('/three/bad2') for 1 .. 24;
    $hd->wait_log(qr/127\.0\.0\.1:@{[$hd->port(2)]} is ejected for $base_ms ms: consecutive_5xx/);
    like $hd->admin('/clusters')->body, qr/^three::127\.0\.0\.1:@{[$hd->port(2)]}::health::\w+,ejected/m, "$way: shown";
    $hd->wait_for(sub { $hd->get('/three/good')->body eq 'at 2' }, 'the ejection to end');
    $hd->wait_log(qr/server 127\.0\.0\.1:@{[$hd->port(2)]} is used again/);
    $hd->get('/three/bad2') for 1 .. 24;
    $hd->wait_log(qr/127\.0\.0\.1:@{[$hd->port(2)]} is ejected for @{[2 * $base_ms]} ms/);
    pass "$way: the second time twice as long";
    $hd->wait_log(qr/is used again/, 2);

    %by = ();
    $by{$hd->get('/three/all')->body}++ for 1 .. 40;
    my $now = $hd->admin('/metrics')->body;
    cmp_ok scalar(grep { $_ > 8 } values %by), '>=', 2, "$way: no more than half are ejected";
    like $now, qr/^heddle_outlier_ejections_total\{cluster="three",kind="consecutive_5xx",outcome="overflow"\} [1-9]/m,
        "$way: which is counted";

    is join(' ', map { $hd->get('/one/bad4')->status } 1 .. 4), $way eq 'file' ? '500 500 502 502' : '500 500 503 503',
        "$way: all are ejected: no answer is better than a bad one";
    $hd->{without} ? $hd->{without}->() : $hd->conf(file_conf('')) && $hd->reload;
    ok eval { $hd->wait_for(sub { $hd->get('/one/')->status == 200 }, 'the ejected') }, "$way: without detection nobody is ejected any more";
    my @dead = map { $hd->get('/dead/')->status } 1 .. 12;
    is scalar(grep { $_ != 200 } @dead), 1, "$way: a failure to connect, split";
    $hd->stop;
}
done_testing;
