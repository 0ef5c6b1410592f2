/* The commands of ssi: include, echo, set, config, if … endif, block. */
#include "ssi.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define PARAMS_MAX 16
#define BLOCK_BYTES_MAX 65536
#define VALUE_MAX 256

typedef struct {
    hd_str_t name, value; /* value: as written */
} param_t;

typedef struct {
    hd_str_t name;
    param_t params[PARAMS_MAX];
    size_t n;
} command_t;

hd_rc_t ssi_show_error(ssi_t *s)
{
    return s->conf->is_silent || !s->is_shown || s->block != NULL
               ? HD_OK
               : ssi_add_text(s, s->error);
}

#define WRONG(s, ...)                                                                    \
    do {                                                                                 \
        hd_req_log((s)->req, HD_LOG_ERROR, __VA_ARGS__);                                 \
        return ssi_show_error(s);                                                        \
    } while (0)

/* --- reading --- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static hd_str_t skip_spaces(hd_str_t text)
{
    while (text.len > 0 && is_space(text.data[0]))
        text = hd_str_sub(text, 1, text.len);
    return text;
}

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_';
}

static hd_str_t take_word(hd_str_t *text)
{
    size_t n = 0;
    hd_str_t word;

    while (n < text->len && is_word_char(text->data[n]))
        n++;
    word = hd_str_sub(*text, 0, n);
    *text = hd_str_sub(*text, n, text->len);
    return word;
}

/* NAME = "VALUE", with either kind of quotes. */
static bool take_param(hd_str_t *text, param_t *p)
{
    char quote;
    size_t n = 1;

    p->name = take_word(text);
    *text = skip_spaces(*text);
    if (p->name.len == 0 || text->len == 0 || text->data[0] != '=')
        return false;
    *text = skip_spaces(hd_str_sub(*text, 1, text->len));
    if (text->len == 0 || (text->data[0] != '"' && text->data[0] != '\''))
        return false;
    quote = text->data[0];
    while (n < text->len && text->data[n] != quote)
        n += text->data[n] == '\\' ? 2 : 1;
    if (n >= text->len)
        return false;
    p->value = hd_str_sub(*text, 1, n - 1);
    *text = skip_spaces(hd_str_sub(*text, n + 1, text->len));
    return true;
}

static bool read_command(ssi_t *s, hd_str_t text, command_t *c)
{
    size_t max = s->conf->value_max > 0 ? s->conf->value_max : VALUE_MAX;

    text = skip_spaces(text);
    *c = (command_t){.name = take_word(&text)};
    text = skip_spaces(text);
    while (text.len > 0) {
        if (c->n == PARAMS_MAX || !take_param(&text, &c->params[c->n])) {
            hd_req_log(s->req, HD_LOG_ERROR, "invalid parameter in \"%.*s\" SSI command",
                       HD_STR_ARG(c->name));
            return false;
        }
        if (c->params[c->n].value.len > max) {
            hd_req_log(s->req, HD_LOG_ERROR,
                       "too long \"%.*s\" parameter in \"%.*s\" SSI command",
                       HD_STR_ARG(c->params[c->n].name), HD_STR_ARG(c->name));
            return false;
        }
        c->n++;
    }
    return true;
}

/* NULL: it isn't there. */
static const hd_str_t *param(const command_t *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++) {
        if (hd_str_eq(c->params[i].name, hd_str_c(name)))
            return &c->params[i].value;
    }
    return NULL;
}

/* --- variables --- */

/* What the page that all this is for has set is for what it includes, too. */
static ssi_t *of_page(ssi_t *s)
{
    for (hd_req_t *req = hd_req_parent(s->req); req != NULL; req = hd_req_parent(req)) {
        ssi_t *outer = hd_req_state(req, &hd_module);

        if (outer != NULL)
            s = outer;
    }
    return s;
}

