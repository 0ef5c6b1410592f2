#!/usr/bin/perl
# proxy_ssl_certificate with variables: each request's own certificate, no connection and no session made
# with one is used for another; an empty name shows none; a file that can't be read is our fault, not the
# upstream's (ngx_http_proxy_module, ngx_stream_proxy_module).
use strict;
use warnings;
use Test::More;
use File::Copy qw(copy);
use Heddle;
use Heddle::TlsFront;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $server = $ca->make_cert('server', dns => ['backend.test']);
my %who = map { $_ => $ca->make_cert($_, cn => $_) } qw(ann bob old new);
my $dir = $hd->dir;
sub install { my ($as, $c) = @_; copy($c->{cert}, "$dir/$as.crt") && copy($c->{key}, "$dir/$as.key") or die $! }
install($_, $who{$_}) for qw(ann bob);
install('eve', $who{old});
system("openssl pkey -in $who{bob}{key} -aes128 -passout pass:word -out $dir/bob.key") == 0 or die;
$hd->write('words', "word\n");

$hd->conf(<<"EOC");
http {
    upstream tls { server 127.0.0.1:%%PORT_2%% max_fails=1 fail_timeout=1h; keepalive 8; }
    map \$arg_who \$cert { "" ""; default $dir/\$arg_who.crt; }
    map \$arg_who \$key { "" ""; default $dir/\$arg_who.key; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        proxy_ssl_certificate \$cert;
        proxy_ssl_certificate_key \$key;
        proxy_ssl_password_file $dir/words;
        location / { proxy_pass https://tls; }
        location /kept {
            proxy_pass https://tls;
            proxy_ssl_certificate_cache max=10 inactive=1h valid=1h;
            keepalive_requests 1;
            proxy_http_version 1.0;
        }
        location /named {
            proxy_pass https://tls;
            proxy_ssl_name \$arg_name;
            proxy_ssl_server_name on;
            proxy_ssl_trusted_certificate @{[$ca->{cert}]};
            proxy_ssl_verify on;
        }
        location /anew { proxy_pass https://tls; proxy_http_version 1.0; }
    }
}
stream {
    map \$remote_addr \$me { default ann; }
    server {
        listen 127.0.0.1:%%PORT_3%%;
        proxy_pass 127.0.0.1:%%PORT_2%%;
        proxy_ssl on;
        proxy_ssl_certificate $dir/\$me.crt;
        proxy_ssl_certificate_key $dir/\$me.key;
    }
}
EOC
$hd->echo_server(1);
my $front = Heddle::TlsFront->start($hd, 2 => 1, cert => $server, client_ca => $ca);
$hd->expect_log(qr/verif|no name of the upstream|cannot load certificate|unsafe name of a certificate/);
$hd->start;

# Who the upstream saw, and on which of its connections.
sub ask {
    my ($path, %more) = @_;
    my $r = $hd->get($path, {%more});
    my ($who) = $r->body =~ /^X-Tls-Subject: .*CN ?= ?(\w+)/mi;
    my ($conn) = $r->body =~ /^X-Tls-Conn: (\d+)/mi;
    return ($r->status == 200 ? $who // 'nobody' : $r->status, $conn);
}

my ($ann, $first) = ask('/?who=ann');
is $ann, 'ann', "the request's certificate";
my ($bob, $second) = ask('/?who=bob');
is $bob, 'bob', 'another one, with a passphrase';
isnt $second, $first, 'on a connection of its own';
my ($none, $third) = ask('/');
is $none, 'nobody', 'an empty name: none is shown';
isnt $third, $_, 'on a third connection' for $first, $second;
is_deeply [ask('/?who=ann')], ['ann', $first], 'each is kept for its own';
is_deeply [ask('/?who=bob')], ['bob', $second], 'and for no other';

# New connections each time: sessions aren't mixed up either.
is +(ask("/anew?who=$_"))[0], $_, "$_ on a new connection" for qw(ann bob ann bob);
is +(ask('/anew'))[0], 'nobody', 'nobody on a new connection';

is +(ask('/?who=none'))[0], 500, 'no such file';
is +(ask("/?who=../certs/ann"))[0], 500, 'what a client says has no ..';
is +(ask('/anew?who=ann'))[0], 'ann', 'the upstream is not to blame';
like $hd->file('error.log'), qr{\Q$dir\E/none\.crt": No such file}, 'the file is named';

is +(ask('/kept?who=eve'))[0], 'old', 'read';
install('eve', $who{new});
is +(ask('/kept?who=eve'))[0], 'old', 'proxy_ssl_certificate_cache: not read again';
is +(ask('/anew?who=eve'))[0], 'new', 'without: read for each connection';

# proxy_ssl_name: who it must be is each request's to say; never nobody.
my $r = $hd->get('/named?name=backend.test:1');
like $r->body, qr/^X-Tls-Sni: backend\.test\r?$/m, 'proxy_ssl_name with variables, without its port';
is $hd->get("/named?$_")->status, 502, "not $_" for 'name=other.test', 'name=', '';
is $hd->get('/named?name=backend.test')->status, 200, 'each by its own';

is +(ask('/', port => 3))[0], 'ann', 'stream';
$hd->stop;
$front->stop;

my (undef, $text) = Heddle->new->conf(<<'EOC')->run('-t');
http { server { listen 127.0.0.1:%%PORT_0%%; location / {
proxy_ssl_certificate $nothing.crt; proxy_ssl_certificate_key x;
proxy_pass https://127.0.0.1:%%PORT_1%%;
} } }
EOC
like $text, qr/unknown "nothing" variable/, 'a variable that there is not';
done_testing;
