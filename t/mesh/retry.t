# retry: conditions, number, per-try time-out, what was exhausted (VS-RETRY).

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;
use Time::HiRes ();

my $t = Heddle::TwoWays->new(modules => ['retry']);

sub policy {
    my ($on, $n, %more) = @_;
    return {route => {retry_policy => {retry_on => $on, num_retries => $n,
        retry_back_off => {base_interval => '0.001s'}, %more}}};
}

# Answers these statuses in turn, the last one for ever; undef hangs, 'close' ends without an answer.
sub in_turn {
    my @answers = @_;
    my $n = 0;
    return sub {
        my $a = $answers[$n < $#answers ? $n++ : $#answers];
        return {hang => 1} unless defined $a;
        return {close => 1} if $a eq 'close';
        return $a if ref $a;
        return [$a, ['Content-Type' => 'text/plain'], "answer $a\n"];
    };
}

$t->row('5xx: until one answers well (VS-RETRY-20)',
    file => 'retry 5xx attempts=3 backoff=1ms;', route => policy('5xx', 3),
    backend => in_turn(500, 503, 200),
    ask => [['GET', '/', {status => 200, body => qr/answer 200/, tries => 3}]]);
$t->row('exhausted: the last answer is given (VS-RETRY-1, VS-RETRY-15)',
    file => 'retry 5xx attempts=2 backoff=1ms;', route => policy('5xx', 2),
    backend => in_turn(500),
    ask => [['GET', '/', {status => 500, body => qr/answer 500/, tries => 3}]]);
$t->row('gateway-error is 502, 503, 504 (VS-RETRY-21)',
    file => 'retry gateway-error attempts=2 backoff=1ms;', route => policy('gateway-error', 2),
    backend => in_turn(503, 500, 200),
    ask => [['GET', '/', {status => 500, tries => 2}]]);
$t->row('connect-failure doesn\'t mean a status (VS-RETRY-24)',
    file => 'retry connect-failure attempts=2 backoff=1ms;', route => policy('connect-failure', 2),
    backend => in_turn(503, 200),
    ask => [['GET', '/', {status => 503, tries => 1}]]);
$t->row('a list of statuses (VS-RETRY-27)',
    file => 'retry status=429,418 attempts=3 backoff=1ms;',
    route => policy('retriable-status-codes', 3, retriable_status_codes => [429, 418]),
    backend => in_turn(429, 418, 200),
    ask => [['GET', '/', {status => 200, tries => 3}]]);
$t->row('retriable-4xx is 409 (VS-RETRY-26)',
    file => 'retry retriable-4xx backoff=1ms;', route => policy('retriable-4xx', 2),
    backend => in_turn(409, 404, 200),
    ask => [['GET', '/', {status => 404, tries => 2}]]);
$t->row('reset: no answer came (VS-RETRY-22)',
    file => 'retry reset attempts=2 backoff=1ms;', route => policy('reset', 2),
    backend => in_turn('close', 200),
    ask => [['GET', '/', {status => 200, tries => 2}]]);
$t->row('a gRPC status in the head (VS-RETRY-31)',
    file => 'retry unavailable attempts=2 backoff=1ms;', route => policy('unavailable', 2),
    backend => in_turn([200, ['Content-Type' => 'application/grpc', 'grpc-status' => 14], ''],
        [200, ['Content-Type' => 'application/grpc', 'grpc-status' => 0], '']),
    ask => [['POST', '/p.S/M', {status => 200, head => qr/^grpc-status: 0\r$/mi, tries => 2},
        'Content-Type' => 'application/grpc']]);
$t->row('a body is sent again',
    file => 'retry 5xx attempts=2 backoff=1ms;', route => policy('5xx', 2),
    backend => do { my $n = 0; sub { [$n++ ? 200 : 500, [], "got $_[0]{body}"] } },
    ask => [['POST', '/', {status => 200, body => qr/\Agot (abc){100}\z/, tries => 2, options => {body => 'abc' x 100}}]]);
$t->row('a time-out for each try (VS-RETRY-2)',
    file => 'retry reset attempts=1 backoff=1ms per_try_timeout=300ms;',
    route => policy('reset', 1, per_try_timeout => '0.300s'),
    backend => in_turn(undef, 200),
    ask => [['GET', '/', {status => 200, tries => 2, took => 0.3}]]);
$t->row('a time-out for each try, exhausted (VS-RETRY-2)',
    file => 'retry reset attempts=1 backoff=1ms per_try_timeout=200ms;',
    route => policy('reset', 1, per_try_timeout => '0.200s'),
    backend => in_turn(undef),
    ask => [['GET', '/', {status => 504, tries => 2, took => 0.4}]]);
$t->row('no retry where none is asked for',
    file => 'proxy_next_upstream off;',
    backend => in_turn(500, 200),
    ask => [['GET', '/', {status => 500, tries => 1}]]);
$t->row('idempotent: not what may do harm twice',
    file => 'retry 5xx idempotent backoff=1ms;', route => policy('connect-failure', 2),
    backend => in_turn(500),
    ask => [['POST', '/', {status => 500, tries => 1, options => {body => 'x'}}]]);
# Budgets are the cluster's: what is beyond them isn't tried again (VS-RETRY-14, DR-CP-15).
sub limits { {circuit_breakers => {thresholds => [{@_}]}} }
sub budget { limits(retry_budget => {budget_percent => {value => $_[0]}, min_retry_concurrency => $_[1]}) }
for (
    ['no retry at all', 'retries=0', limits(max_retries => 0), 503, 1],
    ['one at a time', 'retries=1', limits(max_retries => 1), 200, 2],
    ['a budget of nothing', 'retry_budget=1% retry_budget_min=0', budget(1, 0), 503, 1],
    ['a budget has a least', 'retry_budget=1% retry_budget_min=1', budget(1, 1), 200, 2],
    ['a budget that is enough', 'retry_budget=100% retry_budget_min=0', budget(100, 0), 200, 2],
    ['a budget stands above the number', 'retries=0 retry_budget=100%',
        limits(max_retries => 0, retry_budget => {budget_percent => {value => 100}}), 200, 2],
) {
    my ($name, $file, $cluster, $status, $tries) = @$_;
    $t->row($name, file => 'retry 5xx attempts=1 backoff=1ms;', upstream => "circuit_breaker $file;",
        route => policy('5xx', 1), cluster => $cluster, backend => in_turn(503, 200),
        ask => [['GET', '/', {status => $status, tries => $tries}]]);
}

# Waits between tries: random ones below 100 ms, then 200, 200 (VS-RETRY-6). Of eight times three such waits the sum is
# below 500 ms in less than one of 10**9 runs.
$t->row('back-off', file => 'retry 5xx attempts=3 backoff=100ms,200ms;',
    route => policy('5xx', 3, retry_back_off => {base_interval => '0.100s', max_interval => '0.200s'}),
    backend => in_turn(503), ask => []);
$t->{after} = sub {
    my ($hd, $way) = @_;
    my $port = 'r' . $#{$t->{rows}};
    my $from = Time::HiRes::time();
    $hd->get('/', {port => $port}) for 1 .. 8;
    cmp_ok Time::HiRes::time() - $from, '>=', 0.5, "$way: back-off: 24 waits took some time";
};
$t->run;

for (
    ['retry sometimes;', qr/unknown condition or parameter "sometimes"; conditions are|conditions are 5xx/],
    ['retry 5xx attempts=0;', qr/attempts=N: 1 to 100/],
    ['retry 5xx backoff=0;', qr/BASE is at least 1ms/],
    ['retry status=600;', qr/100 to 599/],
    ['retry 5xx per_try_timeout=0;', qr/at least 1ms/],
) {
    my ($text, $want) = @$_;
    my $hd = Heddle->new(modules => ['retry'])->conf("http { server { listen 127.0.0.1:%%PORT_0%%;\n$text\n} }");
    my ($status, $out) = $hd->run('-t');
    isnt $status, 0, $text;
    like $out, qr/heddle\.conf:\d+: .*$want/, "$text: $out";
}
done_testing;