void ssi_set_var(ssi_t *s, hd_str_t name, hd_str_t value)
{
    ssi_t *page = of_page(s);
    hd_pool_t *pool = hd_req_pool(page->req);
    ssi_var_t *v = page->vars;

    while (v != NULL && !hd_str_eq(v->name, name))
        v = v->next;
    if (v == NULL) {
        v = hd_pool_new(pool, ssi_var_t);
        v->name = hd_str_dup(pool, name);
        v->next = page->vars;
        page->vars = v;
    }
    v->value = hd_str_dup(pool, value);
}

static hd_str_t date(const ssi_t *s, bool is_gmt)
{
    hd_pool_t *pool = hd_req_pool(s->req);
    struct tm tm;
    time_t now = (time_t)(hd_loop_wall_ns(hd_req_loop(s->req)) / 1000000000);
    size_t room = 256;
    char *text;

    if (hd_str_eq(s->time_format, HD_STR("%s")))
        return hd_str_printf(pool, "%lld", (long long)now);
    if (is_gmt)
        gmtime_r(&now, &tm);
    else
        localtime_r(&now, &tm);
    text = hd_pool_alloc_unaligned(pool, room);
    return hd_str_n(text, strftime(text, room, hd_str_to_c(pool, s->time_format), &tm));
}

/* <name> in lower case. False: there is none. */
static bool get_var(ssi_t *s, hd_str_t name, hd_str_t *value)
{
    hd_attr_of_t of = hd_req_attr_of(s->req);
    hd_val_t val;

    if (name.len == 1 && name.data[0] >= '0' && name.data[0] <= '9') {
        *value = s->captures[name.data[0] - '0'];
        return value->data != NULL;
    }
    for (const ssi_var_t *v = of_page(s)->vars; v != NULL; v = v->next) {
        if (hd_str_eq(v->name, name)) {
            *value = v->value;
            return true;
        }
    }
    if (hd_str_eq(name, HD_STR("date_local")) || hd_str_eq(name, HD_STR("date_gmt"))) {
        *value = date(s, name.data[5] == 'g');
        return true;
    }
    hd_attr_get_by_name(&of, name, &val);
    if (val.type == HD_VAL_NONE)
        return false;
    *value = val.type == HD_VAL_STR ? val.str
             : val.type == HD_VAL_INT
                 ? hd_str_printf(hd_req_pool(s->req), "%lld", (long long)val.num)
             : val.type == HD_VAL_BOOL && val.num != 0 ? HD_STR("1")
                                                       : HD_STR("0");
    return true;
}

/* --- values --- */

typedef struct {
    char *text;
    size_t len, room;
} growing_t;

static void grow(hd_pool_t *pool, growing_t *g, hd_str_t more)
{
    if (g->len + more.len > g->room) {
        size_t room = (g->len + more.len) * 2;
        char *text = hd_pool_alloc_unaligned(pool, room);

        if (g->len > 0)
            memcpy(text, g->text, g->len);
        g->text = text;
        g->room = room;
    }
    if (more.len > 0)
        memcpy(g->text + g->len, more.data, more.len);
    g->len += more.len;
}

/* "$NAME" or "${NAME}" at the start of <*text>, which is past it then. */
static bool take_var(ssi_t *s, hd_str_t *text, hd_str_t *value)
{
    hd_str_t rest = hd_str_sub(*text, 1, text->len), name;
    bool is_braced = rest.len > 0 && rest.data[0] == '{';

    if (is_braced)
        rest = hd_str_sub(rest, 1, rest.len);
    name = take_word(&rest);
    if (name.len == 0 || (is_braced && (rest.len == 0 || rest.data[0] != '}'))) {
        hd_req_log(s->req, HD_LOG_ERROR, "invalid variable name in \"%.*s\"",
                   HD_STR_ARG(*text));
        return false;
    }
    *text = is_braced ? hd_str_sub(rest, 1, rest.len) : rest;
    *value = HD_STR_NONE;
    hd_ignore(!get_var(s, hd_str_dup_lower(hd_req_pool(s->req), name), value));
    return true;
}

