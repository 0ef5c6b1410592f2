#!/usr/bin/perl
# ssl_certificate with variables: the server name chooses files, read in the handshake by a worker; what is
# wrong with one ends that handshake alone; no client's word leads out of where names point; what may be
# resumed stays with its certificate; ssl_certificate_cache (ngx_http_ssl_module; RFC 6066 §3).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use File::Copy qw(copy);
use Heddle;

my $hd = Heddle->new;
my $ca = $hd->make_ca('root');
my $dir = $hd->dir;
mkdir "$dir/by-name" or die $!;
sub text { my ($path) = @_; open my $f, '<', $path or die "$path: $!"; local $/; return scalar <$f> }
my $serial = 0;
sub install {
    my ($name, $cn) = @_;
    my $c = $ca->make_cert('c' . $serial++, cn => $cn // $name, dns => $name);
    for (['cert', 'crt'], ['key', 'key']) {
        my ($what, $end) = @$_;
        copy($c->{$what}, "$dir/by-name/$name.$end.new") or die $!;
        rename "$dir/by-name/$name.$end.new", "$dir/by-name/$name.$end" or die $!;
    }
    return $c;
}
install($_) for qw(a.test b.test c.test);
my $fixed = $ca->make_cert('fixed', cn => 'fixed');
my $client = $ca->make_cert('client', cn => 'ann');
my $locked = install('locked.test');
system("openssl pkey -in $locked->{key} -aes128 -passout pass:second -out $dir/by-name/locked.test.key") == 0 or die;
$hd->write('words', "first\nsecond\n");
# A certificate beside the directory, that a name with ".." or '/' would reach.
copy($fixed->{cert}, "$dir/out.crt") or die $!;
copy($fixed->{key}, "$dir/out.key") or die $!;
mkdir "$dir/by-name/sub" or die $!;
copy($fixed->{cert}, "$dir/by-name/sub/in.crt") or die $!;
copy($fixed->{key}, "$dir/by-name/sub/in.key") or die $!;
system("mkfifo $dir/by-name/fifo.test.crt") == 0 or die;
copy("$dir/by-name/b.test.key", "$dir/by-name/mixed.test.key") or die $!;
copy("$dir/by-name/a.test.crt", "$dir/by-name/mixed.test.crt") or die $!;

my $by_name = "ssl_certificate $dir/by-name/\$ssl_server_name.crt; ssl_certificate_key $dir/by-name/\$ssl_server_name.key;";
my ($data_cert, $data_key) = map { text($fixed->{$_}) } qw(cert key);
$hd->conf(<<"EOC");
http {
    access_log off;
    map \$ssl_server_name \$pair {
        default none;
        ~^(?<first>[a-z]+)\\.mapped\$ by-name/\$first.test;
        up.mapped ../up;
        text.mapped text;
    }
    map \$pair \$pair_cert { text "data:$data_cert"; default $dir/\$pair.crt; }
    map \$pair \$pair_key { text "data:$data_key"; default $dir/\$pair.key; }
    server {
        listen 127.0.0.1:%%PORT_0%% ssl;
        $by_name
        ssl_password_file $dir/words;
        return 200 "\$ssl_server_name [\$first] \$ssl_session_reused\\n";
    }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl;
        ssl_certificate \$pair_cert;
        ssl_certificate_key \$pair_key;
        location ~ ^/(.*)\$ { return 200 "\$ssl_server_name [\$1] \$ssl_session_reused\\n"; }
    }
    server {
        listen 127.0.0.1:%%PORT_2%% ssl;
        $by_name
        ssl_certificate_cache max=2 inactive=1h valid=1h;
        return 200 "kept";
    }
    server {
        listen 127.0.0.1:%%PORT_3%% ssl;
        $by_name
        ssl_certificate_cache max=20 inactive=1h valid=0;
        return 200 "looked at";
    }
    server {
        listen 127.0.0.1:%%PORT_4%% ssl;
        $by_name
        ssl_verify_client on;
        ssl_client_certificate $ca->{cert};
        return 200 "\$ssl_client_verify \$ssl_session_reused\\n";
    }
}
stream {
    map \$ssl_server_name \$which { b.test b.test; default a.test; }
    server {
        listen 127.0.0.1:%%PORT_5%% ssl;
        ssl_certificate $dir/by-name/\$which.crt;
        ssl_certificate_key $dir/by-name/\$which.key;
        return "stream \$ssl_server_name\\n";
    }
}
EOC
$hd->expect_log(qr/cannot load certificate|unsafe name of a certificate|no name of a host|server name is damaged|private key/);
$hd->start;

sub s_client {
    my ($n, @args) = @_;
    my $port = $hd->port($n);
    return `printf 'GET /x HTTP/1.0\\r\\n\\r\\n' | timeout 30 openssl s_client -connect 127.0.0.1:$port -ign_eof @args 2>&1`;
}
sub served_by { my ($n, $name, @args) = @_; return s_client($n, '-servername', "'$name'", @args) =~ /subject=.*CN = (\S+)/ ? $1 : 'nobody' }
sub errors { my ($re) = @_; return scalar(() = $hd->file('error.log') =~ /$re/g) }
my $log = sub { my ($re, $what) = @_; $hd->wait_for(sub { errors($re) }, $what); pass $what };

