package Heddle::Chaos;

# Load of many kinds at once while things are killed, and what of it must be true.
#
#   my $load = Heddle::Chaos->new($hd, http1 => sub { ... }, tcp => sub { ... });
# Each kind is a process that calls its sub with "KIND-N" over and over. It returns the outcome: "right", a status,
#   "closed …" or whatever went wrong; a session of bytes, too, what it sent and received.
#   $load->go_on($n);  $load->quiet;  $load->resume;  $load->stop;
#   $load->outcomes($kind)                     [began, ended, outcome, sent, received] of each so far
#   $load->kill_worker($hd, $may);             requests that it held may end in an outcome like $may, too
#   $load->compare($name, $counted, $may);     clients' counts and /metrics', see below
#   $load->judge($kind => qr/statuses/, ...);  each is right, or closed while a worker was killed, or as named
# echoes(), http1(): clients for the subs. Counts are {name}{status}: of requests, name is the kind; of bytes, "KIND
# opened", "KIND closed", "KIND sent", "KIND received", each {n}.

use strict;
use warnings;
use Heddle;
use Heddle::Backend;
use Heddle::Http;
use Test::More;
use Time::HiRes qw(sleep time);

use constant {BEGAN => 0, ENDED => 1, OUTCOME => 2, SENT => 3, RECEIVED => 4};

sub new {
    my ($class, $hd, %kinds) = @_;
    my $self = bless {hd => $hd, dir => $hd->dir, kinds => [sort keys %kinds], kills => []}, $class;
    $self->{pids} = [map { $self->_begin($_, $kinds{$_}) } @{$self->{kinds}}];
    return $self;
}

sub kinds { @{$_[0]{kinds}} }

sub _file { my ($self, $what) = @_; return "$self->{dir}/$what" }
sub _touch { open my $f, '>', $_[0] or die "$_[0]: $!" }

sub _begin {
    my ($self, $kind, $sub) = @_;
    my ($stop, $pause, $rests) = map { $self->_file($_) } 'stop', 'pause', "rests.$kind";
    return Heddle::Backend::spawn(sub {
        open my $f, '>', $self->_file("load.$kind") or die;
        $f->autoflush(1);
        for (my $i = 0; !-e $stop; $i++) {
            if (-e $pause) {
                _touch($rests);
                sleep 0.01 while -e $pause && !-e $stop;
                unlink $rests;
            }
            my $from = time;
            my ($got, $sent, $received) = eval { $sub->("$kind-$i") };
            $got = "died: $@" if $@;
            printf $f "%.6f %.6f %s %d %d\n", $from, time, $got =~ s/\s+/_/gr, $sent // 0, $received // 0;
            sleep 0.005; # so that there is time for those that come and go
        }
    });
}

sub outcomes {
    my ($self, $kind) = @_;
    open my $f, '<', $self->_file("load.$kind") or return;
    return map { /\n\z/ ? [split] : () } <$f>;
}

# Until each kind, or each of these, had another <n> requests.
sub go_on {
    my ($self, $n, @kinds) = @_;
    @kinds = $self->kinds if !@kinds;
    my %from = map { $_ => scalar(() = $self->outcomes($_)) } @kinds;
    $self->{hd}->wait_for(sub { !grep { (() = $self->outcomes($_)) < $from{$_} + $n } @kinds }, 'each kind of load to go on');
}

# No request is under way until resume().
sub quiet {
    my ($self) = @_;
    _touch($self->_file('pause'));
    $self->{hd}->wait_for(sub { !grep { !-e $self->_file("rests.$_") } $self->kinds }, 'all requests to end');
}

sub resume {
    my ($self) = @_;
    unlink $self->_file('pause');
    $self->{hd}->wait_for(sub { !grep { -e $self->_file("rests.$_") } $self->kinds }, 'the load to go on');
}

sub stop {
    my ($self) = @_;
    _touch($self->_file('stop'));
    waitpid $_, 0 for @{$self->{pids}};
}

# ---- clients

sub http1 {
    my ($uri, $port, %opt) = @_;
    my $want = delete $opt{want} // "answer $uri";
    my $host = delete $opt{host};
    my $c = Heddle::Http->connect($port, %opt);
    my $r = $c->request('GET', $uri, Connection => 'close', Host => $host) or return 'closed';
    return $r->status != 200 ? $r->status : $r->body eq $want ? 'right' : 'closed';
}

