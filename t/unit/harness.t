# The harness itself, with nginx in heddle's place: what it promises to notice, it notices.

use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::TlsFront;

my ($nginx) = grep { -x } '/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/bin/nginx';
plan skip_all => 'needs nginx' unless $nginx;

my $hd = Heddle->new(program => $nginx);
my $out;
my $ca = $hd->make_ca('root');
my $int = $ca->make_ca('intermediate');
my $server = $int->make_cert('server', spiffe => 'spiffe://cluster.local/ns/a/sa/b',
    dns => ['localhost']);
my $old = $ca->make_cert('old', expired => 1);
my $other = $hd->make_ca('other');

$hd->conf(<<"EOC");
http {
    access_log off;
    client_body_temp_path %%DIR%%/t1; proxy_temp_path %%DIR%%/t2;
    fastcgi_temp_path %%DIR%%/t3; uwsgi_temp_path %%DIR%%/t4; scgi_temp_path %%DIR%%/t5;
    upstream u { server 127.0.0.1:%%PORT_1%%; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /tcp { proxy_pass http://127.0.0.1:%%PORT_2%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%% ssl;
        ssl_certificate $server->{chain};
        ssl_certificate_key $server->{key};
        ssl_client_certificate $ca->{cert};
        ssl_verify_client optional;
        ssl_verify_depth 3;
        location / { return 200 "\$ssl_client_verify\\n"; }
    }
}
EOC

my $n = 0;
$hd->backend(1, sub {
    my ($req) = @_;
    $n++;
    return {reset => 1} if $req->{uri} eq '/reset';
    return {after => 0.01, status => 201, body => "late"} if $req->{uri} eq '/late';
    return {raw => "HTTP/1.1 200 OK\r\nX-Raw: 1\r\nContent-Length: 3\r\n\r\nraw"} if $req->{uri} eq '/raw';
    return [200, {'Transfer-Encoding' => 'chunked'}, $req->{body}] if $req->{method} eq 'POST';
    return "$n conn $req->{conn} request $req->{n}\n$req->{head}";
});
$hd->tcp_backend(2, sub {
    my ($sock) = @_;
    sysread $sock, my $buf, 4096;
    print $sock "HTTP/1.0 200 OK\r\n\r\nby hand";
});
$hd->start;

like $hd->get('/'), qr/^1 conn 1 request 1$/m, 'get';
like $hd->get('/', 'X-A' => 'b'), qr/^2 conn 1 request 2\n.*^X-A: b\r\n/ms, 'kept alive, fields';
is $hd->post('/echo', 'a body')->body, 'a body', 'post, chunked answer';
is $hd->get('/late')->status, 201, 'a late answer';
like $hd->get('/raw')->head, qr/^X-Raw: 1/m, 'raw bytes';
is $hd->get('/reset')->status, 502, 'a reset';
is $hd->get('/tcp')->body, 'by hand', 'a back end by hand';
is $hd->request('HEAD', '/')->body, '', 'HEAD';
my @got = $hd->requests(1);
is $got[1]->header('x-a'), 'b', 'requests are recorded';
is $got[2]{body}, 'a body', 'with their bodies';

my $c = $hd->connect(0);
$c->send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
is $c->response->status, 200, 'pipelined: first';
is $c->response->status, 201, 'second';
ok $c->is_eof, 'and the end';
$c->close;
like $hd->raw("nonsense\r\n\r\n"), qr/400 Bad Request/, 'raw';

my %tls = (ca => $ca->{cert}, sni => 'localhost');
is $hd->get('/', {port => 3, tls => \%tls})->body, "NONE\n", 'TLS, by way of an intermediate';
my $client = $ca->make_cert('client', spiffe => ['spiffe://a/b', 'spiffe://a/c']);
is $hd->get('/', {port => 3, tls => {%tls, %$client, ca => $ca->{cert}}})->body, "SUCCESS\n", 'a client certificate';
like $hd->get('/', {port => 3, tls => {%tls, cert => $old->{cert}, key => $old->{key}}}),
    qr/400/, 'an expired one';
is eval { $hd->get('/', {port => 3, tls => {ca => $other->{cert}}}) }, undef,
    'a server of another root';
$hd->echo_server(5);
my $front = Heddle::TlsFront->start($hd, 4 => 5, cert => $server, client_ca => $ca, alpn_h2 => 1);
$out = $hd->get('/', {port => 4, tls => {%tls, cert => $client->{cert}, key => $client->{key}}});
like $out, qr/^X-Tls-Verify: SUCCESS\r\n.*^X-Tls-Sni: localhost\r\n/ms, 'a back end with TLS';
$front->stop;
my $status;
($status, $out) = $hd->run('-t');
is $status, 0, 'run';
like $out, qr/syntax is ok/, 'its output';

my ($worker) = $hd->workers;
ok $worker, 'there is a worker';
ok $hd->reload, 'reload';
$hd->wait_for(sub { my @w = $hd->workers; @w == 1 && $w[0] != $worker }, 'the new worker');
$hd->stop;
is Heddle::Port::is_listening($hd->port(0)), 0, 'stopped';

# What must be noticed, in tests of their own.
sub run_inner {
    my ($body) = @_;
    my $file = $hd->write('inner.t', <<"EOT");
use strict; use warnings; use lib '$Heddle::top/t/lib'; use Test::More; use Heddle;
my \$hd = Heddle->new(program => '$nginx', orphan_s => 2)->conf(<<'EOC');
http {
    access_log off;
    client_body_temp_path %%DIR%%/t1; proxy_temp_path %%DIR%%/t2;
    fastcgi_temp_path %%DIR%%/t3; uwsgi_temp_path %%DIR%%/t4; scgi_temp_path %%DIR%%/t5;
    server { listen 127.0.0.1:%%PORT_0%%; return 200; }
}
EOC
\$hd->start;
$body
ok 1;
done_testing;
EOT
    my $text = `$^X $file 2>&1`;
    return ($? >> 8, $text);
}
# The inner one's macros are its own.
no warnings 'redefine';
local *Heddle::expand = sub { $_[1] };

($status, $out) = run_inner('');
is $status, 0, 'all is well';
($status, $out) = run_inner('kill 9, $hd->workers; $hd->wait_log(qr/exited on signal 9/);');
isnt $status, 0, 'a worker that died';
like $out, qr/in the log: .*exited on signal 9/, 'is told';
($status, $out) = run_inner(
    '$hd->expect_log(qr/exited on signal 9/); kill 9, $hd->workers; $hd->wait_log(qr/signal 9/);');
is $status, 0, 'unless it was expected';
($status, $out) = run_inner('$hd->expect_log(qr/exited on signal 9/);');
isnt $status, 0, 'and then it must have come';
($status, $out) = run_inner('kill 15, $hd->pid; $hd->wait_for(sub { $hd->_has_ended });');
isnt $status, 0, 'it ended by itself';
($status, $out) = run_inner(
    'open my $f, ">", $hd->dir . "/sanitizer.asan.1"; print $f "ERROR: AddressSanitizer\n"; close $f;');
isnt $status, 0, "a sanitizer's report";
($status, $out) = run_inner('my ($w) = $hd->workers; kill "STOP", $w; kill 9, $hd->pid;');
isnt $status, 0, 'a process left behind';
like $out, qr/left behind/, 'is told';

done_testing;
