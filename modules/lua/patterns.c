/* Lua's patterns (Lua 5.1 reference manual §5.4.1) with a price: what a match tries
 * counts as instructions of the script. LuaJIT's own ask no hook, and a pattern like
 * ".-.-.-b" on a client's long field would keep the worker for ever. Nothing here keeps
 * memory, so that an error may leave from anywhere. */
#include "state.h"

#include <ctype.h>
#include <string.h>

#define CAPTURES_MAX 32
#define DEPTH_MAX 200
#define STEPS_PER_INSTRUCTION 8
#define NONE SIZE_MAX

enum { IS_OPEN = -1, IS_POSITION = -2 }; /* of a capture that has no length */

typedef struct {
    lua_State *L;
    hd_str_t s, p; /* subject, pattern without its anchor */
    uint32_t steps, depth, n;
    struct {
        size_t from;
        ptrdiff_t len;
    } captures[CAPTURES_MAX];
} match_t;

static size_t run(match_t *m, size_t s, size_t p);

static void pay(match_t *m)
{
    script_charge(m->L, m->steps / STEPS_PER_INSTRUCTION);
    m->steps = 0;
}

static void count_step(match_t *m)
{
    if (++m->steps >= 4096)
        pay(m);
}

static unsigned char byte_at(hd_str_t s, size_t at)
{
    return (unsigned char)s.data[at];
}

/* --- one character --- */

/* Where the item at <p> ends: a character, "%x" or a set. */
static size_t item_end(match_t *m, size_t p)
{
    hd_str_t pat = m->p;

    if (pat.data[p] == '%') {
        if (p + 1 == pat.len)
            luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 2;
    }
    if (pat.data[p++] != '[')
        return p;
    if (p < pat.len && pat.data[p] == '^')
        p++;
    do { /* a ']' that comes first is one of the set */
        if (p == pat.len)
            luaL_error(m->L, "malformed pattern (missing ']')");
        p += pat.data[p] == '%' ? 2 : 1;
        if (p > pat.len)
            luaL_error(m->L, "malformed pattern (missing ']')");
    } while (p == pat.len || pat.data[p] != ']');
    return p + 1;
}

static bool is_of_class(int c, int class)
{
    bool is;

    switch (tolower(class)) {
    case 'a':
        is = isalpha(c);
        break;
    case 'c':
        is = iscntrl(c);
        break;
    case 'd':
        is = isdigit(c);
        break;
    case 'g':
        is = isgraph(c);
        break;
    case 'l':
        is = islower(c);
        break;
    case 'p':
        is = ispunct(c);
        break;
    case 's':
        is = isspace(c);
        break;
    case 'u':
        is = isupper(c);
        break;
    case 'w':
        is = isalnum(c);
        break;
    case 'x':
        is = isxdigit(c);
        break;
    case 'z':
        is = c == 0;
        break;
    default:
        return class == c;
    }
    return is != (isupper(class) != 0);
}

/* The set from '[' at <p> to behind its ']' at <end>. */
static bool is_in_set(const match_t *m, int c, size_t p, size_t end)
{
    size_t last = end - 1;
    bool is_negated = m->p.data[p + 1] == '^';

    for (p += is_negated ? 2 : 1; p < last; p++) {
        int from = byte_at(m->p, p);

        if (from == '%') {
            if (is_of_class(c, byte_at(m->p, ++p)))
                return !is_negated;
        } else if (p + 2 < last && m->p.data[p + 1] == '-') {
            p += 2;
            if (from <= c && c <= byte_at(m->p, p))
                return !is_negated;
        } else if (from == c) {
            return !is_negated;
        }
    }
    return is_negated;
}

static bool is_single(match_t *m, size_t s, size_t p, size_t end)
{
    int c;

    count_step(m);
    if (s >= m->s.len)
        return false;
    c = byte_at(m->s, s);
    switch (m->p.data[p]) {
    case '.':
        return true;
    case '%':
        return is_of_class(c, byte_at(m->p, p + 1));
    case '[':
        m->steps += (uint32_t)(end - p) / 8;
        return is_in_set(m, c, p, end);
    default:
        return byte_at(m->p, p) == c;
    }
}

/* --- items --- */

