#!/usr/bin/perl
# Request smuggling, differentially: odd requests (t/lib/OddRequests.pm) go to Heddle, nginx, HAProxy and
# Envoy, each before an upstream that records. What Heddle forwards has exactly one framing, and it is the
# framing that every other proxy saw that forwarded it, too: whatever two of them would read
# differently, Heddle refuses. What differs nevertheless stands in t/interop/smuggling-differences, with its
# reason. Needs at least one of the others. INTEROP_CASE=REGEX runs some and shows what came of them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Errno qw(EINPROGRESS EAGAIN);
use IO::Socket::INET;
use Socket qw(SOCK_STREAM PF_INET sockaddr_in inet_aton SOL_SOCKET SO_ERROR);
use Test::More;
use Time::HiRes qw(time);
use Heddle;
use Heddle::Envoy;
use Heddle::Watch;
use Interop qw(slurp);
use OddRequests;

my ($nginx) = grep { -x } '/usr/sbin/nginx', '/usr/local/sbin/nginx';
my ($haproxy) = grep { -x } '/usr/sbin/haproxy', '/usr/local/sbin/haproxy';
my $envoy = Heddle::Envoy::program();
my @others = grep { {nginx => $nginx, haproxy => $haproxy, envoy => $envoy}->{$_} } 'nginx', 'haproxy', 'envoy';
plan skip_all => 'neither nginx, HAProxy nor Envoy' if !@others;
note "without $_" for grep { my $name = $_; !grep { $_ eq $name } @others } 'nginx', 'haproxy', 'envoy';

my $wait_s = 1; # how long each proxy waits for what doesn't come
my @proxies = ('heddle', @others);
my $hd = Heddle->new(log_level => 'crit')->conf(<<"EOC");
http {
    client_header_timeout ${wait_s}s; client_body_timeout ${wait_s}s; keepalive_timeout ${wait_s}s;
    upstream u { server 127.0.0.1:%%PORT_up_heddle%%; keepalive 50; }
    server {
        listen 127.0.0.1:%%PORT_heddle%%;
        location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host; }
    }
}
EOC
my %listener = map { $_ => IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $hd->port("up_$_"),
        Listen => 512, ReuseAddr => 1, Blocking => 0) // die $@ } @proxies;

# ---- the others' configurations

my $theirs;
if ($nginx) {
    $theirs = Heddle->new(program => $nginx, ports => $hd->{ports})->conf(<<"EOC");
events { worker_connections 2000; }
http {
    access_log off; lingering_close off; server_tokens off;
    client_header_timeout ${wait_s}s; client_body_timeout ${wait_s}s; keepalive_timeout ${wait_s}s;
    client_body_temp_path %%DIR%%/t1; proxy_temp_path %%DIR%%/t2;
    fastcgi_temp_path %%DIR%%/t3; uwsgi_temp_path %%DIR%%/t4; scgi_temp_path %%DIR%%/t5;
    upstream u { server 127.0.0.1:%%PORT_up_nginx%%; keepalive 50; }
    server {
        listen 127.0.0.1:%%PORT_nginx%%;
        location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host; }
    }
}
EOC
}
if ($haproxy) {
    my $conf = $hd->write('haproxy.cfg', <<"EOC");
global
    maxconn 4000
defaults
    mode http
    timeout client ${wait_s}s
    timeout http-request ${wait_s}s
    timeout http-keep-alive ${wait_s}s
    timeout connect 5s
    timeout server 5s
frontend f
    bind 127.0.0.1:%%PORT_haproxy%%
    default_backend b
backend b
    http-reuse safe
    server s 127.0.0.1:%%PORT_up_haproxy%%
EOC
    start('haproxy', $haproxy, '-db', '-f', $conf);
}
if ($envoy) {
    my $conf = $hd->write('envoy.yaml', <<"EOC");
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: %%PORT_envoy%%}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "\@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          codec_type: HTTP1
          generate_request_id: false
          delayed_close_timeout: 0.1s
          stream_idle_timeout: ${wait_s}s
          request_timeout: ${wait_s}s
          request_headers_timeout: ${wait_s}s
          common_http_protocol_options: {idle_timeout: ${wait_s}s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"\@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes: [{match: {prefix: ""}, route: {cluster: u}}]
  clusters:
  - name: u
    type: STATIC
    connect_timeout: 5s
    load_assignment: {cluster_name: u, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %%PORT_up_envoy%%}}}}]}]}
