#include "core/loom/hd_regex.h"
#include "core/base/hd_log.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

enum {
    STEPS_MAX = 200000,          /* some milliseconds; ordinary patterns need hundreds */
    HEAP_KB_MAX = 4096,          /* for the interpreter, where there is no JIT */
    JIT_STACK_BYTES_MAX = 262144 /* beyond it a match is given up like at STEPS_MAX */
};

struct hd_regex_s {
    pcre2_code *code;
    uint32_t groups_n;
    uint32_t given_up_n;
    char text[64]; /* the pattern's beginning, for the log */
};

/* What a match works in, one for all regexes of a thread; there while any of them is. */
static _Thread_local struct {
    size_t users_n;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    pcre2_match_data *found;
} work;

static void enter_work(void)
{
    if (work.users_n++ > 0)
        return;
    work.limits = pcre2_match_context_create(NULL);
    work.stack = pcre2_jit_stack_create(32768, JIT_STACK_BYTES_MAX, NULL);
    work.found = pcre2_match_data_create(HD_CAPTURES_MAX, NULL);
    hd_bug_on(work.limits == NULL || work.found == NULL);
    pcre2_set_match_limit(work.limits, STEPS_MAX);
    pcre2_set_heap_limit(work.limits, HEAP_KB_MAX);
    if (work.stack != NULL) /* NULL: PCRE2 without JIT */
        pcre2_jit_stack_assign(work.limits, NULL, work.stack);
}

static void leave_work(void)
{
    if (--work.users_n > 0)
        return;
    pcre2_match_data_free(work.found);
    if (work.stack != NULL)
        pcre2_jit_stack_free(work.stack);
    pcre2_match_context_free(work.limits);
}

hd_regex_t *hd_regex_create(hd_str_t pattern, bool ignore_case, bool part, hd_err_t *err)
{
    uint32_t options = PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C;
    pcre2_compile_context *how;
    PCRE2_SIZE at = 0;
    hd_regex_t *re;
    pcre2_code *code;
    int code_err = 0;

    if (pattern.len > HD_REGEX_PATTERN_MAX) {
        hd_err_set(err, HD_E_CONF, "a regular expression of %zu bytes: at most %d",
                   pattern.len, HD_REGEX_PATTERN_MAX);
        return NULL;
    }
    how = pcre2_compile_context_create(NULL);
    hd_bug_on(how == NULL);
    pcre2_set_newline(how, PCRE2_NEWLINE_LF); /* not what the library was built with */
    if (ignore_case)
        options |= PCRE2_CASELESS;
    if (!part)
        options |= PCRE2_ANCHORED | PCRE2_ENDANCHORED;
    code = pcre2_compile((PCRE2_SPTR)(pattern.len > 0 ? pattern.data : ""), pattern.len,
                         options, &code_err, &at, how);
    pcre2_compile_context_free(how);
    if (code == NULL) {
        char why[128];

        pcre2_get_error_message(code_err, (PCRE2_UCHAR *)why, sizeof(why));
        hd_err_set(err, HD_E_CONF, "regular expression \"%.*s\": %s at byte %zu",
                   (int)hd_min(pattern.len, 256u), pattern.data, why, (size_t)at);
        return NULL;
    }
    re = calloc(1, sizeof(*re));
    hd_bug_on(re == NULL);
    re->code = code;
    memcpy(re->text, pattern.data, hd_min(pattern.len, sizeof(re->text) - 1));
    hd_ignore(pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &re->groups_n));
    hd_ignore(pcre2_jit_compile(code, PCRE2_JIT_COMPLETE)); /* else it is interpreted */
    enter_work();
    return re;
}

/* --- RE2 --- */

static const char *escape_re2_lacks(char c)
{
    if ((c >= '1' && c <= '9') || c == 'g' || c == 'k')
        return "a back-reference";
    return c != '\0' && strchr("GKRXhHNZ", c) != NULL ? "an escape" : NULL;
}

/* Behind "(": what Perl has beyond groups, names and flags. */
static const char *group_re2_lacks(hd_str_t rest)
{
    char first = rest.len > 1 ? rest.data[1] : '\0', next = rest.len > 2 ? rest.data[2] : '\0';

    if (rest.len > 0 && rest.data[0] == '*')
        return "a verb";
    if (rest.len == 0 || rest.data[0] != '?')
        return NULL;
    if (first == '=' || first == '!' || (first == '<' && (next == '=' || next == '!')))
        return "look-around";
    if (first == 'P')
        return next == '<' ? NULL : "a back-reference";
    return first != '\0' && strchr(":<imsU-", first) != NULL ? NULL : "a kind of group";
}

