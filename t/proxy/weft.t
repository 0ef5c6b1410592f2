# Two Heddles over mutual TLS recognise each other by ALPN: the requests of one identity share
# one connection, in both directions, whatever their bodies and their speed; identities never
# share one, and who isn't a Heddle gets HTTP/1.1.

use strict;
use warnings;
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $server = $ca->make_cert('server', dns => ['backend.test']);
my %client = map { $_ => $ca->make_cert($_, spiffe => "spiffe://test/ns/a/sa/$_") } 'one', 'two';
my $tls = join "\n", map {
    "location /$_/ { proxy_pass https://other/; proxy_ssl_certificate $client{$_}{cert};"
        . " proxy_ssl_certificate_key $client{$_}{key}; }"
} sort keys %client;
my $conf = <<"EOC";
http {
    log_format one '\$uri \$status \$ssl_alpn_protocol \$connection \$upstream_status';
    upstream other { server 127.0.0.1:%%PORT_2%%; keepalive 8; }
    upstream back { server 127.0.0.1:%%PORT_1%%; keepalive 8; }
    proxy_ssl_name backend.test;
    proxy_ssl_trusted_certificate $ca->{cert};
    proxy_ssl_verify on;
    client_max_body_size 0;
    server { # the client's sidecar
        listen 127.0.0.1:%%PORT_0%%;
        $tls
        location /alone/ {
            proxy_pass https://other/;
            proxy_ssl_certificate $client{one}{cert};
            proxy_ssl_certificate_key $client{one}{key};
            proxy_multiplex off;
        }
        location ~ ^/as/(?<method>[A-Z]+)/ {
            proxy_pass https://other;
            proxy_ssl_certificate $client{one}{cert};
            proxy_ssl_certificate_key $client{one}{key};
            proxy_method \$method;
        }
        location /upgrade {
            proxy_pass https://other;
            proxy_ssl_certificate $client{one}{cert};
            proxy_ssl_certificate_key $client{one}{key};
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
    server { # the server's sidecar
        listen 127.0.0.1:%%PORT_2%% ssl;
        ssl_certificate $server->{cert};
        ssl_certificate_key $server->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client on;
        access_log %%DIR%%/server.log one;
        location / {
            proxy_pass http://back;
            proxy_set_header X-Alpn \$ssl_alpn_protocol;
            proxy_set_header X-Conn \$connection;
            proxy_set_header X-Subject \$ssl_client_s_dn;
            proxy_request_buffering off;
        }
        location = /upgrade {
            proxy_pass http://127.0.0.1:%%PORT_3%%;
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header X-Alpn \$ssl_alpn_protocol;
        }
        location = /refused { return 403 "no entry\\n"; }
    }
}
EOC
$hd->conf($conf);
$hd->backend(1, sub {
    my ($req) = @_;
    my $uri = $req->{uri};
    return {status => 204, headers => {}, body => ''} if $uri eq '/204';
    return {status => 200, headers => {}, body => 'x' x (4 << 20)} if $uri eq '/large';
    return {status => 200, headers => {}, body => 'late', after => 0.2} if $uri eq '/late';
    return {raw => "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n"
            . "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: yes\r\n\r\n"}
        if $uri eq '/trailers';
    return {raw => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", close => 1}
        if $uri eq '/cut';
    return {hang => 1} if $uri eq '/hang';
    return {raw => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"} if $uri eq '/head';
    return [200, {'X-Length' => length $req->{body}}, $req->{head}];
});
$hd->tcp_backend(3, sub {
    my ($sock) = @_;
    my $c = Heddle::Http->adopt($sock);
    my $head = $c->read_until(qr/\r\n\r\n/);
    my $alpn = $head =~ /^X-Alpn: ?(.*?)\r/mi ? $1 : '';
    $c->send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n"
        . "X-Alpn: $alpn\r\n\r\n");
    while (defined(my $line = $c->read_until(qr/\n/))) { $c->send("you said $line") }
});
$hd->start;

sub seen { my ($r) = @_; return {map { lc, ($r->body =~ /^X-$_: ?(.*?)\r?$/mi)[0] // '' } qw(Alpn Conn Subject)} }

my $first = seen(my $r = $hd->get('/one/a?b'));
is $r->status, 200, 'a request';
like $r->body, qr{^GET /a\?b HTTP/1\.1}, 'as it was';
is $first->{alpn}, 'heddle-weft/1', 'over a weft';
is seen($hd->get('/one/b'))->{conn}, $first->{conn}, 'another over the same connection';
my $two = seen($hd->get('/two/a'));
isnt $two->{conn}, $first->{conn}, 'another identity has another connection';
like $two->{subject}, qr/CN=two/, 'and is seen as itself';
like $first->{subject}, qr/CN=one/, 'as the first is';
my $alone = seen($hd->get('/alone/a'));
isnt $alone->{conn}, $first->{conn}, 'proxy_multiplex off';
is $alone->{alpn}, '', 'speaks HTTP/1.1';

# many at once
my @conns = map { my $c = $hd->connect(0); $c->send("GET /one/late HTTP/1.1\r\nHost: a\r\n\r\n"); $c } 1 .. 40;
is scalar(grep { $_->response->body eq 'late' } @conns), 40, '40 at once';
$hd->wait_for(sub { my @all = $hd->file('server.log') =~ m{^/late }mg; @all == 40 }, 'their log lines');
my %conn = map { $_ => 1 } $hd->file('server.log') =~ m{^/late 200 heddle-weft/1 (\d+) }mg;
is_deeply [keys %conn], [$first->{conn}], 'over the one connection';

# messages of every shape
is $hd->request('HEAD', '/one/a')->status, 200, 'HEAD';
is $hd->request('HEAD', '/one/head')->header('content-length'), undef, '... with no length that the upstream didn\'t say';
like $hd->get('/as/PUT/')->body, qr{^PUT /as/PUT/ HTTP/1\.1}, 'a method of ours';
is $hd->get('/as/HEAD/')->status, 200, 'HEAD for GET: no body is waited for';
is $hd->get('/one/204')->status, 204, 'no content';
is $hd->get('/one/refused')->body, "no entry\n", "the other's own answer";
is $hd->post('/one/p', 'x' x 1000)->header('x-length'), 1000, 'a body';
is $hd->post('/one/p', '')->header('x-length'), 0, 'an empty one';
my $c = $hd->connect(0);
$c->send("POST /one/p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    . "6\r\n world\r\n0\r\n\r\n");
is $c->response->header('x-length'), 11, 'chunks';
is $hd->post('/one/p', 'y' x (4 << 20))->header('x-length'), 4 << 20, '4 MB up';
is length $hd->get('/one/large')->body, 4 << 20, '4 MB down';
$c = $hd->connect(0);
$c->send("GET /one/trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
$r = $c->response;
is $r->status, 103, 'an interim response';
$r = $c->response;
is $r->body, 'abc', 'and the final one';
like $r->trailers, qr/^X-End: yes/mi, 'with trailers';
is $hd->get('/one/a', 'X-Long' => 'z' x 7000, 'X-Longer' => 'z' x 7900, 'X-Third' => 'z' x 7900)->status,
    200, 'a head longer than a block';

# one who doesn't read holds up nobody
my $slow = $hd->connect(0);
$slow->send("GET /one/large HTTP/1.1\r\nHost: a\r\n\r\n");
$slow->response_head;
is seen($hd->get('/one/a'))->{conn}, $first->{conn}, 'past a slow reader, on the same connection';
is length $hd->get('/one/large')->body, 4 << 20, 'large ones, too';
is length $slow->read_bytes(4 << 20), 4 << 20, 'who gets all of it in the end';

# what ends badly ends alone
$c = $hd->connect(0);
$c->send("GET /one/cut HTTP/1.1\r\nHost: a\r\n\r\n");
ok $c->response->is_cut, 'an upstream that stops in mid-body';
$c = $hd->connect(0);
$c->send("GET /one/hang HTTP/1.1\r\nHost: a\r\n\r\n");
$hd->wait_for(sub { grep { $_->{uri} eq '/hang' } $hd->requests(1) }, 'the request upstream');
$c->close;
$hd->wait_for(sub { $hd->file('server.log') =~ m{^/hang 499 }m }, 'the other Heddle to hear of it');
is seen($hd->get('/one/a'))->{conn}, $first->{conn}, 'the connection lives on';

# a tunnel has a connection of its own
$c = $hd->connect(0);
$c->send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
$r = $c->response_head;
like $r, qr/^HTTP\/1\.1 101 /, 'an upgrade';
like $r, qr/^X-Alpn: ?\r?$/mi, 'over HTTP/1.1';
$c->send("hi\n");
is $c->read_until(qr/\n/), "you said hi\n", 'and its bytes';
$c->close;

# other TLS settings at a reload: the link is given up without a loss
my @load = map { my $l = $hd->connect(0); $l->send("GET /one/late HTTP/1.1\r\nHost: a\r\n\r\n"); $l } 1 .. 10;
$hd->wait_for(sub { 50 == grep { $_->{uri} eq '/late' } $hd->requests(1) }, 'them upstream');
$conf =~ s/ssl_verify_client on;/ssl_verify_client on; ssl_verify_depth 2;/;
$hd->conf($conf);
ok $hd->reload, 'reload';
is scalar(grep { $_->response->body eq 'late' } @load), 10, 'those under way end well';
my $later = seen($hd->get('/one/a'));
isnt $later->{conn}, $first->{conn}, 'the next one has a new link';
is $later->{alpn}, 'heddle-weft/1', 'of the same kind';
$hd->stop;
done_testing;
