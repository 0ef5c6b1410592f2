#!/usr/bin/perl
# A reload publishes only what changed: the rest stays, with what hangs on it: connections to
# upstreams, TLS sessions, companions.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use JSON::XS;
use Heddle;

my $hd = Heddle->new(workers => 1);
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('cert', dns => 'a.example');
my $other = $ca->make_cert('other', dns => 'a.example');

sub text {
    my (%with) = @_;
    my $answer = $with{answer} // 'same';
    my $c = $with{cert} // $cert;
    my $space = $with{space} // '';
    return <<"EOC";
admin %%ADMIN%%;
$space
log_format mine '\$remote_addr "\$request" \$status';
upstream_none on;
http {
    access_log %%DIR%%/access.log;
    map \$http_x_who \$who { default nobody; ~^a(?<rest>.*) \$rest; b bee; }
    upstream app { server 127.0.0.1:%%PORT_1%%; keepalive 4; }
    upstream front { server 127.0.0.1:%%PORT_3%%; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name a.example *.b.example ~^c\\d+\$;
        add_header X-Who \$who always;
        location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location ~ ^/re/(\\d+) { return 200 "number \$1"; }
        location = /answer { return 200 "$answer"; }
        error_page 404 /answer;
    }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        location / { proxy_pass https://front; proxy_http_version 1.1; proxy_set_header Connection "";
                     proxy_ssl_verify on; proxy_ssl_name a.example; proxy_ssl_trusted_certificate $ca->{cert}; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%% ssl;
        ssl_certificate $c->{cert};
        ssl_certificate_key $c->{key};
        return 200 "tls \$ssl_session_reused \$connection";
    }
}
stream { server { listen 127.0.0.1:%%PORT_4%%; proxy_pass 127.0.0.1:%%PORT_1%%; } }
EOC
}
sub conf { (my $t = text(@_)) =~ s/^log_format.*\n^upstream_none.*\n//m; $hd->conf($t) }

$hd->backend(1, sub { my ($req) = @_; "connection $req->{conn}" });
conf()->start;

sub memory { return decode_json($hd->admin('/memory')->body)->{arenas}{files} }
my $reloads = 0;
sub changed {
    ok $hd->reload, 'a reload';
    $reloads++;
    $hd->wait_log(qr/reload done/, $reloads);
    return (($hd->log =~ /reload done: (\d+) resources? changed/g)[-1]);
}

my $first = $hd->get('/')->body;
my $tls = $hd->get('/', {port => 2})->body;
like $tls, qr/^tls \. \d+$/, 'over TLS';
my $session = $hd->dir . '/session';
sub resume {
    my ($how) = @_;
    my $text = qx(sh -c '(printf "GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n") | timeout 20 openssl s_client -ign_eof -connect 127.0.0.1:@{[$hd->port(3)]} $how $session 2>/dev/null' </dev/null);
    return $text =~ /^Reused,/m ? 'reused' : $text =~ /^New,/m ? 'new' : $text;
}
is resume('-sess_out'), 'new', 'a session';

my $before = memory();
is changed(), 0, 'the same again: nothing changes';
my $after = memory();
is $after->{published}, $before->{published}, 'nothing is published';
cmp_ok $after->{unchanged}, '>=', $before->{unchanged} + $before->{regions_live}, 'all was compared';
is $hd->get('/')->body, $first, 'the upstream connection is still there';
is $hd->get('/', {port => 2})->body, $tls, 'the one over TLS, too';
is resume('-sess_in'), 'reused', 'a TLS session goes on';

conf(answer => 'another');
is changed(), 1, 'a route: one table';
is $hd->get('/answer')->body, 'another', 'it is in force';
is $hd->get('/')->body, $first, 'the upstream connections stay';
is $hd->get('/', {port => 2})->body, $tls, 'those of other servers, too';

conf(answer => 'another', cert => $other);
is changed(), 4, "a certificate: its secret comes and the old one goes, its listener and its table";
is $hd->get('/')->body, $first, 'nothing of the rest';
is resume('-sess_in'), 'new', 'the sessions of another certificate end';
my $text = memory();
is $text->{published}, $after->{published} + 1 + 3, 'published in all';

# another content of the same files
my $now = memory()->{published};
for my $what ('cert', 'key') {
    open my $from, '<', $cert->{$what} or die $!;
    local $/;
    my $bytes = <$from>;
    (my $name = $other->{$what}) =~ s{^\Q@{[$hd->dir]}\E/}{};
    $hd->write($name, $bytes);
}
is changed(), 1, 'new bytes in the files of a certificate: the secret alone';
like $hd->admin('/metrics')->body, qr/^heddle_loom_published_total\{arena="files"\} @{[$now + 1]}$/m, 'the metric';

# lines move: what is the same stays
conf(answer => 'another', cert => $other, space => "\n\n\n");
is changed(), 0, 'empty lines change nothing';
done_testing;
