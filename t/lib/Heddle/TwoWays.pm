package Heddle::TwoWays;

# One table of a module's behaviour, run twice: configured by a file, and by xDS from a test
# server that sends messages in upstream's form. A row passes only if both ways do.
#
#   my $t = Heddle::TwoWays->new(modules => ['authz'], tls => 1);
#   $t->row('a path is refused',
#       file => 'authz deny policy=p path=/admin*;',      what stands in the location
#       xds  => [$filter, ...],                           HTTP filters, {name, typed_config}
#       ask  => [
#           ['GET', '/admin', {status => 403, body => qr/RBAC/}],
#           ['GET', '/', {status => 200}, 'X-Test' => 'a'],
#       ]);
#   $t->run;
#
# A row further takes: server => text for the server block; main => text before http {}; route => {...} and
#   vhost => {...}, merged into the xDS route and virtual host; listener => {...}; hcm => {...} into the connection manager;
#   cluster => {...} into the row's cluster; tls => {...} into its DownstreamTlsContext; upstream => text of an upstream block's lines; backend =>
#   sub($req) instead of an echo; servers => [{file => 'weight=2', xds => {load_balancing_weight => 2, ...},
#   locality => {...}}, ...] instead of one back end: so many, each answers its number, which is counted from 0 (port
#   "bNsK"); <file> are its parameters, <xds> is merged into its lb_endpoint, <locality> into its LocalityLbEndpoints; client => {...} options of the request (tls), or 'page', 'admin', 'nobody': with tls => 1, a
#   client certificate of spiffe://cluster.local/ns/shop/sa/page, of spiffe://other.org/ns/ops/sa/admin, none.
# What is wanted: status, body (regex), head (regex), no_head, upstream (regex on the request the back end got;
#   the last one that the back end got), took (seconds, at least), log (regex, awaited in the error log), tries => n requests upstream, closed => 1
#   (no answer), turned_away => 1 (no answer, or a refusal), check => sub($response, $heddle, $way), true if all is well. $t->{certs}: the certificates of this way.
#
# Each row has a listener and a back end of its own. Each way is one heddle with all rows.

use strict;
use warnings;
use Heddle;
use Heddle::Http;
use Heddle::Xds;
use JSON::XS ();
use Test::More ();
use Time::HiRes ();

my %identity = (
    page  => 'spiffe://cluster.local/ns/shop/sa/page',
    admin => 'spiffe://other.org/ns/ops/sa/admin',
);

sub new {
    my ($class, %opt) = @_;
    return bless {modules => [], rows => [], %opt}, $class;
}

sub row {
    my ($self, $name, %row) = @_;
    push @{$self->{rows}}, {name => $name, n => scalar @{$self->{rows}}, %row};
    return $self;
}

# ---- certificates

sub make_certs {
    my ($self, $hd) = @_;
    return unless $self->{tls};
    my $ca = $hd->make_ca('root');
    my %c = (ca => $ca, server => $ca->make_cert('server', cn => 'localhost',
        spiffe => 'spiffe://cluster.local/ns/shop/sa/reviews'));
    $c{$_} = $ca->make_cert($_, spiffe => $identity{$_}) for keys %identity;
    return $self->{certs} = \%c;
}

sub client_options {
    my ($row, $certs, $ask) = @_;
    my $who = $ask->{client} // $row->{client} // 'nobody';
    return () unless $certs && !$row->{plain};
    return (tls => {ca => $certs->{ca}{cert},
        ($who eq 'nobody' ? () : (cert => $certs->{$who}{cert}, key => $certs->{$who}{key}))});
}

# ---- by file

