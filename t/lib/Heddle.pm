package Heddle;

# Starts heddle with a given configuration and looks after it. Core modules only.
#
#   use lib 't/lib';
#   use Test::More;
#   use Heddle;
#
#   my $hd = Heddle->new(modules => ['mesh_header'])->conf(<<'EOC');
#   http {
#       server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
#   }
#   EOC
#   $hd->echo_server(1);                      # answers with the head and body it got
#   $hd->start;
#   like $hd->get('/'), qr/^Host: localhost/m, 'passed';
#   done_testing;
#
# Configuration. %%PORT_n%% (a free port, the same for the same n), %%DIR%% (the test's own
#   directory), %%MODULES%%, %%ADMIN%% (127.0.0.1:port for the admin port) are replaced. `daemon off`,
#   `master_process on`, `worker_processes 1`, `error_log`, `pid` and the modules' `load_module`
#   lines are put before it, each unless the text has that directive itself.
#   HD_PROGRAM=/usr/sbin/nginx runs a test with nginx, where its configuration is nginx's too.
#   new() takes: modules => [names], workers => n, program => path (nginx will do: then there are no
#   modules), log_level => 'info', args => [...], env => {...},
#   on_spawn => sub { ... } (in the child, right before it becomes heddle).
#   conf($text) also after start: for a reload. write($name, $text) another file, replaced in
#   the same way; returns its path. dir() port($n) admin_port() program() conf_path().
#
# Running. start() returns when every TCP port the configuration listens on is open and the
#   workers are there. stop() sends QUIT, stop('TERM') another; the end of the test does it, too.
#   run(@args) runs heddle with these and the configuration to its end, as with run('-t'):
#   returns its exit status and what it printed. signal('USR1'). reload() sends HUP and waits for
#   what the log says of it: true if the new configuration is in force.
#   crash() kills all of it at once. pid() the master; workers() pids of its workers; processes('agent') of others, by title.
#
# Talking. get($uri, [{options},] Name => value, ...), post($uri, $body, ...), request($method,
#   $uri, ...) on a connection of its own (Connection: close), to port 0 unless {port => n} says
#   otherwise; further options: body version tls addr bind keep => 1. See Heddle/Http.pm for the response
#   and for tls. connect($n, %opt) a connection to write on by hand; raw($bytes, $n) sends and
#   returns all that comes until close. curl(@args) its output; admin($uri) from the admin port.
#
# Back ends. echo_server($n), backend($n, sub { my ($req) = @_; ... }), tcp_backend($n, sub { my
#   ($sock, $conn_n) = @_; ... }): see Heddle/Backend.pm. requests($n): what came there, in order.
#   stop_backend($n). With TLS: Heddle/TlsFront.pm.
#
# Certificates. make_ca($name): see Heddle/Cert.pm.
#
# Waiting. wait_for(sub { ... }, 'what') calls until it is true and returns that; dies after a
#   generous time. wait_log(qr/.../, [times]). log() the error log so far; file($name) any file of DIR.
#
# At its end the test fails (exit status, with the reason shown) if heddle ended by itself or with a
# status, a process is left, a sanitizer reported, or the log has [alert], [crit], [emerg] or
# tells of a process that died, except for lines that expect_log(qr/.../) names; each of these must have
# come. expect_exit($status) for a heddle that ends by itself. HD_KEEP=1 keeps the directory.

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp ();
use POSIX qw(WNOHANG);
use Test::More ();
use Time::HiRes qw(sleep time);

use Heddle::Backend;
use Heddle::Cert;
use Heddle::Http;
use Heddle::Port;
use Heddle::Watch;

our $top = abs_path(dirname(__FILE__) . '/../..');
our $build = do {
    my $b = $ENV{HD_BUILD} || 'objs';
    $b =~ m{^/} ? $b : "$top/$b";
};

my $test_pid = $$;
my (@all, $failed);
my %macros;

$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 1 } for 'INT', 'TERM'; # so that END runs

