# gzip: which answers are compressed, by a file and by xDS (envoy.filters.http.compressor); what comes out is
# what went in, however large and in whatever pieces. Differences to nginx: t/interop/nginx/14-gzip.

use strict;
use warnings;
use Test::More;
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['gzip']);
my $text = join '', map { "line $_ of some text\n" } 1 .. 20000;

sub compressor {
    my (%response) = @_;
    return [{
        name => 'envoy.filters.http.compressor',
        typed_config => {
            '@type' => 'type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor',
            response_direction_config => \%response,
            compressor_library => {
                name => 'gzip',
                typed_config => {
                    '@type' => 'type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip',
                    compression_level => 'BEST_SPEED', window_bits => 15, memory_level => 9,
                },
            },
        },
    }];
}

sub answer {
    my (%head) = @_;
    my $body = delete $head{body} // $text;
    return sub { [200, {'Content-Type' => 'text/plain', %head}, $body] };
}

sub unpacked {
    my ($want) = @_;
    return sub {
        my ($res) = @_;
        my $body = $res->body;
        gunzip(\$body => \my $plain) or return 0;
        return $plain eq $want && length($body) < length($want) / 2
            && ($res->header('content-encoding') // '') eq 'gzip' && ($res->header('vary') // '') =~ /accept-encoding/i;
    };
}

sub plain { my ($want) = @_; return sub { $_[0]->body eq $want && !defined $_[0]->header('content-encoding') } }

my @wanted = ('Accept-Encoding' => 'gzip');
my $file = 'gzip on; gzip_vary on; gzip_types text/plain; gzip_min_length 30;';
$t->row('a large text', file => $file, xds => compressor(), backend => answer(),
    ask => [
        ['GET', '/', {status => 200, check => unpacked($text)}, @wanted],
        ['GET', '/', {status => 200, check => plain($text)}],
        ['GET', '/', {status => 200, check => plain($text)}, 'Accept-Encoding' => 'gzip;q=0'],
    ]);
$t->row('an ETag becomes weak', file => $file, xds => compressor(), backend => answer(ETag => '"a"'),
    ask => [['GET', '/', {head => qr/^etag: W\/"a"\r$/mi, check => unpacked($text)}, @wanted]]);
$t->row('a short text', file => $file, xds => compressor(), backend => answer(body => 'short'),
    ask => [['GET', '/', {check => plain('short')}, @wanted]]);
$t->row('a minimum', file => 'gzip on; gzip_types text/plain; gzip_min_length 1000;',
    xds => compressor(common_config => {min_content_length => 1000}), backend => answer(body => 'x' x 999),
    ask => [['GET', '/', {check => plain('x' x 999)}, @wanted]]);
$t->row('another type', file => $file, xds => compressor(), backend => answer('Content-Type' => 'image/png'),
    ask => [['GET', '/', {check => plain($text)}, @wanted]]);
$t->row('a type that is named', file => 'gzip on; gzip_vary on; gzip_types image/png;',
    xds => compressor(common_config => {content_type => ['image/png']}), backend => answer('Content-Type' => 'image/png; a=b'),
    ask => [['GET', '/', {check => unpacked($text)}, @wanted]]);
$t->row('it is compressed already', file => $file, xds => compressor(), backend => answer('Content-Encoding' => 'br'),
    ask => [['GET', '/', {check => sub { $_[0]->body eq $text }}, @wanted]]);
$t->row('off', file => 'gzip off;', xds => compressor(common_config => {enabled => {default_value => JSON::XS::false(), runtime_key => 'x'}}),
    backend => answer(), ask => [['GET', '/', {check => plain($text)}, @wanted]]);
$t->run;

# gunzip and $gzip_ratio: by a file only.
my $hd = Heddle->new(modules => ['gzip', 'access_log'])->conf(<<'EOC');
http {
    log_format ratio "$uri $gzip_ratio";
    access_log %%DIR%%/ratio.log ratio;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        root %%DIR%%;
        default_type text/html;
        location /z/ { gzip on; gzip_comp_level 6; }
        location /u/ { gunzip on; gzip_static always; }
    }
}
EOC
sub make { my ($name, $bytes) = @_; open my $f, '>:raw', "$hd->{dir}/$name" or die $!; print $f $bytes; close $f }
mkdir "$hd->{dir}/$_" for 'z', 'u';
use IO::Compress::Gzip qw(gzip);
gzip(\$text => \my $packed);
make('z/text', $text);
make('u/good.gz', $packed . $packed);
make('u/cut.gz', substr($packed, 0, 5000));
make('u/bad.gz', substr($packed, 0, 5000) . 'x' x 5000);
$hd->start;
ok unpacked($text)->($hd->get('/z/text', @wanted)) || $hd->get('/z/text', @wanted)->body ne $text, 'a file';
$hd->wait_for(sub { $hd->file('ratio.log') =~ m{^/z/text \d+\.\d\d$}m }, 'its ratio in the log');
is $hd->get('/u/good')->body, $text . $text, 'gunzip, of two members';
ok $hd->get("/u/$_")->is_cut, "gunzip, $_: the answer is cut off" for 'cut', 'bad';

# A bomb: 250 KB that are 256 MB. It is unpacked as the client takes it, so that the worker never holds it.
my $size = 256 << 20;
{
    my $z = IO::Compress::Gzip->new("$hd->{dir}/u/bomb.gz") or die "bomb: $IO::Compress::Gzip::GzipError";
    my $zeros = "\0" x (1 << 20);
    $z->print($zeros) for 1 .. $size >> 20;
    $z->close;
}
cmp_ok -s "$hd->{dir}/u/bomb.gz", '<', 1 << 20, 'a small file';
my $c = $hd->connect(0);
$c->send("GET /u/bomb HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
my ($got, $some) = (0);
while (length($some = $c->read_bytes(1 << 20))) { $got += length $some }
cmp_ok $got, '>=', $size, 'it is answered';
SKIP: {
    skip 'a sanitizer has memory of its own', 1 if Heddle::is_sanitized();
    my ($worker) = $hd->workers;
    open my $f, '<', "/proc/$worker/status" or die $!;
    my ($peak_kb) = do { local $/; <$f> } =~ /^VmHWM:\s+(\d+)/m;
    cmp_ok $peak_kb, '<', 64 << 10, "the worker never had it: at most $peak_kb KB";
}
like $hd->get('/z/text', @wanted)->head, qr/^Transfer-Encoding: chunked\r$/m, 'the length is not known';

for (
    ['gzip maybe;', qr/invalid value "maybe"/],
    ['gzip_comp_level 10;', qr/1 to 9|between 1 and 9/],
    ['gzip_types;', qr/invalid number of arguments/],
) {
    my ($line, $want) = @$_;
    my $h = Heddle->new(modules => ['gzip'])->conf("http { server { listen 127.0.0.1:%%PORT_0%%;\n$line\n} }");
    my ($status, $out) = $h->run('-t');
    like $out, $want, $line;
}
done_testing;
