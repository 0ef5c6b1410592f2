#!/usr/bin/perl
# A reload that living processes can't follow: new ones take over, the old ones drain. Upgraded connections and gRPC
# streams live on, no request is lost, and no counter goes back.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Streams;

plan skip_all => $Heddle::Streams::missing if $Heddle::Streams::missing;
my $hd = Heddle->new(log_level => 'notice');
my $backend = Heddle::Streams->backend($hd, 1, 2);

sub conf {
    my ($workers, $answer, $more) = @_;
    $hd->conf(<<"EOC");
worker_processes $workers;
worker_shutdown_timeout 60s;
admin %%ADMIN%%;
@{[$more // '']}
http {
    access_log off;
    metrics on reporter=destination;
    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        listen 127.0.0.1:%%PORT_3%%;
        http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; }
        location /ws { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_http_version 1.1; proxy_read_timeout 600s;
                       proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; }
        location /t.Echo/ { grpc_pass grpc://127.0.0.1:%%PORT_2%%; grpc_read_timeout 600s; }
        location = /answer { return 200 $answer; }
    }
}
EOC
}

my $test = $$;

# Asks for figures all the time, each time on a connection of its own, until it is told to end; then says what was wrong.
sub watch_figures {
    pipe my $out, my $in or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        my ($n, $before) = (0, 0);
        Heddle::Watch::die_with_parent($test);
        my @wrong;
        until ($n > 0 && -e $hd->dir . '/watched') { # no signal: it would cut a request short
            my $body = eval { $hd->admin('/metrics')->body };
            push @wrong, "no answer: $@" if !defined $body;
            my $sum = count_of($body // '');
            push @wrong, "$sum after $before" if $sum < $before;
            $before = $sum;
            push @wrong, 'not ready' if eval { $hd->admin('/ready')->status } != 200;
            $n++;
        }
        syswrite $in, join(', ', @wrong) || "right: $before";
        POSIX::_exit(0);
    }
    close $in;
    return sub { $hd->write('watched', ''); my $said = do { local $/; <$out> }; waitpid $pid, 0; return $said };
}

sub count_of {
    my ($body) = @_;
    my $n = 0;
    $n += $1 while $body =~ /^istio_requests_total\{.*\} (\d+)$/mg;
    return $n;
}

sub counted { count_of($hd->admin('/metrics')->body) }

conf(4, 'one');
$hd->start;
$hd->wait_log(qr/all processes are ready/);
my %old = map { $_ => 1 } $hd->workers;
my $stop_watching = watch_figures();
my $clients = Heddle::Streams->clients($hd, http => 0, grpc => 3, ws => 2, talks => 2, load => 3, calls => 2);

# Asks until the new generation answers: connections that a worker of before had taken at the moment of the switch are
# its own. Each question is counted.
my $questions = 0;

sub is_answered {
    my ($answer, $name) = @_;
    my $body;
    $hd->wait_for(sub { $questions++; ($body = $hd->get('/answer')->body) eq $answer }, "the answer $answer");
    is $body, $answer, $name;
}

# ---- fewer workers: nobody in the queue of one that goes is lost

conf(2, 'two');
$hd->signal('HUP');
$hd->wait_log(qr/reload done: generation 2 is in force, 1 drains/);
is_answered('two', 'the new generation answers');
is $clients->failures($clients->wait_for_more(qw(ws talks load calls))), '',
    'nothing was lost; upgraded connections and gRPC streams go on';
$hd->wait_for(sub { grep({ !$old{$_} } $hd->workers) == 2 }, 'two new workers');

# ---- more workers, while the first generation still drains

my @second = grep { !$old{$_} } $hd->workers;
conf(3, 'three');
$hd->signal('HUP');
$hd->wait_log(qr/reload done: generation 3 is in force, 2 drains/);
is_answered('three', 'a third generation, while the first drains');
is $clients->failures($clients->wait_for_more(qw(ws talks load calls))), '', 'nothing was lost';
is scalar(grep { $old{$_} } $hd->workers) > 0, 1, 'workers of the first still serve what is open';
unlike $hd->log, qr/has drained/, 'so it has not drained';

my $end = $clients->end;
is $clients->failures($end), '', 'up to the end of all';
$hd->wait_log(qr/generation 1 has drained/);
$hd->wait_log(qr/generation 2 has drained/);
is scalar($hd->workers), 3, 'the workers of the third stay';
is scalar(grep { my $p = $_; $old{$p} || grep { $_ == $p } @second } $hd->workers), 0, 'and they alone';
is scalar($hd->processes('agent')), 1, 'with one agent';

# Each request of all three is counted: the last of them when an old worker ended.
my $asked = $end->{load}{n} + $end->{calls}{n} + $end->{ws}{conns} + $end->{talks}{conns} + $questions;
$hd->wait_for(sub { counted() >= $asked }, "$asked requests to be counted");
is counted(), $asked, 'every request is counted once, by whichever generation';
like $stop_watching->(), qr/^right: \d+$/, 'figures came all the time, and none went back';

done_testing;
