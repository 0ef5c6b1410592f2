#!/usr/bin/perl
# UDP by xDS: a listener of datagrams with udp_proxy: sessions by client, a choice by hashes, the idle time-out, logs; servers that fail
# their checks; a port that TCP has, too; another cluster, and no listener any more, while it runs; what isn't done is refused.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use IO::Select;
use IO::Socket::IP;
use JSON::XS ();
use Socket qw(:DEFAULT);
use Heddle;
use Heddle::TwoWays;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my $any = 'type.googleapis.com/envoy';
my $hd = Heddle->new(workers => 2, log_level => 'info', modules => ['access_log']);
my @servers = map { udp_server($_) } 1 .. 3;
sub udp_server { # answers with its number, where it came from, and the datagram
    my ($n) = @_;
    my $sock = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => $hd->port($n), Proto => 'udp') or die "udp $n: $@";
    return Heddle::Backend::spawn(sub {
        while (defined(my $from = recv $sock, my $got, 65536, 0)) {
            next if $got eq 'mute';
            send $sock, "$n:" . (unpack_sockaddr_in $from)[0] . ":$got", 0, $from;
        }
    });
}
my $log = {name => 'log', typed_config => {'@type' => "$any.extensions.access_loggers.file.v3.FileAccessLog", path => '/dev/stdout',
    log_format => {text_format_source => {inline_string => "%UPSTREAM_CLUSTER% %UPSTREAM_HOST% %BYTES_RECEIVED% %BYTES_SENT%\n"}}}};
sub udp { my ($n) = @_; return {socket_address => {protocol => 'UDP', address => '127.0.0.1', port_value => 0 + $hd->port($n)}} }
sub listener {
    my ($n, $cluster, %more) = @_;
    my $listener = delete $more{listener} // {};
    return {name => "l$n", address => udp($n), listener_filters => [{name => 'udp_proxy', typed_config => {
        '@type' => "$any.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig", stat_prefix => $n, access_log => [$log],
        ($cluster ? (cluster => $cluster) : ()), %more}}], %$listener};
}
sub cluster {
    my ($name, $ports, %more) = @_;
    my $c = Heddle::Xds::cluster($name, 0, %more);
    $c->{load_assignment} = {cluster_name => $name, endpoints => [{lb_endpoints => [map { {endpoint => {address => udp($_)}} } @$ports]}]};
    return $c;
}
# Checked over HTTP, each at a port beside it: well unless there is a file that says otherwise.
sub ill { my ($n, $is_ill) = @_; my $f = $hd->dir . "/ill-$n"; if ($is_ill) { open my $to, '>', $f or die "$f: $!" } else { unlink $f } }
sub checked {
    my $c = cluster('checked', [1, 2, 3], common_lb_config => {healthy_panic_threshold => {value => 0}}, health_checks => [{timeout => '2s', interval => '0.05s',
        unhealthy_threshold => 1, healthy_threshold => 1, no_traffic_interval => '0.05s', http_health_check => {path => '/'}}]);
    $_->{endpoint}{health_check_config} = {port_value => 0 + $hd->port("well$_->{endpoint}{address}{socket_address}{port_value}")}
        for @{$c->{load_assignment}{endpoints}[0]{lb_endpoints}};
    return $c;
}
for my $n (1 .. 3) { $hd->backend('well' . $hd->port($n), sub { {status => -e $hd->dir . "/ill-$n" ? 503 : 200} }) }
my $matcher = {on_no_match => {action => {name => 'route', typed_config => {'@type' => "$any.extensions.filters.udp.udp_proxy.v3.Route", cluster => 'one'}}}};
my %what = (
    CDS => [cluster('one', [1]), cluster('two', [2]), cluster('ring', [1, 2, 3], lb_policy => 'RING_HASH'), cluster('turns', [1, 2, 3]), checked(),
        Heddle::Xds::cluster('http', $hd->port('http'))],
    LDS => [listener('plain', 'one'), listener('idle', 'one', idle_timeout => '0.2s'), listener('matched', undef, matcher => $matcher),
        listener('by_ip', 'ring', hash_policies => [{source_ip => JSON::XS::true()}]), listener('by_key', 'ring', hash_policies => [{key => 'k'}]),
        listener('turns', 'turns'), listener('checked', 'checked'), listener('none', 'gone'),
        Heddle::Xds::listener('tcp', $hd->port('plain'), route_config => Heddle::Xds::routes('tcp', ['/' => 'http']))]);
my $xds = Heddle::Xds->new($hd, 'xds')->serve(%what)->start;
$hd->conf('xds { server 127.0.0.1:%%PORT_xds%%; node_id router~127.0.0.1~a.b~b.svc.cluster.local; }');
$hd->backend(http => sub { 'http' });
$hd->start;

