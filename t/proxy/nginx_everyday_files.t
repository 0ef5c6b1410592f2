#!/usr/bin/perl
# Files as nginx's users have them are right as they stand: a distribution's, an optimised static site's, a TLS
# generator's, those of nginx's documentation. `heddle -t` takes each; of what has no effect it warns.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

sub takes {
    my ($what, $text, %files) = @_;
    my $hd = Heddle->new->conf($text);
    my $ca = $hd->make_ca('root');
    $ca->make_cert('shop.example', dns => ['shop.example', 'www.shop.example']);
    mkdir $hd->dir . "/$_" for grep { defined } map { m{^(.*)/} } keys %files;
    $hd->write($_, $files{$_}) for keys %files;
    my ($status, $out) = $hd->run('-t');
    is $status, 0, "$what is right" or diag $out;
    return $out;
}

my $types = "types {\n    text/html html htm shtml;\n    text/css css;\n    image/svg+xml svg svgz;\n    application/javascript js;\n    font/woff2 woff2;\n}\n";
my $out = takes("a distribution's file", <<'EOC', 'mime.types' => $types, 'sites/default' => <<'EOS', 'modules/50.conf' => "load_module modules/ngx_http_geoip2_module.so;\n") if !$ENV{HD_PROGRAM};
user www-data;
worker_processes auto;
pid %%DIR%%/nginx.pid;
error_log %%DIR%%/error.log;
include %%DIR%%/modules/*.conf;

events {
    worker_connections 768;
    # multi_accept on;
}

http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    server_tokens build;
    include %%DIR%%/mime.types;
    default_type application/octet-stream;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    access_log %%DIR%%/access.log;
    gzip on;
    include %%DIR%%/conf.d/*.conf;
    include %%DIR%%/sites/*;
}
EOC
server {
    listen 127.0.0.1:%%PORT_0%% default_server;
    root /var/www/html;
    index index.html index.htm index.nginx-debian.html;
    server_name _;
    location / {
        try_files $uri $uri/ =404;
    }
    location ~ /\.ht {
        deny all;
    }
}
EOS
like $out, qr/50.conf:1: "modules\/ngx_http_geoip2_module.so" is a module of nginx: not loaded/, '... with a word on the module' if !$ENV{HD_PROGRAM};

takes('an optimised static site', <<'EOC', 'mime.types' => $types);
worker_processes auto;
worker_rlimit_nofile 8192;
events { worker_connections 8000; }
http {
    server_tokens off;
    include %%DIR%%/mime.types;
    default_type application/octet-stream;
    charset utf-8;
    charset_types text/css text/plain text/vnd.wap.wml application/javascript application/json application/rss+xml application/xml;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_x_forwarded_for"';
    access_log %%DIR%%/access.log main;
    keepalive_timeout 20s;
    sendfile on;
    tcp_nopush on;
    gzip on;
    gzip_comp_level 5;
    gzip_min_length 256;
    gzip_proxied any;
    gzip_vary on;
    gzip_types application/atom+xml application/javascript application/json image/svg+xml text/css;
    map $sent_http_content_type $expires {
        default 1y;
        "" off;
        ~*text/css 1y;
        ~*application/json 0;
        ~*text/html epoch;
        ~*image/ 1M;
    }
    map $sent_http_content_type $x_frame_options { ~*text/html DENY; }
    map $sent_http_content_type $content_security_policy { ~*text/(html|javascript)|application/pdf|xml "default-src 'self'; base-uri 'none'"; }
    map $sent_http_content_type $cors { ~*image/ "*"; }
    server {
        listen 127.0.0.1:%%PORT_0%% default_server deferred;
        server_name _;
        return 444;
    }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name www.shop.example;
        return 301 $scheme://shop.example$request_uri;
    }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name shop.example;
        root %%DIR%%;
        error_page 404 /404.html;
        expires $expires;
        add_header X-Frame-Options $x_frame_options always;
        add_header Content-Security-Policy $content_security_policy always;
        add_header Access-Control-Allow-Origin $cors;
        add_header X-Content-Type-Options nosniff always;
        add_header Referrer-Policy strict-origin-when-cross-origin always;
        location ~* /\.(?!well-known\/) { deny all; }
        location ~* (?:#.*#|\.(?:bak|conf|dist|fla|in[ci]|log|orig|psd|sh|sql|sw[op])|~)$ { deny all; }
        location ~* ^(.+)\.(?:\w+)\.(avifs?|bmp|css|gif|ico|jpe?g|js|png|svgz?|webp)$ { try_files $uri $1.$2; }
        open_file_cache max=1000 inactive=20s;
        open_file_cache_valid 30s;
        open_file_cache_min_uses 2;
        open_file_cache_errors on;
        if_modified_since exact;
        reset_timedout_connection on;
        client_body_timeout 12; client_header_timeout 12; send_timeout 10;
        large_client_header_buffers 2 1k; client_body_buffer_size 10k; client_header_buffer_size 1k; client_max_body_size 8m;
    }
}
EOC

takes("a TLS generator's file", <<'EOC');
events {}
http {
    server {
        listen 127.0.0.1:%%PORT_0%% default_server;
        location / { return 301 https://$host$request_uri; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% ssl http2;
        ssl_certificate %%DIR%%/certs/shop.example.crt;
        ssl_certificate_key %%DIR%%/certs/shop.example.key;
        ssl_session_timeout 1d;
        ssl_session_cache shared:MozSSL:10m;
        ssl_session_tickets off;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ecdh_curve X25519:prime256v1:secp384r1;
        ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256;
        ssl_prefer_server_ciphers off;
        add_header Strict-Transport-Security "max-age=63072000" always;
        ssl_trusted_certificate %%DIR%%/certs/shop.example.crt;
        resolver 127.0.0.1 valid=300s;
        resolver_timeout 5s;
        location / { return 200 ok; }
    }
}
EOC

takes('load balancing, media and WebSockets', <<'EOC');
worker_processes 2;
timer_resolution 100ms;
events { use epoll; worker_connections 1024; accept_mutex off; }
http {
    upstream backend { least_conn; server 127.0.0.1:%%PORT_1%% weight=5; server 127.0.0.1:%%PORT_2%% max_fails=3 fail_timeout=30s; server 127.0.0.1:%%PORT_3%% backup; keepalive 32; }
    upstream hashed { hash $request_uri consistent; server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%% down; }
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    limit_req_zone $binary_remote_addr zone=one:10m rate=10r/s;
    limit_conn_zone $binary_remote_addr zone=addr:10m;
    server {
        listen 127.0.0.1:%%PORT_0%% backlog=1024 reuseport so_keepalive=30m::10;
        server_name shop.example;
        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Connection "";
            proxy_connect_timeout 90; proxy_send_timeout 90; proxy_read_timeout 90; proxy_buffer_size 4k; proxy_buffers 4 32k; proxy_busy_buffers_size 64k; proxy_temp_file_write_size 64k;
            proxy_socket_keepalive on;
            limit_req zone=one burst=5 nodelay; limit_conn addr 10;
        }
        location /chat/ { proxy_pass http://hashed; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }
        location /video/ { sendfile on; aio threads; directio 8m; output_buffers 1 128k; root %%DIR%%; limit_rate_after 500k; limit_rate 50k; }
        location /old { keepalive_disable msie6 safari; keepalive_timeout 65 60; return 200 old; }
        location /basic_status { stub_status; allow 127.0.0.1; deny all; }
    }
}
EOC
done_testing;
