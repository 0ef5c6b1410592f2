# lua: policies by script, from a file and by xDS; what a script can't do, and that its
# failures are its request's, with the reason in the log.

use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use Test::More;
use Heddle;
use Heddle::TwoWays;

my $t = Heddle::TwoWays->new(modules => ['lua'], tls => 1);

sub lua {
    return [{name => 'envoy.filters.http.lua', typed_config => {
        '@type' => 'type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua',
        default_source_code => {inline_string => $_[0]},
    }}];
}

$t->row('refuses by a field',
    file => 'access_by_lua_block { if hd.req.header("X-Age") ~= "18" then hd.exit(403, "too young\n") end }',
    xds => lua('function envoy_on_request(h)
        if h:headers():get("x-age") ~= "18" then h:respond({[":status"] = "403"}, "too young\n") end
    end'),
    ask => [
        ['GET', '/', {status => 403, body => qr/\Atoo young\n\z/, tries => 0}],
        ['GET', '/', {status => 200, tries => 1}, 'X-Age' => '18'],
    ]);
$t->row('changes what the upstream gets',
    file => 'access_by_lua_block { hd.req.set_header("X-By", "lua " .. hd.req.method); hd.req.set_header("X-Secret", nil) }',
    xds => lua('function envoy_on_request(h)
        h:headers():replace("X-By", "lua " .. h:headers():get(":method"))
        h:headers():remove("x-secret")
    end'),
    ask => [['GET', '/', {status => 200, upstream => qr/^x-by: lua GET\r$/mi,
        check => sub { $_[0]->body !~ /secret/i }}, 'X-Secret' => 'a', 'X-By' => 'me']]);
$t->row('changes the response\'s head',
    file => 'header_filter_by_lua_block { hd.res.set_header("X-Seen", hd.res.status .. ""); hd.res.set_header("X-Up", nil) }',
    xds => lua('function envoy_on_response(h)
        h:headers():add("X-Seen", h:headers():get(":status"))
        h:headers():remove("x-up")
    end'),
    backend => sub { [201, ['X-Up' => 'a'], 'made'] },
    ask => [['GET', '/', {status => 201, head => qr/^x-seen: 201\r$/mi, no_head => qr/^x-up/mi}]]);
$t->row('sees all fields',
    file => 'access_by_lua_block { local n = 0 for k, v in pairs(hd.req.headers()) do if k == "x-one" and v == "1" then n = n + 1 end end
        hd.exit(200, "n=" .. n) }',
    xds => lua('function envoy_on_request(h)
        local n = 0
        for k, v in pairs(h:headers()) do if k == "x-one" and v == "1" then n = n + 1 end end
        h:respond({[":status"] = "200"}, "n=" .. n)
    end'),
    ask => [['GET', '/', {status => 200, body => qr/\An=1\z/}, 'X-One' => '1']]);
$t->row('logs',
    file => 'access_by_lua_block { hd.log("warn", "hello of " .. hd.req.path) }',
    xds => lua('function envoy_on_request(h) h:logWarn("hello of " .. h:headers():get(":path")) end'),
    ask => [['GET', '/there', {status => 200, log => qr{\[warn\].*lua: hello of /there}}]]);
$t->row('an error is 500, and told (never let in)',
    file => 'access_by_lua_block { local x = nil; hd.log(x.y) }',
    xds => lua("function envoy_on_request(h)\n local x = nil; h:logInfo(x.y)\nend"),
    ask => [['GET', '/', {status => 500, tries => 0, log => qr/attempt to index local 'x'/}]]);
$t->row('one that never ends is stopped, whatever it hides in',
    file => 'access_by_lua_block { while true do pcall(function() while true do end end) end }',
    xds => lua('function envoy_on_request(h) while true do pcall(function() while true do end end) end end'),
    ask => [['GET', '/', {status => 500, tries => 0, log => qr/more than 1000000 instructions/}],
        ['GET', '/', {status => 500}]]);
$t->row('one that eats memory is stopped',
    file => 'access_by_lua_block { local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(100000) .. i end }',
    xds => lua('function envoy_on_request(h) local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(100000) .. i end end'),
    ask => [['GET', '/', {status => 500, tries => 0, log => qr/lua: more memory than/}],
        ['GET', '/', {status => 500}]]);
$t->row('no way out of the sandbox',
    file => 'access_by_lua_block {
        for _, name in ipairs({"os", "io", "ffi", "debug", "package", "require", "load", "loadstring", "loadfile",
            "dofile", "setfenv", "getfenv", "rawset", "collectgarbage", "newproxy", "_G", "jit", "coroutine"}) do
            local ok, v = pcall(function() return ({os=os, io=io, ffi=ffi, debug=debug, package=package,
                require=require, load=load, loadstring=loadstring, loadfile=loadfile, dofile=dofile,
                setfenv=setfenv, getfenv=getfenv, rawset=rawset, collectgarbage=collectgarbage,
                newproxy=newproxy, _G=_G, jit=jit, coroutine=coroutine})[name] end)
            if v ~= nil then hd.exit(200, "there is " .. name) end
        end
        if string.dump or getmetatable("") or getmetatable(hd) then hd.exit(200, "metatables") end
        hd.exit(403, "closed")
    }',
    xds => lua('function envoy_on_request(h)
        local all = {os, io, ffi, debug, package, require, load, loadstring, loadfile, dofile, setfenv, getfenv,
            rawset, collectgarbage, newproxy, _G, jit, coroutine}
        if next(all) or string.dump or getmetatable("") or getmetatable(h) then h:respond({[":status"] = "200"}, "out") end
        h:respond({[":status"] = "403"}, "closed")
    end'),
    ask => [['GET', '/', {status => 403, body => qr/\Aclosed\z/}]]);
$t->row('identity',
    file => 'access_by_lua_block { hd.req.set_header("X-Who", tostring(hd.peer.namespace) .. "/" .. tostring(hd.peer.service_account)) }',
    xds => lua('function envoy_on_request(h) h:headers():replace("X-Who", tostring(hd.peer.namespace) .. "/" .. tostring(hd.peer.service_account)) end'),
    ask => [
        ['GET', '/', {status => 200, client => 'page', upstream => qr{^x-who: shop/page\r$}mi}],
        ['GET', '/', {status => 200, client => 'nobody', upstream => qr{^x-who: nil/nil\r$}mi}, 'X-Who' => 'shop/page'],
    ]);
$t->run;

# ---- what only a file has

my $hd = Heddle->new(modules => ['lua'])->conf(<<'EOC');
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name localhost;
        set $x one;
        location /var { access_by_lua_block { hd.var.x = hd.var.x .. " and " .. hd.var.request_method } return 200 $x; }
        location /ngx { access_by_lua_block { ngx.req.set_header("a", "b"); ngx.log(ngx.WARN, "from ", 7);
            if ngx.req.get_headers()["a"] == "b" then ngx.exit(ngx.HTTP_NOT_FOUND) end } }
        location /global { access_by_lua_block { counter = 1 } }
        location /header { access_by_lua_block { hd.req.set_header("x", "a\r\nb: c") } }
        location /out { header_filter_by_lua_block { hd.res.set_status(599) hd.res.set_header("X-Out", "yes") } return 200; }
        location /log { log_by_lua_block { hd.log("notice", "ended with " .. hd.res.status) hd.log("notice", "on" .. nil) } return 204; }
        location /few { lua_max_instructions 2000; access_by_lua_block { for i = 1, 1e6 do end } }
        location /many { lua_max_instructions 100000000; access_by_lua_block { for i = 1, 1e6 do end } return 204; }
        location /file { access_by_lua_file %%DIR%%/policy.lua; return 204; }
        location /off { return 200 fine; }
    }
}
EOC
$hd->write('policy.lua', "-- a policy\nif hd.req.query == 'no' then\n  hd.exit(403)\nend\n");
$hd->start;
is $hd->get('/var')->body, 'one and GET', 'variables are read and set';
is $hd->get('/ngx')->status, 404, "nginx's names";
ok $hd->wait_log(qr/\[warn\].*lua: from 7/), 'and its log';
is $hd->get('/global')->status, 500, 'globals of a request are refused';
ok $hd->wait_log(qr/a new global "counter" while a request runs: use local/), 'with the remedy';
is $hd->get('/header')->status, 500, 'a line end in a field is refused';
is $hd->get('/out')->status, 599, 'a response gets another status';
is $hd->get('/log')->status, 204, 'the log phase';
ok $hd->wait_log(qr/lua: ended with 204/), 'says how it ended';
ok $hd->wait_log(qr/lua: log_by_lua_block\(.*heddle\.conf:\d+\):1: attempt to concatenate/), 'its errors name the place';
is $hd->get('/few')->status, 500, 'a budget of its own';
is $hd->get('/many')->status, 204, 'a larger one';
is $hd->get('/file')->status, 204, 'a script in a file';
is $hd->get('/file?no')->status, 403, 'decides';
is $hd->get('/off')->body, 'fine', 'others are not touched';

for (
    ['access_by_lua_block { if }', qr/heddle\.conf:\d+: .*access_by_lua_block\(.*:\d+\):1: .*near/],
    ['access_by_lua_file /nowhere.lua;', qr{open\(\) "/nowhere\.lua" failed}],
    ['lua_max_instructions 10;', qr/1000/],
) {
    my ($text, $want) = @$_;
    my $bad = Heddle->new(modules => ['lua'])->conf(
        "http { server { listen 127.0.0.1:%%PORT_0%%; server_name a;\n$text\n} }");
    my ($status, $out) = $bad->run('-t');
    isnt $status, 0, $text;
    like $out, $want, "$text: $out";
}

# Bytecode is no text.
my $bc = Heddle->new(modules => ['lua'])->conf(
    "http { server { listen 127.0.0.1:%%PORT_0%%; server_name a; access_by_lua_file %%DIR%%/b.lua; } }");
$bc->write('b.lua', "\x1bLJ\x02\x0a");
like +($bc->run('-t'))[1], qr/bytecode|binary chunk|mode/, 'bytecode is refused';
done_testing;
