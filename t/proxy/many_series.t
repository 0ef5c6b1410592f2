# 50,000 series are scraped while requests flow: the scrape is the agent's, a piece a turn, and
# workers share no lock with it. So a scraper that stops reading in the middle holds up nobody, nor
# does an agent that is stopped (SIGSTOP) in the middle, at whatever place: a worker that needed
# anything of it would hang, and this test with it.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Echo;

my $series = 50_000;
my $hd = Heddle->new->conf('load_module ' . Heddle::Echo::path('many_series') . ";\n" . <<"EOC");
worker_processes 1;
admin %%ADMIN%%;
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /enter { many_series $series; }
        location /count { many_series 0; }
    }
}
EOC
$hd->start;
is $hd->get('/enter')->body, "$series\n", "$series series are there";
my ($agent) = $hd->processes('agent process');
my ($worker) = $hd->workers;
ok $agent && $worker && $agent != $worker, 'the agent is a process of its own';
is $hd->admin('/ready')->status, 200, 'it answers';

my $counted = 0;
sub count_some { # requests that a worker answers, and counts, with a new series each
    my ($n, $what) = @_;
    my $right = 0;
    for (1 .. $n) {
        $counted++;
        $right++ if $hd->get('/count')->body eq "$counted\n";
    }
    is $right, $n, $what;
}

# ---- a scraper that takes its time: what it doesn't read stays with the agent

my $scrape = $hd->connect('admin');
$scrape->send("GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
my $text = $scrape->read_until(qr/\n# TYPE/);
like $text, qr{^HTTP/1.1 200 }, 'a scrape begins';
count_some(100, 'a hundred requests are answered while nobody reads it');
is $hd->admin('/ready')->status, 200, 'and the agent answers others meanwhile';

# ---- an agent that is stopped, again and again, as the scrape goes on

my $stops = 0;
for (1 .. 8) {
    $text .= $scrape->read_bytes(1_000_000);
    $hd->freeze($agent);
    $stops++;
    count_some(10, "stop $stops: requests are answered, and enter new series");
    kill 'CONT', $agent;
}
$text .= $scrape->read_all;
$scrape->close;
my ($head, $body) = $text =~ /\A(.*?\r\n\r\n)(.*)\z/s;
if ($head =~ /^transfer-encoding: chunked/mi) {
    my $whole = '';
    while ($body =~ /\G([0-9a-f]+)\r\n/gci) {
        $whole .= substr $body, pos($body), hex $1;
        pos($body) += hex($1) + 2;
    }
    $body = $whole;
}
cmp_ok length $body, '>', 12_000_000, 'more than sockets hold: it was made bit by bit';
my @lines = $body =~ /^many_series_total\{which="(\d+)-x+"\} \d+$/mg;
cmp_ok scalar @lines, '>=', $series, 'it has all of them';
my %seen;
is scalar(grep { $seen{$_}++ } @lines), 0, 'each once';

# ---- and the figures add up

$body = $hd->admin('/metrics')->body;
my ($seventh) = $body =~ /^many_series_total\{which="00000007-x+"\} (\d+)$/m;
is $seventh, $counted + 1, 'what was counted meanwhile is counted';
@lines = $body =~ /^many_series_total\{which="\d+-x+"\} \d+$/mg;
is scalar @lines, $series + $counted, 'what was entered meanwhile is there';
is(($body =~ /^heddle_series_folded_total (\d+)$/m)[0], 0, 'nothing was folded');

SKIP: {
    skip 'no promtool', 1 if system('which promtool >/dev/null 2>&1') != 0;
    my $file = $hd->write('metrics', $body);
    my $said = `promtool check metrics < $file 2>&1`;
    is $?, 0, 'promtool accepts it' or diag substr $said, 0, 500;
}
is(($hd->workers)[0], $worker, 'the worker is the one that it was');
done_testing;
