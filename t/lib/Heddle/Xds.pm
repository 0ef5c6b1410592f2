package Heddle::Xds;

# A test's xDS server: t/lib/xds_server.py, with what it serves in a Perl structure.
#
#   my $xds = Heddle::Xds->new($hd, 'xds');       # on port xds of $hd
#   $xds->serve(CDS => [...], LDS => [...]);      # resources as in Envoy's JSON, replaced as a whole
#   $xds->wait_ack('CDS'); $xds->wait_nack('LDS', qr/reason/);
#   $xds->events(type => 'EDS')                   # requests that came, oldest first
#   $xds->stop; $xds->start;
# Needs python3-grpcio: $Heddle::Xds::missing says why it can't run; undef: it can.

use strict;
use warnings;
use Heddle;
use Heddle::Cert;
use Heddle::Port;
use JSON::XS;

my $python = '/usr/bin/python3';
our $missing = system("$python -c 'import grpc, google.protobuf' >/dev/null 2>&1") == 0
    ? undef : 'no python3-grpcio';

my $json = JSON::XS->new->canonical;

sub new {
    my ($class, $hd, $port, %opt) = @_;
    my $self = bless {hd => $hd, port => $hd->port($port), dir => $hd->dir . "/xds-$port", %opt}, $class;
    mkdir $self->{dir};
    chmod 0777, $self->{dir};
    return $self;
}

# The set of our .proto files, made once a build.
sub descriptors {
    my $to = "$Heddle::build/proto/descriptors.pb";
    my @protos = split ' ', `find $Heddle::top/src/proto -name '*.proto'`;
    my $new = !-e $to || grep { (stat $_)[9] > (stat $to)[9] } @protos;
    if ($new) {
        system('protoc-c', "-I$Heddle::top/src/proto", '--include_imports', "--descriptor_set_out=$to.$$",
            @protos) == 0 or die "protoc-c --descriptor_set_out failed\n";
        rename "$to.$$", $to or die "$to: $!";
    }
    return $to;
}

sub serve {
    my ($self, %what) = @_;
    $self->{what} = \%what;
    my $path = "$self->{dir}/resources.json";
    open my $f, '>', "$path.tmp" or die "$path: $!";
    print $f $json->encode(\%what);
    close $f or die "$path: $!";
    rename "$path.tmp", $path or die "$path: $!";
    return $self;
}

sub start {
    my ($self) = @_;
    my @ready = $self->events(rpc => 'server', ready => JSON::XS::true);
    my $descriptors = descriptors();
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        Heddle::Watch::die_with_parent(getppid);
        $SIG{$_} = 'DEFAULT' for 'PIPE', 'INT', 'TERM';
        open STDOUT, '>>', "$self->{dir}/output";
        open STDERR, '>>', "$self->{dir}/output";
        exec $python, "$Heddle::top/t/lib/xds_server.py", $self->{port}, $self->{dir}, $descriptors
            or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    $self->{hd}->wait_for(sub {
        die "the xDS server ended:\n" . $self->output if waitpid($pid, POSIX::WNOHANG()) == $pid;
        return $self->events(rpc => 'server', ready => JSON::XS::true) > @ready;
    }, 'the xDS server');
    return $self;
}

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill 'KILL', $pid;
    waitpid $pid, 0;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!);
    $self->stop;
}

sub output {
    my ($self) = @_;
    open my $f, '<', "$self->{dir}/output" or return '';
    local $/;
    return <$f> // '';
}

# Requests so far that have these members.
sub events {
    my ($self, %want) = @_;
    open my $f, '<', "$self->{dir}/events" or return wantarray ? () : 0;
    my @all;
    while (my $line = <$f>) {
        last unless $line =~ /\n\z/;
        my $e = $json->decode($line);
        push @all, $e unless grep { ($e->{$_} // '') ne $want{$_} } keys %want;
    }
    return @all;
}

# An answer of that type was accepted (or refused with a reason like $why): the n-th one since $from.
sub wait_ack  { my ($self, $type, $n) = @_; return $self->_wait($type, $n // 1, undef) }
sub wait_nack { my ($self, $type, $why, $n) = @_; return $self->_wait($type, $n // 1, $why) }

sub acks  { my ($self, $type) = @_; return grep { $_->{nonce} && !defined $_->{error} } $self->events(type => $type) }
sub nacks { my ($self, $type) = @_; return grep { defined $_->{error} } $self->events(type => $type) }

sub _wait {
    my ($self, $type, $n, $why) = @_;
    my @found;
    $self->{hd}->wait_for(sub {
        @found = defined $why ? grep { $_->{error} =~ $why } $self->nacks($type) : $self->acks($type);
        return @found >= $n;
    }, "$type to be " . (defined $why ? 'refused' : 'accepted'));
    return $found[-1];
}

# ---- resources, short

my $any = 'type.googleapis.com/';

sub cluster {
    my ($name, $port, %more) = @_;
    return {name => $name, type => 'STATIC', connect_timeout => '2s',
        load_assignment => assignment($name, $port), %more};
}

sub eds_cluster {
    my ($name, %more) = @_;
    return {name => $name, type => 'EDS', connect_timeout => '2s',
        eds_cluster_config => {eds_config => {ads => {}, initial_fetch_timeout => '0s'}, service_name => $name},
        %more};
}

sub assignment {
    my ($name, @ports) = @_;
    return {cluster_name => $name, endpoints => [{lb_endpoints => [map {
        +{endpoint => {address => address($_)}}
    } @ports]}]};
}

sub address { return {socket_address => {address => '127.0.0.1', port_value => 0 + $_[0]}} }

# An HTTP listener; %hcm: further members of the connection manager (route_config, rds, http_filters …).
sub listener {
    my ($name, $port, %hcm) = @_;
    my $filters = delete $hcm{http_filters} // [];
    my $chain = delete $hcm{chain} // {};
    my $more = delete $hcm{listener} // {};
    return {name => $name, address => address($port), %$more,
        filter_chains => [{%$chain, filters => [{name => 'hcm', typed_config => {
            '@type' => $any . 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
            stat_prefix => $name,
            http_filters => [@$filters, {name => 'router', typed_config => {
                '@type' => $any . 'envoy.extensions.filters.http.router.v3.Router'}}],
            %hcm}}]}]};
}

sub rds { my ($name) = @_; return (rds => {route_config_name => $name, config_source => {ads => {}, initial_fetch_timeout => '0s'}}) }

# A route table of one virtual host for all names; @routes: [prefix => cluster, %more].
sub routes {
    my ($name, @routes) = @_;
    return {name => $name, virtual_hosts => [{name => "$name-all", domains => ['*'], routes => [map {
        my ($prefix, $cluster, %more) = @$_;
        my $action = delete $more{action} // {};
        +{match => {prefix => $prefix}, route => {cluster => $cluster, %$action}, %more}
    } @routes]}]};
}

1;
