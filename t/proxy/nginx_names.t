#!/usr/bin/perl
# nginx's names: each directive of its documentation outside mail and stream is known here, or
# docs/nginx-users.md says that it isn't; so is each variable, and those that are there can be used.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

sub slurp { my ($path) = @_; open my $in, '<', $path or die "$path: $!"; local $/; return scalar <$in> }

# What stands between backquotes in the tables' first columns and in the list of variables;
# `fastcgi_…` stands for all names that begin so.
my $page = slurp('docs/nginx-users.md');
my ($absent) = $page =~ /^(## Not there.*?)^## Beyond nginx/ms or die 'no such chapter';
my ($list) = $absent =~ /^Variables that are not there:(.*?)\. All others/ms or die 'no list of variables';
my %absent = map { $_ => 1 } map { /`([^`]+)`/g } $absent =~ /^\|([^|]+)\|/mg, $list;
my @stems = map { s/…$//r } grep { /…$/ } keys %absent;
sub is_told { my ($name) = @_; return $absent{$name} || grep { index($name, $_) == 0 } @stems }

my %known;
for (`$Heddle::build/heddle --print-directives`) {
    my ($name, $contexts) = /^\{"name": "([^"]+)".*?"contexts": "([^"]*)"/;
    $known{$name} = 1 if grep { !/^stream|in stream/ } split /, /, $contexts;
}
$known{$_} = 1 for slurp("$Heddle::build/modules/modules.index") =~ /^directive (\S+)/mg;
$known{include} = 1;    # of the language itself
cmp_ok scalar(keys %known), '>', 300, 'directives are printed';

my %told;
for my $line (split /\n/, slurp('t/fixtures/nginx-directives.txt')) {
    next if $line =~ /^#/;
    my ($module, @names) = split /:? /, $line;
    my @missing = grep { !$known{$_} && !is_told($_) } @names;
    is "@missing", '', "$module: each directive is there or named";
    my @both = grep { $known{$_} && $absent{$_} } @names;
    is "@both", '', "$module: what is named as missing is missing";
    $told{$_} = 1 for @names;
}

# A configuration for each variable that can be used anywhere: its module loads itself.
my (@there, @gone);
for my $name (split ' ', slurp('t/fixtures/nginx-variables.txt') =~ s/^#.*$//gmr) {
    push @{is_told("\$$name") ? \@gone : \@there}, $name;
}
cmp_ok scalar(@there), '>', 100, 'variables are listed';
my $hd = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; set \$limit_rate 0; return 200 \""
    . join('|', map { "\${$_}" } @there) . "\"; } }\n");
my ($status, $text) = $hd->run('-t');
is $status, 0, 'each variable that should be there can be used' or diag $text;
for my $name (@gone) {
    my $t = Heddle->new->conf("http { server { listen 127.0.0.1:%%PORT_0%%; return 200 \"\$$name\"; } }\n");
    ($status, $text) = $t->run('-t');
    like $text, qr/unknown "\Q$name\E" variable|\Q$name\E/, "\$$name is named as missing, and is";
    isnt $status, 0, '... an error';
}

# And none crashes, whatever there is to tell.
$hd->start;
my @values = split /\|/, $hd->get('/')->body, -1;
is scalar(@values), scalar(@there), 'each has a value, empty or not';
done_testing;
