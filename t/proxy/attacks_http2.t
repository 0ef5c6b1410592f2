#!/usr/bin/perl
# HTTP/2 used against the server: each class of attack is answered by ending the connection, with a
# bounded amount of work before, and counted, by file and by xDS. In each case an honest client is served meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;
use Heddle::H2;
use Heddle::Xds;
use JSON::XS ();

my $large = 'x' x (4 << 20);

sub by_file {
    return Heddle->new(workers => 1)->conf(<<'EOC');
http {
    http2 on;
    access_log off;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        large_client_header_buffers 2 4k;
        http2_max_concurrent_streams 8;
        location / { return 200 "hello\n"; }
        location /proxy { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_request_buffering off; proxy_buffering off; }
    }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        client_header_timeout 300ms;
        client_body_timeout 300ms;
        send_timeout 300ms;
        location / { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_request_buffering off; }
    }
}
admin %%ADMIN%%;
EOC
}

sub by_xds {
    my $hd = Heddle->new(workers => 1)->conf(<<'EOC');
admin %%ADMIN%%;
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $routes = Heddle::Xds::routes('in', ['/proxy' => 'up']);
    push @{$routes->{virtual_hosts}[0]{routes}},
        {match => {prefix => '/'}, direct_response => {status => 200, body => {inline_string => "hello\n"}}};
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(CDS => [Heddle::Xds::cluster('up', $hd->port(1))], LDS => [
        Heddle::Xds::listener('front', $hd->port(0), route_config => $routes, max_request_headers_kb => 8,
            http2_protocol_options => {max_concurrent_streams => 8}),
        Heddle::Xds::listener('slow', $hd->port(2), route_config => Heddle::Xds::routes('slow', ['/' => 'up']),
            request_headers_timeout => '0.3s', stream_idle_timeout => '0.3s'),
    ])->start;
    return $hd;
}

my ($hd, $honest, $honest_id, $attackers);

sub metric {
    my ($name, $kind) = @_;
    my ($n) = $hd->admin('/metrics')->{body} =~ /^\Q$name\E\{side="downstream",kind="$kind"\} (\d+)/m;
    return $n // 0;
}

