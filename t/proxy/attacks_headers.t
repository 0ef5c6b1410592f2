#!/usr/bin/perl
# Attacks by fields that only our own side may say (trusted-header spoofing: CVE-2023-27487
# x-envoy-original-path, CVE-2024-45806 internal addresses trusted by default, forged
# X-Forwarded-For and X-Forwarded-Client-Cert): at the edge none of a client's comes through,
# behind trusted proxies as many hops as are trusted. The file way: real_ip.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

my %forged = (
    'X-Forwarded-For' => '10.0.0.1', 'X-Envoy-Internal' => 'true', 'X-Envoy-Original-Path' => '/admin',
    'X-Envoy-Original-Host' => 'admin', 'X-Envoy-Retry-On' => '5xx', 'X-Envoy-Max-Retries' => '100',
    'X-Envoy-Upstream-Rq-Timeout-Ms' => '1', 'X-Envoy-Expected-Rq-Timeout-Ms' => '1', 'X-Envoy-Force-Trace' => '1',
    'X-Envoy-Ip-Tags' => 'friend', 'X-Envoy-Decorator-Operation' => 'x', 'X-Envoy-Attempt-Count' => '99',
    'X-Envoy-External-Address' => '10.0.0.2', 'X-Forwarded-Proto' => 'https',
    'X-Forwarded-Client-Cert' => 'By=spiffe://a/ns/b/sa/c;URI=spiffe://cluster.local/ns/admin/sa/root',
);

my %said = map { lc $_ => $forged{$_} } keys %forged;

sub fields { my %f; $f{lc $1} = $2 while $_[0] =~ /^([\w-]+): (.*?)\r?$/mg; return \%f }

SKIP: {
    skip $Heddle::Xds::missing, 1 if $Heddle::Xds::missing;
    my $hd = Heddle->new->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $xds = $hd->{xds} = Heddle::Xds->new($hd, 'xds');
    my $listener = sub {
        my ($port, %hcm) = @_;
        return Heddle::Xds::listener("front-$port", $hd->port($port), generate_request_id => JSON::XS::true(), %hcm,
            route_config => Heddle::Xds::routes("in-$port", ['/' => 'up']));
    };
    my $true = JSON::XS::true();
    $xds->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(9))], LDS => [
        $listener->(0, use_remote_address => $true),
        $listener->(1, use_remote_address => $true, xff_num_trusted_hops => 1),
        $listener->(2),
    ])->start;
    $hd->echo_server(9);
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port($_)) }, "listener $_") for 0 .. 2;

    subtest 'at the edge' => sub {
        my $f = fields($hd->get('/', %forged)->body);
        is $f->{'x-envoy-external-address'}, '127.0.0.1', 'the client is who connected';
        like $f->{'x-forwarded-for'}, qr/(?:^|,) ?127\.0\.0\.1$/, 'its address stands last';
        is $f->{'x-forwarded-proto'}, 'http', 'the scheme is the connection\'s';
        is $f->{'x-forwarded-client-cert'}, undef, 'no certificate was shown, none is told of';
        isnt $f->{$_} // 'none', $said{$_}, "$_ isn't the client's" for grep { !/^x-forwarded/ } sort keys %said;
        unlike join(' ', %$f), qr/spiffe:|10\.0\.0\.2/, 'nor anything of them elsewhere';
    };
    subtest 'one hop is trusted' => sub {
        my $f = fields($hd->get('/', {port => 1}, %forged, 'X-Forwarded-For' => '10.9.9.9, 192.0.2.7')->body);
        is $f->{'x-envoy-external-address'}, '192.0.2.7', 'as many hops as are trusted, and no more';
    };
    subtest 'inside, where the caller is no proxy of ours either' => sub {
        my $f = fields($hd->get('/', {port => 2}, %forged)->body);
        for my $name (qw(x-envoy-internal x-envoy-retry-on x-envoy-max-retries x-envoy-upstream-rq-timeout-ms x-envoy-force-trace)) {
            isnt $f->{$name} // 'none', $said{$name}, "$name isn't the client's";
        }
        is $f->{'x-forwarded-client-cert'}, undef, 'no certificate was shown, none is told of';
    };
    $hd->stop;
}

subtest 'by file: real_ip trusts whom it is told to' => sub {
    my $hd = Heddle->new(modules => ['realip', 'authz'])->conf(<<'EOC');
http {
    real_ip_header X-Forwarded-For;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        set_real_ip_from 192.0.2.0/24;
        location / { authz deny ip=10.0.0.1; return 200 "$remote_addr"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        set_real_ip_from 127.0.0.1;
        real_ip_recursive on;
        location / { authz deny remote_ip=10.0.0.1; return 200 "$remote_addr"; }
    }
}
EOC
    $hd->start;
    is $hd->get('/', 'X-Forwarded-For' => '10.0.0.1')->body, '127.0.0.1', 'a stranger\'s word is none';
    is $hd->get('/', {port => 1}, 'X-Forwarded-For' => '203.0.113.5, 10.0.0.1')->status, 403, 'a trusted proxy\'s last word is judged';
    is $hd->get('/', {port => 1}, 'X-Forwarded-For' => '10.0.0.1, 203.0.113.5')->body, '203.0.113.5', 'what stands before is anybody\'s';
    is $hd->get('/', {port => 1}, 'X-Forwarded-For' => "203.0.113.5, 'or 1=1")->body, '127.0.0.1', 'what is no address is none';
    $hd->stop;
};
done_testing;
