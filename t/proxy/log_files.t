#!/usr/bin/perl
# A log file that no configuration names any more is closed in every process: but not before the last request of
# the configuration that named it has written its line there. Named again, it is opened again; moved away, it is begun anew.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(log_level => 'notice', workers => 2);

sub conf {
    my ($log) = @_;
    return $hd->conf(<<"EOC");
http {
    log_format short '\$uri \$status';
    access_log %%DIR%%/$log.log short;
    error_log %%DIR%%/$log.errors info;
    server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://127.0.0.1:%%PORT_1%%; } }
}
EOC
}

# All processes that have a file open.
sub openers {
    my ($name) = @_;
    my $path = $hd->dir . "/$name";
    return scalar grep {
        my $pid = $_;
        grep { (readlink($_) // '') eq $path } glob "/proc/$pid/fd/*";
    } Heddle::Watch::group($hd->pid);
}
sub reload_to { my ($log) = @_; conf($log); return $hd->reload }

$hd->backend(1, sub { {body => $_[0]{body} // ''} });
conf('first')->start;
is $hd->get('/1')->status, 200, 'a request';
is openers('first.log'), openers('first.errors'), 'both are open';
cmp_ok openers('first.log'), '>=', 3, '... in master and workers';

my $conn = $hd->connect(0);
$conn->send("POST /long HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
is $conn->response->status, 100, 'one that is under way';
$conn->send('ab');
reload_to('second');
is $hd->get('/2')->status, 200, 'a request after the reload';
$hd->wait_for(sub { $hd->file('second.log') =~ m{^/2 200$}m }, 'its line');
cmp_ok openers('first.log'), '>=', 1, 'the first log is open while one of its requests goes on';
$conn->send('cd');
is $conn->response->body, 'abcd', 'which ends';
$hd->wait_for(sub { $hd->file('first.log') =~ m{^/long 200$}m }, 'its line, where it belongs');
$hd->wait_for(sub { openers('first.log') + openers('first.errors') == 0 }, 'the first log to be closed everywhere');
cmp_ok openers('second.log'), '>=', 3, 'the second one is open';

reload_to('first');
is $hd->get('/3')->status, 200, 'named again';
$hd->wait_for(sub { $hd->file('first.log') =~ m{^/3 200$}m }, 'its line');
$hd->wait_for(sub { openers('second.log') + openers('second.errors') == 0 }, 'the second log to be closed everywhere');
unlike $hd->file('second.log'), qr{/[13] }, 'each line is in one log';
reload_to('first');
is $hd->get('/4')->status, 200, 'a reload that changes nothing';
$hd->wait_for(sub { $hd->file('first.log') =~ m{^/4 200$}m }, 'the log goes on');

# As with nginx: a reload begins files anew that were moved away, as USR1 does.
rename $hd->dir . "/first.$_", $hd->dir . "/moved.$_" for 'log', 'errors';
reload_to('first');
$hd->wait_for(sub { openers('moved.log') + openers('moved.errors') == 0 }, 'the moved files to be let go of');
is $hd->get('/5')->status, 200, 'a request after the reload';
$hd->wait_for(sub { $hd->file('first.log') =~ m{^/5 200$}m }, 'its line in a new file');
unlike $hd->file('moved.log'), qr{/5 }, 'not in the one that was moved away';
$hd->stop;
done_testing;
