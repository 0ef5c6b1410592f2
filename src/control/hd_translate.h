/* hd_translate: the model, as one proxy should see it: Istio's configuration to xDS
 * (istio-to-xds).
 *
 * Incremental: what is shared between proxies (an outbound cluster, its endpoints) is
 * made once and kept until an object it depends on changes.
 */
#pragma once
#include "control/hd_model.h"
#include "control/hd_proxy.h"
#include "control/hd_view.h"

typedef struct hd_translator_s hd_translator_t;

hd_translator_t *hd_translator_create(hd_model_t *model, hd_str_t trust_domain);
void hd_translator_destroy(hd_translator_t *t);
/* After a commit, before the changes are cleared: forgets what depends on them. Tells
 * whether anything that a proxy could see may have changed. */
bool hd_translator_on_commit(hd_translator_t *t);
/* Fills and seals <view> (initialised). HD_ERROR only for a proxy of an unknown kind. */
hd_rc_t hd_translate(hd_translator_t *t, const hd_proxy_t *proxy, hd_view_t *view,
                     hd_err_t *err) HD_MUST_CHECK;
