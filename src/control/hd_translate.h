/* hd_translate: the model, as one proxy should see it: Istio's configuration to xDS
 * (istio-to-xds).
 *
 * Incremental: a view is put together from parts (hd_parts.h): a service's cluster and
 * endpoints, a port's routes, a workload's own listeners. A part is made once for all
 * proxies that see the same, and kept until an object that it was made from changes. What
 * comes out is, byte for byte, what a translator without a past would make.
 */
#pragma once
#include "control/hd_model.h"
#include "control/hd_proxy.h"
#include "control/hd_view.h"

typedef struct hd_translator_s hd_translator_t;

hd_translator_t *hd_translator_create(hd_model_t *model, hd_str_t trust_domain);
void hd_translator_destroy(hd_translator_t *t);
/* After a commit, before the changes are cleared: forgets what depends on them. Tells
 * whether anything has changed; a view that it concerns isn't current any more
 * (hd_view_is_current). */
bool hd_translator_on_commit(hd_translator_t *t);

typedef struct {
    uint64_t views;     /* put together */
    uint64_t parts;     /* made, rather than found */
    uint64_t resources; /* encoded */
    uint64_t distinct;  /* of these, whose bytes weren't known yet */
    uint64_t kept;      /* parts in force now */
} hd_translator_stats_t;

void hd_translator_get_stats(const hd_translator_t *t, hd_translator_stats_t *stats);
/* Fills and seals <view> (initialised). HD_ERROR only for a proxy of an unknown kind. */
hd_rc_t hd_translate(hd_translator_t *t, const hd_proxy_t *proxy, hd_view_t *view,
                     hd_err_t *err) HD_MUST_CHECK;
