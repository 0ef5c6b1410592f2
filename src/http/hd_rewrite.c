#include "http/hd_rewrite.h"
#include "core/proc/hd_modules.h"
#include "http/hd_chars.h"
#include "http/hd_request_int.h"
#include "http/hd_uri.h"
#include <limits.h>
#include <sys/stat.h>

#define rewrite_note(req, rw, ...)                                                       \
    do {                                                                                 \
        if (hd_unlikely((rw)->log))                                                      \
            hd_req_log(req, HD_LOG_NOTICE, __VA_ARGS__);                                 \
    } while (0)

/* --- values --- */

/* What may not stand as it is in arguments or a URL that the client gets. */
static bool needs_escape(unsigned char c)
{
    return c <= ' ' || c >= 0x7f || c == '#' || c == '%' || c == '&' || c == '+' ||
           c == ';' || c == '?';
}

/* Was the path received with %XX or '+'? Groups are escaped again then, and only then. */
static bool is_quoted(const hd_req_t *req)
{
    hd_str_t raw = req->head.raw_path;

    for (size_t i = 0; i < raw.len && raw.data[i] != '?'; i++) {
        if (raw.data[i] == '%' || raw.data[i] == '+')
            return true;
    }
    return false;
}

static bool is_group(const hd_expr_part_t *p)
{
    return p->attr.name.len == 1 && p->attr.name.data[0] >= '1' &&
           p->attr.name.data[0] <= '9';
}

/* As hd_expr_eval, with groups ($1) escaped; what it returns stays as it is, whatever
 * changes later. */
static hd_rc_t eval(hd_req_t *req, const hd_expr_t *e, bool escape, hd_str_t *out)
{
    hd_attr_of_t of = hd_req_attr_of(req);
    size_t len = 0;
    hd_str_t *texts;
    char *to;

    if (!escape || !is_quoted(req)) {
        if (hd_expr_eval(e, req, out) != HD_OK)
            return HD_ERROR;
        if (e->n == 1)
            *out = hd_str_dup(req->pool, *out);
        return HD_OK;
    }
    texts = hd_pool_new_n(req->pool, hd_str_t, e->n);
    for (uint32_t i = 0; i < e->n; i++) {
        const hd_expr_part_t *p = &e->parts[i];

        texts[i] = p->attr.name.len == 0 ? p->text : hd_attr_text(&of, &p->attr);
        if (is_group(p))
            texts[i] = hd_uri_escape_where(req->pool, texts[i], needs_escape);
        len += texts[i].len;
    }
    to = hd_pool_alloc_unaligned(req->pool, len + 1);
    *out = hd_str_n(to, len);
    for (uint32_t i = 0; i < e->n; i++) {
        if (texts[i].len > 0)
            memcpy(to, texts[i].data, texts[i].len);
        to += texts[i].len;
    }
    *to = '\0';
    return HD_OK;
}

/* --- conditions --- */

/* HD_ERROR: given up; as in nginx, the request fails. */
static hd_rc_t match(hd_req_t *req, const hd_rewrite_t *rw, const hd_rw_op_t *op,
                     hd_str_t s)
{
    hd_captures_t captures;
    hd_rc_t rc = hd_match_ask(req->member, req->routes_region, &op->regex, s, &captures);

    if (rc == HD_ERROR)
        return hd_req_err(req, HD_E_LIMIT, "\"%.*s\" was given up",
                          HD_STR_ARG(op->regex.text));
    if (rc != HD_OK) {
        req->captures.n = 0;
        rewrite_note(req, rw, "\"%.*s\" does not match \"%.*s\"",
                     HD_STR_ARG(op->regex.text), HD_STR_ARG(s));
        return HD_DECLINED;
    }
    hd_router_take_captures(req, &captures, s, op->groups, op->groups_n, 0);
    rewrite_note(req, rw, "\"%.*s\" matches \"%.*s\"", HD_STR_ARG(op->regex.text),
                 HD_STR_ARG(s));
    return HD_OK;
}

