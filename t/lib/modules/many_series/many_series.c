/* many_series: as many series as a test wants, each with a long label:
 *
 *     location /enter { many_series 50000; }     answers when that many were entered
 *     location /count { many_series 0; }         counts in one of them, and enters one
 * more
 *
 * /count answers with how often this worker has counted. */
#include "hd_module.h"

#include <stdio.h>

#define LABEL_BYTES 256

typedef struct {
    uint64_t n;
    bool is_set;
} many_conf_t;

static hd_family_id_t family_id;
static uint64_t entered_n, counted_n; /* in this process */
static const char *const labels[] = {"which", NULL};
static const hd_family_t family = {.name = "many_series_total",
                                   .help = "As many as a test wants.",
                                   .kind = HD_COUNTER,
                                   .labels = labels};

static hd_rc_t set_many(hd_conf_t *cf, const hd_str_t *args, void *conf, hd_err_t *err)
{
    many_conf_t *mc = conf;

    (void)cf;
    mc->is_set = true;
    if (!hd_str_to_u64(args[0], 1000000, &mc->n))
        return hd_err_set(err, HD_E_CONF, "not a number");
    return HD_OK;
}

static hd_rc_t on_process_start(hd_member_t *m, hd_loop_t *loop, hd_err_t *err)
{
    (void)loop, (void)err;
    family_id = hd_family_enter(m, &family);
    return HD_OK;
}

static hd_series_t enter(hd_member_t *m, uint64_t number)
{
    char text[LABEL_BYTES + 1];
    hd_str_t value;

    memset(text, 'x', sizeof(text));
    text[snprintf(text, 32, "%08llu", (unsigned long long)number)] = '-';
    value = hd_str_n(text, LABEL_BYTES);
    return hd_series_enter(m, family_id, &value);
}

static hd_rc_t on_request_headers(hd_req_t *req, const void *conf)
{
    const many_conf_t *mc = conf;
    hd_member_t *m = hd_req_member(req);

    if (!mc->is_set)
        return HD_OK;
    if (mc->n == 0) {
        counted_n++;
        hd_counter_add(m, enter(m, 7), 1);
        hd_counter_add(m, enter(m, entered_n++), 1);
    }
    while (entered_n < mc->n)
        hd_counter_add(m, enter(m, entered_n++), 1);
    return hd_req_answer(
        req, 200, HD_STR("text/plain"),
        hd_str_printf(hd_req_pool(req), "%llu\n",
                      (unsigned long long)(mc->n == 0 ? counted_n : entered_n)),
        NULL, "many_series");
}

static const hd_directive_t directives[] = {
    {.name = "many_series",
     .scope = HD_IN_LOCATION,
     .args_n = 1,
     .set = set_many,
     .help = "NUMBER: enters NUMBER series; 0: one more, and counts"},
    {0},
};

HD_EXPORT const hd_module_t hd_module = {
    .abi = HD_MODULE_ABI,
    .name = "many_series",
    .directives = directives,
    .conf_size = sizeof(many_conf_t),
    .phase = HD_PHASE_CONTENT,
    .on_process_start = on_process_start,
    .on_request_headers = on_request_headers,
};
