#!/usr/bin/perl
# Redirected clients, as Istio's sidecars have them: the kernel's NAT sends what goes to 10.9.0.1 and fd09::1 (by a file: 10.7.0.1) to
# one port, whose listeners and clusters find the original destination by SO_ORIGINAL_DST; and TPROXY, where the socket's own address
# is it. In a network namespace of the test's own, with nftables; clients are root there, Heddle's workers aren't, nor redirected.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Socket::IP;
use JSON::XS ();

BEGIN {
    my @nft = grep { -x } map { "$_/nft" } split(/:/, $ENV{PATH}), '/usr/sbin', '/sbin';
    plan skip_all => 'not root' if $> != 0;
    plan skip_all => 'no nft' if !@nft;
    if (!$ENV{HD_IN_NAMESPACE}) {
        plan skip_all => "no network namespace: $!" if system('unshare', '-n', 'true') != 0;
        $ENV{HD_IN_NAMESPACE} = 1;
        exec 'unshare', '-n', $^X, $0, @ARGV;
    }
}
use Heddle;
use Heddle::TwoWays;
use Heddle::Xds;
plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my ($v4, $v6, $any) = ('10.9.0.1', 'fd09::1', 'type.googleapis.com/');
my $hd = Heddle->new(workers => 2, log_level => 'info', modules => ['access_log']);
my $file = Heddle->new(workers => 2, log_level => 'info');
my ($file_in, $file_web, $file_tproxy) = map { $file->port($_) } 'in', 'web', 'tproxy';
my ($in, $tproxy, $one, $two) = map { $hd->port($_) } 'in', 'tproxy', 'one', 'two';
open my $nft, '|-', 'ip link set lo up && ip addr add 10.9.0.1/32 dev lo && ip addr add 10.7.0.1/32 dev lo && ip -6 addr add fd09::1/128 dev lo nodad'
    . ' && ip rule add fwmark 9 lookup 9 && ip route add local 0.0.0.0/0 dev lo table 9 && ip route add 10.6.0.0/16 dev lo && ip route add 10.8.0.0/16 dev lo && nft -f -' or die;
print $nft <<"EOC";
table inet nat {
    chain output {
        type nat hook output priority -100;
        meta skuid 0 ip daddr 10.9.0.0/16 tcp dport 1-65535 redirect to :$in
        meta skuid 0 ip daddr 10.7.0.0/16 tcp dport 80 redirect to :$file_web
        meta skuid 0 ip daddr 10.7.0.0/16 tcp dport 1-65535 redirect to :$file_in
        meta skuid 0 ip6 daddr fd09::/16 tcp dport 1-65535 redirect to :$in
    }
}
table ip mangle {
    chain output { type route hook output priority -150; meta skuid 0 ip daddr { 10.6.0.0/16, 10.8.0.0/16 } meta l4proto tcp meta mark set 9; }
    chain prerouting {
        type filter hook prerouting priority -150;
        ip daddr 10.6.0.0/16 meta mark 9 meta l4proto tcp tproxy to :$file_tproxy accept
        ip daddr 10.8.0.0/16 meta mark 9 meta l4proto tcp tproxy to :$tproxy accept
    }
}
EOC
plan skip_all => 'nftables has no NAT here' if !close $nft;

sub typed { my ($name, $url, %more) = @_; return {name => $name, typed_config => {'@type' => "$any$url", %more}} }
my $log = typed('log', 'envoy.extensions.access_loggers.file.v3.FileAccessLog', path => '/dev/stdout',
    log_format => {text_format_source => {inline_string => "%UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_HOST%\n"}});
sub to { my ($cluster) = @_; return {filters => [typed('tcp', 'envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
    stat_prefix => 'x', cluster => $cluster, access_log => [$log])]} }
