#include "core/conf/hd_parse_int.h"
#include "core/base/hd_array.h"
#include <stdio.h>
#include <string.h>

static const char *const *raw_blocks;

void hd_parse_set_raw_blocks(const char *const *names)
{
    raw_blocks = names;
}

/* A leading '*' in the list stands for any beginning. */
static bool is_raw_block(hd_str_t name)
{
    for (const char *const *p = raw_blocks; p != NULL && *p != NULL; p++) {
        if (**p == '*' ? hd_str_has_suffix(name, hd_str_c(*p + 1))
                       : hd_str_eq(name, hd_str_c(*p)))
            return true;
    }
    return false;
}

typedef struct {
    hd_reader_t *reader;
    const hd_including_t *in;
    hd_str_t text;
    size_t at;
    uint32_t line;
} lexer_t;

/* What ended a directive. */
typedef enum { END_SEMICOLON, END_OPEN, END_CLOSE, END_TEXT, END_FAILED } end_t;

static end_t fail(const lexer_t *lx, uint32_t line, const char *what, hd_err_t *err)
{
    hd_ignore(
        hd_err_set(err, HD_E_CONF, "%.*s:%u: %s", HD_STR_ARG(lx->in->file), line, what));
    return END_FAILED;
}

static end_t fail_char(const lexer_t *lx, char c, const char *remedy, hd_err_t *err)
{
    char text[160];

    (void)snprintf(text, sizeof(text), "unexpected \"%c\"%s", c, remedy);
    return fail(lx, lx->line, text, err);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static char peek(const lexer_t *lx)
{
    return lx->text.data[lx->at];
}

static bool is_at_end(const lexer_t *lx)
{
    return lx->at >= lx->text.len;
}

static void skip_space_and_comments(lexer_t *lx)
{
    bool in_comment = false;

    for (; !is_at_end(lx); lx->at++) {
        char c = peek(lx);

        if (c == '\n') {
            lx->line++;
            in_comment = false;
        } else if (c == '#') {
            in_comment = true;
        } else if (!in_comment && !is_space(c)) {
            return;
        }
    }
}

/* nginx's escapes: \" \' \\ lose the backslash, \t \r \n become what they name, any other
 * keeps it (regular expressions need it). */
static hd_str_t unescape(hd_pool_t *pool, hd_str_t raw)
{
    char *out = hd_pool_alloc_unaligned(pool, raw.len + 1);
    size_t n = 0;

    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.data[i];

        if (c == '\\' && i + 1 < raw.len) {
            char next = raw.data[i + 1];

            if (next == '"' || next == '\'' || next == '\\')
                c = raw.data[++i];
            else if (next == 't' || next == 'r' || next == 'n')
                c = (i++, next == 't' ? '\t' : next == 'r' ? '\r' : '\n');
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return hd_str_n(out, n);
}

/* One word at lx->at, quoted or not; stands behind it afterwards. */
static bool read_word(lexer_t *lx, hd_str_t *word, hd_err_t *err)
{
    uint32_t first_line = lx->line;
    char quote = peek(lx) == '"' || peek(lx) == '\'' ? peek(lx) : '\0';
    bool after_dollar = false;
    size_t start;

    if (quote != '\0')
        lx->at++;
    start = lx->at;
    for (; !is_at_end(lx); lx->at++) {
        char c = peek(lx);

        if (c == '\n')
            lx->line++;
        if (c == '\\' && lx->at + 1 < lx->text.len) {
            lx->at++;
            if (peek(lx) == '\n')
                lx->line++;
            after_dollar = false;
            continue;
        }
        if (quote != '\0' ? c == quote
                          : is_space(c) || c == ';' || (c == '{' && !after_dollar))
            break;
        after_dollar = c == '$';
        if (lx->at - start >= HD_PARSE_ARG_MAX) {
            fail(lx, first_line,
                 quote != '\0'
                     ? "a quoted argument of more than 4096 bytes: is its "
                       "closing quote missing?"
                     : "an argument of more than 4096 bytes: is a \";\" missing?",
                 err);
            return false;
        }
    }
    if (!is_at_end(lx) && quote == '\0' && peek(lx) == '\n')
        lx->line--; /* not consumed */
    if (quote != '\0' && is_at_end(lx)) {
        fail(lx, first_line,
             "unexpected end of file: the quote that begins here is never closed", err);
        return false;
    }
    *word = unescape(lx->reader->pool, hd_str_n(lx->text.data + start, lx->at - start));
    if (quote != '\0') {
        lx->at++;
        if (!is_at_end(lx) && !is_space(peek(lx)) && peek(lx) != ';' && peek(lx) != '{' &&
            peek(lx) != ')') {
            fail_char(lx, peek(lx), " behind a closing quote: a space belongs there",
                      err);
            return false;
        }
    }
    return true;
}

/* [[ … ]] and [==[ … ]==]: the length of what opens at <at>, 0 if none does. */
static size_t long_bracket(hd_str_t text, size_t at, size_t *equals)
{
    size_t i = at + 1;

    while (i < text.len && text.data[i] == '=')
        i++;
    *equals = i - at - 1;
    return i < text.len && text.data[i] == '[' ? i + 1 - at : 0;
}

static size_t skip_long_bracket(hd_str_t text, size_t at, size_t equals)
{
    for (; at < text.len; at++) {
        size_t i = at + 1;

        if (text.data[at] != ']')
            continue;
        while (i < text.len && text.data[i] == '=')
            i++;
        if (i - at - 1 == equals && i < text.len && text.data[i] == ']')
            return i + 1;
    }
    return text.len;
}

/* The body of a raw block up to its "}": Lua's strings, long brackets and comments don't
 * count as braces. */
static bool read_raw(lexer_t *lx, hd_str_t *body, hd_err_t *err)
{
    size_t start = lx->at, i = lx->at, equals, n;
    hd_str_t t = lx->text;
    unsigned open = 1;

    while (i < t.len) {
        char c = t.data[i];

        if (c == '{') {
            open++;
        } else if (c == '}') {
            if (--open == 0)
                break;
        } else if (c == '"' || c == '\'') {
            for (i++; i < t.len && t.data[i] != c && t.data[i] != '\n'; i++)
                if (t.data[i] == '\\')
                    i++;
        } else if (c == '-' && i + 1 < t.len && t.data[i + 1] == '-') {
            if (i + 2 < t.len && t.data[i + 2] == '[' &&
                (n = long_bracket(t, i + 2, &equals)) > 0) {
                i = skip_long_bracket(t, i + 2 + n, equals);
                continue;
            }
            while (i < t.len && t.data[i] != '\n')
                i++;
            continue;
        } else if (c == '[' && (n = long_bracket(t, i, &equals)) > 0) {
            i = skip_long_bracket(t, i + n, equals);
            continue;
        }
        i++;
    }
    if (i >= t.len) {
        fail(lx, lx->line,
             "unexpected end of file: the block that begins here is never "
             "closed",
             err);
        return false;
    }
    if (i - start > HD_PARSE_RAW_MAX) {
        fail(lx, lx->line, "a block of code of more than 1 MB", err);
        return false;
    }
    *body = hd_str_dup(lx->reader->pool, hd_str_n(t.data + start, i - start));
    for (size_t k = start; k < i; k++)
        lx->line += t.data[k] == '\n';
    lx->at = i + 1;
    return true;
}

static void add_child(hd_node_t *parent, hd_node_t *node)
{
    node->parent = parent;
    if (parent->last == NULL)
        parent->first = node;
    else
        parent->last->next = node;
    parent->last = node;
}

/* Words up to ";" or "{" into <node>. */
static end_t read_directive(lexer_t *lx, hd_node_t *node, hd_err_t *err)
{
    hd_array_t args;
    bool has_name = false;

    hd_array_init(&args, lx->reader->pool, sizeof(hd_str_t), HD_PARSE_ARGS_MAX);
    for (;;) {
        hd_str_t word, *arg;
        char c;

        skip_space_and_comments(lx);
        if (is_at_end(lx)) {
            if (!has_name)
                return END_TEXT;
            return fail(lx, node->line,
                        "unexpected end of file, expecting \";\" or \"}\"", err);
        }
        c = peek(lx);
        if (c == ';' || c == '{') {
            if (!has_name)
                return fail_char(lx, c, ": no directive stands before it", err);
            lx->at++;
            node->args = args.items;
            node->args_n = (uint32_t)args.n;
            return c == ';' ? END_SEMICOLON : END_OPEN;
        }
        if (c == '}') {
            if (has_name)
                return fail_char(lx, c, ": a \";\" is missing before it", err);
            lx->at++;
            return END_CLOSE;
        }
        if (!has_name)
            node->line = lx->line;
        if (!read_word(lx, &word, err))
            return END_FAILED;
        if (!has_name) {
            node->name = word;
            has_name = true;
            continue;
        }
        arg = hd_array_add(&args);
        if (arg == NULL)
            return fail(lx, node->line, "too many arguments: is a \";\" missing?", err);
        *arg = word;
    }
}

/* The raw text becomes the last argument. */
static hd_rc_t take_raw(lexer_t *lx, hd_node_t *node, hd_err_t *err)
{
    hd_str_t *args = hd_pool_new_n(lx->reader->pool, hd_str_t, node->args_n + 1);

    if (node->args_n > 0)
        memcpy(args, node->args, node->args_n * sizeof(*args));
    if (!read_raw(lx, &args[node->args_n], err))
        return HD_ERROR;
    node->args = args;
    node->args_n++;
    return HD_OK;
}

static hd_rc_t include(lexer_t *lx, const hd_node_t *node, hd_node_t *parent,
                       hd_err_t *err)
{
    hd_rc_t rc;

    if (node->args_n != 1) {
        fail(lx, node->line,
             "invalid number of arguments in \"include\" directive: one file or pattern",
             err);
        return HD_ERROR;
    }
    rc = hd_parse_include(lx->reader, lx->in, node->args[0], parent, err);
    /* A reason that has no place yet is about the include itself. */
    if (rc != HD_OK && err != NULL && err->code == HD_E_SYS) {
        hd_ignore(hd_err_prefix(err, "%.*s:%u: ", HD_STR_ARG(lx->in->file), node->line));
        err->code = HD_E_CONF;
    }
    return rc;
}

hd_rc_t hd_parse_into(hd_reader_t *r, const hd_including_t *in, hd_str_t text,
                      hd_node_t *parent, hd_err_t *err)
{
    lexer_t lx = {r, in, text, 0, 1};
    hd_node_t *top = parent;

    if (memchr(text.data != NULL ? text.data : "", '\0', text.len) != NULL)
        return hd_err_set(err, HD_E_CONF,
                          "%.*s:1: there is a zero byte in it: is it a "
                          "text file?",
                          HD_STR_ARG(in->file));
    if (hd_str_has_prefix(text, HD_STR("\xef\xbb\xbf")))
        lx.at = 3; /* a byte order mark, as some editors write it */
    for (;;) {
        hd_node_t *node = hd_pool_new(r->pool, hd_node_t);
        end_t end = read_directive(&lx, node, err);

        node->file = in->file;
        switch (end) {
        case END_FAILED:
            return HD_ERROR;
        case END_TEXT:
            if (parent == top)
                return HD_OK;
            return hd_err_set(err, HD_E_CONF,
                              "%.*s:%u: unexpected end of file, expecting \"}\": the "
                              "block \"%.*s\" begins in line %u",
                              HD_STR_ARG(in->file), lx.line, HD_STR_ARG(parent->name),
                              parent->line);
        case END_CLOSE:
            if (parent == top) {
                fail_char(&lx, '}', ": no block is open here", err);
                return HD_ERROR;
            }
            parent = parent->parent;
            r->blocks--;
            break;
        case END_SEMICOLON:
            if (!hd_str_eq(node->name, HD_STR("include")))
                add_child(parent, node);
            else if (include(&lx, node, parent, err) != HD_OK)
                return HD_ERROR;
            break;
        case END_OPEN:
            add_child(parent, node);
            if (is_raw_block(node->name)) {
                if (take_raw(&lx, node, err) != HD_OK)
                    return HD_ERROR;
                break;
            }
            node->is_block = true;
            if (++r->blocks > HD_PARSE_BLOCKS_MAX)
                return hd_err_set(err, HD_E_CONF, "%.*s:%u: blocks more than %d deep",
                                  HD_STR_ARG(in->file), node->line, HD_PARSE_BLOCKS_MAX);
            parent = node;
            break;
        }
    }
}

hd_node_t *hd_parse_text(hd_pool_t *pool, hd_str_t name, hd_str_t text, hd_err_t *err)
{
    hd_reader_t r = {.pool = pool};
    hd_including_t in = {.file = hd_str_dup(pool, name)};
    hd_node_t *root = hd_pool_new(pool, hd_node_t);

    root->file = in.file;
    root->is_block = true;
    root->line = 1;
    return hd_parse_into(&r, &in, text, root, err) == HD_OK ? root : NULL;
}