static bool test_file(uint8_t test, hd_str_t path)
{
    char text[PATH_MAX];
    struct stat st;

    if (path.len >= sizeof(text) || memchr(path.data, 0, path.len) != NULL)
        return false;
    memcpy(text, path.data, path.len);
    text[path.len] = '\0';
    if (stat(text, &st) != 0)
        return false;
    return test == HD_RW_FILE  ? S_ISREG(st.st_mode)
           : test == HD_RW_DIR ? S_ISDIR(st.st_mode)
           : test == HD_RW_ANY ? true
                               : (st.st_mode & S_IXUSR) != 0;
}

static hd_rc_t test(hd_req_t *req, const hd_rewrite_t *rw, const hd_rw_op_t *op,
                    bool *holds)
{
    hd_str_t value, other;
    hd_rc_t rc;

    if (eval(req, op->value, false, &value) != HD_OK ||
        (op->other != NULL && hd_expr_eval(op->other, req, &other) != HD_OK))
        return hd_req_err(req, HD_E_INTERNAL, "if: no value");
    switch (op->test) {
    case HD_RW_TRUE:
        *holds = value.len > 0 && !hd_str_eq(value, HD_STR("0"));
        break;
    case HD_RW_EQUAL:
        *holds = hd_str_eq(value, other);
        break;
    case HD_RW_REGEX:
        rc = match(req, rw, op, value);
        if (rc == HD_ERROR)
            return rc;
        *holds = rc == HD_OK;
        break;
    default:
        *holds = test_file(op->test, value);
    }
    *holds ^= op->negative;
    return HD_OK;
}

/* --- rewrite --- */

/* %XX of a URL for the client are undone where they needn't be: nginx's unescaping of a
 * redirect, up to the arguments. */
static hd_str_t unescape_redirect(hd_pool_t *pool, hd_str_t url)
{
    char *out;
    size_t n = 0, i = 0;

    if (hd_str_find_char(url, '%') < 0)
        return url;
    out = hd_pool_alloc_unaligned(pool, url.len + 1);
    while (i < url.len && url.data[i] != '?') {
        int high = i + 2 < url.len ? hd_hex_value(url.data[i + 1]) : -1;
        int low = i + 2 < url.len ? hd_hex_value(url.data[i + 2]) : -1;
        int c = high >= 0 && low >= 0 ? high << 4 | low : -1;

        if (url.data[i] == '%' && c > '%' && c < 0x7f) {
            out[n++] = (char)c;
            i += 3;
            if (c == '?')
                break;
            continue;
        }
        out[n++] = url.data[i++];
    }
    memcpy(out + n, url.data + i, url.len - i);
    return hd_str_n(out, n + url.len - i);
}

static hd_rc_t redirect(hd_req_t *req, const hd_rewrite_t *rw, const hd_rw_op_t *op)
{
    hd_str_t url;

    if (eval(req, op->value, true, &url) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "rewrite: no value");
    url = unescape_redirect(req->pool, url);
    if (op->adds_args && req->head.query.len > 0)
        url = hd_str_printf(req->pool, "%.*s%c%.*s", HD_STR_ARG(url),
                            op->has_mark ? '&' : '?', HD_STR_ARG(req->head.query));
    rewrite_note(req, rw, "rewritten redirect: \"%.*s\"", HD_STR_ARG(url));
    req->redirect_to = url;
    req->route = op->route;
    return HD_DONE;
}

static hd_rc_t rewrite_uri(hd_req_t *req, const hd_rewrite_t *rw, const hd_rw_op_t *op)
{
    hd_str_t path, args = HD_STR_NONE;

    if (eval(req, op->value, false, &path) != HD_OK ||
        (op->other != NULL && eval(req, op->other, true, &args) != HD_OK))
        return hd_req_err(req, HD_E_INTERNAL, "rewrite: no value");
    if (op->other != NULL && op->adds_args && req->head.query.len > 0)
        args = hd_str_printf(req->pool, "%.*s&%.*s", HD_STR_ARG(args),
                             HD_STR_ARG(req->head.query));
    if (op->other != NULL || !op->adds_args)
        req->head.query = args;
    rewrite_note(req, rw, "rewritten data: \"%.*s\", args: \"%.*s\"", HD_STR_ARG(path),
                 HD_STR_ARG(req->head.query));
    if (path.len == 0)
        return hd_req_err(req, HD_E_CONF, "the rewritten URI has a zero length");
    req->head.path = path;
    req->path_changed = true;
    return HD_OK;
}