sub client { my ($n, $from) = @_; return IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $hd->port($n), Proto => 'udp', $from ? (LocalHost => $from) : ()) }
sub hear {
    my ($sock, $s) = @_;
    return undef unless IO::Select->new($sock)->can_read($s // Heddle::deadline_s());
    my $got;
    return defined $sock->recv($got, 65536) ? $got : undef;
}
sub ask { my ($sock, $what) = @_; $sock->send($what); return hear($sock) }
# Datagrams to a port that nobody has are lost: asked again until <want> comes.
sub until_answered {
    my ($n, $want) = @_;
    $hd->wait_for(sub { my $c = client($n); $c->send('there?'); return (hear($c, 0.1) // '') =~ $want }, "an answer at $n");
}
until_answered($_, qr/there/) for map { $_->{name} =~ /^l(?!none)(\w+)/ } @{$what{LDS}};

my $a = client('plain');
my ($port) = ask($a, 'hello') =~ /^1:(\d+):hello$/ or fail 'no answer';
is ask($a, 'again'), "1:$port:again", 'a session: the same socket towards the server';
isnt ask(client('plain'), 'other'), "1:$port:other", 'another client has another';
is $hd->get('/', {port => 'plain'})->body, 'http', 'TCP at the same port';
is ask(client('matched'), 'x') =~ s/:\d+//r, '1:x', 'a cluster by the end of a matcher';
my $idle = client('idle');
my ($before) = ask($idle, 'hello') =~ /^1:(\d+)/;
$hd->wait_for(sub { $hd->file('output') =~ /^one \S+ 5 1\d$/m }, 'the idle session\'s line');
my ($after) = ask($idle, 'again') =~ /^1:(\d+):again$/;
isnt $after, $before, 'idle_timeout: then it is another session';
my %by_ip;
for my $ip (map { "127.0.1.$_" } 1 .. 12) { $by_ip{$ip}{substr ask(client('by_ip', $ip), 'x'), 0, 1}++ for 1 .. 3 }
is scalar(grep { keys %$_ > 1 } values %by_ip), 0, 'source_ip: an address, a server';
cmp_ok scalar(keys %{{map { %$_ } values %by_ip}}), '>', 1, 'addresses, several';
my %n;
$n{key}{substr ask(client('by_key', "127.0.1.$_"), 'x'), 0, 1}++ for 1 .. 12;
is scalar(keys %{$n{key}}), 1, 'a key: one for all';
$n{turns}{substr ask(client('turns'), 'x'), 0, 1}++ for 1 .. 12;
is scalar(keys %{$n{turns}}), 3, 'none: all in turn';
my $none = client('none');
$none->send('x');
$hd->wait_for(sub { $hd->file('output') =~ /^gone - 1 0$/m }, 'a cluster that isn\'t there');

# A session moves from a server that fails its checks to one that doesn't; where there is none it stays.
my $moved = client('checked');
my ($first) = ask($moved, 'x') =~ /^(\d):/;
is ask($moved, 'y') =~ s/:.*//r, $first, 'a session stays with a server that is well';
ill($first, 1);
my $second;
$hd->wait_for(sub { ($second) = ask($moved, 'z') =~ /^(\d):/; $second != $first }, 'it to go elsewhere');
ill($_, 1) for 1 .. 3;
$hd->wait_for(sub { my $c = client('checked'); $c->send('x'); !defined hear($c, 0.1) }, 'all to be ill');
is ask($moved, 'still') =~ s/:.*//r, $second, 'none is well: it stays where it is';

# While it runs.
$what{LDS}[0] = listener('plain', 'two');
$xds->serve(%what);
until_answered('plain', qr/^2:/);
is ask($a, 'still'), "1:$port:still", 'a session stays where it is when the listener changes';
shift @{$what{LDS}};
$xds->serve(%what);
$hd->wait_for(sub { my $c = client('plain'); $c->send('there?'); !defined hear($c, 0.1) && $!{ECONNREFUSED} }, 'the listener to go');
is ask($a, 'alone'), "1:$port:alone", 'and when it goes';
is $hd->get('/', {port => 'plain'})->body, 'http', 'TCP is still there';
my ($matched) = grep { $what{LDS}[$_]{name} eq 'lmatched' } 0 .. $#{$what{LDS}};
$what{LDS}[$matched] = Heddle::Xds::listener('lmatched', $hd->port('matched'), route_config => Heddle::Xds::routes('tcp', ['/' => 'http']));
$xds->serve(%what);
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port('matched')) }, 'a listener that becomes one of TCP');
is $hd->get('/', {port => 'matched'})->body, 'http', 'a listener that becomes one of TCP';

my %refused = (
    orig => ['use_original_src_ip', use_original_src_ip => JSON::XS::true()], each => ['use_per_packet', use_per_packet_load_balancing => JSON::XS::true()],
    tree => ['only on_no_match', matcher => {%$matcher, matcher_list => {matchers => [{}]}}], two => ['one at most', hash_policies => [{key => 'a'}, {key => 'b'}]],
    quic => ['one listener filter, udp_proxy', listener => {filter_chains => [{filters => []}]}], filters => ['one listener filter', listener => {listener_filters => []}],
);
for my $n (sort keys %refused) {
    my ($why, %more) = @{$refused{$n}};
    $xds->serve(%what, LDS => [@{$what{LDS}}, listener("refused$n", $more{matcher} ? undef : 'one', %more)]);
    ok eval { $xds->wait_nack('LDS', qr/"lrefused$n": .*\Q$why/) }, "refused: $n";
}
$hd->stop('TERM'); # QUIT would wait for the sessions
$xds->stop;
done_testing;
