-- A policy in Lua, run for each request before it goes on (access_by_lua_file): crawlers may look
-- at the shop's front page, but not leaf through its books.
local agent = hd.req.header("user-agent") or ""

if agent:lower():find("bot", 1, true) and hd.var.arg_book then
    hd.exit(403, "no crawlers among the books\n")
end