/* The length of "{2}", "{2,}", "{2,3}" at the start; 0: it is text. */
static size_t repeat_len(hd_str_t s)
{
    size_t n = 1;

    while (n < s.len && ((s.data[n] >= '0' && s.data[n] <= '9') || s.data[n] == ','))
        n++;
    return n > 1 && n < s.len && s.data[n] == '}' && s.data[1] != ',' ? n + 1 : 0;
}

/* The length of "[…]" at the start. */
static size_t class_len(hd_str_t s)
{
    size_t n = s.len > 1 && s.data[1] == '^' ? 2 : 1;

    for (n += n < s.len && s.data[n] == ']'; n < s.len && s.data[n] != ']'; n++) {
        ssize_t end = s.data[n] == '[' && n + 1 < s.len && s.data[n + 1] == ':'
                          ? hd_str_find(hd_str_sub(s, n, s.len), HD_STR(":]"))
                          : -1;

        n += end >= 0 ? (size_t)end + 1 : s.data[n] == '\\' ? 1 : 0;
    }
    return hd_min(n + 1, s.len);
}

hd_rc_t hd_regex_check_re2(hd_str_t pattern, hd_err_t *err)
{
    for (size_t i = 0; i < pattern.len;) {
        hd_str_t rest = hd_str_sub(pattern, i, pattern.len);
        const char *lacks = NULL;
        bool repeats = false;
        size_t len = 1;
        ssize_t end;

        switch (rest.data[0]) {
        case '\\':
            len = 2;
            lacks = rest.len > 1 ? escape_re2_lacks(rest.data[1]) : NULL;
            if (rest.len > 1 && rest.data[1] == 'Q') {
                end = hd_str_find(rest, HD_STR("\\E"));
                len = end < 0 ? rest.len : (size_t)end + 2;
            }
            break;
        case '[':
            len = class_len(rest);
            break;
        case '(':
            lacks = group_re2_lacks(hd_str_sub(rest, 1, rest.len));
            len = rest.len > 1 && rest.data[1] == '?' ? 2 : 1;
            break;
        case '{':
            len = repeat_len(rest);
            repeats = len > 0;
            len = hd_max(len, (size_t)1);
            break;
        case '*':
        case '+':
        case '?':
            repeats = true;
            break;
        default:
            break;
        }
        if (repeats && len < rest.len && rest.data[len] == '+')
            lacks = "a possessive repetition";
        if (lacks != NULL)
            return hd_err_set(err, HD_E_CONF,
                              "regular expression \"%.*s\": %s at byte %zu, which RE2's "
                              "syntax hasn't",
                              HD_STR_ARG(pattern), lacks, i);
        i += len;
    }
    return HD_OK;
}

void hd_regex_destroy(hd_regex_t *re)
{
    pcre2_code_free(re->code);
    free(re);
    leave_work();
}

uint32_t hd_regex_groups(const hd_regex_t *re)
{
    return re->groups_n;
}

int hd_regex_group(const hd_regex_t *re, hd_str_t name)
{
    char text[64];
    int n;

    if (name.len >= sizeof(text))
        return -1;
    memcpy(text, name.data, name.len);
    text[name.len] = '\0';
    n = pcre2_substring_number_from_name(re->code, (PCRE2_SPTR)text);
    return n > 0 ? n : -1;
}

static void set_captures(hd_captures_t *captures, int groups_n)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(work.found);

    captures->n = (uint32_t)groups_n;
    for (int i = 0; i < groups_n; i++) {
        bool is_set = at[2 * i] != PCRE2_UNSET && at[2 * i] <= at[2 * i + 1];

        captures->at[i].from = is_set ? (int32_t)at[2 * i] : -1;
        captures->at[i].to = is_set ? (int32_t)at[2 * i + 1] : -1;
    }
}

static hd_rc_t match_from(hd_regex_t *re, hd_str_t s, size_t from,
                          hd_captures_t *captures)
{
    char why[128];
    int rc;

    if (captures != NULL)
        captures->n = 0;
    if (s.len > INT32_MAX)
        return HD_DECLINED;
    rc = pcre2_match(re->code, (PCRE2_SPTR)(s.len > 0 ? s.data : ""), s.len, from, 0,
                     work.found, work.limits);
    if (rc >= 0) { /* 0: more groups than we have room for */
        if (captures != NULL)
            set_captures(captures, rc > 0 ? rc : HD_CAPTURES_MAX);
        return HD_OK;
    }
    if (rc == PCRE2_ERROR_NOMATCH)
        return HD_DECLINED;
    /* A peer may cause this at will: said at the 1st, 2nd, 4th, 8th … time. */
    re->given_up_n++;
    if ((re->given_up_n & (re->given_up_n - 1)) == 0) {
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof(why));
        hd_log(HD_LOG_WARN,
               "regular expression \"%s\" on %zu bytes: %s: taken as no match "
               "(%u times so far)",
               re->text, s.len, why, re->given_up_n);
    }
    return HD_ERROR;
}