sub file_conf {
    my ($self, $certs) = @_;
    my ($main, $http) = ('', $self->{http} // '');
    for my $r (@{$self->{rows}}) {
        my ($file, $server, $upstream) = map { $r->{$_} // '' } 'file', 'server', 'upstream';
        my $ssl = '';
        $main .= $r->{main} // '';
        if ($certs && !$r->{plain}) {
            my $verify = $r->{verify} // 'optional';
            $ssl = "ssl_certificate $certs->{server}{chain}; ssl_certificate_key $certs->{server}{key};"
                . " ssl_client_certificate $certs->{ca}{cert}; ssl_verify_client $verify;";
        }
        my $listen = "127.0.0.1:%%PORT_r$r->{n}%%" . ($ssl ? ' ssl' : '');
        my $servers = "server 127.0.0.1:%%PORT_b$r->{n}%%;";
        $servers = join ' ', map { "server 127.0.0.1:%%PORT_b$r->{n}s$_%% " . ($r->{servers}[$_]{file} // '') . ';' }
            0 .. $#{$r->{servers}} if $r->{servers};
        $http .= <<"EOC";
    upstream row$r->{n} { $servers $upstream }
    server {
        listen $listen;
        server_name localhost;
        $ssl
        $server
        location / {
            $file
            proxy_pass http://row$r->{n};
        }
    }
EOC
    }
    $main .= $self->{main} // '';
    return "$main\nhttp {\n$http}\n" . ($self->{tail} // '');
}

# ---- by xDS

sub type { "type.googleapis.com/$_[0]" }

# <over> into <base>, objects member by member.
sub merge {
    my ($base, $over) = @_;
    return $over unless ref $base eq 'HASH' && ref $over eq 'HASH';
    my %all = %$base;
    $all{$_} = exists $all{$_} ? merge($all{$_}, $over->{$_}) : $over->{$_} for keys %$over;
    return \%all;
}

sub transport_socket {
    my ($row, $certs) = @_;
    my $file = sub { {inline_string => Heddle::Cert::slurp($_[0])} };
    return {
        name => 'envoy.transport_sockets.tls',
        typed_config => merge({
            '@type' => type('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
            common_tls_context => {
                tls_certificates => [{
                    certificate_chain => $file->($certs->{server}{chain}),
                    private_key => $file->($certs->{server}{key}),
                }],
                validation_context => {trusted_ca => $file->($certs->{ca}{cert})},
            },
            require_client_certificate =>
                ($row->{xds_verify} // $row->{verify} // 'optional') eq 'on' ? JSON::XS::true() : JSON::XS::false(),
        }, $row->{tls} // {}),
    };
}

sub address {
    my ($port) = @_;
    return {socket_address => {address => '127.0.0.1', port_value => $port + 0}};
}

sub xds_listener {
    my ($self, $hd, $row, $certs) = @_;
    my $cluster = "row$row->{n}";
    my $route = merge({
        name => 'default', match => {prefix => '/'}, route => {cluster => $cluster},
    }, $row->{route} // {});
    my $vhost = merge({name => 'all', domains => ['*'], routes => [$route]}, $row->{vhost} // {});
    my $hcm = merge({
        '@type' => type('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
        stat_prefix => 'test',
        normalize_path => JSON::XS::true(),
        route_config => {name => $cluster, virtual_hosts => [$vhost]},
        http_filters => [@{$row->{xds} // []}, {
            name => 'envoy.filters.http.router',
            typed_config => {'@type' => type('envoy.extensions.filters.http.router.v3.Router')},
        }],
    }, $row->{hcm} // {});
    my %chain = (filters => [
        {name => 'envoy.filters.network.http_connection_manager', typed_config => $hcm}]);
    $chain{transport_socket} = transport_socket($row, $certs) if $certs && !$row->{plain};
    return {
        name => "127.0.0.1_" . $hd->port("r$row->{n}"),
        address => address($hd->port("r$row->{n}")),
        filter_chains => [\%chain],
        %{$row->{listener} // {}},
    };
}

sub xds_endpoints {
    my ($hd, $row) = @_;
    return [{lb_endpoints => [{endpoint => {address => address($hd->port("b$row->{n}"))}}]}] if !$row->{servers};
    return [map {
        my $s = $row->{servers}[$_];
        merge({lb_endpoints => [
            merge({endpoint => {address => address($hd->port("b$row->{n}s$_"))}}, $s->{xds} // {})]},
            $s->{locality} // {});
    } 0 .. $#{$row->{servers}}];
}

sub xds_cluster {
    my ($self, $hd, $row) = @_;
    my $c = merge({
        name => "row$row->{n}",
        type => 'STATIC',
        connect_timeout => '5s',
        load_assignment => {
            cluster_name => "row$row->{n}",
            endpoints => xds_endpoints($hd, $row),
        },
    }, $row->{cluster} // {});
    delete $c->{$_} for grep { !defined $c->{$_} } keys %$c; # undef takes a member away
    return $c;
}

# ---- asking

sub check_answer {
    my ($hd, $way, $row, $i, $want, $res) = @_;
    my $name = "$way: $row->{name}" . ($i ? " ($i)" : '');
    my $text = defined $res ? "$res" : '(no answer)';
    my $good = 1;
    my $expect = sub {
        my ($is, $what) = @_;
        return if $is;
        $good = 0;
        Test::More::diag("$name: $what; got:\n$text");
    };

    if ($want->{turned_away}) {
        $expect->(!defined $res || $res->status == 403 || $res->status == 400,
            'no answer, or a refusal, is wanted');
    } elsif ($want->{closed}) {
        $expect->(!defined $res, 'no answer is wanted');
    } elsif (!defined $res) {
        $expect->(0, 'an answer is wanted');
    } else {
        $expect->($res->status == $want->{status}, "status $want->{status} is wanted")
            if defined $want->{status};
        $expect->($res->body =~ $want->{body}, "body $want->{body} is wanted") if $want->{body};
        for (ref $want->{head} eq 'ARRAY' ? @{$want->{head}} : $want->{head} // ()) {
            $expect->($res->head =~ $_, "head $_ is wanted");
        }
        $expect->($res->head !~ $want->{no_head}, "head $want->{no_head} isn't") if $want->{no_head};
    }
    $expect->($want->{check}->($res, $hd, $way), 'the check says no') if $want->{check};
    Test::More::ok($good, $name);
}

sub ask_row {
    my ($hd, $way, $row, $certs) = @_;
    my $i = 0;
    for my $ask (@{$row->{ask}}) {
        my ($method, $uri, $want, @headers) = @$ask;
        my @ports = $row->{servers} ? map { "b$row->{n}s$_" } 0 .. $#{$row->{servers}} : ("b$row->{n}");
        my $seen = () = map { $hd->requests($_) } @ports;
        my $from = Time::HiRes::time();
        my $res = eval {
            $hd->request($method, $uri, {port => "r$row->{n}", client_options($row, $certs, $want),
                ($want->{options} ? %{$want->{options}} : ())}, @headers);
        };
        $res = undef unless defined $res && eval { $res->status };
        if ($want->{took}) {
            my $took = Time::HiRes::time() - $from;
            Test::More::cmp_ok($took, '>=', $want->{took}, "$way: $row->{name}: took at least $want->{took} s");
        }
        check_answer($hd, $way, $row, $i++, $want, $res);
        my @new = map { $hd->requests($_) } @ports;
        splice @new, 0, $seen;
        if (exists $want->{tries}) {
            Test::More::is(scalar @new, $want->{tries}, "$way: $row->{name}: $want->{tries} requests upstream");
        }
        if ($want->{upstream}) {
            Test::More::like(@new ? $new[-1]{head} : '', $want->{upstream}, "$way: $row->{name}: upstream");
        }
        if ($want->{log}) {
            Test::More::ok(eval { $hd->wait_log($want->{log}) }, "$way: $row->{name}: log");
        }
    }
}

sub start_backends {
    my ($self, $hd) = @_;
    for my $r (@{$self->{rows}}) {
        for my $k (0 .. $#{$r->{servers} // []}) {
            $hd->backend("b$r->{n}s$k", $r->{servers}[$k]{backend} // sub { [200, [], $k] });
        }
        next if $r->{servers};
        $r->{backend} ? $hd->backend("b$r->{n}", $r->{backend}) : $hd->echo_server("b$r->{n}");
    }
}

sub run_file {
    my ($self) = @_;
    my $hd = Heddle->new(modules => $self->{modules});
    my $certs = $self->make_certs($hd);
    $hd->conf($self->file_conf($certs));
    $self->start_backends($hd);
    $hd->start;
    ask_row($hd, 'file', $_, $certs) for @{$self->{rows}};
    $self->{after}->($hd, 'file') if $self->{after};
    $hd->stop;
}

sub run_xds {
    my ($self) = @_;
    if ($Heddle::Xds::missing) { # ./check installs it: nothing is well without this way
        Test::More::fail("xds: $Heddle::Xds::missing");
        return;
    }
    my $hd = Heddle->new(modules => $self->{modules});
    my $certs = $self->make_certs($hd);
    my $xds = Heddle::Xds->new($hd, 'xds');
    my @rows = @{$self->{rows}};
    $xds->serve(
        CDS => [map { $self->xds_cluster($hd, $_) } @rows],
        LDS => [map { $self->xds_listener($hd, $_, $certs) } @rows],
    )->start;
    $hd->conf(($self->{xds_main} // $self->{main} // '') . <<"EOC" . ($self->{tail} // ''));

xds {
    server 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;
    @{[$self->{xds_node} // '']}
}
EOC
    $self->start_backends($hd);
    $hd->start;
    $hd->wait_for(sub { $xds->acks('LDS') || $xds->nacks('LDS') || $xds->nacks('CDS') }, 'listeners by xDS');
    Test::More::diag("refused: $_->{error}") for $xds->nacks('LDS'), $xds->nacks('CDS');
    for my $r (@rows) {
        my $port = $hd->port("r$r->{n}");
        my $refused = sub { grep { $_->{error} =~ /127\.0\.0\.1_$port\b/ } $xds->nacks('LDS') };
        $hd->wait_for(sub { Heddle::Port::is_listening($port) || $refused->() }, "\"$r->{name}\" to listen");
        if (!Heddle::Port::is_listening($port)) {
            Test::More::fail("xds: $r->{name}: the listener was refused");
            next;
        }
        ask_row($hd, 'xds', $r, $certs);
    }
    $self->{after}->($hd, 'xds') if $self->{after};
    $hd->stop;
    $xds->stop;
}

sub run {
    my ($self) = @_;
    $self->run_file;
    $self->run_xds;
}

1;