# By curl, at <name>:<port>, which is <addr>; further arguments are curl's. "200/14" is 200 with that status of gRPC.
sub curl {
    my ($uri, $scheme, $name, $port, $addr, @args) = @_;
    open my $out, '-|', 'curl', '-s', '--noproxy', '*', '-m', 60, '--resolve', "$name:$port:$addr", '-w',
        '\n%{http_code} %header{grpc-status}', @args, "$scheme://$name:$port$uri" or die "curl: $!";
    my $text = do { local $/; <$out> } // '';
    return 'closed ' . ($? >> 8) unless close $out;
    my ($body, $code, $grpc) = $text =~ /^(.*)\n(\d+) (\d*)$/s or return "none: $text";
    return $code if $code != 200;
    return "$code/$grpc" if $grpc;
    return $body eq "answer $uri" ? 'right' : "wrong: $body";
}

# Words to and fro, after <head>, if there is one, was answered by 101. Returns once the other side has closed, too.
sub echoes {
    my ($id, $port, %opt) = @_;
    my $head = delete $opt{head};
    my $c = Heddle::Http->connect($port, %opt);
    if ($head) {
        $c->send($head);
        my $r = $c->response_head or return 'closed';
        return $r->status if $r->status != 101;
    }
    my ($sent, $before) = (0, $c->{total} //= 0);
    for my $i (1 .. 5) {
        $sent += $c->send("$id $i;");
        return ('closed', $sent, $c->{total} - $before) if !defined $c->read_until(qr/\Q$id $i;\E/);
    }
    return ('right', $sent, $c->{total} - $before);
}

# What tcp_backend() takes for their other side.
sub echo { my ($sock) = @_; while (sysread $sock, my $b, 4096) { syswrite $sock, $b } }

sub upgraded_echo {
    my ($sock) = @_;
    my $head = '';
    while ($head !~ /\r\n\r\n/) { sysread $sock, $head, 4096, length $head or return }
    syswrite $sock, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    echo($sock);
}

# ---- kills

sub kill_worker {
    my ($self, $hd, $may) = @_;
    my @before = $hd->workers;
    my ($victim, $at) = ($before[0], time);
    kill 'KILL', $victim;
    my $dead = time;
    $hd->wait_for(sub { $hd->workers >= @before && !grep { $_ == $victim } $hd->workers }, "another worker for $victim");
    push @{$self->{kills}}, [$at, time, $dead, $may];
}

# Requests that who was killed may have held, and whose count it may have taken along: those under way, and the last
# one before.
sub held {
    my ($self, $kind) = @_;
    my @all = $self->outcomes($kind);
    my %held;
    for my $kill (@{$self->{kills}}) {
        my @began = grep { $all[$_][BEGAN] <= $kill->[2] } 0 .. $#all;
        $held{$_} = 1 for grep { $all[$_][ENDED] >= $kill->[0] } @began;
        my ($last) = grep { $all[$_][ENDED] < $kill->[0] } reverse @began;
        $held{$last} = 1 if defined $last;
    }
    return @all[sort { $a <=> $b } keys %held];
}

# ---- counts

# As clients saw them. <bytes>: which kinds are sessions of bytes; <upgraded>: whose "right" is 101.
sub seen {
    my ($self, %how) = @_;
    my %n;
    for my $kind ($self->kinds) {
        my $is_bytes = grep { $_ eq $kind } @{$how{bytes}};
        my $right = (grep { $_ eq $kind } @{$how{upgraded}}) ? 101 : 200;
        for ($self->outcomes($kind)) {
            if ($is_bytes) {
                $n{"$kind $_"}{n}++ for 'opened', 'closed';
                $n{"$kind received"}{n} += $_->[SENT]; # names are the proxy's
                $n{"$kind sent"}{n} += $_->[RECEIVED];
            } else {
                my ($status) = $_->[OUTCOME] eq 'right' ? $right : $_->[OUTCOME] =~ /^(\d+)/;
                $n{$kind}{$status}++ if $status;
            }
        }
    }
    return \%n;
}

# As /metrics of <hd> has them, at the reporter <reporter>. <kind_of>: by a series' labels.
sub counted {
    my ($hd, $reporter, $kind_of) = @_;
    my %n;
    for (split /\n/, $hd->admin('/metrics')->body) {
        my ($what, $labels, $value) = /^istio_(requests_total|tcp_(?:connections_)?(?:opened|closed|sent_bytes|received_bytes)_total)\{(.*)\} (\d+)$/
            or next;
        my %label = $labels =~ /(\w+)="([^"]*)"/g;
        my $kind = $label{reporter} eq $reporter && $value && $kind_of->(\%label) or next;
        if ($what eq 'requests_total') {
            $n{$kind}{$label{response_code}} += $value;
        } else {
            $n{$kind . ' ' . ($what =~ /(opened|closed|sent|received)/)[0]}{n} += $value;
        }
    }
    return \%n;
}

