# Mirroring by xDS (request_mirror_policies, VS-MIRROR-1 to VS-MIRROR-5) next to nginx's `mirror` of a file: the
# cluster of the second row gets the copies. What nginx's does in detail: t/proxy/subrequests.t.

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['mirror']);
my $body = 'a body ' x 5000;
my $copies = 0;

sub policy { my (%policy) = @_; return {route => {request_mirror_policies => [{cluster => 'row1', %policy}]}} }
my $copy = 'location = /copy { internal; proxy_pass http://row1$request_uri; proxy_set_header Host $http_host; }';

# The next copy, of which <want> is asked: ($copy, $way).
sub copied {
    my ($want) = @_;
    return sub {
        my (undef, $hd, $way) = @_;
        my $n = ++$t->{copies}{$way};
        my $got = $hd->wait_for(sub { my @r = $hd->requests('b1'); @r >= $n ? $r[$n - 1] : undef }, "copy $n");
        return $want->($got, $way);
    };
}

$t->row('a copy, fire and forget (VS-MIRROR-2)', file => 'mirror /copy;', server => $copy, route => policy(),
    ask => [
        ['GET', '/a?b=c', {status => 200, tries => 1, check => copied(sub {
            my ($c, $way) = @_;
            my $host = $way eq 'xds' ? qr/^host: localhost-shadow(:\d+)?\r$/mi : qr/^host: localhost/mi;
            return $c->{method} eq 'GET' && $c->{uri} eq '/a?b=c' && $c->{head} =~ $host && $c->{head} =~ /^x-test: yes\r$/mi;
        })}, 'X-Test' => 'yes'],
        ['POST', '/p', {status => 200, tries => 1, options => {body => $body}, check => copied(sub {
            my ($c) = @_;
            return $c->{method} eq 'POST' && $c->{body} eq $body;
        })}],
    ]);
$t->row('where the copies go', backend => sub { [503, {}, 'nobody reads this'] }, ask => []);
$t->row('Host as it is (VS-MIRROR-3)', file => 'mirror /copy;', server => $copy,
    route => policy(disable_shadow_host_suffix_append => JSON::XS::true()),
    ask => [['GET', '/h', {status => 200, check => copied(sub { $_[0]{head} =~ /^host: localhost(?::\d+)?\r$/mi })}]]);
$t->row('what the route changes is changed before (VS-MIRROR-5)',
    file => 'mirror /copy;', server => $copy =~ s/\$request_uri/\/new\$request_uri/r,
    route => {route => {prefix_rewrite => '/new/', request_mirror_policies => [{cluster => 'row1'}]}},
    ask => [['GET', '/r', {status => 200, check => copied(sub { $_[0]{uri} eq '/new/r' })}]]);
$t->row('none of 0 percent (VS-MIRROR-1)', file => 'mirror off;',
    route => policy(runtime_fraction => {default_value => {numerator => 0, denominator => 'HUNDRED'}}),
    ask => [map { ['GET', '/none', {status => 200, tries => 1}] } 1 .. 3]);
$t->{after} = sub {
    my ($hd, $way) = @_;
    ok !(grep { $_->{uri} eq '/none' } $hd->requests('b1')), "$way: no copy of what isn't mirrored";
};
$t->run;
done_testing;
