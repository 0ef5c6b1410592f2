/* browser: is a client's browser an old one, by its own word?
 *     modern_browser gecko 1.0; modern_browser unlisted;
 *     ancient_browser Links Lynx netscape4;
 *     if ($ancient_browser) { rewrite ^ /simple.html; }
 */
#include "hd_module.h"

#define WORDS_MAX 1000
#define DIGITS_MAX 9 /* of a part of a version: what follows isn't looked at */

/* In the order in which they are looked for: Opera first, since it names others, too. */
typedef struct {
    const char *name;
    const char *word;    /* its version follows */
    size_t skips, extra; /* where the word may begin; bytes between it and the version */
} family_t;
static const family_t families[] = {
    {"opera", "Opera", 0, 1},
    {"msie", "MSIE ", sizeof("Mozilla/4.0 (compatible; ") - 1, 0},
    {"gecko", "rv:", sizeof("Mozilla/5.0 (") - 1, 0},
    {"safari", "Safari/", sizeof("Mozilla/5.0 (") - 1, 0},
    {"konqueror", "Konqueror/", sizeof("Mozilla/5.0 (compatible; ") - 1, 0},
};
#define FAMILIES 5

typedef struct {
    const hd_str_t *words; /* of ancient ones */
    uint32_t words_n;
    bool netscape4;
    bool has_listed, unlisted; /* any is; what nobody names is modern */
    bool is_listed[FAMILIES];
    uint64_t since[FAMILIES]; /* the first modern version, as version_of gives it */
    hd_str_t modern_value, ancient_value; /* empty, not given: "1" */
    bool has_modern_value, has_ancient_value;
} browser_conf_t;

/* --- versions --- */

/* "1.7.3; …" as a number that grows with it: up to four parts, of two digits but for the
 * first. */
static uint64_t version_of(hd_str_t text)
{
    uint64_t version = 0, part = 0, scale = 1000000;
    size_t digits = 0;

    for (size_t at = 0; at < text.len; at++) {
        char c = text.data[at];

        if (c >= '0' && c <= '9' && digits < DIGITS_MAX) {
            part = part * 10 + (uint64_t)(c - '0');
            digits++;
        } else if (c == '.') {
            version += part * scale;
            scale /= 100;
            part = digits = 0;
        } else {
            break;
        }
    }
    return version + part * scale;
}

static bool is_version(hd_str_t text)
{
    hd_str_t rest = text, part;
    uint64_t n;
    unsigned parts = 0;

    if (text.len == 0 || text.data[text.len - 1] == '.')
        return false;
    while (hd_str_split(&rest, '.', &part)) {
        if (!hd_str_to_u64(part, parts == 0 ? 4000 : 99, &n) || ++parts > 4)
            return false;
    }
    return true;
}

/* --- directives --- */

static hd_rc_t set_modern(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    browser_conf_t *bc = conf;

    if (cf->is_first) {
        bc->has_listed = bc->unlisted = false;
        memset(bc->is_listed, 0, sizeof(bc->is_listed));
    }
    if (cf->node->args_n == 1) {
        if (!hd_str_eq(args[0], HD_STR("unlisted")))
            return hd_err_set(err, HD_E_CONF,
                              "\"%.*s\" needs a version; alone only unlisted may stand",
                              HD_STR_ARG(args[0]));
        bc->unlisted = true;
        return HD_OK;
    }
    if (!is_version(args[1]))
        return hd_err_set(err, HD_E_CONF,
                          "invalid version \"%.*s\": up to four numbers with dots "
                          "between them, as 4000.99.99.99",
                          HD_STR_ARG(args[1]));
    for (size_t i = 0; i < FAMILIES; i++) {
        if (!hd_str_eq(args[0], hd_str_c(families[i].name)))
            continue;
        bc->has_listed = bc->is_listed[i] = true;
        bc->since[i] = version_of(args[1]);
        return HD_OK;
    }
    return hd_err_set(err, HD_E_CONF,
                      "unknown browser \"%.*s\": msie, gecko, opera, safari, konqueror "
                      "are known, or unlisted alone",
                      HD_STR_ARG(args[0]));
}

static hd_rc_t set_ancient(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    browser_conf_t *bc = conf;
    uint32_t before = cf->is_first ? 0 : bc->words_n, n = cf->node->args_n;
    hd_str_t *words;

    if (before + n > WORDS_MAX)
        return hd_err_set(err, HD_E_CONF, "more than %d words", WORDS_MAX);
    if (cf->is_first)
        bc->netscape4 = false;
    words = hd_pool_new_n(cf->pool, hd_str_t, before + n);
    if (before > 0)
        memcpy(words, bc->words, before * sizeof(*words));
    for (uint32_t i = 0; i < n; i++) {
        if (hd_str_eq(args[i], HD_STR("netscape4")))
            bc->netscape4 = true;
        else
            words[before++] = hd_str_dup(cf->pool, args[i]);
    }
    bc->words = words;
    bc->words_n = before;
    return HD_OK;
}

static hd_rc_t set_value(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    browser_conf_t *bc = conf;
    bool of_modern = hd_str_eq(cf->node->name, HD_STR("modern_browser_value"));

    (void)err;
    *(of_modern ? &bc->modern_value : &bc->ancient_value) =
        hd_str_dup(cf->pool, args[0]);
    *(of_modern ? &bc->has_modern_value : &bc->has_ancient_value) = true;
    return HD_OK;
}

