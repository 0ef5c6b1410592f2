# authz: each policy refuses and lets in the same, from a file and by xDS (AP-EVAL, AP-FROM,
# AP-TO, AP-WHEN).

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['authz'], tls => 1);

my %action = (ALLOW => 'ALLOW', DENY => 'DENY');

# Policies as istiod writes them: [NAME, permission, principal].
sub rbac {
    my ($action, @policies) = @_;
    my %map = map { $_->[0] => {permissions => [$_->[1]], principals => [$_->[2]]} } @policies;
    return {
        name => 'envoy.filters.http.rbac',
        typed_config => {
            '@type' => 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC',
            rules => {action => $action, policies => \%map},
        },
    };
}

my $any = {any => JSON::XS::true()};
sub principal { {authenticated => {principal_name => {@_}}} }
sub method { {header => {name => ':method', string_match => {exact => $_[0]}}} }
sub path { {url_path => {path => {@_}}} }
sub cidr { {address_prefix => $_[0], prefix_len => $_[1]} }
sub not_id { {not_id => $_[0]} }

my %let_in = (status => 200, tries => 1);
my %refused = (
    status => 403, tries => 0, body => qr/\ARBAC: access denied\z/, head => qr/^content-length: 19\r$/mi,
);

$t->row('deny by path, normalised first (SECX-2)',
    file => 'authz deny policy=no-admin path=/admin*;',
    xds => [rbac('DENY', ['no-admin', path(prefix => '/admin'), $any])],
    ask => [
        ['GET', '/public', {%let_in}],
        ['GET', '/admin', {%refused}],
        ['GET', '/x/../admin/y', {%refused}],
        ['GET', '/%61dmin', {%refused}],
        ['GET', '/admin/../public', {%let_in}],
        ['GET', '/Admin', {%let_in}],
        ['GET', '/public?x=/admin', {%let_in}],
    ]);
# A route's settings replace those of the filter, which may have none. What stands under rbac
# is the filter's own message.
sub per_route {
    my (@rbac) = @_;
    delete $_->{typed_config}{'@type'} for @rbac;
    return {typed_per_filter_config => {'envoy.filters.http.rbac' => {
        '@type' => 'type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute',
        map { (rbac => $_->{typed_config}) } @rbac,
    }}};
}
my $empty = rbac('DENY');
delete $empty->{typed_config}{rules};

$t->row('a route has rules, the filter none',
    file => 'authz deny policy=no-admin path=/admin*;',
    xds => [$empty],
    route => per_route(rbac('DENY', ['no-admin', path(prefix => '/admin'), $any])),
    ask => [['GET', '/public', {%let_in}], ['GET', '/admin', {%refused}]]);
$t->row('a virtual host has rules instead of the filter\'s',
    server => 'authz deny path=/admin*;',
    file => 'authz deny path=/public;',
    xds => [rbac('DENY', ['no-admin', path(prefix => '/admin'), $any])],
    vhost => per_route(rbac('DENY', ['no-public', path(exact => '/public'), $any])),
    ask => [['GET', '/public', {%refused}], ['GET', '/admin', {%let_in}]]);
$t->row('a route lets in whom the filter refuses',
    server => 'authz deny path=/admin*;',
    file => 'authz off;',
    xds => [rbac('DENY', ['no-admin', path(prefix => '/admin'), $any])],
    route => per_route(),
    ask => [['GET', '/admin', {%let_in}]]);
$t->row('allow: something must match (AP-EVAL-1)',
    file => 'authz allow policy=get method=GET; authz allow policy=head method=HEAD path=/h;',
    xds => [rbac('ALLOW', ['get', method('GET'), $any],
        ['head', {and_rules => {rules => [method('HEAD'), path(exact => '/h')]}}, $any])],
    ask => [
        ['GET', '/', {%let_in}],
        ['POST', '/', {%refused}],
        ['HEAD', '/h', {%let_in}],
        ['HEAD', '/', {%refused, body => undef}],
    ]);
$t->row('deny goes before allow',
    file => 'authz allow method=GET; authz deny policy=no path=/no;',
    xds => [rbac('DENY', ['no', path(exact => '/no'), $any]), rbac('ALLOW', ['get', method('GET'), $any])],
    ask => [['GET', '/', {%let_in}], ['GET', '/no', {%refused}], ['PUT', '/', {%refused}]]);
$t->row('principal (AP-FROM-1)',
    file => 'authz allow principal=cluster.local/ns/shop/sa/page;',
    xds => [rbac('ALLOW', ['p', $any, principal(exact => 'spiffe://cluster.local/ns/shop/sa/page')])],
    ask => [
        ['GET', '/', {%let_in, client => 'page'}],
        ['GET', '/', {%refused, client => 'admin'}],
        ['GET', '/', {%refused, client => 'nobody'}],
        ['GET', '/', {%refused}, 'X-Forwarded-Client-Cert' => 'URI=spiffe://cluster.local/ns/shop/sa/page'],
    ]);
$t->row('namespace (AP-FROM-3, SECX-1)',
    file => 'authz allow namespace=shop;',
    xds => [rbac('ALLOW', ['p', $any, principal(safe_regex => {regex => '.*/ns/shop/.*'})])],
    ask => [
        ['GET', '/', {%let_in, client => 'page'}],
        ['GET', '/', {%refused, client => 'admin'}],
        ['GET', '/', {%refused, client => 'nobody'}],
    ]);
