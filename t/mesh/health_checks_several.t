#!/usr/bin/perl
# Several checks of a cluster, by file and by xDS: all must be well. And who waits for the first answers: the first
# listeners by xDS open after them, not with wait_for_warm_on_init off; where checks come to a cluster that had none,
# its endpoints serve until then.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use JSON::XS ();
use Heddle;
use Heddle::Xds;

# What a back end answers is what lies in a file: its name is the path asked for and the port's number.
sub set {
    my ($hd, $path, $n, $status) = @_;
    my $file = $hd->dir . "/$path-$n";
    open my $f, '>', "$file.new" or die "$file: $!";
    print $f $status;
    close $f;
    rename "$file.new", $file or die "$file: $!";
}

sub back_end {
    my ($hd, $n) = @_;
    my $dir = $hd->dir;
    $hd->backend($n, sub {
        my ($path) = $_[0]{uri} =~ m{^/(\w+)};
        my $status = 'held'; # until it is something else
        while ($status eq 'held') {
            open my $f, '<', "$dir/$path-$n" or return "served by $n";
            $status = <$f>;
            select undef, undef, undef, 0.01 if $status eq 'held';
        }
        return $status eq 'silent' ? {hang => 1} : {status => $status, body => ''};
    });
}

# ---- all must be well

sub file_way {
    return Heddle->new(workers => 2)->conf(<<'EOC');
http {
    upstream web {
        server 127.0.0.1:%%PORT_1%% max_fails=0; server 127.0.0.1:%%PORT_2%% max_fails=0;
        health_check interval=50ms uri=/a mandatory;
        health_check interval=50ms uri=/b passes=2 mandatory;
        health_check interval=50ms type=tcp;
    }
    server { listen 127.0.0.1:%%PORT_0%%; location /web { proxy_pass http://web; } }
}
EOC
}

sub check { my ($path, %more) = @_;
    return {interval => '0.05s', no_traffic_interval => '0.05s', timeout => '5s', unhealthy_threshold => 1, healthy_threshold => 1,
        http_health_check => {path => $path}, %more} }
my $tcp = {interval => '5s', timeout => '5s', unhealthy_threshold => 1, healthy_threshold => 1, tcp_health_check => {}};
my @no_panic = (common_lb_config => {healthy_panic_threshold => {value => 0}});

sub with_xds {
    my ($clusters, %more) = @_;
    my $hd = Heddle->new(workers => 2, %more)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
    my @clusters = $clusters->($hd);
    $xds->serve(CDS => \@clusters, LDS => [Heddle::Xds::listener('front', $hd->port(0),
        route_config => Heddle::Xds::routes('in', map { ["/$_->{name}" => $_->{name}] } @clusters))]);
    $xds->start;
    return $hd;
}

sub xds_way {
    return with_xds(sub { my ($hd) = @_; return Heddle::Xds::cluster('web', 1, @no_panic,
        load_assignment => Heddle::Xds::assignment('web', map { $hd->port($_) } 1, 2),
        health_checks => [check('/a'), check('/b', healthy_threshold => 2), $tcp]) });
}

sub who { my ($hd, $n) = @_; my %by; $by{$hd->get('/web')->{body}}++ for 1 .. $n; return join ', ', sort keys %by }

sub check_all {
    my ($way, $hd) = @_;
    back_end($hd, $_) for 1, 2;
    set($hd, $_->[0], $_->[1], 200) for map { my $p = $_; map { [$p, $_] } 1, 2 } qw(a b);
    set($hd, 'b', 1, 500);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    $hd->wait_log(qr/"web": server 127\.0\.0\.1:@{[$hd->port(1)]} is unhealthy: status 500/);
    $hd->wait_log(qr/"web": server 127\.0\.0\.1:@{[$hd->port(2)]} is healthy/);
    is who($hd, 8), 'served by 2', "$way: who fails one of three checks gets nothing";
    set($hd, 'a', 1, 500);
    my $asked = sub { scalar grep { $_->{uri} eq "/$_[0]" } $hd->requests(1) };
    my $before = $asked->('a');
    $hd->wait_for(sub { $asked->('a') > $before + 1 }, 'the other one fails, too');
    set($hd, 'b', 1, 200);
    $before = $asked->('b');
    $hd->wait_for(sub { $asked->('b') > $before + 3 }, 'the first one is well again');
    is who($hd, 8), 'served by 2', "$way: still nothing: now another fails";
    unlike $hd->log, qr/:@{[$hd->port(1)]} is healthy/, "$way: it was never called healthy";
    set($hd, 'a', 1, 200);
    $hd->wait_log(qr/"web": server 127\.0\.0\.1:@{[$hd->port(1)]} is healthy/);
    is who($hd, 8), 'served by 1, served by 2', "$way: all are good: it serves";
    $hd->stop;
}
check_all(file => file_way());
SKIP: {
    skip $Heddle::Xds::missing, 1 if $Heddle::Xds::missing;
    check_all(xds => xds_way());
}

# ---- who waits for the first answers
if (!$Heddle::Xds::missing) {
    my $one = sub { my ($hd, $name, @more) = @_; return Heddle::Xds::cluster($name, $hd->port(1), @no_panic, @more) };
    my $hd = with_xds(sub { $one->($_[0], 'waits', health_checks => [check('/w', timeout => '3600s')]) });
    back_end($hd, 1);
    set($hd, 'w', 1, 'held');
    $hd->start;
    $hd->{xds}->wait_ack('LDS');
    $hd->wait_for(sub { grep { $_->{uri} eq '/w' } $hd->requests(1) }, 'a check under way');
    ok !Heddle::Port::is_listening($hd->port(0)), 'the listener waits for the check of the cluster';
    set($hd, 'w', 1, 200);
    is $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) && $hd->get('/waits')->{status} }, 'the listener'), 200,
        'the first request finds it well';
    $hd->stop;

    $hd = with_xds(sub { $one->($_[0], 'cold', health_checks => [check('/w', timeout => '3600s')],
        wait_for_warm_on_init => JSON::XS::false) });
    back_end($hd, 1);
    set($hd, 'w', 1, 'silent');
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    $hd->wait_for(sub { grep { $_->{uri} eq '/w' } $hd->requests(1) }, 'a check under way');
    is $hd->get('/cold')->{status}, 503, 'without waiting it opens, and nobody is known to be well';
    $hd->stop;

    $hd = with_xds(sub { $one->($_[0], 'later') });
    back_end($hd, 1);
    set($hd, 'w', 1, 'silent');
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    is $hd->get('/later')->{status}, 200, 'no checks yet';
    my $what = $hd->{xds}{what};
    $hd->{xds}->serve(%$what, CDS => [{%{$what->{CDS}[0]}, health_checks => [check('/w', timeout => '3600s')]}]);
    $hd->wait_for(sub { grep { $_->{uri} eq '/w' } $hd->requests(1) }, 'a check under way');
    is $hd->get('/later')->{status}, 200, 'checks have come: it serves until the first answer';
    $hd->{xds}->serve(%$what, CDS => [{%{$what->{CDS}[0]}, health_checks => [check('/x')]}]);
    set($hd, 'x', 1, 500);
    $hd->stop;
}
done_testing;
