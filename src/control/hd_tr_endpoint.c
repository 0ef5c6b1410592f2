#include "control/hd_tr_cluster_int.h"

static void add_identity(hd_tr_endpoints_t *e, hd_str_t ns, hd_str_t account)
{
    hd_str_t id = hd_str_printf(e->t->pool, "spiffe://%.*s/ns/%.*s/sa/%.*s",
                                HD_STR_ARG(e->t->trust_domain), HD_STR_ARG(ns),
                                HD_STR_ARG(account));

    for (uint32_t i = 0; i < e->ids_n; i++) {
        if (hd_str_eq(e->ids[i], id))
            return;
    }
    if (e->ids_n < HD_TR_IDENTITIES_MAX)
        e->ids[e->ids_n++] = id;
}

static PbEndpoint__LocalityLbEndpoints *locality_of(hd_tr_endpoints_t *e, hd_str_t region,
                                                    hd_str_t zone, hd_str_t sub_zone)
{
    hd_tr_t *t = e->t;
    PbEndpoint__LocalityLbEndpoints *l;
    char *r = hd_tr_text(t, region), *z = hd_tr_text(t, zone),
         *s = hd_tr_text(t, sub_zone);

    for (size_t i = 0; i < e->cla->n_endpoints; i++) {
        l = e->cla->endpoints[i];
        if (strcmp(l->locality->region, r) == 0 && strcmp(l->locality->zone, z) == 0 &&
            strcmp(l->locality->sub_zone, s) == 0)
            return l;
    }
    l = HD_TR_NEW(t, PbEndpoint__LocalityLbEndpoints, pb_endpoint__locality_lb_endpoints);
    l->locality = HD_TR_NEW(t, PbCore__Locality, pb_core__locality);
    l->locality->region = r;
    l->locality->zone = z;
    l->locality->sub_zone = s;
    l->load_balancing_weight = hd_tr_u32(t, 0);
    HD_TR_ADD(t, e->cla, endpoints, l);
    return l;
}

/* "name;namespace;canonical;revision;cluster" */
static void add_workload(hd_tr_endpoints_t *e, PbEndpoint__LbEndpoint *lb,
                         const hd_object_t *pod)
{
    hd_tr_t *t = e->t;
    Pb__Struct *istio = hd_tr_struct(t);
    hd_str_t canonical =
        hd_labels_get(&pod->labels, HD_STR("service.istio.io/canonical-name"));
    hd_str_t revision =
        hd_labels_get(&pod->labels, HD_STR("service.istio.io/canonical-revision"));

    if (canonical.len == 0)
        canonical = hd_labels_get(&pod->labels, HD_STR("app"));
    if (revision.len == 0)
        revision = hd_labels_get(&pod->labels, HD_STR("version"));
    hd_tr_struct_text(t, istio, "workload",
                      hd_tr_printf(t, "%.*s;%.*s;%.*s;%.*s;%.*s", HD_STR_ARG(pod->name),
                                   HD_STR_ARG(pod->ns), HD_STR_ARG(canonical),
                                   HD_STR_ARG(revision),
                                   HD_STR_ARG(t->proxy->cluster_id)));
    hd_tr_metadata(t, &lb->metadata, "istio", istio);
}

static bool has_sidecar(const hd_object_t *pod)
{
    return hd_str_eq(hd_labels_get(&pod->labels, HD_STR("security.istio.io/tlsMode")),
                     HD_STR("istio"));
}

void hd_tr_add_endpoint(hd_tr_endpoints_t *e, hd_str_t ip, int64_t port, int64_t weight,
                        const hd_object_t *pod, const hd_k8s_node_t *node)
{
    hd_tr_t *t = e->t;
    PbEndpoint__LbEndpoint *lb =
        HD_TR_NEW(t, PbEndpoint__LbEndpoint, pb_endpoint__lb_endpoint);
    PbEndpoint__LocalityLbEndpoints *l =
        locality_of(e, node != NULL ? node->region : HD_STR_NONE,
                    node != NULL ? node->zone : HD_STR_NONE,
                    node != NULL ? node->subzone : HD_STR_NONE);

    lb->host_identifier_case = PB_ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
    lb->endpoint = HD_TR_NEW(t, PbEndpoint__Endpoint, pb_endpoint__endpoint);
    lb->endpoint->address = hd_tr_address(t, ip, port);
    if (e->is_ready)
        lb->health_status = PB_CORE__HEALTH_STATUS__HEALTHY;
    lb->load_balancing_weight = hd_tr_u32(t, weight);
    if (pod != NULL) {
        if (has_sidecar(pod) &&
            hd_tr_mtls_mode(t, pod->ns, &pod->labels, port) != HD_MTLS_DISABLE) {
            Pb__Struct *match = hd_tr_struct(t);

            hd_tr_struct_text(t, match, "tlsMode", "istio");
            hd_tr_metadata(t, &lb->metadata, "envoy.transport_socket_match", match);
        }
        add_workload(e, lb, pod);
        add_identity(e, pod->ns, pod->pod->service_account);
    }
    HD_TR_ADD(t, l, lb_endpoints, lb);
    l->load_balancing_weight->value += (uint32_t)weight;
}

