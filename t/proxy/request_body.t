#!/usr/bin/perl
# $request_body (nginx: ngx_http_core_module) where the body was read before the upstream is asked: in fields, in
# another body, in what is passed on instead, in a map; and in logs and answers.
# Holds for nginx, too: HD_PROGRAM=/usr/sbin/nginx (without the rows that it can't answer: see below).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Heddle;

my $hd = Heddle->new->conf(<<'EOC');
http {
    log_format body '$uri|$request_body|$status';
    access_log %%DIR%%/body.log body;
    map $request_body $kind { default other; "" none; ~^a= form; }
    proxy_http_version 1.1;
    client_body_buffer_size 64k;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        add_header X-Answer "$request_body";
        location /field { proxy_set_header X-Body $request_body; proxy_set_header X-Kind $kind; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /set { proxy_set_body "<$request_body>"; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /method { proxy_method PUT; proxy_set_body "$request_method:$request_body:$kind"; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /off { proxy_pass_request_body off; proxy_set_header X-Body $request_body; proxy_set_header Content-Length ""; proxy_pass http://127.0.0.1:%%PORT_1%%; }
        location /url/ { proxy_set_header X-Body $request_body; proxy_pass http://127.0.0.1:%%PORT_1%%/u?kind=$kind; }
        location /next { proxy_set_header X-Body $request_body; proxy_pass http://two; proxy_next_upstream error non_idempotent; }
        location /again { proxy_intercept_errors on; error_page 404 = @again; proxy_pass http://127.0.0.1:%%PORT_2%%; }
        location @again { proxy_set_header X-Body $request_body; proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
    upstream two { server 127.0.0.1:%%PORT_9%% max_fails=0; server 127.0.0.1:%%PORT_1%% backup; }
}
EOC
$hd->backend(1, sub { my ($r) = @_; return {body => join '|', $r->{method}, $r->{uri}, $r->header('x-body') // '-', $r->header('x-kind') // '-', $r->{body} // ''} });
$hd->backend(2, sub { return {status => 404, body => 'no'} });
$hd->start;

my $form = 'a=1&b=2';
is $hd->post('/field', $form)->body, "POST|/field|$form|form|$form", 'in a field, beside the body';
is $hd->post('/field', '')->body, 'POST|/field|-|none|', 'an empty one';
is $hd->get('/field')->body, 'GET|/field|-|none|', 'none';
is $hd->post('/set', $form)->body, "POST|/set|-|-|<$form>", 'in another body';
is $hd->get('/set')->body, 'GET|/set|-|-|<>', '... of nothing';
is $hd->post('/method', $form)->body, "PUT|/method|-|-|POST:$form:form", '... by another method, with a map of it';
is $hd->post('/off', $form)->body, "POST|/off|$form|-|", 'where it isn\'t passed on';
is $hd->post('/url/', $form)->body, "POST|/u?kind=form|$form|-|$form", 'in a URL';
is $hd->post('/next', $form)->body, "POST|/next|$form|-|$form", 'to the next server';
is $hd->post('/again', $form)->body, "POST|/again|$form|-|$form", 'to another location\'s';
is $hd->post('/field', $form)->header('x-answer'), $form, 'in a field of the answer';

# In chunks, byte by byte.
my $conn = $hd->connect(0);
$conn->send("POST /set HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
for my $byte (split //, $form) { $conn->send("1\r\n$byte\r\n") }
$conn->send("0\r\n\r\n");
is $conn->response->body, "POST|/set|-|-|<$form>", 'one that comes in chunks';

# What doesn't lie in memory in one piece has no value: as in nginx, whose limit is client_body_buffer_size.
my $long = 'x' x 20_000;
if ($hd->is_heddle) {
    is $hd->post('/set', $long)->body, 'POST|/set|-|-|<>', 'more than 16 KB: none';
    is $hd->post('/field', $long)->body, "POST|/field|-|none|$long", '... and passed on all the same';
}
is $hd->post('/field', "a=\r\nb")->status, 200, 'a line end';
my ($head) = grep { $_->{uri} eq '/field' && ($_->{body} // '') eq "a=\r\nb" } $hd->requests(1);
is $head->header('x-body'), undef, '... makes no field' if $hd->is_heddle;
$hd->wait_for(sub { (my @lines = split /\n/, $hd->file('body.log')) >= 15 }, 'the log');
my $log = $hd->file('body.log');
like $log, qr{^/$_\|\Q$form\E\|200$}m, "the log: /$_" for qw(field set method off next again);
$hd->stop;
done_testing;
