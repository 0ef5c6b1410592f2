#include "control/hd_proxy.h"
#include "core/net/hd_addr.h"
#include "proto/hd_pb_value.h"

static hd_str_t text_of(const Pb__Struct *s, const char *key, hd_pool_t *pool)
{
    const char *text = s != NULL ? hd_pb_struct_text(s, key, "") : "";

    return text[0] == 0 ? HD_STR_NONE : hd_str_dup(pool, hd_str_c(text));
}

static hd_proxy_kind_t kind_of(hd_str_t type)
{
    if (hd_str_eq(type, HD_STR("sidecar")))
        return HD_PROXY_SIDECAR;
    if (hd_str_eq(type, HD_STR("router")))
        return HD_PROXY_ROUTER;
    return hd_str_eq(type, HD_STR("waypoint")) ? HD_PROXY_WAYPOINT : HD_PROXY_OTHER;
}

static void add_ip(hd_proxy_t *p, hd_str_t text)
{
    hd_addr_t addr;

    text = hd_str_trim(text);
    if (p->ips_n < HD_PROXY_IPS_MAX && hd_addr_parse_ip(text, &addr))
        p->ips[p->ips_n++] = text;
}

static void read_labels(const Pb__Struct *metadata, hd_pool_t *pool, hd_proxy_t *p)
{
    const Pb__Value *v = metadata != NULL ? hd_pb_struct_get(metadata, "LABELS") : NULL;

    if (v == NULL || v->kind_case != PB__VALUE__KIND_STRUCT_VALUE)
        return;
    for (size_t i = 0; i < v->struct_value->n_fields && p->labels_n < HD_PROXY_LABELS_MAX;
         i++) {
        const Pb__Struct__FieldsEntry *e = v->struct_value->fields[i];

        if (e->value == NULL || e->value->kind_case != PB__VALUE__KIND_STRING_VALUE)
            continue;
        p->labels[p->labels_n].key = hd_str_dup(pool, hd_str_c(e->key));
        p->labels[p->labels_n++].value =
            hd_str_dup(pool, hd_str_c(e->value->string_value));
    }
}

/* TYPE~IP~NAME.NAMESPACE~DNSDOMAIN */
static hd_rc_t read_id(hd_proxy_t *p, hd_err_t *err)
{
    hd_str_t rest = p->id, part[4];
    ssize_t dot;

    for (unsigned i = 0; i < 4; i++) {
        if (!hd_str_split(&rest, '~', &part[i]) || part[i].len == 0)
            return hd_err_set(
                err, HD_E_RESOURCE,
                "node id \"%.*s\": TYPE~IP~NAME.NAMESPACE~DOMAIN is expected",
                HD_STR_ARG(p->id));
    }
    p->kind = kind_of(part[0]);
    add_ip(p, part[1]);
    dot = -1;
    for (size_t i = 0; i < part[2].len; i++)
        dot = part[2].data[i] == '.' ? (ssize_t)i : dot;
    p->name = dot < 0 ? part[2] : hd_str_sub(part[2], 0, (size_t)dot);
    p->ns = dot < 0 ? HD_STR_NONE : hd_str_sub(part[2], (size_t)dot + 1, part[2].len);
    p->dns_domain = part[3];
    return HD_OK;
}

hd_rc_t hd_proxy_read(const PbCore__Node *node, hd_pool_t *pool, hd_proxy_t *p,
                      hd_err_t *err)
{
    hd_str_t ips, ns, ip;
    uint64_t port;

    *p = (hd_proxy_t){0};
    if (node == NULL)
        return hd_err_set(err, HD_E_RESOURCE, "the first request has no node");
    p->id = hd_str_dup(pool, hd_str_c(node->id));
    ips = text_of(node->metadata, "INSTANCE_IPS", pool);
    while (hd_str_split(&ips, ',', &ip))
        add_ip(p, ip);
    if (read_id(p, err) != HD_OK)
        return HD_ERROR;
    if (p->ips_n == 0)
        return hd_err_set(err, HD_E_RESOURCE, "node %.*s has no IP address",
                          HD_STR_ARG(p->id));
    ns = text_of(node->metadata, "NAMESPACE", pool);
    p->ns = ns.len > 0 ? ns : p->ns;
    p->account = text_of(node->metadata, "SERVICE_ACCOUNT", pool);
    p->cluster_id = text_of(node->metadata, "CLUSTER_ID", pool);
    p->network = text_of(node->metadata, "NETWORK", pool);
    p->interception_mode = text_of(node->metadata, "INTERCEPTION_MODE", pool);
    p->app_address = text_of(node->metadata, "APP_ADDRESS", pool);
    if (hd_str_to_u64(text_of(node->metadata, "HTTP_PROXY_PORT", pool), 65535, &port))
        p->http_proxy_port = (uint16_t)port;
    p->takes_http10 = hd_str_eq(text_of(node->metadata, "HTTP10", pool), HD_STR("1"));
    read_labels(node->metadata, pool, p);
    if (node->locality != NULL) {
        p->region = hd_str_dup(pool, hd_str_c(node->locality->region));
        p->zone = hd_str_dup(pool, hd_str_c(node->locality->zone));
        p->sub_zone = hd_str_dup(pool, hd_str_c(node->locality->sub_zone));
    }
    p->is_heddle = hd_str_eq(hd_str_c(node->user_agent_name), HD_STR("heddle"));
    return HD_OK;
}

hd_str_t hd_proxy_label(const hd_proxy_t *proxy, hd_str_t key)
{
    for (uint32_t i = 0; i < proxy->labels_n; i++) {
        if (hd_str_eq(proxy->labels[i].key, key))
            return proxy->labels[i].value;
    }
    return HD_STR_NONE;
}
