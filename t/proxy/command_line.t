#!/usr/bin/perl
# The command line, in nginx's forms and with its exit codes.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

my $program = Heddle->new->program;
my $dir = Heddle->new->dir;

sub heddle {
    my ($args) = @_;
    my $out = `$program $args 2>&1`;
    return ($? >> 8, $out);
}

sub spew {
    my ($name, $text) = @_;
    open my $f, '>', "$dir/$name" or die "$name: $!";
    print $f $text;
    close $f;
}

my ($status, $out) = heddle('-v');
is $status, 0, '-v';
like $out, qr{^heddle version: heddle/\d+\.\d+\.\d+$}, 'the version';
($status, $out) = heddle('-V');
like $out, qr/^heddle version.*^built by .*^configure arguments: /ms, '-V: and how it was built';
like $out, qr{^nginx version: nginx/\d+\.\d+\.\d+ \(compatible\)\nbuilt by \w+ [\d.]+ \(.*\)\nbuilt with OpenSSL \d}m,
    "in nginx's form, which tools read";
like $out, qr/^configure arguments: .*--with-http_ssl_module\b.*--with-http_v2_module\b/m, 'what it can do, in its words';
# Words are as true as the program: what it is said to be built with or without it knows or doesn't.
my %words = map { $_ => 1 } $out =~ /(--with(?:out)?-\S+)/g;
my %by = (sub => 'sub_filter', realip => 'set_real_ip_from', gunzip => 'gunzip', gzip_static => 'gzip_static', auth_request => 'auth_request',
    secure_link => 'secure_link', slice => 'slice', dav => 'dav_methods', mp4 => 'mp4', xslt => 'xslt_stylesheet');
my %but = (ssi => 'ssi', fastcgi => 'fastcgi_pass', uwsgi => 'uwsgi_pass', memcached => 'memcached_pass', gzip => 'gzip', map => 'map',
    limit_req => 'limit_req', grpc => 'grpc_pass', upstream_hash => 'hash');
sub is_known {
    my ($name) = @_;
    my (undef, $said) = Heddle->new->conf("http { $name; }")->run('-t');
    return $said !~ /unknown directive/;
}
is_deeply [grep { $words{"--with-http_${_}_module"} } sort keys %by], [grep { is_known($by{$_}) } sort keys %by],
    '-V: what nginx leaves out unless asked for, and is here';
is_deeply [grep { $words{"--without-http_${_}_module"} } sort keys %but], [grep { !is_known($but{$_}) } sort keys %but],
    "-V: what nginx has, and isn't here";
ok $words{"--with-stream_ssl_preread_module"} && $words{'--without-http-cache'}, '-V: in stream, and the cache';
# What would fail at the start fails at -t, too.
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
for (['listen 192.0.2.7:8080', '', 1, 'bind() to 192.0.2.7:8080 failed: Cannot assign requested address'],
    ['listen 127.0.0.1:' . $taken->sockport, '', 0, 'test is successful'], ['listen unix:%%DIR%%/s', '', 0, 'test is successful'],
    ['listen 127.0.0.1:%%PORT_0%%', 'pid %%DIR%%/none/x.pid;', 1, 'none/x.pid" failed: No such file or directory']) {
    my ($listen, $main, $code, $says) = @$_;
    my ($exit, $said) = Heddle->new->conf("$main http { server { $listen; } }")->run('-t');
    ok $exit == $code && index($said, $says) >= 0, "-t: $main $listen: $says" or diag "$exit: $said";
}
for my $h ('-h', '-?') {
    ($status, $out) = heddle($h);
    is $status, 0, $h;
    like $out, qr/^Usage: heddle .*-s signal +: send signal to a master process/ms, 'help';
}
for (['-x', 'invalid option: "x"'], ['start', 'invalid option: "start"'], ['-c', 'option "-c" requires a value'],
    ['-s', 'option "-s" requires a value'], ['-s restart', 'invalid option: "-s" "restart"'],
    ['-tz', 'invalid option: "z"']) {
    ($status, $out) = heddle($_->[0]);
    ok $status == 1 && $out =~ /^heddle: \Q$_->[1]\E/, "$_->[0]: $_->[1]" or diag "$status: $out";
}

# -p -c -e -g -q -T
mkdir "$dir/conf";
spew('conf/a.conf', "pid a.pid;\ninclude b.inc;\n");
spew('conf/b.inc', "# included\nworker_processes 2;\n");
my $at = "-p $dir -e $dir/early.log -c conf/a.conf";
($status, $out) = heddle("-t $at");
is $status, 0, '-p, and -c relative to it' or diag $out;
like $out, qr{^heddle: the configuration file $dir/conf/a\.conf syntax is ok$}m;
ok -e "$dir/early.log", '-e';
($status, $out) = heddle("-tp$dir -econf.log -cconf/a.conf");
is $status, 0, 'values without a space' or diag $out;
ok -e "$dir/conf.log", '-e relative to the prefix';
($status, $out) = heddle("-tq $at");
is "$status $out", '0 ', '-q says nothing when all is right';
($status, $out) = heddle("-q -t $at -g 'nonsense;'");
is $status, 1, '-q with an error';
like $out, qr/\[emerg\] command line:1: unknown directive "nonsense"/, 'says it; -g has a place';
($status, $out) = heddle("-t $at -g 'worker_processes 1;'");
like $out, qr{\[emerg\] $dir/conf/b\.inc:2: "worker_processes" directive is duplicate: it stands in command line:1},
    '-g counts as main level';