EOC
    start('envoy', $envoy, '-c', $conf, '--concurrency', 1, '--log-level', 'off', '--disable-hot-restart');
}
$theirs->start if $theirs;
$hd->start;
for my $name ('haproxy', 'envoy') {
    $hd->wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $hd->port($name)) }, $name)
        if grep { $_ eq $name } @others;
}

# A program that ends with the test; its words go to a file.
sub start {
    my ($name, @command) = @_;
    my $out = $hd->dir . "/$name.out";
    return Heddle::Backend::spawn(sub {
        close $_ for values %listener;
        open STDOUT, '>', $out;
        open STDERR, '>&', \*STDOUT;
        exec @command or die "$command[0]: $!";
    });
}

# ---- the upstreams: strict readers of what proxies send, all in one loop with the clients

my (%conns, %seen, @broken); # fd => conn; seen{proxy}{id} = [message...]; what Heddle sent wrongly

sub message_id {
    my ($text) = @_;
    return $text =~ /(i(?:\d{3}|a[0-9a-f]{2}|[b-f][0-9a-f]{2})z)/ ? $1 : 'unknown';
}

# Takes messages off a buffer; what can't be read with one meaning is kept in @broken.
sub read_messages {
    my ($c, $ended) = @_;
    while (length $c->{buf}) {
        my ($head) = $c->{buf} =~ /\A(.*?\r\n)\r\n/s or last;
        my $rest = substr $c->{buf}, length($head) + 2;
        my ($start, @fields) = split /\r\n/, $head;
        my %f;
        my $why;
        for my $line (@fields) {
            my ($name, $value) = $line =~ /\A([!#\$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)\z/s;
            $why //= "no field: $line" if !defined $name || $value =~ /[\0\r\n]/;
            push @{$f{lc $name}}, $value if defined $name;
        }
        my ($method, $target, $version) = $start =~ /\A([!#\$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP\/(1\.[01])\z/;
        $why //= "no request line: $start" if !defined $method;
        my @lengths = @{$f{'content-length'} // []};
        my @codings = @{$f{'transfer-encoding'} // []};
        $why //= 'two framings' if @lengths + @codings > 1;
        $why //= "no length: $lengths[0]" if @lengths && $lengths[0] !~ /\A0*\d{1,15}\z/;
        $why //= "no coding: $codings[0]" if @codings && lc $codings[0] ne 'chunked';
        push @broken, message_id($c->{buf}) . ': not one Host' if @{$f{host} // []} != 1 && $c->{proxy} eq 'heddle';
        my ($body, $left) = ('', $rest);
        my $complete = 1;
        if (@codings) {
            while (1) {
                if ($left !~ s/\A([0-9a-fA-F]{1,15})\r\n//) {
                    $why //= 'no chunk: ' . OddRequests::word(substr $left, 0, 20) if $left =~ /\r\n/;
                    $complete = 0;
                    last;
                }
                my $size = hex $1;
                if ($size == 0) {
                    $complete = $left =~ s/\A(?:[^\r\n]+\r\n)*\r\n//;
                    last;
                }
                $body .= substr $left, 0, $size;
                if (length $left < $size + 2) {
                    $complete = 0;
                    last;
                }
                $left = substr $left, $size + 2;
            }
        } elsif (@lengths && $lengths[0] =~ /\A0*(\d{1,15})\z/) {
            $lengths[0] = $1;
            $complete = length $left >= $lengths[0];
            $body = substr $left, 0, $lengths[0];
            $left = $complete ? substr $left, $lengths[0] : '';
        }
        push @broken, message_id($c->{buf}) . ": $why" if $why && $c->{proxy} eq 'heddle';
        last if !$complete && !$ended && !$why;
        my $m = {method => $method // '?', target => $target // '?', body => $body, complete => $complete && !$why};
        push @{$seen{$c->{proxy}}{message_id("$head$body")}}, $m;
        $c->{buf} = $left;
        if (!$m->{complete}) {
            $c->{buf} = '';
            last;
        }
        my $text = $m->{method} eq 'HEAD' ? '' : 'ok';
        syswrite $c->{sock}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n$text";
        if ($version eq '1.0' || grep { /close/i } @{$f{connection} // []}) {
            end_conn($c);
            last;
        }
    }
    return;
}

sub end_conn {
    my ($c) = @_;
    delete $conns{fileno $c->{sock}} if $c->{sock};
    close $c->{sock} if $c->{sock};
    $c->{sock} = undef;
    return;
}

# ---- the clients

my %answer; # {proxy}{id} = {bytes, seconds}

sub open_client {
    my ($job) = @_;
    my ($proxy, $case) = @$job;
    socket my $s, PF_INET, SOCK_STREAM, 0 or die "socket: $!";
    $s = IO::Socket::INET->new_from_fd(fileno($s), 'r+') && bless $s, 'IO::Socket::INET';
    $s->blocking(0);
    connect $s, sockaddr_in($hd->port($proxy), inet_aton('127.0.0.1')) or $!{EINPROGRESS} or die "connect: $!";
    $conns{fileno $s} = {sock => $s, proxy => $proxy, id => $case->[2], out => $case->[1], in => '', began => time, kind => 'client'};
    return;
}

sub run_jobs {
    my @jobs = @_;
    my $open = 0;
    my $until = time + 4 * Heddle::deadline_s();
    my %fd_of = map { fileno($listener{$_}) => $_ } keys %listener;
    while ((@jobs || $open) && time < $until) {
        while (@jobs && $open < 400) {
            open_client(shift @jobs);
            $open++;
        }
        my ($r, $w) = ('', '');
        vec($r, $_, 1) = 1 for keys %fd_of, keys %conns;
        for my $fd (keys %conns) {
            vec($w, $fd, 1) = 1 if length($conns{$fd}{out} // '');
        }
        next if select($r, $w, undef, 1) <= 0;
        for my $fd (keys %fd_of) {
            next if !vec $r, $fd, 1;
            while (my $sock = $listener{$fd_of{$fd}}->accept) {
                $sock->blocking(0);
                $conns{fileno $sock} = {sock => $sock, proxy => $fd_of{$fd}, buf => '', kind => 'up'};
            }
        }
        for my $fd (keys %conns) {
            my $c = $conns{$fd} or next;
            if (vec $w, $fd, 1) {
                my $n = syswrite $c->{sock}, $c->{out};
                substr $c->{out}, 0, $n, '' if defined $n;
                $c->{out} = '' if !defined $n && !$!{EAGAIN};
            }
            next if !vec $r, $fd, 1;
            my $is_client = $c->{kind} eq 'client';
            my $n = sysread $c->{sock}, $c->{$is_client ? 'in' : 'buf'}, 65536, length $c->{$is_client ? 'in' : 'buf'};
            next if !defined $n && $!{EAGAIN};
            if ($is_client) {
                next if $n;
                $answer{$c->{proxy}}{$c->{id}} = {bytes => $c->{in}, seconds => time - $c->{began}};
                end_conn($c);
                $open--;
            } else {
                read_messages($c, !$n);
                end_conn($c) if !$n && $c->{sock};
            }
        }
    }
    read_messages($_, 1) for grep { $_->{kind} eq 'up' && length $_->{buf} } values %conns;
    return !@jobs && !$open;
}

# ---- what came of it

# One proxy's reading of a case, as a list of texts; the last may be 'waits'.
sub reading {
    my ($proxy, $id) = @_;
    my @list;
    for my $m (@{$seen{$proxy}{$id} // []}) {
        if (!$m->{complete}) {
            push @list, 'waits' if ($answer{$proxy}{$id}{seconds} // 0) > 0.8 * $wait_s;
            last;
        }
        push @list, "$m->{method} $m->{target} " . OddRequests::word($m->{body});
    }
    return @list;
}

# Without the target: proxies may normalise it, or make it of an absolute one.
sub framing { my ($text) = @_; return $text =~ s/^(\S+) \S+ /$1 /r }

# What of Heddle's reading contradicts another's; '' if nothing.
sub contradiction {
    my ($id) = @_;
    my @ours = reading('heddle', $id);
    for my $k (0 .. $#ours) {
        for my $other (@others) {
            my @list = reading($other, $id);
            next if $k > $#list;
            return "message $k: heddle \"$ours[$k]\", $other \"$list[$k]\""
                if framing($ours[$k]) ne framing($list[$k]) && !($ours[$k] eq 'waits' && $list[$k] eq 'waits');
        }
    }
    return '';
}

sub status { my ($a) = @_; return join ' ', ($a->{bytes} // '') =~ m{^HTTP/1\.[01] (\d+)}mg }

my @cases = OddRequests::all();
@cases = grep { $_->[0] =~ /$ENV{INTEROP_CASE}/ } @cases if $ENV{INTEROP_CASE};
cmp_ok scalar(@cases), '>=', 1000, scalar(@cases) . ' odd requests' if !$ENV{INTEROP_CASE};

my @allowed;
for my $line (split /\n/, slurp("$FindBin::Bin/smuggling-differences")) {
    push @allowed, {regex => qr/$1/, reason => $2} if $line =~ /^([^#\s].*?)\t+(.*)/;
}
my $allowed_row = sub { my ($name) = @_; return (grep { $name =~ $_->{regex} } @allowed)[0] };

my $began = time;
ok run_jobs(map { my $case = $_; map { [$_, $case] } @proxies } @cases), 'each connection was ended by its proxy';
note sprintf '%.1f s', time - $began;

# A slow machine can make a reading look cut: what differs is asked again, alone.
my @again = grep { contradiction($_->[2]) && !$allowed_row->($_->[0]) } @cases;
for my $case (@again) {
    delete $seen{$_}{$case->[2]} for @proxies;
    run_jobs(map { [$_, $case] } @proxies);
}

if ($ENV{INTEROP_CASE}) {
    for my $case (@cases) {
        diag $case->[0];
        diag sprintf '  %-8s %-12s %.1f s  %s', $_, status($answer{$_}{$case->[2]}), $answer{$_}{$case->[2]}{seconds} // 0,
            join(' | ', reading($_, $case->[2])) for @proxies;
    }
}

for my $proxy (@proxies) {
    my @s = map { $answer{$proxy}{$_->[2]}{seconds} // 99 } @cases;
    note sprintf '%s: %d connections ended late', $proxy, scalar grep { $_ > 0.8 * $wait_s } @s;
}
my (%family, $disagree, $refused);
for my $case (@cases) {
    my ($name, undef, $id) = @$case;
    my %readings = map { join(' | ', map { framing($_) } reading($_, $id)) => 1 } grep { @{$seen{$_}{$id} // []} } @others;
    $disagree++ if keys %readings > 1;
    $refused++ if !@{$seen{heddle}{$id} // []};
    my $what = contradiction($id);
    my $row = $allowed_row->($name);
    $row->{used}++ if $row && $what;
    push @{$family{($name =~ /^(\w+)/)[0]}}, $what && !$row ? "$name: $what" : ();
}
note "$refused refused by Heddle; of what the others forwarded, $disagree read in several ways";
cmp_ok $disagree, '>', 0, 'there are requests which others read in several ways' if @others > 1 && !$ENV{INTEROP_CASE};
for my $name (sort keys %family) {
    ok !@{$family{$name}}, "$name: nothing forwarded that another proxy reads differently"
        or diag map { "$_\n" } @{$family{$name}};
}
ok !@broken, 'what Heddle forwards has exactly one framing' or diag map { "$_\n" } @broken;
ok !$seen{heddle}{unknown}, 'nothing came that nobody sent' or diag explain $seen{heddle}{unknown};
if (!$ENV{INTEROP_CASE} && @others == 3) {
    ok $_->{used}, "still so: $_->{reason}" for @allowed;
}

done_testing;
