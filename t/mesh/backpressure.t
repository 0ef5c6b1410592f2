#!/usr/bin/perl
# Who doesn't read stops who sends, whatever lies between: HTTP/1, HTTP/2 and weft to the client, each with each of them
# to the upstream, in both directions, many bodies at once. Meanwhile what each worker holds of a body is bounded,
# nobody works, and the source keeps the rest; afterwards every byte comes, each where it belongs.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Flow;

my $is_sanitized = Heddle::is_sanitized();
my $n = $is_sanitized ? 10 : 30;
my $bytes = 2 << 20;                              # of a body
my $held_max = ($is_sanitized ? 1500 : 900) << 10; # of a body, in a worker; at most 290 KB were seen, sanitized 560

# What was freed is kept by the sanitizer, up to this:
$ENV{ASAN_OPTIONS} = join ':', grep { length } $ENV{ASAN_OPTIONS} // '', 'quarantine_size_mb=1' if $is_sanitized;

my ($client_side, $middle, $server_side) = map { Heddle->new(workers => 1, log_level => 'notice') } 1 .. 3;
my $ca = $middle->make_ca('root');
my %cert = map { $_ => $ca->make_cert($_, dns => 'localhost', spiffe => "spiffe://test/ns/a/sa/$_") } 'client', 'server';
my $as_client = "proxy_ssl_certificate $cert{client}{cert}; proxy_ssl_certificate_key $cert{client}{key};"
    . " proxy_ssl_name localhost; proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca->{cert};";
my $as_server = "ssl_certificate $cert{server}{cert}; ssl_certificate_key $cert{server}{key};"
    . " ssl_client_certificate $ca->{cert}; ssl_verify_client on;";

sub conf {
    my ($hd, $http) = @_;
    return $hd->conf(<<"EOC");
http {
    log_format way '\$request_uri \$status \$server_protocol \$ssl_alpn_protocol';
    access_log %%DIR%%/access.log way;
    http2 on;
    client_max_body_size 0;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 600s;
    proxy_send_timeout 600s;
    client_body_timeout 600s;
    send_timeout 600s;
$http
}
EOC
}

# Sockets' buffers are small, for what the kernel holds would hide what a program does: where each body has a connection
# to an upstream, that is a unix socket.
my $small = 'rcvbuf=64k sndbuf=64k';
my ($plain, $tls) = map { '127.0.0.1:' . $server_side->port($_) } 'plain', 'tls';
my ($unix, $sink, $go) = map { $server_side->dir . "/$_" } 'unix', 'sink', 'go';
conf($server_side, <<"EOC");
    server {
        listen unix:$unix;
        listen $plain $small;
        listen $tls ssl $small;
        $as_server
        root %%DIR%%;
        location /to/ { proxy_pass http://unix:$sink:; }
    }
EOC
conf($middle, <<"EOC");
    server {
        listen 127.0.0.1:%%PORT_plain%% $small;
        listen 127.0.0.1:%%PORT_tls%% ssl $small;
        $as_server
        location /h1/ { proxy_pass http://unix:$unix:/; }
        location /h2/ { proxy_pass http://$plain/; proxy_http_version 2; }
        location /weft/ { proxy_pass https://$tls/; $as_client }
    }
EOC
conf($client_side, <<"EOC");
    server {
        listen 127.0.0.1:%%PORT_plain%% $small;
        location / { proxy_pass https://127.0.0.1:@{[$middle->port('tls')]}; $as_client }
    }
EOC
my $dir = $server_side->dir;
mkdir "$dir/from";
for my $letter (map { Heddle::Flow::letter($_) } 0 .. ($n < 26 ? $n - 1 : 25)) {
    open my $f, '>', "$dir/from/$letter" or die "$dir/from/$letter: $!";
    print $f $letter x $bytes;
    close $f or die "$dir/from/$letter: $!";
}
Heddle::Flow::sink($sink, $go);
my @all = ($server_side, $middle, $client_side);
$_->start for @all;
my @workers = map { ($_->workers)[0] } @all;
my @names = ("the server's side", 'the middle', "the client's side");

sub own_bytes {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/status" or die "$pid: $!\n";
    return (map { /^RssAnon:\s+(\d+)/ ? $1 * 1024 : () } <$f>)[0];
}

sub worked {
    my ($pid) = @_;
    open my $f, '<', "/proc/$pid/stat" or die "$pid: $!\n";
    my (undef, $fields) = <$f> =~ /^(.*)\) (.*)$/;
    return join ' ', (split / /, $fields)[11, 12]; # its time in user mode and in the kernel
}

# Until no worker has done anything for some looks.
sub wait_for_rest {
    my ($last, $same) = ('', 0);
    $middle->wait_for(sub {
        my $now = join ', ', map { worked($_) } @workers;
        $same = $now eq $last ? $same + 1 : 0;
        $last = $now;
        return $same >= 8;
    }, 'the workers to rest');
}

sub lines { my ($hd, $uri) = @_; return grep { /^\Q$uri\E/ } split /\n/, $hd->file('access.log') }

my %protocol = (h1 => 'HTTP/1\.1 -', h2 => 'HTTP/2\.0 -', weft => 'HTTP/\d\.\d heddle-weft/1');

# A round of one direction between two protocols. <stop> starts all bodies and returns once no more of them goes;
# <waits>: what is true while the source waits.
sub stalls {
    my ($name, $flow, $from, $stop, $waits) = @_;
    my @before = map { own_bytes($_) } @workers;
    $stop->();
    wait_for_rest();
    ok $waits->(), "$name: the source waits";
    for my $i (0 .. $#workers) {
        my $held = int((own_bytes($workers[$i]) - $before[$i]) / $n);
        cmp_ok $held, '<', $held_max, "$name: $names[$i] holds " . int($held / 1024) . ' KB of each';
    }
    $from->();
    my @got = $flow->finish;
    is_deeply \@got, [map { "200 $bytes " . Heddle::Flow::letter($_) } 0 .. $n - 1], "$name: every byte comes in the end"
        or diag explain \@got;
}

for my $down ('h1', 'h2', 'weft') {
    for my $up ('h1', 'h2', 'weft') {
        my $port = ($down eq 'weft' ? $client_side : $middle)->port('plain');
        my $flow = Heddle::Flow->new($port, n => $n, bytes => $bytes, h2 => $down eq 'h2');
        my ($get, $post) = ("/from/*?$down-$up", "/to/*?$down-$up");
        my $source_lines = sub { grep { /\?$down-$up / } lines($server_side, '/from/') };
        stalls("$down from $up", $flow, sub {}, sub { $flow->get("/$up$get") }, sub { !$source_lines->() });

        $flow = Heddle::Flow->new($port, n => $n, bytes => $bytes, h2 => $down eq 'h2');
        unlink $go;
        stalls("$down to $up", $flow, sub { open my $f, '>', $go or die "$go: $!" }, sub { $flow->post("/$up$post") },
            sub { $flow->sent < $n * $bytes });

        for ([$server_side, '', $up], [$middle, "/$up", $down]) {
            my ($hd, $prefix, $speaks) = @$_;
            my @lines;
            $hd->wait_for(sub { (@lines = lines($hd, "$prefix/to/a?$down-$up ")) }, 'its line');
            like $lines[0], qr{ 200 $protocol{$speaks}$}, "$down, $up: by $speaks";
        }
    }
}
$_->stop for @all;
done_testing;
