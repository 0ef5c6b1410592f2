package Heddle::Ocsp;

# OCSP responders (RFC 6960). The genuine one:
#
#   my $pid = Heddle::Ocsp::genuine($hd, $n, $ca, [$cert, ...], [$revoked, ...]);   `openssl ocsp -port` on port n
#
# and a back end that answers as it is told, by the first part of the path:
#
#   my $ocsp = Heddle::Ocsp->start($hd, $n, $ca, signer => $delegated);
#   $ocsp->set('/one' => {status => 'revoked'});      from now on; before that all is good
#   $ocsp->asked('/one');                             how many questions came under this path
#
# What may be told: status => good revoked unknown, this => seconds from now, next => the same (0: isn't said),
# signer => a certificate (with its key), serial => n (about another certificate of this issuer), raw => [status, {headers}, body] or any
# other answer of Heddle::Backend's, garbage => bytes in place of the response, type => the Content-Type.
# Responses are made here and signed by openssl, since `openssl ocsp` lets no times be chosen.

use strict;
use warnings;
use Digest::SHA qw(sha1);
use JSON::XS;
use MIME::Base64;
use POSIX qw(strftime);
use Heddle;

my $json = JSON::XS->new->latin1->canonical;

sub slurp {
    my ($path) = @_;
    open my $f, '<:raw', $path or return '';
    local $/;
    return readline($f) // '';
}

sub spew {
    my ($path, $bytes) = @_;
    open my $f, '>:raw', "$path.new" or die "$path: $!";
    print $f $bytes;
    close $f or die "$path: $!";
    rename "$path.new", $path or die "$path: $!";
}

sub genuine {
    my ($hd, $n, $ca, $certs, $revoked) = @_;
    my $index = $hd->dir . "/ocsp.$n.index";
    my $now = strftime '%y%m%d%H%M%SZ', gmtime;
    my $text = join '', map { slurp("$_->{dir}/$_->{name}.db/index") } @$certs;
    for my $c (@{$revoked || []}) {
        my @f = split /\t/, slurp("$c->{dir}/$c->{name}.db/index");
        @f[0, 2] = ('R', $now);
        $text .= join "\t", @f;
    }
    spew($index, $text);
    my $port = $hd->port($n);
    my $pid = Heddle::Backend::spawn(sub {
        open STDOUT, '>', "$index.log";
        open STDERR, '>&', \*STDOUT;
        exec 'openssl', 'ocsp', '-port', $port, '-index', $index, '-CA', $ca->{cert}, '-rsigner', $ca->{cert},
            '-rkey', $ca->{key}, '-ndays', 2;
    });
    $hd->{backends}{$n} = $pid;
    $hd->wait_for(sub { Heddle::Port::is_listening($port) }, 'the responder to listen');
    return $pid;
}

# ---- DER

sub tlv {
    my ($tag, @content) = @_;
    my $c = join '', @content;
    my $n = length $c;
    return pack('C', $tag) . ($n < 128 ? pack 'C', $n : $n < 256 ? pack 'CC', 0x81, $n : pack 'Cn', 0x82, $n) . $c;
}

# The content of the first element, and that element whole.
sub inner {
    my ($der) = @_;
    my ($tag, $n) = unpack 'CC', $der;
    my $at = 2;
    if ($n & 0x80) {
        my $bytes = $n & 0x7f;
        $n = 0;
        $n = $n << 8 | ord substr $der, $at++, 1 for 1 .. $bytes;
    }
    return (substr($der, $at, $n), substr $der, 0, $at + $n);
}

sub time_at { tlv(0x18, strftime '%Y%m%d%H%M%SZ', gmtime time + $_[0]) }

sub cert_der {
    my ($c) = @_;
    my ($pem) = slurp($c->{cert}) =~ /-----BEGIN CERTIFICATE-----(.*?)-----END/s;
    return decode_base64($pem);
}

