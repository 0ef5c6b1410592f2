#!/usr/bin/perl
# auth_basic, auth_basic_user_file (nginx: ngx_http_auth_basic_module; RFC 7617): every kind of password, files that
# change, satisfy, realms by variables, limit_except.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Digest::SHA qw(sha1);
use MIME::Base64 qw(encode_base64);
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    access_log off;
    set_real_ip_from 127.0.0.1;
    map $arg_realm $realm { default "by variable"; off off; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /files/ { auth_basic "closed site"; auth_basic_user_file %%DIR%%/users; proxy_pass http://127.0.0.1:%%PORT_1%%;
            location /files/open/ { auth_basic off; proxy_pass http://127.0.0.1:%%PORT_1%%; } }
        location /variable { auth_basic $realm; auth_basic_user_file %%DIR%%/$arg_file; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /any { satisfy any; allow 10.1.0.0/16; deny all; auth_basic "any"; auth_basic_user_file users; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /all { allow 10.1.0.0/16; deny all; auth_basic "all"; auth_basic_user_file users; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /methods { limit_except GET { auth_basic "writers"; auth_basic_user_file users; } proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /page { error_page 401 = @login; auth_basic "page"; auth_basic_user_file users; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location @login { return 200 "please log in"; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; return 200 "hello $remote_user"; }
}
EOC
my $secret = 'sesame, open';
my $openssl = sub { my ($how) = @_; my $out = `openssl passwd $how '$secret'`; chomp $out; return $out };
my %stored = (
    plain => "{PLAIN}$secret",
    sha => '{SHA}' . encode_base64(sha1($secret), ''),
    ssha => '{SSHA}' . encode_base64(sha1($secret . 'salt') . 'salt', ''),
    ssha_long => '{SSHA}' . encode_base64(sha1($secret . 'a longer salt') . 'a longer salt', ''),
    apr1 => $openssl->('-apr1 -salt abcdefgh'), apr1_short => $openssl->('-apr1 -salt xy'),
    md5 => $openssl->('-1'), sha256 => $openssl->('-5'), sha512 => $openssl->('-6'),
    des => crypt($secret, 'ab'), comment => "{PLAIN}$secret:of accounting",
);
my $text = "# those who may\n\n" . join '', map { "$_:$stored{$_}\n" } sort keys %stored;
$text .= "u*u:\$2a\$05\$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\nempty:\nnobody\n";
$hd->write('users', $text);
$hd->write('last', "last:{PLAIN}$secret");
$hd->start;

sub basic { 'Basic ' . encode_base64("$_[0]:$_[1]", '') }
sub ask { my ($uri, $user, $password, @more) = @_;
    return $hd->get($uri, (defined $user ? (Authorization => basic($user, $password)) : ()), @more) }

# ---- who may

is ask('/files/', $_, $secret)->body, "hello $_", $_ for sort keys %stored;
is ask('/files/', 'u*u', 'U*U')->body, 'hello u*u', 'bcrypt';
for my $user (sort keys %stored, 'u*u') {
    my $r = ask('/files/', $user, 'open sesame');
    is $r->status . $r->header('www-authenticate'), '401Basic realm="closed site"', "$user: wrong";
}
is ask('/files/', 'apr1', $_)->status, 401, 'again' for 'open sesame', '';
is ask('/files/', 'apr1', $secret)->status, 200, 'a right one after wrong ones';
is ask('/files/', 'last', $secret)->status, 401, 'nobody of that name';
is ask('/files/', $_, '')->status, 401, "$_: no password" for 'nobody';
my $r = ask('/files/');
is $r->status . $r->header('www-authenticate'), '401Basic realm="closed site"', 'no field';
is $hd->get('/files/', Authorization => $_)->status, 401, "\"$_\"" for 'Basic', 'Basic !!!', 'Basic ' . encode_base64('nocolon', ''), 'Bearer x';
is $hd->get('/files/', Authorization => 'BASIC ' . encode_base64("plain:$secret", ''))->status, 200, 'the scheme in any case';
is ask('/files/open/')->body, 'hello ', 'off: anybody';

# ---- realms and files

is ask('/variable?realm=off&file=users')->status, 200, 'a variable says off';
$r = ask('/variable?file=last', 'last', $secret);
is $r->body, 'hello last', 'a file by a variable; its last line needs no end';
is ask('/variable?file=last')->header('www-authenticate'), 'Basic realm="by variable"', 'a realm by a variable';
is ask('/variable?file=nowhere', 'plain', $secret)->status, 403, 'no such file';
ok $hd->wait_log(qr{open\(\) "[^"]*/nowhere" failed \(2: No such file or directory\)}), 'which the log tells';
$hd->write('users', $text . "late:{PLAIN}$secret\n");
is ask('/files/', 'late', $secret)->status, 200, 'a file that has changed';
$hd->write('users', $text);
is ask('/files/', 'late', $secret)->status, 401, 'and back';

# ---- with others

my @inside = ('X-Real-IP' => '10.1.2.3');
is ask('/any', undef, undef, @inside)->status, 200, 'satisfy any: by address';
is ask('/any', 'sha', $secret)->status, 200, 'or by password';
is ask('/any')->status, 401, 'or not at all';
is ask('/all', undef, undef, @inside)->status, 401, 'all: an address is not enough';
is ask('/all', 'sha', $secret)->status, 403, 'nor a password';
is ask('/all', 'sha', $secret, @inside)->status, 200, 'both are';
is ask('/methods')->status, 200, 'limit_except: GET is open';
is $hd->request('DELETE', '/methods')->status, 401, 'DELETE is not';
is $hd->request('DELETE', '/methods', Authorization => basic('des', $secret))->status, 200, 'but for who has a password';
is ask('/page')->body, 'please log in', 'error_page 401';
ok $hd->wait_log(qr/user "late" was not found in "/), 'the log: who was not found';
ok $hd->wait_log(qr/user "des": password mismatch, client: 127\.0\.0\.1, server: , request: "GET \/files\/ HTTP\/1\.1"/), 'whose password was wrong';

if ($hd->is_heddle) {
    $hd->write('users', "slow:\$2y\$14\$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"
        . "many:\$6\$rounds=500000\$salt\$x\nodd:{CRYPT}x\nyes:\$y\$j9T\$abc\$def\n");
    is ask('/files/', $_, $secret)->status, 500, "$_: neither right nor wrong" for qw(slow many odd yes);
    ok $hd->wait_log(qr/user "slow": its hash would hold a worker up/), 'and why';
    is ask('/files/', 'plain', "$secret\0x")->status, 401, 'a zero byte ends no password';
}
$hd->stop;
done_testing;
