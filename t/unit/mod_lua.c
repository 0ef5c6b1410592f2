/* modules/lua: our string.find, match, gmatch and gsub against LuaJIT's own, by patterns
 * and subjects put together at random; and that what they try is paid for. */
#include "modules/lua/patterns.c"
#include "tap.h"

#include <lualib.h>

#define CASES 20000

static uint64_t paid, allowance;

void script_charge(lua_State *L, uint64_t instructions)
{
    paid += instructions;
    if (paid > allowance)
        luaL_error(L, "spent");
}

/* What <name>(...) of both libraries says, as text: all results, or "error". */
static const char script[] =
    "local theirs, ours = ...\n"
    "local function say(ok, ...)\n"
    "  if not ok then return 'error' end\n"
    "  local all = {}\n"
    "  for i = 1, select('#', ...) do all[i] = tostring((select(i, ...))) end\n"
    "  return table.concat(all, '|')\n"
    "end\n"
    "local function each(lib, s, p)\n"
    "  local all = {}\n"
    "  for a, b in lib.gmatch(s, p) do all[#all + 1] = say(true, a, b) end\n"
    "  return table.concat(all, ';')\n"
    "end\n"
    "local calls = {\n"
    "  function(l, s, p) return l.find(s, p) end,\n"
    "  function(l, s, p, n) return l.find(s, p, n) end,\n"
    "  function(l, s, p, n) return l.find(s, p, n, true) end,\n"
    "  function(l, s, p, n) return l.match(s, p, n) end,\n"
    "  each,\n"
    "  function(l, s, p) return l.gsub(s, p, '<%0>') end,\n"
    "  function(l, s, p, n) return l.gsub(s, p, '%1%%', n) end,\n"
    "  function(l, s, p) return l.gsub(s, p, function(a, b) return b or a end) end,\n"
    "  function(l, s, p) return l.gsub(s, p, {a = 'X', b = false, ab = 7}) end,\n"
    "}\n"
    "return function(s, p, n)\n"
    "  for i, f in ipairs(calls) do\n"
    "    local a, b = say(pcall(f, theirs, s, p, n)), say(pcall(f, ours, s, p, n))\n"
    "    if a ~= b then return i .. ': ' .. a .. ' <> ' .. b end\n"
    "  end\n"
    "end\n";

static uint32_t seed = 1;

static uint32_t below(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static const char *const pieces[] = {
    "a",      "b",  "ab",   ".",    "%a",    "%A", "%d",   "%s",   "%w",
    "%%",     "%.", "[ab]", "[^a]", "[a-c]", "[]", "[]a]", "[%d",  "[%a%-]",
    "[^%s]",  "a*", "a+",   "a-",   "a?",    ".*", ".-",   "%b()", "%bab",
    "%f[%w]", "%f", "%1",   "%2",   "(",     ")",  "()",   "(a*)", "(.-)",
    "^",      "$",  "%",    "-",    "[a-]",  "%z", "%g",   "[%]]", "\xe9"};
static const char *const bits[] = {"a", "b", "ab", "aab", " ", "(", ")",   "1",
                                   "7", "-", "%",  ".",   "c", "",  "\xe9"};

static void put_together(char *to, const char *const *from, uint32_t from_n, uint32_t n)
{
    *to = '\0';
    while (n-- > 0)
        strcat(to, from[below(from_n)]);
}

static void test_likeness(lua_State *L)
{
    int wrong = 0;

    for (int i = 0; i < CASES && wrong < 5; i++) {
        char s[64], p[64];

        put_together(s, bits, hd_countof(bits), below(9));
        put_together(p, pieces, hd_countof(pieces), 1 + below(5));
        lua_pushvalue(L, -1);
        lua_pushlstring(L, s, strlen(s) + (below(8) == 0)); /* with a NUL now and then */
        lua_pushstring(L, p);
        lua_pushinteger(L, (lua_Integer)below(12) - 4);
        paid = 0;
        if (lua_pcall(L, 3, 1, 0) != 0 || !lua_isnil(L, -1)) {
            wrong++;
            diag("\"%s\" in \"%s\": %s", p, s, lua_tostring(L, -1));
        }
        lua_pop(L, 1);
    }
    ok(wrong == 0, "%d patterns as LuaJIT reads them", CASES);
}

static void test_price(lua_State *L)
{
    static const char *const slow[] = {
        "return string.find(('a'):rep(3000), '.-.-.-.-b')",
        "return string.match(('a'):rep(3000), 'a*a*a*a*b')",
        "return string.gsub(('a'):rep(3000), 'a-a-a-a-b', '')",
        "for w in string.gmatch(('a'):rep(3000), 'a+a+a+a+b') do end",
        "return string.find(('('):rep(100000), '%b()')"};

    allowance = 100000;
    for (size_t i = 0; i < hd_countof(slow); i++) {
        paid = 0;
        ok(luaL_dostring(L, slow[i]) != 0 && strstr(lua_tostring(L, -1), "spent") != NULL,
           "%s", slow[i]);
        lua_settop(L, 0);
    }
    paid = 0;
    ok(luaL_dostring(
           L, "return string.match('  ' .. ('a b'):rep(3000), '^%s*(.-)%s*$')") == 0,
       "what is quick is cheap");
}

int main(void)
{
    lua_State *L = luaL_newstate();

    luaL_openlibs(L);
    ok(luaL_loadstring(L, script) == 0, "the script");
    lua_newtable(L); /* theirs: a copy */
    lua_getglobal(L, "string");
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_settable(L, -6);
    }
    lua_pop(L, 1);
    patterns_open(L);
    lua_getglobal(L, "string");
    allowance = UINT64_MAX;
    ok(lua_pcall(L, 2, 1, 0) == 0, "both libraries");
    test_likeness(L);
    lua_settop(L, 0);
    test_price(L);
    lua_close(L);
    return done_testing();
}