static hd_rc_t run_rewrite(hd_req_t *req, const hd_rewrite_t *rw, const hd_rw_op_t *op,
                           bool *changed)
{
    hd_rc_t rc = match(req, rw, op, req->head.path);

    if (rc != HD_OK)
        return rc == HD_ERROR ? rc : HD_OK;
    if (op->is_redirect)
        return redirect(req, rw, op);
    req->is_internal = true;
    *changed = !op->is_break;
    req->leaves_location |= op->is_break;
    rc = rewrite_uri(req, rw, op);
    return rc == HD_OK && op->is_last ? HD_DECLINED : rc;
}

/* --- the list --- */

static hd_rc_t run_set(hd_req_t *req, const hd_rw_op_t *op)
{
    hd_attr_of_t of = hd_req_attr_of(req);
    hd_val_t value = {.type = HD_VAL_STR};

    if (eval(req, op->value, true, &value.str) != HD_OK ||
        hd_attr_set(&of, &op->name, value) != HD_OK)
        return hd_req_err(req, HD_E_INTERNAL, "set: it can't be set");
    return HD_OK;
}

/* Where a list is. The settings of the last `if` that held are in force behind its block,
 * too: for an answer that stands there. */
typedef struct {
    uint32_t at;
    const hd_route_t *chosen; /* by that `if`; NULL: none held */
    uint32_t chosen_end;      /* the last of its block */
    bool changed;
} run_t;

/* <answer> with the settings of <chosen>. */
static const hd_route_t *with_settings_of(hd_req_t *req, const hd_route_t *chosen,
                                          const hd_route_t *answer)
{
    hd_route_t *r = hd_pool_new(req->pool, hd_route_t);
    hd_filter_conf_t *list =
        hd_pool_alloc(req->pool, (chosen->filters_n + 1) * sizeof(*list));

    *r = *chosen;
    r->filters_n = 0;
    for (uint32_t i = 0; i < chosen->filters_n; i++) {
        const hd_module_t *mod = hd_module_get(chosen->filters[i].module);

        if (mod != NULL && !mod->follows_rewrite)
            list[r->filters_n++] = chosen->filters[i];
    }
    r->filters = list;
    r->proxy = NULL;
    r->rewrite = NULL;
    r->action = answer->action;
    r->status = answer->status;
    r->text = answer->text;
    return r;
}

/* HD_DECLINED: the list ends here. */
static hd_rc_t run_op(hd_req_t *req, const hd_rewrite_t *rw, const hd_rw_op_t *op,
                      run_t *run)
{
    bool holds = false;
    hd_rc_t rc;

    switch (op->kind) {
    case HD_RW_SET:
        return run_set(req, op);
    case HD_RW_IF:
        if (test(req, rw, op, &holds) != HD_OK)
            return HD_ERROR;
        if (holds && op->route != NULL) {
            req->route = run->chosen = op->route;
            run->chosen_end = run->at + op->skip;
        }
        if (!holds)
            run->at += op->skip;
        return HD_OK;
    case HD_RW_REWRITE:
        rc = run_rewrite(req, rw, op, &run->changed);
        break;
    case HD_RW_BREAK:
        run->changed = false;
        return HD_DECLINED;
    default:
        req->route = op->route;
        rc = HD_DONE;
    }
    if (rc == HD_DONE && run->chosen != NULL && run->at > run->chosen_end)
        req->route = with_settings_of(req, run->chosen, op->route);
    return rc;
}

hd_rc_t hd_rewrite_run(hd_req_t *req, const hd_rewrite_t *rw, bool *changed)
{
    run_t run = {0};
    hd_rc_t rc = HD_OK;

    for (; rc == HD_OK && run.at < rw->n; run.at++)
        rc = run_op(req, rw, &rw->ops[run.at], &run);
    *changed = run.changed;
    return rc == HD_DECLINED ? HD_OK : rc;
}