static size_t match_most(match_t *m, size_t s, size_t p, size_t end, size_t least)
{
    size_t n = 0;

    while (is_single(m, s + n, p, end))
        n++;
    for (; n + 1 > least; n--) {
        size_t to = run(m, s + n, end + 1);

        if (to != NONE)
            return to;
        if (n == 0)
            break;
    }
    return NONE;
}

static size_t match_least(match_t *m, size_t s, size_t p, size_t end)
{
    for (;; s++) {
        size_t to = run(m, s, end + 1);

        if (to != NONE)
            return to;
        if (!is_single(m, s, p, end))
            return NONE;
    }
}

static size_t open_capture(match_t *m, size_t s, size_t p, ptrdiff_t kind)
{
    size_t to;

    if (m->n == CAPTURES_MAX)
        luaL_error(m->L, "too many captures");
    m->captures[m->n].from = s;
    m->captures[m->n++].len = kind;
    to = run(m, s, p);
    if (to == NONE)
        m->n--;
    return to;
}

static size_t close_capture(match_t *m, size_t s, size_t p)
{
    uint32_t i = m->n;
    size_t to;

    while (i > 0 && m->captures[i - 1].len != IS_OPEN)
        i--;
    if (i == 0)
        luaL_error(m->L, "invalid pattern capture");
    m->captures[i - 1].len = (ptrdiff_t)(s - m->captures[i - 1].from);
    to = run(m, s, p);
    if (to == NONE)
        m->captures[i - 1].len = IS_OPEN;
    return to;
}

/* "%bxy" at <p>: where the balanced run that begins at <s> ends. */
static size_t match_balance(match_t *m, size_t s, size_t p)
{
    size_t depth = 1;

    if (p + 4 > m->p.len)
        luaL_error(m->L, "unbalanced pattern");
    if (s >= m->s.len || m->s.data[s] != m->p.data[p + 2])
        return NONE;
    for (s++; s < m->s.len; s++) {
        count_step(m);
        if (m->s.data[s] == m->p.data[p + 3]) {
            if (--depth == 0)
                return s + 1;
        } else if (m->s.data[s] == m->p.data[p + 2]) {
            depth++;
        }
    }
    return NONE;
}

/* "%f[set]": the set begins here. */
static bool is_frontier(match_t *m, size_t s, size_t p, size_t end)
{
    int before = s == 0 ? 0 : byte_at(m->s, s - 1);
    int here = s < m->s.len ? byte_at(m->s, s) : 0;

    return !is_in_set(m, before, p, end) && is_in_set(m, here, p, end);
}

static size_t match_again(match_t *m, size_t s, size_t p)
{
    unsigned i = (unsigned)(m->p.data[p + 1] - '1');
    size_t len;

    if (i >= m->n || m->captures[i].len == IS_OPEN)
        luaL_error(m->L, "invalid capture index");
    if (m->captures[i].len == IS_POSITION)
        return NONE;
    len = (size_t)m->captures[i].len;
    m->steps += (uint32_t)hd_min(len / 8, (size_t)4096);
    return m->s.len - s >= len &&
                   memcmp(m->s.data + m->captures[i].from, m->s.data + s, len) == 0
               ? s + len
               : NONE;
}

/* "%b", "%f" and "%1"; false: it is a character like others. */
static bool match_special(match_t *m, size_t *s, size_t *p)
{
    int kind = *p + 1 < m->p.len ? byte_at(m->p, *p + 1) : 0;
    size_t end;

    if (kind == 'b') {
        *s = match_balance(m, *s, *p);
        *p += 4;
        return true;
    }
    if (kind == 'f') {
        *p += 2;
        if (*p >= m->p.len || m->p.data[*p] != '[')
            luaL_error(m->L, "missing '[' after '%%f' in pattern");
        end = item_end(m, *p);
        if (!is_frontier(m, *s, *p, end))
            *s = NONE;
        *p = end;
        return true;
    }
    if (kind < '1' || kind > '9')
        return false;
    *s = match_again(m, *s, *p);
    *p += 2;
    return true;
}

