/* ssi: commands within pages, done while the page goes out:
 *     <!--#include virtual="/head.html" -->  <!--#echo var="remote_addr" -->
 *     location / { ssi on; }
 * The page is cut into pieces: text, and answers of other locations that are asked for as
 * soon as they are named. What is in front goes out as it comes; what is behind waits. */
#include "ssi.h"

#include <stdlib.h>

#define QUEUE_BYTES 65536 /* of text behind an answer that is waited for */
#define INCLUDES_MAX 32   /* under way at a time */
#define SET_BYTES_MAX 8192

static const char opening[] = "<!--#";
#define OPENING_LEN (sizeof(opening) - 1)

/* --- pieces --- */

static void free_pieces(void *arg)
{
    ssi_t *s = arg;

    for (ssi_piece_t *p = s->first; p != NULL; p = p->next)
        hd_chain_free(&p->text);
    if (s->block != NULL)
        hd_chain_free(&s->block->text);
}

static ssi_piece_t *add_piece(ssi_t *s)
{
    ssi_piece_t *p = s->spare;

    if (p != NULL)
        s->spare = p->next;
    else
        p = hd_pool_alloc(hd_req_pool(s->req), sizeof(*p));
    *p = (ssi_piece_t){.next = NULL};
    *(s->first == NULL ? &s->first : &s->last->next) = p;
    s->last = p;
    return p;
}

static void drop_first(ssi_t *s)
{
    ssi_piece_t *p = s->first;

    s->first = p->next;
    s->includes -= p->sub != NULL;
    if (s->waits_for == p)
        s->waits_for = NULL;
    p->next = s->spare;
    s->spare = p;
}

hd_rc_t ssi_no_block(hd_req_t *req)
{
    return hd_req_fail(req, 503, HD_E_LIMIT, "ssi: no block left");
}

hd_rc_t ssi_add_text(ssi_t *s, hd_str_t text)
{
    if (text.len == 0)
        return HD_OK;
    if (s->first == NULL || s->last->sub != NULL)
        add_piece(s);
    s->text_bytes += text.len;
    return hd_chain_try_add_copy(&s->last->text, text.data, text.len)
               ? HD_OK
               : ssi_no_block(s->req);
}

bool ssi_include(ssi_t *s, const ssi_include_t *what)
{
    hd_sub_body_t *body = hd_pool_new(hd_req_pool(s->req), hd_sub_body_t);
    ssi_piece_t *p;

    if (!hd_req_start_sub(s->req, &(hd_sub_spec_t){.uri = what->uri,
                                                   .args = what->args,
                                                   .method = HD_STR("GET"),
                                                   .body = body}))
        return false;
    p = add_piece(s);
    p->sub = body;
    p->stub = what->stub;
    p->set = what->set;
    s->includes++;
    if (what->waits || what->set.len > 0)
        s->waits_for = p;
    return true;
}

/* --- the page, a command after the other --- */

/* What follows isn't looked at yet. */
static bool is_held(const ssi_t *s)
{
    return s->waits_for != NULL || s->includes >= INCLUDES_MAX ||
           (s->includes > 0 && s->text_bytes >= QUEUE_BYTES);
}

static hd_rc_t put_text(ssi_t *s, hd_str_t text)
{
    if (s->block != NULL)
        return ssi_add_to_block(s, text);
    return s->is_shown ? ssi_add_text(s, text) : HD_OK;
}

/* Is the command over with this byte? */
static bool add_to_command(ssi_t *s, char c)
{
    if (s->command_len < SSI_COMMAND_MAX)
        s->command[s->command_len] = c;
    s->command_len++;
    if (s->is_escaped) {
        s->is_escaped = false;
    } else if (s->quote != 0) {
        s->is_escaped = c == '\\';
        if (c == s->quote)
            s->quote = 0;
    } else if (c == '"' || c == '\'') {
        s->quote = c;
    } else if (c == '>' && s->dashes >= 2) {
        return true;
    }
    s->dashes = c == '-' && s->quote == 0 ? s->dashes + 1 : 0;
    return false;
}

static hd_rc_t begin_command(ssi_t *s)
{
    if (s->command == NULL)
        s->command = hd_pool_alloc_unaligned(hd_req_pool(s->req), SSI_COMMAND_MAX);
    s->in_command = true;
    s->matched = 0;
    s->command_len = s->dashes = 0;
    s->quote = 0;
    s->is_escaped = false;
    return HD_OK;
}