# <attack> gets a connection and a number, and is called until the server has closed, at most <most>
# times. The connection must end with <error>, having been allowed <least> of them at least.
sub attack {
    my ($name, %a) = @_;
    my $c = Heddle::H2->new($a{port} // $hd->port(0), %{$a{open} || {}}, conn => {bind => '127.0.1.' . ++$attackers});
    $a{before}->($c) if $a{before};
    my $before = $a{kind} ? metric('heddle_http2_calmed_total', $a{kind}) : 0;
    my $n = 0;
    while ($n < $a{most}) {
        last if !$c->try_send($a{bytes}->($c, ++$n));
        $c->response(2 * $n - 1) if $a{in_turn};
        if ($n % 16 == 0) { # it may have been told already
            while ($c->{conn}->is_ready) { $c->next or last }
            last if $c->{goaways} || $c->{conn}{eof};
        }
    }
    my $end = $c->calmed;
    is $end, $a{error} // 'ENHANCE_YOUR_CALM', "$name: ended";
    ok $n >= ($a{least} // 1), "$name: but only after some ($n)" if $a{least};
    is metric('heddle_http2_calmed_total', $a{kind}), $before + 1, "$name: counted" if $a{kind};
    $honest->request($honest_id, '/');
    is $honest->response($honest_id)->{status}, 200, "$name: an honest client is served";
    $honest_id += 2;
    return $c;
}

sub all_attacks {
    # ---- Rapid Reset CVE-2023-44487

    attack 'rapid reset', kind => 'reset', most => 5000, least => 100, bytes => sub {
        my ($c, $n) = @_;
        my $id = 2 * $n - 1;
        return $c->head('HEADERS', 5, $id, $c->request_block('/proxy/rapid')) . $c->head('RST_STREAM', 0, $id, pack 'N', 8);
    };
    cmp_ok scalar(grep { $_->{uri} =~ /rapid/ } $hd->requests(1)), '<=', 1000, 'rapid reset: few reached the back end';

    # ---- MadeYouReset CVE-2025-8671: a fault of the client makes the server reset

    attack 'MadeYouReset: a window beyond its maximum', kind => 'provoked_reset', in_turn => 1, most => 5000, least => 100, bytes => sub {
        my ($c, $n) = @_;
        my $id = 2 * $n - 1;
        return $c->head('HEADERS', 4, $id, $c->request_block('/proxy/made', method => 'POST'))
            . $c->head('WINDOW_UPDATE', 0, $id, pack 'N', 0x7fffffff);
    };
    attack 'MadeYouReset: a window changed by 0', error => 'PROTOCOL_ERROR', most => 2, bytes => sub {
        my ($c, $n) = @_;
        return $c->head('HEADERS', 5, 1, $c->request_block('/proxy')) . $c->head('WINDOW_UPDATE', 0, 1, pack 'N', 0);
    };
    attack 'MadeYouReset: DATA after the end', error => 'STREAM_CLOSED', most => 2, bytes => sub {
        my ($c) = @_;
        return $c->head('HEADERS', 5, 1, $c->request_block('/proxy')) . $c->head('DATA', 0, 1, 'x');
    };
    attack 'MadeYouReset: a body that is longer than announced', kind => 'provoked_reset', in_turn => 1, most => 5000, least => 100,
        bytes => sub {
            my ($c, $n) = @_;
            my $id = 2 * $n - 1;
            return $c->head('HEADERS', 4, $id,
                $c->request_block('/proxy/made', method => 'POST', fields => ['content-length', 1]))
                . $c->head('DATA', 1, $id, 'xx');
        };
    attack 'MadeYouReset: PRIORITY on itself', error => 'PROTOCOL_ERROR', most => 2, bytes => sub {
        my ($c) = @_;
        return $c->head('HEADERS', 4, 1, $c->request_block('/proxy', method => 'POST'))
            . $c->head('PRIORITY', 0, 1, pack 'NC', 1, 0);
    };

    # ---- CONTINUATION flood

    attack 'CONTINUATION flood', most => 5000, before => sub {
        my ($c) = @_;
        $c->frame('HEADERS', 1, 1, substr $c->request_block('/'), 0, 5);
    }, bytes => sub { $_[0]->head('CONTINUATION', 0, 1, Heddle::H2::field('x', 'y' x 100)) };
    attack 'CONTINUATION flood of long frames', most => 5000, before => sub { $_[0]->frame('HEADERS', 1, 1, '') },
        bytes => sub { $_[0]->head('CONTINUATION', 0, 1, Heddle::H2::field('x', 'y' x 16000)) };
    attack 'CONTINUATION flood of empty frames', most => 5000, before => sub { $_[0]->frame('HEADERS', 1, 1, '') },
        bytes => sub { $_[0]->head('CONTINUATION', 0, 1, '') };

    # ---- the set of 2019, CVE-2019-9511 to 9518

    attack 'window dribble', kind => 'tiny_window', most => 20000, least => 500,
        bytes => sub { $_[0]->head('WINDOW_UPDATE', 0, 0, pack 'N', 1) };
    attack 'ping flood', kind => 'ping', most => 20000, least => 100, bytes => sub { $_[0]->head('PING', 0, 0, 'x' x 8) };
    attack 'settings flood', kind => 'settings', most => 20000, least => 100,
        bytes => sub { $_[0]->head('SETTINGS', 0, 0, pack 'nN', 4, 65535) };
    attack 'priority flood', kind => 'priority', most => 20000, least => 500,
        bytes => sub { $_[0]->head('PRIORITY', 0, 2 * $_[1] + 1, pack 'NC', 0, 1) };
    attack 'empty frames', kind => 'empty_frame', most => 20000, least => 500, before => sub {
        $_[0]->request(1, '/proxy', method => 'POST', end => 0);
    }, bytes => sub { $_[0]->head('DATA', 0, 1, '') };
    attack 'frames of padding', kind => 'empty_frame', most => 20000, least => 500, before => sub {
        $_[0]->request(1, '/proxy', method => 'POST', end => 0);
    }, bytes => sub { $_[0]->head('DATA', 8, 1, "\xff" . "\0" x 255) };
    attack 'frames of unknown types', kind => 'unknown_frame', most => 20000, least => 500,
        bytes => sub { $_[0]->head(0xbb, 0, 0, '') };
    attack 'a window beyond its maximum', error => 'FLOW_CONTROL_ERROR', most => 2,
        bytes => sub { $_[0]->head('WINDOW_UPDATE', 0, 0, pack 'N', 0x7fffffff) };

    # ---- HPACK bombs

    {
        my $c = Heddle::H2->new($hd->port(0));
        $c->request(1, '/', fields => [map { ("x-$_", 'y' x 1000) } 1 .. 9]); # 9 KB; 8 are allowed
        is $c->response(1)->{status}, 431, 'header list size: too much is refused';
        $c->request(3, '/');
        is $c->response(3)->{status}, 200, 'header list size: the connection goes on';
    }
    attack 'HPACK bomb', most => 2, bytes => sub {
        my ($c, $n) = @_;
        my $entry = "\x40" . Heddle::H2::integer(1) . 'x' . Heddle::H2::integer(3900) . 'y' x 3900;
        my $id = 2 * $n - 1;
        # into the dynamic table once, then named by one byte each
        return $c->head('HEADERS', 5, $id, $c->request_block('/') . $entry . "\xbe" x 8000);
    };
    attack 'HPACK bomb of cookies', most => 2, bytes => sub {
        my ($c, $n) = @_;
        return $c->head('HEADERS', 5, 2 * $n - 1, $c->request_block('/') . "\x40\x06cookie\x01a" . "\xbe" x 8000);
    };

    # ---- too many streams

    # Whether or not the client has acknowledged our SETTINGS: a stream's error (RFC 9113 §5.1.2).
    my $settled = sub { $_[0]->until(sub { $_->{type} eq 'SETTINGS' }) };
    for my $when ('at once', 'against our SETTINGS') {
        my $c = Heddle::H2->new($hd->port(0));
        $settled->($c) if $when ne 'at once';
        $c->request($_, '/proxy', method => 'POST', end => 0) for map { 2 * $_ - 1 } 1 .. 9;
        is $c->response(17)->{reset}, 'REFUSED_STREAM', "too many streams, $when: the ninth of eight is refused";
        $c->frame('DATA', 1, 1, '');
        is $c->response(1)->{status}, 200, "too many streams, $when: the others go on";
        $c->request(19, '/proxy', method => 'POST', end => 0);
        $c->request(21, '/proxy');
        is $c->response(21)->{reset}, 'REFUSED_STREAM', "too many streams, $when: one has taken the place that was free";
        $c->frame('DATA', 1, 19, '');
        is $c->response(19)->{status}, 200, "too many streams, $when: and is served";
    }
    for my $settled_or_not ({}, {before => $settled}) {
        attack 'too many streams', kind => 'refused_stream', most => 5000, least => 100, open => {quiet => 1}, %$settled_or_not,
            bytes => sub {
                my ($c, $n) = @_;
                return $c->head('HEADERS', 4, 2 * $n - 1, $c->request_block('/proxy', method => 'POST'));
            };
    }

    # ---- slow ones: nothing ever ends by itself

    {
        my $c = Heddle::H2->new($hd->port(2));
        $c->{quiet} = 1; # nothing may stand between a head's frames
        $c->frame('HEADERS', 1, 1, substr $c->request_block('/'), 0, 5);
        is $c->calmed, 'ENHANCE_YOUR_CALM', 'a head that never ends';
    }
    {
        my $c = Heddle::H2->new($hd->port(2));
        $c->request(1, '/', method => 'POST', end => 0);
        is $c->response(1)->{status}, 408, 'a body that never comes';
    }
    {
        my $before = metric('heddle_http2_glitches_total', 'slow_reader');
        my $c = Heddle::H2->new($hd->port(2), settings => {4 => 0});
        $c->request(1, '/large');
        is $c->response(1)->{reset}, 'ENHANCE_YOUR_CALM', 'slow reading: a window of 0';
        $c->request(3, '/large');
        $c->until(sub { $_->{type} eq 'HEADERS' && $_->{id} == 3 });
        $c->frame('WINDOW_UPDATE', 0, 3, pack 'N', 100);
        my $r = $c->response(3);
        ok $r->{reset} eq 'ENHANCE_YOUR_CALM' && length $r->{body} == 100, 'slow reading: a window of little';
        is metric('heddle_http2_glitches_total', 'slow_reader'), $before + 2, 'slow reading: counted';
    }
    {
        my $c = Heddle::H2->new($hd->port(2), settings => {4 => 0x7fffffff});
        $c->frame('WINDOW_UPDATE', 0, 0, pack 'N', 0x70000000);
        $c->request(2 * $_ - 1, '/large') for 1 .. 8;
        $hd->wait_log(qr/client timed out while reading the response/);
        pass 'slow reading: a socket that is never read is closed';
    }
}

for my $way ('file', 'xds') {
    subtest "by $way" => sub {
        $hd = $way eq 'file' ? by_file() : by_xds();
        $hd->backend(1, sub { {body => $_[0]{uri} =~ /large/ ? $large : 'from the back end'} });
        $hd->start;
        $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) && Heddle::Port::is_listening($hd->port(2)) }, 'listeners');
        ($honest, $honest_id, $attackers) = (Heddle::H2->new($hd->port(0)), 1, 0);
        all_attacks();
        $hd->stop;
    };
}