static size_t run_items(match_t *m, size_t s, size_t p)
{
    while (p < m->p.len && s != NONE) {
        char c = m->p.data[p];
        size_t end;

        count_step(m);
        if (c == '(') {
            bool is_position = p + 1 < m->p.len && m->p.data[p + 1] == ')';

            return open_capture(m, s, p + (is_position ? 2 : 1),
                                is_position ? IS_POSITION : IS_OPEN);
        }
        if (c == ')')
            return close_capture(m, s, p + 1);
        if (c == '$' && p + 1 == m->p.len)
            return s == m->s.len ? s : NONE;
        if (c == '%' && match_special(m, &s, &p))
            continue;
        end = item_end(m, p);
        switch (end < m->p.len ? m->p.data[end] : '\0') {
        case '*':
            return match_most(m, s, p, end, 0);
        case '+':
            return match_most(m, s, p, end, 1);
        case '-':
            return match_least(m, s, p, end);
        case '?':
            if (is_single(m, s, p, end)) {
                size_t to = run(m, s + 1, end + 1);

                if (to != NONE)
                    return to;
            }
            p = end + 1;
            break;
        default:
            s = is_single(m, s, p, end) ? s + 1 : NONE;
            p = end;
        }
    }
    return s;
}

/* Where what begins at <s> and matches the pattern from <p> on ends; NONE: it doesn't. */
static size_t run(match_t *m, size_t s, size_t p)
{
    size_t to;

    if (++m->depth > DEPTH_MAX)
        luaL_error(m->L, "pattern too complex");
    to = run_items(m, s, p);
    m->depth--;
    return to;
}

/* --- the functions --- */

static hd_str_t check_str(lua_State *L, int at)
{
    size_t len;
    const char *s = luaL_checklstring(L, at, &len);

    return hd_str_n(s, len);
}

static bool take_anchor(match_t *m)
{
    if (m->p.len == 0 || m->p.data[0] != '^')
        return false;
    m->p = hd_str_sub(m->p, 1, m->p.len);
    return true;
}

/* The first match at <*at> or behind it; its end, NONE if there is none. */
static size_t search(match_t *m, size_t *at, bool is_anchored)
{
    for (; *at <= m->s.len; ++*at) {
        size_t to;

        m->n = m->depth = 0;
        to = run(m, *at, 0);
        if (to != NONE || is_anchored)
            return to;
    }
    return NONE;
}

static void push_capture(match_t *m, uint32_t i, size_t from, size_t to)
{
    ptrdiff_t len;

    if (i >= m->n) {
        if (i != 0) /* "%1" without captures is the whole */
            luaL_error(m->L, "invalid capture index");
        lua_pushlstring(m->L, m->s.data + from, to - from);
        return;
    }
    len = m->captures[i].len;
    if (len == IS_OPEN)
        luaL_error(m->L, "unfinished capture");
    if (len == IS_POSITION)
        lua_pushinteger(m->L, (lua_Integer)m->captures[i].from + 1);
    else
        lua_pushlstring(m->L, m->s.data + m->captures[i].from, (size_t)len);
}

/* All, or the whole if <or_whole> and there are none; how many. */
static int push_captures(match_t *m, size_t from, size_t to, bool or_whole)
{
    uint32_t n = m->n == 0 && or_whole ? 1 : m->n;

    luaL_checkstack(m->L, (int)n + 4, "too many captures");
    for (uint32_t i = 0; i < n; i++)
        push_capture(m, i, from, to);
    return (int)n;
}

static size_t check_start(lua_State *L, int arg, size_t len)
{
    lua_Integer at = luaL_optinteger(L, arg, 1);

    if (at < 0)
        at += (lua_Integer)len + 1;
    return at <= 1 ? 0 : hd_min((size_t)at - 1, len);
}

static int find_plain(lua_State *L, hd_str_t s, hd_str_t p, size_t at)
{
    const char *found =
        p.len == 0 ? s.data + at : memmem(s.data + at, s.len - at, p.data, p.len);

    script_charge(L, (s.len - at) / 256);
    if (found == NULL) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, found - s.data + 1);
    lua_pushinteger(L, found - s.data + (lua_Integer)p.len);
    return 2;
}

static bool has_specials(hd_str_t p)
{
    for (size_t i = 0; i < p.len; i++) {
        if (p.data[i] == '\0' || strchr("^$*+?.([%-", p.data[i]) != NULL)
            return true;
    }
    return false;
}

