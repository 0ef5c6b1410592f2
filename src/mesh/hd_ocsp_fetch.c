#include "mesh/hd_ocsp_fetch.h"
#include "core/hd_call.h"
#include "http/hd_headers.h"

#include <openssl/evp.h>
#include <stdlib.h>

#define TEXT_MAX 1024 /* of a question in base64; with a serial of 20 bytes it has 112 */

struct hd_ocsp_fetch_s {
    hd_loop_t *loop;
    hd_pool_t *pool;
    hd_ocsp_url_t url; /* of the text in <pool> */
    const hd_slot_t *slot; /* held */
    hd_resolver_t resolver;
    hd_str_t request;
    hd_resolve_wait_t wait;
    hd_post_t step;
    hd_timer_t deadline;
    const hd_addr_t *addrs; /* in <pool>; NULL: not known yet */
    uint32_t addrs_n, at;   /* the address that is asked, or will be */
    hd_call_t *call;
    hd_cluster_t cluster; /* settings of the call */
    hd_fixed_pick_t fixed;
    unsigned status; /* 0: no head came */
    bool is_right_type, is_too_long;
    char *answer;
    size_t answer_len;
    void (*done)(void *arg, hd_str_t der, const hd_err_t *err);
    void *arg;
};

static void end(hd_ocsp_fetch_t *f)
{
    if (f->call != NULL)
        hd_call_cancel(f->call);
    if (hd_resolving != NULL)
        hd_resolving->stop(&f->wait);
    hd_post_cancel(&f->step);
    hd_timer_stop(f->loop, &f->deadline);
    hd_slot_let_go(hd_loop_member(f->loop), f->slot);
    free(f->answer);
    hd_pool_destroy(f->pool);
    free(f);
}

/* Not from within start. */
static void tell(hd_ocsp_fetch_t *f, const hd_err_t *err)
{
    void (*done)(void *arg, hd_str_t der, const hd_err_t *e) = f->done;
    void *arg = f->arg;
    char *answer = f->answer;
    size_t len = f->answer_len;

    f->answer = NULL;
    end(f);
    done(arg, err == NULL ? hd_str_n(answer, len) : HD_STR_NONE, err);
    free(answer);
}

static void tell_text(hd_ocsp_fetch_t *f, hd_err_code_t code, const char *text)
{
    hd_err_t err = {0};

    hd_ignore(hd_err_set(&err, code, "%s", text) != HD_ERROR);
    tell(f, &err);
}

static void on_deadline(hd_timer_t *t)
{
    tell_text(hd_container_of(t, hd_ocsp_fetch_t, deadline), HD_E_TIMEOUT,
              "OCSP responder timed out");
}

/* --- the question --- */

/* base64, of which '+', '/' and '=' may not stand in a path as they are. */
static size_t escape(const char *from, char *to)
{
    size_t n = 0;

    for (; *from != '\0'; from++) {
        if (*from == '+' || *from == '/' || *from == '=') {
            static const char digits[] = "0123456789ABCDEF";

            to[n++] = '%';
            to[n++] = digits[(unsigned char)*from >> 4];
            to[n++] = digits[(unsigned char)*from & 15];
        } else {
            to[n++] = *from;
        }
    }
    return n;
}

/* By GET, so that caches may answer (RFC 5019 §5). NULL data: it is too long. */
static hd_str_t make_path(hd_ocsp_fetch_t *f)
{
    hd_str_t base = f->url.path;
    unsigned char text[TEXT_MAX + 4];
    char *to;
    size_t n;

    if ((f->request.len + 2) / 3 * 4 > TEXT_MAX)
        return HD_STR_NONE;
    EVP_EncodeBlock(text, (const unsigned char *)f->request.data, (int)f->request.len);
    to = hd_pool_alloc_unaligned(f->pool, base.len + 1 + 3 * sizeof(text));
    memcpy(to, base.data, base.len);
    n = base.len;
    if (to[n - 1] != '/')
        to[n++] = '/';
    n += escape((const char *)text, to + n);
    return hd_str_n(to, n);
}

/* --- the answer --- */

static void on_head(hd_call_t *call, unsigned status, const hd_headers_t *headers)
{
    hd_ocsp_fetch_t *f = hd_call_arg(call);
    hd_str_t type = hd_headers_value(headers, HD_STR("content-type"), NULL);
    hd_str_t first = HD_STR_NONE;

    f->status = status;
    hd_ignore(hd_str_split(&type, ';', &first));
    f->is_right_type =
        hd_str_eq_nocase(hd_str_trim(first), HD_STR("application/ocsp-response"));
}

static void on_body(hd_call_t *call, hd_chain_t *body)
{
    hd_ocsp_fetch_t *f = hd_call_arg(call);

    while (body->bytes > 0) {
        size_t room = HD_OCSP_ANSWER_MAX - f->answer_len;
        size_t n = hd_chain_peek(body, f->answer + f->answer_len, room);

        if (n == 0) {
            f->is_too_long = true;
            hd_post(f->loop, &f->step); /* a call isn't ended from within */
            return;
        }
        f->answer_len += n;
        hd_chain_drop(body, n);
    }
}

