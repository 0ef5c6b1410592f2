#!/usr/bin/perl
# Access logs by xDS: which requests a filter lets through, lines as JSON with the types of what
# stands in them, and what is refused with its reason.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::PP ();

plan skip_all => $Heddle::Xds::missing if $Heddle::Xds::missing;

my ($true, $false, $null) = (JSON::PP::true(), JSON::PP::false(), undef);
my $type = 'type.googleapis.com/';

sub file_log {
    my ($what, $filter) = @_;
    return {name => 'envoy.access_loggers.file', ($filter ? (filter => $filter) : ()),
        typed_config => {'@type' => "${type}envoy.extensions.access_loggers.file.v3.FileAccessLog", path => '/dev/stdout', %$what}};
}
sub text { my ($text) = @_; return {log_format => {text_format_source => {inline_string => $text}}} }
sub compare { my ($op, $value) = @_; return {comparison => {op => $op, value => {default_value => $value, runtime_key => 'none'}}} }
sub status { {status_code_filter => compare(@_)} }
sub duration { {duration_filter => compare(@_)} }
sub share { {runtime_filter => {runtime_key => 'none', percent_sampled => {numerator => $_[0], denominator => 'HUNDRED'}, @_[1 .. $#_]}} }
sub header { {header_filter => {header => {name => $_[0], @_[1 .. $#_]}}} }

# What is asked, in this order; how each ends: 200, 503 UF, 404 NR, gRPC's 14, gRPC's 0.
my @asked = ('/fine', '/refused', '/nowhere', '/rpc', '/rpc_fine');
my %all = (fine => 1, refused => 1, nowhere => 1, rpc => 1, rpc_fine => 1);

# By name: the filter, and whose lines are there.
my @filters = (
    [everything => undef, @asked],
    [errors => status(GE => 500), '/refused'],
    [good => status(EQ => 200), '/fine', '/rpc', '/rpc_fine'],
    [bad => status(NE => 200), '/refused', '/nowhere'],
    [low => status(LE => 404), '/fine', '/nowhere', '/rpc', '/rpc_fine'],
    [any_time => duration(GE => 0), @asked],
    [an_hour => duration(GE => 3600000)],
    [no_check => {not_health_check_filter => {}}, @asked],
    [traced => {traceable_filter => {}}],
    [none => share(0)],
    [each => share(100), @asked],
    [each_random => share(100, use_independent_randomness => $true), @asked],
    [said => header('x-say', string_match => {exact => 'yes'}), '/fine'],
    [unsaid => header('x-say', present_match => $true, invert_match => $true), @asked[1 .. 4]],
    [path => header(':path', string_match => {safe_regex => {regex => '/r.*'}}), '/refused', '/rpc', '/rpc_fine'],
    [flagged => {response_flag_filter => {}}, '/refused', '/nowhere', '/rpc'],
    [unconnected => {response_flag_filter => {flags => ['UF', 'LH']}}, '/refused', '/rpc'],
    [unavailable => {grpc_status_filter => {statuses => ['UNAVAILABLE']}}, '/refused', '/rpc'],
    [not_fine => {grpc_status_filter => {statuses => ['OK'], exclude => $true}}, '/fine', '/refused', '/nowhere', '/rpc'],
    [both => {and_filter => {filters => [status(GE => 400), {response_flag_filter => {flags => ['NR']}}]}}, '/nowhere'],
    [either => {or_filter => {filters => [status(EQ => 503), header('x-say', present_match => $true)]}}, '/fine', '/refused'],
    [nested => {or_filter => {filters => [status(EQ => 404),
        {and_filter => {filters => [status(EQ => 200), header('x-say', present_match => $true)]}}]}}, '/fine', '/nowhere'],
    [cel => {extension_filter => {name => 'cel', typed_config => {
        '@type' => "${type}envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression => 'true'}}}],
);

my %json = (
    path => '%REQ(:PATH)%', plain => '%REQ_WITHOUT_QUERY(:PATH)%', code => '%RESPONSE_CODE%', flags => '%RESPONSE_FLAGS%',
    long => '%RESPONSE_FLAGS_LONG%', mixed => '%RESPONSE_CODE% for %REQ(X-NONE)%', none => '%REQ(X-NONE)%', odd => '%REQ(X-ODD)%',
    sent => '%BYTES_SENT%', cut => '%RESPONSE_CODE:2%', grpc => '%GRPC_STATUS%', tries => '%UPSTREAM_REQUEST_ATTEMPT_COUNT%',
    "k\"ey\n" => 'text', number => 1.5, int => 7, yes => $true, nothing => $null,
    inner => {list => ['%PROTOCOL%', 2, {b => '%RESPONSE_CODE%'}], empty => {}},
);

# Operators with their arguments, for GET /json?a=b&q=1%202; and what comes out, as Envoy 1.40 has it.
my @formats = ('%PROTOCOL%', '%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ|%s|%6f|%%f)%', '%QUERY_PARAM(q)%', '%QUERY_PARAM(Q)%', '%PATH(WQ)%', '%PATH(NQ)%',
    '%PATH(NQ:ORIG)%', '%REQUEST_HEADER(x-none?x-some):3%', '%RESPONSE_HEADER(content-length)%', '%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%',
    '%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%', '%UPSTREAM_REMOTE_PORT%', '%ACCESS_LOG_TYPE%', '%DYNAMIC_METADATA(a:b)%', '%FILTER_STATE(x:PLAIN)%',
    '%VIRTUAL_CLUSTER_NAME%', '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%');

sub stream_log {
    my ($name, $text) = @_;
    return {name => "envoy.access_loggers.\L$name\E", typed_config => {'@type' => "${type}envoy.extensions.access_loggers.stream.v3.${name}AccessLog",
        defined $text ? (log_format => {text_format_source => {inline_string => "$text\n"}}) : ()}};
}

my $hd = Heddle->new(modules => ['access_log']);
my $xds = Heddle::Xds->new($hd, 'xds');
my @common = (route_config => Heddle::Xds::routes('all', ['/refused' => 'refused'], ['/rpc_fine' => 'back'],
    ['/rpc' => 'refused'], ['/fine' => 'back'], ['/json' => 'back'], ['/none' => 'refused']));
my $rest = 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog';
$xds->serve(
    CDS => [Heddle::Xds::cluster('back', $hd->port(1)), Heddle::Xds::cluster('refused', 9)],
    LDS => [
        Heddle::Xds::listener('filters', $hd->port(0), @common,
            access_log => [map { file_log(text("$_->[0] %REQ(:PATH)%\n"), $_->[1]) } @filters]),
        Heddle::Xds::listener('json', $hd->port(2), @common, access_log => [
            file_log({log_format => {json_format => {which => 'typed', %json}}}),
            file_log({log_format => {json_format => {which => 'omitted', %json}, omit_empty_values => $true}}),
            file_log({typed_json_format => {which => 'older', %json}}),
            file_log({json_format => {which => 'strings', %json}}),
            file_log(text("%RESPONSE_FLAGS_LONG% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% of %REQ(:PATH)%\n")),
        ]),
        Heddle::Xds::listener('untaken', $hd->port('untaken'), @common, chain => {filter_chain_match => {source_ports => [1]}}, listener => {
            access_log => [map { file_log(text("untaken $_->[0] %RESPONSE_FLAGS% %DOWNSTREAM_LOCAL_PORT% %BYTES_SENT%\n"), $_->[1]) }
                [any => undef], [nr => {response_flag_filter => {flags => ['NR']}}], [uf => {response_flag_filter => {flags => ['UF']}}]]}),
        Heddle::Xds::listener('taken', $hd->port('taken'), @common, listener => {access_log => [file_log(text("untaken by nobody\n"))]}),
        Heddle::Xds::listener('formats', $hd->port('formats'), @common, access_log => [stream_log('Stdout', join ' ', 'formats', @formats), stream_log('Stderr')]),
        map { Heddle::Xds::listener("wrong_$_->[0]", $hd->port("wrong_$_->[0]"), @common, access_log => [$_->[1]]) } wrong(),
    ],
)->start;

# What is refused, and why.
sub wrong {
    my $deep = status(EQ => 1);
    $deep = {and_filter => {filters => [$deep, status(EQ => 2)]}} for 1 .. 20;
    my $levels = 'x';
    $levels = {a => $levels} for 1 .. 20;
    return (
        [flag => file_log(text('x'), {response_flag_filter => {flags => ['XX']}}), qr/"XX" is no response flag/],
        [one => file_log(text('x'), {and_filter => {filters => [status(EQ => 200)]}}), qr/fewer than two filters/],
        [comparison => file_log(text('x'), {status_code_filter => {}}), qr/filter without comparison/],
        [deep => file_log(text('x'), $deep), qr/filters of more than 16 levels/],
        [levels => file_log({log_format => {json_format => $levels}}), qr/JSON format of more than 16 levels/],
        [operator => file_log({log_format => {json_format => {a => {b => '%NO_SUCH%'}}}}), qr/format operator %NO_SUCH% isn't known/],
        [regex => file_log(text('x'), header('a', string_match => {safe_regex => {regex => '('}})), qr/"filter "hcm"|regular expression/],
        [no_header => file_log(text('x'), {header_filter => {}}), qr/header filter without its header/],
    );
}

$hd->backend(1, sub {
    my ($req) = @_;
    return [200, ['Content-Type' => 'application/grpc', 'grpc-status' => 0], ''] if $req->{uri} eq '/rpc_fine';
    return 'fine';
});
$hd->conf(<<'EOC');
xds {
    server 127.0.0.1:%%PORT_xds%%;
    node_id sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local;
}
EOC
$hd->start;
$xds->wait_nack('LDS', qr/./);
for (wrong()) {
    my ($name, undef, $why) = @$_;
    my ($line) = eval { $hd->wait_for(sub { ($hd->log =~ /LDS "wrong_$name": (.*)/)[0] }, "the refusal of $name") };
    like $line // '', $why, "refused: $name";
}
$hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) && Heddle::Port::is_listening($hd->port(2)) }, 'listeners');

# ---- filters

my %more = ('/fine' => ['X-Say' => 'yes'], '/rpc' => ['Content-Type' => 'application/grpc'], '/rpc_fine' => ['Content-Type' => 'application/grpc']);
$hd->get($_, @{$more{$_} // []}) for @asked;
# All loggers write a request's line before the next one's: when the last is there all are.
$hd->wait_for(sub { $hd->file('output') =~ m{^everything /rpc_fine$}m && $hd->file('output') =~ m{^not_fine /rpc$}m }, 'the lines');
my $out = $hd->file('output');
for (@filters) {
    my ($name, undef, @want) = @$_;
    is join(' ', $out =~ m{^$name (/\S*)$}mg), join(' ', @want), "$name: " . (@want ? "@want" : 'nothing');
}
like $hd->log, qr/\[warn\].* an access log by xDS isn't written: its filter is of a kind that isn't known here/, 'told of CEL';

# ---- JSON

$hd->get('/json?a=b', {port => 2}, 'X-Odd' => "q\"\\\t\xff\xc3\xa9");
$hd->get('/none', {port => 2});
$hd->wait_for(sub { $hd->file('output') =~ m{ of /none$}m }, 'the lines');
my %lines;
for my $line (grep { /^\{/ } split /\n/, $hd->file('output')) {
    my $j = eval { JSON::PP->new->utf8->decode($line) };
    ok $j, 'JSON' or diag "$@: $line";
    $lines{$j->{which}}{$j->{path}} = [$j, $line];
}
my ($fine, $raw) = @{$lines{typed}{'/json?a=b'}};
my @keys = $raw =~ /^\{"code":200,"cut":"20","flags":"-","grpc":null,"inner":\{"empty":\{\},"list":\["HTTP\/1\.1",2,\{"b":200\}\]\},"int":7,"k\\"ey\\n":"text",/;
ok scalar(@keys), 'sorted, with their types' or diag $raw;
is $fine->{plain}, '/json', 'the path without its query';
is $fine->{odd}, "q\"\\\t\x{fffd}\x{e9}", 'what a client sends is a string all the same';
is $fine->{mixed}, '200 for -', 'text of several';
ok exists $fine->{none} && !defined $fine->{none}, 'nothing is null';
is $fine->{number}, 1.5, 'numbers stay';
like $raw, qr/"sent":4,/, 'figures are numbers';
like $raw, qr/"tries":1,/, 'all of them';
ok $fine->{yes}, 'true';
is_deeply $lines{older}{'/json?a=b'}[0], {%$fine, which => 'older'}, 'typed_json_format: the same';
my $bad = $lines{typed}{'/none'}[0];
is "$bad->{code} $bad->{flags} $bad->{long}", '503 UF UpstreamConnectionFailure', 'why it failed';
my $omitted = $lines{omitted}{'/json?a=b'}[0];
ok !(grep { exists $omitted->{$_} } qw(none nothing grpc)), 'omit_empty_values: what is null is left out';
is $omitted->{flags}, '-', 'no flags is a value, as in Envoy';
is $omitted->{mixed}, '200 for ', 'and nothing stands for nothing';
my $strings = $lines{strings}{'/json?a=b'}[1];
like $strings, qr/"code":"200".*"flags":"-".*"none":"-"/, 'json_format: all are strings';
like $hd->file('output'), qr/^UpstreamConnectionFailure 127\.0\.0\.1 @{[$hd->port(2)]} of \/none$/m, 'as text, too';

# ---- formats

my $h2 = Heddle::H2->new($hd->port('formats'));
$h2->request(1, '/json?a=b&q=1%202', fields => ['x-some' => 'value', 'x-forwarded-for' => '1.2.3.4']);
is $h2->response(1)->{status}, 200, 'over HTTP/2';
$hd->wait_for(sub { $hd->file('output') =~ /^formats /m }, 'its line');
my ($date, @told) = (split ' ', ($hd->file('output') =~ /^formats HTTP\/2 (.*)$/m)[0]);
my ($rfc, $seconds, $micro, $plain) = split /\|/, $date;
like $rfc, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'START_TIME with a format of its own';
cmp_ok abs(time - $seconds), '<', 3600, 'seconds since 1970';
is substr($micro, 0, 3), substr($rfc, 20, 3), 'as many digits of them as are asked for';
is $plain, '%f', 'a percent sign that is one';
is "@told", "1%202 - /json?a=b&q=1%202 /json - val 4 127.0.0.1 127.0.0.1 @{[$hd->port(1)]} DownstreamEnd - - - 1.2.3.4", 'the others';
$hd->wait_for(sub { $hd->file('output') =~ m{^\[\S+\] "GET /json\?a=b&q=1%202 HTTP/2" 200 - 0 4 \d+ \d+ "1\.2\.3\.4"}m }, "Envoy's own format on standard error");

# ---- a listener's own log: of conns that no chain takes

is $hd->get('/fine', {port => 'taken'})->status, 200, 'a conn that a chain takes';
is $hd->connect('untaken')->read_all, '', 'one that none does';
$hd->wait_for(sub { $hd->file('output') =~ /^untaken nr /m }, 'its line');
is join(' | ', $hd->file('output') =~ /^untaken (.*)$/mg), join(' | ', map { "$_ NR @{[$hd->port('untaken')]} 0" } 'any', 'nr'), 'it is told of, and filters hold';
$hd->stop;
done_testing;
