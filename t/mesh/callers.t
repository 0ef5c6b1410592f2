#!/usr/bin/perl
# Who may ask the control plane: proxies that show a token of their own, for their own identity. The file of tokens is
# followed as it changes; the control plane's log says who was refused, the proxy's why.
# Needs: nothing.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use JSON::PP;
use Heddle;

my $user = $> == 0 ? (getpwnam 'nobody')[2] : $>; # whom heddle's processes become
my %token = (page => 'token-of-the-page-1', reviews => 'token-of-reviews-1', other => 'token-of-another-1');

my $control = Heddle->new(log_level => 'notice');

sub secret {
    my ($hd, $name, $text) = @_;
    my $path = $hd->write($name, $text);
    chmod 0600, $path;
    chown $user, -1, $path;
}

sub tokens { secret($control, 'tokens', join '', map { "$token{$_} shop $_\n" } @_) }

mkdir $control->dir . "/$_" or die $! for 'mesh', 'ca';
chmod 0755, $control->dir . '/mesh';
chown $user, -1, $control->dir . '/ca';
$control->write('mesh/mesh.yaml', <<'EOY');
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: shop}
spec: {type: ClusterIP, clusterIP: 10.1.1.1, clusterIPs: [10.1.1.1], ports: [{name: http, port: 8000}]}
EOY
tokens('page', 'other');
$control->conf(<<'EOC')->start;
control {
    listen      127.0.0.1:%%PORT_control%%;
    config_dir  mesh;
    ca_dir      ca;
    tokens      tokens;
}
EOC

# A sidecar of <account> that shows <shown>'s token; undef: none.
sub sidecar {
    my ($account, $shown) = @_;
    my $hd = Heddle->new(log_level => 'notice');
    my $port = $control->port('control');
    $hd->write('node.json', encode_json({id => "sidecar~127.0.0.1~$account-1.shop~shop.svc.cluster.local", cluster => $account,
        metadata => {NAMESPACE => 'shop', SERVICE_ACCOUNT => $account, NAME => "$account-1", CLUSTER_ID => 'Kubernetes',
            INSTANCE_IPS => '127.0.0.1', INTERCEPTION_MODE => 'NONE', HTTP_PROXY_PORT => '' . $hd->port('proxy')}}));
    secret($hd, 'token', "$token{$shown}\n") if $shown;
    my $token = $shown ? 'token %%DIR%%/token;' : '';
    return $hd->conf("admin %%ADMIN%%;\nxds { server 127.0.0.1:$port; node %%DIR%%/node.json; $token }\n")->start;
}

sub is_live { my ($hd) = @_; return eval { $hd->admin('/ready')->status } == 200 }

# ---- a token of its own

my $page = sidecar('page', 'page');
$page->wait_for(sub { is_live($page) }, 'page to be served');
pass 'who shows a token of its own is served';
$control->wait_log(qr/\[notice\].* xds: sidecar~127\.0\.0\.1~page-1\.shop~\S+ connected/);

# ---- none, an unknown one, another's

for ([undef, 'Unauthenticated: a bearer token that the control plane knows', 'no token'],
    ['reviews', 'Unauthenticated: a bearer token that the control plane knows', 'one that nobody gave out'],
    ['other', 'the node claims another identity than its token has', 'that of another identity']) {
    my ($shown, $why, $what) = @$_;
    my $hd = sidecar('reviews', $shown);
    ok eval { $hd->wait_log(qr/xds: the stream to 127\.0\.0\.1 has ended \(.*$why/) }, "$what: the proxy is told why";
    ok !is_live($hd), 'and not served';
    $hd->stop;
}
ok eval { $control->wait_log(qr/\[warn\].* control: a call of \S+AggregatedResources from 127\.0\.0\.1:\d+ is refused: a bearer token that/) },
    "the control plane's log has who it was";

# ---- the file changes

my $reviews = sidecar('reviews', 'reviews');
$reviews->wait_log(qr/has ended \(/);
tokens('page', 'reviews');
ok eval { $reviews->wait_for(sub { is_live($reviews) }, 'the new token'); 1 }, 'a token that was added lets in at once';
$reviews->stop;
secret($control, 'tokens', "short shop page\n");
$reviews = sidecar('reviews', 'reviews');
ok eval { $reviews->wait_for(sub { is_live($reviews) }, 'the last good tokens'); 1 }, 'a broken file leaves the last good one in force';
ok eval { $control->wait_log(qr{\[error\].*/tokens:1: a token has at least 16 bytes; the last good tokens stay in force}) }, 'and is told';
$reviews->stop;
tokens('page');
$reviews = sidecar('reviews', 'reviews');
ok eval { $reviews->wait_log(qr/xds: the stream to 127\.0\.0\.1 has ended \(.*token/) }, 'one that was removed lets in no more';
ok !is_live($reviews), 'at all';
ok is_live($page), 'the other goes on';
$_->stop for $reviews, $page, $control;
done_testing;