static void on_end(hd_call_t *call, const hd_headers_t *trailers, const hd_err_t *err)
{
    hd_ocsp_fetch_t *f = hd_call_arg(call);
    char text[64];

    (void)trailers;
    f->call = NULL;
    if (f->is_too_long) /* the step tells */
        return;
    if (err != NULL && f->status == 0 && f->at + 1 < f->addrs_n) {
        f->at++;
        hd_post(f->loop, &f->step);
        return;
    }
    if (err == NULL && f->status != 200) {
        snprintf(text, sizeof(text), "OCSP responder answered with status %u", f->status);
        tell_text(f, HD_E_PROTOCOL, text);
    } else if (err == NULL && !f->is_right_type) {
        tell_text(f, HD_E_PROTOCOL,
                  "OCSP responder sent invalid \"Content-Type\" header");
    } else {
        tell(f, err);
    }
}

static const hd_call_user_t user = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

/* --- the steps --- */

static void end_question(hd_call_t *call)
{
    hd_chain_t nothing;

    hd_chain_init(&nothing);
    hd_chain_set_flags(&nothing, HD_SLICE_END);
    hd_call_send(call, &nothing);
}

static void start_call(hd_ocsp_fetch_t *f)
{
    hd_call_spec_t spec = {
        .cluster = f->slot,
        .fixed = &f->fixed,
        .method = HD_STR("GET"),
        .path = make_path(f),
        .authority = f->url.authority,
        .protocol = HD_UP_HTTP1,
    };
    hd_err_t err = {0};

    if (spec.path.len == 0) {
        tell_text(f, HD_E_LIMIT,
                  "the certificate's serial number is too long to ask for");
        return;
    }
    f->cluster = (hd_cluster_t){
        .name = f->slot->name,
        .connect_timeout_ms = HD_OCSP_TIMEOUT_MS,
        .max_conns = UINT32_MAX,
        .max_pending = UINT32_MAX,
        .max_requests = UINT32_MAX,
        .max_retries = UINT32_MAX,
        .max_pools = UINT32_MAX,
        .requests_per_conn = 1,
    };
    f->fixed = (hd_fixed_pick_t){.cluster = &f->cluster, .addr = f->addrs[f->at]};
    f->call = hd_call_start(f->loop, hd_loop_member(f->loop), &spec, &user, f, &err);
    if (f->call == NULL)
        tell(f, &err);
    else
        end_question(f->call);
}

static hd_rc_t find_addrs(hd_ocsp_fetch_t *f, hd_err_t *err)
{
    const hd_addr_t *addrs;
    hd_addr_t literal;
    uint32_t n = 1;
    hd_rc_t rc = HD_OK;

    if (hd_addr_parse_ip(f->url.host, &literal))
        addrs = &literal;
    else if (hd_resolving == NULL)
        return hd_err_set(err, HD_E_NO_CLUSTER, "names can't be looked up here");
    else
        rc = hd_resolving->find(f->loop, &f->resolver, f->url.host, &f->wait, &f->step,
                                &addrs, &n, err);
    if (rc != HD_OK)
        return rc;
    f->addrs = hd_resolve_take(f->pool, addrs, n, f->url.port);
    f->addrs_n = n;
    return HD_OK;
}

static void on_step(hd_post_t *p)
{
    hd_ocsp_fetch_t *f = hd_container_of(p, hd_ocsp_fetch_t, step);
    hd_err_t err = {0};
    hd_rc_t rc = HD_OK;

    if (f->is_too_long) {
        tell_text(f, HD_E_LIMIT, "OCSP responder sent more than 16 KB");
        return;
    }
    if (f->call != NULL) /* woken in vain */
        return;
    if (f->addrs == NULL)
        rc = find_addrs(f, &err);
    if (rc == HD_OK)
        start_call(f);
    else if (rc != HD_AGAIN)
        tell(f, &err);
}

static hd_ocsp_fetch_t *start(hd_loop_t *loop, const hd_ocsp_ask_t *ask,
                              void (*done)(void *arg, hd_str_t der, const hd_err_t *err),
                              void *arg, hd_err_t *err)
{
    hd_ocsp_fetch_t *f = calloc(1, sizeof(*f));

    hd_bug_on(f == NULL || (f->answer = malloc(HD_OCSP_ANSWER_MAX)) == NULL);
    f->loop = loop;
    f->pool = hd_pool_create(0);
    f->slot = ask->cluster;
    hd_slot_hold(hd_loop_member(loop), f->slot);
    f->resolver = ask->resolver;
    f->request = hd_str_dup(f->pool, ask->request);
    f->done = done;
    f->arg = arg;
    hd_post_init(&f->step, on_step);
    hd_timer_init(&f->deadline, on_deadline);
    if (hd_ocsp_parse_url(hd_str_dup(f->pool, ask->url), &f->url, err) != HD_OK) {
        end(f);
        return NULL;
    }
    hd_timer_set(loop, &f->deadline, HD_OCSP_TIMEOUT_MS);
    hd_post(loop, &f->step);
    return f;
}

const hd_ocsp_fetcher_t hd_mesh_ocsp_fetcher = {.start = start, .cancel = end};
