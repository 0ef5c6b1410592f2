# fault: delays and aborts, by a share, a header, a condition (VS-FAULT-1 to VS-FAULT-6).

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['fault']);

sub fault {
    return [{
        name => 'envoy.filters.http.fault',
        typed_config => {
            '@type' => 'type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault', @_,
        },
    }];
}

sub percent { {numerator => $_[0], denominator => 'HUNDRED'} }

$t->row('abort: the status, Envoy\'s words, nothing upstream (VS-FAULT-2, -4, -5)',
    file => 'fault abort=418;',
    xds => fault(abort => {http_status => 418, percentage => percent(100)}),
    ask => [['GET', '/', {status => 418, body => qr/\Afault filter abort\z/, tries => 0}]]);
$t->row('delay, then on (VS-FAULT-1)',
    file => 'fault delay=300ms;',
    xds => fault(delay => {fixed_delay => '0.300s', percentage => percent(100)}),
    ask => [['GET', '/', {status => 200, tries => 1, took => 0.3}]]);
$t->row('a delay first, then the abort (VS-FAULT-3)',
    file => 'fault delay=200ms; fault abort=503;',
    xds => fault(delay => {fixed_delay => '0.200s', percentage => percent(100)},
        abort => {http_status => 503, percentage => percent(100)}),
    ask => [['GET', '/', {status => 503, tries => 0, took => 0.2}]]);
$t->row('of 0 percent none',
    file => 'fault abort=500 percent=0; fault delay=1h percent=0;',
    xds => fault(delay => {fixed_delay => '3600s', percentage => percent(0)},
        abort => {http_status => 500, percentage => percent(0)}),
    ask => [map { ['GET', '/', {status => 200}] } 1 .. 5]);
$t->row('a share of requests',
    file => 'fault abort=500 percent=50;',
    xds => fault(abort => {http_status => 500, percentage => percent(50)}),
    ask => []);
$t->row('only some requests',
    file => 'fault abort=500 if=$http_x_test;',
    xds => fault(abort => {http_status => 500, percentage => percent(100)},
        headers => [{name => 'x-test', present_match => JSON::XS::true()}]),
    ask => [
        ['GET', '/', {status => 200}],
        ['GET', '/', {status => 500, tries => 0}, 'X-Test' => 'yes'],
    ]);
$t->row('gRPC (VS-FAULT-2, -5)',
    file => 'fault abort=grpc:UNAVAILABLE;',
    xds => fault(abort => {grpc_status => 14, percentage => percent(100)}),
    ask => [
        ['POST', '/p.S/M', {status => 200, tries => 0, head => [qr/^grpc-status: 14\r$/m, qr/^grpc-message: fault filter abort\r$/m]},
            'Content-Type' => 'application/grpc'],
        ['GET', '/', {status => 200, tries => 0, body => qr/\Afault filter abort\z/, no_head => qr/^grpc-status/m}],
    ]);

# Each outcome is there in 100 draws: never so by chance alone (2 in 2**100).
$t->{after} = sub {
    my ($hd, $way) = @_;
    my %n;
    $n{$hd->get('/', {port => 'r4'})->status}++ for 1 .. 100;
    ok $n{200} && $n{500} && $n{200} + $n{500} == 100, "$way: a share: " . join ', ', map { "$_ $n{$_}" } sort keys %n;
};
$t->run;

# What a file can say wrong.
for (
    ['fault;', qr/invalid number of arguments/],
    ['fault delay=1s abort=500;', qr/either delay=TIME or abort=STATUS/],
    ['fault abort=99;', qr/200 to 599/],
    ['fault abort=grpc:17;', qr/abort=grpc:17: a status of gRPC is 0 to 16, or its name/],
    ['fault abort=grpc:unavailable;', qr/as in grpc:UNAVAILABLE/],
    ['fault abort=500 percent=101;', qr/0 to 100/],
    ['fault abort=500 share=1;', qr/unknown parameter "share=1"; allowed are/],
    ['fault delay=0;', qr/1ms to 1h/],
) {
    my ($text, $want) = @$_;
    my $hd = Heddle->new(modules => ['fault'])->conf("http { server { listen 127.0.0.1:%%PORT_0%%;\n$text\n} }");
    my ($status, $out) = $hd->run('-t');
    isnt $status, 0, $text;
    like $out, qr/heddle\.conf:\d+: .*$want/, "$text: $out";
}
done_testing;
