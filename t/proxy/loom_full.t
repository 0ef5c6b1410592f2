#!/usr/bin/perl
# A configuration for which the loom has no room is refused in words that help, as often as it comes; what was in force
# stays, and the next one that fits is taken: nothing of the one that didn't is in its way.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new(log_level => 'notice', workers => 1);
sub conf {
    my ($n) = @_;
    my $field = 'y' x 200;
    return $hd->conf("loom_size 4m; http {\n" . join('', map { <<"EOC" } 1 .. $n) . '}');
    upstream u$_ { server 127.0.0.1:%%PORT_1%%; }
    server { listen 127.0.0.1:%%PORT_0%%; server_name s$_; location / { add_header X "$_ of $n $field"; return 200 "$_"; } location /u { proxy_pass http://u$_; } }
EOC
}
conf(300)->start;
is $hd->get('/', Host => 's300')->body, 300, 'what fits';
for my $round (1 .. 3) {
    conf(2000 + $round);
    $hd->signal('HUP');
    $hd->expect_log(qr/reload failed: .*: no room .*: raise loom_size; the configuration in force before stays so/) if $round == 1;
    $hd->wait_log(qr/reload failed: .*: raise loom_size/, $round);
    is $hd->get('/', Host => 's300')->body, 300, 'what does not: as before';
}
$hd->wait_for(sub { !$hd->processes('loader') }, 'the last of it to be given back');
conf(299);
$hd->signal('HUP');
$hd->wait_for(sub { ($hd->get('/', Host => 's7')->header('x') // '') =~ /^7 of 299 / }, 'the next that fits');
pass 'the next that fits is taken';
$hd->stop;
done_testing;
