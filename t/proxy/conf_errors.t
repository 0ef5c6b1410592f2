#!/usr/bin/perl
# -t: every error of configuration has its place and a remedy.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $conf = quotemeta $hd->conf_path;
$hd->write('bad.inc', "\n\nworker_processes 0;\n");
$hd->write('cycle.inc', "include cycle.inc;\n");
$hd->write('no_module.so', "not a module\n");

# Each: the text, the line, what is said. Text is written as it is, so that line 1 is the first.
my @rows = (
    ["worker_procesess 1;", 1, 'unknown directive "worker_procesess": did you mean "worker_processes"?'],
    ["\nproxy_magic on;", 2, q{unknown directive "proxy_magic": no module in the modules' directory has it; what of nginx isn't there}],
    ["worker_processes 1;\nworker_processes 2;", 2, '"worker_processes" directive is duplicate: it stands in ' . $hd->conf_path . ':1 already'],
    ["worker_connections 10;", 1, '"worker_connections" directive is not allowed here: it may stand in events'],
    ["events { worker_processes 1; }", 1, '"worker_processes" directive is not allowed here: it may stand in main'],
    ["events;", 1, 'directive "events" has no opening "{"'],
    ["daemon off { }", 1, 'directive "daemon" is not terminated by ";"'],
    ["daemon maybe;", 1, 'invalid value "maybe" in "daemon" directive: it must be "on" or "off"'],
    ["daemon;", 1, 'invalid number of arguments in "daemon" directive (0): on | off'],
    ["worker_processes 0;", 1, 'invalid value "0" in "worker_processes" directive: "auto", or a number from 1 to 64'],
    ["worker_processes many;", 1, 'invalid value "many"'],
    ["worker_rlimit_nofile 3;", 1, 'invalid number "3" in "worker_rlimit_nofile" directive: 64 or more'],
    ["worker_priority 21;", 1, 'invalid number "21" in "worker_priority" directive: from -20 (first) to 20 (last)'],
    ["worker_priority -;", 1, 'invalid number "-"'],
    ["worker_cpu_affinity 012;", 1, 'invalid mask "012" in "worker_cpu_affinity" directive: a 0 or 1 for each CPU'],
    ["worker_cpu_affinity 01 00;", 1, '"worker_cpu_affinity 00": no CPU at all'],
    ["worker_cpu_affinity auto 01 10;", 1, '"worker_cpu_affinity": too many masks: "auto" has one at most'],
    ["worker_cpu_affinity " . '1 ' x 65 . ";", 1, '"worker_cpu_affinity": too many masks: one for each worker'],
    ["worker_cpu_affinity " . '1' x 1025 . ";", 1, '"worker_cpu_affinity": a mask is for at most 1024 CPUs'],
    ["worker_rlimit_core much;", 1, '"much" is not a size: bytes, or with k, m or g'],
    ["working_directory nowhere;", 1, 'working_directory "' . $hd->dir . '/nowhere": No such file or directory'],
    ["working_directory no_module.so;", 1, 'working_directory "' . $hd->dir . '/no_module.so" is no directory'],
    ["env =x;", 1, 'invalid "=x" in "env" directive: NAME, or NAME=VALUE'],
    ["env A=" . 'x' x 4000 . ";\nenv B=" . 'x' x 4000 . ";\nenv C=" . 'x' x 200 . ";", 3, '"env" lines of more than 8192 bytes together'],
    ["events { worker_connections 1; }", 1, '"worker_connections 1" is out of range: from 16 to 16777216'],
    ["events { use poll; }", 1, 'invalid event type "poll": there is "epoll"'],
    ["worker_shutdown_timeout soon;", 1, '"soon" is not a time: seconds, or with a unit'],
    ["worker_shutdown_delay soon;", 1, '"soon" is not a time: seconds, or with a unit'],
    ["worker_drain_time -1;", 1, '"-1" is not a time: seconds, or with a unit'],
    ["loom_size 1x;", 1, '"1x" is not a size: bytes, or with k, m or g'],
    ["loom_size 1k;", 1, '"loom_size 1k" is out of range: from 4194304'],
    ["error_log x.log loud;", 1, 'invalid log level "loud": it must be one of debug, info,'],
    ["error_log memory:32m;", 1, 'the error log is a file, "stderr" or "syslog:…", not "memory:32m"'],
    ["error_log syslog:tag=x;", 1, 'no syslog server specified: server=ADDRESS'],
    ["error_log syslog:server=127.0.0.1,tag=a-b;", 1, 'syslog "tag" only allows alphanumeric characters and underscore'],
    ["error_log syslog:server=127.0.0.1,facility=x;", 1, 'unknown syslog facility "x": kern, user, mail,'],
    ["error_log syslog:server=127.0.0.1,severity=x;", 1, 'unknown syslog severity "x": emerg, alert,'],
    ["error_log syslog:server=127.0.0.1,server=::1;", 1, 'duplicate syslog "server"'],
    ["error_log syslog:server=127.0.0.1:0;", 1, 'invalid syslog server "127.0.0.1:0"'],
    ["error_log syslog:server=127.0.0.1,x=y;", 1, 'unknown syslog parameter "x": server=, facility='],
    ["events {\n\n", 3, 'unexpected end of file, expecting "}": the block "events" begins in line 1'],
    ["daemon off", 1, 'unexpected end of file, expecting ";" or "}"'],
    ["daemon off;\n}", 2, 'unexpected "}": no block is open here'],
    ["daemon off;;", 1, 'unexpected ";": no directive stands before it'],
    ["error_log \"x\"y;", 1, 'unexpected "y" behind a closing quote: a space belongs there'],
    ["\nerror_log \"x;", 2, 'the quote that begins here is never closed'],
    ["include nothere.conf;", 1, 'open "' . $hd->dir . '/nothere.conf": No such file or directory'],
    ["include " . $hd->dir . ";", 1, 'is not a regular file: Is a directory'],
    ["include;", 1, 'invalid number of arguments in "include" directive'],
    ["load_module nothere.so;", 1, 'dlopen() "' . $hd->dir . '/nothere.so" failed'],
    ["load_module no_module.so;", 1, 'dlopen() "' . $hd->dir . '/no_module.so" failed'],
    ["error_log /nowhere/at/all.log;", undef, 'open() "/nowhere/at/all.log" failed: No such file or directory'],
);