$t->row('notNamespaces in DENY meets plaintext callers, too (AP-FROM-15)',
    file => 'authz deny policy=outsiders not_namespace=shop;',
    xds => [rbac('DENY', ['outsiders', $any, not_id(principal(safe_regex => {regex => '.*/ns/shop/.*'}))])],
    ask => [
        ['GET', '/', {%let_in, client => 'page'}],
        ['GET', '/', {%refused, client => 'admin'}],
        ['GET', '/', {%refused, client => 'nobody'}],
    ]);
$t->row('service account (AP-FROM-4, AP-FROM-10)',
    file => 'authz allow service_account=shop/page;',
    xds => [rbac('ALLOW', ['p', $any,
        principal(safe_regex => {regex => 'spiffe://.+/ns/shop/(.+/|)sa/page(/.+)?'})])],
    ask => [
        ['GET', '/', {%let_in, client => 'page'}],
        ['GET', '/', {%refused, client => 'admin'}],
    ]);
$t->row('trust domain (AP-FROM-7, AP-FROM-11)',
    file => 'authz deny policy=td trust_domain=other.org;',
    xds => [rbac('DENY', ['td', $any, principal(prefix => 'spiffe://other.org/')])],
    ask => [
        ['GET', '/', {%let_in, client => 'page'}],
        ['GET', '/', {%refused, client => 'admin'}],
        ['GET', '/', {%let_in, client => 'nobody'}],
    ]);
$t->row('anyone with an identity (AP-FROM-8)',
    file => 'authz allow principal=*;',
    xds => [rbac('ALLOW', ['p', $any, principal(safe_regex => {regex => '.+'})])],
    ask => [
        ['GET', '/', {%let_in, client => 'admin'}],
        ['GET', '/', {%refused, client => 'nobody'}],
    ]);
$t->row('IP blocks (AP-FROM-5)', plain => 1,
    file => 'authz allow ip=127.0.0.1,127.7.0.0/16;',
    xds => [rbac('ALLOW', ['p', $any, {or_ids => {ids => [
        {direct_remote_ip => cidr('127.0.0.1', 32)}, {direct_remote_ip => cidr('127.7.0.0', 16)}]}}])],
    ask => [
        ['GET', '/', {%let_in}],
        ['GET', '/', {%let_in, options => {bind => '127.7.9.9'}}],
        ['GET', '/', {%refused, options => {bind => '127.8.0.1'}}],
        ['GET', '/', {%refused, options => {bind => '127.8.0.1'}}, 'X-Forwarded-For' => '127.0.0.1'],
    ]);
$t->row('host in any case (AP-TO-1)',
    file => 'authz allow host=shop.test,*.example.org;',
    xds => [rbac('ALLOW', ['h', {or_rules => {rules => [
        {header => {name => ':authority', string_match => {exact => 'shop.test', ignore_case => JSON::XS::true()}}},
        {header => {name => ':authority', string_match => {suffix => '.example.org', ignore_case => JSON::XS::true()}}},
        ]}}, $any])],
    ask => [
        ['GET', '/', {%let_in}, Host => 'Shop.Test'],
        ['GET', '/', {%let_in}, Host => 'a.EXAMPLE.org'],
        ['GET', '/', {%refused}, Host => 'example.org'],
        ['GET', '/', {%refused}, Host => 'shop.test:8080'],
    ]);
$t->row('header (AP-WHEN-1)',
    file => 'authz deny policy=test header=X-Env:test,dev;',
    xds => [rbac('DENY', ['test', $any, {or_ids => {ids => [
        {header => {name => 'x-env', string_match => {exact => 'test'}}},
        {header => {name => 'x-env', string_match => {exact => 'dev'}}}]}}])],
    ask => [
        ['GET', '/', {%let_in}],
        ['GET', '/', {%refused}, 'x-ENV' => 'dev'],
        ['GET', '/', {%let_in}, 'X-Env' => 'prod'],
    ]);
$t->row('path templates (AP-TO-5)',
    file => 'authz allow "path=/a/{*}/c,/b/{**}";',
    xds => [rbac('ALLOW', ['t', {or_rules => {rules => [map { +{uri_template => {
        name => 'uri-template',
        typed_config => {
            '@type' => 'type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig',
            path_template => $_,
        }}} } '/a/*/c', '/b/**']}}, $any])],
    ask => [
        ['GET', '/a/x/c', {%let_in}],
        ['GET', '/a/x/y/c', {%refused}],
        ['GET', '/b/x/y?q', {%let_in}],
        ['GET', '/b', {%refused}],
    ]);
$t->row('gRPC clients get status 7 (AP-EVAL-10)',
    file => 'authz deny policy=all;',
    xds => [rbac('DENY', ['all', $any, $any])],
    ask => [['POST', '/pkg.Service/Call', {status => 200, tries => 0,
        head => [qr/^grpc-status: 7\r$/m, qr/^grpc-message: RBAC: access denied\r$/m,
            qr{^content-type: application/grpc\r$}m]}, 'Content-Type' => 'application/grpc']]);
$t->run;
done_testing;