/* Variables by their values; a backslash stands before a quote, "$" or another one. */
static bool evaluate(ssi_t *s, hd_str_t text, hd_str_t *out)
{
    hd_pool_t *pool = hd_req_pool(s->req);
    growing_t g = {NULL, 0, 0};

    while (text.len > 0) {
        size_t n = 0;
        hd_str_t value;

        if (text.data[0] == '$') {
            if (!take_var(s, &text, &value))
                return false;
            grow(pool, &g, value);
            continue;
        }
        if (text.data[0] == '\\' && text.len > 1 &&
            strchr("\\'\"$", text.data[1]) != NULL) {
            grow(pool, &g, hd_str_sub(text, 1, 1));
            text = hd_str_sub(text, 2, text.len);
            continue;
        }
        do
            n++;
        while (n < text.len && text.data[n] != '$' && text.data[n] != '\\');
        grow(pool, &g, hd_str_sub(text, 0, n));
        text = hd_str_sub(text, n, text.len);
    }
    *out = hd_str_n(g.text, g.len);
    return true;
}

/* --- include --- */

static hd_str_t unescape(hd_pool_t *pool, hd_str_t text)
{
    char *out = hd_pool_alloc_unaligned(pool, text.len + 1);
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '%' && i + 2 < text.len &&
            hd_hex_value(text.data[i + 1]) >= 0 && hd_hex_value(text.data[i + 2]) >= 0) {
            out[n++] = (char)(hd_hex_value(text.data[i + 1]) * 16 +
                              hd_hex_value(text.data[i + 2]));
            i += 2;
        } else {
            out[n++] = text.data[i];
        }
    }
    return hd_str_n(out, n);
}

/* A URI of ours without a way up; what has no slash in front is beside the page. */
static bool make_uri(ssi_t *s, hd_str_t text, ssi_include_t *what)
{
    hd_pool_t *pool = hd_req_pool(s->req);
    hd_str_t uri, path = hd_req_path(s->req);
    ssize_t at;

    if (!evaluate(s, text, &uri) || uri.len == 0)
        return false;
    if (uri.data[0] != '/') {
        while (path.len > 0 && path.data[path.len - 1] != '/')
            path.len--;
        uri = hd_str_printf(pool, "%.*s%.*s", HD_STR_ARG(path), HD_STR_ARG(uri));
    }
    at = hd_str_find_char(uri, '?');
    what->args = at < 0 ? HD_STR_NONE : hd_str_sub(uri, (size_t)at + 1, uri.len);
    uri = unescape(pool, at < 0 ? uri : hd_str_sub(uri, 0, (size_t)at));
    if (hd_str_find_char(uri, '\0') >= 0 || hd_str_climbs(uri) > 0) {
        hd_req_log(s->req, HD_LOG_ERROR, "unsafe URI \"%.*s\" was detected",
                   HD_STR_ARG(uri));
        return false;
    }
    what->uri = uri;
    return true;
}

static hd_str_t block_of(const ssi_t *s, hd_str_t name, bool *found)
{
    for (const ssi_block_t *b = s->blocks; b != NULL; b = b->next) {
        if (hd_str_eq(b->name, name)) {
            *found = true;
            return b->whole;
        }
    }
    *found = false;
    return HD_STR_NONE;
}

