#!/usr/bin/perl
# health_check with a `match` block: status, fields, body; send and expect of stream. A check runs without
# an admin port or a control plane, too.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my %http = ( # what the block says => does the answer fit?
    ok        => ['status 200;', 1],
    list      => ['status 300-399 200 404;', 1],
    other     => ['status 500-599;', 0],
    unlike    => ['status ! 500-599;', 1],
    unlike_it => ['status ! 100-299;', 0],
    any       => ['', 1],
    has       => ['header X-State;', 1],
    has_not   => ['header ! X-Other;', 1],
    lacks     => ['header X-Other;', 0],
    must_lack => ['header ! X-State;', 0],
    equal     => ['header Content-Type = text/plain;', 1],
    inequal   => ['header Content-Type != text/html;', 1],
    unequal   => ['header X-State = bad;', 0],
    not_it    => ['header X-State != good;', 0],
    regex     => ['header X-State ~ "^go+d$";', 1],
    no_regex  => ['header X-State !~ "^go+d$";', 0],
    body      => ['body ~ "all (is|was) well";', 1],
    no_body   => ['body ~ "nothing is";', 0],
    not_body  => ['body !~ "nothing is";', 1],
    both      => ['status 200; header X-State = good; body ~ well;', 1],
    not_both  => ['status 200; header X-State = bad; body ~ well;', 0],
);
my %tcp = (
    text  => ['send "ping\n"; expect "pong";', 1],
    wrong => ['send "ping\n"; expect "pang";', 0],
    re    => ['send "ping\n"; expect ~ "^p[aeiou]ng 1";', 1],
    re_no => ['send "ping\n"; expect ~ "^p[aei]ng 1";', 0],
    flood => ['send "flood\n"; expect "pong";', 0],
);
my $http = join '', map { "    upstream $_ { server 127.0.0.1:%%PORT_1%%; health_check mandatory interval=100ms match=m_$_; }\n    match m_$_ { $http{$_}[0] }\n" } sort keys %http;
my $tcp = join '', map { "    match m_$_ { $tcp{$_}[0] }\n    upstream $_ { server 127.0.0.1:%%PORT_2%%; health_check mandatory interval=100ms match=m_$_; }\n    server { listen 127.0.0.1:%%PORT_t$_%%; proxy_pass $_; }\n" } sort keys %tcp;
$hd->conf(<<"EOC");
http {
$http
    server { listen 127.0.0.1:%%PORT_0%%; location ~ ^/(?<to>\\w+)\$ { proxy_pass http://\$to; } }
}
stream {
$tcp
}
EOC
$hd->backend(1, sub { {body => "all is well\n", headers => {'X-State' => 'good', 'Content-Type' => 'text/plain'}} });
$hd->tcp_backend(2, sub { my ($sock) = @_; sysread $sock, my $in, 100 or return; syswrite $sock, $in eq "ping\n" ? "pong 1\n" : "what?\n";
    my $much = 'x' x 1_000_000;
    1 while $in eq "flood\n" && syswrite $sock, $much });
$hd->start;
for my $name (sort keys %http) {
    my $state = $http{$name}[1] ? 'healthy' : 'unhealthy';
    $hd->wait_log(qr/upstream "$name": server \S+ is $state/);
    is $hd->get("/$name")->status, $http{$name}[1] ? 200 : 502, "$name: $http{$name}[0]";
}
for my $name (sort keys %tcp) {
    my $state = $tcp{$name}[1] ? 'healthy' : 'unhealthy';
    $hd->wait_log(qr/upstream "stream:$name": server \S+ is $state/);
    my $c = $hd->connect("t$name");
    $c->send("x\n");
    is $c->read_all, $tcp{$name}[1] ? "what?\n" : '', "stream, $name: $tcp{$name}[0]";
}
# other words in the block: the cluster is another one
open my $f, '<', $hd->conf_path or die $!;
my $text = join '', <$f>;
$text =~ s/match m_ok \{ status 200; \}/match m_ok { status 500; }/ or die;
open $f, '>', $hd->conf_path or die $!;
print $f $text;
close $f;
ok $hd->reload, 'reload';
ok $hd->wait_for(sub { $hd->get('/ok')->status == 502 }, 'the check to fail'), 'a reload changes the block';
$hd->stop;
done_testing;