# The CertID of a request: OCSPRequest, TBSRequest, requestList, Request, reqCert.
sub cert_id {
    my ($request) = @_;
    ($request) = inner($request) for 1 .. 4;
    return (inner($request))[1];
}

# By which a response says who has signed it: RFC 6960 §4.2.1's KeyHash, of an EC key on P-256.
my %key_hashes;
sub key_hash {
    my ($c) = @_;
    return $key_hashes{$c->{cert}} //= do {
        my ($pem) = `openssl x509 -in $c->{cert} -noout -pubkey` =~ /-----BEGIN PUBLIC KEY-----(.*?)-----END/s;
        sha1(substr decode_base64($pem), -65);
    };
}

my %made; # a machine that is busy should sign once
sub response {
    my ($dir, $request, $how, $ca) = @_;
    my $signer = $how->{signer} || $ca;
    my $key = $json->encode([@$how{qw(status this next serial)}, $signer->{cert}, $request]);
    return $made{$key} if $made{$key} && ($how->{next} // 3600) > 60;
    return $made{$key} = make_response($dir, $request, $how, $signer);
}

sub make_response {
    my ($dir, $request, $how, $signer) = @_;
    my %status = (good => "\x80\x00", unknown => "\x82\x00", revoked => tlv(0xa1, time_at(-60)));
    my $next = $how->{next} // 3600;
    my $about = cert_id($request);
    substr($about, -1) ^= chr $how->{serial} if $how->{serial};
    my $single = tlv(0x30, $about, $status{$how->{status} // 'good'}, time_at($how->{this} // -5),
        $next ? tlv(0xa0, time_at($next)) : '');
    my $tbs = tlv(0x30, tlv(0xa2, tlv(0x04, key_hash($signer))), time_at(0), tlv(0x30, $single));
    spew("$dir/tbs.$$", $tbs);
    my $signature = `openssl dgst -sha256 -sign $signer->{key} $dir/tbs.$$`;
    my $ecdsa_sha256 = tlv(0x30, "\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02");
    my $basic = tlv(0x30, $tbs, $ecdsa_sha256, tlv(0x03, "\0$signature"), tlv(0xa0, tlv(0x30, cert_der($signer))));
    return tlv(0x30, "\x0a\x01\x00", tlv(0xa0, tlv(0x30, "\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01", tlv(0x04, $basic))));
}

# ---- the back end

sub start {
    my ($class, $hd, $n, $ca, %opt) = @_;
    my $self = bless {hd => $hd, n => $n, state => $hd->dir . "/ocsp.$n.json"}, $class;
    my $dir = $hd->dir;
    spew($self->{state}, '{}');
    $hd->backend($n, sub {
        my ($req) = @_;
        my ($path, $rest) = $req->{uri} =~ m{^(/[^/]*)/?(.*)};
        my $how = $json->decode(slurp($self->{state}))->{$path} || {};
        $how->{signer} //= $opt{signer};
        return ref $how->{raw} eq 'HASH' ? {%{$how->{raw}}} : $how->{raw} if $how->{raw};
        my $request = $req->{method} eq 'GET' ? decode_base64($rest =~ s/%([0-9A-F]{2})/chr hex $1/ger) : $req->{body};
        my $body = $how->{garbage} // response($dir, $request, $how, $ca);
        return [200, {'Content-Type' => $how->{type} // 'application/ocsp-response'}, $body];
    });
    return $self;
}

sub set {
    my ($self, %how) = @_;
    my $state = $json->decode(slurp($self->{state}));
    for my $path (keys %how) {
        my %h = %{$how{$path}};
        $h{signer} = {%{$h{signer}}} if $h{signer};
        delete $h{signer}{issuer} if $h{signer};
        $state->{$path} = \%h;
    }
    spew($self->{state}, $json->encode($state));
}

sub asked {
    my ($self, $path) = @_;
    return scalar grep { $_->{uri} =~ m{^\Q$path\E(?:/|$)} } $self->{hd}->requests($self->{n});
}

1;
