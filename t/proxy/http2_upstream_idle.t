#!/usr/bin/perl
# HTTP/2 connections to upstreams that idle: an upstream's habit of closing them is learnt, so that ours are closed
# before; keepalive_time bounds their age; keepalive_ping finds out whether anybody is there.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;
use IO::Select;
use Time::HiRes 'time';

my $hd = Heddle->new->conf(<<'EOC');
http {
    proxy_http_version 2;
    upstream idle { server 127.0.0.1:%%PORT_idle%%; }
    upstream aged { server 127.0.0.1:%%PORT_aged%%; keepalive_time 1ms; }
    upstream ping { server 127.0.0.1:%%PORT_ping%%; keepalive_ping 100ms; }
    upstream dead { server 127.0.0.1:%%PORT_dead%%; keepalive_ping 100ms timeout=200ms; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /idle { proxy_pass http://idle; }
        location /aged { proxy_pass http://aged; }
        location /ping { proxy_pass http://ping; }
        location /dead { proxy_pass http://dead; }
    }
}
EOC

sub note_down {
    my ($name, $what) = @_;
    open my $f, '>>', $hd->dir . "/$name" or die $!;
    syswrite $f, "$what\n";
}
sub noted { my ($name, $what) = @_; my $text = -e $hd->dir . "/$name" ? $hd->file($name) : ''; return scalar(() = $text =~ /^\Q$what\E$/mg) }

# Answers each request with 200; <idle> seconds without one: it closes. PINGs are answered unless <mute>.
sub server {
    my ($name, %opt) = @_;
    $hd->tcp_backend($name, sub {
        my ($sock, $n) = @_;
        my ($buf, $until) = ('', undef);
        my $select = IO::Select->new($sock);
        my $frame = sub { my ($type, $flags, $stream, $body) = @_; syswrite $sock, substr(pack('N', length $body), 1) . pack('CCN', $type, $flags, $stream) . $body };
        note_down($name, 'conn');
        $frame->(4, 0, 0, '');
        while (1) {
            my $wait = defined $until ? $until - time : 60;
            if ($wait <= 0 || !$select->can_read($wait)) {
                next if defined $until && $until > time;
                note_down($name, 'ours');
                return;
            }
            if (!sysread $sock, $buf, 65536, length $buf) {
                note_down($name, 'theirs');
                return;
            }
            $buf =~ s/^PRI \* HTTP\/2\.0\r\n\r\nSM\r\n\r\n//;
            while (length $buf >= 9 && length $buf >= 9 + (my $len = unpack 'N', "\0" . substr $buf, 0, 3)) {
                my ($type, $flags, $stream) = unpack 'CCN', substr $buf, 3, 6;
                my $body = substr $buf, 9, $len;
                substr $buf, 0, 9 + $len, '';
                $frame->(4, 1, 0, '') if $type == 4 && !($flags & 1);
                if ($type == 6 && !($flags & 1)) {
                    note_down($name, 'ping');
                    $frame->(6, 1, 0, $body) unless $opt{mute};
                } elsif ($type == 1) {
                    $frame->(1, 5, $stream, "\x88");
                    $until = time + $opt{idle} if $opt{idle} && noted($name, 'conn') < 3;
                }
            }
        }
    });
}
server('idle', idle => 0.5);
server('aged');
server('ping');
server('dead', mute => 1);
$hd->start;

is $hd->get('/idle')->status, 200, 'over HTTP/2';
$hd->wait_for(sub { noted('idle', 'ours') == 1 }, 'the upstream to close');
is $hd->get('/idle')->status, 200, 'again';
$hd->wait_for(sub { noted('idle', 'ours') == 2 }, 'the upstream to close');
is $hd->get('/idle')->status, 200, 'a third connection, which the upstream would keep';
ok $hd->wait_for(sub { noted('idle', 'theirs') }, 'an end'), 'learnt: none is kept for much longer than they were before (keepalive_timeout is 60s)';

is $hd->get('/aged')->status, 200, 'a request';
$hd->wait_for(sub { noted('aged', 'theirs') || $hd->get('/aged')->status != 200 }, 'an end');
is noted('aged', 'theirs') > 0, 1, 'keepalive_time: closed after it';

is $hd->get('/ping')->status, 200, 'a request';
ok $hd->wait_for(sub { noted('ping', 'ping') >= 3 }, 'PINGs'), 'keepalive_ping: one after the other';
is noted('ping', 'conn'), 1, 'on one connection';
is $hd->get('/dead')->status, 200, 'a request';
ok $hd->wait_for(sub { noted('dead', 'theirs') }, 'an end'), 'nobody answers: closed';
is $hd->get('/dead')->status, 200, 'and the next request has a new one';
$hd->stop;
done_testing;
