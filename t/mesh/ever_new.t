#!/usr/bin/perl
# What comes and goes for ever leaves nothing behind: 10,000 different endpoints, one list after
# the other, through one cluster. (What an endpoint has in shared state takes some 200 bytes.)
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;
use JSON::PP;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my ($each, $rounds) = (500, 20);
my $hd = Heddle->new(workers => 2)->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
admin %%ADMIN%%;
EOC
my $xds = Heddle::Xds->new($hd, 'xds');

sub endpoint {
    my ($n) = @_;
    my $ip = join '.', 10, $n >> 16 & 255, $n >> 8 & 255, $n & 255;
    return {endpoint => {address => {socket_address => {address => $ip, port_value => 80}}}};
}

sub serve {
    my ($round) = @_;
    my @eps = map { endpoint($round * $each + $_) } 0 .. $each - 1;
    $xds->serve(
        CDS => [{name => 'c', type => 'EDS', eds_cluster_config => {eds_config => {ads => {}}}, connect_timeout => '1s'}],
        EDS => [{cluster_name => 'c', endpoints => [{lb_endpoints => \@eps}]}]);
}

sub memory { decode_json($hd->admin('/memory')->body) }

serve(0);
$xds->start;
$hd->start;
my $early;
for my $round (0 .. $rounds - 1) {
    serve($round) if $round > 0;
    my $last = endpoint(($round + 1) * $each - 1)->{endpoint}{address}{socket_address}{address};
    $hd->wait_for(sub { $hd->admin('/clusters')->body =~ /\Q$last\E:80/ }, "round $round");
    # what it replaced is freed by a timer; what that leaves goes with it
    $hd->wait_for(sub { memory()->{arenas}{dynamic}{regions_retired} == 0 }, "round $round is alone");
    $early = memory()->{state_bytes} if $round == 5;
}
my $late = memory()->{state_bytes};
cmp_ok $late, '<=', $early + 600 * $each, "after @{[$rounds * $each]} endpoints $late bytes, after the first @{[6 * $each]} $early";
done_testing;
