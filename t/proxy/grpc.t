#!/usr/bin/perl
# grpc_pass between genuine peers (grpcio): streams in both directions, over TLS, statuses of the server's
# and of our own, deadlines, another server after a failure.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::Grpc;
use Heddle::H2;

plan skip_all => $Heddle::Grpc::missing if !Heddle::Grpc::usable();

my $hd = Heddle->new;
my $root = $hd->make_ca('root');
my $cert = $root->make_cert('back', dns => 'back.test', rsa => 1);
my $trust = $root->{cert};
my $server = Heddle::Grpc->serve($hd->port(1));
my $secure = Heddle::Grpc->serve($hd->port(2), $cert->{cert}, $cert->{key});
$hd->conf(<<"EOC")->start;
http {
    upstream two { server 127.0.0.1:%%PORT_9%%; server 127.0.0.1:%%PORT_1%%; }
    log_format g '\$uri \$status \$sent_http_grpc_status';
    access_log %%DIR%%/access.log g;
    client_max_body_size 0;
    grpc_read_timeout 20s;
    grpc_send_timeout 20s;
    grpc_connect_timeout 5s;

    server { # plain
        listen 127.0.0.1:%%PORT_10%%;
        http2 on;
        location / { grpc_pass grpc://127.0.0.1:%%PORT_1%%; grpc_set_header X-Added by-proxy; }
        location /t.T/Wait { grpc_pass 127.0.0.1:%%PORT_1%%; grpc_timeout_header_max 300ms; }
        location /t.T/Fail { grpc_pass grpc://127.0.0.1:%%PORT_1%%; grpc_hide_header x-none; }
    }
    server { # TLS upstream
        listen 127.0.0.1:%%PORT_11%%;
        http2 on;
        location / {
            grpc_pass grpcs://127.0.0.1:%%PORT_2%%;
            grpc_ssl_verify on;
            grpc_ssl_name back.test;
            grpc_ssl_server_name on;
            grpc_ssl_trusted_certificate $trust;
        }
    }
    server { # failures
        listen 127.0.0.1:%%PORT_12%%;
        http2 on;
        location / { grpc_pass grpc://two; grpc_next_upstream error timeout; }
        location /t.T/Sum { grpc_pass grpc://127.0.0.1:%%PORT_9%%; }
        location /t.T/Count { grpc_pass grpc://127.0.0.1:%%PORT_9%%; error_page 502 = \@page; }
        location /t.T/Chat { grpc_pass grpc://127.0.0.1:%%PORT_9%%; error_page 504 = \@page; }
        location /t.T/Wait { grpc_pass grpc://127.0.0.1:%%PORT_1%%; grpc_read_timeout 200ms; }
        location \@page { default_type application/grpc; add_header grpc-status 8; add_header grpc-message full; return 204; }
    }
}
EOC

my $c = Heddle::Grpc->client($hd->port(10));
my $r = $c->call('Echo', messages => ['hello'], metadata => {'x-mine' => 'me'});
is_deeply [@$r{'code', 'messages'}], ['OK', [[5, 'hello']]], 'one to one';
is $r->{trailing}{'t-end'}, 'yes', 'trailers';
like $r->{trailing}{'t-got'} // '', qr/x-(mine=me|added=by-proxy)/, 'metadata';

$r = $c->call('Sum', messages => [map { "m$_" } 1 .. 50], size => 30_000);
is_deeply [@$r{'code', 'messages'}], ['OK', [[10, '50 1500000']]], 'many to one: 1.5 MB';
$r = $c->call('Count', messages => ['300 5000']);
is $r->{code}, 'OK', 'one to many';
is scalar @{$r->{messages}}, 300, 'all of 1.5 MB';
$r = $c->call('Chat', messages => ['a' .. 'j'], chat => 1);
is join('', map { $_->[1] } @{$r->{messages}}), 'abcdefghij', 'each message is answered before the next is sent';

$r = $c->call('Fail', messages => ['']);
is_deeply [@$r{'code', 'details'}], ['NOT_FOUND', 'none such: 50%'], "the server's status";
$r = $c->call('Nothing', messages => ['']);
is $r->{code}, 'UNIMPLEMENTED', 'of a method that it lacks';

$r = $c->call('Wait', messages => [''], timeout => 60);
is $r->{code}, 'DEADLINE_EXCEEDED', 'grpc_timeout_header_max: the deadline is kept here';
like $r->{details}, qr/grpc-timeout/, 'by us, before the client gave up';

$r = Heddle::Grpc->client($hd->port(11))->call('Chat', messages => ['over', 'TLS'], chat => 1);
is_deeply [@$r{'code', 'messages'}], ['OK', [[4, 'over'], [3, 'TLS']]], 'grpcs://';

$c = Heddle::Grpc->client($hd->port(12));
$r = $c->call('Echo', messages => ['again']) for 1 .. 2;
is $r->{code}, 'OK', 'grpc_next_upstream: another server';
$r = $c->call('Sum', messages => ['']);
is $r->{code}, 'UNAVAILABLE', 'no server: UNAVAILABLE';
$r = $c->call('Count', messages => ['1']);
is_deeply [@$r{'code', 'details'}], ['RESOURCE_EXHAUSTED', 'full'], "error_page's word comes first";
$r = $c->call('Wait', messages => ['']);
is $r->{code}, 'UNAVAILABLE', 'grpc_read_timeout: UNAVAILABLE';

# who doesn't speak gRPC gets HTTP's statuses
my $h = Heddle::H2->new($hd->port(12));
$h->request(1, '/t.T/Sum', method => 'POST', end => 1);
is $h->response(1)->{status}, 502, 'without gRPC: 502';

for my $row (
    ['grpc_pass http://127.0.0.1:1;', qr/grpc:/],
    ['grpc_pass grpc://127.0.0.1:1/path;', qr/without a path/],
    ['grpc_pass 127.0.0.1:1; grpc_timeout_header_max often;', qr/often/],
) {
    my ($status, $text) = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; location / { $row->[0] } } }")->run('-t');
    ok $status != 0 && $text =~ $row->[1] && $text =~ /heddle.conf:\d/, "refused: $row->[0]" or diag $text;
}
done_testing;
