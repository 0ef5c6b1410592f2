#!/usr/bin/perl
# client_body_in_file_only and $request_body_file: the body of a request lies in a file that the upstream can
# read, instead of the body it gets or beside it; `on`: it stays, `clean`: it goes with its request.
# Holds for nginx, too.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
events { worker_connections 256; }
http {
    log_format file '$uri $status "$request_body_file"';
    access_log %%DIR%%/file.log file;
    client_body_temp_path %%DIR%%/bodies;
    client_body_in_single_buffer on;
    client_max_body_size 4m;
    proxy_set_header X-File $request_body_file;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /on { client_body_in_file_only on; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /clean { client_body_in_file_only clean; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /apart {
            client_body_in_file_only clean;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-File $request_body_file;
            proxy_pass http://127.0.0.1:%%PORT_1%%;
        }
        location /other {
            client_body_in_file_only clean;
            proxy_set_body "see the file";
            proxy_pass http://127.0.0.1:%%PORT_1%%;
        }
        location /again {
            client_body_in_file_only clean;
            proxy_next_upstream http_503 non_idempotent;
            proxy_pass http://pair;
        }
        location /off { client_body_in_file_only off; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
    upstream pair { server 127.0.0.1:%%PORT_3%%; server 127.0.0.1:%%PORT_1%% backup; }
}
EOC
sub sum { my ($s) = @_; return length($s) . '-' . unpack '%32C*', $s }
sub slurp { my ($p) = @_; open my $f, '<:raw', $p or return 'no file'; local $/; return <$f> // '' }
$hd->backend(1, sub {
    my ($req) = @_;
    my $file = $req->header('X-File') // '';
    return join ' ', sum($req->{body}), $file eq '' ? 'none' : sum(slurp($file)), $file;
});
$hd->backend(3, sub { [503, {}, 'no'] });
$hd->start;
ok -d $hd->dir . '/bodies', 'the folder is there from the start';
is +(stat _)[4], (getpwnam 'nobody')[2], 'and the user\'s whose workers write there' if $> == 0 && !$ENV{HD_PROGRAM};

sub bytes { my ($n) = @_; return substr join('', map { pack 'N', $_ } 0 .. $n / 4 + 1), 0, $n }
my $upload = $hd->write('upload', '');
for my $n (1, 5000, 200_001, 600_000) {
    my $body = bytes($n);
    open my $f, '>:raw', $upload or die $!;
    print $f $body;
    close $f or die $!;
    for my $by ('length', 'chunks', 'HTTP/2') {
        my $ask = sub {
            my ($uri) = @_;
            my @how = $by eq 'chunks' ? ('-H', 'Transfer-Encoding: chunked', '--http1.1')
                : $by eq 'length' ? '--http1.1' : '--http2-prior-knowledge';
            my $out = $hd->curl('-sS', '-H', 'Expect:', @how, '--data-binary', "\@$upload",
                'http://127.0.0.1:' . $hd->port($by eq 'HTTP/2' ? 2 : 0) . $uri);
            return split ' ', $out;
        };
        my ($got, $file, $name) = $ask->('/on');
        is "$got $file", sum($body) . ' ' . sum($body), "$n bytes by $by: sent, and in a file";
        is sum(slurp($name)), sum($body), 'which stays';
        unlink $name or die "$name: $!";
        ($got, $file, $name) = $ask->('/clean');
        is "$got $file", sum($body) . ' ' . sum($body), 'clean: the same';
        $hd->wait_for(sub { !-e $name }, 'the file goes with its request');
        ($got, $file, $name) = $ask->('/apart');
        is "$got $file", sum('') . ' ' . sum($body), 'without the body: in the file alone';
        $hd->wait_for(sub { !-e $name }, 'and it goes');
        ($got, $file, $name) = $ask->('/other');
        is "$got $file", sum('see the file') . ' ' . sum($body), 'with another body';
        ($got, $file, $name) = $ask->('/again');
        is "$got $file", sum($body) . ' ' . sum($body), 'to the next server, too';
    }
}
is $hd->post('/off', 'small')->body, sum('small') . ' none ', 'off: none for what is small';
is $hd->get('/on')->body, sum('') . ' none ', 'nor for requests without a body';
$hd->wait_for(sub { $hd->file('file.log') =~ m{^/on 200 "-"$}m }, 'logged');
like $hd->file('file.log'), qr{^/clean 200 "\Q@{[$hd->dir]}\E/bodies/\S+"$}m, '$request_body_file in the log';

# a client that leaves in the middle
my $c = $hd->connect(0);
$c->send("POST /clean HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" . bytes(50_000));
$hd->wait_for(sub { glob $hd->dir . '/bodies/*' }, 'a file');
undef $c;
$hd->wait_for(sub { !glob $hd->dir . '/bodies/*' }, 'is gone with it');
pass 'no file is left';
done_testing;
