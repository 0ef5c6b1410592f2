#!/usr/bin/perl
# -t: what is wrong in http {} and stream {} is told with its place and what is allowed.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new;
my $path = $hd->conf_path;
my $ca = $hd->make_ca('root');
my $cert = $ca->make_cert('a.example', dns => 'a.example');
my $other = $ca->make_cert('b.example', dns => 'b.example');
my $crt = "$hd->{dir}/certs/a.example.crt";
my $key = "$hd->{dir}/certs/a.example.key";
my $wrong_key = "$hd->{dir}/certs/b.example.key";
$hd->write('garbage.pem', "no certificate\n");
my $port = $hd->port(0);

# In server {}, on line 2 of the file; in a location: the same line.
sub http_ { "http {\n$_[0]\n}" }
sub server { "http {\nserver { listen 127.0.0.1:$port; $_[0] }\n}" }
sub location { server("location / { $_[0] }") }
sub stream { "stream {\n$_[0]\n}" }

my @rows = (
    # charset_map
    [http_('charset_map a a { }'), 2, '"charset_map" between the same charsets "a" and "a"'],
    [http_('charset_map utf-8 a { }'), 2, '"utf-8" must come second'],
    [http_('charset_map a b { 80; }'), 2, 'invalid line "80": two characters are needed'],
    [http_('charset_map a b { 8g 80; }'), 2, 'invalid line "8g"'],
    [http_('charset_map a b { 80 8080; }'), 2, 'invalid value "8080": a byte in two hexadecimal digits'],
    [http_('charset_map a utf-8 { 80 C2; }'), 2, 'invalid value "C2": a character in UTF-8'],
    [http_('charset_map a utf-8 { 80 F09D849E; }'), 2, 'invalid value "F09D849E": a character in UTF-8, of up to three bytes'],
    [http_('charset_map a b;'), 2, 'has no opening "{"'],
    [location('charset a; source_charset b;'), 2, 'no "charset_map" for the charsets "b" and "a"'],
    [location('charset "";'), 2, 'the charset is empty'],
    # said twice
    [http_("upstream u { server 127.0.0.1:1; }\nupstream u { server 127.0.0.1:2; }"), 3, 'duplicate upstream "u"'],
    [location('alias /a; root /b;'), 2, '"root" and "alias" in one block: one of them is enough'],
    # small modules
    [location('empty_gif on;'), 2, 'invalid number of arguments in "empty_gif" directive (1)'],
    [location('random_index yes;'), 2, 'it must be "on" or "off"'],
    [http_('random_index on;'), 2, '"random_index" directive is not allowed here'],
    [location('userid maybe;'), 2, '"maybe"'],
    [location('userid_expires soon;'), 2, 'invalid value "soon": a time as 365d, max or off is allowed'],
    [location('userid_mark xy;'), 2, 'invalid value "xy": a letter, a digit, = or off is allowed'],
    [location('userid_flags secure never;'), 2, 'invalid flag "never": secure, httponly, samesite=strict'],
    [location('userid_service 4294967296;'), 2, 'invalid number "4294967296": 0 to 4294967295'],
    [location('userid_name "a b";'), 2, '"a b" can\'t name a cookie'],
    [location('userid_domain "a;b";'), 2, '"a;b" can\'t stand in a cookie'],
    [location("userid_path \"/\x01\";"), 2, 'can\'t stand in a cookie'],
    [location('modern_browser lynx 1;'), 2, 'unknown browser "lynx": msie, gecko, opera, safari, konqueror are known'],
    [location('modern_browser msie;'), 2, '"msie" needs a version; alone only unlisted may stand'],
    [location('modern_browser msie 1.100;'), 2, 'invalid version "1.100": up to four numbers'],
    [location('modern_browser msie 1.2.3.4.5;'), 2, 'invalid version "1.2.3.4.5"'],
    [location('modern_browser msie 1.;'), 2, 'invalid version "1."'],
    [location('ancient_browser ' . 'w ' x 1001 . ';'), 2, 'more than 1000 words'],
    [http_('upstream u { server 127.0.0.1:1; ' . 'health_check; ' x 17 . '}'), 2, 'more than 16 "health_check" of an upstream'],
    [http_('upstream u { server 127.0.0.1:1; max_stream_duration 50d; }'), 2, '"50d": up to 49 days; 0 for no limit'],
    # listen
    [server('listen;'), 2, 'invalid number of arguments in "listen" directive (0)'],
    [http_('server { listen 0; }'), 2, 'invalid address or port in "0" of the "listen" directive'],
    [http_('server { listen 127.0.0.1:70000; }'), 2, '127.0.0.1:70000'],
    [http_('server { listen *:x; }'), 2, 'invalid port in "*:x" of the "listen" directive'],
    [http_('server { listen nosuch.invalid:80; }'), 2, 'host not found in "nosuch.invalid:80" of the "listen" directive'],
    [http_('server { listen 80 sssl; }'), 2, 'invalid parameter "sssl"; allowed are ssl, http2, default_server'],
    [http_('server { listen 80 backlog=x; }'), 2, 'invalid backlog "x"'],
    [http_('server { listen 80 ipv6only=on; }'), 2, 'ipv6only is only for an IPv6 address'],
    [http_('server { listen [::]:80 ipv6only=yes; }'), 2, 'invalid ipv6only flag "yes": on or off'],
    [http_('server { listen 80 so_keepalive=a:b; }'), 2, '"a" is not a time'],
    [http_('server { listen 80 quic; }'), 2, '"quic" is not supported'],
    [http_('server { listen 80; listen 80; }'), 2, 'a duplicate listen 0.0.0.0:80'],
    [http_("server { listen 80 default_server; }\nserver { listen 80 default_server; }"), 3, 'a duplicate default server for 0.0.0.0:80: the other is in ' . "$path:2"],
    [http_("server { listen 80 backlog=5; }\nserver { listen 80 backlog=6; }"), 3, 'duplicate listen options for 0.0.0.0:80'],
    # server_name
    [server('server_name *x.example;'), 2, 'invalid server name or wildcard "*x.example"'],
    [server('server_name a.*.example;'), 2, 'invalid server name or wildcard "a.*.example"'],
    [server('server_name *;'), 2, 'invalid server name or wildcard "*"'],
    [server('server_name ~;'), 2, 'empty regex in server name "~"'],
    [server('server_name "~(";'), 2, 'missing closing parenthesis'],
    # resolver
    [http_('resolver;'), 2, 'invalid number of arguments in "resolver" directive (0)'],
    [http_('resolver valid=1s;'), 2, 'no name servers defined'],
    [http_('resolver 127.0.0.1 valid=x;'), 2, '"x" is not a time'],
    [http_('resolver 127.0.0.1 valid=0;'), 2, 'valid=: more than 0 is expected'],
    [http_('resolver 127.0.0.1 ipv4=maybe;'), 2, 'invalid parameter "ipv4=maybe": on or off is expected'],
    [http_('resolver 127.0.0.1 ipv4=off ipv6=off;'), 2, '"ipv4" and "ipv6" cannot both be "off"'],
    [http_('resolver 127.0.0.1 status_zone=;'), 2, 'status_zone= without a name'],
    [http_('resolver 127.0.0.1 frob=1;'), 2, 'unknown parameter "frob=1"; allowed are valid=, ipv4=, ipv6=, status_zone='],
    [http_('resolver nosuch.invalid;'), 2, 'host not found in resolver "nosuch.invalid"'],
    [http_('resolver unix:/x;'), 2, 'a name server has an IP address'],
    [http_('resolver 1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4 1.1.1.5 1.1.1.6 1.1.1.7 1.1.1.8 1.1.1.9;'), 2, 'more than 8 name servers'],
    [http_('upstream u { server a.test resolve; }'), 2, 'no resolver defined to resolve names at run time in upstream "u"'],
    [http_('resolver 127.0.0.1; upstream u { server a.test service=http; }'), 2, 'service "http" requires "resolve"'],
    [http_('resolver 127.0.0.1; upstream u { server a.test service= resolve; }'), 2, '"service=" is empty'],
    [http_('resolver 127.0.0.1; upstream u { server a.test:80 service=http resolve; }'), 2, 'with service= the port comes from DNS'],
    [http_('resolver 127.0.0.1; upstream u { server a..test resolve; }'), 2, '"a..test": a name is expected to resolve at run time'],
    [stream('resolver 127.0.0.1; upstream u { server a.test resolve; }'), 2, '"a.test": a name and a port is expected to resolve at run time'],
    [http_('upstream u { server 127.0.0.1; keepalive_ping 1s frob; }'), 2, '"frob": timeout=TIME is allowed here'],
    [http_('upstream u { server 127.0.0.1; keepalive_ping 1s timeout=0; }'), 2, 'a timeout of 1ms or more'],
    [http_('upstream u { server 127.0.0.1; health_check match=m; }'), 2, 'there is no match block "m"'],
    [http_('match m { frob; }'), 2, '"frob": status, header, body, send and expect may stand in match'],
    [http_('match m { status x; }'), 2, 'statuses and ranges are expected'],
    [http_('match m { header a b; }'), 2, '"header": NAME, ! NAME, or NAME =|!=|~|!~ VALUE'],
    [http_('match m { header a < b; }'), 2, '"<": =, !=, ~ or !~ is expected'],
    [http_('match m { body well; }'), 2, '"body": ~ REGEX is expected'],
    [http_('match m { body ~ "("; }'), 2, 'missing closing parenthesis'],
    # sticky
    [http_('upstream u { server 127.0.0.1; sticky cookie; }'), 2, 'invalid number of arguments in "sticky" directive (1)'],
    [http_('upstream u { server 127.0.0.1; sticky token a; }'), 2, 'unknown method "token": cookie, route, learn'],
    [http_('upstream u { server 127.0.0.1; sticky cookie "a b"; }'), 2, '"a b" is no cookie\'s name'],
    [http_('upstream u { server 127.0.0.1; sticky cookie a frob; }'), 2, 'unknown parameter "frob"; allowed are expires=, domain='],
    [http_('upstream u { server 127.0.0.1; sticky cookie a expires=x; }'), 2, '"x" is not a time'],
    [http_('upstream u { server 127.0.0.1; sticky cookie a samesite=x; }'), 2, 'invalid samesite "x": strict, lax, none or a variable'],
    [http_('upstream u { server 127.0.0.1; sticky route a; }'), 2, 'invalid variable name "a"'],
    [http_('upstream u { server 127.0.0.1; sticky route $nosuch; }'), 2, '"nosuch"'],
    [http_('upstream u { server 127.0.0.1; sticky learn create=$uri lookup=$uri; }'), 2, '"learn" wants create=, lookup= and zone=NAME:SIZE'],
    [http_('upstream u { server 127.0.0.1; sticky learn create=$uri lookup=$uri zone=z:1k; }'), 2, 'zone "z:1k" is too small: 32k or more'],
    [http_('upstream u { server 127.0.0.1; sticky learn create=$uri lookup=$uri zone=z; }'), 2, 'invalid zone "z": NAME:SIZE'],
    [http_('upstream u { server 127.0.0.1; sticky learn create=$uri lookup=$uri zone=z:1m sync; }'), 2, 'sync between machines belongs to nginx\'s commercial edition'],
    [http_('upstream u { server 127.0.0.1 route=; }'), 2, 'route=: 1 to 32 characters'],
    # location
    [server('location { }'), 2, 'invalid number of arguments in "location" directive (0)'],
    [server('location == / { }'), 2, 'invalid location modifier "=="'],
    [server('location / { } location / { }'), 2, 'duplicate location "/"'],
    [server('location = /a { } location = /a { }'), 2, 'duplicate location "/a"'],
    [server('location @a { } location @a { }'), 2, 'duplicate location "@a"'],
    [server('location ~ ( { }'), 2, 'missing closing parenthesis'],
    [server('location /a { location /b { } }'), 2, 'location "/b" is outside location "/a"'],
    [server('location = /a { location /a/b { } }'), 2, 'location "/a/b" cannot be inside the exact location "/a"'],
    [server('location @a { location /b { } }'), 2, 'location "/b" cannot be inside the named location "@a"'],
    [server('location /a { location @b { } }'), 2, 'named location "@b" can be on the server level only'],
    ["location / { }", 1, '"location" directive is not allowed here: it may stand in server, location'],
    [http_('location / { }'), 2, '"location" directive is not allowed here'],
    # proxy_pass and its like
    [location('proxy_pass 127.0.0.1:80;'), 2, 'invalid URL prefix in "127.0.0.1:80"'],
    [location('proxy_pass http://;'), 2, 'no host in upstream "http://"'],
    [location('proxy_pass http://nosuch.invalid;'), 2, 'host not found in upstream "nosuch.invalid"'],
    [location('proxy_pass http://127.0.0.1:99999;'), 2, '127.0.0.1:99999'],
    # tunnels
    [server('tunnel_pass 127.0.0.1;'), 2, 'no port in upstream "127.0.0.1"'],
    [server('tunnel_pass nosuch.invalid;'), 2, 'nosuch.invalid'],
    [server('tunnel_pass http://a:1;'), 2, 'invalid "http://a:1": HOST:PORT, unix:PATH or an upstream\'s name is expected'],
    [server('tunnel_pass "";'), 2, 'invalid "": HOST:PORT, unix:PATH or an upstream\'s name is expected'],
    [server('tunnel_pass a:1 b:1;'), 2, 'invalid number of arguments in "tunnel_pass" directive (2)'],
    [server('tunnel_pass $nosuch;'), 2, 'unknown "nosuch" variable'],
    [server("tunnel_pass;\ntunnel_pass;"), 3, '"tunnel_pass" directive is duplicate: it stands in ' . "$path:2"],
    [http_('tunnel_pass;'), 2, '"tunnel_pass" directive is not allowed here'],
    [server('tunnel_next_upstream http_500;'), 2, 'invalid value "http_500"; allowed are error, timeout, denied, off'],
    [server('proxy_next_upstream http_501;'), 2, 'invalid value "http_501"; allowed are error, timeout, invalid_header, http_500'],
    [server('tunnel_allow_upstream;'), 2, 'invalid number of arguments in "tunnel_allow_upstream" directive (0)'],
    [server('tunnel_allow_upstream 1 $nosuch;'), 2, 'unknown "nosuch" variable'],
    [server('tunnel_bind nobody;'), 2, 'nobody'],
    [server('tunnel_bind 127.0.0.1 opaque;'), 2, 'invalid parameter "opaque": transparent'],
    [server('tunnel_bind_dynamic maybe;'), 2, 'maybe'],
    [server('tunnel_read_timeout soon;'), 2, '"soon" is not a time'],
    [http_('geo $x { volatil; }'), 2, 'invalid parameter "volatil": ranges, proxy_recursive or volatile'],
    [location("proxy_pass http://127.0.0.1:1;\nproxy_pass http://127.0.0.1:2;"), 3, '"proxy_pass" directive is duplicate: it stands in ' . "$path:2"],
    [server('location ~ x { proxy_pass http://127.0.0.1:1/x; }'), 2, '"proxy_pass" cannot have URI part in location given by regular expression, or inside named location'],
    [server('location @x { proxy_pass http://127.0.0.1:1/x; }'), 2, '"proxy_pass" cannot have URI part'],
    [server('proxy_pass http://127.0.0.1:1;'), 2, '"proxy_pass" directive is not allowed here: it may stand in location, if, limit_except, server in stream'],
    [location('proxy_pass http://$nosuch;'), 2, 'unknown "nosuch" variable'],
    [location('proxy_pass http://$remote_adr;'), 2, 'unknown "remote_adr" variable: did you mean "$remote_addr"?'],
    [location('proxy_set_header "a b" c;'), 2, '"a b" is not a field name'],
    [location('proxy_set_header X ${host;'), 2, 'the closing bracket in "host" variable is missing'],
    [location('proxy_http_version 3;'), 2, 'invalid value "3" in "proxy_http_version" directive: it must be one of "1.0", "1.1", "2"'],
    [location('proxy_next_upstream sometimes;'), 2, 'invalid value "sometimes"; allowed are error, timeout'],
    [location('proxy_redirect sometimes;'), 2, 'invalid parameter "sometimes": off, default, or FROM TO'],
    [location('proxy_read_timeout soon;'), 2, '"soon" is not a time'],
    [location('proxy_buffers 1 4k;'), 2, 'invalid number of buffers "1"'],
    [http_("upstream u { }\nserver { listen 127.0.0.1:$port; }"), 2, 'upstream "u" has no server'],
    [http_("upstream u { server 127.0.0.1:1;\nhealth_check uri=x; }\n"), 3, 'invalid parameter "uri"; allowed are interval='],
    [http_("upstream u { server 127.0.0.1:1;\nhealth_check type=udp; }\n"), 3, 'type="udp": it is http, grpc or tcp'],
    [http_("upstream u { server 127.0.0.1:1;\noutlier_detection consecutive=5; }\n"), 3, 'unknown parameter "consecutive"; allowed are'],
    [http_("upstream u { server 127.0.0.1:1;\ncircuit_breaker requests=many; }\n"), 3, 'requests="many": a number from 0'],
    [http_("upstream u { server 127.0.0.1:1 wieght=2; }\n"), 2, 'unknown parameter "wieght=2"; allowed are weight='],
    [http_("upstream u { server 127.0.0.1:1; least_conn; ip_hash; }\n"), 2, '"ip_hash" after "least_conn": one of them is enough'],
    [http_("upstream u { server 127.0.0.1:1; hash \$uri sometimes; }\n"), 2, '"sometimes": "consistent" is allowed here'],
    [http_("upstream u { server 127.0.0.1:1; hash \$nosuch; }\n"), 2, 'nosuch'],
    [http_("upstream u { server 127.0.0.1:1 slow_start=soon; }\n"), 2, '"soon" is not a time'],
    [http_("upstream u { server 127.0.0.1:1; random three; }\n"), 2, 'allowed are "random", "random two"'],
    [http_("upstream u { server 127.0.0.1:1; least_time always; }\n"), 2, '"always": "header" or "last_byte"'],
    [http_("upstream u { server 127.0.0.1:1; queue 10; }\n"), 2, 'a queue of requests belongs to nginx\'s commercial edition'],
    # answers
    [location('return;'), 2, 'invalid number of arguments in "return" directive (0)'],
    [location('return okay;'), 2, 'invalid return code "okay"'],
    [location('return 1000;'), 2, 'invalid return code "1000"'],
    [location('return 200 $nosuch;'), 2, 'unknown "nosuch" variable'],
    [http_('return 200;'), 2, '"return" directive is not allowed here'],
    [location('add_header X 1 sometimes;'), 2, 'invalid parameter "sometimes": "always" is meant?'],
    [location('error_page 200 /x;'), 2, 'invalid value "200": a status from 300 to 599'],
    [location('error_page 404 =2 /x;'), 2, 'invalid value "=2"'],
    [location('types { text/html; }'), 2, 'in types a line is TYPE EXTENSION'],
    # rewriting
    [location('if $host { }'), 2, 'invalid condition "$host"'],
    [location('if ($host { }'), 2, 'invalid condition "($host"'],
    [location('if ($host =) { }'), 2, 'invalid condition "="'],
    [location('if ($host == a) { }'), 2, 'invalid condition "=="'],
    [location('if (host = a) { }'), 2, 'invalid condition "host"'],
    [location('if (-q /x) { }'), 2, 'invalid condition "-q"'],
    [location('if ($nosuch) { }'), 2, 'unknown "nosuch" variable'],
    [location('if ($host ~ "(") { }'), 2, 'missing closing parenthesis'],
    [location('if ($host) { if ($host) { } }'), 2, '"if" directive is not allowed here: it may stand in server, location'],
    [server('if ($host) { root /x; }'), 2, '"root" directive is not allowed here'],
    [http_('if ($host) { }'), 2, '"if" directive is not allowed here'],
    [location('rewrite ( /x;'), 2, 'missing closing parenthesis'],
    [location('rewrite ^ "";'), 2, 'empty replacement'],
    [location('rewrite ^ /x first;'), 2, 'invalid parameter "first": last, break, redirect, permanent'],
    [location('rewrite_log maybe;'), 2, 'invalid value "maybe"'],
    # maps
    [http_('geo x { }'), 2, 'invalid variable name "x"'],
    [http_('geo $x { 10.0.0.0/33 a; }'), 2, 'invalid network "10.0.0.0/33"'],
    [http_('geo $x { proxy 10.0.0.0/33; }'), 2, 'invalid network "10.0.0.0/33": ADDRESS or ADDRESS/BITS of proxies'],
    [http_('geo $x { proxy_recursive on; }'), 2, 'invalid network "proxy_recursive"'],
    [stream('geo $x { proxy 10.0.0.0/8; }'), 2, '"proxy" is for geo in http'],
    [http_('geo $x { ranges; 10.0.0.9-10.0.0.1 a; }'), 2, 'invalid range "10.0.0.9-10.0.0.1"'],
    [http_('geo $x { ranges; 10.0.0.1-10.0.0.5 a; 10.0.0.5-10.0.0.6 b; }'), 2, 'overlaps another'],
    [http_('split_clients a $x { 60% a; 50% b; }'), 2, 'invalid percent value "50%"'],
    [http_('split_clients a $x { 1 a; }'), 2, 'invalid percent value "1"'],
    [http_('split_clients a $host { }'), 2, 'the duplicate "host" variable'],
    [http_('map_hash_max_size x;'), 2, '"x" is not a size'],
    [http_('map_hash_bucket_size x;'), 2, '"x" is not a size'],
    [location('add_header_inherit maybe;'), 2, 'invalid value "maybe"'],
    [location('add_trailer X y z;'), 2, 'invalid parameter "z"'],
    [location('server_tokens $x;'), 2, 'a string in server_tokens is not supported'],
    [location('satisfy some;'), 2, 'invalid value "some": all or any'],
    # files
    [location('root $document_root/x;'), 2, 'the $document_root variable may not be used in "root"'],
    [server('location @x { alias /x; }'), 2, '"alias" cannot be used inside the named location'],
    [server('alias /x;'), 2, '"alias" directive is not allowed here'],
    [location('index "";'), 2, 'index "" is invalid'],
    [location('try_files $uri;'), 2, 'invalid number of arguments in "try_files" directive (1)'],
    [location('try_files $uri =x;'), 2, 'invalid code "=x"'],
    [location('client_body_in_file_only perhaps;'), 2, 'invalid value "perhaps" in "client_body_in_file_only" directive: it must be one of "off", "on", "clean"'],
    [location('max_ranges some;'), 2, 'invalid number "some"'],
    [location('disable_symlinks maybe;'), 2, 'invalid parameter "maybe": off, on, if_not_owner'],
    [location('autoindex_format yaml;'), 2, 'invalid value "yaml"'],
    [location('if_modified_since never;'), 2, 'invalid value "never"'],
    [location('gzip_static maybe;'), 2, 'invalid value "maybe"'],
    [location('expires tomorrow;'), 2, 'invalid value "tomorrow"'],
    [location('expires @30h;'), 2, 'invalid value "@30h"'],
    [location('gzip_http_version 2;'), 2, 'invalid value "2": 1.0 or 1.1'],
    [location('gzip_proxied some;'), 2, 'invalid value "some": off, any'],
    [location('gzip_disable "(";'), 2, 'missing closing parenthesis'],
    [location('keepalive_requests 0;'), 2, '"keepalive_requests 0" is out of range: from 1'],
    [location('client_max_body_size 1x;'), 2, '"1x" is not a size'],
    [location('client_header_timeout 1s;'), 2, '"client_header_timeout" directive is not allowed here: it may stand in http, server'],
    [server('merge_slashes maybe;'), 2, 'it must be "on" or "off"'],
    [server('large_client_header_buffers 0 1k;'), 2, 'invalid number of buffers "0"'],
    # variables
    [http_('map $arg_a { a b; }'), 2, 'invalid number of arguments in "map" directive (1)'],
    [http_('map $arg_a b { a b; }'), 2, 'invalid variable name "b": it begins with $'],
    [http_('map $arg_a $host { a b; }'), 2, 'the duplicate "host" variable: it is built in'],
    [http_("map \$arg_a \$b {\na b;\nA c;\n}"), 4, 'conflicting parameter "A"'],
    [http_("map \$arg_a \$b {\na b c;\n}"), 3, 'in map a line is VALUE RESULT'],
    [http_("map \$arg_a \$b {\n~( b;\n}"), 3, 'missing closing parenthesis'],
    [http_("map \$arg_a \$b {\na \$nosuch;\n}"), 3, 'unknown "nosuch" variable'],
    [location('set x 1;'), 2, 'invalid variable name "x": it begins with $'],
    [location('set $host 1;'), 2, 'the duplicate "host" variable: it is built in'],
    [http_('set $x 1;'), 2, '"set" directive is not allowed here: it may stand in server, location'],
    # TLS
    [http_("server { listen 127.0.0.1:$port ssl; }"), 2, 'no "ssl_certificate" is defined for the "listen … ssl" directive in ' . "$path:2"],
    [server("ssl_certificate nothere.crt; ssl_certificate_key nothere.key;") =~ s/$port/$port ssl/r, 2, 'cannot load certificate "' . "$hd->{dir}/nothere.crt" . '": No such file or directory'],
    [server("ssl_certificate $crt; ssl_certificate_key nothere.key;") =~ s/$port/$port ssl/r, 2, 'cannot load certificate key "'],
    [server("ssl_certificate $crt;") =~ s/$port/$port ssl/r, 2, 'no "ssl_certificate_key" is defined for certificate "' . $crt],
    [server("ssl_certificate $crt; ssl_certificate_key $wrong_key;") =~ s/$port/$port ssl/r, 2, 'certificate "' . $crt . '" with key "' . $wrong_key],
    [server("ssl_certificate garbage.pem; ssl_certificate_key $key;") =~ s/$port/$port ssl/r, 2, 'garbage.pem'],
    [server("ssl_certificate $crt; ssl_certificate_key $key; ssl_protocols SSLv3;") =~ s/$port/$port ssl/r, 2, 'invalid value "SSLv3": allowed are TLSv1.2 and TLSv1.3'],
    [server("ssl_certificate $crt; ssl_certificate_key $key; ssl_protocols TLSv1;") =~ s/$port/$port ssl/r, 2, 'no version is left'],
    [server("ssl_certificate $crt; ssl_certificate_key $key; ssl_ciphers nonsense;") =~ s/$port/$port ssl/r, 2, 'nonsense'],
    [server("ssl_certificate $crt; ssl_certificate_key $key; ssl_verify_client on;") =~ s/$port/$port ssl/r, 2, 'no "ssl_client_certificate" or "ssl_trusted_certificate" for ssl_verify_client'],
    [server("ssl_session_cache shared:10m;"), 2, 'invalid session cache "shared:10m": as in shared:SSL:10m'],
    [location("proxy_pass https://127.0.0.1:1; proxy_ssl_verify on;"), 2, 'no "proxy_ssl_trusted_certificate" for proxy_ssl_verify'],
    [location("proxy_pass https://127.0.0.1:1; proxy_ssl_certificate $crt;"), 2, 'no "proxy_ssl_certificate_key" is defined for certificate'],
    [location('limit_except GET FETCH { deny all; }'), 2, 'invalid method "FETCH"'],
    # logs
    [location('access_log x.log nosuch;'), 2, 'unknown log format "nosuch"'],
    [location('access_log x.log combined bufer=1k;'), 2, 'invalid parameter "bufer=1k"; allowed are buffer=SIZE'],
    [location('access_log syslog:tag=x;'), 2, 'no syslog server specified: server=ADDRESS'],
    [location('access_log syslog:server=127.0.0.1 combined buffer=1k;'), 2, 'logs to syslog cannot be buffered'],
    [location('access_log $uri.log combined buffer=1k;'), 2, 'buffered logs cannot have variables in name'],
    [location('access_log x.log combined flush=1s;'), 2, 'flush= without a buffer='],
    [location('access_log x.log combined gzip=10;'), 2, 'invalid compression level "gzip=10": 1 to 9'],
    [location('open_log_file_cache inactive=1s;'), 2, '"open_log_file_cache" must have "max" parameter'],
    [location('open_log_file_cache max=0;'), 2, 'invalid parameter "max=0": off, or max=N'],
    [http_('log_format combined x;'), 2, 'duplicate "log_format" name "combined"'],
    [http_('log_format a escape=xml x;'), 2, 'unknown escaping "escape=xml"'],
    [http_("log_format a \$nosuch;"), 2, 'unknown "nosuch" variable'],
    # stream
    [stream("server { listen 127.0.0.1:$port; }"), 2, 'no "proxy_pass" in this server'],
    [stream("server { proxy_pass 127.0.0.1:1; }"), 2, 'no "listen" is defined for this server'],
    [stream("server { listen 127.0.0.1:$port; proxy_pass 127.0.0.1; }"), 2, 'no port in upstream "127.0.0.1"'],
    [stream("server { listen 127.0.0.1:$port; proxy_pass http://x; }"), 2, '"http://x" is a URL: in stream it is proxy_pass HOST:PORT'],
    [stream("server { listen 127.0.0.1:$port http2; proxy_pass 127.0.0.1:1; }"), 2, 'invalid parameter "http2"; allowed are ssl, default_server, proxy_protocol'],
    [stream("server { listen 127.0.0.1:$port; proxy_pass 127.0.0.1:1; }\nserver { listen 127.0.0.1:$port; proxy_pass 127.0.0.1:1; }"), 3, "duplicate \"127.0.0.1:$port\" address and port pair"],
    [server("listen 127.0.0.1:$port quic;"), 2, '"quic" is not supported'],
    [stream("server { listen 127.0.0.1:$port; proxy_pass 127.0.0.1:1; location / { } }"), 2, '"location" directive is not allowed here'],
    [http_("server { listen 127.0.0.1:$port; }") . "\n" . stream("server { listen 127.0.0.1:$port; proxy_pass 127.0.0.1:1; }"), 5, "duplicate \"127.0.0.1:$port\" address and port pair"],
);

