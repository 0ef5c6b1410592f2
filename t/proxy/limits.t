#!/usr/bin/perl
# Limits are exact over all workers: four of them under full load let in just as many as one
# would; a reload, a change of the rate and a worker's death forget nothing that
# was counted, but give back what was under way. Errors in the file.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

plan skip_all => 'no h2load' unless grep { -x "$_/h2load" } split /:/, $ENV{PATH};

sub conf_text {
    my ($burst) = @_;
    return <<"EOC";
http {
    log_format who '\$status \$limit_req_status \$pid';
    limit_req_zone \$server_port zone=all:64k rate=1r/m;
    limit_req_zone \$arg_k zone=slow:64k rate=1r/m;
    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        access_log %%DIR%%/all.log who;
        location /all {
            limit_req zone=all burst=$burst nodelay;
            limit_req_log_level info;
            try_files /none \@ok;
        }
        location /noted { limit_req zone=slow; limit_req_log_level warn; try_files /none \@ok; }
        location \@ok { return 200 "ok\\n"; }
    }
}
EOC
}

my $hd = Heddle->new(workers => 4)->conf(conf_text(49))->start;
my $url = 'http://127.0.0.1:' . $hd->port(0);

sub load {
    my ($n, $path) = @_;
    my $said = `h2load --h1 -n $n -c 40 $url$path 2>&1`;
    my ($ok, $refused) = $said =~ /status codes: (\d+) 2xx, \d+ 3xx, \d+ 4xx, (\d+) 5xx/ or return $said;
    return "$ok let in, $refused refused";
}

is load(400, '/all'), '50 let in, 350 refused', 'four workers count as one';
my @lines;
$hd->wait_for(sub { @lines = split /\n/, $hd->file('all.log'); @lines == 400 }, 'the log');
is scalar(grep { /^200 PASSED / } @lines), 50, '$limit_req_status: let in';
is scalar(grep { /^503 REJECTED / } @lines), 350, '$limit_req_status: refused';
my %workers = map { (split)[2] => 1 } @lines;
cmp_ok scalar(keys %workers), '>', 1, 'several workers had part in it';

$hd->reload;
is load(40, '/all'), '0 let in, 40 refused', 'a reload forgets nothing';
$hd->conf(conf_text(59));
$hd->reload;
is load(40, '/all'), '10 let in, 30 refused', 'ten more are allowed, ten more are let in';

my ($victim) = $hd->workers;
$hd->expect_log(qr/exited on signal 9/);
kill "KILL", $victim;
$hd->wait_for(sub { $hd->workers == 4 && !grep { $_ == $victim } $hd->workers }, 'its replacement');
$hd->wait_log(qr/exited on signal 9/);
is load(40, '/all'), '0 let in, 40 refused', "a worker's death forgets nothing";