sub socket_address { my ($addr, $port) = @_; return {socket_address => {address => $addr, port_value => 0 + $port}} }
sub original { my ($name, %more) = @_; return {name => $name, type => 'ORIGINAL_DST', lb_policy => 'CLUSTER_PROVIDED', connect_timeout => '2s', %more} }
my $original_dst = typed('original_dst', 'envoy.extensions.filters.listener.original_dst.v3.OriginalDst');
my $web = Heddle::Xds::listener('web', 1, route_config => Heddle::Xds::routes('web', ['/' => 'through', response_headers_to_add =>
    [{header => {key => 'x-to', value => '%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%:%DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}]]));
my $xds = Heddle::Xds->new($hd, 'xds')->serve(
    CDS => [original('through'), original('to_two', original_dst_lb_config => {upstream_port_override => $two}),
        Heddle::Xds::cluster('taken', $hd->port('taken'))],
    LDS => [
        {name => 'in', address => Heddle::TwoWays::merge(socket_address('::', $in), {socket_address => {ipv4_compat => JSON::XS::true()}}), use_original_dst => JSON::XS::true(), listener_filters => [$original_dst],
            filter_chains => [{filter_chain_match => {prefix_ranges => [{address_prefix => $v6, prefix_len => 128}], destination_port => 7}, %{to('taken')}}, to('through')]},
        (map { {name => "virtual $$_[0]:$$_[1]", address => socket_address($$_[0], $$_[1]), bind_to_port => JSON::XS::false(), filter_chains => [$$_[2]],
            additional_addresses => [map { {address => $_} } @$_[3 .. $#$_]]} }
            [$v4, 5, to('taken'), socket_address($v6, 5)], ['0.0.0.0', 6, to('to_two')], ['0.0.0.0', 80, $web->{filter_chains}[0]]),
        {name => 'six', address => socket_address('::', $hd->port('six')), filter_chains => [to('taken')]},
        {name => 'tproxy', address => socket_address('0.0.0.0', $tproxy), transparent => JSON::XS::true(), filter_chains => [
            {filter_chain_match => {destination_port => 5}, %{to('taken')}}, to('through')]},
    ])->start;
$hd->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
sub serve_on {
    my ($addr, $port, $says) = @_;
    my $l = IO::Socket::IP->new(LocalAddr => $addr, LocalPort => $port, Listen => 64, ReuseAddr => 1) or die "$addr:$port: $!";
    Heddle::Backend::spawn(sub { Heddle::Backend::tcp($l, sub { my ($s) = @_; sysread $s, my $got, 4096; syswrite $s, "$says <$got>"; }) });
}
serve_on(@$_) for [$v4, $one, 'one'], [$v4, $two, 'two'], [$v6, $one, 'six'], ['127.0.0.1', $hd->port('taken'), 'taken'];
$hd->{ports}{80} = 80; # the namespace is ours
$hd->backend(80 => sub { "web $_[0]{conn}" }, addr => $v4);
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 'in', 'tproxy';

sub ask {
    my ($addr, $port) = @_;
    my $s = IO::Socket::IP->new(PeerAddr => $addr, PeerPort => $port) or return "no connection: $!";
    my $c = Heddle::Http->adopt($s);
    $c->send('hi');
    $c->shutdown_write;
    return $c->read_all;
}
is ask($v4, $one), 'one <hi>', 'the original destination';
is ask($v4, $two), 'two <hi>', 'another port of it';
is ask($v6, $one), 'six <hi>', 'IPv6, by the same socket';
is ask($v6, 7), 'taken <hi>', 'a chain of an original destination';
is ask($v4, 5), 'taken <hi>', 'the listener of that address';
is ask($v6, 5), 'taken <hi>', 'and of a further address of it';
is ask($v4, 6), 'two <hi>', 'a wildcard listener of that port; another port in the place of the original one';
is ask($v4, 9), '', 'nobody is there';
is ask('10.8.0.1', 5), 'taken <hi>', 'TPROXY';
my $r = $hd->get('/', {port => 80, addr => $v4});
is $r->body . ' ' . $r->header('x-to'), "web 1 $v4:80 $v4", 'HTTP, and an IPv4 client of an IPv6 socket is one of IPv4';
is ask('::1', $hd->port('six')), 'taken <hi>', '[::]: IPv6';
like ask('127.0.0.1', $hd->port('six')), qr/^no connection/, 'and only where it says so IPv4';
sub logged { my ($line) = @_; return scalar(() = $hd->file('output') =~ /^\Q$line\E$/mg) }
for my $port ($in, $tproxy) {
    is ask('127.0.0.1', $port), '', 'a client that nobody redirected: we are not our own upstream';
    $hd->wait_for(sub { logged("through 127.0.0.1:$port -") }, 'its line in the log');
}
is ask($v4, $in), '', 'nor by way of a redirection';
$hd->wait_for(sub { logged("through $v4:$in -") }, 'its line in the log');
is logged("through $_"), 1, "the log: $_" for "$v4:$one $v4:$one", "[$v6]:$one [$v6]:$one", "$v4:$in $v4:$in";
$hd->stop;
$xds->stop;

# ---- by file

serve_on('10.7.0.1', $one, 'seven');
$file->{ports}{80} = 80;
$file->backend(80 => sub { "web $_[0]{conn}" }, addr => '10.7.0.1');
$file->conf(<<'EOC')->start;
stream {
    server { listen [::]:%%PORT_in%% ipv6only=off original_dst; proxy_half_close on; proxy_pass $original_dst; }
    server { listen %%PORT_tproxy%% transparent; return "$original_dst $server_addr $server_port"; }
}
http {
    server {
        listen %%PORT_web%% original_dst;
        add_header X-To "$server_addr:$server_port $remote_addr $original_dst";
        location / { proxy_pass http://$original_dst; }
        location /here { return 200 here; }
    }
}
EOC
is ask('10.7.0.1', $one), 'seven <hi>', 'a file: the original destination';
$r = $file->get('/', {port => 80, addr => '10.7.0.1'});
is $r->body . ' ' . $r->header('x-to'), 'web 1 10.7.0.1:80 10.7.0.1 10.7.0.1:80', 'HTTP';
is ask('10.6.0.1', 5), '10.6.0.1:5 10.6.0.1 5', 'TPROXY';
is ask('127.0.0.1', $file_tproxy), " 127.0.0.1 $file_tproxy", 'a client that nobody redirected';
is ask('127.0.0.1', $file_in), '', 'has nowhere to go';
is $file->get('/', {port => 'web'})->status, 502, 'by HTTP neither';
is $file->get('/here', {port => 'web'})->body, 'here', 'but here';
for ('unix:%%DIR%%/s transparent', '127.0.0.1:%%PORT_2%% udp original_dst', '127.0.0.1:%%PORT_2%% udp transparent') {
    my ($status, $out) = Heddle->new->conf("error_log stderr; stream { server { listen $_; return x; } }")->run('-t');
    like $out, qr/heddle\.conf:\d+: .*(?:transparent is for IP|is for connections, not for udp)/, "refused: $_";
}
done_testing;
