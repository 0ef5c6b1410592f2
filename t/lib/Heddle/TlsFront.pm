package Heddle::TlsFront;

# A TLS server in front of a plain back end, by nginx: core Perl has no TLS.
#
#   use Heddle::TlsFront;
#   $hd->echo_server(1);
#   my $front = Heddle::TlsFront->start($hd, 2 => 1, cert => $c,      what make_cert() gave
#       client_ca => $ca,       asks clients for certificates (verify => 'on': demands)
#       alpn_h2 => 1,           speaks HTTP/2, too
#       protocols => 'TLSv1.2');
#   $front->stop;               at the end of the test at the latest
#
# Heddle's port 2 is then TLS. The back end gets X-Tls-Verify (SUCCESS, NONE, FAILED:why),
# X-Tls-Client (the certificate, URL-encoded PEM), X-Tls-Subject, X-Tls-Sni, X-Tls-Protocol, X-Tls-Alpn,
# X-Tls-Reused (r or .) and X-Tls-Conn (a number for each connection).

use strict;
use warnings;
use Heddle;

sub start {
    my ($class, $hd, $n, $to, %opt) = @_;
    my ($nginx) = grep { -x } '/usr/sbin/nginx', '/usr/local/sbin/nginx', '/usr/bin/nginx';
    die "needs nginx\n" unless $nginx;

    my $front = Heddle->new(program => $nginx, ports => $hd->{ports});
    my $verify = !$opt{client_ca} ? '' : "ssl_client_certificate $opt{client_ca}{cert};\n"
        . 'ssl_verify_client ' . ($opt{verify} // 'optional') . ";\nssl_verify_depth 4;";
    my $h2 = $opt{alpn_h2} ? ' http2' : '';
    my $protocols = $opt{protocols} // 'TLSv1.2 TLSv1.3';
    $front->conf(<<"EOC");
http {
    access_log off;
    client_body_temp_path %%DIR%%/t1; proxy_temp_path %%DIR%%/t2;
    fastcgi_temp_path %%DIR%%/t3; uwsgi_temp_path %%DIR%%/t4; scgi_temp_path %%DIR%%/t5;
    client_max_body_size 0;
    upstream u { server 127.0.0.1:%%PORT_$to%%; keepalive 16; }
    server {
        listen 127.0.0.1:%%PORT_$n%% ssl$h2;
        ssl_certificate $opt{cert}{chain};
        ssl_certificate_key $opt{cert}{key};
        ssl_protocols $protocols;
        $verify
        location / {
            proxy_pass http://u;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host \$http_host;
            proxy_set_header X-Tls-Verify \$ssl_client_verify;
            proxy_set_header X-Tls-Client \$ssl_client_escaped_cert;
            proxy_set_header X-Tls-Subject \$ssl_client_s_dn;
            proxy_set_header X-Tls-Sni \$ssl_server_name;
            proxy_set_header X-Tls-Protocol \$ssl_protocol;
            proxy_set_header X-Tls-Alpn \$ssl_alpn_protocol;
            proxy_set_header X-Tls-Reused \$ssl_session_reused;
            proxy_set_header X-Tls-Conn \$connection;
        }
    }
}
EOC
    # What a client does wrong is the client's matter here.
    $front->{log_ignored} = qr/SSL_do_handshake|SSL_read|SSL_shutdown/;
    return $front->start;
}

1;
