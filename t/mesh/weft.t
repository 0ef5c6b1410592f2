# What two Heddles multiplex over is agreed on by ALPN, where a server asks its clients for
# certificates; what else is offered stands behind it. And how long they idle. By file and by xDS
# (t/proxy/weft.t has the traffic, t/proxy/weft_ends.t the other reasons to end one).

use strict;
use warnings;
use IPC::Open2;
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

# Whether a link to <port> over which nothing is asked is ended by the server.
sub is_ended {
    my ($port) = @_;
    my ($page, $ca) = @{$t->{certs}}{'page', 'ca'};
    my $pid = open2(my $out, my $in, "exec openssl s_client -quiet -connect 127.0.0.1:$port -servername localhost"
        . " -alpn heddle-weft/1 -cert $page->{cert} -key $page->{key} -CAfile $ca->{cert} 2>&1");
    my $text = '';
    my $is_ended = eval {
        local $SIG{ALRM} = sub { die "still open\n" };
        alarm Heddle::deadline_s();
        while (sysread $out, $text, 4096, length $text) { }
        alarm 0;
        1;
    };
    kill 'TERM', $pid;
    waitpid $pid, 0;
    return $is_ended && $text =~ /\x00{3}\x07\x00{4}/; # GOAWAY
}

my $both = {common_tls_context => {alpn_protocols => ['h2', 'http/1.1']}};
$t->row('clients are asked for certificates', verify => 'on', xds_verify => 'on', file => 'mtls strict;',
    server => 'http2 on;', tls => $both,
    ask => [['GET', '/', {client => 'page', status => 200, check => chooses(0,
        'http/1.1,heddle-weft/1' => 'heddle-weft/1',
        'heddle-weft/1,http/1.1' => 'heddle-weft/1',
        'http/1.1' => 'http/1.1',
    )}]]);
$t->row('a link that idles ends, after GOAWAY', verify => 'on', xds_verify => 'on', file => 'mtls strict;',
    server => 'keepalive_timeout 1s;', hcm => {common_http_protocol_options => {idle_timeout => '1s'}},
    tls => {common_tls_context => {alpn_protocols => ['http/1.1']}},
    ask => [['GET', '/', {client => 'page', status => 200, check => sub { is_ended($_[1]->port('r1')) }}]]);
$t->run;
done_testing;
