#!/usr/bin/perl
# Each signal at each time of the master's life: what it begins, what it changes, and that TERM ends all from anywhere.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

my $forever = 600; # seconds, longer than any test
sub conf_text {
    my ($workers, $text, $more) = @_;
    return "worker_processes $workers;\n$more\n" . Heddle::Echo::conf_text(<<"EOC");
echo_listen 127.0.0.1:%%PORT_0%% own-$text %%DIR%%/echo.log;
echo_agent 127.0.0.1:%%PORT_1%% $text;
echo_cold %%DIR%%/warm-$text;
EOC
}

# One with a connection that stays, unless it is closed.
sub start_one {
    my ($more) = @_;
    my $hd = Heddle->new(log_level => 'notice', more => $more // '');
    $hd->conf(conf_text(2, 'first', $hd->{more}))->start;
    $hd->wait_log(qr/all processes are ready/);
    $hd->wait_log(qr/the agent has published/);
    $hd->{c} = $hd->connect;
    Heddle::Echo::greeted($hd->{c});
    return $hd;
}

# A generation that waits for its agent to be warm.
sub make_next {
    my ($hd, $text) = @_;
    my $from = length $hd->log;
    $hd->conf(conf_text(3, $text, $hd->{more}));
    $hd->signal('HUP');
    $hd->wait_for(sub { substr($hd->log, $from) =~ /the agent has published/ }, 'the next agent');
}

# The first generation drains: its connection stays.
sub replace_first {
    my ($hd) = @_;
    make_next($hd, 'second');
    $hd->write('warm-second', '');
    $hd->wait_log(qr/reload done: generation 2 is in force, 1 drains/);
}

sub quit {
    my ($hd) = @_;
    my $workers = $hd->workers;
    $hd->signal('QUIT');
    $hd->wait_log(qr/gracefully shutting down/, $workers + 1); # the master's own line, and theirs
}

my %phases = (
    'running' => sub { return start_one() },
    'a generation is made' => sub { my $hd = start_one(); make_next($hd, 'second'); return $hd },
    'one drains' => sub { my $hd = start_one(); replace_first($hd); return $hd },
    'one drains, one is made' => sub {
        my $hd = start_one();
        replace_first($hd);
        $hd->conf(conf_text(4, 'third', $hd->{more}));
        my $from = length $hd->log;
        $hd->signal('HUP');
        $hd->wait_for(sub { substr($hd->log, $from) =~ /the agent has published/ }, 'the next agent');
        return $hd;
    },
    'leaving' => sub {
        my $hd = start_one("worker_shutdown_delay ${forever}s;");
        $hd->signal('QUIT');
        $hd->wait_log(qr/gracefully shutting down/);
        return $hd;
    },
    'quitting' => sub { my $hd = start_one(); quit($hd); return $hd },
    'quitting, one drains' => sub {
        my $hd = start_one();
        replace_first($hd);
        $hd->wait_log(qr/\bgracefully shutting down/, 2); # the old workers
        $hd->signal('QUIT');
        $hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the listener to close');
        return $hd;
    },
);

sub is_ending { my ($phase) = @_; return $phase =~ /leaving|quitting/ }
sub echoes { my ($hd) = @_; return eval { Heddle::Echo::echoes($hd->{c}) } }


for my $phase (sort keys %phases) {
    for my $signal ('TERM', 'INT') {
        my $hd = $phases{$phase}->();
        $hd->stop($signal);
        ok !$hd->{failed}, "$phase: $signal ends all";
    }

    my $hd = $phases{$phase}->();
    my $from = length $hd->log;
    $hd->signal($_) for 'USR1', 'WINCH', 'CHLD', 'HUP';
    $hd->wait_for(sub { substr($hd->log, $from) =~ /reopening logs/ }, 'logs to be opened anew');
    if (is_ending($phase)) {
        $hd->wait_for(sub { substr($hd->log, $from) =~ /nothing is read any more/ }, 'a word on HUP');
        pass "$phase: HUP comes too late";
    } elsif ($phase !~ /made/) { # else it is read behind that one
        $hd->wait_for(sub { substr($hd->log, $from) =~ /reconfiguring/ }, 'HUP to be heeded');
        pass "$phase: HUP is heeded";
    }
    ok echoes($hd), "$phase: USR1, WINCH, CHLD, HUP: what is open stays";
    $hd->stop('TERM');
    ok !$hd->{failed}, "$phase: then TERM";

    $hd = $phases{$phase}->();
    $hd->signal('QUIT');
    $hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the listener to close');
    ok echoes($hd), "$phase: QUIT: nobody new is let in, what is open stays";
    if ($phase ne 'running') {
        $hd->stop('TERM');
        ok !$hd->{failed}, "$phase: then TERM, before that has ended";
        $hd = $phases{$phase}->();
        $hd->signal('QUIT');
    }
    $hd->wait_for(sub { !Heddle::Port::is_listening($hd->port(0)) }, 'the listener to close');
    $hd->{c}->close;
    $hd->wait_for(sub { $hd->_has_ended }, 'the end');
    $hd->stop;
    ok !$hd->{failed}, "$phase: QUIT ends all when nothing is open";
}
done_testing;
