#!/usr/bin/perl
# Attacks by DNS (CVE-2021-23017 and its kind: answers that are forged or broken): what wasn't asked,
# or not from where it was asked, counts for nothing; a broken answer is none, and nobody dies of it. For names that a
# request brings, for servers of an upstream, and for clusters by xDS.
use strict;
use warnings;
use lib 't/lib';
use IO::Socket::INET;
use Test::More;
use Heddle;
use Heddle::Backend;
use Heddle::Dns;
use Heddle::Xds;
use JSON::XS ();

my $hd = Heddle->new;
my $dns = $hd->port('dns');
my ($good, $evil) = ('127.0.0.1', '127.0.0.66');

# ---- the server: a name says what is done

sub wire { Heddle::Dns::wire_name($_[0]) }
sub a { my ($owner, $addr, %o) = @_; return $owner . pack('nnN', $o{type} // 1, $o{class} // 1, 1) . ($o{data} // pack('n/a*', inet_aton($addr))) }
sub reply { my ($id, $question, $n, @records) = @_; return pack('nnnnnn', $id, 0x8180, 1, $n // scalar @records, 0, 0) . $question . join '', @records }

my $own = "\xc0\x0c"; # the question's name

# Instead of an answer: nothing but this.
my %broken = (
    empty => sub { '' },
    short => sub { substr reply(@_), 0, 5 },
    head => sub { substr reply(@_), 0, 12 },
    cut => sub { substr reply(@_, 1, a($own, $good)), 0, -3 },
    count => sub { reply(@_, 65535, a($own, $good)) },
    length => sub { reply(@_, 1, a($own, '', data => pack('n', 65535) . 'xxxx')) },
    one_more => sub { reply(@_, 1, a($own, '', data => pack('n', 5) . 'xxxxx')) },
    three => sub { reply(@_, 1, a($own, '', data => pack('n', 3) . 'xxx')) },
    itself => sub { my ($id, $q) = @_; reply($id, $q, 1, a(pack('n', 0xc000 | 12 + length $q), $good)) }, # a name that is itself
    circle => sub { my ($id, $q) = @_; my $at = 12 + length $q; reply($id, $q, 1, a("\1a" . pack('n', 0xc000 | $at), $good)) },
    beyond => sub { reply(@_, 1, a("\xff\xff", $good)) },
    label => sub { reply(@_, 1, a("\x80" . 'x' x 128 . "\0", $good)) },
    endless => sub { reply(@_, 1, a("\x3f" . 'x' x 63, $good)) },
    class => sub { reply(@_, 1, a($own, $evil, class => 3)) },
    cname_self => sub { my ($id, $q) = @_; reply($id, $q, 1, $own . pack('nnNn/a*', 5, 1, 1, $own)) },
    cname_long => sub { reply(@_, 1, $own . pack('nnNn/a*', 5, 1, 1, ("\x3f" . 'y' x 63) x 5 . "\0")) },
    other_owner => sub { reply(@_, 1, a(wire('victim.test'), $evil)) },
);
# Sent before the right answer.
my %forged = (
    wrong_id => sub { my ($id, $q) = @_; map { reply($id ^ $_, $q, 1, a($own, $evil)) } 1, 0x8000, 0xffff },
    wrong_name => sub { my ($id) = @_; reply($id, wire('victim.test') . pack('nn', 1, 1), 1, a($own, $evil)) },
    wrong_type => sub { my ($id, $q) = @_; reply($id, substr($q, 0, -4) . pack('nn', 28, 1), 1, a($own, $evil)) },
    other_port => sub { my ($id, $q) = @_; [reply($id, $q, 1, a($own, $evil))] },
);

sub serve {
    my ($sock) = @_;
    my $other = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') or die $!;
    open my $log, '>>', $hd->dir . '/asked' or die $!;
    $log->autoflush(1);
    while (my $from = $sock->recv(my $query, 4096)) {
        my ($id) = unpack 'n', $query;
        my ($what) = unpack 'C/a', substr $query, 12;
        my $question = substr $query, 12;
        my ($port) = Socket::unpack_sockaddr_in($from);
        print $log "$what $id $port\n";
        next if $what =~ /^quiet/;
        if (my $answer = $broken{lc $what}) {
            send $sock, $answer->($id, $question), 0, $from;
            next;
        }
        for my $f ($forged{lc $what} ? $forged{lc $what}->($id, $question) : ()) {
            send ref $f ? $other : $sock, ref $f ? $f->[0] : $f, 0, $from;
        }
        # with more than was asked for: an address of another name
        my $alien = lc $what eq 'victim' ? '' : a(wire('victim.test'), $evil);
        send $sock, pack('nnnnnn', $id, 0x8180, 1, $alien ? 2 : 1, 0, $alien ? 1 : 0) . $question . a($own, $good) . $alien . $alien, 0, $from;
    }
}
my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $dns, Proto => 'udp') or die "UDP port $dns: $!";
Heddle::Backend::spawn(sub { serve($socket) });
for my $addr ($good, $evil) {
    my $listener = Heddle::Backend::listener($hd->port('back'), $addr);
    Heddle::Backend::spawn(sub { Heddle::Backend::http($listener, $hd->dir . "/back-$addr", sub { $addr }) });
}
my @forged = sort keys %forged;
my @broken = sort keys %broken;

# ---- whom they are tried on

my $upstreams = join '', map { "upstream $_ { zone z 64k; server $_.test:%%PORT_back%% resolve; }\n" } @forged, @broken;
my $locations = join '', map { "location /up/$_ { proxy_pass http://$_; }\n" } @forged, @broken;
$hd->conf(<<"EOC");
http {
    resolver 127.0.0.1:%%PORT_dns%% valid=1s ipv6=off;
    resolver_timeout 500ms;
    $upstreams
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /var { proxy_pass http://\$arg_host.test:%%PORT_back%%; }
        $locations
    }
}
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
my $resolver = {name => 'envoy.network.dns_resolver.cares', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig',
    resolvers => [{socket_address => {address => '127.0.0.1', port_value => 0 + $dns}}],
    dns_resolver_options => {no_default_search_domain => JSON::XS::true()}}};
my $xds = Heddle::Xds->new($hd, 'xds')->serve(
    CDS => [map { {name => "x-$_", type => 'STRICT_DNS', connect_timeout => '2s', dns_lookup_family => 'V4_ONLY', dns_refresh_rate => '0.2s',
        typed_dns_resolver_config => $resolver, load_assignment => {cluster_name => "x-$_", endpoints => [{lb_endpoints => [{endpoint => {
            address => {socket_address => {address => "$_.test", port_value => 0 + $hd->port('back')}}}}]}]}} } @forged, @broken],
    LDS => [Heddle::Xds::listener('front', $hd->port('l'), route_config => Heddle::Xds::routes('in', map { ["/$_/" => "x-$_"] } @forged, @broken))])->start;
$hd->start;
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port('l')) }, 'the listener by xDS');
my $pids = join ' ', sort $hd->workers, $hd->processes('agent');

