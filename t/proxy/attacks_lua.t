#!/usr/bin/perl
# Attacks by a script on others (sandbox escape): what scripts share can't be changed by one of them, memory
# and time are bounded, bytecode isn't loaded, a peer's bytes are data. More of the sandbox, by
# file and by xDS: t/mesh/lua.t.
use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use lib 't/lib';
use Test::More;
use Heddle;

# Each tries to change what another one relies on; it may fail to, or succeed for itself alone.
my @tries = (
    'hd.exit = function() end', 'hd.req.header = function() return "admin" end', 'hd.req.header = nil', 'hd.req.method = "GET"',
    'hd.res.set_header = function() end', 'hd.peer.namespace = "admin"', 'hd.req = {header = function() return "admin" end}',
    'ngx.exit = function() end', 'ngx.req.get_headers = function() return {} end', 'string.find = function() return 1 end',
    'string.format = nil', 'table.concat = function() return "" end', 'math.random = function() return 4 end',
    'tostring = function() return "admin" end', 'pcall = nil', '("").find = 1', 'getmetatable("").__index = {}',
    'setmetatable(hd, {__index = function() return "admin" end})', 'setmetatable(hd.req, {})', 'rawequal = nil',
    'for k in pairs(hd) do hd[k] = nil end', 'next(hd.req)', 'getmetatable(hd.req).__index = nil',
    'setmetatable(string, {__index = hd})', 'getmetatable(hd).__metatable = 1',
);
my $locations = join '', map { "        location /try$_ { access_by_lua_block { $tries[$_] } return 204; }\n" } 0 .. $#tries;
my $hd = Heddle->new(modules => ['lua'])->conf(<<"EOC");
lua_max_memory 4m;
http {
    lua_max_instructions 100000;
    server {
        listen 127.0.0.1:%%PORT_0%%;
$locations
        location /honest {
            access_by_lua_block {
                local who = hd.req.header("X-Who") or "nobody"
                if not string.find("abc", "b") or string.find("abc", "x") or table.concat({"a", "b"}) ~= "ab" or tostring(7) ~= "7"
                    or not pcall(function() end) or hd.req.method ~= "GET" or ngx.req.get_headers()["x-who"] ~= hd.req.header("X-Who") then
                    hd.exit(200, "changed")
                end
                hd.exit(403, who .. " " .. tostring(hd.peer.namespace))
            }
        }
        location /bytecode { access_by_lua_block { hd.exit(200, tostring(loadstring or load or string.dump)) } }
        location /loop { access_by_lua_block { while true do end } }
        location /gsub { access_by_lua_block { local s = ("x"):rep(1e9) hd.exit(200, "" .. #s) } }
        location /concat { access_by_lua_block { local s = "x" while true do s = s .. s end } }
        location /table { access_by_lua_block { local t = {} for i = 1, 1e8 do t[i] = i end } }
        location /recursion { access_by_lua_block { local function f(n) return 1 + f(n + 1) end f(1) } }
        location /coerce { access_by_lua_block { local t = setmetatable({}, {__tostring = function() return hd.req end}) hd.log("warn", tostring(t)) } }
        location /args { access_by_lua_block { hd.exit(200, hd.var.arg_a or "none") } }
    }
}
EOC
$hd->start;

sub honest { my $r = $hd->get('/honest', 'X-Who' => 'client'); return $r->status . ' ' . $r->body }
my $want = honest();
is $want, '403 client nil', 'a policy';
for my $n (0 .. $#tries) {
    my $status = $hd->get("/try$n")->status;
    is honest(), $want, "after: $tries[$n] ($status)";
}
is $hd->get('/bytecode')->body, 'nil', 'nothing loads bytecode';
for my $path ('/loop', '/gsub', '/concat', '/table', '/recursion') {
    is $hd->get($path)->status, 500, "$path: stopped";
    is honest(), $want, 'and others go on';
}
like $hd->get('/coerce')->status, qr/^\d+$/, 'whatever becomes of it, it ends';
is honest(), $want, 'and others go on';
is $hd->get('/args?a=%22..os.exit()..%22')->body, '%22..os.exit()..%22', 'a peer\'s bytes are data';
done_testing;