/* --- requests --- */

/* Is the one that it calls itself new enough? HD_DECLINED: it isn't among them. */
static hd_rc_t judge_family(const browser_conf_t *bc, size_t i, hd_str_t agent)
{
    const family_t *f = &families[i];
    hd_str_t rest = hd_str_sub(agent, f->skips, agent.len);
    ssize_t at = hd_str_find(rest, hd_str_c(f->word));

    if (at < 0)
        return HD_DECLINED;
    rest = hd_str_sub(rest, (size_t)at + strlen(f->word) + f->extra, rest.len);
    return bc->is_listed[i] && version_of(rest) >= bc->since[i] ? HD_OK : HD_ERROR;
}

static bool is_netscape4(hd_str_t agent)
{
    return agent.len > 8 && hd_str_has_prefix(agent, HD_STR("Mozilla/")) &&
           agent.data[8] > '0' && agent.data[8] < '5';
}

static bool is_modern(const browser_conf_t *bc, hd_req_t *req)
{
    bool found;
    hd_str_t agent = hd_req_header(req, HD_STR("User-Agent"), &found);

    for (size_t i = 0; found && bc->has_listed && i < FAMILIES; i++) {
        /* an Opera of no version in the list is ancient, whatever else it says it is */
        hd_rc_t rc = i > 0 && !bc->is_listed[i] ? HD_DECLINED
                                                : judge_family(bc, i, agent);

        if (rc != HD_DECLINED)
            return rc == HD_OK;
    }
    if (found && bc->netscape4 && is_netscape4(agent))
        return false;
    for (uint32_t i = 0; found && i < bc->words_n; i++) {
        if (hd_str_find(agent, bc->words[i]) >= 0)
            return false;
    }
    return bc->unlisted;
}

static void get_modern(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out);
static void get_ancient(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out);

/* Internet Explorer of any version, but Opera, which called itself so, too. */
static void get_msie(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    bool found;
    hd_str_t agent = hd_req_header(of->req, HD_STR("User-Agent"), &found);
    ssize_t at = found ? hd_str_find(agent, HD_STR("MSIE ")) : -1;

    (void)rest;
    hd_val_set_str(out, at >= 0 && (size_t)at + 7 < agent.len &&
                                hd_str_find(agent, HD_STR("Opera")) < 0
                            ? HD_STR("1")
                            : HD_STR(""));
}

#define FLAGS (HD_ATTR_REQ | HD_ATTR_VOLATILE)
static const hd_attr_def_t attributes[] = {
    {.name = "modern_browser",
     .type = HD_VAL_STR,
     .flags = FLAGS,
     .get = get_modern,
     .help = "of a modern browser modern_browser_value, else empty"},
    {.name = "ancient_browser",
     .type = HD_VAL_STR,
     .flags = FLAGS,
     .get = get_ancient,
     .help = "of an ancient browser ancient_browser_value, else empty"},
    {.name = "msie",
     .type = HD_VAL_STR,
     .flags = FLAGS,
     .get = get_msie,
     .help = "1 for Internet Explorer, else empty"},
    {0},
};

#define IN_ANY (HD_IN_HTTP | HD_IN_SERVER | HD_IN_LOCATION)

static const hd_directive_t directives[] = {
    {.name = "modern_browser",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = 2,
     .repeats = true,
     .set = set_modern,
     .help = "BROWSER VERSION | unlisted: from which version on msie, gecko, opera, "
             "safari or konqueror is modern; unlisted: what no line names is"},
    {.name = "ancient_browser",
     .scope = IN_ANY,
     .args_n = 1,
     .args_max = HD_ARGS_ANY,
     .repeats = true,
     .set = set_ancient,
     .help = "WORD …: a browser is ancient whose User-Agent has one of them; netscape4: "
             "Mozilla/1 to Mozilla/4"},
    {.name = "modern_browser_value",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_value,
     .help = "TEXT: what $modern_browser is then; 1"},
    {.name = "ancient_browser_value",
     .scope = IN_ANY,
     .args_n = 1,
     .set = set_value,
     .help = "TEXT: what $ancient_browser is then; 1"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "browser",
    .directives = directives,
    .conf_size = sizeof(browser_conf_t),
    .attributes = attributes,
};

/* Without any of the directives every browser is ancient, as in nginx. */
static void set_verdict(const hd_attr_of_t *of, bool asks_modern, hd_val_t *out)
{
    static const browser_conf_t none;
    const browser_conf_t *bc = hd_req_conf(of->req, &hd_module);
    bool has_value;

    if (bc == NULL)
        bc = &none;
    has_value = asks_modern ? bc->has_modern_value : bc->has_ancient_value;
    hd_val_set_str(out, is_modern(bc, of->req) != asks_modern ? HD_STR("")
                        : !has_value                          ? HD_STR("1")
                        : asks_modern                         ? bc->modern_value
                                                              : bc->ancient_value);
}

static void get_modern(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)rest;
    set_verdict(of, true, out);
}

static void get_ancient(const hd_attr_of_t *of, hd_str_t rest, hd_val_t *out)
{
    (void)rest;
    set_verdict(of, false, out);
}