static hd_rc_t end_command(ssi_t *s)
{
    s->in_command = false;
    if (s->command_len > SSI_COMMAND_MAX) {
        hd_req_log(s->req, HD_LOG_ERROR, "too long SSI command: more than %d bytes",
                   SSI_COMMAND_MAX);
        return ssi_show_error(s);
    }
    return ssi_run(s, hd_str_n(s->command, s->command_len - 3));
}

/* How many of <text>'s bytes were taken in *used. */
static hd_rc_t take(ssi_t *s, hd_str_t text, size_t *used)
{
    size_t at = 0;

    *used = 0;
    while (at < text.len && !is_held(s)) {
        char c = text.data[at];
        hd_rc_t rc = HD_OK;

        if (s->in_command) {
            at++;
            if (add_to_command(s, c))
                rc = end_command(s);
        } else if (c == opening[s->matched]) {
            at++;
            if (++s->matched == OPENING_LEN)
                rc = begin_command(s);
        } else if (s->matched > 0) {
            rc = put_text(s, hd_str_n(opening, s->matched));
            s->matched = 0;
        } else {
            hd_str_t rest = hd_str_sub(text, at, text.len);
            ssize_t next = hd_str_find_char(rest, '<');
            size_t n = next < 0 ? rest.len : (size_t)next;

            rc = put_text(s, hd_str_sub(rest, 0, n));
            at += n;
        }
        if (rc != HD_OK)
            return rc;
    }
    *used = at;
    return HD_OK;
}

static hd_rc_t take_all(ssi_t *s, hd_chain_t *in)
{
    while (in->bytes > 0 && !is_held(s)) {
        size_t used;

        if (in->first->len == 0) {
            hd_ignore(hd_chain_take_flags(in) == 0); /* only "flush": bytes follow */
            continue;
        }
        if (take(s, hd_str_n(in->first->data, in->first->len), &used) != HD_OK)
            return HD_ERROR;
        hd_chain_drop(in, used);
    }
    return HD_OK;
}

/* --- what goes out --- */

/* An answer that becomes a variable. False: the rest of it is to come. */
static bool gather(ssi_t *s, ssi_piece_t *p)
{
    hd_chain_t more;
    char *bytes;
    size_t n;

    hd_chain_init(&more);
    hd_sub_take_body(p->sub, &more);
    hd_chain_move(&p->text, &more);
    if (p->text.bytes > SET_BYTES_MAX) {
        hd_req_log(s->req, HD_LOG_ERROR,
                   "too big subrequest response: more than %d bytes for \"set\"",
                   SET_BYTES_MAX);
        p->is_too_big = true;
        hd_chain_free(&p->text);
    }
    if (!p->sub->is_whole && !p->sub->is_cut)
        return false;
    if (!p->is_too_big) {
        n = p->text.bytes;
        bytes = hd_pool_alloc_unaligned(hd_req_pool(s->req), n + 1);
        hd_ignore(hd_chain_peek(&p->text, bytes, n) == n);
        ssi_set_var(s, p->set, hd_str_n(bytes, n));
    }
    hd_chain_free(&p->text);
    return true;
}

/* Moves what can go to <out>. */
static hd_rc_t give(ssi_t *s, hd_chain_t *out)
{
    ssi_piece_t *p;

    while ((p = s->first) != NULL && !hd_res_is_full(s->req)) {
        hd_sub_body_t *sub = p->sub;

        if (sub == NULL) {
            s->text_bytes -= p->text.bytes;
            hd_chain_move(out, &p->text);
            drop_first(s);
            continue;
        }
        if (p->set.len > 0) {
            if (!gather(s, p))
                return HD_OK;
            drop_first(s);
            continue;
        }
        p->has_bytes |= sub->bytes.bytes > 0;
        hd_sub_take_body(sub, out);
        if (sub->is_cut && p->has_bytes)
            return hd_req_fail(s->req, 502, HD_E_MODULE,
                               "ssi: an included body broke off");
        if (!sub->is_whole && !sub->is_cut)
            return HD_OK;
        if (!p->has_bytes && p->stub.len > 0 &&
            !hd_chain_try_add_copy(out, p->stub.data, p->stub.len))
            return ssi_no_block(s->req);
        drop_first(s);
    }
    return HD_OK;
}