for my $row (@rows) {
    my ($text, $line, $why) = @$row;
    $hd->write('heddle.conf', "$text\nevents {}\n");
    my ($status, $out) = $hd->run('-t');
    my ($name) = $why =~ /^(.{1,70})/;
    ok $status == 1 && $out =~ /^heddle: \[emerg\] \Q$path\E:$line: .*\Q$why\E/m, $name
        or diag "$text\nstatus $status:\n$out";
}

# What is right, or only to be warned of.
for (
    [server('server_name a a;') =~ s/a a;/a;/r . "\n# fine", undef],
    ["http {\nserver { listen 127.0.0.1:$port; server_name x; }\nserver { listen 127.0.0.1:$port; server_name x; }\n}", ":3: conflicting server name \"x\" on 127.0.0.1:$port, ignored"],
    [server('server_name http://x/;'), ':2: server name "http://x/" has suspicious symbols'],
    [server("ssl_certificate $crt; ssl_certificate_key $key; ssl_certificate_key $wrong_key;") =~ s/$port/$port ssl/r, undef],
    [server("ssl_reject_handshake on; ssl_certificate_key $key;") =~ s/$port/$port ssl/r, undef],
    [server("ssl_certificate $crt; ssl_certificate_key $key; ssl_protocols TLSv1 TLSv1.2;") =~ s/$port/$port ssl/r, ':2: TLSv1 is not spoken (RFC 8996)'],
    [server('sendfile on; tcp_nopush on; tcp_nodelay on; server_names_hash_bucket_size 64; types_hash_max_size 2048; client_body_buffer_size 8k;'), undef],
) {
    my ($text, $warning) = @$_;
    $hd->write('heddle.conf', "$text\nevents {}\n");
    my ($status, $out) = $hd->run('-t');
    my @warnings = $out =~ /\[warn\]/g;
    ok $status == 0 && (defined $warning ? $out =~ /\[warn\] \Q$path$warning\E/ : !@warnings),
        $warning // 'fine' or diag "$text\n$out";
}
done_testing;
