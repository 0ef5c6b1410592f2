#!/usr/bin/perl
# HTTP/1, HTTP/2, gRPC, TLS, WebSockets and TCP at once, while workers, the agent and the control plane are killed, the
# configuration reloads with another certificate, that by xDS changes, its secret too, and an upstream comes and goes.
# Every request has its answer or a correct error; only one under way while a worker was killed may end in a closed
# connection. No count is lost: /metrics has what each client saw, but for what a killed worker held. Afterwards nothing
# is left: gauges are 0, all that the upstream saw was asked for, and no worker has grown.
use strict;
use warnings;
use lib 't/lib';
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);
use Heddle;
use Heddle::Xds;

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;
plan skip_all => 'no curl with HTTP/2' if (qx{curl --version 2>/dev/null} // '') !~ /\bHTTP2\b/;

my $rounds = Heddle::is_sanitized() ? 3 : 5; # workers are killed in them
my $more_rounds = 2;                         # all else happens in these, too

# The upstream that stays is a Heddle, for it speaks HTTP/2; what it was asked stands in its log.
my $back = Heddle->new->conf(<<'EOC')->start;
http {
    log_format uri "$request_uri";
    access_log %%DIR%%/asked.log uri;
    server { listen 127.0.0.1:%%PORT_0%%; http2 on; location / { default_type application/grpc; add_header grpc-status 0; return 200 "answer $request_uri"; } }
}
EOC
my $hd = Heddle->new(workers => 2, modules => ['metrics']);
my $back_port = $back->port(0);
my $ca = $hd->make_ca('root');
my @certs = map { $ca->make_cert("server$_", dns => 'localhost') } 0, 1;

sub conf_with {
    my ($cert) = @_;
    return <<"EOC";
admin %%ADMIN%%;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
http {
    access_log off;
    metrics on reporter=source;
    upstream steady { server 127.0.0.1:$back_port; keepalive 8; }
    upstream flaps { server 127.0.0.1:%%PORT_5%% max_fails=0; server 127.0.0.1:$back_port max_fails=0; keepalive 8; }
    upstream alone { server 127.0.0.1:%%PORT_5%% max_fails=0; }
    upstream sockets { server 127.0.0.1:%%PORT_6%%; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_1%% ssl;
        http2 on;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        location / { proxy_pass http://steady; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /flaps { proxy_pass http://flaps; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /alone { proxy_pass http://alone; }
        location /grpc { grpc_pass grpc://steady; }
        location /ws {
            proxy_pass http://sockets;
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
}
stream {
    upstream lines { server 127.0.0.1:%%PORT_7%%; }
    server { listen 127.0.0.1:%%PORT_2%%; proxy_pass lines; }
}
EOC
}

sub flapping { $hd->backend(5, sub { [200, {}, "answer $_[0]{uri}"] }) }
my $echo = sub { my ($sock) = @_; while (sysread $sock, my $b, 4096) { syswrite $sock, $b } };
flapping();
$hd->tcp_backend(7, $echo);
$hd->tcp_backend(6, sub {
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread $sock, $head, 4096, length $head or return }
    syswrite $sock, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    $echo->($sock);
});
$hd->conf(conf_with($certs[0]));
my $xds = Heddle::Xds->new($hd, 'xds');
my %tls = (name => 'tls', typed_config => {
    '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
    common_tls_context => {tls_certificate_sds_secret_configs => [{name => 'cert', sds_config => {ads => {}}}]}});
my $stats = {name => 'istio.stats', typed_config => {'@type' => 'type.googleapis.com/stats.PluginConfig'}};

# What the control plane says in round <i>, which responses show: a cluster and a certificate of its own.
sub say_round {
    my ($i) = @_;
    my ($chain, $key) = map { +{inline_string => Heddle::Cert::slurp($certs[$i % 2]{$_})} } 'chain', 'key';
    my %front = (http_filters => [$stats], listener => {traffic_direction => 'OUTBOUND'},
        route_config => Heddle::Xds::routes('in',
            ['/' => "meshed$i", response_headers_to_add => [{header => {key => 'x-round', value => "$i"}}]]));
    $xds->serve(
        CDS => [Heddle::Xds::cluster("meshed$i", $back_port)],
        SDS => [{name => 'cert', tls_certificate => {certificate_chain => $chain, private_key => $key}}],
        LDS => [Heddle::Xds::listener('front', $hd->port(3), %front),
            Heddle::Xds::listener('secure', $hd->port(4), %front, chain => {transport_socket => \%tls})],
    )->start;
}
say_round(0);
$hd->start;
for my $n (3, 4) { $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($n)) }, 'the listeners by xDS') }

# ---- the load: each kind a process that writes "began ended outcome" of each request to a file of its own

my ($port, $tls_port, $tcp_port, undef, $secure_port) = map { $hd->port($_) } 0 .. 4;

sub host { my ($uri) = @_; return ($uri =~ m{^/(\w+)/})[0] . '.chaos.svc.cluster.local' } # in the labels of metrics

sub curl {
    my ($uri, @args) = @_;
    my ($scheme, $p) = $uri =~ /^\/tls/ ? ('https', $tls_port) : $uri =~ /^\/secure/ ? ('https', $secure_port) : ('http', $port);
    open my $out, '-|', 'curl', '-s', '--noproxy', '*', '-m', 60, '--cacert', $ca->{cert}, '--resolve', "localhost:$p:127.0.0.1",
        '-H', 'Host: ' . host($uri), '-w', '\n%{http_code}', @args, "$scheme://localhost:$p$uri" or die "curl: $!";
    my $text = do { local $/; <$out> } // '';
    return 'closed ' . ($? >> 8) unless close $out;
    my ($body, $code) = $text =~ /^(.*)\n(\d+)$/s or return "none: $text";
    return $code != 200 ? $code : $body eq "answer $uri" ? 'right' : "wrong: $body";
}

sub http1 {
    my ($uri, $to) = @_;
    my $c = Heddle::Http->connect($to // $port);
    my $r = $c->request('GET', $uri, Connection => 'close', Host => host($uri)) or return 'closed';
    return $r->status != 200 ? $r->status : $r->body eq "answer $uri" ? 'right' : 'closed';
}

sub echoes {
    my ($p, $head, $id) = @_;
    my $c = Heddle::Http->connect($p);
    if ($head) {
        $c->send($head);
        my $r = $c->response_head or return 'closed';
        return $r->status if $r->status != 101;
    }
    for my $i (1 .. 5) {
        $c->send("$id $i;");
        return 'closed' if !defined $c->read_until(qr/\Q$id $i;\E/);
    }
    return 'right';
}

my $upgrade = "GET /ws HTTP/1.1\r\nHost: @{[host('/ws/')]}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
my %kinds = (
    http1 => sub { http1("/http1/$_[0]") },
    mesh => sub { http1("/mesh/$_[0]", $hd->port(3)) },
    flaps => sub { http1("/flaps/$_[0]") },
    alone => sub { http1("/alone/$_[0]") },
    http2 => sub { curl("/http2/$_[0]", '--http2-prior-knowledge') },
    tls => sub { curl("/tls/$_[0]") },
    secure => sub { curl("/secure/$_[0]") },
    grpc => sub {
        curl("/grpc/$_[0]", '--http2-prior-knowledge', '-H', 'Content-Type: application/grpc', '-H', 'TE: trailers', '-d', 'x');
    },
    ws => sub { echoes($port, $upgrade, $_[0]) },
    tcp => sub { echoes($tcp_port, undef, $_[0]) },
);
my $dir = $hd->dir;
my ($stop, $pause) = ("$dir/stop", "$dir/pause");

sub touch { open my $f, '>', $_[0] or die "$_[0]: $!" }

# In a client: there is no request of its kind until the pause is over.
sub rest {
    my ($kind) = @_;
    touch("$dir/rests.$kind");
    sleep 0.01 while -e $pause && !-e $stop;
    unlink "$dir/rests.$kind";
}

sub quiet {
    touch($pause);
    $hd->wait_for(sub { !grep { !-e "$dir/rests.$_" } keys %kinds }, 'all requests to end');
}

sub load_again {
    unlink $pause;
    $hd->wait_for(sub { !grep { -e "$dir/rests.$_" } keys %kinds }, 'the load to go on');
}

my %pids;
for my $kind (sort keys %kinds) {
    $pids{$kind} = Heddle::Backend::spawn(sub {
        open my $f, '>', "$dir/load.$kind" or die;
        $f->autoflush(1);
        for (my $i = 0; !-e $stop; $i++) {
            rest($kind) if -e $pause;
            my $from = time;
            my $got = eval { $kinds{$kind}->("$kind-$i") } // "died: $@";
            printf $f "%.6f %.6f %s\n", $from, time, $got =~ s/\s+/ /gr;
            sleep 0.005; # so that there is time for those that come and go
        }
    });
}

# Each kind's outcomes so far.
sub outcomes {
    my ($kind) = @_;
    open my $f, '<', "$dir/load.$kind" or return;
    return map { chomp; [split / /, $_, 3] } <$f>;
}

# Until each kind had another <n> requests.
sub go_on {
    my ($n) = @_;
    my %from = map { $_ => scalar(() = outcomes($_)) } keys %kinds;
    $hd->wait_for(sub { !grep { (() = outcomes($_)) < $from{$_} + $n } keys %kinds }, 'each kind of load to go on');
}

sub rss_kib {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/status" or return 0;
    return (map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$f>)[0] // 0;
}

# ---- counts: {kind}{status}, as the clients have seen them, and as /metrics has them

sub seen_counts {
    my %n;
    for my $kind (grep { $_ ne 'tcp' } keys %kinds) {
        for (map { $_->[2] } outcomes($kind)) {
            my $status = $_ ne 'right' ? $_ : $kind eq 'ws' ? 101 : 200;
            $n{$kind}{$status}++ if $status =~ /^\d+$/;
        }
    }
    return \%n;
}

sub metrics_counts {
    my %n;
    for (split /\n/, $hd->admin('/metrics')->body) {
        my ($labels, $value) = /^istio_requests_total\{(.*)\} (\d+)$/ or next;
        my ($kind) = $labels =~ /destination_service="(\w+)\.chaos\./ or next;
        my ($status) = $labels =~ /response_code="(\d+)"/ or next;
        $n{$kind}{$status} += $value if $value;
    }
    return \%n;
}

# By how many requests of <kind> the two differ.
sub difference {
    my ($kind, $seen, $counted) = @_;
    my %all = (%{$seen->{$kind} // {}}, %{$counted->{$kind} // {}});
    my $n = 0;
    $n += abs(($seen->{$kind}{$_} // 0) - ($counted->{$kind}{$_} // 0)) for keys %all;
    return $n;
}

sub text { my ($counts, $kind) = @_; return join ' ', map { "$_: $counts->{$kind}{$_}" } sort keys %{$counts->{$kind} // {}} }

# With no request under way: whatever is counted of each kind is what was seen, but for <may>{kind}.
sub compare_counts {
    my ($name, %may) = @_;
    my ($seen, $counted) = seen_counts();
    eval { $hd->wait_for(sub { # a count comes a moment after its answer
        $counted = metrics_counts();
        return !grep { difference($_, $seen, $counted) > ($may{$_} // 0) } keys %$seen;
    }, 'counts', 10) };
    for my $kind (sort keys %$seen) {
        my ($differ, $most) = (difference($kind, $seen, $counted), $may{$kind} // 0);
        cmp_ok $differ, '<=', $most, "$name: $kind: of what was seen (" . text($seen, $kind) . ") $differ are counted otherwise, of $most that may"
            or diag 'counted: ' . text($counted, $kind);
    }
    return map { $_ => difference($_, $seen, $counted) } keys %$seen;
}

# ---- the chaos

my @kills; # [before it, when another worker was there, when it was dead]
my $agent_since = time;
$hd->expect_log(qr/worker process \d+ exited on signal 9/, qr/agent process \d+ exited on signal 9/);

sub kill_worker {
    my ($victim) = $hd->workers;
    my $at = time;
    kill 'KILL', $victim;
    my $dead = time;
    $hd->wait_for(sub { $hd->workers >= 2 && !grep { $_ == $victim } $hd->workers }, "another worker for $victim");
    push @kills, [$at, time, $dead];
}

# The control plane is away while the agent dies; then all there is to change changes.
sub change_all {
    my ($i) = @_;
    $xds->stop;
    my ($agent) = $hd->wait_for(sub { ($hd->processes('agent'))[0] }, 'an agent');
    go_on(1) while time - $agent_since < 1.5; # one that ends within a second is restarted later, with an alert
    kill 'KILL', $agent;
    $hd->wait_for(sub { grep { $_ != $agent } $hd->processes('agent') }, 'another agent');
    $agent_since = time;
    $hd->stop_backend(5);
    go_on(1);
    $hd->conf(conf_with($certs[$i % 2]));
    ok $hd->reload, "round $i: reloaded with another certificate";
    flapping();
    say_round($i);
    go_on(1);
}

# Requests that a killed worker may have held, and whose count it may have taken along: those under way, and the last one before.
sub held {
    my ($kind) = @_;
    my @all = outcomes($kind);
    my %held;
    for my $kill (@kills) {
        my @began = grep { $all[$_][0] <= $kill->[2] } 0 .. $#all;
        $held{$_} = 1 for grep { $all[$_][1] >= $kill->[0] } @began;
        my ($last) = grep { $all[$_][1] < $kill->[0] } reverse @began;
        $held{$last} = 1 if defined $last;
    }
    return scalar keys %held;
}

# The serial of the certificate that is shown at <p>.
sub shown_at {
    my ($p) = @_;
    return qx{openssl s_client -connect 127.0.0.1:$p -servername localhost </dev/null 2>/dev/null | openssl x509 -noout -serial 2>/dev/null};
}

go_on(3);
for my $i (1 .. $rounds) {
    kill_worker();
    go_on(1);
    change_all($i);
}
quiet();
my %lost = compare_counts('with kills', map { $_ => held($_) } keys %kinds);
load_again();
change_all($rounds + $_) for 1 .. $more_rounds;
my $last = $rounds + $more_rounds;
my $serial = qx{openssl x509 -noout -serial -in $certs[$last % 2]{cert}};
ok eval { $hd->wait_for(sub { ($hd->get('/', {port => 3})->header('x-round') // '') eq $last }, 'its last word') },
    'what the control plane said last is in force';
for ([$tls_port, 'of the file'], [$secure_port, 'by xDS']) {
    my ($p, $which) = @$_;
    ok eval { $hd->wait_for(sub { shown_at($p) eq $serial }, 'the last certificate') }, "the last certificate $which is shown";
}
my @settled = $hd->workers;
go_on(2);
my %before = map { $_ => rss_kib($_) } @settled;
go_on(5) for 1 .. (Heddle::is_sanitized() ? 1 : 4);
my %after = map { $_ => rss_kib($_) } @settled;
quiet();
compare_counts('without', %lost);
touch($stop);
waitpid $_, 0 for values %pids;

# ---- the judgement

my %refusals = (alone => qr/^50[234]$/); # its only upstream was away; all others had one
for my $kind (sort keys %kinds) {
    my @all = outcomes($kind);
    my $may = $refusals{$kind} // qr/^(?!)/;
    my @bad = grep {
        my ($from, $to, $what) = @$_;
        my $in_kill = grep { $from <= $_->[1] && $to >= $_->[0] } @kills;
        $what ne 'right' && $what !~ $may && !($in_kill && $what =~ /^closed/);
    } @all;
    is scalar @bad, 0, "$kind: each of " . @all . ' is answered, but for those of a killed worker'
        or diag join "\n", map { "@$_" } @bad[0 .. ($#bad < 9 ? $#bad : 9)];
    ok scalar(grep { $_->[2] eq 'right' } @all), "$kind: some are";
}

# The agent's own stream to the control plane goes on.
my $own = '127.0.0.1:' . $hd->port('xds');
sub gauges { return grep { !/^\Q$own\E\|/ && /::(?:high_priority::)?(?:active_(?:requests|pending|retries)|rq_active)::[1-9]/ } split /\n/, $hd->admin('/clusters')->body }
ok eval { $hd->wait_for(sub { !gauges() }, 'gauges to fall to 0') }, 'gauges are 0' or diag gauges();

# What the upstream saw was asked for; what was answered it saw.
my %asked;
my $seen = sub { %asked = (); $asked{$_}++ for split /\n/, $back->file('asked.log') };
for my $kind (qw(http1 http2 tls grpc mesh secure)) {
    my @all = outcomes($kind);
    my @right = grep { $all[$_][2] eq 'right' } 0 .. $#all;
    ok eval { $back->wait_for(sub { $seen->(); !grep { !$asked{"/$kind/$kind-$_"} } @right }, "$kind in the log") },
        "$kind: what was answered came from the upstream";
    my @beyond = grep { m{^/$kind/$kind-(\d+)$} && $1 > $#all } keys %asked;
    is "@beyond", '', "$kind: nothing else came there";
}
for my $pid (@settled) {
    cmp_ok $after{$pid}, '<=', $before{$pid} + (Heddle::is_sanitized() ? 32768 : 2048), "worker $pid doesn't grow";
}
is scalar(grep { /\[alert\]/ && !/exited on signal 9/ } split /\n/, $hd->log), 0, 'no alert but those of the kills';
done_testing;
