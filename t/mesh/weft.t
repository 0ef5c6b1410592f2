# What two Heddles multiplex over is agreed on by ALPN, where a server asks its clients for
# certificates; what else is offered stands behind it. By file and by xDS (t/proxy/weft.t has
# the traffic).

use strict;
use warnings;
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['mtls'], tls => 1);

# What the server at <port> chooses of <alpn>, as openssl sees it.
sub chosen {
    my ($port, $alpn) = @_;
    my ($page, $ca) = @{$t->{certs}}{'page', 'ca'};
    my $out = qx(openssl s_client -connect 127.0.0.1:$port -servername localhost -alpn $alpn \\
        -cert $page->{cert} -key $page->{key} -CAfile $ca->{cert} </dev/null 2>&1);
    return $out =~ /^ALPN protocol: (\S+)/m ? $1 : $out =~ /^No ALPN/m ? '' : $out;
}

sub chooses {
    my ($row, %want) = @_;
    return sub {
        my ($response, $hd, $way) = @_;
        return !grep { !is chosen($hd->port("r$row"), $_), $want{$_}, "$way, row $row: of $_" } sort keys %want;
    };
}

my $both = {common_tls_context => {alpn_protocols => ['h2', 'http/1.1']}};
$t->row('clients are asked for certificates', verify => 'on', xds_verify => 'on', file => 'mtls strict;',
    server => 'http2 on;', tls => $both,
    ask => [['GET', '/', {client => 'page', status => 200, check => chooses(0,
        'http/1.1,heddle-weft/1' => 'heddle-weft/1',
        'heddle-weft/1,http/1.1' => 'heddle-weft/1',
        'http/1.1' => 'http/1.1',
    )}]]);
$t->run;
done_testing;
