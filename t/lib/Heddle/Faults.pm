package Heddle::Faults;

# A kernel that does what it may, but seldom does: t/lib/faults.c, whose head says what.
#
#   for my $seed (Heddle::Faults::seeds(3)) {
#       my $hd = Heddle->new(Heddle::Faults::env($seed))->conf(...);
#
# seeds(N): N of them; HD_FAULTS_SEED=S: just that one, to see a failure again; HD_FAULTS_SEEDS=N: so
# many. A test names the seed wherever it fails. done($hd): how many calls and events were played with in the processes that have ended.

use strict;
use warnings;
use Heddle;

our $missing = $^O eq 'linux' && !Heddle::feature('HD_SANITIZE_THREAD') ? undef : 'not beside this sanitizer';

sub path {
    my $source = "$Heddle::top/t/lib/faults.c";
    my $so = "$Heddle::build/t/faults.so";
    return $so if -e $so && -M $so < -M $source;
    open my $f, '<', "$Heddle::build/Makefile" or die "$Heddle::build/Makefile: $!";
    my ($cc) = map { /^CC := (.*)/ ? $1 : () } <$f>;
    mkdir "$Heddle::build/t";
    system("cd $Heddle::top && $cc -std=gnu11 -O1 -g -fPIC -Wall -Wextra -Werror -shared -o $so.$$ $source -ldl -pthread") == 0
        or die "t/lib/faults.c can't be built\n";
    rename "$so.$$", $so or die "$so: $!";
    return $so;
}

sub seeds {
    my ($n) = @_;
    return $ENV{HD_FAULTS_SEED} if $ENV{HD_FAULTS_SEED};
    return 1 .. ($ENV{HD_FAULTS_SEEDS} // $n);
}

# For Heddle->new.
sub env {
    my ($seed) = @_;
    my $log = File::Temp->new(TEMPLATE => 'heddle-faults-XXXXXX', TMPDIR => 1);
    chmod 0666, "$log"; # workers run as another user
    $ENV{ASAN_OPTIONS} = 'verify_asan_link_order=0:' . ($ENV{ASAN_OPTIONS} // '')
        if ($ENV{ASAN_OPTIONS} // '') !~ /verify_asan_link_order/;
    return (env => {LD_PRELOAD => path(), HD_FAULTS => $seed, HD_FAULTS_LOG => "$log"}, faults_log => $log);
}

sub done {
    my ($hd) = @_;
    open my $f, '<', "$hd->{faults_log}" or die "$hd->{faults_log}: $!";
    my $n = 0;
    while (my $line = <$f>) {
        $n += $_ for $line =~ /\d+/g;
    }
    return $n;
}

1;