my %ask = (
    'a name of the request' => sub { $hd->get("/var?host=$_[0]") },
    'an upstream' => sub { $hd->get("/up/$_[0]") },
    'a cluster by xDS' => sub { $hd->get("/$_[0]/", {port => 'l'}) },
);
for my $who (sort keys %ask) {
    for my $what (@forged) {
        my $got = eval { $hd->wait_for(sub { my $r = $ask{$who}->($what); $r->status == 200 && $r->body }) } // 'nothing';
        is $got, $good, "$who: $what: the right answer counts";
    }
    for my $what (@broken) {
        $hd->wait_for(sub { $hd->file('asked') =~ /^$what /m }, "$what to be asked");
        my $r = $ask{$who}->($what);
        ok $r->status >= 502 || $r->body eq $good, "$who: $what: no answer, or a good one" or diag "$r";
    }
}
is $hd->get('/var?host=victim')->body, $good, 'what came along with other answers poisons nothing';
is join(' ', sort $hd->workers, $hd->processes('agent')), $pids, 'nobody died of it';

# ---- to be guessed: the port, of each question under way (RFC 5452 §9.2)

my @quiet = map { my $c = $hd->connect(0); $c->send("GET /var?host=quiet$_ HTTP/1.1\r\nHost: a\r\n\r\n"); $c } 1 .. 20;
my %ports = @{$hd->wait_for(sub { my %asked = $hd->file('asked') =~ /^quiet(\d+) \d+ (\d+)$/mg; return keys %asked == @quiet && [reverse %asked] }, 'twenty questions')};
cmp_ok scalar(keys %ports), '>=', 19, 'questions under way come from ports of their own'; # of one a time-out may have closed the port
$_->response for @quiet;

# ---- and the number. c-ares asks again under the same one.

my (%last, @fresh);
for (map { [split] } split /\n/, $hd->file('asked')) {
    my ($what, $id) = @$_;
    push @fresh, $id if ($last{$what} // -1) != $id;
    $last{$what} = $id;
}
my %ids = map { $_ => 1 } @fresh;
my %steps = map { (($fresh[$_] - $fresh[$_ - 1]) & 0xffff) => 1 } 1 .. $#fresh;
cmp_ok scalar(keys %ids), '>', @fresh * 0.9, 'numbers of questions are hardly ever used twice: ' . @fresh;
cmp_ok scalar(keys %steps), '>', @fresh * 0.9, 'nor do they follow one another';
done_testing;