static hd_rc_t include(ssi_t *s, const command_t *c)
{
    const hd_str_t *virt = param(c, "virtual"), *file = param(c, "file"),
                   *wait = param(c, "wait"), *set = param(c, "set"),
                   *stub = param(c, "stub");
    ssi_include_t what = {.waits = false};
    bool found;

    if ((virt == NULL) == (file == NULL))
        WRONG(s, "inclusion needs either \"virtual\" or \"file\"");
    if (set != NULL && stub != NULL)
        WRONG(s,
              "\"set\" and \"stub\" cannot be used together in \"include\" SSI command");
    if (wait != NULL && !hd_str_eq(*wait, HD_STR("yes")) &&
        !hd_str_eq(*wait, HD_STR("no")))
        WRONG(s, "invalid value \"%.*s\" in the \"wait\" parameter", HD_STR_ARG(*wait));
    if (stub != NULL)
        what.stub = block_of(s, *stub, &found);
    if (stub != NULL && !found)
        hd_req_log(s->req, HD_LOG_ERROR, "\"stub\"=\"%.*s\" for \"include\" not found",
                   HD_STR_ARG(*stub));
    what.waits = wait != NULL && hd_str_eq(*wait, HD_STR("yes"));
    if (set != NULL)
        what.set = hd_str_dup_lower(hd_req_pool(s->req), *set);
    if (!make_uri(s, virt != NULL ? *virt : *file, &what) || !ssi_include(s, &what))
        return ssi_show_error(s);
    return HD_OK;
}

/* --- echo, set, config --- */

static bool is_plain(char c)
{
    return is_word_char(c) || strchr("-._~!*'(),:@&=+$/;", c) != NULL;
}

static hd_str_t encode(hd_pool_t *pool, hd_str_t text, bool is_url)
{
    growing_t g = {NULL, 0, 0};
    char hex[4];

    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];

        if (is_url && !is_plain(c)) {
            snprintf(hex, sizeof(hex), "%%%02X", (unsigned char)c);
            grow(pool, &g, hd_str_n(hex, 3));
        } else if (!is_url && strchr("<>&\"", c) != NULL && c != '\0') {
            grow(pool, &g,
                 hd_str_c(c == '<'   ? "&lt;"
                          : c == '>' ? "&gt;"
                          : c == '&' ? "&amp;"
                                     : "&quot;"));
        } else {
            grow(pool, &g, hd_str_n(&c, 1));
        }
    }
    return hd_str_n(g.text, g.len);
}

static hd_rc_t echo(ssi_t *s, const command_t *c)
{
    hd_pool_t *pool = hd_req_pool(s->req);
    const hd_str_t *var = param(c, "var"), *otherwise = param(c, "default"),
                   *encoding = param(c, "encoding");
    hd_str_t value;

    if (var == NULL)
        WRONG(s, "mandatory \"var\" parameter is absent in \"echo\" SSI command");
    if (encoding != NULL && !hd_str_eq(*encoding, HD_STR("none")) &&
        !hd_str_eq(*encoding, HD_STR("url")) && !hd_str_eq(*encoding, HD_STR("entity"))) {
        hd_req_log(s->req, HD_LOG_ERROR,
                   "unknown encoding \"%.*s\" in the \"echo\" command",
                   HD_STR_ARG(*encoding));
        encoding = NULL;
    }
    if (!get_var(s, hd_str_dup_lower(pool, *var), &value))
        value = otherwise != NULL ? *otherwise : HD_STR("(none)");
    if (encoding == NULL || !hd_str_eq(*encoding, HD_STR("none")))
        value =
            encode(pool, value, encoding != NULL && hd_str_eq(*encoding, HD_STR("url")));
    return ssi_add_text(s, value);
}

static hd_rc_t set(ssi_t *s, const command_t *c)
{
    const hd_str_t *var = param(c, "var"), *value = param(c, "value");
    hd_str_t text;

    if (var == NULL || value == NULL)
        WRONG(s, "mandatory \"%s\" parameter is absent in \"set\" SSI command",
              var == NULL ? "var" : "value");
    if (!evaluate(s, *value, &text))
        return ssi_show_error(s);
    ssi_set_var(s, hd_str_dup_lower(hd_req_pool(s->req), *var), text);
    return HD_OK;
}

static hd_rc_t config(ssi_t *s, const command_t *c)
{
    const hd_str_t *error = param(c, "errmsg"), *format = param(c, "timefmt");

    if (format != NULL)
        s->time_format = hd_str_dup(hd_req_pool(s->req), *format);
    if (error != NULL)
        s->error = hd_str_dup(hd_req_pool(s->req), *error);
    return HD_OK;
}

