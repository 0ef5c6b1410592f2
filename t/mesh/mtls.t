# mtls: strict turns away who has no verified identity, permissive lets in as nobody, and the
# parts of an identity are attributes (PeerAuthentication; MLABEL-16). By xDS the same is the
# listener's transport socket.

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['mtls'], tls => 1);

$t->row('strict', xds_verify => 'on',
    file => 'mtls strict;',
    ask => [
        ['GET', '/', {client => 'page', status => 200, tries => 1}],
        ['GET', '/', {client => 'nobody', turned_away => 1, tries => 0}],
    ]);
$t->row('permissive',
    file => 'mtls permissive;',
    ask => [
        ['GET', '/', {client => 'page', status => 200}],
        ['GET', '/', {client => 'nobody', status => 200}],
    ]);
$t->run;

# What only a file can say.
my $hd = Heddle->new(modules => ['mtls']);
my $ca = $hd->make_ca('root');
my $other = $hd->make_ca('other');
my $server = $ca->make_cert('server', spiffe => 'spiffe://cluster.local/ns/shop/sa/reviews');
my $page = $ca->make_cert('page', spiffe => 'spiffe://cluster.local/ns/shop/sa/page');
my $stranger = $other->make_cert('stranger', spiffe => 'spiffe://cluster.local/ns/shop/sa/page');
my $expired = $ca->make_cert('expired', spiffe => 'spiffe://cluster.local/ns/shop/sa/page', expired => 1);
$hd->conf(<<"EOC");
http {
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        server_name localhost;
        ssl_certificate $server->{chain};
        ssl_certificate_key $server->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client optional;
        mtls strict;
        add_header X-Peer "\$peer_trust_domain|\$peer_namespace|\$peer_service_account|\$connection_security_policy" always;
        location / { return 200 "in\\n"; }
        location /open { mtls off; return 200 "open\\n"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        server_name localhost;
        mtls strict;
        location / { return 200 "in\\n"; }
    }
}
stream {
    server { listen 127.0.0.1:%%PORT_2%%; mtls strict; proxy_pass 127.0.0.1:%%PORT_3%%; }
}
EOC
$hd->start;

sub by {
    my ($cert) = @_;
    return {tls => {ca => $ca->{cert}, ($cert ? (cert => $cert->{cert}, key => $cert->{key}) : ())}};
}

my $r = $hd->get('/', by($page));
is $r->status, 200, 'a verified peer is let in';
is $r->header('x-peer'), 'cluster.local|shop|page|mutual_tls', 'and its parts are known';
$r = $hd->get('/', by());
is $r->status, 403, 'nobody is not';
is $r->header('x-peer'), '|||none', 'and has no parts';
is $hd->get('/open', by())->status, 200, 'mtls off in a location';
for ([$stranger, 'of another root'], [$expired, 'expired']) {
    my ($cert, $what) = @$_;
    $r = eval { $hd->get('/', by($cert)) };
    ok !defined $r || $r->status =~ /^4/, "a certificate that is $what is no identity";
}
is $hd->get('/', {port => 1})->status, 403, 'plain text has no identity';
is $hd->raw("hello\n", 2), '', 'a conn of stream is closed';
done_testing;