# ---- a client that reconnects, to whatever worker, goes on where it was

{
    my $two = Heddle->new(workers => 2)->conf(<<'EOC')->start;
http {
    http2 on;
    access_log off;
    http2_client_glitches 2000; # 400 resets
    server { listen 127.0.0.1:%%PORT_0%%; location / { return 200 $pid; } }
}
EOC
    my (%workers, $resets, $end);
    while (keys %workers < 2 || !$end) {
        my $c = Heddle::H2->new($two->port(0));
        $c->request(1, '/');
        my $r = $c->response(1);
        $workers{$r->{body}}++ if $r->{status};
        for my $id (map { 2 * $_ + 1 } 1 .. 40) { # a fifth of what a connection may
            $c->request($id, '/');
            $c->frame('RST_STREAM', 0, $id, pack 'N', 8);
        }
        $c->frame('PING', 0, 0, 'the last');
        if ($c->until(sub { $_->{type} eq 'GOAWAY' || $_->{type} eq 'PING' }) && !$c->{goaways}) { $resets += 40 }
        else { $end = $c->{goaways} ? $c->{goaways}[-1]{error} : 'closed' }
    }
    is $end, 'ENHANCE_YOUR_CALM', 'spread over connections: ended';
    cmp_ok $resets, '>=', 360, "spread over connections: after what is allowed ($resets)";
    is scalar(keys %workers), 2, 'spread over connections: two workers had some of it';
    my $other = Heddle::H2->new($two->port(0), conn => {bind => '127.0.0.9'});
    $other->request(1, '/');
    $other->frame('PING', 0, 0, 'not many');
    is $other->response(1)->{status}, 200, 'another address is served';
    ok !$other->{goaways}, 'and stays';
}
done_testing;