($status, $out) = heddle("-Tq $at");
is $out, "# configuration file $dir/conf/a.conf:\npid a.pid;\ninclude b.inc;\n\n"
    . "# configuration file $dir/conf/b.inc:\n# included\nworker_processes 2;\n\n", '-T prints all files';
($status, $out) = heddle("-t -p $dir -e $dir/early.log -c none.conf");
is $status, 1, 'a file that is not there';
like $out, qr{\[emerg\] open "$dir/none\.conf": No such file or directory};
($status, $out) = heddle("-t -p $dir -e /nowhere/x.log -c conf/a.conf -g 'error_log stderr;'");
is $status, 0, 'an -e that cannot be opened is no reason to fail';
like $out, qr{\[alert\] could not open error log file: open\(\) "/nowhere/x\.log" failed};

# -s
($status, $out) = heddle("-s quit $at");
is $status, 1, '-s: nobody there';
like $out, qr{\[error\] open\(\) "$dir/a\.pid" failed: No such file or directory: is heddle running\?};
spew('a.pid', "no number\n");
($status, $out) = heddle("-s stop $at");
like $out, qr{\[error\] invalid PID number in "$dir/a\.pid"}, 'a broken pid file';
my $gone = fork // die;
exit 0 unless $gone;
waitpid $gone, 0;
spew('a.pid', "$gone\n");
($status, $out) = heddle("-s reload $at");
is $status, 1, 'a stale one';
like $out, qr/\[alert\] kill\($gone, 1\) failed: No such process/;
unlink "$dir/a.pid";

my $hd = Heddle::Echo::heddle(conf => "echo_listen 127.0.0.1:%%PORT_0%% x;\n")->start;
$hd->write('heddle.conf', $hd->file('heddle.conf') . "nonsense;\n");
($status, $out) = $hd->run('-s', 'stop');
is $status, 0, '-s stop needs no more than the pid file of a broken configuration' or diag $out;
$hd->wait_for(sub { $hd->_has_ended }, 'the end');
is $hd->{status}, 0, 'it stopped in order';
delete @$hd{'pid', 'status'};

# Two of them with a prefix each share nothing: configuration, log and pid file lie under -p.
for my $n (0, 1) {
    my $p = "$dir/p$n";
    mkdir $_ for $p, "$p/conf", "$p/logs";
    spew("p$n/conf/heddle.conf", "worker_processes 1;\n");
    ($status, $out) = heddle("-t -p $p");
    like $out, qr{^heddle: the configuration file \Q$p\E/conf/heddle\.conf syntax is ok$}m, '-p alone: the configuration';
    ($status, $out) = heddle("-p $p </dev/null");
    is "$status $out", '0 ', 'a start';
}
my @pids = map { my $f = "$dir/p$_/logs/heddle.pid"; $hd->wait_for(sub { -s $f }, $f); open my $h, '<', $f or die $!; 0 + <$h> } 0, 1;
ok $pids[0] != $pids[1] && kill(0, @pids) == 2, 'two programs, two pid files';
for my $n (0, 1) {
    ($status, $out) = heddle("-s quit -p $dir/p$n");
    is "$status $out", '0 ', '-s finds it by its prefix';
    $hd->wait_for(sub { !-e "$dir/p$n/logs/heddle.pid" && !kill 0, $pids[$n] }, 'the end');
    ok -s "$dir/p$n/logs/error.log", 'and it wrote its log there';
}

# Hidden: what the build asks for.
($status, $out) = heddle('--print-directives ' . join ' ', Heddle::Echo::path(), glob "$Heddle::build/modules/*.so");
is $status, 0, '--print-directives';
my @lines = split /\n/, $out;
ok((grep { /"name": "echo_listen", "module": "echo", "contexts": "main"/ } @lines), 'modules, too');
my @without = grep { !/"help": "\S/ } @lines;
is "@without", '', 'each directive has a line of help';
($status, $out) = heddle('--print-module-index ' . Heddle::Echo::path());
is $out, join('', map { "directive $_ echo.so\n" } qw(echo_listen echo_agent echo_low_port echo_cold echo_worker)),
    '--print-module-index';

# A module that the index knows loads itself.
SKIP: {
    my $modules = "$Heddle::build/modules";
    skip 'no index in this build', 2 unless -e "$modules/modules.index";
    open my $f, '<', "$modules/modules.index" or die;
    my %of = map { /^directive (\S+) (\S+)/ ? ($1 => $2) : () } <$f>;
    my ($name) = sort keys %of;
    skip 'it is empty', 2 unless defined $name;
    spew('conf/m.conf', "$name;\n");
    ($status, $out) = heddle("-t -p $dir -e early.log -c conf/m.conf");
    unlike $out, qr/unknown directive/, "$name is known";
    like $out, qr{conf/m\.conf:1: }, 'though not right here';
}

done_testing;
