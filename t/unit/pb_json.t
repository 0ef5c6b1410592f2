#!/usr/bin/perl
# The JSON that we print of what istiod sent is the JSON that upstream's own library printed
# when it was recorded: values, types of values, and what is left out. And the table of types
# known by URL is complete.
# Needs: a build (objs/tools/pb-paths).
use strict;
use warnings;
use File::Find;
use FindBin;
use JSON::XS ();
use Test::More;

my $top = "$FindBin::Bin/../..";
my $tool = ($ENV{HD_BUILD} // "$top/objs") . '/tools/pb-paths';
my $json = JSON::XS->new->canonical->utf8;

sub slurp {
    open(my $f, '<:raw', $_[0]) or die "$_[0]: $!";
    local $/;
    return <$f>;
}

# {type}{name} = the resource, as text that differs wherever a value or its type differs.
sub resources {
    my %have;
    for (@_) {
        my $response = $json->decode($_);
        for my $r (@{$response->{resources} // []}) {
            my $inner = {%{$r->{resource}}};
            (my $type = delete $inner->{'@type'}) =~ s{.*/}{};
            $have{$type}{$r->{name}} = $json->encode($inner);
        }
    }
    return \%have;
}

my @files = glob "$top/t/fixtures/istiod/*/*-delta.pb";
is @files, 33, 'recordings found';
for my $file (@files) {
    (my $name = $file) =~ s{.*/istiod/}{};
    my @lines = `$tool --json $file`;
    is $?, 0, "$name: printed";
    my $got = resources(@lines);
    (my $recorded = $file) =~ s/\.pb$/.json/;
    my $raw = $json->decode(slurp($recorded));
    my %want;
    for my $type (keys %$raw) {
        $want{$type}{$_->{name}} = $json->encode($_->{resource}) for @{$raw->{$type}};
    }
    is_deeply $got, \%want, "$name: as recorded";
}

my @declared;
find(
    {
        no_chdir => 1,
        wanted => sub {
            return unless /\.proto$/;
            my $text = slurp($_);
            my ($package) = $text =~ /^package (\S+);/m;
            push @declared, map {"$package.$_"} $text =~ /^message (\w+)/mg;
        },
    },
    "$top/src/proto"
);
my @known = split /\n/, `$tool --types`;
is_deeply \@known, [sort @declared], 'every outermost message is known by URL, in order';

done_testing;