/* --- if … endif --- */

/* (?<NAME>…) and (?P<NAME>…) of a pattern become variables. */
static void set_named(ssi_t *s, const hd_regex_t *re, hd_str_t pattern,
                      const hd_captures_t *captures, hd_str_t in)
{
    for (ssize_t at; (at = hd_str_find(pattern, HD_STR("(?"))) >= 0;) {
        hd_str_t name;
        int group;

        pattern = hd_str_sub(pattern, (size_t)at + 2, pattern.len);
        if (pattern.len > 0 && pattern.data[0] == 'P')
            pattern = hd_str_sub(pattern, 1, pattern.len);
        if (pattern.len == 0 || pattern.data[0] != '<')
            continue;
        pattern = hd_str_sub(pattern, 1, pattern.len);
        name = take_word(&pattern);
        group = name.len > 0 ? hd_regex_group(re, name) : -1;
        if (group < 0 || (uint32_t)group >= captures->n || captures->at[group].from < 0)
            continue;
        ssi_set_var(
            s, hd_str_dup_lower(hd_req_pool(s->req), name),
            hd_str_sub(in, (size_t)captures->at[group].from,
                       (size_t)(captures->at[group].to - captures->at[group].from)));
    }
}

/* Numbered groups become $0 to $9. */
static bool match(ssi_t *s, hd_str_t left, hd_str_t pattern, bool *holds)
{
    hd_captures_t captures;
    hd_err_t err = {0};
    hd_regex_t *re = hd_regex_create(pattern, false, true, &err);
    hd_rc_t rc;

    if (re == NULL) {
        hd_req_log(s->req, HD_LOG_ERROR, "%s", err.text);
        return false;
    }
    left = hd_str_dup(hd_req_pool(s->req), left); /* some are only lent for a turn */
    rc = hd_regex_match(re, left, &captures);
    *holds = rc == HD_OK;
    for (uint32_t i = 0; rc == HD_OK && i < hd_countof(s->captures); i++) {
        bool is_there = i < captures.n && captures.at[i].from >= 0;

        s->captures[i] =
            is_there ? hd_str_sub(left, (size_t)captures.at[i].from,
                                  (size_t)(captures.at[i].to - captures.at[i].from))
                     : HD_STR_NONE;
    }
    if (rc == HD_OK)
        set_named(s, re, pattern, &captures, left);
    hd_regex_destroy(re);
    return rc != HD_ERROR;
}

/* $NAME, $NAME = TEXT, $NAME != TEXT, with /TEXT/ for a regular expression. False: it is
 * none of these, or can't be told. */
static bool holds(ssi_t *s, hd_str_t expr, bool *result)
{
    hd_str_t left, right;
    bool is_not = false;

    if (expr.len == 0 || expr.data[0] != '$' || !take_var(s, &expr, &left))
        return false;
    expr = skip_spaces(expr);
    if (expr.len == 0) {
        *result = left.len > 0;
        return true;
    }
    if (expr.data[0] == '!') {
        is_not = true;
        expr = hd_str_sub(expr, 1, expr.len);
    }
    if (expr.len == 0 || expr.data[0] != '=')
        return false;
    expr = skip_spaces(hd_str_sub(expr, 1, expr.len));
    if (expr.len == 0)
        return false;
    if (expr.data[0] == '/') {
        if (expr.len < 2 || expr.data[expr.len - 1] != '/' ||
            !match(s, left, hd_str_sub(expr, 1, expr.len - 2), result))
            return false;
    } else {
        if (!evaluate(s, expr, &right))
            return false;
        *result = hd_str_eq(left, right);
    }
    *result ^= is_not;
    return true;
}