static const hd_k8s_node_t *node_named(hd_tr_t *t, hd_str_t name)
{
    const hd_object_t *o =
        name.len > 0 ? hd_tr_get(t, HD_KIND_NODE, HD_STR(""), name) : NULL;

    return o != NULL ? o->node : NULL;
}

static int64_t slice_port(const hd_endpoint_slice_t *s, const hd_service_port_t *port)
{
    for (hd_each(p, s->ports)) {
        if (hd_str_eq(p->name, port->name))
            return p->number;
    }
    return HD_UNSET;
}

static void add_slice(hd_tr_endpoints_t *e, const hd_object_t *svc,
                      const hd_endpoint_slice_t *s, const hd_service_port_t *port)
{
    int64_t number = slice_port(s, port);

    if (number == HD_UNSET)
        return;
    for (hd_each(ep, s->endpoints)) {
        if ((!ep->ready && !svc->service->publish_not_ready) || ep->terminating)
            continue;
        for (hd_each(ip, ep->addresses)) {
            const hd_object_t *pod = hd_tr_pod_by_ip(e->t, *ip);

            if (e->subset != NULL && e->subset->n > 0 &&
                (pod == NULL || !hd_labels_match(e->subset, &pod->labels)))
                continue;
            hd_tr_add_endpoint(e, *ip, number, 1, pod,
                               node_named(e->t, ep->node_name.len > 0 ? ep->node_name
                                                : pod != NULL ? pod->pod->node_name
                                                              : HD_STR_NONE));
        }
    }
}

/* "region/zone/subzone" */
static hd_k8s_node_t place_of(hd_str_t locality)
{
    hd_k8s_node_t place = {0};
    hd_str_t *const parts[] = {&place.region, &place.zone, &place.subzone};

    for (unsigned i = 0; i < hd_countof(parts) && locality.len > 0; i++) {
        ssize_t slash = hd_str_find_char(locality, '/');
        size_t end = slash < 0 || i == 2 ? locality.len : (size_t)slash;

        *parts[i] = hd_str_sub(locality, 0, end);
        locality = hd_str_sub(locality, end < locality.len ? end + 1 : end, locality.len);
    }
    return place;
}

/* An endpoint of a ServiceEntry; "unix://" ones are left out. <labels>: a WorkloadEntry
 * has some of its own and some of its metadata. */
static void add_entry(hd_tr_endpoints_t *e, const hd_workload_entry_t *w,
                      const hd_labels_t *labels, const hd_service_port_t *port)
{
    hd_str_t mapped = hd_labels_get(&w->ports, port->name);
    hd_k8s_node_t place = place_of(w->locality);
    uint64_t number = (uint64_t)(port->target != HD_UNSET ? port->target : port->number);

    if (mapped.len > 0 && !hd_str_to_u64(mapped, 65535, &number))
        return;
    if (w->address.len == 0 || hd_str_has_prefix(w->address, HD_STR("unix://")) ||
        (e->subset != NULL && !hd_labels_match(e->subset, labels)))
        return;
    hd_tr_add_endpoint(e, w->address, (int64_t)number,
                       w->weight == HD_UNSET ? 1 : w->weight, NULL, &place);
}

/* WorkloadEntries and Pods that its selector fits (SE-*, WE-*). */
static void add_selected(hd_tr_endpoints_t *e, const hd_object_t *svc,
                         const hd_service_port_t *port)
{
    const hd_labels_t *selector = &svc->service->selector;
    int64_t number = port->target != HD_UNSET ? port->target : port->number;
    size_t n;
    const hd_object_t *const *list =
        hd_tr_list_ns(e->t, HD_KIND_WORKLOAD_ENTRY, svc->ns, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_workload_entry_t *w = list[i]->workload_entry;

        if (!hd_labels_match(selector, &w->labels))
            continue;
        add_entry(e, w, &w->labels, port);
        if (w->service_account.len > 0)
            add_identity(e, svc->ns, w->service_account);
    }
    list = hd_tr_list_ns(e->t, HD_KIND_POD, svc->ns, &n);
    for (size_t i = 0; i < n; i++) {
        const hd_pod_t *pod = list[i]->pod;

        if (!pod->ready || pod->ip.len == 0 ||
            !hd_labels_match(selector, &list[i]->labels) ||
            (e->subset != NULL && !hd_labels_match(e->subset, &list[i]->labels)))
            continue;
        hd_tr_add_endpoint(e, pod->ip, number, 1, list[i],
                           node_named(e->t, pod->node_name));
    }
}

static void add_entries(hd_tr_endpoints_t *e, const hd_object_t *svc,
                        const hd_service_port_t *port)
{
    for (hd_each(w, svc->service->endpoints))
        add_entry(e, w, &w->labels, port);
    if (svc->service->selector.n > 0)
        add_selected(e, svc, port);
}

void hd_tr_gather(hd_tr_endpoints_t *e, const hd_object_t *svc,
                  const hd_service_port_t *port)
{
    size_t n;
    const hd_object_t *const *slices;

    if (svc->kind == HD_KIND_SERVICE_ENTRY) {
        add_entries(e, svc, port);
        return;
    }
    slices = hd_tr_slices_of(e->t, svc, &n);
    e->is_ready = true;
    for (size_t i = 0; i < n; i++)
        add_slice(e, svc, slices[i]->slice, port);
}
