#!/usr/bin/perl
# What is resumed, by whom and where: sessions by id in a cache that workers share, tickets by keys that they
# share, by keys of files that outlive a restart; and never across servers that verify clients in another way,
# other roots, or other certificates (ngx_http_ssl_module; RFC 8446 §4.6.1, RFC 5077).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(workers => 2);
my $ca = $hd->make_ca('root');
my $other = $hd->make_ca('other');
my $server = $ca->make_cert('server', dns => 'localhost');
my $server2 = $ca->make_cert('server2', dns => 'localhost');
my $client = $ca->make_cert('client', cn => 'ann');
my $dir = $hd->dir;
sub key { my ($name, $bytes) = @_; system("openssl rand -out $dir/$name $bytes") == 0 or die; "$dir/$name" }
my ($k80, $k48) = (key('k80', 80), key('k48', 48));

sub server {
    my ($n, $more, $cert) = @_;
    $cert //= $server;
    return <<"EOC";
    server {
        listen 127.0.0.1:%%PORT_$n%% ssl reuseport;
        ssl_certificate $cert->{cert};
        ssl_certificate_key $cert->{key};
        $more
        return 200 "\$pid \$ssl_session_reused \$ssl_client_verify\\n";
    }
EOC
}
my $ids = 'ssl_session_cache shared:S:1m; ssl_session_tickets off;';
my $verify = "ssl_verify_client optional; ssl_client_certificate $ca->{cert};";
my $conf = "http {\n" . join('',
    server('ids', $ids),
    server('ids_verify', "$ids $verify"),
    server('ids_others', "$ids ssl_verify_client optional; ssl_client_certificate $other->{cert};"),
    server('ids_cert', $ids, $server2),
    server('none', 'ssl_session_cache none; ssl_session_tickets off;'),
    server('made', ''),
    server('made_verify', $verify),
    server('key80', "ssl_session_ticket_key $k80;"),
    server('key48', "ssl_session_ticket_key $k48; ssl_session_ticket_key $k80;"),
    server('short', 'ssl_session_cache shared:S:1m; ssl_session_tickets off; ssl_session_timeout 1s;'),
) . "}\n";
$hd->conf($conf)->start;

# A session made on one server and offered to another: each (worker, reused or not, verified).
sub ask {
    my ($n, @args) = @_;
    my $port = $hd->port($n);
    my $text = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 30 openssl s_client -connect 127.0.0.1:$port -ign_eof @args 2>/dev/null`;
    return $text =~ /^(\d+) ([r.]) (\S+)/m ? ($1, $2, $3) : ();
}
my $saved = 0;
sub save { my ($n, @args) = @_; my $file = "$dir/session" . $saved++; my (undef, $was, $who) = ask($n, '-sess_out', $file, @args); return ($file, $was, $who) }
sub offer { my ($n, $file, @args) = @_; return ask($n, '-sess_in', $file, @args) }
my @with = ('-cert', $client->{cert}, '-key', $client->{key});

for my $v ('-tls1_2', '-tls1_3') {
    # Whichever worker it comes to: until both were seen.
    for my $n ('ids', 'made', 'key80', 'key48') {
        my (%pids, $all);
        my ($file) = save($n, $v);
        $hd->wait_for(sub {
            # TLS 1.3 may offer a session again where it was kept by id or its ticket
            my ($pid, $reused) = offer($n, $file, $v);
            $all .= $reused // '-';
            $pids{$pid // 'none'} = 1;
            keys %pids == 2;
        }, 'both workers');
        unlike $all, qr/[^r]/, "$n, $v: resumed by each worker";
    }
    my ($file) = save('none', $v);
    ok !-s $file, "none, $v";

    # Never across.
    for my $pair (['ids', 'ids_verify'], ['ids_verify', 'ids'], ['ids_verify', 'ids_others'], ['ids', 'ids_cert'],
        ['made', 'made_verify'], ['made_verify', 'made'], ['made', 'key80'], ['key80', 'made']) {
        my ($from, $to) = @$pair;
        my ($f) = save($from, $v, $from =~ /verify/ ? @with : ());
        my (undef, $r) = offer($to, $f, $v);
        is $r, '.', "from $from never to $to, $v";
    }
    # Verified once, verified when resumed.
    my ($f, $w, $who) = save('ids_verify', $v, @with);
    is $who, 'SUCCESS', 'verified';
    (undef, $w, $who) = offer('ids_verify', $f, $v);
    is "$w $who", 'r SUCCESS', "and resumed as that, $v";
    ($f, $w, $who) = save('made_verify', $v, @with);
    (undef, $w, $who) = offer('made_verify', $f, $v);
    is "$w $who", 'r SUCCESS', "by ticket as well, $v";
}

# Keys of files outlive the program, those made don't.
my ($by_file) = save('key80', '-tls1_3');
my ($by_made) = save('made', '-tls1_3');
$hd->stop;
$hd->start;
my (undef, $reused) = offer('key80', $by_file, '-tls1_3');
is $reused, 'r', 'a ticket by a key of a file, after a restart';
(undef, $reused) = offer('made', $by_made, '-tls1_3');
is $reused, '.', 'not one by a key that was made';

# Time is up.
my ($short) = save('short', '-tls1_2');
$hd->wait_for(sub { my (undef, $r) = offer('short', $short, '-tls1_2'); ($r // '') eq '.' }, 'the session to end');
pass 'ssl_session_timeout';
$hd->stop;

sub refused {
    my ($line, $why) = @_;
    my $bad = Heddle->new->conf("http {\n" . server(0, $line) . '}');
    my (undef, $text) = $bad->run('-t');
    like $text, $why, $line;
}
refused("ssl_session_ticket_key $server->{cert};", qr/must be 48 or 80 bytes/);
refused('ssl_session_cache shared:S:1k;', qr/too small: 32k/);
refused('ssl_session_cache shared:S;', qr/as in shared:SSL:10m/);
refused('ssl_session_cache shared:S:900m;', qr/no room for a session cache/);
done_testing;