# What configure found out: feature('HD_DEBUG').
sub feature {
    my ($name) = @_;
    unless (%macros) {
        open my $f, '<', "$build/hd_auto_config.h" or die "$build isn't configured\n";
        while (my $line = <$f>) {
            $macros{$1} = $2 if $line =~ /^#define (\w+) (.*)/;
        }
    }
    return $macros{$name};
}

sub is_sanitized { grep { feature("HD_SANITIZE_$_") } 'ADDRESS', 'UNDEFINED', 'THREAD' }

sub deadline_s { (is_sanitized() ? 120 : 40) }

# ---- configuration

sub new {
    my ($class, %opt) = @_;
    my $self = bless {
        modules => [], workers => 1, env => {}, args => [],
        program => $ENV{HD_PROGRAM} || "$build/heddle", ports => {}, backends => {}, expect => [], orphan_s => 10,
        %opt,
    }, $class;

    $self->{log_level} //= feature('HD_DEBUG') && $self->is_heddle ? 'debug' : 'info';
    $self->{tmp} = File::Temp->newdir('heddle-test-XXXXXX', TMPDIR => 1, CLEANUP => 0);
    $self->{dir} = "$self->{tmp}";
    chmod 01777, $self->{dir}; # workers run as another user, and may have reports to write
    mkdir "$self->{dir}/$_" for 'logs', 'conf';
    $Heddle::Http::deadline_s = deadline_s();
    push @all, $self;
    return $self;
}

sub dir       { $_[0]{dir} }
sub program   { $_[0]{program} }
sub conf_path { "$_[0]{dir}/heddle.conf" }
sub is_heddle { $_[0]{program} !~ m{nginx[^/]*$} }    # wherever it lies

sub port {
    my ($self, $n) = @_;
    return $self->{ports}{$n} //= Heddle::Port::reserve();
}

sub admin_port { $_[0]->port('admin') }

sub expand {
    my ($self, $text) = @_;
    $text =~ s/%%PORT_(\w+?)%%/$self->port($1)/ge;
    $text =~ s/%%ADMIN%%/'127.0.0.1:' . $self->admin_port/ge;
    $text =~ s/%%DIR%%/$self->{dir}/g;
    $text =~ s/%%MODULES%%/$build\/modules/g;
    die "unknown macro $1 in the configuration\n" if $text =~ /(%%\w+%%)/;
    return $text;
}

sub write {
    my ($self, $name, $text) = @_;
    my $path = "$self->{dir}/$name";
    open my $f, '>', "$path.tmp" or die "$path: $!";
    print $f $self->expand($text);
    close $f or die "$path: $!";
    rename "$path.tmp", $path or die "$path: $!"; # whoever watches it sees it whole
    return $path;
}

sub conf {
    my ($self, $text) = @_;
    my @head = (
        ['daemon', 'off'],
        ['master_process', 'on'],
        ['worker_processes', $self->{workers}],
        ['error_log', "%%DIR%%/error.log $self->{log_level}"],
        ['pid', '%%DIR%%/heddle.pid'],
    );
    push @head, ['events', '{}'] unless $self->is_heddle;
    my $head = '';
    for (@head) {
        my ($name, $value) = @$_;
        my $end = $value =~ /\}$/ ? '' : ';';
        $head .= "$name $value$end\n" unless $text =~ /^[ \t]{0,3}$name\b/m;
    }
    $head .= "load_module %%MODULES%%/hd_${_}_module.so;\n" for @{$self->{modules}};
    $self->write('heddle.conf', $head . $text);
    return $self;
}

# ---- running