static hd_rc_t run_if(ssi_t *s, const command_t *c, bool is_first)
{
    const hd_str_t *expr = param(c, "expr");
    bool result = false;

    if (is_first && s->is_conditional)
        WRONG(s, "the \"if\" command inside the \"if\" command");
    if (!is_first && (!s->is_conditional || s->has_else))
        WRONG(s, "invalid context of \"elif\" SSI command");
    s->is_conditional = true;
    if (s->has_shown) {
        s->is_shown = false;
        return HD_OK;
    }
    if (expr == NULL || !holds(s, *expr, &result)) {
        hd_rc_t rc;

        hd_req_log(s->req, HD_LOG_ERROR, "invalid expression in \"%.*s\" SSI command",
                   HD_STR_ARG(c->name));
        s->is_shown = true;
        rc = ssi_show_error(s);
        s->is_shown = false;
        return rc;
    }
    s->is_shown = s->has_shown = result;
    return HD_OK;
}

static hd_rc_t run_else(ssi_t *s)
{
    if (!s->is_conditional || s->has_else)
        WRONG(s, "invalid context of \"else\" SSI command");
    s->has_else = true;
    s->is_shown = !s->has_shown;
    s->has_shown = true;
    return HD_OK;
}

static hd_rc_t end_if(ssi_t *s)
{
    if (!s->is_conditional)
        WRONG(s, "invalid context of \"endif\" SSI command");
    s->is_conditional = s->has_else = s->has_shown = false;
    s->is_shown = true;
    return HD_OK;
}

/* --- block --- */

hd_rc_t ssi_add_to_block(ssi_t *s, hd_str_t text)
{
    if (s->block->text.bytes + text.len > BLOCK_BYTES_MAX) /* the rest is left out */
        return HD_OK;
    return text.len == 0 || hd_chain_try_add_copy(&s->block->text, text.data, text.len)
               ? HD_OK
               : ssi_no_block(s->req);
}

static hd_rc_t begin_block(ssi_t *s, const command_t *c)
{
    hd_pool_t *pool = hd_req_pool(s->req);
    const hd_str_t *name = param(c, "name");

    if (name == NULL)
        WRONG(s, "mandatory \"name\" parameter is absent in \"block\" SSI command");
    s->block = hd_pool_new(pool, ssi_block_t);
    s->block->name = hd_str_dup(pool, *name);
    return HD_OK;
}

static hd_rc_t end_block(ssi_t *s)
{
    ssi_block_t *b = s->block;
    size_t n;
    char *text;

    if (b == NULL)
        return HD_OK;
    n = b->text.bytes;
    text = hd_pool_alloc_unaligned(hd_req_pool(s->req), n + 1);
    b->whole = hd_str_n(text, hd_chain_peek(&b->text, text, n));
    hd_chain_free(&b->text);
    b->next = s->blocks;
    s->blocks = b;
    s->block = NULL;
    return HD_OK;
}

/* --- all of them --- */

static bool is(const command_t *c, const char *name)
{
    return hd_str_eq(c->name, hd_str_c(name));
}

hd_rc_t ssi_run(ssi_t *s, hd_str_t text)
{
    command_t c;

    if (!read_command(s, text, &c))
        return ssi_show_error(s);
    if (is(&c, "endblock"))
        return end_block(s);
    if (s->block != NULL) { /* its commands are text of it */
        if (ssi_add_to_block(s, HD_STR("<!--#")) != HD_OK ||
            ssi_add_to_block(s, text) != HD_OK)
            return HD_ERROR;
        return ssi_add_to_block(s, HD_STR("-->"));
    }
    if (is(&c, "if") || is(&c, "elif"))
        return run_if(s, &c, is(&c, "if"));
    if (is(&c, "else"))
        return run_else(s);
    if (is(&c, "endif"))
        return end_if(s);
    if (!s->is_shown)
        return HD_OK;
    if (is(&c, "include"))
        return include(s, &c);
    if (is(&c, "echo"))
        return echo(s, &c);
    if (is(&c, "set"))
        return set(s, &c);
    if (is(&c, "config"))
        return config(s, &c);
    if (is(&c, "block"))
        return begin_block(s, &c);
    WRONG(s, "invalid SSI command: \"%.*s\"", HD_STR_ARG(c.name));
}