is served_by(0, 'a.test', $_), 'a.test', "by name, $_" for '-tls1_2', '-tls1_3';
is served_by(0, 'b.test'), 'b.test', 'another one';
is served_by(0, 'B.Test'), 'b.test', 'in small letters';
is served_by(0, 'b.test', '-groups P-384:X25519'), 'b.test', 'after a second hello';
is served_by(0, 'locked.test'), 'locked.test', 'ssl_password_file';
like s_client(0, '-servername a.test'), qr/^a\.test \[\] \./m, 'and the request is served';

# One handshake fails alone, by a line that names the file.
is served_by(0, 'none.test'), 'nobody', 'no such file';
$log->(qr{\[error\] .*cannot load certificate "\Q$dir\E/by-name/none\.test\.crt": No such file}, 'named in the log');
is served_by(0, 'fifo.test'), 'nobody', 'a pipe is not waited for';
is served_by(0, 'mixed.test'), 'nobody', 'a key of another certificate';
$log->(qr/mixed\.test\.crt" with key "\S+mixed\.test\.key": the private key doesn't belong/, 'said so');
SKIP: {
    skip 'workers keep their user without root', 1 if $> != 0;
    install('root.test');
    chmod 0600, "$dir/by-name/root.test.key" or die $!;
    is served_by(0, 'root.test'), 'nobody', 'a worker reads what its user may read';
}
is s_client(0, '-noservername') =~ /subject=/, '', 'no name, no file';
is served_by(0, 'a.test'), 'a.test', 'others go on';

# No way out.
for my $name ('../out', 'sub/in', 'sub//in', '..', '.', '.a.test', 'a..test', 'data:x', "a.test\\") {
    is served_by(0, $name), 'nobody', "not by $name";
}
is errors(qr/\[error\] .*no name of a host/), 9, 'none was looked for';

# By map, from captures; these are no request's.
is served_by(1, 'a.mapped'), 'a.test', 'a map with a regular expression';
like s_client(1, '-servername a.mapped'), qr/^a\.mapped \[x\] \./m, 'requests have groups of their own';
is served_by(1, 'text.mapped'), 'fixed', 'data:';
is served_by(1, 'up.mapped'), 'nobody', 'what a variable brings has no ..';
$log->(qr/unsafe name of a certificate/, 'said so');
is served_by(5, 'b.test'), 'b.test', 'in stream';
is served_by(5, 'z.test'), 'a.test', 'its default';

# Resumption stays with the certificate.
my $saved = 0;
sub save { my ($n, $name, @args) = @_; my $file = "$dir/session" . $saved++; s_client($n, "-servername $name -sess_out $file @args"); return $file }
sub reused { my ($n, $name, $file, @args) = @_; return s_client($n, "-servername $name -sess_in $file @args") =~ /^\S+ (?:\[\S*\] )?([r.])$/m ? $1 : '-' }
for my $v ('-tls1_2', '-tls1_3') {
    is reused(0, 'a.test', save(0, 'a.test', $v), $v), 'r', "resumed under its name, $v";
    is reused(0, 'b.test', save(0, 'a.test', $v), $v), '.', "not under another certificate's, $v";
    my @with = ('-cert', $client->{cert}, '-key', $client->{key});
    is reused(4, 'a.test', save(4, 'a.test', $v, @with), $v, @with), 'r', "verified, $v";
    is reused(4, 'b.test', save(4, 'a.test', $v, @with), $v, @with), '.', "verified for another, $v";
    my $file = save(0, 'c.test', $v);
    install('c.test', 'renewed');
    is served_by(0, 'c.test', $v), 'renewed', "no cache: read each time, $v";
    is reused(0, 'c.test', $file, $v), '.', "no session of the one before, $v";
}

# The cache: what was read stays ...
install('c.test', 'first');
is served_by(2, 'c.test'), 'first', 'read';
install('c.test', 'second');
is served_by(2, 'c.test'), 'first', 'valid: not read again';
is served_by(2, $_), $_, "max: $_ takes a place" for 'a.test', 'b.test';
is served_by(2, 'c.test'), 'second', 'so that this one was given up';
# ... unless the files were seen to have changed.
is served_by(3, 'c.test'), 'second', 'read';
install('c.test', 'third');
is served_by(3, 'c.test'), 'third', 'read anew, since it has changed';
unlink "$dir/by-name/c.test.crt";
is served_by(3, 'c.test'), 'nobody', 'gone is gone';
$hd->stop;

sub refused {
    my ($line, $why, $what) = @_;
    my (undef, $text) = Heddle->new->conf("http {\nserver {\nlisten 127.0.0.1:%%PORT_0%% ssl;\n$line\nreturn 200;\n}\n}\n")->run('-t');
    like $text, $why, $what;
}
refused('ssl_certificate /x/$host.pem; ssl_certificate_key y;', qr/:9: .*"\$host" in the name of a certificate: it is of a request/, 'a variable of requests');
refused('ssl_certificate /x/$nothing.pem; ssl_certificate_key y;', qr/:9: .*unknown "nothing" variable/, 'a variable that there is not');
my $good = "ssl_certificate $fixed->{cert}; ssl_certificate_key $fixed->{key};";
refused("$good\nssl_certificate_cache inactive=10s;", qr/:10: .*must have the "max" parameter/, 'no max');
refused("$good\nssl_certificate_cache max=0;", qr/:10: .*invalid parameter "max=0": off, or max=N/, 'max=0');
refused("$good\nssl_certificate_cache max=1 valid=x;", qr/:10: .*invalid parameter "valid=x"/, 'no time');
done_testing;