is $hd->get('/noted?k=1')->status, 200, 'within the rate';
is $hd->get('/noted?k=1')->status, 503, 'beyond it';
$hd->wait_log(qr/\[warn\][^\n]*limiting requests, excess: [01]\.\d{3} by zone "slow", client: 127\.0\.0\.1, server: , request: "GET \/noted\?k=1 HTTP/);
pass 'the log says who and why';
$hd->stop;

# --- limit_conn ---

my $held = Heddle->new(workers => 4);
$held->tcp_backend(1, sub {
    my ($sock) = @_;
    open my $f, '>>', $held->dir . '/held' or die $!;
    syswrite $f, 'x';
    1 while sysread $sock, my $bytes, 4096;
});
$held->conf(<<'EOC')->start;
http {
    log_format who '$request_uri $status $limit_conn_status';
    limit_conn_zone $arg_k zone=held:64k;
    limit_conn_zone $server_name zone=most:64k;
    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        access_log %%DIR%%/held.log who;
        proxy_read_timeout 60s;
        location / { limit_conn held 3; limit_conn_status 429; limit_conn_log_level info; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /free { limit_conn held 3; limit_conn_log_level info; try_files /none @ok; }
        location /dry { limit_conn held 3; limit_conn_dry_run on; limit_conn_log_level info; try_files /none @ok; }
        location @ok { return 200 "ok\n"; }
    }
}
EOC

sub ask_held { my ($path) = @_; return $held->get($path)->status }
sub hold { my ($k) = @_; my $c = Heddle::Http->connect($held->port(0)); $c->send("GET /?k=$k HTTP/1.1\r\nHost: a\r\n\r\n"); return $c }

my @conns = map { hold('a') } 1 .. 3;
$held->wait_for(sub { -e $held->dir . '/held' && 3 == -s _ }, 'three to be under way');
is ask_held('/free?k=a'), 503, 'a fourth is refused';
is ask_held('/?k=a'), 429, 'a fourth is refused, with the status that is said';
is ask_held('/free?k=b'), 200, 'another key has places';
is ask_held('/free'), 200, 'no key, no limit';
is ask_held('/dry?k=a'), 200, 'a dry run lets it in';
$held->wait_log(qr/\[info\][^\n]*limiting connections, dry run, by zone "held", client: 127\.0\.0\.1/);
$held->reload;
is ask_held('/free?k=a'), 503, 'a reload forgets none that are under way';
shift(@conns)->close;
$held->wait_for(sub { ask_held('/free?k=a') == 200 }, 'its place to be free');
$held->wait_for(sub { # who was let in to see that has left only after its answer
    my $c = hold('a');
    vec(my $its = '', fileno $c->{sock}, 1) = 1;
    my $under_way = sub { 4 == -s $held->dir . '/held' };
    $held->wait_for(sub { $under_way->() || select my $r = $its, undef, undef, 0 }, 'it to be under way or refused');
    push @conns, $c if $under_way->();
    return $under_way->();
}, 'another to be under way');
is ask_held('/free?k=a'), 503, 'full again';
$held->expect_log(qr/exited on signal 9/);
kill 'KILL', $held->processes('worker process');
$held->wait_for(sub { (eval { ask_held('/free?k=a') } // 0) == 200 }, 'places of dead workers to be given back');
pass 'dead workers give their places back';
$held->wait_for(sub { $held->file('held.log') =~ m{^/dry\?k=a 200 REJECTED_DRY_RUN$}m }, 'the log');
like $held->file('held.log'), qr{^/\?k=a 429 REJECTED$}m, '$limit_conn_status: refused';
like $held->file('held.log'), qr{^/free\?k=b 200 PASSED$}m, '$limit_conn_status: let in';
$held->stop;

my @wrong = (
    ['limit_conn_zone $arg_a zone=a:1k;', 'zone "a:1k" is too small: 32k or more'],
    ['limit_conn_zone $arg_a name=a;', 'invalid parameter "name=a": zone=NAME:SIZE is meant'],
    ['limit_conn b 5;', 'there is no limit_conn_zone "b"'],
    ['limit_conn b 0;', 'invalid number of connections "0": 1 to 65535'],
    ['limit_req_zone $arg_a zone=a rate=1r/s;', 'invalid zone "a": zone=NAME:SIZE is meant'],
    ['limit_req_zone $arg_a zone=a:1k rate=1r/s;', 'zone "a:1k" is too small: 32k or more'],
    ['limit_req_zone $arg_a zone=a:1m rate=1;', 'invalid rate "1": 1 to 1000000, with r/s or r/m'],
    ['limit_req_zone $arg_a zone=a:1m rate=0r/s;', 'invalid rate "0r/s"'],
    ['limit_req_zone $arg_a zone=a:1m size=1;', 'invalid parameter "size=1": zone= and rate= are allowed'],
    ['limit_req zone=b;', 'there is no limit_req_zone "b"'],
    ['limit_req burst=5;', 'zone=NAME is needed'],
    ['limit_req zone=a burst=0;', 'invalid parameter "burst=0"'],
    ['limit_req_status 200;', '"limit_req_status 200" is out of range'],
    ['limit_req_log_level loud;', 'it must be one of "info", "notice", "warn", "error"'],
    ['allow 10.0.0.0/33;', 'invalid parameter "10.0.0.0/33": an address, ADDRESS/BITS, unix: or all is allowed'],
    ['set_real_ip_from here;', 'invalid parameter "here": an address, ADDRESS/BITS or unix: is allowed'],
    ['real_ip_header "a b";', 'invalid value "a b": the name of a field or proxy_protocol is allowed'],
);
for my $row (@wrong) {
    my $bad = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; location / { return 200; } }\n$row->[0] }");
    my ($status, $said) = $bad->run('-t');
    ok $status != 0 && index($said, $row->[1]) >= 0, $row->[0] or diag($said);
}
done_testing;
