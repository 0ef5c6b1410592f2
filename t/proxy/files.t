#!/usr/bin/perl
# Files as answers: what t/interop/nginx/13-files can't compare. Large ones reach slow clients, TLS and
# HTTP/2 whole; nothing leads out of the root; times of `expires`; what is accepted without effect.
# Holds for nginx, too, but for what it says of Heddle: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use POSIX qw(mkfifo);
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('localhost', dns => 'localhost');
$hd->conf(<<'EOC');
http {
    open_file_cache max=100;
    open_file_cache_valid 30s;
    open_file_cache_min_uses 2;
    open_file_cache_errors on;
    output_buffers 2 32k;
    sendfile_max_chunk 1m;
    read_ahead 0;
    directio off;
    directio_alignment 512;
    aio off;
    msie_padding on;
    msie_refresh off;
    client_body_in_file_only off;
    client_body_in_single_buffer on;
    keepalive_disable none;
    connection_pool_size 512;
    request_pool_size 4k;
    postpone_output 1460;
    send_lowat 0;
    subrequest_output_buffer_size 8k;
    rewrite_log on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_1%% ssl http2;
        ssl_certificate certs/localhost.crt;
        ssl_certificate_key certs/localhost.key;
        root www;
        location /out/ { rewrite ^ /$arg_file break; }
        location /day/ { alias %%DIR%%/www/; expires 1d; }
        location /daily/ { alias %%DIR%%/www/; expires @15h30m; }
        location /var/ { alias %%DIR%%/www/; expires $arg_e; }
        location /owner/ { alias %%DIR%%/www/; disable_symlinks if_not_owner; }
        location /quiet/ { log_not_found off; }
        location /unset/ { if ($arg_a) { set $maybe 1; } return 200 "<$maybe>"; }
        location /unset/quiet { uninitialized_variable_warn off; return 200 "<$maybe>"; }
        location /name/ { server_name_in_redirect on; absolute_redirect on; return 301 /x; }
        location /old/ { autoindex on; autoindex_localtime on; alias %%DIR%%/www/; }
        location /whole/ { chunked_transfer_encoding off; alias %%DIR%%/www/; autoindex on; }
        server_name first.example;
    }
}
EOC
sub make {
    my ($name, $text) = @_;
    open my $f, '>:raw', "$hd->{dir}/www/$name" or die $!;
    print $f $text;
    close $f;
}
mkdir "$hd->{dir}/www";
my $large = join '', map { sprintf "%015d\n", $_ } 1 .. 131072; # 2 MB
make('large', $large);
make('small', "small\n");
make('cut', 'x' x 4000000);
mkfifo "$hd->{dir}/www/fifo", 0644 or die $!;
symlink "$hd->{dir}/www/small", "$hd->{dir}/www/link";
symlink '/etc/passwd', "$hd->{dir}/www/stranger";
chown 12345, 12345, "$hd->{dir}/www/stranger";
$hd->start;

ok $hd->get('/large')->body eq $large, 'a large file';
ok $hd->get('/large', {port => 1, tls => {ca => $ca->{cert}}})->body eq $large, 'over TLS';
my $url = 'https://localhost:' . $hd->port(1) . '/large';
my $h2 = $hd->curl('-s', '--http2', '--cacert', $ca->{cert}, '--resolve', 'localhost:' . $hd->port(1) . ':127.0.0.1', $url);
ok $h2 eq $large, 'over HTTP/2';

my $slow = $hd->connect(0);
$slow->send("GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=16-\r\n\r\n");
my $head = $slow->response_head;
is $hd->get('/small')->body, "small\n", 'others are served while a client is slow';
like $head->head, qr/^Content-Length: 2097136\r$/m, 'its range';
my $got = '';
$got = $slow->read_bytes(2097136);
ok $got eq substr($large, 16), 'and all of it, at last';

is $hd->get('/fifo')->status, 404, 'a FIFO is no file, and holds up nobody';
is $hd->get('/out/?file=small')->body, "small\n", 'a name from an argument';
if ($hd->is_heddle) { # nginx's does
    is $hd->get("/out/?file=$_")->status, 500, "doesn't lead out: $_" for '../error.log', 'x/../../error.log';
}
is $hd->get('/nothing')->status, 404, 'not there';
$hd->wait_log(qr{open\(\) "\S+/www/nothing" failed \(2: No such file});
is $hd->get('/quiet/nothing')->status, 404, 'not there, and not logged';
unlike $hd->file('error.log'), qr{quiet/nothing" failed}, 'log_not_found off';
is $hd->get('/link')->status . $hd->get('/owner/link')->status, 200200, 'a link of the same owner';
is $hd->get('/owner/stranger')->status, 403, 'of another owner';

my $day = $hd->get('/day/small');
is $day->header('cache-control'), 'max-age=86400', 'expires 1d';
like $day->header('expires'), qr/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/, 'with the date';
like $hd->get('/daily/small')->header('expires'), qr/:30:00 GMT$/, 'expires at a time of day';
is $hd->get('/var/small?e=2h')->header('cache-control'), 'max-age=7200', 'expires by a variable';
is $hd->get('/var/small?e=off')->header('cache-control'), undef, 'which says off';
is $hd->get('/unset/x')->body, '<>', 'a variable without a value';
$hd->wait_log(qr/using uninitialized "maybe" variable/);
is $hd->get('/unset/quiet')->body, '<>', 'is empty';
$hd->wait_log(qr{\[notice\].* "\^" matches "/out/"});
is $hd->get('/name/')->header('location'), 'http://first.example:' . $hd->port(0) . '/x', 'server_name_in_redirect';
like $hd->get('/old/')->body, qr{<a href="small">small</a> +\d\d-\w{3}-\d{4} \d\d:\d\d +6}, 'autoindex_localtime';
my $whole = $hd->get('/whole/', {keep => 1});
is $whole->header('transfer-encoding'), undef, 'chunked_transfer_encoding off';
like $whole->body, qr{</html>}, 'to the end of the connection';

if ($hd->is_heddle) { # nginx's is an alert
    my $cut = $hd->connect(0);
    $cut->send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    $cut->response_head;
    truncate "$hd->{dir}/www/cut", 10;
    cmp_ok length($cut->read_all), '<', 4000000, 'a file that becomes shorter while it is sent: the connection ends';
}
done_testing;