static hd_rc_t on_response_body(hd_req_t *req, const void *conf, hd_chain_t *body)
{
    ssi_t *s = hd_req_state(req, &hd_module);
    hd_chain_t in, out;
    bool ends;

    (void)conf;
    if (s == NULL)
        return HD_OK;
    hd_chain_init(&in);
    hd_chain_init(&out);
    hd_chain_move(&in, body);
    ends = (hd_chain_flags(&in) & HD_SLICE_END) != 0;
    do {
        if (take_all(s, &in) != HD_OK || give(s, &out) != HD_OK)
            goto failed;
    } while (in.bytes > 0 && !is_held(s));
    if (ends && in.bytes == 0 && s->matched > 0) { /* it was none */
        if (put_text(s, hd_str_n(opening, s->matched)) != HD_OK || give(s, &out) != HD_OK)
            goto failed;
        s->matched = 0;
    }
    if (in.bytes == 0 && s->first == NULL) {
        hd_chain_move(&out, &in); /* what is left are flags */
        hd_chain_move(body, &out);
        return HD_OK;
    }
    if (out.bytes == 0) {
        hd_chain_free(&out);
        hd_chain_move(body, &in);
        return HD_AGAIN;
    }
    if (hd_chain_is_empty(&in)) /* to be called again, though no more has come */
        hd_chain_set_flags(&in, HD_SLICE_FLUSH);
    hd_res_put_back(req, &in);
    hd_chain_move(body, &out);
    return HD_OK;
failed:
    hd_chain_free(&in);
    hd_chain_free(&out);
    return HD_ERROR;
}

/* --- the head --- */

static bool changes_file(hd_req_t *req, const void *conf, hd_str_t type,
                         hd_str_t encoding, int64_t length)
{
    const ssi_conf_t *sc = conf;

    (void)req, (void)encoding, (void)length;
    return sc->is_on && types_have(&sc->types, type);
}

static hd_rc_t on_response_headers(hd_req_t *req, const void *conf)
{
    const ssi_conf_t *sc = conf;
    hd_str_t type = hd_res_header(req, HD_STR("Content-Type"), NULL);
    ssi_t *s;

    hd_req_set_state(req, &hd_module, NULL);
    if (!sc->is_on || !types_have(&sc->types, type)) {
        hd_res_skip_body(req);
        return HD_OK;
    }
    hd_res_remove_header(req, HD_STR("Content-Length"));
    hd_res_remove_header(req, HD_STR("Accept-Ranges"));
    if (!sc->keeps_time) {
        hd_res_remove_header(req, HD_STR("Last-Modified"));
        hd_res_remove_header(req, HD_STR("ETag"));
    } else if (bodies_weaken_etag(req) != HD_OK) {
        return HD_ERROR;
    }
    if (hd_str_eq(hd_req_method(req), HD_STR("HEAD"))) {
        hd_res_skip_body(req);
        return HD_OK;
    }
    s = hd_pool_new(hd_req_pool(req), ssi_t);
    s->req = req;
    s->conf = sc;
    s->is_shown = true;
    s->error = HD_STR("[an error occurred while processing the directive]");
    s->time_format = HD_STR("%A, %d-%b-%Y %H:%M:%S %Z");
    hd_pool_defer(hd_req_pool(req), free_pieces, s);
    hd_req_set_state(req, &hd_module, s);
    return HD_OK;
}

/* --- directives --- */

static hd_rc_t set_types(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    return types_set(cf, args, &((ssi_conf_t *)conf)->types, err);
}

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)
#define AT(field) offsetof(ssi_conf_t, field)

static const hd_directive_t directives[] = {
    {.name = "ssi",
     .scope = IN_ANY | HD_IN_IF,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(is_on),
     .help =
         "on|off: commands within pages are done, <!--#include virtual=\"/x\" --> and "
         "its kind; off"},
    {.name = "ssi_types",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_types,
     .help = "TYPE …|*: in which pages, besides text/html"},
    {.name = "ssi_silent_errors",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(is_silent),
     .help = "on|off: nothing stands where a command is wrong; off"},
    {.name = "ssi_value_length",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(value_max),
     .help = "BYTES: of a command's parameter at most; 256"},
    {.name = "ssi_last_modified",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_flag,
     .offset = AT(keeps_time),
     .help = "on|off: Last-Modified stays and ETag becomes weak, or both go; off"},
    {.name = "ssi_min_file_chunk",
     .scope = IN_ANY,
     .args_n = 1,
     .set = hd_set_size,
     .offset = AT(min_file_chunk),
     .help = "SIZE: accepted; files are read piece by piece"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "ssi",
    .directives = directives,
    .conf_size = sizeof(ssi_conf_t),
    .phase = HD_PHASE_CONTENT,
    .order = 1, /* behind charset and sub, before addition, as in nginx */
    .on_response_headers = on_response_headers,
    .on_response_body = on_response_body,
    .changes_file = changes_file,
};