# What the held ones may make of difference to each count.
sub may_differ {
    my ($self, %how) = @_;
    my %may;
    for my $kind ($self->kinds) {
        my @held = $self->held($kind);
        $may{$kind} = @held;
        next if !grep { $_ eq $kind } @{$how{bytes}};
        $may{"$kind $_"} = @held for 'opened', 'closed';
        $may{"$kind $_"} = (length("$kind-1000000 5;") * 5) * @held for 'sent', 'received';
    }
    return %may;
}

sub _difference {
    my ($name, $seen, $counted) = @_;
    my %all = (%{$seen->{$name} // {}}, %{$counted->{$name} // {}});
    my $n = 0;
    $n += abs(($seen->{$name}{$_} // 0) - ($counted->{$name}{$_} // 0)) for keys %all;
    return $n;
}

sub _text { my ($counts, $name) = @_; return join ' ', map { "$_: $counts->{$name}{$_}" } sort keys %{$counts->{$name} // {}} }

# With no request under way: whatever <counted>->() has is what was seen, but for <may>{name}. Returns what differs.
sub compare {
    my ($self, $title, $counted, $how, %may) = @_;
    my ($seen, $now) = ($self->seen(%$how), {});
    eval { $self->{hd}->wait_for(sub { # a count comes a moment after its answer
        $now = $counted->();
        return !grep { _difference($_, $seen, $now) > ($may{$_} // 0) } keys %$seen;
    }, 'counts', 10) };
    for my $name (sort keys %$seen) {
        my ($differ, $most) = (_difference($name, $seen, $now), $may{$name} // 0);
        cmp_ok $differ, '<=', $most, "$title: $name: of what was seen (" . _text($seen, $name) . ") $differ are counted otherwise, of $most that may"
            or diag 'counted: ' . _text($now, $name);
    }
    return map { $_ => _difference($_, $seen, $now) } keys %$seen;
}

# ---- what is asked at the end

sub judge {
    my ($self, %refusals) = @_;
    for my $kind ($self->kinds) {
        my @all = $self->outcomes($kind);
        my $may = $refusals{$kind} // qr/^(?!)/;
        my @bad = grep {
            my ($from, $to, $what) = @$_;
            my @kills = grep { $from <= $_->[1] && $to >= $_->[0] } @{$self->{kills}};
            $what ne 'right' && $what !~ $may && !(@kills && $what =~ /^closed/) && !grep { $_->[3] && $what =~ $_->[3] } @kills;
        } @all;
        is scalar @bad, 0, "$kind: each of " . @all . ' is answered, but for those of a killed worker'
            or diag join "\n", map { "@$_" } @bad[0 .. ($#bad < 9 ? $#bad : 9)];
        ok scalar(grep { $_->[OUTCOME] eq 'right' } @all), "$kind: some are";
    }
}

# What the upstream's log <uris>->() has was asked for, and what was answered stands in it.
sub judge_upstream {
    my ($self, $uris, @kinds) = @_;
    my %asked;
    for my $kind (@kinds) {
        my @all = $self->outcomes($kind);
        my @right = grep { $all[$_][OUTCOME] eq 'right' } 0 .. $#all;
        ok eval { $self->{hd}->wait_for(sub {
            %asked = ();
            $asked{$_}++ for $uris->();
            return !grep { !$asked{"/$kind/$kind-$_"} } @right;
        }, "$kind in the log") }, "$kind: what was answered came from the upstream";
        my @beyond = grep { m{^/$kind/$kind-(\d+)$} && $1 > $#all } keys %asked;
        is "@beyond", '', "$kind: nothing else came there";
    }
}

sub rss_kib {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/status" or return 0;
    return (map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$f>)[0] // 0;
}

# Workers of <hds>, while the load goes on: returns a sub for the end, which says whether they have grown.
sub watch_growth {
    my ($self, @hds) = @_;
    my @workers = map { $_->workers } @hds;
    $self->go_on(2);
    my %before = map { $_ => rss_kib($_) } @workers;
    $self->go_on(5) for 1 .. (Heddle::is_sanitized() ? 1 : 4);
    my %after = map { $_ => rss_kib($_) } @workers;
    my $most = Heddle::is_sanitized() ? 32768 : 2048;
    return sub { cmp_ok $after{$_}, '<=', $before{$_} + $most, "worker $_ doesn't grow" for @workers };
}

# Gauges of <hd> that aren't 0, but for <own>: the agent's own stream to the control plane goes on.
sub gauges {
    my ($hd, $own) = @_;
    return grep { !/^\Q$own\E\|/ && /::(?:high_priority::)?(?:active_(?:requests|pending|retries)|rq_active)::[1-9]/ }
        split /\n/, $hd->admin('/clusters')->body;
}

1;
