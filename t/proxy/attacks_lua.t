#!/usr/bin/perl
# Attacks by a script on others (sandbox escape), by file and by xDS: what scripts share can't be changed by one of them,
# memory and time are bounded, whatever a client's bytes make of a pattern (ReDoS), bytecode isn't loaded, a peer's bytes
# are data. More of the sandbox: t/mesh/lua.t.
use strict;
use warnings;
# LeakSanitizer itself crashes while it walks LuaJIT's memory
BEGIN { $ENV{ASAN_OPTIONS} = join ":", $ENV{ASAN_OPTIONS} // (), "detect_leaks=0" }
use lib 't/lib';
use Test::More;
use Heddle;
use Heddle::Xds;

my ($hd, $way);

# Each tries to change what another one relies on; it may fail to, or succeed for itself alone.
my @tries = (
    'string.find = function() return 1 end', 'string.format = nil', 'table.concat = function() return "" end',
    'math.random = function() return 4 end', 'tostring = function() return "admin" end', 'pcall = nil', '("").find = 1',
    'getmetatable("").__index = {}', 'rawequal = nil', 'for k in pairs(string) do string[k] = nil end', 'setmetatable(table, {__index = error})',
    'setmetatable(string, {__index = {}})', 'table.sort({3, 2, 1}, function() string.find = nil end)', 'next(string)',
);
my %tries = (
    file => [@tries,
        'hd.exit = function() end', 'hd.req.header = function() return "admin" end', 'hd.req.header = nil', 'hd.req.method = "GET"',
        'hd.res.set_header = function() end', 'hd.peer.namespace = "admin"', 'hd.req = {header = function() return "admin" end}',
        'ngx.exit = function() end', 'ngx.req.get_headers = function() return {} end',
        'setmetatable(hd, {__index = function() return "admin" end})', 'setmetatable(hd.req, {})',
        'for k in pairs(hd) do hd[k] = nil end', 'next(hd.req)', 'getmetatable(hd.req).__index = nil',
        'setmetatable(string, {__index = hd})', 'getmetatable(hd).__metatable = 1',
    ],
    xds => [@tries,
        'h.respond = nil', 'h.respond = function() end', 'h:headers().get = function() return "admin" end', 'getmetatable(h).__index = nil',
        'getmetatable(h:headers()).__index.get = function() return "admin" end', 'setmetatable(h, {})', 'next(h)', 'for k in pairs(h) do h[k] = nil end',
        'envoy_on_request = function() end', 'pairs = nil', 'h:headers():replace(":method", "PUT")', 'h:body()', 'h:httpCall("a", {}, "", 1)',
    ],
);
# What a script that decides relies on.
my $checks = 'not string.find("abc", "b") or string.find("abc", "x") or table.concat({"a", "b"}) ~= "ab" or tostring(7) ~= "7" or not pcall(function() end)'
    . ' or ("abc"):find("c") ~= 3 or string.format("%d", 7) ~= "7"';
# What would go on for ever, or fill the memory; the last ones inside of one call.
my %endless = (
    loop => 'while true do end', pcall => 'while true do pcall(function() while true do end end) end',
    rep => 'local s = ("x"):rep(1e9)', concat => 'local s = "x" while true do s = s .. s end', table => 'local t = {} for i = 1, 1e8 do t[i] = i end',
    recursion => 'local function f(n) return 1 + f(n + 1) end f(1)', upper => 'local s = ("x"):rep(1e6) while true do local t = s:upper() end',
    find => 'string.find(("a"):rep(5000), ".-.-.-.-.-b")', match => 'string.match(("a"):rep(5000), "a*a*a*a*a*b")',
    gmatch => 'for w in string.gmatch(("a"):rep(5000), "a*a*a*a*b") do end', gsub => 'string.gsub(("a"):rep(5000), "a-a-a-a-a-b", "x")',
    in_pcall => 'while true do pcall(string.find, ("a"):rep(5000), ".-.-.-.-.-b") end',
    sort => 'local t = {} for i = 1, 50000 do t[i] = i end while true do table.sort(t) end',
    plain => 'local s = ("a"):rep(1e6) while true do string.find(s, ("a"):rep(500) .. "b", 1, true) end',
);

sub by_file {
    my $locations = join '', (map { "        location /try$_ { access_by_lua_block { $tries{file}[$_] } return 204; }\n" } 0 .. $#{$tries{file}}),
        map { "        location /endless_$_ { access_by_lua_block { $endless{$_} } return 204; }\n" } sort keys %endless;
    return Heddle->new(modules => ['lua'])->conf(<<"EOC");
lua_max_memory 4m;
http {
    lua_max_instructions 100000;
    server {
        listen 127.0.0.1:%%PORT_0%%;
$locations
        location /honest {
            access_by_lua_block {
                local who = hd.req.header("X-Who") or "nobody"
                if $checks or hd.req.method ~= "GET" or ngx.req.get_headers()["x-who"] ~= hd.req.header("X-Who") then
                    hd.exit(200, "changed")
                end
                hd.exit(403, who .. " " .. tostring(hd.peer.namespace))
            }
        }
        location /pattern { access_by_lua_block { hd.exit(200, tostring(string.match(hd.req.header("X-P"), "^(.-),(.-),(.-),(.-);"))) } }
        location /several { access_by_lua_block { hd.exit(200, hd.req.header("X-Role") .. ";" .. hd.req.headers()["x-role"] .. ";" .. ngx.req.get_headers()["x-role"]) } }
        location /bytecode { access_by_lua_block { hd.exit(200, tostring(loadstring or load or string.dump)) } }
        location /coerce { access_by_lua_block { local t = setmetatable({}, {__tostring = function() return hd.req end}) hd.log("warn", tostring(t)) } }
        location /args { access_by_lua_block { hd.exit(200, hd.req.query) } }
    }
}
EOC
}

sub by_xds {
    my $hd = Heddle->new(modules => ['lua'])->conf(<<'EOC');
xds { server 127.0.0.1:%%PORT_xds%%; node_id sidecar~127.0.0.1~a.b~b.svc.cluster.local; }
EOC
    my $any = 'type.googleapis.com/envoy.extensions.filters.http.lua.v3.';
    my $say = 'local function exit(status, text) h:respond({[":status"] = status}, text) end ';
    my %script = (
        (map { ("try$_" => $tries{xds}[$_]) } 0 .. $#{$tries{xds}}), (map { ("endless_$_" => $endless{$_}) } keys %endless),
        honest => $say . "if $checks or h:headers():get(':method') ~= 'GET' then exit('200', 'changed') end
            exit('403', (h:headers():get('x-who') or 'nobody') .. ' nil')",
        pattern => $say . 'exit("200", tostring(string.match(h:headers():get("x-p"), "^(.-),(.-),(.-),(.-);")))',
        several => $say . 'local v = h:headers():get("X-Role") exit("200", v .. ";" .. v .. ";" .. v)',
        bytecode => $say . 'exit("200", tostring(loadstring or load or string.dump))',
        coerce => 'h:logWarn(setmetatable({}, {__tostring = function() return h end}))',
        args => $say . 'exit("200", string.match(h:headers():get(":path"), "?(.*)"))',
        kept => 'if kept.h then kept.h:respond({[":status"] = "200"}, "another\'s") end kept.h = h',
    );
    my @routes = map { +{match => {path_separated_prefix => "/$_"}, direct_response => {status => 204}, typed_per_filter_config => {
        'envoy.filters.http.lua' => {'@type' => $any . 'LuaPerRoute', source_code => {
            inline_string => ($_ eq 'kept' ? "kept = {}\n" : '') . "function envoy_on_request(h) $script{$_} end"}}}} } sort keys %script;
    $hd->{xds} = Heddle::Xds->new($hd, 'xds')->serve(LDS => [Heddle::Xds::listener('front', $hd->port(0),
        route_config => {name => 'in', virtual_hosts => [{name => 'all', domains => ['*'], routes => \@routes}]},
        http_filters => [{name => 'envoy.filters.http.lua', typed_config => {'@type' => $any . 'Lua'}}])])->start;
    return $hd;
}

sub honest { my $r = $hd->get('/honest', 'X-Who' => 'client'); return $r->status . ' ' . $r->body }

sub all_attacks {
    my $want = honest();
    is $want, '403 client nil', 'a policy';
    for my $n (0 .. $#{$tries{$way}}) {
        my $status = $hd->get("/try$n")->status;
        is honest(), $want, "after: $tries{$way}[$n] ($status)";
    }
    is $hd->get('/bytecode')->body, 'nil', 'nothing loads bytecode';
    for my $name (sort keys %endless) {
        is $hd->get("/endless_$name")->status, 500, "$name: stopped";
        is honest(), $want, 'and others go on';
    }
    is $hd->get('/pattern', 'X-P' => 'a,b,c,d;')->body, 'a', 'a pattern on a client\'s field';
    is $hd->get('/pattern', 'X-P' => ',' x 6000)->status, 500, 'stopped where the client makes it slow (ReDoS)';
    like $hd->get('/coerce')->status, qr/^\d+$/, 'whatever becomes of it, it ends';
    is honest(), $want, 'and others go on';
    is $hd->get('/args?%22..os.exit()..%22')->body, '%22..os.exit()..%22', 'a peer\'s bytes are data';
    is $hd->get('/several', 'X-Role' => 'user', 'x-role' => 'admin')->body, join(';', ('user,admin') x 3), 'a field\'s every value is seen';
    return if $way eq 'file';
    is $hd->get('/kept')->status, 204, 'a handle that is kept';
    is $hd->get('/kept')->status, 500, 'is of no use to another request';
}

for my $make (\&by_file, \&by_xds) {
    $hd = $make->();
    $way = $hd->{xds} ? 'xds' : 'file';
    $hd->start;
    $hd->wait_for(sub { Heddle::Port::is_listening($hd->port(0)) }, 'the listener');
    subtest "by $way" => \&all_attacks;
    $hd->stop;
}
done_testing;