hd_rc_t hd_regex_match(hd_regex_t *re, hd_str_t s, hd_captures_t *captures)
{
    return match_from(re, s, 0, captures);
}

/* Where a replacement is put together: measured first, then written. */
typedef struct {
    char *data; /* NULL: only measured */
    size_t len;
} out_t;

static void add_out(out_t *out, const char *data, size_t len)
{
    if (out->data != NULL && len > 0)
        memcpy(out->data + out->len, data, len);
    out->len += len;
}

static void add_subst(out_t *out, hd_str_t subst, hd_str_t s, const hd_captures_t *found)
{
    for (size_t i = 0; i < subst.len; i++) {
        uint32_t group;

        if (subst.data[i] != '\\' || i + 1 == subst.len) {
            add_out(out, subst.data + i, 1);
            continue;
        }
        i++;
        if (subst.data[i] < '0' || subst.data[i] > '9') {
            add_out(out, subst.data + i, 1);
            continue;
        }
        group = (uint32_t)(subst.data[i] - '0');
        if (group < found->n && found->at[group].from >= 0)
            add_out(out, s.data + found->at[group].from,
                    (size_t)(found->at[group].to - found->at[group].from));
    }
}

/* One pass over <s>; *matched says whether anything was replaced. */
static hd_rc_t replace_pass(hd_regex_t *re, hd_str_t subst, hd_str_t s, out_t *out,
                            bool *matched)
{
    size_t at = 0, copied = 0;
    hd_captures_t found;
    hd_rc_t rc;

    *matched = false;
    while (at <= s.len && (rc = match_from(re, s, at, &found)) == HD_OK) {
        size_t from, to;

        if (found.at[0].from < (int32_t)copied || found.at[0].to < found.at[0].from)
            break; /* \K may set the start anywhere */
        from = (size_t)found.at[0].from;
        to = (size_t)found.at[0].to;
        if (from == to && *matched && from == copied) { /* nothing, next to a match */
            at = to + 1;
            continue;
        }
        *matched = true;
        add_out(out, s.data + copied, from - copied);
        add_subst(out, subst, s, &found);
        copied = to;
        at = from == to ? to + 1 : to;
        if (out->len > HD_REGEX_OUT_MAX)
            return HD_ERROR;
    }
    if (at <= s.len && rc == HD_ERROR)
        return HD_ERROR;
    add_out(out, s.data + copied, s.len - copied);
    return out->len > HD_REGEX_OUT_MAX ? HD_ERROR : HD_OK;
}

hd_rc_t hd_regex_replace(hd_regex_t *re, hd_str_t subst, hd_str_t s, hd_pool_t *pool,
                         hd_str_t *out)
{
    out_t size = {NULL, 0}, text = {NULL, 0};
    bool matched;

    *out = s;
    if (replace_pass(re, subst, s, &size, &matched) != HD_OK)
        return HD_ERROR;
    if (!matched)
        return HD_OK;
    text.data = hd_pool_alloc_unaligned(pool, size.len + 1);
    if (replace_pass(re, subst, s, &text, &matched) != HD_OK)
        return HD_ERROR;
    text.data[text.len] = '\0';
    *out = hd_str_n(text.data, text.len);
    return HD_OK;
}

hd_rc_t hd_regex_check_subst(const hd_regex_t *re, hd_str_t subst, hd_err_t *err)
{
    for (size_t i = 0; i < subst.len; i++) {
        char c;

        if (subst.data[i] != '\\')
            continue;
        if (++i == subst.len)
            return hd_err_set(err, HD_E_CONF, "substitution \"%.*s\" ends in a backslash",
                              HD_STR_ARG(subst));
        c = subst.data[i];
        if (c == '\\')
            continue;
        if (c < '0' || c > '9')
            return hd_err_set(err, HD_E_CONF,
                              "substitution \"%.*s\": \\%c: only \\0 to \\9 and \\\\",
                              HD_STR_ARG(subst), c);
        if ((uint32_t)(c - '0') > re->groups_n)
            return hd_err_set(err, HD_E_CONF,
                              "substitution \"%.*s\": \\%c: the pattern has %u groups",
                              HD_STR_ARG(subst), c, re->groups_n);
    }
    return HD_OK;
}