# The control plane's files: asked for when the configuration is read, not when something fails later.
mkdir $hd->dir . '/mesh';
chmod 0644, $hd->write('open_tokens', "0123456789abcdef shop page\n");
my $control = 'control { listen 127.0.0.1:1;';
push @rows, ["$control\nconfig_dir nowhere; }", 2, '"config_dir" must be there: "' . $hd->dir . '/nowhere": No such file or directory'],
    ["$control\nconfig_dir no_module.so; }", 2, '"config_dir": "' . $hd->dir . '/no_module.so" is no directory'],
    ["$control\nca_dir nowhere; }", 2, '"ca_dir" must be there: "'],
    ["$control config_dir mesh;\ntokens nowhere; }", 2, q{can't open } . $hd->dir . '/nowhere: No such file or directory'],
    ["$control config_dir mesh;\ntokens open_tokens; }", 2, 'open_tokens is readable by others: chmod 600 it'];
push @rows, ["user nobody_at_all;", 1, 'there is no user "nobody_at_all": is its name in /etc/passwd?'],
    ["user root no_such_group;", 1, 'there is no group "no_such_group"'] if $> == 0;

for my $row (@rows) {
    my ($text, $line, $why) = @$row;
    $hd->write('heddle.conf', $text);
    my ($status, $out) = $hd->run('-t');
    (my $name = $text) =~ s/\n/\\n/g;
    my $place = defined $line ? "$conf:$line: " : '';
    ok $status == 1 && $out =~ /^heddle: \[emerg\] $place.*\Q$why\E/m
        && $out =~ /^heddle: configuration file $conf test failed$/m, $name
        or diag "status $status:\n$out";
}

# In included files their own place; each file is read once only.
$hd->write('heddle.conf', "daemon off;\ninclude bad.inc;\n");
my ($status, $out) = $hd->run('-t');
like $out, qr{\[emerg\] \S+/bad\.inc:3: invalid value "0"}, 'an error in an included file';
$hd->write('heddle.conf', "include cycle.inc;\n");
($status, $out) = $hd->run('-t');
like $out, qr{\[emerg\] \S+/cycle\.inc:1: include "\S+/cycle\.inc": it is being read already}, 'a cycle';
SKIP: {
    skip 'root reads everything', 1 if $> == 0;
    chmod 0, $hd->write('secret.inc', '');
    $hd->write('heddle.conf', "include secret.inc;\n");
    ($status, $out) = $hd->run('-t');
    like $out, qr/\[emerg\] $conf:1: open "\S+secret\.inc": Permission denied/, 'an unreadable file';
}

# Modules: another ABI, twice the same, no module at all.
my $cc = 'gcc -shared -fPIC -o ' . $hd->dir;
sub module {
    my ($name, $c) = @_;
    open my $f, '|-', "$cc/$name -x c -" or die "gcc: $!";
    print $f $c;
    close $f or die "gcc failed\n";
}
module('old.so', 'const struct { unsigned abi; const char *name; char rest[512]; } hd_module = {0x63000000, "old"};');
module('other.so', 'int hd_something;');
for (["load_module old.so;", 'has ABI 99, this heddle has \d+: build it anew against this heddle\'s hd_module\.h'],
    ["load_module other.so;", 'is no module: it exports no hd_module']) {
    $hd->write('heddle.conf', $_->[0]);
    ($status, $out) = $hd->run('-t');
    like $out, qr/\[emerg\] $conf:1: .*$_->[1]/, $_->[0];
}
require Heddle::Echo;
my $echo = Heddle::Echo::path();
$hd->write('heddle.conf', "load_module $echo;\nload_module $echo;\n");
($status, $out) = $hd->run('-t');
like $out, qr/\[emerg\] $conf:2: module "\Q$echo\E" is already loaded/, 'a module twice';

$hd->write('heddle.conf', "worker_processes auto;\nevents { use epoll; multi_accept on; accept_mutex off; }\n");
($status, $out) = $hd->run('-t');
is $status, 0, 'and what is right';
is $out, 'heddle: the configuration file ' . $hd->conf_path . " syntax is ok\n"
    . 'heddle: configuration file ' . $hd->conf_path . " test is successful\n", 'is told as by nginx';

done_testing;