static int find_or_match(lua_State *L, bool finds)
{
    match_t m = {.L = L, .s = check_str(L, 1), .p = check_str(L, 2)};
    size_t at = check_start(L, 3, m.s.len), to;

    if (finds && (lua_toboolean(L, 4) || !has_specials(m.p)))
        return find_plain(L, m.s, m.p, at);
    to = search(&m, &at, take_anchor(&m));
    pay(&m);
    if (to == NONE) {
        lua_pushnil(L);
        return 1;
    }
    if (!finds)
        return push_captures(&m, at, to, true);
    lua_pushinteger(L, (lua_Integer)at + 1);
    lua_pushinteger(L, (lua_Integer)to);
    return push_captures(&m, at, to, false) + 2;
}

static int find(lua_State *L)
{
    return find_or_match(L, true);
}

static int match(lua_State *L)
{
    return find_or_match(L, false);
}

/* Upvalues: subject, pattern, where to go on. */
static int next_match(lua_State *L)
{
    match_t m = {.L = L,
                 .s = check_str(L, lua_upvalueindex(1)),
                 .p = check_str(L, lua_upvalueindex(2))};
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    size_t to = search(&m, &at, false);

    pay(&m);
    if (to == NONE)
        return 0;
    lua_pushinteger(L, (lua_Integer)(to == at ? to + 1 : to));
    lua_replace(L, lua_upvalueindex(3));
    return push_captures(&m, at, to, true);
}

static int gmatch(lua_State *L)
{
    hd_ignore(check_str(L, 1).len + check_str(L, 2).len == 0);
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_match, 3);
    return 1;
}

/* "%1" and the like in a replacement. */
static void add_text(match_t *m, luaL_Buffer *b, size_t from, size_t to)
{
    hd_str_t text = check_str(m->L, 3);

    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] != '%') {
            luaL_addchar(b, text.data[i]);
            continue;
        }
        i++;
        if (i == text.len || !isdigit(byte_at(text, i))) {
            luaL_addchar(b, i < text.len ? text.data[i] : '\0');
        } else if (text.data[i] == '0') {
            luaL_addlstring(b, m->s.data + from, to - from);
        } else {
            push_capture(m, (uint32_t)(text.data[i] - '1'), from, to);
            luaL_addvalue(b);
        }
    }
}

/* What stands instead of [from, to). */
static void add_value(match_t *m, luaL_Buffer *b, size_t from, size_t to)
{
    lua_State *L = m->L;

    switch (lua_type(L, 3)) {
    case LUA_TFUNCTION:
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(m, from, to, true), 1);
        break;
    case LUA_TTABLE:
        push_capture(m, 0, from, to);
        lua_gettable(L, 3);
        break;
    default:
        add_text(m, b, from, to);
        return;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, m->s.data + from, to - from);
    } else if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    }
    luaL_addvalue(b);
}

static int gsub(lua_State *L)
{
    match_t m = {.L = L, .s = check_str(L, 1), .p = check_str(L, 2)};
    int type = lua_type(L, 3);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)m.s.len + 1), n = 0;
    bool is_anchored = take_anchor(&m);
    size_t at = 0;
    luaL_Buffer b;

    luaL_argcheck(L,
                  type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
                      type == LUA_TTABLE,
                  3, "string/function/table expected");
    luaL_buffinit(L, &b);
    while (n < max) {
        size_t to;

        m.n = m.depth = 0;
        to = run(&m, at, 0);
        if (to != NONE) {
            n++;
            add_value(&m, &b, at, to);
        }
        if (to != NONE && to > at)
            at = to;
        else if (at < m.s.len)
            luaL_addchar(&b, m.s.data[at++]);
        else
            break;
        if (is_anchored)
            break;
    }
    pay(&m);
    luaL_addlstring(&b, m.s.data + at, m.s.len - at);
    luaL_pushresult(&b);
    lua_pushinteger(L, n);
    return 2;
}

void patterns_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"find", find},
                                         {"match", match},
                                         {"gmatch", gmatch},
                                         {"gsub", gsub},
                                         {NULL, NULL}};

    lua_getglobal(L, "string");
    for (const luaL_Reg *f = functions; f->name != NULL; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    lua_pushnil(L);
    lua_setfield(L, -2, "gfind"); /* an older name of gmatch */
    lua_pop(L, 1);
}
