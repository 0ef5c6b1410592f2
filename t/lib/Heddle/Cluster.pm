package Heddle::Cluster;
# Clusters of 10 endpoints with their virtual servers and mutual TLS, by file or by xDS, and
# what they take: for bench/cluster_memory and t/mesh/cluster_memory.t.
use strict;
use warnings;
use Heddle;
use Heddle::Xds;
use JSON::PP;

my $san = 'spiffe://cluster.local/ns/shop/sa/reviews';

# Bytes in the arenas, of their pages, and of shared state.
sub shared {
    my ($hd) = @_;
    my $m = decode_json($hd->admin('/memory')->body);
    return (map({ my $what = $_; $m->{arenas}{files}{$what} + $m->{arenas}{dynamic}{$what} }
            'bytes_live', 'bytes_reserved'), $m->{state_bytes});
}

# What the workers have written to, and nobody else.
sub own {
    my ($hd) = @_;
    my $bytes = 0;
    for my $pid ($hd->workers) {
        open my $f, '<', "/proc/$pid/status" or die "status of $pid: $!";
        $bytes += 1024 * (join('', <$f>) =~ /^RssAnon:\s+(\d+)/m)[0];
    }
    return $bytes;
}

sub name { $_[0] eq 'xDS' ? "c$_[1].shop.svc.cluster.local" : "c$_[1].example" }

# The servers of all clusters: this program's own.
sub upstream {
    my ($server, $ca) = @_;
    return <<"EOC";
    access_log off;
    server {
        listen 0.0.0.0:%%PORT_1%% ssl;
        ssl_certificate $server->{cert}; ssl_certificate_key $server->{key};
        ssl_verify_client on; ssl_client_certificate $ca->{cert};
        keepalive_timeout 0;
        return 200 ok;
    }
EOC
}

sub by_file {
    my ($hd, $k, $ca, $own, $server) = @_;
    my $clusters = '';
    for my $i (1 .. $k) {
        my $reuse = $i == 1 ? ' reuseport' : ''; # or one worker takes nearly all
        my $servers = join ' ', map { "server 127.0.1.$_:%%PORT_1%%;" } 1 .. 10;
        $clusters .= "upstream c$i { keepalive 0; $servers }\n"
            . "server { listen 127.0.0.1:%%PORT_0%%$reuse; server_name c$i.example; location / { proxy_pass https://c$i; } }\n";
    }
    my $upstream = upstream($server, $ca);
    return <<"EOC";
http {
    keepalive_requests 1000000;
    $upstream
    proxy_ssl_certificate $own->{cert}; proxy_ssl_certificate_key $own->{key};
    proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert}; proxy_ssl_name reviews.example;
    proxy_ssl_session_reuse off;
    $clusters
}
EOC
}

sub serve_xds {
    my ($hd, $k, $ca, $own) = @_;
    my $xds = Heddle::Xds->new($hd, 'xds');
    my $file = sub { {inline_string => Heddle::Cert::slurp($_[0])} };
    my $sds = sub { {name => $_[0], sds_config => {ads => {}}} };
    my $tls = {name => 'tls', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
        sni => 'reviews.example', max_session_keys => 0, common_tls_context => {
            tls_certificate_sds_secret_configs => [$sds->('own')],
            combined_validation_context => {
                default_validation_context => {match_typed_subject_alt_names => [
                    {san_type => 'URI', matcher => {exact => $san}}]},
                validation_context_sds_secret_config => $sds->('roots')}}}};
    my $cluster = sub { "outbound|80||c$_[0].shop.svc.cluster.local" };
    my $endpoint = sub {
        {endpoint => {address => {socket_address => {address => "127.0.1.$_[0]", port_value => $hd->port(1) + 0}}}}
    };
    $xds->serve(
        SDS => [
            {name => 'own', tls_certificate => {certificate_chain => $file->($own->{cert}), private_key => $file->($own->{key})}},
            {name => 'roots', validation_context => {trusted_ca => $file->($ca->{cert})}}],
        CDS => [map { {name => $cluster->($_), type => 'STATIC', connect_timeout => '2s', transport_socket => $tls,
            load_assignment => {cluster_name => $cluster->($_),
                endpoints => [{lb_endpoints => [map { $endpoint->($_) } 1 .. 10]}]}} } 1 .. $k],
        LDS => [Heddle::Xds::listener('front', $hd->port(0), route_config => {name => 'r', virtual_hosts => [map {
            my $host = name('xDS', $_);
            {name => "$host:80", domains => [$host, "$host:80", "c$_.shop"],
                routes => [{match => {prefix => '/'}, route => {cluster => $cluster->($_)}}]}
        } 1 .. $k]})],
    )->start;
    return $xds;
}

# Whose the other end of a connection is.
sub worker_of {
    my ($hd, $conn) = @_;
    my $from = sprintf '%04X', $conn->{sock}->sockport;
    my $to = sprintf '%04X', $hd->port(0);
    open my $f, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    my ($inode) = map { (split)[9] } grep { /^\s*\d+: \w+:$to \w+:$from / } <$f>;
    for my $pid ($hd->workers) {
        return $pid if grep { (readlink($_) // '') eq "socket:[$inode]" } glob "/proc/$pid/fd/*";
    }
    return;
}

# Asks each cluster once by each worker; no connection is open in the end.
sub use_all {
    my ($hd, $way, $k, $workers) = @_;
    my %conns;
    for (1 .. 1000) {
        my $c = $hd->connect(0);
        $c->request('GET', '/', Host => name($way, 1));
        my $pid = worker_of($hd, $c) // next;
        $conns{$pid} //= $c;
        last if keys %conns == $workers;
    }
    die 'not every worker takes connections' if keys %conns < $workers;
    for my $c (values %conns) {
        for my $i (1 .. $k) {
            my $r = $c->request('GET', '/', Host => name($way, $i));
            die "cluster $i: " . $r->status unless $r->status == 200;
        }
    }
    $_->close for values %conns;
}

# (arenas, their pages, shared state, shared state after use, workers' own memory after use) with
# <k> clusters, each used by each of the workers; with no workers only the first three.
sub measure {
    my ($way, $k, $workers) = @_;
    my $hd = Heddle->new(log_level => 'notice', workers => $workers || 1);
    my $ca = $hd->make_ca('root');
    my $own = $ca->make_cert('client', cn => 'client');
    my $server = $ca->make_cert('server', cn => 'reviews', dns => 'reviews.example', spiffe => $san);
    my $text = $way eq 'file' ? by_file($hd, $k, $ca, $own, $server)
        : 'http { ' . upstream($server, $ca) . ' } '
            . 'xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }';
    $hd->conf($text . ' admin %%ADMIN%%;');
    my $xds = $way eq 'file' ? undef : serve_xds($hd, $k, $ca, $own);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener', 300);
    my @shared = shared($hd);
    my @m = @shared;
    if ($workers) {
        use_all($hd, $way, $k, $workers);
        push @m, (shared($hd))[2], own($hd);
    }
    $hd->stop;
    $xds->stop if $xds;
    return @m;
}

1;
