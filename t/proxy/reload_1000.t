#!/usr/bin/perl
# 1,000 reloads under load, with WebSockets, gRPC streams and a 1-byte-a-second upload open: workers
# and connections stay the same. Each reload changes a listener, a route, a cluster and a certificate.
# Once the long streams have ended, the arena holds what it held before, within 1 %; nothing that is
# never given back (slots, label records) grows on the way.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use JSON::XS;
use Heddle;
use Heddle::Streams;

plan skip_all => $Heddle::Streams::missing if $Heddle::Streams::missing;
my $reloads = Heddle::is_sanitized() ? 30 : 1000; # a sanitized loader takes ten times as long

my $hd = Heddle->new(workers => 2, log_level => 'notice');
my $ca = $hd->make_ca('root');
my @certs = map { $ca->make_cert("cert$_", dns => 'a.example', cn => "number $_") } 0, 1;

# All parts depend on <n>, and what is the same for two equal remainders is so for the arena, too.
sub text {
    my ($n) = @_;
    my $c = $certs[$n % 2];
    my $extra = 5 + $n % 3;
    my $number = sprintf '%05d', $n;
    return <<"EOC";
worker_shutdown_timeout 5s;
admin %%ADMIN%%;
http {
    access_log off;
    keepalive_requests 100000000;
    client_body_timeout 600s;
    upstream app { server 127.0.0.1:%%PORT_1%% weight=@{[1 + $n % 2]}; keepalive 8; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        listen 127.0.0.1:%%PORT_4%% ssl;
        listen 127.0.0.1:%%PORT_$extra%%;
        ssl_certificate $c->{cert};
        ssl_certificate_key $c->{key};
        add_header X-Number $number;
        location / { proxy_pass http://app; proxy_http_version 1.1; proxy_request_buffering off; }
        location /ws { proxy_pass http://app; proxy_http_version 1.1; proxy_read_timeout 600s;
                       proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; }
        location /number-$number { return 200 $number; }
    }
    server {
        listen 127.0.0.1:%%PORT_3%%;
        http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT_2%%; proxy_http_version 2;
                     proxy_request_buffering off; proxy_read_timeout 600s; }
    }
}
EOC
}

my $backend = Heddle::Streams->backend($hd, 1, 2);
$hd->conf(text(0))->start;

open my $log, '<', $hd->dir . '/error.log' or die "error.log: $!";
my $said = '';

# The new configuration is in force once the log says so.
sub reload {
    my ($n) = @_;
    $hd->conf(text($n));
    readline $log while !eof $log;
    seek $log, 0, 1;
    $hd->signal('HUP');
    $hd->wait_for(sub {
        seek $log, 0, 1;
        while (my $line = readline $log) {
            die $line if $line =~ /reload failed|\[emerg\]/;
            return 1 if $line =~ /reload done/;
        }
        return 0;
    }, "reload $n");
}

sub memory { return decode_json($hd->admin('/memory')->body) }

# At rest: nothing waits to be given back.
sub at_rest {
    my $memory;
    $hd->wait_for(sub { ($memory = memory())->{arenas}{files}{regions_retired} == 0 }, 'what was retired to be freed');
    return $memory;
}

# Their names and labels.
sub series {
    my $text = $hd->admin('/metrics')->body;
    return map { s/ \S+$//r => 1 } grep { !/^#/ } split /\n/, $text;
}

reload($_) for 1 .. 6; # each variant was there once
my $clients = Heddle::Streams->clients($hd, http => 0, tls => 4, grpc => 3,
    ws => 3, talks => 3, uploads => 1, load => 2, tls_load => 1, calls => 1, strict => 1);
my @workers = sort $hd->workers;
my $opened = $clients->state;
my ($before, %series) = (memory(), series());

my $done = 6;
my $target = $done + $reloads; # a multiple of 6 more: the same variant
$target += 6 - $reloads % 6 if $reloads % 6;
while ($done < $target) {
    reload(++$done);
    my $number = sprintf '%05d', $done;
    if ($done % 50 == 0 || $done == $target) {
        is $hd->get("/number-$number")->body, $number, "reload $done is in force";
        is $clients->failures($clients->state), '', 'and nothing failed';
    }
}
my $extra = 5 + $done % 3;
is $hd->get("/number-" . sprintf('%05d', $done), {port => $extra})->body, sprintf('%05d', $done), 'its listener, too';

my $now = $clients->wait_for_more(qw(ws talks load tls_load calls));
is_deeply [sort $hd->workers], \@workers, 'the workers are the same';
for my $kind (qw(ws talks uploads load tls_load calls)) {
    is $now->{$kind}{conns}, $opened->{$kind}{conns}, "$kind: no connection but the first";
    is_deeply $now->{$kind}{ports}, $opened->{$kind}{ports}, "$kind: the same ports";
}
cmp_ok $now->{load}{n}, '>', $opened->{load}{n} + 20, 'there was load';

my $during = memory();
cmp_ok $during->{arenas}{files}{regions_retired}, '<', 64, 'long streams hold no more than what they began with';

my $end = $clients->end;
is $clients->failures($end), '', 'all streams ended well';
cmp_ok $end->{$_}{n}, '>', 0, "$_ had something to say" for qw(ws talks uploads calls);

# What the last reload removed stays a second for connections accepted before.
eval { $hd->wait_for(sub { at_rest()->{arenas}{files}{bytes_live} <= $before->{arenas}{files}{bytes_live} * 1.01 }); 1 }
    or diag $@;
my $after = at_rest();
my ($was, $is) = map { $_->{arenas}{files}{bytes_live} } $before, $after;
cmp_ok abs($is - $was), '<=', $was / 100, "the arena's bytes: $was before, $is after";
is $after->{arenas}{files}{slots}, $before->{arenas}{files}{slots}, 'no slot more';
cmp_ok $after->{arenas}{files}{bytes_reserved}, '<=', $before->{arenas}{files}{bytes_reserved} * 1.05 + 65536,
    'nor pages';
my %now = series();
is join("\n", sort grep { !$series{$_} } keys %now), '', 'no series more';
cmp_ok $after->{state_bytes}, '<=', $before->{state_bytes} + 65536, 'the shared state is as large as it was';
done_testing;
