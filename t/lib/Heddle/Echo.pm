package Heddle::Echo;

# The test module of t/lib/modules/echo: path() builds it when need be and returns the shared
# object (path('NAME'): the module of t/lib/modules/NAME); greeting($hd, $n) the pid and text that a new connection to port $n is greeted with,
# greeted($c) those on a connection that is open; echoes($c) whether it still answers.

use strict;
use warnings;
use Heddle;

sub path {
    my $name = shift // 'echo';
    my $source = "$Heddle::top/t/lib/modules/$name/$name.c";
    my $so = "$Heddle::build/t/$name.so";
    my $program = "$Heddle::build/heddle";
    return $so if -e $so && -M $so < -M $source && -M $so < -M $program;
    open my $f, '<', "$Heddle::build/Makefile" or die "$Heddle::build/Makefile: $!";
    my ($cc) = map { /^CC := (.*)/ ? $1 : () } <$f>;
    mkdir "$Heddle::build/t";
    my $b = $Heddle::build;
    system("make -s -C $Heddle::top BUILD=$b headers >/dev/null 2>&1; cd $Heddle::top &&"
        . " $cc -std=gnu11 -D_GNU_SOURCE -g -fPIC -Wall -Wextra -Werror -fvisibility=hidden"
        . " -I$b/include -Isrc -I$b -I$b/proto -shared -o $so.$$ $source") == 0
        or die "the $name module can't be built\n";
    rename "$so.$$", $so or die "$so: $!";
    return $so;
}

# A Heddle whose configuration begins by loading it.
sub heddle {
    my (%opt) = @_;
    my $conf = delete $opt{conf};
    my $hd = Heddle->new(%opt);
    return $hd->conf(conf_text($conf));
}

sub conf_text { 'load_module ' . path() . ";\n$_[0]" }

sub greeting {
    my ($hd, $n) = @_;
    return greeted($hd->connect($n));
}

# The same on a connection that is open already.
sub greeted {
    my ($c) = @_;
    my $line = $c->read_until(qr{\n}) // "";
    return $line =~ /^(\d+) (.*?)\s*$/ ? ($1, $2) : die "no greeting: $line\n";
}

sub echoes {
    my ($c) = @_;
    $c->send("ping\n");
    return ($c->read_until(qr/\n/) // '') eq "ping\n";
}

1;
