package Heddle::Cert;

# Certificates made on the spot by the openssl command. Used through Heddle.pm:
#
#   my $ca = $hd->make_ca('root');            another name is another root
#   my $int = $ca->make_ca('intermediate');   signed by $ca
#   my $c = $ca->make_cert('page', spiffe => 'spiffe://cluster.local/ns/shop/sa/page');
#       spiffe => [two, of them]  dns => [...]  ip => [...]  email => [...]  expired => 1  not_yet => 1
#       odd_uris => [bytes that are no URIs] (instead of the names above)
#       lives_s => 5 (valid for so long from now)
#       rsa => 1 (else EC P-256)  cn => 'name'  ocsp => 'http://…' (its responder)
#       signs_ocsp => 1 (is a responder's)
#
# Each has cert, key and chain (cert, then the intermediates, in one file): paths in the test's
# directory. A root's `cert` is what a peer trusts. $ca->make_crl('name', $c, ...) is the path of a list of
# what it has revoked.

use strict;
use warnings;
use POSIX qw(strftime);

sub new_root {
    my ($class, $dir, $name) = @_;
    return $class->_make($dir, $name, undef, ca => 1);
}

sub make_ca {
    my ($self, $name, %opt) = @_;
    return (ref $self)->_make($self->{dir}, $name, $self, %opt, ca => 1);
}

sub make_cert {
    my ($self, $name, %opt) = @_;
    return (ref $self)->_make($self->{dir}, $name, $self, %opt);
}

sub list { ref $_[0] eq 'ARRAY' ? @{$_[0]} : defined $_[0] ? ($_[0]) : () }

sub run {
    my (@cmd) = @_;
    my $pid = open my $out, '-|';
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        open STDERR, '>&', \*STDOUT;
        exec @cmd or POSIX::_exit(127);
    }
    my $text = do { local $/; <$out> };
    close $out or die "@cmd failed:\n$text";
}

sub spew {
    my ($path, $text) = @_;
    open my $f, '>', $path or die "$path: $!";
    print $f $text;
    close $f or die "$path: $!";
}

sub slurp {
    my ($path) = @_;
    open my $f, '<', $path or die "$path: $!";
    local $/;
    return <$f>;
}

sub make_crl {
    my ($self, $name, @revoked) = @_;
    my $base = "$self->{dir}/$name";
    my $now = strftime '%y%m%d%H%M%SZ', gmtime;
    my $index = '';
    for my $c (@revoked) {
        my @f = split /\t/, slurp("$self->{dir}/$c->{name}.db/index");
        @f[0, 2] = ('R', $now);
        $index .= join "\t", @f;
    }
    spew("$base.index", $index);
    spew("$base.cnf", "[ca]\ndefault_ca = ours\n[ours]\ndatabase = $base.index\ndefault_md = sha256\n");
    run('openssl', 'ca', '-gencrl', '-config', "$base.cnf", '-keyfile', $self->{key}, '-cert', $self->{cert},
        '-crldays', 30, '-out', "$base.crl");
    return "$base.crl";
}

# GeneralNames of URIs (RFC 5280 §4.2.1.6), short ones.
sub odd_names {
    my $all = join '', map { pack('CC', 0x86, length) . $_ } @_;
    return join ':', map { sprintf '%02x', ord } split //, pack('CC', 0x30, length $all) . $all;
}

# With `openssl ca`, the one command that lets both dates be chosen.
sub _make {
    my ($class, $dir, $name, $issuer, %opt) = @_;
    my $base = "$dir/$name";
    my $self = bless {
        dir => $dir, name => $name, cert => "$base.crt", key => "$base.key",
        chain => "$base.chain.crt",
    }, $class;
    my @san = ((map { "URI:$_" } list($opt{spiffe})), (map { "DNS:$_" } list($opt{dns})),
        (map { "IP:$_" } list($opt{ip})),
        (map { "email:$_" } list($opt{email})));
    my $day = 86400;
    @san = ('DER:' . odd_names(list($opt{odd_uris}))) if $opt{odd_uris};
    my ($from, $to) = (time - $day, time + 30.5 * $day); # far from where a number of days changes
    $to = time + $opt{lives_s} if $opt{lives_s};
    ($from, $to) = (time - 2 * $day, time - $day) if $opt{expired};
    ($from, $to) = (time + $day, time + 2 * $day) if $opt{not_yet};
    my ($start, $end) = map { strftime '%Y%m%d%H%M%SZ', gmtime $_ } $from, $to;

    mkdir "$base.db";
    spew("$base.db/index", '');
    my $signer_crt = $issuer ? "certificate = $issuer->{cert}\nprivate_key = $issuer->{key}\n" : '';
    spew("$base.cnf", <<"EOC");
[req]
distinguished_name = dn
prompt = no
[dn]
O = heddle test
CN = @{[$opt{cn} // $name]}
[ca]
default_ca = ours
[ours]
database = $base.db/index
new_certs_dir = $base.db
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
${signer_crt}[any]
organizationName = optional
commonName = optional
[v3]
basicConstraints = critical, CA:@{[$opt{ca} ? 'TRUE' : 'FALSE']}
keyUsage = critical, @{[$opt{ca} ? 'keyCertSign, cRLSign' : 'digitalSignature, keyEncipherment']}
subjectKeyIdentifier = hash
@{[$opt{ca} ? '' : 'extendedKeyUsage = ' . ($opt{signs_ocsp} ? 'OCSPSigning' : 'serverAuth, clientAuth')]}
@{[$opt{ocsp} ? "authorityInfoAccess = OCSP;URI:$opt{ocsp}" : '']}
@{[@san ? 'subjectAltName = ' . join ', ', @san : '']}
EOC
    run('openssl', 'genpkey', '-out', $self->{key}, $opt{rsa}
        ? ('-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048')
        : ('-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'));
    run('openssl', 'req', '-new', '-config', "$base.cnf", '-key', $self->{key},
        '-out', "$base.csr");
    run('openssl', 'ca', '-batch', '-notext', '-config', "$base.cnf", '-extensions', 'v3',
        '-startdate', $start, '-enddate', $end, '-in', "$base.csr", '-out', $self->{cert},
        $issuer ? () : ('-selfsign', '-keyfile', $self->{key}));

    # The root itself isn't part of what a server sends.
    my $above = $issuer && $issuer->{issuer} ? slurp($issuer->{chain}) : '';
    spew($self->{chain}, slurp($self->{cert}) . $above);
    $self->{issuer} = $issuer;
    return $self;
}

1;
