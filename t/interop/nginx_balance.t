#!/usr/bin/perl
# The same upstream block in real nginx and in Heddle: the same requests go to the same servers, in
# the same order. Needs: nginx.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Test::More;
use Heddle;

my $nginx = (grep { -x } map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin')[0];
plan skip_all => 'no nginx' if !$nginx;

my %methods = (
    turn     => 'server S1; server S2; server S3;',
    weights  => 'server S1 weight=5; server S2; server S3 weight=2;',
    uneven   => 'server S1 weight=7; server S2 weight=3; server S3 weight=11; server S4;',
    down     => 'server S1; server S2 down; server S3;',
    least    => 'least_conn; server S1 weight=3; server S2; server S3;',
    key      => 'hash $arg_key; server S1; server S2; server S3;',
    keyw     => 'hash $arg_key; server S1 weight=4; server S2; server S3 down; server S4;',
    ring     => 'hash $arg_key consistent; server S1; server S2; server S3;',
    ringw    => 'hash $arg_key consistent; server S1 weight=3; server S2; server S3 down; server S4;',
    address  => 'ip_hash; server S1; server S2; server S3;',
    addressw => 'ip_hash; server S1 weight=2; server S2 down; server S3; server S4;',
);
my $text = "events {}\nhttp {\n";
for my $m (sort keys %methods) {
    my $servers = $methods{$m} =~ s/S(\d)/127.0.0.1:%%PORT_$1%%/gr;
    $text .= "    upstream $m { $servers }\n";
}
$text .= "    server { listen 127.0.0.1:%%PORT_$_%%; return 200 $_; }\n" for 1 .. 4;
$text .= "    server {\n        listen 127.0.0.1:%%PORT_0%%;\n";
$text .= "        location /$_/ { proxy_pass http://$_/; }\n" for sort keys %methods;
$text .= "    }\n}\n";

# The servers that answered: 20 requests of one client; 200 keys; clients of 60 addresses.
sub answers {
    my ($hd, $m) = @_;
    return join '', map { $hd->get("/$m/?key=key-$_")->body } 1 .. 200 if $m =~ /^(key|ring)/;
    return join '', map { $hd->get("/$m/", {bind => "127.$_.3.4"})->body } 1 .. 60 if $m =~ /^address/;
    return join '', map { $hd->get("/$m/")->body } 1 .. 22;
}

my %said;
my $ports = {};
for my $which ('nginx', 'heddle') {
    my $hd = Heddle->new($which eq 'nginx' ? (program => $nginx) : ());
    $hd->{ports} = $ports; # the servers' names are hashed
    $hd->conf($text)->start;
    $said{$_}{$which} = answers($hd, $_) for sort keys %methods;
    $hd->stop;
}
is $said{$_}{heddle}, $said{$_}{nginx}, "$_: $methods{$_}" for sort keys %methods;
for my $m (sort grep { /^(key|ring|address)/ } keys %methods) {
    my %n;
    $n{$_}++ for split //, $said{$m}{nginx};
    cmp_ok scalar(keys %n), '>', 1, "$m: more than one server";
}
done_testing;
