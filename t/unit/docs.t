# The documents hold together: each module has its page, each page is on the map, what is linked is there.
use strict;
use warnings;
use File::Copy qw(cp);
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

chdir "$FindBin::Bin/../..";

sub load { my $f = shift; local $/; open my $h, '<', $f or die "$f: $!"; <$h> }

my @modules = grep { $_ ne 'lib' } map { m{([^/]+)/$} } glob 'modules/*/';
cmp_ok scalar @modules, '>=', 7, "@modules";
for my $m (@modules) {
    my $page = "docs/modules/$m.md";
    ok -f $page, "$m has its page" or next;
    my $text = load($page);
    like $text, qr/\A# $m: \S/, "$page: begins with what it is for";
    my %directive = map { $_ => 1 } map { load($_) =~ /\.name = "(\w+)",\n\s+\.scope/g } glob "modules/$m/*.c";
    ok scalar(grep { $text =~ /\b\Q$_\E/ } keys %directive), "$page: shows directives of its own" if %directive;
}
is_deeply [grep { my $m = m{([^/]+)\.md$} && $1; !grep { $_ eq $m } @modules } glob 'docs/modules/*.md'], [],
    'no page without a module';

my $map = load('docs/README.md');
like $map, qr/`\Q$_\E`/, "docs/README.md has $_" for grep { $_ ne 'README.md' } map { m{([^/]+)$} } glob 'docs/*.md';

# Attacks: each test that is named for one, or for a class of them, is there, and is on the page.
{
    my $page = load('docs/attacks.md');
    my %named = map { $_ => 1 } $page =~ /`((?:t|fuzz)\/[\w\/.-]+)`/g;
    is_deeply [grep { !-f } sort keys %named], [], 'docs/attacks.md: each test is there';
    is_deeply [grep { !$named{$_} } glob('t/*/attacks_*.t')], [], 'each test of attacks is on the page';
}

# The page for nginx's users: a directive that it says is the same, or is taken, is known; one that is left out isn't.
{
    my $build = $ENV{HD_BUILD} // 'objs';
    my %known = map { /^\{"name": "(\w+)"/ ? ($1 => 1) : () } `$build/heddle --print-directives $build/modules/*.so`;
    cmp_ok scalar keys %known, '>', 200, 'the program prints its directives';
    $known{include} = 1; # the grammar's own
    my %part = load('docs/nginx-users.md') =~ /^## ([^\n]*)\n(.*?)(?=^## |\z)/gms;
    for my $part ('The same', 'Taken, without effect', 'Beyond nginx') {
        my @named = grep { !/^(?:weight|max_conns|max_fails|fail_timeout|slow_start|backup|down|resolve|service|route|drain)$/ } $part{$part} =~ /`([a-z][a-z0-9_]+)`/g;
        cmp_ok scalar @named, '>', 10, "$part: directives";
        is_deeply [grep { !$known{$_} } @named], [], "$part: each is there";
    }
    my @absent = map { /^\|(.*?)\|/ ? $1 =~ /`([a-z][a-z0-9_]+)`/g : () } split /\n/, $part{'Not there'};
    cmp_ok scalar @absent, '>', 20, 'Not there: directives';
    is_deeply [grep { $known{$_} && $_ ne 'queue' } @absent], [], 'Not there: none is there';
}

# The configurations to begin with are right, and so is the node that the guide shows.
{
    my $program = ($ENV{HD_BUILD} // 'objs') . '/heddle';
    my $top = tempdir(CLEANUP => 1);
    mkdir "$top/$_" or die $! for 'conf', 'logs', 'ca', 'mesh';
    cp($_, "$top/conf") or die "$_: $!" for glob 'conf/*';
    my ($node) = load('docs/getting-started.md') =~ /^```\n(\{"id".*?)^```/ms or die 'no node';
    for (['conf/node.json', $node], ['conf/token', "0123456789abcdef\n"], ['tokens', "0123456789abcdef shop page\n"]) {
        open my $h, '>', "$top/$_->[0]" or die $!;
        print {$h} $_->[1];
        close $h or die $!;
    }
    chmod 0600, "$top/tokens";
    for my $file (map { m{([^/]+)$} } glob 'conf/*.conf') {
        my $said = `$program -t -p $top -c conf/$file -e logs/error.log 2>&1`;
        is $?, 0, "conf/$file is right" or diag $said;
        unlike $said, qr/\[(?:warn|error|emerg)\]/, "conf/$file: no warning";
    }
}

my @pages = ('README.md', glob('docs/*.md'), glob('docs/modules/*.md'), glob('*/README.md'), glob('src/*/README.md'));
my $links = 0;
for my $page (@pages) {
    my ($dir) = $page =~ m{^(.*/)?[^/]+$};
    for my $to (load($page) =~ /\]\(([^)\s]+)\)/g) {
        next if $to =~ /^(https?:|#)/;
        $links++;
        my $path = ($dir // '') . $to =~ s/#.*//r;
        ok -e $path, "$page: $to is there";
    }
}
cmp_ok $links, '>=', 5, 'links were found';
done_testing;