sub _environment {
    my ($self) = @_;
    my $dir = $self->{dir};
    my $supp = -e "$top/t/lib/lsan.supp" ? "suppressions=$top/t/lib/lsan.supp:print_suppressions=0" : '';
    return (
        ASAN_OPTIONS => "log_path=$dir/sanitizer.asan:detect_stack_use_after_return=1:"
            . ($ENV{ASAN_OPTIONS} // ''),
        LSAN_OPTIONS => $supp,
        UBSAN_OPTIONS => "log_path=$dir/sanitizer.ubsan:print_stacktrace=1",
        TSAN_OPTIONS => "log_path=$dir/sanitizer.tsan",
        %{$self->{env}},
    );
}

sub _command {
    my ($self, @args) = @_;
    return ($self->{program}, '-p', "$self->{dir}/", '-c', $self->conf_path,
        '-e', "$self->{dir}/error.log", @{$self->{args}}, @args);
}

sub _spawn {
    my ($self, $out, @args) = @_;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    setpgrp 0, 0; # so that what is left of it can be found
    Heddle::Watch::die_with_parent($test_pid);
    my %env = $self->_environment;
    @ENV{keys %env} = values %env;
    $SIG{$_} = 'DEFAULT' for 'PIPE', 'INT', 'TERM';
    open STDIN, '<', '/dev/null';
    open STDOUT, '>>', $out;
    open STDERR, '>>', $out;
    $self->{on_spawn}->() if $self->{on_spawn};
    exec $self->_command(@args) or POSIX::_exit(127);
}

# The ports it is to listen on: those that follow `listen` or `admin` in the configuration.
sub _listening_ports {
    my ($self) = @_;
    my $text = $self->file('heddle.conf');
    $text =~ s/#.*//g;
    my @ports;
    while ($text =~ /(?:\b|_)(?:listen|admin)\s+([^;]*);/g) {
        my $args = $1;
        push @ports, $1 if $args !~ /\budp\b/ && $args =~ /^(?:\S*:)?(\d+)\b/;
    }
    return @ports;
}

sub start {
    my ($self) = @_;
    die "conf() comes before start()\n" unless -e $self->conf_path;
    $self->{pid} = $self->_spawn("$self->{dir}/output");
    my @ports = $self->_listening_ports;
    $self->wait_for(sub {
        return 1 if $self->_has_ended;
        return 0 if grep { !Heddle::Port::is_listening($_) } @ports;
        return $self->file('heddle.conf') =~ /^\s*master_process\s+off/m || $self->workers;
    }, 'heddle to start (ports ' . join(', ', @ports) . ')');
    if ($self->_has_ended) {
        my $why = $self->file('output') . $self->log;
        delete $self->{pid};
        die sprintf "heddle didn't start (status 0x%x):\n%s\n", $self->{status}, $why;
    }
    return $self;
}

sub _has_ended {
    my ($self) = @_;
    if (!defined $self->{status} && waitpid($self->{pid}, WNOHANG) == $self->{pid}) {
        $self->{status} = $?;
    }
    return defined $self->{status};
}

sub pid { $_[0]{pid} }

sub signal {
    my ($self, $sig) = @_;
    $self->{is_told_to_end} = 1 if $sig =~ /^(?:QUIT|TERM|INT)$/;
    kill $sig, $self->{pid} or die "kill $sig $self->{pid}: $!\n";
}

# Pids of heddle's processes whose title has this role in it; zombies don't count.
sub processes {
    my ($self, $role) = @_;
    my @pids;
    for my $p (Heddle::Watch::group($self->{pid})) {
        open my $f, '<', "/proc/$p/cmdline" or next;
        my $title = do { local $/; <$f> } // '';
        push @pids, $p if $p != $self->{pid} && $title =~ /: \Q$role\E\b/;
    }
    return @pids;
}

sub workers { $_[0]->processes('worker process') }

sub run {
    my ($self, @args) = @_;
    my $out = "$self->{dir}/run.out";
    unlink $out;
    my $pid = $self->_spawn($out, @args);
    $self->wait_for(sub { waitpid($pid, WNOHANG) == $pid }, "heddle @args to end");
    return ($? & 127 ? 128 + ($? & 127) : $? >> 8, $self->file('run.out'));
}

# What the log says when a reload has ended, either way.
my $reload_done = qr/\breload done|configuration (?:published|in force)|gracefully shutting down/;
my $reload_failed = qr/\breload failed|\[emerg\]/;

sub reload {
    my ($self) = @_;
    my $from = length $self->log;
    $self->signal('HUP');
    return $self->wait_for(sub {
        my $new = substr $self->log, $from;
        return 'failed' if $new =~ $reload_failed;
        return 'done' if $new =~ $reload_done;
    }, 'the reload to end') eq 'done';
}

sub stop {
    my ($self, $sig) = @_;
    my $pid = $self->{pid} or return;
    my $early = $self->_has_ended;

    unless ($early) {
        kill $sig || 'QUIT', $pid;
        eval { $self->wait_for(sub { $self->_has_ended }, 'heddle to end'); 1 } or do {
            $self->problem("heddle didn't end on " . ($sig || 'QUIT'));
            kill 'KILL', -$pid;
            waitpid $pid, 0;
            $self->{status} = $?;
        };
    }
    my $status = $self->{status};
    $self->problem(sprintf 'heddle ended by itself, status 0x%x', $status)
        if $early && !defined $self->{exit_expected} && !($self->{is_told_to_end} && $status == 0);
    $self->problem(sprintf 'heddle ended with status 0x%x', $status)
        if !$early && $status != 0 && !defined $self->{exit_expected};
    $self->problem(sprintf 'heddle ended with status 0x%x, not %d', $status, $self->{exit_expected})
        if defined $self->{exit_expected} && $status >> 8 != $self->{exit_expected};

    # Orphans of a master that ended get a moment: they see its channel close.
    my @left;
    eval { $self->wait_for(sub { !(@left = Heddle::Watch::group($pid)) }, 'processes', $self->{orphan_s}) }
        or $self->problem("processes left behind: @left");
    kill 'KILL', @left if @left;
    delete @$self{'pid', 'status'};
    Heddle::Watch::check($self);
    return $self;
}

# Ends all of its processes at once, as a machine does that loses its power; start() starts it again.
sub crash {
    my ($self) = @_;
    my $pid = $self->{pid};
    kill 'KILL', -$pid;
    waitpid $pid, 0;
    $self->wait_for(sub { !Heddle::Watch::group($pid) }, 'processes to end');
    delete @$self{'pid', 'status'};
}

# ---- what must be true at the end

sub expect_log {
    my ($self, @re) = @_;
    push @{$self->{expect}}, @re;
    return $self;
}

sub expect_exit {
    my ($self, $status) = @_;
    $self->{exit_expected} = $status;
    return $self;
}

sub problem {
    my ($self, $text) = @_;
    $failed = 1;
    $self->{failed} = 1;
    Test::More::diag("$0: $text");
}

END {
    if ($$ == $test_pid) {
        my $status = $?;
        for my $self (@all) {
            $self->stop if $self->{pid};
            $self->stop_backend($_) for keys %{$self->{backends}};
            if ($status || $failed) {
                my @log = split /\n/, $self->log;
                @log = @log[-40 .. -1] if @log > 40;
                Test::More::diag("the log's end:") if @log;
                Test::More::diag($_) for @log;
            }
            if ($ENV{HD_KEEP}) {
                Test::More::diag("kept: $self->{dir}");
            } else {
                require File::Path;
                File::Path::remove_tree($self->{dir});
            }
        }
        $? = $status || ($failed ? 1 : 0);
    }
}

# ---- waiting and files

sub wait_for {
    my ($self, $sub, $what, $deadline) = @_;
    my $until = time + ($deadline // deadline_s());
    my $pause = 0.002;
    while (1) {
        my $result = $sub->();
        return $result if $result;
        die 'waited in vain for ' . ($what // 'something') . "\n" if time > $until;
        sleep $pause; # between two looks: what is waited for is an event, not the time
        $pause *= 1.5 if $pause < 0.05;
    }
}

# Stops a process with SIGSTOP, and returns when it has stopped.
sub freeze {
    my ($self, $pid) = @_;
    kill 'STOP', $pid or die "$pid: $!\n";
    return $self->wait_for(sub {
        open my $f, '<', "/proc/$pid/stat" or die "$pid: $!\n";
        return <$f> =~ /\) T /;
    }, "$pid to stop");
}

sub wait_log {
    my ($self, $re, $times) = @_;
    return $self->wait_for(sub {
        my $n = () = $self->log =~ /$re/g;
        $n >= ($times // 1);
    }, "$re in the log");
}

sub log { $_[0]->file('error.log') }

# The text of a file in DIR, "" if there is none.
sub file {
    my ($self, $name) = @_;
    open my $f, '<', "$self->{dir}/$name" or return '';
    local $/;
    return readline($f) // '';
}

# ---- talking

sub connect {
    my ($self, $n, %opt) = @_;
    return Heddle::Http->connect($self->port($n // 0), %opt);
}

sub raw {
    my ($self, $bytes, $n, %opt) = @_;
    my $c = $self->connect($n, %opt);
    $c->send($bytes);
    return $c->read_all;
}

sub request {
    my ($self, $method, $uri, @rest) = @_;
    my %opt = ref $rest[0] eq 'HASH' ? %{shift @rest} : ();
    my $c = $self->connect($opt{port}, map { $_ => $opt{$_} } 'addr', 'tls', 'bind');
    push @rest, Connection => 'close' unless $opt{keep} || grep { lc eq 'connection' } @rest;
    return $c->request($method, $uri, \%opt, @rest);
}

sub get { my $self = shift; return $self->request('GET', @_) }

sub post {
    my ($self, $uri, $body, @rest) = @_;
    my $opt = ref $rest[0] eq 'HASH' ? shift @rest : {};
    return $self->request('POST', $uri, {%$opt, body => $body}, @rest);
}

sub admin {
    my ($self, $uri, @rest) = @_;
    return $self->request('GET', $uri, {port => 'admin'}, @rest);
}

sub curl {
    my ($self, @args) = @_;
    open my $f, '-|', 'curl', '-sS', '--max-time', deadline_s(), map { $self->expand($_) } @args
        or die "curl: $!";
    local $/;
    my $text = readline($f) // '';
    close $f;
    return $text;
}

# ---- back ends

sub backend {
    my ($self, $n, $sub, %opt) = @_;
    my $listener = Heddle::Backend::listener($self->port($n), $opt{addr});
    my $file = "$self->{dir}/requests.$n";
    $self->{backends}{$n} =
        Heddle::Backend::spawn(sub { Heddle::Backend::http($listener, $file, $sub) });
    return $self;
}

sub echo_server {
    my ($self, $n, %opt) = @_;
    return $self->backend($n, sub {
        my ($req) = @_;
        return [200, ['Content-Type' => 'text/plain'], $req->{head} . $req->{body}];
    }, %opt);
}

sub tcp_backend {
    my ($self, $n, $sub, %opt) = @_;
    my $listener = Heddle::Backend::listener($self->port($n), $opt{addr});
    $self->{backends}{$n} = Heddle::Backend::spawn(sub {
        setpgrp 0, 0; # its connections' processes end with it
        Heddle::Backend::tcp($listener, $sub);
    });
    return $self;
}

sub stop_backend {
    my ($self, $n) = @_;
    my $pid = delete $self->{backends}{$n} or return;
    kill 'TERM', $pid, -$pid;
    waitpid $pid, 0;
}

sub requests {
    my ($self, $n) = @_;
    return Heddle::Backend::recorded("$self->{dir}/requests.$n");
}

sub make_ca {
    my ($self, $name) = @_;
    my $dir = "$self->{dir}/certs";
    mkdir $dir;
    return Heddle::Cert->new_root($dir, $name // 'root');
}

1;
