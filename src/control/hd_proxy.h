/* hd_proxy: a proxy as its xDS node describes it (xds-transport §6): what translation
 * looks at. Lives in one pool, that of its stream. */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"
#include "xds/core.pb-c.h"

typedef enum {
    HD_PROXY_SIDECAR,
    HD_PROXY_ROUTER,
    HD_PROXY_WAYPOINT,
    HD_PROXY_OTHER
} hd_proxy_kind_t;

#define HD_PROXY_IPS_MAX 8
#define HD_PROXY_LABELS_MAX 64

typedef struct {
    hd_str_t key, value;
} hd_label_pair_t;

typedef struct {
    hd_proxy_kind_t kind;
    hd_str_t id; /* TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN */
    hd_str_t name, ns, account;
    hd_str_t dns_domain; /* "shop.svc.cluster.local" */
    hd_str_t cluster_id, network, interception_mode;
    hd_str_t app_address;     /* APP_ADDRESS: where the application listens, without
                                 interception */
    uint16_t http_proxy_port; /* HTTP_PROXY_PORT: an explicit proxy's; 0: none */
    hd_str_t ips[HD_PROXY_IPS_MAX];
    uint32_t ips_n;
    hd_label_pair_t labels[HD_PROXY_LABELS_MAX];
    uint32_t labels_n;
    hd_str_t region, zone, sub_zone;
    bool is_heddle;    /* user_agent_name "heddle" */
    bool takes_http10; /* HTTP10 is "1", as istiod reads it */
} hd_proxy_t;

/* HD_ERROR: INVALID_ARGUMENT with the reason: an id without its four parts, no IP. */
hd_rc_t hd_proxy_read(const PbCore__Node *node, hd_pool_t *pool, hd_proxy_t *proxy,
                      hd_err_t *err) HD_MUST_CHECK;
/* A label's value; unset: none. */
hd_str_t hd_proxy_label(const hd_proxy_t *proxy, hd_str_t key);
