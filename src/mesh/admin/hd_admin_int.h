/* What the admin port's pages share. A page is a function that is called again and again
 * while it has more to write; where it stands it keeps in the answer. */
#pragma once
#include "core/base/hd_buf.h"
#include "core/loom/hd_series.h"
#include "http/hd_request.h"
#include "mesh/xds/hd_xds_agent.h"

#define HD_ADMIN_SLICE_BYTES 65536 /* about so much a call */

typedef struct {
    hd_req_t *req;
    const struct hd_admin_page_def_s *page;
    hd_chain_t out;
    bool failed; /* no room for text: the answer is cut off, and says so */
    hd_post_t more;
    /* the page's own: where it stands */
    uint32_t step;
    uint32_t at;
    const hd_slot_t *slot;
    bool has_some;
    hd_str_t family;
    hd_str_t *names; /* of one kind: a resource may go while the page is written */
    size_t names_n, names_at;
} hd_admin_answer_t;

typedef struct hd_admin_page_def_s {
    const char *path, *help;
    const char *type; /* Content-Type */
    /* True: there is more; called again in a later turn. */
    bool (*write)(hd_admin_answer_t *a);
} hd_admin_page_def_t;

/* Printf into the answer. */
void hd_admin_print(hd_admin_answer_t *a, const char *fmt, ...) HD_PRINTF(2, 3);
void hd_admin_put(hd_admin_answer_t *a, hd_str_t text);
/* A string between quotes, escaped as JSON wants it. */
void hd_admin_put_json(hd_admin_answer_t *a, hd_str_t text);
bool hd_admin_is_slice_full(const hd_admin_answer_t *a);

/* Is it fit to serve? False: <why>. */
bool hd_admin_is_ready(const char **why);

bool hd_admin_metrics(hd_admin_answer_t *a);
bool hd_admin_config_dump(hd_admin_answer_t *a);
bool hd_admin_memory(hd_admin_answer_t *a);
bool hd_admin_clusters(hd_admin_answer_t *a);
bool hd_admin_listeners(hd_admin_answer_t *a);
